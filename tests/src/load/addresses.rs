//! A capture in which every address of [`super::inventory`] holds one TCP conversation with the internet, through the router of
//! its segment: handshake with the options of a real stack, a question, an answer, and the close.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use anyhow::{Result, ensure};
use etherparse::checksum::Sum16BitWords;
use onenet_core::time::Timestamp;
use serde::Serialize;

use super::inventory::{EDGE, MAX_ADDRESSES, Use, other_use, shared, use_of};
use crate::traffic::{pcap::PcapWriter, random::Random};

/// Microseconds of packet time between the starts of two conversations: all of a million begin within 200 seconds, less than
/// an observation waits until it is told again.
const EVERY: i64 = 200;
/// Starts between two packets of a conversation: five milliseconds.
const APART: u32 = 25;
/// 2026-03-02 09:00:00 UTC.
const BEGIN: i64 = 1_772_442_000_000_000_000;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// Flags, whether it is from the inside, and octets of payload, of each packet of a conversation.
const PACKETS: [(u8, bool, u16); 8] = [
    (SYN, true, 0),
    (SYN | ACK, false, 0),
    (ACK, true, 0),
    (PSH | ACK, true, 40),
    (PSH | ACK, false, 80),
    (FIN | ACK, true, 0),
    (FIN | ACK, false, 0),
    (ACK, true, 0),
];

/// What is in a capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Inhabited {
    /// Packets.
    pub packets: u64,
    /// Octets of the file.
    pub file_bytes: u64,
    /// Different addresses.
    pub addresses: u32,
    /// Of them those that are in use in two address spaces.
    pub shared: u32,
    /// TCP conversations: one for each address and address space.
    pub flows: u32,
    /// Packet time from the first to the last packet, in seconds.
    pub seconds: u32,
}

/// How a host's TCP writes its SYNs: initial time to live, window, options without the timestamp's value.
struct Stack {
    ttl: u8,
    window: u16,
    options: &'static [u8],
    /// Where the timestamp's value stands in the options.
    stamp_at: Option<usize>,
}

/// Linux, Windows, macOS and an embedded device.
const STACKS: [Stack; 4] = [
    Stack {
        ttl: 64,
        window: 64_240,
        options: &[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 7],
        stamp_at: Some(8),
    },
    Stack { ttl: 128, window: 64_240, options: &[2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2], stamp_at: None },
    Stack {
        ttl: 64,
        window: 65_535,
        options: &[2, 4, 5, 0xb4, 1, 3, 3, 6, 1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 4, 2, 0, 0],
        stamp_at: Some(12),
    },
    Stack { ttl: 255, window: 4_096, options: &[2, 4, 5, 0xb4], stamp_at: None },
];

/// One conversation.
struct Conversation {
    inside: Use,
    server: IpAddr,
    port: u16,
    sequence: [u32; 2],
    stack: usize,
}

/// Writes a capture with so many addresses.
pub fn write(path: &Path, seed: u64, addresses: u32) -> Result<Inhabited> {
    ensure!(addresses <= MAX_ADDRESSES, "at most {MAX_ADDRESSES} addresses");
    let twice = shared(addresses);
    let flows = addresses + twice;
    let mut random = Random::for_actor(seed, "addresses");
    let mut writer = PcapWriter::create(path)?;
    let mut frame = Vec::with_capacity(256);
    let (mut file_bytes, mut last) = (24, 0);
    let length = APART * 8;
    // Conversations under way, by their number.
    let mut under_way: Vec<Conversation> = Vec::with_capacity(length as usize);
    for tick in 0..flows + length {
        if tick < flows {
            let new = conversation(tick, addresses, &mut random);
            let place = (tick % length) as usize;
            match under_way.get_mut(place) {
                Some(held) => *held = new,
                None => under_way.push(new),
            }
        }
        for (at, &(flags, from_inside, payload)) in (0_u32..).zip(&PACKETS) {
            let Some(number) = tick.checked_sub(at * APART).filter(|number| *number < flows) else {
                continue;
            };
            let Some(talk) = under_way.get_mut((number % length) as usize) else { continue };
            let micros = i64::from(tick) * EVERY + i64::from(at) * 10;
            talk.frame(flags, from_inside, payload, micros, number, &mut frame);
            writer.write(Timestamp(BEGIN + micros * 1_000), &frame)?;
            file_bytes += 16 + frame.len() as u64;
            last = micros;
        }
    }
    let (packets, _) = writer.finish()?;
    let seconds = u32::try_from(last / 1_000_000).unwrap_or(u32::MAX);
    Ok(Inhabited { packets, file_bytes, addresses, shared: twice, flows, seconds })
}

/// The conversation that begins in a tick; those of the second use of addresses come last.
fn conversation(tick: u32, addresses: u32, random: &mut Random) -> Conversation {
    let inside = match tick.checked_sub(addresses) {
        None => use_of(tick, addresses),
        Some(again) => other_use(use_of(addresses - shared(addresses) + again, addresses)),
    };
    let host = random.below(1 << 12);
    let server = match inside.address {
        // Outside of every special-purpose block.
        IpAddr::V4(_) => Ipv4Addr::from_bits((23 << 24) | (host << 9) | 10).into(),
        IpAddr::V6(_) => {
            Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0, 0, 0, u16::try_from(host).unwrap_or_default()).into()
        }
    };
    let port = random.port(40_000, 61_000);
    let sequence = [random.bits(), random.bits()];
    Conversation { inside, server, port, sequence, stack: random.below(4) as usize }
}

impl Conversation {
    /// Writes the bytes of the next packet.
    fn frame(
        &mut self,
        flags: u8,
        from_inside: bool,
        payload: u16,
        micros: i64,
        number: u32,
        out: &mut Vec<u8>,
    ) {
        out.clear();
        let stack = &STACKS[self.stack];
        let router = self.inside.router();
        let macs = if from_inside { [EDGE, router] } else { [router, EDGE] };
        macs.iter().for_each(|mac| out.extend_from_slice(&mac.0));
        out.extend_from_slice(&0x8100_u16.to_be_bytes());
        out.extend_from_slice(&self.inside.vlan().to_be_bytes());
        let options: &[u8] = if flags & SYN != 0 { stack.options } else { &[] };
        let transport = 20 + u16::try_from(options.len()).unwrap_or(0) + payload;
        let ends =
            if from_inside { [self.inside.address, self.server] } else { [self.server, self.inside.address] };
        // The host is one router away, the server a dozen.
        let ttl = if from_inside { stack.ttl - 1 } else { 52 };
        let mark = u16::try_from(number & 0xffff).unwrap_or_default();
        let pseudo = network(ends, ttl, transport, mark, out);
        let header = out.len();
        let ports = if from_inside { [self.port, 443] } else { [443, self.port] };
        ports.iter().for_each(|port| out.extend_from_slice(&port.to_be_bytes()));
        let [own, other] = if from_inside { [0, 1] } else { [1, 0] };
        let acknowledged = if flags & ACK == 0 { 0 } else { self.sequence[other] };
        out.extend_from_slice(&self.sequence[own].to_be_bytes());
        out.extend_from_slice(&acknowledged.to_be_bytes());
        let words = 5 + u8::try_from(options.len() / 4).unwrap_or(0);
        out.extend_from_slice(&[words << 4, flags]);
        let window = if from_inside { stack.window } else { 65_160 };
        out.extend_from_slice(&window.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        let options_at = out.len();
        out.extend_from_slice(options);
        if let Some(at) = stack.stamp_at.filter(|_| !options.is_empty()) {
            // A thousand ticks a second, since each host started at a time of its own.
            let ticks =
                u32::try_from(micros / 1_000).unwrap_or(0).wrapping_add(number.wrapping_mul(0x9e37_79b1));
            out[options_at + at..options_at + at + 4].copy_from_slice(&ticks.to_be_bytes());
        }
        out.resize(out.len() + usize::from(payload), 0x5a);
        // The sum is over words in the machine's own order, and so is what comes of it (RFC 1071, 2 (B)).
        let sum = pseudo.add_slice(&out[header..]).ones_complement();
        out[header + 16..header + 18].copy_from_slice(&sum.to_ne_bytes());
        self.sequence[own] =
            self.sequence[own].wrapping_add(u32::from(payload) + u32::from(flags & (SYN | FIN) != 0));
    }
}

/// Writes the IP header behind its EtherType; tells the sum over the pseudo header.
fn network(ends: [IpAddr; 2], ttl: u8, transport: u16, mark: u16, out: &mut Vec<u8>) -> Sum16BitWords {
    let mut pseudo = Sum16BitWords::new();
    match ends {
        [IpAddr::V4(source), IpAddr::V4(destination)] => {
            out.extend_from_slice(&0x0800_u16.to_be_bytes());
            let start = out.len();
            out.extend_from_slice(&[0x45, 0]);
            out.extend_from_slice(&(20 + transport).to_be_bytes());
            out.extend_from_slice(&mark.to_be_bytes());
            out.extend_from_slice(&[0x40, 0, ttl, 6, 0, 0]);
            for end in [source, destination] {
                out.extend_from_slice(&end.octets());
                pseudo = pseudo.add_4bytes(end.octets());
            }
            let sum = Sum16BitWords::new().add_slice(&out[start..]).ones_complement();
            out[start + 10..start + 12].copy_from_slice(&sum.to_ne_bytes());
        }
        [source, destination] => {
            out.extend_from_slice(&0x86dd_u16.to_be_bytes());
            out.extend_from_slice(&[0x60, 0, 0, 0]);
            out.extend_from_slice(&transport.to_be_bytes());
            out.extend_from_slice(&[6, ttl]);
            for end in [source, destination] {
                let octets = match end {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                    IpAddr::V6(v6) => v6.octets(),
                };
                out.extend_from_slice(&octets);
                pseudo = pseudo.add_16bytes(octets);
            }
        }
    }
    pseudo.add_2bytes([0, 6]).add_2bytes(transport.to_be_bytes())
}

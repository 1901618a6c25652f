//! A SYN flood at a million packets a second, each from an address of its own, with flows in it that have nothing to
//! do with it and must be found whole: TCP connections, half of them to the very server, and DNS lookups.

use std::{net::Ipv4Addr, path::Path};

use anyhow::{Result, ensure};

use super::{
    flow::{Flow, Kind},
    frame::{Body, Ends, Packet, SYN, render},
    stage::{Canaries, Flood, Stage, Truth},
};
use crate::traffic::random::Random;

/// 10.20.30.40, the server under attack.
const TARGET: u32 = 0x0a14_1e28;

/// MAC address of the router that the flood comes by.
const EDGE: [u8; 6] = [2, 2, 0, 0, 0, 1];

/// SYNs of each millisecond.
const RATE: u32 = 1_000;

/// Canaries of each kind, and the packets of a connection, the milliseconds between them.
const CANARIES: u32 = 500;
const CANARY_PACKETS: u32 = 14;
const CANARY_PACE: u32 = 300;

/// Milliseconds of canaries before the flood.
const LEAD: u32 = 1_000;

/// Writes a capture of so many SYNs.
pub fn write(path: &Path, seed: u64, syns: u32) -> Result<Truth> {
    ensure!(syns >= RATE, "a flood needs at least {RATE} packets");
    let mut stage = Stage::create(path, seed, "canaries", usize::MAX)?;
    stage.truth.canaries = Some(Canaries {
        clients: "10.77.".to_owned(),
        tcp: CANARIES.into(),
        tcp_packets: CANARY_PACKETS.into(),
        dns: CANARIES.into(),
        ..Canaries::default()
    });
    let target = Ipv4Addr::from(TARGET).to_string();
    stage.truth.flood = Some(Flood { target, packets: syns.into() });
    let mut flood = Source::new(seed, syns);
    let length = LEAD + syns / RATE;
    let (mut begun, mut millisecond) = (0, 0);
    while flood.left > 0 || begun < 2 * CANARIES {
        let due = (2 * CANARIES).min((millisecond + 1) * 2 * CANARIES / length + 1);
        for number in begun..due {
            let canary = canary(number, &mut stage.random);
            stage.begin(canary);
        }
        begun = due;
        if millisecond < LEAD {
            stage.tick(&mut |_| None)?;
        } else {
            stage.tick(&mut |frame| flood.next(frame))?;
        }
        millisecond += 1;
    }
    let mut truth = stage.finish()?;
    truth.flows += u64::from(syns);
    *truth.flows_by_protocol.entry(6).or_default() += u64::from(syns);
    Ok(truth)
}

fn canary(number: u32, random: &mut Random) -> Flow {
    let (tcp, turn) = (number.is_multiple_of(2), number / 2);
    let server = if tcp && turn.is_multiple_of(2) { TARGET } else { 0x2d4d_0000 | turn };
    let ends = Ends {
        v6: false,
        client: 0x0a4d_0000 | (number + 256),
        server,
        client_port: 30_000 + u16::try_from(number % 10_000).unwrap_or_default(),
        server_port: if tcp { 80 } else { 53 },
        vlan: None,
    };
    match tcp {
        true => Flow::new(ends, Kind::Talk, CANARY_PACKETS, Some(CANARY_PACE), random),
        false => Flow::new(ends, Kind::Lookup, 2, None, random),
    }
}

/// The SYNs.
struct Source {
    left: u32,
    address: u32,
    random: Random,
}

impl Source {
    fn new(seed: u64, syns: u32) -> Self {
        let mut random = Random::for_actor(seed, "flood");
        Self { left: syns, address: random.bits(), random }
    }

    /// The next SYN, while there is one; tells the octets of its IP packet.
    fn next(&mut self, frame: &mut Vec<u8>) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        // A generator of full period, so no address comes twice; the constants are those of Numerical Recipes.
        loop {
            self.address = self.address.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if is_public(self.address) {
                break;
            }
        }
        let (sequence, port) = (self.random.bits(), self.random.port(1_024, 65_535));
        let ends = Ends {
            v6: false,
            client: self.address,
            server: TARGET,
            client_port: port,
            server_port: 80,
            vlan: None,
        };
        let body = Body::Tcp { flags: SYN, sequence, acknowledgement: 0, stamp: 0 };
        let packet = Packet { from_client: true, body, payload: 0 };
        let mark = u16::try_from(self.left & 0xffff).unwrap_or_default();
        let octets = render(&ends, &packet, mark, &[0; 1 << 17], frame);
        // What comes from the internet comes by the edge router, whatever source it claims.
        if let Some(source) = frame.get_mut(6..12) {
            source.copy_from_slice(&EDGE);
        }
        Some(octets)
    }
}

/// Whether it is an address as hosts on the internet have them, with room around what is special.
fn is_public(address: u32) -> bool {
    let first = address >> 24;
    (11..224).contains(&first) && !matches!(first, 100 | 127 | 169 | 172 | 192 | 198 | 203)
}

//! Ordinary traffic: many small flows, and few large ones that carry most of the bytes.

use std::{collections::HashSet, path::Path};

use anyhow::{Result, ensure};

use super::{
    flow::{Flow, Kind},
    frame::Ends,
    stage::{Stage, Truth},
};
use crate::traffic::random::Random;

/// Milliseconds in which flows begin.
const SPAN: u64 = 300_000;

/// What of each thousand flows are of which kind. The last two are large.
const KINDS: [(u32, Kind); 8] = [
    (450, Kind::Lookup),
    (120, Kind::Datagrams),
    (90, Kind::Attempt),
    (20, Kind::Refused),
    (120, Kind::Talk),
    (20, Kind::Echo),
    (40, Kind::Stream),
    (140, Kind::Transfer),
];

/// Octets of a small flow, and of a packet of a large one, in the file and on average.
const SMALL_FLOW: u64 = 533;
const LARGE_PACKET: u64 = 636;

/// Writes a capture of so many flows in about so many MiB.
pub fn write(path: &Path, seed: u64, flows: u32, mib: u32) -> Result<Truth> {
    ensure!(flows > 0 && mib > 0, "a capture needs at least one flow and one MiB");
    let mut stage = Stage::create(path, seed, "mix", usize::MAX)?;
    let mut choice = Random::for_actor(seed, "mix flows");
    let mut hosts = Hosts::new(flows, &mut choice);
    let drawn: Vec<(Kind, u32)> = (0..flows).map(|_| draw(&mut choice)).collect();
    let large = drawn.iter().filter(|(kind, _)| is_large(*kind));
    let weight: u64 = large.clone().map(|(_, weight)| u64::from(*weight)).sum();
    let small = u64::from(flows) - large.count() as u64;
    let left = (u64::from(mib) << 20).saturating_sub(small * SMALL_FLOW);
    let mut coming = (0_u64..).zip(drawn).peekable();
    for millisecond in 0..=SPAN {
        while let Some((_, (kind, size))) =
            coming.next_if(|(number, _)| number * SPAN / u64::from(flows) <= millisecond)
        {
            let packets = match is_large(kind) {
                true => u32::try_from(left * u64::from(size) / LARGE_PACKET / weight.max(1))?,
                false => size,
            };
            let ends = hosts.ends(kind, &mut choice);
            stage.begin(Flow::new(ends, kind, packets, None, &mut choice));
        }
        stage.tick(&mut |_| None)?;
    }
    stage.finish()
}

fn is_large(kind: Kind) -> bool {
    matches!(kind, Kind::Stream | Kind::Transfer)
}

/// A kind, and its packets; for large ones a weight with a long tail.
fn draw(choice: &mut Random) -> (Kind, u32) {
    let mut left = choice.below(1_000);
    let mut kind = Kind::Transfer;
    for (share, candidate) in KINDS {
        if left < share {
            kind = candidate;
            break;
        }
        left -= share;
    }
    let size = match kind {
        Kind::Lookup | Kind::Refused => 2,
        Kind::Datagrams | Kind::Echo => 2 + 2 * choice.below(3),
        Kind::Attempt => 1 + choice.below(3),
        Kind::Talk => 10 + choice.below(12),
        Kind::Stream | Kind::Transfer => choice.long_tail(1, 10),
    };
    (kind, size)
}

/// Clients and servers, a few of which have most of the flows.
pub(super) struct Hosts {
    clients: u32,
    servers: Vec<u32>,
    taken: HashSet<(Kind, bool, u32, u32, u16, u16)>,
}

impl Hosts {
    pub(super) fn new(flows: u32, choice: &mut Random) -> Self {
        let servers = (0..5_000).map(|_| (11 + choice.below(80)) << 24 | choice.below(1 << 24)).collect();
        Self { clients: flows.clamp(12, 20_000), servers, taken: HashSet::new() }
    }

    /// Ends that no flow of this kind has had.
    pub(super) fn ends(&mut self, kind: Kind, choice: &mut Random) -> Ends {
        loop {
            let server_port = match kind {
                Kind::Lookup => 53,
                Kind::Datagrams => 123,
                Kind::Stream => 443,
                Kind::Echo => 0,
                _ => *choice.pick(&[443, 443, 443, 80, 8080, 22, 993]),
            };
            // Twice drawn, the low numbers are drawn more often.
            let end = choice.below(self.clients) + 1;
            let rank = choice.below(end);
            let servers = u32::try_from(self.servers.len()).unwrap_or(u32::MAX);
            let end = choice.below(servers) + 1;
            let server = choice.below(end);
            let ends = Ends {
                v6: choice.per_mille(120),
                client: client(rank),
                server: self.servers[server as usize],
                // Above every port that a tunnel is known by: what is no tunnel must not be opened as one.
                client_port: choice.port(40_000, 61_000),
                server_port,
                vlan: rank.is_multiple_of(10).then(|| 100 + u16::try_from(rank % 7).unwrap_or_default()),
            };
            let Ends { v6, client, server, client_port, .. } = ends;
            // Echo is told apart by its addresses alone.
            let port = if kind == Kind::Echo { 0 } else { client_port };
            if self.taken.insert((kind, v6, client, server, port, server_port)) {
                return ends;
            }
        }
    }
}

/// Address of a client: spread over 10.0.0.0/10, each number another one.
pub(super) fn client(number: u32) -> u32 {
    // An odd factor permutes the 22 bits.
    0x0a00_0000 | number.wrapping_mul(0x0015_b3a5) & 0x003f_ffff
}

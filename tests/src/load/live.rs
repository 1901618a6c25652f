//! Ordinary traffic with a stated number of flows under way: flows of eight small packets each, in a random order,
//! and as many begin as end. Where the number is small, so many follow each other that the cost of a packet can be
//! measured.

use std::path::Path;

use anyhow::{Result, ensure};

use super::{
    flow::{Flow, Kind},
    frame::Ends,
    mix::client,
    stage::{Stage, Truth},
};

/// Milliseconds from the first packet of a flow to its last.
const LIFE: u32 = 112_000;

/// Packets of a flow, evenly over its life.
const PACKETS: u32 = 8;

/// Octets of each frame that are kept: every header and little more, so that the file stays small.
const SNAP: usize = 96;

/// Writes a capture with so many flows under way at its height, every one of which counts as live to a meter with
/// timeouts of a minute or more. There are `total` flows in all, or `live` where that is more.
pub fn write(path: &Path, seed: u64, live: u32, total: u32) -> Result<Truth> {
    ensure!(live > 0, "a capture needs at least one flow");
    let mut stage = Stage::create(path, seed, &format!("live {live}"), SNAP)?;
    let total = u64::from(live.max(total));
    let (mut begun, mut millisecond) = (0_u64, 0_u64);
    while begun < total {
        // All have begun when the first one is about to end.
        let due = ((millisecond + 1) * u64::from(live) / u64::from(LIFE - 8_000)).min(total);
        for number in begun..due {
            let ends = ends(u32::try_from(number)?);
            // Three of ten are UDP. Of the gaps of a connection, three are neither opening nor closing.
            let (kind, gaps) = if number % 10 < 7 { (Kind::Talk, 3) } else { (Kind::Datagrams, PACKETS - 1) };
            let flow = Flow::new(ends, kind, PACKETS, Some(LIFE / gaps), &mut stage.random);
            stage.begin(flow);
        }
        begun = due;
        stage.tick(&mut |_| None)?;
        millisecond += 1;
    }
    stage.finish()
}

/// Ends of the flow of this number: its client has sixteen flows at most, each with a port of its own.
fn ends(number: u32) -> Ends {
    let (host, turn) = (number % 400_000, number / 400_000);
    let server = number.wrapping_mul(0x9e37_79b1);
    Ends {
        v6: number % 8 == 7,
        client: client(host),
        server: 0x2000_0000 | server >> 12,
        client_port: u16::try_from(20_000 + turn * 1_000 + (server & 0x1ff)).unwrap_or(u16::MAX),
        server_port: 443,
        vlan: None,
    }
}

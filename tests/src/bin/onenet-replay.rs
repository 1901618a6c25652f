//! `onenet-replay`: sends the frames of captures on interfaces, in the order of time, at a stated pace.

use std::{collections::HashMap, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::Parser;
use onenet_agent::source::CaptureSet;
use onenet_core::{
    decode::{InterfaceIndex, LinkType},
    net::Name,
};
use onenet_tests::wire::{Pacer, Wire};

/// Sends the frames of Ethernet captures. Only for wires of one's own: nothing is rewritten.
#[derive(Debug, Parser)]
#[command(name = "onenet-replay", version)]
struct Arguments {
    /// An interface and the capture that is sent on it
    #[arg(required = true, value_name = "INTERFACE=CAPTURE", value_parser = pair)]
    wires: Vec<(String, PathBuf)>,
    /// Frames a second at most, over all interfaces
    #[arg(long, default_value_t = 20_000)]
    pace: u32,
}

fn pair(text: &str) -> Result<(String, PathBuf), String> {
    let (interface, capture) = text.split_once('=').ok_or("expected INTERFACE=CAPTURE")?;
    Ok((interface.to_owned(), PathBuf::from(capture)))
}

fn main() -> ExitCode {
    match replay(&Arguments::parse()) {
        Ok(frames) => {
            println!("{frames}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Sends everything; gives how many frames.
fn replay(arguments: &Arguments) -> Result<u64> {
    let mut wires = HashMap::new();
    for (at, (interface, _)) in (0_u16..).zip(&arguments.wires) {
        wires.insert(InterfaceIndex(at), Wire::open(interface)?);
    }
    let number = |name: &str| {
        let found = (0_u16..).zip(&arguments.wires).find(|(_, (interface, _))| interface == name);
        InterfaceIndex(found.map_or(u16::MAX, |(at, _)| at))
    };
    let paths: Vec<(PathBuf, Option<Name>)> =
        arguments.wires.iter().map(|(name, path)| (path.clone(), Some(name.as_str().into()))).collect();
    let mut captures = CaptureSet::open_each(&paths);
    let mut pacer = Pacer::new(arguments.pace);
    let (mut frames, mut waiting, mut on) = (0_u64, Vec::<Vec<u8>>::new(), InterfaceIndex(0));
    let mut flush = |on: InterfaceIndex, waiting: &mut Vec<Vec<u8>>| -> Result<()> {
        wires.get(&on).context("a capture of no interface")?.send_now(waiting)?;
        pacer.wait(waiting.len());
        waiting.clear();
        Ok(())
    };
    while let Some(packet) = captures.next(&mut |name| number(name)) {
        if packet.link_type != LinkType::ETHERNET || packet.data.len() != packet.wire_length as usize {
            bail!("a packet that is no whole Ethernet frame");
        }
        // In the order of time over all wires: frames of one are sent together only where none of another is between.
        if packet.interface != on || waiting.len() >= 64 {
            flush(on, &mut waiting)?;
            on = packet.interface;
        }
        waiting.push(packet.data.to_vec());
        frames += 1;
    }
    flush(on, &mut waiting)?;
    if let Some(error) = captures.reports().iter().find_map(|report| report.error.as_ref()) {
        bail!("{error}");
    }
    Ok(frames)
}

//! Measures the kernel meter beside the least that a meter can do, and prints JSON: ns per packet by
//! BPF_PROG_TEST_RUN, medians of rounds in which each subject takes its turn, and the time of a drain. Needs the rights
//! to load programs.

use std::{collections::BTreeMap, time::Instant};

use anyhow::Result;
use clap::Parser;
use onenet_core::decode::InterfaceIndex;
use onenet_ebpf::{
    Clock, Hook, Meter, Options, Rates, TestContext,
    bench::{Bench, Subject},
};
use serde_json::{Value, json};

#[derive(Parser)]
struct Arguments {
    /// Rounds, of which the median counts.
    #[arg(long, default_value_t = 7)]
    rounds: u32,
    /// Packets per run.
    #[arg(long, default_value_t = 1_000_000)]
    repeat: u32,
    /// Numbers of flows.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8192, 131_072])]
    flows: Vec<u32>,
    /// Flows that are drained.
    #[arg(long, default_value_t = 262_144)]
    drained: u32,
}

/// A meter that only counts.
fn meter(clock: Clock, first_packets: u8) -> Result<Meter> {
    let mut options = Options::new("none", InterfaceIndex(0));
    options.max_flows = 262_144;
    options.max_flows_v6 = 262_144;
    options.rates = if first_packets == 0 { Rates::NONE } else { Rates::default() };
    options.first_packets = first_packets;
    options.clock = clock;
    Ok(Meter::load(&options, true)?)
}

/// An Ethernet frame of so many bytes with IPv4 or IPv6 and a TCP segment with ACK.
fn frame(length: usize, is_v6: bool) -> Vec<u8> {
    let mut frame =
        [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], if is_v6 { &[0x86, 0xdd] } else { &[8, 0] }].concat();
    let size = |header: usize| u16::try_from(length - header).unwrap_or_default().to_be_bytes();
    if is_v6 {
        let [high, low] = size(54);
        frame.extend([0x60, 0, 0, 0, high, low, 6, 64]);
        frame.extend([[0x20; 16], [0x21; 16]].concat());
    } else {
        let [high, low] = size(14);
        frame.extend([0x45, 0, high, low, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 198, 51, 100, 7]);
    }
    frame.extend([0xc3, 0x50, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 4, 0, 0, 0, 0, 0]);
    frame.resize(length, 0);
    frame
}

fn median(mut of: Vec<u32>) -> u32 {
    of.sort_unstable();
    of.get(of.len() / 2).copied().unwrap_or_default()
}

/// ns of each subject at a number of flows.
fn measure(arguments: &Arguments, flows: u32) -> Result<Value> {
    let mut bench = Bench::load(flows)?;
    let mut exact = meter(Clock::Exact, 0)?;
    let mut coarse = meter(Clock::Coarse, 0)?;
    let mut usual = meter(Clock::Exact, 4)?;
    let (v4, v6, long) = (frame(64, false), frame(78, true), frame(1514, false));
    let mut found: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    // The first round makes the flows.
    for round in 0..=arguments.rounds {
        let mut take = |name: &str, ns: u32| {
            if round > 0 {
                found.entry(name.to_owned()).or_default().push(ns);
            }
        };
        let repeat = arguments.repeat;
        for subject in Subject::ALL {
            let ns =
                if flows == 1 { bench.one(subject, &v4, repeat) } else { bench.many(subject, &v4, repeat) };
            take(subject.name(), ns?);
        }
        let meters =
            [("meter", &mut exact), ("meter, coarse clock", &mut coarse), ("meter, with punts", &mut usual)];
        for (name, meter) in meters {
            for (what, frame) in [("", &v4), (", IPv6", &v6), (", 1514 bytes", &long)] {
                let ns = if flows == 1 {
                    meter.test_run(Hook::Ingress, frame, TestContext::default(), repeat)
                } else {
                    bench.many_of(meter, Hook::Ingress, frame, repeat)
                };
                take(&format!("{name}{what}"), ns?);
            }
        }
        usual.punts(&mut |_| {});
    }
    let medians = found.into_iter().map(|(name, all)| (name, json!(median(all))));
    Ok(json!({ "flows": flows, "ns": medians.collect::<serde_json::Map<_, _>>() }))
}

/// How long a drain of so many flows takes.
fn drain(arguments: &Arguments) -> Result<Value> {
    let mut bench = Bench::load(arguments.drained)?;
    let mut options = Options::new("none", InterfaceIndex(0));
    (options.max_flows, options.max_flows_v6) = (arguments.drained.saturating_mul(2), 1024);
    options.rates = Rates::NONE;
    let mut meter = Meter::load(&options, true)?;
    let mut all = Vec::new();
    let mut flows = 0;
    for _ in 0..arguments.rounds {
        bench.many_of(&mut meter, Hook::Ingress, &frame(64, false), arguments.drained.saturating_mul(8))?;
        let start = Instant::now();
        flows = meter
            .drain(&mut |delta| {
                std::hint::black_box(delta);
            })?
            .flows;
        all.push(u32::try_from(start.elapsed().as_micros())?);
    }
    Ok(json!({ "flows": flows, "microseconds": median(all) }))
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let packets: Vec<Value> =
        arguments.flows.iter().map(|&flows| measure(&arguments, flows)).collect::<Result<_>>()?;
    let report = json!({ "packets": packets, "drain": drain(&arguments)? });
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

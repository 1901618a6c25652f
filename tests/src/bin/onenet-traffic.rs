//! `onenet-traffic`: writes the captures of one working day, or of a hard month of addresses, at both edges, their
//! address plan and the truth.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use onenet_tests::traffic::{Options, generate, month::generate_month};

/// Makes captures of one working day, or of a month, at the Boston and Lowell edges, an address plan and the truth
/// about them. The same seed and scale give the same bytes.
#[derive(Debug, Parser)]
#[command(name = "onenet-traffic", version)]
struct Arguments {
    /// Directory for boston-inside.pcap, boston-outside.pcap, lowell-inside.pcap, lowell-outside.pcap, plan.toml,
    /// boston-interfaces.toml, lowell-interfaces.toml and truth.json; of a month no outside captures, and month.json
    /// in place of truth.json
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Seed of all choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A month of addresses at a low rate instead of a day: hosts that share, move, replace and forge addresses
    #[arg(long)]
    month: bool,
    /// How much ordinary traffic: 1 is some 350,000 packets in all in a day, 700,000 in a month
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options { seed: arguments.seed, scale: arguments.scale };
    if arguments.month {
        return match generate_month(&arguments.out, options) {
            Ok(truth) => {
                println!("{} hosts, {} packets in 30 days", truth.hosts, truth.packets);
                println!("{} addresses of cases", truth.addresses.len());
                ExitCode::SUCCESS
            }
            Err(error) => failed(&error),
        };
    }
    match generate(&arguments.out, options) {
        Ok(truth) => {
            for (name, file) in &truth.files {
                println!("{name}: {} packets, {} bytes", file.packets, file.wire_bytes);
            }
            println!("{} findings planted", truth.findings.len());
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("onenet-traffic: {error:#}");
    ExitCode::FAILURE
}

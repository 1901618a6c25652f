//! `onenet-traffic`: writes the captures of one working day at both edges, their address plan and the truth.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use onenet_tests::traffic::{Options, generate};

/// Makes captures of one working day at the Boston and Lowell edges, an address plan and the truth about them.
/// The same seed and scale give the same bytes.
#[derive(Debug, Parser)]
#[command(name = "onenet-traffic", version)]
struct Arguments {
    /// Directory for boston-inside.pcap, boston-outside.pcap, lowell-inside.pcap, lowell-outside.pcap, plan.toml,
    /// boston-interfaces.toml, lowell-interfaces.toml and truth.json
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Seed of all choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How much ordinary traffic: 1 is some 350,000 packets in all
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match generate(&arguments.out, Options { seed: arguments.seed, scale: arguments.scale }) {
        Ok(truth) => {
            for (name, file) in &truth.files {
                println!("{name}: {} packets, {} bytes", file.packets, file.wire_bytes);
            }
            println!("{} findings planted", truth.findings.len());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("onenet-traffic: {error:#}");
            ExitCode::FAILURE
        }
    }
}

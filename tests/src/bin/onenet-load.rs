//! `onenet-load`: writes a capture for speed runs and prints what is in it as one line of JSON.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use onenet_tests::load::{live, mix, syn};

/// Makes captures for speed runs. The same arguments give the same bytes; what is in a capture is printed as JSON.
#[derive(Debug, Parser)]
#[command(name = "onenet-load", version)]
struct Arguments {
    #[command(subcommand)]
    kind: Kind,
    /// Seed of all choices
    #[arg(long, default_value_t = 1, global = true)]
    seed: u64,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// Ordinary traffic: TCP, UDP and ICMP, IPv4 and IPv6, few large flows among many small ones
    Mix {
        /// File to write
        out: PathBuf,
        /// Flows
        #[arg(long, default_value_t = 250_000, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
        flows: u32,
        /// About how large the file is, in MiB
        #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
        mib: u32,
    },
    /// A SYN flood, each packet from an address of its own, with whole flows in it
    Syn {
        /// File to write
        out: PathBuf,
        /// SYNs
        #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000_000))]
        packets: u32,
    },
    /// Ordinary traffic with a stated number of flows under way
    Live {
        /// File to write
        out: PathBuf,
        /// Flows under way at the height
        #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=6_000_000))]
        flows: u32,
        /// Flows in all, at least: where few are under way, so many follow each other
        #[arg(long, default_value_t = 250_000, value_parser = clap::value_parser!(u32).range(1..=6_000_000))]
        total: u32,
    },
}

fn main() -> ExitCode {
    let Arguments { kind, seed } = Arguments::parse();
    let written = match &kind {
        Kind::Mix { out, flows, mib } => mix::write(out, seed, *flows, *mib),
        Kind::Syn { out, packets } => syn::write(out, seed, *packets),
        Kind::Live { out, flows, total } => live::write(out, seed, *flows, *total),
    };
    match written.and_then(|truth| Ok(serde_json::to_string(&truth)?)) {
        Ok(truth) => {
            println!("{truth}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("onenet-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

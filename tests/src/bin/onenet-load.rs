//! `onenet-load`: writes a capture for speed runs and prints what is in it as one line of JSON.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use onenet_tests::load::{addresses, inventory, live, mix, syn};
use serde_json::json;

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
    /// A stated number of inside addresses, each with one conversation through the router of its segment
    Addresses {
        /// File to write
        out: PathBuf,
        /// Addresses
        #[arg(long, default_value_t = 1_000_000, value_parser = addresses_within())]
        addresses: u32,
    },
    /// The address plan of those addresses, with a stated number of claims
    Plan {
        /// File to write
        out: PathBuf,
        /// Claims
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        prefixes: u32,
    },
    /// The same as NetBox exports it: prefixes.csv, addresses.csv, and a plan.toml without claims to import them into
    Sheets {
        /// Folder to write to
        out: PathBuf,
        /// Rows of prefixes.csv
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        prefixes: u32,
        /// Rows of addresses.csv
        #[arg(long, default_value_t = 1_000_000, value_parser = addresses_within())]
        rows: u32,
    },
}

fn addresses_within() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(inventory::MAX_ADDRESSES))
}

fn main() -> ExitCode {
    let Arguments { kind, seed } = Arguments::parse();
    match write(&kind, seed) {
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

/// Writes what is asked for; what is in it, as JSON.
fn write(kind: &Kind, seed: u64) -> anyhow::Result<String> {
    Ok(match kind {
        Kind::Mix { out, flows, mib } => serde_json::to_string(&mix::write(out, seed, *flows, *mib)?)?,
        Kind::Syn { out, packets } => serde_json::to_string(&syn::write(out, seed, *packets)?)?,
        Kind::Live { out, flows, total } => serde_json::to_string(&live::write(out, seed, *flows, *total)?)?,
        Kind::Addresses { out, addresses } => {
            serde_json::to_string(&addresses::write(out, seed, *addresses)?)?
        }
        Kind::Plan { out, prefixes } => {
            json!({ "prefixes": inventory::write_plan(out, seed, *prefixes)? }).to_string()
        }
        Kind::Sheets { out, prefixes, rows } => {
            let (prefixes, rows) = inventory::write_sheets(out, seed, *prefixes, *rows)?;
            json!({ "prefixes": prefixes, "rows": rows }).to_string()
        }
    })
}

//! `onenet-feed`: an agent that is fed with numbered flow records instead of packets.

use std::{num::NonZeroU64, path::PathBuf, process::ExitCode};

use clap::Parser;
use onenet_agent::run::{Feed, run_feed};
use onenet_tests::feed::{Flows, Order};

/// Ships numbered flow records by the agent's own batcher, sealer, spool and shipper, under an agent's configuration
/// (its sources are not looked at) and with the keys that the agent enrolled with.
#[derive(Debug, Parser)]
#[command(name = "onenet-feed", version)]
struct Arguments {
    /// Configuration of the agent
    #[arg(long)]
    config: PathBuf,
    /// Flows in all
    #[arg(long, default_value_t = u64::MAX)]
    flows: u64,
    /// Seed; agents whose flows are to be told apart have different ones
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Flows a second at most
    #[arg(long)]
    rate: Option<u64>,
    /// Make flows before this number without regard to the rate, as a run that goes on behind an earlier one should
    #[arg(long, default_value_t = 0)]
    at_once: u64,
    /// Address observations with each thousand flows
    #[arg(long, default_value_t = 0)]
    observations: u64,
    /// Site of the records
    #[arg(long, default_value = "boston")]
    site: String,
    /// Like an interface: what the spool has no room for is shed, and a restart begins with new records. Otherwise like
    /// a capture: it waits, and a restart goes on behind what is sealed
    #[arg(long)]
    live: bool,
    /// Exit once everything is acknowledged
    #[arg(long)]
    until_end: bool,
    /// File that tells how many flows have been made
    #[arg(long)]
    truth: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Arguments { flows, seed, rate, at_once, observations, site, truth, .. } = arguments;
    let order = Order { seed, flows, rate, at_once, observations, site, truth };
    let repeats = if arguments.live { None } else { NonZeroU64::new(seed.max(1)) };
    let feed = Feed { source: Box::new(Flows::new(order)), repeats };
    match run_feed(&arguments.config, arguments.until_end, feed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("onenet-feed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

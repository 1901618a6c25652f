//! `onenet-agent read`: captures in, records and a summary out, without a collector.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use onenet_core::{
    flow::{ChecksumMode, FragmentMode, TunnelFlows},
    net::Name,
    record::{DropStage, FindingChange, FlowRecord, Observation, RecordSink},
    sensor::Sensor,
};
use ring::rand::{SecureRandom, SystemRandom};

use crate::{
    config::{Config, Purpose},
    error::{AlreadyTold, UsageError},
    explain,
    intake::{Destination, Intake},
    interrupt::Interrupt,
    output::{self, Format, Output, OutputError},
    progress::Progress,
    source::{CaptureDrops, CaptureSet},
    summary::Summary,
    tally::{FlowTally, Tally},
};

/// Arguments of `read`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ReadArgs {
    /// Capture files: pcap or pcapng, plain or gzip; `-` is standard input. Several are read as one, in the
    /// order of packet time
    #[arg(value_name = "CAPTURE", required = true)]
    captures: Vec<PathBuf>,
    /// Configuration with an address plan; without one RFC 1918 and ULA addresses count as inside
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How flows, observations and findings are written
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// Write flows here; `-` is standard output, where they go unless something else does
    #[arg(long, value_name = "PATH")]
    flows: Option<PathBuf>,
    /// Write address observations here
    #[arg(long, value_name = "PATH")]
    observations: Option<PathBuf>,
    /// Write findings here: one record for each change of one
    #[arg(long, value_name = "PATH")]
    findings: Option<PathBuf>,
    /// Write the summary here, as JSON
    #[arg(long, value_name = "PATH")]
    summary: Option<PathBuf>,
    /// Count every packet as captured on this interface, whatever the captures say
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Which flows a packet in a tunnel counts to; else as the configuration says
    #[arg(long, value_enum, value_name = "WHICH")]
    tunnels: Option<Tunnels>,
    /// Seed of the Community ID; else the configuration's, or else 0
    #[arg(long, value_name = "0..65535")]
    community_id_seed: Option<u16>,
    /// What becomes of packets with a wrong checksum; else as the configuration says
    #[arg(long, value_enum, value_name = "MODE")]
    checksums: Option<Checksums>,
    /// What a fragmented datagram counts as; else as the configuration says
    #[arg(long, value_enum, value_name = "MODE")]
    fragments: Option<Fragments>,
    /// Threads to read with: 1, or 2, where the flow table runs on one, and reading, rules and output on the other.
    /// The records are the same
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    threads: u8,
    /// Print how packet N was decoded and which flow it counted to, and nothing else; N counts from 1, as
    /// tshark numbers frames
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..),
        conflicts_with_all = ["flows", "observations", "findings", "summary", "format", "threads"]
    )]
    explain: Option<u64>,
    /// Print neither progress nor summary
    #[arg(long, short)]
    quiet: bool,
}

/// `flow.tunnels` on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Tunnels {
    /// The tunnel's flow and the one inside, which names it in tunnel_parents (as by default)
    Both,
    /// The innermost flow alone
    Inner,
    /// The tunnel's flow alone
    Outer,
}

impl From<Tunnels> for TunnelFlows {
    fn from(tunnels: Tunnels) -> Self {
        match tunnels {
            Tunnels::Both => Self::Both,
            Tunnels::Inner => Self::Inner,
            Tunnels::Outer => Self::Outer,
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  onenet-agent read edge.pcap                          flows as JSON lines, then a summary
  onenet-agent read edge.pcap > flows.ndjson           the summary alone on the terminal
  onenet-agent read --findings - day/*.pcap.gz         only what needs somebody
  onenet-agent read --format zeek edge.pcap > conn.log for zeek-cut and RITA
  tcpdump -i eth0 -w - | onenet-agent read -           live, without a collector
  onenet-agent read --explain 17 edge.pcap             how packet 17 was decoded, layer by layer
  onenet-agent read --config agent.toml --format csv --flows f.csv --summary s.json edge.pcap

Exit code: 0; 1 where a capture could not be read to its end (what came before counts);
2 for wrong usage or configuration. docs/records.md states every field.";

/// `--checksums`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Checksums {
    /// Counted as any other packet, and flagged (the default)
    Ignore,
    /// Left out of every count but that of wrong checksums, as their receiver would; `c` in the history
    Verify,
    /// Not looked at
    Skip,
}

/// `--fragments`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Fragments {
    /// Each fragment is a packet, as on the wire (the default)
    Counted,
    /// The datagram is one packet, once all of it was seen
    Reassembled,
}

impl From<Checksums> for ChecksumMode {
    fn from(mode: Checksums) -> Self {
        match mode {
            Checksums::Ignore => Self::Ignore,
            Checksums::Verify => Self::Verify,
            Checksums::Skip => Self::Skip,
        }
    }
}

impl From<Fragments> for FragmentMode {
    fn from(mode: Fragments) -> Self {
        match mode {
            Fragments::Counted => Self::Counted,
            Fragments::Reassembled => Self::Reassembled,
        }
    }
}

/// Where the records go.
struct Records {
    flows: Option<Output<FlowRecord>>,
    observations: Option<Output<Observation>>,
    findings: Option<Output<FindingChange>>,
    tally: Tally,
    ending: Ending,
    /// Whether the summary is written to a file, whatever becomes of the records.
    has_summary: bool,
}

/// Why records can no longer be written.
#[derive(Default)]
struct Ending {
    failure: Option<OutputError>,
    /// The reader of a pipe has what it wanted, as `head` does.
    pipe_closed: bool,
}

impl RecordSink for Records {
    fn flow(&mut self, record: &FlowRecord) {
        self.tally.flow(record);
        self.ending.write(&mut self.flows, record);
    }

    fn observation(&mut self, observation: &Observation) {
        self.tally.observation(observation);
        self.ending.write(&mut self.observations, observation);
    }

    fn finding(&mut self, change: &FindingChange) {
        self.tally.finding(change);
        self.ending.write(&mut self.findings, change);
    }

    /// The tally does not read them.
    fn wants_identities(&self) -> bool {
        self.flows.is_some()
    }
}

impl Ending {
    /// Writes a record where its output is open.
    fn write<R>(&mut self, output: &mut Option<Output<R>>, record: &R) {
        let written = output.as_mut().map_or(Ok(()), |open| open.write(record));
        if written.is_err() {
            *output = None;
        }
        self.take(written);
    }

    /// Completes an output.
    fn finish<R>(&mut self, output: Option<Output<R>>) {
        self.take(output.map_or(Ok(()), |mut open| open.finish()));
    }

    fn take(&mut self, written: Result<(), OutputError>) {
        match written {
            Err(error) if error.is_closed_pipe() => self.pipe_closed = true,
            Err(error) => {
                self.failure.get_or_insert(error);
            }
            Ok(()) => {}
        }
    }
}

impl Records {
    fn open(args: &ReadArgs) -> Result<Self, anyhow::Error> {
        let outputs = args.outputs();
        output::check_distinct(&args.captures, &outputs)?;
        let flush_each = args.live() || io::stdout().is_terminal();
        let path = |option| outputs.iter().find(|(name, _)| *name == option).map(|(_, path)| *path);
        Ok(Self {
            flows: path("--flows").map(|path| Output::flows(path, args.format, flush_each)).transpose()?,
            observations: path("--observations")
                .map(|path| Output::records(path, args.format, flush_each))
                .transpose()?,
            findings: path("--findings")
                .map(|path| Output::records(path, args.format, flush_each))
                .transpose()?,
            tally: Tally::default(),
            ending: Ending::default(),
            has_summary: args.summary.is_some(),
        })
    }
}

impl Destination for Records {
    fn unwanted(&self) -> bool {
        let open = self.flows.is_some() || self.observations.is_some() || self.findings.is_some();
        self.ending.failure.is_some() || (self.ending.pipe_closed && !open && !self.has_summary)
    }

    fn give_flows(&mut self) -> Option<FlowTally> {
        self.flows.is_none().then(|| std::mem::take(&mut self.tally.of_flows))
    }

    fn take_flows(&mut self, flows: FlowTally) {
        self.tally.of_flows = flows;
    }
}

impl ReadArgs {
    /// The configuration, with what the command line says of it.
    fn configuration(&self) -> Result<Config, anyhow::Error> {
        let mut config = match &self.config {
            Some(path) => Config::load(path, Purpose::Read)?,
            None => Config::default(),
        };
        if let Some(tunnels) = self.tunnels {
            config.flow.tunnels = tunnels.into();
        }
        if let Some(seed) = self.community_id_seed {
            config.flow.community_id_seed = seed;
        }
        if let Some(mode) = self.checksums {
            config.flow.checksums = mode.into();
        }
        if let Some(mode) = self.fragments {
            config.flow.fragments = mode.into();
        }
        Ok(config)
    }

    /// Whether packets come from a pipe, as they happen, and somebody may be waiting for the records.
    fn live(&self) -> bool {
        self.captures.iter().any(|path| path.as_path() == Path::new("-") || path.exists() && !path.is_file())
    }

    /// What is written where. Flows go to standard output unless they have a place, or something else does.
    fn outputs(&self) -> Vec<(&'static str, &Path)> {
        let mut outputs: Vec<(&str, &Path)> = [
            ("--observations", self.observations.as_deref()),
            ("--findings", self.findings.as_deref()),
            ("--summary", self.summary.as_deref()),
        ]
        .into_iter()
        .filter_map(|(option, path)| Some((option, path?)))
        .collect();
        let stdout = Path::new("-");
        match &self.flows {
            Some(path) => outputs.push(("--flows", path)),
            None if outputs.iter().all(|(_, path)| *path != stdout) => outputs.push(("--flows", stdout)),
            None => {}
        }
        outputs
    }
}

/// Runs the command.
pub fn read(args: &ReadArgs) -> Result<(), anyhow::Error> {
    if args.captures.iter().filter(|path| path.as_path() == Path::new("-")).count() > 1 {
        return Err(UsageError("standard input (-) is named twice among the captures".to_owned()).into());
    }
    if args.explain.is_some() && args.captures.len() > 1 {
        let named = args.captures.len();
        return Err(UsageError(format!("--explain takes one capture, {named} are named")).into());
    }
    let config = args.configuration()?;
    let mut sensor = config.sensor(hash_seed()?)?;
    let mut captures = CaptureSet::open(&args.captures, args.interface.as_deref().map(Name::from));
    if captures.reports().iter().all(|report| report.format.is_none()) {
        // Nothing is to be written over the results of an earlier reading.
        return tell_errors(&captures);
    }
    if let (Some(number), Some(path)) = (args.explain, args.captures.first()) {
        return explain::explain(number, path, &config, &mut sensor, &mut captures);
    }
    let mut records = Records::open(args)?;
    let to_terminal =
        io::stdout().is_terminal() && args.outputs().iter().any(|(_, path)| *path == Path::new("-"));
    let mut progress = Progress::new(args.quiet || to_terminal);
    let interrupt = Interrupt::watch()?;
    let mut intake = Intake {
        config: &config,
        captures: &mut captures,
        progress: &mut progress,
        interrupt: &interrupt,
        live: args.live(),
    };
    intake.run(args.threads.into(), &mut sensor, &mut records);
    progress.finish();
    if !records.unwanted() {
        sensor.finish(&mut records);
    }
    let Records { flows, observations, findings, mut tally, mut ending, .. } = records;
    ending.finish(flows);
    ending.finish(observations);
    ending.finish(findings);
    if let Some(error) = ending.failure {
        return Err(error.into());
    }
    conclude(args, &mut sensor, &mut tally, &captures, ending.pipe_closed)?;
    // Ctrl-C is the way to end a live capture; a file it leaves half read.
    if interrupt.asked() && !args.live() {
        return Err(anyhow!("interrupted; the packets read until then are counted"));
    }
    Ok(())
}

/// Enters what the captures lost into the ledger, and tells the summary.
fn conclude(
    args: &ReadArgs,
    sensor: &mut Sensor,
    tally: &mut Tally,
    captures: &CaptureSet,
    pipe_closed: bool,
) -> Result<(), anyhow::Error> {
    let drops = captures.reports().iter().fold(Default::default(), |sum: CaptureDrops, r| sum.plus(r.drops));
    sensor.ledger_mut().set_dropped(DropStage::Interface, drops.interface);
    sensor.ledger_mut().set_dropped(DropStage::Kernel, drops.kernel);
    let summary = Summary::new(captures.reports(), sensor.ledger(), tally);
    if let Some(path) = &args.summary {
        write_summary(&summary, path)?;
    }
    if pipe_closed {
        return Ok(());
    }
    if !args.quiet {
        // Nobody is left to tell where standard error is closed.
        let _ = summary.write(&mut io::stderr().lock());
    }
    tell_errors(captures)
}

fn write_summary(summary: &Summary<'_>, path: &Path) -> Result<(), anyhow::Error> {
    let mut text = serde_json::to_vec_pretty(summary)?;
    text.push(b'\n');
    let mut out = output::create(path)?;
    match out.write_all(&text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.with_context(|| format!("{}: cannot be written", path.display())),
    }
}

/// One line for each capture that could not be read to its end.
fn tell_errors(captures: &CaptureSet) -> Result<(), anyhow::Error> {
    let errors: Vec<_> = captures.reports().iter().filter_map(|report| report.error.as_ref()).collect();
    for error in &errors {
        eprintln!("error: {error}");
    }
    if errors.is_empty() { Ok(()) } else { Err(AlreadyTold.into()) }
}

/// A key for the engine's hash tables that nobody outside can know.
fn hash_seed() -> Result<[u64; 4], anyhow::Error> {
    let mut seed = [0; 4];
    for word in &mut seed {
        let mut bytes = [0; 8];
        SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow!("the system gives no random bytes"))?;
        *word = u64::from_le_bytes(bytes);
    }
    Ok(seed)
}

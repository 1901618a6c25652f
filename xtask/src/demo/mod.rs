//! `cargo xtask demo`: both edges and the collector on this machine, from packets to the SIEM.

mod account;
mod captures;
mod edge;
mod live;

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};

use self::edge::Edge;
use crate::{
    collector,
    programs::{Background, output, path},
    say, setup,
};

/// The two edges.
const SITES: [&str; 2] = ["boston", "lowell"];

/// How long the transfer may take after the last packet is read.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the demo runs on, and when it stops.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Stop after the table; exit 0 only if the account balances and the findings equal the truth.
    #[arg(long)]
    once: bool,
    /// Run on every capture in this folder instead, spread over the two sites, without truth.
    #[arg(long, value_name = "DIR")]
    captures: Option<PathBuf>,
    /// Send the traffic on wires, to sensors on interfaces in network namespaces (needs root).
    #[arg(long, conflicts_with = "captures")]
    live: bool,
    /// Keep captures, configurations, stores and logs in this folder (it must be empty or new).
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Seed of the generated traffic; the same seed gives the same packets.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Where everything of one demo is, and the addresses it listens on.
struct Stage {
    dir: PathBuf,
    /// Whether `dir` goes when the demo ends.
    temporary: bool,
    /// The programs' folder.
    programs: PathBuf,
    ingest: SocketAddr,
    web: SocketAddr,
    /// The page's address for whoever reads this.
    page: SocketAddr,
    /// Whether the sensors are on interfaces, in namespaces.
    live: bool,
}

impl Stage {
    fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    fn collector_dir(&self) -> PathBuf {
        self.dir.join("collector")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.temporary {
            // Nobody asked to keep it; a failure to remove it harms nobody and has no one to tell.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Runs the demo.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let inside = live::inside()?;
    let programs = if inside.is_some() {
        built()
    } else {
        setup::install(if arguments.live { setup::Purpose::Live } else { setup::Purpose::Build })?;
        build()?
    };
    if arguments.live && inside.is_none() {
        // Ctrl-C is for the program within.
        let ignored = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&ignored))?;
        }
        return live::enter();
    }
    // From here on Ctrl-C must stop what was started, so it sets a flag instead of ending this process.
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let stage = prepare(arguments, programs, inside.as_ref())?;
    let traffic = match &arguments.captures {
        Some(dir) => captures::find(dir, &SITES)?,
        None => captures::generate(&stage, arguments.seed, &SITES)?,
    };

    let mut collector = start_collector(&stage, traffic.plan.as_deref(), &interrupted)?;
    if let Some(inside) = &inside {
        inside.serve(stage.web)?;
    }
    let mut edges = Vec::new();
    for (number, site) in (1..).zip(&traffic.sites) {
        if stage.live {
            live::make_edge(site, number)?;
        }
        edges.push(Edge::enrol(&stage, site, traffic.plan.as_deref())?);
    }
    if stage.live {
        run_live(&stage, &traffic.sites, &mut edges, &mut collector, &interrupted)?;
    } else {
        say("both agents read their captures and ship sealed batches");
        for edge in &mut edges {
            edge.start(&stage)?;
        }
        wait_until_delivered(&stage, &mut edges, &mut collector, &interrupted)?;
    }

    let verdict = account::print(&stage, &mut edges, traffic.truth.as_deref())?;
    if arguments.once {
        for edge in &mut edges {
            edge.stop()?;
        }
        collector.stop()?;
        panics(&edges, &collector)?;
        if arguments.dir.is_some() {
            eprintln!("Everything is kept in {}", stage.dir.display());
        }
        return Ok(if verdict { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    eprintln!("\nThe collector goes on serving http://{}/ until Ctrl-C.", stage.page);
    while !interrupted.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
        collector.must_live()?;
    }
    say("stopping both agents and the collector");
    for edge in &mut edges {
        edge.stop()?;
    }
    collector.stop()?;
    Ok(ExitCode::SUCCESS)
}

/// Builds the three programs and gives their folder.
fn build() -> Result<PathBuf> {
    let arguments = [
        "build",
        "--release",
        "--locked",
        "-p",
        "onenet-agent",
        "-p",
        "onenet-collector",
        "-p",
        "onenet-tests",
        "--bins",
    ];
    say(&format!("cargo {} (the first time takes some minutes)", arguments.join(" ")));
    let status = crate::cargo().args(arguments).status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the build failed ({status})");
    }
    Ok(built())
}

/// Folder of the programs once they are built.
fn built() -> PathBuf {
    crate::target().join("release")
}

/// Starts the agents on their interfaces, sends the day's frames, and stops the agents once they have taken them all.
fn run_live(
    stage: &Stage,
    sites: &[captures::SiteTraffic],
    edges: &mut [Edge],
    collector: &mut Background,
    interrupted: &AtomicBool,
) -> Result<()> {
    for edge in &mut *edges {
        edge.start(stage)?;
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    for edge in &mut *edges {
        while !edge.is_running(stage)? {
            check(interrupted)?;
            if Instant::now() > deadline {
                bail!("{} does not run; the logs are in {}", edge.sensor, stage.dir.display());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    let sent = live::send(stage, sites)?;
    collector.must_live()?;
    say("both agents end their flows and ship what is left");
    for (edge, frames) in edges.iter_mut().zip(sent) {
        edge.stop()?;
        let status = edge.status(stage)?;
        let seen = status.packets + status.dropped;
        eprintln!(
            "    {}: {frames} frames sent on its wires, {seen} seen ({})",
            edge.sensor,
            edge.methods(stage)?
        );
    }
    Ok(())
}

/// A folder that no other demo has.
fn own_folder() -> PathBuf {
    std::env::temp_dir().join(format!("onenet-demo-{}", std::process::id()))
}

/// Makes the folder and finds free ports.
fn prepare(arguments: &Arguments, programs: PathBuf, inside: Option<&live::Inside>) -> Result<Stage> {
    let (dir, temporary) = match &arguments.dir {
        Some(dir) => (dir.clone(), false),
        None => (inside.map_or_else(own_folder, live::Inside::folder), true),
    };
    let occupied = fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some());
    if occupied {
        bail!("{} is not empty; give --dir an empty or a new folder", dir.display());
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    let dir = dir.canonicalize()?;
    let (ingest, web) = free_addresses(if arguments.live { live::CENTRE } else { "127.0.0.1" })?;
    let page = inside.map_or(web, |inside| inside.page);
    Ok(Stage { dir, temporary, programs, ingest, web, page, live: arguments.live })
}

/// Two free addresses, for sensors and for the page, which is on loopback. Both stay taken until both are known, so
/// that they differ.
fn free_addresses(centre: &str) -> Result<(SocketAddr, SocketAddr)> {
    let (one, two) = (TcpListener::bind((centre, 0))?, TcpListener::bind("127.0.0.1:0")?);
    Ok((one.local_addr()?, two.local_addr()?))
}

fn start_collector(stage: &Stage, plan: Option<&Path>, interrupted: &AtomicBool) -> Result<Background> {
    let dir = stage.collector_dir();
    say(&format!("a collector in {}", dir.display()));
    let (ingest, web) = (stage.ingest.to_string(), stage.web.to_string());
    let program = stage.program("onenet-collector");
    output(
        &program,
        &["init", "--dir", path(&dir)?, "--name", "localhost", "--listen", &ingest, "--web", &web],
    )?;
    if let Some(plan) = plan {
        fs::copy(plan, dir.join("plan.toml")).context("cannot copy the address plan")?;
    }
    let log = stage.dir.join("collector.log");
    let mut collector = Background::start("onenet-collector", &program, &["run", "--dir", path(&dir)?], log)?;
    collector::await_answer(&mut collector, stage.web, || check(interrupted))?;
    Ok(collector)
}

/// Waits until each agent has read everything and the collector has acked all that was sealed.
fn wait_until_delivered(
    stage: &Stage,
    edges: &mut [Edge],
    collector: &mut Background,
    interrupted: &AtomicBool,
) -> Result<()> {
    let mut deadline = Instant::now() + PATIENCE;
    let mut told = Instant::now();
    let mut before = 0;
    loop {
        check(interrupted)?;
        collector.must_live()?;
        let mut packets = 0;
        let mut done = true;
        for edge in &mut *edges {
            let status = edge.status(stage)?;
            packets += status.packets;
            done &= status.delivered;
        }
        if done {
            return Ok(());
        }
        if packets > before {
            (before, deadline) = (packets, Instant::now() + PATIENCE);
        }
        if told.elapsed() > Duration::from_secs(5) {
            told = Instant::now();
            eprintln!("    {packets} packets read");
        }
        if Instant::now() > deadline {
            bail!("nothing moved for {} s; the logs are in {}", PATIENCE.as_secs(), stage.dir.display());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn check(interrupted: &AtomicBool) -> Result<()> {
    if interrupted.load(Ordering::Relaxed) { bail!("interrupted") } else { Ok(()) }
}

/// A panic in a log is a defect even where the account balances.
fn panics(edges: &[Edge], collector: &Background) -> Result<()> {
    for program in edges.iter().filter_map(Edge::agent).chain([collector]) {
        if program.log().contains("panicked at") {
            bail!("{} panicked:\n{}", program.name(), program.log());
        }
    }
    Ok(())
}

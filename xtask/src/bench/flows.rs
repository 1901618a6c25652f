//! `cargo xtask bench flows`: peers and the agent in turn on the same captures.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    build,
    captures::{Capture, make, make_shared, remove},
    check::{self, FloodSeen},
    document, folder,
    peers::{self, Peer, Seen, YARDSTICK},
    rounds::{self, Row, Runner, grouped, table},
};
use crate::{say, setup, workspace};

/// How to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Small captures and three rounds, as a check that everything runs; writes no document.
    #[arg(long)]
    quick: bool,
    /// Use the captures of tools/mkbig.py in this folder, so that figures compare with others taken on them.
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = "../shared")]
    shared: Option<PathBuf>,
    /// Rounds of each program; one that takes long is run once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    rounds: Option<u8>,
    /// Folder of onenet-agent and onenet-load; they are built as they are shipped where none is named.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Run the agent and the floor alone, no peers.
    #[arg(long)]
    no_peers: bool,
    /// Only these captures.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["mix", "syn", "live"])]
    only: Vec<Part>,
    /// Keep the captures of the live series, which are large.
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Mix,
    Syn,
    Live,
}

/// Longest that a program may take on one capture.
const LIMIT: Duration = Duration::from_secs(180);

/// The row of the agent that the targets are about, and the one with every flow written.
const SUMMARY: &str = "**onenet-agent**, summary";
const NDJSON: &str = "**onenet-agent**, every flow as NDJSON";
const THREADS: &str = "**onenet-agent**, summary, 2 threads";
const FLOOR: &str = "libpcap loop in C (floor)";

/// Live flows of the series.
const LIVE: [u32; 4] = [10_000, 100_000, 1_000_000, 4_000_000];

/// What the runs need.
struct Stage {
    folder: PathBuf,
    agent: String,
    generator: PathBuf,
    floor: String,
    peers: Vec<Peer>,
    threads: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let begun = Instant::now();
    let stage = prepare(arguments)?;
    let wanted = |part| arguments.only.contains(&part);
    let mut parts: Vec<(&str, String)> = Vec::new();
    let mut targets = Vec::new();
    let mut failed = false;
    if wanted(Part::Mix) {
        let (text, judged, whole) = mix(&stage, arguments)?;
        parts.push(("mix", text));
        targets.extend(judged);
        failed |= !whole;
    }
    if wanted(Part::Syn) {
        let (text, judged, whole) = syn(&stage, arguments)?;
        parts.push(("syn", text));
        targets.extend(judged);
        failed |= !whole;
    }
    if wanted(Part::Live) {
        let (text, judged, whole) = live(&stage, arguments)?;
        parts.push(("live", text));
        targets.extend(judged);
        failed |= !whole;
    }
    if arguments.only.len() == 3 {
        parts.push(("targets", judgement(&targets)));
        parts.push(("machine", format!("{}\n", document::machine())));
    }
    for (name, text) in &parts {
        println!("## {name}\n\n{text}");
        if !arguments.quick && arguments.shared.is_none() && !arguments.no_peers {
            document::write(name, &format!("\n{text}\n"))?;
        }
    }
    say(&format!("took {} s", begun.elapsed().as_secs()));
    if failed {
        say("what was seen is NOT what is in the captures: see FAILED above");
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn prepare(arguments: &Arguments) -> Result<Stage> {
    setup::install(setup::Purpose::Build)?;
    let peers = if arguments.no_peers { Vec::new() } else { peers::install() };
    let programs = match &arguments.programs {
        Some(folder) => folder.clone(),
        None => build(&[("onenet-agent", "onenet-agent"), ("onenet-tests", "onenet-load")])?,
    };
    let folder = folder()?;
    let floor = folder.join("floor");
    let source = workspace().join("xtask/src/bench/floor.c");
    let (source, floor) = (text(&source)?, text(&floor)?);
    crate::programs::output(Path::new("cc"), &["-O2", "-o", &floor, &source, "-lpcap"])?;
    let agent = programs.join("onenet-agent");
    let help = crate::programs::output(&agent, &["read", "--help"])?;
    let threads = help.contains("--threads");
    Ok(Stage { folder, agent: text(&agent)?, generator: programs.join("onenet-load"), floor, peers, threads })
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).context("a path that is not UTF-8")
}

/// Rounds where none are stated.
fn rounds(arguments: &Arguments) -> usize {
    arguments.rounds.map_or(if arguments.quick { 3 } else { 5 }, usize::from)
}

impl Stage {
    /// The agent with these options on a capture. Its summary goes to standard output, and where no option says
    /// where flows go, they go nowhere.
    fn ours<'a>(&'a self, name: &str, capture: &'a Capture, options: Vec<String>) -> Runner<'a> {
        Runner {
            name: name.to_owned(),
            command: Box::new(move || {
                let fixed = [self.agent.as_str(), "read", "--quiet", "--summary", "-"].map(str::to_owned);
                Ok([&fixed[..], &options, &[text(&capture.path)?]].concat())
            }),
            check: Box::new(move |said| check::summary(said, capture)),
            sleeps: 0.0,
        }
    }

    fn floor<'a>(&'a self, capture: &'a Capture) -> Runner<'a> {
        Runner {
            name: FLOOR.to_owned(),
            command: Box::new(move || Ok(vec![self.floor.clone(), text(&capture.path)?])),
            check: Box::new(move |said| {
                let packets = said.split(' ').nth(1).and_then(|word| word.parse().ok());
                check::peer(Seen { packets: Some(packets.unwrap_or_default()), flows: None }, capture)
            }),
            sleeps: 0.0,
        }
    }

    fn peer<'a>(&'a self, peer: &'a Peer, capture: &'a Capture) -> Runner<'a> {
        let flows = capture.count("flows");
        Runner {
            name: peer.name.to_owned(),
            command: Box::new(move || peer.command(&capture.path, flows, &self.folder.join("scratch"))),
            check: Box::new(move |said| check::peer(peer.seen(said), capture)),
            sleeps: peer.sleeps,
        }
    }

    fn said(&self) -> PathBuf {
        self.folder.join("said.txt")
    }
}

type Measured = (String, Vec<(String, Option<bool>)>, bool);

fn mix(stage: &Stage, arguments: &Arguments) -> Result<Measured> {
    let options: &[&str] = if arguments.quick {
        &["--mib", "64", "--flows", "15625"]
    } else {
        &["--mib", "1024", "--flows", "250000"]
    };
    let capture = match &arguments.shared {
        Some(shared) => make_shared(shared, &stage.folder, "mix", &[options, &["--seed", "1"]].concat())?,
        None => make(&stage.generator, &stage.folder, "mix", "mix", options)?,
    };
    let flows = text(&stage.folder.join("flows.ndjson"))?;
    let mut runners = vec![stage.floor(&capture), stage.ours(SUMMARY, &capture, Vec::new())];
    runners.push(stage.ours(NDJSON, &capture, vec!["--flows".to_owned(), flows]));
    if stage.threads {
        let options = vec!["--threads".to_owned(), "2".to_owned()];
        runners.push(stage.ours(THREADS, &capture, options));
    }
    runners.extend(stage.peers.iter().map(|peer| stage.peer(peer, &capture)));
    let rows = rounds::run(&runners, rounds(arguments), LIMIT, &stage.said())?;
    let packets = capture.count("packets");
    let mut text = described(&capture);
    text += &table(&rows, packets, &[(YARDSTICK, "to softflowd"), (FLOOR, "to the floor")]);
    text += &versions(stage);
    let cpu = |name: &str| rows.iter().find(|row| row.name == name).and_then(Row::cpu);
    let ratio = |name: &str, to: &str| Some(cpu(name)? / cpu(to)?);
    let peak = |name: &str| rows.iter().find(|row| row.name == name)?.median(|taken| taken.peak);
    let wall = |name: &str| rows.iter().find(|row| row.name == name)?.median(|taken| taken.wall);
    let mut targets = vec![
        judge("mix: CPU to softflowd, at most 0.25 (0.40 is the least)", ratio(SUMMARY, YARDSTICK), 0.25),
        judge("mix: CPU to the libpcap loop, at most 2.5", ratio(SUMMARY, FLOOR), 2.5),
        judge("mix, NDJSON of every flow: CPU to softflowd, at most 0.5", ratio(NDJSON, YARDSTICK), 0.5),
        judge("mix: peak memory in MiB, at most 160", peak(SUMMARY), 160.0),
    ];
    if stage.threads {
        let walls = wall(THREADS).zip(wall(SUMMARY)).map(|(two, one)| two / one);
        targets.push(judge("mix: elapsed time of two threads to one, at most 0.6", walls, 0.6));
    }
    Ok((text, targets, whole(&rows)))
}

fn syn(stage: &Stage, arguments: &Arguments) -> Result<Measured> {
    let capture = match (&arguments.shared, arguments.quick) {
        (Some(shared), quick) => {
            let flows = if quick { "300000" } else { "5000000" };
            make_shared(shared, &stage.folder, "syn", &["--flows", flows, "--seed", "1"])?
        }
        (None, true) => make(&stage.generator, &stage.folder, "syn", "syn", &["--packets", "300000"])?,
        (None, false) => make(&stage.generator, &stage.folder, "syn", "syn", &["--packets", "5000000"])?,
    };
    let (flows, findings) = (stage.folder.join("flows.ndjson"), stage.folder.join("findings.ndjson"));
    let written = ["--flows", &text(&flows)?, "--findings", &text(&findings)?].map(str::to_owned).to_vec();
    let mut runners = vec![stage.floor(&capture), stage.ours(SUMMARY, &capture, Vec::new())];
    runners.push(stage.ours(NDJSON, &capture, written));
    let able = stage.peers.iter().filter(|peer| peer.takes_floods);
    runners.extend(able.map(|peer| stage.peer(peer, &capture)));
    let rows = rounds::run(&runners, rounds(arguments), LIMIT, &stage.said())?;
    let packets = capture.count("packets");
    let mut text = described(&capture);
    text += &table(&rows, packets, &[(YARDSTICK, "to softflowd"), (FLOOR, "to the floor")]);
    let row = |name: &str| rows.iter().find(|row| row.name == name);
    let speed = row(SUMMARY).and_then(Row::cpu).map(|cpu| packets as f64 / 1e6 / cpu);
    let peak = row(SUMMARY).and_then(|row| row.median(|taken| taken.peak));
    let mut targets = vec![
        judge_least("syn: million packets a second of CPU, at least 3", speed, 3.0),
        judge("syn: peak memory in MiB, at most 256", peak, 256.0),
    ];
    match check::flood(&flows, &findings, &capture)? {
        None => {
            say("this capture has no canaries: whether established flows stay whole is NOT checked on it")
        }
        Some(FloodSeen { whole, canaries, findings, stated, syns }) => {
            text += &format!(
                "\nIn the flood {} of {} flows that stand in it were reported whole. Findings of the flood: {findings}, \
                 which states {} of {} attempts. Packets and bytes of the summary are those of the capture.\n",
                grouped(whole),
                grouped(canaries),
                grouped(stated),
                grouped(syns)
            );
            let (whole, canaries) = (whole as f64, canaries as f64);
            targets.push(judge_least(
                "syn: canaries in the flood reported whole, of all",
                Some(whole / canaries),
                1.0,
            ));
            // The finding is told before the last packet of a flood is old enough to count as half-open.
            let one = f64::from(u8::from(findings == 1 && stated * 100 >= syns * 99));
            targets.push(judge_least("syn: one finding with the size of the flood", Some(one), 1.0));
        }
    }
    Ok((text, targets, whole(&rows)))
}

fn live(stage: &Stage, arguments: &Arguments) -> Result<Measured> {
    let sizes = if arguments.quick { &LIVE[..2] } else { &LIVE[..] };
    let settings = stage.folder.join("live.toml");
    fs::write(&settings, format!("[flow]\nmax_flows = {}\n", 5_000_000))?;
    let mut text_of =
        "| live flows | packets | CPU s (median) | ns of CPU a packet | to 10,000 | floor, ns a packet | \
                       peak MiB | bytes a live flow |\n|--:|--:|--:|--:|--:|--:|--:|--:|\n"
            .to_owned();
    let mut first: Option<(u64, f64, f64)> = None;
    let (mut worst, mut largest, mut is_whole) = (None, None, true);
    for size in sizes {
        let capture = make(
            &stage.generator,
            &stage.folder,
            &format!("live-{size}"),
            "live",
            &["--flows", &size.to_string()],
        )?;
        let options = vec!["--config".to_owned(), text(&settings)?];
        let runners = [stage.floor(&capture), stage.ours(SUMMARY, &capture, options)];
        let rows = rounds::run(&runners, rounds(arguments).min(3), LIMIT, &stage.said())?;
        if !arguments.keep {
            remove(&capture)?;
        }
        is_whole &= whole(&rows);
        let [floor, ours] = &rows[..] else { continue };
        let (Some(cpu), Some(floor)) = (ours.cpu(), floor.cpu()) else { continue };
        let peak = ours.median(|taken| taken.peak).unwrap_or_default();
        let (packets, at_once) = (capture.count("packets"), capture.count("most_at_once"));
        let each = |seconds: f64| seconds * 1e9 / packets as f64;
        let (least, cost, small) = *first.get_or_insert((at_once, each(cpu), peak));
        let growth = each(cpu) / cost;
        worst = Some(worst.unwrap_or(growth).max(growth));
        let bytes = (at_once > least).then(|| (peak - small) * f64::from(1 << 20) / (at_once - least) as f64);
        largest = bytes.or(largest);
        text_of += &format!(
            "| {} | {} | {cpu:.2} | {:.0} | {growth:.2} | {:.0} | {peak:.0} | {} |\n",
            grouped(at_once),
            grouped(packets),
            each(cpu),
            each(floor),
            bytes.map_or_else(|| "–".to_owned(), |bytes| format!("{bytes:.0}"))
        );
    }
    let targets = vec![
        judge("live: cost of a packet with most live flows to 10,000, at most 1.5", worst, 1.5),
        judge("live: bytes of memory a live flow, at most 256", largest, 256.0),
    ];
    Ok((text_of, targets, is_whole))
}

fn whole(rows: &[Row]) -> bool {
    let ours = |row: &&Row| row.name.contains("onenet-agent") || row.name == FLOOR;
    rows.iter().filter(ours).all(|row| row.failure.is_none())
}

fn described(capture: &Capture) -> String {
    let count = |name: &str| grouped(capture.count(name));
    format!(
        "{} packets, {} flows, {} MB.\n\n",
        count("packets"),
        count("flows"),
        grouped(capture.count("file_bytes") / 1_000_000)
    )
}

fn versions(stage: &Stage) -> String {
    let versions = peers::versions(&stage.peers);
    let named =
        stage.peers.iter().filter_map(|peer| Some(format!("{} {}", peer.name, versions.get(peer.name)?)));
    let named: Vec<String> = named.collect();
    if named.is_empty() { String::new() } else { format!("\nVersions: {}.\n", named.join(", ")) }
}

fn judge(what: &str, figure: Option<f64>, most: f64) -> (String, Option<bool>) {
    let shown = figure.map_or_else(|| "not measured".to_owned(), |figure| format!("{figure:.2}"));
    (format!("| {what} | {shown} |"), figure.map(|figure| figure <= most))
}

fn judge_least(what: &str, figure: Option<f64>, least: f64) -> (String, Option<bool>) {
    let (line, _) = judge(what, figure, 0.0);
    (line, figure.map(|figure| figure >= least))
}

fn judgement(targets: &[(String, Option<bool>)]) -> String {
    let mut text = "| target | measured | |\n|---|--:|---|\n".to_owned();
    for (line, met) in targets {
        let verdict = match met {
            Some(true) => "met",
            Some(false) => "missed",
            None => "",
        };
        text += &format!("{line} {verdict} |\n");
    }
    text
}

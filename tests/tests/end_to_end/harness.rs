//! A collector and its agents, the real programs, on free loopback ports in a temporary directory. Whatever is
//! started here ends with the test, by its process id.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use onenet_core::record::{RuleId, Subject};
use onenet_tests::traffic::{
    Options, generate, read_truth,
    truth::{Truth, incident},
};
use serde_json::Value;

/// How long anything may take before a test fails. Nothing here waits as long unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Prints past the test runner, which keeps to itself what tests that pass print.
pub(crate) fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// One of the two programs, built once for all tests.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = onenet_tests::programs::directory().expect("the programs are built").join(name);
    assert!(path.is_file(), "{} is not there", path.display());
    path
}

/// Polls until `probe` gives something; fails with `what` after [`PATIENCE`].
pub(crate) fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {} s for {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// A loopback address with a port that nobody has, and that no other test of this process will get.
pub(crate) fn free_address() -> SocketAddr {
    free_address_of(Ipv4Addr::LOCALHOST.into())
}

/// The same of another address of this host.
fn free_address_of(ip: IpAddr) -> SocketAddr {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind((ip, 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        if GIVEN.lock().expect("no test failed in here").insert(address.port()) {
            return address;
        }
    }
}

/// A program in the background; killed when dropped.
#[derive(Debug)]
pub(crate) struct Background {
    child: Child,
    log: PathBuf,
}

impl Background {
    /// Starts it with its output in a file; a later start appends.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let file = fs::OpenOptions::new().create(true).append(true).open(log).expect("a log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a log file"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, log: log.to_owned() }
    }

    /// What it has written so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let log = self.log.clone();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            let told = || String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
            assert!(Instant::now() < deadline, "it goes on after {} s:\n{}", PATIENCE.as_secs(), told());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Processor time that it has used, user and system, in ticks of the kernel (proc(5): `stat`).
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("a process of ours");
        let fields = stat.rsplit(')').next().expect("fields behind the name");
        let ticks = fields.split_whitespace().skip(11).take(2);
        ticks.map(|field| field.parse::<u64>().expect("a number")).sum()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        // It may have ended in between.
        let _ = kill(Pid::from_raw(pid), signal);
    }

    /// Asks it to end, and waits.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Ends it without asking.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- {}:\n{}", self.log.display(), lines[lines.len().saturating_sub(30)..].join("\n"));
        }
    }
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Exit code; none where a signal ended it.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Ended {
    /// Fails where it failed; gives standard output.
    pub(crate) fn success(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.err);
        self.out
    }

    /// Checks that it failed with this code and one line on standard error that holds `expected`, and that
    /// nothing panicked.
    pub(crate) fn fails(&self, code: i32, expected: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        let told: Vec<&str> = self.err.lines().filter(|line| !line.trim().is_empty()).collect();
        assert_eq!(told.len(), 1, "one clear line was expected: {self:?}");
        for part in expected {
            assert!(told[0].contains(part), "{part:?} is not in {:?}", told[0]);
        }
        assert!(!self.err.contains("panicked"), "{self:?}");
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Ended {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    ended(output)
}

fn ended(Output { status, stdout, stderr }: Output) -> Ended {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended { code: status.code(), out: text(stdout), err: text(stderr) }
}

/// Runs one of our programs to its end.
pub(crate) fn call(name: &str, arguments: &[&str]) -> Ended {
    run(Command::new(program(name)).args(arguments))
}

/// A path as text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Captures of a day, made once for all tests that ask for the same.
pub(crate) fn day(options: Options) -> (PathBuf, Truth) {
    static MADE: Mutex<Vec<(Options, tempfile::TempDir)>> = Mutex::new(Vec::new());
    let mut made = MADE.lock().expect("no test failed in here");
    if !made.iter().any(|(known, _)| *known == options) {
        let directory = tempfile::tempdir().expect("a directory");
        generate(directory.path(), options).expect("captures");
        made.push((options, directory));
    }
    let (_, directory) = made.iter().find(|(known, _)| *known == options).expect("just made");
    (directory.path().to_owned(), read_truth(directory.path()).expect("the truth"))
}

/// A collector with its directory.
#[derive(Debug)]
pub(crate) struct Lab {
    directory: tempfile::TempDir,
    /// Where sensors connect.
    pub(crate) ingest: SocketAddr,
    /// Page and API.
    pub(crate) web: SocketAddr,
    /// The collector, while it runs.
    pub(crate) collector: Option<Background>,
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.directory.disable_cleanup(true);
            say(&format!("kept, because the test failed: {}", self.directory.path().display()));
        }
    }
}

impl Lab {
    /// `init`, with this address plan and more of a configuration; not started yet.
    pub(crate) fn new(plan: Option<&Path>, more: &str) -> Self {
        Self::on(Ipv4Addr::LOCALHOST.into(), plan, more)
    }

    /// The same, where sensors connect to this address.
    pub(crate) fn on(ip: IpAddr, plan: Option<&Path>, more: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let lab = Self { directory, ingest: free_address_of(ip), web: free_address(), collector: None };
        let (ingest, web) = (lab.ingest.to_string(), lab.web.to_string());
        let dir = lab.collector_dir();
        let arguments =
            ["init", "--dir", text(&dir), "--name", "localhost", "--listen", &ingest, "--web", &web];
        call("onenet-collector", &arguments).success();
        if let Some(plan) = plan {
            fs::copy(plan, dir.join("plan.toml")).expect("a plan");
        }
        let file = dir.join("collector.toml");
        let mut config = fs::read_to_string(&file).expect("a configuration");
        write!(config, "\n{more}\n").expect("a string");
        fs::write(&file, config).expect("a configuration");
        lab
    }

    /// The temporary directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The collector's directory.
    pub(crate) fn collector_dir(&self) -> PathBuf {
        self.path("collector")
    }

    /// A command of the collector's own command line, about this collector.
    pub(crate) fn call(&self, arguments: &[&str]) -> Ended {
        let dir = self.collector_dir();
        call("onenet-collector", &[arguments, &["--dir", text(&dir)]].concat())
    }

    /// Starts the collector without waiting for it.
    pub(crate) fn launch(&mut self) {
        let mut command = Command::new(program("onenet-collector"));
        command.args(["run", "--dir", text(&self.collector_dir())]);
        self.collector = Some(Background::start(&mut command, &self.path("collector.log")));
    }

    /// Starts the collector and waits until it answers.
    pub(crate) fn start(&mut self) {
        self.launch();
        wait_for("the collector's API", || {
            let collector = self.collector.as_mut().expect("just started");
            assert!(collector.ended().is_none(), "the collector ended:\n{}", collector.log());
            self.try_get("/api/v1/health")
        });
    }

    /// `GET` of the API, as JSON; none while it does not answer.
    pub(crate) fn try_get(&self, path: &str) -> Option<Value> {
        let mut answer = ureq::get(format!("http://{}{path}", self.web)).call().ok()?;
        answer.body_mut().read_json().ok()
    }

    /// `GET` of the API, as JSON.
    pub(crate) fn get(&self, path: &str) -> Value {
        let mut answer = ureq::get(format!("http://{}{path}", self.web))
            .call()
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        answer.body_mut().read_json().unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// All items of a list of the API, page by page.
    pub(crate) fn items(&self, path: &str) -> Vec<Value> {
        let (mut items, mut from) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("{path}?limit=500{from}"));
            items.extend(page["items"].as_array().expect("items").iter().cloned());
            // Lists of what is many go on behind a key, the others after so many rows.
            from = match (&page["next"], &page["next_offset"]) {
                (Value::String(key), _) => format!("&after={key}"),
                (_, Value::Number(offset)) => format!("&offset={offset}"),
                _ => return items,
            };
        }
    }

    /// What the collector says of a sensor.
    pub(crate) fn sensor(&self, name: &str) -> Value {
        let sensors = self.get("/api/v1/sensors");
        let items = sensors["items"].as_array().expect("items");
        items.iter().find(|sensor| sensor["sensor"] == name).cloned().unwrap_or(Value::Null)
    }

    /// The incidents that the collector knows.
    pub(crate) fn incidents(&self) -> BTreeSet<String> {
        self.items("/api/v1/findings").iter().map(incident_of).collect()
    }

    /// Waits until the correlator has caught up with what is committed.
    pub(crate) fn settle(&self) {
        wait_for("the correlator", || (self.try_get("/api/v1/health")?["correlated"] == true).then_some(()));
    }

    /// Makes a configuration for a sensor and enrols it.
    pub(crate) fn enrol(&self, agent: AgentConfig) -> Edge {
        let edge = self.configure(agent);
        let token = self.token(&edge.sensor, &edge.site);
        self.enrol_with(&edge, &token).success();
        edge
    }

    /// A one-use token.
    pub(crate) fn token(&self, sensor: &str, site: &str) -> String {
        let told = self.call(&["token", "create", "--sensor", sensor, "--site", site]).success();
        told.split_whitespace().last().expect("a token").to_owned()
    }

    /// `enroll` with a token.
    pub(crate) fn enrol_with(&self, edge: &Edge, token: &str) -> Ended {
        let url = format!("https://{}", self.ingest);
        let arguments = ["enroll", "--config", text(&edge.config), "--collector", &url, "--token", token];
        call("onenet-agent", &arguments)
    }

    /// Writes `agent.toml`.
    pub(crate) fn configure(&self, agent: AgentConfig) -> Edge {
        let directory = self.path(&agent.sensor);
        fs::create_dir_all(&directory).expect("a directory");
        let edge = Edge {
            config: directory.join("agent.toml"),
            log: self.path(&format!("{}.log", agent.sensor)),
            state_dir: directory.join("state"),
            sensor: agent.sensor,
            site: agent.site,
        };
        let mut config = String::new();
        if let Some(plan) = &agent.plan {
            writeln!(config, "plan = {:?}", text(plan)).expect("a string");
        }
        write!(
            config,
            "{}\n[sensor]\nname = {:?}\nsite = {:?}\nstate_dir = {:?}\n\n\
             [collector]\nendpoint = \"https://{}\"\nserver_name = \"localhost\"\n\n{}\n",
            agent.top,
            edge.sensor,
            edge.site,
            text(&edge.state_dir),
            self.ingest,
            agent.tables
        )
        .expect("a string");
        fs::write(&edge.config, config).expect("a configuration");
        edge
    }
}

/// What an `agent.toml` says beside names and places.
#[derive(Clone, Debug, Default)]
pub(crate) struct AgentConfig {
    /// Name of the sensor.
    pub(crate) sensor: String,
    /// Site.
    pub(crate) site: String,
    /// Address plan.
    pub(crate) plan: Option<PathBuf>,
    /// Keys outside of tables.
    pub(crate) top: String,
    /// `[[source]]`, `[[interface]]`, `[batch]` and so on.
    pub(crate) tables: String,
}

impl AgentConfig {
    /// A sensor that reads a site's captures of a day.
    pub(crate) fn of_day(directory: &Path, truth: &Truth, site: &str) -> Self {
        let mut tables = String::new();
        for interface in &truth.sites[site].interfaces {
            let path = directory.join(&interface.file);
            write!(
                tables,
                "[[source]]\nkind = \"pcap-file\"\npath = {:?}\ninterface = {:?}\n\n",
                text(&path),
                &*interface.plan.name
            )
            .expect("a string");
        }
        tables.push_str(
            &fs::read_to_string(directory.join(format!("{site}-interfaces.toml")))
                .expect("interface settings"),
        );
        Self {
            sensor: format!("{site}-1"),
            site: site.to_owned(),
            plan: Some(directory.join("plan.toml")),
            top: String::new(),
            tables,
        }
    }
}

/// A configured sensor.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    /// Name of the sensor.
    pub(crate) sensor: String,
    /// Site.
    pub(crate) site: String,
    /// Its `agent.toml`.
    pub(crate) config: PathBuf,
    /// Keys, certificate, spool.
    pub(crate) state_dir: PathBuf,
    /// What it has said over all its lives.
    pub(crate) log: PathBuf,
}

impl Edge {
    /// Starts the agent.
    pub(crate) fn start(&self, more: &[&str]) -> Background {
        let mut command = Command::new(program("onenet-agent"));
        command.args(["run", "--config", text(&self.config)]).args(more);
        Background::start(&mut command, &self.log)
    }

    /// Starts the agent in a network namespace.
    pub(crate) fn start_in(&self, namespace: &str) -> Background {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, text(&program("onenet-agent"))]);
        command.args(["run", "--config", text(&self.config)]);
        Background::start(&mut command, &self.log)
    }

    /// Runs the agent to the end of its sources and until all is acknowledged.
    pub(crate) fn run_until_end(&self) {
        let mut agent = self.start(&["--until-end"]);
        let status = agent.wait();
        assert!(status.success(), "{status}:\n{}", agent.log());
        assert!(!agent.log().contains("panicked"), "{}", agent.log());
    }

    /// What the agent says of itself. Its last word stands where it does not run.
    pub(crate) fn status(&self) -> Value {
        let told = call("onenet-agent", &["status", "--config", text(&self.config), "--format", "json"]);
        serde_json::from_str(&told.out).unwrap_or_else(|error| panic!("{error}: {told:?}"))
    }
}

/// The incident of a finding of the API.
pub(crate) fn incident_of(finding: &Value) -> String {
    let rule: RuleId = finding["rule"].as_str().expect("a rule").parse().expect("a known rule");
    let subject: Subject = serde_json::from_value(finding["subject"].clone()).expect("a subject");
    incident(rule, &subject)
}

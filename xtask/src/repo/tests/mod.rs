//! Repositories of stand-in packages, and what real clients make of them.

mod apt;
mod bad;
mod dnf;
mod state;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use clap::Parser as _;

use super::{Arguments, make};
use crate::package::{
    Format, Moment,
    stand_ins::{self, Folder, is_here},
};

/// When the repositories are made: after the stand-ins.
const MOMENT: Moment = Moment(1_700_000_100);

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

fn arguments(words: &[&str]) -> Arguments {
    Line::try_parse_from([&["repo"], words].concat()).expect("it is understood").arguments
}

/// Makes a repository of the folder's packages, and gives the error in the words that a caller reads.
fn repository(packages: &Path, out: &Path, words: &[&str], moment: Moment) -> Result<Vec<PathBuf>, String> {
    make(&arguments(words), packages, out, moment).map_err(|error| format!("{error:#}"))
}

/// Stand-in packages of a version; gives their folder.
fn packages(folder: &Path, formats: &[Format], version: Option<&str>) -> PathBuf {
    let folder = folder.join(format!("packages-{}", version.unwrap_or("now")));
    fs::create_dir_all(&folder).expect("made");
    stand_ins::make(&folder, formats, version);
    folder.join("out")
}

/// A GnuPG of its own with keys that nobody else has, and without its agent when it goes.
struct Gpg {
    home: Folder,
}

impl Gpg {
    fn new(name: &str, users: &[&str]) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let home = Folder::new(&format!("{name}-keys"));
        fs::set_permissions(&home.0, fs::Permissions::from_mode(0o700)).expect("set");
        let gpg = Self { home };
        for user in users {
            gpg.run(&["--passphrase", "", "--quick-generate-key", user, "ed25519", "sign", "never"]);
        }
        gpg
    }

    fn run(&self, words: &[&str]) {
        succeeds(Command::new("gpg").args(["--batch", "--quiet", "--homedir"]).arg(&self.home.0).args(words));
    }

    fn path(&self) -> &str {
        self.home.0.to_str().expect("UTF-8")
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        end_agents(&self.home.0);
    }
}

/// Homes below the folder whose agent runs. Whatever uses GnuPG leaves one behind, dnf also.
fn agents(below: &Path) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").expect("listed").flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    let homes = lines.filter_map(|line| {
        let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        words.next().filter(|program| program.ends_with("gpg-agent"))?;
        words.find(|word| word == "--homedir")?;
        words.next().map(|home| PathBuf::from(&*home))
    });
    homes.filter(|home| home.starts_with(below)).collect()
}

fn end_agents(below: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let homes = agents(below);
        if homes.is_empty() {
            return;
        }
        for home in homes {
            drop(Command::new("gpgconf").arg("--homedir").arg(home).args(["--kill", "all"]).output());
        }
        std::thread::sleep(Duration::from_millis(20));
        let late = Instant::now() > deadline;
        assert!(!late || std::thread::panicking(), "an agent lives on below {}", below.display());
        if late {
            return;
        }
    }
}

fn succeeds(command: &mut Command) -> String {
    let output = command.env("LC_ALL", "C").output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    said(&output)
}

/// Asserts that a command fails and says each of these words.
fn fails(command: &mut Command, words: &[&str]) {
    let output = command.env("LC_ALL", "C").output().expect("it runs");
    let said = said(&output);
    assert!(!output.status.success(), "{command:?} succeeded: {said}");
    for word in words {
        assert!(said.contains(word), "{command:?} does not say {word:?}: {said}");
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Every file of a folder with its content.
fn state(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("listed").flatten() {
        if entry.path().is_dir() {
            files.append(&mut state(&entry.path()));
        } else {
            files.insert(entry.path(), fs::read(entry.path()).expect("read"));
        }
    }
    files
}

/// The same with paths below the folder, to compare two.
fn state_below(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let below = |path: PathBuf| path.strip_prefix(folder).expect("below it").to_owned();
    state(folder).into_iter().map(|(path, content)| (below(path), content)).collect()
}

/// Turns a bit of each file that is meant, and leaves its size; a repository that nobody changed is beside it.
fn spoiled(out: &Path, name: &str, meant: impl Fn(&Path) -> bool) -> PathBuf {
    let copy = out.with_file_name(name);
    succeeds(Command::new("cp").arg("-a").args([out, &copy]));
    let mut count = 0;
    for (path, mut content) in state(&copy).into_iter().filter(|(path, _)| meant(path)) {
        let middle = content.len() / 2;
        content[middle] ^= 1;
        fs::write(&path, content).expect("written");
        count += 1;
    }
    assert!(count > 0, "nothing was meant");
    copy
}

fn contains(path: &Path, part: &str) -> bool {
    path.to_string_lossy().contains(part)
}

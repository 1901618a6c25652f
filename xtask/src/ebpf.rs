//! `cargo xtask ebpf`: the kernel program's objects are committed, so that nobody needs clang to build the sensor. This
//! builds them from their C, and checks that what is committed is what the C gives.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    say,
    setup::{self, Need, Purpose},
    target, workspace,
};

/// The compiler: another one gives other bytes.
const CLANG: &str = "clang-14";
const STRIP: &str = "llvm-strip-14";
/// Its version.
const VERSION: &str = "14.0.6";

const NEED: Need<'static> = Need {
    purpose: Purpose::Tests,
    what: "clang 14, which compiles the kernel program",
    probe: "command -v clang-14 && command -v llvm-strip-14",
    debian: &["clang-14", "llvm-14"],
    fedora: &["clang14", "llvm14"],
};

/// Object, source, and what is defined.
const OBJECTS: [(&str, &str, Option<&str>); 3] = [
    ("meter.bpf.o", "meter.bpf.c", None),
    ("meter_xdp.bpf.o", "meter.bpf.c", Some("-DMETER_XDP")),
    ("bench.bpf.o", "bench.bpf.c", None),
];

/// What to do with the objects.
#[derive(clap::Subcommand)]
pub(crate) enum Action {
    /// Compile the kernel program and put its objects where they are committed.
    Build,
    /// Compile it elsewhere and compare with the committed objects, byte by byte.
    Check,
}

/// Runs the command.
pub(crate) fn run(action: &Action) -> Result<ExitCode> {
    match action {
        Action::Build => {
            setup::try_install(&NEED)?;
            if let Err(other) = is_pinned() {
                say(&format!("{other:#}: the objects will differ from those of CI"));
            }
            build(&folder())?;
        }
        Action::Check => {
            setup::try_install(&NEED)?;
            is_pinned()?;
            compare()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The check as a part of all tests: where the compiler cannot be had it says so, because other systems have others.
pub(crate) fn check_if_possible() -> Result<()> {
    match setup::try_install(&NEED).and_then(|()| is_pinned()) {
        Ok(()) => compare(),
        Err(error) => {
            say(&format!("{error:#}: the kernel program's objects are NOT compared with their source here"));
            Ok(())
        }
    }
}

fn folder() -> PathBuf {
    workspace().join("ebpf/program")
}

fn is_pinned() -> Result<()> {
    let output =
        Command::new(CLANG).arg("--version").output().with_context(|| format!("cannot run {CLANG}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let first = text.lines().next().unwrap_or_default();
    ensure!(first.contains(VERSION), "{CLANG} is {first:?} and not {VERSION}");
    Ok(())
}

/// Compiles every object into a folder. Neither the place of the sources nor the headers of the machine are in them.
fn build(to: &Path) -> Result<()> {
    let folder = folder();
    for (object, source, define) in OBJECTS {
        say(&format!("{CLANG} {source} -> {}", to.join(object).display()));
        let path = folder.to_str().context("the path of the workspace is not UTF-8")?;
        let map = format!("-ffile-prefix-map={path}=.");
        let mut clang = Command::new(CLANG);
        clang.current_dir(&folder).args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-nostdinc"]);
        clang.args(["-Wall", "-Wextra", "-Werror", "-fdebug-compilation-dir=."]).arg(map).args(define);
        succeed(clang.args(["-c", source, "-o"]).arg(to.join(object)))?;
        succeed(Command::new(STRIP).arg("-g").arg(to.join(object)))?;
    }
    Ok(())
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    ensure!(status.success(), "{:?} failed ({status})", command.get_program());
    Ok(())
}

fn compare() -> Result<()> {
    let scratch = target().join("ebpf-check");
    fs::create_dir_all(&scratch)?;
    build(&scratch)?;
    let read = |path: PathBuf| fs::read(&path).with_context(|| format!("cannot read {}", path.display()));
    let mut differ = Vec::new();
    for (object, ..) in OBJECTS {
        if read(scratch.join(object))? != read(folder().join(object))? {
            differ.push(object);
        }
    }
    if !differ.is_empty() {
        bail!("not what its source gives: {} (run `cargo xtask ebpf build` and commit)", differ.join(", "));
    }
    say("the kernel program's objects are what their source gives");
    Ok(())
}

//! The architectures that packages are made for: what each is called by whom, and what building for another one than this
//! machine's takes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use super::layout;
use crate::{
    say,
    setup::{self, Need, Purpose},
};

/// By Debian's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Architecture {
    /// `x86_64`.
    Amd64,
    /// `aarch64`.
    Arm64,
}

/// For arm64 on another machine. The headers and start files of its C library are a package that the compiler's only
/// recommends.
const LINKER_OF_ARM64: Need<'static> = Need {
    purpose: Purpose::Build,
    what: "the linker of arm64 and its C library",
    probe: "echo '#include <stdio.h>' | aarch64-linux-gnu-gcc -E -x c - -o /dev/null",
    debian: &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
    fedora: &["gcc-aarch64-linux-gnu"],
};

/// The same for amd64 on an arm64 machine.
const LINKER_OF_AMD64: Need<'static> = Need {
    purpose: Purpose::Build,
    what: "the linker of amd64 and its C library",
    probe: "echo '#include <stdio.h>' | x86_64-linux-gnu-gcc -E -x c - -o /dev/null",
    debian: &["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"],
    fedora: &["gcc-x86_64-linux-gnu"],
};

impl Architecture {
    /// This machine's.
    pub(super) fn of_host() -> Result<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::Amd64),
            "aarch64" => Ok(Self::Arm64),
            other => bail!("no package is made for {other}"),
        }
    }

    pub(super) const fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As RPM and the kernel call it.
    pub(super) const fn rpm(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// Rust's target.
    pub(super) const fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Name of a tool of the compiler's that reads programs of this architecture.
    pub(super) fn tool(self, name: &str) -> Result<String> {
        let host = self == Self::of_host()?;
        Ok(if host { name.to_owned() } else { format!("{}-linux-gnu-{name}", self.rpm()) })
    }

    /// Fails where a program is one of another architecture: its package could be installed and would not run.
    pub(super) fn fits(self, program: &[u8]) -> Result<()> {
        // Programs here are little-endian; what is no ELF file, such as a script, runs anywhere.
        let Some(&[low, high]) =
            program.strip_prefix(b"\x7fELF").and_then(|rest| rest.get(14..16)?.first_chunk())
        else {
            return Ok(());
        };
        let of = match u16::from_le_bytes([low, high]) {
            62 => Self::Amd64.debian(),
            183 => Self::Arm64.debian(),
            _ => "another architecture",
        };
        ensure!(of == self.debian(), "it is a program for {of}, and the package is for {}", self.debian());
        Ok(())
    }
}

/// What linking for another architecture than this machine's takes.
pub(super) struct Cross {
    pub(super) linker: String,
    /// Folder of its libpcap.
    pub(super) libpcap: PathBuf,
}

impl Cross {
    /// Installs or unpacks what is missing; nothing where the architecture is this machine's. Nothing is built here.
    pub(super) fn prepare(architecture: Architecture, folder: &Path) -> Result<Option<Self>> {
        if architecture == Architecture::of_host()? {
            return Ok(None);
        }
        setup::try_install(match architecture {
            Architecture::Amd64 => &LINKER_OF_AMD64,
            Architecture::Arm64 => &LINKER_OF_ARM64,
        })?;
        let libpcap = libpcap(architecture, &folder.join(architecture.debian()))?;
        standard_library_is_here(architecture.target())?;
        Ok(Some(Self { linker: architecture.tool("gcc")?, libpcap }))
    }
}

/// Unpacks libpcap of the architecture into the folder and gives where the library is. It is not installed: that would
/// bring a dozen libraries along and, since both architectures' must be of one version, upgrade this machine's own.
fn libpcap(architecture: Architecture, folder: &Path) -> Result<PathBuf> {
    let library = folder.join("root/usr/lib").join(format!("{}-linux-gnu", architecture.rpm()));
    if library.join("libpcap.so").is_file() {
        return Ok(library);
    }
    let name = architecture.debian();
    let apt = Command::new("apt-get").arg("--version").output().is_ok();
    ensure!(apt, "libpcap of {name} comes by apt-get, which is not here: build on a machine of {name}");
    say(&format!("missing: libpcap of {name}, which apt-get downloads into {}", folder.display()));
    let folder = layout::fresh(folder.to_owned())?;
    for part in ["lists/partial", "cache/archives/partial", "packages", "root"] {
        fs::create_dir_all(folder.join(part))?;
    }
    fs::write(folder.join("status"), "")?;
    // Lists and cache of its own, so that apt-get neither needs root nor takes this machine for one of two architectures.
    let own = |key: &str, part: &str| format!("{key}={}", folder.join(part).display());
    let options = [
        own("Dir::State::Lists", "lists"),
        own("Dir::State::Status", "status"),
        own("Dir::Cache", "cache"),
        format!("APT::Architecture={name}"),
        format!("APT::Architectures={name}"),
        "APT::Sandbox::User=root".to_owned(),
        // What cannot be had is an error, where apt-get would go on with nothing.
        "APT::Update::Error-Mode=any".to_owned(),
    ];
    let apt = |words: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.current_dir(folder.join("packages")).arg("-qq");
        apt.args(options.iter().flat_map(|option| ["-o", option])).args(words);
        succeeds(&mut apt, &format!("apt-get {} (for {name})", words.join(" ")))
    };
    apt(&["update"])?;
    apt(&["download", "libpcap0.8", "libpcap0.8-dev"])
        .or_else(|_| apt(&["download", "libpcap0.8t64", "libpcap0.8-dev"]))?;
    for package in layout::names(&folder.join("packages"))? {
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("-x").args([folder.join("packages").join(&package), folder.join("root")]);
        succeeds(&mut unpack, &format!("dpkg-deb -x {package}"))?;
    }
    ensure!(library.join("libpcap.so").is_file(), "the packages of libpcap have no {}", library.display());
    Ok(library)
}

fn standard_library_is_here(target: &str) -> Result<()> {
    let mut rustc = Command::new("rustc");
    let output = rustc.args(["--print", "target-libdir", "--target", target]).output();
    let output = output.context("cannot run rustc")?;
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let found = output.status.success() && Path::new(&folder).is_dir();
    ensure!(found, "Rust's standard library for {target} is missing: rustup target add {target}");
    Ok(())
}

fn succeeds(command: &mut Command, line: &str) -> Result<()> {
    say(line);
    let output = command.output().with_context(|| format!("cannot run {line}"))?;
    if !output.status.success() {
        bail!("{line} failed:\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_another_architecture_is_refused() {
        let host = Architecture::of_host().expect("known");
        let other = if host == Architecture::Amd64 { Architecture::Arm64 } else { Architecture::Amd64 };
        let program = fs::read(std::env::current_exe().expect("this program")).expect("read");
        host.fits(&program).expect("it runs here");
        let error = other.fits(&program).expect_err("it would not run there").to_string();
        let told =
            format!("it is a program for {}, and the package is for {}", host.debian(), other.debian());
        assert_eq!(error, told);
        other.fits(b"#!/bin/sh\n").expect("a script runs anywhere");
        other.fits(b"\x7fELF").expect("and what is cut short is no program");
    }

    #[test]
    fn tools_are_those_of_the_architecture() {
        let host = Architecture::of_host().expect("known");
        assert_eq!(host.tool("strip").expect("known"), "strip");
        if host == Architecture::Amd64 {
            let tool = Architecture::Arm64.tool("objcopy").expect("known");
            assert_eq!(tool, "aarch64-linux-gnu-objcopy");
        }
    }

    #[test]
    fn a_missing_standard_library_is_told_with_the_command_that_brings_it() {
        let host = Architecture::of_host().expect("known");
        standard_library_is_here(host.target()).expect("this was built with it");
        // No machine has this one: Rust ships none for it.
        let target = "aarch64-unknown-none-nothing";
        let error = standard_library_is_here(target).expect_err("it is not here").to_string();
        assert!(error.ends_with(&format!("missing: rustup target add {target}")), "{error}");
        assert_eq!(error.lines().count(), 1, "one line");
    }
}

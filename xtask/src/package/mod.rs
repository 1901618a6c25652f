//! `cargo xtask package`: both programs as .deb and .rpm, with checksums. The same source gives the same bytes, whenever
//! and in whichever folder it is built.

mod arch;
mod auditable;
mod build;
mod crates;
mod deb;
pub(crate) mod install;
mod layout;
mod notices;
mod rpm;
mod sbom;
mod sizes;
#[cfg(test)]
pub(crate) mod stand_ins;
#[cfg(test)]
mod tests;
mod units;
mod when;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use crate::{
    say,
    setup::{self, Need, Purpose},
    target, tool,
};
use arch::{Architecture, Cross};
use crates::Workspace;
use layout::{PROGRAMS, Parts};
pub(crate) use layout::{gzip, names, piped};
pub(crate) use when::Moment;

/// The revision of a package beside the version of its program.
const REVISION: &str = "1";

/// Who answers for the packages where nobody is named.
const MAINTAINER: &str = "One Network maintainers <maintainers@onenet.example>";

/// What to make, and where.
#[derive(Default, clap::Args)]
pub(crate) struct Arguments {
    /// Which packages; both kinds where none is named.
    #[arg(long = "format", value_enum, value_name = "FORMAT")]
    formats: Vec<Format>,
    /// Folder to write the packages into; `packages` beside what cargo builds where none is named.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Pack the programs in this folder instead of building them.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// For which architecture; this machine's where none is named.
    #[arg(long, value_enum, value_name = "ARCH")]
    arch: Option<Architecture>,
    /// Write the sizes and the counts of crates into docs/sizes.md.
    #[arg(long)]
    document: bool,
    /// Only write the counts of crates into docs/sizes.md, which needs no build.
    #[arg(long)]
    counts: bool,
    /// Make everything a second time in other folders, and fail unless it is the same to the byte.
    #[arg(long)]
    twice: bool,
    /// Install them, use them, upgrade, remove and purge them in systems of their own, which needs root and debootstrap;
    /// all the tests where none is named.
    #[arg(long, value_enum, value_name = "TEST", num_args = 0..)]
    test: Option<Vec<install::Test>>,
    /// Who answers for the packages.
    #[arg(long, default_value = MAINTAINER)]
    maintainer: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Debian, Ubuntu.
    Deb,
    /// Red Hat and its kin.
    Rpm,
}

/// What is told beside the files.
struct About<'a> {
    version: &'a str,
    maintainer: &'a str,
    moment: Moment,
    architecture: Architecture,
}

/// For .deb.
pub(crate) const DPKG_DEB: Need<'static> = Need {
    purpose: Purpose::Tests,
    what: "dpkg-deb, which makes Debian packages",
    probe: "command -v dpkg-deb",
    debian: &["dpkg"],
    fedora: &["dpkg"],
};

/// For .rpm.
pub(crate) const RPMBUILD: Need<'static> = Need {
    purpose: Purpose::Tests,
    what: "rpmbuild, which makes RPM packages",
    probe: "command -v rpmbuild",
    debian: &["rpm"],
    fedora: &["rpm-build"],
};

/// Builds what is asked for.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let architecture = arguments.arch.map_or_else(Architecture::of_host, Ok)?;
    if arguments.counts {
        sizes::write("crates", &sizes::crates(&Workspace::load(architecture)?)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let formats = match &arguments.formats[..] {
        [] => &[Format::Deb, Format::Rpm],
        some => some,
    };
    setup::install(Purpose::Build)?;
    for format in formats {
        setup::try_install(match format {
            Format::Deb => &DPKG_DEB,
            Format::Rpm => &RPMBUILD,
        })?;
    }
    let cross = match &arguments.programs {
        Some(_) => None,
        None => Cross::prepare(architecture, &target().join("cross"))?,
    };
    ensure!(
        arguments.test.is_none() || Architecture::of_host()? == architecture,
        "packages for another machine cannot be installed for a test on this one"
    );
    let make = |out: &Path, building: &Path, tests: Option<&[install::Test]>| {
        make(arguments, architecture, cross.as_ref(), formats, (out, building), tests)
    };
    let out = arguments.out.clone().unwrap_or_else(|| target().join("packages"));
    let (made, tables) = make(&out, &building(), arguments.test.as_deref())?;
    if arguments.twice {
        let again = target().join("packages-again");
        say("everything once more, to compare");
        same(&made, &make(&again, &target().join("package-again"), None)?.0)?;
        say("the second time gave the same bytes");
    }
    for package in &made {
        println!("{}", package.display());
    }
    println!("\n{}\n{}", tables.sizes, tables.crates);
    if arguments.document {
        sizes::write("sizes", &tables.sizes)?;
        sizes::write("crates", &tables.crates)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What every change has to pass: both are made, and installed where the machine permits it. Gives the folder of the programs as
/// cargo built them.
pub(crate) fn check() -> Result<PathBuf> {
    let tests = match install::refusal()? {
        None => Vec::new(),
        Some(why) => {
            say(&format!("the packages are made, and NOT installed for a test here: {why}"));
            vec![install::Test::Lint]
        }
    };
    run(&Arguments { test: Some(tests), maintainer: MAINTAINER.to_owned(), ..Arguments::default() })?;
    Ok(building().join("release"))
}

/// Where the programs of the packages are built.
fn building() -> PathBuf {
    target().join("package")
}

/// What is printed at the end.
struct Tables {
    sizes: String,
    crates: String,
}

fn make(
    arguments: &Arguments,
    architecture: Architecture,
    cross: Option<&Cross>,
    formats: &[Format],
    (out, building): (&Path, &Path),
    tests: Option<&[install::Test]>,
) -> Result<(Vec<PathBuf>, Tables)> {
    let programs = match &arguments.programs {
        Some(folder) => folder.clone(),
        None => build::programs(building, architecture, cross)?,
    };
    let manual = build::manual(&building.join("manual"))?;
    let (workspace, moment) = (Workspace::load(architecture)?, Moment::of_source()?);
    let parts = Parts {
        programs: &programs,
        manual: &manual,
        workspace: &workspace,
        moment,
        later: None,
        architecture,
    };
    let made = packages(&parts, formats, &arguments.maintainer, out)?;
    let sizes = sizes::sizes(&programs, &made, architecture)?;
    if let Some(tests) = tests {
        install::run(tests, &parts, &made, &arguments.maintainer)?;
    }
    Ok((made, Tables { sizes, crates: sizes::crates(&workspace)? }))
}

/// Makes the packages of these parts, and the list of their checksums.
fn packages(parts: &Parts<'_>, formats: &[Format], maintainer: &str, out: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let mut made = Vec::new();
    for program in &PROGRAMS {
        let version = match parts.later {
            Some(version) => version.to_owned(),
            None => parts.workspace.version(program.name)?,
        };
        let (moment, architecture) = (parts.moment, parts.architecture);
        let about = About { version: &version, maintainer, moment, architecture };
        let files = program.files(parts)?;
        for (place, file) in &files {
            architecture.fits(&file.content).with_context(|| place.clone())?;
        }
        let bill = out.join(format!("{}-{version}.cdx.json", program.name));
        let inside = format!("/usr/share/doc/{}/sbom.cdx.json", program.name);
        fs::write(&bill, &files.get(&inside).context("no bill of materials")?.content)?;
        for format in formats {
            made.push(match format {
                Format::Deb => deb::make(program, &files, &about, out)?,
                Format::Rpm => rpm::make(program, &files, &about, out)?,
            });
        }
        made.push(bill);
    }
    let _ = fs::remove_dir(out.join("stage"));
    let mut sums = String::new();
    for file in &made {
        let sum = tool::sha256(file)?;
        sums += &format!("{sum}  {}\n", file.file_name().unwrap_or_default().to_string_lossy());
    }
    let list = out.join("SHA256SUMS");
    fs::write(&list, sums)?;
    made.push(list);
    Ok(made)
}

/// Fails unless the files are the same, one by one.
fn same(these: &[PathBuf], those: &[PathBuf]) -> Result<()> {
    ensure!(these.len() == those.len(), "{} files the first time, {} the second", these.len(), those.len());
    for (this, that) in these.iter().zip(those) {
        ensure!(fs::read(this)? == fs::read(that)?, "{} and {} differ", this.display(), that.display());
    }
    Ok(())
}

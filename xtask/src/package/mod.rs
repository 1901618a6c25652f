//! `cargo xtask package`: both programs as .deb and .rpm, with checksums. The same source gives the same bytes, whenever
//! and in whichever folder it is built.

mod build;
mod crates;
mod deb;
mod install;
mod layout;
mod notices;
mod rpm;
mod sbom;
#[cfg(test)]
pub(crate) mod stand_ins;
#[cfg(test)]
mod tests;
#[cfg(test)]
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
    target,
};
use layout::{PROGRAMS, Parts};
pub(crate) use layout::{gzip, names, piped};
pub(crate) use when::Moment;

/// What to make, and where.
#[derive(clap::Args)]
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
    /// Make everything a second time in other folders, and fail unless it is the same to the byte.
    #[arg(long)]
    twice: bool,
    /// Install them, use them, upgrade, remove and purge them in systems of their own, which needs root and debootstrap;
    /// all the tests where none is named.
    #[arg(long, value_enum, value_name = "TEST", num_args = 0..)]
    test: Option<Vec<install::Test>>,
    /// Who answers for the packages.
    #[arg(long, default_value = "One Network maintainers <maintainers@onenet.example>")]
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
    let out = arguments.out.clone().unwrap_or_else(|| target().join("packages"));
    let made = make(arguments, formats, &out, &target().join("package"))?;
    if arguments.twice {
        let again = target().join("packages-again");
        say("everything once more, to compare");
        same(&made, &make(arguments, formats, &again, &target().join("package-again"))?)?;
        say("the second time gave the same bytes");
    }
    for package in &made {
        println!("{}", package.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn make(arguments: &Arguments, formats: &[Format], out: &Path, building: &Path) -> Result<Vec<PathBuf>> {
    let programs = match &arguments.programs {
        Some(folder) => folder.clone(),
        None => build::programs(building)?,
    };
    let manual = build::manual(&building.join("manual"))?;
    let workspace = crates::Workspace::load()?;
    let parts = Parts {
        programs: &programs,
        manual: &manual,
        workspace: &workspace,
        moment: Moment::of_source()?,
        later: None,
    };
    let made = packages(&parts, formats, &arguments.maintainer, out)?;
    if let Some(tests) = &arguments.test {
        install::run(tests, &parts, &made, &arguments.maintainer)?;
    }
    Ok(made)
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
        let about = About { version: &version, maintainer, moment: parts.moment };
        let files = program.files(parts)?;
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
        let printed = layout::piped("sha256sum", &["-"], &fs::read(file)?)?;
        let sum = String::from_utf8(printed)?;
        let sum = sum.split_whitespace().next().context("sha256sum printed nothing")?;
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

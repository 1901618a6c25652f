//! What the agents of a demo read: generated captures with truth, or a folder of real ones.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::{Stage, path};
use crate::{programs::output, say};

/// What both sites read.
pub(crate) struct Traffic {
    pub(crate) sites: Vec<SiteTraffic>,
    /// Address plan, where there is one.
    pub(crate) plan: Option<PathBuf>,
    /// What was planted, where anything was.
    pub(crate) truth: Option<PathBuf>,
}

/// What one site reads.
pub(crate) struct SiteTraffic {
    pub(crate) site: String,
    pub(crate) sources: Vec<Source>,
    /// The `[[interface]]` tables of `agent.toml`.
    pub(crate) interfaces: String,
}

/// Files that are read as one interface.
pub(crate) struct Source {
    pub(crate) files: Vec<PathBuf>,
    /// Name of the interface; each capture's own where none is stated.
    pub(crate) interface: Option<String>,
}

/// Makes the captures of a working day at both edges.
pub(crate) fn generate(stage: &Stage, seed: u64, sites: &[&str]) -> Result<Traffic> {
    let dir = stage.dir.join("captures");
    say(&format!("captures of a working day at both edges, with planted truth (seed {seed})"));
    let told =
        output(&stage.program("onenet-traffic"), &["--out", path(&dir)?, "--seed", &seed.to_string()])?;
    for line in told.lines() {
        eprintln!("    {line}");
    }
    let sites: Result<Vec<SiteTraffic>> = sites.iter().map(|site| generated_site(&dir, site)).collect();
    Ok(Traffic { sites: sites?, plan: Some(dir.join("plan.toml")), truth: Some(dir.join("truth.json")) })
}

fn generated_site(dir: &Path, site: &str) -> Result<SiteTraffic> {
    let settings = dir.join(format!("{site}-interfaces.toml"));
    let interfaces =
        fs::read_to_string(&settings).with_context(|| format!("cannot read {}", settings.display()))?;
    let source = |interface: &str| Source {
        files: vec![dir.join(format!("{site}-{interface}.pcap"))],
        interface: Some(interface.to_owned()),
    };
    Ok(SiteTraffic { site: site.to_owned(), sources: vec![source("inside"), source("outside")], interfaces })
}

/// Finds the captures in a folder and deals them to the sites in turn.
pub(crate) fn find(dir: &Path, sites: &[&str]) -> Result<Traffic> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry?.path();
        if file.is_file() && is_capture(&file) {
            files.push(file.canonicalize()?);
        }
    }
    files.sort();
    if files.is_empty() {
        bail!("{} holds no capture (*.pcap, *.pcapng, *.cap, also with .gz)", dir.display());
    }
    say(&format!("{} captures in {}, spread over {}", files.len(), dir.display(), sites.join(" and ")));
    let dealt = sites.iter().enumerate().map(|(turn, site)| {
        let files = files.iter().skip(turn).step_by(sites.len()).cloned().collect();
        SiteTraffic {
            site: (*site).to_owned(),
            sources: vec![Source { files, interface: None }],
            interfaces: String::new(),
        }
    });
    Ok(Traffic { sites: dealt.collect(), plan: None, truth: None })
}

fn is_capture(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    [".pcap", ".pcapng", ".cap"].iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_are_told_by_their_ending() {
        for (name, expected) in [
            ("a.pcap", true),
            ("A.PCAPNG", true),
            ("b.pcap.gz", true),
            ("c.cap", true),
            ("d.tsv", false),
            ("pcap", false),
        ] {
            assert_eq!(is_capture(Path::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn captures_are_dealt_to_both_sites_and_none_twice() {
        let dir = std::env::temp_dir().join(format!("xtask-captures-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a folder");
        for name in ["a.pcap", "b.pcap", "c.pcapng", "notes.txt"] {
            fs::write(dir.join(name), []).expect("a file");
        }
        let traffic = find(&dir, &["boston", "lowell"]).expect("captures");
        let counts: Vec<usize> = traffic.sites.iter().map(|site| site.sources[0].files.len()).collect();
        assert_eq!(counts, [2, 1]);
        fs::remove_dir_all(&dir).expect("the folder goes");
    }
}

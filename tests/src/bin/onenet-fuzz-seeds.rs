//! Writes the seeds of every fuzz target into a folder, one folder for each target, for libFuzzer to start from.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use onenet_tests::fuzz::seeds::{TARGETS, seeds};

/// Writes the seeds of every fuzz target.
#[derive(Parser)]
struct Arguments {
    /// Folder to write into.
    #[arg(long)]
    out: PathBuf,
}

fn main() -> Result<()> {
    let Arguments { out } = Arguments::parse();
    for (target, _, _) in TARGETS {
        let folder = out.join(target);
        fs::create_dir_all(&folder).with_context(|| format!("{}: cannot be created", folder.display()))?;
        for (number, seed) in seeds(target).iter().enumerate() {
            let file = folder.join(format!("seed-{number:03}"));
            fs::write(&file, seed).with_context(|| format!("{}: cannot be written", file.display()))?;
        }
    }
    Ok(())
}

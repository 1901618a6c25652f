//! The captures of the speed runs, made where they are missing, and what is in them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{programs::output, say};

/// A capture file and what is in it.
#[derive(Clone, Debug)]
pub(crate) struct Capture {
    pub(crate) path: PathBuf,
    truth: Value,
}

impl Capture {
    /// A count of the truth; 0 where it has none of this name.
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.truth[name].as_u64().unwrap_or_default()
    }

    /// A part of the truth, where it has one of this name.
    pub(crate) fn part(&self, name: &str) -> Option<&Value> {
        self.truth.get(name)
    }
}

/// Makes a capture by the project's own generator: `kind` and its options as `onenet-load` takes them.
pub(crate) fn make(
    generator: &Path,
    folder: &Path,
    name: &str,
    kind: &str,
    options: &[&str],
) -> Result<Capture> {
    let path = folder.join(format!("{name}.pcap"));
    let made_by = [&[kind][..], options].concat().join(" ");
    if let Some(capture) = made_before(generator, &path, &made_by) {
        return Ok(capture);
    }
    say(&format!("making {name}.pcap ({made_by})"));
    let text = path.to_str().context("a path that is not UTF-8")?;
    let told = output(generator, &[&[kind, text][..], options].concat())?;
    keep(path, &made_by, serde_json::from_str(&told)?)
}

/// Makes a capture by the generator that lies beside the tree, so that figures compare with those taken elsewhere
/// by it. `kind` is `mix` or `syn`.
pub(crate) fn make_shared(shared: &Path, folder: &Path, kind: &str, options: &[&str]) -> Result<Capture> {
    let script = shared.join("tools/mkbig.py");
    ensure!(script.is_file(), "{} is not there", script.display());
    let path = folder.join(format!("shared-{kind}.pcap"));
    let templates = shared.join("captures");
    let made_by = [&["mkbig.py", kind][..], options].concat().join(" ");
    if let Some(capture) = made_before(&script, &path, &made_by) {
        return Ok(capture);
    }
    say(&format!("making shared-{kind}.pcap ({made_by}); this takes minutes"));
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is not UTF-8");
    let (script, out, templates) = (text(&script)?, text(&path)?, text(&templates)?);
    let mut words = vec![script.as_str(), kind, &out];
    if kind == "mix" {
        words.extend(["--templates", &templates]);
    }
    words.extend(options);
    let told = output(Path::new("python3"), &words)?;
    keep(path, &made_by, serde_json::from_str(&told)?)
}

fn truth_file(capture: &Path) -> PathBuf {
    capture.with_extension("json")
}

/// The capture of an earlier run, if the same generator made it in the same way.
fn made_before(generator: &Path, path: &Path, made_by: &str) -> Option<Capture> {
    let truth: Value = serde_json::from_slice(&fs::read(truth_file(path)).ok()?).ok()?;
    let changed = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    let same = truth["made_by"] == made_by
        && truth["file_bytes"].as_u64() == fs::metadata(path).ok().map(|data| data.len())
        && changed(path)? > changed(generator)?;
    same.then(|| Capture { path: path.to_owned(), truth })
}

fn keep(path: PathBuf, made_by: &str, mut truth: Value) -> Result<Capture> {
    truth["made_by"] = made_by.into();
    fs::write(truth_file(&path), serde_json::to_vec(&truth)?)?;
    let size = fs::metadata(&path)?.len();
    ensure!(
        truth["file_bytes"] == size,
        "{} has {size} bytes, which is not what was written",
        path.display()
    );
    Ok(Capture { path, truth })
}

/// Removes a capture that is large and quickly made again.
pub(crate) fn remove(capture: &Capture) -> Result<()> {
    fs::remove_file(&capture.path)?;
    fs::remove_file(truth_file(&capture.path))?;
    Ok(())
}

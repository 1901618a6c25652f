//! The NDJSON file that a SIEM's shipper tails: appended, synced, rotated by size.
//!
//! Invariants: what `append` returned Ok for is on the disk whole (written, then fsynced). A line is never torn
//! for a reader that waits for its newline: a torn tail left by a kill or a full disk is cut off before the
//! next append. Rotation renames NAME to NAME.1, NAME.1 to NAME.2 and so on, and drops what is beyond `keep`;
//! renames keep the inode, so a shipper that has the file open reads on to its end.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// A file that grows to a limit and is then set aside.
#[derive(Debug)]
pub(crate) struct RotatingFile {
    path: PathBuf,
    limit: u64,
    keep: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    length: u64,
}

impl RotatingFile {
    /// A file at `path` of at most `limit` bytes, beside `keep` older ones. Nothing is touched yet.
    pub(crate) const fn new(path: PathBuf, limit: u64, keep: u32) -> Self {
        Self { path, limit, keep, open: None }
    }

    /// Appends whole lines and makes them durable. On an error nothing of them counts: the next append starts
    /// where this one did. A single line longer than the limit gets a file of its own.
    pub(crate) fn append(&mut self, lines: &[String]) -> io::Result<()> {
        let mut pending = Vec::new();
        for line in lines {
            let room = self.limit.saturating_sub(self.open()?.length);
            let needed = (pending.len() as u64).saturating_add(line.len() as u64).saturating_add(1);
            if needed > room {
                self.write(&pending)?;
                pending.clear();
                if self.open()?.length > 0 {
                    self.rotate()?;
                }
            }
            pending.extend_from_slice(line.as_bytes());
            pending.push(b'\n');
        }
        self.write(&pending)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let open = self.open()?;
        let done = open.file.write_all(bytes).and_then(|()| open.file.sync_data());
        match done {
            Ok(()) => {
                open.length = open.length.saturating_add(bytes.len() as u64);
                Ok(())
            }
            Err(error) => {
                // Reopened by name next time, where the torn tail is cut.
                let _ = open.file.set_len(open.length);
                self.open = None;
                Err(error)
            }
        }
    }

    /// The open file; opened where it is not, or where somebody moved it away under us.
    fn open(&mut self) -> io::Result<&mut Open> {
        let moved = match &self.open {
            Some(open) => !same_file(&open.file, &self.path),
            None => true,
        };
        if moved {
            self.open = None;
        }
        if self.open.is_none() {
            if let Some(directory) = self.path.parent() {
                fs::create_dir_all(directory)?;
            }
            let mut file =
                OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(&self.path)?;
            let length = cut_torn_tail(&mut file)?;
            sync_directory(&self.path)?;
            self.open = Some(Open { file, length });
        }
        self.open.as_mut().ok_or_else(|| io::Error::other("the file is not open"))
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.open = None;
        if self.keep == 0 {
            fs::remove_file(&self.path)?;
        } else {
            for older in (1..self.keep).rev() {
                rename_if_there(&self.numbered(older), &self.numbered(older.saturating_add(1)))?;
            }
            rename_if_there(&self.path, &self.numbered(1))?;
        }
        sync_directory(&self.path)
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Whether `path` still names the open file.
fn same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Cuts a last line without newline off; gives the length that remains.
fn cut_torn_tail(file: &mut File) -> io::Result<u64> {
    const STEP: u64 = 64 * 1024;
    let mut end = file.seek(SeekFrom::End(0))?;
    let whole = end;
    let mut buffer = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(STEP);
        file.seek(SeekFrom::Start(start))?;
        buffer.clear();
        Read::by_ref(file).take(end - start).read_to_end(&mut buffer)?;
        if let Some(newline) = buffer.iter().rposition(|&byte| byte == b'\n') {
            end = start.saturating_add(newline as u64).saturating_add(1);
            break;
        }
        end = start;
    }
    if end < whole {
        file.set_len(end)?;
        file.sync_data()?;
    }
    Ok(end)
}

/// Makes a creation, rename or removal beside `path` durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: impl AsRef<Path>) -> String {
        fs::read_to_string(path).expect("the file is there")
    }

    fn lines(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn lines_are_appended_and_rotated_by_size_without_losing_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("deep/findings.ndjson");
        let mut file = RotatingFile::new(path.clone(), 10, 2);
        file.append(&lines(&["1111", "2222", "3333"])).expect("it is written");
        assert_eq!(
            (read(&path), read(path.with_extension("ndjson.1"))),
            ("3333\n".into(), "1111\n2222\n".into())
        );
        file.append(&lines(&["a line longer than the limit", "5", "6666", "7777"])).expect("it is written");
        assert_eq!(read(&path), "7777\n");
        assert_eq!(read(path.with_extension("ndjson.1")), "5\n6666\n");
        assert_eq!(read(path.with_extension("ndjson.2")), "a line longer than the limit\n");
        assert!(!path.with_extension("ndjson.3").exists());
    }

    #[test]
    fn a_torn_tail_is_cut_before_the_next_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("f");
        for (before, after) in [("whole\ntor", "whole\nnext\n"), ("torn", "next\n"), ("", "next\n")] {
            fs::write(&path, before).expect("it is written");
            RotatingFile::new(path.clone(), 100, 1).append(&lines(&["next"])).expect("it is written");
            assert_eq!(read(&path), after);
        }
        let long = format!("whole\n{}", "x".repeat(200_000));
        fs::write(&path, long).expect("it is written");
        RotatingFile::new(path.clone(), 1 << 20, 1).append(&lines(&["next"])).expect("it is written");
        assert_eq!(read(&path), "whole\nnext\n");
    }

    #[test]
    fn a_file_moved_away_by_somebody_else_is_made_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("f");
        let mut file = RotatingFile::new(path.clone(), 100, 1);
        file.append(&lines(&["one"])).expect("it is written");
        fs::rename(&path, directory.path().join("taken")).expect("it is moved");
        file.append(&lines(&["two"])).expect("it is written");
        assert_eq!((read(&path), read(directory.path().join("taken"))), ("two\n".into(), "one\n".into()));
    }

    #[test]
    fn an_append_that_fails_leaves_nothing_behind_and_can_be_repeated() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("f");
        fs::create_dir(&path).expect("a directory in the way");
        let mut file = RotatingFile::new(path.clone(), 100, 1);
        assert!(file.append(&lines(&["one"])).is_err());
        fs::remove_dir(&path).expect("it is removed");
        file.append(&lines(&["one"])).expect("it is written");
        assert_eq!(read(&path), "one\n");
    }
}

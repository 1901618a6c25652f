//! Files that are replaced whole: a reader sees the old content or the new, also after a power cut.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Permissions of a file that its owner alone may read.
pub(crate) const PRIVATE: u32 = 0o600;
/// Permissions of a file that others may read.
pub(crate) const SHARED: u32 = 0o644;

/// Where the content that is to take the place of `name` in `directory` is written. It is this process's own.
pub(crate) fn draft_of(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.{}", std::process::id()))
}

/// Writes a file that is to take the place of `name` in `directory`, whole and on the disk.
pub(crate) fn draft(directory: &Path, name: &str, bytes: &[u8], mode: u32) -> io::Result<PathBuf> {
    let draft = draft_of(directory, name);
    let mut file = fs::File::options().write(true).create(true).truncate(true).mode(mode).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(draft)
}

/// Makes a directory's entries durable: a new file may vanish in a power failure unless its directory is synced.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// Puts `bytes` in the place of `name` in `directory`, or makes it.
pub(crate) fn replace(directory: &Path, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    fs::rename(draft(directory, name, bytes, mode)?, directory.join(name))?;
    sync_directory(directory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().expect("a directory");
        // What a process that was killed left behind is longer.
        fs::write(draft_of(directory.path(), "a.ndjson"), "killed").expect("written");
        for (content, mode) in [("one", SHARED), ("two", PRIVATE)] {
            replace(directory.path(), "a.ndjson", content.as_bytes(), mode).expect("it is written");
            let path = directory.path().join("a.ndjson");
            assert_eq!(fs::read_to_string(&path).expect("readable"), content);
            let made = fs::metadata(&path).expect("it is there").permissions().mode();
            assert_eq!(made & 0o777 & !mode, 0, "no more than was asked for");
        }
        assert_eq!(fs::read_dir(directory.path()).expect("readable").count(), 1);
    }
}

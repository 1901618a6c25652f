//! Where the repositories are made: in a folder beside the one that is served, which then takes its place at once. What
//! fails on the way leaves the old one as it was.

use std::{
    fs::{self, File, TryLockError},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, RenameFlags, renameat2},
};

/// All that a repository consists of; a folder with anything else is somebody's, and is not replaced.
const PARTS: [&str; 5] = ["apt", "onenet.asc", "onenet.repo", "onenet.sources", "rpm"];

/// A folder that goes when it is dropped.
pub(super) struct Fresh {
    path: PathBuf,
    out: PathBuf,
    /// Of the folder around both, so that two commands do not take each other's packages away.
    _lock: Lock,
}

/// Of a folder. It is given back by word and not by closing the file, which a program that is being started may hold too.
struct Lock(File);

impl Lock {
    /// None where somebody else has it.
    fn of(folder: &Path) -> std::io::Result<Option<Self>> {
        let file = File::open(folder)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

impl Fresh {
    /// An empty folder beside `out`, which need not be there yet.
    pub(super) fn beside(out: &Path) -> Result<Self> {
        let cannot = || format!("cannot write {}", out.display());
        // What a link leads to is replaced, not the link.
        let out = fs::canonicalize(out).or_else(|_| std::path::absolute(out)).with_context(cannot)?;
        let (Some(parent), Some(name)) = (out.parent(), out.file_name()) else {
            bail!("{} cannot be replaced by a new folder", out.display());
        };
        fs::create_dir_all(parent).with_context(cannot)?;
        let Some(lock) = Lock::of(parent).with_context(cannot)? else {
            bail!("another cargo xtask repo is at work in {}", parent.display());
        };
        // Nobody else is at work, so folders of these names are what a killed command left.
        let path = parent.join(format!(".{}.new", name.to_string_lossy()));
        let aside = path.with_extension("old");
        if aside.exists() && !out.exists() {
            fs::rename(&aside, &out).with_context(cannot)?;
        }
        if out.exists() {
            ensure!(out.is_dir(), "{} is no folder", out.display());
            for entry in crate::package::names(&out)? {
                ensure!(
                    PARTS.contains(&entry.as_str()),
                    "{} has {entry}, which is no part of a repository: state an empty or a new folder",
                    out.display()
                );
            }
        }
        for left in [&path, &aside] {
            if left.exists() {
                fs::remove_dir_all(left).with_context(cannot)?;
            }
        }
        fs::create_dir(&path).with_context(cannot)?;
        Ok(Self { path, out, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder that is served, as the system names it.
    pub(super) fn out(&self) -> &Path {
        &self.out
    }

    /// Puts the folder in the place of the one that is served. There is no moment without one, where the file system
    /// can exchange two names, as ext4, XFS, Btrfs and tmpfs can; elsewhere the moment is short.
    pub(super) fn switch(&mut self) -> Result<()> {
        settle(&self.path)?;
        let cannot = || format!("cannot put the new repository at {}", self.out.display());
        if !self.out.exists() {
            return fs::rename(&self.path, &self.out).with_context(cannot);
        }
        match renameat2(AT_FDCWD, &self.path, AT_FDCWD, &self.out, RenameFlags::RENAME_EXCHANGE) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EXDEV) => {
                self.path = by_turns(&self.path, &self.out).with_context(cannot)?;
            }
            Err(error) => return Err(error).with_context(cannot),
        }
        Ok(())
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        // After a switch this is the old repository.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Moves the old folder aside and the new one there, and gives where the old one is; it comes back where that fails.
fn by_turns(new: &Path, out: &Path) -> std::io::Result<PathBuf> {
    let aside = new.with_extension("old");
    fs::rename(out, &aside)?;
    if let Err(error) = fs::rename(new, out) {
        fs::rename(&aside, out)?;
        return Err(error);
    }
    Ok(aside)
}

/// Makes all readable for whoever serves it, whatever the umask is, and has it on the disk before it is switched to.
fn settle(path: &Path) -> Result<()> {
    let folder = path.is_dir();
    if folder {
        for name in crate::package::names(path)? {
            settle(&path.join(name))?;
        }
    }
    let cannot = || format!("cannot write {}", path.display());
    let mode = fs::Permissions::from_mode(if folder { 0o755 } else { 0o644 });
    fs::set_permissions(path, mode).with_context(cannot)?;
    File::open(path).and_then(|file| file.sync_all()).with_context(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::stand_ins::Folder;

    #[test]
    fn a_folder_is_there_before_and_after_a_switch_by_turns_and_when_it_fails() {
        let folder = Folder::new("repo-turns");
        let (out, new) = (folder.0.join("out"), folder.0.join(".out.new"));
        for (path, content) in [(&out, "old"), (&new, "new")] {
            fs::create_dir(path).expect("made");
            fs::write(path.join("file"), content).expect("written");
        }
        let aside = by_turns(&new, &out).expect("switched");
        assert_eq!(fs::read_to_string(out.join("file")).expect("read"), "new");
        assert_eq!(fs::read_to_string(aside.join("file")).expect("read"), "old");
        fs::remove_dir_all(aside).expect("removed");
        by_turns(&new, &out).expect_err("there is nothing new");
        assert_eq!(fs::read_to_string(out.join("file")).expect("read"), "new");
    }

    #[test]
    fn whoever_serves_the_folder_can_read_it() {
        let folder = Folder::new("repo-settled");
        let (inner, file) = (folder.0.join("inner"), folder.0.join("inner/file"));
        fs::create_dir(&inner).expect("made");
        fs::write(&file, "").expect("written");
        for (path, mode) in [(&file, 0o600), (&inner, 0o700)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
        }
        settle(&folder.0).expect("settled");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&folder.0), mode(&inner), mode(&file)), (0o755, 0o755, 0o644));
    }

    #[test]
    fn a_program_that_is_being_started_keeps_no_lock() {
        let folder = Folder::new("repo-lock");
        let out = folder.0.join("out");
        let fresh = Fresh::beside(&out).expect("a folder");
        let also_held = fresh._lock.0.try_clone().expect("held by another");
        assert!(Fresh::beside(&out).is_err(), "one at a time");
        drop(fresh);
        Fresh::beside(&out).expect("the next one");
        drop(also_held);
    }

    #[test]
    fn what_a_killed_command_left_is_no_part_of_the_next() {
        let folder = Folder::new("repo-killed");
        let (left, aside) = (folder.0.join(".out.new"), folder.0.join(".out.old"));
        fs::create_dir_all(left.join("apt")).expect("made");
        // It was killed between two turns, so that the one that was served is aside.
        fs::create_dir_all(aside.join("rpm")).expect("made");
        let mut fresh = Fresh::beside(&folder.0.join("out")).expect("a folder");
        assert!(fresh.path() == left && !left.join("apt").exists());
        assert!(folder.0.join("out/rpm").exists() && !aside.exists());
        fresh.switch().expect("switched");
        drop(fresh);
        assert!(folder.0.join("out").exists() && !left.exists());
    }
}

//! Whose files a command makes. Keys and data belong to the user that a service runs as; the operator who enrols a sensor
//! or asks for a token is often root, and a single file of root's among them would keep the service from starting.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use nix::unistd::{Gid, Uid, geteuid, setfsgid, setfsuid};

/// User and group that a path belongs to, or the nearest of its parents that exists.
fn owner_of(path: &Path) -> Option<(Uid, Gid)> {
    let place = path.ancestors().find_map(|place| fs::metadata(place).ok())?;
    Some((Uid::from_raw(place.uid()), Gid::from_raw(place.gid())))
}

/// The user other than root that `path` belongs to, where this process is root.
fn to_act_for(path: &Path) -> Option<(Uid, Gid)> {
    owner_of(path).filter(|(user, _)| geteuid().is_root() && !user.is_root())
}

/// Why root must not run a service in `path`: files of root's would keep the service, which runs as the owner of its
/// directory, from starting again. Nothing where the directory is root's own, or this process is not root.
pub fn not_for_root(path: &Path) -> Option<String> {
    let owner = other_owner(path)?;
    Some(format!(
        "{} belongs to {owner}, and root would leave files there that {owner} cannot read: start the service, or run \
         this as {owner}",
        path.display()
    ))
}

/// The name or else the number of the user other than root whom `path` belongs to, where this process is root.
fn other_owner(path: &Path) -> Option<String> {
    let (user, _) = to_act_for(path)?;
    let known = nix::unistd::User::from_uid(user).ok().flatten();
    Some(known.map_or_else(|| user.to_string(), |known| known.name))
}

/// What this thread acts as on files, until dropped.
struct Acting {
    user: Uid,
    group: Gid,
}

impl Drop for Acting {
    fn drop(&mut self) {
        setfsuid(self.user);
        setfsgid(self.group);
    }
}

/// Runs `work` so that the files it makes belong to whom `path`, or else the nearest parent that exists, belongs to, where
/// that is not root and this process is. It concerns this thread alone.
pub fn as_owner_of<T>(path: &Path, work: impl FnOnce() -> T) -> T {
    let Some((user, group)) = to_act_for(path) else { return work() };
    // The group first: only root may change it.
    let group = setfsgid(group);
    let _acting = Acting { user: setfsuid(user), group };
    work()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use super::*;

    #[test]
    fn what_root_makes_belongs_to_the_owner_of_the_place_and_root_is_itself_again() {
        let place = tempfile::tempdir().expect("a directory");
        let owner =
            |path: &Path| fs::metadata(path).map(|file| (file.uid(), file.gid())).expect("it is there");
        if !geteuid().is_root() {
            eprintln!("not root: whose files root makes is NOT tested here");
            return;
        }
        assert_eq!(other_owner(place.path()), None);
        chown(place.path(), Some(12_345), Some(12_346)).expect("root may");
        assert_eq!(other_owner(&place.path().join("not/there")), Some("12345".to_owned()));
        let deep = place.path().join("state/keys");
        let made =
            as_owner_of(&deep, || fs::create_dir_all(&deep).and_then(|()| fs::write(deep.join("key"), "")));
        made.expect("the owner may");
        for path in [place.path().join("state"), deep.clone(), deep.join("key")] {
            assert_eq!(owner(&path), (12_345, 12_346), "{}", path.display());
        }
        let own = place.path().join("own");
        fs::write(&own, "").expect("written");
        assert_eq!(owner(&own), (0, 0));
        // One that panics leaves root itself, too.
        let _ = std::panic::catch_unwind(|| as_owner_of(&deep, || panic!("on purpose")));
        fs::write(&own, "again").expect("written");
        fs::write(place.path().join("other"), "").expect("written");
        assert_eq!(owner(&place.path().join("other")), (0, 0));
    }
}

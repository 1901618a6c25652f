//! What a repository holds after one command and after the next.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn tools(gpg: bool) -> bool {
    let tools: &[&str] = &["dpkg-deb", "xz", "rpmbuild", "rpm", "createrepo_c"];
    let signing: &[&str] = if gpg { &["gpg", "rpmsign"] } else { &[] };
    tools.iter().chain(signing).all(|tool| is_here(tool))
}

const BOTH: [Format; 2] = [Format::Deb, Format::Rpm];

#[test]
fn unsigned_repositories_are_the_same_whenever_and_wherever_they_are_made() {
    if !tools(false) {
        return;
    }
    let (first, second) = (Folder::new("repo-1"), Folder::new("repo-elsewhere"));
    let made = |folder: &Folder| {
        let packages = packages(&folder.0, &BOTH, None);
        for path in state(&packages).into_keys() {
            // Whoever serves them must read them all the same.
            fs::set_permissions(path, fs::Permissions::from_mode(0o400)).expect("set");
        }
        let out = folder.0.join("repository");
        repository(&packages, &out, &[], MOMENT).expect("a repository");
        (packages, out)
    };
    let (packages, out) = made(&first);
    for path in state(&out).into_keys() {
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        let folder = path.parent().expect("a folder");
        assert_eq!((mode(&path), mode(folder)), (0o644, 0o755), "{}", path.display());
    }
    // The times of files are seconds.
    std::thread::sleep(Duration::from_millis(1100));
    let (_, again) = made(&second);
    let whole = state_below(&out);
    assert!(whole == state_below(&again), "the same bytes");
    assert!(whole.len() > 15, "lists, packages and what hosts state: {:?}", whole.keys());
    repository(&packages, &out, &[], MOMENT).expect("made over itself");
    assert!(whole == state_below(&out), "the same over itself");
    let left: Vec<_> =
        fs::read_dir(&first.0).expect("listed").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left.len(), 2, "nothing is left beside it: {left:?}");
}

#[test]
fn earlier_versions_stay_and_so_do_the_lists_that_a_host_is_about_to_ask_for() {
    if !tools(false) {
        return;
    }
    let folder = Folder::new("repo-versions");
    let (old, new) = (packages(&folder.0, &BOTH, None), packages(&folder.0, &BOTH, Some("7.0.0")));
    let out = folder.0.join("repository");
    repository(&old, &out, &[], MOMENT).expect("a repository");
    let before = state(&out);
    let later = Moment(MOMENT.0 + 60);
    repository(&new, &out, &[], later).expect("a repository");
    let after = state(&out);
    // Whatever Release or repomd.xml of before names is still there under its checksum.
    let still = |part: &str| {
        let mut named = before.iter().filter(|(path, _)| contains(path, part)).peekable();
        assert!(named.peek().is_some(), "{part}");
        for (path, content) in named {
            assert!(after.get(path) == Some(content), "{} is gone", path.display());
        }
    };
    for part in ["/by-hash/", "-primary.xml", "-filelists.xml", "-other.xml", ".deb", ".rpm"] {
        still(part);
    }
    let lists = |out: &Path| {
        let all = state(out).into_iter().filter(|(path, _)| path.ends_with("Packages"));
        all.map(|(_, text)| String::from_utf8(text).expect("UTF-8")).collect::<String>()
    };
    assert_eq!(lists(&out).matches("\nVersion: ").count(), 4, "two programs in two versions");
    assert_eq!(lists(&out).matches("\nVersion: 7.0.0-1\n").count(), 2);
    let error = repository(&old, &out, &[], MOMENT).expect_err("an earlier date");
    assert!(error.contains(&format!("SOURCE_DATE_EPOCH={} or later", later.0)), "{error}");
    repository(&new, &out, &["--only"], later).expect("a repository");
    assert_eq!(lists(&out).matches("\nVersion: ").count(), 2, "--only drops the others");
    let packages = state(&out).into_keys().filter(|path| contains(path, "rpm/packages/")).count();
    assert_eq!(packages, 2);
}

#[test]
fn packages_are_signed_as_copies_once_and_anew_by_another_key() {
    if !tools(true) {
        return;
    }
    let folder = Folder::new("repo-signed");
    let gpg = Gpg::new("repo-signed", &["old@onenet.example", "new@onenet.example"]);
    let packages = packages(&folder.0, &[Format::Rpm], None);
    let originals = state(&packages);
    let out = folder.0.join("repository");
    let signed_by = |key: &str| {
        repository(&packages, &out, &["--key", key, "--gnupg-home", gpg.path()], MOMENT)
            .expect("a repository");
        assert!(state(&packages) == originals, "the originals are untouched");
        let rpms = state(&out).into_iter().filter(|(path, _)| contains(path, ".rpm"));
        rpms.collect::<BTreeMap<_, _>>()
    };
    let verifies = |name: &str, accepts: bool| {
        // By the key alone that hosts are given now.
        let keyring = folder.0.join(name);
        fs::create_dir(&keyring).expect("made");
        succeeds(
            Command::new("rpmkeys").arg("--dbpath").arg(&keyring).arg("--import").arg(out.join("onenet.asc")),
        );
        for path in state(&out).into_keys().filter(|path| contains(path, ".rpm")) {
            let mut check = Command::new("rpmkeys");
            check
                .arg("--dbpath")
                .arg(&keyring)
                .args(["--define", "_pkgverify_level all", "--checksig"])
                .arg(path);
            if accepts { drop(succeeds(&mut check)) } else { fails(&mut check, &[]) }
        }
    };
    // Served unsigned first: they are signed when a key is stated.
    repository(&packages, &out, &[], MOMENT).expect("a repository");
    let first = signed_by("old@onenet.example");
    verifies("keyring-old", true);
    assert!(first == signed_by("old@onenet.example"), "a package that is signed keeps its bytes");
    let second = signed_by("new@onenet.example");
    assert!(first.iter().zip(&second).all(|(old, new)| old.0 == new.0 && old.1 != new.1), "signed anew");
    verifies("keyring-new", true);
    let index = fs::read(out.join("rpm/repodata/repomd.xml")).expect("read");
    fs::write(folder.0.join("repomd.xml"), &index).expect("written");
    gpg.run(&[
        "--verify",
        out.join("rpm/repodata/repomd.xml.asc").to_str().expect("UTF-8"),
        folder.0.join("repomd.xml").to_str().expect("UTF-8"),
    ]);
}

//! What cannot become a repository is refused in one line, and the repository that is served stays as it was.

use super::*;

fn tools() -> bool {
    ["dpkg-deb", "xz", "rpmbuild", "rpm", "createrepo_c", "gpg"].iter().all(|tool| is_here(tool))
}

fn is_one_line(error: &str) {
    assert!(!error.contains('\n') && error.len() < 500, "one clear line: {error}");
}

#[test]
fn what_is_wrong_is_said_and_changes_nothing() {
    if !tools() {
        return;
    }
    let folder = Folder::new("repo-bad");
    let gpg =
        Gpg::new("repo-bad", &["edge@onenet.example", "twin <a@twin.example>", "twin <b@twin.example>"]);
    let packages = packages(&folder.0, &[Format::Deb, Format::Rpm], None);
    let out = folder.0.join("repository");
    let key = ["--key", "edge@onenet.example", "--gnupg-home", gpg.path()];
    repository(&packages, &out, &key, MOMENT).expect("a repository");
    let served = state(&out);
    let refused = |packages: &Path, words: &[&str], part: &str| {
        let error = repository(packages, &out, words, MOMENT).expect_err(part);
        is_one_line(&error);
        assert!(error.contains(part), "{part}: {error}");
        assert!(state(&out) == served, "{part}: it is as it was");
        assert!(!folder.0.join(".repository.new").exists(), "{part}: nothing is left");
    };
    let empty = folder.0.join("empty");
    fs::create_dir(&empty).expect("made");
    refused(&empty, &key, "no .deb and no .rpm in");
    refused(&folder.0.join("nowhere"), &key, "nowhere");

    for kind in ["deb", "rpm"] {
        let bad = folder.0.join(format!("bad-{kind}"));
        fs::create_dir(&bad).expect("made");
        let whole = fs::read_dir(&packages).expect("listed").flatten().map(|entry| entry.path());
        let whole =
            whole.filter(|path| path.extension().is_some_and(|end| end == kind)).min().expect("a package");
        let content = fs::read(whole).expect("read");
        let file = bad.join(format!("cut.{kind}"));
        for bytes in [0, 10, content.len() / 2, content.len() - 9] {
            fs::write(&file, &content[..bytes]).expect("written");
            refused(&bad, &key, &format!("cut.{kind} is no whole package: "));
        }
        fs::write(&file, "no package at all\n".repeat(100)).expect("written");
        refused(&bad, &key, &format!("cut.{kind} is no whole package: "));
    }

    for (fields, part) in [
        ("Package: a\nVersion: 1/../../../../up", "can be no part of a path"),
        ("Package: a\nVersion: 1\nSha256: 00", "a field SHA256 of its own"),
        ("Package: a", "no field Version"),
    ] {
        let bad = folder.0.join("crafted");
        fs::create_dir_all(bad.join("tree/DEBIAN")).expect("made");
        fs::write(bad.join("tree/DEBIAN/control"), format!("{fields}\nArchitecture: all\n"))
            .expect("written");
        let mut build = Command::new("dpkg-deb");
        succeeds(build.args(["--nocheck", "--build"]).args([bad.join("tree"), bad.join("a.deb")]));
        refused(&bad, &key, part);
    }

    let home = ["--gnupg-home", gpg.path()];
    refused(
        &packages,
        &[&["--key", "nobody@onenet.example"][..], &home].concat(),
        "no secret key nobody@onenet.example",
    );
    refused(&packages, &[&["--key=--list-config"][..], &home].concat(), "no secret key --list-config");
    refused(&packages, &[&["--key", "twin"][..], &home].concat(), "twin fits 2 secret keys");
    let next = [&key[..], &["--next-key", "nobody@onenet.example"]].concat();
    refused(&packages, &next, "no public key nobody@onenet.example");
    refused(&packages, &[], "is signed, and its hosts refuse what is not");
    refused(&packages, &[&key[..], &["--suite", "testing"]].concat(), "serves the suite stable");

    // A key that cannot sign: found only when the lists are made.
    gpg.run(&["--passphrase", "", "--quick-generate-key", "certifier", "ed25519", "cert", "never"]);
    refused(&packages, &[&["--key", "certifier"][..], &home].concat(), "cannot sign by ");
    gpg.run(&["--passphrase", "", "--quick-generate-key", "brief", "ed25519", "sign", "seconds=1"]);
    std::thread::sleep(Duration::from_millis(2100));
    refused(&packages, &[&["--key", "brief"][..], &home].concat(), "has expired");
}

#[test]
fn a_version_stands_for_one_content() {
    if !tools() {
        return;
    }
    let folder = Folder::new("repo-content");
    let out = folder.0.join("repository");
    let first = packages(&folder.0, &[Format::Deb, Format::Rpm], None);
    repository(&first, &out, &[], MOMENT).expect("a repository");
    let served = state(&out);
    for (kind, format) in [("deb", Format::Deb), ("rpm", Format::Rpm)] {
        let other = folder.0.join(format!("other-{kind}"));
        fs::create_dir(&other).expect("made");
        stand_ins::make_by(&other, &[format], None, "Another <another@onenet.example>");
        let error = repository(&other.join("out"), &out, &[], MOMENT).expect_err("other content");
        is_one_line(&error);
        assert!(error.contains("same name, version and architecture, but other content"), "{error}");
        assert!(state(&out) == served, "it is as it was");
    }
}

#[test]
fn a_folder_that_is_somebodys_is_not_replaced() {
    let folder = Folder::new("repo-place");
    let out = folder.0.join("repository");
    fs::create_dir_all(out.join("apt")).expect("made");
    fs::write(out.join("thesis.txt"), "years of work").expect("written");
    let error = repository(&folder.0, &out, &[], MOMENT).expect_err("somebody's");
    assert!(error.contains("has thesis.txt, which is no part of a repository"), "{error}");
    assert!(out.join("thesis.txt").exists());

    let file = folder.0.join("file");
    fs::write(&file, "").expect("written");
    let error = repository(&folder.0, &file, &[], MOMENT).expect_err("a file");
    assert!(error.contains("is no folder"), "{error}");
    let error = repository(&folder.0, &file.join("below"), &[], MOMENT).expect_err("below a file");
    assert!(error.starts_with("cannot write "), "{error}");
    is_one_line(&error);

    let lock = fs::File::open(&folder.0).expect("opened");
    lock.lock().expect("locked");
    let error = repository(&folder.0, &folder.0.join("new"), &[], MOMENT).expect_err("another one at work");
    assert!(error.contains("another cargo xtask repo is at work"), "{error}");
}

#[test]
fn what_would_break_a_list_is_no_argument() {
    for words in [
        ["--suite", "two words"],
        ["--suite", "../up"],
        ["--origin", "one\nSuite: other"],
        ["--url", "ftp://old.example"],
        ["--url", "https://two words.example"],
        ["--next-key", "without a key"],
    ] {
        let parsed = Line::try_parse_from([&["repo"][..], &words].concat());
        assert_eq!(parsed.err().map(|error| error.exit_code()), Some(2), "{words:?}");
    }
}

//! apt reads the repository, and refuses what is not as it was signed.

use super::{super::key::Keys, *};

/// An apt that knows one repository and nothing of this system.
struct Apt(PathBuf);

impl Apt {
    /// `sources` are those that the repository comes with.
    fn new(root: PathBuf, sources: &str) -> Self {
        for folder in
            ["etc/apt/sources.list.d", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial"]
        {
            fs::create_dir_all(root.join(folder)).expect("made");
        }
        fs::write(root.join("etc/apt/sources.list.d/onenet.sources"), sources).expect("written");
        fs::write(root.join("status"), "").expect("written");
        let root_path = root.display();
        let settings = format!(
            "Dir \"{root_path}\";\nDir::State::status \"{root_path}/status\";\nDir::Etc::trusted \"/dev/null\";\n\
             Dir::Etc::trustedparts \"/dev/null\";\nAPT::Architecture \"{ARCHITECTURE}\";\n\
             APT::Architectures {{ \"{ARCHITECTURE}\"; }};\n#clear APT::Update::Post-Invoke;\n\
             APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\nAPT::Update::Error-Mode \"any\";\n"
        );
        fs::write(root.join("settings"), settings).expect("written");
        Self(root)
    }

    fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.0.join("settings")).current_dir(&self.0).args(words);
        command
    }

    fn update(&self) -> Command {
        self.command("apt-get", &["update"])
    }

    fn download(&self) -> Command {
        self.command("apt-get", &["download", "onenet-agent"])
    }
}

const ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };

fn tools() -> bool {
    ["apt-get", "dpkg-deb", "gpg", "xz"].iter().all(|tool| is_here(tool))
}

/// The repository's own onenet.sources, with the key where it lies.
fn sources(out: &Path) -> String {
    let text = fs::read_to_string(out.join("onenet.sources")).expect("read");
    text.replace("/etc/apt/keyrings/onenet.asc", &out.join("onenet.asc").to_string_lossy())
}

fn with_url(words: &[&str], out: &Path) -> Vec<String> {
    let url = format!("file:{}", out.display());
    words.iter().map(|word| (*word).to_owned()).chain(["--url".to_owned(), url]).collect()
}

fn served(packages: &Path, out: &Path, words: &[&str], moment: Moment) {
    let words = with_url(words, out);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    repository(packages, out, &words, moment).expect("a repository");
}

#[test]
fn apt_reads_what_is_signed_and_refuses_what_was_changed() {
    if !tools() {
        return;
    }
    let folder = Folder::new("apt");
    let gpg = Gpg::new("apt", &["edge@onenet.example", "other@onenet.example"]);
    let packages = packages(&folder.0, &[Format::Deb], None);
    let out = folder.0.join("repository");
    let key = ["--key", "edge@onenet.example", "--gnupg-home", gpg.path()];
    served(&packages, &out, &key, MOMENT);

    let apt = Apt::new(folder.0.join("client"), &sources(&out));
    succeeds(&mut apt.update());
    let policy = succeeds(&mut apt.command("apt-cache", &["policy", "onenet-agent"]));
    let version = concat!(env!("CARGO_PKG_VERSION"), "-1");
    assert!(policy.contains(&format!("Candidate: {version}\n")), "{policy}");
    let name = format!("onenet-agent_{version}_{ARCHITECTURE}.deb");
    succeeds(&mut apt.download());
    let given = fs::read(apt.0.join(&name)).expect("downloaded");
    assert!(given == fs::read(packages.join(&name)).expect("read"), "the same bytes");
    let shown = succeeds(&mut apt.command("apt-cache", &["policy"]));
    assert!(shown.contains("o=One Network,a=stable,n=stable,l=One Network,c=main"), "{shown}");

    let changed =
        spoiled(&out, "changed-lists", |path| contains(path, "/binary-") && !path.ends_with("Release"));
    let url = |other: &Path| sources(&out).replace(&*out.to_string_lossy(), &other.to_string_lossy());
    let apt = Apt::new(folder.0.join("client-lists"), &url(&changed));
    fails(&mut apt.update(), &["Hash Sum mismatch"]);

    let changed = spoiled(&out, "changed-package", |path| path.ends_with(&name));
    let apt = Apt::new(folder.0.join("client-package"), &url(&changed));
    succeeds(&mut apt.update());
    fails(&mut apt.download(), &["Hash Sum mismatch"]);
    assert!(!apt.0.join(&name).exists(), "what was changed is not kept");

    let changed = spoiled(&out, "changed-release", |path| path.ends_with("InRelease"));
    let apt = Apt::new(folder.0.join("client-release"), &url(&changed));
    fails(&mut apt.update(), &["is not signed"]);

    let other = folder.0.join("other");
    served(&packages, &other, &["--key", "other@onenet.example", "--gnupg-home", gpg.path()], MOMENT);
    let text = sources(&other)
        .replace(&*other.join("onenet.asc").to_string_lossy(), &out.join("onenet.asc").to_string_lossy());
    let apt = Apt::new(folder.0.join("client-other"), &text);
    fails(&mut apt.update(), &["NO_PUBKEY", "is not signed"]);

    // Release with its signature apart, as old clients read it.
    fs::remove_file(out.join("apt/dists/stable/InRelease")).expect("removed");
    let apt = Apt::new(folder.0.join("client-apart"), &sources(&out));
    succeeds(&mut apt.update());
}

#[test]
fn what_nobody_signed_is_read_only_where_a_host_says_so() {
    if !tools() {
        return;
    }
    let folder = Folder::new("apt-unsigned");
    let packages = packages(&folder.0, &[Format::Deb], None);
    let out = folder.0.join("repository");
    served(&packages, &out, &[], MOMENT);
    assert!(!out.join("onenet.asc").exists() && !out.join("apt/dists/stable/InRelease").exists());
    let apt = Apt::new(folder.0.join("client"), &sources(&out));
    succeeds(&mut apt.update());
    succeeds(&mut apt.download());
    let apt = Apt::new(folder.0.join("strict"), &sources(&out).replace("Trusted: yes\n", ""));
    fails(&mut apt.update(), &["is not signed"]);
}

#[test]
fn a_host_that_was_given_the_next_key_goes_on_when_it_signs() {
    if !tools() {
        return;
    }
    let folder = Folder::new("apt-rollover");
    let gpg =
        Gpg::new("apt-rollover", &["old@onenet.example", "new@onenet.example", "stranger@onenet.example"]);
    let packages = packages(&folder.0, &[Format::Deb], None);
    let out = folder.0.join("repository");
    let home = ["--gnupg-home", gpg.path()];
    let before = ["--key", "old@onenet.example", "--next-key", "new@onenet.example"];
    served(&packages, &out, &[&before[..], &home].concat(), MOMENT);
    // The key of the first day.
    let key = folder.0.join("host.asc");
    fs::copy(out.join("onenet.asc"), &key).expect("copied");
    let text = sources(&out).replace(&*out.join("onenet.asc").to_string_lossy(), &key.to_string_lossy());
    let apt = Apt::new(folder.0.join("client"), &text);
    succeeds(&mut apt.update());
    for (user, known) in [("new@onenet.example", true), ("stranger@onenet.example", false)] {
        let keys = Keys::find(&arguments(&[&["--key", user][..], &home].concat()));
        let keys = keys.expect("found").expect("stated");
        assert_eq!(keys.known_by(&key), known, "{user}");
    }
    let later = Moment(MOMENT.0 + 1);
    served(&packages, &out, &[&["--key", "new@onenet.example"][..], &home].concat(), later);
    succeeds(&mut apt.update());
    succeeds(&mut apt.download());
    let exported = succeeds(
        Command::new("gpg").args(["--homedir", gpg.path(), "--show-keys"]).arg(out.join("onenet.asc")),
    );
    assert!(exported.contains("new@") && !exported.contains("old@"), "the new key alone: {exported}");
}

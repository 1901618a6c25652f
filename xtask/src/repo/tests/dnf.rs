//! dnf reads the repository, and refuses what is not as it was signed.

use super::*;

/// A dnf that knows one repository and nothing of this system.
struct Dnf(PathBuf);

impl Dnf {
    /// `repo` is the file that the repository comes with.
    fn new(root: PathBuf, repo: &str) -> Self {
        for folder in ["repos", "system", "cache", "log", "persist", "vars"] {
            fs::create_dir_all(root.join(folder)).expect("made");
        }
        fs::write(root.join("repos/onenet.repo"), repo).expect("written");
        // Debian's own says that what cannot be read is passed over.
        fs::write(root.join("settings"), "[main]\nskip_if_unavailable=0\n").expect("written");
        Self(root)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("dnf");
        let place = |name: &str| self.0.join(name).display().to_string();
        command.args(["--assumeyes", "--releasever=9", "--setopt=plugins=0"]);
        command.arg(format!("--config={}", place("settings")));
        command.arg(format!("--installroot={}", place("system")));
        for (option, folder) in [
            ("reposdir", "repos"),
            ("cachedir", "cache"),
            ("logdir", "log"),
            ("persistdir", "persist"),
            ("varsdir", "vars"),
        ] {
            command.arg(format!("--setopt={option}={}", place(folder)));
        }
        command.args(words);
        command
    }

    fn download(&self) -> Command {
        let to = format!("--downloaddir={}", self.0.join("given").display());
        self.command(&["install", "--downloadonly", &to, "onenet-agent"])
    }
}

impl Drop for Dnf {
    fn drop(&mut self) {
        end_agents(&self.0);
    }
}

fn tools() -> bool {
    if !["dnf", "createrepo_c", "rpm", "rpmbuild", "rpmsign", "gpg"].iter().all(|tool| is_here(tool)) {
        return false;
    }
    // dnf 5 has other options, and dnf installs for root only.
    let fit = succeeds(Command::new("dnf").arg("--version")).starts_with("4.");
    let root = nix::unistd::geteuid().is_root();
    if !(fit && root) {
        eprintln!("not root, or no dnf 4: what dnf makes of a repository is NOT tested here");
    }
    fit && root
}

/// What the stand-ins need and a bare system has not.
fn base(folder: &Path, to: &Path) {
    let spec = folder.join("base.spec");
    let text = "Name: base\nVersion: 1\nRelease: 1\nSummary: Base\nLicense: Apache-2.0\nBuildArch: noarch\n\
                Provides: /usr/sbin/useradd /bin/sh\n%description\nBase\n%files\n";
    fs::write(&spec, text).expect("written");
    let define = |name: &str, value: &Path| format!("{name} {}", value.display());
    succeeds(
        Command::new("rpmbuild")
            .args(["-bb", "--quiet", "--define", &define("_topdir", &folder.join("base"))])
            .args(["--define", &define("_rpmdir", to), "--define", "_rpmfilename base-1-1.noarch.rpm"])
            .arg(&spec),
    );
}

#[test]
fn dnf_reads_what_is_signed_and_refuses_what_was_changed() {
    if !tools() {
        return;
    }
    let folder = Folder::new("dnf");
    let gpg = Gpg::new("dnf", &["edge@onenet.example", "other@onenet.example"]);
    let packages = packages(&folder.0, &[Format::Rpm], None);
    base(&folder.0, &packages);
    let (out, other) = (folder.0.join("repository"), folder.0.join("other"));
    let url = |out: &Path| format!("file://{}", out.display());
    let home = ["--gnupg-home", gpg.path()];
    for (out, key) in [(&out, "edge@onenet.example"), (&other, "other@onenet.example")] {
        let url = url(out);
        let words = [&["--key", key, "--url", &url][..], &home].concat();
        repository(&packages, out, &words, MOMENT).expect("a repository");
    }
    let repo = fs::read_to_string(out.join("onenet.repo")).expect("read");
    // The same key wherever the packages come from.
    let from = |place: &Path| repo.replace(&url(&out.join("rpm")), &url(&place.join("rpm")));

    let dnf = Dnf::new(folder.0.join("client"), &repo);
    succeeds(&mut dnf.command(&["makecache"]));
    let version = env!("CARGO_PKG_VERSION");
    let listed = succeeds(&mut dnf.command(&["repoquery", "--quiet", "onenet-*"]));
    let name = format!("onenet-agent-{version}-1.{}.rpm", std::env::consts::ARCH);
    assert!(listed.contains(&format!("onenet-agent-0:{version}-1.")), "{listed}");
    succeeds(&mut dnf.download());
    let given = fs::read(dnf.0.join("given").join(&name)).expect("downloaded");
    assert!(given == fs::read(out.join("rpm/packages").join(&name)).expect("read"), "the same bytes");

    let changed = spoiled(&out, "changed-lists", |path| contains(path, "-primary.xml"));
    let dnf = Dnf::new(folder.0.join("client-lists"), &from(&changed));
    fails(&mut dnf.command(&["makecache"]), &["hecksum"]);

    let changed = spoiled(&out, "changed-index", |path| path.ends_with("repomd.xml"));
    let dnf = Dnf::new(folder.0.join("client-index"), &from(&changed));
    fails(&mut dnf.command(&["makecache"]), &["GPG"]);

    let changed = spoiled(&out, "changed-package", |path| path.ends_with(&name));
    let dnf = Dnf::new(folder.0.join("client-package"), &from(&changed));
    fails(&mut dnf.download(), &["hecksum"]);

    let dnf = Dnf::new(folder.0.join("client-other"), &from(&other));
    fails(&mut dnf.command(&["makecache"]), &["GPG"]);
    // And where only the packages are by another key.
    let dnf = Dnf::new(
        folder.0.join("client-packages"),
        &from(&other).replace("repo_gpgcheck=1", "repo_gpgcheck=0"),
    );
    fails(&mut dnf.download(), &["GPG check FAILED"]);
}

#[test]
fn what_nobody_signed_is_read_as_its_file_says() {
    if !tools() {
        return;
    }
    let folder = Folder::new("dnf-unsigned");
    let packages = packages(&folder.0, &[Format::Rpm], None);
    base(&folder.0, &packages);
    let out = folder.0.join("repository");
    let url = format!("file://{}", out.display());
    repository(&packages, &out, &["--url", &url], MOMENT).expect("a repository");
    let repo = fs::read_to_string(out.join("onenet.repo")).expect("read");
    let dnf = Dnf::new(folder.0.join("client"), &repo);
    succeeds(&mut dnf.download());
    let dnf = Dnf::new(folder.0.join("strict"), &repo.replace("\ngpgcheck=0", "\ngpgcheck=1"));
    fails(&mut dnf.download(), &["is not signed"]);
}

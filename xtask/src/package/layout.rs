//! What a package consists of and where it goes, the same for every format.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{arch::Architecture, crates::Workspace, notices::notices, sbom, when::Moment};

/// One of the two packages.
pub(super) struct Program {
    /// Of the package, the program, its user and its unit.
    pub(super) name: &'static str,
    /// The last part of the name, as in paths.
    pub(super) kind: &'static str,
    pub(super) summary: &'static str,
    pub(super) description: &'static [&'static str],
    /// Units that may run.
    pub(super) units: &'static [&'static str],
    /// What is there once the service can start, and how it comes to be.
    ready: &'static str,
    next: &'static str,
    /// Configuration: its place under /etc/onenet, and what a package states that `init` would not.
    conffiles: &'static [(&'static str, &'static [(&'static str, &'static str)])],
}

/// Relative paths of the collector's configuration lie beside it; a package keeps data apart from configuration.
const COLLECTOR: &[(&str, &str)] = &[
    ("\nca_certificate = \"ca.pem\"", "\nca_certificate = \"/var/lib/onenet/collector/ca.pem\""),
    ("\nca_key = \"ca.key\"", "\nca_key = \"/var/lib/onenet/collector/ca.key\""),
    ("\ncertificate = \"server.pem\"", "\ncertificate = \"/var/lib/onenet/collector/server.pem\""),
    ("\nkey = \"server.key\"", "\nkey = \"/var/lib/onenet/collector/server.key\""),
    ("\ndirectory = \"data\"", "\ndirectory = \"/var/lib/onenet/collector/data\""),
    (
        "\n#file.path = \"siem/events.ndjson\"",
        "\nfile.path = \"/var/lib/onenet/collector/siem/events.ndjson\"",
    ),
    (
        "# Configuration of onenet-collector. `onenet-collector init` writes it with everything it names beside it.\n",
        "# Configuration of onenet-collector. `onenet-collector init --keys-only` makes the keys and certificates it names.\n",
    ),
];

/// Both packages.
pub(super) const PROGRAMS: [Program; 2] = [
    Program {
        name: "onenet-agent",
        kind: "agent",
        summary: "One Network sensor",
        description: &[
            "Reads packets at an internet edge by eBPF, libpcap or from capture files,",
            "turns them into flow records, address observations and findings, and ships",
            "them to a collector in signed batches.",
        ],
        units: &["onenet-agent.service", "onenet-agent@*.service"],
        ready: "/var/lib/onenet/agent/keys/enrolment.json",
        next: "edit /etc/onenet/agent.toml, then onenet-agent enroll --token TOKEN, then systemctl start onenet-agent",
        conffiles: &[("agent.toml", &[])],
    },
    Program {
        name: "onenet-collector",
        kind: "collector",
        summary: "One Network collector",
        description: &[
            "Verifies, stores and correlates what the One Network sensors seal, keeps the",
            "inventory of addresses and the life of every finding, and feeds the SIEM.",
        ],
        units: &["onenet-collector.service"],
        ready: "/var/lib/onenet/collector/server.pem",
        next: "edit /etc/onenet/collector.toml and plan.toml, then onenet-collector init --keys-only --name HOST, \
               then systemctl start onenet-collector",
        conffiles: &[("collector.toml", COLLECTOR), ("plan.toml", &[])],
    },
];

/// Where the parts come from.
pub(super) struct Parts<'a> {
    /// Folder of the compiled programs.
    pub(super) programs: &'a Path,
    /// Folder that the manual was written into.
    pub(super) manual: &'a Path,
    pub(super) workspace: &'a Workspace,
    pub(super) moment: Moment,
    /// The number of a version that is yet to come, for a test of upgrades: its configuration says more.
    pub(super) later: Option<&'a str>,
    pub(super) architecture: Architecture,
}

/// A file of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) content: Vec<u8>,
    pub(super) executable: bool,
}

/// Every file of a package by its place, which begins with a slash.
pub(super) type Files = BTreeMap<String, Placed>;

impl Program {
    /// Configuration files.
    pub(super) fn conffiles(&self) -> impl Iterator<Item = String> {
        self.conffiles.iter().map(|(name, _)| format!("/etc/onenet/{name}"))
    }

    /// All that the package puts in place.
    pub(super) fn files(&self, parts: &Parts<'_>) -> Result<Files> {
        let name = self.name;
        let packaging = crate::workspace().join("packaging");
        let mut files = Files::new();
        let mut add = |place: String, content: Vec<u8>| {
            let executable = place.starts_with("/usr/bin/");
            files.insert(place, Placed { content, executable });
        };
        add(format!("/usr/bin/{name}"), read(&parts.programs.join(name))?);
        for (file, changes) in self.conffiles {
            let stated = String::from_utf8(read(&packaging.join(file))?)?;
            let mut stated = changed(&stated, changes)?;
            if let Some(version) = parts.later {
                stated += &format!("# As of version {version}.\n");
            }
            add(format!("/etc/onenet/{file}"), stated.into_bytes());
        }
        for unit in self.units.iter().map(|unit| unit.replace('*', "")) {
            add(format!("/usr/lib/systemd/system/{unit}"), read(&packaging.join("systemd").join(&unit))?);
        }
        for (from, to) in [("sysusers", "sysusers.d"), ("tmpfiles", "tmpfiles.d")] {
            let file = format!("{name}.conf");
            add(format!("/usr/lib/{to}/{file}"), read(&packaging.join(from).join(&file))?);
        }
        let manual = parts.manual.join(name);
        for page in names(&manual.join("man"))? {
            let text = read(&manual.join("man").join(&page))?;
            add(format!("/usr/share/man/man1/{page}.gz"), gzip(&text)?);
        }
        for (script, place) in [
            (format!("{name}.bash"), format!("bash-completion/completions/{name}")),
            (format!("_{name}"), format!("zsh/vendor-completions/_{name}")),
            (format!("{name}.fish"), format!("fish/vendor_completions.d/{name}.fish")),
        ] {
            add(format!("/usr/share/{place}"), read(&manual.join("completions").join(script))?);
        }
        let crates = parts.workspace.crates_of(name)?;
        let documents = format!("/usr/share/doc/{name}");
        add(format!("{documents}/copyright"), read(&packaging.join("copyright"))?);
        add(format!("{documents}/third-party-notices.gz"), gzip(notices(name, &crates)?.as_bytes())?);
        add(format!("{documents}/sbom.cdx.json"), sbom::bill(name, &crates, parts.moment)?);
        add(format!("{documents}/changelog.gz"), gzip(&read(&crate::workspace().join("CHANGELOG.md"))?)?);
        Ok(files)
    }
}

/// Writes the files under a folder, with the permissions and the time that they have in a package.
pub(super) fn stage(files: &Files, root: &Path, moment: Moment) -> Result<()> {
    for (place, file) in files {
        let path = root.join(place.trim_start_matches('/'));
        let folder = path.parent().context("a file without a folder")?;
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        fs::write(&path, &file.content).with_context(|| path.display().to_string())?;
        fs::set_permissions(&path, mode(if file.executable { 0o755 } else { 0o644 }))?;
    }
    settle(root, moment)
}

/// Gives every file and folder the moment, and folders their permissions whatever the umask is.
fn settle(path: &Path, moment: Moment) -> Result<()> {
    if path.is_dir() {
        for name in names(path)? {
            settle(&path.join(name), moment)?;
        }
        fs::set_permissions(path, mode(0o755))?;
    }
    fs::File::open(path)?.set_modified(moment.system_time()).with_context(|| path.display().to_string())
}

fn mode(bits: u32) -> fs::Permissions {
    fs::Permissions::from_mode(bits)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Names in a folder, in order.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Makes each change, which must fit exactly once: a configuration that has moved on must not be packaged half changed.
fn changed(text: &str, changes: &[(&str, &str)]) -> Result<String> {
    let mut text = text.to_owned();
    for (from, to) in changes {
        let found = text.matches(from).count();
        ensure!(found == 1, "{from:?} is {found} times in the configuration that is packaged, expected once");
        text = text.replacen(from, to, 1);
    }
    Ok(text)
}

/// Compressed, without name and time.
pub(crate) fn gzip(content: &[u8]) -> Result<Vec<u8>> {
    piped("gzip", &["-9n"], content)
}

/// Runs a program that turns its input into its output.
pub(crate) fn piped(program: &str, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let mut stdin = child.stdin.take().context("no input")?;
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            // Where it ends early its exit code tells.
            let _ = stdin.write_all(input);
        });
        child.wait_with_output()
    })?;
    if !output.status.success() {
        bail!("{program} failed ({})", output.status);
    }
    Ok(output.stdout)
}

/// A script of the folder `packaging` with what stands for a package's own words filled in. `version` is that of the
/// package, as its package manager compares it.
pub(super) fn script(program: &Program, file: &str, version: &str) -> Result<String> {
    let packaging = crate::workspace().join("packaging");
    let text = String::from_utf8(read(&packaging.join(file))?)?;
    let user = String::from_utf8(read(&packaging.join("shared/user.sh"))?)?;
    let units = program.units.iter().map(|unit| format!("'{unit}'")).collect::<Vec<_>>().join(" ");
    // In the order in which one brings another.
    let words = [
        ("@USER@", user.trim_end()),
        ("@UNITS@", &units),
        ("@SUMMARY@", program.summary),
        ("@READY@", program.ready),
        ("@NEXT@", program.next),
        ("@KIND@", program.kind),
        ("@PACKAGE@", program.name),
        ("@VERSION@", version),
    ];
    Ok(words.iter().fold(text, |text, (word, own)| text.replace(word, own)))
}

/// The folder of a package's files while it is made; what an earlier run left there is removed.
pub(super) fn fresh(folder: PathBuf) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_no_longer_fits_is_an_error() {
        assert_eq!(changed("a = 1\nb = 2\n", &[("b = 2", "b = 3")]).expect("it fits"), "a = 1\nb = 3\n");
        assert!(changed("a = 1\n", &[("b = 2", "b = 3")]).is_err());
        assert!(changed("b = 2\nb = 2\n", &[("b = 2", "b = 3")]).is_err());
    }

    #[test]
    fn the_packaged_configuration_keeps_data_out_of_etc() {
        for program in &PROGRAMS {
            for (file, changes) in program.conffiles {
                let stated =
                    fs::read_to_string(crate::workspace().join("packaging").join(file)).expect("read");
                let text = changed(&stated, changes).expect("every change fits");
                assert_eq!(text.lines().count(), stated.lines().count(), "{file}");
            }
        }
    }
}

//! Whole packages of small stand-ins for the programs: what is in them, and that they are the same whenever they are made.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    Format,
    arch::Architecture,
    layout::PROGRAMS,
    same,
    stand_ins::{Folder, MAINTAINER, host, is_here, make, make_for, pack, stand_ins},
};

fn output(program: &str, arguments: &[&str], file: &Path) -> String {
    let output = Command::new(program).args(arguments).arg(file).output().expect("it runs");
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn twice(name: &str, format: Format) -> (Folder, Vec<PathBuf>) {
    let (first, second) = (Folder::new(&format!("{name}-1")), Folder::new(&format!("{name}-elsewhere")));
    let made = make(&first.0, &[format], None);
    same(&made, &make(&second.0, &[format], None)).expect("the same bytes");
    (first, made)
}

#[test]
fn debian_packages_are_complete_and_the_same_each_time() {
    if !is_here("dpkg-deb") {
        return;
    }
    let (folder, made) = twice("deb", Format::Deb);
    let agent = made.first().expect("a package");
    assert!(
        agent.ends_with(format!("onenet-agent_{}-1_amd64.deb", env!("CARGO_PKG_VERSION")))
            || cfg!(not(target_arch = "x86_64"))
    );
    let list = output("dpkg-deb", &["--contents"], agent);
    for line in list.lines() {
        assert!(line.contains(" root/root ") && line.contains(" 2023-11-14 "), "owner and time: {line}");
    }
    for (mode, place) in [
        ("-rwxr-xr-x", "./usr/bin/onenet-agent"),
        ("-rw-r--r--", "./etc/onenet/agent.toml"),
        ("-rw-r--r--", "./usr/lib/systemd/system/onenet-agent@.service"),
        ("-rw-r--r--", "./usr/lib/sysusers.d/onenet-agent.conf"),
        ("-rw-r--r--", "./usr/share/man/man1/onenet-agent-run.1.gz"),
        ("-rw-r--r--", "./usr/share/bash-completion/completions/onenet-agent"),
        ("-rw-r--r--", "./usr/share/doc/onenet-agent/third-party-notices.gz"),
        ("-rw-r--r--", "./usr/share/doc/onenet-agent/sbom.cdx.json"),
        ("-rw-r--r--", "./usr/share/doc/onenet-agent/changelog.Debian.gz"),
        ("drwxr-xr-x", "./etc/onenet/"),
    ] {
        let found = list.lines().find(|line| line.ends_with(&format!(" {place}")));
        assert!(found.is_some_and(|line| line.starts_with(mode)), "{mode} {place}:\n{list}");
    }
    assert_eq!(output("dpkg-deb", &["-f"], agent).lines().next(), Some("Package: onenet-agent"));
    let control = folder.0.join("control");
    assert!(Command::new("dpkg-deb").arg("-e").arg(agent).arg(&control).status().expect("it runs").success());
    assert_eq!(fs::read_to_string(control.join("conffiles")).expect("read"), "/etc/onenet/agent.toml\n");
    for script in ["preinst", "postinst", "prerm", "postrm"] {
        let text = fs::read_to_string(control.join(script)).expect("read");
        let words =
            ["@PACKAGE@", "@KIND@", "@UNITS@", "@SUMMARY@", "@USER@", "@READY@", "@NEXT@", "@VERSION@"];
        // A template's units are written onenet-agent@*.service.
        let text = text.replace("@*.service", "").replace("@*.service.d", "");
        assert!(!words.iter().any(|word| text.contains(word)), "{script}: {text}");
        output("sh", &["-n"], &control.join(script));
    }
}

#[test]
fn rpm_packages_are_complete_and_the_same_each_time() {
    if !is_here("rpmbuild") {
        return;
    }
    let (_folder, made) = twice("rpm", Format::Rpm);
    let collector =
        made.iter().rfind(|file| file.extension().is_some_and(|kind| kind == "rpm")).expect("a package");
    let list = output("rpm", &["-qp", "--qf", "[%{FILEUSERNAME} %{FILENAMES}\n]"], collector);
    for place in ["/usr/bin/onenet-collector", "/usr/lib/systemd/system/onenet-collector.service"] {
        assert!(list.contains(&format!("root {place}\n")), "{place}:\n{list}");
    }
    let kept = output("rpm", &["-qp", "--configfiles"], collector);
    assert_eq!(kept, "/etc/onenet/collector.toml\n/etc/onenet/plan.toml\n");
    assert_eq!(
        output("rpm", &["-qp", "--qf", "%{BUILDHOST} %{BUILDTIME}"], collector),
        "localhost 1700000000"
    );
}

#[test]
fn packages_of_another_architecture_say_so_wherever_it_is_asked() {
    if !(is_here("dpkg-deb") && is_here("rpmbuild")) {
        return;
    }
    let folder = Folder::new("arm64");
    let made = make_for(&folder.0, &[Format::Deb, Format::Rpm], Architecture::Arm64);
    let version = env!("CARGO_PKG_VERSION");
    for program in PROGRAMS.iter().map(|program| program.name) {
        let find = |name: String| {
            made.iter().find(|file| file.ends_with(&name)).unwrap_or_else(|| panic!("{name}: {made:?}"))
        };
        let deb = find(format!("{program}_{version}-1_arm64.deb"));
        let fields = output("dpkg-deb", &["-f"], deb);
        assert!(fields.contains("\nArchitecture: arm64\n"), "{fields}");
        let rpm = find(format!("{program}-{version}-1.aarch64.rpm"));
        assert_eq!(output("rpm", &["-qp", "--qf", "%{ARCH} %{OS}"], rpm), "aarch64 linux");
    }
}

#[test]
fn a_program_of_another_architecture_is_not_packed() {
    let folder = Folder::new("mixed");
    stand_ins(&folder.0);
    let agent = folder.0.join("onenet-agent");
    fs::copy(std::env::current_exe().expect("this program"), agent).expect("copied");
    let other = if host() == Architecture::Amd64 { Architecture::Arm64 } else { Architecture::Amd64 };
    let pack = |architecture| pack(&folder.0, &[], None, MAINTAINER, architecture);
    pack(host()).expect("it is this machine's");
    let error = format!("{:#}", pack(other).expect_err("it is not"));
    assert!(error.contains("onenet-agent") && error.contains("it is a program for"), "{error}");
}

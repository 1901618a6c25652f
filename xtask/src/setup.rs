//! Installs what is missing, by the system's package manager, and says so.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// What the installation is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// Building and running the programs.
    Build,
    /// The same on interfaces in network namespaces.
    Live,
    /// Building, and every test.
    Tests,
}

/// One thing that must be there.
pub(crate) struct Need<'a> {
    /// From which purpose on it is needed.
    pub(crate) purpose: Purpose,
    /// What it is, for people.
    pub(crate) what: &'a str,
    /// A shell line that succeeds where it is there.
    pub(crate) probe: &'a str,
    pub(crate) debian: &'a [&'a str],
    pub(crate) fedora: &'a [&'a str],
}

/// For the units.
pub(crate) const SYSTEMD_ANALYZE: Need<'static> = Need {
    purpose: Purpose::Tests,
    what: "systemd-analyze, which says how exposed the services are",
    probe: "command -v systemd-analyze",
    debian: &["systemd"],
    fedora: &["systemd"],
};

const NEEDS: &[Need<'static>] = &[
    Need {
        purpose: Purpose::Build,
        what: "a C compiler",
        probe: "command -v cc",
        debian: &["gcc", "libc6-dev"],
        fedora: &["gcc", "glibc-devel"],
    },
    Need {
        purpose: Purpose::Build,
        what: "the headers of libpcap",
        probe: "echo '#include <pcap/pcap.h>' | cc -E -x c - -o /dev/null",
        debian: &["libpcap-dev"],
        fedora: &["libpcap-devel"],
    },
    Need {
        purpose: Purpose::Tests,
        what: "rsyslog, which receives the SIEM feed in a test",
        probe: "PATH=$PATH:/usr/sbin:/sbin command -v rsyslogd",
        debian: &["rsyslog"],
        fedora: &["rsyslog"],
    },
    Need {
        purpose: Purpose::Tests,
        what: "tshark, which mutated packets are compared with",
        probe: "command -v tshark",
        debian: &["tshark"],
        fedora: &["wireshark-cli"],
    },
    Need {
        purpose: Purpose::Tests,
        what: "valgrind, which counts the instructions of a packet",
        probe: "command -v valgrind",
        debian: &["valgrind"],
        fedora: &["valgrind"],
    },
    Need {
        purpose: Purpose::Tests,
        what: "Chromium, which opens the web page in a test",
        probe: "command -v chromium || command -v chromium-browser",
        debian: &["chromium"],
        fedora: &["chromium"],
    },
    Need {
        purpose: Purpose::Live,
        what: "iproute2, for network namespaces",
        probe: "PATH=$PATH:/usr/sbin:/sbin command -v ip",
        debian: &["iproute2"],
        fedora: &["iproute"],
    },
    Need {
        purpose: Purpose::Tests,
        what: "tcpdump, which captures beside the sensors of the lab",
        probe: "PATH=$PATH:/usr/sbin:/sbin command -v tcpdump",
        debian: &["tcpdump"],
        fedora: &["tcpdump"],
    },
    Need {
        purpose: Purpose::Tests,
        what: "tc, which takes a program off its hook in a test",
        probe: "PATH=$PATH:/usr/sbin:/sbin command -v tc",
        debian: &["iproute2"],
        fedora: &["iproute-tc"],
    },
    Need {
        purpose: Purpose::Tests,
        what: "ethtool, which has checksums computed before packets go on a bad road",
        probe: "PATH=$PATH:/usr/sbin:/sbin command -v ethtool",
        debian: &["ethtool"],
        fedora: &["ethtool"],
    },
    Need {
        purpose: Purpose::Tests,
        what: "libfaketime, which shifts the clock of a sensor",
        probe: "command -v faketime",
        debian: &["faketime"],
        fedora: &["libfaketime"],
    },
    Need {
        purpose: Purpose::Live,
        what: "sysctl, for network namespaces",
        probe: "PATH=$PATH:/usr/sbin:/sbin command -v sysctl",
        debian: &["procps"],
        fedora: &["procps-ng"],
    },
    Need {
        purpose: Purpose::Live,
        what: "util-linux, for namespaces and for the full and the read-only spool of a test",
        probe: "command -v mount && command -v unshare",
        debian: &["util-linux", "mount"],
        fedora: &["util-linux"],
    },
    SYSTEMD_ANALYZE,
    crate::package::DPKG_DEB,
    crate::package::RPMBUILD,
    crate::package::install::DEBOOTSTRAP,
    crate::package::install::lint::LINTIAN,
    crate::package::install::lint::RPMLINT,
    crate::repo::CREATEREPO,
    crate::repo::GPG,
    crate::repo::RPM,
    crate::repo::XZ,
    crate::repo::DNF,
];

/// Installs what `purpose` needs and is missing. Where nothing is missing, it runs no package manager.
pub(crate) fn install(purpose: Purpose) -> Result<()> {
    let missing: Vec<&Need<'_>> =
        NEEDS.iter().filter(|need| need.purpose <= purpose && !succeeds(need.probe)).collect();
    if missing.is_empty() {
        crate::say("everything this needs is installed");
        return Ok(());
    }
    fetch(missing)
}

/// Installs one thing, where it is missing.
pub(crate) fn try_install(need: &Need<'_>) -> Result<()> {
    if succeeds(need.probe) { Ok(()) } else { fetch(vec![need]) }
}

fn fetch(missing: Vec<&Need<'_>>) -> Result<()> {
    for need in &missing {
        crate::say(&format!("missing: {}", need.what));
    }
    if succeeds("command -v apt-get") {
        let packages: Vec<&str> = missing.iter().flat_map(|need| need.debian).copied().collect();
        as_root(&["apt-get", "update", "-qq"])?;
        let install = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq"];
        as_root(&[&install[..], &["--no-install-recommends"], &packages].concat())?;
    } else if succeeds("command -v dnf") {
        let packages: Vec<&str> = missing.iter().flat_map(|need| need.fedora).copied().collect();
        as_root(&[&["dnf", "install", "-y", "-q"], &packages[..]].concat())?;
    } else {
        bail!("neither apt-get nor dnf is here; install by hand: {}", list(&missing));
    }
    let still: Vec<&Need<'_>> = missing.into_iter().filter(|need| !succeeds(need.probe)).collect();
    if !still.is_empty() {
        bail!("still missing after the installation: {}", list(&still));
    }
    Ok(())
}

fn list(needs: &[&Need<'_>]) -> String {
    needs.iter().map(|need| need.what).collect::<Vec<_>>().join("; ")
}

fn succeeds(line: &str) -> bool {
    Command::new("sh")
        .args(["-c", line])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a command as root, by sudo where the caller is not root, and prints it first.
fn as_root(command: &[&str]) -> Result<()> {
    let mut words = command.to_vec();
    if !succeeds("[ \"$(id -u)\" = 0 ]") {
        words.insert(0, "sudo");
    }
    let line = words.join(" ");
    crate::say(&line);
    let (program, arguments) = words.split_first().context("an empty command")?;
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {line}"))?;
    if status.success() { Ok(()) } else { bail!("{line} failed ({status})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_need_names_a_package_for_both_managers() {
        for need in NEEDS {
            assert!(!need.debian.is_empty() && !need.fedora.is_empty(), "{}", need.what);
        }
    }

    #[test]
    fn a_probe_tells_what_is_there_from_what_is_not() {
        assert!(succeeds("command -v sh"));
        assert!(!succeeds("command -v no-such-program-anywhere"));
    }
}

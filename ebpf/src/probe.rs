//! What must be there before a program can be loaded: asked first, so that the answer is a sentence and not EPERM.

use std::{fs, io, path::Path};

use crate::{error::EbpfError, sys};

/// Number and name of the capabilities that are needed; CAP_SYS_ADMIN stands for the first and the last.
const CAPABILITIES: [(u32, &str); 3] = [(39, "CAP_BPF"), (12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON")];
const CAP_SYS_ADMIN: u32 = 21;
const CAP_NET_ADMIN: u32 = 12;

/// ARPHRD numbers whose frames begin with an Ethernet header: Ethernet, and loopback.
const ETHERNET: [u16; 2] = [1, 772];
/// Those whose packets begin with IP: PPP, tunnels of IP in IP, SIT, GRE, raw IP, none (tun, WireGuard).
const RAW: [u16; 8] = [512, 768, 769, 776, 778, 519, 823, 65534];

/// A kernel's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32);

/// Checks capabilities, type information and version; gives the version.
pub(crate) fn machine() -> Result<Version, EbpfError> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(missing) = missing_capabilities(&status) {
        return Err(EbpfError::Capability { missing });
    }
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = parse_version(&text);
    if version < Version(5, 15) {
        let version = text.trim().to_owned();
        return Err(EbpfError::OldKernel {
            version,
            lacks: "atomic operations that the meter uses",
            least: "5.15",
        });
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Err(EbpfError::NoTypes);
    }
    Ok(version)
}

/// Whether an interface's frames have an Ethernet header.
pub(crate) fn has_link_header(interface: &str) -> Result<bool, EbpfError> {
    match sys::link_type(interface) {
        Ok(link_type) if ETHERNET.contains(&link_type) => Ok(true),
        Ok(link_type) if RAW.contains(&link_type) => Ok(false),
        Ok(link_type) => Err(EbpfError::LinkType { interface: interface.into(), link_type }),
        Err(error)
            if error.raw_os_error() == Some(libc::ENODEV) || error.kind() == io::ErrorKind::InvalidInput =>
        {
            Err(EbpfError::NoInterface { interface: interface.into() })
        }
        Err(error) => Err(EbpfError::Kernel { what: "asking for the interface's link type", error }),
    }
}

/// Names of what lacks in the effective set of /proc/self/status; none where nothing does or it does not say.
fn missing_capabilities(status: &str) -> Option<String> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(effective.trim(), 16).ok()?;
    let has = |number: u32| effective >> number & 1 == 1;
    let missing: Vec<&str> = CAPABILITIES
        .into_iter()
        .filter(|&(number, _)| !has(number) && (number == CAP_NET_ADMIN || !has(CAP_SYS_ADMIN)))
        .map(|(_, name)| name)
        .collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

fn parse_version(text: &str) -> Version {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or_default());
    let mut next = || numbers.next().unwrap_or_default();
    Version(next(), next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(parse_version("6.18.44-fc-v669\n"), Version(6, 18));
        assert!(parse_version("5.4.0") < Version(5, 15));
        assert!(parse_version("5.15") >= Version(5, 15));
        assert_eq!(parse_version(""), Version(0, 0));
    }

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(missing_capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n"), None);
        assert_eq!(missing_capabilities("CapEff:\t000000c000001000\n"), None);
        assert_eq!(missing_capabilities("CapEff:\t0000000000200000\n").as_deref(), Some("CAP_NET_ADMIN"));
        let none = missing_capabilities("CapEff:\t0000000000000000\n");
        assert_eq!(none.as_deref(), Some("CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON"));
    }
}

//! What can keep a meter from working, each in one line that says what to do.

use std::io;

/// Why a meter could not be opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EbpfError {
    /// Capabilities are missing.
    #[error(
        "eBPF needs the capabilities {missing}, which this process lacks: run the agent by its systemd unit, or grant them (setcap, AmbientCapabilities=)"
    )]
    Capability {
        /// Their names, by comma.
        missing: String,
    },
    /// The kernel tells no types.
    #[error(
        "the kernel has no type information at /sys/kernel/btf/vmlinux: use a kernel built with CONFIG_DEBUG_INFO_BTF=y, or kind = \"pcap\""
    )]
    NoTypes,
    /// The kernel is too old.
    #[error("kernel {version} lacks {lacks}: use a kernel of at least {least}, or kind = \"pcap\"")]
    OldKernel {
        /// As uname has it.
        version: String,
        /// What it lacks.
        lacks: &'static str,
        /// From when on it is there.
        least: &'static str,
    },
    /// The interface is not there.
    #[error("no interface {interface:?} here: `ip link` lists those that are")]
    NoInterface {
        /// Its name.
        interface: Box<str>,
    },
    /// The interface carries neither frames nor IP.
    #[error(
        "interface {interface:?} is of link type {link_type}, which is neither Ethernet nor IP: use kind = \"pcap\""
    )]
    LinkType {
        /// Its name.
        interface: Box<str>,
        /// ARPHRD number of Linux.
        link_type: u16,
    },
    /// A map does not fit.
    #[error(
        "no memory for the kernel map {map} of about {bytes} bytes ({error}): lower max_flows, or free memory"
    )]
    Memory {
        /// Its name.
        map: String,
        /// What it takes.
        bytes: u64,
        /// What the kernel said.
        error: io::Error,
    },
    /// Another meter is there.
    #[error("another onenet meter counts on interface {interface:?}: stop it first (`bpftool net` shows it)")]
    AlreadyAttached {
        /// Its name.
        interface: Box<str>,
    },
    /// The kernel forbids what capabilities allow.
    #[error(
        "the kernel refused {what} though the capabilities are there ({error}): look at lockdown (/sys/kernel/security/lockdown), at seccomp (SystemCallFilter=) and at kernel.unprivileged_bpf_disabled"
    )]
    Refused {
        /// What was asked.
        what: &'static str,
        /// What it said.
        error: io::Error,
    },
    /// An option that cannot be.
    #[error("{option} is {value}, expected {expected}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The program did not load.
    #[error("the kernel program did not load: {0}")]
    Load(String),
    /// A hook could not be taken.
    #[error("cannot attach to {hook} of interface {interface:?}: {error}")]
    Attach {
        /// Which hook.
        hook: &'static str,
        /// Which interface.
        interface: Box<str>,
        /// Why.
        error: String,
    },
    /// A hook's program does not count.
    #[error(
        "the program of {hook} ran and counted nothing: this kernel is not one it works on; use kind = \"pcap\""
    )]
    SelfTest {
        /// Which hook.
        hook: &'static str,
    },
    /// A call failed.
    #[error("{what}: {error}")]
    Kernel {
        /// What was asked.
        what: &'static str,
        /// What it said.
        error: io::Error,
    },
    /// The program is not one this crate knows.
    #[error("the kernel object has no {0}: it is not the one this program was built with")]
    Object(&'static str),
}

//! `[[source]]` of interfaces: by libpcap, by eBPF, or by whichever can be had.

use onenet_core::net::Name;
use serde::Deserialize;

use super::source::{RawSource, Refuse};

/// `kind = "pcap"`: a network interface, by libpcap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcapSource {
    /// The interface.
    pub interface: Name,
    /// Bytes of a packet that are captured at most, 64 to 262144. Default 2048: headers, tunnels and DHCP.
    pub snap_length: u32,
    /// MiB of the kernel's capture buffer, 1 to 2047. Default 64.
    pub buffer_mib: u32,
    /// Whether frames for other stations are captured. Default true.
    pub promiscuous: bool,
    /// Filter in libpcap's language (pcap-filter(7)).
    pub filter: Option<String>,
    /// Whether packets are handed over as they come, not in blocks: sooner, at more cost. Default false.
    pub immediate: bool,
}

/// `kind = "ebpf"`: a network interface, whose packets are counted by flow in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EbpfSource {
    /// The interface.
    pub interface: Name,
    /// Where in the kernel packets are taken. Default `auto`.
    pub hook: Hook,
    /// IPv4 flows that are counted between two tellings at most, 1024 to 4194304. Default 65536; of each there are two
    /// tables.
    pub max_flows: u32,
    /// The same of IPv6. Default 16384.
    pub max_flows_v6: u32,
    /// Milliseconds between two tellings, 100 to 2000. Default 1000.
    pub interval_ms: u32,
    /// First packets of each direction of a flow that are handed on, 0 to 64. Default 4: the handshake and the first
    /// payload.
    pub first_packets: u32,
    /// Bytes of them, 64 to 1024. Default 256.
    pub snap_length: u32,
    /// MiB of the ring that packets are handed on by, 1 to 256, a power of two. Default 8.
    pub ring_mib: u32,
    /// One in so many flows is metered, 1 to 65536. Default 1: all.
    pub sample: u32,
    /// Whether frames for other stations are taken too. Default true.
    pub promiscuous: bool,
}

/// Where in the kernel packets are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// TCX, or clsact where the kernel has no TCX.
    #[default]
    Auto,
    /// TCX: both directions (Linux 6.6 and later).
    Tcx,
    /// The clsact queueing discipline: both directions.
    Clsact,
    /// XDP: what is received, before the kernel has touched it.
    Xdp,
}

impl Hook {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::Xdp => "xdp",
        }
    }
}

impl PcapSource {
    pub(super) fn resolve(raw: &RawSource, interface: Name) -> Self {
        Self {
            interface,
            snap_length: raw.snap_length.unwrap_or(2048),
            buffer_mib: raw.buffer_mib.unwrap_or(64),
            promiscuous: raw.promiscuous.unwrap_or(true),
            filter: raw.filter.clone(),
            immediate: raw.immediate.unwrap_or(false),
        }
    }
}

impl EbpfSource {
    pub(super) fn resolve<E>(raw: &RawSource, interface: Name, refuse: &Refuse<'_, E>) -> Result<Self, E> {
        let ring_mib = raw.ring_mib.unwrap_or(8);
        if !ring_mib.is_power_of_two() {
            return Err(refuse("ring_mib", &format!("{ring_mib}, expected a power of two from 1 to 256")));
        }
        let snap_length = raw.snap_length.unwrap_or(256);
        if snap_length > 1024 {
            return Err(refuse("snap_length", &format!("{snap_length}, expected 64 to 1024 by eBPF")));
        }
        Ok(Self {
            interface,
            hook: raw.hook.unwrap_or_default(),
            max_flows: raw.max_flows.unwrap_or(65_536),
            max_flows_v6: raw.max_flows_v6.unwrap_or(16_384),
            interval_ms: raw.interval_ms.unwrap_or(1000),
            first_packets: raw.first_packets.unwrap_or(4),
            snap_length,
            ring_mib,
            sample: raw.sample.unwrap_or(1),
            promiscuous: raw.promiscuous.unwrap_or(true),
        })
    }
}

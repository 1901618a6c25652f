//! `kind = "auto"`: by eBPF where this host permits it, and else by libpcap, which says why.

use onenet_core::mirror::MirrorPlan;

use super::{
    ebpf::MeterSource,
    libpcap::{LibpcapError, LibpcapSource},
    live::Live,
};
use crate::config::{EbpfSource, PcapSource};

/// Opens an interface as this host permits.
pub(crate) fn open(
    ebpf: &EbpfSource,
    mirrors: &[MirrorPlan],
    pcap: &PcapSource,
    among_others: bool,
) -> Result<Box<dyn Live>, LibpcapError> {
    let reason = match MeterSource::open(ebpf, mirrors) {
        Ok(source) => return Ok(Box::new(source)),
        Err(error) => error.reason(),
    };
    tracing::warn!("interface {}: read by libpcap, because eBPF is not to be had: {reason}", pcap.interface);
    Ok(Box::new(LibpcapSource::open(pcap, among_others)?.in_place_of_ebpf(reason)))
}

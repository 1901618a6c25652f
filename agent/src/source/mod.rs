//! Sources of packets: interfaces (`live`, by `libpcap`), and capture files (pcap and pcapng, plain or gzip, also from
//! standard input), read with a bounded window and no allocation per packet. Every byte of a capture is taken as
//! hostile: lengths are checked, what is skipped is counted, and an error says at which byte the file broke.

mod capture;
pub(crate) mod counters;
pub(crate) mod ebpf;
mod error;
pub(crate) mod fallback;
mod input;
pub(crate) mod libpcap;
pub(crate) mod live;
mod merge;
mod netlink;
mod offload;
mod pcap;
mod pcapng;
#[cfg(test)]
mod tests;
mod window;

pub use capture::{Capture, CaptureDrops, CaptureInterface, CapturePacket};
pub use error::{CaptureError, Problem};
pub use merge::{CaptureReport, CaptureSet};

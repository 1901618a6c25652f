//! A network interface, by libpcap: packets in blocks from the kernel's buffer, its losses, and opening it again
//! after it went away.

use std::time::{Duration, Instant};

use onenet_core::{
    decode::{CapturedPacket, InterfaceIndex, LinkDirection, LinkType},
    net::Name,
    time::{NANOS_PER_SECOND, Timestamp},
};
use pcap::{Active, Capture, Error, Precision};

use super::CaptureDrops;
use crate::{config::PcapSource, run::SourceView};

/// How long the kernel gathers packets before it hands over a block that is not full, in milliseconds.
const BLOCK_TIMEOUT: i32 = 100;

/// Why an interface cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("interface {interface}: {problem}")]
pub struct LiveError {
    interface: Name,
    problem: String,
}

/// One interface.
pub struct LiveSource {
    source: PcapSource,
    capture: Option<Open>,
    packets: u64,
    last: Option<Timestamp>,
    error: Option<String>,
    failed_at: Option<Instant>,
    /// What earlier openings lost.
    before: CaptureDrops,
    /// What this opening lost.
    now: CaptureDrops,
}

struct Open {
    capture: Capture<Active>,
    link_type: LinkType,
    /// Counters of libpcap have 32 bits and wrap.
    seen: (u32, u32),
}

impl Open {
    fn new(source: &PcapSource) -> Result<Self, LiveError> {
        let fail = |error: Error| LiveError {
            interface: source.interface.clone(),
            problem: match error {
                Error::PcapError(text) => text,
                other => other.to_string(),
            },
        };
        let snap_length = i32::try_from(source.snap_length).unwrap_or(i32::MAX);
        let buffer = i32::try_from(source.buffer_mib).unwrap_or(i32::MAX).saturating_mul(1 << 20);
        let inactive = Capture::from_device(&*source.interface)
            .map_err(fail)?
            .promisc(source.promiscuous)
            .snaplen(snap_length)
            .buffer_size(buffer)
            .timeout(BLOCK_TIMEOUT)
            .immediate_mode(source.immediate)
            .precision(Precision::Nano);
        let mut capture = inactive.open().map_err(fail)?.setnonblock().map_err(fail)?;
        if let Some(filter) = &source.filter {
            capture.filter(filter, true).map_err(fail)?;
        }
        let number = capture.get_datalink().0;
        let link_type = LinkType(u16::try_from(linktype_of_dlt(number)).unwrap_or(u16::MAX));
        Ok(Self { capture, link_type, seen: (0, 0) })
    }
}

/// libpcap's DLT_ number of this host as the LINKTYPE_ number of files; they differ for a few (pcap-linktype(7)).
const fn linktype_of_dlt(dlt: i32) -> i32 {
    match dlt {
        12 => 101, // raw IP
        11 => 100, // RFC 1483 ATM
        other => other,
    }
}

impl LiveSource {
    /// Opens the interface.
    pub fn open(source: &PcapSource) -> Result<Self, LiveError> {
        let capture = Some(Open::new(source)?);
        Ok(Self {
            source: source.clone(),
            capture,
            packets: 0,
            last: None,
            error: None,
            failed_at: None,
            before: CaptureDrops::default(),
            now: CaptureDrops::default(),
        })
    }

    /// The interface.
    pub fn name(&self) -> &str {
        &self.source.interface
    }

    /// The next packet, if one has come.
    pub fn next(&mut self, interface: InterfaceIndex) -> Option<CapturedPacket<'_>> {
        let open = self.capture.as_mut()?;
        let link_type = open.link_type;
        match open.capture.next_packet() {
            Ok(packet) => {
                // With nanosecond precision the field named for microseconds holds nanoseconds.
                #[allow(clippy::useless_conversion, reason = "its width depends on the platform")]
                let (seconds, nanos) =
                    (i64::from(packet.header.ts.tv_sec), i64::from(packet.header.ts.tv_usec));
                let time = Timestamp::from_parts(seconds, nanos.clamp(0, NANOS_PER_SECOND - 1));
                self.packets = self.packets.saturating_add(1);
                self.last = Some(time);
                Some(CapturedPacket {
                    time,
                    interface,
                    link_type,
                    direction: LinkDirection::Unknown,
                    wire_length: packet.header.len,
                    data: packet.data,
                })
            }
            Err(Error::TimeoutExpired) => None,
            Err(error) => {
                self.failed_at = Some(Instant::now());
                self.error = Some(error.to_string());
                None
            }
        }
    }

    /// Reads the loss counters, closes an interface that failed, and opens it again after a while.
    pub fn look_after(&mut self, reopen_after: Duration) {
        if let Some(open) = &mut self.capture
            && let Ok(stat) = open.capture.stats()
        {
            let grown = |now: u32, seen: u32| u64::from(now.wrapping_sub(seen));
            self.now = self.now.plus(CaptureDrops {
                interface: grown(stat.if_dropped, open.seen.0),
                kernel: grown(stat.dropped, open.seen.1),
            });
            open.seen = (stat.if_dropped, stat.dropped);
        }
        let Some(failed_at) = self.failed_at else { return };
        if self.capture.take().is_some() {
            let problem = self.error.as_deref().unwrap_or_default();
            tracing::error!("interface {}: {problem}; opening it again", self.source.interface);
            self.before = self.before.plus(std::mem::take(&mut self.now));
        }
        if failed_at.elapsed() < reopen_after {
            return;
        }
        match Open::new(&self.source) {
            Ok(open) => {
                tracing::info!("interface {} is back", self.source.interface);
                self.capture = Some(open);
                self.failed_at = None;
                self.error = None;
            }
            Err(error) => {
                self.failed_at = Some(Instant::now());
                self.error = Some(error.problem);
            }
        }
    }

    /// What the card and the kernel lost since the start.
    pub fn drops(&self) -> CaptureDrops {
        self.before.plus(self.now)
    }

    /// How it is going.
    pub(crate) fn view(&self) -> SourceView {
        SourceView {
            name: self.source.interface.to_string(),
            packets: self.packets,
            last_packet: self.last.map(|time| time.to_string()),
            error: self.error.clone(),
            ..SourceView::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let source = PcapSource {
            interface: Name::from("nowhere0"),
            snap_length: 2048,
            buffer_mib: 1,
            promiscuous: false,
            filter: None,
            immediate: false,
        };
        let error = LiveSource::open(&source).err().expect("no such interface").to_string();
        assert!(error.starts_with("interface nowhere0: "), "{error}");
    }
}

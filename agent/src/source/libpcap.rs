//! A network interface, by libpcap: packets in blocks from the kernel's buffer, its losses, and opening it again
//! after it went away.

use std::time::{Duration, Instant};

use onenet_core::{
    decode::{CapturedPacket, InterfaceIndex, LinkDirection, LinkType},
    net::Name,
    record::{DropStage, RecordSink},
    sensor::Sensor,
    time::{NANOS_PER_SECOND, Timestamp},
};
use pcap::{Active, Capture, Error, Packet, Precision};

use super::{CaptureDrops, live::Live};
use crate::{
    config::PcapSource,
    run::{SourceView, wall_time},
};

/// Packets of one interface in turn with the others.
const BURST: u32 = 256;
/// How long the kernel gathers packets before it hands over a block that is not full, in milliseconds.
const BLOCK_TIMEOUT: i32 = 100;
/// The same where several interfaces are read in the order of time: what one gives waits that long for the others.
const SHORT_BLOCK_TIMEOUT: i32 = 10;
/// A packet is handed over within so many block timeouts, as far as the machine keeps up.
const BLOCKS_LATE: i64 = 4;
const NANOS_PER_MILLISECOND: i64 = 1_000_000;

/// Why an interface cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("interface {interface}: {problem}")]
pub(crate) struct LibpcapError {
    interface: Name,
    problem: String,
}

/// One interface.
pub(crate) struct LibpcapSource {
    source: PcapSource,
    block_timeout: i32,
    capture: Option<Open>,
    held: Held,
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

/// A packet that was read and whose turn has not come: a copy, since libpcap's own goes with the next.
#[derive(Default)]
struct Held {
    is_waiting: bool,
    time: Timestamp,
    wire_length: u32,
    data: Vec<u8>,
}

impl Held {
    fn hold(&mut self, packet: &Packet<'_>) {
        self.is_waiting = true;
        self.time = time_of(packet);
        self.wire_length = packet.header.len;
        self.data.clear();
        self.data.extend_from_slice(packet.data);
    }
}

impl Open {
    fn new(source: &PcapSource, block_timeout: i32) -> Result<Self, LibpcapError> {
        let fail = |error: Error| LibpcapError {
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
            .timeout(block_timeout)
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

/// When a packet was captured. With nanosecond precision the field named for microseconds holds nanoseconds.
fn time_of(packet: &Packet<'_>) -> Timestamp {
    #[allow(clippy::useless_conversion, reason = "its width depends on the platform")]
    let (seconds, nanos) = (i64::from(packet.header.ts.tv_sec), i64::from(packet.header.ts.tv_usec));
    Timestamp::from_parts(seconds, nanos.clamp(0, NANOS_PER_SECOND - 1))
}

impl LibpcapSource {
    /// Opens the interface; `among_others` where several are read in the order of time.
    pub(crate) fn open(source: &PcapSource, among_others: bool) -> Result<Self, LibpcapError> {
        let block_timeout = if among_others { SHORT_BLOCK_TIMEOUT } else { BLOCK_TIMEOUT };
        Ok(Self {
            source: source.clone(),
            block_timeout,
            capture: Some(Open::new(source, block_timeout)?),
            held: Held::default(),
            packets: 0,
            last: None,
            error: None,
            failed_at: None,
            before: CaptureDrops::default(),
            now: CaptureDrops::default(),
        })
    }

    fn fail(&mut self, error: &Error) {
        self.failed_at = Some(Instant::now());
        self.error = Some(error.to_string());
    }
}

/// What packets are handed over to.
struct Receiver<'a> {
    interface: InterfaceIndex,
    link_type: LinkType,
    sensor: &'a mut Sensor,
    sink: &'a mut dyn RecordSink,
}

impl Receiver<'_> {
    fn take(&mut self, time: Timestamp, wire_length: u32, data: &[u8]) {
        let packet = CapturedPacket {
            time,
            interface: self.interface,
            link_type: self.link_type,
            direction: LinkDirection::Unknown,
            wire_length,
            data,
        };
        self.sensor.handle_packet(&packet, self.sink);
    }
}

impl Live for LibpcapSource {
    fn name(&self) -> &str {
        &self.source.interface
    }

    fn read(
        &mut self,
        until: Timestamp,
        interface: InterfaceIndex,
        sensor: &mut Sensor,
        sink: &mut dyn RecordSink,
    ) -> bool {
        let Self { capture: Some(open), held, packets, last, .. } = self else { return false };
        let mut receiver = Receiver { interface, link_type: open.link_type, sensor, sink };
        let mut count = 0;
        if held.is_waiting {
            if held.time > until {
                return false;
            }
            held.is_waiting = false;
            receiver.take(held.time, held.wire_length, &held.data);
            *last = Some(held.time);
            count = 1;
        }
        let mut error = None;
        while count < BURST {
            let packet = match open.capture.next_packet() {
                Ok(packet) => packet,
                Err(Error::TimeoutExpired) => break,
                Err(broken) => {
                    error = Some(broken);
                    break;
                }
            };
            let time = time_of(&packet);
            if time > until {
                held.hold(&packet);
                break;
            }
            receiver.take(time, packet.header.len, packet.data);
            *last = Some(time);
            count += 1;
        }
        *packets = packets.saturating_add(count.into());
        if let Some(error) = error {
            self.fail(&error);
        }
        count > 0
    }

    fn waiting(&mut self) -> Option<Timestamp> {
        if !self.held.is_waiting {
            match self.capture.as_mut()?.capture.next_packet() {
                Ok(packet) => self.held.hold(&packet),
                Err(Error::TimeoutExpired) => return None,
                Err(error) => {
                    self.fail(&error);
                    return None;
                }
            }
        }
        Some(self.held.time)
    }

    fn quiet_until(&self) -> Timestamp {
        let lateness = i64::from(self.block_timeout).saturating_mul(BLOCKS_LATE * NANOS_PER_MILLISECOND);
        Timestamp(wall_time().saturating_sub(lateness))
    }

    fn look_after(&mut self, reopen_after: Duration) {
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
        match Open::new(&self.source, self.block_timeout) {
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

    fn drops(&self, stage: DropStage) -> u64 {
        let drops = self.before.plus(self.now);
        match stage {
            DropStage::Interface => drops.interface,
            DropStage::Kernel => drops.kernel,
            _ => 0,
        }
    }

    fn view(&self) -> SourceView {
        SourceView {
            name: self.source.interface.to_string(),
            method: Some("libpcap".to_owned()),
            packets: self.packets,
            last_packet: self.last.map(|time| time.to_string()),
            error: self.error.clone(),
            ..SourceView::default()
        }
    }

    fn close(&mut self) {
        self.capture = None;
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
        let error = LibpcapSource::open(&source, false).err().expect("no such interface").to_string();
        assert!(error.starts_with("interface nowhere0: "), "{error}");
    }
}

//! A network interface, by libpcap: packets in blocks from the kernel's buffer, its losses, and opening it again
//! after it went away.
//!
//! The kernel's buffer is the only one: a slow engine makes losses there, which the kernel counts. libpcap lays it out in
//! two ways. Without `immediate` it has blocks of 256 KiB that packets fill one behind the other, whatever the snap
//! length; a block is handed over when it is full or when its time is up, so that the last packets before a stop come
//! that much later. With `immediate` it has a slot for each packet, as long as the snap length and 300 bytes more: a large
//! snap length leaves few slots, and a burst is lost (2 MiB at 262144 bytes are 7 packets, or 31 on Ethernet). So
//! `immediate` is done by short blocks where there would be few slots. Nothing is captured
//! before the buffer stands, and libpcap takes care that nothing comes through before the filter is set.

use std::time::{Duration, Instant};

use onenet_core::{
    decode::{CapturedPacket, InterfaceIndex, LinkDirection, LinkType},
    detect::HealthReport,
    net::Name,
    record::{DropStage, RecordSink},
    sensor::Sensor,
    time::{NANOS_PER_SECOND, Timestamp},
};
use pcap::{Active, Capture, Error, Packet, Precision, Stat};

use super::{
    counters::{Account, Own},
    live::Live,
    offload::offload_of,
};
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
/// Bytes of a slot beside the packet.
const SLOT_HEADER: u32 = 300;
/// With fewer slots a burst of a few milliseconds would be lost.
const FEWEST_SLOTS: u64 = 8192;
/// A packet is handed over within so many block timeouts, as far as the machine keeps up.
const BLOCKS_LATE: i64 = 4;
/// How long packets stay in the kernel's buffer at most while other interfaces are waited for, in nanoseconds.
const LONGEST_WAIT: i64 = 250 * NANOS_PER_MILLISECOND;
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
    /// How it is read, and why so.
    method: String,
    capture: Option<Open>,
    held: Held,
    account: Account,
    packets: u64,
    last: Option<Timestamp>,
    error: Option<String>,
    failed_at: Option<Instant>,
    counted: Counted,
}

struct Open {
    capture: Capture<Active>,
    link_type: LinkType,
    /// What libpcap said last.
    stat: Stat,
}

/// What libpcap has counted over all openings. Its own counters have 32 bits and wrap, and begin again with each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    /// Packets that the card had no room for.
    interface: u64,
    /// Packets that the kernel's buffer had no room for.
    kernel: u64,
    /// Packets that passed the filter, those that the buffer had no room for among them.
    let_through: u64,
}

impl Counted {
    fn add(&mut self, now: &Stat, before: &Stat) {
        let grown = |sum: &mut u64, now: u32, before: u32| {
            *sum = sum.saturating_add(now.wrapping_sub(before).into());
        };
        grown(&mut self.interface, now.if_dropped, before.if_dropped);
        grown(&mut self.kernel, now.dropped, before.dropped);
        grown(&mut self.let_through, now.received, before.received);
    }
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
        let (immediate, block_timeout) = handing_over(source, block_timeout);
        let snap_length = i32::try_from(source.snap_length).unwrap_or(i32::MAX);
        let buffer = i32::try_from(source.buffer_mib).unwrap_or(i32::MAX).saturating_mul(1 << 20);
        let inactive = Capture::from_device(&*source.interface)
            .map_err(fail)?
            .promisc(source.promiscuous)
            .snaplen(snap_length)
            .buffer_size(buffer)
            .timeout(block_timeout)
            .immediate_mode(immediate)
            .precision(Precision::Nano);
        let mut capture = inactive.open().map_err(fail)?.setnonblock().map_err(fail)?;
        if let Some(filter) = &source.filter {
            capture.filter(filter, true).map_err(fail)?;
        }
        let number = capture.get_datalink().0;
        let link_type = LinkType(u16::try_from(linktype_of_dlt(number)).unwrap_or(u16::MAX));
        Ok(Self { capture, link_type, stat: Stat { received: 0, dropped: 0, if_dropped: 0 } })
    }
}

/// Whether libpcap is asked for a slot per packet, and how long a block may wait. Where there would be few slots, short
/// blocks are nearly as soon and hold far more.
fn handing_over(source: &PcapSource, block_timeout: i32) -> (bool, i32) {
    let slots =
        (u64::from(source.buffer_mib) << 20) / u64::from(source.snap_length.saturating_add(SLOT_HEADER));
    match source.immediate {
        false => (false, block_timeout),
        true if slots >= FEWEST_SLOTS => (true, block_timeout),
        true => (false, block_timeout.min(SHORT_BLOCK_TIMEOUT)),
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
        let capture = Some(Open::new(source, block_timeout)?);
        let mut opened = Self {
            source: source.clone(),
            block_timeout,
            method: "libpcap".to_owned(),
            capture,
            held: Held::default(),
            account: Account::default(),
            packets: 0,
            last: None,
            error: None,
            failed_at: None,
            counted: Counted::default(),
        };
        opened.look_at_counters();
        Ok(opened)
    }

    /// The same, which says that it stands in for eBPF, and why.
    pub(crate) fn in_place_of_ebpf(mut self, reason: String) -> Self {
        self.method = format!("libpcap, because eBPF is not to be had: {reason}");
        self
    }

    /// Reads the counters of interface and libpcap at the same moment.
    fn look_at_counters(&mut self) {
        let Self { source, capture, account, counted, .. } = self;
        let mut own = || {
            if let Some(open) = capture
                && let Ok(stat) = open.capture.stats()
            {
                counted.add(&stat, &open.stat);
                open.stat = stat;
            }
            let let_through = source.filter.is_some().then_some(counted.let_through);
            Own { dropped: counted.kernel, let_through }
        };
        account.mark(&source.interface, &mut own);
        // Losses are told at once, whether or not earlier counters still wait to be compared.
        own();
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
    account: &'a mut Account,
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
        let offload = offload_of(&packet, self.account.mtu());
        self.account.take(time, offload.segments.into());
        self.sensor.handle_offloaded(&packet, offload, self.sink);
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
        let quiet = self.quiet_until();
        let Self { capture: Some(open), held, account, packets, last, .. } = self else { return false };
        let mut receiver = Receiver { interface, link_type: open.link_type, account, sensor, sink };
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
                Err(Error::TimeoutExpired) => {
                    receiver.account.pass(quiet);
                    break;
                }
                Err(broken) => {
                    error = Some(broken);
                    break;
                }
            };
            let time = time_of(&packet);
            if time > until {
                held.hold(&packet);
                receiver.account.pass(time);
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
            let quiet = self.quiet_until();
            match self.capture.as_mut()?.capture.next_packet() {
                Ok(packet) => self.held.hold(&packet),
                Err(Error::TimeoutExpired) => {
                    self.account.pass(quiet);
                    return None;
                }
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

    fn cannot_wait(&self) -> Timestamp {
        Timestamp(wall_time().saturating_sub(LONGEST_WAIT))
    }

    fn look_after(&mut self, reopen_after: Duration) {
        self.look_at_counters();
        let Some(failed_at) = self.failed_at else { return };
        if self.capture.take().is_some() {
            let problem = self.error.as_deref().unwrap_or_default();
            tracing::error!("interface {}: {problem}; opening it again", self.source.interface);
        }
        // Nothing is taken until it is back.
        self.account.pass(Timestamp(i64::MAX));
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
        match stage {
            DropStage::Interface => self.counted.interface,
            DropStage::Kernel => self.counted.kernel,
            DropStage::Filter => self.account.view().map_or(0, |view| view.filtered),
            DropStage::Mirror | DropStage::Sampling => 0,
        }
    }

    fn health(&self) -> Vec<HealthReport> {
        let report = self.account.seen().map(|seen| HealthReport {
            time: seen.time,
            interface: self.source.interface.clone(),
            hook: Name::from("libpcap"),
            seen: seen.seen,
            // With a filter, nothing may be all there is to see.
            offered: self.source.filter.is_none().then_some(seen.offered),
            lost: seen.lost,
        });
        report.into_iter().collect()
    }

    fn view(&self) -> SourceView {
        SourceView {
            name: self.source.interface.to_string(),
            method: Some(self.method.clone()),
            packets: self.packets,
            account: self.account.view().cloned(),
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

    #[test]
    fn few_slots_are_not_taken() {
        let way = |immediate, snap_length, buffer_mib| {
            let interface = Name::from("tap0");
            let source =
                PcapSource { interface, snap_length, buffer_mib, promiscuous: true, filter: None, immediate };
            handing_over(&source, 100)
        };
        assert_eq!(way(false, 262_144, 1), (false, 100));
        assert_eq!(way(true, 2048, 64), (true, 100));
        assert_eq!(way(true, 262_144, 64), (false, 10));
        assert_eq!(way(true, 2048, 1), (false, 10));
    }

    #[test]
    fn counters_of_32_bits_wrap_and_go_on() {
        let stat = |received, dropped, if_dropped| Stat { received, dropped, if_dropped };
        let mut counted = Counted::default();
        counted.add(&stat(u32::MAX, u32::MAX - 1, 7), &stat(0, 0, 0));
        counted.add(&stat(9, 3, 7), &stat(u32::MAX, u32::MAX - 1, 7));
        let (let_through, kernel) = (u64::from(u32::MAX) + 10, u64::from(u32::MAX) + 4);
        assert_eq!(counted, Counted { interface: 7, kernel, let_through });
    }
}

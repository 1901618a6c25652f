//! Several captures read as one, in the order of packet time: files of a rotation follow one another, and
//! captures of two interfaces at the same time interleave. A capture that breaks ends there; the others go on.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    path::{Path, PathBuf},
};

use onenet_core::{
    decode::{CapturedPacket, InterfaceIndex},
    net::Name,
    time::Timestamp,
};

use super::{
    capture::{Capture, CaptureDrops, CapturePacket, Take},
    error::CaptureError,
};

/// Captures that are kept open from the start; of more, the rest is opened when its time has come.
const OPEN_AT_START: usize = 64;

/// What became of one capture.
#[derive(Debug)]
pub struct CaptureReport {
    /// The file, or `standard input`.
    pub name: String,
    /// Its format, where it was recognised.
    pub format: Option<&'static str>,
    /// Packets read.
    pub packets: u64,
    /// Earliest packet.
    pub first: Option<Timestamp>,
    /// Latest packet.
    pub last: Option<Timestamp>,
    /// What the capture itself says was lost.
    pub drops: CaptureDrops,
    /// Blocks that contradict themselves.
    pub irregular_blocks: u64,
    /// Bytes of the file; none for pipes.
    pub size: Option<u64>,
    /// Bytes of it that have been read.
    pub bytes_read: u64,
    /// Why it could not be read, or where it broke.
    pub error: Option<CaptureError>,
}

/// A capture in the set, by its place in the list.
struct Member {
    path: PathBuf,
    /// None before its time has come, and after its end.
    capture: Option<Capture>,
    /// Index of each of its interfaces in the sensor.
    indexes: Vec<Option<InterfaceIndex>>,
    stem: String,
    /// Where its packets count as captured, whatever the capture says.
    interface: Option<Name>,
}

/// Several captures as one.
pub struct CaptureSet {
    members: Vec<Member>,
    reports: Vec<CaptureReport>,
    /// Members not yet begun, by time of their first packet.
    waiting: VecDeque<(Timestamp, usize)>,
    /// Members with a packet at hand other than `current`, earliest first.
    ready: BinaryHeap<Reverse<(Timestamp, usize)>>,
    /// The member whose packet was handed out last.
    current: Option<usize>,
}

impl CaptureSet {
    /// Looks at the first packet of each file. Where `interface` is stated, every packet counts as captured
    /// there; else by the name in the capture, or else by the file's name without its endings.
    pub fn open(paths: &[PathBuf], interface: Option<Name>) -> Self {
        let files: Vec<_> = paths.iter().map(|path| (path.clone(), interface.clone())).collect();
        Self::open_each(&files)
    }

    /// As [`CaptureSet::open`], with an interface of its own for each file.
    pub fn open_each(paths: &[(PathBuf, Option<Name>)]) -> Self {
        let mut set = Self {
            members: Vec::with_capacity(paths.len()),
            reports: Vec::with_capacity(paths.len()),
            waiting: VecDeque::new(),
            ready: BinaryHeap::new(),
            current: None,
        };
        let mut waiting = Vec::new();
        for (index, (path, interface)) in paths.iter().enumerate() {
            set.reports.push(CaptureReport {
                name: if path == Path::new("-") {
                    "standard input".into()
                } else {
                    path.display().to_string()
                },
                format: None,
                packets: 0,
                first: None,
                last: None,
                drops: CaptureDrops::default(),
                irregular_blocks: 0,
                size: None,
                bytes_read: 0,
                error: None,
            });
            set.members.push(Member {
                path: path.clone(),
                capture: None,
                indexes: Vec::new(),
                stem: stem(path),
                interface: interface.clone(),
            });
            if let Some(first) = set.begin(index) {
                waiting.push((first, index));
                // A pipe cannot be opened twice.
                let reopen =
                    set.members.get(index).and_then(|member| member.capture.as_ref()?.size()).is_some();
                if index >= OPEN_AT_START
                    && reopen
                    && let Some(member) = set.members.get_mut(index)
                {
                    member.capture = None;
                }
            }
        }
        waiting.sort_unstable();
        set.waiting = waiting.into();
        set
    }

    /// The next packet of all captures; none once every one has ended. `resolve` gives the index of an
    /// interface by its name and is asked once for each.
    pub fn next(&mut self, resolve: &mut dyn FnMut(&str) -> InterfaceIndex) -> Option<CapturedPacket<'_>> {
        let index = self.earliest()?;
        self.current = Some(index);
        let report = self.reports.get_mut(index)?;
        let member = self.members.get_mut(index)?;
        let packet = member.capture.as_ref()?.packet()?;
        report.packets += 1;
        report.first = Some(report.first.map_or(packet.time, |first| first.min(packet.time)));
        report.last = Some(report.last.map_or(packet.time, |last| last.max(packet.time)));
        let known = member.indexes.get(packet.interface).copied().flatten();
        let interface = known.unwrap_or_else(|| {
            let stated =
                member.capture.as_ref().and_then(|c| c.interfaces().get(packet.interface)?.name.clone());
            let name = match (&member.interface, stated) {
                (Some(name), _) => name.to_string(),
                (None, Some(name)) if name.starts_with('#') => format!("{}{name}", member.stem),
                (None, Some(name)) => name,
                (None, None) => member.stem.clone(),
            };
            let index = resolve(&name);
            if member.indexes.len() <= packet.interface {
                member.indexes.resize(packet.interface + 1, None);
            }
            if let Some(slot) = member.indexes.get_mut(packet.interface) {
                *slot = Some(index);
            }
            index
        });
        Some(CapturedPacket {
            time: packet.time,
            interface,
            link_type: packet.link_type,
            direction: packet.direction,
            wire_length: packet.wire_length,
            data: packet.data,
        })
    }

    /// Hands over the packets behind the last one, as [`CaptureSet::next`] would, as far as the same capture has them at
    /// hand and the sensor knows where they were captured; until `take` wants no more. Tells how many there were.
    #[inline]
    pub fn follow(&mut self, mut take: impl FnMut(&CapturedPacket<'_>) -> bool) -> u64 {
        let Some((index, until)) = self.current.and_then(|index| Some((index, self.until(index)?))) else {
            return 0;
        };
        let Some(Member { capture: Some(capture), indexes, .. }) = self.members.get_mut(index) else {
            return 0;
        };
        let (mut packets, mut first, mut last) = (0, Timestamp(i64::MAX), Timestamp(i64::MIN));
        capture.follow(until, |packet| {
            let Some(&Some(interface)) = indexes.get(packet.interface) else { return Take::Leave };
            let &CapturePacket { time, link_type, direction, wire_length, data, .. } = packet;
            packets += 1;
            (first, last) = (first.min(time), last.max(time));
            match take(&CapturedPacket { time, interface, link_type, direction, wire_length, data }) {
                true => Take::More,
                false => Take::Last,
            }
        });
        if packets > 0
            && let Some(report) = self.reports.get_mut(index)
        {
            report.packets += packets;
            report.first = Some(report.first.map_or(first, |earlier| earlier.min(first)));
            report.last = Some(report.last.map_or(last, |later| later.max(last)));
        }
        packets
    }

    /// The latest time of packets of this member that come before those of all others; none where there is none.
    fn until(&self, index: usize) -> Option<Timestamp> {
        let before = |time: Timestamp| time.0.checked_sub(1).map(Timestamp);
        let ready = match self.ready.peek() {
            Some(&Reverse((time, other))) if index > other => before(time)?,
            Some(&Reverse((time, _))) => time,
            None => Timestamp(i64::MAX),
        };
        // A capture that waits is opened when a packet of its time comes.
        let waiting = match self.waiting.front() {
            Some(&(time, _)) => before(time)?,
            None => Timestamp(i64::MAX),
        };
        Some(ready.min(waiting))
    }

    /// Whether the next packet can be had without waiting for one.
    pub fn is_at_hand(&self) -> bool {
        self.current
            .and_then(|index| self.members.get(index)?.capture.as_ref())
            .is_some_and(Capture::is_at_hand)
    }

    /// What has become of each capture so far, in the order they were given.
    pub fn reports(&self) -> &[CaptureReport] {
        &self.reports
    }

    /// Bytes of the files that have been read, and all their bytes where every size is known.
    pub fn progress(&self) -> (u64, Option<u64>) {
        let read =
            self.members.iter().zip(&self.reports).map(|(member, report)| {
                member.capture.as_ref().map_or(report.bytes_read, Capture::bytes_read)
            });
        let failed = |report: &&CaptureReport| report.size.is_some() || report.error.is_none();
        let size = self.reports.iter().filter(failed).map(|report| report.size).sum();
        (read.sum(), size)
    }

    /// Captures that are open.
    #[cfg(test)]
    pub(super) fn open_captures(&self) -> usize {
        self.members.iter().filter(|member| member.capture.is_some()).count()
    }

    /// Opens a member and moves to its first packet; its time, or none where there is none.
    fn begin(&mut self, index: usize) -> Option<Timestamp> {
        let member = self.members.get_mut(index)?;
        let report = self.reports.get_mut(index)?;
        match Capture::open(&member.path) {
            Ok(capture) => {
                report.format = Some(capture.format());
                report.size = capture.size();
                member.capture = Some(capture);
            }
            Err(error) => {
                report.error = Some(error);
                return None;
            }
        }
        self.step(index)
    }

    /// The member with the earliest packet, after the one that was handed out last has moved on.
    fn earliest(&mut self) -> Option<usize> {
        if let Some(index) = self.current.take()
            && let Some(time) = self.step(index)
        {
            let is_next = self.waiting.is_empty()
                && self.ready.peek().is_none_or(|&Reverse(ready)| (time, index) < ready);
            if is_next {
                return Some(index);
            }
            self.ready.push(Reverse((time, index)));
        }
        while let Some(&(time, index)) = self.waiting.front() {
            if self.ready.peek().is_some_and(|&Reverse((ready, _))| ready < time) {
                break;
            }
            self.waiting.pop_front();
            let begun = self.members.get(index).is_some_and(|member| member.capture.is_some());
            if let Some(first) = if begun { Some(time) } else { self.begin(index) } {
                self.ready.push(Reverse((first, index)));
            }
        }
        self.ready.pop().map(|Reverse((_, index))| index)
    }

    /// Moves a member to its next packet; its time. At the end its report is complete.
    fn step(&mut self, index: usize) -> Option<Timestamp> {
        let member = self.members.get_mut(index)?;
        let report = self.reports.get_mut(index)?;
        let capture = member.capture.as_mut()?;
        let advanced = capture.advance();
        if capture.has_account() {
            report.drops = capture.drops();
            report.irregular_blocks = capture.irregular_blocks();
        }
        match advanced {
            Ok(true) => return capture.time(),
            Ok(false) => {}
            Err(error) => report.error = Some(error),
        }
        report.bytes_read = capture.bytes_read();
        member.capture = None;
        None
    }
}

/// The name of a file without its endings: `edge-1.pcap.gz` is `edge-1`.
fn stem(path: &Path) -> String {
    if path == Path::new("-") {
        return "stdin".to_owned();
    }
    let name = path.file_name().map_or_else(|| "capture".into(), |name| name.to_string_lossy());
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let stem = [".pcapng", ".pcap", ".cap", ".ntar"].iter().find_map(|ending| name.strip_suffix(ending));
    stem.unwrap_or(name).to_owned()
}

//! One capture file of either format, packet by packet.

use std::{
    io::Read,
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use onenet_core::{
    decode::{LinkDirection, LinkType},
    time::Timestamp,
};

use super::{
    error::{CaptureError, Problem, looks_like},
    input::Input,
    pcap::PcapReader,
    pcapng::PcapNgReader,
    window::Window,
};

/// One interface of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureInterface {
    /// Its name, where the capture states one; `#n` for the n-th unnamed interface of a section, from 1.
    pub name: Option<String>,
    /// What its packets begin with.
    pub link_type: LinkType,
}

/// Packets that a capture says it has lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureDrops {
    /// By the network card or driver (pcapng isb_ifdrop).
    pub interface: u64,
    /// By the kernel's capture buffer (pcapng isb_osdrop).
    pub kernel: u64,
}

impl CaptureDrops {
    /// Both together, saturating.
    pub const fn plus(self, other: Self) -> Self {
        Self {
            interface: self.interface.saturating_add(other.interface),
            kernel: self.kernel.saturating_add(other.kernel),
        }
    }
}

/// One packet of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapturePacket<'a> {
    /// When it was captured.
    pub time: Timestamp,
    /// Interface: index into [`Capture::interfaces`].
    pub interface: usize,
    /// What it begins with.
    pub link_type: LinkType,
    /// Way past the capture point, where the capture states it.
    pub direction: LinkDirection,
    /// Length on the wire.
    pub wire_length: u32,
    /// Captured bytes.
    pub data: &'a [u8],
}

/// What a receiver of packets says of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// It was taken, and so will be the next.
    More,
    /// It was the last.
    Last,
    /// It was not taken.
    Leave,
}

/// Where a format reader found a packet.
pub(super) struct Found {
    pub(super) time: Timestamp,
    pub(super) interface: usize,
    pub(super) direction: LinkDirection,
    pub(super) wire_length: u32,
    /// Its captured bytes, by position in the window.
    pub(super) data: Range<usize>,
}

enum Format {
    Pcap(PcapReader),
    PcapNg(PcapNgReader),
}

/// A capture that is being read.
pub struct Capture {
    name: String,
    window: Window,
    format: Format,
    current: Option<Found>,
    ended: bool,
    read: Arc<AtomicU64>,
    size: Option<u64>,
}

impl Capture {
    /// Opens a file, or standard input for `-`, and recognises its format.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        Self::from_input(Input::open(path)?)
    }

    /// Recognises the format of a stream.
    pub fn from_reader(name: &str, stream: Box<dyn Read + Send>) -> Result<Self, CaptureError> {
        Self::from_input(Input::from_reader(name, stream, None)?)
    }

    fn from_input(input: Input) -> Result<Self, CaptureError> {
        let Input { name, bytes, read, size } = input;
        let mut window = Window::new(bytes);
        let format = match PcapReader::open(&mut window) {
            Some(reader) => reader.map(Format::Pcap),
            None => PcapNgReader::open(&mut window).map(Format::PcapNg).ok_or_else(|| {
                let start = window.have(8).to_vec();
                let looks_like = looks_like(window.have(16));
                match start.is_empty() {
                    true => Problem::Empty,
                    false => Problem::NotACapture { start, looks_like },
                }
            }),
        };
        match format {
            Ok(format) => Ok(Self { name, window, format, current: None, ended: false, read, size }),
            Err(problem) => {
                let (offset, problem) = match (window.take_failure(), problem) {
                    (Some(failure), _) => (Some(window.offset()), Problem::Read(failure)),
                    (None, problem @ Problem::Truncated { .. }) => (Some(window.offset()), problem),
                    (None, problem) => (None, problem),
                };
                Err(CaptureError { name, offset, problem })
            }
        }
    }

    /// Whether the next packet is there without waiting for more of the stream.
    pub fn is_at_hand(&self) -> bool {
        match &self.format {
            Format::Pcap(reader) => reader.is_at_hand(&self.window),
            Format::PcapNg(reader) => reader.is_at_hand(&self.window),
        }
    }

    /// Moves on to the next packet; false at the end of the capture, and for ever after an error.
    #[inline]
    pub fn advance(&mut self) -> Result<bool, CaptureError> {
        self.current = None;
        if self.ended {
            return Ok(false);
        }
        let found = match &mut self.format {
            Format::Pcap(reader) => reader.advance(&mut self.window),
            Format::PcapNg(reader) => reader.advance(&mut self.window),
        };
        match found {
            Ok(Some(found)) => {
                self.current = Some(found);
                Ok(true)
            }
            Ok(None) => self.end(None),
            Err(problem) => self.end(Some(problem)),
        }
    }

    /// Hands over the packets behind the one that `advance` moved to, as far as they are at hand and no later than
    /// `until`, to the first that `take` leaves where it is or after which it wants no more.
    #[inline]
    pub(super) fn follow(&mut self, until: Timestamp, take: impl FnMut(&CapturePacket<'_>) -> Take) {
        if self.ended {
            return;
        }
        match &mut self.format {
            Format::Pcap(reader) => reader.follow(&mut self.window, until, take),
            Format::PcapNg(reader) => reader.follow(&mut self.window, until, take),
        }
    }

    /// A stream that fails looks like one that ends; the failure is the cause.
    #[cold]
    fn end(&mut self, ending: Option<Problem>) -> Result<bool, CaptureError> {
        self.ended = true;
        let problem = match (ending, self.window.take_failure()) {
            (None | Some(Problem::Truncated { .. }), Some(failure)) => Problem::Read(failure),
            (None, None) => return Ok(false),
            (Some(problem), _) => problem,
        };
        Err(CaptureError { name: self.name.clone(), offset: Some(self.window.offset()), problem })
    }

    /// The time of the packet that `advance` moved to.
    pub(super) fn time(&self) -> Option<Timestamp> {
        self.current.as_ref().map(|found| found.time)
    }

    /// The packet that `advance` moved to.
    #[inline]
    pub fn packet(&self) -> Option<CapturePacket<'_>> {
        let found = self.current.as_ref()?;
        let interface = self.interfaces().get(found.interface)?;
        Some(CapturePacket {
            time: found.time,
            interface: found.interface,
            link_type: interface.link_type,
            direction: found.direction,
            wire_length: found.wire_length,
            data: self.window.slice(found.data.clone()),
        })
    }

    /// The interfaces known so far; more may come with later packets.
    pub fn interfaces(&self) -> &[CaptureInterface] {
        match &self.format {
            Format::Pcap(reader) => std::slice::from_ref(&reader.interface),
            Format::PcapNg(reader) => &reader.interfaces,
        }
    }

    /// Whether the capture itself can say what was lost.
    pub(super) const fn has_account(&self) -> bool {
        matches!(self.format, Format::PcapNg(_))
    }

    /// What the capture itself says was lost.
    pub fn drops(&self) -> CaptureDrops {
        match &self.format {
            Format::Pcap(_) => CaptureDrops::default(),
            Format::PcapNg(reader) => reader.drops(),
        }
    }

    /// Blocks that contradict themselves; what could be used of them was used.
    pub const fn irregular_blocks(&self) -> u64 {
        match &self.format {
            Format::Pcap(_) => 0,
            Format::PcapNg(reader) => reader.irregular,
        }
    }

    /// The format, such as `pcap (nanoseconds)`.
    pub const fn format(&self) -> &'static str {
        match &self.format {
            Format::Pcap(reader) => reader.format(),
            Format::PcapNg(_) => "pcapng",
        }
    }

    /// What errors call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of the file that have been read, before unpacking.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Size of the file; none for pipes.
    pub const fn size(&self) -> Option<u64> {
        self.size
    }
}

//! One flow of load: its packets in their order, and the time between them.

use super::frame::{ACK, Body, Ends, FIN, PSH, Packet, RST, SYN};
use crate::traffic::random::Random;

/// What a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// One question, one answer, over UDP.
    Lookup,
    /// Small datagrams to and fro.
    Datagrams,
    /// Large datagrams, most from the server.
    Stream,
    /// TCP SYNs without an answer.
    Attempt,
    /// A TCP SYN that is reset.
    Refused,
    /// A TCP connection with small segments, opened and closed.
    Talk,
    /// A TCP connection that moves data, opened and closed.
    Transfer,
    /// ICMP echo requests and replies.
    Echo,
}

impl Kind {
    /// Fewest packets with which a flow of this kind is complete.
    pub(super) const fn fewest(self) -> u32 {
        match self {
            Self::Attempt => 1,
            Self::Lookup | Self::Datagrams | Self::Stream | Self::Refused | Self::Echo => 2,
            Self::Talk | Self::Transfer => 8,
        }
    }
}

/// A flow under way.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) ends: Ends,
    pub(super) kind: Kind,
    /// Packets in all.
    packets: u32,
    /// Packets that are written.
    written: u32,
    /// Milliseconds between packets where they are about the same throughout; else by the kind.
    pace: Option<u32>,
    /// Next sequence number of client and server.
    sequence: [u32; 2],
    /// TCP timestamps are in use.
    stamped: bool,
}

impl Flow {
    /// A flow of so many packets, or of as few as its kind allows.
    pub(super) fn new(ends: Ends, kind: Kind, packets: u32, pace: Option<u32>, random: &mut Random) -> Self {
        let sequence = [random.bits(), random.bits()];
        let stamped = sequence[0].is_multiple_of(2);
        Self { ends, kind, packets: packets.max(kind.fewest()), written: 0, pace, sequence, stamped }
    }

    /// Whether every packet is written.
    pub(super) fn is_over(&self) -> bool {
        self.written >= self.packets
    }

    /// Whether the packet that was just written is the first.
    pub(super) fn begins(&self) -> bool {
        self.written == 1
    }

    /// The next packet.
    pub(super) fn next(&mut self, random: &mut Random) -> Packet {
        let at = self.written;
        self.written += 1;
        let even = at.is_multiple_of(2);
        let span = |from: u16, to: u16, random: &mut Random| random.port(from, to);
        match self.kind {
            Kind::Lookup if even => datagram(true, span(26, 60, random)),
            Kind::Lookup => datagram(false, span(60, 400, random)),
            Kind::Datagrams => datagram(even, span(40, 200, random)),
            Kind::Stream if at.is_multiple_of(4) => datagram(true, span(30, 90, random)),
            Kind::Stream => datagram(false, span(600, 1250, random)),
            Kind::Echo => {
                let sequence = u16::try_from(at / 2).unwrap_or(u16::MAX);
                Packet { from_client: even, body: Body::Echo(sequence), payload: 56 }
            }
            Kind::Attempt => self.segment(true, SYN, 0, false),
            Kind::Refused if even => self.segment(true, SYN, 0, true),
            Kind::Refused => self.segment(false, RST | ACK, 0, true),
            Kind::Talk | Kind::Transfer => self.connection(at, random),
        }
    }

    fn connection(&mut self, at: u32, random: &mut Random) -> Packet {
        let bulk = self.kind == Kind::Transfer;
        match (at, self.packets - at) {
            (0, _) => self.segment(true, SYN, 0, true),
            (1, _) => self.segment(false, SYN | ACK, 0, true),
            (2, _) => self.segment(true, ACK, 0, true),
            (_, 3) => self.segment(true, FIN | ACK, 0, true),
            (_, 2) => self.segment(false, FIN | ACK, 0, true),
            (_, 1) => self.segment(true, ACK, 0, true),
            (3, _) => self.segment(true, PSH | ACK, random.port(80, 600), true),
            _ => match (at % 4, bulk) {
                (0, true) => self.segment(false, ACK, 1_400, true),
                (1, true) => self.segment(false, PSH | ACK, random.port(100, 1_400), true),
                (2, _) | (1, false) => self.segment(true, ACK, 0, true),
                (0, false) => self.segment(false, PSH | ACK, random.port(20, 400), true),
                (_, _) => self.segment(true, PSH | ACK, random.port(1, 120), true),
            },
        }
    }

    /// A segment with the sequence numbers that stand; where it counts, they move on by what it takes.
    fn segment(&mut self, from_client: bool, flags: u8, payload: u16, counts: bool) -> Packet {
        let (own, other) = if from_client { (0, 1) } else { (1, 0) };
        let sequence = self.sequence[own];
        let acknowledgement = if flags & ACK == 0 { 0 } else { self.sequence[other] };
        if counts {
            let taken = u32::from(payload) + u32::from(flags & (SYN | FIN) != 0);
            self.sequence[own] = sequence.wrapping_add(taken);
        }
        let stamp = if self.stamped { self.written | 0x0100_0000 } else { 0 };
        Packet { from_client, body: Body::Tcp { flags, sequence, acknowledgement, stamp }, payload }
    }

    /// Milliseconds until the next packet, at least one.
    pub(super) fn gap(&self, random: &mut Random) -> u32 {
        let is_tcp = matches!(self.kind, Kind::Talk | Kind::Transfer);
        if is_tcp && (self.written < 3 || self.packets - self.written < 3) {
            // Opening and closing take a round trip, however slow the talk is.
            return 5 + random.below(60);
        }
        if let Some(pace) = self.pace {
            return pace.saturating_sub(pace / 8).max(1) + random.below(pace / 4);
        }
        match self.kind {
            Kind::Lookup | Kind::Refused => 5 + random.below(60),
            Kind::Datagrams => 100 + random.below(1_900),
            Kind::Stream | Kind::Transfer => 1 + random.below(40),
            Kind::Talk => 5 + random.below(200),
            Kind::Attempt => 500 << self.written.min(4),
            Kind::Echo if self.written.is_multiple_of(2) => 950,
            Kind::Echo => 5 + random.below(60),
        }
    }
}

fn datagram(from_client: bool, payload: u16) -> Packet {
    Packet { from_client, body: Body::Udp, payload }
}

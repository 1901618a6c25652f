//! A TCP connection told step by step: handshake, data each way, and one of the ways it can end. Sequence and
//! acknowledgement numbers, windows of segments and the times between them are as the edge would see them.

use std::sync::Arc;

use anyhow::Result;

use super::{
    frame::{ACK, Body, FIN, Look, MadeBody, PSH, Payload, RST, SYN, Segment},
    random::Random,
    wire::{Path, Wire},
};

/// One second in nanoseconds.
pub(super) const SECOND: i64 = 1_000_000_000;
/// One millisecond in nanoseconds.
pub(super) const MILLI: i64 = 1_000_000;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Who opened the connection.
    Client,
    /// Who was called.
    Server,
}

impl Side {
    const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::Client => 0,
            Self::Server => 1,
        }
    }
}

/// What one side says in one go.
#[derive(Clone, Debug)]
pub(super) enum Speech {
    /// These octets.
    Octets(Arc<[u8]>),
    /// A body that is made up.
    Made(MadeBody),
}

impl From<Vec<u8>> for Speech {
    fn from(octets: Vec<u8>) -> Self {
        Self::Octets(octets.into())
    }
}

impl From<&str> for Speech {
    fn from(text: &str) -> Self {
        Self::Octets(text.as_bytes().into())
    }
}

/// A TCP connection in progress.
#[derive(Debug)]
pub(super) struct Talk<'a> {
    wire: &'a mut Wire,
    path: Path,
    ports: [u16; 2],
    next: [u32; 2],
    window: [u16; 2],
    now: i64,
}

impl<'a> Talk<'a> {
    /// A connection that will begin at `start`; nothing is sent yet.
    pub(super) fn new(wire: &'a mut Wire, path: Path, random: &mut Random, port: u16, start: i64) -> Self {
        let client_port = random.client_port();
        let next = [random.bits(), random.bits()];
        Self { wire, path, ports: [client_port, port], next, window: [64_240, 65_160], now: start }
    }

    /// The time of the next step.
    pub(super) const fn now(&self) -> i64 {
        self.now
    }

    /// Lets time pass.
    pub(super) const fn pause(&mut self, nanos: i64) {
        self.now += nanos;
    }

    fn segment(&mut self, time: i64, side: Side, flags: u8, payload: Payload) -> Result<()> {
        let sequence = self.next[side.index()];
        let length = u32::from(payload.len()) + u32::from(flags & (SYN | FIN) != 0);
        self.next[side.index()] = sequence.wrapping_add(length);
        self.segment_at(time, side, flags, sequence, payload)
    }

    fn segment_at(
        &mut self,
        time: i64,
        side: Side,
        flags: u8,
        sequence: u32,
        payload: Payload,
    ) -> Result<()> {
        let acknowledgement = if flags & ACK == 0 { 0 } else { self.next[side.other().index()] };
        let body = Body::Tcp(Segment {
            source: self.ports[side.index()],
            destination: self.ports[side.other().index()],
            sequence,
            acknowledgement,
            flags,
            window: if flags & RST == 0 { self.window[side.index()] } else { 0 },
            mss: self.path.mss(),
            look: Look::default(),
            payload,
        });
        self.wire.send(time, &mut self.path, side == Side::Client, body)
    }

    fn answer_time(&self, answering: Side) -> i64 {
        self.path.turnaround(answering == Side::Client)
    }

    /// Three-way handshake.
    pub(super) fn connect(&mut self) -> Result<()> {
        self.segment(self.now, Side::Client, SYN, Payload::Empty)?;
        self.now += self.answer_time(Side::Server);
        self.segment(self.now, Side::Server, SYN | ACK, Payload::Empty)?;
        self.now += self.answer_time(Side::Client);
        self.window = [1026, 501];
        self.segment(self.now, Side::Client, ACK, Payload::Empty)
    }

    /// A SYN that nobody answers, and `retries` more of it after 1, 2, 4 … seconds.
    pub(super) fn unanswered(&mut self, retries: u32) -> Result<()> {
        let sequence = self.next[0];
        for retry in 0..=retries {
            self.segment_at(self.now, Side::Client, SYN, sequence, Payload::Empty)?;
            self.now += SECOND << retry;
        }
        Ok(())
    }

    /// A SYN that is answered by a RST.
    pub(super) fn refused(&mut self) -> Result<()> {
        self.segment(self.now, Side::Client, SYN, Payload::Empty)?;
        self.now += self.answer_time(Side::Server);
        self.next[1] = 0;
        self.segment(self.now, Side::Server, RST | ACK, Payload::Empty)
    }

    /// A SYN that is answered, and a RST of the client: a half-open scan that met an open port.
    pub(super) fn probe_open_port(&mut self) -> Result<()> {
        self.segment(self.now, Side::Client, SYN, Payload::Empty)?;
        self.now += self.answer_time(Side::Server);
        self.segment(self.now, Side::Server, SYN | ACK, Payload::Empty)?;
        self.now += self.answer_time(Side::Client);
        self.segment(self.now, Side::Client, RST, Payload::Empty)
    }

    /// One side speaks, the other acknowledges; afterwards the other side can answer.
    pub(super) fn say(&mut self, side: Side, random: &mut Random, speech: impl Into<Speech>) -> Result<()> {
        let segments = cut(&speech.into(), self.path.mss());
        let listener = side.other();
        let mut sent = 0;
        let mut congestion_window = 10;
        let mut first_acknowledgement = 0;
        while sent < segments.len() {
            let burst = &segments[sent..(sent + congestion_window).min(segments.len())];
            sent += burst.len();
            congestion_window = (congestion_window * 2).min(40);
            for (number, payload) in (1..).zip(burst) {
                let last = sent == segments.len() && number == burst.len();
                let flags = if last { PSH | ACK } else { ACK };
                let sequence = self.next[side.index()];
                self.segment(self.now, side, flags, payload.clone())?;
                if random.per_mille(4) {
                    // It was lost behind the tap; it comes again when the listener has asked for it.
                    let again = self.now + self.answer_time(listener) + self.answer_time(side) + 3 * MILLI;
                    self.segment_at(again, side, flags, sequence, payload.clone())?;
                }
                let acknowledged_at = self.now + self.answer_time(listener);
                if number == 1 {
                    first_acknowledgement = acknowledged_at;
                }
                if number % 2 == 0 || last || number == burst.len() {
                    let delay = random.between(2_000, 9_000);
                    self.segment(acknowledged_at + delay, listener, ACK, Payload::Empty)?;
                }
                self.now += random.between(12_000, 21_000);
            }
            if sent < segments.len() {
                self.now = self.now.max(first_acknowledgement + self.answer_time(side));
            }
        }
        self.now += self.answer_time(listener);
        Ok(())
    }

    /// Both sides end, `first` first.
    pub(super) fn close(&mut self, first: Side) -> Result<()> {
        self.segment(self.now, first, FIN | ACK, Payload::Empty)?;
        self.now += self.answer_time(first.other());
        self.segment(self.now, first.other(), FIN | ACK, Payload::Empty)?;
        self.now += self.answer_time(first);
        self.segment(self.now, first, ACK, Payload::Empty)
    }

    /// One side resets.
    pub(super) fn reset(&mut self, side: Side) -> Result<()> {
        self.segment(self.now, side, RST | ACK, Payload::Empty)
    }

    /// One octet before the next, to see whether the other side is still there; it is.
    pub(super) fn keep_alive(&mut self, side: Side) -> Result<()> {
        let sequence = self.next[side.index()].wrapping_sub(1);
        self.segment_at(self.now, side, ACK, sequence, Payload::Empty)?;
        self.now += self.answer_time(side.other());
        self.segment(self.now, side.other(), ACK, Payload::Empty)
    }
}

/// A speech in segments.
fn cut(speech: &Speech, mss: u16) -> Vec<Payload> {
    match speech {
        Speech::Octets(octets) => {
            octets.chunks(usize::from(mss)).map(|part| Payload::Octets(Arc::from(part))).collect()
        }
        Speech::Made(body) => (0..body.length)
            .step_by(usize::from(mss))
            .map(|offset| {
                let length = (body.length - offset).min(u32::from(mss));
                Payload::Made(*body, offset, u16::try_from(length).unwrap_or(mss))
            })
            .collect(),
    }
}

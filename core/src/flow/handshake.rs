//! Times of a TCP handshake: from SYN to SYN-ACK, and from there to the ACK. What is not needed any more gives its
//! room to what has become of it.

use super::{
    ends::{EndState, whole},
    tcp::{Outcome, Segment, TcpState},
};
use crate::time::Timestamp;

/// More nanoseconds than fit beside the other times.
const LONG: u32 = u32::MAX;

impl TcpState {
    /// Times a segment of the handshake; `peer` is the state the other end had before it.
    #[inline]
    pub(super) fn time_handshake(&mut self, segment: &Segment<'_>, peer: EndState, outcome: &mut Outcome) {
        if self.is(whole::COMPLETE) || segment.rst() {
            return;
        }
        let from_originator = segment.is_from_originator() != outcome.flip;
        match (segment.syn(), segment.ack(), from_originator) {
            (true, false, true) => {
                if self.is(whole::SYN) {
                    self.set(whole::AMBIGUOUS);
                } else if !self.is(whole::SYN_ACK) {
                    self.time = segment.time;
                }
                self.set(whole::SYN);
            }
            (true, true, false) => self.answered(segment.time),
            (false, true, true) if self.is(whole::SYN_ACK) => {
                self.completed(segment.time);
                outcome.established = true;
            }
            // Both in midstream: the handshake was before the capture.
            (false, true, _)
                if !self.is(whole::SYN_ACK)
                    && peer.is_live()
                    && self.ends[segment.side & 1].state().is_live() =>
            {
                self.set(whole::COMPLETE);
                outcome.established = true;
            }
            _ => {}
        }
    }

    /// A SYN-ACK came.
    pub(super) fn answered(&mut self, time: Timestamp) {
        if self.is(whole::SYN_ACK) {
            self.set(whole::AMBIGUOUS);
        }
        self.set(whole::SYN_ACK);
        if self.is(whole::SYN) && !self.is(whole::AMBIGUOUS) {
            let out = time.since(self.time);
            self.out = u32::try_from(out).unwrap_or(LONG);
            if self.out == LONG {
                self.rare.make_both().out = out;
            }
            self.set(whole::OUT);
        } else {
            self.unset(whole::OUT);
        }
        self.time = time;
    }

    /// The ACK of the SYN-ACK came.
    pub(super) fn completed(&mut self, time: Timestamp) {
        if !self.is(whole::AMBIGUOUS) {
            self.time.0 = time.since(self.time);
            self.set(whole::BACK);
        }
        self.set(whole::COMPLETE);
    }

    /// Nanoseconds from SYN to SYN-ACK, and from there to the ACK. None where a segment of the handshake came
    /// twice, or was not seen.
    pub(super) fn round_trips(&self) -> (Option<i64>, Option<i64>) {
        let out = match self.rare.both() {
            Some(rare) if self.out == LONG => rare.out,
            _ => self.out.into(),
        };
        (self.is(whole::OUT).then_some(out), self.is(whole::BACK).then_some(self.time.0))
    }
}

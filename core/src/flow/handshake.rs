//! Times of a TCP handshake: from SYN to SYN-ACK, and from there to the ACK.

use crate::time::Timestamp;

/// Times of the handshake. What is not needed any more gives its room to what has become of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Handshake {
    /// Time of the SYN; from the SYN-ACK on, nanoseconds between them.
    pub out: Nanos,
    /// Time of the SYN-ACK; from the ACK on, nanoseconds between them.
    pub back: Nanos,
    pub bits: u8,
}

/// Nanoseconds that stand anywhere, so that a byte behind them takes no eight.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Nanos([u8; 8]);

impl Nanos {
    pub(super) const fn new(nanos: i64) -> Self {
        Self(nanos.to_le_bytes())
    }

    pub(super) const fn get(self) -> i64 {
        i64::from_le_bytes(self.0)
    }
}

/// What is known of a handshake.
pub(super) mod shake {
    pub(in super::super) const SYN: u8 = 1;
    pub(in super::super) const SYN_ACK: u8 = 2;
    /// The first way was timed.
    pub(in super::super) const OUT: u8 = 4;
    /// The second way was timed.
    pub(in super::super) const BACK: u8 = 8;
    /// A SYN or SYN-ACK came twice: which one was answered is not known (Karn's rule, RFC 6298).
    pub(in super::super) const AMBIGUOUS: u8 = 16;
    pub(in super::super) const COMPLETE: u8 = 32;
}

impl Handshake {
    pub(super) const fn is(&self, bit: u8) -> bool {
        self.bits & bit != 0
    }

    /// A SYN-ACK came.
    pub(super) fn answered(&mut self, time: Timestamp) {
        if self.is(shake::SYN_ACK) {
            self.bits |= shake::AMBIGUOUS;
        }
        self.bits |= shake::SYN_ACK;
        self.back = Nanos::new(time.as_nanos());
        if self.is(shake::SYN) && !self.is(shake::AMBIGUOUS) {
            self.out = Nanos::new(time.since(Timestamp(self.out.get())));
            self.bits |= shake::OUT;
        } else {
            self.bits &= !shake::OUT;
        }
    }

    /// The ACK of the SYN-ACK came.
    pub(super) fn completed(&mut self, time: Timestamp) {
        if !self.is(shake::AMBIGUOUS) {
            self.back = Nanos::new(time.since(Timestamp(self.back.get())));
            self.bits |= shake::BACK;
        }
        self.bits |= shake::COMPLETE;
    }
}

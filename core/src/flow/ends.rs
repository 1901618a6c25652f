//! State of one end of a TCP connection, and what of it was written down, in two bytes.

/// State of one end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EndState(u16);

impl EndState {
    /// Nothing heard.
    pub(super) const INACTIVE: Self = Self(0);
    /// Sent a SYN.
    pub(super) const SYN_SENT: Self = Self(1);
    /// Sent a SYN-ACK as originator: its SYN was not seen, or it is backscatter.
    pub(super) const SYN_ACK_SENT: Self = Self(2);
    /// Sent a RST.
    pub(super) const RESET: Self = Self(3);
    /// The handshake got as far as this end.
    pub(super) const ESTABLISHED: Self = Self(4);
    /// Heard in midstream.
    pub(super) const PARTIAL: Self = Self(5);
    /// Sent a FIN.
    pub(super) const CLOSED: Self = Self(6);

    /// Established, partial or closed.
    #[inline]
    pub(super) const fn is_live(self) -> bool {
        self.0 & end::LIVE != 0
    }
}

/// Bits of an end beside its states. Letters are written once for each end, those with a sequence number again when
/// it is another one.
pub(super) mod end {
    /// Bit of the state that live ends have.
    pub(in super::super) const LIVE: u16 = 4;
    /// The end has closed.
    pub(in super::super) const CLOSED: u16 = 0x40;
    pub(in super::super) const SYN: u16 = 0x80;
    pub(in super::super) const FIN: u16 = 0x100;
    pub(in super::super) const RST: u16 = 0x200;
    pub(in super::super) const DATA: u16 = 0x400;
    pub(in super::super) const ACK: u16 = 0x800;
    pub(in super::super) const FIN_RST: u16 = 0x1000;
    pub(in super::super) const MULTI: u16 = 0x2000;
    /// The last number sent is one past the FIN.
    pub(in super::super) const FIN_AT_LAST: u16 = 0x4000;
    /// The last number sent is that of the last RST.
    pub(in super::super) const RST_AT_LAST: u16 = 0x8000;
}

/// State in three bits, the one before in three, and the bits of [`end`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct End(u16);

impl End {
    /// Of an end that nothing was heard of.
    pub(super) const NONE: Self = Self(0);

    #[inline]
    pub(super) const fn state(self) -> EndState {
        EndState(self.0 & 7)
    }

    /// The state before.
    #[inline]
    pub(super) const fn before(self) -> EndState {
        EndState(self.0 >> 3 & 7)
    }

    /// Goes over to a state.
    #[inline]
    pub(super) const fn enter(&mut self, state: EndState) {
        if self.0 & 7 != state.0 {
            self.0 = self.0 & !0x3f | (self.0 & 7) << 3 | state.0;
        }
    }

    /// Whether one of the bits is set.
    #[inline]
    pub(super) const fn is(self, bits: u16) -> bool {
        self.0 & bits != 0
    }

    #[inline]
    pub(super) const fn set(&mut self, bits: u16) {
        self.0 |= bits;
    }

    #[inline]
    pub(super) const fn unset(&mut self, bits: u16) {
        self.0 &= !bits;
    }

    /// Established, or closed out of that: where a hole in the sequence is a hole in the stream.
    pub(super) fn is_clean(self) -> bool {
        let (state, before) = (self.state(), self.before());
        state == EndState::ESTABLISHED || state == EndState::CLOSED && before == EndState::ESTABLISHED
    }
}

/// Bits of the connection as a whole, above the first letters of its history.
pub(super) mod whole {
    use super::super::{history::Few, key::Side};

    const fn bit(at: u32) -> u64 {
        1 << (64 - Few::UNUSED + at)
    }

    /// Everything but the letters.
    pub(in super::super) const ALL: u64 = !0 << (64 - Few::UNUSED);
    /// Not begun with a SYN.
    pub(in super::super) const PARTIAL: u64 = bit(0);
    /// A segment came in fragments, so bytes seem missing that are not.
    pub(in super::super) const FRAGMENTED: u64 = bit(1);
    /// The originator sent a SYN without ACK.
    pub(in super::super) const SYN_SEEN: u64 = bit(2);
    /// A part of a stream is remembered, or the numbers of one end differ in what is above 32 bits.
    pub(in super::super) const ODD: u64 = bit(3);
    /// Handshake: a SYN.
    pub(in super::super) const SYN: u64 = bit(4);
    /// Handshake: a SYN-ACK.
    pub(in super::super) const SYN_ACK: u64 = bit(5);
    /// Handshake: the first way was timed.
    pub(in super::super) const OUT: u64 = bit(6);
    /// Handshake: the second way was timed.
    pub(in super::super) const BACK: u64 = bit(7);
    /// Handshake: a SYN or SYN-ACK came twice, so which one was answered is not known (Karn's rule, RFC 6298).
    pub(in super::super) const AMBIGUOUS: u64 = bit(8);
    /// Handshake: complete.
    pub(in super::super) const COMPLETE: u64 = bit(9);

    /// The first segment of a side was seen.
    #[inline]
    pub(in super::super) const fn heard(side: Side) -> u64 {
        if side == 0 { bit(10) } else { bit(11) }
    }

    /// The last number sent is one past that of the last RST.
    #[inline]
    pub(in super::super) const fn rst_before_last(side: Side) -> u64 {
        if side == 0 { bit(12) } else { bit(13) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_bits_leave_each_other_alone() {
        let mut one = End::default();
        one.set(end::CLOSED | end::RST_AT_LAST | end::SYN);
        for (state, before) in
            [(EndState::SYN_SENT, EndState::INACTIVE), (EndState::CLOSED, EndState::SYN_SENT)]
        {
            one.enter(state);
            one.enter(state);
            assert_eq!((one.state(), one.before()), (state, before));
        }
        one.unset(end::SYN);
        assert!(one.is(end::CLOSED) && one.is(end::RST_AT_LAST) && !one.is(end::SYN));
        let live = |state: &EndState| state.is_live();
        let states = [0, 1, 2, 3, 4, 5, 6].map(EndState);
        assert!(states[4..].iter().all(live) && !states[..4].iter().any(live));
    }
}

//! What is known of a TCP connection: the states of both ends, the history, sequence space, round trips. The
//! meaning of states and letters is Zeek's, so that `conn_state` and `history` read as analysts know them.

use super::{
    ends::{End, EndState, end, whole},
    history::{Few, Letters, cased, is_power_of_ten},
    key::Side,
    rare::{Losses, Rare},
    sequence::{Packed, Sequence, low},
};
use crate::{decode::TcpSegment, record::ConnState, time::Timestamp};

/// A TCP connection in one cache line; what only odd ones have stands apart. Ends are indexed by side of the key,
/// so a change of direction moves nothing.
///
/// Where FIN and RST stood is told by the last number sent, as it is nearly always; see [`Self::fin`] and
/// [`Self::last_rst`].
#[derive(Clone, Debug, Default)]
#[repr(align(64))]
pub(super) struct TcpState {
    pub(super) sequences: [Packed; 2],
    /// Time of the SYN, then of the SYN-ACK, then nanoseconds from that to the ACK.
    pub(super) time: Timestamp,
    /// The first letters of the history, and the bits of [`whole`].
    pub(super) notes: u64,
    pub(super) rare: Rare,
    /// Nanoseconds from SYN to SYN-ACK.
    pub(super) out: u32,
    pub(super) ends: [End; 2],
}

/// What a segment brought about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The direction was taken wrongly so far: the other side is the originator.
    pub(super) flip: bool,
    /// The connection ended with this segment.
    pub(super) ended: bool,
    /// The handshake is complete with this segment, or both sides were heard in midstream.
    pub(super) established: bool,
    /// A RST in answer to the SYN.
    pub(super) refused: bool,
}

/// One segment as the state machine takes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    /// Side that sent it.
    pub(super) side: Side,
    /// Side that is the originator.
    pub(super) originator: Side,
    /// The header.
    pub(super) header: &'a TcpSegment,
    /// Bytes of payload.
    pub(super) payload: u32,
    /// Packet time.
    pub(super) time: Timestamp,
    /// Whether it is the first of several fragments.
    pub(super) fragment: bool,
}

pub(super) const SYN: u16 = TcpSegment::SYN;
pub(super) const FIN: u16 = TcpSegment::FIN;
pub(super) const RST: u16 = TcpSegment::RST;
pub(super) const ACK: u16 = TcpSegment::ACK;
/// The flags that say what a segment is to the connection.
pub(super) const CONTROL: u16 = SYN | FIN | RST | ACK;

impl Segment<'_> {
    #[inline]
    pub(super) const fn is_from_originator(&self) -> bool {
        self.side == self.originator
    }

    /// The side that sent it, and the other.
    #[inline]
    pub(super) const fn sides(&self) -> [Side; 2] {
        [self.side & 1, !self.side & 1]
    }

    #[inline]
    pub(super) const fn syn(&self) -> bool {
        self.header.flags & SYN != 0
    }

    #[inline]
    pub(super) const fn ack(&self) -> bool {
        self.header.flags & ACK != 0
    }

    #[inline]
    pub(super) const fn fin(&self) -> bool {
        self.header.flags & FIN != 0
    }

    #[inline]
    pub(super) const fn rst(&self) -> bool {
        self.header.flags & RST != 0
    }

    #[inline]
    const fn control(&self) -> u16 {
        self.header.flags & (SYN | FIN | RST)
    }

    /// Sequence numbers it takes; data in a RST is not part of the stream (RFC 1122, 4.2.2.12).
    #[inline]
    fn length(&self) -> u32 {
        let payload = if self.rst() { 0 } else { self.payload };
        payload.wrapping_add(u32::from(self.syn())).wrapping_add(u32::from(self.fin()))
    }
}

/// What is written down.
impl TcpState {
    /// Whether one of the bits is set.
    #[inline]
    pub(super) const fn is(&self, bits: u64) -> bool {
        self.notes & bits != 0
    }

    #[inline]
    pub(super) const fn set(&mut self, bits: u64) {
        self.notes |= bits;
    }

    #[inline]
    pub(super) const fn unset(&mut self, bits: u64) {
        self.notes &= !bits;
    }

    /// Adds a letter to the history.
    #[inline]
    pub(super) fn push(&mut self, letter: u8) {
        match Few::new(self.notes & !whole::ALL).with(letter) {
            Some(few) => self.notes = self.notes & whole::ALL | few.number(),
            None => self.push_behind(letter),
        }
    }

    #[cold]
    fn push_behind(&mut self, letter: u8) {
        // The first hundred or so are kept.
        let _ = self.rare.make_both().many.get_or_insert_default().try_push(letter);
    }

    /// The letters.
    pub(super) fn history(&self) -> Letters<'_> {
        let many = self.rare.both().and_then(|rare| rare.many.as_deref());
        Letters::new(Few::new(self.notes & !whole::ALL), many.map_or(&[], |many| many))
    }

    /// Marks at the start of the history that the direction was repaired.
    pub(super) fn note_flip(&mut self) {
        self.push(b'^');
    }

    /// Reads something of it, so that it is at hand.
    #[inline]
    pub(super) const fn touch(&self) -> u64 {
        self.notes
    }

    /// Notes a segment that was rejected for its checksum.
    pub(super) fn reject(&mut self, side: Side, originator: Side) {
        let rare = self.rare.make(side);
        rare.rejected = rare.rejected.saturating_add(1);
        if is_power_of_ten(rare.rejected.into()) {
            self.push(cased(b'C', side == originator));
        }
    }
}

/// What segments do.
impl TcpState {
    /// Takes one segment: by the shortest way that will have it.
    pub(super) fn update(&mut self, segment: &Segment<'_>) -> Outcome {
        let &Segment { side, originator, payload, fragment, .. } = segment;
        let &TcpSegment { sequence, acknowledgement, flags, window, .. } = segment.header;
        if !fragment && self.pass(side, originator, sequence, acknowledgement, flags, window, payload) {
            return Outcome::default();
        }
        match self.shortly(segment) {
            Some(outcome) => outcome,
            None => self.at_length(segment),
        }
    }

    /// Takes one segment, whatever it is.
    pub(super) fn at_length(&mut self, segment: &Segment<'_>) -> Outcome {
        let mut outcome = Outcome::default();
        let [me, peer] = segment.sides();
        if segment.fragment {
            self.set(whole::FRAGMENTED);
        }
        self.note_partial(segment);
        let mut own = self.sequence(me);
        let mut other = self.sequence(peer);
        let (held, state_of_peer) = (own.last(), self.ends[peer].state());
        self.begin_sequence(segment, &mut own);
        let relative = own.relative(segment.header.sequence);
        self.write_flags(segment, relative, held);
        self.watch_window(segment);
        let acknowledged = self.acknowledge(segment, &mut other);
        self.advance(segment, &mut own);
        self.keep_ends(segment, relative, held, own.last());
        self.step(segment, &mut outcome);
        self.time_handshake(segment, state_of_peer, &mut outcome);
        if let Some(number) = acknowledged {
            let fin = self.fin(peer, other.last());
            if let Some(number) = other.lacks(number, fin, self.is(whole::PARTIAL)) {
                self.find_gaps(segment, number, &mut other);
            }
        }
        self.set(whole::heard(me));
        if segment.payload > 0 && !segment.rst() && relative >= 0 {
            let start = relative.saturating_add(segment.syn().into());
            own.deliver(start, segment.payload, &mut self.rare, me);
        }
        self.keep([me, peer], &own, &other);
        outcome
    }

    #[inline]
    fn note_partial(&mut self, segment: &Segment<'_>) {
        if segment.syn() && !segment.ack() && segment.is_from_originator() {
            self.set(whole::SYN_SEEN);
        }
        if self.is(whole::heard(segment.side)) {
            return;
        }
        let partial = if segment.is_from_originator() {
            !segment.syn() || segment.ack()
        } else {
            self.is(whole::PARTIAL) || !segment.syn()
        };
        if partial {
            self.set(whole::PARTIAL);
        } else {
            self.unset(whole::PARTIAL);
        }
    }

    /// Sets the start of sequence space: at the first segment, and at a SYN that says otherwise.
    #[inline]
    fn begin_sequence(&self, segment: &Segment<'_>, own: &mut Sequence) {
        let me = self.ends[segment.side & 1];
        let first = segment.header.sequence;
        let restarts = match me.state() {
            EndState::INACTIVE if !segment.syn() => {
                // As if a SYN had come before, so that data starts at 1 either way.
                own.begin(first.wrapping_sub(1), 1);
                false
            }
            _ if !segment.syn() => false,
            EndState::SYN_SENT | EndState::SYN_ACK_SENT => first != own.start(),
            EndState::RESET => me.before() == EndState::INACTIVE,
            EndState::CLOSED => false,
            _ => true,
        };
        if restarts {
            own.begin(first, segment.length().into());
        }
    }

    /// Writes the letter of its flags; `held` is the last number sent before it.
    #[inline]
    fn write_flags(&mut self, segment: &Segment<'_>, relative: i64, held: i64) {
        let me = segment.side & 1;
        // The low half is enough to tell whether the number is the same as before.
        let number = low(relative);
        let (bit, letter, same_as_before) = match segment.control() {
            0 if segment.payload > 0 => (end::DATA, b'D', true),
            0 if segment.ack() => (end::ACK, b'A', true),
            0 => return,
            SYN => {
                let same = self.rare.get(me).map_or(0, |rare| rare.last_syn) == number;
                if !same {
                    self.rare.make(me).last_syn = number;
                }
                (end::SYN, if segment.ack() { b'H' } else { b'S' }, same)
            }
            FIN => (end::FIN, b'F', self.last_fin(me, held) == number.wrapping_add(segment.payload)),
            RST => (end::RST, b'R', self.last_rst(me, held) == number),
            control if control & (FIN | RST) == FIN | RST => (end::FIN_RST, b'I', true),
            _ => (end::MULTI, b'Q', true),
        };
        if !self.ends[me].is(bit) || !same_as_before {
            self.ends[me].set(bit);
            self.push(cased(letter, segment.is_from_originator()));
        }
    }

    /// A window of zero says something unless it comes with or after a RST, or after the peer's FIN.
    #[inline]
    fn watch_window(&mut self, segment: &Segment<'_>) {
        if segment.header.window != 0 {
            return;
        }
        let [me, peer] = segment.sides();
        let (me, peer) = (self.ends[me].state(), self.ends[peer].state());
        if !segment.rst() && peer != EndState::CLOSED && me != EndState::RESET {
            let rare = self.rare.make(segment.side);
            rare.zero_windows = rare.zero_windows.saturating_add(1);
            rare.losses.zero_windows = rare.losses.zero_windows.saturating_add(1);
            if is_power_of_ten(rare.zero_windows.into()) {
                self.push(cased(b'W', segment.is_from_originator()));
            }
        }
    }

    /// Takes the acknowledgement; gives it relative to the peer's start.
    #[inline]
    fn acknowledge(&self, segment: &Segment<'_>, other: &mut Sequence) -> Option<i64> {
        if !segment.ack() {
            return None;
        }
        let number = segment.header.acknowledgement;
        if self.ends[!segment.side & 1].state() == EndState::INACTIVE {
            other.begin(number.wrapping_sub(1), 0);
            return Some(1);
        }
        Some(other.acknowledge(number, !segment.rst()))
    }

    /// Moves the end's last sequence number on, and notes a retransmission.
    #[inline]
    fn advance(&mut self, segment: &Segment<'_>, own: &mut Sequence) {
        let past = segment.header.sequence.wrapping_add(segment.length());
        let control = segment.syn() || segment.rst();
        let trusted = self.ends[segment.side & 1].state() != EndState::RESET;
        if own.advance(past, control, segment.fin(), trusted) && segment.payload > 0 {
            self.retransmitted(segment);
        }
    }

    #[cold]
    fn retransmitted(&mut self, segment: &Segment<'_>) {
        let rare = self.rare.make(segment.side);
        rare.losses.retransmissions = rare.losses.retransmissions.saturating_add(1);
        rare.retransmissions = rare.retransmissions.saturating_add(1);
        if is_power_of_ten(rare.retransmissions) {
            self.push(cased(b'T', segment.is_from_originator()));
        }
    }

    /// Gives up what was acknowledged and not seen before a number of the peer's stream.
    #[cold]
    fn find_gaps(&mut self, segment: &Segment<'_>, number: i64, other: &mut Sequence) {
        let [_, peer] = segment.sides();
        let clean = self.ends.iter().all(|end| end.is_clean()) && !self.is(whole::FRAGMENTED);
        if !clean && self.rare.is_none() {
            other.give_up(number);
            return;
        }
        while let Some(bytes) = other.give_up_hole(number, self.rare.make(peer)) {
            if clean {
                let rare = self.rare.make(peer);
                rare.losses.missed_bytes = rare.losses.missed_bytes.saturating_add(bytes);
                let before = u64::from(rare.gaps);
                rare.gaps = rare.gaps.saturating_add(1);
                if is_power_of_ten(before.saturating_add(1)) {
                    self.push(cased(b'G', peer == segment.originator));
                }
            }
        }
    }
}

/// Where FIN and RST stood. Nearly always the last number sent tells, and has not moved since.
impl TcpState {
    /// One past the FIN of a side whose last number sent is `last`; zero without one.
    #[inline]
    fn fin(&self, side: Side, last: i64) -> i64 {
        if self.ends[side].is(end::FIN_AT_LAST) {
            last
        } else {
            self.rare.get(side).map_or(0, |rare| rare.fin)
        }
    }

    /// Number of the last FIN, payload passed over.
    fn last_fin(&self, side: Side, last: i64) -> u32 {
        let apart = self.rare.get(side).and_then(|rare| rare.last_fin);
        apart.unwrap_or_else(|| low(self.fin(side, last)).wrapping_sub(1))
    }

    /// Number of the last RST.
    fn last_rst(&self, side: Side, last: i64) -> u32 {
        if self.ends[side].is(end::RST_AT_LAST) {
            low(last)
        } else if self.is(whole::rst_before_last(side)) {
            low(last).wrapping_sub(1)
        } else {
            self.rare.get(side).map_or(0, |rare| rare.last_rst)
        }
    }

    /// Keeps where FIN and RST stood, now that the last number sent has gone from `held` to `last`.
    #[inline]
    fn keep_ends(&mut self, segment: &Segment<'_>, relative: i64, held: i64, last: i64) {
        let me = segment.side & 1;
        let told_by_last =
            self.ends[me].is(end::FIN_AT_LAST | end::RST_AT_LAST) || self.is(whole::rst_before_last(me));
        if told_by_last && last != held {
            self.set_ends_apart(me, held);
        }
        if segment.fin() {
            self.keep_fin(segment, relative, last);
        }
        if segment.control() == RST {
            let number = low(relative);
            self.ends[me].unset(end::RST_AT_LAST);
            self.unset(whole::rst_before_last(me));
            match low(last).wrapping_sub(number) {
                0 => self.ends[me].set(end::RST_AT_LAST),
                1 => self.set(whole::rst_before_last(me)),
                _ => self.rare.make(me).last_rst = number,
            }
        }
    }

    #[cold]
    fn set_ends_apart(&mut self, side: Side, held: i64) {
        let (fin, last_rst) = (self.fin(side, held), self.last_rst(side, held));
        self.ends[side].unset(end::FIN_AT_LAST | end::RST_AT_LAST);
        self.unset(whole::rst_before_last(side));
        let rare = self.rare.make(side);
        (rare.fin, rare.last_rst) = (fin, last_rst);
    }

    fn keep_fin(&mut self, segment: &Segment<'_>, relative: i64, last: i64) {
        let me = segment.side & 1;
        let fin = relative.saturating_add(segment.length().into());
        let number = if segment.control() == FIN {
            low(relative).wrapping_add(segment.payload)
        } else {
            self.last_fin(me, last)
        };
        if fin == last && fin > 0 {
            self.ends[me].set(end::FIN_AT_LAST);
        } else {
            self.ends[me].unset(end::FIN_AT_LAST);
            self.rare.make(me).fin = Sequence::bounded(fin).max(0);
        }
        if let Some(rare) = self.rare.get_mut(me) {
            rare.last_fin = None;
        }
        if self.last_fin(me, last) != number {
            self.rare.make(me).last_fin = Some(number);
        }
    }

    /// Keeps the numbers of both ends.
    #[inline]
    fn keep(&mut self, [me, peer]: [Side; 2], own: &Sequence, other: &Sequence) {
        self.sequences[me] = own.packed();
        self.sequences[peer] = other.packed();
        if !self.rare.is_none() || own.is_long() || other.is_long() {
            self.keep_rare([(me, own), (peer, other)]);
        }
    }

    #[cold]
    fn keep_rare(&mut self, both: [(Side, &Sequence); 2]) {
        let mut odd = false;
        for (side, sequence) in both {
            let rare = self.rare.make(side);
            rare.high = sequence.high();
            odd |= !rare.parts.is_empty() || rare.high.iter().any(|one| *one != rare.high[0]);
        }
        if odd {
            self.set(whole::ODD);
        } else {
            self.unset(whole::ODD);
        }
    }
}

/// What it is asked.
impl TcpState {
    #[inline]
    fn sequence(&self, side: Side) -> Sequence {
        self.sequences[side & 1].open(self.rare.get(side))
    }

    /// The number that a side would send next, or that of its SYN; 0 where nothing is known of it.
    pub(super) fn number(&self, side: Side, of_syn: bool) -> u32 {
        let Packed { start, last, .. } = self.sequences[side & 1];
        if of_syn { start } else { start.wrapping_add(last) }
    }

    /// Whether a segment with SYN begins another connection on the same ports.
    pub(super) fn is_reuse(&self, originator: Side, header: &TcpSegment) -> bool {
        if header.flags & SYN == 0 {
            return false;
        }
        let [orig_start, resp_start] =
            [self.sequences[originator & 1].start, self.sequences[!originator & 1].start];
        let [orig, resp] = [self.ends[originator & 1], self.ends[!originator & 1]];
        let acks = header.flags & ACK != 0;
        if acks && orig.state() != EndState::INACTIVE {
            return false;
        }
        if orig.is(end::CLOSED) || resp.is(end::CLOSED) {
            return true;
        }
        let reference = if acks { resp_start } else { orig_start };
        let reversed = !acks
            && orig.state() == EndState::SYN_ACK_SENT
            && resp.state() == EndState::INACTIVE
            && header.sequence == resp_start;
        header.sequence != reference && !reversed
    }

    /// State of the connection so far, as Zeek's conn.log has it.
    pub(super) fn conn_state(&self, originator: Side) -> ConnState {
        const INACTIVE: EndState = EndState::INACTIVE;
        const RESET: EndState = EndState::RESET;
        const CLOSED: EndState = EndState::CLOSED;
        let [orig, resp] = [self.ends[originator & 1].state(), self.ends[!originator & 1].state()];
        let silent = |state: EndState| matches!(state, EndState::INACTIVE | EndState::PARTIAL);
        let both_empty = || self.size(0) == 0 && self.size(1) == 0;
        match (orig, resp) {
            (EndState::SYN_SENT | EndState::SYN_ACK_SENT, RESET) => ConnState::Rej,
            (RESET, RESET) if both_empty() => ConnState::Rej,
            (_, RESET) if silent(orig) => ConnState::Rstrh,
            (_, RESET) => ConnState::Rstr,
            (RESET, _) if silent(resp) && self.history().is_syn_then_reset() => ConnState::Rstos0,
            (RESET, _) if silent(resp) => ConnState::Oth,
            (RESET, _) => ConnState::Rsto,
            (CLOSED, CLOSED) => ConnState::SF,
            (CLOSED, _) if silent(resp) => ConnState::Sh,
            (CLOSED, _) => ConnState::S2,
            (_, CLOSED) if silent(orig) => ConnState::Shr,
            (_, CLOSED) => ConnState::S3,
            (EndState::SYN_SENT, INACTIVE) => ConnState::S0,
            (EndState::ESTABLISHED, EndState::ESTABLISHED) => ConnState::S1,
            _ => ConnState::Oth,
        }
    }

    /// Bytes sent by the sequence numbers.
    fn size(&self, side: Side) -> i64 {
        let (end, peer, sequence) = (self.ends[side], self.ends[1 - side], self.sequence(side));
        let aborted_half_open = end.before() == EndState::SYN_SENT
            && end.state() == EndState::RESET
            && peer.state() == EndState::INACTIVE
            && sequence.is_anything_acknowledged();
        if aborted_half_open { 0 } else { sequence.size(self.fin(side, sequence.last()) > 0) }
    }

    /// Whether this is an attempt that nobody has answered.
    pub(super) fn is_unanswered(&self, originator: Side) -> bool {
        let [me, peer] = [self.ends[originator & 1].state(), self.ends[!originator & 1].state()];
        matches!(me, EndState::SYN_SENT | EndState::SYN_ACK_SENT) && peer == EndState::INACTIVE
    }

    /// Whether a SYN without ACK of the originator was seen.
    pub(super) const fn syn_seen(&self) -> bool {
        self.is(whole::SYN_SEEN)
    }

    /// What a side lost in the current part.
    pub(super) fn losses(&self, side: Side) -> Losses {
        self.rare.get(side).map(|rare| rare.losses).unwrap_or_default()
    }

    /// Begins a new part: what counts by part starts again.
    pub(super) fn begin_part(&mut self) {
        self.rare.begin_part();
    }
}

//! What is known of a TCP connection: the states of both ends, the history, sequence space, round trips. The
//! meaning of states and letters is Zeek's, so that `conn_state` and `history` read as analysts know them.

use super::{
    handshake::{Handshake, Nanos, shake},
    history::{History, cased, is_power_of_ten},
    key::Side,
    rare::{Losses, Rare},
    sequence::{Missing, Sequence, low},
};
use crate::{decode::TcpSegment, record::ConnState, time::Timestamp};

/// State of one end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum EndState {
    /// Nothing heard.
    #[default]
    Inactive,
    /// Sent a SYN.
    SynSent,
    /// Sent a SYN-ACK as originator: its SYN was not seen, or it is backscatter.
    SynAckSent,
    /// Heard in midstream.
    Partial,
    /// The handshake got as far as this end.
    Established,
    /// Sent a FIN.
    Closed,
    /// Sent a RST.
    Reset,
}

/// Letters that are written once for each end, and bits for those whose sequence number was kept.
mod seen {
    pub(super) const SYN: u8 = 1;
    pub(super) const FIN: u8 = 2;
    pub(super) const RST: u8 = 4;
    pub(super) const DATA: u8 = 8;
    pub(super) const ACK: u8 = 16;
    pub(super) const FIN_RST: u8 = 32;
    pub(super) const MULTI: u8 = 64;
}

/// One end of a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct TcpEnd {
    state: EndState,
    before: EndState,
    seen: u8,
    closed: bool,
    last_fin: u32,
    last_rst: u32,
    sequence: Sequence,
}

/// A TCP connection in two cache lines; what only odd ones have stands apart. Ends are indexed by side of the key,
/// so a change of direction moves nothing.
#[derive(Clone, Debug, Default)]
#[repr(align(64))]
pub(super) struct TcpState {
    ends: [TcpEnd; 2],
    history: History,
    handshake: Handshake,
    rare: Rare,
    /// Not begun with a SYN.
    partial: bool,
    /// Sides whose first segment was seen, as bits.
    heard: u8,
    /// A segment came in fragments, so bytes seem missing that are not.
    fragmented: bool,
    syn_seen: bool,
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

/// A segment as the fast way takes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passing {
    pub(super) side: Side,
    pub(super) originator: Side,
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) flags: u16,
    pub(super) window: u16,
    pub(super) payload: u32,
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

impl Segment<'_> {
    const fn is_from_originator(&self) -> bool {
        self.side == self.originator
    }

    const fn syn(&self) -> bool {
        self.header.has(TcpSegment::SYN)
    }

    const fn ack(&self) -> bool {
        self.header.has(TcpSegment::ACK)
    }

    const fn fin(&self) -> bool {
        self.header.has(TcpSegment::FIN)
    }

    const fn rst(&self) -> bool {
        self.header.has(TcpSegment::RST)
    }

    /// Sequence numbers it takes; data in a RST is not part of the stream (RFC 1122, 4.2.2.12).
    fn length(&self) -> u32 {
        let payload = if self.rst() { 0 } else { self.payload };
        payload.wrapping_add(u32::from(self.syn())).wrapping_add(u32::from(self.fin()))
    }
}

impl TcpState {
    /// Marks at the start of the history that the direction was repaired.
    pub(super) fn note_flip(&mut self) {
        self.history.push(b'^');
    }

    /// Reads something of it, so that it is at hand.
    #[inline]
    pub(super) const fn touch(&self) -> u32 {
        self.ends[0].last_fin ^ self.heard as u32
    }

    /// TEMPORARY
    pub(super) fn pass(&mut self, p: Passing) -> bool {
        use EndState::*;
        let me = &self.ends[p.side];
        let other = &self.ends[1 - p.side];
        if p.flags & 7 != 0
            || me.state != Established
            || other.state != Established
            || !self.handshake.is(shake::COMPLETE)
            || p.window == 0
            || self.heard != 3
            || self.fragmented
        {
            return false;
        }
        let bit = if p.payload > 0 { seen::DATA } else { seen::ACK };
        if me.seen & bit == 0 || self.rare.get(0).is_some() || p.flags & 16 == 0 {
            return false;
        }
        let rel = me.sequence.relative(p.sequence);
        if rel != me.sequence.size_raw() {
            return false;
        }
        let header = TcpSegment {
            source: 0,
            destination: 0,
            sequence: p.sequence,
            acknowledgement: p.acknowledgement,
            flags: p.flags,
            window: p.window,
        };
        let before = self.clone();
        let o = self.update(&Segment {
            side: p.side,
            originator: p.originator,
            header: &header,
            payload: p.payload,
            time: Timestamp(0),
            fragment: false,
        });
        if o != Outcome::default() || self.rare.get(0).is_some() {
            *self = before;
            return false;
        }
        true
    }

    /// Notes a segment that was rejected for its checksum.
    pub(super) fn reject(&mut self, side: Side, originator: Side) {
        let rare = self.rare.make(side);
        rare.rejected = rare.rejected.saturating_add(1);
        if is_power_of_ten(rare.rejected.into()) {
            self.history.push(cased(b'C', side == originator));
        }
    }

    /// Takes one segment.
    pub(super) fn update(&mut self, segment: &Segment<'_>) -> Outcome {
        let mut outcome = Outcome::default();
        let (me, peer) = (segment.side, 1 - segment.side);
        self.fragmented |= segment.fragment;
        self.note_partial(segment);
        self.begin_sequence(segment);
        let relative = self.ends[me].sequence.relative(segment.header.sequence);
        self.write_flags(segment, relative);
        self.watch_window(segment);
        if segment.fin() {
            self.ends[me].sequence.fin(relative.saturating_add(segment.length().into()));
        }
        let acknowledged = self.acknowledge(segment);
        self.advance(segment);
        let states = self.ends.each_ref().map(|end| end.state);
        self.step(segment, &mut outcome);
        self.time_handshake(segment, states, &mut outcome);
        if let Some(acknowledged) = acknowledged {
            self.find_gaps(peer, segment.originator, acknowledged);
        }
        self.heard |= 1 << me;
        if segment.payload > 0 && !segment.rst() && relative >= 0 {
            let start = relative.saturating_add(segment.syn().into());
            self.ends[me].sequence.deliver(start, segment.payload, &mut self.rare, me);
        }
        outcome
    }

    fn note_partial(&mut self, segment: &Segment<'_>) {
        if segment.syn() && !segment.ack() && segment.is_from_originator() {
            self.syn_seen = true;
        }
        if self.heard & 1 << segment.side != 0 {
            return;
        }
        if segment.is_from_originator() {
            self.partial = !segment.syn() || segment.ack();
        } else if !self.partial {
            self.partial = !segment.syn();
        }
    }

    /// Sets the start of sequence space: at the first segment, and at a SYN that says otherwise.
    fn begin_sequence(&mut self, segment: &Segment<'_>) {
        let end = &mut self.ends[segment.side];
        let first = segment.header.sequence;
        let restarts = match end.state {
            EndState::Inactive if segment.syn() => true,
            EndState::Inactive => {
                // As if a SYN had come before, so that data starts at 1 either way.
                end.sequence.begin(first.wrapping_sub(1), 1);
                false
            }
            EndState::SynSent | EndState::SynAckSent => segment.syn() && first != end.sequence.start(),
            EndState::Established | EndState::Partial => segment.syn(),
            EndState::Reset => segment.syn() && end.before == EndState::Inactive,
            EndState::Closed => false,
        };
        if restarts {
            end.sequence.begin(first, segment.length().into());
        }
    }

    fn write_flags(&mut self, segment: &Segment<'_>, relative: i64) {
        // The low half is enough to tell whether the number is the same as before.
        let number = low(relative);
        let from_originator = segment.is_from_originator();
        let last_syn = self.rare.get(segment.side).map_or(0, |rare| rare.last_syn);
        let end = &mut self.ends[segment.side];
        let mut once = |bit: u8, letter: u8, same_as_before: bool| {
            if end.seen & bit == 0 || !same_as_before {
                end.seen |= bit;
                self.history.push(cased(letter, from_originator));
            }
        };
        match (segment.syn(), segment.fin(), segment.rst()) {
            (_, true, true) => once(seen::FIN_RST, b'I', true),
            (true, true, false) | (true, false, true) => once(seen::MULTI, b'Q', true),
            (true, false, false) => {
                once(seen::SYN, if segment.ack() { b'H' } else { b'S' }, last_syn == number);
                if last_syn != number {
                    self.rare.make(segment.side).last_syn = number;
                }
            }
            (false, true, false) => {
                let past = number.wrapping_add(segment.payload);
                once(seen::FIN, b'F', end.last_fin == past);
                end.last_fin = past;
            }
            (false, false, true) => {
                once(seen::RST, b'R', end.last_rst == number);
                end.last_rst = number;
            }
            (false, false, false) if segment.payload > 0 => once(seen::DATA, b'D', true),
            (false, false, false) if segment.ack() => once(seen::ACK, b'A', true),
            (false, false, false) => {}
        }
    }

    /// A window of zero says something unless it comes with or after a RST, or after the peer's FIN.
    fn watch_window(&mut self, segment: &Segment<'_>) {
        let peer_closed = self.ends[1 - segment.side].state == EndState::Closed;
        let end = &self.ends[segment.side];
        if segment.header.window == 0 && !segment.rst() && !peer_closed && end.state != EndState::Reset {
            let rare = self.rare.make(segment.side);
            rare.zero_windows = rare.zero_windows.saturating_add(1);
            rare.losses.zero_windows = rare.losses.zero_windows.saturating_add(1);
            if is_power_of_ten(rare.zero_windows.into()) {
                self.history.push(cased(b'W', segment.is_from_originator()));
            }
        }
    }

    /// Takes the acknowledgement; gives it relative to the peer's start.
    fn acknowledge(&mut self, segment: &Segment<'_>) -> Option<i64> {
        if !segment.ack() {
            return None;
        }
        let peer = &mut self.ends[1 - segment.side];
        let number = segment.header.acknowledgement;
        if peer.state == EndState::Inactive {
            peer.sequence.begin(number.wrapping_sub(1), 0);
            return Some(1);
        }
        Some(peer.sequence.acknowledge(number, !segment.rst()))
    }

    /// Moves the end's last sequence number on, and notes a retransmission.
    fn advance(&mut self, segment: &Segment<'_>) {
        let end = &mut self.ends[segment.side];
        let past = segment.header.sequence.wrapping_add(segment.length());
        let control = segment.syn() || segment.rst();
        let trusted = end.state != EndState::Reset;
        let again = end.sequence.advance(past, control, segment.fin(), trusted) && segment.payload > 0;
        if again {
            let rare = self.rare.make(segment.side);
            rare.losses.retransmissions = rare.losses.retransmissions.saturating_add(1);
            rare.retransmissions = rare.retransmissions.saturating_add(1);
            if is_power_of_ten(rare.retransmissions) {
                self.history.push(cased(b'T', segment.is_from_originator()));
            }
        }
    }

    fn find_gaps(&mut self, side: Side, originator: Side, acknowledged: i64) {
        let clean = self.ends.iter().all(TcpEnd::is_clean) && !self.fragmented;
        let partial = self.partial;
        let history = &mut self.history;
        let sequence = &mut self.ends[side].sequence;
        let report = |Missing { bytes, count }, losses: &mut Losses| {
            if clean {
                losses.missed_bytes = losses.missed_bytes.saturating_add(bytes);
                if is_power_of_ten(count) {
                    history.push(cased(b'G', side == originator));
                }
            }
            clean
        };
        sequence.acknowledged_up_to(acknowledged, partial, &mut self.rare, side, report);
    }

    fn time_handshake(&mut self, segment: &Segment<'_>, before: [EndState; 2], outcome: &mut Outcome) {
        let handshake = &mut self.handshake;
        let originator = if outcome.flip { 1 - segment.originator } else { segment.originator };
        if handshake.is(shake::COMPLETE) {
            return;
        }
        let from_originator = segment.side == originator;
        match (segment.syn(), segment.ack(), from_originator) {
            _ if segment.rst() => {}
            (true, false, true) => {
                if handshake.is(shake::SYN) {
                    handshake.bits |= shake::AMBIGUOUS;
                } else {
                    handshake.out = Nanos::new(segment.time.as_nanos());
                }
                handshake.bits |= shake::SYN;
            }
            (true, true, false) => handshake.answered(segment.time),
            (false, true, true) if handshake.is(shake::SYN_ACK) => {
                handshake.completed(segment.time);
                outcome.established = true;
            }
            (false, true, _) if !handshake.is(shake::SYN_ACK) => {
                // Both in midstream: the handshake was before the capture.
                let live =
                    |state| matches!(state, EndState::Partial | EndState::Established | EndState::Closed);
                if live(before[1 - segment.side]) && live(self.ends[segment.side].state) {
                    handshake.bits |= shake::COMPLETE;
                    outcome.established = true;
                }
            }
            _ => {}
        }
    }

    /// Whether a segment with SYN begins another connection on the same ports.
    pub(super) fn is_reuse(&self, originator: Side, header: &TcpSegment) -> bool {
        if !header.has(TcpSegment::SYN) {
            return false;
        }
        let (orig, resp) = (&self.ends[originator], &self.ends[1 - originator]);
        let acks = header.has(TcpSegment::ACK);
        if acks && orig.state != EndState::Inactive {
            return false;
        }
        if orig.closed || resp.closed {
            return true;
        }
        let reference = if acks { resp } else { orig };
        let reversed = !acks
            && orig.state == EndState::SynAckSent
            && resp.state == EndState::Inactive
            && header.sequence == resp.sequence.start();
        header.sequence != reference.sequence.start() && !reversed
    }

    /// State of the connection so far, as Zeek's conn.log has it.
    pub(super) fn conn_state(&self, originator: Side) -> ConnState {
        use EndState::{Closed, Established, Inactive, Partial, Reset, SynAckSent, SynSent};
        let (orig, resp) = (&self.ends[originator], &self.ends[1 - originator]);
        let silent = |end: &TcpEnd| matches!(end.state, Inactive | Partial);
        let both_empty = || orig.size(resp) == 0 && resp.size(orig) == 0;
        match (orig.state, resp.state) {
            (SynSent | SynAckSent, Reset) => ConnState::Rej,
            (Reset, Reset) if both_empty() => ConnState::Rej,
            (_, Reset) if silent(orig) => ConnState::Rstrh,
            (_, Reset) => ConnState::Rstr,
            (Reset, _) if silent(resp) && self.history.is_syn_then_reset() => ConnState::Rstos0,
            (Reset, _) if silent(resp) => ConnState::Oth,
            (Reset, _) => ConnState::Rsto,
            (Closed, Closed) => ConnState::SF,
            (Closed, _) if silent(resp) => ConnState::Sh,
            (Closed, _) => ConnState::S2,
            (_, Closed) if silent(orig) => ConnState::Shr,
            (_, Closed) => ConnState::S3,
            (SynSent, Inactive) => ConnState::S0,
            (Established, Established) => ConnState::S1,
            _ => ConnState::Oth,
        }
    }

    /// Whether this is an attempt that nobody has answered.
    pub(super) fn is_unanswered(&self, originator: Side) -> bool {
        matches!(self.ends[originator].state, EndState::SynSent | EndState::SynAckSent)
            && self.ends[1 - originator].state == EndState::Inactive
    }

    /// Whether a SYN without ACK of the originator was seen.
    pub(super) const fn syn_seen(&self) -> bool {
        self.syn_seen
    }

    /// What a side lost in the current part.
    pub(super) fn losses(&self, side: Side) -> Losses {
        self.rare.get(side).map(|rare| rare.losses).unwrap_or_default()
    }

    /// Begins a new part: what counts by part starts again.
    pub(super) fn begin_part(&mut self) {
        self.rare.begin_part();
    }

    /// The letters.
    pub(super) const fn history(&self) -> &History {
        &self.history
    }

    /// Nanoseconds from SYN to SYN-ACK, and from there to the ACK. None where a segment of the handshake came
    /// twice, or was not seen.
    pub(super) fn round_trips(&self) -> (Option<i64>, Option<i64>) {
        let Handshake { out, back, .. } = self.handshake;
        let is = |bit| self.handshake.is(bit);
        (is(shake::OUT).then_some(out.get()), is(shake::BACK).then_some(back.get()))
    }
}

impl TcpEnd {
    fn enter(&mut self, state: EndState) {
        if self.state != state {
            self.before = self.state;
            self.state = state;
        }
    }

    /// Established, or closed out of that: where a hole in the sequence is a hole in the stream.
    fn is_clean(&self) -> bool {
        self.state == EndState::Established
            || self.state == EndState::Closed && self.before == EndState::Established
    }

    /// Bytes sent by the sequence numbers.
    fn size(&self, peer: &Self) -> i64 {
        let aborted_half_open = self.before == EndState::SynSent
            && self.state == EndState::Reset
            && peer.state == EndState::Inactive
            && self.sequence.is_anything_acknowledged();
        if aborted_half_open { 0 } else { self.sequence.size() }
    }
}

/// The transitions.
impl TcpState {
    fn step(&mut self, segment: &Segment<'_>, outcome: &mut Outcome) {
        let closes = match self.ends[segment.side].state {
            EndState::Inactive => self.step_inactive(segment, outcome),
            EndState::SynSent | EndState::SynAckSent => self.step_handshake(segment),
            EndState::Established | EndState::Partial => self.step_established(segment),
            EndState::Closed => self.step_closed(segment),
            EndState::Reset => false,
        };
        if closes {
            outcome.ended = self.close(segment.side);
        }
    }

    /// Closes one side; true if that ends the connection.
    fn close(&mut self, side: Side) -> bool {
        let [me, peer] = [side, 1 - side];
        if self.ends[me].closed {
            return false;
        }
        self.ends[me].closed = true;
        self.ends[me].state == EndState::Reset
            || self.ends[peer].closed
            || self.ends[peer].state == EndState::Inactive
    }

    fn step_inactive(&mut self, segment: &Segment<'_>, outcome: &mut Outcome) -> bool {
        let (me, other) = (segment.side, 1 - segment.side);
        let from_originator = segment.is_from_originator();
        let peer = self.ends[other].state;
        let mut closes = false;
        match (segment.syn(), from_originator) {
            (true, true) => {
                let state = if segment.ack() { EndState::SynAckSent } else { EndState::SynSent };
                self.ends[me].enter(state);
            }
            (true, false) => self.answer_with_syn(segment, outcome),
            (false, _) => {}
        }
        if segment.fin() {
            self.ends[me].enter(EndState::Closed);
            closes = true;
        }
        if segment.rst() {
            self.ends[me].enter(EndState::Reset);
            outcome.refused = !from_originator && matches!(peer, EndState::SynSent | EndState::SynAckSent);
            closes = true;
        }
        if self.ends[me].state == EndState::Inactive {
            let early_ack = !from_originator && segment.payload == 0 && peer == EndState::SynSent;
            if early_ack {
                // Some stacks acknowledge a SYN before they answer it.
            } else if segment.ack() && self.ends[other].state == EndState::Established {
                // Only the SYN was missed.
                self.ends[me].enter(EndState::Established);
                self.partial = false;
            } else {
                self.ends[me].enter(EndState::Partial);
            }
        }
        closes
    }

    /// A SYN of the responder that was silent so far: SYN-ACK as a rule.
    fn answer_with_syn(&mut self, segment: &Segment<'_>, outcome: &mut Outcome) {
        let (me, other) = (segment.side, 1 - segment.side);
        let expected = segment.header.sequence == self.ends[me].sequence.start();
        if !segment.ack() && self.ends[other].state == EndState::SynAckSent && expected {
            // SYN and SYN-ACK came in the wrong order: this is the SYN that the SYN-ACK was for.
            outcome.flip = true;
            self.partial = false;
            self.syn_seen = true;
            self.history.push(b'^');
            self.ends[other].enter(EndState::Established);
        } else if self.ends[other].state == EndState::SynSent {
            self.ends[other].enter(EndState::Established);
        }
        self.ends[me].enter(EndState::Established);
    }

    fn step_handshake(&mut self, segment: &Segment<'_>) -> bool {
        let end = &mut self.ends[segment.side];
        if segment.fin() {
            end.enter(EndState::Closed);
        }
        if segment.rst() {
            end.enter(EndState::Reset);
        }
        segment.fin() || segment.rst()
    }

    fn step_established(&mut self, segment: &Segment<'_>) -> bool {
        let [me, other] = [segment.side, 1 - segment.side];
        let starts_anew = segment.syn() && !segment.ack() && self.ends[other].state == EndState::Inactive;
        if starts_anew && self.ends[me].state == EndState::Partial {
            self.ends[me].enter(EndState::SynSent);
        }
        if segment.rst() {
            self.ends[me].enter(EndState::Reset);
            return true;
        }
        if segment.fin() {
            self.ends[me].enter(EndState::Closed);
            let peer = &mut self.ends[other];
            if peer.state == EndState::Reset && peer.before == EndState::Closed {
                // FIN, then RST, from the peer: with this FIN it was an ordinary end.
                peer.enter(EndState::Closed);
            }
            return true;
        }
        false
    }

    fn step_closed(&mut self, segment: &Segment<'_>) -> bool {
        let peer_closed = self.ends[1 - segment.side].state == EndState::Closed;
        let resets = segment.rst() && !peer_closed;
        if resets {
            self.ends[segment.side].enter(EndState::Reset);
            // The side has closed before; with the RST the connection has, too.
            self.ends[segment.side].closed = false;
        }
        resets
    }
}

//! A TCP connection as the tests hold the kept one to: the rules in the plainest form, one field for each fact.

use super::stream::{Missing, RareSide, Sequence, low};
use crate::{
    decode::TcpSegment,
    flow::{
        history::{History, cased, is_power_of_ten},
        key::Side,
        rare::Losses,
        tcp::{Outcome, Segment},
    },
    record::ConnState,
    time::Timestamp,
};

/// State of one end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
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
pub(super) struct ModelEnd {
    state: State,
    before: State,
    seen: u8,
    closed: bool,
    last_fin: u32,
    last_rst: u32,
    sequence: Sequence,
}

/// A TCP connection with every field in full.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    ends: [ModelEnd; 2],
    pub(super) history: Vec<u8>,
    handshake: Handshake,
    rare: [RareSide; 2],
    /// Not begun with a SYN.
    partial: bool,
    /// Sides whose first segment was seen, as bits.
    heard: u8,
    /// A segment came in fragments, so bytes seem missing that are not.
    fragmented: bool,
    syn_seen: bool,
}

/// Sequence numbers it takes; data in a RST is not part of the stream (RFC 1122, 4.2.2.12).
fn length(segment: &Segment<'_>) -> u32 {
    let payload = if segment.rst() { 0 } else { segment.payload };
    payload.wrapping_add(u32::from(segment.syn())).wrapping_add(u32::from(segment.fin()))
}

fn write(history: &mut Vec<u8>, letter: u8) {
    if history.len() < 120 {
        history.push(letter);
    }
}

impl Model {
    fn write(&mut self, letter: u8) {
        write(&mut self.history, letter);
    }

    /// Marks at the start of the history that the direction was repaired.
    pub(super) fn note_flip(&mut self) {
        self.write(b'^');
    }

    /// Notes a segment that was rejected for its checksum.
    pub(super) fn reject(&mut self, side: Side, originator: Side) {
        let rare = &mut self.rare[side];
        rare.rejected = rare.rejected.saturating_add(1);
        if is_power_of_ten(rare.rejected.into()) {
            self.write(cased(b'C', side == originator));
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
            self.ends[me].sequence.fin(relative.saturating_add(length(segment).into()));
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
            State::Inactive if segment.syn() => true,
            State::Inactive => {
                // As if a SYN had come before, so that data starts at 1 either way.
                end.sequence.begin(first.wrapping_sub(1), 1);
                false
            }
            State::SynSent | State::SynAckSent => segment.syn() && first != end.sequence.start(),
            State::Established | State::Partial => segment.syn(),
            State::Reset => segment.syn() && end.before == State::Inactive,
            State::Closed => false,
        };
        if restarts {
            end.sequence.begin(first, length(segment).into());
        }
    }

    fn write_flags(&mut self, segment: &Segment<'_>, relative: i64) {
        // The low half is enough to tell whether the number is the same as before.
        let number = low(relative);
        let from_originator = segment.is_from_originator();
        let last_syn = self.rare[segment.side].last_syn;
        let end = &mut self.ends[segment.side];
        let mut once = |bit: u8, letter: u8, same_as_before: bool| {
            if end.seen & bit == 0 || !same_as_before {
                end.seen |= bit;
                write(&mut self.history, cased(letter, from_originator));
            }
        };
        match (segment.syn(), segment.fin(), segment.rst()) {
            (_, true, true) => once(seen::FIN_RST, b'I', true),
            (true, true, false) | (true, false, true) => once(seen::MULTI, b'Q', true),
            (true, false, false) => {
                once(seen::SYN, if segment.ack() { b'H' } else { b'S' }, last_syn == number);
                if last_syn != number {
                    self.rare[segment.side].last_syn = number;
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
        let peer_closed = self.ends[1 - segment.side].state == State::Closed;
        let end = &self.ends[segment.side];
        if segment.header.window == 0 && !segment.rst() && !peer_closed && end.state != State::Reset {
            let rare = &mut self.rare[segment.side];
            rare.zero_windows = rare.zero_windows.saturating_add(1);
            rare.losses.zero_windows = rare.losses.zero_windows.saturating_add(1);
            if is_power_of_ten(rare.zero_windows.into()) {
                self.write(cased(b'W', segment.is_from_originator()));
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
        if peer.state == State::Inactive {
            peer.sequence.begin(number.wrapping_sub(1), 0);
            return Some(1);
        }
        Some(peer.sequence.acknowledge(number, !segment.rst()))
    }

    /// Moves the end's last sequence number on, and notes a retransmission.
    fn advance(&mut self, segment: &Segment<'_>) {
        let end = &mut self.ends[segment.side];
        let past = segment.header.sequence.wrapping_add(length(segment));
        let control = segment.syn() || segment.rst();
        let trusted = end.state != State::Reset;
        let again = end.sequence.advance(past, control, segment.fin(), trusted) && segment.payload > 0;
        if again {
            let rare = &mut self.rare[segment.side];
            rare.losses.retransmissions = rare.losses.retransmissions.saturating_add(1);
            rare.retransmissions = rare.retransmissions.saturating_add(1);
            if is_power_of_ten(rare.retransmissions) {
                self.write(cased(b'T', segment.is_from_originator()));
            }
        }
    }

    fn find_gaps(&mut self, side: Side, originator: Side, acknowledged: i64) {
        let clean = self.ends.iter().all(ModelEnd::is_clean) && !self.fragmented;
        let partial = self.partial;
        let history = &mut self.history;
        let sequence = &mut self.ends[side].sequence;
        let report = |Missing { bytes, count }, losses: &mut Losses| {
            if clean {
                losses.missed_bytes = losses.missed_bytes.saturating_add(bytes);
                if is_power_of_ten(count) {
                    write(history, cased(b'G', side == originator));
                }
            }
            clean
        };
        sequence.acknowledged_up_to(acknowledged, partial, &mut self.rare, side, report);
    }

    fn time_handshake(&mut self, segment: &Segment<'_>, before: [State; 2], outcome: &mut Outcome) {
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
                    handshake.out = segment.time.as_nanos();
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
                let live = |state| matches!(state, State::Partial | State::Established | State::Closed);
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
        if acks && orig.state != State::Inactive {
            return false;
        }
        if orig.closed || resp.closed {
            return true;
        }
        let reference = if acks { resp } else { orig };
        let reversed = !acks
            && orig.state == State::SynAckSent
            && resp.state == State::Inactive
            && header.sequence == resp.sequence.start();
        header.sequence != reference.sequence.start() && !reversed
    }

    /// State of the connection so far, as Zeek's conn.log has it.
    pub(super) fn conn_state(&self, originator: Side) -> ConnState {
        use State::{Closed, Established, Inactive, Partial, Reset, SynAckSent, SynSent};
        let (orig, resp) = (&self.ends[originator], &self.ends[1 - originator]);
        let silent = |end: &ModelEnd| matches!(end.state, Inactive | Partial);
        let both_empty = || orig.size(resp) == 0 && resp.size(orig) == 0;
        match (orig.state, resp.state) {
            (SynSent | SynAckSent, Reset) => ConnState::Rej,
            (Reset, Reset) if both_empty() => ConnState::Rej,
            (_, Reset) if silent(orig) => ConnState::Rstrh,
            (_, Reset) => ConnState::Rstr,
            (Reset, _)
                if silent(resp)
                    && self.history.iter().copied().collect::<History>().letters().is_syn_then_reset() =>
            {
                ConnState::Rstos0
            }
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
        matches!(self.ends[originator].state, State::SynSent | State::SynAckSent)
            && self.ends[1 - originator].state == State::Inactive
    }

    /// Whether a SYN without ACK of the originator was seen.
    pub(super) const fn syn_seen(&self) -> bool {
        self.syn_seen
    }

    /// What a side lost in the current part.
    pub(super) fn losses(&self, side: Side) -> Losses {
        self.rare[side].losses
    }

    /// Begins a new part: what counts by part starts again.
    pub(super) fn begin_part(&mut self) {
        self.rare.iter_mut().for_each(|rare| rare.losses = Losses::default());
    }

    /// Nanoseconds from SYN to SYN-ACK, and from there to the ACK. None where a segment of the handshake came
    /// twice, or was not seen.
    pub(super) fn round_trips(&self) -> (Option<i64>, Option<i64>) {
        let Handshake { out, back, .. } = self.handshake;
        let is = |bit| self.handshake.is(bit);
        (is(shake::OUT).then_some(out), is(shake::BACK).then_some(back))
    }
}

impl ModelEnd {
    fn enter(&mut self, state: State) {
        if self.state != state {
            self.before = self.state;
            self.state = state;
        }
    }

    /// Established, or closed out of that: where a hole in the sequence is a hole in the stream.
    fn is_clean(&self) -> bool {
        self.state == State::Established || self.state == State::Closed && self.before == State::Established
    }

    /// Bytes sent by the sequence numbers.
    fn size(&self, peer: &Self) -> i64 {
        let aborted_half_open = self.before == State::SynSent
            && self.state == State::Reset
            && peer.state == State::Inactive
            && self.sequence.is_anything_acknowledged();
        if aborted_half_open { 0 } else { self.sequence.size() }
    }
}

/// The transitions.
impl Model {
    fn step(&mut self, segment: &Segment<'_>, outcome: &mut Outcome) {
        let closes = match self.ends[segment.side].state {
            State::Inactive => self.step_inactive(segment, outcome),
            State::SynSent | State::SynAckSent => self.step_handshake(segment),
            State::Established | State::Partial => self.step_established(segment),
            State::Closed => self.step_closed(segment),
            State::Reset => false,
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
        self.ends[me].state == State::Reset
            || self.ends[peer].closed
            || self.ends[peer].state == State::Inactive
    }

    fn step_inactive(&mut self, segment: &Segment<'_>, outcome: &mut Outcome) -> bool {
        let (me, other) = (segment.side, 1 - segment.side);
        let from_originator = segment.is_from_originator();
        let peer = self.ends[other].state;
        let mut closes = false;
        match (segment.syn(), from_originator) {
            (true, true) => {
                let state = if segment.ack() { State::SynAckSent } else { State::SynSent };
                self.ends[me].enter(state);
            }
            (true, false) => self.answer_with_syn(segment, outcome),
            (false, _) => {}
        }
        if segment.fin() {
            self.ends[me].enter(State::Closed);
            closes = true;
        }
        if segment.rst() {
            self.ends[me].enter(State::Reset);
            outcome.refused = !from_originator && matches!(peer, State::SynSent | State::SynAckSent);
            closes = true;
        }
        if self.ends[me].state == State::Inactive {
            let early_ack = !from_originator && segment.payload == 0 && peer == State::SynSent;
            if early_ack {
                // Some stacks acknowledge a SYN before they answer it.
            } else if segment.ack() && self.ends[other].state == State::Established {
                // Only the SYN was missed.
                self.ends[me].enter(State::Established);
                self.partial = false;
            } else {
                self.ends[me].enter(State::Partial);
            }
        }
        closes
    }

    /// A SYN of the responder that was silent so far: SYN-ACK as a rule.
    fn answer_with_syn(&mut self, segment: &Segment<'_>, outcome: &mut Outcome) {
        let (me, other) = (segment.side, 1 - segment.side);
        let expected = segment.header.sequence == self.ends[me].sequence.start();
        if !segment.ack() && self.ends[other].state == State::SynAckSent && expected {
            // SYN and SYN-ACK came in the wrong order: this is the SYN that the SYN-ACK was for.
            outcome.flip = true;
            self.partial = false;
            self.syn_seen = true;
            self.write(b'^');
            self.ends[other].enter(State::Established);
        } else if self.ends[other].state == State::SynSent {
            self.ends[other].enter(State::Established);
        }
        self.ends[me].enter(State::Established);
    }

    fn step_handshake(&mut self, segment: &Segment<'_>) -> bool {
        let end = &mut self.ends[segment.side];
        if segment.fin() {
            end.enter(State::Closed);
        }
        if segment.rst() {
            end.enter(State::Reset);
        }
        segment.fin() || segment.rst()
    }

    fn step_established(&mut self, segment: &Segment<'_>) -> bool {
        let [me, other] = [segment.side, 1 - segment.side];
        let starts_anew = segment.syn() && !segment.ack() && self.ends[other].state == State::Inactive;
        if starts_anew && self.ends[me].state == State::Partial {
            self.ends[me].enter(State::SynSent);
        }
        if segment.rst() {
            self.ends[me].enter(State::Reset);
            return true;
        }
        if segment.fin() {
            self.ends[me].enter(State::Closed);
            let peer = &mut self.ends[other];
            if peer.state == State::Reset && peer.before == State::Closed {
                // FIN, then RST, from the peer: with this FIN it was an ordinary end.
                peer.enter(State::Closed);
            }
            return true;
        }
        false
    }

    fn step_closed(&mut self, segment: &Segment<'_>) -> bool {
        let peer_closed = self.ends[1 - segment.side].state == State::Closed;
        let resets = segment.rst() && !peer_closed;
        if resets {
            self.ends[segment.side].enter(State::Reset);
            // The side has closed before; with the RST the connection has, too.
            self.ends[segment.side].closed = false;
        }
        resets
    }
}

/// Times of the handshake. What is not needed any more gives its room to what has become of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Handshake {
    /// Time of the SYN; from the SYN-ACK on, nanoseconds between them.
    out: i64,
    /// Time of the SYN-ACK; from the ACK on, nanoseconds between them.
    back: i64,
    bits: u8,
}

/// What is known of a handshake.
mod shake {
    pub(super) const SYN: u8 = 1;
    pub(super) const SYN_ACK: u8 = 2;
    /// The first way was timed.
    pub(super) const OUT: u8 = 4;
    /// The second way was timed.
    pub(super) const BACK: u8 = 8;
    /// A SYN or SYN-ACK came twice: which one was answered is not known (Karn's rule, RFC 6298).
    pub(super) const AMBIGUOUS: u8 = 16;
    pub(super) const COMPLETE: u8 = 32;
}

impl Handshake {
    const fn is(&self, bit: u8) -> bool {
        self.bits & bit != 0
    }

    /// A SYN-ACK came.
    fn answered(&mut self, time: Timestamp) {
        if self.is(shake::SYN_ACK) {
            self.bits |= shake::AMBIGUOUS;
        }
        self.bits |= shake::SYN_ACK;
        self.back = time.as_nanos();
        if self.is(shake::SYN) && !self.is(shake::AMBIGUOUS) {
            self.out = time.since(Timestamp(self.out));
            self.bits |= shake::OUT;
        } else {
            self.bits &= !shake::OUT;
        }
    }

    /// The ACK of the SYN-ACK came.
    fn completed(&mut self, time: Timestamp) {
        if !self.is(shake::AMBIGUOUS) {
            self.back = time.since(Timestamp(self.back));
            self.bits |= shake::BACK;
        }
        self.bits |= shake::COMPLETE;
    }
}

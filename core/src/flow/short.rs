//! The short ways of a TCP connection: what nearly all its segments are, from SYN to FIN, each done by itself. They do
//! what `TcpState::at_length` does, or change nothing; tests hold them to that.

use super::{
    ends::{End, EndState, end, whole},
    history::{Few, cased},
    key::Side,
    sequence::Packed,
    tcp::{ACK, CONTROL, FIN, Outcome, SYN, Segment, TcpState},
};
use crate::{decode::TcpSegment, time::Timestamp};

const SYN_ACK: u16 = SYN | ACK;
const FIN_ACK: u16 = FIN | ACK;

impl TcpState {
    /// After the SYN of a side that is the originator, with nothing else in it.
    pub(super) fn of_syn(side: Side, header: &TcpSegment, time: Timestamp) -> Self {
        let mut state = Self::default();
        if header.flags & CONTROL != SYN || header.window == 0 {
            let segment = Segment { side, originator: side, header, payload: 0, time, fragment: false };
            state.at_length(&segment);
            return state;
        }
        state.sequences[side & 1] = begun(header.sequence);
        state.time = time;
        state.ends[side & 1] = syn_sent();
        state.notes = after_syn(side);
        state
    }

    /// Takes one segment if it is what nearly all are: data in order or an acknowledgement, of a connection whose
    /// ends are both up, so that no more than numbers and a first letter come of it. It does what [`Self::update`]
    /// does, and gives true; or changes nothing, and gives false. First fragments are not for it.
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "the facts of a header, each in a register")]
    pub(super) fn pass(
        &mut self,
        side: Side,
        originator: Side,
        sequence: u32,
        acknowledgement: u32,
        flags: u16,
        window: u16,
        payload: u32,
    ) -> bool {
        let sides = [side & 1, !side & 1];
        let plain = flags & CONTROL == ACK && window != 0;
        let passed = plain
            && self.is_up(sides, whole::COMPLETE)
            && self.move_on(sides, sequence, acknowledgement, payload, false);
        if passed {
            self.first_letter(side, originator, payload);
        }
        passed
    }

    /// The segments that are more than that and still ordinary: SYN-ACK, the ACK of it, FIN in order.
    #[inline]
    pub(super) fn shortly(&mut self, segment: &Segment<'_>) -> Option<Outcome> {
        if segment.fragment || segment.header.window == 0 {
            return None;
        }
        match segment.header.flags & CONTROL {
            ACK => self.complete(segment),
            SYN_ACK => self.answer(segment),
            FIN_ACK => self.finish(segment),
            _ => None,
        }
    }

    /// Both ends up, nothing odd, and the handshake as far as is said.
    #[inline]
    fn is_up(&self, [me, peer]: [Side; 2], handshake: u64) -> bool {
        self.notes & (whole::COMPLETE | whole::ODD | handshake) == handshake
            && self.ends[me].is(end::LIVE)
            && self.ends[peer].is(end::LIVE)
    }

    /// Moves the numbers of both ends on for a segment in order, or changes nothing and gives false. The numbers of
    /// an end are the same above 32 bits, or the connection were odd.
    #[inline]
    fn move_on(
        &mut self,
        [me, peer]: [Side; 2],
        sequence: u32,
        acknowledgement: u32,
        payload: u32,
        fin: bool,
    ) -> bool {
        let other = &self.sequences[peer];
        let number = acknowledgement.wrapping_sub(other.start);
        let ahead = number.wrapping_sub(other.acknowledged).cast_signed().max(0).cast_unsigned();
        let Some(acknowledged) = other.acknowledged.checked_add(ahead) else { return false };
        if acknowledged > other.delivered {
            let all_but_fin =
                self.ends[peer].is(end::FIN_AT_LAST) && other.last.saturating_sub(1) <= other.delivered;
            if !all_but_fin {
                return false;
            }
        }
        if acknowledgement == 0 {
            return false;
        }
        let own = &mut self.sequences[me];
        let from = sequence.wrapping_sub(own.start);
        if payload > 0 || fin {
            let in_order = from == own.last
                && (payload == 0 || from == own.delivered && own.acknowledged <= from)
                && payload < i32::MAX.cast_unsigned();
            let Some(to) = from.checked_add(payload) else { return false };
            let Some(last) = to.checked_add(fin.into()) else { return false };
            // After FIN or RST, the last number sent tells where they stood.
            if !in_order || self.ends[me].is(end::CLOSED) {
                return false;
            }
            own.last = last;
            if payload > 0 {
                own.delivered = to;
            }
        } else if from.wrapping_sub(own.last).cast_signed() > 0 {
            return false;
        }
        self.sequences[peer].acknowledged = acknowledged;
        true
    }

    /// Writes the letter of data or an acknowledgement, if it is the first.
    #[inline]
    fn first_letter(&mut self, side: Side, originator: Side, payload: u32) {
        let (bit, letter) = if payload > 0 { (end::DATA, b'D') } else { (end::ACK, b'A') };
        if !self.ends[side & 1].is(bit) {
            self.ends[side & 1].set(bit);
            self.push(cased(letter, side == originator));
        }
    }

    /// A SYN-ACK after a SYN and nothing else.
    fn answer(&mut self, segment: &Segment<'_>) -> Option<Outcome> {
        let [me, peer] = segment.sides();
        let other = &mut self.sequences[peer];
        let as_expected = !segment.is_from_originator()
            && self.notes == after_syn(peer)
            && self.rare.is_none()
            && self.ends[peer] == syn_sent()
            && self.ends[me] == End::default()
            && segment.payload == 0
            && (other.last, other.acknowledged, other.delivered) == (1, 0, 1)
            && segment.header.acknowledgement == other.start.wrapping_add(1);
        if !as_expected {
            return None;
        }
        other.acknowledged = 1;
        self.sequences[me] = begun(segment.header.sequence);
        self.ends[me].set(end::SYN);
        self.ends[me].enter(EndState::ESTABLISHED);
        self.ends[peer].enter(EndState::ESTABLISHED);
        self.push(b'h');
        self.answered(segment.time);
        self.set(whole::heard(me));
        Some(Outcome::default())
    }

    /// What completes the handshake, if it is in order.
    fn complete(&mut self, segment: &Segment<'_>) -> Option<Outcome> {
        let (sides, header) = (segment.sides(), segment.header);
        let completes = segment.is_from_originator()
            && self.is_up(sides, whole::SYN_ACK)
            && self.move_on(sides, header.sequence, header.acknowledgement, segment.payload, false);
        if !completes {
            return None;
        }
        self.first_letter(segment.side, segment.originator, segment.payload);
        self.completed(segment.time);
        Some(Outcome { established: true, ..Outcome::default() })
    }

    /// The first FIN of an end, in order.
    fn finish(&mut self, segment: &Segment<'_>) -> Option<Outcome> {
        let (sides, header) = (segment.sides(), segment.header);
        let [me, peer] = sides;
        let finishes = self.is_up(sides, whole::COMPLETE)
            && !self.ends[me].is(end::FIN)
            && self.move_on(sides, header.sequence, header.acknowledgement, segment.payload, true);
        if !finishes {
            return None;
        }
        self.push(cased(b'F', segment.is_from_originator()));
        self.ends[me].set(end::FIN | end::FIN_AT_LAST | end::CLOSED);
        self.ends[me].enter(EndState::CLOSED);
        Some(Outcome { ended: self.ends[peer].is(end::CLOSED), ..Outcome::default() })
    }
}

/// The numbers of an end that has sent a SYN.
const fn begun(start: u32) -> Packed {
    Packed { start, last: 1, acknowledged: 0, delivered: 1 }
}

/// The end that has sent a SYN as originator.
const fn syn_sent() -> End {
    let mut end = End::NONE;
    end.enter(EndState::SYN_SENT);
    end.set(end::SYN);
    end
}

/// What is noted once the originator has sent a SYN.
#[inline]
const fn after_syn(side: Side) -> u64 {
    let letters = match Few::new(0).with(b'S') {
        Some(few) => few.number(),
        None => 0,
    };
    letters | whole::SYN_SEEN | whole::SYN | whole::heard(side & 1)
}

//! The transitions of a TCP connection's ends.

use super::{
    ends::{EndState, end, whole},
    key::Side,
    tcp::{Outcome, Segment, TcpState},
};

impl TcpState {
    #[inline]
    pub(super) fn step(&mut self, segment: &Segment<'_>, outcome: &mut Outcome) {
        let closes = match self.ends[segment.side & 1].state() {
            EndState::INACTIVE => self.step_inactive(segment, outcome),
            // Nothing else moves any other state.
            _ if !segment.syn() && !segment.fin() && !segment.rst() => false,
            EndState::SYN_SENT | EndState::SYN_ACK_SENT => self.step_handshake(segment),
            EndState::ESTABLISHED | EndState::PARTIAL => self.step_established(segment),
            EndState::CLOSED => self.step_closed(segment),
            _ => false,
        };
        if closes {
            outcome.ended = self.close(segment.side & 1);
        }
    }

    /// Closes one side; true if that ends the connection.
    fn close(&mut self, side: Side) -> bool {
        let peer = self.ends[1 - side];
        let me = &mut self.ends[side];
        if me.is(end::CLOSED) {
            return false;
        }
        me.set(end::CLOSED);
        me.state() == EndState::RESET || peer.is(end::CLOSED) || peer.state() == EndState::INACTIVE
    }

    fn step_inactive(&mut self, segment: &Segment<'_>, outcome: &mut Outcome) -> bool {
        let [me, other] = segment.sides();
        let from_originator = segment.is_from_originator();
        let peer = self.ends[other].state();
        let mut closes = false;
        match (segment.syn(), from_originator) {
            (true, true) => {
                let state = if segment.ack() { EndState::SYN_ACK_SENT } else { EndState::SYN_SENT };
                self.ends[me].enter(state);
            }
            (true, false) => self.answer_with_syn(segment, outcome),
            (false, _) => {}
        }
        if segment.fin() {
            self.ends[me].enter(EndState::CLOSED);
            closes = true;
        }
        if segment.rst() {
            self.ends[me].enter(EndState::RESET);
            outcome.refused = !from_originator && matches!(peer, EndState::SYN_SENT | EndState::SYN_ACK_SENT);
            closes = true;
        }
        if self.ends[me].state() == EndState::INACTIVE {
            let early_ack = !from_originator && segment.payload == 0 && peer == EndState::SYN_SENT;
            if early_ack {
                // Some stacks acknowledge a SYN before they answer it.
            } else if segment.ack() && self.ends[other].state() == EndState::ESTABLISHED {
                // Only the SYN was missed.
                self.ends[me].enter(EndState::ESTABLISHED);
                self.unset(whole::PARTIAL);
            } else {
                self.ends[me].enter(EndState::PARTIAL);
            }
        }
        closes
    }

    /// A SYN of the responder that was silent so far: SYN-ACK as a rule.
    fn answer_with_syn(&mut self, segment: &Segment<'_>, outcome: &mut Outcome) {
        let [me, other] = segment.sides();
        if !segment.ack() && self.ends[other].state() == EndState::SYN_ACK_SENT {
            // SYN and SYN-ACK came in the wrong order: this is the SYN that the SYN-ACK was for.
            outcome.flip = true;
            self.unset(whole::PARTIAL);
            self.set(whole::SYN_SEEN);
            self.push(b'^');
            self.ends[other].enter(EndState::ESTABLISHED);
        } else if self.ends[other].state() == EndState::SYN_SENT {
            self.ends[other].enter(EndState::ESTABLISHED);
        }
        self.ends[me].enter(EndState::ESTABLISHED);
    }

    fn step_handshake(&mut self, segment: &Segment<'_>) -> bool {
        let me = &mut self.ends[segment.side & 1];
        if segment.fin() {
            me.enter(EndState::CLOSED);
        }
        if segment.rst() {
            me.enter(EndState::RESET);
        }
        segment.fin() || segment.rst()
    }

    fn step_established(&mut self, segment: &Segment<'_>) -> bool {
        let [me, other] = segment.sides();
        let starts_anew = segment.syn() && !segment.ack() && self.ends[other].state() == EndState::INACTIVE;
        if starts_anew && self.ends[me].state() == EndState::PARTIAL {
            self.ends[me].enter(EndState::SYN_SENT);
        }
        if segment.rst() {
            self.ends[me].enter(EndState::RESET);
            return true;
        }
        if segment.fin() {
            self.ends[me].enter(EndState::CLOSED);
            let peer = &mut self.ends[other];
            if peer.state() == EndState::RESET && peer.before() == EndState::CLOSED {
                // FIN, then RST, from the peer: with this FIN it was an ordinary end.
                peer.enter(EndState::CLOSED);
            }
            return true;
        }
        false
    }

    fn step_closed(&mut self, segment: &Segment<'_>) -> bool {
        let [me, other] = segment.sides();
        let resets = segment.rst() && self.ends[other].state() != EndState::CLOSED;
        if resets {
            self.ends[me].enter(EndState::RESET);
            // The side has closed before; with the RST the connection has, too.
            self.ends[me].unset(end::CLOSED);
        }
        resets
    }
}

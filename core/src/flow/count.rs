//! What a packet does to its flow: counts, TCP state, MAC addresses, and what is told of it.

use super::{
    compact::{Waiting, flag},
    event::FlowEvent,
    history::{History, cased},
    host::FlowHost,
    key::Side,
    live::{NO_ENTRY, Origin, Tally},
    table::{FlowTable, TcpPart},
    tcp::{Outcome, Segment, TcpState},
};
use crate::{record::DirectionReason, time::Timestamp};

impl FlowTable {
    /// Counts a tally to a flow, runs its state, and tells what came of it.
    pub(super) fn count<H: FlowHost>(
        &mut self,
        entry: u32,
        side: Side,
        origin: &Origin<'_>,
        tally: &Tally,
        tcp: Option<TcpPart<'_>>,
        host: &mut H,
    ) {
        let at = entry as usize;
        let flow = &self.flows[at];
        let is_new = flow.is_new();
        let first_of_side = !flow.sides[side].heard();
        let originator = flow.originator();
        if flow.sides[side].mac() != tally.mac {
            self.change_mac(at, side, origin, tally, host);
        }
        let flow = &mut self.flows[at];
        self.extensions.count(flow, side, tally);
        flow.seen = self.clock;
        flow.set(flag::REFERENCED, true);
        if tally.estimated {
            flow.set(flag::ESTIMATED, true);
        }
        if first_of_side && let Some(history) = self.history_of(at) {
            history.push(cased(b'D', side == originator));
        }
        let outcome = tcp.map(|tcp| self.track(at, side, &tcp, tally.first)).unwrap_or_default();
        if first_of_side {
            self.first_of_side(entry, side, origin, is_new, host);
        }
        if is_new {
            self.start_waiting(entry);
            self.tell(at, FlowEvent::Started, Some((side, origin)), host);
        }
        if first_of_side || outcome != Outcome::default() || self.flows[at].waiting() == Waiting::Answer {
            self.react(entry, &outcome, first_of_side && !is_new, (side, origin), host);
        }
    }

    /// The letters of a flow that is not TCP and had packets rejected.
    fn history_of(&mut self, at: usize) -> Option<&mut History> {
        self.extensions.of_mut(&self.flows[at])?.flawed.as_mut()?.history.as_mut()
    }

    /// Runs the TCP state machine.
    fn track(&mut self, at: usize, side: Side, tcp: &TcpPart<'_>, time: Timestamp) -> Outcome {
        let flow = &mut self.flows[at];
        if flow.tcp == NO_ENTRY {
            // The first packets were cut before the flags.
            flow.tcp = self.tcp.insert(TcpState::default());
        }
        let Some(state) = self.tcp.get_mut(flow.tcp) else { return Outcome::default() };
        let outcome = state.update(&Segment {
            side,
            originator: flow.originator(),
            header: tcp.header,
            payload: tcp.payload,
            time,
            fragment: tcp.fragment,
        });
        if outcome.flip {
            // Counters, places and states are kept by side of the key, so this moves all of them.
            flow.set_originator(1 - flow.originator());
            flow.set_reason(DirectionReason::Repaired);
        }
        outcome
    }

    fn change_mac<H: FlowHost>(
        &mut self,
        at: usize,
        side: Side,
        origin: &Origin<'_>,
        tally: &Tally,
        host: &mut H,
    ) {
        /// Moves told of one side in one part: routers that share the load would else make one of each packet.
        const MOVES: u8 = 16;
        let flow = &self.flows[at];
        if flow.sides[side].heard() {
            let moves = self.extensions.of(flow).map_or(0, |more| more.moves);
            if tally.mac.is_none() || moves >= MOVES {
                return;
            }
            self.tell(at, FlowEvent::Moved, Some((side, origin)), host);
            let flow = &mut self.flows[at];
            let before = flow.sides[side].mac();
            let packets = [0, 1].map(|side| self.extensions.totals(flow, side).packets);
            self.extensions.change(flow, |more| {
                more.moves += 1;
                more.first_mac[side].get_or_insert(before);
                more.moved_packets = packets;
            });
        }
        self.flows[at].sides[side].set_mac(tally.mac);
    }

    /// Looks up what a side is to the plan by its own first packet.
    fn first_of_side<H: FlowHost>(
        &mut self,
        entry: u32,
        side: Side,
        origin: &Origin<'_>,
        is_new: bool,
        host: &mut H,
    ) {
        if is_new {
            return;
        }
        let at = entry as usize;
        let flow = &self.flows[at];
        let ip = self.addresses.unpack(flow.key).end(side).0;
        let place = host.side_place(origin, &ip, origin.link.source_mac);
        let path = self.path(flow);
        if path.places[side] != place {
            let mut path = path.clone();
            path.places[side] = place;
            self.set_path(at, path);
        }
        self.flows[at].set(flag::ANSWERED, true);
    }

    /// Sets the timer of a new flow.
    pub(super) fn start_waiting(&mut self, entry: u32) {
        let flow = &mut self.flows[entry as usize];
        let originator = flow.originator();
        if self.tcp.get(flow.tcp).is_some_and(|state| state.is_unanswered(originator)) {
            flow.set_waiting(Waiting::Answer);
            flow.wait_until = self.clock.plus(self.timeouts.attempt);
        }
        self.arm(entry);
    }

    /// Tells what a packet brought about beside counts, and sets queue and timer accordingly.
    fn react<H: FlowHost>(
        &mut self,
        entry: u32,
        outcome: &Outcome,
        answers: bool,
        packet: (Side, &Origin<'_>),
        host: &mut H,
    ) {
        let at = entry as usize;
        let flow = &mut self.flows[at];
        let originator = flow.originator();
        let tcp = self.tcp.get(flow.tcp);
        let unanswered = tcp.map_or(!flow.is(flag::ANSWERED), |state| state.is_unanswered(originator));
        if !unanswered {
            if flow.waiting() == Waiting::Answer {
                flow.set_waiting(Waiting::No);
                flow.wait_until = Timestamp(i64::MAX);
            }
            self.line.remove(entry);
        }
        if outcome.ended {
            let flow = &mut self.flows[at];
            flow.set_waiting(Waiting::Late);
            flow.wait_until = self.clock.plus(self.timeouts.closing);
            self.arm(entry);
        }
        if answers {
            self.tell(at, FlowEvent::Answered, Some(packet), host);
        }
        if outcome.refused {
            self.tell(at, FlowEvent::Refused, Some(packet), host);
        }
        if outcome.established && !self.flows[at].is(flag::ESTABLISHED) {
            self.flows[at].set(flag::ESTABLISHED, true);
            self.tell(at, FlowEvent::Established, Some(packet), host);
        }
    }
}

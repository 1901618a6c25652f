//! How attempts live in the table: a SYN makes one, a second packet makes a flow of it, silence ends it, and when
//! there are too many the oldest is added to an aggregate.

use super::{
    aggregate::Collapsed,
    attempt::Attempt,
    compact::{Flow, Waiting, flag},
    event::{FlowEvent, Party},
    host::FlowHost,
    identity::FlowIdentity,
    key::{FlowKey, Side},
    live::{Origin, Tally},
    path::{NOWHERE, Path},
    report::View,
    table::{ATTEMPT, FlowAddress, FlowTable},
    tcp::TcpState,
    wheel::tick_of,
};
use crate::{
    decode::Plain,
    record::{ConnState, DirectionReason, EndReason},
    time::Timestamp,
};

impl FlowTable {
    /// Begins an attempt; none where it needs a flow.
    pub(super) fn begin_attempt<H: FlowHost>(
        &mut self,
        address: FlowAddress,
        attempt: Attempt,
        origin: &Origin<'_>,
        host: &mut H,
    ) -> Option<u32> {
        let is_next = attempt.time == self.clock && attempt.time > self.gone_until;
        if !is_next || !self.timeouts.attempts_apart {
            return None;
        }
        let FlowAddress { key, side, hash } = address;
        if self.attempts.is_full()
            && let Some((oldest, _)) = self.attempts.first()
        {
            self.collapse(oldest, host);
        }
        // A way that there is no room for is carried by a flow.
        let number = self.way_of(&key, side, origin, host).ok()?;
        let attempt = attempt.at(self.addresses.pack(&key), side, number, hash);
        let slot = self.attempts.push(attempt);
        self.index.insert(hash, slot | ATTEMPT);
        let path = self.paths.get(number).unwrap_or(&NOWHERE);
        let raised_by = Some((side, origin));
        tell_attempt(FlowEvent::Started, &attempt, &key, path, self.clock, raised_by, host);
        Some(slot)
    }

    /// Begins an attempt by a plain packet whose flow is not in the table, if it is nothing but a SYN.
    pub(super) fn attempt<H: FlowHost>(
        &mut self,
        packet: &Plain,
        address: &FlowAddress,
        origin: &Origin<'_>,
        host: &mut H,
    ) -> bool {
        let Some(attempt) = Attempt::of_plain(packet) else { return false };
        self.begin_attempt(*address, attempt, origin, host).is_some()
    }

    /// Touches what making room for so many attempts will read.
    pub(crate) fn touch_oldest(&self, count: usize) {
        if !self.attempts.is_full() {
            return;
        }
        let mut touched = 0;
        let mut next = self.attempts.first();
        for _ in 0..count {
            let Some((_, attempt)) = next else { break };
            touched ^= self.index.first(attempt.hash);
            next = self.attempts.after(attempt);
        }
        std::hint::black_box(touched);
    }

    /// Makes a flow of an attempt for another packet; none if it had ended by then.
    pub(super) fn resume<H: FlowHost>(&mut self, slot: u32, host: &mut H) -> Option<u32> {
        if self.is_over(slot) {
            self.end_attempt(slot, EndReason::Idle, host);
            return None;
        }
        if self.is_full() {
            self.make_room(host);
        }
        Some(self.promote(slot))
    }

    /// Makes a flow of an attempt, as if it had been one from its SYN on.
    pub(super) fn promote(&mut self, slot: u32) -> u32 {
        let attempt = *self.attempts.get(slot);
        let entry = self.free_entry();
        let key = self.addresses.unpack(attempt.key);
        let (mut flow, state) = self.begun(&attempt, &key);
        flow.tcp = self.tcp.insert(state);
        self.put(entry, flow);
        self.index.replace(attempt.hash, slot | ATTEMPT, entry);
        self.attempts.remove(slot);
        self.line.push(entry);
        self.arm(entry);
        entry
    }

    /// The flow that an attempt is, and its TCP state.
    fn begun(&self, attempt: &Attempt, key: &FlowKey) -> (Flow, TcpState) {
        let (side, tally) = (attempt.side(), attempt.tally());
        let mut flow = Flow {
            key: attempt.key,
            created: attempt.time,
            end: attempt.time,
            seen: attempt.time,
            part_since: attempt.time,
            wait_until: attempt.time.plus(self.timeouts.attempt),
            path: attempt.path,
            ..Flow::default()
        };
        flow.set_originator(side);
        flow.set_reason(DirectionReason::Syn);
        flow.set_waiting(Waiting::Answer);
        flow.set(flag::REFERENCED | flag::LIVE, true);
        flow.sides[side].set_mac(tally.mac);
        // One packet has room in any counter.
        flow.sides[side].add(&tally);
        let header = attempt.segment(key.end(side).1, key.end(1 - side).1);
        (flow, TcpState::of_syn(side, &header, attempt.time))
    }

    /// Ends attempts whose time is over, as flows that nobody answered.
    pub(super) fn expire_attempts<H: FlowHost>(&mut self, tick: u64, host: &mut H) {
        while let Some((slot, attempt)) = self.attempts.first()
            && tick_of(attempt.time.plus(self.timeouts.attempt)).saturating_add(1) <= tick
        {
            self.end_attempt(slot, EndReason::Idle, host);
        }
    }

    /// Whether an attempt has waited for as long as attempts do.
    pub(super) fn is_over(&self, slot: u32) -> bool {
        self.attempts.get(slot).time.plus(self.timeouts.attempt) <= self.clock
    }

    /// Ends an attempt, as if it had been a flow: idle where nobody answered it in time.
    pub(super) fn end_attempt<H: FlowHost>(&mut self, slot: u32, reason: EndReason, host: &mut H) {
        let attempt = self.take_attempt(slot);
        let key = self.addresses.unpack(attempt.key);
        let (flow, state) = self.begun(&attempt, &key);
        let path = self.paths.get(attempt.path).unwrap_or(&NOWHERE);
        let view = View { flow: &flow, key, path, more: None, tcp: Some(&state) };
        if reason == EndReason::Idle {
            view.tell(FlowEvent::Unanswered, self.clock, None, host);
        }
        let mut record = self.reporter.take_record();
        view.tell_record(&mut record, reason, self.clock, self.reporter.community_id_seed, host);
        self.reporter.record = Some(record);
        self.gone_until = self.gone_until.max(attempt.time);
        self.addresses.release(attempt.key);
        self.paths.release(attempt.path);
    }

    /// Takes an attempt out of the table. Its key and its path are still to be released.
    fn take_attempt(&mut self, slot: u32) -> Attempt {
        self.index.remove(self.attempts.get(slot).hash, slot | ATTEMPT);
        self.attempts.remove(slot)
    }

    /// Adds an attempt to an aggregate, in place of a record of its own.
    fn collapse<H: FlowHost>(&mut self, slot: u32, host: &mut H) {
        let attempt = self.take_attempt(slot);
        let key = self.addresses.unpack(attempt.key);
        let path = self.paths.get(attempt.path).unwrap_or(&NOWHERE);
        let side = attempt.side();
        self.aggregates.add(self.clock, &collapsed(&key, side, path, attempt.tally()));
        let (originator, responder) = (key.end(side).0, key.end(1 - side));
        if host.hears_collapse(path.interface, originator, responder, path.places[1 - side].secretariat) {
            tell_attempt(FlowEvent::Collapsed, &attempt, &key, path, self.clock, None, host);
        }
        self.addresses.release(attempt.key);
        self.paths.release(attempt.path);
    }

    /// Adds a flow that is no more than an attempt to an aggregate, if that is all it is; its entry is free then.
    pub(super) fn collapse_flow<H: FlowHost>(&mut self, entry: u32, host: &mut H) -> bool {
        let at = entry as usize;
        let flow = &self.flows[at];
        let side = flow.originator();
        let is_attempt = flow.waiting() == Waiting::Answer
            && flow.sides[1 - side].packets == 0
            && self.extensions.of(flow).is_none();
        if !is_attempt {
            return false;
        }
        let key = self.addresses.unpack(flow.key);
        let (totals, counts) = (self.extensions.totals(flow, side), flow.sides[side]);
        let tally = Tally {
            packets: totals.packets,
            wire_bytes: totals.wire_bytes,
            ip_bytes: totals.ip_bytes,
            payload_bytes: totals.payload_bytes,
            tcp_flags: counts.tcp_flags,
            ttl_min: counts.ttl_min,
            ttl_max: counts.ttl_max,
            dscp: counts.dscp(),
            estimated: flow.is(flag::ESTIMATED),
            last: flow.end,
            ..Tally::none(flow.created)
        };
        let path = self.paths.get(flow.path).unwrap_or(&NOWHERE);
        self.aggregates.add(self.clock, &collapsed(&key, side, path, tally));
        self.tell(at, FlowEvent::Collapsed, None, host);
        self.unlink(entry);
        self.release(entry);
        self.free.push(entry);
        true
    }

    /// Tells the aggregates that have gathered for long enough by the clock, or all of them.
    pub(super) fn tell_aggregates<H: FlowHost>(&mut self, now: Option<Timestamp>, host: &mut H) {
        let mut told = self.aggregates.take(now);
        told.sort_by_key(|one| {
            (one.tally.first, one.responders.first(), one.port, one.originators.first(), one.scope)
        });
        for one in &told {
            self.report_aggregate(one, host);
        }
    }

    pub(super) fn attempt_identity(&self, attempt: &Attempt) -> FlowIdentity {
        FlowIdentity::Parts {
            scope: self.paths.get(attempt.path).map(|path| path.scope).unwrap_or_default(),
            key: self.addresses.unpack(attempt.key),
            created: attempt.time,
            serial: 0,
        }
    }
}

/// What is added to an aggregate of what `side` sent in its attempt.
fn collapsed<'a>(key: &FlowKey, side: Side, path: &'a Path, tally: Tally) -> Collapsed<'a> {
    Collapsed {
        scope: key.scope(),
        originator: key.end(side).0,
        responder: key.end(1 - side),
        path,
        places: [path.places[side], path.places[1 - side]],
        tally,
    }
}

/// Tells an event of an attempt, and the way of the packet that raised it, if one did.
fn tell_attempt<H: FlowHost>(
    event: FlowEvent,
    attempt: &Attempt,
    key: &FlowKey,
    path: &Path,
    now: Timestamp,
    packet: Option<(Side, &Origin<'_>)>,
    host: &mut H,
) {
    let role = host.role(path.interface);
    let from = attempt.side();
    let write_party = |party: &mut Party, side: Side| {
        let (place, sent) = (&path.places[side], side == from);
        (party.ip, party.port) = key.end(side);
        party.mac = if sent { attempt.mac() } else { None };
        party.packets = sent.into();
        party.packets_by_mac = sent.into();
        party.ip_bytes = if sent { attempt.ip_bytes() } else { 0 };
        party.payload_bytes = 0;
        party.ttl_min = if sent { attempt.ttl() } else { 0 };
        party.ttl_max = party.ttl_min;
        (party.locality, party.segment, party.secretariat) =
            (place.locality, place.segment, place.secretariat);
    };
    host.tell(event, key.protocol(), now, |context| {
        context.identity =
            FlowIdentity::Parts { scope: path.scope, key: *key, created: attempt.time, serial: 0 };
        context.protocol = key.protocol();
        write_party(&mut context.originator, from);
        write_party(&mut context.responder, 1 - from);
        context.conn_state = ConnState::S0;
        context.syn_seen = true;
        (context.start, context.last, context.now) = (attempt.time, attempt.time, now);
        context.interface = path.interface;
        context.role = role;
        context.vlans.clone_from(&path.vlans);
        context.tunnelled = false;
        context.leaving = packet.and_then(|(_, origin)| origin.leaving);
        context.by_originator = packet.map(|(side, _)| side == from);
    });
}

//! How attempts live in the table: a SYN makes one, a second packet makes a flow of it, silence ends it, and when
//! there are too many the oldest is added to an aggregate.

use super::{
    aggregate::Collapsed,
    attempt::Attempt,
    compact::{Flow, Waiting, flag},
    event::{FlowContext, FlowEvent, Party},
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
    plan::Role,
    record::{ConnState, DirectionReason, EndReason},
    time::Timestamp,
};

impl FlowTable {
    /// Begins an attempt at this time, which `write` writes; none where it needs a flow.
    #[inline]
    pub(super) fn begin_attempt<H: FlowHost>(
        &mut self,
        address: FlowAddress,
        time: Timestamp,
        write: impl FnOnce(&mut Attempt),
        origin: &Origin<'_>,
        host: &mut H,
    ) -> Option<u32> {
        let is_next = time == self.clock && time > self.gone_until;
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
        let packed = self.addresses.pack(&key);
        let slot = self.attempts.push(|attempt| {
            write(attempt);
            attempt.place(packed, side, number, hash);
        });
        self.index.insert(hash, slot | ATTEMPT);
        let (attempt, path) = (self.attempts.get(slot), self.paths.get(number).unwrap_or(&NOWHERE));
        let begun = Known { attempt, key: &key, path };
        begun.tell(FlowEvent::Started, self.clock, Some(origin), host);
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
        let write = |attempt: &mut Attempt| attempt.write_plain(packet);
        Attempt::is_made_by_plain(packet)
            && self.begin_attempt(*address, packet.time, write, origin, host).is_some()
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
        let attempt = *self.attempts.get(slot);
        self.index.remove(attempt.hash, slot | ATTEMPT);
        self.attempts.remove(slot);
        attempt
    }

    /// Adds an attempt to an aggregate, in place of a record of its own.
    fn collapse<H: FlowHost>(&mut self, slot: u32, host: &mut H) {
        let attempt = self.attempts.get(slot);
        self.index.remove(attempt.hash, slot | ATTEMPT);
        let key = self.addresses.unpack(attempt.key);
        let path = self.paths.get(attempt.path).unwrap_or(&NOWHERE);
        let side = attempt.side();
        self.aggregates.add(self.clock, &Collapsed::new(&key, side, path), attempt);
        let secretariat = path.places[1 - side].secretariat;
        if host.hears_collapse(path.interface, &key.end(side).0, &key.end(1 - side), secretariat) {
            let known = Known { attempt, key: &key, path };
            known.tell(FlowEvent::Collapsed, self.clock, None, host);
        }
        self.addresses.release(attempt.key);
        self.paths.release(attempt.path);
        self.attempts.remove(slot);
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
        self.aggregates.add(self.clock, &Collapsed::new(&key, side, path), &tally);
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

/// An attempt, and whatever belongs to it wherever that stands.
struct Known<'a> {
    attempt: &'a Attempt,
    key: &'a FlowKey,
    path: &'a Path,
}

impl Known<'_> {
    /// Tells an event, and the way of the packet that raised it, if one did, which was the SYN.
    #[inline]
    fn tell<H: FlowHost>(&self, event: FlowEvent, now: Timestamp, packet: Option<&Origin<'_>>, host: &mut H) {
        let role = host.role(self.path.interface);
        host.tell(event, self.key.protocol(), now, |context| self.write_context(context, now, packet, role));
    }

    fn write_context(
        &self,
        context: &mut FlowContext,
        now: Timestamp,
        packet: Option<&Origin<'_>>,
        role: Role,
    ) {
        let Self { attempt, key, path } = self;
        let side = attempt.side();
        context.identity.write_parts(path.scope, key, attempt.time, 0);
        context.protocol = key.protocol();
        let originator = &mut context.originator;
        write_end(originator, key, side, path);
        originator.mac = attempt.mac();
        (originator.packets, originator.packets_by_mac) = (1, 1);
        originator.ip_bytes = attempt.ip_bytes();
        (originator.ttl_min, originator.ttl_max) = (attempt.ttl(), attempt.ttl());
        let responder = &mut context.responder;
        write_end(responder, key, 1 - side, path);
        responder.mac = None;
        (responder.packets, responder.packets_by_mac, responder.ip_bytes) = (0, 0, 0);
        (responder.ttl_min, responder.ttl_max) = (0, 0);
        context.conn_state = ConnState::S0;
        context.syn_seen = true;
        (context.start, context.last, context.now) = (attempt.time, attempt.time, now);
        context.interface = path.interface;
        context.role = role;
        context.vlans.clone_from(&path.vlans);
        context.tunnelled = false;
        context.leaving = packet.and_then(|origin| origin.leaving);
        context.by_originator = packet.map(|_| true);
    }
}

/// Writes what is true of a side whether it sent the SYN or not.
#[inline]
fn write_end(party: &mut Party, key: &FlowKey, side: Side, path: &Path) {
    let place = &path.places[side];
    (party.ip, party.port) = key.end(side);
    party.payload_bytes = 0;
    (party.locality, party.segment, party.secretariat) = (place.locality, place.segment, place.secretariat);
}

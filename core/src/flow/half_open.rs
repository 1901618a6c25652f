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
    live::{FlowPacket, Tally},
    path::Path,
    queue::Rank,
    table::{ATTEMPT, FlowAddress, FlowTable},
    tcp::TcpState,
    wheel::tick_of,
};
use crate::{
    record::{ConnState, DirectionReason, EndReason},
    time::Timestamp,
};

impl FlowTable {
    /// Makes an attempt of a packet that is nothing but a SYN; none where it needs a flow.
    pub(super) fn begin_attempt<H: FlowHost>(
        &mut self,
        address: FlowAddress,
        packet: &FlowPacket<'_>,
        tally: &Tally,
        host: &mut H,
    ) -> Option<u32> {
        let is_next = packet.time == self.clock && packet.time > self.gone_until;
        if !is_next || !self.timeouts.attempts_apart {
            return None;
        }
        let attempt = Attempt::of(packet, tally)?;
        let FlowAddress { key, side, hash } = address;
        if self.attempts.is_full()
            && let Some((oldest, _)) = self.attempts.first()
        {
            self.collapse(oldest, host);
        }
        let path = self.path_of(&key, side, &packet.origin, host);
        let number = self.paths.take(&path)?;
        let attempt = attempt.at(self.addresses.pack(&key), side, number);
        let slot = self.attempts.push(attempt);
        self.link_at(hash, slot | ATTEMPT);
        let context = self.attempt_context(&attempt, &path, packet.origin.leaving, Some(true), host);
        host.event(FlowEvent::Started, &context);
        Some(slot)
    }

    /// Makes a flow of an attempt for another packet; none if it had ended by then.
    pub(super) fn resume<H: FlowHost>(&mut self, slot: u32, host: &mut H) -> Option<u32> {
        if self.attempts.get(slot).time.plus(self.timeouts.attempt) <= self.clock {
            self.expire(slot, host);
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
        let (side, tally) = (attempt.side(), attempt.tally());
        let entry = self.free_entry();
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
        flow.set(flag::REFERENCED, true);
        flow.sides[side].set_mac(tally.mac);
        self.extensions.count(&mut flow, side, &tally);
        let key = self.addresses.unpack(attempt.key);
        let header = attempt.segment(key.end(side).1, key.end(1 - side).1);
        let state = TcpState::of_syn(side, &header, attempt.time);
        flow.tcp = self.tcp.insert(state);
        self.put(entry, flow);
        let hash = self.hash.of(&key);
        if let Some(held) = self.index.find_mut(hash, |&held| held == slot | ATTEMPT) {
            *held = entry;
        }
        self.attempts.remove(slot);
        self.queues.append(entry, Rank::Unanswered);
        self.arm(entry);
        entry
    }

    /// Ends attempts whose time is over, as flows that nobody answered.
    pub(super) fn expire_attempts<H: FlowHost>(&mut self, tick: u64, host: &mut H) {
        while let Some((slot, attempt)) = self.attempts.first()
            && tick_of(attempt.time.plus(self.timeouts.attempt)).saturating_add(1) <= tick
        {
            self.expire(slot, host);
        }
    }

    fn expire<H: FlowHost>(&mut self, slot: u32, host: &mut H) {
        let entry = self.promote(slot);
        self.end(entry, EndReason::Idle, host);
    }

    /// Adds an attempt to an aggregate, in place of a record of its own.
    fn collapse<H: FlowHost>(&mut self, slot: u32, host: &mut H) {
        let attempt = *self.attempts.get(slot);
        let key = self.addresses.unpack(attempt.key);
        if let Ok(found) = self.index.find_entry(self.hash.of(&key), |&held| held == slot | ATTEMPT) {
            found.remove();
        }
        self.attempts.remove(slot);
        let path = self.paths.get(attempt.path).cloned().unwrap_or_default();
        let side = attempt.side();
        self.aggregate(&key, side, &path, attempt.tally());
        let (originator, responder) = (key.end(side).0, key.end(1 - side));
        if host.hears_collapse(path.interface, originator, responder, path.places[1 - side].secretariat) {
            let context = self.attempt_context(&attempt, &path, None, None, host);
            host.event(FlowEvent::Collapsed, &context);
        }
        self.addresses.release(attempt.key);
        self.paths.release(attempt.path);
    }

    /// Adds what `side` sent in its attempt to an aggregate.
    fn aggregate(&mut self, key: &FlowKey, side: Side, path: &Path, tally: Tally) {
        self.aggregates.add(
            self.clock,
            &Collapsed {
                scope: key.scope(),
                originator: key.end(side).0,
                responder: key.end(1 - side),
                path,
                places: [path.places[side], path.places[1 - side]],
                tally,
            },
        );
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
        let path = self.path(flow).clone();
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
        self.aggregate(&key, side, &path, tally);
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

    fn attempt_context<H: FlowHost>(
        &self,
        attempt: &Attempt,
        path: &Path,
        leaving: Option<bool>,
        by_originator: Option<bool>,
        host: &H,
    ) -> FlowContext {
        let key = self.addresses.unpack(attempt.key);
        let (from, tally) = (attempt.side(), attempt.tally());
        let party = |side: Side| {
            let ((ip, port), place, sent) = (key.end(side), path.places[side], side == from);
            let (packets, ttl) = if sent { (1, tally.ttl_min) } else { (0, 0) };
            Party {
                ip,
                port,
                mac: tally.mac.filter(|_| sent),
                packets,
                packets_by_mac: packets,
                ip_bytes: if sent { tally.ip_bytes } else { 0 },
                payload_bytes: 0,
                ttl_min: ttl,
                ttl_max: ttl,
                locality: place.locality,
                segment: place.segment,
                secretariat: place.secretariat,
            }
        };
        FlowContext {
            identity: FlowIdentity::Parts { scope: path.scope, key, created: attempt.time, serial: 0 },
            protocol: key.protocol(),
            originator: party(from),
            responder: party(1 - from),
            conn_state: ConnState::S0,
            syn_seen: true,
            start: attempt.time,
            last: attempt.time,
            now: self.clock,
            interface: path.interface,
            role: host.role(path.interface),
            vlans: path.vlans.clone(),
            tunnelled: false,
            leaving,
            by_originator,
        }
    }
}

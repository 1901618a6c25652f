//! How long flows live: timeouts on packet time, the parts of long flows, and who gives way in a full table.

use super::{
    FlowConfig,
    compact::{Waiting, flag},
    event::FlowEvent,
    host::FlowHost,
    icmp,
    live::NO_ENTRY,
    table::FlowTable,
};
use crate::{
    record::EndReason,
    time::{NANOS_PER_SECOND, Timestamp},
};

/// Flows that are looked at to find one that has been quiet, when the table is full.
const CANDIDATES: usize = 64;

/// Timeouts in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    tcp: i64,
    udp: i64,
    icmp: i64,
    other: i64,
    pub(super) attempt: i64,
    pub(super) closing: i64,
    active: i64,
    /// Whether attempts all wait for the same time and are told once, so that they can stand apart from flows.
    pub(super) attempts_apart: bool,
}

impl Timeouts {
    pub(super) fn new(config: &FlowConfig) -> Self {
        // Less than a second, or nothing, would report every packet.
        let nanos = |seconds: u32| i64::from(seconds.max(1)).saturating_mul(NANOS_PER_SECOND);
        let apart = config.attempt_seconds <= config.tcp_idle_seconds.min(config.active_seconds);
        Self {
            attempts_apart: apart,
            tcp: nanos(config.tcp_idle_seconds),
            udp: nanos(config.udp_idle_seconds),
            icmp: nanos(config.icmp_idle_seconds),
            other: nanos(config.other_idle_seconds),
            attempt: nanos(config.attempt_seconds),
            closing: nanos(config.closing_seconds),
            active: nanos(config.active_seconds),
        }
    }

    #[inline]
    pub(super) const fn active(&self) -> i64 {
        self.active
    }

    #[inline]
    pub(super) const fn idle(&self, protocol: u8) -> i64 {
        match protocol {
            6 => self.tcp,
            17 | 136 => self.udp,
            icmp::ICMP | icmp::ICMPV6 => self.icmp,
            _ => self.other,
        }
    }
}

impl FlowTable {
    /// A free entry, after making room if there is none.
    pub(super) fn new_entry<H: FlowHost>(&mut self, host: &mut H) -> u32 {
        // The second time where the first found nothing but entries that are free.
        for _ in 0..2 {
            if self.is_full() {
                self.make_room(host);
            }
        }
        self.free_entry()
    }

    /// A free entry, whatever the limit.
    pub(super) fn free_entry(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| u32::try_from(self.flows.len()).unwrap_or(0))
    }

    /// Whether another flow has room only if one goes.
    pub(super) fn is_full(&self) -> bool {
        self.index.len().saturating_sub(self.attempts.len()) >= self.limit
    }

    /// Ends the flow that gives way first: the oldest that nobody answered (which is added to an aggregate if it is
    /// an attempt), or else the first that the hand finds to have had no packet since it last came by.
    pub(super) fn make_room<H: FlowHost>(&mut self, host: &mut H) {
        let mut victim = self.line.first();
        let mut fallback = None;
        for _ in 0..CANDIDATES {
            if victim.is_some() {
                break;
            }
            let entry = self.line.turn(self.flows.len());
            let Some(flow) = self.flows.get_mut(entry as usize) else { break };
            if !flow.is(flag::LIVE) {
                continue;
            }
            if flow.is(flag::REFERENCED) {
                flow.set(flag::REFERENCED, false);
                fallback.get_or_insert(entry);
            } else {
                victim = Some(entry);
            }
        }
        if let Some(entry) = victim.or(fallback) {
            self.gave_way = self.gave_way.saturating_add(1);
            if !self.collapse_flow(entry, host) {
                self.end(entry, EndReason::Resources, host);
            }
        }
    }

    /// When the timer of a flow has to act next, and whether that is only the active timeout.
    pub(super) fn next_deadline(&self, entry: u32) -> Option<(Timestamp, bool)> {
        let flow = self.flows.get(entry as usize)?;
        let idle = flow.seen.plus(self.timeouts.idle(flow.key.protocol()));
        let end = idle.min(flow.wait_until);
        let active = flow.part_since.plus(self.timeouts.active);
        Some(if active < end { (active, true) } else { (end, false) })
    }

    pub(super) fn arm(&mut self, entry: u32) {
        if let Some((deadline, _)) = self.next_deadline(entry) {
            self.wheel.arm(entry, deadline);
        }
    }

    /// Does what the clock says is due of a flow; false if that ended it.
    pub(super) fn settle<H: FlowHost>(&mut self, entry: u32, host: &mut H) -> bool {
        match self.due(entry, host) {
            Some(reason) => {
                self.end(entry, reason, host);
                false
            }
            None => true,
        }
    }

    /// Reports the parts that are due, and gives the reason if the flow is to end.
    pub(super) fn due<H: FlowHost>(&mut self, entry: u32, host: &mut H) -> Option<EndReason> {
        loop {
            let (deadline, active) = self.next_deadline(entry)?;
            if deadline > self.clock {
                return None;
            }
            let at = entry as usize;
            if !active {
                let late = self.flows[at].waiting() == Waiting::Late;
                return Some(if late { EndReason::Ended } else { EndReason::Idle });
            }
            if self.flows[at].is_empty() {
                // Nothing to report; the parts go on from the last one that had no packet either.
                let parts = self.clock.since(self.flows[at].part_since) / self.timeouts.active;
                self.flows[at].part_since =
                    self.flows[at].part_since.plus(parts.saturating_mul(self.timeouts.active));
            } else {
                self.report(at, EndReason::Active, host);
                self.flows[at].part_since = deadline;
            }
        }
    }

    /// Reports the last part of a flow and frees its entry.
    pub(super) fn end<H: FlowHost>(&mut self, entry: u32, reason: EndReason, host: &mut H) {
        self.unlink(entry);
        self.tell_end(entry, reason, host);
        self.free.push(entry);
    }

    /// Takes a flow out of the index.
    pub(super) fn unlink(&mut self, entry: u32) {
        let hash = self.addresses.hash(&self.hash, self.flows[entry as usize].key);
        self.index.remove(hash, entry);
    }

    /// Reports the last part of a flow whose entry goes on to hold another.
    pub(super) fn tell_end<H: FlowHost>(&mut self, entry: u32, reason: EndReason, host: &mut H) {
        let at = entry as usize;
        if self.flows[at].waiting() == Waiting::Answer && reason == EndReason::Idle {
            self.tell(at, FlowEvent::Unanswered, None, host);
        }
        self.report(at, reason, host);
        self.gone_until = self.gone_until.max(self.flows[at].created);
        self.release(entry);
    }

    /// Gives back whatever a flow holds beside its entry.
    pub(super) fn release(&mut self, entry: u32) {
        self.wheel.disarm(entry);
        self.line.remove(entry);
        let flow = &mut self.flows[entry as usize];
        flow.set(flag::LIVE, false);
        self.tcp.remove(std::mem::replace(&mut flow.tcp, NO_ENTRY));
        self.extensions.release(flow);
        self.paths.release(std::mem::replace(&mut flow.path, NO_ENTRY));
        self.addresses.release(flow.key);
    }
}

//! The observations in memory: told when first seen, gathered, told again; held back while it is not known which
//! side of the link they come from.

use std::collections::VecDeque;

use super::{
    key::Key,
    messages::{Details, strength},
};
use crate::{
    bounded::{Bounded, KeyHash},
    ipam::Places,
    net::Name,
    record::Observation,
    time::Timestamp,
};

/// Where observations go.
pub type ObservationSink<'a> = dyn FnMut(&Observation) + 'a;

/// One sighting.
#[derive(Clone, Debug)]
pub(super) struct Sighting {
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) packets: u64,
    /// Lowest and highest time to live; zero where it says nothing.
    pub(super) ttl: (u8, u8),
    pub(super) details: Option<Box<Details>>,
}

#[derive(Clone, Debug)]
struct Entry {
    first_seen: Timestamp,
    last_seen: Timestamp,
    packets: u64,
    /// Packets told when their flow began, which its report counts once more.
    advanced: u64,
    ttl: (u8, u8),
    details: Option<Box<Details>>,
    queued: bool,
    held: bool,
}

/// What to do with an entry that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is evidence.
    Use,
    /// It is not.
    Discard,
    /// It is not known yet.
    Hold,
}

#[derive(Clone, Debug)]
pub(super) struct Table {
    entries: Bounded<Key, Entry>,
    reports: VecDeque<(Timestamp, Key)>,
    holds: VecDeque<(Timestamp, Key)>,
    limit: usize,
    report_nanos: i64,
    hold_nanos: i64,
    discarded: u64,
}

/// Names and destination of what is told.
pub(super) struct Output<'a, 'b> {
    pub(super) site: &'a Name,
    pub(super) places: &'a Places,
    pub(super) sink: &'a mut ObservationSink<'b>,
}

impl Table {
    pub(super) fn new(limit: usize, report_nanos: i64, hold_nanos: i64, seed: [u64; 4]) -> Self {
        Self {
            entries: Bounded::new(limit, seed),
            reports: VecDeque::new(),
            holds: VecDeque::new(),
            limit: limit.max(1),
            report_nanos,
            hold_nanos,
            discarded: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) const fn forgotten(&self) -> u64 {
        self.entries.forgotten()
    }

    pub(super) const fn discarded(&self) -> u64 {
        self.discarded
    }

    pub(super) fn hash_of(&self, key: &Key) -> KeyHash {
        self.entries.hash_of(key)
    }

    /// Makes ready for lookups of these.
    pub(super) fn warm(&self, hashes: impl ExactSizeIterator<Item = KeyHash> + Clone) {
        self.entries.warm(hashes, |key, entry| key.word() ^ entry.packets ^ u64::from(entry.held));
    }

    /// A flow began with a packet from this address. Told at once where the address is new; the packet is then
    /// counted when the flow reports.
    pub(super) fn begin(
        &mut self,
        hash: KeyHash,
        key: Key,
        sighting: Sighting,
        verdict: Verdict,
        out: &mut Output<'_, '_>,
    ) {
        match self.entries.get_hashed(hash, &key) {
            None => self.start(hash, key, sighting, 1, verdict, out),
            Some(entry) => {
                entry.first_seen = entry.first_seen.min(sighting.first);
                entry.move_on(&sighting);
                if entry.held && verdict != Verdict::Hold {
                    self.settle(&key, verdict, out);
                }
            }
        }
    }

    /// A flow reports, or a message was seen: these packets are counted. `in_flow` says that one of them may have
    /// been told when the flow began.
    #[expect(clippy::too_many_arguments, reason = "what is counted to what, and where that goes")]
    pub(super) fn count(
        &mut self,
        now: Timestamp,
        hash: KeyHash,
        key: Key,
        sighting: Sighting,
        in_flow: bool,
        verdict: Verdict,
        out: &mut Output<'_, '_>,
    ) {
        if sighting.packets == 0 {
            return;
        }
        let Some(entry) = self.entries.get_hashed(hash, &key) else {
            return self.start(hash, key, sighting, 0, verdict, out);
        };
        // A flow began before this side answered: when it did, was told then.
        if !in_flow {
            entry.first_seen = entry.first_seen.min(sighting.first);
        }
        entry.move_on(&sighting);
        let told = if in_flow { entry.advanced.min(sighting.packets) } else { 0 };
        entry.advanced -= told;
        entry.packets = entry.packets.saturating_add(sighting.packets - told);
        if entry.held {
            if verdict != Verdict::Hold {
                self.settle(&key, verdict, out);
            }
            return;
        }
        if sighting.details.is_some() && entry.details != sighting.details {
            entry.details = sighting.details;
            entry.tell(&key, out);
        } else if !entry.queued && entry.packets > 0 {
            entry.queued = true;
            self.reports.push_back((now.plus(self.report_nanos), key));
        }
    }

    fn start(
        &mut self,
        hash: KeyHash,
        key: Key,
        sighting: Sighting,
        advanced: u64,
        verdict: Verdict,
        out: &mut Output<'_, '_>,
    ) {
        if verdict == Verdict::Discard {
            self.discarded = self.discarded.saturating_add(1);
            return;
        }
        let mut entry = Entry {
            first_seen: sighting.first,
            last_seen: sighting.last,
            packets: sighting.packets,
            advanced,
            ttl: sighting.ttl,
            details: sighting.details,
            queued: false,
            held: verdict == Verdict::Hold,
        };
        if entry.held {
            self.holds.push_back((sighting.last.plus(self.hold_nanos), key));
        } else {
            entry.tell(&key, out);
        }
        if let Some((gone, mut entry)) = self.entries.insert_hashed(hash, key, entry) {
            entry.tell_rest(&gone, out);
        }
    }

    /// Ends the holding of an entry.
    fn settle(&mut self, key: &Key, verdict: Verdict, out: &mut Output<'_, '_>) {
        if verdict == Verdict::Discard {
            self.entries.remove(key);
            self.discarded = self.discarded.saturating_add(1);
        } else if let Some(entry) = self.entries.peek_mut(key) {
            entry.held = false;
            entry.tell(key, out);
        }
    }

    /// Tells what has gathered for long enough, and ends holding that took long enough; `judge` must say use or
    /// discard then. Queues that outgrow the table are worked off early.
    pub(super) fn advance(
        &mut self,
        now: Timestamp,
        judge: &mut dyn FnMut(&Key) -> Verdict,
        out: &mut Output<'_, '_>,
    ) {
        let bound = self.limit.saturating_mul(2);
        while let Some((due, _)) = self.holds.front()
            && (*due <= now || self.holds.len() > bound)
            && let Some((_, key)) = self.holds.pop_front()
        {
            if self.entries.peek(&key).is_some_and(|entry| entry.held) {
                self.settle(&key, judge(&key), out);
            }
        }
        while let Some((due, _)) = self.reports.front()
            && (*due <= now || self.reports.len() > bound)
            && let Some((_, key)) = self.reports.pop_front()
        {
            if let Some(entry) = self.entries.peek_mut(&key) {
                entry.queued = false;
                entry.tell_rest(&key, out);
            }
        }
    }

    /// Ends all holding and tells whatever was gathered, the oldest first.
    pub(super) fn finish(&mut self, judge: &mut dyn FnMut(&Key) -> Verdict, out: &mut Output<'_, '_>) {
        for (_, key) in std::mem::take(&mut self.holds) {
            if self.entries.peek(&key).is_some_and(|entry| entry.held) {
                self.settle(&key, judge(&key), out);
            }
        }
        self.reports.clear();
        self.entries.for_each(|key, entry| {
            entry.queued = false;
            entry.tell_rest(key, out);
        });
    }

    /// Forgets everything, told or not.
    pub(super) fn clear(&mut self) {
        while self.entries.pop_oldest().is_some() {}
        self.reports.clear();
        self.holds.clear();
    }
}

impl Entry {
    fn move_on(&mut self, sighting: &Sighting) {
        self.last_seen = self.last_seen.max(sighting.last);
        let (low, high) = sighting.ttl;
        if high > 0 {
            let lowest = if self.ttl.0 == 0 { low } else { self.ttl.0.min(low) };
            self.ttl = (lowest, self.ttl.1.max(high));
        }
    }

    fn tell_rest(&mut self, key: &Key, out: &mut Output<'_, '_>) {
        if self.packets > 0 && !self.held {
            self.tell(key, out);
        }
    }

    fn tell(&mut self, key: &Key, out: &mut Output<'_, '_>) {
        let details = self.details.as_deref();
        let spot = key.spot();
        let ttl = |value: u8| (value > 0).then_some(value);
        let observation = Observation {
            kind: key.kind(),
            strength: strength(key.kind()),
            address: key.address(),
            address_space: out.places.space_name(spot.space),
            secretariat: spot.secretariat.and_then(|s| out.places.secretariat_name(s)).cloned(),
            segment: spot.segment.and_then(|s| out.places.segment_name(s)).cloned(),
            site: out.site.clone(),
            interface: out.places.interface_name(spot.interface),
            vlans: key.vlans(),
            mac: key.mac(),
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            packets: self.packets,
            ttl_min: ttl(self.ttl.0),
            ttl_max: ttl(self.ttl.1),
            hostname: details.and_then(|d| d.hostname.clone()),
            lease_seconds: details.and_then(|d| d.lease_seconds),
            server: details.and_then(|d| d.server),
            relay: details.and_then(|d| d.relay),
            vendor_class: details.and_then(|d| d.vendor_class.clone()),
            duid: details.and_then(|d| d.duid.clone()),
        };
        self.packets = 0;
        (out.sink)(&observation);
    }
}

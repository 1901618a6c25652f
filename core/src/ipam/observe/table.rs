//! The observations in memory: told when first seen, gathered, told again; held back while it is not known which
//! side of the link they come from.

use std::collections::VecDeque;

use super::{
    key::Key,
    messages::{Details, strength},
    stack::{StackAt, Stacks},
    sums::Sums,
};
use crate::{
    bounded::{Bounded, KeyHash, Near},
    ipam::{Places, hours::hour_of},
    net::Name,
    record::{Observation, ObservationKind, StackSample, Strength},
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
    /// Whether both sides of its flow spoke.
    pub(super) conversed: bool,
    /// The SYN that it is of.
    pub(super) stack: Option<StackSample>,
    pub(super) details: Option<Box<Details>>,
}

/// An observation, in 48 bytes; with its key it is most of what an address takes.
#[derive(Clone, Debug)]
struct Entry {
    first_seen: Timestamp,
    last_seen: Timestamp,
    packets: u64,
    details: Option<Box<Details>>,
    /// Flows since the last report in which both sides spoke.
    conversations: u32,
    /// Hours since the last report, that of `last_seen` in the lowest bit.
    hours: u32,
    stack: StackAt,
    ttl: (u8, u8),
    marks: u8,
}

/// Both sides ever spoke.
const CONVERSED: u8 = 1;
/// It stands among the reports.
const QUEUED: u8 = 2;
/// It is held back.
const HELD: u8 = 4;
/// A packet was told when its flow began, which its report counts once more.
const ADVANCED: u8 = 8;

/// When an observation is told again, in twelve bytes: there is one for each that has moved on. Where it gave way to another
/// one that is to be told as well, that is told early.
#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(4))]
struct Report {
    due: Timestamp,
    at: Near,
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
    reports: VecDeque<Report>,
    holds: VecDeque<(Timestamp, Key)>,
    limit: usize,
    report_nanos: i64,
    hold_nanos: i64,
    discarded: u64,
    stacks: Stacks,
    sums: Sums,
    /// When the sums are told next; none while there are none.
    sums_due: Option<Timestamp>,
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
            stacks: Stacks::new(seed),
            sums: Sums::new(seed),
            sums_due: None,
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
        self.entries.warm(hashes, |key, entry| key.word() ^ entry.packets ^ u64::from(entry.marks));
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
            None => self.start(hash, key, sighting, true, verdict, out),
            Some(entry) => {
                entry.first_seen = entry.first_seen.min(sighting.first);
                entry.move_on(&sighting, &mut self.stacks);
                if entry.is(HELD) && verdict != Verdict::Hold {
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
        let Some((at, entry)) = self.entries.get_with_place(hash, &key) else {
            return self.start(hash, key, sighting, false, verdict, out);
        };
        // A flow began before this side answered: when it did, was told then.
        if !in_flow {
            entry.first_seen = entry.first_seen.min(sighting.first);
        }
        entry.move_on(&sighting, &mut self.stacks);
        let told = u64::from(in_flow && entry.is(ADVANCED));
        entry.mark(ADVANCED, entry.is(ADVANCED) && told == 0);
        entry.packets = entry.packets.saturating_add(sighting.packets - told);
        if entry.is(HELD) {
            if verdict != Verdict::Hold {
                self.settle(&key, verdict, out);
            }
            return;
        }
        if sighting.details.is_some() && entry.details != sighting.details {
            entry.details = sighting.details;
            entry.tell(&key, &mut self.stacks, out);
        } else if !entry.is(QUEUED) && entry.has_news() {
            entry.mark(QUEUED, true);
            self.reports.push_back(Report { due: now.plus(self.report_nanos), at });
        }
    }

    fn start(
        &mut self,
        hash: KeyHash,
        key: Key,
        sighting: Sighting,
        advanced: bool,
        verdict: Verdict,
        out: &mut Output<'_, '_>,
    ) {
        if verdict == Verdict::Discard {
            self.discarded = self.discarded.saturating_add(1);
            return;
        }
        // Anyone can write sources; what is there is not to give way to them.
        if self.entries.len() >= self.limit && key.kind() == ObservationKind::Traffic && !sighting.conversed {
            // What is told when a flow begins is counted when it reports.
            let packets = if advanced { 0 } else { sighting.packets };
            self.sums.add(&key, packets, sighting.first, sighting.last);
            self.sums_due.get_or_insert(sighting.last.plus(self.report_nanos));
            return;
        }
        let mut entry = Entry {
            first_seen: sighting.first,
            last_seen: sighting.last,
            packets: sighting.packets,
            details: None,
            conversations: 0,
            hours: 0,
            stack: StackAt::NONE,
            ttl: sighting.ttl,
            marks: 0,
        };
        entry.mark(ADVANCED, advanced);
        entry.mark(HELD, verdict == Verdict::Hold);
        entry.move_on(&sighting, &mut self.stacks);
        entry.details = sighting.details;
        if entry.is(HELD) {
            self.holds.push_back((sighting.last.plus(self.hold_nanos), key));
        } else {
            entry.tell(&key, &mut self.stacks, out);
        }
        if let Some((gone, mut entry)) = self.entries.insert_hashed(hash, key, entry) {
            entry.tell_rest(&gone, &mut self.stacks, out);
            self.stacks.forget(entry.stack);
        }
    }

    /// Tells the sums, but of stations that turned out to be of the edge.
    fn tell_sums(&mut self, judge: &mut dyn FnMut(&Key) -> Verdict, out: &mut Output<'_, '_>) {
        self.sums_due = None;
        self.sums.tell(|key, sum, aggregate| {
            if judge(key) != Verdict::Discard {
                let sums = Observation {
                    first_seen: sum.first_seen,
                    last_seen: sum.last_seen,
                    packets: sum.packets,
                    active_hours: 1,
                    aggregate: Some(Box::new(aggregate)),
                    ..observation(key, Strength::Medium, out)
                };
                (out.sink)(&sums);
            }
        });
    }

    /// Ends the holding of an entry.
    fn settle(&mut self, key: &Key, verdict: Verdict, out: &mut Output<'_, '_>) {
        if verdict == Verdict::Discard {
            if let Some(entry) = self.entries.remove(key) {
                self.stacks.forget(entry.stack);
            }
            self.discarded = self.discarded.saturating_add(1);
        } else if let Some(entry) = self.entries.peek_mut(key) {
            entry.mark(HELD, false);
            entry.tell(key, &mut self.stacks, out);
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
            if self.entries.peek(&key).is_some_and(|entry| entry.is(HELD)) {
                self.settle(&key, judge(&key), out);
            }
        }
        while let Some(&Report { due, at }) = self.reports.front()
            && (due <= now || self.reports.len() > bound)
        {
            self.reports.pop_front();
            if let Some((key, entry)) = self.entries.at_mut(at).filter(|(_, entry)| entry.is(QUEUED)) {
                entry.mark(QUEUED, false);
                entry.tell_rest(key, &mut self.stacks, out);
            }
        }
        if self.sums_due.is_some_and(|due| due <= now) {
            self.tell_sums(judge, out);
        }
    }

    /// Ends all holding and tells whatever was gathered, the oldest first.
    pub(super) fn finish(&mut self, judge: &mut dyn FnMut(&Key) -> Verdict, out: &mut Output<'_, '_>) {
        for (_, key) in std::mem::take(&mut self.holds) {
            if self.entries.peek(&key).is_some_and(|entry| entry.is(HELD)) {
                self.settle(&key, judge(&key), out);
            }
        }
        self.reports.clear();
        let Self { entries, stacks, .. } = self;
        entries.for_each(|key, entry| {
            entry.mark(QUEUED, false);
            entry.tell_rest(key, stacks, out);
        });
        self.tell_sums(judge, out);
    }

    /// Forgets everything, told or not.
    pub(super) fn clear(&mut self) {
        while self.entries.pop_oldest().is_some() {}
        self.stacks.clear();
        self.reports.clear();
        self.holds.clear();
        self.sums.clear();
        self.sums_due = None;
    }
}

impl Entry {
    const fn is(&self, mark: u8) -> bool {
        self.marks & mark != 0
    }

    const fn mark(&mut self, mark: u8, set: bool) {
        self.marks = if set { self.marks | mark } else { self.marks & !mark };
    }

    fn move_on(&mut self, sighting: &Sighting, stacks: &mut Stacks) {
        self.mark_hour(sighting.last);
        self.last_seen = self.last_seen.max(sighting.last);
        let (low, high) = sighting.ttl;
        if high > 0 {
            let lowest = if self.ttl.0 == 0 { low } else { self.ttl.0.min(low) };
            self.ttl = (lowest, self.ttl.1.max(high));
        }
        if sighting.conversed {
            self.conversations = self.conversations.saturating_add(1);
            self.mark(CONVERSED, true);
        }
        if let Some(sample) = &sighting.stack {
            stacks.add(&mut self.stack, sample, sighting.last);
        }
    }

    fn mark_hour(&mut self, time: Timestamp) {
        let ahead = hour_of(time).saturating_sub(hour_of(self.last_seen));
        let (later, earlier) = (u32::try_from(ahead.max(0)), u32::try_from(ahead.saturating_neg().max(0)));
        self.hours = later.ok().and_then(|by| self.hours.checked_shl(by)).unwrap_or(0);
        self.hours |= earlier.ok().and_then(|by| 1_u32.checked_shl(by)).unwrap_or(0);
    }

    /// Whether there is something that was not told: packets, or that they were answered.
    const fn has_news(&self) -> bool {
        self.packets > 0 || self.conversations > 0
    }

    fn tell_rest(&mut self, key: &Key, stacks: &mut Stacks, out: &mut Output<'_, '_>) {
        if self.has_news() && !self.is(HELD) {
            self.tell(key, stacks, out);
        }
    }

    fn tell(&mut self, key: &Key, stacks: &mut Stacks, out: &mut Output<'_, '_>) {
        let details = self.details.as_deref();
        let ttl = |value: u8| (value > 0).then_some(value);
        let strength = if self.is(CONVERSED) { Strength::Strong } else { strength(key.kind()) };
        let stack = stacks.tell(self.stack, self.last_seen);
        let told = Observation {
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            packets: self.packets,
            conversations: self.conversations.into(),
            active_hours: self.hours,
            ttl_min: ttl(self.ttl.0),
            ttl_max: ttl(self.ttl.1),
            hostname: details.and_then(|d| d.hostname.clone()),
            lease_seconds: details.and_then(|d| d.lease_seconds),
            server: details.and_then(|d| d.server),
            relay: details.and_then(|d| d.relay),
            vendor_class: details.and_then(|d| d.vendor_class.clone()),
            duid: details.and_then(|d| d.duid.clone()),
            stack,
            ..observation(key, strength, out)
        };
        (self.packets, self.conversations, self.hours) = (0, 0, 0);
        (out.sink)(&told);
    }
}

/// The observation of a key, without what was seen of it.
fn observation(key: &Key, strength: Strength, out: &Output<'_, '_>) -> Observation {
    let spot = key.spot();
    let space = out.places.space_name(spot.space);
    let place = (out.site.clone(), out.places.interface_name(spot.interface));
    Observation {
        secretariat: spot.secretariat.and_then(|s| out.places.secretariat_name(s)).cloned(),
        segment: spot.segment.and_then(|s| out.places.segment_name(s)).cloned(),
        vlans: key.vlans(),
        mac: key.mac(),
        ..Observation::of(key.kind(), strength, key.address(), space, place, Timestamp(0))
    }
}

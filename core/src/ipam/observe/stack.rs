//! What is gathered of the SYNs of one address, in 24 bytes: there is one for each address that opens connections.

use std::collections::HashMap;

use ahash::RandomState;
use arrayvec::ArrayVec;

use crate::{
    record::{IpIdBehaviour, SeenSignature, StackEvidence, StackSample, StackSignature, TcpClock},
    time::Timestamp,
};

/// Signatures that are told apart, over all addresses. There are some hundreds in the world; who makes up more than
/// this many keeps new ones from being told, and nothing else.
const MAX_KNOWN: usize = 32_768;
/// Signatures of one address between two reports.
const KEPT: usize = 3;
/// No signature.
const NONE: u16 = u16::MAX;

/// Ticks a second that stacks are known to count (p0f takes 0.7 to 1500 for possible).
const RATES: [u32; 10] = [1, 2, 10, 100, 128, 200, 250, 300, 500, 1000];
/// Bounds of p0f's, in tenths.
const SLOWEST_TENTHS: u64 = 7;
const FASTEST: u64 = 1500;
/// Milliseconds between two SYNs that say something of a rate; beyond, a clock of 1000 Hz may have passed its end.
const SHORTEST_MILLIS: u32 = 1_000;
const LONGEST_MILLIS: u32 = 20 * 86_400_000;
/// Steps of a counter between two SYNs, at most.
const COUNTER_STEP: u16 = 2_048;
/// SYNs in a row that show a clock, or how identifications are made.
const ENOUGH: u8 = 2;

/// Signatures by number.
#[derive(Clone, Debug)]
struct Signatures {
    known: Vec<StackSignature>,
    numbers: HashMap<StackSignature, u16, RandomState>,
}

impl Signatures {
    fn new([a, b, c, d]: [u64; 4]) -> Self {
        Self { known: Vec::new(), numbers: HashMap::with_hasher(RandomState::with_seeds(a, b, c, d)) }
    }

    /// The number of a signature; none where there are too many.
    fn number(&mut self, signature: StackSignature) -> u16 {
        if let Some(&number) = self.numbers.get(&signature) {
            return number;
        }
        if self.known.len() >= MAX_KNOWN {
            return NONE;
        }
        let number = u16::try_from(self.known.len()).unwrap_or(NONE);
        self.known.push(signature);
        self.numbers.insert(signature, number);
        number
    }

    fn signature(&self, number: u16) -> Option<StackSignature> {
        self.known.get(usize::from(number)).copied()
    }
}

/// What is gathered of all addresses, and the signatures that it is told by. An observation holds a number, because half of
/// them have none, and a box of its own would take half as much again.
#[derive(Clone, Debug)]
pub(super) struct Stacks {
    signatures: Signatures,
    held: Vec<Stack>,
    free: Vec<u32>,
}

/// The place of what is known of one address; none where it showed no SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StackAt(u32);

impl StackAt {
    pub(super) const NONE: Self = Self(u32::MAX);
}

impl Stacks {
    pub(super) fn new(seed: [u64; 4]) -> Self {
        Self { signatures: Signatures::new(seed), held: Vec::new(), free: Vec::new() }
    }

    /// One more SYN of an address.
    pub(super) fn add(&mut self, at: &mut StackAt, sample: &StackSample, time: Timestamp) {
        let Self { signatures, held, free } = self;
        if let Some(stack) = held.get_mut(at.0 as usize) {
            return stack.add(sample, time, signatures);
        }
        let stack = Stack::first(sample, time, signatures);
        let place = free.pop().and_then(|place| Some((place, held.get_mut(place as usize)?)));
        if let Some((place, old)) = place {
            *old = stack;
            *at = StackAt(place);
        } else if let Ok(place) = u32::try_from(held.len()) {
            held.push(stack);
            *at = StackAt(place);
        }
    }

    /// What has gathered of an address since it was last told; `last` is when a packet of it was last seen.
    pub(super) fn tell(&mut self, at: StackAt, last: Timestamp) -> Option<Box<StackEvidence>> {
        let stack = self.held.get_mut(at.0 as usize)?;
        let mut evidence = stack.tell(&self.signatures)?;
        stack.place_clock(&mut evidence, last);
        Some(evidence)
    }

    /// Forgets an address.
    pub(super) fn forget(&mut self, at: StackAt) {
        if (at.0 as usize) < self.held.len() {
            self.free.push(at.0);
        }
    }

    /// Forgets all addresses.
    pub(super) fn clear(&mut self) {
        (self.held, self.free) = (Vec::new(), Vec::new());
    }
}

/// What is known of one address.
#[derive(Clone, Debug)]
struct Stack {
    /// The latest timestamp, and when, in milliseconds of a wrapping clock.
    ticks: u32,
    millis: u32,
    /// Numbers of signatures since the last report, the latest first, and how often.
    numbers: [u16; KEPT],
    segments: [u8; KEPT],
    ip_id: u16,
    changes: u8,
    /// Timestamps that cannot follow the one before.
    breaks: u8,
    /// Place of the rate among [`RATES`] plus one, and in the four bits above, timestamps that follow the one before by a
    /// possible rate.
    pace: u8,
    /// Identifications a little behind the one before, and such that are not.
    ids: [u8; 2],
}

fn millis_of(time: Timestamp) -> u32 {
    // Wraps by design: only differences are asked for.
    u32::try_from(time.as_nanos().div_euclid(1_000_000).rem_euclid(1 << 32)).unwrap_or(0)
}

impl Stack {
    /// Of the first SYN of an address.
    fn first(sample: &StackSample, time: Timestamp, signatures: &mut Signatures) -> Self {
        let number = signatures.number(sample.signature);
        Self {
            ticks: sample.timestamp.unwrap_or(0),
            millis: millis_of(time),
            numbers: [number, NONE, NONE],
            segments: [1, 0, 0],
            ip_id: sample.ip_id.unwrap_or(0),
            changes: 0,
            breaks: 0,
            pace: 0,
            ids: [0; 2],
        }
    }

    /// One more SYN.
    fn add(&mut self, sample: &StackSample, time: Timestamp, signatures: &mut Signatures) {
        let number = signatures.number(sample.signature);
        self.count(number);
        let millis = millis_of(time);
        if let Some(ticks) = sample.timestamp {
            if self.ticks != 0 && ticks != 0 {
                self.follow(ticks, millis.wrapping_sub(self.millis));
            }
            (self.ticks, self.millis) = (ticks, millis);
        }
        if let Some(id) = sample.ip_id {
            let step = id.wrapping_sub(self.ip_id);
            if id != 0 || self.ip_id != 0 {
                let [small, large] = &mut self.ids;
                let counted = if (1..=COUNTER_STEP).contains(&step) { small } else { large };
                *counted = counted.saturating_add(1);
            }
            self.ip_id = id;
        }
    }

    fn count(&mut self, number: u16) {
        let [first, ..] = self.numbers;
        if first != number && first != NONE {
            self.changes = self.changes.saturating_add(1);
        }
        let at = self.numbers.iter().position(|&held| held == number);
        let at = at.or_else(|| self.numbers.iter().position(|&held| held == NONE)).unwrap_or(KEPT - 1);
        if self.numbers.get(at) != Some(&number) {
            self.numbers[at] = number;
            self.segments[at] = 0;
        }
        self.segments[at] = self.segments[at].saturating_add(1);
        self.numbers[..=at].rotate_right(1);
        self.segments[..=at].rotate_right(1);
    }

    /// Judges how a timestamp follows the one before it.
    fn follow(&mut self, ticks: u32, elapsed: u32) {
        if elapsed > LONGEST_MILLIS {
            return;
        }
        let moved = ticks.wrapping_sub(self.ticks);
        if elapsed < SHORTEST_MILLIS {
            if u64::from(moved) > FASTEST * 2 {
                self.breaks = self.breaks.saturating_add(1);
            }
            return;
        }
        let (moved, elapsed) = (u64::from(moved), u64::from(elapsed));
        let is_possible = moved * 10_000 >= SLOWEST_TENTHS * elapsed && moved * 1_000 <= FASTEST * elapsed;
        if !is_possible {
            self.breaks = self.breaks.saturating_add(1);
            return;
        }
        // Within a twentieth of a rate that is known.
        let near =
            |rate: u32| (moved * 1_000).abs_diff(u64::from(rate) * elapsed) * 20 <= u64::from(rate) * elapsed;
        let at = RATES.iter().position(|&rate| near(rate));
        let rate = at.and_then(|at| u8::try_from(at + 1).ok()).unwrap_or(0);
        self.pace = (self.pace >> 4).saturating_add(1).min(15) << 4 | rate;
    }

    /// What has gathered since the last report; what is asked of the next SYN stays.
    fn tell(&mut self, signatures: &Signatures) -> Option<Box<StackEvidence>> {
        let held = self.numbers.iter().zip(self.segments);
        let seen: ArrayVec<SeenSignature, { crate::record::MAX_SIGNATURES }> = held
            .filter(|&(_, segments)| segments > 0)
            .filter_map(|(&number, segments)| {
                Some(SeenSignature { signature: signatures.signature(number)?, segments: segments.into() })
            })
            .collect();
        if seen.is_empty() {
            return None;
        }
        let evidence = StackEvidence {
            signatures: seen,
            changes: self.changes.into(),
            clock: self.clock(),
            timestamp_breaks: self.breaks.into(),
            ip_id: self.ip_id_behaviour(),
        };
        // The latest signature is what the next one is held against.
        self.numbers[1..].fill(NONE);
        self.segments = [0; KEPT];
        // After a break a clock must show itself anew.
        if self.breaks > 0 {
            self.pace = 0;
        }
        (self.changes, self.breaks) = (0, 0);
        Some(Box::new(evidence))
    }

    fn clock(&self) -> Option<TcpClock> {
        let hertz = *RATES.get(usize::from(self.pace & 0xf).checked_sub(1)?)?;
        let is_known = self.pace >> 4 >= ENOUGH && self.breaks == 0;
        is_known.then_some(TcpClock { hertz, origin: Timestamp(0) })
    }

    /// The clock as of `last`, the time of a packet not long after the latest SYN.
    fn place_clock(&self, evidence: &mut StackEvidence, last: Timestamp) {
        if let Some(clock) = &mut evidence.clock {
            let behind = i64::from(millis_of(last).wrapping_sub(self.millis)).saturating_mul(1_000_000);
            let ran = u64::from(self.ticks).saturating_mul(1_000_000_000) / u64::from(clock.hertz.max(1));
            let back = behind.saturating_add(i64::try_from(ran).unwrap_or(i64::MAX));
            clock.origin = last.plus(back.saturating_neg());
        }
    }

    fn ip_id_behaviour(&self) -> IpIdBehaviour {
        let [small, large] = self.ids;
        match (small, large) {
            (0, 0) if self.ip_id == 0 && self.steps_seen() => IpIdBehaviour::Zero,
            (small, 0) if small >= ENOUGH => IpIdBehaviour::Counter,
            (small, large) if large >= ENOUGH && large > small => IpIdBehaviour::Random,
            _ => IpIdBehaviour::Unknown,
        }
    }

    fn steps_seen(&self) -> bool {
        self.segments.iter().fold(0_u8, |sum, &count| sum.saturating_add(count)) >= ENOUGH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(signature: &str, timestamp: Option<u32>, ip_id: Option<u16>) -> StackSample {
        StackSample { signature: signature.parse().expect("a signature"), timestamp, ip_id }
    }

    const LINUX: &str = "4:64:0:1460:64240,7:mss,sok,ts,nop,ws:df,id+:0";
    const WINDOWS: &str = "4:128:0:1460:64240,8:mss,nop,ws,nop,nop,sok:df,id+:0";

    /// SYNs at these milliseconds.
    fn told(samples: &[(i64, StackSample)]) -> StackEvidence {
        let (mut stacks, mut at) = (Stacks::new([0; 4]), StackAt::NONE);
        let time = |millis: i64| Timestamp(1_791_273_600_000_000_000 + millis * 1_000_000);
        for (millis, sample) in samples {
            stacks.add(&mut at, sample, time(*millis));
        }
        let last = time(samples.last().expect("one").0);
        let evidence = stacks.tell(at, last).expect("something to tell");
        assert_eq!(stacks.tell(at, last), None, "it is told once");
        *evidence
    }

    #[test]
    fn the_place_of_a_forgotten_address_is_taken_by_the_next() {
        let (mut stacks, mut one, mut other) = (Stacks::new([0; 4]), StackAt::NONE, StackAt::NONE);
        let time = Timestamp(1_791_273_600_000_000_000);
        stacks.add(&mut one, &sample(LINUX, Some(7), None), time);
        stacks.forget(one);
        stacks.forget(StackAt::NONE);
        stacks.add(&mut other, &sample(WINDOWS, None, None), time);
        assert_eq!((other, stacks.held.len()), (one, 1));
        let evidence = stacks.tell(other, time).expect("something to tell");
        let seen: Vec<u8> = evidence.signatures.iter().map(|seen| seen.signature.initial_ttl).collect();
        assert_eq!((seen, evidence.changes), (vec![128], 0));
    }

    #[test]
    fn it_takes_24_bytes() {
        assert!(size_of::<Stack>() <= 24, "{}", size_of::<Stack>());
    }

    #[test]
    fn signatures_are_counted_the_latest_first_and_changes_between_them() {
        let (linux, windows) = (sample(LINUX, None, None), sample(WINDOWS, None, None));
        let evidence = told(&[(0, linux), (1, linux), (2, windows), (3, linux)]);
        let seen: Vec<_> =
            evidence.signatures.iter().map(|s| (s.signature.initial_ttl, s.segments)).collect();
        assert_eq!((seen, evidence.changes), (vec![(64, 3), (128, 1)], 2));
    }

    #[test]
    fn a_clock_is_told_by_its_rate_and_when_it_began() {
        let at = |millis: i64, ticks| (millis, sample(LINUX, Some(ticks), Some(0)));
        let evidence = told(&[at(0, 5_000), at(10_000, 7_500), at(70_000, 22_500)]);
        let clock = evidence.clock.expect("a clock");
        assert_eq!((clock.hertz, clock.origin), (250, Timestamp(1_791_273_580_000_000_000)));
        assert_eq!((evidence.timestamp_breaks, evidence.ip_id), (0, IpIdBehaviour::Zero));
    }

    #[test]
    fn timestamps_that_begin_anew_are_no_clock() {
        let at = |millis: i64, ticks| (millis, sample(LINUX, Some(ticks), None));
        let evidence =
            told(&[at(0, 4_000_000_000), at(10_000, 7_500), at(20_000, 900_000_000), at(20_100, 5)]);
        assert_eq!((evidence.clock, evidence.timestamp_breaks), (None, 3));
    }

    #[test]
    fn identifications_are_a_counter_or_have_no_order() {
        let at = |millis: i64, id| (millis, sample(WINDOWS, None, Some(id)));
        assert_eq!(told(&[at(0, 65_530), at(1, 65_535), at(2, 9), at(3, 10)]).ip_id, IpIdBehaviour::Counter);
        assert_eq!(told(&[at(0, 1), at(1, 40_000), at(2, 9), at(3, 20_000)]).ip_id, IpIdBehaviour::Random);
        assert_eq!(told(&[at(0, 1)]).ip_id, IpIdBehaviour::Unknown);
    }
}

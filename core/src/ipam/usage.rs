//! How one address is used in one address space at one attachment: everything that was observed there, bounded. What
//! two of them have behind them, `verdict` judges.

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use super::hours::Hours;
use crate::{
    net::{MacAddress, Name},
    record::{
        IpIdBehaviour, Observation, ObservationEvidence, ObservationKind, StackEvidence, StackSignature,
        Strength, TcpClock,
    },
    time::{NANOS_PER_SECOND, Timestamp},
};

/// Stations that are kept: the strongest and latest.
const MAX_STATIONS: usize = 8;
/// Host names and identifiers of DHCP clients that are kept: the latest.
const MAX_NAMES: usize = 4;
/// Signatures that are kept: the latest.
const MAX_SIGNATURES: usize = 8;
/// Nanoseconds within which another station must answer, for two to take turns: a lease that passes on, or a network
/// card that is replaced, does so once.
const SWAP_WITHIN: i64 = 1_200 * NANOS_PER_SECOND;
/// Nanoseconds after which turns begin anew.
const SWAPS_WITHIN: i64 = 7 * 86_400 * NANOS_PER_SECOND;
/// Nanoseconds for which packets must have come where nobody answers them.
const SHOWN_AFTER: i64 = 3_600 * NANOS_PER_SECOND;

/// One use of an address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Where the address is meant to be unique.
    pub address_space: Name,
    /// Secretariat of the segment, where it was seen last.
    pub secretariat: Option<Name>,
    /// Site.
    pub site: Name,
    /// Segment.
    pub segment: Option<Name>,
    /// VLAN ids, outermost first.
    pub vlans: ArrayVec<u16, 3>,
    /// Of the strongest observation.
    pub strength: Strength,
    /// First packet.
    pub first_seen: Timestamp,
    /// Last packet.
    pub last_seen: Timestamp,
    /// Packets.
    pub packets: u64,
    /// Flows in which both sides spoke.
    pub conversations: u64,
    /// Who was seen with the address, the strongest and latest first.
    pub stations: Vec<Station>,
    /// Times that another station answered within 20 minutes of the one before, as long as no two of them are seven
    /// days apart.
    pub swaps: u32,
    /// When it did last.
    pub last_swap: Option<Timestamp>,
    /// Names that the host gave itself, the latest first.
    pub hostnames: Vec<String>,
    /// Identifiers of the DHCP client, the latest first.
    pub clients: Vec<String>,
    /// Lowest time to live.
    pub ttl_min: Option<u8>,
    /// Highest time to live.
    pub ttl_max: Option<u8>,
    /// Signatures of its SYNs, the latest first.
    pub signatures: Vec<StackUse>,
    /// SYNs with another signature than the one before them.
    pub signature_changes: u64,
    /// The clock behind its timestamps.
    pub clock: Option<ClockUse>,
    /// SYNs whose timestamp could not follow the one before.
    pub timestamp_breaks: u64,
    /// How it fills in IPv4's identification.
    pub ip_id: IpIdBehaviour,
    /// Hours in which it was active.
    pub hours: Hours,
}

/// A station that was seen with an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Station {
    /// Its MAC address.
    pub mac: Option<MacAddress>,
    /// Bit set of the codes of observation kinds that showed it.
    pub kinds: u32,
    /// The kind of the strongest of them.
    pub kind: ObservationKind,
    /// Its strength.
    pub strength: Strength,
    /// First packet.
    pub first_seen: Timestamp,
    /// Last packet.
    pub last_seen: Timestamp,
    /// Last time that it answered for the address, or was leased it.
    pub last_answer: Option<Timestamp>,
}

/// A signature, and when it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackUse {
    /// The signature.
    pub signature: StackSignature,
    /// SYNs with it.
    pub segments: u64,
    /// When it was first told.
    pub first_seen: Timestamp,
    /// When it was last told.
    pub last_seen: Timestamp,
}

/// A clock that timestamps were taken from, and from when to when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockUse {
    /// Ticks a second.
    pub hertz: u32,
    /// When it would have stood at zero, by the last reading.
    pub origin: Timestamp,
    /// First reading.
    pub since: Timestamp,
    /// Last reading.
    pub until: Timestamp,
}

/// Readings of one clock agree within this, and drift by at most 300 parts in a million.
const CLOCK_SLACK: u64 = 5_000_000_000;
const CLOCK_DRIFT: u64 = 300;

impl ClockUse {
    /// Whether two readings are of one clock.
    pub fn is_same(&self, other: &Self) -> bool {
        let apart = |one: Timestamp, other: Timestamp| one.as_nanos().abs_diff(other.as_nanos());
        let drift = apart(self.until, other.until) / 1_000_000 * CLOCK_DRIFT;
        self.hertz == other.hertz && apart(self.origin, other.origin) <= CLOCK_SLACK.saturating_add(drift)
    }

    /// Whether both were read in a time that they have in common.
    pub fn runs_beside(&self, other: &Self) -> bool {
        self.since <= other.until && other.since <= self.until
    }
}

/// Whether a MAC address is a virtual one of a redundancy protocol, which passes from router to router: VRRP and CARP
/// (RFC 9568), HSRP versions 1 and 2 (RFC 2281), GLBP.
pub const fn is_virtual(mac: MacAddress) -> bool {
    matches!(
        mac.0,
        [0x00, 0x00, 0x5e, 0x00, 0x01 | 0x02, _]
            | [0x00, 0x00, 0x0c, 0x07, 0xac, _]
            | [0x00, 0x00, 0x0c, 0x9f, 0xf0..=0xff, _]
            | [0x00, 0x07, 0xb4, 0x00, _, _]
            | [0x00, 0x05, 0x73, 0xa0, 0x00..=0x0f, _]
    )
}

/// Whether an observation of this kind ties an address to the station itself, where traffic may be forwarded.
pub const fn is_of_station(kind: ObservationKind) -> bool {
    matches!(
        kind,
        ObservationKind::ArpRequest
            | ObservationKind::ArpReply
            | ObservationKind::ArpAnnouncement
            | ObservationKind::NeighborSolicitation
            | ObservationKind::NeighborAdvertisement
            | ObservationKind::Dhcp4Lease
            | ObservationKind::Dhcp6Lease
    )
}

impl Station {
    fn of(observation: &Observation) -> Self {
        Self {
            mac: observation.mac,
            kinds: observation.kind.bit(),
            kind: observation.kind,
            strength: observation.strength,
            first_seen: observation.first_seen,
            last_seen: observation.last_seen,
            last_answer: is_answer(observation).then_some(observation.last_seen),
        }
    }

    /// Whether any observation ties the address to this station itself.
    pub fn is_own(&self) -> bool {
        ObservationKind::ALL.iter().any(|&kind| is_of_station(kind) && self.kinds & kind.bit() != 0)
    }
}

/// Whether an observation shows that a station has the address, and not only that packets have it.
pub fn is_answer(observation: &Observation) -> bool {
    observation.strength == Strength::Strong && is_of_station(observation.kind)
}

/// Whether a use of this strength, seen from the one moment to the other, counts: see [`Usage::is_shown`]. `names_itself` says
/// whether a station named itself on its link.
pub(super) fn is_shown(
    strength: Strength,
    (first, last): (Timestamp, Timestamp),
    names_itself: impl FnOnce() -> bool,
) -> bool {
    match strength {
        Strength::Weak => false,
        Strength::Medium => last.since(first) > SHOWN_AFTER || names_itself(),
        Strength::Strong => true,
    }
}

/// Puts the latest of a few names first.
fn keep_latest(names: &mut Vec<String>, name: Option<&String>) {
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        names.retain(|known| known != name);
        names.insert(0, name.clone());
        names.truncate(MAX_NAMES);
    }
}

impl Usage {
    /// A use that was just seen for the first time.
    pub fn first(observation: &Observation) -> Self {
        let mut usage = Self {
            address_space: observation.address_space.clone(),
            secretariat: None,
            site: observation.site.clone(),
            segment: observation.segment.clone(),
            vlans: ArrayVec::new(),
            strength: observation.strength,
            first_seen: observation.first_seen,
            last_seen: observation.last_seen,
            packets: 0,
            conversations: 0,
            stations: Vec::with_capacity(1),
            swaps: 0,
            last_swap: None,
            hostnames: Vec::new(),
            clients: Vec::new(),
            ttl_min: None,
            ttl_max: None,
            signatures: Vec::new(),
            signature_changes: 0,
            clock: None,
            timestamp_breaks: 0,
            ip_id: IpIdBehaviour::Unknown,
            hours: Hours::default(),
        };
        usage.add(observation);
        usage
    }

    /// Whether an observation belongs to it.
    pub fn is_of(&self, observation: &Observation) -> bool {
        (&self.address_space, &self.site, &self.segment)
            == (&observation.address_space, &observation.site, &observation.segment)
    }

    /// One more observation of it.
    pub fn add(&mut self, observation: &Observation) {
        if observation.secretariat.is_some() {
            self.secretariat.clone_from(&observation.secretariat);
        }
        self.vlans.clone_from(&observation.vlans);
        self.strength = self.strength.max(observation.strength);
        self.count_swap(observation);
        self.first_seen = self.first_seen.min(observation.first_seen);
        self.last_seen = self.last_seen.max(observation.last_seen);
        self.packets = self.packets.saturating_add(observation.packets);
        self.conversations = self.conversations.saturating_add(observation.conversations);
        // A question is no activity.
        if observation.strength > Strength::Weak {
            self.hours.add(observation.last_seen, observation.active_hours);
        }
        self.ttl_min = self.ttl_min.into_iter().chain(observation.ttl_min).min();
        self.ttl_max = self.ttl_max.max(observation.ttl_max);
        if observation.strength > Strength::Weak {
            keep_latest(&mut self.hostnames, observation.hostname.as_ref());
            keep_latest(&mut self.clients, observation.duid.as_ref());
        }
        self.add_station(observation);
        if let Some(stack) = &observation.stack {
            self.add_stack(stack, observation.last_seen);
        }
    }

    /// Counts a turn between stations that answer for the address, each soon after the other.
    fn count_swap(&mut self, observation: &Observation) {
        let is_one = |mac: Option<MacAddress>| mac.is_some_and(|mac| !is_virtual(mac));
        if !is_answer(observation) || !is_one(observation.mac) {
            return;
        }
        let answered = self.stations.iter().filter_map(|held| Some((held.last_answer?, held.mac)));
        let Some((last, mac)) = answered.filter(|(_, mac)| is_one(*mac)).max() else { return };
        let gap = observation.last_seen.since(last);
        if mac != observation.mac && (1..=SWAP_WITHIN).contains(&gap) {
            let goes_on =
                self.last_swap.is_some_and(|last| observation.last_seen.since(last) <= SWAPS_WITHIN);
            self.swaps = if goes_on { self.swaps.saturating_add(1) } else { 1 };
            self.last_swap = Some(observation.last_seen);
        }
    }

    fn add_station(&mut self, observation: &Observation) {
        match self.stations.iter_mut().find(|held| held.mac == observation.mac) {
            Some(held) => {
                held.kinds |= observation.kind.bit();
                held.first_seen = held.first_seen.min(observation.first_seen);
                held.last_seen = held.last_seen.max(observation.last_seen);
                if is_answer(observation) {
                    held.last_answer = held.last_answer.max(Some(observation.last_seen));
                }
                if observation.strength > held.strength {
                    (held.strength, held.kind) = (observation.strength, observation.kind);
                }
            }
            None => self.stations.push(Station::of(observation)),
        }
        self.stations.sort_by(|a, b| {
            let rank = |station: &Station| (station.strength, station.last_seen);
            rank(b).cmp(&rank(a)).then(a.mac.cmp(&b.mac))
        });
        self.stations.truncate(MAX_STATIONS);
    }

    fn add_stack(&mut self, stack: &StackEvidence, time: Timestamp) {
        for seen in stack.signatures.iter().rev() {
            let at = self.signatures.iter().position(|held| held.signature == seen.signature);
            let mut held = match at {
                Some(at) => self.signatures.remove(at),
                None => {
                    StackUse { signature: seen.signature, segments: 0, first_seen: time, last_seen: time }
                }
            };
            held.segments = held.segments.saturating_add(seen.segments.into());
            held.last_seen = held.last_seen.max(time);
            self.signatures.insert(0, held);
        }
        self.signatures.truncate(MAX_SIGNATURES);
        self.signature_changes = self.signature_changes.saturating_add(stack.changes.into());
        self.timestamp_breaks = self.timestamp_breaks.saturating_add(stack.timestamp_breaks.into());
        if let Some(TcpClock { hertz, origin }) = stack.clock {
            let read = ClockUse { hertz, origin, since: time, until: time };
            let same = self.clock.as_ref().filter(|held| held.is_same(&read));
            let since = same.map_or(time, |held| held.since.min(time));
            self.clock = Some(ClockUse { since, ..read });
        } else if stack.timestamp_breaks > 0 {
            self.clock = None;
        }
        if stack.ip_id != IpIdBehaviour::Unknown {
            self.ip_id = stack.ip_id;
        }
    }

    /// Whether it is a use that counts: something answered, a station named itself on its link, or packets that nobody
    /// answered came for more than an hour. A single packet with the address anyone can send.
    pub fn is_shown(&self) -> bool {
        is_shown(self.strength, (self.first_seen, self.last_seen), || {
            self.stations.iter().any(Station::is_own)
        })
    }

    /// What was seen of each station, for the evidence of a finding.
    pub fn evidence(&self, address: std::net::IpAddr) -> impl Iterator<Item = ObservationEvidence> + '_ {
        self.stations.iter().map(move |station| ObservationEvidence {
            address_space: self.address_space.clone(),
            site: self.site.clone(),
            segment: self.segment.clone(),
            kind: station.kind,
            strength: station.strength,
            address,
            mac: station.mac,
            first_seen: station.first_seen,
            last_seen: station.last_seen,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipam::observation;

    const ONE: u8 = 1;
    const OTHER: u8 = 2;

    fn answer(mac: u8, minute: i64) -> Observation {
        Observation {
            mac: Some(MacAddress([2, 0, 0, 0, 0, mac])),
            ..observation(ObservationKind::ArpReply, minute * 60)
        }
    }

    fn swaps(answers: &[(u8, i64)]) -> u32 {
        let mut all = answers.iter().map(|&(mac, minute)| answer(mac, minute));
        let mut usage = Usage::first(&all.next().expect("one"));
        all.for_each(|seen| usage.add(&seen));
        usage.swaps
    }

    #[test]
    fn stations_take_turns_where_each_answers_soon_after_the_other() {
        assert_eq!(swaps(&[(ONE, 0), (OTHER, 5), (ONE, 10), (OTHER, 15)]), 3);
        assert_eq!(swaps(&[(ONE, 0), (ONE, 5), (OTHER, 10)]), 1, "a new card");
        assert_eq!(swaps(&[(ONE, 0), (OTHER, 60), (ONE, 120), (OTHER, 180)]), 0, "a lease that passes on");
        assert_eq!(swaps(&[(ONE, 0), (OTHER, 5), (OTHER, 11_000), (ONE, 11_005)]), 1, "turns of long ago");
    }

    #[test]
    fn what_a_station_asks_or_forwards_is_no_turn() {
        let mut usage = Usage::first(&answer(ONE, 0));
        let probe =
            Observation { strength: Strength::Weak, kind: ObservationKind::ArpProbe, ..answer(OTHER, 1) };
        usage.add(&probe);
        usage.add(&Observation { kind: ObservationKind::Traffic, ..answer(OTHER, 2) });
        assert_eq!(usage.swaps, 0);
        usage.add(&answer(OTHER, 3));
        assert_eq!(usage.swaps, 1, "that it had asked before makes no difference");
    }

    #[test]
    fn virtual_routers_pass_an_address_on_without_a_turn() {
        let vrrp =
            |minute| Observation { mac: Some(MacAddress([0, 0, 0x5e, 0, 1, 7])), ..answer(ONE, minute) };
        let mut usage = Usage::first(&answer(ONE, 0));
        for minute in 1..6 {
            usage.add(&vrrp(minute * 2));
            usage.add(&answer(ONE, minute * 2 + 1));
        }
        assert_eq!(usage.swaps, 0);
    }

    #[test]
    fn packets_that_nobody_answers_count_where_they_last() {
        let traffic = |second| observation(ObservationKind::Traffic, second);
        let mut usage = Usage::first(&traffic(0));
        usage.add(&traffic(3_600));
        assert!(!usage.is_shown());
        usage.add(&traffic(3_601));
        assert!(usage.is_shown());
        let request = Observation { mac: answer(ONE, 0).mac, ..observation(ObservationKind::ArpRequest, 0) };
        assert!(Usage::first(&request).is_shown());
        assert!(!Usage::first(&observation(ObservationKind::ArpProbe, 0)).is_shown());
    }

    #[test]
    fn a_clock_is_one_as_long_as_its_origin_stays_and_is_lost_by_what_cannot_follow() {
        let told = |second: i64, origin: Option<i64>, breaks| {
            let clock =
                origin.map(|origin| TcpClock { hertz: 1000, origin: Timestamp::from_parts(origin, 0) });
            let stack = StackEvidence { clock, timestamp_breaks: breaks, ..StackEvidence::default() };
            Observation { stack: Some(Box::new(stack)), ..observation(ObservationKind::Traffic, second) }
        };
        let mut usage = Usage::first(&told(10_000, Some(0), 0));
        usage.add(&told(20_000, Some(4), 0));
        let clock = usage.clock.expect("a clock");
        assert_eq!(
            (clock.since, clock.until),
            (Timestamp::from_parts(10_000, 0), Timestamp::from_parts(20_000, 0))
        );
        usage.add(&told(30_000, Some(29_000), 0));
        assert_eq!(usage.clock.expect("a clock").since, Timestamp::from_parts(30_000, 0), "started anew");
        usage.add(&told(40_000, None, 2));
        assert_eq!((usage.clock, usage.timestamp_breaks), (None, 2));
    }
}

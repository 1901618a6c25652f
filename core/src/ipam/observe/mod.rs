//! The observer: evidence that addresses are in use, out of ARP, NDP and DHCP messages, and passively out of
//! flows whose packets arrive on inside segments.
//!
//! An observation is told when its address is first seen, then again with what has gathered since, so that the
//! counts of all its parts add up to the packets seen. (Only an observation that gave way to others while its
//! first flow was still going counts that flow's first packet twice.)

mod ahead;
mod config;
mod key;
mod messages;
mod stack;
mod stations;
mod sums;
mod table;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

pub use ahead::Ahead;
use ahead::Looked;
pub use config::ObserveConfig;
use key::{Key, Spot};
use messages::Statement;
pub(crate) use messages::{may_state, may_state_by};
use stations::{Standing, Station, Stations};
pub use table::ObservationSink;
use table::{Output, Sighting, Table, Verdict};

use super::{
    place::{Came, Place, Places},
    registry::{AddressClass, classify},
};
use crate::{
    decode::{ArpPacket, InterfaceIndex, IpPacket, Link},
    flow::{FlowContext, FlowEvent, Party},
    net::{MacAddress, Name},
    plan::Role,
    record::{ConnState, ObservationKind},
    time::{NANOS_PER_SECOND, Timestamp},
};

/// IP protocol number of TCP.
const TCP: u8 = 6;

/// Where and when a packet was seen.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Packet time.
    pub now: Timestamp,
    /// Interface.
    pub interface: InterfaceIndex,
    /// Its link header.
    pub link: &'a Link,
    /// Its place.
    pub place: Place,
}

/// What a message states, with where and when the message was seen; it does without the packet.
#[derive(Debug)]
pub(crate) struct Stated {
    now: Timestamp,
    interface: InterfaceIndex,
    link: Link,
    place: Place,
    statement: Statement,
}

impl Stated {
    /// What an ARP packet states.
    pub(crate) fn by_arp(seen: &Seen<'_>, arp: &ArpPacket) -> Option<Self> {
        messages::of_arp(arp).map(|statement| Self::new(seen, statement))
    }

    /// What an NDP or DHCP message in an IP packet states.
    pub(crate) fn by_packet(seen: &Seen<'_>, packet: &IpPacket<'_>) -> impl Iterator<Item = Self> {
        messages::of_ip(packet, seen.link).into_iter().map(|statement| Self::new(seen, statement))
    }

    fn new(seen: &Seen<'_>, statement: Statement) -> Self {
        let &Seen { now, interface, link, place } = seen;
        Self { now, interface, link: link.clone(), place, statement }
    }
}

/// Watches addresses in use at one sensor. Names in what it tells come from the [`Places`] it is given, which
/// must be compiled from one plan until [`Observer::restart`].
#[derive(Clone, Debug)]
pub struct Observer {
    site: Name,
    enabled: bool,
    table: Table,
    stations: Stations,
}

impl Observer {
    /// Watches nothing yet; `seed` keys its hash tables.
    pub fn new(site: Name, config: &ObserveConfig, seed: [u64; 4]) -> Self {
        let limit = config.limit as usize;
        let nanos = |seconds: u32| i64::from(seconds).saturating_mul(NANOS_PER_SECOND);
        Self {
            site,
            enabled: config.enabled,
            table: Table::new(limit, nanos(config.report_seconds), nanos(config.hold_seconds), seed),
            stations: Stations::new(limit.min(65_536), seed),
        }
    }

    /// Observations in memory, observations that gave way to others, and sightings that were no evidence because
    /// they came from the edge.
    pub fn counts(&self) -> (usize, u64, u64) {
        (self.table.len(), self.table.forgotten(), self.table.discarded())
    }

    /// Where packets of this station come from, by configuration, or else by what the station has shown. Without a
    /// plan it makes no difference to what a flow is, and is not looked up.
    pub fn came(&self, interface: InterfaceIndex, link: &Link, mac: MacAddress, places: &Places) -> Came {
        if !places.has_plan() {
            return Came::FromSegment;
        }
        match standing(&self.stations, places, interface, link.vlans.first().copied(), mac) {
            Standing::Edge => Came::FromEdge,
            Standing::Segment | Standing::Unknown => Came::FromSegment,
        }
    }

    /// An ARP packet.
    pub fn on_arp(
        &mut self,
        seen: &Seen<'_>,
        arp: &ArpPacket,
        places: &Places,
        sink: &mut ObservationSink<'_>,
    ) {
        if self.enabled
            && let Some(statement) = messages::of_arp(arp)
        {
            self.take(seen, statement, places, sink);
        }
    }

    /// An IP packet, of which NDP and DHCP messages are read. Costs a compare or two for all others.
    pub fn on_packet(
        &mut self,
        seen: &Seen<'_>,
        packet: &IpPacket<'_>,
        places: &Places,
        sink: &mut ObservationSink<'_>,
    ) {
        if self.enabled && messages::may_state(packet) {
            for statement in messages::of_ip(packet, seen.link) {
                self.take(seen, statement, places, sink);
            }
        }
    }

    /// What a message stated, which was read where the packet was.
    pub(crate) fn on_stated(&mut self, stated: Stated, places: &Places, sink: &mut ObservationSink<'_>) {
        if self.enabled {
            let Stated { now, interface, ref link, place, statement } = stated;
            self.take(&Seen { now, interface, link, place }, statement, places, sink);
        }
    }

    /// Whether traffic of an address on an interface can be evidence.
    pub fn counts_traffic(&self, interface: InterfaceIndex, ip: IpAddr, places: &Places) -> bool {
        self.enabled
            && places.role(interface) != Role::Outside
            && (classify(ip).is_private() || places.is_own_public(ip))
    }

    /// What happened to a flow: evidence by traffic.
    pub fn on_flow(
        &mut self,
        event: FlowEvent,
        flow: &FlowContext,
        places: &Places,
        sink: &mut ObservationSink<'_>,
    ) {
        let mut ahead = Ahead::default();
        self.look(event, flow, places, &mut ahead);
        self.on_event(event, flow, (&ahead, 0), places, sink);
    }

    /// The same where what is looked up was made ahead, and stands there at this place.
    pub(crate) fn on_event(
        &mut self,
        event: FlowEvent,
        flow: &FlowContext,
        (ahead, at): (&Ahead, usize),
        places: &Places,
        sink: &mut ObservationSink<'_>,
    ) {
        if !self.enabled || flow.role == Role::Outside {
            return;
        }
        let (originator, responder) = (&flow.originator, &flow.responder);
        let [of_originator, of_responder] = ahead.of(at);
        match event {
            FlowEvent::Started | FlowEvent::Answered => {
                let (source, destination, looked) = match flow.by_originator {
                    Some(true) => (originator, responder, of_originator),
                    Some(false) => (responder, originator, of_responder),
                    None => return,
                };
                // The packet that raised the event is the flow's first, or else its last so far.
                let time = if event == FlowEvent::Started { flow.start } else { flow.last };
                let shown = self.learn(looked, source, destination);
                self.begin(flow, source, looked, shown, time, places, sink);
            }
            FlowEvent::Moved | FlowEvent::Collapsed | FlowEvent::Reported(_) => {
                let (mut shown, mut other) = (None, None);
                // A side whose packets all came from one station has taught what it shows when it was first heard;
                // so it is looked up again only where evidence hangs on it.
                let moved = |party: &Party| party.packets_by_mac != party.packets;
                if needs_standing(flow, originator)
                    || needs_standing(flow, responder)
                    || moved(originator)
                    || moved(responder)
                {
                    shown = self.learn(of_originator, originator, responder);
                    other = self.learn(of_responder, responder, originator);
                    // Where both sides are one station, it has learned again since.
                    shown = shown.filter(|_| originator.mac != responder.mac);
                }
                let conversed = matches!(event, FlowEvent::Reported(_)) && both_spoke(flow);
                self.count(flow, originator, (of_originator, shown), conversed, places, sink);
                self.count(flow, responder, (of_responder, other), conversed, places, sink);
            }
            FlowEvent::Established | FlowEvent::Refused | FlowEvent::Unanswered => {}
        }
    }

    /// Packet time has moved on: tells what has gathered for long enough. Cheap where nothing is due.
    pub fn advance(&mut self, now: Timestamp, places: &Places, sink: &mut ObservationSink<'_>) {
        let Self { site, table, stations, .. } = self;
        let mut out = Output { site, places, sink };
        table.advance(now, &mut |key| judge_late(stations, places, key), &mut out);
    }

    /// Tells whatever has gathered; the observer can go on afterwards.
    pub fn finish(&mut self, places: &Places, sink: &mut ObservationSink<'_>) {
        let Self { site, table, stations, .. } = self;
        let mut out = Output { site, places, sink };
        table.finish(&mut |key| judge_late(stations, places, key), &mut out);
    }

    /// Tells whatever has gathered under the plan so far and begins anew: the plan is about to change.
    pub fn restart(
        &mut self,
        config: &ObserveConfig,
        seed: [u64; 4],
        places: &Places,
        sink: &mut ObservationSink<'_>,
    ) {
        self.finish(places, sink);
        self.table.clear();
        *self = Self::new(self.site.clone(), config, seed);
    }

    /// Learns from packets of one side; what the station has shown, where that was looked up.
    fn learn(&mut self, looked: Looked<'_>, source: &Party, destination: &Party) -> Option<Standing> {
        let &(station, hash) = looked.station?;
        self.stations.learn(hash, station, source.locality, destination.locality)
    }

    #[expect(clippy::too_many_arguments, reason = "a side of a flow, and where what it shows goes")]
    fn begin(
        &mut self,
        flow: &FlowContext,
        party: &Party,
        looked: Looked<'_>,
        shown: Option<Standing>,
        time: Timestamp,
        places: &Places,
        sink: &mut ObservationSink<'_>,
    ) {
        let Some(&(key, hash)) = looked.key else { return };
        let verdict = self.judge(flow, party, looked, shown, places);
        let sighting = Sighting { packets: 1, stack: flow.stack, ..sighting(flow, party) };
        let mut out = Output { site: &self.site, places, sink };
        self.table.begin(hash, key, Sighting { first: time, last: time, ..sighting }, verdict, &mut out);
    }

    fn count(
        &mut self,
        flow: &FlowContext,
        party: &Party,
        (looked, shown): (Looked<'_>, Option<Standing>),
        conversed: bool,
        places: &Places,
        sink: &mut ObservationSink<'_>,
    ) {
        if party.packets_by_mac > 0
            && let Some(&(key, hash)) = looked.key
        {
            let verdict = self.judge(flow, party, looked, shown, places);
            let mut out = Output { site: &self.site, places, sink };
            let sighting = Sighting { conversed, ..sighting(flow, party) };
            self.table.count(flow.now, hash, key, sighting, true, verdict, &mut out);
        }
    }

    /// Whether traffic of this side is evidence of what it would be evidence of. `shown` is what its station has
    /// shown, where that is at hand.
    fn judge(
        &self,
        flow: &FlowContext,
        party: &Party,
        looked: Looked<'_>,
        shown: Option<Standing>,
        places: &Places,
    ) -> Verdict {
        let Some(mac) = party.mac.filter(|_| needs_standing(flow, party)) else { return Verdict::Use };
        let held = || match looked.station {
            Some((station, hash)) => self.stations.standing_hashed(*hash, station),
            None => self.stations.standing(&Station::new(flow.interface, flow.vlans.first().copied(), mac)),
        };
        match by_configuration(places, flow.interface, mac).or(shown).unwrap_or_else(held) {
            Standing::Edge => Verdict::Discard,
            Standing::Segment => Verdict::Use,
            Standing::Unknown => Verdict::Hold,
        }
    }

    /// Takes what a message states, unless it states it about another segment.
    fn take(
        &mut self,
        seen: &Seen<'_>,
        statement: Statement,
        places: &Places,
        sink: &mut ObservationSink<'_>,
    ) {
        let special = classify(statement.address);
        let secretariat = seen.place.secretariat.or_else(|| places.secretariat_of(statement.address));
        if places.role(seen.interface) == Role::Outside
            || !special.is_unicast()
            || special.class == AddressClass::Loopback
            || self.is_elsewhere(seen, &statement, secretariat, places)
        {
            return;
        }
        let spot = Spot {
            space: places.space_of(secretariat),
            segment: seen.place.segment,
            secretariat,
            interface: seen.interface,
        };
        let key = Key::new(statement.kind, statement.address, statement.mac, spot, &seen.link.vlans);
        let Statement { details, .. } = statement;
        let (first, last) = (seen.now, seen.now);
        let sighting =
            Sighting { first, last, packets: 1, ttl: (0, 0), conversed: false, stack: None, details };
        let mut out = Output { site: &self.site, places, sink };
        let hash = self.table.hash_of(&key);
        self.table.count(seen.now, hash, key, sighting, false, Verdict::Use, &mut out);
    }

    /// Whether a message is about an address of another segment: a proxy answers for it, or DHCP passes between
    /// a server here and a client elsewhere, or the other way round.
    fn is_elsewhere(
        &self,
        seen: &Seen<'_>,
        statement: &Statement,
        secretariat: Option<u16>,
        places: &Places,
    ) -> bool {
        let side = |mac: Option<MacAddress>| {
            mac.map_or(Standing::Unknown, |mac| {
                standing(&self.stations, places, seen.interface, seen.link.vlans.first().copied(), mac)
            })
        };
        let (from, to) = (side(seen.link.source_mac), side(seen.link.destination_mac));
        let of_others = || places.is_claimed_by_others_only(statement.address, secretariat);
        let relayed = statement.details.as_ref().is_some_and(|d| d.relay.is_some());
        match statement.kind {
            ObservationKind::ArpReply | ObservationKind::NeighborAdvertisement => {
                from == Standing::Edge && of_others()
            }
            ObservationKind::Dhcp4Lease | ObservationKind::Dhcp6Lease => {
                let to_client =
                    seen.link.destination_mac.is_some_and(|mac| mac.is_group() || Some(mac) == statement.mac);
                to == Standing::Edge || (!to_client && from != Standing::Edge && of_others())
            }
            ObservationKind::Dhcp4Request
            | ObservationKind::Dhcp6Request
            | ObservationKind::Dhcp4Release
            | ObservationKind::Dhcp6Release => from == Standing::Edge || (relayed && of_others()),
            ObservationKind::DhcpServer => relayed || from == Standing::Edge || of_others(),
            _ => false,
        }
    }
}

/// What traffic of this side would be evidence of.
fn key_of(flow: &FlowContext, party: &Party, places: &Places) -> Option<Key> {
    let special = classify(party.ip);
    let is_one_station = special.is_unicast() && special.class != AddressClass::Loopback;
    if !(special.is_private() || is_one_station && places.is_own_public(party.ip)) {
        return None;
    }
    let spot = Spot {
        space: places.space_of(party.secretariat),
        segment: party.segment,
        secretariat: party.secretariat,
        interface: flow.interface,
    };
    Some(Key::new(ObservationKind::Traffic, party.ip, party.mac, spot, &flow.vlans))
}

/// Whether it must be known which side of the link a party is on before its traffic is evidence: not where neither
/// role nor plan says what the sides are.
fn needs_standing(flow: &FlowContext, party: &Party) -> bool {
    flow.role != Role::Unknown || party.segment.is_some()
}

/// Which side a station is on: by configuration where that names the router, or else by what it has shown.
fn standing(
    stations: &Stations,
    places: &Places,
    interface: InterfaceIndex,
    vlan: Option<u16>,
    mac: MacAddress,
) -> Standing {
    by_configuration(places, interface, mac)
        .unwrap_or_else(|| stations.standing(&Station::new(interface, vlan, mac)))
}

fn by_configuration(places: &Places, interface: InterfaceIndex, mac: MacAddress) -> Option<Standing> {
    let is_router = places.knows_router(interface).then(|| places.is_router(interface, mac))?;
    Some(if is_router { Standing::Edge } else { Standing::Segment })
}

/// The verdict when holding ends: a station that has shown nothing is believed, but not about an address that
/// the plan gives to others alone, because that is how forwarded traffic looks.
fn judge_late(stations: &Stations, places: &Places, key: &Key) -> Verdict {
    let (spot, vlan) = (key.spot(), key.vlans().first().copied());
    match key.mac().map(|mac| standing(stations, places, spot.interface, vlan, mac)) {
        Some(Standing::Edge) => Verdict::Discard,
        Some(Standing::Unknown) if places.is_claimed_by_others_only(key.address(), spot.secretariat) => {
            Verdict::Discard
        }
        _ => Verdict::Use,
    }
}

fn sighting(flow: &FlowContext, party: &Party) -> Sighting {
    Sighting {
        first: flow.start,
        last: flow.last,
        packets: party.packets_by_mac,
        ttl: (party.ttl_min, party.ttl_max),
        conversed: false,
        stack: None,
        details: None,
    }
}

/// Whether packets of a flow went both ways, and for TCP behind a handshake: whoever forges a source hears no answer.
fn both_spoke(flow: &FlowContext) -> bool {
    let has_packets = flow.originator.packets > 0 && flow.responder.packets > 0;
    let is_established = || flow.conn_state.was_established() || flow.conn_state == ConnState::Oth;
    has_packets && (flow.protocol != TCP || is_established())
}

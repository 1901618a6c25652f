//! Places: which segment, secretariat, address space and flow scope a packet belongs to, and whether an address
//! is ours. Compiled once from the plan and the interfaces; asked for every packet, so a lookup is one indexed
//! load and a few compares, and without a plan a constant.

use std::net::IpAddr;

use super::{
    prefixes::{Prefixes, secretariat_index},
    registry::{AddressClass, classify},
};
use crate::{
    decode::{InterfaceIndex, Link, LinkDirection, Plain},
    net::{MacAddress, Name},
    plan::{AddressPlan, InterfacePlan, Role, Segment},
    record::Locality,
};

/// Name of the address space of everything that no plan places.
pub const DEFAULT_SPACE: &str = "default";

/// Where a packet belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// Index into the plan's segments.
    pub segment: Option<u16>,
    /// Index into the plan's secretariats: the segment's.
    pub secretariat: Option<u16>,
    /// Index for [`Places::space_name`]; 0 is [`DEFAULT_SPACE`].
    pub space: u16,
    /// What flows are kept apart by: two packets of one flow always have the same scope, whichever way they go
    /// and whichever segment of one address space they take.
    pub scope: u16,
}

/// Scopes without a segment: role not stated, outside, inside but on no segment. Spaces follow.
const SCOPE_UNKNOWN: u16 = 0;
const SCOPE_OUTSIDE: u16 = 1;
const SCOPE_INSIDE: u16 = 2;
const SCOPE_FIRST_SPACE: u16 = 3;

/// Where the packets of one side of a flow come from, on their link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// It has sent none yet, or the link has no MAC addresses to tell by.
    Unheard,
    /// Forwarded by the edge router.
    FromEdge,
    /// From another station of the link.
    FromSegment,
}

/// What one side of a flow is to the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    /// Ours or not.
    pub locality: Locality,
    /// Segment it is on; none for an address that is not ours or that came from the edge.
    pub segment: Option<u16>,
    /// Secretariat: of the segment, or else of the longest prefix that one secretariat alone claims.
    pub secretariat: Option<u16>,
}

/// Conditions of one segment beside its interface.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    vlan: Option<u16>,
    inner_vlan: Option<u16>,
    mpls_label: Option<u32>,
    tunnel_id: Option<u32>,
    mac: Option<MacAddress>,
    place: Place,
}

impl Candidate {
    fn matches(&self, link: &Link, tunnel_id: Option<u32>) -> bool {
        self.vlan.is_none_or(|vlan| link.vlans.first() == Some(&vlan))
            && self.inner_vlan.is_none_or(|vlan| link.vlans.get(1) == Some(&vlan))
            && self.mpls_label.is_none_or(|label| link.mpls_labels.first() == Some(&label))
            && self.tunnel_id.is_none_or(|id| tunnel_id == Some(id))
            && self.mac.is_none_or(|mac| link.source_mac == Some(mac) || link.destination_mac == Some(mac))
    }
}

/// What is compiled for one interface.
#[derive(Clone, Debug)]
struct InterfacePlaces {
    name: Name,
    role: Role,
    router_macs: Vec<MacAddress>,
    /// Place of packets that match no segment.
    otherwise: Place,
    /// Ranges into `candidates` by outer VLAN id; 0 for packets without one and those no segment names. Empty
    /// where no segment states a VLAN: then every packet has range 0.
    by_vlan: Vec<u16>,
    ranges: Vec<(u32, u32)>,
    candidates: Vec<Candidate>,
}

/// The plan, compiled for one sensor.
#[derive(Clone, Debug, Default)]
pub struct Places {
    interfaces: Vec<InterfacePlaces>,
    prefixes: Prefixes,
    spaces: Vec<Name>,
    segments: Vec<Name>,
    secretariats: Vec<Name>,
    /// Space of each secretariat.
    space_of: Vec<u16>,
    has_plan: bool,
    /// Whether any claim or public prefix says whose an address is.
    has_prefixes: bool,
    has_segments: bool,
}

impl Places {
    /// Compiles the plan for the interfaces of one sensor, in the order of their indices. To be built anew when
    /// an interface comes or the plan changes.
    pub fn new(plan: &AddressPlan, site: &str, interfaces: &[InterfacePlan]) -> Self {
        let mut spaces: Vec<Name> = vec![DEFAULT_SPACE.into()];
        let mut space_of = Vec::with_capacity(plan.secretariats.len());
        for secretariat in &plan.secretariats {
            let name = secretariat.address_space();
            let at = spaces.iter().position(|known| known == name).unwrap_or_else(|| {
                spaces.push(name.clone());
                spaces.len() - 1
            });
            space_of.push(u16::try_from(at).unwrap_or(0));
        }
        let interfaces = interfaces.iter().map(|i| InterfacePlaces::new(plan, site, i, &space_of)).collect();
        let prefixes = Prefixes::new(plan);
        Self {
            interfaces,
            has_prefixes: !prefixes.is_empty(),
            prefixes,
            spaces,
            segments: plan.segments.iter().map(|s| s.id.clone()).collect(),
            secretariats: plan.secretariats.iter().map(|s| s.id.clone()).collect(),
            space_of,
            has_segments: plan.segments.iter().any(|segment| *segment.site == *site),
            has_plan: !plan.segments.is_empty() || !plan.prefixes.is_empty(),
        }
    }

    /// The place of a packet by its link header and the number of the tunnel around it (none for the outermost
    /// packet). The segment with the most conditions wins; among equals tunnel id, MPLS label, inner VLAN, VLAN,
    /// MAC and interface count in this order, then the order of the plan. Work grows with the segments of one
    /// interface that share an outer VLAN (or state none), which is one in most plans.
    pub fn locate(&self, interface: InterfaceIndex, link: &Link, tunnel_id: Option<u32>) -> Place {
        let Some(places) = self.interfaces.get(usize::from(interface.0)) else {
            return Place::default();
        };
        if places.candidates.is_empty() {
            return places.otherwise;
        }
        let range = match link.vlans.first() {
            Some(&vlan) => places.by_vlan.get(usize::from(vlan)).copied().unwrap_or(0),
            None => 0,
        };
        let (from, to) = places.ranges.get(usize::from(range)).copied().unwrap_or((0, 0));
        let candidates = places.candidates.get(from as usize..to as usize).unwrap_or(&[]);
        candidates.iter().find(|c| c.matches(link, tunnel_id)).map_or(places.otherwise, |c| c.place)
    }

    /// The same for a plain packet, whose link header is made only where a segment may ask for it.
    #[inline]
    pub(crate) fn locate_plain(&self, packet: &Plain) -> Place {
        match self.interfaces.get(usize::from(packet.interface.0)) {
            Some(places) if places.candidates.is_empty() => places.otherwise,
            _ => self.locate(packet.interface, &packet.link(), None),
        }
    }

    /// Side of the edge that the interface is on.
    pub fn role(&self, interface: InterfaceIndex) -> Role {
        self.interfaces.get(usize::from(interface.0)).map_or(Role::Unknown, |i| i.role)
    }

    /// Whether this is a MAC address of the edge router, by configuration.
    pub fn is_router(&self, interface: InterfaceIndex, mac: MacAddress) -> bool {
        self.interfaces.get(usize::from(interface.0)).is_some_and(|i| i.router_macs.contains(&mac))
    }

    /// Whether the configuration states router MAC addresses for the interface.
    pub fn knows_router(&self, interface: InterfaceIndex) -> bool {
        self.interfaces.get(usize::from(interface.0)).is_some_and(|i| !i.router_macs.is_empty())
    }

    /// On an outside interface, whether a packet is leaving (`true`) or arriving (`false`): by router MAC where
    /// one is stated, or else by the way the source states. None elsewhere, and where neither says.
    pub fn leaving(&self, interface: InterfaceIndex, link: &Link) -> Option<bool> {
        let places = self.interfaces.get(usize::from(interface.0))?;
        if places.role != Role::Outside {
            return None;
        }
        let is_router = |mac: Option<MacAddress>| mac.is_some_and(|m| places.router_macs.contains(&m));
        if !places.router_macs.is_empty() {
            return match (is_router(link.source_mac), is_router(link.destination_mac)) {
                (true, false) => Some(true),
                (false, true) => Some(false),
                _ => None,
            };
        }
        match link.direction {
            LinkDirection::Sent => Some(true),
            LinkDirection::Received => Some(false),
            LinkDirection::Unknown => None,
        }
    }

    /// Whether an address is ours. Ours are the plan's prefixes (claimed or public), RFC 1918 and ULA; on a
    /// segment or an inside interface also shared (RFC 6598) and link-local addresses. Other addresses that are
    /// not unicast or not globally reachable are undecided; the rest are not ours.
    #[inline]
    pub fn locality(&self, ip: &IpAddr, place: Place) -> Locality {
        match classify(*ip).class {
            AddressClass::Private => Locality::Inside,
            AddressClass::Global if !self.has_prefixes => Locality::Outside,
            class => self.locality_of(class, ip, place),
        }
    }

    #[inline(never)]
    fn locality_of(&self, class: AddressClass, ip: &IpAddr, place: Place) -> Locality {
        let on_inside = place.scope >= SCOPE_INSIDE;
        match class {
            AddressClass::Private | AddressClass::UniqueLocal => Locality::Inside,
            AddressClass::Shared | AddressClass::LinkLocal if on_inside => Locality::Inside,
            AddressClass::Multicast | AddressClass::Broadcast | AddressClass::Unspecified => {
                Locality::Unknown
            }
            _ if self.has_prefixes && self.prefixes.covers(*ip) => Locality::Inside,
            AddressClass::Global => Locality::Outside,
            _ => Locality::Unknown,
        }
    }

    /// What one side of a flow is to the plan, by its address and its own packets' place: `place` is where its
    /// packets arrived (or those of the other side, before it sent any). Asked when a flow starts or is answered,
    /// not for every packet.
    pub fn resident(&self, ip: &IpAddr, place: Place, came: Came) -> Resident {
        let locality = self.locality(ip, place);
        if came == Came::FromSegment && place.segment.is_some() && locality == Locality::Inside {
            return Resident { locality, segment: place.segment, secretariat: place.secretariat };
        }
        let secretariat = match place.secretariat {
            Some(own) if came != Came::FromEdge && self.prefixes.claimed_by(*ip, own) => Some(own),
            _ if self.has_prefixes && locality == Locality::Inside => self.prefixes.owner(*ip),
            _ => None,
        };
        Resident { locality, segment: None, secretariat }
    }

    /// Whether any interface of the sensor is on the inside.
    pub fn sees_inside(&self) -> bool {
        self.interfaces.iter().any(|interface| interface.role == Role::Inside)
    }

    /// Secretariat with the longest prefix that covers the address, where it alone claims that prefix.
    pub fn secretariat_of(&self, ip: IpAddr) -> Option<u16> {
        self.prefixes.owner(ip)
    }

    /// Whether one of our public prefixes covers the address.
    #[inline]
    pub fn is_own_public(&self, ip: IpAddr) -> bool {
        self.prefixes.is_own_public(ip)
    }

    /// Whether the plan claims the address for others and not for this secretariat.
    pub fn is_claimed_by_others_only(&self, ip: IpAddr, secretariat: Option<u16>) -> bool {
        self.prefixes.is_claimed(ip) && !secretariat.is_some_and(|own| self.prefixes.claimed_by(ip, own))
    }

    /// Index of the address space of a secretariat; the default space for none.
    pub fn space_of(&self, secretariat: Option<u16>) -> u16 {
        secretariat.and_then(|s| self.space_of.get(usize::from(s)).copied()).unwrap_or(0)
    }

    /// Name of an address space; the default space's where the index is not known.
    pub fn space_name(&self, space: u16) -> Name {
        self.spaces.get(usize::from(space)).cloned().unwrap_or_else(|| DEFAULT_SPACE.into())
    }

    /// Name of an interface; `unknown` where the index is not known.
    pub fn interface_name(&self, interface: InterfaceIndex) -> Name {
        self.interfaces.get(usize::from(interface.0)).map_or_else(|| "unknown".into(), |i| i.name.clone())
    }

    /// Id of a segment.
    pub fn segment_name(&self, segment: u16) -> Option<&Name> {
        self.segments.get(usize::from(segment))
    }

    /// Id of a secretariat.
    pub fn secretariat_name(&self, secretariat: u16) -> Option<&Name> {
        self.secretariats.get(usize::from(secretariat))
    }

    /// Number here of a scope of an earlier plan; none where its address space is gone.
    pub fn scope_from(&self, earlier: &Self, scope: u16) -> Option<u16> {
        let Some(space) = scope.checked_sub(SCOPE_FIRST_SPACE) else { return Some(scope) };
        Some(SCOPE_FIRST_SPACE.saturating_add(self.space_from(earlier, space)?))
    }

    /// Number here of an address space of an earlier plan.
    pub fn space_from(&self, earlier: &Self, space: u16) -> Option<u16> {
        number_of(&self.spaces, earlier.spaces.get(usize::from(space))?)
    }

    /// Number here of a segment of an earlier plan.
    pub fn segment_from(&self, earlier: &Self, segment: u16) -> Option<u16> {
        number_of(&self.segments, earlier.segments.get(usize::from(segment))?)
    }

    /// Number here of a secretariat of an earlier plan.
    pub fn secretariat_from(&self, earlier: &Self, secretariat: u16) -> Option<u16> {
        number_of(&self.secretariats, earlier.secretariats.get(usize::from(secretariat))?)
    }

    /// Whether packets of this site may have a segment, on any interface.
    pub const fn has_segments(&self) -> bool {
        self.has_segments
    }

    /// Whether the plan places anything: it has segments or claims.
    pub const fn has_plan(&self) -> bool {
        self.has_plan
    }
}

fn number_of(names: &[Name], name: &Name) -> Option<u16> {
    names.iter().position(|known| known == name).and_then(|at| u16::try_from(at).ok())
}

impl InterfacePlaces {
    fn new(plan: &AddressPlan, site: &str, interface: &InterfacePlan, space_of: &[u16]) -> Self {
        let scope = match interface.role {
            Role::Unknown => SCOPE_UNKNOWN,
            Role::Outside => SCOPE_OUTSIDE,
            Role::Inside => SCOPE_INSIDE,
        };
        let mut places = Self {
            name: interface.name.clone(),
            role: interface.role,
            router_macs: interface.router_macs.clone(),
            otherwise: Place { scope, ..Place::default() },
            by_vlan: Vec::new(),
            ranges: Vec::new(),
            candidates: Vec::new(),
        };
        let mut candidates: Vec<(u32, u32, Candidate)> = Vec::new();
        for (index, segment) in plan.segments.iter().enumerate() {
            let Ok(index) = u16::try_from(index) else { break };
            let applies = match &segment.interface {
                Some(name) => *name == interface.name,
                // What the segments of the inside are numbered says nothing about tags on the outside.
                None => interface.role != Role::Outside,
            };
            if applies && *segment.site == *site {
                let (conditions, rank) = weight(segment);
                candidates.push((conditions, rank, candidate(plan, index, segment, space_of)));
            }
        }
        candidates.sort_by_key(|&(conditions, rank, _)| std::cmp::Reverse((conditions, rank)));
        let sorted: Vec<Candidate> = candidates.into_iter().map(|(.., candidate)| candidate).collect();
        places.index(&sorted);
        places
    }

    /// Lays candidates out by outer VLAN: range 0 for those that state none, then one range per stated VLAN
    /// with those that state it or none, best first.
    fn index(&mut self, sorted: &[Candidate]) {
        let mut vlans: Vec<u16> = sorted.iter().filter_map(|c| c.vlan).collect();
        vlans.sort_unstable();
        vlans.dedup();
        if !vlans.is_empty() {
            self.by_vlan = vec![0; 4096];
        }
        for vlan in std::iter::once(None).chain(vlans.into_iter().map(Some)) {
            let from = self.candidates.len();
            self.candidates.extend(sorted.iter().filter(|c| c.vlan.is_none() || c.vlan == vlan));
            if let Some(slot) = vlan.and_then(|v| self.by_vlan.get_mut(usize::from(v))) {
                *slot = u16::try_from(self.ranges.len()).unwrap_or(0);
            }
            let bound = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
            self.ranges.push((bound(from), bound(self.candidates.len())));
        }
    }
}

/// How many conditions a segment states, and how telling they are.
fn weight(segment: &Segment) -> (u32, u32) {
    let stated = [
        segment.interface.is_some(),
        segment.mac.is_some(),
        segment.vlan.is_some(),
        segment.inner_vlan.is_some(),
        segment.mpls_label.is_some(),
        segment.tunnel_id.is_some(),
    ];
    let rank = stated.iter().zip(0u32..).map(|(&is, bit)| u32::from(is) << bit).sum();
    (stated.iter().map(|&is| u32::from(is)).sum(), rank)
}

fn candidate(plan: &AddressPlan, index: u16, segment: &Segment, space_of: &[u16]) -> Candidate {
    let secretariat = secretariat_index(plan, &segment.secretariat);
    let space = secretariat.and_then(|s| space_of.get(usize::from(s)).copied()).unwrap_or(0);
    Candidate {
        vlan: segment.vlan,
        inner_vlan: segment.inner_vlan,
        mpls_label: segment.mpls_label,
        tunnel_id: segment.tunnel_id,
        mac: segment.mac,
        place: Place {
            segment: Some(index),
            secretariat,
            space,
            scope: SCOPE_FIRST_SPACE.saturating_add(space),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "
        secretariat = [{id='eohhs'}, {id='massdot', address_space='transport'}, {id='anf'}]
        prefix = [{cidr='10.1.0.0/16', secretariat='eohhs'}, {cidr='10.2.0.0/16', secretariat='massdot'}]
        public = [{cidr='146.243.0.0/16'}]
        segment = [
            {id='b-eohhs', site='boston', secretariat='eohhs', vlan=101},
            {id='b-eohhs-2', site='boston', secretariat='eohhs', interface='in1'},
            {id='b-dot', site='boston', secretariat='massdot', vlan=102, inner_vlan=7},
            {id='b-anf', site='boston', secretariat='anf', vlan=102, mac='02:00:00:00:00:0a'},
            {id='b-vni', site='boston', secretariat='anf', tunnel_id=5000},
            {id='l-eohhs', site='lowell', secretariat='eohhs', vlan=201},
        ]";
    const ROUTER: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const HOST: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xa]);

    fn interface(name: &str, role: Role) -> InterfacePlan {
        InterfacePlan { name: name.into(), role, router_macs: vec![ROUTER] }
    }

    fn places() -> Places {
        let plan: AddressPlan = toml::from_str(PLAN).expect("a plan");
        let interfaces =
            [interface("in0", Role::Inside), interface("in1", Role::Inside), interface("out", Role::Outside)];
        Places::new(&plan, "boston", &interfaces)
    }

    fn link(vlans: &[u16], source: MacAddress, destination: MacAddress) -> Link {
        Link {
            source_mac: Some(source),
            destination_mac: Some(destination),
            vlans: vlans.iter().copied().collect(),
            ..Link::default()
        }
    }

    fn segment(interface: u16, link: &Link, tunnel_id: Option<u32>) -> Option<String> {
        let places = places();
        let place = places.locate(InterfaceIndex(interface), link, tunnel_id);
        place.segment.and_then(|s| places.segment_name(s)).map(ToString::to_string)
    }

    #[test]
    fn the_segment_with_the_most_conditions_that_hold_is_the_place() {
        let other = MacAddress([2, 0, 0, 0, 0, 0xff]);
        for (interface, vlans, source, tunnel, expected) in [
            (0, &[101][..], other, None, Some("b-eohhs")),
            (0, &[102, 7], other, None, Some("b-dot")),
            (0, &[102, 8], other, None, None),
            (0, &[102, 8], HOST, None, Some("b-anf")),
            (0, &[102, 7], HOST, None, Some("b-dot")),
            (0, &[201], other, None, None),
            (0, &[], other, None, None),
            (1, &[], other, None, Some("b-eohhs-2")),
            (1, &[999], other, None, Some("b-eohhs-2")),
            (0, &[101], other, Some(5000), Some("b-vni")),
            (0, &[101], other, Some(5001), Some("b-eohhs")),
            (0, &[u16::MAX], other, None, None),
            (2, &[101], other, None, None),
            (9, &[101], other, None, None),
        ] {
            let found = segment(interface, &link(vlans, source, ROUTER), tunnel);
            assert_eq!(found.as_deref(), expected, "{interface} {vlans:?} {source} {tunnel:?}");
        }
    }

    #[test]
    fn both_ways_of_a_flow_and_both_segments_of_a_space_have_one_scope_and_two_spaces_have_two() {
        let places = places();
        let scope =
            |at, vlans: &[u16], s, d| places.locate(InterfaceIndex(at), &link(vlans, s, d), None).scope;
        assert_eq!(scope(0, &[102], HOST, ROUTER), scope(0, &[102], ROUTER, HOST));
        assert_eq!(scope(0, &[101], HOST, ROUTER), scope(1, &[], ROUTER, HOST));
        let all =
            [scope(0, &[101], HOST, ROUTER), scope(0, &[102, 7], HOST, ROUTER), scope(0, &[], HOST, HOST)];
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2], "{all:?}");
        assert_ne!(scope(2, &[], HOST, ROUTER), scope(0, &[], HOST, HOST));
    }

    #[test]
    fn without_a_plan_every_packet_has_the_default_place_and_private_addresses_are_ours() {
        let plans = [InterfacePlan { name: "eth0".into(), role: Role::Unknown, router_macs: Vec::new() }];
        let places = Places::new(&AddressPlan::default(), "boston", &plans);
        let place = places.locate(InterfaceIndex(0), &link(&[5], HOST, ROUTER), None);
        assert_eq!(place, Place::default());
        assert_eq!(&*places.space_name(place.space), DEFAULT_SPACE);
        for (ip, expected) in [
            ("10.0.0.1", Locality::Inside),
            ("fd00::1", Locality::Inside),
            ("100.64.0.1", Locality::Unknown),
            ("fe80::1", Locality::Unknown),
            ("224.0.0.1", Locality::Unknown),
            ("8.8.8.8", Locality::Outside),
        ] {
            assert_eq!(places.locality(&ip.parse().unwrap(), place), expected, "{ip}");
        }
    }

    #[test]
    fn an_address_from_the_edge_is_not_on_the_segment_and_keeps_the_secretariat_that_claims_it() {
        let places = places();
        let inside = InterfaceIndex(0);
        let place = places.locate(inside, &link(&[101], HOST, ROUTER), None);
        let resident = |ip: &str, came| places.resident(&ip.parse().unwrap(), place, came);
        let eohhs = Some(0);
        assert_eq!(resident("10.1.0.1", Came::FromSegment).segment, place.segment);
        assert_eq!(resident("10.9.0.1", Came::FromSegment).secretariat, eohhs);
        let other = resident("10.2.0.1", Came::FromEdge);
        assert_eq!((other.segment, other.secretariat), (None, Some(1)));
        let foreign = resident("8.8.8.8", Came::FromEdge);
        assert_eq!((foreign.locality, foreign.segment, foreign.secretariat), (Locality::Outside, None, None));
        assert_eq!(resident("146.243.0.9", Came::Unheard).locality, Locality::Inside);
        assert_eq!(resident("10.1.0.9", Came::Unheard).secretariat, eohhs);
    }

    #[test]
    fn on_the_outside_a_packet_of_the_router_is_leaving() {
        let places = places();
        let leaving = |at, l: &Link| places.leaving(InterfaceIndex(at), l);
        assert_eq!(leaving(2, &link(&[], ROUTER, HOST)), Some(true));
        assert_eq!(leaving(2, &link(&[], HOST, ROUTER)), Some(false));
        assert_eq!(leaving(2, &link(&[], HOST, HOST)), None);
        assert_eq!(leaving(0, &link(&[], ROUTER, HOST)), None);
    }
}

//! From packets and flow events to observations.

use std::{collections::BTreeMap, net::IpAddr};

use arrayvec::ArrayVec;
use proptest::prelude::*;

use super::*;
use crate::{
    decode::{ArpOperation, Transport},
    ipam::Came,
    plan::{AddressPlan, InterfacePlan},
    record::{ConnState, EndReason, FlowId, Observation, Strength},
};

const PLAN: &str = "
    secretariat = [{id='eohhs'}, {id='massdot'}]
    prefix = [{cidr='10.40.0.0/16', secretariat='eohhs'}, {cidr='10.80.0.0/16', secretariat='massdot'}]
    public = [{cidr='146.243.0.0/16'}]
    segment = [
        {id='b-eohhs', site='boston', secretariat='eohhs', vlan=140},
        {id='b-massdot', site='boston', secretariat='massdot', vlan=180},
    ]";

/// Inside, router stated; inside, router to be learnt; outside; role not stated.
const STATED: InterfaceIndex = InterfaceIndex(0);
const LEARNT: InterfaceIndex = InterfaceIndex(1);
const OUTSIDE: InterfaceIndex = InterfaceIndex(2);
const ANY: InterfaceIndex = InterfaceIndex(3);

const ROUTER: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const HOST: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);
const EOHHS: u16 = 140;

fn ip(text: &str) -> IpAddr {
    text.parse().expect(text)
}

/// Where a station stands: interface, VLAN, MAC address.
type Stand = (InterfaceIndex, u16, MacAddress);

struct Bench {
    observer: Observer,
    places: Places,
    told: Vec<Observation>,
}

impl Bench {
    fn new() -> Self {
        Self::with(PLAN, &ObserveConfig::default())
    }

    fn with(plan: &str, config: &ObserveConfig) -> Self {
        let plan: AddressPlan = toml::from_str(plan).expect("a plan");
        let interface =
            |name: &str, role, router_macs| InterfacePlan { name: name.into(), role, router_macs };
        let interfaces = [
            interface("stated", Role::Inside, vec![ROUTER]),
            interface("learnt", Role::Inside, vec![]),
            interface("out", Role::Outside, vec![]),
            interface("any", Role::Unknown, vec![]),
        ];
        Self {
            observer: Observer::new("boston".into(), config, [5; 4]),
            places: Places::new(&plan, "boston", &interfaces),
            told: Vec::new(),
        }
    }

    fn link(&self, vlan: u16, source: MacAddress, destination: MacAddress) -> Link {
        Link {
            source_mac: Some(source),
            destination_mac: Some(destination),
            vlans: std::iter::once(vlan).filter(|&v| v != 0).collect(),
            ..Link::default()
        }
    }

    /// The first packet of a flow, from a station towards a destination.
    fn flow(&self, (at, vlan, mac): Stand, source: &str, target: &str, second: i64) -> FlowContext {
        let link = self.link(vlan, mac, MacAddress::default());
        let place = self.places.locate(at, &link, None);
        let party = |ip: IpAddr, came, mac| {
            let resident = self.places.resident(&ip, place, came);
            Party {
                ip,
                port: 443,
                mac,
                locality: resident.locality,
                segment: resident.segment,
                secretariat: resident.secretariat,
                ..Party::default()
            }
        };
        let came = self.observer.came(at, &link, mac, &self.places);
        let time = Timestamp::from_parts(second, 0);
        let mut flow = FlowContext {
            identity: FlowId(1).into(),
            protocol: 6,
            originator: party(ip(source), came, Some(mac)),
            responder: party(ip(target), Came::Unheard, None),
            conn_state: ConnState::S0,
            syn_seen: true,
            start: time,
            last: time,
            now: time,
            interface: at,
            role: self.places.role(at),
            vlans: link.vlans,
            tunnelled: false,
            leaving: None,
            by_originator: Some(true),
            stack: None,
        };
        send(&mut flow.originator, 1, 64);
        flow
    }

    fn tell(&mut self, event: FlowEvent, flow: &FlowContext) {
        let Self { observer, places, told } = self;
        observer.advance(flow.now, places, &mut |o| told.push(o.clone()));
        observer.on_flow(event, flow, places, &mut |o| told.push(o.clone()));
    }

    /// A flow of so many packets one way, begun and reported at once.
    fn pass(&mut self, stand: Stand, source: &str, target: &str, second: i64, packets: u64) {
        let mut flow = self.flow(stand, source, target, second);
        self.tell(FlowEvent::Started, &flow);
        send(&mut flow.originator, packets - 1, 63);
        self.tell(FlowEvent::Reported(EndReason::Idle), &flow);
    }

    fn arp(
        &mut self,
        at: InterfaceIndex,
        vlan: u16,
        operation: ArpOperation,
        sender: (MacAddress, &str),
        target: &str,
    ) {
        let link = self.link(vlan, sender.0, MacAddress([0xff; 6]));
        let place = self.places.locate(at, &link, None);
        let seen = Seen { now: Timestamp(0), interface: at, link: &link, place };
        let arp = ArpPacket {
            operation,
            sender_mac: sender.0,
            sender_ip: sender.1.parse().unwrap(),
            target_mac: MacAddress::default(),
            target_ip: target.parse().unwrap(),
        };
        let Self { observer, places, told } = self;
        observer.on_arp(&seen, &arp, places, &mut |o| told.push(o.clone()));
    }

    /// A UDP payload between two ports.
    fn udp(&mut self, at: InterfaceIndex, link: &Link, source: &str, ports: (u16, u16), payload: &[u8]) {
        let packet = IpPacket { source: ip(source), ..udp(ports, payload) };
        self.packet(at, link, &packet);
    }

    /// DHCPv6 between two addresses.
    fn udp6(&mut self, at: InterfaceIndex, link: &Link, ips: (&str, &str), payload: &[u8]) {
        let packet = IpPacket { source: ip(ips.0), destination: ip(ips.1), ..udp((547, 546), payload) };
        self.packet(at, link, &packet);
    }

    fn packet(&mut self, at: InterfaceIndex, link: &Link, packet: &IpPacket<'_>) {
        let seen = Seen { now: Timestamp(0), interface: at, link, place: self.places.locate(at, link, None) };
        let Self { observer, places, told } = self;
        observer.on_packet(&seen, packet, places, &mut |o| told.push(o.clone()));
    }

    fn finish(&mut self) {
        let Self { observer, places, told } = self;
        observer.finish(places, &mut |o| told.push(o.clone()));
    }

    /// What was told, as "kind address space packets".
    fn lines(&self) -> Vec<String> {
        self.told
            .iter()
            .map(|o| format!("{} {} {} {}", o.kind, o.address, o.address_space, o.packets))
            .collect()
    }
}

/// UDP to everybody.
fn udp(ports: (u16, u16), payload: &[u8]) -> IpPacket<'_> {
    IpPacket {
        source: ip("0.0.0.0"),
        destination: ip("255.255.255.255"),
        protocol: 17,
        ttl: 64,
        dscp: 0,
        ip_bytes: 300,
        payload_bytes: 272,
        estimated: false,
        fragment: None,
        transport: Transport::Ports { source: ports.0, destination: ports.1 },
        bytes: &[],
        header_bytes: 0,
        payload,
    }
}

fn send(party: &mut Party, packets: u64, ttl: u8) {
    party.packets += packets;
    party.packets_by_mac += packets;
    party.ttl_min = if party.ttl_min == 0 { ttl } else { party.ttl_min.min(ttl) };
    party.ttl_max = party.ttl_max.max(ttl);
}

#[test]
fn arp_is_told_by_what_it_says_and_how_far_that_proves_use() {
    let mut bench = Bench::new();
    let host = (HOST, "10.40.0.5");
    bench.arp(STATED, EOHHS, ArpOperation::Request, host, "10.40.0.1");
    bench.arp(STATED, EOHHS, ArpOperation::Reply, host, "10.40.0.1");
    bench.arp(STATED, EOHHS, ArpOperation::Request, (HOST, "0.0.0.0"), "10.40.0.6");
    bench.arp(STATED, EOHHS, ArpOperation::Request, host, "10.40.0.5");
    bench.arp(STATED, EOHHS, ArpOperation::Other(3), host, "10.40.0.1");
    let told: Vec<_> = bench.told.iter().map(|o| (o.kind, o.strength, o.address.to_string())).collect();
    assert_eq!(
        told,
        [
            (ObservationKind::ArpRequest, Strength::Medium, "10.40.0.5".to_owned()),
            (ObservationKind::ArpReply, Strength::Strong, "10.40.0.5".to_owned()),
            (ObservationKind::ArpProbe, Strength::Weak, "10.40.0.6".to_owned()),
            (ObservationKind::ArpAnnouncement, Strength::Strong, "10.40.0.5".to_owned()),
        ]
    );
    let first = &bench.told[0];
    assert_eq!(first.segment.as_deref(), Some("b-eohhs"));
    assert_eq!((&*first.interface, &first.vlans[..], first.mac), ("stated", &[EOHHS][..], Some(HOST)));
}

#[test]
fn an_answer_of_the_router_for_an_address_of_others_is_a_proxy_and_its_own_address_is_not() {
    let mut bench = Bench::new();
    bench.arp(STATED, EOHHS, ArpOperation::Reply, (ROUTER, "10.80.0.7"), "10.40.0.5");
    bench.arp(STATED, EOHHS, ArpOperation::Reply, (ROUTER, "10.40.0.1"), "10.40.0.5");
    // Anybody else who answers for it does use it.
    bench.arp(STATED, EOHHS, ArpOperation::Reply, (HOST, "10.80.0.7"), "10.40.0.5");
    assert_eq!(bench.lines(), ["arp-reply 10.40.0.1 eohhs 1", "arp-reply 10.80.0.7 eohhs 1"]);
}

#[test]
fn traffic_is_told_when_first_seen_and_its_parts_add_up() {
    let mut bench = Bench::new();
    bench.pass((STATED, EOHHS, HOST), "10.40.0.5", "8.8.8.8", 0, 10);
    bench.pass((STATED, EOHHS, HOST), "10.40.0.5", "8.8.4.4", 100, 5);
    assert_eq!(bench.lines(), ["traffic 10.40.0.5 eohhs 1"]);
    bench.pass((STATED, EOHHS, HOST), "10.40.0.6", "8.8.8.8", 301, 1);
    assert_eq!(bench.lines()[1..], ["traffic 10.40.0.5 eohhs 14", "traffic 10.40.0.6 eohhs 1"]);
    bench.finish();
    bench.finish();
    assert_eq!(bench.told.len(), 3);
    let second = &bench.told[1];
    assert_eq!((second.first_seen, second.last_seen), (Timestamp(0), Timestamp::from_parts(100, 0)));
    assert_eq!((second.ttl_min, second.ttl_max), (Some(63), Some(64)));
}

#[test]
fn a_side_that_answers_was_first_seen_when_it_did() {
    let mut bench = Bench::with("", &ObserveConfig::default());
    let mut flow = bench.flow((ANY, 0, HOST), "10.40.0.5", "10.40.0.6", 0);
    bench.tell(FlowEvent::Started, &flow);
    flow.responder.mac = Some(ROUTER);
    send(&mut flow.responder, 3, 64);
    (flow.last, flow.now) = (Timestamp::from_parts(7, 0), Timestamp::from_parts(7, 0));
    flow.by_originator = Some(false);
    bench.tell(FlowEvent::Answered, &flow);
    flow.by_originator = None;
    flow.last = Timestamp::from_parts(9, 0);
    bench.tell(FlowEvent::Reported(EndReason::Idle), &flow);
    bench.finish();
    let answering = bench.told.iter().filter(|o| o.address == ip("10.40.0.6"));
    let times: Vec<_> = answering.map(|o| (o.first_seen.parts().0, o.last_seen.parts().0)).collect();
    assert_eq!(times, [(7, 7), (7, 9)]);
}

/// A DHCPv6 message of this type from a client with a DUID of another interface, for one address.
fn dhcp6(kind: u8, status: u8) -> Vec<u8> {
    let address = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x77];
    let client = [&[0, 1, 0, 10, 0, 3, 0, 1][..], &[6; 6]].concat();
    let server = [0, 2, 0, 10, 0, 3, 0, 1, 7, 7, 7, 7, 7, 7];
    let lease = [&[0, 5, 0, 24][..], &address, &[0, 0, 0, 9, 0, 0, 0, 9]].concat();
    let association = [&[0, 3, 0, 40, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0][..], &lease].concat();
    [&[kind, 1, 2, 3][..], &client, &server, &[0, 13, 0, 2, 0, status], &association].concat()
}

#[test]
fn a_lease_by_dhcpv6_names_the_station_of_the_frame_and_a_refusal_is_none() {
    let mut bench = Bench::with("", &ObserveConfig::default());
    let link = bench.link(0, ROUTER, HOST);
    bench.udp6(ANY, &link, ("fe80::1", "fe80::9"), &dhcp6(7, 2));
    assert_eq!(bench.lines(), [""; 0]);
    bench.udp6(ANY, &link, ("fe80::1", "fe80::9"), &dhcp6(7, 0));
    assert_eq!(bench.lines(), ["dhcp6-lease fd00::77 default 1", "dhcp-server fe80::1 default 1"]);
    assert_eq!((bench.told[0].mac, bench.told[0].lease_seconds), (Some(HOST), Some(9)));
    // Over a router the frame is not the client's, and the identifier is what there is.
    bench.udp6(ANY, &link, ("fd00::1", "fd00::9"), &dhcp6(7, 0));
    assert_eq!(bench.told[2].mac, Some(MacAddress([6; 6])));
}

#[test]
fn a_station_that_changes_is_another_observation() {
    let mut bench = Bench::new();
    let mut flow = bench.flow((STATED, EOHHS, HOST), "10.40.0.5", "8.8.8.8", 0);
    bench.tell(FlowEvent::Started, &flow);
    send(&mut flow.originator, 4, 64);
    bench.tell(FlowEvent::Moved, &flow);
    flow.originator.mac = Some(MacAddress([2; 6]));
    flow.originator.packets_by_mac = 0;
    send(&mut flow.originator, 7, 64);
    bench.tell(FlowEvent::Reported(EndReason::Idle), &flow);
    bench.finish();
    let mut sums = BTreeMap::new();
    for o in &bench.told {
        *sums.entry(o.mac).or_insert(0) += o.packets;
    }
    assert_eq!(sums, BTreeMap::from([(Some(HOST), 5), (Some(MacAddress([2; 6])), 7)]));
}

#[test]
fn what_the_router_forwards_towards_a_segment_is_not_used_there() {
    for at in [STATED, LEARNT] {
        let mut bench = Bench::new();
        // The very first packet is forwarded from another secretariat, before anything is known of the router.
        bench.pass((at, EOHHS, ROUTER), "10.80.0.7", "10.40.0.5", 0, 3);
        bench.pass((at, EOHHS, ROUTER), "8.8.8.8", "10.40.0.5", 1, 3);
        bench.pass((at, EOHHS, ROUTER), "10.90.0.7", "10.40.0.5", 2, 3);
        bench.pass((at, EOHHS, HOST), "10.40.0.5", "8.8.8.8", 3, 3);
        bench.pass((at, EOHHS, HOST), "192.168.7.7", "8.8.8.8", 4, 3);
        bench.finish();
        let used: Vec<_> = bench.told.iter().map(|o| o.address.to_string()).collect();
        let segment = bench.told.iter().all(|o| &*o.address_space == "eohhs");
        assert!(
            segment && used.iter().all(|a| a == "10.40.0.5" || a == "192.168.7.7"),
            "{:?}",
            bench.lines()
        );
        assert_eq!(bench.told.iter().map(|o| o.packets).sum::<u64>(), 6);
    }
}

#[test]
fn evidence_waits_for_the_station_to_show_its_side_and_no_longer_than_the_hold() {
    let mut bench = Bench::new();
    bench.pass((LEARNT, EOHHS, HOST), "10.40.0.5", "10.80.0.7", 0, 3);
    bench.pass((LEARNT, EOHHS, HOST), "10.80.0.9", "10.40.0.7", 1, 3);
    assert_eq!(bench.lines(), [""; 0]);
    let Bench { observer, places, told } = &mut bench;
    observer.advance(Timestamp::from_parts(60, 0), places, &mut |o| told.push(o.clone()));
    // Its own address is believed; one that the plan gives to others alone is how forwarded traffic looks.
    assert_eq!(bench.lines(), ["traffic 10.40.0.5 eohhs 3"]);
}

#[test]
fn a_station_that_shows_its_side_ends_the_waiting() {
    let mut bench = Bench::new();
    bench.pass((LEARNT, EOHHS, HOST), "10.40.0.5", "10.80.0.7", 0, 3);
    bench.pass((LEARNT, EOHHS, HOST), "10.40.0.5", "8.8.8.8", 1, 2);
    assert_eq!(bench.lines(), ["traffic 10.40.0.5 eohhs 3"]);
    bench.finish();
    assert_eq!(bench.told.iter().map(|o| o.packets).sum::<u64>(), 5);
}

#[test]
fn without_a_plan_private_sources_are_observed_in_one_space_and_others_are_not() {
    let mut bench = Bench::with("", &ObserveConfig::default());
    for source in ["10.0.0.1", "fd00::1", "100.64.0.1", "8.8.8.8", "169.254.0.1", "224.0.0.1", "0.0.0.0"] {
        bench.pass((ANY, 0, HOST), source, "10.0.0.2", 0, 1);
    }
    let told = ["traffic 10.0.0.1 default 1", "traffic fd00::1 default 1", "traffic 100.64.0.1 default 1"];
    assert_eq!(bench.lines(), told);
}

#[test]
fn nothing_is_observed_on_the_outside() {
    let mut bench = Bench::new();
    bench.pass((OUTSIDE, 0, HOST), "10.40.0.5", "8.8.8.8", 0, 3);
    bench.arp(OUTSIDE, 0, ArpOperation::Reply, (HOST, "10.40.0.5"), "10.40.0.1");
    bench.finish();
    assert_eq!(bench.lines(), [""; 0]);
}

/// A DHCPv4 message: operation, client's address, given address, relay, and options.
fn dhcp4(operation: u8, client: [u8; 4], yours: [u8; 4], relay: [u8; 4], options: &[u8]) -> Vec<u8> {
    let mut message = vec![operation, 1, 6, 0, 1, 2, 3, 4, 0, 0, 0, 0];
    message.extend(client);
    message.extend(yours);
    message.extend([0; 4]);
    message.extend(relay);
    message.extend(HOST.0);
    message.extend([0; 10 + 64 + 128]);
    message.extend([99, 130, 83, 99]);
    message.extend(options);
    message.push(255);
    message
}

/// Type ACK, lease of 3600 s, server 10.40.0.2, host name "pc7".
const ACK: [u8; 20] = [53, 1, 5, 51, 4, 0, 0, 14, 16, 54, 4, 10, 40, 0, 2, 12, 3, b'p', b'c', b'7'];

#[test]
fn a_lease_is_strong_and_tells_what_the_messages_say() {
    let mut bench = Bench::new();
    let link = bench.link(EOHHS, MacAddress([4; 6]), MacAddress([0xff; 6]));
    bench.udp(STATED, &link, "10.40.0.2", (67, 68), &dhcp4(2, [0; 4], [10, 40, 0, 77], [0; 4], &ACK));
    assert_eq!(bench.lines(), ["dhcp4-lease 10.40.0.77 eohhs 1", "dhcp-server 10.40.0.2 eohhs 1"]);
    let lease = &bench.told[0];
    assert_eq!((lease.strength, lease.mac, lease.lease_seconds), (Strength::Strong, Some(HOST), Some(3600)));
    assert_eq!((lease.hostname.as_deref(), lease.server), (Some("pc7"), Some(ip("10.40.0.2"))));
    let request = [53, 1, 3, 50, 4, 10, 40, 0, 78];
    let link = bench.link(EOHHS, HOST, MacAddress([0xff; 6]));
    bench.udp(STATED, &link, "0.0.0.0", (68, 67), &dhcp4(1, [0; 4], [0; 4], [0; 4], &request));
    assert_eq!(bench.lines()[2..], ["dhcp4-request 10.40.0.78 eohhs 1"]);
    assert_eq!(bench.told[2].strength, Strength::Weak);
}

#[test]
fn a_lease_that_a_server_here_gives_to_a_client_elsewhere_is_not_in_use_here() {
    let mut bench = Bench::new();
    let ack = dhcp4(2, [0; 4], [10, 80, 0, 77], [10, 80, 0, 1], &ACK);
    // Out of the server's segment towards the router, and on to the client's segment.
    let out = bench.link(EOHHS, HOST, ROUTER);
    bench.udp(STATED, &out, "10.40.0.2", (67, 67), &ack);
    assert_eq!(bench.lines(), [""; 0]);
    let on = bench.link(180, ROUTER, MacAddress([6; 6]));
    bench.udp(STATED, &on, "10.40.0.2", (67, 67), &ack);
    assert_eq!(bench.lines(), ["dhcp4-lease 10.80.0.77 massdot 1"]);
    // Where the router was not learnt yet, the plan tells.
    bench.udp(LEARNT, &out, "10.40.0.2", (67, 67), &ack);
    assert_eq!(bench.told.len(), 1);
}

#[test]
fn cut_or_random_messages_say_nothing_and_break_nothing() {
    let mut bench = Bench::new();
    let whole = dhcp4(2, [0; 4], [10, 40, 0, 77], [0; 4], &ACK);
    let link = bench.link(EOHHS, HOST, MacAddress([0xff; 6]));
    for length in 0..240 {
        bench.udp(STATED, &link, "10.40.0.2", (67, 68), &whole[..length]);
        bench.udp(STATED, &link, "fe80::1", (547, 546), &whole[..length]);
    }
    assert_eq!(bench.lines(), [""; 0]);
}

proptest! {
    /// Whatever flows come, in whatever order: what is told adds up to what was sent, and memory is bounded.
    #[test]
    fn parts_add_up_and_memory_is_bounded(
        steps in prop::collection::vec((0u8..12, 1u64..50, 0i64..400), 1..120),
        limit in 1u32..40,
    ) {
        let config = ObserveConfig { limit, ..ObserveConfig::default() };
        let mut bench = Bench::with(PLAN, &config);
        let mut sent: BTreeMap<String, u64> = BTreeMap::new();
        let mut second = 0;
        for (host, packets, pause) in steps {
            second += pause;
            let source = format!("10.40.0.{host}");
            bench.pass((STATED, EOHHS, HOST), &source, "8.8.8.8", second, packets);
            *sent.entry(source).or_default() += packets;
            prop_assert!(bench.observer.counts().0 <= limit as usize);
        }
        bench.finish();
        let mut told: BTreeMap<String, u64> = BTreeMap::new();
        for observation in bench.told.iter().filter(|told| told.aggregate.is_none()) {
            *told.entry(observation.address.to_string()).or_default() += observation.packets;
        }
        for (source, packets) in &told {
            prop_assert!(packets <= &sent[source], "{} {:?} {:?}", source, told, sent);
        }
        let summed: u64 = bench.told.iter().filter(|told| told.aggregate.is_some()).map(|told| told.packets).sum();
        prop_assert_eq!(told.values().sum::<u64>() + summed, sent.values().sum::<u64>());
        if sent.len() <= limit as usize {
            prop_assert_eq!(told, sent);
        }
    }

    #[test]
    fn made_up_addresses_stay_within_the_limit(addresses in prop::collection::vec(any::<[u8; 3]>(), 1..300)) {
        let mut bench = Bench::with(PLAN, &ObserveConfig { limit: 16, ..ObserveConfig::default() });
        for (second, [a, b, c]) in (0..).zip(addresses) {
            bench.pass((LEARNT, EOHHS, HOST), &format!("10.{a}.{b}.{c}"), "10.40.0.1", second, 2);
            bench.arp(LEARNT, EOHHS, ArpOperation::Reply, (HOST, &format!("10.{a}.{b}.{c}")), "10.40.0.1");
            prop_assert!(bench.observer.counts().0 <= 16);
        }
    }
}

#[test]
fn a_new_plan_tells_what_was_gathered_and_begins_anew() {
    let mut bench = Bench::new();
    bench.pass((STATED, EOHHS, HOST), "10.40.0.5", "8.8.8.8", 0, 10);
    let Bench { observer, places, told } = &mut bench;
    observer.restart(&ObserveConfig::default(), [9; 4], places, &mut |o| told.push(o.clone()));
    assert_eq!(bench.lines(), ["traffic 10.40.0.5 eohhs 1", "traffic 10.40.0.5 eohhs 9"]);
    assert_eq!(bench.observer.counts().0, 0);
}

#[test]
fn vlans_of_a_flow_stand_in_the_observation() {
    let mut bench = Bench::new();
    bench.pass((STATED, EOHHS, HOST), "10.40.0.5", "8.8.8.8", 0, 1);
    assert_eq!(bench.told[0].vlans, ArrayVec::<u16, 3>::from_iter([EOHHS]));
}

#[test]
fn sources_beyond_the_limit_are_summed_by_prefix_and_what_is_answered_has_its_place() {
    let mut bench = Bench::with(PLAN, &ObserveConfig { limit: 2, ..ObserveConfig::default() });
    for host in 1..=100 {
        bench.pass((STATED, EOHHS, HOST), &format!("10.40.{host}.9"), "8.8.8.8", host, 3);
    }
    bench.pass((STATED, EOHHS, HOST), "10.40.50.9", "8.8.8.8", 150, 40);
    bench.arp(STATED, EOHHS, ArpOperation::Reply, (HOST, "10.40.0.77"), "10.40.0.1");
    assert_eq!(bench.observer.counts().0, 2);
    assert!(bench.told.iter().any(|told| told.address == ip("10.40.0.77")), "an answer is told by itself");
    bench.finish();
    let sums: Vec<_> =
        bench.told.iter().filter_map(|told| Some((told, told.aggregate.as_deref()?))).collect();
    let [(told, sum)] = sums.as_slice() else { panic!("{sums:#?}") };
    assert_eq!((told.address, sum.prefix_length, told.packets), (ip("10.40.0.0"), 16, 98 * 3 + 40));
    assert!((90..=110).contains(&sum.addresses), "{}", sum.addresses);
    assert_eq!(sum.top[0].address, ip("10.40.50.9"), "{:?}", sum.top);
    assert_eq!((told.mac, told.strength, &*told.address_space), (Some(HOST), Strength::Medium, "eohhs"));
}

#[test]
fn more_prefixes_than_are_told_apart_become_one_sum() {
    let mut bench = Bench::with(PLAN, &ObserveConfig { limit: 1, ..ObserveConfig::default() });
    for number in 0..3_000_u32 {
        let source = format!("fd{:02x}:{:x}::1", number % 200, number);
        bench.pass((STATED, EOHHS, HOST), &source, "2001:4860::8", 1, 1);
    }
    bench.finish();
    let sums: Vec<_> = bench.told.iter().filter(|told| told.aggregate.is_some()).collect();
    assert!(sums.len() <= 1_100, "{}", sums.len());
    let rest = sums.iter().find(|told| told.address == ip("::")).expect("the rest");
    assert!(rest.aggregate.as_deref().is_some_and(|sum| sum.prefix_length == 0 && sum.addresses > 1_500));
    let all: u64 = bench.told.iter().map(|told| told.packets).sum();
    assert_eq!(all, 3_000);
}

//! What hosts say on their own VLAN: ARP, neighbour discovery, DHCP. The trunk carries it because it is
//! broadcast, or because the edge router is the other party.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use onenet_core::net::MacAddress;

use super::{
    frame::{Arp, Body, Content, Frame, Packet},
    random::Random,
    talk::MILLI,
    wire::{Link, Wire},
    world::{Secretariat, Site},
};

const BROADCAST: MacAddress = MacAddress([0xff; 6]);
const NOBODY: MacAddress = MacAddress([0; 6]);

/// One VLAN of one site's trunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    /// The site.
    pub(super) site: Site,
    /// The VLAN.
    pub(super) vlan: u16,
    /// Address of the edge router on it.
    pub(super) gateway: Ipv4Addr,
}

impl Segment {
    /// The VLAN of a secretariat.
    pub(super) const fn of(secretariat: Secretariat, site: Site) -> Self {
        Self { site, vlan: secretariat.vlan(site), gateway: secretariat.gateway(site) }
    }

    fn put(
        &self,
        wire: &mut Wire,
        time: i64,
        (source, destination): (MacAddress, MacAddress),
        content: Content,
    ) {
        wire.put(
            Link::Inside(self.site),
            time,
            Frame { source, destination, vlan: Some(self.vlan), content },
        );
    }

    /// `asking` looks for `target`; whoever has the address answers, unless nobody does.
    pub(super) fn arp(
        &self,
        wire: &mut Wire,
        time: i64,
        asking: (MacAddress, Ipv4Addr),
        target: Ipv4Addr,
        answering: Option<MacAddress>,
    ) {
        let request = Arp { reply: false, sender: asking, target: (NOBODY, target) };
        self.put(wire, time, (asking.0, BROADCAST), Content::Arp(request));
        if let Some(mac) = answering {
            let reply = Arp { reply: true, sender: (mac, target), target: asking };
            self.put(wire, time + MILLI / 4, (mac, asking.0), Content::Arp(reply));
        }
    }

    /// The host finds its gateway, and the gateway finds the host.
    pub(super) fn arp_both_ways(&self, wire: &mut Wire, time: i64, mac: MacAddress, ip: Ipv4Addr) {
        let router = self.site.inside_mac();
        self.arp(wire, time, (mac, ip), self.gateway, Some(router));
        self.arp(wire, time + 3 * MILLI, (router, self.gateway), ip, Some(mac));
    }

    /// A host that asks whether an address is free before it takes it (RFC 5227): sender address zero.
    pub(super) fn arp_probe(&self, wire: &mut Wire, time: i64, mac: MacAddress, ip: Ipv4Addr) {
        self.arp(wire, time, (mac, Ipv4Addr::UNSPECIFIED), ip, None);
    }

    /// A host that says that it has an address (RFC 5227).
    pub(super) fn arp_announcement(&self, wire: &mut Wire, time: i64, mac: MacAddress, ip: Ipv4Addr) {
        self.arp(wire, time, (mac, ip), ip, None);
    }

    /// Discover, offer, request, acknowledgement (RFC 2131).
    pub(super) fn dhcp4(&self, wire: &mut Wire, random: &mut Random, time: i64, client: &Dhcp4Client<'_>) {
        let transaction = random.octets::<4>();
        let steps = [(1, false), (2, true), (3, false), (5, true)];
        for (number, (kind, by_server)) in (0..).zip(steps) {
            let payload = client.message(transaction, kind);
            let (source, ports, macs) = if by_server {
                (client.server, (67, 68), (client.server_mac, BROADCAST))
            } else {
                (Ipv4Addr::UNSPECIFIED, (68, 67), (client.mac, BROADCAST))
            };
            let body = Body::Udp { source: ports.0, destination: ports.1, payload: payload.into() };
            let packet = ip_packet(IpAddr::V4(source), IpAddr::V4(Ipv4Addr::BROADCAST), 64, body);
            self.put(wire, time + number * 2 * MILLI, macs, packet);
        }
    }

    /// The same where a relay at `relay` passes it on to a server behind the edge router.
    pub(super) fn dhcp4_relayed(
        &self,
        wire: &mut Wire,
        random: &mut Random,
        time: i64,
        client: &Dhcp4Client<'_>,
        relay: (MacAddress, Ipv4Addr),
    ) {
        let transaction = random.octets::<4>();
        let router = self.site.inside_mac();
        for (number, (kind, by_server)) in (0..).zip([(1, false), (2, true), (3, false), (5, true)]) {
            let mut payload = client.message(transaction, kind);
            payload[3] = u8::from(!by_server);
            payload[24..28].copy_from_slice(&relay.1.octets());
            let (ends, macs) = if by_server {
                ((client.server, relay.1), (router, relay.0))
            } else {
                ((relay.1, client.server), (relay.0, router))
            };
            let body = Body::Udp { source: 67, destination: 67, payload: payload.into() };
            let packet = ip_packet(IpAddr::V4(ends.0), IpAddr::V4(ends.1), 63, body);
            self.put(wire, time + number * 3 * MILLI, macs, packet);
        }
    }

    /// The client gives its lease back.
    pub(super) fn dhcp4_release(
        &self,
        wire: &mut Wire,
        random: &mut Random,
        time: i64,
        client: &Dhcp4Client<'_>,
    ) {
        let mut payload = client.message(random.octets::<4>(), 7);
        payload[12..16].copy_from_slice(&client.lease.octets());
        let body = Body::Udp { source: 68, destination: 67, payload: payload.into() };
        let packet = ip_packet(IpAddr::V4(client.lease), IpAddr::V4(client.server), 64, body);
        self.put(wire, time, (client.mac, client.server_mac), packet);
    }

    /// Solicit, advertise, request, reply (RFC 8415) between a host and the edge router.
    pub(super) fn dhcp6(
        &self,
        wire: &mut Wire,
        random: &mut Random,
        time: i64,
        mac: MacAddress,
        lease: Ipv6Addr,
    ) {
        let transaction = random.octets::<3>();
        let router = self.site.inside_mac();
        let all_agents = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
        for (number, (kind, by_server)) in (0..).zip([(1, false), (2, true), (3, false), (7, true)]) {
            let payload = dhcp6_message(kind, transaction, mac, router, (kind != 1).then_some(lease));
            let (ends, ports, macs) = if by_server {
                ((link_local(router), link_local(mac)), (547, 546), (router, mac))
            } else {
                ((link_local(mac), all_agents), (546, 547), (mac, multicast_mac(all_agents)))
            };
            let body = Body::Udp { source: ports.0, destination: ports.1, payload: payload.into() };
            let packet = ip_packet(IpAddr::V6(ends.0), IpAddr::V6(ends.1), 64, body);
            self.put(wire, time + number * 2 * MILLI, macs, packet);
        }
    }

    /// A host asks whether an IPv6 address is free, and leaves it at that (RFC 4862).
    pub(super) fn duplicate_detection(&self, wire: &mut Wire, time: i64, mac: MacAddress, ip: Ipv6Addr) {
        let solicited = solicited_node(ip);
        let body = Body::Icmp(Arc::from(neighbor(135, 0, ip, None)));
        let packet = ip_packet(IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(solicited), 255, body);
        self.put(wire, time, (mac, multicast_mac(solicited)), packet);
    }

    /// A host takes an IPv6 address (RFC 4862): it asks whether it is free, asks for routers, is told, and is
    /// looked for and found.
    pub(super) fn neighbor_discovery(&self, wire: &mut Wire, time: i64, mac: MacAddress, ip: Ipv6Addr) {
        let router = self.site.inside_mac();
        let all_routers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let solicited = solicited_node(ip);
        let mut say = |delay: i64, macs, source: Ipv6Addr, destination: Ipv6Addr, message: Vec<u8>| {
            let body = Body::Icmp(Arc::from(message));
            let packet = ip_packet(IpAddr::V6(source), IpAddr::V6(destination), 255, body);
            self.put(wire, time + delay * MILLI, macs, packet);
        };
        let unspecified = Ipv6Addr::UNSPECIFIED;
        say(0, (mac, multicast_mac(solicited)), unspecified, solicited, neighbor(135, 0, ip, None));
        say(
            900,
            (mac, multicast_mac(all_routers)),
            link_local(mac),
            all_routers,
            [&[133, 0, 0, 0, 0, 0, 0, 0][..], &link_layer(1, mac)].concat(),
        );
        let mut advertisement = vec![134, 0, 0, 0, 64, 0x40, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        advertisement.extend(link_layer(1, router));
        say(902, (router, multicast_mac(all_nodes)), link_local(router), all_nodes, advertisement);
        let asked = neighbor(135, 0, ip, Some((1, router)));
        say(1400, (router, multicast_mac(solicited)), link_local(router), solicited, asked);
        say(1401, (mac, router), ip, link_local(router), neighbor(136, 0x60, ip, Some((2, mac))));
    }
}

/// A DHCPv4 client, what it gets and from whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dhcp4Client<'a> {
    /// Its MAC address.
    pub(super) mac: MacAddress,
    /// The name it gives.
    pub(super) hostname: &'a str,
    /// The address it is leased.
    pub(super) lease: Ipv4Addr,
    /// Server.
    pub(super) server: Ipv4Addr,
    /// The server's MAC address.
    pub(super) server_mac: MacAddress,
    /// Its default gateway.
    pub(super) gateway: Ipv4Addr,
    /// What it says of its software.
    pub(super) vendor_class: &'a str,
}

impl Dhcp4Client<'_> {
    fn message(&self, transaction: [u8; 4], kind: u8) -> Vec<u8> {
        let by_server = kind == 2 || kind == 5;
        let mut message = vec![if by_server { 2 } else { 1 }, 1, 6, 0];
        message.extend(transaction);
        message.extend([0, 0, 0x80, 0]);
        message.extend([0; 4]);
        message.extend(if by_server { self.lease.octets() } else { [0; 4] });
        message.extend([0; 8]);
        message.extend(self.mac.0);
        message.extend([0; 10 + 64 + 128]);
        message.extend([99, 130, 83, 99, 53, 1, kind]);
        let mut option = |code: u8, data: &[u8]| {
            message.extend([code, u8::try_from(data.len()).unwrap_or(0)]);
            message.extend_from_slice(data);
        };
        if by_server {
            option(54, &self.server.octets());
            option(51, &28_800_u32.to_be_bytes());
            option(1, &[255, 255, 255, 0]);
            option(3, &self.gateway.octets());
        } else {
            option(61, &[&[1][..], &self.mac.0].concat());
            option(12, self.hostname.as_bytes());
            option(60, self.vendor_class.as_bytes());
            option(55, &[1, 3, 6, 15]);
            if kind == 3 {
                option(50, &self.lease.octets());
                option(54, &self.server.octets());
            }
        }
        message.push(255);
        message
    }
}

fn dhcp6_message(
    kind: u8,
    transaction: [u8; 3],
    client: MacAddress,
    server: MacAddress,
    lease: Option<Ipv6Addr>,
) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend(transaction);
    let mut option = |code: u16, data: &[u8]| {
        message.extend(code.to_be_bytes());
        message.extend(u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
        message.extend_from_slice(data);
    };
    // DUID-LL (RFC 8415 §11.4) over Ethernet.
    option(1, &[&[0, 3, 0, 1][..], &client.0].concat());
    if kind != 1 {
        option(2, &[&[0, 3, 0, 1][..], &server.0].concat());
    }
    let [_, _, client_3, client_4, client_5, client_6] = client.0;
    let mut association = vec![client_3, client_4, client_5, client_6, 0, 0, 14, 16, 0, 0, 21, 24];
    if let Some(lease) = lease {
        association.extend([0, 5, 0, 24]);
        association.extend(lease.octets());
        association.extend([0, 0, 28, 32, 0, 0, 42, 48]);
    }
    option(3, &association);
    message
}

fn ip_packet(source: IpAddr, destination: IpAddr, ttl: u8, body: Body) -> Content {
    Content::Ip(Packet { source, destination, ttl, dscp: 0, identification: 0, body })
}

fn neighbor(kind: u8, flags: u8, target: Ipv6Addr, option: Option<(u8, MacAddress)>) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    if let Some((option, mac)) = option {
        message.extend(link_layer(option, mac));
    }
    message
}

fn link_layer(option: u8, mac: MacAddress) -> Vec<u8> {
    [&[option, 1][..], &mac.0].concat()
}

/// The link-local address made from a MAC address (RFC 4291, appendix A).
pub(super) fn link_local(mac: MacAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f))
}

fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = ip.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low)
}

fn multicast_mac(group: Ipv6Addr) -> MacAddress {
    let [.., a, b, c, d] = group.octets();
    MacAddress([0x33, 0x33, a, b, c, d])
}

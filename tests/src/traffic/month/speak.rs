//! What a host of the month does on one day: its address, its neighbours, its conversations with the internet.

use std::{net::IpAddr, sync::Arc};

use anyhow::Result;
use onenet_core::net::MacAddress;

use super::{
    super::{
        frame::{ACK, Body, Content, FIN, Frame, Look, PSH, Packet, Payload, SYN, Segment},
        local::{self, Dhcp4Client},
        random::Random,
        talk::{MILLI, SECOND},
        wire::{Link, Wire},
        world::{Host, Secretariat, Site, internet_host, internet_host6},
    },
    calendar::{at, is_worked, moment},
    device::{Connection, Device, Lease, Place, Stay, Way},
    plan::{gateway, relayed_server},
};

/// Servers on the internet.
#[derive(Debug)]
pub(super) struct Servers {
    v4: Vec<Host>,
    v6: Vec<Host>,
    request: Arc<[u8]>,
    answer: Arc<[u8]>,
}

impl Servers {
    /// Some hundred of each family.
    pub(super) fn new(random: &mut Random) -> Self {
        let request = [&[0x17, 3, 3, 0, 187][..], &random.octets::<187>()].concat();
        let answer = [&[0x17, 3, 3, 1, 57][..], &random.octets::<313>()].concat();
        Self {
            v4: (0..160).map(|_| internet_host(random)).collect(),
            v6: (0..60).map(|_| internet_host6(random)).collect(),
            request: request.into(),
            answer: answer.into(),
        }
    }

    fn pick(&self, ipv6: bool, random: &mut Random) -> Host {
        *random.pick(if ipv6 { &self.v6 } else { &self.v4 })
    }
}

/// The VLAN of a place, with the gateway of an address there.
pub(super) fn segment(place: Place, address: IpAddr) -> local::Segment {
    let Place { secretariat, site } = place;
    local::Segment { site, vlan: secretariat.vlan(site), gateway: gateway(place, address) }
}

/// One way to an edge: at which site, with which MAC address, and how many routers before it.
#[derive(Clone, Copy, Debug)]
struct Lane {
    site: Site,
    secretariat: Secretariat,
    mac: MacAddress,
    hops: u8,
}

impl Lane {
    fn put(self, wire: &mut Wire, time: i64, from_host: bool, packet: Packet) {
        let router = self.site.inside_mac();
        let (source, destination) = if from_host { (self.mac, router) } else { (router, self.mac) };
        let vlan = Some(self.secretariat.vlan(self.site));
        wire.put(
            Link::Inside(self.site),
            time,
            Frame { source, destination, vlan, content: Content::Ip(packet) },
        );
    }
}

/// The lanes of a conversation: forth at its beginning, forth later, and back.
fn lanes(stay: &Stay, time: i64) -> [Lane; 3] {
    let Place { secretariat, site } = stay.place;
    let home =
        Lane { site, secretariat, mac: stay.mac_at(site), hops: stay.hops + u8::from(stay.translated) };
    let other = |hops| {
        let site = site.other();
        Lane { site, secretariat, mac: secretariat.router_mac(site), hops }
    };
    match stay.way {
        Way::Straight => [home; 3],
        Way::Asymmetric(hops) => [home, home, other(hops)],
        Way::Failover(hops, from, until) if (from..until).contains(&time) => [other(hops); 3],
        Way::Failover(..) => [home; 3],
        Way::Split(hops) => [home, other(hops), other(hops)],
    }
}

impl Device {
    /// One day of all its stays.
    pub(super) fn live(&mut self, day: i64, wire: &mut Wire, servers: &Servers) -> Result<()> {
        if self.restarted && day % 7 == 0 {
            self.boot(at(day, 11));
        }
        let stays = std::mem::take(&mut self.stays);
        for stay in &stays {
            self.spend(day, stay, wire, servers)?;
        }
        self.stays = stays;
        Ok(())
    }

    fn spend(&mut self, day: i64, stay: &Stay, wire: &mut Wire, servers: &Servers) -> Result<()> {
        if stay.until <= at(day, 0) || stay.from >= at(day + 1, 0) {
            return Ok(());
        }
        let absent = !self.random.per_mille(stay.awake) || !(is_worked(day) || stay.weekends);
        let mut times: Vec<i64> = (0..stay.visits).map(|_| moment(&mut self.random, day)).collect();
        times.retain(|time| !absent && stay.covers(*time));
        times.sort_unstable();
        let arrives = (at(day, 0)..at(day + 1, 0)).contains(&stay.from);
        if let Some(first) = times.first() {
            self.arrive(first - 10 * SECOND, stay, arrives || day % 7 == 0, wire);
        }
        for (number, time) in (0..).zip(times) {
            self.converse(time, stay, wire, servers)?;
            if number == 0 || self.random.per_mille(200) {
                self.tell(time + 20 * SECOND, stay, wire, servers);
            }
            if number == 1 && stay.hops == 0 {
                self.be_found(time - 2 * SECOND, stay, wire);
            }
        }
        let leaves =
            (at(day, 0)..at(day + 1, 0)).contains(&(stay.until - 1)) && stay.lease == Lease::Released;
        if let (true, IpAddr::V4(address)) = (leaves && stay.hops == 0, stay.address) {
            let name = self.name.clone();
            let client = self.client(&name, address, stay);
            let segment = segment(stay.place, stay.address);
            segment.dhcp4_release(wire, &mut self.random, stay.until - SECOND, &client);
        }
        Ok(())
    }

    fn client<'a>(&self, name: &'a str, lease: std::net::Ipv4Addr, stay: &Stay) -> Dhcp4Client<'a> {
        let Place { secretariat, site } = stay.place;
        let direct = stay.hops == 0;
        let server = if direct { secretariat.address(site, 0, 5) } else { relayed_server(site) };
        Dhcp4Client {
            mac: stay.mac,
            hostname: name,
            lease,
            server,
            server_mac: Host::direct(secretariat, site, IpAddr::V4(server), 205).mac,
            gateway: gateway(stay.place, stay.address),
            vendor_class: self.stack.vendor_class,
        }
    }

    /// Gets or takes its address, and meets its gateway.
    fn arrive(&mut self, time: i64, stay: &Stay, first: bool, wire: &mut Wire) {
        let segment = segment(stay.place, stay.address);
        let leases = first && stay.lease != Lease::Static;
        if let (true, IpAddr::V4(address)) = (leases, stay.address) {
            let name = self.name.clone();
            let client = self.client(&name, address, stay);
            if stay.hops == 0 {
                segment.dhcp4(wire, &mut self.random, time - 5 * SECOND, &client);
                segment.arp_probe(wire, time - 4 * SECOND, stay.mac, address);
                segment.arp_announcement(wire, time - 2 * SECOND, stay.mac, address);
            } else {
                let Place { secretariat, site } = stay.place;
                let relay = (secretariat.router_mac(site), secretariat.address(site, 0, 2));
                segment.dhcp4_relayed(wire, &mut self.random, time - 5 * SECOND, &client, relay);
            }
        }
        if let (true, 0, IpAddr::V6(address)) = (leases, stay.hops, stay.address) {
            segment.dhcp6(wire, &mut self.random, time - 5 * SECOND, stay.mac, address);
        }
        if stay.hops == 0 {
            self.be_found(time, stay, wire);
        }
    }

    fn be_found(&mut self, time: i64, stay: &Stay, wire: &mut Wire) {
        let segment = segment(stay.place, stay.address);
        match stay.address {
            IpAddr::V4(address) => segment.arp_both_ways(wire, time, stay.mac, address),
            IpAddr::V6(address) => segment.neighbor_discovery(wire, time, stay.mac, address),
        }
    }

    fn packet(
        &mut self,
        connection: &mut Connection,
        (source, destination): (IpAddr, IpAddr),
        hops: u8,
        body: Body,
    ) -> Packet {
        let identification = self.identification(connection);
        Packet { source, destination, ttl: self.stack.ttl - hops, dscp: 0, identification, body }
    }

    /// A message that nobody answers: logs, telemetry, time.
    fn tell(&mut self, time: i64, stay: &Stay, wire: &mut Wire, servers: &Servers) {
        let server = servers.pick(stay.address.is_ipv6(), &mut self.random);
        let mut connection = self.connection(stay.address, server.ip);
        let [lane, ..] = lanes(stay, time);
        let body = Body::Udp {
            source: self.next_port(),
            destination: if self.random.per_mille(500) { 514 } else { 4500 },
            payload: Arc::from(&servers.request[..80]),
        };
        let packet = self.packet(&mut connection, (stay.address, server.ip), lane.hops, body);
        lane.put(wire, time, true, packet);
    }

    /// One TCP conversation: handshake, request, answer, end.
    fn converse(&mut self, time: i64, stay: &Stay, wire: &mut Wire, servers: &Servers) -> Result<()> {
        let server = servers.pick(stay.address.is_ipv6(), &mut self.random);
        self.count_others();
        let mut connection = self.connection(stay.address, server.ip);
        let [forth, later, back] = lanes(stay, time);
        let ports = (self.next_port(), if self.random.per_mille(900) { 443 } else { 8443 });
        let mut next = [self.random.bits(), self.random.bits()];
        let (server_start, mut server_id) = (self.random.bits(), self.random.bits());
        let (near, far) = (self.random.between(MILLI / 5, 3 * MILLI), 2 * server.distance);
        let think = self.random.between(5 * MILLI, 3 * SECOND);
        let (request, answer) = (servers.request.clone(), servers.answer.clone());
        let [none, request, answer] = [Payload::Empty, Payload::Octets(request), Payload::Octets(answer)];
        let steps = [
            (0, true, SYN, none.clone()),
            (far, false, SYN | ACK, none.clone()),
            (near, true, ACK, none.clone()),
            (MILLI, true, PSH | ACK, request),
            (far, false, PSH | ACK, answer),
            (near + think, true, FIN | ACK, none.clone()),
            (far, false, FIN | ACK, none.clone()),
            (near, true, ACK, none),
        ];
        let mss = self.stack.mss.min(if stay.address.is_ipv6() { 1440 } else { 1460 });
        let mut now = time;
        let mut echo = [0_u32; 2];
        for (delay, from_host, flags, payload) in steps {
            now += delay;
            let stamp = if from_host {
                self.stamp(&connection, now)
            } else {
                server_start.wrapping_add(u32::try_from((now - time) / MILLI)?)
            };
            let (own, other) = if from_host { (0, 1) } else { (1, 0) };
            let options = match (from_host, flags & SYN != 0) {
                (true, true) => self.stack.syn(mss, stamp),
                (false, true) => self.stack.answer(mss, (stamp, echo[0])),
                _ => self.stack.later((stamp, echo[other])),
            };
            echo[own] = stamp;
            let windows =
                if flags & SYN != 0 { [self.stack.window, 65_160] } else { [self.stack.later_window, 509] };
            let sequence = next[own];
            let length = u32::from(payload.len()) + u32::from(flags & (SYN | FIN) != 0);
            next[own] = sequence.wrapping_add(length);
            let fragmentable = from_host && !self.stack.whole;
            let body = Body::Tcp(Segment {
                source: if from_host { ports.0 } else { ports.1 },
                destination: if from_host { ports.1 } else { ports.0 },
                sequence,
                acknowledgement: if flags & ACK == 0 { 0 } else { next[other] },
                flags,
                window: windows[own],
                mss,
                look: Look { options: Some(options), fragmentable },
                payload,
            });
            let ends = (stay.address, server.ip);
            if from_host {
                let lane = if now - time > far + near { later } else { forth };
                let packet = self.packet(&mut connection, ends, lane.hops, body);
                lane.put(wire, now, true, packet);
            } else {
                server_id = server_id.wrapping_add(1);
                let packet = Packet {
                    source: ends.1,
                    destination: ends.0,
                    ttl: server.ttl - 1,
                    dscp: 0,
                    identification: server_id,
                    body,
                };
                back.put(wire, now, false, packet);
            }
        }
        Ok(())
    }
}

//! What happens on any working day: names are looked up, pages visited, mails handed over, addresses leased.

use std::net::IpAddr;

use anyhow::Result;

use super::{
    apps::{self, NAMES, Visit, datagrams, dns, ping, smtp, ssh, visit},
    day::{CLOSING, Day, HOUR, MINUTE, OPENING, moment},
    frame::{Arp, Body, Content, Frame, Packet, render},
    local::{Dhcp4Client, Segment},
    random::Random,
    talk::{MILLI, SECOND, Side, Talk},
    world::{
        AF, Attachment, DIRECT_HOSTS, EOTSS, HOSTS, Host, Secretariat, Site, internet_host, internet_host6,
        population,
    },
};

/// Everything ordinary.
pub(super) fn fill(day: &mut Day) -> Result<()> {
    for site in Site::ALL {
        segments(day, site);
        browsing(day, site)?;
        lookups(day, site)?;
        east_west(day, site)?;
        mail_and_shells(day, site)?;
        clocks(day, site)?;
    }
    between_sites(day)?;
    long_connection(day)?;
    stretched_vlan(day)
}

/// The site's resolver, which EOTSS runs for all.
pub(super) fn resolver(site: Site) -> Host {
    Host::direct(EOTSS, site, IpAddr::V4(EOTSS.address(site, 0, 53)), 253)
}

/// The site's mail relay.
pub(super) fn mail_relay(site: Site) -> Host {
    Host::dmz(site, 25)
}

/// The site's time server.
pub(super) fn time_server(site: Site) -> Host {
    Host::direct(EOTSS, site, IpAddr::V4(EOTSS.address(site, 0, 123)), 223)
}

/// ARP, DHCP and neighbour discovery of the hosts that stand on a VLAN.
fn segments(day: &mut Day, site: Site) {
    let mut random = day.random(&format!("segments {}", site.name()));
    for secretariat in Secretariat::all() {
        let segment = Segment::of(secretariat, site);
        let wire = &mut day.wire;
        for number in 0..DIRECT_HOSTS {
            let host = Host::of(secretariat, site, number);
            let IpAddr::V4(ip) = host.ip else { continue };
            let arrival = OPENING + random.between(0, 30 * MINUTE);
            let hostname = format!("{}-{}-{number:02}", secretariat.id(), site.name());
            let client = Dhcp4Client {
                mac: host.mac,
                hostname: &hostname,
                lease: ip,
                server: secretariat.address(site, 0, 5),
                server_mac: Host::direct(secretariat, site, host.ip, 205).mac,
                gateway: segment.gateway,
                vendor_class: "MSFT 5.0",
            };
            segment.arp_probe(wire, arrival + 20 * MILLI, host.mac, ip);
            segment.dhcp4(wire, &mut random, arrival, &client);
            segment.arp_announcement(wire, arrival + 3 * SECOND, host.mac, ip);
            segment.neighbor_discovery(
                wire,
                arrival + SECOND,
                host.mac,
                secretariat.ula(site, u16::from(number) + 0x20),
            );
            if number % 2 == 0 {
                let lease = secretariat.global6(site, u16::from(number) + 0x20);
                segment.dhcp6(wire, &mut random, arrival + 2 * SECOND, host.mac, lease);
                segment.neighbor_discovery(wire, arrival + 4 * SECOND, host.mac, lease);
            }
            let mut time = arrival + 5 * SECOND;
            while time < CLOSING {
                segment.arp_both_ways(wire, time, host.mac, ip);
                time += random.between(HOUR, 3 * HOUR);
            }
        }
        let router = secretariat.router_mac(site);
        segment.arp_both_ways(wire, OPENING + 5 * MILLI, router, secretariat.address(site, 0, 2));
    }
    for (host, gateway) in [resolver(site), time_server(site)].map(|host| (host, EOTSS.gateway(site))) {
        if let IpAddr::V4(ip) = host.ip {
            let segment = Segment { site, vlan: EOTSS.vlan(site), gateway };
            segment.arp_both_ways(&mut day.wire, OPENING + 9 * MILLI, host.mac, ip);
        }
    }
    let dmz = Segment { site, vlan: site.dmz_vlan(), gateway: site.dmz(1) };
    for last in [25, 80, 81] {
        dmz.arp_both_ways(&mut day.wire, OPENING + 11 * MILLI, Host::dmz(site, last).mac, site.dmz(last));
    }
}

fn ordinary_visit(random: &mut Random) -> Visit {
    Visit {
        port: if random.per_mille(150) { 80 } else { 443 },
        requests: 1 + random.bits().trailing_ones().min(4),
        answer: random.long_tail(900, 7),
        think: 5 * SECOND,
    }
}

/// People visit servers on the internet. Some servers are gone, some refuse.
fn browsing(day: &mut Day, site: Site) -> Result<()> {
    let mut random = day.random(&format!("browsing {}", site.name()));
    let people = population(site);
    let servers: Vec<Host> = (0..160).map(|_| internet_host(&mut random)).collect();
    let servers6: Vec<Host> = (0..30).map(|_| internet_host6(&mut random)).collect();
    for _ in 0..day.scaled(1150) {
        let host = *random.pick(&people);
        let start = moment(&mut random);
        let luck = random.below(1000);
        let (client, server) = match (luck, host.attachment) {
            (0..120, Attachment::Secretariat(secretariat, _)) => {
                let last = 0x20 + u16::from(random.octet(0, HOSTS));
                (host.with_ip(IpAddr::V6(secretariat.global6(site, last))), *random.pick(&servers6))
            }
            _ => (host, *random.pick(&servers)),
        };
        let path = day.wire.path(client, server);
        let wire = &mut day.wire;
        match luck {
            970..985 => Talk::new(wire, path, &mut random, 443, start).unanswered(2)?,
            985..995 => Talk::new(wire, path, &mut random, 8080, start).refused()?,
            _ => {
                let how = ordinary_visit(&mut random);
                visit(wire, &mut random, path, start, how)?;
            }
        }
    }
    Ok(())
}

/// Hosts ask the resolver, the resolver asks the internet; some answers come in fragments.
fn lookups(day: &mut Day, site: Site) -> Result<()> {
    let mut random = day.random(&format!("lookups {}", site.name()));
    let people: Vec<Host> =
        population(site).into_iter().filter(|host| host.secretariat() != Some(EOTSS)).collect();
    let upstream =
        ["9.9.9.9", "8.8.8.8", "1.1.1.1"].map(|ip| ip.parse().map(|ip| Host::internet(ip, &mut random)));
    let upstream = upstream.into_iter().collect::<Result<Vec<_>, _>>()?;
    for number in 0..day.scaled(1500) {
        let start = moment(&mut random);
        let name = *random.pick(&NAMES);
        let kind = *random.pick(&[1, 1, 28]);
        let (question, answer) = dns(&mut random, name, kind, 0);
        let mut path = day.wire.path(*random.pick(&people), resolver(site));
        let ports = (random.client_port(), 53);
        let asked_upstream = random.per_mille(350);
        let think = if asked_upstream { 45 * MILLI } else { MILLI / 3 };
        datagrams(&mut day.wire, &mut path, ports, start, question, answer, think)?;
        if asked_upstream {
            let long = if number % 50 == 0 { 3200 } else { 0 };
            let (question, answer) = dns(&mut random, name, kind, long);
            let mut path = day.wire.path(resolver(site), *random.pick(&upstream));
            let ports = (random.client_port(), 53);
            datagrams(&mut day.wire, &mut path, ports, start + MILLI, question, answer, MILLI)?;
        }
    }
    Ok(())
}

/// Secretariats use each other's servers through the edge, by IPv4 and by unique local IPv6.
fn east_west(day: &mut Day, site: Site) -> Result<()> {
    let mut random = day.random(&format!("east-west {}", site.name()));
    let people = population(site);
    for number in 0..day.scaled(170) {
        let client = *random.pick(&people);
        let server_of = Secretariat(random.octet(0, 9));
        let (Some(own), start) = (client.secretariat(), moment(&mut random)) else { continue };
        if own == server_of {
            continue;
        }
        let server = Host::of(server_of, site, random.octet(0, 4));
        let (client, server) = if number % 6 == 0 {
            let last = 0x20 + u16::from(random.octet(0, DIRECT_HOSTS));
            (
                client.with_ip(IpAddr::V6(own.ula(site, last))),
                server.with_ip(IpAddr::V6(server_of.ula(site, 0x21))),
            )
        } else {
            (client, server)
        };
        let path = day.wire.path(client, server);
        if number % 9 == 0 {
            let mut path = path;
            ping(&mut day.wire, &mut random, &mut path, start, 4, true)?;
        } else if number % 23 == 0 {
            let mut path = path;
            let report = vec![b'.'; 4200];
            let ports = (random.client_port(), 9995);
            datagrams(&mut day.wire, &mut path, ports, start, report, Vec::new(), 0)?;
        } else {
            let how = Visit { answer: random.long_tail(600, 5), ..ordinary_visit(&mut random) };
            visit(&mut day.wire, &mut random, path, start, how)?;
        }
    }
    Ok(())
}

/// Mail out and in, and administrators' shells.
fn mail_and_shells(day: &mut Day, site: Site) -> Result<()> {
    let mut random = day.random(&format!("mail {}", site.name()));
    for number in 0..day.scaled(70) {
        let exchanger = internet_host(&mut random);
        let start = moment(&mut random);
        let outbound = number % 3 != 0;
        let (client, server) =
            if outbound { (mail_relay(site), exchanger) } else { (exchanger, mail_relay(site)) };
        let path = day.wire.path(client, server);
        if outbound && number % 9 == 4 {
            Talk::new(&mut day.wire, path, &mut random, 25, start).unanswered(1)?;
        } else {
            smtp(&mut day.wire, &mut random, path, start)?;
        }
    }
    for _ in 0..day.scaled(16) {
        let administrator = Host::of(EOTSS, site, random.octet(8, HOSTS));
        let server = Host::of(Secretariat(random.octet(0, 8)), site, random.octet(0, HOSTS));
        let path = day.wire.path(administrator, server);
        let exchanges = random.long_tail(10, 3);
        let start = moment(&mut random);
        ssh(&mut day.wire, &mut random, path, start, exchanges, 8 * SECOND)?;
    }
    Ok(())
}

/// The time server asks the internet's every 128 seconds, and some hosts ask it.
fn clocks(day: &mut Day, site: Site) -> Result<()> {
    let mut random = day.random(&format!("clocks {}", site.name()));
    let sources: Vec<Host> = (0..3).map(|_| internet_host(&mut random)).collect();
    let mut time = OPENING + random.between(0, 64 * SECOND);
    while time < CLOSING {
        for source in &sources {
            let (question, answer) = apps::ntp(&mut random);
            let mut path = day.wire.path(time_server(site), *source);
            datagrams(&mut day.wire, &mut path, (123, 123), time, question, answer, MILLI / 20)?;
        }
        time += 128 * SECOND;
    }
    for host in population(site).iter().filter(|host| host.secretariat() == Some(AF)) {
        let mut time = OPENING + random.between(0, HOUR);
        while time < CLOSING {
            let (question, answer) = apps::ntp(&mut random);
            let mut path = day.wire.path(*host, time_server(site));
            datagrams(&mut day.wire, &mut path, (123, 123), time, question, answer, MILLI / 20)?;
            time += 1024 * SECOND;
        }
    }
    Ok(())
}

/// Boston's people use Lowell's servers, through the GRE tunnel between the edges.
fn between_sites(day: &mut Day) -> Result<()> {
    let mut random = day.random("between sites");
    let people = population(Site::Boston);
    for number in 0..day.scaled(60) {
        let client = *random.pick(&people);
        let server_of = Secretariat(random.octet(0, 9));
        let server = Host::of(server_of, Site::Lowell, random.octet(0, 4));
        let (client, server) = match client.secretariat() {
            Some(own) if number % 7 == 0 => {
                let ula = |of: Secretariat, site, last| IpAddr::V6(of.ula(site, last));
                (
                    client.with_ip(ula(own, Site::Boston, 0x22)),
                    server.with_ip(ula(server_of, Site::Lowell, 0x21)),
                )
            }
            _ => (client, server),
        };
        let path = day.wire.path(client, server);
        let how = Visit { answer: random.long_tail(600, 4), ..ordinary_visit(&mut random) };
        let start = moment(&mut random);
        visit(&mut day.wire, &mut random, path, start, how)?;
    }
    Ok(())
}

/// One connection that lasts most of the day: longer than any active timeout.
fn long_connection(day: &mut Day) -> Result<()> {
    let mut random = day.random("long connection");
    let client = Host::of(EOTSS, Site::Boston, 11);
    let server = internet_host(&mut random);
    let path = day.wire.path(client, server);
    let start = OPENING + 40 * MINUTE;
    let mut talk = Talk::new(&mut day.wire, path, &mut random, 443, start);
    talk.connect()?;
    apps::tls_handshake(&mut talk, &mut random, "tunnel.vendor.example")?;
    while talk.now() < OPENING + 7 * HOUR {
        apps::tls_exchange(&mut talk, &mut random, 200, 900)?;
        for _ in 0..random.below(12) {
            talk.pause(45 * SECOND);
            talk.keep_alive(Side::Client)?;
        }
        talk.pause(random.between(SECOND, 100 * SECOND));
    }
    talk.close(Side::Client)
}

/// A VLAN that is stretched between the sites by VXLAN (RFC 7348): a tunnel that carries whole frames.
fn stretched_vlan(day: &mut Day) -> Result<()> {
    const VNI: [u8; 4] = [0, 0x13, 0x89, 0];
    let mut random = day.random("stretched vlan");
    let [one, other] =
        Site::ALL.map(|site| Host::direct(EOTSS, site, IpAddr::V4(EOTSS.address(site, 95, 7)), 95));
    let (IpAddr::V4(one_ip), IpAddr::V4(other_ip)) = (one.ip, other.ip) else { return Ok(()) };
    for number in 0..day.scaled(40) {
        let time = moment(&mut random);
        let ports = [random.client_port(), random.client_port()];
        for (reply, site, (from, to)) in
            [(false, Site::Boston, (&one, &other)), (true, Site::Lowell, (&other, &one))]
        {
            let content = if number % 4 == 0 {
                let (sender, target) =
                    ((from.mac, if reply { other_ip } else { one_ip }), (to.mac, other_ip));
                Content::Arp(Arp { reply, sender, target })
            } else {
                let mut message = vec![if reply { 0 } else { 8 }, 0, 0, 0, 0, 9, 0, 1];
                message.extend([b'v'; 40]);
                let body = Body::Icmp(message.into());
                Content::Ip(Packet {
                    source: from.ip,
                    destination: to.ip,
                    ttl: 64,
                    dscp: 0,
                    identification: number,
                    body,
                })
            };
            let frame = Frame { source: from.mac, destination: to.mac, vlan: None, content };
            let mut payload = vec![0x08, 0, 0, 0];
            payload.extend(VNI);
            render(&frame, &mut payload)?;
            let packet = Packet {
                source: IpAddr::V4(site.wan()),
                destination: IpAddr::V4(site.other().wan()),
                ttl: 255,
                dscp: 0,
                identification: number,
                body: Body::Udp {
                    source: ports[usize::from(reply)],
                    destination: 4789,
                    payload: payload.into(),
                },
            };
            let leaves = time + i64::from(reply) * 5 * MILLI;
            day.wire.internet(leaves, site, true, packet.clone())?;
            day.wire.internet(leaves + 2 * MILLI, site.other(), false, Packet { ttl: 249, ..packet })?;
        }
    }
    Ok(())
}

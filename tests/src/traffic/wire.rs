//! The four links and the edge routers between them: a packet of one host to another becomes the frames that
//! a tap on each link sees, with VLAN, MAC addresses, time to live and translated addresses as they are there.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use anyhow::Result;
use onenet_core::net::MacAddress;

use super::{
    frame::{Body, Content, Frame, Packet, render_ip, udp_datagram},
    world::{Attachment, EOTSS, Host, Site},
};

/// Nanoseconds a packet spends in an edge router.
const FORWARDING: i64 = 34_000;
/// Nanoseconds from edge to edge.
const BETWEEN_SITES: i64 = 1_900_000;
/// Hops from edge to edge.
const HOPS_BETWEEN_SITES: u8 = 6;
/// Longest IP packet of the links.
const MTU: usize = 1500;
/// Key of the GRE tunnel between the edges.
const TUNNEL_KEY: u32 = 100;

/// One tapped link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// Trunk to the secretariats.
    Inside(Site),
    /// Link to the internet provider.
    Outside(Site),
}

impl Link {
    /// All four, in the order of their captures.
    pub(super) const ALL: [Self; 4] = [
        Self::Inside(Site::Boston),
        Self::Outside(Site::Boston),
        Self::Inside(Site::Lowell),
        Self::Outside(Site::Lowell),
    ];

    /// Its site.
    pub(super) const fn site(self) -> Site {
        match self {
            Self::Inside(site) | Self::Outside(site) => site,
        }
    }

    /// Name of its capture, without the suffix.
    pub(super) fn name(self) -> String {
        let side = if matches!(self, Self::Inside(_)) { "inside" } else { "outside" };
        format!("{}-{side}", self.site().name())
    }

    const fn index(self) -> usize {
        match self {
            Self::Inside(site) => 2 * site.index() as usize,
            Self::Outside(site) => 2 * site.index() as usize + 1,
        }
    }
}

/// How far packets get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// To the other host.
    Through,
    /// To the edge router, which drops them.
    Edge,
}

/// The way between two hosts, and how their packets look on it.
#[derive(Clone, Debug)]
pub(super) struct Path {
    /// Who starts.
    pub(super) client: Host,
    /// Who answers.
    pub(super) server: Host,
    /// Edge that the client's packets pass.
    pub(super) forth: Site,
    /// Edge that the server's packets pass.
    pub(super) back: Site,
    /// What the client's address and port (or ICMP identifier) are on the internet.
    pub(super) translated: Option<(IpAddr, u16)>,
    /// How far the client's packets get.
    pub(super) reach: Reach,
    /// DSCP of both.
    pub(super) dscp: u8,
    identification: [u32; 2],
}

impl Path {
    /// The way without address translation, by the edge of whoever is ours.
    pub(super) fn untranslated(client: Host, server: Host) -> Self {
        let site = client.site().or(server.site()).unwrap_or(Site::Boston);
        let seed = |host: &Host| match host.ip {
            IpAddr::V4(ip) => u32::from(ip).wrapping_mul(0x9e37_79b1) >> 8,
            IpAddr::V6(ip) => u32::from(ip.segments()[7]).wrapping_mul(0x9e37_79b1),
        };
        Self {
            client,
            server,
            forth: site,
            back: site,
            translated: None,
            reach: Reach::Through,
            dscp: 0,
            identification: [seed(&client), seed(&server)],
        }
    }

    /// The same way back by the other edge.
    pub(super) const fn back_by_other_edge(mut self) -> Self {
        self.back = self.forth.other();
        self
    }

    /// The same, dropped by the edge.
    pub(super) const fn dropped(mut self) -> Self {
        self.reach = Reach::Edge;
        self
    }

    /// Nanoseconds from a packet at its own edge to the answer at the answering host's edge.
    pub(super) fn turnaround(&self, client_answers: bool) -> i64 {
        let between = match (self.client.site(), self.server.site()) {
            (Some(one), Some(other)) if one != other => BETWEEN_SITES,
            _ => 0,
        };
        between + 2 * if client_answers { self.client.distance } else { self.server.distance }
    }

    /// Largest TCP segment that fits everywhere on the way.
    pub(super) fn mss(&self) -> u16 {
        let tunnelled = self.client.site().is_some_and(|site| self.server.site().is_some_and(|s| s != site));
        match (self.client.ip.is_ipv4(), tunnelled) {
            (true, false) => 1460,
            (true, true) => 1380,
            (false, false) => 1440,
            (false, true) => 1360,
        }
    }
}

/// All that passed the four links.
#[derive(Debug, Default)]
pub(super) struct Wire {
    links: [Vec<(i64, Frame)>; 4],
    next_port: HashMap<IpAddr, u16>,
}

impl Wire {
    /// The way from client to server, with a translation of the client's address where it needs one.
    pub(super) fn path(&mut self, client: Host, server: Host) -> Path {
        let mut path = Path::untranslated(client, server);
        if let (Attachment::Secretariat(secretariat, site), Attachment::Internet, IpAddr::V4(ip)) =
            (client.attachment, server.attachment, client.ip)
            && ip.is_private()
        {
            let share = secretariat.0 * 8 + ip.octets()[3] % 8 + 1;
            let pool = IpAddr::V4(site.pool(share));
            let port = self.next_port.entry(pool).or_insert(1023);
            *port = if *port == u16::MAX { 1024 } else { *port + 1 };
            path.translated = Some((pool, *port));
        }
        path
    }

    /// Puts a frame on a link.
    pub(super) fn put(&mut self, link: Link, time: i64, frame: Frame) {
        self.links[link.index()].push((time, frame));
    }

    /// Takes what passed a link, in order of time.
    pub(super) fn take(&mut self, link: Link) -> Vec<(i64, Frame)> {
        let mut frames = std::mem::take(&mut self.links[link.index()]);
        frames.sort_by_key(|(time, _)| *time);
        frames
    }

    /// Takes what passed a link before `end`, in order of time.
    pub(super) fn take_until(&mut self, link: Link, end: i64) -> Vec<(i64, Frame)> {
        let mut frames = self.take(link);
        let later = frames.split_off(frames.partition_point(|(time, _)| *time < end));
        self.links[link.index()] = later;
        frames
    }

    /// Sends one packet; `time` is when it passes its first edge.
    pub(super) fn send(&mut self, time: i64, path: &mut Path, from_client: bool, body: Body) -> Result<()> {
        let (from, to) = if from_client { (path.client, path.server) } else { (path.server, path.client) };
        let identification = &mut path.identification[usize::from(!from_client)];
        *identification = identification.wrapping_add(1);
        let packet = Packet {
            source: from.ip,
            destination: to.ip,
            ttl: from.ttl,
            dscp: path.dscp,
            identification: *identification,
            body,
        };
        let site = if from_client { path.forth } else { path.back };
        let through = !from_client || path.reach == Reach::Through;
        let outside = |packet| match path.translated {
            Some(translated) => translate(packet, from_client, translated),
            None => packet,
        };
        match (from.site(), to.site()) {
            (None, None) => {}
            (Some(_), None) => {
                self.trunk(time, site, &from, true, packet.clone())?;
                if through {
                    self.internet(time + FORWARDING, site, true, outside(hop(packet, 1)))?;
                }
            }
            (None, Some(_)) => {
                self.internet(time, site, false, outside(packet.clone()))?;
                if through {
                    self.trunk(time + FORWARDING, site, &to, false, hop(packet, 1))?;
                }
            }
            (Some(here), Some(there)) if here == there => {
                self.trunk(time, here, &from, true, packet.clone())?;
                if through {
                    self.trunk(time + FORWARDING, there, &to, false, hop(packet, 1))?;
                }
            }
            (Some(here), Some(there)) => {
                self.trunk(time, here, &from, true, packet.clone())?;
                if through {
                    let inner = hop(packet, 1);
                    let outer = tunnel_packet(here, there, &inner)?;
                    self.internet(time + FORWARDING, here, true, outer.clone())?;
                    let arrival = time + BETWEEN_SITES;
                    self.internet(arrival, there, false, hop(outer, HOPS_BETWEEN_SITES))?;
                    self.trunk(arrival + FORWARDING, there, &to, false, hop(inner, 1))?;
                }
            }
        }
        Ok(())
    }

    /// Puts a packet on the internet link of a site.
    pub(super) fn internet(&mut self, time: i64, site: Site, leaving: bool, packet: Packet) -> Result<()> {
        let (source, destination) = if leaving {
            (site.outside_mac(), site.provider_mac())
        } else {
            (site.provider_mac(), site.outside_mac())
        };
        self.put_packet(Link::Outside(site), time, (source, destination, None), packet)
    }

    /// Puts a packet of or to `host` on the trunk of a site.
    pub(super) fn trunk(
        &mut self,
        time: i64,
        site: Site,
        host: &Host,
        from_host: bool,
        packet: Packet,
    ) -> Result<()> {
        let Some((mac, vlan)) = host.on_trunk(site) else { return Ok(()) };
        let router = site.inside_mac();
        let (source, destination) = if from_host { (mac, router) } else { (router, mac) };
        self.put_packet(Link::Inside(site), time, (source, destination, Some(vlan)), packet)
    }

    fn put_packet(
        &mut self,
        link: Link,
        time: i64,
        (source, destination, vlan): (MacAddress, MacAddress, Option<u16>),
        packet: Packet,
    ) -> Result<()> {
        for (number, packet) in (0..).zip(fragments(packet)?) {
            let frame = Frame { source, destination, vlan, content: Content::Ip(packet) };
            self.put(link, time + number * 12_000, frame);
        }
        Ok(())
    }
}

/// The packet some hops later.
fn hop(mut packet: Packet, hops: u8) -> Packet {
    packet.ttl = packet.ttl.saturating_sub(hops);
    packet
}

/// The packet with the client's address and port as the internet sees them.
fn translate(mut packet: Packet, from_client: bool, (ip, port): (IpAddr, u16)) -> Packet {
    if from_client {
        packet.source = ip;
    } else {
        packet.destination = ip;
    }
    match &mut packet.body {
        Body::Tcp(segment) if from_client => segment.source = port,
        Body::Tcp(segment) => segment.destination = port,
        Body::Udp { source, .. } if from_client => *source = port,
        Body::Udp { destination, .. } => *destination = port,
        Body::Icmp(message) => {
            let mut changed = message.to_vec();
            if let Some(identifier) = changed.get_mut(4..6) {
                identifier.copy_from_slice(&port.to_be_bytes());
            }
            *message = changed.into();
        }
        Body::Fragment { .. } | Body::Other(..) => {}
    }
    packet
}

/// The packet in fragments, where it is a datagram longer than the link takes.
fn fragments(packet: Packet) -> Result<Vec<Packet>> {
    let Body::Udp { source, destination, payload } = &packet.body else { return Ok(vec![packet]) };
    let headers = if packet.source.is_ipv4() { 20 } else { 48 };
    if payload.len() + 8 + headers <= MTU {
        return Ok(vec![packet]);
    }
    let mut datagram = Vec::new();
    udp_datagram((packet.source, packet.destination), (*source, *destination), payload, &mut datagram)?;
    let step = (MTU - headers) / 8 * 8;
    let count = datagram.len().div_ceil(step);
    let parts = datagram.chunks(step).enumerate().map(|(number, part)| {
        let body = Body::Fragment {
            offset: u16::try_from(number * step)?,
            more: number + 1 < count,
            part: Arc::from(part),
        };
        Ok(Packet { body, ..packet.clone() })
    });
    parts.collect()
}

/// The packet inside the GRE tunnel between the edges (RFC 2890: key present).
fn tunnel_packet(from: Site, to: Site, inner: &Packet) -> Result<Packet> {
    let ether_type: [u8; 2] = if inner.source.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
    let mut octets = vec![0x20, 0x00];
    octets.extend(ether_type);
    octets.extend(TUNNEL_KEY.to_be_bytes());
    render_ip(inner, &mut octets)?;
    Ok(Packet {
        source: IpAddr::V4(from.wan()),
        destination: IpAddr::V4(to.wan()),
        ttl: 255,
        dscp: 0,
        identification: inner.identification,
        body: Body::Other(47, octets.into()),
    })
}

/// A host of EOTSS with a public address that is not translated: 146.243.79.0/24, reachable by both edges.
pub(super) fn untranslated_host(site: Site, last: u8) -> Host {
    Host::routed(EOTSS, site, IpAddr::V4(std::net::Ipv4Addr::new(146, 243, 79, last)))
}

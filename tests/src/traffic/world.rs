//! The two edges and who is behind them: sites, secretariats, hosts and their addresses.
//!
//! Every secretariat has one VLAN on the inside trunk of each edge. Hosts in its first subnet stand on that
//! VLAN with their own MAC address; the others are behind the secretariat's own router. Public servers stand in
//! a DMZ that EOTSS runs. Private IPv4 addresses are translated to a pool of the site, one share for each
//! secretariat; public addresses and global IPv6 are not translated.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use onenet_core::net::MacAddress;

use super::random::Random;

/// One of the two edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Site {
    /// Boston.
    Boston,
    /// Lowell.
    Lowell,
}

impl Site {
    /// Both edges.
    pub(super) const ALL: [Self; 2] = [Self::Boston, Self::Lowell];

    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Boston => "boston",
            Self::Lowell => "lowell",
        }
    }

    /// 0 or 1.
    pub(super) const fn index(self) -> u8 {
        match self {
            Self::Boston => 0,
            Self::Lowell => 1,
        }
    }

    /// The other edge.
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Boston => Self::Lowell,
            Self::Lowell => Self::Boston,
        }
    }

    /// MAC address of the edge router on the inside trunk.
    pub(super) const fn inside_mac(self) -> MacAddress {
        MacAddress([0x00, 0x1b, 0x54, 0xb0, self.index(), 0x01])
    }

    /// MAC address of the edge router on the internet link.
    pub(super) const fn outside_mac(self) -> MacAddress {
        MacAddress([0x00, 0x1b, 0x54, 0xb0, self.index(), 0x02])
    }

    /// MAC address of the internet provider's router.
    pub(super) const fn provider_mac(self) -> MacAddress {
        MacAddress([0x3c, 0x8a, 0xb0, 0x17, self.index(), 0xfe])
    }

    /// Address of the edge router on the internet link; the provider's, so not in our prefixes.
    pub(super) const fn wan(self) -> Ipv4Addr {
        Ipv4Addr::new(64, 210, 17 + self.index(), 2)
    }

    /// Third octet of the first of the site's sixteen public /24.
    const fn public_base(self) -> u8 {
        64 + 32 * self.index()
    }

    /// An address of the site's DMZ, 146.243.64.0/24 or 146.243.96.0/24.
    pub(super) const fn dmz(self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(146, 243, self.public_base(), last)
    }

    /// An address of the site's translation pool.
    pub(super) const fn pool(self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(146, 243, self.public_base() + 8, last)
    }

    /// An address of the site's public range that nobody uses.
    pub(super) const fn unused_public(self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(146, 243, self.public_base() + 11, last)
    }

    /// VLAN of the DMZ.
    pub(super) const fn dmz_vlan(self) -> u16 {
        195 + 100 * self.index() as u16
    }
}

/// One of the nine secretariats, in the order of [`SECRETARIATS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Secretariat(pub(super) u8);

/// Ids and names.
pub(super) const SECRETARIATS: [(&str, &str); 9] = [
    ("af", "Administration and Finance"),
    ("eoe", "Executive Office of Education"),
    ("eea", "Executive Office of Energy and Environmental Affairs"),
    ("eohhs", "Executive Office of Health and Human Services"),
    ("eohed", "Executive Office of Housing and Economic Development"),
    ("eolwd", "Executive Office of Labor and Workforce Development"),
    ("eopss", "Executive Office of Public Safety and Security"),
    ("massdot", "Massachusetts Department of Transportation"),
    ("eotss", "Executive Office of Technology Services and Security"),
];

/// Administration and Finance.
pub(super) const AF: Secretariat = Secretariat(0);
/// Education.
pub(super) const EOE: Secretariat = Secretariat(1);
/// Energy and Environmental Affairs.
pub(super) const EEA: Secretariat = Secretariat(2);
/// Health and Human Services.
pub(super) const EOHHS: Secretariat = Secretariat(3);
/// Housing and Economic Development.
pub(super) const EOHED: Secretariat = Secretariat(4);
/// Labor and Workforce Development.
pub(super) const EOLWD: Secretariat = Secretariat(5);
/// Public Safety and Security.
pub(super) const EOPSS: Secretariat = Secretariat(6);
/// Transportation.
pub(super) const MASSDOT: Secretariat = Secretariat(7);
/// Technology Services and Security.
pub(super) const EOTSS: Secretariat = Secretariat(8);

impl Secretariat {
    /// All nine.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..9).map(Self)
    }

    /// Short id.
    pub(super) fn id(self) -> &'static str {
        SECRETARIATS[usize::from(self.0)].0
    }

    /// Full name.
    pub(super) fn name(self) -> &'static str {
        SECRETARIATS[usize::from(self.0)].1
    }

    /// Where its addresses are meant to be unique. Two share one, because one office runs both networks.
    pub(super) fn address_space(self) -> &'static str {
        match self {
            EOHED | EOLWD => "eohed-eolwd",
            _ => self.id(),
        }
    }

    /// Second octet of its own 10.x.0.0/16.
    pub(super) const fn octet(self) -> u8 {
        10 * (self.0 + 1)
    }

    /// Its VLAN on the trunk of a site.
    pub(super) const fn vlan(self, site: Site) -> u16 {
        110 + 10 * self.0 as u16 + 100 * site.index() as u16
    }

    /// MAC address of its own router on that VLAN.
    pub(super) const fn router_mac(self, site: Site) -> MacAddress {
        MacAddress([0x70, 0x6d, 0x15, site.index(), self.0, 0x01])
    }

    /// An address of its own /16: `subnet` 0 is on the VLAN, others are behind its router.
    pub(super) const fn address(self, site: Site, subnet: u8, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.octet(), site.index() * 128 + subnet, last)
    }

    /// Default gateway on its VLAN: the edge router.
    pub(super) const fn gateway(self, site: Site) -> Ipv4Addr {
        self.address(site, 0, 1)
    }

    /// An address of its unique local prefix.
    pub(super) const fn ula(self, site: Site, last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd6d, 0x6100, self.octet() as u16, site.index() as u16, 0, 0, 0, last)
    }

    /// An address of its global IPv6 prefix.
    pub(super) const fn global6(self, site: Site, last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2d10, 0x146, 0x243, ((site.index() as u16) << 8) | self.octet() as u16, 0, 0, 0, last)
    }
}

/// Where a host is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attachment {
    /// Somewhere on the internet.
    Internet,
    /// On a secretariat's VLAN, or behind its router there.
    Secretariat(Secretariat, Site),
    /// In the DMZ of a site.
    Dmz(Site),
}

/// One host, as the edge sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host {
    /// Address.
    pub(super) ip: IpAddr,
    /// Where it is.
    pub(super) attachment: Attachment,
    /// MAC address that its packets arrive with.
    pub(super) mac: MacAddress,
    /// Time to live that its packets arrive with.
    pub(super) ttl: u8,
    /// Nanoseconds from the edge to it.
    pub(super) distance: i64,
}

impl Host {
    /// The host that is `number` in this secretariat: the first [`DIRECT_HOSTS`] stand on the VLAN.
    pub(super) fn of(secretariat: Secretariat, site: Site, number: u8) -> Self {
        let direct = number < DIRECT_HOSTS;
        let subnet = if direct { 0 } else { 4 + number % 3 };
        let last = 20 + number;
        let ip = secretariat.address(site, subnet, last);
        if direct {
            Self::direct(secretariat, site, IpAddr::V4(ip), number)
        } else {
            Self::routed(secretariat, site, IpAddr::V4(ip))
        }
    }

    /// A host on the secretariat's VLAN.
    pub(super) fn direct(secretariat: Secretariat, site: Site, ip: IpAddr, station: u8) -> Self {
        let mac = MacAddress([0x8c, 0x16, 0x45, (secretariat.0 << 1) | site.index(), 0x40, station]);
        let ttl = if station.is_multiple_of(3) { 64 } else { 128 };
        let distance = 90_000;
        Self { ip, attachment: Attachment::Secretariat(secretariat, site), mac, ttl, distance }
    }

    /// A host behind the secretariat's router.
    pub(super) fn routed(secretariat: Secretariat, site: Site, ip: IpAddr) -> Self {
        let mac = secretariat.router_mac(site);
        Self { ip, attachment: Attachment::Secretariat(secretariat, site), mac, ttl: 126, distance: 450_000 }
    }

    /// A server in the DMZ.
    pub(super) fn dmz(site: Site, last: u8) -> Self {
        let mac = MacAddress([0x00, 0x50, 0x56, 0xd0, site.index(), last]);
        let ip = IpAddr::V4(site.dmz(last));
        Self { ip, attachment: Attachment::Dmz(site), mac, ttl: 64, distance: 120_000 }
    }

    /// A host on the internet.
    pub(super) fn internet(ip: IpAddr, random: &mut Random) -> Self {
        let start = *random.pick(&[64, 64, 64, 128, 255]);
        let hops = random.octet(6, 22);
        let distance = random.between(2_000_000, 45_000_000);
        Self { ip, attachment: Attachment::Internet, mac: MacAddress::default(), ttl: start - hops, distance }
    }

    /// The same station with another address.
    pub(super) const fn with_ip(mut self, ip: IpAddr) -> Self {
        self.ip = ip;
        self
    }

    /// The site it is attached at, unless it is on the internet.
    pub(super) const fn site(&self) -> Option<Site> {
        match self.attachment {
            Attachment::Internet => None,
            Attachment::Secretariat(_, site) | Attachment::Dmz(site) => Some(site),
        }
    }

    /// Its secretariat, unless it is on the internet.
    pub(super) const fn secretariat(&self) -> Option<Secretariat> {
        match self.attachment {
            Attachment::Internet => None,
            Attachment::Secretariat(secretariat, _) => Some(secretariat),
            Attachment::Dmz(_) => Some(EOTSS),
        }
    }

    /// MAC address and VLAN of its packets on the trunk of `site`: at the other edge it is behind the
    /// secretariat's router.
    pub(super) fn on_trunk(&self, site: Site) -> Option<(MacAddress, u16)> {
        match self.attachment {
            Attachment::Internet => None,
            Attachment::Dmz(at) if at == site => Some((self.mac, site.dmz_vlan())),
            Attachment::Dmz(_) => Some((EOTSS.router_mac(site), EOTSS.vlan(site))),
            Attachment::Secretariat(secretariat, at) => {
                let mac = if at == site { self.mac } else { secretariat.router_mac(site) };
                Some((mac, secretariat.vlan(site)))
            }
        }
    }
}

/// Hosts of each secretariat at each site that stand on its VLAN.
pub(super) const DIRECT_HOSTS: u8 = 8;
/// Hosts of each secretariat at each site.
pub(super) const HOSTS: u8 = 20;

/// Every ordinary host of a site.
pub(super) fn population(site: Site) -> Vec<Host> {
    Secretariat::all()
        .flat_map(|secretariat| (0..HOSTS).map(move |number| Host::of(secretariat, site, number)))
        .collect()
}

/// First octets of networks that are globally reachable, so that random hosts are never special-purpose.
const INTERNET_OCTETS: [u8; 24] =
    [3, 5, 13, 18, 23, 31, 34, 45, 52, 62, 77, 81, 91, 104, 109, 128, 142, 151, 163, 178, 185, 193, 212, 217];

/// A random address of the internet.
pub(super) fn internet_address(random: &mut Random) -> Ipv4Addr {
    let first = *random.pick(&INTERNET_OCTETS);
    Ipv4Addr::new(first, random.octet(1, 255), random.octet(0, 255), random.octet(1, 255))
}

/// A random host of the internet, IPv4.
pub(super) fn internet_host(random: &mut Random) -> Host {
    let address = internet_address(random);
    Host::internet(IpAddr::V4(address), random)
}

/// A random host of the internet, IPv6.
pub(super) fn internet_host6(random: &mut Random) -> Host {
    let [a, b, c, d]: [u8; 4] = random.octets();
    let address = Ipv6Addr::new(0x2d20, u16::from(a), u16::from(b), u16::from(c), 0, 0, 0, u16::from(d) + 1);
    Host::internet(IpAddr::V6(address), random)
}

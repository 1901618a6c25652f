//! A host of the month: its stack with all that it counts, and where it stays with which address.

use std::{collections::BTreeMap, net::IpAddr};

use onenet_core::net::MacAddress;

use super::{
    super::{
        random::Random,
        world::{Secretariat, Site},
    },
    calendar::{DAY, END, START},
    stack::{Clock, Ids, Ports, Stack},
};

/// A secretariat's attachment at a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Whose.
    pub(super) secretariat: Secretariat,
    /// Where.
    pub(super) site: Site,
}

impl Place {
    /// The same secretariat at the other site.
    pub(super) const fn elsewhere(self) -> Self {
        Self { site: self.site.other(), ..self }
    }
}

/// Which way packets go where both edges can be passed; with the hops to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By the edge of the place.
    Straight,
    /// Answers come by the other edge.
    Asymmetric(u8),
    /// By the other edge between these times.
    Failover(u8, i64, i64),
    /// Each conversation begins at one edge and goes on at the other.
    Split(u8),
}

/// How an address was got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lease {
    /// Configured by hand.
    Static,
    /// From a DHCP server, and never given back.
    Kept,
    /// From a DHCP server, and given back at the end.
    Released,
}

/// A time in which a host has one address at one place.
#[derive(Clone, Debug)]
pub(super) struct Stay {
    /// The address.
    pub(super) address: IpAddr,
    /// Where.
    pub(super) place: Place,
    /// MAC address of the card in use.
    pub(super) mac: MacAddress,
    /// Routers of the secretariat between it and the VLAN; 0: it stands on the VLAN.
    pub(super) hops: u8,
    /// Whether it is behind a host on the VLAN that translates its address.
    pub(super) translated: bool,
    /// First moment.
    pub(super) from: i64,
    /// Moment after the last.
    pub(super) until: i64,
    /// Times without any traffic.
    pub(super) silent: Option<(i64, i64)>,
    /// How the address was got.
    pub(super) lease: Lease,
    /// Which way packets go.
    pub(super) way: Way,
    /// Conversations on a day.
    pub(super) visits: u32,
    /// How many days of a thousand the host is awake.
    pub(super) awake: u32,
    /// Whether it works at weekends too.
    pub(super) weekends: bool,
}

impl Stay {
    /// The whole month in one place.
    pub(super) const fn new(address: IpAddr, place: Place, mac: MacAddress, hops: u8) -> Self {
        Self {
            address,
            place,
            mac,
            hops,
            translated: false,
            from: START,
            until: END,
            silent: None,
            lease: Lease::Static,
            way: Way::Straight,
            visits: 3,
            awake: 1000,
            weekends: false,
        }
    }

    /// Only between these times.
    pub(super) const fn between(mut self, from: i64, until: i64) -> Self {
        (self.from, self.until) = (from, until);
        self
    }

    /// By DHCP.
    pub(super) const fn leased(mut self, lease: Lease) -> Self {
        self.lease = lease;
        self
    }

    /// Whether the host is there and not silent.
    pub(super) fn covers(&self, time: i64) -> bool {
        let silent = self.silent.is_some_and(|(from, until)| (from..until).contains(&time));
        (self.from..self.until).contains(&time) && !silent
    }

    /// MAC address that its packets have on the VLAN of a place.
    pub(super) fn mac_at(&self, site: Site) -> MacAddress {
        if self.hops == 0 && site == self.place.site {
            self.mac
        } else {
            self.place.secretariat.router_mac(site)
        }
    }
}

/// One host.
#[derive(Debug)]
pub(super) struct Device {
    /// Host name.
    pub(super) name: String,
    /// MAC address of its first card.
    pub(super) mac: MacAddress,
    /// Its kind.
    pub(super) stack: &'static Stack,
    /// Its choices.
    pub(super) random: Random,
    /// Where it stays.
    pub(super) stays: Vec<Stay>,
    /// Whether it is started anew each Monday.
    pub(super) restarted: bool,
    booted: i64,
    secret: u32,
    number: u16,
    numbers: BTreeMap<IpAddr, u16>,
    port: u16,
}

/// What one connection counts by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    destination: IpAddr,
    stamp: u32,
    number: u16,
}

impl Device {
    /// A host that is nowhere yet.
    pub(super) fn new(name: String, mac: MacAddress, stack: &'static Stack, mut random: Random) -> Self {
        let booted = START - random.between(DAY / 4, 90 * DAY);
        let (secret, number, port) = (random.bits(), random.port(0, u16::MAX), random.port(0, 4000));
        Self {
            name,
            mac,
            stack,
            stays: Vec::new(),
            restarted: false,
            booted,
            secret,
            number,
            numbers: BTreeMap::new(),
            port,
            random,
        }
    }

    /// It is switched on.
    pub(super) fn boot(&mut self, time: i64) {
        self.booted = time;
    }

    /// The next connection's port.
    pub(super) fn next_port(&mut self) -> u16 {
        match self.stack.ports {
            Ports::Random(from, to) => self.random.port(from, to),
            Ports::Counting(from, to) => {
                // Others on the same host take ports as well.
                self.port = self.port.wrapping_add(1 + u16::from(self.random.octet(0, 6)));
                from + self.port % (to - from)
            }
        }
    }

    /// A connection from an address begins.
    pub(super) fn connection(&mut self, source: IpAddr, destination: IpAddr) -> Connection {
        let stamp = match self.stack.clock {
            Clock::PerPair => mix(mix(self.secret, source), destination),
            _ => self.random.bits(),
        };
        Connection { destination, stamp, number: self.random.port(0, u16::MAX) }
    }

    /// The timestamp at a time.
    pub(super) fn stamp(&self, connection: &Connection, time: i64) -> u32 {
        let ticks = |per_second: i64, since: i64| (time - since) / (1_000_000_000 / per_second);
        let (count, offset) = match self.stack.clock {
            Clock::None => (0, 0),
            Clock::SinceBoot(per_second) => (ticks(per_second, self.booted), 0),
            // Milliseconds since any fixed time: the offset is what differs.
            Clock::PerConnection | Clock::PerPair => (ticks(1000, START - 90 * DAY), connection.stamp),
        };
        u32::try_from(count & 0xffff_ffff).unwrap_or(0).wrapping_add(offset)
    }

    /// The identification of its next packet.
    pub(super) fn identification(&mut self, connection: &mut Connection) -> u32 {
        let step = |number: &mut u16, by: u16| {
            *number = number.wrapping_add(by);
            *number
        };
        let number = match self.stack.ids {
            Ids::Zero => 0,
            Ids::Random => self.random.port(0, u16::MAX),
            Ids::PerConnection => step(&mut connection.number, 1),
            Ids::PerDestination => {
                let start = connection.number;
                step(self.numbers.entry(connection.destination).or_insert(start), 1)
            }
            Ids::Counter => step(&mut self.number, 1),
            Ids::Swapped => step(&mut self.number, 1).swap_bytes(),
        };
        u32::from(number)
    }

    /// Packets that passed elsewhere, such as to a printer next door, have been counted too.
    pub(super) fn count_others(&mut self) {
        let others = self.random.port(0, 40);
        self.number = self.number.wrapping_add(others);
    }
}

fn mix(start: u32, address: IpAddr) -> u32 {
    let octets = match address {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    octets
        .iter()
        .fold(start, |hash, octet| (hash ^ u32::from(*octet)).wrapping_mul(0x0100_0193).rotate_left(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(stack: &str) -> Device {
        Device::new("one".to_owned(), MacAddress([2; 6]), Stack::named(stack), Random::for_actor(1, stack))
    }

    #[test]
    fn clocks_count_as_their_stacks_do() {
        let (source, one, other) = ([10, 0, 0, 1].into(), [3, 0, 0, 1].into(), [3, 0, 0, 2].into());
        let second = 1_000_000_000;
        for (stack, ticks) in [("linux 4.4", 250), ("linux 2.6", 100), ("linux 5", 1000)] {
            let mut host = device(stack);
            let connection = host.connection(source, one);
            let between =
                host.stamp(&connection, START + second).wrapping_sub(host.stamp(&connection, START));
            assert_eq!(between, ticks, "{stack}");
            let again = host.connection(source, one);
            assert_eq!(host.stamp(&again, START), host.stamp(&connection, START), "{stack}");
        }
        let mut host = device("linux 5");
        let (here, there) = (host.connection(source, one), host.connection(source, other));
        assert_ne!(host.stamp(&here, START), host.stamp(&there, START));
    }

    #[test]
    fn packets_are_numbered_as_their_stacks_do() {
        let mut host = device("windows 7");
        let mut connection = host.connection([10, 0, 0, 1].into(), [3, 0, 0, 1].into());
        let first = host.identification(&mut connection);
        assert_eq!(host.identification(&mut connection), (first + 1) & 0xffff);
        let mut quiet = device("macos");
        assert_eq!(quiet.identification(&mut connection), 0);
    }
}

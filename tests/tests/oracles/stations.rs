//! Which station uses which address, from when to when: what the real program observes is held to what tshark
//! counts by station and source (`expected/*.ipmac.tsv`), and explains every event of arpwatch
//! (`expected/*.arpwatch.tsv`).

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use onenet_core::{
    decode::{Content, LinkType},
    net::MacAddress,
    record::{Observation, ObservationKind},
    time::Timestamp,
};

use crate::{
    kit::{OUTCOMES, captures_directory, read_all, say},
    packets::{for_each, layers, seconds},
};

/// By a plan in which every address is ours every source is observed; without one, public ones are not. The
/// table has the outermost addresses alone.
const EVERYTHING_IS_OURS: &str = "
    [flow]
    tunnels = 'outer'
    [plan]
    public = [{cidr = '0.0.0.0/0'}, {cidr = '::/0'}]
";

/// A station, an address it used, and the outermost VLAN.
type Use = (MacAddress, IpAddr, Option<u16>);

/// Packets, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    packets: u64,
    first: Timestamp,
    last: Timestamp,
}

type Uses = BTreeMap<Use, Seen>;

fn enter(uses: &mut Uses, used: Use, seen: &Seen) {
    let held = uses.entry(used).or_insert_with(|| Seen { packets: 0, ..seen.clone() });
    held.packets += seen.packets;
    held.first = held.first.min(seen.first);
    held.last = held.last.max(seen.last);
}

fn expected(name: &str, kind: &str) -> Option<String> {
    std::fs::read_to_string(captures_directory().join("expected").join(format!("{name}.{kind}.tsv"))).ok()
}

/// The table of tshark, with times as they are written there, and stations whose packets it reads no address in.
#[derive(Default)]
struct Theirs {
    rows: BTreeMap<Use, (u64, String, String)>,
    without_address: BTreeSet<MacAddress>,
}

fn theirs(table: &str) -> Theirs {
    let mut theirs = Theirs::default();
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = line.split('\t').collect();
        let mac = columns[0].parse().expect("a MAC");
        if columns[1].is_empty() {
            theirs.without_address.insert(mac);
            continue;
        }
        let used = (mac, columns[1].parse().expect("an IP"), columns[2].parse().ok());
        let packets = columns[3].parse().expect("a number");
        theirs.rows.insert(used, (packets, columns[4].to_owned(), columns[5].to_owned()));
    }
    theirs
}

/// What the real program observed by traffic.
fn observed(observations: &[Observation]) -> Uses {
    let mut uses = Uses::new();
    for observation in observations.iter().filter(|o| o.kind == ObservationKind::Traffic) {
        if let Some(mac) = observation.mac {
            let Observation { packets, first_seen: first, last_seen: last, .. } = *observation;
            let used = (mac, observation.address, observation.vlans.first().copied());
            enter(&mut uses, used, &Seen { packets, first, last });
        }
    }
    uses
}

/// What the decoder alone makes of the packets, and what is special about those of some times.
#[derive(Default)]
struct Decoded {
    uses: Uses,
    /// Packets by address, whichever the station.
    packets: BTreeMap<IpAddr, u64>,
    /// Addresses that were seen on a link without MAC addresses, too.
    without_station: BTreeSet<IpAddr>,
    /// Of which a packet is earlier than one before it, or a fragment.
    out_of_order: BTreeSet<Use>,
    /// By time of the packet, where it has no address for us.
    unread: BTreeSet<String>,
    /// By station and address.
    special: BTreeMap<(MacAddress, IpAddr), &'static str>,
}

fn is_of_one_station(ip: IpAddr) -> bool {
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST))
}

fn decoded(name: &str) -> Decoded {
    let mut decoded = Decoded::default();
    for_each(&captures_directory().join(name), |packet| {
        let layers = layers(packet);
        let Some((link, ip)) = layers.first().and_then(|layer| match &layer.content {
            Content::Ip(ip) => Some((&layer.link, ip)),
            Content::Arp(_) => None,
        }) else {
            decoded.unread.insert(seconds(packet.time));
            return;
        };
        *decoded.packets.entry(ip.source).or_default() += 1;
        let Some(mac) = link.source_mac else {
            decoded.without_station.insert(ip.source);
            decoded.unread.insert(seconds(packet.time));
            return;
        };
        let seen = Seen { packets: 1, first: packet.time, last: packet.time };
        let used = (mac, ip.source, link.vlans.first().copied());
        if ip.fragment.is_some() || decoded.uses.get(&used).is_some_and(|before| packet.time < before.last) {
            decoded.out_of_order.insert(used);
        }
        enter(&mut decoded.uses, used, &seen);
        let tagged_inside = layers.iter().skip(1).any(|layer| !layer.link.vlans.is_empty());
        let has_service_tag = packet.data.get(12..14) == Some(&SERVICE_TAG);
        let cause = if packet.link_type == LinkType::ETHERNET && has_service_tag {
            "service tag (802.1ad), which tshark does not call a VLAN"
        } else if !link.mpls_labels.is_empty() {
            "frame behind MPLS labels, whose station we name"
        } else if link.vlans.is_empty() && tagged_inside {
            "VLAN of a frame in a tunnel"
        } else {
            return;
        };
        decoded.special.insert((mac, ip.source), cause);
    });
    decoded
}

/// Ethertype of a service tag.
const SERVICE_TAG: [u8; 2] = [0x88, 0xa8];

impl Decoded {
    /// Why tshark's row and the decoder's differ.
    fn cause(&self, key: &Use, theirs: &Theirs) -> Option<&'static str> {
        let (mac, ip, _) = key;
        let is_unread = |(_, first, last): &(u64, String, String)| {
            self.unread.contains(first) || self.unread.contains(last)
        };
        if theirs.rows.get(key).is_some_and(is_unread) {
            return Some("headers that we do not take for IP, or take for damaged");
        }
        if theirs.without_address.contains(mac) {
            return Some("headers in which tshark reads no address");
        }
        let same_station = |(station, other, _): &&Use| station == mac && other == ip;
        let by_ip = self.special.iter().find(|((_, special), _)| special == ip).map(|(_, cause)| *cause);
        self.special
            .get(&(*mac, *ip))
            .copied()
            .or(by_ip.filter(|_| theirs.rows.keys().any(|key| same_station(&key))))
    }

    /// Why the decoder's row and the observed one differ.
    fn cause_of_observation(&self, key: &Use) -> Option<&'static str> {
        let (mac, ip, vlan) = key;
        if !is_of_one_station(*ip) {
            return Some(
                "address that no single station has (0.0.0.0, loopback, multicast), which is no use",
            );
        }
        if self.without_station.contains(ip) {
            return Some("packets of one flow with and without MAC addresses");
        }
        let several = self.uses.keys().filter(|(_, other, _)| other == ip).count() > 1;
        if several {
            return Some(
                "address at several stations or under several tags, of which a flow tells 16 changes",
            );
        }
        if self.out_of_order.contains(key) {
            return Some("time that runs backwards, or fragments before their first");
        }
        let with_tags = |same_station: bool| {
            let others = self.uses.keys().filter(|(station, other, tags)| match same_station {
                true => station == mac && other == ip,
                false => other != ip && tags == vlan,
            });
            others.count() > 0
        };
        let has_other_tags = match self.uses.contains_key(key) {
            true => self.uses.keys().any(|(_, _, tags)| tags != vlan),
            false => with_tags(true) && with_tags(false),
        };
        has_other_tags.then_some("tags of the packet that began a flow, for both of its sides")
    }
}

/// Counts and causes of one comparison.
#[derive(Default)]
struct Figures {
    rows: usize,
    equal: usize,
    causes: BTreeMap<&'static str, usize>,
    unexplained: Vec<String>,
}

impl Figures {
    fn row(
        &mut self,
        equal: bool,
        cause: impl FnOnce() -> Option<&'static str>,
        text: impl FnOnce() -> String,
    ) {
        self.rows += 1;
        if equal {
            self.equal += 1;
        } else if let Some(cause) = cause() {
            *self.causes.entry(cause).or_default() += 1;
        } else {
            self.unexplained.push(text());
        }
    }

    fn conclude(&self, what: &str) {
        for (cause, count) in &self.causes {
            say(&format!("{what}: {count} differ by: {cause}"));
        }
        say(&format!("{what}: {} of {} rows equal", self.equal, self.rows));
        assert!(self.unexplained.is_empty(), "{}", self.unexplained.join("\n"));
    }
}

fn compare_with_decoder(name: &str, decoded: &Decoded, figures: &mut Figures) {
    let theirs = theirs(&expected(name, "ipmac").expect("a table"));
    let keys: BTreeSet<&Use> = theirs.rows.keys().chain(decoded.uses.keys()).collect();
    for key in keys {
        let (their, our) = (theirs.rows.get(key), decoded.uses.get(key));
        let equal = match (their, our) {
            (Some((packets, _, _)), Some(our)) => *packets == our.packets,
            _ => false,
        };
        let text = || format!("{name}: {key:?}: tshark {their:?}, decoded {our:?}");
        figures.row(equal, || decoded.cause(key, &theirs), text);
    }
}

fn compare_with_observations(
    name: &str,
    decoded: &Decoded,
    observations: &[Observation],
    figures: &mut Figures,
) {
    let mut packets: BTreeMap<IpAddr, u64> = BTreeMap::new();
    for observation in observations.iter().filter(|o| o.kind == ObservationKind::Traffic) {
        *packets.entry(observation.address).or_default() += observation.packets;
    }
    // Whatever happens to stations and tags, every packet counts to its source once.
    let expected = decoded.packets.iter().filter(|(ip, _)| is_of_one_station(**ip));
    assert_eq!(
        packets,
        expected.map(|(ip, packets)| (*ip, *packets)).collect(),
        "{name}: packets by address"
    );
    let observed = observed(observations);
    let keys: BTreeSet<&Use> = decoded.uses.keys().chain(observed.keys()).collect();
    for key in keys {
        let (by_decoder, our) = (decoded.uses.get(key), observed.get(key));
        let equal = match (by_decoder, our) {
            // A flow knows its last packet, not the last of each side.
            (Some(decoded), Some(our)) => {
                decoded.packets == our.packets && decoded.first == our.first && decoded.last <= our.last
            }
            _ => false,
        };
        let text = || format!("{name}: {key:?}: decoded {by_decoder:?}, observed {our:?}");
        figures.row(equal, || decoded.cause_of_observation(key), text);
    }
}

#[test]
fn stations_and_their_addresses_are_those_that_tshark_counts() {
    let Some(outcomes) = &*OUTCOMES else { return };
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let config = scratch.path().join("agent.toml");
    std::fs::write(&config, EVERYTHING_IS_OURS).expect("a configuration");
    let captures: Vec<PathBuf> = outcomes
        .iter()
        .filter(|outcome| expected(&outcome.name, "ipmac").is_some())
        .map(|outcome| captures_directory().join(&outcome.name))
        .collect();
    let (mut by_decoder, mut by_observation) = (Figures::default(), Figures::default());
    for outcome in read_all(&captures, &[OsStr::new("--config"), config.as_os_str()]) {
        let decoded = decoded(&outcome.name);
        compare_with_decoder(&outcome.name, &decoded, &mut by_decoder);
        let observations = outcome.observations.as_ref().expect("observations");
        compare_with_observations(&outcome.name, &decoded, observations, &mut by_observation);
    }
    by_observation.conclude("stations and addresses, observed against decoded");
    by_decoder.conclude("stations and addresses, decoded against tshark");
}

/// One event of arpwatch.
struct Event<'a> {
    name: &'a str,
    address: IpAddr,
    mac: MacAddress,
    earlier_mac: Option<MacAddress>,
    second: i64,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Seconds since 1970 of a text such as `Sunday, November 11, 2012 1:00:20 +0000`.
fn second(text: &str) -> Option<i64> {
    let [_, month, day, year, time, "+0000"] = *text.split(' ').collect::<Vec<_>>() else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let day: u32 = day.trim_end_matches(',').parse().ok()?;
    let (hour, rest) = time.split_once(':')?;
    let hour: u32 = hour.parse().ok()?;
    format!("{year}-{month:02}-{day:02}T{hour:02}:{rest}Z")
        .parse::<Timestamp>()
        .ok()
        .map(|time| time.parts().0)
}

fn events(table: &str) -> impl Iterator<Item = Event<'_>> {
    table.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let columns: Vec<&str> = line.split('\t').collect();
        Event {
            name: columns[0],
            address: columns[1].parse().expect("an address"),
            mac: columns[2].parse().expect("a MAC"),
            earlier_mac: columns[3].parse().ok(),
            second: second(columns[4]).expect("a time"),
        }
    })
}

impl Event<'_> {
    /// Whether an observation by ARP shows the address at this station at the event's second; where the station
    /// changed, one must show it at the station before.
    fn is_shown_by(&self, observations: &[Observation]) -> bool {
        let by_arp = |observation: &&Observation| {
            let kinds = [
                ObservationKind::ArpRequest,
                ObservationKind::ArpReply,
                ObservationKind::ArpAnnouncement,
                ObservationKind::ArpProbe,
            ];
            observation.address == self.address && kinds.contains(&observation.kind)
        };
        let shown = |mac: MacAddress, until_then: bool| {
            observations.iter().filter(by_arp).any(|observation| {
                let (first, last) = (observation.first_seen.parts().0, observation.last_seen.parts().0);
                observation.mac == Some(mac) && first <= self.second && (until_then || self.second <= last)
            })
        };
        shown(self.mac, false) && self.earlier_mac.is_none_or(|mac| shown(mac, true))
    }
}

#[test]
fn every_event_of_arpwatch_is_explained_by_observations() {
    let Some(outcomes) = &*OUTCOMES else { return };
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut unexplained = Vec::new();
    for outcome in outcomes {
        let Some(table) = expected(&outcome.name, "arpwatch") else { continue };
        let observations = outcome.observations.as_ref().expect("observations");
        for event in events(&table) {
            let count = counts.entry(event.name.to_owned()).or_default();
            count.0 += 1;
            if event.is_shown_by(observations) {
                count.1 += 1;
            } else {
                let Event { name, address, mac, second, .. } = event;
                unexplained.push(format!("{}: {name} {address} {mac} at {second}", outcome.name));
            }
        }
    }
    for (name, (events, explained)) in &counts {
        say(&format!("arpwatch: {explained} of {events} events \"{name}\" explained by observations"));
    }
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
}

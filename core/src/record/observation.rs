//! The observation: evidence that an address is in use.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use super::{flow::named_enum, stack::StackEvidence};
use crate::{
    net::{MacAddress, Name},
    time::Timestamp,
};

named_enum! {
    /// What showed that the address is in use.
    ObservationKind {
        /// Source of IP packets that arrived on an inside segment.
        Traffic = 0 "traffic",
        /// Sender of an ARP request (RFC 826).
        ArpRequest = 1 "arp-request",
        /// Sender of an ARP reply.
        ArpReply = 2 "arp-reply",
        /// ARP probe: a host asks whether the address is free (RFC 5227); a claim to come, not yet a use.
        ArpProbe = 3 "arp-probe",
        /// ARP announcement, or gratuitous ARP (RFC 5227).
        ArpAnnouncement = 4 "arp-announcement",
        /// Source of a neighbour solicitation (RFC 4861).
        NeighborSolicitation = 5 "neighbor-solicitation",
        /// Target of a neighbour advertisement (RFC 4861).
        NeighborAdvertisement = 6 "neighbor-advertisement",
        /// Duplicate address detection: a host asks whether the address is free (RFC 4862).
        NeighborProbe = 7 "neighbor-probe",
        /// Source of a router advertisement (RFC 4861).
        RouterAdvertisement = 8 "router-advertisement",
        /// Address that a DHCPv4 server acknowledged (RFC 2131).
        Dhcp4Lease = 9 "dhcp4-lease",
        /// Address that a DHCPv4 client released or declined.
        Dhcp4Release = 10 "dhcp4-release",
        /// Address that a DHCPv6 server assigned (RFC 8415).
        Dhcp6Lease = 11 "dhcp6-lease",
        /// Address that a DHCPv6 client released or declined.
        Dhcp6Release = 12 "dhcp6-release",
        /// Address of a DHCPv4 or DHCPv6 server or relay, by its own message.
        DhcpServer = 13 "dhcp-server",
        /// Source of a router solicitation or redirect (RFC 4861).
        NeighborOther = 14 "neighbor-other",
        /// Address that a DHCPv4 client asked for, before a server answered.
        Dhcp4Request = 15 "dhcp4-request",
        /// Address that a DHCPv6 client asked for, before a server answered.
        Dhcp6Request = 16 "dhcp6-request",
    }
}

impl ObservationKind {
    /// Its place in a set of kinds: the bit of its code.
    pub const fn bit(self) -> u32 {
        1 << self.code()
    }
}

named_enum! {
    /// How far an observation proves use.
    Strength {
        /// Asked for or probed; not a use.
        Weak = 0 "weak",
        /// Packets carried the address, which anyone can write.
        Medium = 1 "medium",
        /// A host answered for it, a server leased it, or packets went both ways.
        Strong = 2 "strong",
    }
}

/// Evidence that one address is in use in one address space, by one station. Counts are since the
/// observation before it with the same kind, address space, address, MAC and VLANs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// What showed it.
    pub kind: ObservationKind,
    /// How far it proves use.
    pub strength: Strength,
    /// The address.
    pub address: IpAddr,
    /// Where the address is meant to be unique.
    pub address_space: Name,
    /// Secretariat of the segment.
    pub secretariat: Option<Name>,
    /// Segment it was seen on.
    pub segment: Option<Name>,
    /// Site of the sensor.
    pub site: Name,
    /// Interface it was seen on.
    pub interface: Name,
    /// VLAN ids, outermost first.
    pub vlans: ArrayVec<u16, 3>,
    /// MAC address of the station.
    pub mac: Option<MacAddress>,
    /// First packet that showed it. Of a station that took over within a flow: of that flow.
    pub first_seen: Timestamp,
    /// Last packet that showed it, so far; by traffic, last packet of either side of a flow with it.
    pub last_seen: Timestamp,
    /// Packets since the last report of the same.
    pub packets: u64,
    /// Flows of these packets that were reported and in which both sides spoke: for TCP, behind a handshake.
    #[serde(default)]
    pub conversations: u64,
    /// Hours in which these packets were seen: bit 0 is the hour of `last_seen`, bit n the n-th before it.
    #[serde(default)]
    pub active_hours: u32,
    /// Lowest time to live or hop limit.
    pub ttl_min: Option<u8>,
    /// Highest time to live or hop limit.
    pub ttl_max: Option<u8>,
    /// Host name that the host gave (DHCP option 12 or 81, DHCPv6 option 39).
    pub hostname: Option<String>,
    /// Length of the lease in seconds.
    pub lease_seconds: Option<u32>,
    /// DHCP server.
    pub server: Option<IpAddr>,
    /// DHCP relay agent.
    pub relay: Option<IpAddr>,
    /// DHCPv4 vendor class (option 60).
    pub vendor_class: Option<String>,
    /// Identifier of the DHCP client, in hexadecimal: DHCPv6's DUID, DHCPv4's option 61.
    pub duid: Option<String>,
    /// What its SYNs say of the host.
    pub stack: Option<Box<StackEvidence>>,
    /// Of an observation that stands for many addresses: `address` is the first of their prefix then.
    pub aggregate: Option<Box<ObservationAggregate>>,
}

impl Observation {
    /// An observation of one moment, with nothing said of who and how often.
    pub fn of(
        kind: ObservationKind,
        strength: Strength,
        address: IpAddr,
        address_space: Name,
        (site, interface): (Name, Name),
        time: Timestamp,
    ) -> Self {
        Self {
            kind,
            strength,
            address,
            address_space,
            secretariat: None,
            segment: None,
            site,
            interface,
            vlans: ArrayVec::new_const(),
            mac: None,
            first_seen: time,
            last_seen: time,
            packets: 0,
            conversations: 0,
            active_hours: 1,
            ttl_min: None,
            ttl_max: None,
            hostname: None,
            lease_seconds: None,
            server: None,
            relay: None,
            vendor_class: None,
            duid: None,
            stack: None,
            aggregate: None,
        }
    }
}

/// Addresses that were too many to be told apart: sources of packets that nobody answered, by prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservationAggregate {
    /// Bits of the prefix.
    pub prefix_length: u8,
    /// Different addresses, an estimate beyond 32 (HyperLogLog, standard error 6.5 %).
    pub addresses: u64,
    /// Those with the most packets, the most first, at most 8. Their counts are upper bounds (Space-Saving, Metwally,
    /// Agrawal, El Abbadi 2005).
    pub top: ArrayVec<TopAddress, 8>,
}

/// One of the addresses with the most packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopAddress {
    /// The address.
    pub address: IpAddr,
    /// Packets, at most.
    pub packets: u64,
}

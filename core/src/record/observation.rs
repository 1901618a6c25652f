//! The observation: evidence that an address is in use.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use super::flow::named_enum;
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

named_enum! {
    /// How far an observation proves use.
    Strength {
        /// Asked for or probed; not a use.
        Weak = 0 "weak",
        /// Packets carried the address, which anyone can write.
        Medium = 1 "medium",
        /// A host answered for it, or a server leased it.
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
    /// DHCPv6 unique identifier of the client, in hexadecimal.
    pub duid: Option<String>,
}

//! What is true of the month: for each address of a case who used it and what must be said of it, and the findings
//! about claims and segments.

use std::{fs, net::IpAddr, path::Path};

use anyhow::{Context, Result};
use ipnet::IpNet;
use onenet_core::net::MacAddress;
use serde::{Deserialize, Serialize};

/// One address of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressTruth {
    /// The address.
    pub address: IpAddr,
    /// The kind of case.
    pub case: String,
    /// Address spaces it is used in.
    pub spaces: Vec<String>,
    /// Sites it is seen at.
    pub sites: Vec<String>,
    /// What must be said of it: `two-hosts`, `moved`, `seen-twice`, `unknown`, or nothing.
    pub verdict: Option<String>,
    /// What may be said of it as well, because what the captures show leaves it open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<String>,
    /// Rules that must name it.
    pub rules: Vec<String>,
    /// First packet with it as source, in seconds of Unix time.
    pub from: i64,
    /// Last packet with it as source.
    pub until: i64,
    /// What happened.
    pub why: String,
}

/// An address that must raise nothing, though one may think so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MustNot {
    /// The address.
    pub address: IpAddr,
    /// Why one may think so.
    pub why: String,
}

/// One claim of the plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClaimTruth {
    /// The prefix.
    pub prefix: IpNet,
    /// Whose.
    pub secretariat: String,
}

/// Two claims of two address spaces, equal or nested: `overlap.declared`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredTruth {
    /// Both.
    pub claims: [ClaimTruth; 2],
}

/// An address used where it is not claimed: `address.undeclared`, `address.misplaced`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UseTruth {
    /// The address.
    pub address: IpAddr,
    /// The secretariat on whose segment it is used.
    pub secretariat: String,
    /// Where.
    pub site: String,
    /// Who claims it, if anybody does.
    pub owner: Option<String>,
}

/// A secretariat's prefix that arrives by another's router: `overlap.routed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutedTruth {
    /// The prefix that its addresses have in common.
    pub prefix: IpNet,
    /// Who claims it.
    pub owner: String,
    /// By whose segment it arrives.
    pub secretariat: String,
    /// Where.
    pub site: String,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
}

/// A second DHCP server on a VLAN (`dhcp.rogue`), or a second station for a gateway (`gateway.mac`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntruderTruth {
    /// The server's address, or the gateway's.
    pub address: IpAddr,
    /// The intruder's MAC address.
    pub mac: MacAddress,
    /// On whose segment.
    pub secretariat: String,
    /// Where.
    pub site: String,
    /// First packet, in seconds of Unix time.
    pub from: i64,
    /// Last packet.
    pub until: i64,
}

/// `month.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MonthTruth {
    /// Seed.
    pub seed: u64,
    /// Scale of the ordinary hosts.
    pub scale: f64,
    /// Hosts in all.
    pub hosts: u64,
    /// Packets in all.
    pub packets: u64,
    /// Addresses of cases.
    pub addresses: Vec<AddressTruth>,
    /// Addresses that must raise nothing. What is in no list must raise nothing either.
    pub must_not: Vec<MustNot>,
    /// Overlapping claims.
    pub declared: Vec<DeclaredTruth>,
    /// Claims without use.
    pub dark: Vec<ClaimTruth>,
    /// Addresses that no claim covers.
    pub undeclared: Vec<UseTruth>,
    /// Addresses of others.
    pub misplaced: Vec<UseTruth>,
    /// Prefixes of others.
    pub routed: Vec<RoutedTruth>,
    /// Second DHCP servers.
    pub rogue_dhcp: Vec<IntruderTruth>,
    /// Second stations for gateways.
    pub gateway: Vec<IntruderTruth>,
}

/// Reads `month.json` of a directory that was filled with a month.
pub fn read_month(directory: &Path) -> Result<MonthTruth> {
    let path = directory.join("month.json");
    let text = fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{}: not the truth of a month", path.display()))
}

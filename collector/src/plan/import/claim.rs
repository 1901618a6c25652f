//! A claim that was read from a sheet: what it says, where it stands, and the checks that hold for every format.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use onenet_core::{
    net::Name,
    plan::{AddressRole, PlannedAddress, Prefix, PrefixStatus},
};

use super::{
    mapping::Owner,
    sheet::{Reject, Row},
};

/// What is claimed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    /// A prefix.
    Prefix(Prefix),
    /// One address.
    Address(PlannedAddress),
}

/// One claim.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Claim {
    /// What it says.
    pub(crate) what: What,
    /// Where addresses are unique in the system it comes from: its VRF, section or network view; empty for the global one.
    pub(crate) table: String,
    /// Number of its sheet, and line in it.
    pub(crate) place: (usize, u64),
}

/// A prefix cell: no host bits, both parts of one family.
pub(super) fn prefix(row: &Row<'_>, column: &str) -> Result<IpNet, Reject> {
    let text = row.cell(column);
    let expected = "expected a prefix such as 10.1.0.0/16 or fd00:1::/48";
    let Some((address, length)) = text.split_once('/') else {
        return Err(row.reject(column, format!("{text:?}: {expected}")));
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return Err(row.reject(column, format!("{text:?}: {expected}")));
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = length.parse::<u8>().ok().filter(|length| *length <= most);
    let net = length.and_then(|length| IpNet::new(address, length).ok());
    let Some(net) = net else {
        let family = if address.is_ipv4() { "an IPv4" } else { "an IPv6" };
        return Err(row.reject(
            column,
            format!("{text:?}: expected a length from 0 to {most} behind {family} address"),
        ));
    };
    without_host_bits(row, column, net)
}

/// A prefix of an address cell and a mask cell: dotted, or a length.
pub(super) fn prefix_with_mask(
    row: &Row<'_>,
    address_column: &str,
    mask_column: &str,
) -> Result<IpNet, Reject> {
    let (address, mask) = (row.cell(address_column), row.cell(mask_column));
    let Ok(address) = address.parse::<IpAddr>() else {
        return Err(row.reject(address_column, format!("{address:?}: expected an address")));
    };
    let net = match (address, mask.parse::<Ipv4Addr>(), mask.parse::<u8>()) {
        (IpAddr::V4(address), Ok(mask), _) => Ipv4Net::with_netmask(address, mask).ok().map(IpNet::V4),
        (IpAddr::V6(_), Ok(_), _) => {
            let reason =
                format!("{mask:?}: the mask of an IPv4 network with an IPv6 address; expected a length");
            return Err(row.reject(mask_column, reason));
        }
        (address, _, Ok(length)) => IpNet::new(address, length).ok(),
        _ => None,
    };
    match net {
        Some(net) => without_host_bits(row, address_column, net),
        None => {
            Err(row
                .reject(mask_column, format!("{mask:?}: expected a mask such as 255.255.0.0, or a length")))
        }
    }
}

fn without_host_bits(row: &Row<'_>, column: &str, net: IpNet) -> Result<IpNet, Reject> {
    if net.addr() == net.network() {
        return Ok(net);
    }
    let reason =
        format!("{net} has bits set behind its length; expected {} or an address alone", net.trunc());
    Err(row.reject(column, reason))
}

/// An address cell; a length behind it, as NetBox has it, says only how long its link's prefix is.
pub(super) fn address(row: &Row<'_>, column: &str) -> Result<IpAddr, Reject> {
    let text = row.cell(column);
    let parsed = match text.split_once('/') {
        Some(_) => text.parse::<IpNet>().ok().map(|net| net.addr()),
        None => text.parse().ok(),
    };
    parsed.ok_or_else(|| {
        row.reject(column, format!("{text:?}: expected an address such as 10.1.2.3 or 10.1.2.3/24"))
    })
}

/// A status cell; empty means active.
pub(super) fn status(row: &Row<'_>, column: &str) -> Result<PrefixStatus, Reject> {
    Ok(match row.cell(column).to_ascii_lowercase().as_str() {
        "" | "active" | "used" | "dhcp" | "slaac" => PrefixStatus::Active,
        "container" => PrefixStatus::Container,
        "reserved" => PrefixStatus::Reserved,
        "deprecated" | "offline" => PrefixStatus::Deprecated,
        other => {
            let expected = "expected container, active, reserved or deprecated (addresses also dhcp, slaac)";
            return Err(row.reject(column, format!("{other:?}: {expected}")));
        }
    })
}

/// A role cell; empty means none.
pub(super) fn role(row: &Row<'_>, column: &str) -> Result<Option<AddressRole>, Reject> {
    let text = row.cell(column).to_ascii_lowercase();
    if text.is_empty() {
        return Ok(None);
    }
    let role = AddressRole::ALL.iter().find(|role| role.as_str() == text);
    role.map(|role| Some(*role)).ok_or_else(|| {
        let expected = "expected loopback, secondary, nat, anycast, vip, vrrp, hsrp, glbp or carp";
        row.reject(column, format!("{text:?}: {expected}"))
    })
}

/// The first of these cells that says something, for people.
pub(super) fn description(row: &Row<'_>, columns: &[&str]) -> Option<Name> {
    let said = columns.iter().map(|column| row.cell(column)).find(|cell| !cell.is_empty())?;
    // Line breaks and other control characters have no place in a line for people.
    let line: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    Some(Name::from(line.trim()))
}

impl Claim {
    /// A claim of a prefix.
    pub(super) fn of_prefix(
        cidr: IpNet,
        status: PrefixStatus,
        owner: Owner,
        description: Option<Name>,
    ) -> What {
        What::Prefix(Prefix {
            cidr,
            secretariat: owner.secretariat,
            agency: owner.agency,
            status,
            description,
        })
    }

    /// What it claims, as a prefix.
    pub(crate) fn net(&self) -> IpNet {
        match &self.what {
            What::Prefix(prefix) => prefix.cidr,
            What::Address(address) => IpNet::from(address.address),
        }
    }

    /// Whose it is.
    pub(crate) fn secretariat(&self) -> &Name {
        match &self.what {
            What::Prefix(prefix) => &prefix.secretariat,
            What::Address(address) => &address.secretariat,
        }
    }

    /// Whether it only holds others.
    pub(crate) fn is_container(&self) -> bool {
        matches!(&self.what, What::Prefix(prefix) if prefix.status == PrefixStatus::Container)
    }

    /// Whether several may have the same address by design.
    pub(crate) fn may_repeat(&self) -> bool {
        matches!(&self.what, What::Address(address) if address.role.is_some_and(|role| role >= AddressRole::Anycast))
    }
}

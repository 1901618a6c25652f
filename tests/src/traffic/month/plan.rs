//! The plan of the month: who claims what. Some prefixes are claimed in several address spaces, by equal or nested
//! claims, as is usual before offices merge; some are claimed and dark.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use onenet_core::{
    net::Name,
    plan::{AddressPlan, AddressRole, PlannedAddress, Prefix, PrefixStatus, Segment},
};

use super::{
    super::plan::owner,
    super::world::{AF, EEA, EOE, EOHED, EOHHS, EOLWD, EOPSS, EOTSS, MASSDOT, Secretariat, Site},
    device::Place,
    truth::{ClaimTruth, DeclaredTruth},
};

/// Claims in use besides each secretariat's own, from before the programme.
pub(super) const OLD_CLAIMS: [(&str, Secretariat); 17] = [
    ("10.1.0.0/16", EOHHS),
    ("10.1.0.0/16", MASSDOT),
    ("10.2.0.0/16", EOE),
    ("10.2.3.0/24", EEA),
    ("10.2.64.0/20", AF),
    ("172.20.0.0/16", EOPSS),
    ("172.20.0.0/16", EEA),
    ("172.20.0.0/16", AF),
    ("192.168.10.0/24", EOE),
    ("192.168.10.0/24", EOHHS),
    // One address space: this is no overlap.
    ("172.16.4.0/22", EOHED),
    ("172.16.4.0/22", EOLWD),
    ("fd00:c0de:1::/48", EOHHS),
    ("fd00:c0de:1::/48", MASSDOT),
    ("fd00:c0de:1::/48", EOPSS),
    ("fd00:c0de:2::/48", EOE),
    ("fd00:c0de:2:3::/64", EEA),
];

/// Active claims that nobody uses.
const DARK: [(&str, Secretariat); 8] = [
    ("10.201.0.0/16", AF),
    ("10.202.16.0/20", EOHHS),
    ("10.203.7.0/24", MASSDOT),
    ("172.28.0.0/16", EOPSS),
    ("192.168.77.0/24", EEA),
    ("10.204.0.0/22", EOTSS),
    ("fd00:dead:1::/48", EOE),
    ("fd00:dead:2:7::/64", EOLWD),
];

/// Claims that nobody has to use.
const QUIET: [(&str, Secretariat, PrefixStatus); 4] = [
    ("10.208.0.0/16", EOHHS, PrefixStatus::Reserved),
    ("10.209.0.0/16", EOE, PrefixStatus::Container),
    ("10.210.4.0/24", AF, PrefixStatus::Deprecated),
    ("fd00:beef::/48", EOTSS, PrefixStatus::Reserved),
];

/// Prefixes that no claim covers.
pub(super) const UNCLAIMED: [&str; 5] =
    ["10.77.0.0/16", "172.31.8.0/22", "192.168.50.0/24", "100.64.12.0/24", "fd99:1:2::/48"];

fn name(text: impl AsRef<str>) -> Name {
    Name::from(text.as_ref())
}

/// A secretariat's own prefix of a family.
pub(super) fn own(secretariat: Secretariat, ipv6: bool) -> IpNet {
    if ipv6 {
        IpNet::V6(Ipv6Net::new_assert(secretariat.ula(Site::Boston, 0), 48).trunc())
    } else {
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, secretariat.octet(), 0, 0), 16))
    }
}

/// All claims that are in use.
pub(super) fn claims() -> Result<Vec<(IpNet, Secretariat)>> {
    let own = Secretariat::all().flat_map(|whose| [false, true].map(|ipv6| (own(whose, ipv6), whose)));
    let mut claims: Vec<(IpNet, Secretariat)> = own.collect();
    for (cidr, whose) in OLD_CLAIMS {
        claims.push((cidr.parse()?, whose));
    }
    Ok(claims)
}

/// Default gateway of an address at a place: the edge router, with one address for each attachment in each claim,
/// so that no gateway's own address overlaps. Where the secretariat claims nothing there, it is the one of its own
/// prefix, as on a link with a second, forgotten network.
pub(super) fn gateway(place: Place, address: IpAddr) -> Ipv4Addr {
    let Place { secretariat, site } = place;
    let claimed = OLD_CLAIMS.iter().filter(|(_, whose)| *whose == secretariat);
    let claimed = claimed.filter_map(|(cidr, _)| cidr.parse::<Ipv4Net>().ok());
    let mut claimed = claimed;
    let net = claimed.find(|net| match address {
        IpAddr::V4(ip) => net.contains(&ip),
        IpAddr::V6(_) => false,
    });
    net.map_or_else(
        || secretariat.gateway(site),
        |net| Ipv4Addr::from(u32::from(net.network()) + 1 + u32::from(secretariat.0 + 16 * site.index())),
    )
}

/// Every gateway of a place.
fn gateways(place: Place) -> Vec<IpAddr> {
    let old = OLD_CLAIMS.iter().filter(|(_, whose)| *whose == place.secretariat);
    let claimed = old.filter_map(|(cidr, _)| Some(IpAddr::V4(cidr.parse::<Ipv4Net>().ok()?.network())));
    let own = own(place.secretariat, false).network();
    std::iter::once(own).chain(claimed).map(|address| gateway(place, address).into()).collect()
}

/// The DHCP server that relays ask, behind the edge.
pub(super) const fn relayed_server(site: Site) -> Ipv4Addr {
    EOTSS.address(site, 0, 67)
}

/// The plan, with addresses of a role.
pub(super) fn address_plan(roles: &[(IpAddr, Secretariat, AddressRole)]) -> Result<AddressPlan> {
    let mut plan = AddressPlan::default();
    for secretariat in Secretariat::all() {
        let id = name(secretariat.id());
        plan.secretariats.push(owner(secretariat));
        for site in Site::ALL {
            plan.segments.push(Segment {
                id: name(format!("{}-{id}", site.name())),
                secretariat: id.clone(),
                site: name(site.name()),
                interface: None,
                vlan: Some(secretariat.vlan(site)),
                inner_vlan: None,
                mpls_label: None,
                tunnel_id: None,
                mac: None,
                gateways: gateways(Place { secretariat, site }),
                dhcp_servers: Vec::new(),
            });
        }
    }
    let mut claim = |cidr, secretariat: Secretariat, status| {
        plan.prefixes.push(Prefix {
            cidr,
            secretariat: name(secretariat.id()),
            agency: None,
            status,
            description: None,
        });
    };
    for (cidr, secretariat) in claims()? {
        claim(cidr, secretariat, PrefixStatus::Active);
    }
    for (cidr, secretariat) in DARK {
        claim(cidr.parse()?, secretariat, PrefixStatus::Active);
    }
    for (cidr, secretariat, status) in QUIET {
        claim(cidr.parse()?, secretariat, status);
    }
    for (address, secretariat, role) in roles {
        plan.addresses.push(PlannedAddress {
            address: *address,
            secretariat: name(secretariat.id()),
            agency: None,
            status: PrefixStatus::Active,
            role: Some(*role),
            description: None,
        });
    }
    plan.check()?;
    Ok(plan)
}

/// The claims that are dark.
pub(super) fn dark() -> Result<Vec<ClaimTruth>> {
    let claims = DARK.iter().map(|(cidr, secretariat)| {
        Ok(ClaimTruth { prefix: cidr.parse()?, secretariat: secretariat.id().to_owned() })
    });
    claims.collect()
}

/// The pairs of claims of two address spaces that are equal or nested.
pub(super) fn declared() -> Result<Vec<DeclaredTruth>> {
    let claims = claims()?;
    let mut pairs = Vec::new();
    for (number, (one, of_one)) in claims.iter().enumerate() {
        for (other, of_other) in claims.iter().skip(number + 1) {
            let nested = one.contains(other) || other.contains(one);
            if nested && of_one.address_space() != of_other.address_space() {
                let claim = |prefix: &IpNet, whose: &Secretariat| ClaimTruth {
                    prefix: *prefix,
                    secretariat: whose.id().to_owned(),
                };
                pairs.push(DeclaredTruth { claims: [claim(one, of_one), claim(other, of_other)] });
            }
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_overlapping_claims_is_known_once() {
        let pairs = declared().expect("pairs");
        // One of 10.1/16, two within 10.2/16, three of 172.20/16, one of 192.168.10/24, three and one of IPv6.
        assert_eq!(pairs.len(), 11);
        assert!(pairs.iter().all(|pair| pair.claims[0].secretariat != "eohed"));
    }

    #[test]
    fn no_gateway_serves_two_attachments() {
        let mut seen = std::collections::BTreeSet::new();
        for (net, secretariat) in claims().expect("claims") {
            for site in Site::ALL {
                let IpNet::V4(net) = net else { continue };
                let host = IpAddr::V4(Ipv4Addr::from(u32::from(net.network()) + 99));
                assert!(seen.insert(gateway(Place { secretariat, site }, host)), "{net} {site:?}");
            }
        }
    }

    #[test]
    fn unclaimed_and_dark_prefixes_touch_no_claim_in_use() {
        let claims = claims().expect("claims");
        let dark = DARK.iter().map(|(cidr, _)| *cidr);
        for cidr in UNCLAIMED.into_iter().chain(dark).chain(QUIET.iter().map(|(cidr, ..)| *cidr)) {
            let net: IpNet = cidr.parse().expect("a prefix");
            assert!(claims.iter().all(|(claim, _)| !claim.contains(&net) && !net.contains(claim)), "{cidr}");
        }
    }
}

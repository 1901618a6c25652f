//! The plan's prefixes by longest match: who claims an address, and whether it is ours.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use crate::plan::AddressPlan;

/// What the plan says about one prefix.
#[derive(Clone, Debug, Default)]
struct Claims {
    /// Secretariats that claim exactly this prefix, sorted.
    owners: Vec<u16>,
}

/// Claims and public prefixes, compiled for lookup.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prefixes {
    v4: PrefixMap<Ipv4Net, Claims>,
    v6: PrefixMap<Ipv6Net, Claims>,
    public_v4: PrefixMap<Ipv4Net, ()>,
    public_v6: PrefixMap<Ipv6Net, ()>,
    has_public: bool,
}

/// Position of a secretariat in the plan; none beyond 65,535 of them.
pub(crate) fn secretariat_index(plan: &AddressPlan, id: &str) -> Option<u16> {
    plan.secretariats.iter().position(|s| &*s.id == id).and_then(|at| u16::try_from(at).ok())
}

impl Prefixes {
    pub(crate) fn new(plan: &AddressPlan) -> Self {
        let mut prefixes = Self::default();
        for claim in &plan.prefixes {
            prefixes.claim(claim.cidr, secretariat_index(plan, &claim.secretariat));
        }
        for public in &plan.public {
            let owner = public.secretariat.as_ref().and_then(|id| secretariat_index(plan, id));
            prefixes.claim(public.cidr, owner);
            prefixes.has_public = true;
            match public.cidr.trunc() {
                IpNet::V4(net) => prefixes.public_v4.insert(net, ()),
                IpNet::V6(net) => prefixes.public_v6.insert(net, ()),
            };
        }
        prefixes
    }

    fn claim(&mut self, cidr: IpNet, owner: Option<u16>) {
        let claims = match cidr.trunc() {
            IpNet::V4(net) => self.v4.entry(net).or_default(),
            IpNet::V6(net) => self.v6.entry(net).or_default(),
        };
        if let Some(owner) = owner
            && let Err(at) = claims.owners.binary_search(&owner)
        {
            claims.owners.insert(at, owner);
        }
    }

    /// The one secretariat whose claim is the longest that covers the address; none where two claim the same.
    pub(crate) fn owner(&self, ip: IpAddr) -> Option<u16> {
        let claims = match ip {
            IpAddr::V4(ip) => self.v4.get_lpm(&Ipv4Net::from(ip)).map(|(_, claims)| claims),
            IpAddr::V6(ip) => self.v6.get_lpm(&Ipv6Net::from(ip)).map(|(_, claims)| claims),
        };
        match claims.map(|claims| claims.owners.as_slice()) {
            Some(&[owner]) => Some(owner),
            _ => None,
        }
    }

    /// Whether any claim or public prefix covers the address.
    pub(crate) fn covers(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.v4.get_spm(&Ipv4Net::from(ip)).is_some(),
            IpAddr::V6(ip) => self.v6.get_spm(&Ipv6Net::from(ip)).is_some(),
        }
    }

    /// Whether this secretariat claims the address, by a prefix of any length.
    pub(crate) fn claimed_by(&self, ip: IpAddr, secretariat: u16) -> bool {
        self.any_owners(ip, |owners| owners.contains(&secretariat))
    }

    /// Whether any secretariat claims the address, by a prefix of any length.
    pub(crate) fn is_claimed(&self, ip: IpAddr) -> bool {
        self.any_owners(ip, |owners| !owners.is_empty())
    }

    fn any_owners(&self, ip: IpAddr, test: impl Fn(&[u16]) -> bool) -> bool {
        match ip {
            IpAddr::V4(ip) => self.v4.cover(&Ipv4Net::from(ip)).any(|(_, claims)| test(&claims.owners)),
            IpAddr::V6(ip) => self.v6.cover(&Ipv6Net::from(ip)).any(|(_, claims)| test(&claims.owners)),
        }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether one of our public prefixes covers the address.
    #[inline]
    pub(crate) fn is_own_public(&self, ip: IpAddr) -> bool {
        self.has_public && self.covers_public(ip)
    }

    #[inline(never)]
    fn covers_public(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.public_v4.get_spm(&Ipv4Net::from(ip)).is_some(),
            IpAddr::V6(ip) => self.public_v6.get_spm(&Ipv6Net::from(ip)).is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(text: &str) -> Prefixes {
        let people = "[[secretariat]]\nid='a'\n[[secretariat]]\nid='b'\n";
        Prefixes::new(&toml::from_str(&format!("{people}{text}")).expect("a plan"))
    }

    fn claim(cidr: &str, secretariat: &str) -> String {
        format!("[[prefix]]\ncidr='{cidr}'\nsecretariat='{secretariat}'\n")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_longest_claim_owns_and_two_equal_claims_own_nothing() {
        let text = [claim("10.0.0.0/8", "a"), claim("10.1.0.0/16", "b"), claim("10.2.0.0/16", "a")].concat();
        let prefixes = prefixes(&[text, claim("10.2.0.0/16", "b"), claim("fd00::/8", "b")].concat());
        assert_eq!(prefixes.owner(ip("10.9.0.1")), Some(0));
        assert_eq!(prefixes.owner(ip("10.1.0.1")), Some(1));
        assert_eq!(prefixes.owner(ip("10.2.0.1")), None);
        assert_eq!(prefixes.owner(ip("fd12::1")), Some(1));
        assert_eq!(prefixes.owner(ip("192.168.0.1")), None);
        assert!(prefixes.claimed_by(ip("10.1.0.1"), 0) && prefixes.claimed_by(ip("10.1.0.1"), 1));
        assert!(prefixes.is_claimed(ip("10.2.0.1")) && !prefixes.is_claimed(ip("192.168.0.1")));
    }

    #[test]
    fn a_public_prefix_is_ours_even_where_no_secretariat_is_named() {
        let prefixes = prefixes("[[public]]\ncidr='146.243.0.0/16'\n");
        assert!(prefixes.is_own_public(ip("146.243.1.1")) && prefixes.covers(ip("146.243.1.1")));
        assert!(!prefixes.is_own_public(ip("146.244.1.1")) && !prefixes.is_claimed(ip("146.243.1.1")));
    }
}

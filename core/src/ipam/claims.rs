//! The plan's claims by prefix: which of them cover an address, and whose a single address is.

use std::{collections::HashMap, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use crate::{
    net::Name,
    plan::{AddressPlan, PrefixStatus},
};

/// Every claim of use, for lookup. Containers only hold others.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    claims: Vec<Claim>,
    v4: PrefixMap<Ipv4Net, Vec<u32>>,
    v6: PrefixMap<Ipv6Net, Vec<u32>>,
    addresses: HashMap<IpAddr, Vec<(Name, Name)>>,
}

/// One claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The prefix.
    pub cidr: IpNet,
    /// Whose.
    pub secretariat: Name,
    /// Where it is meant to be unique.
    pub address_space: Name,
    /// What for.
    pub status: PrefixStatus,
}

/// What the plan says of the use of an address in an address space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Claimed there.
    Declared,
    /// Claimed by another, with this prefix.
    Misplaced {
        /// The longest prefix that claims it.
        cidr: IpNet,
        /// Who claims it.
        owner: Name,
    },
    /// Claimed by nobody.
    Undeclared,
}

impl Claims {
    /// Compiles a plan's claims.
    pub fn new(plan: &AddressPlan) -> Self {
        let spaces: HashMap<&Name, &Name> =
            plan.secretariats.iter().map(|owner| (&owner.id, owner.address_space())).collect();
        let mut all = Self::default();
        for prefix in plan.prefixes.iter().filter(|prefix| prefix.status != PrefixStatus::Container) {
            let Some(&space) = spaces.get(&prefix.secretariat) else { continue };
            let Ok(number) = u32::try_from(all.claims.len()) else { break };
            all.claims.push(Claim {
                cidr: prefix.cidr.trunc(),
                secretariat: prefix.secretariat.clone(),
                address_space: space.clone(),
                status: prefix.status,
            });
            match prefix.cidr.trunc() {
                IpNet::V4(net) => all.v4.entry(net).or_default().push(number),
                IpNet::V6(net) => all.v6.entry(net).or_default().push(number),
            }
        }
        for address in plan.addresses.iter().filter(|address| address.status != PrefixStatus::Container) {
            if let Some(&space) = spaces.get(&address.secretariat) {
                let owner = (address.secretariat.clone(), space.clone());
                all.addresses.entry(address.address).or_default().push(owner);
            }
        }
        all
    }

    /// All claims, in the order of the plan.
    pub fn all(&self) -> &[Claim] {
        &self.claims
    }

    /// Numbers of the claims that cover an address, the widest first.
    pub fn covering(&self, ip: IpAddr) -> impl Iterator<Item = usize> + use<> {
        let numbers: Vec<u32> = match ip {
            IpAddr::V4(ip) => {
                self.v4.cover(&Ipv4Net::from(ip)).flat_map(|(_, numbers)| numbers).copied().collect()
            }
            IpAddr::V6(ip) => {
                self.v6.cover(&Ipv6Net::from(ip)).flat_map(|(_, numbers)| numbers).copied().collect()
            }
        };
        numbers.into_iter().map(|number| number as usize)
    }

    /// What the plan says of an address that is in use in a space.
    pub fn standing(&self, ip: IpAddr, address_space: &str) -> Standing {
        let mut longest: Option<&Claim> = None;
        for claim in self.covering(ip).filter_map(|number| self.claims.get(number)) {
            if *claim.address_space == *address_space {
                return Standing::Declared;
            }
            longest = Some(claim);
        }
        let single = self.addresses.get(&ip).map(Vec::as_slice).unwrap_or_default();
        if single.iter().any(|(_, space)| **space == *address_space) {
            return Standing::Declared;
        }
        match (single.first(), longest) {
            (Some((owner, _)), _) => Standing::Misplaced { cidr: ip.into(), owner: owner.clone() },
            (None, Some(claim)) => Standing::Misplaced { cidr: claim.cidr, owner: claim.secretariat.clone() },
            (None, None) => Standing::Undeclared,
        }
    }

    /// Whether the plan claims anything.
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty() && self.addresses.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_declared_misplaced_or_undeclared_by_the_longest_claim() {
        let plan: AddressPlan = toml::from_str(
            "secretariat = [{id='a'}, {id='b'}, {id='c', address_space='a'}]
             prefix = [
                 {cidr='10.0.0.0/8', secretariat='a', status='container'},
                 {cidr='10.1.0.0/16', secretariat='a'}, {cidr='10.1.2.0/24', secretariat='b'},
                 {cidr='10.1.0.0/16', secretariat='b', status='deprecated'}, {cidr='fd00::/16', secretariat='b'},
             ]
             address = [{address='10.7.0.1', secretariat='b', role='vip'}]",
        )
        .expect("a plan");
        let claims = Claims::new(&plan);
        let misplaced = |cidr: &str, owner: &str| Standing::Misplaced {
            cidr: cidr.parse().expect("a prefix"),
            owner: owner.into(),
        };
        for (address, space, expected) in [
            ("10.1.9.1", "a", Standing::Declared),
            ("10.1.9.1", "b", Standing::Declared),
            ("10.1.2.1", "a", Standing::Declared),
            ("10.1.2.1", "c", misplaced("10.1.2.0/24", "b")),
            ("10.2.0.1", "a", Standing::Undeclared),
            ("10.7.0.1", "b", Standing::Declared),
            ("10.7.0.1", "a", misplaced("10.7.0.1/32", "b")),
            ("fd00::1", "b", Standing::Declared),
            ("fd00::1", "a", misplaced("fd00::/16", "b")),
            ("fd01::1", "a", Standing::Undeclared),
        ] {
            assert_eq!(
                claims.standing(address.parse().expect("an address"), space),
                expected,
                "{address} {space}"
            );
        }
        let covering: Vec<usize> = claims.covering("10.1.2.9".parse().expect("an address")).collect();
        assert_eq!(covering, [0, 2, 1]);
    }
}

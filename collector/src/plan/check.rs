//! Checks an address plan: that it can be used, and claims of different address spaces that overlap. Pure but for
//! reading the file.

use std::path::Path;

use ipnet::IpNet;
use onenet_core::{
    net::Name,
    plan::{AddressPlan, Prefix, PrefixStatus},
};
use onenet_proto::config::{ConfigError, read_plan};
use serde::Serialize;

/// One claim, as the report names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Claim {
    /// The prefix.
    pub(crate) cidr: IpNet,
    /// Where it is meant to be unique.
    pub(crate) address_space: Name,
    /// Whose.
    pub(crate) secretariat: Name,
    /// What for.
    pub(crate) status: PrefixStatus,
    /// Line of its `[[prefix]]` in the file, from 1.
    pub(crate) line: Option<usize>,
}

/// Two claims of different address spaces that share addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct OverlappingClaims {
    /// The wider of the two, or the first in the file where both are equal.
    pub(crate) outer: Claim,
    /// The narrower.
    pub(crate) inner: Claim,
    /// Addresses they share; the largest number where they are more (IPv6).
    pub(crate) addresses: u64,
}

/// What a plan that can be used says.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// The plan.
    pub(crate) plan: AddressPlan,
    /// Overlapping claims, the widest first.
    pub(crate) overlaps: Vec<OverlappingClaims>,
    /// Overlapping claims beyond those in `overlaps`.
    pub(crate) unlisted: usize,
}

/// Overlapping claims that a report lists. A plan of thousands of nested claims has more pairs than anybody
/// reads; the others are counted.
pub(crate) const MAX_LISTED: usize = 10_000;

/// Reads and checks the plan in `file`, and its claims against each other.
pub(crate) fn check(file: &Path) -> Result<Report, ConfigError> {
    let (plan, document) = read_plan(file)?;
    let (overlaps, unlisted) = overlapping(&claims(&plan, &document.lines_of_entries("prefix")));
    Ok(Report { plan, overlaps, unlisted })
}

/// Overlapping claims of a plan whose lines are not at hand, the widest first, and how many there are beyond those listed.
pub(crate) fn overlaps(plan: &AddressPlan) -> (Vec<OverlappingClaims>, usize) {
    overlapping(&claims(plan, &[]))
}

/// Claims that assert a use: containers only hold others.
fn claims(plan: &AddressPlan, lines: &[usize]) -> Vec<Claim> {
    let claim = |(index, prefix): (usize, &Prefix)| {
        let secretariat = plan.secretariat(&prefix.secretariat)?;
        (prefix.status != PrefixStatus::Container).then(|| Claim {
            cidr: prefix.cidr.trunc(),
            address_space: secretariat.address_space().clone(),
            secretariat: secretariat.id.clone(),
            status: prefix.status,
            line: lines.get(index).copied(),
        })
    };
    plan.prefixes.iter().enumerate().filter_map(claim).collect()
}

/// A claim of use in an address space.
pub(crate) trait Claimed {
    /// The prefix.
    fn cidr(&self) -> IpNet;
    /// Where it is meant to be unique.
    fn address_space(&self) -> &Name;
}

impl Claimed for Claim {
    fn cidr(&self) -> IpNet {
        self.cidr
    }

    fn address_space(&self) -> &Name {
        &self.address_space
    }
}

impl Claimed for onenet_core::ipam::Claim {
    fn cidr(&self) -> IpNet {
        self.cidr
    }

    fn address_space(&self) -> &Name {
        &self.address_space
    }
}

/// Pairs of claims of different address spaces where one contains the other, as outer and inner, the widest inner first:
/// at most [`MAX_LISTED`], and how many there are beyond. Sorted by first address and then the wider first, a claim's
/// containers are those still open when it comes; equal claims keep their order.
pub(crate) fn overlapping_claims<'a, C: Claimed>(claims: &[&'a C]) -> (Vec<(&'a C, &'a C)>, usize) {
    let mut sorted = claims.to_vec();
    sorted.sort_by_key(|claim| (claim.cidr().network(), claim.cidr().prefix_len()));
    let (mut found, mut unlisted) = (Vec::new(), 0_usize);
    let mut open: Vec<&C> = Vec::new();
    for claim in sorted {
        while open.last().is_some_and(|outer| !outer.cidr().contains(&claim.cidr())) {
            open.pop();
        }
        for outer in open.iter().filter(|outer| outer.address_space() != claim.address_space()) {
            if found.len() < MAX_LISTED {
                found.push((*outer, claim));
            } else {
                unlisted = unlisted.saturating_add(1);
            }
        }
        open.push(claim);
    }
    found.sort_by_key(|(_, inner)| std::cmp::Reverse(addresses(&inner.cidr())));
    (found, unlisted)
}

/// The same with what a report says of each pair.
fn overlapping(claims: &[Claim]) -> (Vec<OverlappingClaims>, usize) {
    let (pairs, unlisted) = overlapping_claims(&claims.iter().collect::<Vec<_>>());
    let listed = pairs.into_iter().map(|(outer, inner)| OverlappingClaims {
        outer: outer.clone(),
        inner: inner.clone(),
        addresses: addresses(&inner.cidr),
    });
    (listed.collect(), unlisted)
}

fn addresses(cidr: &IpNet) -> u64 {
    let bits = cidr.max_prefix_len().saturating_sub(cidr.prefix_len());
    1_u64.checked_shl(u32::from(bits)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "\
[[secretariat]]
id = 'eohhs'

[[secretariat]]
id = 'massdot'
address_space = 'transport'

[[prefix]]
cidr = '10.0.0.0/8'
secretariat = 'eohhs'
status = 'container'

[[prefix]]
cidr = '10.1.0.0/16'
secretariat = 'eohhs'

[[prefix]]
cidr = '10.1.2.0/24'
secretariat = 'eohhs'
";

    fn checked(text: &str) -> Result<Report, ConfigError> {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("plan.toml");
        std::fs::write(&file, text).expect("it is written");
        check(&file).map_err(|error| ConfigError { path: "plan.toml".into(), ..error })
    }

    fn pairs(more: &str) -> Vec<(String, String, u64)> {
        let report = checked(&format!("{PLAN}{more}")).expect("the plan is valid");
        let name = |claim: &Claim| format!("{} {} {:?}", claim.cidr, claim.address_space, claim.line);
        report.overlaps.iter().map(|pair| (name(&pair.outer), name(&pair.inner), pair.addresses)).collect()
    }

    #[test]
    fn claims_nested_in_one_address_space_and_containers_are_no_overlap() {
        assert_eq!(pairs(""), []);
        assert_eq!(pairs("[[prefix]]\ncidr = '10.2.0.0/16'\nsecretariat = 'massdot'\n"), []);
    }

    #[test]
    fn equal_and_nested_claims_of_two_address_spaces_are_found_both_ways() {
        let inner = pairs("[[prefix]]\ncidr = '10.1.2.128/25'\nsecretariat = 'massdot'\n");
        assert_eq!(
            inner,
            [
                ("10.1.0.0/16 eohhs Some(13)".into(), "10.1.2.128/25 transport Some(20)".into(), 128),
                ("10.1.2.0/24 eohhs Some(17)".into(), "10.1.2.128/25 transport Some(20)".into(), 128),
            ]
        );
        let equal = pairs("[[prefix]]\ncidr = '10.1.2.0/24'\nsecretariat = 'massdot'\n");
        assert_eq!(equal.len(), 2);
        let outer = pairs("[[prefix]]\ncidr = '10.0.0.0/8'\nsecretariat = 'massdot'\n");
        assert_eq!(outer.len(), 2);
        assert!(outer.iter().all(|(wide, _, _)| wide == "10.0.0.0/8 transport Some(20)"), "{outer:?}");
    }

    #[test]
    fn a_plan_that_contradicts_itself_is_refused_with_file_line_and_key() {
        for (more, expected) in [
            (
                "[[secretariat]]\nid = 'eohhs'\n",
                "plan.toml:21:6: secretariat[2].id: secretariat \"eohhs\" is stated",
            ),
            (
                "[[prefix]]\ncidr = '10.9.0.0/16'\n\nsecretariat = 'nobody'\n",
                "plan.toml:23:15: prefix[3].secretariat: prefix \"10.9.0.0/16\" names the secretariat \"nobody\"",
            ),
            (
                "[[segment]]\nid = 's'\nsite = 'boston'\nsecretariat = 'eohhs'\nvlan = 5000\n",
                "plan.toml:24:8: segment[0].vlan: segment \"s\": vlan = 5000, expected",
            ),
            ("[[prefix]]\ncidr = '10.1.2.0/33'\nsecretariat = 'eohhs'\n", "plan.toml:21:8: prefix[3].cidr: "),
            ("[[prefixes]]\n", "plan.toml:20:3: prefixes[0]: "),
        ] {
            let error = checked(&format!("{PLAN}{more}")).expect_err(more).to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn what_two_wide_ipv6_claims_share_does_not_overflow() {
        let more = "[[prefix]]\ncidr = 'fd00::/8'\nsecretariat = 'eohhs'\n\
                    [[prefix]]\ncidr = 'fd00::/16'\nsecretariat = 'massdot'\n";
        assert_eq!(pairs(more).first().map(|pair| pair.2), Some(u64::MAX));
    }
}

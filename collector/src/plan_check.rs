//! Checks an address plan: the file's grammar, what the plan contradicts itself in, and claims of different
//! address spaces that overlap. Pure but for reading the file.

use std::path::Path;

use ipnet::IpNet;
use onenet_core::{
    net::Name,
    plan::{AddressPlan, PlanError, Prefix, PrefixStatus},
};
use onenet_proto::config_error::{self, ConfigError};
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
    /// Line of its `[[prefix]]` in the file, from 1; none where the plan writes its prefixes another way.
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

/// Reads a plan and checks that it can be used.
pub(crate) fn read(file: &Path) -> Result<AddressPlan, ConfigError> {
    usable(file).map(|(plan, _)| plan)
}

fn usable(file: &Path) -> Result<(AddressPlan, String), ConfigError> {
    let (plan, text) = config_error::read::<AddressPlan>(file)?;
    plan.check().map_err(|error| locate(file, &text, &plan, &error))?;
    Ok((plan, text))
}

/// Reads and checks the plan in `file`, and its claims against each other.
pub(crate) fn check(file: &Path) -> Result<Report, ConfigError> {
    let (plan, text) = usable(file)?;
    let (overlaps, unlisted) = overlapping(&claims(&plan, &text));
    Ok(Report { plan, overlaps, unlisted })
}

/// Claims that assert a use: containers only hold others.
fn claims(plan: &AddressPlan, text: &str) -> Vec<Claim> {
    let lines = headers(text, "prefix");
    let claim = |(index, prefix): (usize, &Prefix)| {
        let secretariat = plan.secretariat(&prefix.secretariat)?;
        (prefix.status != PrefixStatus::Container).then(|| Claim {
            cidr: prefix.cidr.trunc(),
            address_space: secretariat.address_space().clone(),
            secretariat: secretariat.id.clone(),
            status: prefix.status,
            line: (lines.len() == plan.prefixes.len()).then(|| lines.get(index).copied()).flatten(),
        })
    };
    plan.prefixes.iter().enumerate().filter_map(claim).collect()
}

/// Every pair of claims of different address spaces where one contains the other. Sorted by first address and
/// then the wider first, a claim's containers are those still open when it comes.
fn overlapping(claims: &[Claim]) -> (Vec<OverlappingClaims>, usize) {
    let mut sorted: Vec<&Claim> = claims.iter().collect();
    sorted.sort_by_key(|claim| (claim.cidr.network(), claim.cidr.prefix_len(), claim.line));
    let (mut found, mut unlisted) = (Vec::new(), 0_usize);
    let mut open: Vec<&Claim> = Vec::new();
    for claim in sorted {
        open.retain(|outer| outer.cidr.contains(&claim.cidr));
        for outer in open.iter().filter(|outer| outer.address_space != claim.address_space) {
            if found.len() < MAX_LISTED {
                found.push(OverlappingClaims {
                    outer: (*outer).clone(),
                    inner: claim.clone(),
                    addresses: addresses(&claim.cidr),
                });
            } else {
                unlisted = unlisted.saturating_add(1);
            }
        }
        open.push(claim);
    }
    found.sort_by_key(|pair| std::cmp::Reverse(pair.addresses));
    (found, unlisted)
}

fn addresses(cidr: &IpNet) -> u64 {
    let bits = cidr.max_prefix_len().saturating_sub(cidr.prefix_len());
    1_u64.checked_shl(u32::from(bits)).unwrap_or(u64::MAX)
}

/// Lines of the headers `[[table]]`, from 1.
fn headers(text: &str, table: &str) -> Vec<usize> {
    let is_header = |line: &str| {
        let name = line.trim().strip_prefix("[[").and_then(|rest| rest.split_once("]]"));
        name.is_some_and(|(name, _)| name.trim() == table)
    };
    text.lines().enumerate().filter(|(_, line)| is_header(line)).map(|(index, _)| index + 1).collect()
}

/// Where in the file the contradiction stands.
fn locate(file: &Path, text: &str, plan: &AddressPlan, error: &PlanError) -> ConfigError {
    let last = |found: Vec<usize>| found.last().copied();
    let segment = |id: &Name| plan.segments.iter().rposition(|segment| segment.id == *id);
    let (table, index, key) = match error {
        PlanError::Duplicate { kind: "segment", id } => ("segment", segment(id), "id"),
        PlanError::Duplicate { kind, id } => {
            let same = plan.secretariats.iter().enumerate().filter(|(_, s)| s.id == *id);
            (*kind, last(same.map(|(index, _)| index).collect()), "id")
        }
        PlanError::UnknownSecretariat { kind: "segment", what, .. } => {
            ("segment", plan.segments.iter().position(|s| *s.id == **what), "secretariat")
        }
        PlanError::UnknownSecretariat { kind: "prefix", what, secretariat } => {
            let same = |p: &Prefix| p.cidr.to_string() == *what && p.secretariat == *secretariat;
            ("prefix", plan.prefixes.iter().position(same), "secretariat")
        }
        PlanError::UnknownSecretariat { kind, what, .. } => {
            (*kind, plan.public.iter().position(|p| p.cidr.to_string() == *what), "secretariat")
        }
        PlanError::OutOfRange { id, field, .. } => {
            ("segment", plan.segments.iter().position(|s| s.id == *id), *field)
        }
        PlanError::Indistinct { second, .. } => ("segment", segment(second), "id"),
    };
    let header = index.and_then(|index| headers(text, table).get(index).copied());
    let line = header.map(|header| line_of_key(text, header, key).unwrap_or(header));
    ConfigError {
        file: file.to_owned(),
        line,
        key: Some(format!("{table}.{key}")),
        problem: error.to_string(),
    }
}

/// The line of `key` in the table whose header is on line `header`.
fn line_of_key(text: &str, header: usize, key: &str) -> Option<usize> {
    let body = text.lines().enumerate().skip(header).take_while(|(_, line)| !line.trim().starts_with('['));
    let is_key = |line: &str| line.split_once('=').is_some_and(|(name, _)| name.trim() == key);
    body.into_iter().find(|(_, line)| is_key(line)).map(|(index, _)| index + 1)
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
        check(&file).map_err(|error| ConfigError { file: "plan.toml".into(), ..error })
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
                "plan.toml:21: secretariat.id: secretariat \"eohhs\" is stated",
            ),
            (
                "[[prefix]]\ncidr = '10.9.0.0/16'\n\nsecretariat = 'nobody'\n",
                "plan.toml:23: prefix.secretariat: prefix \"10.9.0.0/16\" names the secretariat \"nobody\"",
            ),
            (
                "[[segment]]\nid = 's'\nsite = 'boston'\nsecretariat = 'eohhs'\nvlan = 5000\n",
                "plan.toml:24: segment.vlan: segment \"s\": vlan = 5000, expected",
            ),
            ("[[prefix]]\ncidr = '10.1.2.0/33'\nsecretariat = 'eohhs'\n", "plan.toml:21: prefix.cidr: "),
            ("[[prefixes]]\n", "plan.toml:20: "),
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

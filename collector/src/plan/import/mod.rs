//! Imports: what an IPAM system says becomes claims of the plan, whole or not at all.
//!
//! Everything is read and checked before anything is written. Each row that is refused is told with file, line, column and
//! reason, and one is enough to refuse the import. What was imported stands apart from what people write: in the
//! directory `<plan>.d` beside the plan, one file for each source, which the next import of the source replaces.

mod claim;
mod formats;
pub(crate) mod mapping;
pub(crate) mod sheet;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, path::PathBuf};

use ipnet::IpNet;
use onenet_core::{
    net::Name,
    plan::{AddressPlan, PlannedAddress, Prefix},
};

pub(crate) use formats::ImportFormat;

use self::{
    claim::{Claim, What},
    formats::Reader,
    mapping::Mapping,
    sheet::{Reject, Sheet},
};

/// What an import says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Imported {
    /// Prefixes, by first address, the wider first.
    pub(crate) prefixes: Vec<Prefix>,
    /// Addresses, in order.
    pub(crate) addresses: Vec<PlannedAddress>,
}

/// Reads files in one format. Every row that is refused is in the error, in the order of files and lines.
pub(crate) fn read(
    format: ImportFormat,
    files: &[PathBuf],
    plan: &AddressPlan,
    mapping: &Mapping,
) -> Result<Imported, Vec<Reject>> {
    let (mut sheets, mut rejects) = (Vec::new(), Vec::new());
    for file in files {
        match Sheet::open(file) {
            Ok(sheet) => sheets.push(sheet),
            Err(reject) => rejects.push(reject),
        }
    }
    of_sheets(format, &sheets, plan, mapping, rejects)
}

fn of_sheets(
    format: ImportFormat,
    sheets: &[Sheet],
    plan: &AddressPlan,
    mapping: &Mapping,
    rejects: Vec<Reject>,
) -> Result<Imported, Vec<Reject>> {
    let mut reader = Reader { format, plan, mapping, vrfs: Default::default(), claims: Vec::new(), rejects };
    for sheet in sheets {
        reader.read_vrfs(sheet);
    }
    for (number, sheet) in sheets.iter().enumerate() {
        reader.read(number, sheet);
    }
    let Reader { mut claims, mut rejects, .. } = reader;
    contradictions(&mut claims, sheets, &mut rejects);
    if !rejects.is_empty() {
        let order: HashMap<&str, usize> = sheets.iter().map(Sheet::file).zip(0..).collect();
        rejects.sort_by_key(|reject| (order.get(reject.file.as_str()).copied(), reject.line));
        return Err(rejects);
    }
    let mut imported = Imported::default();
    for claim in claims {
        match claim.what {
            What::Prefix(prefix) => imported.prefixes.push(prefix),
            What::Address(address) => imported.addresses.push(address),
        }
    }
    // One secretariat's claims of two tables, such as two VRFs, may be the same; once is enough.
    imported.prefixes.dedup();
    imported.addresses.dedup();
    Ok(imported)
}

/// Claims of one table that contradict each other: the same twice, and a use by one secretariat within another's. The
/// claims are sorted by table, first address, and the wider first; so those around a claim are the ones still open.
fn contradictions(claims: &mut [Claim], sheets: &[Sheet], rejects: &mut Vec<Reject>) {
    let file = |claim: &Claim| sheets.get(claim.place.0).map(Sheet::file).unwrap_or_default().to_owned();
    let order = |claim: &Claim| {
        let net = claim.net();
        (net.network(), net.prefix_len(), matches!(claim.what, What::Address(_)), claim.place)
    };
    claims.sort_by(|one, other| one.table.cmp(&other.table).then_with(|| order(one).cmp(&order(other))));
    let mut open: Vec<&Claim> = Vec::new();
    let mut table = None;
    for claim in claims.iter() {
        if table != Some(&claim.table) {
            open.clear();
            table = Some(&claim.table);
        }
        open.retain(|outer| outer.net().contains(&claim.net()));
        let mut refuse = |outer: &Claim, what: &str| {
            let reason = format!("{} {what} (line {} of {})", claim.net(), outer.place.1, file(outer));
            rejects.push(Reject { file: file(claim), line: claim.place.1, column: None, reason });
        };
        let is_same = |outer: &Claim| {
            let kind = |claim: &Claim| matches!(claim.what, What::Prefix(_));
            outer.net() == claim.net() && kind(outer) == kind(claim)
        };
        let nearest = open.iter().rev().find(|outer| !outer.is_container());
        // What is refused is not held against what follows: one reason is enough.
        if let Some(outer) = open.last().filter(|outer| is_same(outer)) {
            if !(claim.may_repeat() && outer.may_repeat()) {
                refuse(outer, "is stated already in this VRF");
            }
        } else if let Some(outer) = nearest.filter(|outer| outer.secretariat() != claim.secretariat()) {
            let (whose, wide, other) = (claim.secretariat(), outer.net(), outer.secretariat());
            refuse(outer, &format!("of {whose} is within {wide} of {other}"));
        } else {
            open.push(claim);
        }
    }
    claims.sort_by_key(order);
}

/// How an import differs from what was imported from its source before.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Difference {
    /// `+`, `-` or `~`, and the claim in one line; for `~` what it was before.
    pub(crate) lines: Vec<(char, String)>,
}

impl Difference {
    /// From the claims before to the claims now.
    pub(crate) fn of(before: &Imported, now: &Imported) -> Self {
        let mut lines = differences(&before.prefixes, &now.prefixes, |prefix: &Prefix| {
            let Prefix { cidr, secretariat, agency, status, description } = prefix;
            let text = told(secretariat, agency.as_ref(), status.as_str(), description.as_ref());
            ((*cidr, secretariat.clone()), text)
        });
        lines.extend(differences(&before.addresses, &now.addresses, |address: &PlannedAddress| {
            let PlannedAddress { address, secretariat, agency, status, role, description } = address;
            let role = role.map_or_else(String::new, |role| format!(" {role}"));
            let text = told(secretariat, agency.as_ref(), &format!("{status}{role}"), description.as_ref());
            ((IpNet::from(*address), secretariat.clone()), text)
        }));
        Self { lines }
    }

    /// How many were added, removed, changed.
    pub(crate) fn counts(&self) -> [usize; 3] {
        ['+', '-', '~'].map(|sign| self.lines.iter().filter(|(of, _)| *of == sign).count())
    }
}

fn told(secretariat: &Name, agency: Option<&Name>, status: &str, description: Option<&Name>) -> String {
    let agency = agency.map_or_else(String::new, |agency| format!("/{agency}"));
    let description = description.map_or_else(String::new, |text| format!(" {text:?}"));
    format!("{secretariat}{agency} {status}{description}")
}

type Key = (IpNet, Name);

fn differences<T>(before: &[T], now: &[T], describe: impl Fn(&T) -> (Key, String)) -> Vec<(char, String)> {
    let mut old: HashMap<Key, Vec<String>> = HashMap::new();
    for item in before {
        let (key, text) = describe(item);
        old.entry(key).or_default().push(text);
    }
    let mut lines = Vec::new();
    for item in now {
        let (key, text) = describe(item);
        let was =
            old.get_mut(&key).and_then(|texts| if texts.is_empty() { None } else { Some(texts.remove(0)) });
        match was {
            Some(was) if was == text => {}
            Some(was) => lines.push((key.clone(), '~', format!("{} {text} (was {was})", key.0))),
            None => lines.push((key.clone(), '+', format!("{} {text}", key.0))),
        }
    }
    for (key, texts) in old {
        lines.extend(texts.into_iter().map(|text| (key.clone(), '-', format!("{} {text}", key.0))));
    }
    lines.sort();
    lines.into_iter().map(|(_, sign, line)| (sign, line)).collect()
}

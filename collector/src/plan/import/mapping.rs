//! The mapping file: which secretariat, and which agency under it, stands behind what an IPAM system calls a tenant, a VRF,
//! a section, a network view or a site.
//!
//! ```toml
//! [[map]]
//! tenant = "Health*"        # `*` stands for anything; letters of either case are the same
//! secretariat = "eohhs"
//! agency = "dph"
//! ```
//! The first entry whose every stated condition holds counts. Without a mapping a tenant's name must be a secretariat's id,
//! or its full name.

use std::path::Path;

use onenet_core::{net::Name, plan::AddressPlan};
use onenet_proto::config::{ConfigError, Document};
use serde::Deserialize;

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mapping {
    #[serde(rename = "map", default)]
    entries: Vec<Entry>,
}

/// One entry: conditions, and whose what fits them is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    tenant: Option<String>,
    #[serde(default)]
    vrf: Option<String>,
    #[serde(default)]
    section: Option<String>,
    #[serde(default)]
    view: Option<String>,
    #[serde(default)]
    site: Option<String>,
    secretariat: Name,
    #[serde(default)]
    agency: Option<Name>,
}

/// What an IPAM system says of the owner of a row; empty where it says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Said<'a> {
    /// Tenant.
    pub(crate) tenant: &'a str,
    /// VRF.
    pub(crate) vrf: &'a str,
    /// phpIPAM's section.
    pub(crate) section: &'a str,
    /// Infoblox's network view.
    pub(crate) view: &'a str,
    /// Site.
    pub(crate) site: &'a str,
}

/// Whose a row is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The secretariat.
    pub(crate) secretariat: Name,
    /// The agency under it.
    pub(crate) agency: Option<Name>,
}

impl Mapping {
    /// Reads a file, and checks that it names what the plan has.
    pub(crate) fn read(path: &Path, plan: &AddressPlan) -> Result<Self, ConfigError> {
        let document = Document::open(path)?;
        let mapping: Self = document.parse()?;
        for (at, entry) in mapping.entries.iter().enumerate() {
            let at = at.to_string();
            if plan.secretariat(&entry.secretariat).is_none() {
                let message = format!("{:?} is no secretariat of the plan", entry.secretariat);
                return Err(document.error(&["map", &at, "secretariat"], message));
            }
            if let Some(agency) = &entry.agency
                && plan.agency(&entry.secretariat, agency).is_none()
            {
                let message = format!("{agency:?} is no agency of {} in the plan", entry.secretariat);
                return Err(document.error(&["map", &at, "agency"], message));
            }
        }
        Ok(mapping)
    }

    /// Whose something is; none where nobody is known by what is said.
    pub(crate) fn owner(&self, plan: &AddressPlan, said: &Said<'_>) -> Option<Owner> {
        let mapped = self.entries.iter().find(|entry| entry.covers(said));
        if let Some(entry) = mapped {
            return Some(Owner { secretariat: entry.secretariat.clone(), agency: entry.agency.clone() });
        }
        let named =
            [said.tenant, said.view, said.section, said.vrf].into_iter().find(|name| !name.is_empty())?;
        let same = |name: &Name| name.eq_ignore_ascii_case(named);
        let known = plan
            .secretariats
            .iter()
            .find(|known| same(&known.id) || known.name.as_ref().is_some_and(same))?;
        Some(Owner { secretariat: known.id.clone(), agency: None })
    }
}

impl Entry {
    fn covers(&self, said: &Said<'_>) -> bool {
        let conditions = [
            (&self.tenant, said.tenant),
            (&self.vrf, said.vrf),
            (&self.section, said.section),
            (&self.view, said.view),
            (&self.site, said.site),
        ];
        conditions.into_iter().all(|(wanted, said)| wanted.as_ref().is_none_or(|pattern| fits(pattern, said)))
    }
}

/// Whether a text fits a pattern in which `*` stands for any text. It takes time linear in both, but for the number of
/// stars.
fn fits(pattern: &str, text: &str) -> bool {
    let text = text.to_lowercase();
    let pattern = pattern.to_lowercase();
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, expected) in [
            ("Health*", "health and human services", true),
            ("Health*", "Public Health", false),
            ("*health", "Public Health", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
            ("*", "", true),
            ("x", "x", true),
            ("x", "xy", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn the_first_entry_that_fits_counts_and_names_of_the_plan_need_none() {
        let plan: AddressPlan = toml::from_str(
            "[[secretariat]]\nid = 'eohhs'\nname = 'Health'\n[[secretariat]]\nid = 'massdot'\n\
             [[agency]]\nid = 'dph'\nsecretariat = 'eohhs'",
        )
        .expect("a plan");
        let mapping: Mapping = toml::from_str(
            "[[map]]\ntenant = 'dot'\nvrf = 'lab*'\nsecretariat = 'eohhs'\nagency = 'dph'\n\
             [[map]]\ntenant = 'dot'\nsecretariat = 'massdot'",
        )
        .expect("a mapping");
        let owner = |tenant, vrf| {
            let said = Said { tenant, vrf, ..Said::default() };
            mapping.owner(&plan, &said).map(|owner| (owner.secretariat.to_string(), owner.agency.is_some()))
        };
        assert_eq!(owner("DOT", "lab 3"), Some(("eohhs".to_owned(), true)));
        assert_eq!(owner("dot", "prod"), Some(("massdot".to_owned(), false)));
        assert_eq!(owner("health", ""), Some(("eohhs".to_owned(), false)));
        assert_eq!(owner("EOHHS", ""), Some(("eohhs".to_owned(), false)));
        assert_eq!(owner("nobody", ""), None);
        assert_eq!(owner("", ""), None);
    }
}

//! The address plan as a file, with its contradictions at their place.

use std::path::Path;

use onenet_core::plan::{AddressPlan, Exemption, PlanError, PlannedAddress, Prefix, Segment};

use super::{ConfigError, Document, imported::add_imports};

/// Reads and checks a plan file and what was imported beside it. Gives the document too, for the places of what it holds.
pub fn read_plan(path: &Path) -> Result<(AddressPlan, Document), ConfigError> {
    let document = Document::open(path)?;
    let mut plan = document.parse()?;
    check_plan(&plan, &document, None)?;
    add_imports(&mut plan, path)?;
    Ok((plan, document))
}

/// Checks a plan that was read from the document, or from its table of this name.
pub fn check_plan(plan: &AddressPlan, document: &Document, table: Option<&str>) -> Result<(), ConfigError> {
    plan.check().map_err(|error| {
        let (list, index, key) = place(plan, &error);
        let index = index.map(|index| index.to_string());
        let in_list = index.as_deref().map(|index| [index, key]);
        let path: Vec<&str> = table.into_iter().chain([list]).chain(in_list.into_iter().flatten()).collect();
        document.error(&path, error.to_string())
    })?;
    let tell = |list: &str, index: usize, key: Option<&str>, message: &str| {
        let index = index.to_string();
        let path: Vec<&str> = table.into_iter().chain([list, index.as_str()]).chain(key).collect();
        document.error(&path, message)
    };
    check_texts(plan, &tell)?;
    check_exemptions(plan, &tell)
}

/// Makes the error of an entry of a list, or of a key of it.
type Tell<'a> = dyn Fn(&str, usize, Option<&str>, &str) -> ConfigError + 'a;

/// Names that nothing can be called by, and addresses that no station has.
fn check_texts(plan: &AddressPlan, tell: &Tell<'_>) -> Result<(), ConfigError> {
    let lists = [
        ("secretariat", "id", plan.secretariats.iter().map(|s| Some(&s.id)).collect()),
        (
            "secretariat",
            "address_space",
            plan.secretariats.iter().map(|s| s.address_space.as_ref()).collect(),
        ),
        ("agency", "id", plan.agencies.iter().map(|a| Some(&a.id)).collect()),
        ("segment", "id", plan.segments.iter().map(|s| Some(&s.id)).collect()),
        ("segment", "site", plan.segments.iter().map(|s| Some(&s.site)).collect()),
        ("segment", "interface", plan.segments.iter().map(|s| s.interface.as_ref()).collect::<Vec<_>>()),
    ];
    for (list, key, names) in lists {
        if let Some(index) = names.iter().position(|name| name.is_some_and(|name| name.is_empty())) {
            return Err(tell(list, index, Some(key), "is empty, expected a name"));
        }
    }
    for (index, segment) in plan.segments.iter().enumerate() {
        if let Some(mac) = segment.mac.filter(|mac| mac.is_group() || mac.is_zero()) {
            let message = format!("{mac}, which no station has, expected the MAC address of a router");
            return Err(tell("segment", index, Some("mac"), &message));
        }
    }
    Ok(())
}

/// One exemption without a condition would silence every rule.
fn check_exemptions(plan: &AddressPlan, tell: &Tell<'_>) -> Result<(), ConfigError> {
    for (index, exemption) in plan.exemptions.iter().enumerate() {
        let Exemption { rule, source, destination, port, .. } = exemption;
        if rule.is_none() && source.is_none() && destination.is_none() && port.is_none() {
            let message =
                "has no condition and would cover every finding, expected rule, source, destination or port";
            return Err(tell("exemption", index, None, message));
        }
        if *port == Some(0) {
            return Err(tell("exemption", index, Some("port"), "0, expected a whole number from 1 to 65535"));
        }
    }
    Ok(())
}

/// The list, the index in it and the key that an error of the plan is about.
fn place(plan: &AddressPlan, error: &PlanError) -> (&'static str, Option<usize>, &'static str) {
    let segments = plan.segments.iter().enumerate();
    match error {
        PlanError::Duplicate { kind: "segment", id } => {
            let mut same = segments.filter(|(_, segment)| segment.id == *id);
            ("segment", same.nth(1).map(|(index, _)| index), "id")
        }
        PlanError::Duplicate { kind: "agency", id } => {
            let mut same = plan.agencies.iter().enumerate().filter(|(_, other)| other.id == *id);
            ("agency", same.nth(1).map(|(index, _)| index), "id")
        }
        PlanError::Duplicate { kind, id } => {
            let mut same = plan.secretariats.iter().enumerate().filter(|(_, other)| other.id == *id);
            (*kind, same.nth(1).map(|(index, _)| index), "id")
        }
        PlanError::UnknownSecretariat { kind, what, secretariat } => {
            let index = match *kind {
                "segment" => {
                    plan.segments.iter().position(|s| *s.id == **what && s.secretariat == *secretariat)
                }
                "agency" => {
                    plan.agencies.iter().position(|a| *a.id == **what && a.secretariat == *secretariat)
                }
                "address" => plan
                    .addresses
                    .iter()
                    .position(|a| a.address.to_string() == *what && a.secretariat == *secretariat),
                "prefix" => plan
                    .prefixes
                    .iter()
                    .position(|p| p.cidr.to_string() == *what && p.secretariat == *secretariat),
                _ => plan
                    .public
                    .iter()
                    .position(|p| p.cidr.to_string() == *what && p.secretariat.as_ref() == Some(secretariat)),
            };
            (*kind, index, "secretariat")
        }
        PlanError::UnknownAgency { kind, what, agency, .. } => {
            let index = if *kind == "prefix" {
                let same = |p: &Prefix| p.cidr.to_string() == *what && p.agency.as_ref() == Some(agency);
                plan.prefixes.iter().position(same)
            } else {
                let same =
                    |a: &PlannedAddress| a.address.to_string() == *what && a.agency.as_ref() == Some(agency);
                plan.addresses.iter().position(same)
            };
            (*kind, index, "agency")
        }
        PlanError::OutOfRange { id, field, value, .. } => {
            let says = |segment: &Segment| match *field {
                "vlan" => segment.vlan.map(u32::from),
                "inner_vlan" => segment.inner_vlan.map(u32::from),
                _ => segment.mpls_label,
            };
            let index = plan.segments.iter().position(|s| s.id == *id && says(s) == Some(*value));
            ("segment", index, *field)
        }
        PlanError::Indistinct { first, second } => {
            let mut after = segments.skip_while(|(_, segment)| segment.id != *first).skip(1);
            ("segment", after.find(|(_, s)| s.id == *second).map(|(index, _)| index), "id")
        }
    }
}

//! The address plan as a file, with its contradictions at their place.

use std::path::Path;

use onenet_core::plan::{AddressPlan, PlanError, PlannedAddress, Prefix, Segment};

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
    })
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

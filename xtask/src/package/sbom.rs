//! The bill of materials of a program: CycloneDX 1.5, JSON. What is in it comes from the lock file alone, so the same
//! source gives the same bytes.

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    crates::{Crate, Place},
    when::Moment,
};

/// Writes the bill of a program that consists of these crates.
pub(super) fn bill(program: &str, crates: &[Crate], moment: Moment) -> Result<Vec<u8>> {
    let (own, rest): (Vec<&Crate>, Vec<&Crate>) = crates.iter().partition(|one| one.name == program);
    let components: Vec<Value> = rest.iter().map(|one| component(one, "library")).collect();
    let dependencies: Vec<Value> =
        crates.iter().map(|one| json!({ "ref": one.url(), "dependsOn": one.uses })).collect();
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": moment.format("%Y-%m-%dT%H:%M:%SZ")?,
            "component": own.first().map(|one| component(one, "application")),
        },
        "components": components,
        "dependencies": dependencies,
    });
    let mut text = serde_json::to_vec_pretty(&bill)?;
    text.push(b'\n');
    Ok(text)
}

fn component(one: &Crate, kind: &str) -> Value {
    let url = one.url();
    let mut component = json!({
        "type": kind,
        "bom-ref": url,
        "name": one.name,
        "version": one.version,
        // What only the compiler runs is needed to build the program and is not in it.
        "scope": if one.place == Place::Program { "required" } else { "excluded" },
        "purl": url,
    });
    if let Some(checksum) = &one.checksum {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    if let Some(licence) = &one.licence {
        component["licenses"] = json!([{ "expression": licence }]);
    }
    if let Some(repository) = &one.repository {
        component["externalReferences"] = json!([{ "type": "vcs", "url": repository }]);
    }
    component
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{
        super::{arch::Architecture, crates::Workspace},
        *,
    };

    #[test]
    fn every_reference_of_a_bill_leads_to_a_component_of_it() {
        let workspace = Workspace::load(Architecture::of_host().expect("known")).expect("cargo answers");
        for program in ["onenet-agent", "onenet-collector"] {
            let crates = workspace.crates_of(program).expect("its crates");
            let written = bill(program, &crates, Moment(1_700_000_000)).expect("a bill");
            let bill: Value = serde_json::from_slice(&written).expect("JSON");
            assert_eq!(bill["metadata"]["component"]["name"], program);
            assert_eq!(bill["metadata"]["timestamp"], "2023-11-14T22:13:20Z");
            let components = bill["components"].as_array().expect("components");
            let mut known: BTreeSet<&str> =
                components.iter().filter_map(|one| one["bom-ref"].as_str()).collect();
            assert_eq!(known.len(), components.len(), "each once");
            let scope =
                |name: &str| components.iter().find(|one| one["name"] == name).map(|one| &one["scope"]);
            assert_eq!(scope("tokio"), Some(&json!("required")));
            assert_eq!(scope("quote"), Some(&json!("excluded")), "a macro uses it");
            assert_eq!(scope("protox"), None, "a build script uses it");
            known.extend(bill["metadata"]["component"]["bom-ref"].as_str());
            for node in bill["dependencies"].as_array().expect("dependencies") {
                for used in node["dependsOn"].as_array().expect("a list").iter().chain([&node["ref"]]) {
                    assert!(known.contains(used.as_str().expect("a reference")), "{used}");
                }
            }
        }
    }
}

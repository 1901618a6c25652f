//! The example of a plan and the program say the same of every field.

#[path = "../example/mod.rs"]
mod example;

use example::Example;

use super::*;

const PACKAGED: &str = include_str!("../../../../packaging/plan.toml");

#[test]
fn the_example_says_of_every_field_what_the_program_holds_to() {
    let load = |text: String| {
        let document = Document::new(Path::new("plan.toml"), text);
        let plan: AddressPlan = document.parse()?;
        check_plan(&plan, &document, None).map(|()| format!("{plan:?}"))
    };
    Example {
        text: PACKAGED,
        load: &|text| load(text).map_err(|error| error.to_string()),
        exceptions: &[],
        sets: &["prefix.status", "address.status", "address.role", "exemption.rule"],
        kinds: &[],
    }
    .check();
}

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

/// A program with a field of each kind.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only what is told of them is of interest")]
struct Program {
    name: Option<String>,
    #[serde(default)]
    pace: Pace,
    #[serde(default)]
    rule: Rule,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Pace {
    #[default]
    Fast,
    Slow,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rule {
    wait_seconds: u8,
    share: f64,
    ports: Vec<u16>,
}

impl Default for Rule {
    fn default() -> Self {
        Self { wait_seconds: 10, share: 0.5, ports: vec![53] }
    }
}

const SOUND: &str = r#"# What this file is.

# Not stated: none.
#name = "a"
# "fast" or "slow".
#pace = "fast"

# `ports`: those that are left out, 0 to 65535.
[rule]
# Seconds, 1 to 60.
#wait_seconds = 10
# A share, 0 to 1.
#share = 0.5
#ports = [53]
"#;

fn differences(text: &str) -> Vec<String> {
    let load = |text: String| {
        let document = Document::new(Path::new("a.toml"), text);
        let program: Program = document.parse()?;
        let rule = &program.rule;
        if !(1..=60).contains(&rule.wait_seconds) {
            return Err(document.error(&["rule", "wait_seconds"], "expected 1 to 60"));
        }
        if !(0.0..=1.0).contains(&rule.share) {
            return Err(document.error(&["rule", "share"], "expected 0 to 1"));
        }
        Ok(format!("{program:?}"))
    };
    let load = |text| load(text).map_err(|error: ConfigError| error.to_string());
    Example { text, load: &load, exceptions: &[], sets: &["pace"], kinds: &[] }.wrong()
}

#[test]
fn an_example_that_differs_from_its_program_is_told_how() {
    assert_eq!(differences(SOUND), <[String; 0]>::default());
    for (from, to, expected) in [
        ("#ports = [53]\n", "", "[rule]: ports is not in the example"),
        ("# Not stated: none.\n", "", "name has no comment"),
        ("# Not stated: none.\n", "# A name.\n", "line 4: name: it is not the default, and no"),
        ("= 10", "= 11", "line 11: rule.wait_seconds: it is not the default, and no"),
        ("Seconds, ", "", "rule.wait_seconds: the comment does not say \"econds\":"),
        (", 1 to 60", "", "line 11: rule.wait_seconds: the comment states no range such as \"1 to 64\""),
        ("1 to 60", "0 to 60", "line 11: rule.wait_seconds: 0 is refused: a.toml:"),
        ("1 to 60", "2 to 60", "line 11: rule.wait_seconds: 1 is taken, but the comment says 2 to 60"),
        ("1 to 60", "1 to 61", "line 11: rule.wait_seconds: 61 is refused: a.toml:"),
        ("1 to 60", "1 to 59", "line 11: rule.wait_seconds: 60 is taken, but the comment says 1 to 59"),
        ("0 to 1.", "0.001 to 1.", "line 13: rule.share: 0.0 is taken, but the comment says 0.001 to 1"),
        ("0 to 1.", "0 to 1.5.", "line 13: rule.share: 1.5 is refused: a.toml:"),
        ("65535", "65534", "line 14: rule.ports: 65535 is taken, but the comment says 0 to 65534"),
        ("65535", "65536", "line 14: rule.ports: 65536 is refused: a.toml:"),
        ("`ports`", "ports", "line 14: rule.ports: 2 is taken, but the comment says 0 to 1"),
        (" or \"slow\"", "", "line 6: pace: the comment lists {\"fast\"}, the program {\"fast\", \"slow\"}"),
        ("\"slow\"", "\"late\"", "line 6: pace: \"late\" is refused: a.toml:"),
    ] {
        assert_eq!(SOUND.matches(from).count(), 1, "{from}");
        let wrong = differences(&SOUND.replace(from, to));
        assert!(wrong.iter().any(|wrong| wrong.starts_with(expected)), "{to}: {wrong:#?}, not {expected}");
    }
}

//! Manual pages: one for the program, and one for each command that is shown.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use clap::Command;
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};

/// The pages of a program by file name.
pub(crate) fn pages(program: &Command) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut program = program.clone().disable_help_subcommand(true);
    program.build();
    let mut pages = BTreeMap::new();
    let name = program.get_name().to_owned();
    page(&program, &name, &name, &mut pages)?;
    Ok(pages)
}

/// Adds the page of a command, and those of the commands in it.
fn page(command: &Command, name: &str, program: &str, pages: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    let man = Man::new(command.clone())
        .title(name.to_owned())
        .section("1")
        .source(format!("{program} {}", env!("CARGO_PKG_VERSION")))
        .manual("One Network edge sensor");
    let mut text = Vec::new();
    man.render(&mut text).with_context(|| format!("the page of {name}"))?;
    text.extend(closing(command, name, program).to_roff().into_bytes());
    pages.insert(format!("{name}.1"), text);
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        page(inner, &format!("{name}-{}", inner.get_name()), program, pages)?;
    }
    Ok(())
}

/// What the definitions do not say: exit codes, files, and where to read on.
fn closing(command: &Command, name: &str, program: &str) -> Roff {
    let kind = program.trim_start_matches("onenet-");
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in [
        ("0", "Done."),
        ("1", "Something failed, or a check that was asked for does not hold."),
        ("2", "The command line or a configuration is wrong; the message says where."),
    ] {
        roff.control("TP", []);
        roff.text([roman(code)]);
        roff.text([roman(meaning)]);
    }
    roff.control("SH", ["FILES"]);
    for (path, what) in [
        (format!("/etc/onenet/{kind}.toml"), "The configuration; its comments state every setting."),
        (format!("/var/lib/onenet/{kind}"), "Keys and data."),
        (format!("/usr/share/doc/{program}"), "Licences and the list of changes."),
    ] {
        roff.control("TP", []);
        roff.text([roman(path)]);
        roff.text([roman(what)]);
    }
    if name != program {
        let above = name.strip_suffix(&format!("-{}", command.get_name())).unwrap_or(program);
        roff.control("SH", ["SEE ALSO"]);
        roff.text([roman(format!("{above}(1)"))]);
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_that_says_what_it_does() {
        for program in crate::programs() {
            let pages = pages(&program).expect("pages");
            assert!(pages.len() > program.get_subcommands().count());
            for (file, text) in &pages {
                let text = String::from_utf8(text.clone()).expect("UTF-8");
                let name = file.trim_end_matches(".1").replace('-', "\\-");
                let line = text
                    .lines()
                    .find(|line| line.starts_with(&format!("{name} \\- ")))
                    .unwrap_or_else(|| panic!("{file}: no NAME:\n{text}"));
                assert!(line.len() > name.len() + 10, "{file}: {line}");
                for section in ["SYNOPSIS", "OPTIONS", "EXIT STATUS", "FILES"] {
                    assert!(
                        text.contains(&format!(".SH \"{section}\""))
                            || text.contains(&format!(".SH {section}")),
                        "{file}: no {section}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_page_does_not_depend_on_when_it_is_written() {
        for program in crate::programs() {
            assert_eq!(pages(&program).expect("pages"), pages(&program).expect("pages"));
        }
    }
}

//! Completions for bash, zsh and fish, under the names by which these shells look for them.

use std::collections::BTreeMap;

use clap::Command;
use clap_complete::{Shell, generate};

/// The scripts of a program by file name.
pub(crate) fn scripts(program: &Command) -> BTreeMap<String, Vec<u8>> {
    let name = program.get_name();
    [
        (Shell::Bash, format!("{name}.bash")),
        (Shell::Zsh, format!("_{name}")),
        (Shell::Fish, format!("{name}.fish")),
    ]
    .into_iter()
    .map(|(shell, file)| {
        let mut text = Vec::new();
        generate(shell, &mut program.clone(), name, &mut text);
        (file, text)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_knows_every_command() {
        for program in crate::programs() {
            for (file, text) in scripts(&program) {
                let text = String::from_utf8(text).expect("UTF-8");
                for command in program.get_subcommands() {
                    assert!(text.contains(command.get_name()), "{file}: {}", command.get_name());
                }
            }
        }
    }
}

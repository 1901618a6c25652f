//! Reading a TOML configuration so that whoever wrote it is told the file, the line, the key and what was
//! expected there. Agent and collector both read their files by it.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

/// A configuration that cannot be used, as one line: `agent.toml:12: spool.max_bytes: what is wrong`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1, where one can be named.
    pub line: Option<usize>,
    /// Key with its table, such as `spool.max_bytes`, where one can be named.
    pub key: Option<String>,
    /// What is wrong and what was expected.
    pub problem: String,
}

impl ConfigError {
    /// An error of the file as a whole, such as one that cannot be read.
    pub fn of_file(file: &Path, problem: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: None, key: None, problem: problem.into() }
    }

    /// An error of the value of `key` (dotted, such as `server.listen`) that the grammar cannot see: out of its
    /// range, or in contradiction to another. The line is looked up in `text`.
    pub fn of_key(file: &Path, text: &str, key: &str, problem: impl Into<String>) -> Self {
        let line = places(text).find(|(_, place)| place.dotted() == key).map(|(line, _)| line);
        Self { file: file.to_owned(), line, key: Some(key.to_owned()), problem: problem.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ": {key}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for ConfigError {}

/// Reads and parses a file. Gives the text too, for errors that are found later.
pub fn read<T: DeserializeOwned>(file: &Path) -> Result<(T, String), ConfigError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| ConfigError::of_file(file, format!("cannot be read: {error}")))?;
    Ok((parse(file, &text)?, text))
}

/// Parses the text of a file.
pub fn parse<T: DeserializeOwned>(file: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| describe(file, text, &error))
}

/// The error of the TOML reader as one line for people.
fn describe(file: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let problem = error.message().lines().collect::<Vec<_>>().join(", ");
    // What is missing from the file as a whole has an empty span at its start.
    let Some(span) = error.span().filter(|span| span.end > 0) else {
        return ConfigError { file: file.to_owned(), line: None, key: None, problem };
    };
    let before = text.get(..span.start).unwrap_or(text);
    let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
    let place = places(text).take_while(|&(at, _)| at <= line).last().map(|(_, place)| place.dotted());
    // A missing key is reported at the start of its table, where the text names no key of it.
    let key = place.filter(|key| !key.is_empty());
    ConfigError { file: file.to_owned(), line: Some(line), key, problem }
}

/// A table header or a key of the text.
#[derive(Default)]
struct Place {
    table: String,
    key: String,
}

impl Place {
    fn dotted(&self) -> String {
        match (self.table.as_str(), self.key.as_str()) {
            (table, "") => table.to_owned(),
            ("", key) => key.to_owned(),
            (table, key) => format!("{table}.{key}"),
        }
    }
}

/// The table headers and keys of the text with their lines. A line inside a value of several lines may look
/// like one; that costs no more than the name of a key in a message.
fn places(text: &str) -> impl Iterator<Item = (usize, Place)> + '_ {
    let mut table = String::new();
    text.lines().enumerate().filter_map(move |(index, line)| {
        let line = line.trim();
        if line.starts_with('[') {
            let name = line.split('#').next().unwrap_or_default().trim();
            table = name.trim_matches(['[', ']', ' ']).to_owned();
            return Some((index + 1, Place { table: table.clone(), key: String::new() }));
        }
        let key = line.split_once('=').map(|(key, _)| key.trim())?;
        let is_key = !key.is_empty()
            && key
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '"' | '\'' | ' '));
        is_key.then(|| (index + 1, Place { table: table.clone(), key: key.to_owned() }))
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read by the parser")]
    struct Example {
        name: String,
        #[serde(default)]
        spool: Spool,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read by the parser")]
    struct Spool {
        max_bytes: u64,
    }

    fn error(text: &str) -> String {
        parse::<Example>(Path::new("agent.toml"), text).expect_err("the text is wrong").to_string()
    }

    #[test]
    fn a_wrong_value_names_file_line_and_key() {
        assert_eq!(
            error("name = 'a'\n\n[spool]\n# size\nmax_bytes = 'big'\n"),
            "agent.toml:5: spool.max_bytes: invalid type: string \"big\", expected u64"
        );
    }

    #[test]
    fn an_unknown_key_names_what_may_stand_there() {
        assert_eq!(
            error("name = 'a'\n[spool]\nmax_byte = 1\n"),
            "agent.toml:3: spool.max_byte: unknown field `max_byte`, expected `max_bytes`"
        );
    }

    #[test]
    fn a_missing_key_names_its_table() {
        assert_eq!(error("name = 'a'\n[spool]\n"), "agent.toml:2: spool: missing field `max_bytes`");
        assert_eq!(error("[spool]\nmax_bytes = 1\n"), "agent.toml: missing field `name`");
    }

    #[test]
    fn a_text_that_is_no_toml_names_the_line() {
        let message = error("name = 'a'\nspool\n");
        assert!(message.starts_with("agent.toml:2: "), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }

    #[test]
    fn a_value_out_of_range_is_found_again_by_its_key() {
        let text = "name = 'a'\n[spool]\nmax_bytes = 1\n";
        let error =
            ConfigError::of_key(Path::new("a.toml"), text, "spool.max_bytes", "1, expected at least 65536");
        assert_eq!(error.to_string(), "a.toml:3: spool.max_bytes: 1, expected at least 65536");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = read::<Example>(Path::new("/nonexistent/agent.toml")).expect_err("there is no such file");
        assert!(error.to_string().starts_with("/nonexistent/agent.toml: cannot be read: "), "{error}");
    }
}

//! A file in TOML with the place of every key, so that an error can name file, line, column and key.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// What is wrong with a configuration file, and where, as one line: `plan.toml:5:9: segment[0].vlan: what is
/// wrong`. Exit code 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// Line and column, from 1, where the place is known.
    pub place: Option<(usize, usize)>,
    /// The key, such as `source[0].path`.
    pub key: Option<String>,
    /// What is wrong and what is expected.
    pub message: String,
}

impl ConfigError {
    /// An error of the file as a whole, such as one that cannot be read.
    pub fn of_file(path: &Path, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), place: None, key: None, message: message.into() }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ": {key}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// The text of a configuration file.
#[derive(Clone, Debug)]
pub struct Document {
    path: PathBuf,
    text: String,
}

impl Document {
    /// Reads the file.
    pub fn open(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let message = match error.kind() {
                std::io::ErrorKind::NotFound => "no such file; expected a file in TOML".to_owned(),
                std::io::ErrorKind::InvalidData => "not text in UTF-8; expected TOML".to_owned(),
                _ => format!("cannot be read: {error}"),
            };
            ConfigError::of_file(path, message)
        })?;
        Ok(Self::new(path, text))
    }

    /// A document of this text.
    pub fn new(path: &Path, text: String) -> Self {
        Self { path: path.to_owned(), text }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the text as `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        toml::from_str(&self.text).map_err(|error| {
            // What is missing from the file as a whole has an empty span at its start. It is no place: whatever
            // stands there has nothing to do with it.
            let whole = |span: &Range<usize>| span.end == 0 && DeTable::parse(&self.text).is_ok();
            let span = error.span().filter(|span| !whole(span));
            let key = span.as_ref().and_then(|span| self.key_at(span.start));
            self.error_at(span, key, plainly(error.message()))
        })
    }

    /// An error about the value of this key, such as `["source", "0", "path"]`. Where the key is not in the
    /// file the place is that of the nearest table around it.
    pub fn error(&self, key: &[&str], message: impl Into<String>) -> ConfigError {
        let span = DeTable::parse(&self.text).ok().and_then(|table| span_of(&table, key));
        self.error_at(span, Some(written(key)), message.into())
    }

    /// Lines, from 1, of the entries of a list of the file, such as each `[[prefix]]`, in their order; empty where
    /// the file has no such list.
    pub fn lines_of_entries(&self, list: &str) -> Vec<usize> {
        let Ok(table) = DeTable::parse(&self.text) else { return Vec::new() };
        let entries = table.get_ref().get(list).and_then(|value| value.get_ref().as_array());
        let ends: Vec<usize> = self.text.match_indices('\n').map(|(at, _)| at).collect();
        let line = |offset: usize| ends.partition_point(|&end| end < offset) + 1;
        entries
            .map_or_else(Vec::new, |entries| entries.iter().map(|entry| line(entry.span().start)).collect())
    }

    fn error_at(&self, span: Option<Range<usize>>, key: Option<String>, message: String) -> ConfigError {
        ConfigError { path: self.path.clone(), place: span.map(|span| self.place(span.start)), key, message }
    }

    fn place(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (
            before.bytes().filter(|&b| b == b'\n').count() + 1,
            before.get(line_start..).unwrap_or("").chars().count() + 1,
        )
    }

    /// The key whose name or value holds this offset.
    fn key_at(&self, offset: usize) -> Option<String> {
        let table = DeTable::parse(&self.text).ok()?;
        let mut path = Vec::new();
        deepest(table.get_ref(), offset, &mut path);
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        (!path.is_empty()).then(|| written(&path))
    }
}

/// `["source", "0", "path"]` as `source[0].path`.
fn written(key: &[&str]) -> String {
    let mut text = String::new();
    for part in key {
        if part.bytes().all(|b| b.is_ascii_digit()) {
            text.push_str(&format!("[{part}]"));
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(part);
        }
    }
    text
}

fn span_of(root: &Spanned<DeTable<'_>>, key: &[&str]) -> Option<Range<usize>> {
    let (first, rest) = key.split_first()?;
    let mut value = root.get_ref().iter().find(|(name, _)| name.get_ref() == first)?.1;
    for part in rest {
        let next = match value.get_ref() {
            DeValue::Table(table) => {
                table.iter().find(|(name, _)| name.get_ref() == part).map(|(_, value)| value)
            }
            DeValue::Array(array) => part.parse().ok().and_then(|index: usize| array.get(index)),
            _ => None,
        };
        match next {
            Some(next) => value = next,
            None => break,
        }
    }
    Some(value.span())
}

fn deepest(table: &DeTable<'_>, offset: usize, path: &mut Vec<String>) {
    let holds = |span: Range<usize>| span.start <= offset && offset < span.end.max(span.start + 1);
    // A table's own span covers only its header; its keys may stand far behind it.
    for (name, value) in table {
        let before = path.len();
        path.push(name.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(inner) => {
                deepest(inner, offset, path);
            }
            DeValue::Array(array) => {
                for (index, item) in array.iter().enumerate() {
                    let at_item = path.len();
                    path.push(index.to_string());
                    if let DeValue::Table(inner) = item.get_ref() {
                        deepest(inner, offset, path);
                    }
                    if path.len() > at_item + 1 || holds(item.span()) {
                        return;
                    }
                    path.truncate(at_item);
                }
            }
            _ => {}
        }
        if path.len() > before + 1 || holds(name.span()) || holds(value.span()) {
            return;
        }
        path.truncate(before);
    }
}

/// A message of the TOML reader in words for people, on one line.
fn plainly(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let kinds = [
        ("expected u8", "expected a whole number from 0 to 255"),
        ("expected u16", "expected a whole number from 0 to 65535"),
        ("expected u32", "expected a whole number from 0 to 4294967295"),
        ("expected u64", "expected a whole number from 0"),
        ("expected usize", "expected a whole number from 0"),
        ("expected f64", "expected a number"),
        ("expected a borrowed string", "expected a text in quotes"),
        ("expected a string", "expected a text in quotes"),
        ("expected a boolean", "expected true or false"),
    ];
    for (kind, plain) in kinds {
        if let Some(start) = line.strip_suffix(kind) {
            return format!("{start}{plain}");
        }
    }
    line
}

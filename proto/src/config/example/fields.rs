//! Reads an example: its fields, each with the comment that belongs to it.

use std::{collections::BTreeMap, fmt::Write as _};

use toml::{Table, Value};

/// A field of the example.
#[derive(Clone, Debug)]
pub(super) struct Field {
    /// Tables and key, such as `["source", "0", "kind"]`.
    pub(super) path: Vec<String>,
    pub(super) value: Value,
    pub(super) is_commented_out: bool,
    pub(super) comment: String,
    pub(super) line: usize,
}

impl Field {
    /// The path without the places in lists: what the field is called in the program.
    pub(super) fn name(&self) -> String {
        let parts = self.path.iter().filter(|part| !is_index(part));
        parts.map(String::as_str).collect::<Vec<_>>().join(".")
    }

    /// The path as errors write it.
    pub(super) fn key(&self) -> String {
        let mut key = String::new();
        for part in &self.path {
            match (is_index(part), key.is_empty()) {
                (true, _) => write!(key, "[{part}]").expect("a string"),
                (false, true) => key.push_str(part),
                (false, false) => write!(key, ".{part}").expect("a string"),
            }
        }
        key
    }
}

pub(super) fn is_index(part: &str) -> bool {
    part.bytes().all(|b| b.is_ascii_digit())
}

/// The text with every field that is commented out put in.
pub(crate) fn uncommented(text: &str) -> String {
    text.lines().flat_map(|line| [setting_of(line).unwrap_or(line), "\n"]).collect()
}

/// A line that is commented out, without what comments it out.
fn setting_of(line: &str) -> Option<&str> {
    line.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with(' '))
}

/// The fields of an example, in order.
pub(super) fn fields(text: &str) -> Vec<Field> {
    let mut reader = Reader::default();
    for (number, line) in text.lines().enumerate() {
        reader.read(number + 1, line);
    }
    reader.fields
}

#[derive(Default)]
struct Reader {
    fields: Vec<Field>,
    table: Vec<String>,
    entries: BTreeMap<String, usize>,
    /// The comment above, and whether a field or header stands between.
    comment: String,
    is_done: bool,
    /// Comments `field: …`, by the sections they stand before and the field.
    of_all: Vec<(String, String, String)>,
}

impl Reader {
    fn read(&mut self, line: usize, text: &str) {
        let (text, is_commented_out) = match setting_of(text) {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        if text.is_empty() {
            self.comment.clear();
        } else if let Some(comment) = text.strip_prefix('#') {
            if std::mem::take(&mut self.is_done) {
                self.comment.clear();
            }
            self.comment.push_str(comment);
        } else if text.starts_with('[') {
            self.begin(text.trim_matches(|c| c == '[' || c == ']'), text.starts_with("[["));
        } else {
            self.take(line, text, is_commented_out);
        }
    }

    fn begin(&mut self, name: &str, is_list: bool) {
        self.table = name.split('.').map(str::to_owned).collect();
        if is_list {
            let index = self.entries.entry(name.to_owned()).and_modify(|index| *index += 1).or_insert(0);
            self.table.push(index.to_string());
        }
        let family = name.split('.').next().unwrap_or(name);
        for sentence in self.comment.split(" `").skip(1) {
            if let Some((field, text)) = sentence.split_once("`: ") {
                self.of_all.push((family.to_owned(), field.to_owned(), text.to_owned()));
            }
        }
        self.is_done = true;
        self.comment.clear();
    }

    fn take(&mut self, line: usize, text: &str, is_commented_out: bool) {
        let (key, value) = text.split_once('=').expect("a field");
        let parsed: Table = format!("value ={value}").parse().expect("a value on one line");
        let parts = key.trim().split('.').map(str::to_owned);
        let path: Vec<String> = self.table.iter().cloned().chain(parts).collect();
        let family = self.table.first().cloned().unwrap_or_default();
        let of_all = self.of_all.iter().find(|(of, field, _)| *of == family && field == key.trim());
        // A comment right above is the field's own; else that of all sections goes before that of its neighbours.
        let comment = match of_all {
            Some((.., text)) if self.is_done || self.comment.is_empty() => text.clone(),
            _ => self.comment.clone(),
        };
        self.fields.push(Field { path, value: parsed["value"].clone(), is_commented_out, comment, line });
        self.is_done = true;
    }
}

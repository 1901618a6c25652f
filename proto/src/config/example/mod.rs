//! Holds an example configuration to the program that reads it, for tests: the example names every field and no
//! other, shows each default, and states ranges and values that the program keeps to. Tests of the programs compile
//! this file as a module of theirs.
//!
//! In an example `#field = value`, without a space behind the `#`, is a field that is commented out, and `# text` is
//! a comment. A comment belongs to the fields that follow it up to the next comment or empty line. A line that begins
//! with a field's name in backquotes and a colon, in front of a section, is of that field in all sections that begin
//! alike, where it has no comment right above it. A number's range reads `1 to 64`; the values of a text that has few
//! are written in quotes.

mod fields;

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use fields::uncommented;
use fields::{Field, fields, is_index};
use toml::{Table, Value};

/// An edge that other fields bound too: the field, such as `detect.beacon.samples`; the edge as the comment states it;
/// what is set in its place where the others never let it be, and else the same; fields of the same table that are set
/// beside it.
pub(crate) type Exception =
    (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);

/// An example, and the program that it is held to.
pub(crate) struct Example<'a> {
    /// The file.
    pub(crate) text: &'a str,
    /// Reads a configuration: gives all of it as text, or the error as text.
    pub(crate) load: &'a dyn Fn(String) -> Result<String, String>,
    /// Edges that other fields bound too.
    pub(crate) exceptions: &'a [Exception],
    /// Texts that have few values.
    pub(crate) sets: &'a [&'a str],
    /// Those of them that decide which other fields there may be: a value is taken if the error is about another.
    pub(crate) kinds: &'a [&'a str],
}

impl Example<'_> {
    /// Fails where example and program differ.
    pub(crate) fn check(&self) {
        let wrong = self.wrong();
        assert!(wrong.is_empty(), "the example and the program differ:\n{}", wrong.join("\n"));
    }

    /// Everything in which they differ.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let fields = fields(self.text);
        let whole: Table = uncommented(self.text).parse().expect("TOML with everything uncommented");
        if let Err(error) = self.told(&whole) {
            panic!("with everything uncommented: {error}");
        }
        self.check_names(&fields, &whole, &mut wrong);
        let mut comments: BTreeMap<String, String> = BTreeMap::new();
        for field in &fields {
            comments.entry(field.name()).or_default().push_str(&field.comment);
        }
        Self::check_comments(&comments, &mut wrong);
        for field in &fields {
            let before = wrong.len();
            self.check_default(field, &whole, &mut wrong);
            match kind_of(&field.value) {
                Kind::Number => self.check_range(field, &comments[&field.name()], &whole, &mut wrong),
                Kind::Text => self.check_values(field, &comments[&field.name()], &whole, &mut wrong),
                Kind::Other => {}
            }
            for message in wrong.iter_mut().skip(before) {
                *message = format!("line {}: {}: {message}", field.line, field.key());
            }
        }
        wrong
    }

    fn told(&self, table: &Table) -> Result<String, String> {
        (self.load)(toml::to_string(table).expect("TOML"))
    }

    /// Every field of every table is there. The program lists its fields when it refuses one that it does not know.
    fn check_names(&self, fields: &[Field], whole: &Table, wrong: &mut Vec<String>) {
        let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::from([(String::new(), Vec::new())]);
        for field in fields {
            for (depth, part) in field.path.iter().enumerate().filter(|(_, part)| !is_index(part)) {
                let table: Vec<String> = field.path.iter().take(depth).cloned().collect();
                let name = table.iter().filter(|part| !is_index(part)).cloned().collect::<Vec<_>>().join(".");
                shown.entry(name.clone()).or_default().insert(part.clone());
                tables.entry(name).or_insert(table);
            }
        }
        for (name, path) in tables {
            let mut asked = whole.clone();
            set(&mut asked, &path, "no_such_field", Value::Integer(1));
            let error = self.told(&asked).expect_err("no program has this field");
            assert!(error.contains("unknown field `no_such_field`"), "{error}");
            let known: BTreeSet<String> = expected(&error).into_iter().collect();
            let shown = shown.remove(&name).unwrap_or_default();
            for missing in known.difference(&shown) {
                wrong.push(format!("[{name}]: {missing} is not in the example"));
            }
            for unknown in shown.difference(&known) {
                wrong.push(format!("[{name}]: {unknown} is no field of the program"));
            }
        }
    }

    /// Each field has a comment at one place at least, which states the unit that its name ends in.
    fn check_comments(comments: &BTreeMap<String, String>, wrong: &mut Vec<String>) {
        for (name, comment) in comments {
            if comment.is_empty() {
                wrong.push(format!("{name} has no comment"));
            }
            let units = [
                ("_seconds", "econds"),
                ("_ms", "illiseconds"),
                ("_hours", "ours"),
                ("_days", "ays"),
                ("_mib", "MiB"),
                ("_kib", "KiB"),
                ("bytes", "ytes"),
                ("_length", "ytes"),
            ];
            for (ending, unit) in units {
                if name.ends_with(ending) && !comment.contains(unit) {
                    wrong.push(format!("{name}: the comment does not say {unit:?}: {comment}"));
                }
            }
        }
    }

    /// What is commented out is the default, or the comment says what happens where it is not stated.
    fn check_default(&self, field: &Field, whole: &Table, wrong: &mut Vec<String>) {
        if !field.is_commented_out || field.comment.contains("Not stated") {
            return;
        }
        let (key, table) = field.path.split_last().expect("a key");
        let mut without = whole.clone();
        table_at(&mut without, table).remove(key);
        match (self.told(whole), self.told(&without)) {
            (Ok(with), Ok(without)) if with == without => {}
            (Ok(_), Ok(_)) => {
                wrong.push("it is not the default, and no \"Not stated\" tells what is".into());
            }
            // It must be stated where its table is.
            (Ok(_), Err(error)) if error.contains("missing") => {}
            (_, Err(error)) | (Err(error), _) => wrong.push(format!("without it: {error}")),
        }
    }

    /// Lowest and highest are taken; what is just beyond is refused, with the name of the field.
    fn check_range(&self, field: &Field, of_all: &str, whole: &Table, wrong: &mut Vec<String>) {
        // Entries of a list behind the first need not say it again.
        let comment = if field.comment.is_empty() { of_all } else { &field.comment };
        let Some((low, high)) = range(comment) else {
            wrong.push(format!("the comment states no range such as \"1 to 64\": {comment}"));
            return;
        };
        let has_fractions = field.value.is_float();
        for (edge, beyond) in [(&low, -1), (&high, 1)] {
            let excepted = |exception: &&Exception| exception.0 == field.name() && exception.1 == edge;
            let (taken, beside) = match self.exceptions.iter().find(excepted) {
                Some((.., taken, beside)) => (*taken, *beside),
                None => (edge.as_str(), &[][..]),
            };
            let mut at_edge = whole.clone();
            for (key, value) in beside {
                let (_, table) = field.path.split_last().expect("a key");
                set(&mut at_edge, table, key, number(value, 0, value.contains('.')));
            }
            let mut set_to = |value: Value| {
                let (key, table) = field.path.split_last().expect("a key");
                let value = if field.value.is_array() { Value::Array(vec![value]) } else { value };
                set(&mut at_edge, table, key, value);
                self.told(&at_edge)
            };
            if let Err(error) = set_to(number(taken, 0, has_fractions)) {
                wrong.push(format!("{taken} is refused: {error}"));
            }
            let refused = number(edge, beyond, has_fractions);
            match set_to(refused.clone()) {
                Ok(_) => wrong.push(format!("{refused} is taken, but the comment says {low} to {high}")),
                Err(error) if !is_about(&error, field) => wrong.push(format!("{refused}: {error}")),
                Err(_) => {}
            }
        }
    }

    /// The values that the comment lists are those that the program lists when it refuses another, and are taken.
    fn check_values(&self, field: &Field, comment: &str, whole: &Table, wrong: &mut Vec<String>) {
        let (key, table) = field.path.split_last().expect("a key");
        let told = |value: &str| {
            let mut changed = whole.clone();
            set(&mut changed, table, key, Value::String(value.to_owned()));
            self.told(&changed)
        };
        let name = field.name();
        // Only a text that has few values is refused with a list of them.
        let refused = told("no-such-value").err().filter(|error| is_about(error, field));
        let Some(error) = refused.filter(|error| error.contains("unknown")) else {
            if self.sets.contains(&name.as_str()) {
                wrong.push("any value is taken".into());
            }
            return;
        };
        if !self.sets.contains(&name.as_str()) {
            wrong.push("it has few values, which the test does not know".into());
        }
        let known: BTreeSet<String> = expected(&error).into_iter().collect();
        let listed: BTreeSet<String> = comment.split('"').skip(1).step_by(2).map(str::to_owned).collect();
        if known != listed {
            wrong.push(format!("the comment lists {listed:?}, the program {known:?}"));
        }
        for value in listed {
            match told(&value) {
                Err(error) if is_about(&error, field) || !self.kinds.contains(&name.as_str()) => {
                    wrong.push(format!("{value:?} is refused: {error}"));
                }
                _ => {}
            }
        }
    }
}

enum Kind {
    Number,
    Text,
    Other,
}

fn kind_of(value: &Value) -> Kind {
    match value {
        Value::Integer(_) | Value::Float(_) => Kind::Number,
        Value::Array(values) if values.first().is_some_and(Value::is_integer) => Kind::Number,
        Value::String(_) => Kind::Text,
        _ => Kind::Other,
    }
}

/// Whether the error names the field, as `file:line:column: key: …` or `file: key: …`, or the first of its list.
fn is_about(error: &str, field: &Field) -> bool {
    let key = field.key();
    error.contains(&format!(": {key}: ")) || error.contains(&format!(": {key}[0]: "))
}

/// What an error lists behind "expected": `a`, `b` or `c`.
fn expected(error: &str) -> Vec<String> {
    let list = error.rsplit_once("expected ").map_or("", |(_, list)| list);
    let list = list.strip_prefix("one of ").unwrap_or(list).replace(" or ", ", ");
    list.split(", ").map(|name| name.trim_matches('`').to_owned()).collect()
}

/// The first range of a comment.
fn range(comment: &str) -> Option<(String, String)> {
    let words: Vec<&str> = comment.split_whitespace().collect();
    let number = |word: &str| {
        let word = word.trim_matches(|c: char| !c.is_ascii_digit());
        word.parse::<f64>().is_ok().then(|| word.to_owned())
    };
    words.windows(3).find_map(|words| match words {
        [low, "to", high] => Some((number(low)?, number(high)?)),
        _ => None,
    })
}

/// A number, and so many steps beyond it: of one, or where the field has fractions of the last place, a thousandth at
/// most.
fn number(text: &str, steps: i64, has_fractions: bool) -> Value {
    if let Some(whole) = text.parse::<i64>().ok().filter(|_| !has_fractions) {
        return Value::Integer(whole + steps);
    }
    let places = text.rsplit_once('.').map_or(0, |(_, places)| places.len()).max(3);
    let step = 10_f64.powi(-i32::try_from(places).expect("a few places"));
    Value::Float(text.parse::<f64>().expect("a number") + step * steps as f64)
}

/// Sets a key of a table.
fn set(root: &mut Table, table: &[String], key: &str, value: Value) {
    table_at(root, table).insert(key.to_owned(), value);
}

/// The table with this path, which is there.
fn table_at<'a>(root: &'a mut Table, path: &[String]) -> &'a mut Table {
    let mut at = root;
    let mut parts = path.iter().peekable();
    while let Some(part) = parts.next() {
        let mut next = at.get_mut(part).expect("a table that is there");
        if let Value::Array(list) = next {
            let index: usize = parts.next().and_then(|part| part.parse().ok()).expect("a place in a list");
            next = &mut list[index];
        }
        at = next.as_table_mut().expect("a table");
    }
    at
}

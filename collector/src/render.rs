//! Rows as a table for people, as JSON and as CSV. What comes from the wire (host names, summaries) is made
//! harmless for the place where it is shown: control characters for terminals, formulas for spreadsheets.

use serde::Serialize;

use crate::cli::{CliError, Format};

/// One column of a table and of CSV.
pub(crate) struct Column<T> {
    /// Heading, lower case with underscores, the same in table and CSV.
    pub(crate) name: &'static str,
    /// Whether it holds numbers, which are aligned to the right.
    pub(crate) number: bool,
    /// The cell of a row; empty where there is nothing.
    pub(crate) cell: fn(&T) -> String,
}

impl<T> Column<T> {
    /// A column of text.
    pub(crate) const fn text(name: &'static str, cell: fn(&T) -> String) -> Self {
        Self { name, number: false, cell }
    }

    /// A column of numbers.
    pub(crate) const fn number(name: &'static str, cell: fn(&T) -> String) -> Self {
        Self { name, number: true, cell }
    }
}

/// Writes rows in the format asked for. JSON carries the rows whole, table and CSV their columns.
pub(crate) fn render<T: Serialize>(
    format: Format,
    columns: &[Column<T>],
    rows: &[T],
) -> Result<String, CliError> {
    match format {
        Format::Table => Ok(table(columns, rows)),
        Format::Csv => csv(columns, rows).map_err(CliError::failure),
        Format::Json => {
            let mut text = serde_json::to_string_pretty(rows).map_err(CliError::failure)?;
            text.push('\n');
            Ok(text)
        }
    }
}

/// Columns aligned with two spaces between them; the last is not padded.
fn table<T>(columns: &[Column<T>], rows: &[T]) -> String {
    let heading: Vec<String> = columns.iter().map(|column| column.name.to_ascii_uppercase()).collect();
    let cells = rows.iter().map(|row| columns.iter().map(|c| for_terminal(&(c.cell)(row))).collect());
    let lines: Vec<Vec<String>> = std::iter::once(heading).chain(cells).collect();
    let width = |index: usize| lines.iter().map(|line| line[index].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut out = String::new();
    for line in &lines {
        let mut text = String::new();
        for ((cell, column), &width) in line.iter().zip(columns).zip(&widths) {
            if !text.is_empty() {
                text.push_str("  ");
            }
            if column.number {
                text.push_str(&format!("{cell:>width$}"));
            } else {
                text.push_str(&format!("{cell:<width$}"));
            }
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

fn csv<T>(columns: &[Column<T>], rows: &[T]) -> Result<String, anyhow::Error> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    writer.write_record(columns.iter().map(|column| column.name))?;
    for row in rows {
        writer.write_record(columns.iter().map(|column| {
            let cell = (column.cell)(row);
            if column.number { cell } else { for_spreadsheet(cell) }
        }))?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

/// A cell without what could move a terminal's cursor or colour its text; `-` where it is empty.
pub(crate) fn for_terminal(cell: &str) -> String {
    if cell.is_empty() {
        return "-".to_owned();
    }
    cell.chars().map(|c| if c.is_control() || is_bidi_control(c) { '\u{fffd}' } else { c }).collect()
}

/// Characters that reorder the text around them.
const fn is_bidi_control(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A cell that a spreadsheet would take as a formula begins with an apostrophe.
fn for_spreadsheet(cell: String) -> String {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{cell}") } else { cell }
}

/// Names with a comma and a space between them.
pub(crate) fn list<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let mut out = String::new();
    for name in names {
        if !out.is_empty() {
            out.push_str(", ");
        }
        out.push_str(name.as_ref());
    }
    out
}

/// An optional value as a cell.
pub(crate) fn optional<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// A moment to the second, as tables show it: `2026-11-21 08:00:00`.
pub(crate) fn moment(time: onenet_core::time::Timestamp) -> String {
    let text = time.to_string();
    text.get(..19).map_or(text.clone(), |seconds| seconds.replacen('T', " ", 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Row {
        name: &'static str,
        packets: u64,
    }

    const COLUMNS: [Column<Row>; 2] = [
        Column::text("name", |row: &Row| row.name.to_owned()),
        Column::number("packets", |row: &Row| row.packets.to_string()),
    ];

    fn rendered(format: Format, name: &'static str) -> String {
        render(format, &COLUMNS, &[Row { name, packets: 7 }, Row { name: "b", packets: 1234 }])
            .expect("it renders")
    }

    #[test]
    fn a_table_is_aligned_numbers_to_the_right() {
        assert_eq!(rendered(Format::Table, "boston"), "NAME    PACKETS\nboston        7\nb          1234\n");
    }

    #[test]
    fn json_is_an_array_of_whole_rows_and_empty_is_an_array_too() {
        let parsed: serde_json::Value = serde_json::from_str(&rendered(Format::Json, "a")).expect("JSON");
        assert_eq!(parsed, serde_json::json!([{"name": "a", "packets": 7}, {"name": "b", "packets": 1234}]));
        assert_eq!(render::<Row>(Format::Json, &COLUMNS, &[]).expect("it renders"), "[]\n");
    }

    #[test]
    fn csv_quotes_and_starts_no_formula() {
        assert_eq!(
            rendered(Format::Csv, "=1+\"a\",b"),
            "name,packets\r\n\"'=1+\"\"a\"\",b\",7\r\nb,1234\r\n"
        );
    }

    #[test]
    fn a_name_from_the_wire_cannot_move_the_cursor() {
        assert!(rendered(Format::Table, "\u{1b}[2Jx\n\u{202e}y").contains("\u{fffd}[2Jx\u{fffd}\u{fffd}y"));
    }
}

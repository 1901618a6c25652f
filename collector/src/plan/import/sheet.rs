//! A sheet: comma-separated values as IPAM systems and spreadsheets write them (RFC 4180 and its relatives), with the place
//! of every cell, so that a row that is refused can be found again.
//!
//! Read are UTF-8 with or without a byte order mark; commas, semicolons or tabs, whichever the first line has most of
//! outside quotes; line ends of either kind; cells in double quotes; and text that a spreadsheet was told to leave alone,
//! `="10.1.2.3"` or `'10.1.2.3`.

use std::{fmt, path::Path};

/// Bytes of a sheet that is read at most: some ten million rows.
const MAX_BYTES: u64 = 2 << 30;

/// Why a row, or a sheet as a whole, is not taken; one line for people: `prefixes.csv:12: column 3 (tenant): …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reject {
    /// The file, as it was named.
    pub(crate) file: String,
    /// Line, from 1; 0 for the file as a whole.
    pub(crate) line: u64,
    /// Column, from 1, and its name; none for the row as a whole.
    pub(crate) column: Option<(usize, String)>,
    /// What is wrong and what was expected.
    pub(crate) reason: String,
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if let Some((number, name)) = &self.column {
            write!(f, ": column {number} ({name})")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// The text of a sheet.
#[derive(Clone, Debug)]
pub(crate) struct Sheet {
    file: String,
    text: String,
    delimiter: u8,
}

/// One row.
#[derive(Clone, Debug)]
pub(crate) struct Row<'a> {
    file: &'a str,
    header: &'a [String],
    /// Line it begins at, from 1.
    pub(crate) line: u64,
    cells: csv::StringRecord,
}

impl Sheet {
    /// Reads a file.
    pub(crate) fn open(path: &Path) -> Result<Self, Reject> {
        let file = path.display().to_string();
        let whole = |reason: String| Reject { file: file.clone(), line: 0, column: None, reason };
        let length =
            std::fs::metadata(path).map_err(|error| whole(format!("cannot be read: {error}")))?.len();
        if length > MAX_BYTES {
            return Err(whole(format!("{length} bytes, expected at most {MAX_BYTES}")));
        }
        let bytes = std::fs::read(path).map_err(|error| whole(format!("cannot be read: {error}")))?;
        Self::new(file, bytes)
    }

    /// A sheet of these bytes.
    pub(crate) fn new(file: String, mut bytes: Vec<u8>) -> Result<Self, Reject> {
        if bytes.starts_with(b"\xef\xbb\xbf") {
            bytes.drain(..3);
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let before = error.as_bytes().get(..at).unwrap_or_default();
            let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count() as u64;
            let reason = "not text in UTF-8; expected an export in UTF-8".to_owned();
            Reject { file: file.clone(), line, column: None, reason }
        })?;
        let delimiter = delimiter(text.lines().next().unwrap_or_default());
        Ok(Self { file, text, delimiter })
    }

    /// The file, as it was named.
    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// Something that is wrong at a line, 0 for the sheet as a whole.
    pub(crate) fn reject(&self, line: u64, reason: impl Into<String>) -> Reject {
        Reject { file: self.file.clone(), line, column: None, reason: reason.into() }
    }

    /// The records, each with the line it begins at, header lines among them; empty lines are passed over. What follows
    /// an opening quote that is never closed is no record but a [`Reject`].
    pub(crate) fn records(&self) -> impl Iterator<Item = Result<(u64, csv::StringRecord), Reject>> + '_ {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(self.delimiter)
            .from_reader(self.text.as_bytes());
        let (mut line, mut counted) = (1_u64, 0_usize);
        std::iter::from_fn(move || {
            let mut record = csv::StringRecord::new();
            match reader.read_record(&mut record) {
                Ok(false) => return None,
                Ok(true) => {}
                Err(error) => {
                    let line = error.position().map_or(0, csv::Position::line);
                    return Some(Err(self.reject(line, format!("cannot be read: {error}"))));
                }
            }
            let from =
                |at: u64| usize::try_from(at).ok().and_then(|at| self.text.get(at..)).unwrap_or_default();
            // The reader's own position is before the empty lines that it passes over.
            let raw = from(record.position().map_or(0, csv::Position::byte)).trim_start_matches(['\r', '\n']);
            let start = self.text.len() - raw.len();
            let passed = self.text.as_bytes().get(counted..start).unwrap_or_default();
            line = line.saturating_add(passed.iter().filter(|&&byte| byte == b'\n').count() as u64);
            counted = counted.max(start);
            // A quote that is never closed takes everything up to the end into its record.
            let is_last = from(reader.position().byte()).is_empty();
            if is_last && raw.bytes().filter(|&byte| byte == b'"').count() % 2 == 1 {
                return Some(Err(self.reject(line, "a quote is opened and never closed: half a file?")));
            }
            Some(Ok((line, record)))
        })
    }

    /// The rows below the header, which is the first record; the header's names in lower case.
    pub(crate) fn header(&self) -> Result<Vec<String>, Reject> {
        match self.records().next() {
            Some(first) => Ok(names(&first?.1)),
            None => Err(self.reject(0, "it is empty; expected a header line")),
        }
    }

    /// The rows below `header`, which this sheet has. A row with more or fewer cells is rejected.
    pub(crate) fn rows<'a>(
        &'a self,
        header: &'a [String],
    ) -> impl Iterator<Item = Result<Row<'a>, Reject>> + 'a {
        self.records().skip(1).map(move |record| {
            let (line, cells) = record?;
            self.row(header, line, cells)
        })
    }

    /// A record as a row under this header.
    pub(crate) fn row<'a>(
        &'a self,
        header: &'a [String],
        line: u64,
        cells: csv::StringRecord,
    ) -> Result<Row<'a>, Reject> {
        if cells.len() != header.len() {
            let (has, expected) = (cells.len(), header.len());
            let hint = if has < expected { ": half a file?" } else { "" };
            return Err(self.reject(line, format!("{has} cells, expected the header's {expected}{hint}")));
        }
        Ok(Row { file: &self.file, header, line, cells })
    }
}

/// The names of a header in lower case, without the marks that say a column is required.
pub(crate) fn names(record: &csv::StringRecord) -> Vec<String> {
    record.iter().map(|name| plain(name).trim_end_matches('*').to_ascii_lowercase()).collect()
}

impl Row<'_> {
    /// The cell of a column, trimmed; empty where there is no such column.
    pub(crate) fn cell(&self, column: &str) -> &str {
        let at = self.header.iter().position(|name| name == column);
        at.and_then(|at| self.cells.get(at)).map_or("", plain)
    }

    /// Something that is wrong with a cell.
    pub(crate) fn reject(&self, column: &str, reason: impl Into<String>) -> Reject {
        let at = self.header.iter().position(|name| name == column);
        Reject {
            file: self.file.to_owned(),
            line: self.line,
            column: at.map(|at| (at + 1, column.to_owned())),
            reason: reason.into(),
        }
    }
}

/// A cell without what a spreadsheet puts around text that is to stay text.
fn plain(cell: &str) -> &str {
    let cell = cell.trim();
    let formula = cell.strip_prefix("=\"").and_then(|rest| rest.strip_suffix('"'));
    formula.or_else(|| cell.strip_prefix('\'')).unwrap_or(cell).trim()
}

/// The delimiter that a line has most of outside quotes; a comma where it has none.
fn delimiter(line: &str) -> u8 {
    let mut counts = [(b',', 0_usize), (b';', 0), (b'\t', 0)];
    let mut quoted = false;
    for byte in line.bytes() {
        if byte == b'"' {
            quoted = !quoted;
        } else if !quoted && let Some((_, count)) = counts.iter_mut().find(|(sign, _)| *sign == byte) {
            *count += 1;
        }
    }
    // Of equals the comma stands, which comes first.
    counts.into_iter().rev().max_by_key(|(_, count)| *count).map_or(b',', |(sign, _)| sign)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sheet(text: &str) -> Sheet {
        Sheet::new("a.csv".to_owned(), text.as_bytes().to_vec()).expect("UTF-8")
    }

    fn cells(text: &str, column: &str) -> Vec<Result<String, String>> {
        let sheet = sheet(text);
        let header = sheet.header().expect("a header");
        let rows = sheet.rows(&header);
        rows.map(|row| row.map(|row| row.cell(column).to_owned()).map_err(|reject| reject.to_string()))
            .collect()
    }

    #[test]
    fn every_way_of_writing_a_sheet_reads_the_same() {
        let expected = [Ok("10.1.0.0/16".to_owned()), Ok("a \"b\", c".to_owned())];
        for text in [
            "Prefix,x\n10.1.0.0/16,1\n\"a \"\"b\"\", c\",2\n",
            "\u{feff}prefix,x\r\n10.1.0.0/16,1\r\n\"a \"\"b\"\", c\",2\r\n",
            "prefix;x\n10.1.0.0/16;1\n\"a \"\"b\"\", c\";2",
            "prefix\tx\n=\"10.1.0.0/16\"\t1\n\n\"a \"\"b\"\", c\"\t2\n",
            "\"prefix*\",x\n'10.1.0.0/16,1\n\"a \"\"b\"\", c\",2\n",
        ] {
            assert_eq!(cells(text, "prefix"), expected, "{text:?}");
        }
    }

    #[test]
    fn a_file_that_was_cut_is_told_with_its_line() {
        let short = "a.csv:3: 1 cells, expected the header's 2: half a file?";
        assert_eq!(cells("prefix,x\n1,2\n3", "x"), [Ok("2".to_owned()), Err(short.to_owned())]);
        let open = "a.csv:3: a quote is opened and never closed: half a file?";
        assert_eq!(cells("prefix,x\n1,2\n3,\"fo", "x"), [Ok("2".to_owned()), Err(open.to_owned())]);
        assert_eq!(
            sheet("").header().expect_err("empty").to_string(),
            "a.csv: it is empty; expected a header line"
        );
        let latin = Sheet::new("a.csv".to_owned(), b"prefix\n1\n\xe9".to_vec()).expect_err("Latin-1");
        assert_eq!(latin.to_string(), "a.csv:3: not text in UTF-8; expected an export in UTF-8");
    }

    #[test]
    fn lines_are_those_of_the_file_over_empty_ones_and_cells_of_several_lines() {
        let sheet = sheet("p,x\n\n1,\"a\nb\"\n\n2,c\n");
        let header = sheet.header().expect("a header");
        let lines: Vec<u64> = sheet.rows(&header).map(|row| row.expect("a row").line).collect();
        assert_eq!(lines, [3, 6]);
    }
}

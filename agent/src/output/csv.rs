//! Records as CSV (RFC 4180, with line feeds): one header line, then one line per record.

use std::io::{self, Write};

use super::{
    RecordWriter,
    columns::{Cell, Columns},
};

/// Writes records of one kind as CSV.
pub(super) struct CsvWriter<W: Write> {
    out: csv::Writer<W>,
    cell: Cell,
}

impl<W: Write> CsvWriter<W> {
    /// Writes the header.
    pub(super) fn new<R: Columns>(out: W) -> io::Result<Self> {
        let mut out = csv::WriterBuilder::new().from_writer(out);
        out.write_record(R::COLUMNS.iter().map(|column| column.name)).map_err(plain)?;
        Ok(Self { out, cell: Cell::default() })
    }
}

impl<W: Write, R: Columns> RecordWriter<R> for CsvWriter<W> {
    fn write(&mut self, record: &R) -> io::Result<()> {
        for column in R::COLUMNS {
            self.cell.text.clear();
            (column.put)(record, &mut self.cell);
            self.out.write_field(self.cell.text.as_bytes()).map_err(plain)?;
        }
        self.out.write_record(None::<&[u8]>).map_err(plain)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The error of the writer below, so that a closed pipe is still known as one.
fn plain(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

//! Records written to files: JSON lines, CSV, or a Zeek conn.log.

mod columns;
mod csv;
mod json;
#[cfg(test)]
mod tests;
mod zeek;

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::ValueEnum;
use onenet_core::record::FlowRecord;

use self::{
    columns::Columns,
    csv::CsvWriter,
    json::{JsonWriter, Line},
    zeek::ZeekWriter,
};

/// How records are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON object per line, each field as docs/records.md states it
    #[default]
    Json,
    /// Flows as a Zeek conn.log, for zeek-cut and RITA; observations and findings as JSON
    Zeek,
    /// A header and one line per record, for spreadsheets and databases
    Csv,
}

/// Writes records of one kind.
trait RecordWriter<R> {
    /// Writes one.
    fn write(&mut self, record: &R) -> io::Result<()>;
    /// Hands on what is buffered.
    fn flush(&mut self) -> io::Result<()>;
    /// Writes what stands behind the last record.
    fn finish(&mut self) -> io::Result<()> {
        self.flush()
    }
}

/// Writes one record at the end of what there is, as `--format json` does.
#[cfg(test)]
pub(crate) fn json_line<R: Line>(out: &mut Vec<u8>, record: &R) {
    let start = out.len();
    let mut writer = JsonWriter::with_writes(&mut *out, 0);
    writer.write(record).and_then(|()| RecordWriter::<R>::flush(&mut writer)).expect("written");
    let expected = serde_json::to_string(record).expect("a record is JSON");
    assert_eq!(out.get(start..), Some((expected + "\n").as_bytes()));
}

/// An output of records of one kind, and what it is called.
pub(crate) struct Output<R> {
    name: String,
    writer: Box<dyn RecordWriter<R>>,
    flush_each: bool,
}

/// Where bytes go as they come.
type Raw = Box<dyn Write>;

/// Opens a file for writing, or standard output for `-`.
pub(crate) fn create(path: &Path) -> Result<Raw, anyhow::Error> {
    if path == Path::new("-") {
        // Without the line buffer of the standard library: what is written here is gathered already.
        let stdout = io::stdout().as_fd().try_clone_to_owned().context("standard output")?;
        return Ok(Box::new(File::from(stdout)));
    }
    let file = File::create(path).with_context(|| format!("{}: cannot be created", path.display()))?;
    Ok(Box::new(file))
}

/// Gathers what is written in small pieces.
fn gathered(out: Raw) -> BufWriter<Raw> {
    BufWriter::with_capacity(64 * 1024, out)
}

impl Output<FlowRecord> {
    /// An output of flows.
    pub(crate) fn flows(path: &Path, format: Format, flush_each: bool) -> Result<Self, anyhow::Error> {
        match format {
            Format::Zeek => Self::with(path, flush_each, |out| Ok(Box::new(ZeekWriter::new(gathered(out))))),
            _ => Self::records(path, format, flush_each),
        }
    }
}

impl<R: Columns + Line> Output<R> {
    /// An output of records of any kind.
    pub(crate) fn records(path: &Path, format: Format, flush_each: bool) -> Result<Self, anyhow::Error> {
        match format {
            Format::Csv => {
                Self::with(path, flush_each, |out| Ok(Box::new(CsvWriter::new::<R>(gathered(out))?)))
            }
            Format::Json | Format::Zeek => {
                Self::with(path, flush_each, |out| Ok(Box::new(JsonWriter::new(out))))
            }
        }
    }
}

impl<R> Output<R> {
    fn with(
        path: &Path,
        flush_each: bool,
        writer: impl FnOnce(Raw) -> io::Result<Box<dyn RecordWriter<R>>>,
    ) -> Result<Self, anyhow::Error> {
        let name = if path == Path::new("-") { "standard output".into() } else { path.display().to_string() };
        let writer = writer(create(path)?).with_context(|| name.clone())?;
        Ok(Self { name, writer, flush_each })
    }

    /// Writes one record.
    pub(crate) fn write(&mut self, record: &R) -> Result<(), OutputError> {
        let flush = self.flush_each;
        let written =
            self.writer.write(record).and_then(|()| if flush { self.writer.flush() } else { Ok(()) });
        written.map_err(|error| self.failed(error))
    }

    /// Writes what stands behind the last record.
    pub(crate) fn finish(&mut self) -> Result<(), OutputError> {
        self.writer.finish().map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> OutputError {
        OutputError { name: self.name.clone(), error }
    }
}

/// Writing failed.
#[derive(Debug, thiserror::Error)]
#[error("{name}: cannot be written: {error}")]
pub(crate) struct OutputError {
    name: String,
    error: io::Error,
}

impl OutputError {
    /// Whether the reader at the other end of a pipe has gone, which is no failure.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        self.error.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Refuses an output that is one of the inputs, or another output: opening it would empty it.
pub(crate) fn check_distinct(
    inputs: &[PathBuf],
    outputs: &[(&str, &Path)],
) -> Result<(), crate::error::UsageError> {
    use std::os::unix::fs::MetadataExt;

    let identity = |path: &Path| {
        std::fs::metadata(path)
            .ok()
            .filter(std::fs::Metadata::is_file)
            .map(|about| (about.dev(), about.ino()))
    };
    for (index, (option, path)) in outputs.iter().enumerate() {
        let mine = identity(path);
        if mine.is_some() && inputs.iter().any(|input| identity(input) == mine) {
            let message = format!("{option} {}: is one of the captures to be read", path.display());
            return Err(crate::error::UsageError(message));
        }
        for (other, other_path) in outputs.iter().take(index) {
            // Devices, such as /dev/null, take any number of writers.
            let same_path = path == other_path && (mine.is_some() || !path.exists());
            if same_path || (mine.is_some() && identity(other_path) == mine) {
                let message = format!("{option} and {other} are the same: {}", path.display());
                return Err(crate::error::UsageError(message));
            }
        }
    }
    Ok(())
}

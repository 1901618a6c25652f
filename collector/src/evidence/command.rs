//! The command `verify`: whether what is stored, or a bundle, is what the sensors sealed, all of it, in its order.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{
    bundled,
    check::ChainReport,
    stored::{self, Findings, Scope},
};
use crate::{
    cli::{self, CliError, Format, Place},
    render::{self, Column},
    search::Moment,
    store::archive::Archive,
};

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A bundle made by `export --evidence`, in place of the store; nothing else is needed.
    #[arg(value_name = "BUNDLE", conflicts_with_all = ["config", "dir", "sensor", "from", "to"])]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
    /// Check the batches of this sensor alone.
    #[arg(long, value_name = "NAME")]
    sensor: Option<String>,
    /// Check what the collector received at this time (UTC) or later.
    #[arg(long, value_name = "TIME")]
    from: Option<Moment>,
    /// Check what the collector received before this time (UTC).
    #[arg(long, value_name = "TIME")]
    to: Option<Moment>,
    /// The public key that the collector must have, 64 hexadecimal digits.
    #[arg(long, value_name = "HEX", value_parser = public_key)]
    trust_key: Option<[u8; 32]>,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Reads a public key.
fn public_key(text: &str) -> Result<[u8; 32], String> {
    super::unhex(text)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| "expected 64 hexadecimal digits".to_owned())
}

const COLUMNS: [Column<ChainReport>; 11] = [
    Column::text("sensor", |c| c.sensor.to_string()),
    Column::number("epochs", |c| c.epochs.to_string()),
    Column::number("batches", |c| c.batches.to_string()),
    Column::text("first", |c| c.first.map(render::moment).unwrap_or_default()),
    Column::text("last", |c| c.last.map(render::moment).unwrap_or_default()),
    Column::number("epoch", |c| c.epoch.to_string()),
    Column::number("sequence", |c| c.sequence.to_string()),
    Column::number("records", |c| c.records.to_string()),
    Column::number("lost", |c| c.lost.to_string()),
    Column::number("cosigned", |c| c.cosigned.to_string()),
    Column::text("verdict", |c| if c.fault.is_some() { "BAD" } else { "whole" }.to_owned()),
];

/// Runs the command.
pub(crate) fn run(args: &VerifyArgs) -> Result<(), CliError> {
    if let Some(bundle) = &args.bundle {
        let file = File::open(bundle)
            .map_err(|error| CliError::failure(anyhow::anyhow!("{}: {error}", bundle.display())))?;
        let findings = bundled::verify(BufReader::new(file), args.trust_key.as_ref());
        if args.trust_key.is_none() && args.format == Format::Table {
            eprintln!(
                "the bundle vouches for itself by the key {}: hold it against the collector's, or state --trust-key",
                findings.public_key
            );
        }
        return report(&findings, args.format);
    }
    let config = args.place.config()?;
    let scope = Scope {
        sensor: args.sensor.as_deref().map(Into::into),
        from: args.from.map(|moment| moment.0),
        to: args.to.map(|moment| moment.0),
    };
    known(&config.store.directory, scope.sensor.as_deref())?;
    let findings = stored::verify(&config.store.directory, &scope, args.trust_key.as_ref())?;
    report(&findings, args.format)
}

/// Refuses the name of a sensor that never enrolled.
pub(crate) fn known(directory: &Path, sensor: Option<&str>) -> Result<(), CliError> {
    let Some(sensor) = sensor else { return Ok(()) };
    if Archive::open(directory)?.keys()?.sensors.contains_key(sensor) {
        return Ok(());
    }
    Err(CliError::usage(anyhow::anyhow!("no sensor is called {sensor:?}")))
}

/// Prints what was found; an error where something is wrong.
fn report(findings: &Findings, format: Format) -> Result<(), CliError> {
    cli::print(&render::render(format, &COLUMNS, &findings.chains)?)?;
    if format == Format::Table {
        for (chain, note) in
            findings.chains.iter().flat_map(|chain| chain.notes.iter().map(move |note| (chain, note)))
        {
            eprintln!("note: {}: {note}", chain.sensor);
        }
        eprintln!(
            "{} batches in quarantine, {} entries of the audit trail; the collector's key is {}",
            findings.quarantined, findings.audit_entries, findings.public_key
        );
    }
    match &findings.fault {
        Some(fault) => Err(CliError::failure(anyhow::anyhow!("first bad record: {fault}"))),
        None => Ok(()),
    }
}

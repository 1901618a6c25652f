//! `onenet-agent spool`: looks into the disk queue, while the agent runs or does not. Nothing here changes the spool, but
//! `accept-head`, which leaves an operator's acceptance in it.

mod export;
mod inspect;
mod verify;

use std::{io::Write, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use onenet_proto::v1::{BatchBody, SealedBatch};
use prost::Message as _;
use serde_json::Value;

use self::{export::export, inspect::inspect, verify::check};
use crate::{
    config::{Config, ConfigArgs, Purpose},
    ship::Acceptance,
    spool::{Found, Header, Position, Survey, What},
    status,
};

/// Arguments of `spool`.
#[derive(Debug, Args)]
pub struct SpoolArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What waits: batches, records, bytes, age, losses and why, damage
    Inspect {
        #[command(flatten)]
        config: ConfigArgs,
        /// How to print
        #[arg(long, value_enum, default_value_t = InspectFormat::Table)]
        format: InspectFormat,
    },
    /// Check every checksum, seal and link of the chain; exit code 1 where something is wrong, with the first bad record
    Verify {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Write the batches that wait to a file
    Export {
        #[command(flatten)]
        config: ConfigArgs,
        /// File to make, "-" for standard output
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// How to write
        #[arg(long, value_enum, default_value_t = ExportFormat::Protobuf)]
        format: ExportFormat,
    },
    /// Accept that the collector was set back behind what it has signed for; the agent then goes on from what it holds
    AcceptHead {
        #[command(flatten)]
        config: ConfigArgs,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum InspectFormat {
    Table,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// SealedBatch messages, each behind its length as a varint
    Protobuf,
    /// One JSON object per batch and line
    Json,
}

/// Runs the command.
pub fn spool(args: &SpoolArgs, out: &mut dyn Write) -> Result<(), anyhow::Error> {
    match &args.command {
        Command::Inspect { config, format } => inspect(&Place::of(config)?, *format, out),
        Command::Verify { config } => check(&Place::of(config)?, out),
        Command::Export { config, to, format } => export(&Place::of(config)?, to, *format, out),
        Command::AcceptHead { config } => accept_head(&Place::of(config)?, out),
    }
}

/// The spool of a configuration.
struct Place {
    config: Config,
    directory: PathBuf,
    is_running: bool,
}

impl Place {
    fn of(args: &ConfigArgs) -> Result<Self, anyhow::Error> {
        let config = Config::load(&args.config, Purpose::Run)?;
        let directory = config.sensor.state_dir.join("spool");
        let is_running = status::is_running(&config.sensor.state_dir);
        Ok(Self { config, directory, is_running })
    }

    fn survey(&self) -> Result<Survey, anyhow::Error> {
        Survey::new(&self.directory, self.is_running)
            .with_context(|| format!("spool {} cannot be read", self.directory.display()))
    }

    fn segment(&self, number: u64) -> String {
        format!("{}/{number:016x}.segment", self.directory.display())
    }

    /// What is wrong at a place, with the place.
    fn damage(&self, found: &Found) -> Option<String> {
        let at = format!("{} at offset {}", self.segment(found.segment), found.offset);
        match &found.what {
            What::Record(..) | What::Torn => None,
            What::BadPayload(Position { epoch, sequence }) => Some(format!(
                "{at}: epoch {epoch}, batch {sequence}: expected a payload that fits its CRC-32C"
            )),
            What::Rubbish => Some(format!(
                "{at}: {} bytes, expected a record with the magic ONRB and a sound header",
                found.bytes
            )),
        }
    }
}

/// A batch of the spool, decoded.
struct Batch {
    header: Box<Header>,
    sealed: SealedBatch,
    body: BatchBody,
}

impl Batch {
    fn decode(header: Box<Header>, payload: &[u8]) -> Result<Self, prost::DecodeError> {
        let sealed = SealedBatch::decode(payload)?;
        let body = BatchBody::decode(&sealed.body[..])?;
        Ok(Self { header, sealed, body })
    }
}

fn accept_head(place: &Place, out: &mut dyn Write) -> Result<(), anyhow::Error> {
    let path = status::path(&place.config.sensor.state_dir);
    let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
    let told: Value =
        serde_json::from_slice(&text).with_context(|| format!("{}: expected JSON", path.display()))?;
    let set_back = told.get("collector_set_back").and_then(Value::as_bool).unwrap_or_default();
    let message = told.get("collector_untrusted").and_then(Value::as_str).unwrap_or_default();
    let cosigned = place.survey()?.state.and_then(|state| state.cosigned);
    let (true, Some(cosigned)) = (set_back, cosigned) else {
        anyhow::bail!("nothing to accept: the collector was not found to hold less than it has signed for");
    };
    Acceptance::new(&place.directory)
        .enter(&cosigned.head)
        .with_context(|| format!("spool {} cannot be written", place.directory.display()))?;
    let when = if place.is_running { "within seconds" } else { "with its next start" };
    let told = message.split("; nothing is sent").next().unwrap_or_default();
    writeln!(out, "accepted: {told}. The agent takes it up {when}, and says so in its chain.")?;
    Ok(())
}

#[cfg(test)]
mod tests;

//! The command `sensors`: who has enrolled, when each was last heard, where its chain stands, and its account.

use clap::{Args, Subcommand};
use onenet_core::{net::Name, record::Ledger, time::Timestamp};
use serde::Serialize;

use crate::{
    cli::{self, CliError, Format, Place},
    clock,
    render::{self, Column},
    store::{SensorState, Store, StoreError},
};

/// Arguments of `sensors`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct SensorsArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    place: Place,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// End a sensor's right to deliver, at once and for good; it has to enrol again with a new token.
    Revoke {
        /// Name of the sensor.
        name: String,
        #[command(flatten)]
        place: Place,
    },
}

/// One sensor as the command, the API and the page show it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SensorStatus {
    /// Name.
    pub sensor: Name,
    /// Site.
    pub site: Name,
    /// Whether it may deliver.
    pub state: SensorState,
    /// When it enrolled.
    pub enrolled_at: Timestamp,
    /// When its certificate ends.
    pub certificate_expires: Timestamp,
    /// Collector time of its last batch; none before the first.
    pub last_heard: Option<Timestamp>,
    /// Epoch of its chain.
    pub epoch: u64,
    /// Sequence of the last batch committed.
    pub sequence: u64,
    /// Batches committed.
    pub batches: u64,
    /// Flows committed.
    pub flows: u64,
    /// Observations committed.
    pub observations: u64,
    /// Finding changes committed.
    pub findings: u64,
    /// Batches in quarantine because their body makes no sense.
    pub poisoned: u64,
    /// Records the sensor told it lost.
    pub lost: u64,
    /// Its account over all runs.
    pub ledger: Ledger,
}

/// All sensors by name.
pub fn status(store: &Store) -> Result<Vec<SensorStatus>, StoreError> {
    let heads = store.heads()?;
    let status = |entry: crate::store::SensorEntry| {
        let head = heads.get(&entry.name).cloned().unwrap_or_default();
        SensorStatus {
            sensor: entry.name,
            site: entry.site,
            state: entry.state,
            enrolled_at: entry.enrolled_at,
            certificate_expires: entry.certificate_expires,
            last_heard: (head.batches > 0).then_some(head.received_at),
            epoch: head.head.epoch,
            sequence: head.head.sequence,
            batches: head.batches,
            flows: head.flows,
            observations: head.observations,
            findings: head.findings,
            poisoned: head.poisoned,
            lost: head.lost,
            ledger: head.ledger_total(),
        }
    };
    Ok(store.sensors()?.into_iter().map(status).collect())
}

/// Columns of the table and of CSV.
const COLUMNS: [Column<SensorStatus>; 16] = [
    Column::text("sensor", |s| s.sensor.to_string()),
    Column::text("site", |s| s.site.to_string()),
    Column::text("state", |s| s.state.as_str().to_owned()),
    Column::text("last_heard", |s| s.last_heard.map_or_else(|| "never".to_owned(), render::moment)),
    Column::number("epoch", |s| s.epoch.to_string()),
    Column::number("sequence", |s| s.sequence.to_string()),
    Column::number("batches", |s| s.batches.to_string()),
    Column::number("flows", |s| s.flows.to_string()),
    Column::number("observations", |s| s.observations.to_string()),
    Column::number("findings", |s| s.findings.to_string()),
    Column::number("packets", |s| s.ledger.packets.to_string()),
    Column::number("parsed", |s| s.ledger.parsed.to_string()),
    Column::number("unparsed", |s| s.ledger.unparsed_total().to_string()),
    Column::number("dropped", |s| s.ledger.dropped_total().to_string()),
    Column::number("lost", |s| s.lost.to_string()),
    Column::text("certificate_expires", |s| render::moment(s.certificate_expires)),
];

/// Runs the command.
pub fn run(args: &SensorsArgs) -> Result<(), CliError> {
    if let Some(Action::Revoke { name, place }) = &args.action {
        let (_, store) = place.store()?;
        if !store.revoke_sensor(name, clock::now())? {
            return Err(CliError::usage(anyhow::anyhow!("no active sensor is called {name:?}")));
        }
        return cli::print(&format!("sensor {name} is revoked\n"));
    }
    let (_, store) = args.place.store()?;
    let sensors = status(&store)?;
    if sensors.is_empty() && args.format == Format::Table {
        let hint = "no sensor has enrolled yet; make a token with `onenet-collector token create`\n";
        return cli::print(hint);
    }
    cli::print(&render::render(args.format, &COLUMNS, &sensors)?)
}

//! The command `sensors`: who has enrolled, when each was last heard, where its chain stands, and its account.

use clap::{Args, Subcommand};
use onenet_core::{net::Name, record::Ledger, time::Timestamp};
use serde::Serialize;

use crate::{
    cli::{self, CliError, Format, Place},
    clock,
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

/// Column headers of the table and of CSV.
const HEADERS: [&str; 16] = [
    "sensor",
    "site",
    "state",
    "last heard",
    "epoch",
    "sequence",
    "batches",
    "flows",
    "observations",
    "findings",
    "packets",
    "parsed",
    "unparsed",
    "dropped",
    "lost",
    "certificate expires",
];

impl SensorStatus {
    fn cells(&self) -> [String; 16] {
        [
            self.sensor.to_string(),
            self.site.to_string(),
            self.state.as_str().to_owned(),
            self.last_heard.map_or_else(|| "never".to_owned(), seconds),
            self.epoch.to_string(),
            self.sequence.to_string(),
            self.batches.to_string(),
            self.flows.to_string(),
            self.observations.to_string(),
            self.findings.to_string(),
            self.ledger.packets.to_string(),
            self.ledger.parsed.to_string(),
            self.ledger.unparsed_total().to_string(),
            self.ledger.dropped_total().to_string(),
            self.lost.to_string(),
            seconds(self.certificate_expires),
        ]
    }
}

/// A time to the second.
fn seconds(time: Timestamp) -> String {
    let text = time.to_string();
    text.split_once('.').map_or_else(|| text.clone(), |(whole, _)| format!("{whole}Z"))
}

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
    let text = match args.format {
        Format::Json => serde_json::to_string_pretty(&sensors).map_err(CliError::failure)? + "\n",
        Format::Csv => csv(&sensors).map_err(CliError::failure)?,
        Format::Table if sensors.is_empty() => {
            "no sensor has enrolled yet; make a token with `onenet-collector token create`\n".to_owned()
        }
        Format::Table => table(&sensors),
    };
    cli::print(&text)
}

fn csv(sensors: &[SensorStatus]) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(HEADERS.map(|header| header.replace(' ', "_")))?;
    for sensor in sensors {
        writer.write_record(sensor.cells())?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

fn table(sensors: &[SensorStatus]) -> String {
    let rows: Vec<_> = sensors.iter().map(SensorStatus::cells).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(HEADERS.get(column).map(|header| header.len())).max().unwrap_or(0)
    };
    let line = |cells: &[String]| {
        let cells = cells.iter().enumerate().map(|(column, cell)| format!("{cell:<0$}", width(column)));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let header = line(&HEADERS.map(str::to_owned));
    rows.iter().fold(header, |text, row| text + &line(row))
}

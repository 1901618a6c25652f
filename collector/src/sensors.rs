//! The command `sensors`: who has enrolled, when each was last heard, where its chain stands, and its account.

use std::cmp::Ordering;

use clap::{Args, Subcommand};
use onenet_core::{net::Name, record::Ledger, time::Timestamp};
use onenet_proto::v1::PlanHeld;
use serde::Serialize;

use crate::{
    cli::{self, CliError, Format, Place},
    clock,
    render::{self, Column},
    store::{
        SensorState, Store, StoreError,
        plans::{self, PlanVersion},
    },
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
    /// Version of the collector's plan that it goes by, as it last said; 0 for none of it.
    pub plan_version: Option<u64>,
    /// How that stands to the plan that this collector has.
    pub plan: PlanStanding,
    /// Its account over all runs.
    pub ledger: Ledger,
}

/// How the plan that a sensor goes by stands to the latest version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlanStanding {
    /// It is that version.
    Current,
    /// It is an earlier one, or none yet.
    Behind,
    /// It is a later one than any known here: this collector's database was set back. SIGHUP issues the plan anew.
    Ahead,
    /// The sensor keeps to its own file.
    OwnFile,
    /// The latest version is too large to be sent.
    TooLarge,
    /// It has not said.
    Unknown,
}

impl PlanStanding {
    /// In text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Behind => "behind",
            Self::Ahead => "ahead",
            Self::OwnFile => "own file",
            Self::TooLarge => "too large to send",
            Self::Unknown => "unknown",
        }
    }

    fn of(held: Option<&PlanHeld>, latest: Option<&PlanVersion>) -> Self {
        let Some(held) = held else { return Self::Unknown };
        if held.own {
            return Self::OwnFile;
        }
        let Some(latest) = latest else { return Self::Ahead };
        match held.version.cmp(&latest.version) {
            Ordering::Equal => Self::Current,
            Ordering::Greater => Self::Ahead,
            Ordering::Less if !latest.sent => Self::TooLarge,
            Ordering::Less => Self::Behind,
        }
    }
}

/// All sensors by name.
pub fn status(store: &Store) -> Result<Vec<SensorStatus>, StoreError> {
    let heads = store.heads()?;
    let (latest, plans) =
        store.read(|connection| Ok((plans::latest(connection)?, plans::held(connection)?)))?;
    let status = |entry: crate::store::SensorEntry| {
        let head = heads.get(&entry.name).cloned().unwrap_or_default();
        let plan = plans.get(&entry.name);
        SensorStatus {
            plan_version: plan.map(|plan| plan.version),
            plan: PlanStanding::of(plan, latest.as_ref()),
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
const COLUMNS: [Column<SensorStatus>; 18] = [
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
    Column::number("plan_version", |s| render::optional(s.plan_version)),
    Column::text("plan", |s| s.plan.as_str().to_owned()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Hex;

    #[test]
    fn a_sensor_is_told_with_how_its_plan_stands_to_the_latest() {
        let held = |version, own| PlanHeld { version, own, ..PlanHeld::default() };
        let of = |held: Option<PlanHeld>, sent| {
            let latest = PlanVersion::sample(9, Hex(vec![1; 32]), sent);
            PlanStanding::of(held.as_ref(), Some(&latest)).as_str()
        };
        assert_eq!(of(Some(held(9, false)), true), "current");
        assert_eq!(of(Some(held(8, false)), true), "behind");
        assert_eq!(of(Some(held(0, false)), true), "behind");
        assert_eq!(of(Some(held(8, false)), false), "too large to send");
        assert_eq!(of(Some(held(10, false)), true), "ahead");
        assert_eq!(of(Some(held(0, true)), true), "own file");
        assert_eq!(of(None, true), "unknown");
        assert_eq!(PlanStanding::of(Some(&held(8, false)), None), PlanStanding::Ahead);
    }
}

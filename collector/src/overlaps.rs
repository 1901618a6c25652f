//! The command `overlaps`: private addresses in use in two address spaces, with whoever must renumber. They are
//! the findings of the rule overlap.address, told as the IPAM team reads them.

use std::net::IpAddr;

use clap::Args;
use ipnet::IpNet;
use onenet_core::{
    net::Name,
    record::{Confidence, FindingId, ObservationEvidence, RuleId},
    time::Timestamp,
};
use rusqlite::Connection;
use serde::Serialize;

use crate::{
    cli::{self, CliError, Format, Place},
    correlate::{Finding, State},
    render::{self, Column},
    store::control_findings::{self, FindingFilter},
};

/// One overlap.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Overlap {
    /// The address, where it is one.
    pub(crate) address: Option<IpAddr>,
    /// The prefix, where it is one.
    pub(crate) prefix: Option<IpNet>,
    /// Where it is in use.
    pub(crate) address_spaces: Vec<Name>,
    /// Whose these are.
    pub(crate) secretariats: Vec<Name>,
    /// Whom to call, in the order of the secretariats.
    pub(crate) contacts: Vec<Name>,
    /// Where it was seen.
    pub(crate) sites: Vec<Name>,
    /// How sure, 0 to 100.
    pub(crate) confidence: Confidence,
    /// First packet that belongs to it.
    pub(crate) first_seen: Timestamp,
    /// Last packet that belongs to it.
    pub(crate) last_seen: Timestamp,
    /// Open or closed.
    pub(crate) state: State,
    /// The finding that tells the rest.
    pub(crate) finding_id: FindingId,
    /// By what it was seen in each address space.
    pub(crate) observations: Vec<ObservationEvidence>,
}

impl From<Finding> for Overlap {
    fn from(finding: Finding) -> Self {
        Self {
            address: finding.subject.address,
            prefix: finding.subject.prefix,
            address_spaces: finding.address_spaces,
            secretariats: finding.secretariats,
            contacts: finding.contacts,
            sites: finding.sites,
            confidence: finding.confidence,
            first_seen: finding.first_seen,
            last_seen: finding.last_seen,
            state: finding.state,
            finding_id: finding.finding_id,
            observations: finding.evidence.observations,
        }
    }
}

impl Overlap {
    /// The address or prefix, as people read it.
    pub(crate) fn subject(&self) -> String {
        let address = self.address.map(|address| address.to_string());
        address.or_else(|| self.prefix.map(|prefix| prefix.to_string())).unwrap_or_default()
    }
}

/// The filter that finds overlaps.
pub(crate) fn filter(state: Option<State>) -> FindingFilter {
    FindingFilter { state, rule: Some(RuleId::OverlapAddress), ..FindingFilter::default() }
}

/// Overlaps, the open ones first.
pub(crate) fn overlaps(
    connection: &Connection,
    filter: &FindingFilter,
    limit: u32,
    offset: u32,
) -> Result<Vec<Overlap>, rusqlite::Error> {
    let findings = control_findings::findings(connection, filter, limit, offset)?;
    Ok(findings.into_iter().map(Overlap::from).collect())
}

/// Arguments of `overlaps`.
#[derive(Debug, Args)]
pub(crate) struct OverlapsArgs {
    #[command(flatten)]
    place: Place,
    /// Show those that have ended too.
    #[arg(long)]
    all: bool,
    /// Overlaps to show at most.
    #[arg(long, default_value_t = 10_000)]
    limit: u32,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const COLUMNS: [Column<Overlap>; 9] = [
    Column::text("address", Overlap::subject),
    Column::text("address_spaces", |o| render::list(&o.address_spaces)),
    Column::text("secretariats", |o| render::list(&o.secretariats)),
    Column::text("contacts", |o| render::list(o.contacts.iter().filter(|contact| !contact.is_empty()))),
    Column::text("sites", |o| render::list(&o.sites)),
    Column::number("confidence", |o| o.confidence.to_string()),
    Column::text("first_seen", |o| render::moment(o.first_seen)),
    Column::text("last_seen", |o| render::moment(o.last_seen)),
    Column::text("finding_id", |o| o.finding_id.to_string()),
];

/// Runs the command.
pub(crate) fn run(args: &OverlapsArgs) -> Result<(), CliError> {
    let (_, store) = args.place.store()?;
    let filter = filter((!args.all).then_some(State::Open));
    let found = store.read(|connection| overlaps(connection, &filter, args.limit, 0))?;
    if args.format == Format::Table && found.is_empty() {
        return cli::print("no private address is in use in two address spaces\n");
    }
    cli::print(&render::render(args.format, &COLUMNS, &found)?)
}

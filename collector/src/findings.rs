//! The command `findings`: what the IPAM team and the SOC must act on.

use clap::{Args, Subcommand};
use onenet_core::{
    net::Name,
    record::{FindingId, RuleId, Severity},
};
use serde::Serialize;

use crate::{
    cli::{self, CliError, Format, Place},
    clock,
    correlate::{Finding, State},
    render::{self, Column},
    store::{
        acknowledgements,
        control_findings::{self, FindingFilter},
    },
};

/// Arguments of `findings`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct FindingsArgs {
    #[command(subcommand)]
    action: Option<Action>,
    /// Show this finding alone.
    #[arg(value_name = "ID")]
    id: Option<FindingId>,
    #[command(flatten)]
    place: Place,
    /// Only findings in this state: open or closed.
    #[arg(long)]
    state: Option<State>,
    /// Only findings of this rule, such as overlap.address.
    #[arg(long)]
    rule: Option<RuleId>,
    /// Only findings that this site sees.
    #[arg(long)]
    site: Option<String>,
    /// Only findings that touch this secretariat.
    #[arg(long)]
    secretariat: Option<String>,
    /// Only findings at least this bad: low, medium, high or critical.
    #[arg(long, value_parser = severity)]
    severity: Option<Severity>,
    /// Findings to show at most.
    #[arg(long, default_value_t = 1_000)]
    limit: u32,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Take note of a finding as it stands: who, when and what for is in the audit trail. What changes later is news.
    Acknowledge {
        /// The finding.
        #[arg(value_name = "ID")]
        id: FindingId,
        /// What is to be said about it.
        #[arg(long, value_name = "TEXT", default_value = "", value_parser = note)]
        note: String,
        #[command(flatten)]
        place: Place,
    },
}

/// A note is one line that people read.
fn note(text: &str) -> Result<String, String> {
    let fits = text.chars().count() <= 500 && !text.chars().any(char::is_control);
    if fits { Ok(text.to_owned()) } else { Err("expected one line of at most 500 characters".to_owned()) }
}

/// A finding, and who has taken note of it as it stands.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    finding: Finding,
    acknowledged_by: Option<String>,
}

/// Reads a severity by its name.
pub(crate) fn severity(text: &str) -> Result<Severity, String> {
    let known = Severity::ALL.iter().copied().find(|severity| severity.as_str() == text);
    known.ok_or_else(|| format!("{text:?}, expected low, medium, high or critical"))
}

/// Who owns a finding: secretariats with their contacts.
pub(crate) fn owners(finding: &Finding) -> Vec<(String, Option<String>)> {
    let contact = |index: usize| finding.contacts.get(index).filter(|contact| !contact.is_empty());
    let owner =
        |(index, name): (usize, &Name)| (name.to_string(), contact(index).map(|contact| contact.to_string()));
    finding.secretariats.iter().enumerate().map(owner).collect()
}

const COLUMNS: [Column<Shown>; 11] = [
    Column::text("id", |f| f.finding.finding_id.to_string()),
    Column::text("severity", |f| f.finding.severity.to_string()),
    Column::text("state", |f| f.finding.state.as_str().to_owned()),
    Column::text("rule", |f| f.finding.rule.to_string()),
    Column::text("site", |f| render::list(&f.finding.sites)),
    Column::text("secretariat", |f| render::list(&f.finding.secretariats)),
    Column::text("contact", |f| {
        render::list(f.finding.contacts.iter().filter(|contact: &&Name| !contact.is_empty()))
    }),
    Column::text("acknowledged_by", |f| f.acknowledged_by.clone().unwrap_or_default()),
    Column::text("first_seen", |f| render::moment(f.finding.first_seen)),
    Column::text("last_seen", |f| render::moment(f.finding.last_seen)),
    Column::text("summary", |f| f.finding.summary.clone()),
];

/// Runs the command.
pub(crate) fn run(args: &FindingsArgs) -> Result<(), CliError> {
    if let Some(Action::Acknowledge { id, note, place }) = &args.action {
        return acknowledge(*id, note, place);
    }
    let (_, store) = args.place.store()?;
    let findings = match args.id {
        Some(id) => {
            let found = store.read(|connection| control_findings::finding(connection, id))?;
            let unknown = || CliError::failure(anyhow::anyhow!("no finding has the id {id}"));
            vec![found.ok_or_else(unknown)?]
        }
        None => {
            let filter = FindingFilter {
                state: args.state,
                rule: args.rule,
                site: args.site.clone(),
                secretariat: args.secretariat.clone(),
                severity: args.severity,
            };
            store.read(|connection| control_findings::findings(connection, &filter, args.limit, 0))?
        }
    };
    if args.format == Format::Table && findings.is_empty() {
        return cli::print("no finding matches\n");
    }
    let shown = store.read(|connection| {
        let one = |finding: Finding| {
            let acknowledged_by = acknowledgements::standing(connection, finding.finding_id)?;
            Ok(Shown { finding, acknowledged_by })
        };
        findings.into_iter().map(one).collect::<Result<Vec<_>, _>>()
    })?;
    cli::print(&render::render(args.format, &COLUMNS, &shown)?)
}

fn acknowledge(id: FindingId, note: &str, place: &Place) -> Result<(), CliError> {
    let (_, store) = place.store()?;
    let acknowledged = store.acknowledge(id, note, clock::now())?;
    let unknown = || CliError::failure(anyhow::anyhow!("no finding has the id {id}"));
    let acknowledged = acknowledged.ok_or_else(unknown)?;
    cli::print(&format!("{id}: revision {} acknowledged by {}\n", acknowledged.revision, acknowledged.actor))
}

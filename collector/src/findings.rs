//! The command `findings`: what the IPAM team and the SOC must act on.

use clap::Args;
use onenet_core::{
    net::Name,
    record::{FindingId, RuleId, Severity},
};

use crate::{
    cli::{self, CliError, Format, Place},
    correlate::{Finding, State},
    render::{self, Column},
    store::control_findings::{self, FindingFilter},
};

/// Arguments of `findings`.
#[derive(Debug, Args)]
pub(crate) struct FindingsArgs {
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

const COLUMNS: [Column<Finding>; 10] = [
    Column::text("id", |f| f.finding_id.to_string()),
    Column::text("severity", |f| f.severity.to_string()),
    Column::text("state", |f| f.state.as_str().to_owned()),
    Column::text("rule", |f| f.rule.to_string()),
    Column::text("site", |f| render::list(&f.sites)),
    Column::text("secretariat", |f| render::list(&f.secretariats)),
    Column::text("contact", |f| {
        render::list(f.contacts.iter().filter(|contact: &&Name| !contact.is_empty()))
    }),
    Column::text("first_seen", |f| render::moment(f.first_seen)),
    Column::text("last_seen", |f| render::moment(f.last_seen)),
    Column::text("summary", |f| f.summary.clone()),
];

/// Runs the command.
pub(crate) fn run(args: &FindingsArgs) -> Result<(), CliError> {
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
    cli::print(&render::render(args.format, &COLUMNS, &findings)?)
}

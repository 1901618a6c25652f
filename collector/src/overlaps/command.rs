//! The command `overlaps`.

use clap::Args;
use onenet_core::record::Verdict;
use serde::Serialize;

use super::{Grounds, Layer, Overlap, OverlapDetail};
use crate::{
    cli::{self, CliError, Format, Place},
    correlate::State,
    render::{self, Column},
    search::Within,
    store::{
        Store,
        control_overlaps::{self, OverlapFilter},
    },
    uses,
};

/// Arguments of `overlaps`.
#[derive(Debug, Args)]
pub(crate) struct OverlapsArgs {
    #[command(flatten)]
    place: Place,
    /// Only these layers; may be given several times.
    #[arg(long, value_enum, value_delimiter = ',')]
    layer: Vec<Layer>,
    /// Only those with this behind the uses: two-hosts, moved, seen-twice or unknown.
    #[arg(long, value_parser = super::verdict)]
    verdict: Option<Verdict>,
    /// Only what is in this prefix, or holds it.
    #[arg(long, value_name = "ADDRESS|PREFIX")]
    within: Option<Within>,
    /// Only those that touch this secretariat.
    #[arg(long, value_name = "NAME")]
    secretariat: Option<String>,
    /// Only those that touch this address space.
    #[arg(long, value_name = "NAME")]
    address_space: Option<String>,
    /// Only those that this site sees.
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    /// Show those that have ended too.
    #[arg(long)]
    all: bool,
    /// Show the uses in full, and what speaks for one host and for two.
    #[arg(long)]
    evidence: bool,
    /// End with exit code 1 where one that matches is open.
    #[arg(long)]
    fail_if_any: bool,
    /// Overlaps to show at most.
    #[arg(long, default_value_t = 10_000)]
    limit: u32,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl OverlapsArgs {
    fn filter(&self) -> OverlapFilter {
        OverlapFilter {
            state: (!self.all).then_some(State::Open),
            rules: self.layer.iter().map(|layer| layer.rule()).collect(),
            verdict: self.verdict,
            within: self.within.map(|within| within.0),
            secretariat: self.secretariat.clone(),
            address_space: self.address_space.clone(),
            site: self.site.clone(),
        }
    }
}

/// An overlap, and why where that was asked for.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    overlap: Overlap,
    #[serde(flatten)]
    grounds: Option<Grounds>,
}

const COLUMNS: [Column<Row>; 11] = [
    Column::text("layer", |row| row.overlap.layer.as_str().to_owned()),
    Column::text("address", |row| row.overlap.subject()),
    Column::text("verdict", |row| render::optional(row.overlap.verdict)),
    Column::number("confidence", |row| row.overlap.confidence.to_string()),
    Column::text("address_spaces", |row| render::list(&row.overlap.address_spaces)),
    Column::text("secretariats", |row| render::list(&row.overlap.secretariats)),
    Column::text("contacts", |row| {
        render::list(row.overlap.contacts.iter().filter(|contact| !contact.is_empty()))
    }),
    Column::text("sites", |row| render::list(&row.overlap.sites)),
    Column::text("first_seen", |row| render::moment(row.overlap.first_seen)),
    Column::text("last_seen", |row| render::moment(row.overlap.last_seen)),
    Column::text("finding_id", |row| row.overlap.finding_id.to_string()),
];

/// Runs the command.
pub(crate) fn run(args: &OverlapsArgs) -> Result<(), CliError> {
    if args.evidence && args.format == Format::Csv {
        return Err(CliError::usage(anyhow::anyhow!("--evidence has no place in CSV; use --format json")));
    }
    let (_, store) = args.place.store()?;
    let (text, open) = told(&store, args)?;
    cli::print(&text)?;
    if args.fail_if_any { cli::none_or_fail(open, "overlap is open", "overlaps are open") } else { Ok(()) }
}

/// What is printed, and how many of those that match are open.
fn told(store: &Store, args: &OverlapsArgs) -> Result<(String, u64), CliError> {
    let filter = args.filter();
    let open = OverlapFilter { state: Some(State::Open), ..filter.clone() };
    let (rows, open) = store.read(|connection| {
        let findings = control_overlaps::overlaps(connection, &filter, args.limit, 0)?;
        let row = |finding: &_| {
            Ok(if args.evidence {
                let OverlapDetail { overlap, grounds } = OverlapDetail::of(connection, finding)?;
                Row { overlap, grounds: Some(grounds) }
            } else {
                Row { overlap: Overlap::from(finding), grounds: None }
            })
        };
        let rows: Result<Vec<Row>, rusqlite::Error> = findings.iter().map(row).collect();
        Ok((rows?, control_overlaps::count(connection, &open)?))
    })?;
    if args.format == Format::Table && rows.is_empty() {
        return Ok(("no address or prefix is in use or claimed twice\n".to_owned(), open));
    }
    let text = render::render(args.format, &COLUMNS, &rows)?;
    if args.format != Format::Table || !args.evidence {
        return Ok((text, open));
    }
    // One line of the table for each row, below its heading.
    let mut out = String::new();
    for (at, line) in text.lines().enumerate() {
        out.push_str(line);
        out.push('\n');
        let row = at.checked_sub(1).and_then(|at| rows.get(at));
        if let Some((row, grounds)) = row.and_then(|row| Some((row, row.grounds.as_ref()?))) {
            out.push_str(&evidence(&row.overlap, grounds));
        }
    }
    Ok((out, open))
}

/// Why an overlap is what it is, for a terminal.
fn evidence(overlap: &Overlap, grounds: &Grounds) -> String {
    let mut out = format!("  {}\n", render::for_terminal(&overlap.summary));
    if let Some(sum) = grounds.sum() {
        out.push_str(&format!("  {sum}\n"));
        for term in &grounds.terms {
            let side = if term.bits > 0.0 { "two hosts" } else { "one host" };
            out.push_str(&format!(
                "    {:>+7.2}  {:<14} {side}\n",
                term.bits,
                render::for_terminal(&term.name)
            ));
        }
    }
    out.push_str(&uses::text(&grounds.usages));
    out.push('\n');
    out
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

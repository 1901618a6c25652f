//! The command `inventory`: every inside address seen in use, by address space; claims in which nothing was; and sums of
//! what a sensor could not tell apart.

pub(crate) mod dark;

use clap::Args;
use onenet_core::{record::Strength, time::Timestamp};
use serde::Serialize;

use crate::{
    cli::{self, CliError, Format, Place},
    clock,
    config::Config,
    render::{self, Column},
    search::{Moment, Within},
    store::{
        Store,
        control_inventory::InventoryEntry,
        inventory_list::{self, InventoryFilter, Standing},
        inventory_sweep::{self, AddressSum, SumFilter},
    },
    uses::{self, UsageView},
};
use dark::{DarkClaim, DarkFilter};

/// Nanoseconds of a day.
const DAY: i64 = 86_400 * onenet_core::time::NANOS_PER_SECOND;

/// Arguments of `inventory`.
#[derive(Debug, Args)]
pub(crate) struct InventoryArgs {
    #[command(flatten)]
    place: Place,
    /// Show claims in which no address was in use of late, by the plan that the configuration names.
    #[arg(long, conflicts_with_all = ["sums", "site", "segment", "strength", "standing", "since", "until", "seen_within", "evidence"])]
    dark: bool,
    /// Show sums of sources that a sensor could not tell apart.
    #[arg(long, conflicts_with_all = ["within", "address_space", "secretariat", "strength", "standing", "since", "until", "seen_within", "evidence"])]
    sums: bool,
    /// Only this address, or those in this prefix.
    #[arg(long, value_name = "ADDRESS|PREFIX")]
    within: Option<Within>,
    /// Only this address space.
    #[arg(long, value_name = "NAME")]
    address_space: Option<String>,
    /// Only addresses last seen on this secretariat's segments.
    #[arg(long, value_name = "NAME")]
    secretariat: Option<String>,
    /// Only addresses seen at this site.
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    /// Only addresses seen on this segment.
    #[arg(long, value_name = "NAME")]
    segment: Option<String>,
    /// Only addresses seen at least this surely: weak (asked for), medium (packets) or strong (answered, leased).
    #[arg(long, value_parser = strength)]
    strength: Option<Strength>,
    /// Only addresses that stand so to the plan.
    #[arg(long, value_enum)]
    standing: Option<Standing>,
    /// Only addresses last seen at this moment (UTC) or later.
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Only addresses last seen at this moment (UTC) or before: those that may be given back.
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// Only addresses last seen within so many days.
    #[arg(long, value_name = "DAYS", conflicts_with = "since", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    seen_within: Option<u32>,
    /// Show each use in full.
    #[arg(long)]
    evidence: bool,
    /// End with exit code 1 where anything matches.
    #[arg(long)]
    fail_if_any: bool,
    /// Rows to show at most.
    #[arg(long, default_value_t = 100_000)]
    limit: u32,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Reads a strength by its name.
pub(crate) fn strength(text: &str) -> Result<Strength, String> {
    let known = Strength::ALL.iter().copied().find(|strength| strength.as_str() == text);
    known.ok_or_else(|| format!("{text:?}, expected weak, medium or strong"))
}

/// The moment so many days before `now`.
pub(crate) fn days_before(now: Timestamp, days: u32) -> Timestamp {
    now.plus(i64::from(days).saturating_mul(DAY).saturating_neg())
}

impl InventoryArgs {
    fn filter(&self, now: Timestamp) -> InventoryFilter {
        let seen_within = self.seen_within.map(|days| days_before(now, days));
        InventoryFilter {
            within: self.within.map(|within| within.0),
            address_space: self.address_space.clone(),
            secretariat: self.secretariat.clone(),
            site: self.site.clone(),
            segment: self.segment.clone(),
            strength: self.strength,
            standing: self.standing,
            since: self.since.map(|moment| moment.0).or(seen_within),
            until: self.until.map(|moment| moment.0),
        }
    }
}

/// An entry, with its uses in full where that was asked for.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    #[serde(flatten)]
    pub(crate) entry: InventoryEntry,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usages: Option<Vec<UsageView>>,
}

impl Row {
    /// An entry with its uses.
    pub(crate) fn whole(entry: InventoryEntry) -> Self {
        let usages = UsageView::of(&entry).collect();
        Self { entry, usages: Some(usages) }
    }
}

const COLUMNS: [Column<Row>; 13] = [
    Column::text("address", |row| row.entry.address.to_string()),
    Column::text("address_space", |row| row.entry.address_space.to_string()),
    Column::text("secretariat", |row| row.entry.secretariat.as_deref().unwrap_or_default().to_owned()),
    Column::text("segments", |row| render::list(row.entry.segments())),
    Column::text("sites", |row| render::list(row.entry.sites())),
    Column::text("standing", |row| row.entry.standing_word().as_str().to_owned()),
    Column::text("macs", |row| render::list(row.entry.macs().iter().map(ToString::to_string))),
    Column::text("hostnames", |row| render::list(&row.entry.hostnames)),
    Column::text("kinds", |row| render::list(row.entry.kinds().iter().map(|kind| kind.as_str()))),
    Column::text("strength", |row| row.entry.strength.to_string()),
    Column::text("first_seen", |row| render::moment(row.entry.first_seen)),
    Column::text("last_seen", |row| render::moment(row.entry.last_seen)),
    Column::number("packets", |row| row.entry.packets.to_string()),
];

const DARK: [Column<DarkClaim>; 5] = [
    Column::text("cidr", |claim| claim.cidr.to_string()),
    Column::text("address_space", |claim| claim.address_space.to_string()),
    Column::text("secretariat", |claim| claim.secretariat.to_string()),
    Column::text("contact", |claim| claim.contact.as_deref().unwrap_or_default().to_owned()),
    Column::text("status", |claim| claim.status.to_string()),
];

const SUMS: [Column<AddressSum>; 9] = [
    Column::text("site", |sum| sum.site.to_string()),
    Column::text("segment", |sum| sum.segment.to_string()),
    Column::text("prefix", |sum| sum.prefix.clone()),
    Column::text("mac", |sum| sum.mac.clone()),
    Column::number("addresses", |sum| sum.addresses.to_string()),
    Column::number("packets", |sum| sum.packets.to_string()),
    Column::text("first_seen", |sum| render::moment(sum.first_seen)),
    Column::text("last_seen", |sum| render::moment(sum.last_seen)),
    Column::text("top", |sum| {
        render::list(sum.top.iter().map(|top| format!("{} ({})", top.address, top.packets)))
    }),
];

/// What a command prints, what is said beside it, and how much there is.
struct Told {
    text: String,
    note: Option<String>,
    found: u64,
}

/// Runs the command.
pub(crate) fn run(args: &InventoryArgs) -> Result<(), CliError> {
    if args.evidence && args.format == Format::Csv {
        return Err(CliError::usage(anyhow::anyhow!("--evidence has no place in CSV; use --format json")));
    }
    let (config, store) = args.place.store()?;
    let (told, one, many) = if args.dark {
        (dark(&store, &config, args)?, "claim is dark", "claims are dark")
    } else if args.sums {
        (sums(&store, args)?, "sum matches", "sums match")
    } else {
        (entries(&store, args, clock::now())?, "address matches", "addresses match")
    };
    cli::print(&told.text)?;
    if let Some(note) = told.note {
        eprintln!("onenet-collector: {note}");
    }
    if args.fail_if_any { cli::none_or_fail(told.found, one, many) } else { Ok(()) }
}

fn entries(store: &Store, args: &InventoryArgs, now: Timestamp) -> Result<Told, CliError> {
    let filter = args.filter(now);
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let left = args.limit.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX));
        let page =
            store.read(|connection| inventory_list::page(connection, &filter, left, after.as_ref()))?;
        let row = |entry| if args.evidence { Row::whole(entry) } else { Row { entry, usages: None } };
        rows.extend(page.entries.into_iter().map(row));
        after = page.next;
        if after.is_none() || rows.len() >= args.limit as usize {
            break;
        }
    }
    let found = rows.len() as u64;
    let note = after.map(|_| format!("there are more than the {found} shown; raise --limit"));
    let text = match (args.format, rows.as_slice()) {
        (Format::Table, []) => "no address matches\n".to_owned(),
        (Format::Table, rows) if args.evidence => {
            let told = render::render(args.format, &COLUMNS, rows)?;
            let mut out = String::new();
            for (at, line) in told.lines().enumerate() {
                out.push_str(line);
                out.push('\n');
                let row = at.checked_sub(1).and_then(|at| rows.get(at));
                if let Some(usages) = row.and_then(|row| row.usages.as_ref()) {
                    out.push_str(&uses::text(usages));
                }
            }
            out
        }
        (format, rows) => render::render(format, &COLUMNS, rows)?,
    };
    Ok(Told { text, note, found })
}

fn dark(store: &Store, config: &Config, args: &InventoryArgs) -> Result<Told, CliError> {
    let judge = dark::judge(config)?;
    let filter = DarkFilter {
        within: args.within.map(|within| within.0),
        address_space: args.address_space.clone(),
        secretariat: args.secretariat.clone(),
    };
    let found = store.read(|connection| dark::claims(connection, &judge, &filter, clock::now()))?;
    let note = found.note();
    let count = found.items.len() as u64;
    let shown = found.items.get(..args.limit as usize).unwrap_or(&found.items);
    let text = if args.format == Format::Table && shown.is_empty() {
        "no claim is dark\n".to_owned()
    } else {
        render::render(args.format, &DARK, shown)?
    };
    Ok(Told { text, note, found: count })
}

fn sums(store: &Store, args: &InventoryArgs) -> Result<Told, CliError> {
    let filter = SumFilter { site: args.site.clone(), segment: args.segment.clone() };
    let found = store.read(|connection| inventory_sweep::sums(connection, &filter, args.limit, 0))?;
    let text = if args.format == Format::Table && found.is_empty() {
        "every source was told apart\n".to_owned()
    } else {
        render::render(args.format, &SUMS, &found)?
    };
    Ok(Told { text, note: None, found: found.len() as u64 })
}

#[cfg(test)]
pub(crate) mod tests;

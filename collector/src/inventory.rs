//! The command `inventory`: every inside address seen in use, by address space.

use clap::Args;

use crate::{
    cli::{self, CliError, Format, Place},
    render::{self, Column},
    search::Within,
    store::control_inventory::{self, InventoryEntry, InventoryFilter},
};

/// Arguments of `inventory`.
#[derive(Debug, Args)]
pub(crate) struct InventoryArgs {
    #[command(flatten)]
    place: Place,
    /// Only this address, or those in this prefix.
    #[arg(long, value_name = "ADDRESS|PREFIX")]
    address: Option<Within>,
    /// Only this address space.
    #[arg(long, value_name = "NAME")]
    space: Option<String>,
    /// Only addresses seen at this site.
    #[arg(long)]
    site: Option<String>,
    /// Addresses to show at most.
    #[arg(long, default_value_t = 100_000)]
    limit: u32,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const COLUMNS: [Column<InventoryEntry>; 12] = [
    Column::text("address", |e| e.address.to_string()),
    Column::text("address_space", |e| e.address_space.to_string()),
    Column::text("secretariat", |e| e.secretariat.as_deref().unwrap_or_default().to_owned()),
    Column::text("segments", |e| render::list(e.segments())),
    Column::text("sites", |e| render::list(e.sites())),
    Column::text("macs", |e| render::list(e.macs().iter().map(ToString::to_string))),
    Column::text("hostnames", |e| render::list(&e.hostnames)),
    Column::text("kinds", |e| render::list(e.kinds().iter().map(|kind| kind.as_str()))),
    Column::text("strength", |e| e.strength.to_string()),
    Column::text("first_seen", |e| render::moment(e.first_seen)),
    Column::text("last_seen", |e| render::moment(e.last_seen)),
    Column::number("packets", |e| e.packets.to_string()),
];

/// Runs the command.
pub(crate) fn run(args: &InventoryArgs) -> Result<(), CliError> {
    let (_, store) = args.place.store()?;
    let filter = InventoryFilter {
        within: args.address.map(|within| within.0),
        address_space: args.space.clone(),
        site: args.site.clone(),
    };
    let entries = store.read(|connection| control_inventory::entries(connection, &filter, args.limit, 0))?;
    if args.format == Format::Table && entries.is_empty() {
        return cli::print("no address matches\n");
    }
    cli::print(&render::render(args.format, &COLUMNS, &entries)?)
}

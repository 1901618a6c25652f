//! `plan versions`: the versions of the plan that this collector has issued to its sensors.

use clap::Args;

use crate::{
    ca::hex,
    cli::{self, CliError, Format, Place},
    render::{self, Column},
    store::plans::{self, PlanVersion},
};

/// Arguments of `plan versions`.
#[derive(Debug, Args)]
pub(super) struct VersionsArgs {
    #[command(flatten)]
    place: Place,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const COLUMNS: [Column<PlanVersion>; 6] = [
    Column::number("version", |version| version.version.to_string()),
    Column::text("time", |version| render::moment(version.time)),
    Column::number("prefixes", |version| version.prefixes.to_string()),
    Column::number("bytes", |version| version.bytes.to_string()),
    Column::text("sent", |version| if version.sent { "yes" } else { "no, too large" }.to_owned()),
    Column::text("sha256", |version| hex(&version.sha256.0)),
];

/// Runs the command.
pub(super) fn run(args: &VersionsArgs) -> Result<(), CliError> {
    let (_, store) = args.place.store()?;
    let versions = store.read(plans::versions)?;
    if versions.is_empty() && args.format == Format::Table {
        return cli::print("no version has been issued yet; `onenet-collector run` does when it starts\n");
    }
    cli::print(&render::render(args.format, &COLUMNS, &versions)?)
}

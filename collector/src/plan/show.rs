//! `plan show`: what the plan says, people's and imported, with filters.

use clap::Args;
use onenet_proto::config::read_plan;

use super::{
    claims::{self, ClaimFilter, ListedClaim},
    place::PlanPlace,
};
use crate::{
    cli::{self, CliError, Format},
    render::{self, Column},
    search::Within,
};

/// Arguments of `plan show`.
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    plan: PlanPlace,
    /// Addresses instead of prefixes.
    #[arg(long)]
    addresses: bool,
    /// Only what is in this prefix, or holds it.
    #[arg(long, value_name = "ADDRESS|PREFIX")]
    within: Option<Within>,
    /// Only this secretariat's.
    #[arg(long)]
    secretariat: Option<String>,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const COLUMNS: [Column<ListedClaim>; 8] = [
    Column::text("claim", |shown| shown.claim.clone()),
    Column::text("address_space", |shown| shown.address_space.clone()),
    Column::text("secretariat", |shown| shown.secretariat.clone()),
    Column::text("agency", |shown| shown.agency.clone()),
    Column::text("status", |shown| shown.status.clone()),
    Column::text("role", |shown| shown.role.clone()),
    Column::text("contact", |shown| shown.contact.clone()),
    Column::text("description", |shown| shown.description.clone()),
];

/// Runs the command.
pub(super) fn run(args: &ShowArgs) -> Result<(), CliError> {
    let file = args.plan.file()?;
    let (plan, _) = read_plan(&file)?;
    if let Some(id) = args.secretariat.as_ref().filter(|id| plan.secretariat(id).is_none()) {
        let error = anyhow::anyhow!("--secretariat {id}: no secretariat of {}", file.display());
        return Err(CliError::usage(error));
    }
    let filter =
        ClaimFilter { within: args.within, secretariat: args.secretariat.clone(), ..ClaimFilter::default() };
    let list = if args.addresses { claims::addresses } else { claims::prefixes };
    cli::print(&render::render(args.format, &COLUMNS, &list(&plan, &filter, (0, usize::MAX)))?)
}

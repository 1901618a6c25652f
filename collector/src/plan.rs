//! The command `plan check`: whether an address plan can be used, and which of its claims overlap.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::{
    cli::{self, CliError, Format},
    plan_check::{self, OverlappingClaims},
    render::{self, Column},
};

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Check an address plan: exit code 0 where no claims of two address spaces overlap, 1 where some do, 2 where
    /// the plan cannot be used.
    Check {
        /// The plan.
        file: PathBuf,
        /// How to print the overlapping claims.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

const COLUMNS: [Column<OverlappingClaims>; 9] = [
    Column::text("outer", |pair| pair.outer.cidr.to_string()),
    Column::text("outer_space", |pair| pair.outer.address_space.to_string()),
    Column::text("outer_secretariat", |pair| pair.outer.secretariat.to_string()),
    Column::number("outer_line", |pair| render::optional(pair.outer.line)),
    Column::text("inner", |pair| pair.inner.cidr.to_string()),
    Column::text("inner_space", |pair| pair.inner.address_space.to_string()),
    Column::text("inner_secretariat", |pair| pair.inner.secretariat.to_string()),
    Column::number("inner_line", |pair| render::optional(pair.inner.line)),
    Column::number("addresses", |pair| pair.addresses.to_string()),
];

/// Runs the command.
pub(crate) fn run(args: &PlanArgs) -> Result<(), CliError> {
    let Action::Check { file, format } = &args.action;
    let report = plan_check::check(file)?;
    if *format != Format::Table || !report.overlaps.is_empty() {
        cli::print(&render::render(*format, &COLUMNS, &report.overlaps)?)?;
    }
    if report.overlaps.is_empty() {
        let plan = &report.plan;
        eprintln!(
            "{}: the plan can be used: {} secretariats, {} prefixes, {} segments; no claims overlap",
            file.display(),
            plan.secretariats.len(),
            plan.prefixes.len(),
            plan.segments.len()
        );
        return Ok(());
    }
    let found = report.overlaps.len().saturating_add(report.unlisted);
    let unlisted = match report.unlisted {
        0 => String::new(),
        more => format!(" ({more} of them not listed)"),
    };
    Err(CliError::failure(anyhow::anyhow!(
        "{}: the plan can be used, but {found} pairs of claims of two address spaces overlap{unlisted}",
        file.display()
    )))
}

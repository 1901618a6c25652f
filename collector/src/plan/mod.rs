//! The command `plan`: whether an address plan can be used and which of its claims overlap, what an IPAM system says as
//! claims of the plan, and the plan in the formats of IPAM systems.

pub(crate) mod check;
pub(crate) mod claims;
mod export;
mod import;
mod place;
mod show;
mod versions;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum as _};
use onenet_core::plan::AddressPlan;
use onenet_proto::{
    config::{Document, check_plan, import_of, imports_of, read_import, read_plan, write_import},
    owner::as_owner_of,
};

use self::{
    check::OverlappingClaims,
    export::ExportFormat,
    import::{Difference, ImportFormat, Imported, mapping::Mapping},
    place::PlanPlace,
};
use crate::{
    cli::{self, CliError, Format, Place},
    clock, files,
    render::{self, Column},
    store::Store,
};

/// Refused rows that are told one by one; the others are counted.
const MAX_TOLD: usize = 1_000;
/// Lines of a difference that are shown.
const MAX_SHOWN: usize = 200;

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
        #[command(flatten)]
        plan: PlanPlace,
        /// How to print the overlapping claims.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Read the exports of an IPAM system and show what would change; --apply writes it.
    ///
    /// All files of one import are read together, so that prefixes find the tenants of their VRFs. One row that is
    /// refused refuses the import. What is written stands in PLAN's directory `.d` and takes the place of what was
    /// imported from the same source before; `onenet-collector run` reads it on SIGHUP.
    Import(ImportArgs),
    /// Show what the plan says: prefixes, or addresses, people's and imported.
    Show(show::ShowArgs),
    /// Write the plan's claims in the format of an IPAM system.
    Export {
        #[command(flatten)]
        plan: PlanPlace,
        /// The format.
        #[arg(long, value_enum)]
        format: ExportFormat,
        /// Addresses instead of prefixes.
        #[arg(long)]
        addresses: bool,
    },
    /// List the versions that the collector has issued to its sensors, the latest first.
    Versions(versions::VersionsArgs),
}

/// Arguments of `plan import`.
#[derive(Debug, Args)]
struct ImportArgs {
    /// Whose export it is.
    #[arg(long, value_enum)]
    format: ImportFormat,
    /// The plan that it is for, which has the secretariats, instead of a collector's.
    #[arg(long, value_name = "PLAN", conflicts_with_all = ["config", "dir"])]
    plan: Option<PathBuf>,
    /// The collector whose plan it is for; what is written is entered into its audit trail.
    #[command(flatten)]
    place: Place,
    /// Which secretariat stands behind which tenant, VRF, section, network view or site.
    #[arg(long, value_name = "FILE")]
    mapping: Option<PathBuf>,
    /// Name of the source, where there are several of one format.
    #[arg(long, value_parser = crate::enroll::name)]
    source: Option<String>,
    /// Write it.
    #[arg(long)]
    apply: bool,
    /// The exports, CSV in UTF-8.
    #[arg(required = true)]
    files: Vec<PathBuf>,
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
    match &args.action {
        Action::Check { plan, format } => run_check(&plan.file()?, *format),
        Action::Import(args) => run_import(args),
        Action::Show(args) => show::run(args),
        Action::Versions(args) => versions::run(args),
        Action::Export { plan, format, addresses } => {
            let (plan, _) = read_plan(&plan.file()?)?;
            cli::print(&export::write(&plan, *format, *addresses)?)
        }
    }
}

fn run_check(file: &Path, format: Format) -> Result<(), CliError> {
    let report = check::check(file)?;
    if format != Format::Table || !report.overlaps.is_empty() {
        cli::print(&render::render(format, &COLUMNS, &report.overlaps)?)?;
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

fn run_import(args: &ImportArgs) -> Result<(), CliError> {
    // The secretariats are people's; another source's import has no say in this one.
    let config = if args.plan.is_some() { None } else { Some(args.place.config()?) };
    let file = match (&args.plan, &config) {
        (Some(file), _) => file,
        (None, Some(config)) => &config.plan.file,
        (None, None) => return Err(CliError::usage(anyhow::anyhow!("expected --plan, --dir or --config"))),
    };
    let document = Document::open(file)?;
    let plan: AddressPlan = document.parse()?;
    check_plan(&plan, &document, None)?;
    let mapping = match &args.mapping {
        Some(file) => Mapping::read(file, &plan)?,
        None => Mapping::default(),
    };
    let now = import::read(args.format, &args.files, &plan, &mapping).map_err(|rejects| {
        for reject in rejects.iter().take(MAX_TOLD) {
            eprintln!("{reject}");
        }
        let more = rejects.len().saturating_sub(MAX_TOLD);
        let more = if more > 0 { format!(" ({more} of them not shown)") } else { String::new() };
        CliError::failure(anyhow::anyhow!("nothing is imported: {} rows are refused{more}", rejects.len()))
    })?;
    let format = args.format.to_possible_value().map(|value| value.get_name().to_owned());
    let source = args.source.clone().or(format).unwrap_or_default();
    let path = import_of(file, &source);
    let before = if path.exists() {
        let (_, prefixes, addresses) = read_import(&path)?;
        Imported { prefixes, addresses }
    } else {
        Imported::default()
    };
    let difference = Difference::of(&before, &now);
    let [added, removed, changed] = difference.counts();
    let mut text = String::new();
    for (sign, line) in difference.lines.iter().take(MAX_SHOWN) {
        text.push_str(&format!("{sign} {line}\n"));
    }
    if difference.lines.len() > MAX_SHOWN {
        text.push_str(&format!("  … and {} more\n", difference.lines.len() - MAX_SHOWN));
    }
    text.push_str(&format!(
        "{source}: {} prefixes and {} addresses: {added} added, {removed} removed, {changed} changed\n",
        now.prefixes.len(),
        now.addresses.len()
    ));
    if args.apply {
        let written = write_import(&source, clock::now().to_string(), &now.prefixes, &now.addresses);
        apply(file, &source, &written.map_err(CliError::failure)?)?;
        if let Some(config) = &config {
            let detail = format!(
                "{source} into {}: {added} claims added, {removed} removed, {changed} changed",
                path.display()
            );
            let store = as_owner_of(&config.store.directory, || Store::attach(&config.store))?;
            store.audit(clock::now(), "plan-imported", detail)?;
        }
        text.push_str(&format!("written to {}\n", path.display()));
    } else {
        text.push_str("nothing is written; --apply writes it\n");
    }
    cli::print(&text)
}

/// Puts an import in the place of the one before, whole: a reader sees the one or the other.
fn apply(plan: &Path, source: &str, text: &str) -> Result<(), CliError> {
    let (directory, path) = (imports_of(plan), import_of(plan, source));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let replace = || {
        std::fs::create_dir_all(&directory)?;
        files::replace(&directory, &name, text.as_bytes(), files::SHARED)
    };
    as_owner_of(&directory, replace)
        .with_context(|| format!("{} cannot be written", path.display()))
        .map_err(CliError::failure)
}

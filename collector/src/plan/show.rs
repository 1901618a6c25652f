//! `plan show`: what the plan says, people's and imported, with filters.

use std::path::PathBuf;

use clap::Args;
use ipnet::IpNet;
use onenet_core::plan::{AddressPlan, PlannedAddress, Prefix, PrefixStatus};
use onenet_proto::config::read_plan;
use serde::Serialize;

use crate::{
    cli::{self, CliError, Format},
    render::{self, Column},
    search::Within,
};

/// Arguments of `plan show`.
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The plan.
    file: PathBuf,
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

/// One claim as it is shown.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Shown {
    claim: String,
    address_space: String,
    secretariat: String,
    agency: String,
    status: String,
    role: String,
    contact: String,
    description: String,
}

const COLUMNS: [Column<Shown>; 8] = [
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
    let (plan, _) = read_plan(&args.file)?;
    if let Some(id) = args.secretariat.as_ref().filter(|id| plan.secretariat(id).is_none()) {
        let error = anyhow::anyhow!("--secretariat {id}: no secretariat of {}", args.file.display());
        return Err(CliError::usage(error));
    }
    cli::print(&render::render(args.format, &COLUMNS, &shown(&plan, args))?)
}

fn shown(plan: &AddressPlan, args: &ShowArgs) -> Vec<Shown> {
    let wanted = |net: IpNet, secretariat: &str| {
        args.within.as_ref().is_none_or(|Within(within)| within.contains(&net) || net.contains(within))
            && args.secretariat.as_deref().is_none_or(|id| id == secretariat)
    };
    if args.addresses {
        let mut addresses: Vec<&PlannedAddress> =
            plan.addresses.iter().filter(|a| wanted(IpNet::from(a.address), &a.secretariat)).collect();
        addresses.sort_by_key(|address| address.address);
        let shown = |address: &&PlannedAddress| Shown {
            role: address.role.map_or_else(String::new, |role| role.to_string()),
            ..claim(plan, address.address.to_string(), &address.secretariat, address.agency.as_deref())
                .with(address.status, address.description.as_deref())
        };
        return addresses.iter().map(shown).collect();
    }
    let mut prefixes: Vec<&Prefix> =
        plan.prefixes.iter().filter(|p| wanted(p.cidr, &p.secretariat)).collect();
    prefixes.sort_by_key(|prefix| (prefix.cidr.network(), prefix.cidr.prefix_len()));
    let shown = |prefix: &&Prefix| {
        claim(plan, prefix.cidr.to_string(), &prefix.secretariat, prefix.agency.as_deref())
            .with(prefix.status, prefix.description.as_deref())
    };
    prefixes.iter().map(shown).collect()
}

fn claim(plan: &AddressPlan, claim: String, secretariat: &str, agency: Option<&str>) -> Shown {
    let owner = plan.secretariat(secretariat);
    let of_agency = agency.and_then(|agency| plan.agency(secretariat, agency)?.contact.as_ref());
    let contact = of_agency.or_else(|| owner?.contact.as_ref());
    Shown {
        claim,
        address_space: owner.map_or_else(String::new, |owner| owner.address_space().to_string()),
        secretariat: secretariat.to_owned(),
        agency: agency.unwrap_or_default().to_owned(),
        status: String::new(),
        role: String::new(),
        contact: contact.map_or_else(String::new, ToString::to_string),
        description: String::new(),
    }
}

impl Shown {
    fn with(self, status: PrefixStatus, description: Option<&str>) -> Self {
        let description = description.unwrap_or_default().to_owned();
        Self { status: status.to_string(), description, ..self }
    }
}

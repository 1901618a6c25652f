//! `plan export`: the plan's claims with the columns that IPAM systems import.

use onenet_core::plan::{AddressPlan, PlannedAddress, Prefix, PrefixStatus};

use crate::cli::CliError;

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ExportFormat {
    /// NetBox's import of prefixes or IP addresses; VRF is the address space, tenant the secretariat.
    Netbox,
    /// Columns prefix or address, secretariat, agency, status, role, description, as `plan import --format csv` reads.
    Csv,
}

const NETBOX_PREFIX: [&str; 17] = [
    "prefix",
    "vrf",
    "tenant",
    "vlan_group",
    "vlan_site",
    "vlan",
    "status",
    "role",
    "scope_type",
    "scope_name",
    "scope_id",
    "is_pool",
    "mark_utilized",
    "description",
    "owner",
    "comments",
    "tags",
];
const NETBOX_ADDRESS: [&str; 16] = [
    "address",
    "vrf",
    "tenant",
    "status",
    "role",
    "device",
    "virtual_machine",
    "interface",
    "fhrp_group",
    "is_primary",
    "is_oob",
    "dns_name",
    "description",
    "owner",
    "comments",
    "tags",
];
const OWN_PREFIX: [&str; 6] = ["prefix", "secretariat", "agency", "status", "role", "description"];
const OWN_ADDRESS: [&str; 6] = ["address", "secretariat", "agency", "status", "role", "description"];

/// The plan's prefixes, or its addresses, with a header.
pub(super) fn write(plan: &AddressPlan, format: ExportFormat, addresses: bool) -> Result<String, CliError> {
    let header: &[&str] = match (format, addresses) {
        (ExportFormat::Netbox, false) => &NETBOX_PREFIX,
        (ExportFormat::Netbox, true) => &NETBOX_ADDRESS,
        (ExportFormat::Csv, false) => &OWN_PREFIX,
        (ExportFormat::Csv, true) => &OWN_ADDRESS,
    };
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    let mut write = |cells: &dyn Fn(&str) -> String| {
        writer.write_record(header.iter().map(|column| cells(column))).map_err(CliError::failure)
    };
    write(&|column| column.to_owned())?;
    if addresses {
        for address in &plan.addresses {
            write(&|column| address_cell(plan, format, address, column))?;
        }
    } else {
        for prefix in &plan.prefixes {
            write(&|column| prefix_cell(plan, format, prefix, column))?;
        }
    }
    let bytes = writer.into_inner().map_err(|error| CliError::failure(anyhow::anyhow!("{error}")))?;
    String::from_utf8(bytes).map_err(CliError::failure)
}

fn prefix_cell(plan: &AddressPlan, format: ExportFormat, prefix: &Prefix, column: &str) -> String {
    match column {
        "prefix" => prefix.cidr.to_string(),
        "status" => prefix.status.to_string(),
        "agency" => text(prefix.agency.as_deref()),
        "description" => text(prefix.description.as_deref()),
        // NetBox's role of a prefix is a word of its own site.
        "role" => String::new(),
        "is_pool" | "mark_utilized" => "false".to_owned(),
        other => owner_cell(plan, format, &prefix.secretariat, other),
    }
}

fn address_cell(plan: &AddressPlan, format: ExportFormat, address: &PlannedAddress, column: &str) -> String {
    match (column, format) {
        ("address", ExportFormat::Netbox) => ipnet::IpNet::from(address.address).to_string(),
        ("address", ExportFormat::Csv) => address.address.to_string(),
        // A container holds others, and NetBox's addresses hold none.
        ("status", _) if address.status == PrefixStatus::Container => "active".to_owned(),
        ("status", _) => address.status.to_string(),
        ("role", _) => address.role.map_or_else(String::new, |role| role.to_string()),
        ("agency", _) => text(address.agency.as_deref()),
        ("description", _) => text(address.description.as_deref()),
        ("is_primary" | "is_oob", _) => "false".to_owned(),
        (other, _) => owner_cell(plan, format, &address.secretariat, other),
    }
}

fn owner_cell(plan: &AddressPlan, format: ExportFormat, secretariat: &str, column: &str) -> String {
    let owner = plan.secretariat(secretariat);
    match (column, format) {
        ("vrf", ExportFormat::Netbox) => {
            owner.map_or_else(String::new, |owner| owner.address_space().to_string())
        }
        ("tenant", ExportFormat::Netbox) | ("secretariat", ExportFormat::Csv) => secretariat.to_owned(),
        _ => String::new(),
    }
}

fn text(value: Option<&str>) -> String {
    value.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::import::{ImportFormat, Imported, mapping::Mapping, read};

    #[test]
    fn what_is_exported_imports_as_it_was() {
        let plan: AddressPlan = toml::from_str(
            "[[secretariat]]\nid = 'eohhs'\naddress_space = 'health'\n[[secretariat]]\nid = 'massdot'\n\
             [[prefix]]\ncidr = '10.1.0.0/16'\nsecretariat = 'eohhs'\nstatus = 'container'\n\
             description = 'wards, \"old\" ones'\n\
             [[prefix]]\ncidr = '10.1.2.0/24'\nsecretariat = 'eohhs'\n\
             [[prefix]]\ncidr = '10.1.2.0/24'\nsecretariat = 'massdot'\nstatus = 'deprecated'\n\
             [[prefix]]\ncidr = 'fd00:1::/48'\nsecretariat = 'massdot'\nstatus = 'reserved'\n\
             [[address]]\naddress = '10.1.2.1'\nsecretariat = 'eohhs'\nrole = 'vrrp'\ndescription = 'gw'\n\
             [[address]]\naddress = 'fd00:1::1'\nsecretariat = 'massdot'\n",
        )
        .expect("a plan");
        let directory = tempfile::tempdir().expect("a directory");
        for (format, as_import) in
            [(ExportFormat::Netbox, ImportFormat::Netbox), (ExportFormat::Csv, ImportFormat::Csv)]
        {
            let files = [false, true].map(|addresses| {
                let file = directory.path().join(if addresses { "addresses.csv" } else { "prefixes.csv" });
                std::fs::write(&file, write(&plan, format, addresses).expect("it is written"))
                    .expect("written");
                file
            });
            let imported = read(as_import, &files, &plan, &Mapping::default()).expect("it imports");
            let expected = Imported { prefixes: plan.prefixes.clone(), addresses: plan.addresses.clone() };
            assert_eq!(imported, expected, "{format:?}");
        }
    }

    #[test]
    fn netbox_gets_the_columns_of_its_own_export() {
        let plan = AddressPlan::default();
        let header = |addresses| write(&plan, ExportFormat::Netbox, addresses).expect("it is written");
        assert_eq!(
            header(false),
            "prefix,vrf,tenant,vlan_group,vlan_site,vlan,status,role,scope_type,scope_name,scope_id,is_pool,\
             mark_utilized,description,owner,comments,tags\r\n"
        );
        assert_eq!(
            header(true),
            "address,vrf,tenant,status,role,device,virtual_machine,interface,fhrp_group,is_primary,is_oob,dns_name,\
             description,owner,comments,tags\r\n"
        );
    }
}

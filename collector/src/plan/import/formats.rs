//! The formats: which columns of which system say what.
//!
//! | format | files, by their header | columns |
//! |---|---|---|
//! | `netbox` | prefixes (`prefix`), IP addresses (`address`), VRFs (`name`, `rd`) | NetBox's export: `vrf`, `tenant`, `status`, `role`, `site` or `scope_name`, `dns_name`, `description` |
//! | `infoblox` | network export (`header-network`; other objects are passed over) | `address`, `netmask`, `network_view`, `comment`, `EA-Site`, `EA-Tenant` |
//! | `phpipam` | subnets (`subnet`), addresses (`ip_addr`) | `section`, `mask`, `vrf`, `description`, `hostname`, `tag`, `is_gateway` |
//! | `csv` | our own: `prefix` or `address` | `secretariat`, `agency`, `status`, `role`, `description` |

use std::collections::BTreeMap;

use onenet_core::plan::{AddressPlan, AddressRole, PlannedAddress, PrefixStatus};

use super::{
    claim::{self, Claim, What},
    mapping::{Mapping, Owner, Said},
    sheet::{self, Reject, Row, Sheet},
};

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ImportFormat {
    /// NetBox's CSV exports of prefixes, IP addresses and VRFs.
    Netbox,
    /// Infoblox's CSV export of networks.
    Infoblox,
    /// phpIPAM's CSV exports of subnets and addresses.
    Phpipam,
    /// Columns prefix or address, secretariat, agency, status, role, description.
    Csv,
}

/// Reads what a row claims, and the table that it is in.
type ReadRow<R> = fn(&R, &Row<'_>) -> Result<(What, String), Reject>;

/// Reads the sheets of one import.
pub(super) struct Reader<'a> {
    pub(super) format: ImportFormat,
    pub(super) plan: &'a AddressPlan,
    pub(super) mapping: &'a Mapping,
    /// Tenants of the VRFs that a sheet listed, by the VRF's name.
    pub(super) vrfs: BTreeMap<String, String>,
    pub(super) claims: Vec<Claim>,
    pub(super) rejects: Vec<Reject>,
}

impl Reader<'_> {
    /// Reads the VRFs of a sheet, where it lists some; they are wanted before the prefixes in them.
    pub(super) fn read_vrfs(&mut self, sheet: &Sheet) {
        if self.format != ImportFormat::Netbox {
            return;
        }
        let Ok(header) = sheet.header() else { return };
        if !is_of_vrfs(&header) {
            return;
        }
        for row in sheet.rows(&header) {
            match row {
                Ok(row) if row.cell("name").is_empty() => {
                    self.rejects.push(row.reject("name", "empty; expected the name of the VRF"));
                }
                Ok(row) => {
                    self.vrfs.insert(row.cell("name").to_owned(), row.cell("tenant").to_owned());
                }
                Err(reject) => self.rejects.push(reject),
            }
        }
    }

    /// Reads the claims of a sheet; `number` is its place among the sheets.
    pub(super) fn read(&mut self, number: usize, sheet: &Sheet) {
        if self.format == ImportFormat::Infoblox {
            return self.read_infoblox(number, sheet);
        }
        let header = match sheet.header() {
            Ok(header) => header,
            Err(reject) => return self.rejects.push(reject),
        };
        let has = |column: &str| header.iter().any(|name| name == column);
        let read: ReadRow<Self> = match self.format {
            ImportFormat::Netbox if is_of_vrfs(&header) => return,
            ImportFormat::Netbox if has("prefix") => Self::netbox_prefix,
            ImportFormat::Netbox if has("address") => Self::netbox_address,
            ImportFormat::Phpipam if has("ip_addr") => Self::phpipam_address,
            ImportFormat::Phpipam if has("subnet") => Self::phpipam_subnet,
            ImportFormat::Csv if has("secretariat") && has("prefix") => Self::own_prefix,
            ImportFormat::Csv if has("secretariat") && has("address") => Self::own_address,
            format => {
                let expected = match format {
                    ImportFormat::Netbox => "a column prefix, address, or name and rd",
                    ImportFormat::Phpipam => "a column subnet or ip_addr",
                    _ => "the columns secretariat, and prefix or address",
                };
                let found = header.join(", ");
                return self
                    .rejects
                    .push(sheet.reject(1, format!("the header has {found}; expected {expected}")));
            }
        };
        for row in sheet.rows(&header) {
            self.take(number, row, read);
        }
    }

    fn take(&mut self, number: usize, row: Result<Row<'_>, Reject>, read: ReadRow<Self>) {
        let claimed = row.and_then(|row| {
            let (what, table) = read(self, &row)?;
            Ok(Claim { what, table, place: (number, row.line) })
        });
        match claimed {
            Ok(claim) => self.claims.push(claim),
            Err(reject) => self.rejects.push(reject),
        }
    }

    /// Infoblox writes several kinds of object into one file, each below a header of its own.
    fn read_infoblox(&mut self, number: usize, sheet: &Sheet) {
        let mut header: Option<Vec<String>> = None;
        let mut any = false;
        for record in sheet.records() {
            let (line, record) = match record {
                Ok(record) => record,
                Err(reject) => return self.rejects.push(reject),
            };
            let kind = record.get(0).unwrap_or_default().trim().to_ascii_lowercase();
            if kind.starts_with("header-") {
                any |= kind == "header-network";
                header = Some(sheet::names(&record));
            } else if kind == "network"
                && let Some(header) = header.as_ref().filter(|names| names[0] == "header-network")
            {
                self.take(number, sheet.row(header, line, record), Self::infoblox_network);
            }
        }
        if !any {
            self.rejects
                .push(sheet.reject(0, "no line begins with header-network; expected Infoblox's export"));
        }
    }

    fn owner(&self, row: &Row<'_>, column: &str, said: &Said<'_>) -> Result<Owner, Reject> {
        self.mapping.owner(self.plan, said).ok_or_else(|| {
            let named =
                |what, name: &str| if name.is_empty() { String::new() } else { format!(" {what} {name:?}") };
            let said = [
                named("tenant", said.tenant),
                named("vrf", said.vrf),
                named("section", said.section),
                named("view", said.view),
                named("site", said.site),
            ]
            .concat();
            let said = if said.is_empty() { " a row that names nobody".to_owned() } else { said };
            row.reject(
                column,
                format!("no secretariat is known for{said}; expected an entry of --mapping, or its id"),
            )
        })
    }

    fn of_netbox(&self, row: &Row<'_>) -> Result<Owner, Reject> {
        let vrf = row.cell("vrf");
        let stated = row.cell("tenant");
        let of_vrf = self.vrfs.get(vrf).map_or("", String::as_str);
        let site = [row.cell("site"), row.cell("scope_name")].into_iter().find(|cell| !cell.is_empty());
        let tenant = if stated.is_empty() { of_vrf } else { stated };
        self.owner(row, "tenant", &Said { tenant, vrf, site: site.unwrap_or_default(), ..Said::default() })
    }

    fn netbox_prefix(&self, row: &Row<'_>) -> Result<(What, String), Reject> {
        let (cidr, status) = (claim::prefix(row, "prefix")?, claim::status(row, "status")?);
        let description = claim::description(row, &["description", "comments"]);
        Ok((Claim::of_prefix(cidr, status, self.of_netbox(row)?, description), row.cell("vrf").to_owned()))
    }

    fn netbox_address(&self, row: &Row<'_>) -> Result<(What, String), Reject> {
        let owner = self.of_netbox(row)?;
        let what =
            of_address(row, "address", owner, claim::status(row, "status")?, claim::role(row, "role")?)?;
        Ok((what, row.cell("vrf").to_owned()))
    }

    fn infoblox_network(&self, row: &Row<'_>) -> Result<(What, String), Reject> {
        let cidr = claim::prefix_with_mask(row, "address", "netmask")?;
        let view = row.cell("network_view");
        let said = Said { tenant: row.cell("ea-tenant"), view, site: row.cell("ea-site"), ..Said::default() };
        let owner = self.owner(row, "network_view", &said)?;
        let description = claim::description(row, &["comment"]);
        Ok((Claim::of_prefix(cidr, PrefixStatus::Active, owner, description), view.to_owned()))
    }

    fn of_phpipam(&self, row: &Row<'_>) -> Result<Owner, Reject> {
        self.owner(
            row,
            "section",
            &Said { section: row.cell("section"), vrf: row.cell("vrf"), ..Said::default() },
        )
    }

    fn phpipam_table(row: &Row<'_>) -> String {
        let vrf = row.cell("vrf");
        if vrf.is_empty() { format!("section {}", row.cell("section")) } else { vrf.to_owned() }
    }

    fn phpipam_subnet(&self, row: &Row<'_>) -> Result<(What, String), Reject> {
        let cidr = claim::prefix_with_mask(row, "subnet", "mask")?;
        let description = claim::description(row, &["description"]);
        let what = Claim::of_prefix(cidr, PrefixStatus::Active, self.of_phpipam(row)?, description);
        Ok((what, Self::phpipam_table(row)))
    }

    fn phpipam_address(&self, row: &Row<'_>) -> Result<(What, String), Reject> {
        let what = of_address(row, "ip_addr", self.of_phpipam(row)?, claim::status(row, "tag")?, None)?;
        Ok((what, Self::phpipam_table(row)))
    }

    fn of_own(&self, row: &Row<'_>) -> Result<Owner, Reject> {
        let (id, agency) = (row.cell("secretariat"), row.cell("agency"));
        let Some(secretariat) = self.plan.secretariat(id) else {
            return Err(row.reject("secretariat", format!("{id:?} is no secretariat of the plan")));
        };
        if !agency.is_empty() && self.plan.agency(id, agency).is_none() {
            return Err(row.reject("agency", format!("{agency:?} is no agency of {id} in the plan")));
        }
        let agency = (!agency.is_empty()).then(|| agency.into());
        Ok(Owner { secretariat: secretariat.id.clone(), agency })
    }

    fn own_prefix(&self, row: &Row<'_>) -> Result<(What, String), Reject> {
        let owner = self.of_own(row)?;
        let table = owner.secretariat.to_string();
        let (cidr, status) = (claim::prefix(row, "prefix")?, claim::status(row, "status")?);
        Ok((Claim::of_prefix(cidr, status, owner, claim::description(row, &["description"])), table))
    }

    fn own_address(&self, row: &Row<'_>) -> Result<(What, String), Reject> {
        let owner = self.of_own(row)?;
        let table = owner.secretariat.to_string();
        let what =
            of_address(row, "address", owner, claim::status(row, "status")?, claim::role(row, "role")?)?;
        Ok((what, table))
    }
}

fn is_of_vrfs(header: &[String]) -> bool {
    let has = |column: &str| header.iter().any(|name| name == column);
    has("name") && has("rd") && !has("prefix") && !has("address")
}

fn of_address(
    row: &Row<'_>,
    column: &str,
    owner: Owner,
    status: PrefixStatus,
    role: Option<AddressRole>,
) -> Result<What, Reject> {
    Ok(What::Address(PlannedAddress {
        address: claim::address(row, column)?,
        secretariat: owner.secretariat,
        agency: owner.agency,
        status,
        role,
        description: claim::description(row, &["dns_name", "hostname", "description"]),
    }))
}

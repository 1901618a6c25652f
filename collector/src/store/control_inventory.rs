//! The address inventory in the control database: one row per address and address space that was seen in use.

use std::{collections::BTreeSet, net::IpAddr};

use onenet_core::{
    ipam::Usage,
    net::{MacAddress, Name},
    record::{Observation, ObservationEvidence, ObservationKind, Strength},
    time::Timestamp,
};
use rusqlite::{Connection, Row, params};
use serde::Serialize;

use super::{
    control_findings::{from_json, to_json, wrong},
    flow_row::{IpBytes, counter},
    inventory_list::{InventoryKey, Standing},
};

/// The table.
pub(super) const SCHEMA: &str = "
CREATE TABLE inventory (
    address BLOB NOT NULL,                  -- 4 or 16 bytes in network order
    address_space TEXT NOT NULL,
    secretariat TEXT,
    strength INTEGER NOT NULL,              -- of the strongest observation
    kinds INTEGER NOT NULL,                 -- bit set of the codes of observation kinds
    first_seen INTEGER NOT NULL,            -- packet time
    last_seen INTEGER NOT NULL,
    packets INTEGER NOT NULL,
    hostnames TEXT NOT NULL,                -- JSON, the latest first
    witnesses TEXT NOT NULL,                -- of earlier versions
    usages TEXT NOT NULL DEFAULT '[]',      -- JSON, bounded: by site and segment
    standing TEXT,                          -- finding of the plan's that the entry belongs to, where there is one
    PRIMARY KEY (address, address_space)
) STRICT, WITHOUT ROWID;
";

/// What came later: indexes for looking at all entries, servers of DHCP, sums of what sensors could not tell apart, and
/// when all of it was last looked at.
pub(super) const LATER: &str = "
-- Of an earlier version.
DROP INDEX IF EXISTS inventory_used;
CREATE INDEX IF NOT EXISTS inventory_listed
    ON inventory (length(address), address, address_space, strength, secretariat, last_seen, standing);
CREATE INDEX IF NOT EXISTS inventory_standing ON inventory (standing, last_seen) WHERE standing IS NOT NULL;
CREATE TABLE IF NOT EXISTS dhcp_servers (
    site TEXT NOT NULL,
    segment TEXT NOT NULL,
    address BLOB NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    PRIMARY KEY (site, segment, address)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS address_sums (
    site TEXT NOT NULL,
    segment TEXT NOT NULL,
    prefix TEXT NOT NULL,
    mac TEXT NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    packets INTEGER NOT NULL,
    addresses INTEGER NOT NULL,             -- the most in one report
    top TEXT NOT NULL,                      -- JSON, of the latest report
    PRIMARY KEY (site, segment, prefix, mac)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sweeps (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    plan TEXT NOT NULL,                     -- hash of the plan
    began INTEGER,                          -- packet time of the first one with observations
    swept INTEGER                           -- packet time
) STRICT;
";

/// Brings the table of an earlier version up to date.
pub(crate) fn upgrade(connection: &Connection) -> Result<(), rusqlite::Error> {
    let has = |column: &str| {
        connection.query_row(
            "SELECT count(*) FROM pragma_table_info('inventory') WHERE name = ?",
            [column],
            |row| row.get::<_, i64>(0),
        )
    };
    if has("usages")? == 0 {
        connection.execute_batch("ALTER TABLE inventory ADD COLUMN usages TEXT NOT NULL DEFAULT '[]'")?;
    }
    if has("standing")? == 0 {
        connection.execute_batch("ALTER TABLE inventory ADD COLUMN standing TEXT")?;
    }
    connection.execute_batch(LATER)
}

/// Attachments that an entry tells apart: the latest.
const MAX_USAGES: usize = 8;
/// Host names that an entry keeps: the latest.
const MAX_HOSTNAMES: usize = 4;

/// One address in use in one address space.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InventoryEntry {
    /// The address.
    pub(crate) address: IpAddr,
    /// Where it is meant to be unique.
    pub(crate) address_space: Name,
    /// Secretariat of the segment it was last seen on.
    pub(crate) secretariat: Option<Name>,
    /// Of the strongest observation.
    pub(crate) strength: Strength,
    /// Bit set of the codes of the kinds that showed it.
    pub(crate) kinds: u32,
    /// First packet that showed it.
    pub(crate) first_seen: Timestamp,
    /// Last packet that showed it.
    pub(crate) last_seen: Timestamp,
    /// Packets that showed it.
    pub(crate) packets: u64,
    /// Names that the host gave itself, the latest first.
    pub(crate) hostnames: Vec<String>,
    /// How it is used at each attachment, the latest first.
    pub(crate) usages: Vec<Usage>,
    /// Key of the finding about the plan that it belongs to, where it is not used as the plan says.
    pub(crate) standing: Option<String>,
}

impl InventoryEntry {
    /// The entry of an address seen for the first time.
    pub(crate) fn first(observation: &Observation) -> Self {
        let mut entry = Self {
            address: observation.address,
            address_space: observation.address_space.clone(),
            secretariat: None,
            strength: observation.strength,
            kinds: 0,
            first_seen: observation.first_seen,
            last_seen: observation.last_seen,
            packets: 0,
            hostnames: Vec::new(),
            usages: Vec::new(),
            standing: None,
        };
        entry.add(observation);
        entry
    }

    /// Enters one more observation of the address.
    pub(crate) fn add(&mut self, observation: &Observation) {
        if observation.secretariat.is_some() {
            self.secretariat.clone_from(&observation.secretariat);
        }
        self.strength = self.strength.max(observation.strength);
        self.kinds |= observation.kind.bit();
        self.first_seen = self.first_seen.min(observation.first_seen);
        self.last_seen = self.last_seen.max(observation.last_seen);
        self.packets = self.packets.saturating_add(observation.packets);
        if let Some(hostname) = observation.hostname.as_ref().filter(|name| !name.is_empty()) {
            self.hostnames.retain(|known| known != hostname);
            self.hostnames.insert(0, hostname.clone());
            self.hostnames.truncate(MAX_HOSTNAMES);
        }
        let usage = match self.usages.iter().position(|usage| usage.is_of(observation)) {
            Some(at) => {
                let mut usage = self.usages.remove(at);
                usage.add(observation);
                usage
            }
            None => Usage::first(observation),
        };
        let at = self.usages.partition_point(|held| held.last_seen > usage.last_seen);
        self.usages.insert(at, usage);
        self.usages.truncate(MAX_USAGES);
    }

    /// Whether anything shows a use: an address that was only asked for is not in use.
    pub(crate) fn in_use(&self) -> bool {
        self.strength > Strength::Weak
    }

    /// Whether a kind of observation showed it.
    pub(crate) fn was_shown_by(&self, kind: ObservationKind) -> bool {
        self.kinds & kind.bit() != 0
    }

    /// Kinds of observation that showed it.
    pub(crate) fn kinds(&self) -> Vec<ObservationKind> {
        ObservationKind::ALL.iter().filter(|kind| self.was_shown_by(**kind)).copied().collect()
    }

    /// Sites it was seen at.
    pub(crate) fn sites(&self) -> BTreeSet<Name> {
        self.usages.iter().map(|usage| usage.site.clone()).collect()
    }

    /// Segments it was seen on.
    pub(crate) fn segments(&self) -> BTreeSet<Name> {
        self.usages.iter().filter_map(|usage| usage.segment.clone()).collect()
    }

    /// MAC addresses it was seen with.
    pub(crate) fn macs(&self) -> BTreeSet<MacAddress> {
        self.usages.iter().flat_map(|usage| &usage.stations).filter_map(|station| station.mac).collect()
    }

    /// What was seen of each station.
    pub(crate) fn witnesses(&self) -> Vec<ObservationEvidence> {
        self.usages.iter().flat_map(|usage| usage.evidence(self.address)).collect()
    }
}

/// An entry in a list: its uses in full are told by themselves.
impl Serialize for InventoryEntry {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct View<'a> {
            address: IpAddr,
            address_space: &'a Name,
            secretariat: &'a Option<Name>,
            segments: BTreeSet<Name>,
            sites: BTreeSet<Name>,
            macs: BTreeSet<MacAddress>,
            hostnames: &'a [String],
            kinds: Vec<ObservationKind>,
            strength: Strength,
            first_seen: Timestamp,
            last_seen: Timestamp,
            packets: u64,
            standing: &'a str,
        }
        View {
            address: self.address,
            address_space: &self.address_space,
            secretariat: &self.secretariat,
            segments: self.segments(),
            sites: self.sites(),
            macs: self.macs(),
            hostnames: &self.hostnames,
            kinds: self.kinds(),
            strength: self.strength,
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            packets: self.packets,
            standing: self.standing_word().as_str(),
        }
        .serialize(serializer)
    }
}

impl InventoryEntry {
    /// How its use stands to the plan.
    pub(crate) fn standing_word(&self) -> Standing {
        Standing::of_key(self.standing.as_deref())
    }

    /// Its place in the order of addresses.
    pub(crate) fn key(&self) -> InventoryKey {
        InventoryKey { address: self.address, address_space: self.address_space.clone() }
    }
}

pub(super) const COLUMNS: &str =
    "address, address_space, secretariat, strength, kinds, first_seen, last_seen, packets,
     hostnames, usages, standing";
/// Place of the uses among them.
pub(super) const USAGES: usize = 9;

/// What an observation made of the entries of its address.
#[derive(Debug)]
pub(crate) struct Entered {
    /// The entry of its address space as it is now.
    pub(crate) entry: InventoryEntry,
    /// The standing that the entry had.
    pub(crate) before: Option<String>,
    /// The entries of the address in all other address spaces.
    pub(crate) others: Vec<InventoryEntry>,
}

/// Enters one observation; `standing` says which standing its entry has now. All entries of the address are read at once: they
/// stand together, and a second statement costs more than what it finds.
pub(crate) fn upsert(
    connection: &Connection,
    observation: &Observation,
    standing: impl FnOnce(&InventoryEntry) -> Option<String>,
) -> Result<Entered, rusqlite::Error> {
    let address = IpBytes::of(observation.address);
    let mut others = of_address(connection, observation.address)?;
    let known = others.iter().position(|entry| entry.address_space == observation.address_space);
    let mut entry = match known {
        Some(at) => {
            let mut entry = others.remove(at);
            entry.add(observation);
            entry
        }
        None => InventoryEntry::first(observation),
    };
    let now = standing(&entry);
    let before = std::mem::replace(&mut entry.standing, now);
    connection
        .prepare_cached("INSERT OR REPLACE INTO inventory VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, '[]', ?, ?)")?
        .execute(params![
            address.as_ref(),
            &*entry.address_space,
            entry.secretariat.as_deref(),
            entry.strength.code(),
            entry.kinds,
            entry.first_seen.0,
            entry.last_seen.0,
            counter(entry.packets),
            to_json(&entry.hostnames)?,
            to_json(&entry.usages)?,
            entry.standing,
        ])?;
    Ok(Entered { entry, before, others })
}

/// The entries of one address in every address space.
pub(crate) fn of_address(
    connection: &Connection,
    address: IpAddr,
) -> Result<Vec<InventoryEntry>, rusqlite::Error> {
    let sql = format!("SELECT {COLUMNS} FROM inventory WHERE address = ? ORDER BY address_space");
    connection.prepare_cached(&sql)?.query_map([IpBytes::of(address).as_ref()], read)?.collect()
}

/// How many addresses are in use, and in how many address spaces.
pub(crate) fn count(connection: &Connection) -> Result<(u64, u64), rusqlite::Error> {
    let sql = "SELECT count(*), count(DISTINCT address_space) FROM inventory INDEXED BY inventory_listed
               WHERE strength > 0";
    connection.query_row(sql, [], |row| {
        Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
    })
}

/// The latest packet that showed any address.
pub(crate) fn latest(connection: &Connection) -> Result<Option<Timestamp>, rusqlite::Error> {
    let sql = "SELECT max(last_seen) FROM inventory INDEXED BY inventory_listed";
    connection.query_row(sql, [], |row| Ok(row.get::<_, Option<i64>>(0)?.map(Timestamp)))
}

pub(super) fn address_of(row: &Row<'_>, column: usize) -> Result<IpAddr, rusqlite::Error> {
    let bytes = row.get_ref(column)?.as_blob()?;
    let address = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let address = address.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
    address.map_err(|_| wrong(column, "an address of 4 or 16 bytes"))
}

pub(super) fn strength_of(row: &Row<'_>, column: usize) -> Result<Strength, rusqlite::Error> {
    Strength::from_code(row.get(column)?).ok_or_else(|| wrong(column, "a known strength"))
}

pub(super) fn read(row: &Row<'_>) -> Result<InventoryEntry, rusqlite::Error> {
    Ok(InventoryEntry {
        address: address_of(row, 0)?,
        address_space: row.get(1)?,
        secretariat: row.get(2)?,
        strength: strength_of(row, 3)?,
        kinds: row.get(4)?,
        first_seen: Timestamp(row.get(5)?),
        last_seen: Timestamp(row.get(6)?),
        packets: row.get::<_, i64>(7)?.cast_unsigned(),
        hostnames: from_json(row, 8)?,
        usages: from_json(row, USAGES)?,
        standing: row.get(10)?,
    })
}

//! The address inventory in the control database: one row per address and address space that was seen in use.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use onenet_core::{
    net::{MacAddress, Name},
    record::{Observation, ObservationEvidence, ObservationKind, Strength},
    time::Timestamp,
};
use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, params};
use serde::Serialize;

use super::{
    control_findings::{from_json, to_json, wrong},
    flow_row::{IpBytes, counter},
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
    witnesses TEXT NOT NULL,                -- JSON, bounded
    PRIMARY KEY (address, address_space)
) STRICT, WITHOUT ROWID;
";

/// Witnesses that an entry keeps: the strongest and latest.
const MAX_WITNESSES: usize = 16;
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
    /// By what, where and with which MAC address it was seen, the strongest and latest first.
    pub(crate) witnesses: Vec<ObservationEvidence>,
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
            witnesses: Vec::new(),
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
        self.kinds |= 1_u32.checked_shl(u32::from(observation.kind.code())).unwrap_or(0);
        self.first_seen = self.first_seen.min(observation.first_seen);
        self.last_seen = self.last_seen.max(observation.last_seen);
        self.packets = self.packets.saturating_add(observation.packets);
        if let Some(hostname) = observation.hostname.as_ref().filter(|name| !name.is_empty()) {
            self.hostnames.retain(|known| known != hostname);
            self.hostnames.insert(0, hostname.clone());
            self.hostnames.truncate(MAX_HOSTNAMES);
        }
        self.witness(observation);
    }

    fn witness(&mut self, observation: &Observation) {
        let same = |known: &&mut ObservationEvidence| {
            (&known.site, &known.segment, known.kind, known.mac)
                == (&observation.site, &observation.segment, observation.kind, observation.mac)
        };
        match self.witnesses.iter_mut().find(same) {
            Some(known) => {
                known.first_seen = known.first_seen.min(observation.first_seen);
                known.last_seen = known.last_seen.max(observation.last_seen);
                known.strength = known.strength.max(observation.strength);
            }
            None => self.witnesses.push(observation.into()),
        }
        self.witnesses.sort_by(|a, b| {
            let rank = |o: &ObservationEvidence| (o.strength, o.last_seen);
            rank(b)
                .cmp(&rank(a))
                .then((&a.site, &a.segment, a.kind, a.mac).cmp(&(&b.site, &b.segment, b.kind, b.mac)))
        });
        self.witnesses.truncate(MAX_WITNESSES);
    }

    /// Whether anything shows a use: an address that was only asked for is not in use.
    pub(crate) fn in_use(&self) -> bool {
        self.strength > Strength::Weak
    }

    /// Kinds of observation that showed it.
    pub(crate) fn kinds(&self) -> Vec<ObservationKind> {
        let set = |kind: &&ObservationKind| {
            self.kinds.checked_shr(u32::from(kind.code())).is_some_and(|bits| bits & 1 == 1)
        };
        ObservationKind::ALL.iter().filter(set).copied().collect()
    }

    /// Sites it was seen at.
    pub(crate) fn sites(&self) -> BTreeSet<Name> {
        self.witnesses.iter().map(|witness| witness.site.clone()).collect()
    }

    /// Segments it was seen on.
    pub(crate) fn segments(&self) -> BTreeSet<Name> {
        self.witnesses.iter().filter_map(|witness| witness.segment.clone()).collect()
    }

    /// MAC addresses it was seen with.
    pub(crate) fn macs(&self) -> BTreeSet<MacAddress> {
        self.witnesses.iter().filter_map(|witness| witness.mac).collect()
    }
}

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
            witnesses: &'a [ObservationEvidence],
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
            witnesses: &self.witnesses,
        }
        .serialize(serializer)
    }
}

/// Which entries are asked for. What is not stated does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InventoryFilter {
    /// The address, or the prefix it is in.
    pub(crate) within: Option<IpNet>,
    /// Its address space.
    pub(crate) address_space: Option<String>,
    /// A site it was seen at.
    pub(crate) site: Option<String>,
}

const COLUMNS: &str = "address, address_space, secretariat, strength, kinds, first_seen, last_seen, packets,
     hostnames, witnesses";

/// Enters one observation; gives the entry as it is now.
pub(crate) fn upsert(
    connection: &Connection,
    observation: &Observation,
) -> Result<InventoryEntry, rusqlite::Error> {
    let sql = format!("SELECT {COLUMNS} FROM inventory WHERE address = ? AND address_space = ?");
    let address = IpBytes::of(observation.address);
    let known = connection
        .prepare_cached(&sql)?
        .query_row(params![address.as_ref(), &*observation.address_space], read)
        .optional()?;
    let entry = match known {
        Some(mut entry) => {
            entry.add(observation);
            entry
        }
        None => InventoryEntry::first(observation),
    };
    connection
        .prepare_cached("INSERT OR REPLACE INTO inventory VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?
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
            to_json(&entry.witnesses)?,
        ])?;
    Ok(entry)
}

/// The entries of one address in every address space.
pub(crate) fn of_address(
    connection: &Connection,
    address: IpAddr,
) -> Result<Vec<InventoryEntry>, rusqlite::Error> {
    let sql = format!("SELECT {COLUMNS} FROM inventory WHERE address = ? ORDER BY address_space");
    connection.prepare_cached(&sql)?.query_map([IpBytes::of(address).as_ref()], read)?.collect()
}

/// Entries that match, by address and address space.
pub(crate) fn entries(
    connection: &Connection,
    filter: &InventoryFilter,
    limit: u32,
    offset: u32,
) -> Result<Vec<InventoryEntry>, rusqlite::Error> {
    let mut conditions = vec!["true"];
    let mut values: Vec<Box<dyn ToSql>> = Vec::new();
    if let Some(within) = filter.within {
        conditions.push("address BETWEEN ? AND ? AND length(address) = ?");
        let (first, last) = (IpBytes::of(within.network()), IpBytes::of(within.broadcast()));
        let length = first.as_ref().len();
        values
            .extend([Box::new(first.as_ref().to_vec()) as Box<dyn ToSql>, Box::new(last.as_ref().to_vec())]);
        values.push(Box::new(u8::try_from(length).unwrap_or(0)));
    }
    if let Some(space) = &filter.address_space {
        conditions.push("address_space = ?");
        values.push(Box::new(space.clone()));
    }
    if let Some(site) = &filter.site {
        conditions.push("EXISTS (SELECT 1 FROM json_each(witnesses) WHERE value ->> 'site' = ?)");
        values.push(Box::new(site.clone()));
    }
    let sql = format!(
        "SELECT {COLUMNS} FROM inventory WHERE {}
         ORDER BY length(address), address, address_space LIMIT {limit} OFFSET {offset}",
        conditions.join(" AND ")
    );
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_map(rusqlite::params_from_iter(values), read)?.collect()
}

/// How many addresses are in use, and in how many address spaces.
pub(crate) fn count(connection: &Connection) -> Result<(u64, u64), rusqlite::Error> {
    let sql = "SELECT count(*), count(DISTINCT address_space) FROM inventory WHERE strength > 0";
    connection.query_row(sql, [], |row| {
        Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
    })
}

fn read(row: &Row<'_>) -> Result<InventoryEntry, rusqlite::Error> {
    let bytes = row.get_ref(0)?.as_blob()?;
    let address = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let address = address.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
    Ok(InventoryEntry {
        address: address.map_err(|_| wrong(0, "an address of 4 or 16 bytes"))?,
        address_space: row.get(1)?,
        secretariat: row.get(2)?,
        strength: Strength::from_code(row.get(3)?).ok_or_else(|| wrong(3, "a known strength"))?,
        kinds: row.get(4)?,
        first_seen: Timestamp(row.get(5)?),
        last_seen: Timestamp(row.get(6)?),
        packets: row.get::<_, i64>(7)?.cast_unsigned(),
        hostnames: from_json(row, 8)?,
        witnesses: from_json(row, 9)?,
    })
}

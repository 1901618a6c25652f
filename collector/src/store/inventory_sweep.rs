//! The inventory as a whole: what a look at everything reads of it, groups of entries that are not used as the plan says,
//! DHCP servers, and sums of what sensors could not tell apart.

use std::net::IpAddr;

use onenet_core::{
    net::Name,
    record::{Observation, Strength, TopAddress},
    time::Timestamp,
};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;

use super::{
    control_findings::{from_json, to_json},
    control_inventory::{COLUMNS, InventoryEntry, address_of, read, strength_of},
    flow_row::{IpBytes, counter},
};

/// What a sweep reads of an entry.
#[derive(Clone, Debug)]
pub(crate) struct Used {
    /// The address.
    pub(crate) address: IpAddr,
    /// Where it is meant to be unique.
    pub(crate) address_space: Name,
    /// Whose segment it was seen on.
    pub(crate) secretariat: Option<Name>,
    /// Of the strongest observation.
    pub(crate) strength: Strength,
    /// Last packet.
    pub(crate) last_seen: Timestamp,
    /// Key of its group.
    pub(crate) standing: Option<String>,
}

/// Every entry that is in use, by address.
pub(crate) fn for_each_used(
    connection: &Connection,
    mut each: impl FnMut(Used),
) -> Result<(), rusqlite::Error> {
    let sql = "SELECT address, address_space, secretariat, strength, last_seen, standing
               FROM inventory INDEXED BY inventory_listed WHERE strength > 0
               ORDER BY length(address), address, address_space";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    // Names repeat: there are as many as secretariats.
    let mut names: Vec<Name> = Vec::new();
    let mut name = |text: &str| -> Name {
        if let Some(known) = names.iter().find(|known| ***known == *text) {
            return known.clone();
        }
        let new = Name::from(text);
        if names.len() < 64 {
            names.push(new.clone());
        }
        new
    };
    while let Some(row) = rows.next()? {
        each(Used {
            address: address_of(row, 0)?,
            address_space: name(row.get_ref(1)?.as_str()?),
            secretariat: row.get_ref(2)?.as_str_or_null()?.map(&mut name),
            strength: strength_of(row, 3)?,
            last_seen: Timestamp(row.get(4)?),
            standing: row.get(5)?,
        });
    }
    Ok(())
}

/// Sets the group that an entry belongs to.
pub(crate) fn set_standing(
    connection: &Connection,
    address: IpAddr,
    address_space: &str,
    standing: Option<&str>,
) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached("UPDATE inventory SET standing = ? WHERE address = ? AND address_space = ?")?
        .execute(params![standing, IpBytes::of(address).as_ref(), address_space])?;
    Ok(())
}

/// A group of entries in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GroupSum {
    /// Addresses.
    pub(crate) addresses: u64,
    /// First packet.
    pub(crate) first_seen: Timestamp,
    /// Last packet.
    pub(crate) last_seen: Timestamp,
    /// Packets.
    pub(crate) packets: u64,
}

/// The entries of a group that were seen since `horizon`, in numbers.
pub(crate) fn group(
    connection: &Connection,
    key: &str,
    horizon: Timestamp,
) -> Result<GroupSum, rusqlite::Error> {
    let sql = "SELECT count(*), coalesce(min(first_seen), 0), coalesce(max(last_seen), 0), coalesce(sum(packets), 0)
               FROM inventory WHERE standing = ? AND last_seen >= ?";
    connection.prepare_cached(sql)?.query_row(params![key, horizon.0], |row| {
        Ok(GroupSum {
            addresses: row.get::<_, i64>(0)?.cast_unsigned(),
            first_seen: Timestamp(row.get(1)?),
            last_seen: Timestamp(row.get(2)?),
            packets: row.get::<_, i64>(3)?.cast_unsigned(),
        })
    })
}

/// Some entries of a group that were seen since `horizon`.
pub(crate) fn of_group(
    connection: &Connection,
    key: &str,
    horizon: Timestamp,
    limit: u32,
) -> Result<Vec<InventoryEntry>, rusqlite::Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM inventory WHERE standing = ? AND last_seen >= ?
         ORDER BY length(address), address, address_space LIMIT ?"
    );
    connection.prepare_cached(&sql)?.query_map(params![key, horizon.0, limit], read)?.collect()
}

/// When a DHCP server was first seen on a segment, and the first of all there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DhcpServer {
    /// First message of this one.
    pub(crate) first_seen: Timestamp,
    /// First message of any.
    pub(crate) segment_first_seen: Timestamp,
}

/// Notes a DHCP server of a segment.
pub(crate) fn note_dhcp_server(
    connection: &Connection,
    observation: &Observation,
    segment: &str,
) -> Result<DhcpServer, rusqlite::Error> {
    let (address, first, last) =
        (IpBytes::of(observation.address), observation.first_seen.0, observation.last_seen.0);
    connection
        .prepare_cached(
            "INSERT INTO dhcp_servers VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE SET
                 first_seen = min(first_seen, ?4), last_seen = max(last_seen, ?5)",
        )?
        .execute(params![&*observation.site, segment, address.as_ref(), first, last])?;
    let sql = "SELECT min(first_seen) FILTER (WHERE address = ?3), min(first_seen)
               FROM dhcp_servers WHERE site = ?1 AND segment = ?2";
    connection.prepare_cached(sql)?.query_row(params![&*observation.site, segment, address.as_ref()], |row| {
        Ok(DhcpServer { first_seen: Timestamp(row.get(0)?), segment_first_seen: Timestamp(row.get(1)?) })
    })
}

/// The last message of a DHCP server, on whichever segment.
pub(crate) fn dhcp_server_since(
    connection: &Connection,
    address: IpAddr,
) -> Result<Timestamp, rusqlite::Error> {
    let sql = "SELECT coalesce(max(last_seen), 0) FROM dhcp_servers WHERE address = ?";
    connection.query_row(sql, [IpBytes::of(address).as_ref()], |row| Ok(Timestamp(row.get(0)?)))
}

/// Sources of one prefix that a sensor could not tell apart, over all it told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct AddressSum {
    /// Site.
    pub(crate) site: Name,
    /// Segment; empty where there is none.
    pub(crate) segment: Name,
    /// The prefix.
    pub(crate) prefix: String,
    /// MAC address of the station; empty where none is known.
    pub(crate) mac: String,
    /// First packet.
    pub(crate) first_seen: Timestamp,
    /// Last packet.
    pub(crate) last_seen: Timestamp,
    /// Packets.
    pub(crate) packets: u64,
    /// Different addresses in one report, at most.
    pub(crate) addresses: u64,
    /// The busiest of the latest report.
    pub(crate) top: Vec<TopAddress>,
}

/// Enters an observation that stands for many addresses.
pub(crate) fn add_sum(connection: &Connection, observation: &Observation) -> Result<(), rusqlite::Error> {
    let Some(sum) = &observation.aggregate else { return Ok(()) };
    connection
        .prepare_cached(
            "INSERT INTO address_sums VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO UPDATE SET
                 first_seen = min(first_seen, ?5), last_seen = max(last_seen, ?6), packets = packets + ?7,
                 addresses = max(addresses, ?8), top = ?9",
        )?
        .execute(params![
            &*observation.site,
            observation.segment.as_deref().unwrap_or_default(),
            format!("{}/{}", observation.address, sum.prefix_length),
            observation.mac.map_or_else(String::new, |mac| mac.to_string()),
            observation.first_seen.0,
            observation.last_seen.0,
            counter(observation.packets),
            counter(sum.addresses),
            to_json(&sum.top)?,
        ])?;
    Ok(())
}

/// Which sums are asked for. What is not stated does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SumFilter {
    /// The site.
    pub(crate) site: Option<String>,
    /// The segment.
    pub(crate) segment: Option<String>,
}

/// Sums that match, the latest first. There is one for each prefix of each segment, so that a sort is no burden.
pub(crate) fn sums(
    connection: &Connection,
    filter: &SumFilter,
    limit: u32,
    offset: u32,
) -> Result<Vec<AddressSum>, rusqlite::Error> {
    let sql =
        "SELECT site, segment, prefix, mac, first_seen, last_seen, packets, addresses, top FROM address_sums
         WHERE (?1 IS NULL OR site = ?1) AND (?2 IS NULL OR segment = ?2)
         ORDER BY last_seen DESC, site, segment, prefix, mac LIMIT ?3 OFFSET ?4";
    let rows = |row: &rusqlite::Row<'_>| {
        Ok(AddressSum {
            site: row.get(0)?,
            segment: row.get(1)?,
            prefix: row.get(2)?,
            mac: row.get(3)?,
            first_seen: Timestamp(row.get(4)?),
            last_seen: Timestamp(row.get(5)?),
            packets: row.get::<_, i64>(6)?.cast_unsigned(),
            addresses: row.get::<_, i64>(7)?.cast_unsigned(),
            top: from_json(row, 8)?,
        })
    };
    let values = params![filter.site, filter.segment, limit, offset];
    connection.prepare_cached(sql)?.query_map(values, rows)?.collect()
}

/// When everything was last looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sweep {
    /// By which plan and settings.
    pub(crate) plan: String,
    /// Packet time of the first look at something that was observed.
    pub(crate) began: Option<Timestamp>,
    /// Packet time of the last.
    pub(crate) swept: Option<Timestamp>,
}

/// The last look at everything.
pub(crate) fn last_sweep(connection: &Connection) -> Result<Option<Sweep>, rusqlite::Error> {
    let read = |row: &rusqlite::Row<'_>| {
        let time = |at| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(at)?.map(Timestamp));
        Ok(Sweep { plan: row.get(0)?, began: time(1)?, swept: time(2)? })
    };
    connection.prepare_cached("SELECT plan, began, swept FROM sweeps")?.query_row([], read).optional()
}

/// Notes a look at everything: by which plan, since when there is something, and now.
pub(crate) fn put_sweep(
    connection: &Connection,
    plan: &str,
    times: Option<(Timestamp, Timestamp)>,
) -> Result<(), rusqlite::Error> {
    connection.prepare_cached("INSERT OR REPLACE INTO sweeps VALUES (1, ?, ?, ?)")?.execute(params![
        plan,
        times.map(|times| times.0.0),
        times.map(|times| times.1.0)
    ])?;
    Ok(())
}

//! The inventory as it is asked for: by filters, in the order of addresses (IPv4, then IPv6), page by page. A page begins
//! behind a key and not after so many rows, so the thousandth costs what the first one does. Conditions are judged in
//! the index alone as far as it holds them; an entry is read only where these hold, and a page reads a bounded number.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use onenet_core::{
    net::Name,
    record::{RuleId, Strength},
    time::Timestamp,
};
use rusqlite::{Connection, ToSql, params};

use super::{
    control_findings::to_json,
    control_inventory::{COLUMNS, InventoryEntry, USAGES, address_of, read},
    flow_row::IpBytes,
};

/// Entries that one page reads at most. Sites and segments stand in the entries, so that a rare one may take more than
/// one page to be found; a page that ends here says where the next begins.
const MAX_READ: u32 = 100_000;

/// How a use stands to the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Standing {
    /// Nothing says otherwise.
    Declared,
    /// Nobody claims the address.
    Undeclared,
    /// Another secretariat claims it.
    Misplaced,
}

impl Standing {
    /// All, as they are offered.
    pub(crate) const ALL: [Self; 3] = [Self::Declared, Self::Undeclared, Self::Misplaced];

    /// The name on the command line, in JSON and on the page.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::Undeclared => "undeclared",
            Self::Misplaced => "misplaced",
        }
    }

    /// The standing of an entry that belongs to this group.
    pub(super) fn of_key(key: Option<&str>) -> Self {
        match key.and_then(|key| key.split('|').next()) {
            Some(rule) if rule == RuleId::AddressUndeclared.as_str() => Self::Undeclared,
            Some(_) => Self::Misplaced,
            None => Self::Declared,
        }
    }

    fn condition(self) -> &'static str {
        match self {
            Self::Declared => "standing IS NULL",
            Self::Undeclared => "standing GLOB 'address.undeclared|*'",
            Self::Misplaced => "standing IS NOT NULL AND standing NOT GLOB 'address.undeclared|*'",
        }
    }
}

impl FromStr for Standing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|standing| standing.as_str() == text);
        known.ok_or_else(|| format!("{text:?}, expected declared, undeclared or misplaced"))
    }
}

/// Which entries are asked for. What is not stated does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InventoryFilter {
    /// The address, or the prefix it is in.
    pub(crate) within: Option<IpNet>,
    /// Its address space.
    pub(crate) address_space: Option<String>,
    /// The secretariat on whose segment it was seen last.
    pub(crate) secretariat: Option<String>,
    /// A site it was seen at.
    pub(crate) site: Option<String>,
    /// A segment it was seen on.
    pub(crate) segment: Option<String>,
    /// Seen at least this surely.
    pub(crate) strength: Option<Strength>,
    /// How it stands to the plan.
    pub(crate) standing: Option<Standing>,
    /// Last seen at this moment or later.
    pub(crate) since: Option<Timestamp>,
    /// Last seen at this moment or before.
    pub(crate) until: Option<Timestamp>,
}

impl InventoryFilter {
    /// What the text of an entry's uses must hold, so that most of those that are not asked for need not be understood.
    fn needles(&self) -> Result<Vec<String>, rusqlite::Error> {
        let needle = |(name, value): (&str, &Option<String>)| {
            let value = value.as_ref()?;
            Some(to_json(value).map(|value| format!("\"{name}\":{value}")))
        };
        [("site", &self.site), ("segment", &self.segment)].into_iter().filter_map(needle).collect()
    }

    /// Whether what only the entry itself tells is as asked for.
    fn admits(&self, entry: &InventoryEntry) -> bool {
        let is_at = |site: &String| entry.usages.iter().any(|usage| *usage.site == **site);
        let is_on =
            |segment: &String| entry.usages.iter().any(|usage| usage.segment.as_deref() == Some(segment));
        self.site.as_ref().is_none_or(is_at) && self.segment.as_ref().is_none_or(is_on)
    }
}

/// The place of an entry in the order: `SPACE/ADDRESS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InventoryKey {
    /// The address.
    pub(crate) address: IpAddr,
    /// Its address space.
    pub(crate) address_space: Name,
}

impl fmt::Display for InventoryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address_space, self.address)
    }
}

impl FromStr for InventoryKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let key = text.rsplit_once('/').and_then(|(space, address)| {
            Some(Self { address: address.parse().ok()?, address_space: space.into() })
        });
        key.ok_or_else(|| format!("{text:?}, expected the `next` of the page before, SPACE/ADDRESS"))
    }
}

impl serde::Serialize for InventoryKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Some of the entries that match.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    /// The entries.
    pub(crate) entries: Vec<InventoryEntry>,
    /// Behind which entry to go on; none where there is nothing more.
    pub(crate) next: Option<InventoryKey>,
}

/// Entries that match, behind `after`.
pub(crate) fn page(
    connection: &Connection,
    filter: &InventoryFilter,
    limit: u32,
    after: Option<&InventoryKey>,
) -> Result<Listed, rusqlite::Error> {
    let mut listed = Listed::default();
    let mut left = MAX_READ;
    let is_v6 = filter.within.map(|within| matches!(within, IpNet::V6(_)));
    let begins = after.is_some_and(|after| after.address.is_ipv6());
    for v6 in [false, true].into_iter().filter(|v6| is_v6.is_none_or(|is| is == *v6) && *v6 >= begins) {
        let after = after.filter(|after| after.address.is_ipv6() == v6);
        if !family(connection, filter, (v6, after), limit, &mut left, &mut listed)? {
            break;
        }
    }
    Ok(listed)
}

/// Adds the entries of one family; false where the page is full.
fn family(
    connection: &Connection,
    filter: &InventoryFilter,
    (v6, after): (bool, Option<&InventoryKey>),
    limit: u32,
    left: &mut u32,
    listed: &mut Listed,
) -> Result<bool, rusqlite::Error> {
    let (sql, values) = keys(filter, v6, after);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let entry = format!("SELECT {COLUMNS} FROM inventory WHERE address = ? AND address_space = ?");
    let mut entry = connection.prepare_cached(&entry)?;
    let needles = filter.needles()?;
    while let Some(row) = rows.next()? {
        let key = InventoryKey { address: address_of(row, 0)?, address_space: row.get(1)? };
        let address = IpBytes::of(key.address);
        let found = entry.query_row(params![address.as_ref(), &*key.address_space], |row| {
            let uses = row.get_ref(USAGES)?.as_str()?;
            let may_be = needles.iter().all(|needle| uses.contains(needle));
            may_be.then(|| read(row)).transpose()
        })?;
        *left = left.saturating_sub(1);
        if let Some(found) = found.filter(|found| filter.admits(found)) {
            if listed.entries.len() >= limit as usize {
                let last = listed.entries.last();
                listed.next = last.map(InventoryEntry::key);
                return Ok(false);
            }
            listed.entries.push(found);
        }
        if *left == 0 {
            listed.next = Some(key);
            return Ok(false);
        }
    }
    Ok(true)
}

/// The statement that gives the keys of one family in order, from the index alone.
fn keys(filter: &InventoryFilter, v6: bool, after: Option<&InventoryKey>) -> (String, Vec<Box<dyn ToSql>>) {
    let mut conditions = vec![if v6 { "length(address) = 16" } else { "length(address) = 4" }];
    let mut values: Vec<Box<dyn ToSql>> = Vec::new();
    let bytes = |ip| IpBytes::of(ip).as_ref().to_vec();
    let within = filter.within;
    // One lower bound, so that it is the one that the search in the index begins at.
    if let Some(after) = after.filter(|after| within.is_none_or(|within| after.address >= within.network())) {
        conditions.push("(address, address_space) > (?, ?)");
        values.extend([
            Box::new(bytes(after.address)) as Box<dyn ToSql>,
            Box::new(after.address_space.to_string()),
        ]);
    } else if let Some(within) = within {
        conditions.push("address >= ?");
        values.push(Box::new(bytes(within.network())));
    }
    let mut add = |condition: &'static str, value: Option<Box<dyn ToSql>>| {
        if let Some(value) = value {
            conditions.push(condition);
            values.push(value);
        }
    };
    add("address <= ?", within.map(|within| Box::new(bytes(within.broadcast())) as _));
    let text = |value: &Option<String>| value.clone().map(|value| Box::new(value) as Box<dyn ToSql>);
    add("address_space = ?", text(&filter.address_space));
    add("secretariat = ?", text(&filter.secretariat));
    add("strength >= ?", filter.strength.map(|strength| Box::new(strength.code()) as _));
    add("last_seen >= ?", filter.since.map(|since| Box::new(since.0) as _));
    add("last_seen <= ?", filter.until.map(|until| Box::new(until.0) as _));
    conditions.extend(filter.standing.map(Standing::condition));
    let condition = conditions.join(" AND ");
    let sql = format!(
        "SELECT address, address_space FROM inventory INDEXED BY inventory_listed WHERE {condition}
         ORDER BY address, address_space"
    );
    (sql, values)
}

#[cfg(test)]
mod tests {
    use onenet_core::record::{Observation, ObservationKind};

    use super::*;
    use crate::{
        seed::{control, observation},
        store::{Store, control_inventory},
    };

    fn hold(store: &Store, observations: &[Observation]) {
        store
            .transaction(|transaction| {
                for observation in observations {
                    let standing = |entry: &InventoryEntry| match &*entry.address_space {
                        "anf" => Some("address.undeclared|anf|10.9.0.0/24".to_owned()),
                        "massdot" => Some("address.misplaced|massdot|10.1.0.0/16|eohhs".to_owned()),
                        _ => None,
                    };
                    control_inventory::upsert(transaction, observation, standing)?;
                }
                Ok(())
            })
            .expect("written");
    }

    fn some() -> Vec<Observation> {
        use ObservationKind::{ArpProbe, ArpReply, NeighborAdvertisement, Traffic};
        vec![
            observation("10.9.0.1", "anf", "boston", Traffic, 100),
            observation("10.1.0.2", "eohhs", "boston", ArpReply, 200),
            observation("10.1.0.2", "massdot", "lowell", ArpReply, 300),
            observation("fd00::1", "eohhs", "lowell", NeighborAdvertisement, 400),
            // Its first byte is less than that of any IPv4 address above.
            observation("0a00::1", "eohhs", "boston", NeighborAdvertisement, 500),
            observation("192.168.0.7", "eohhs", "boston", ArpProbe, 600),
        ]
    }

    fn all(store: &Store, filter: &InventoryFilter, limit: u32) -> Vec<Vec<String>> {
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let listed =
                store.read(|connection| page(connection, filter, limit, after.as_ref())).expect("readable");
            pages.push(listed.entries.iter().map(|entry| entry.key().to_string()).collect());
            after = listed.next;
            if after.is_none() {
                return pages;
            }
        }
    }

    const ORDER: [&str; 6] = [
        "eohhs/10.1.0.2",
        "massdot/10.1.0.2",
        "anf/10.9.0.1",
        "eohhs/192.168.0.7",
        "eohhs/a00::1",
        "eohhs/fd00::1",
    ];

    #[test]
    fn pages_follow_each_other_from_ipv4_to_ipv6_whatever_their_size() {
        let (_directory, store) = control();
        assert_eq!(all(&store, &InventoryFilter::default(), 10), [Vec::<String>::new()]);
        hold(&store, &some());
        for limit in 1..=7 {
            let pages = all(&store, &InventoryFilter::default(), limit);
            assert_eq!(pages.concat(), ORDER, "{limit} a page");
            assert!(pages.iter().all(|page| page.len() <= limit as usize));
            assert_eq!(pages.len(), 6_usize.div_ceil(limit as usize), "no empty page at the end");
        }
    }

    #[test]
    fn each_condition_holds_by_itself_and_with_others() {
        let (_directory, store) = control();
        hold(&store, &some());
        let at = |seconds| Some(crate::seed::at(seconds));
        let text = |text: &str| Some(text.to_owned());
        let none = InventoryFilter::default;
        for (filter, expected) in [
            (InventoryFilter { within: "10.1.0.0/16".parse().ok(), ..none() }, &[0, 1][..]),
            (InventoryFilter { within: "fd00::/8".parse().ok(), ..none() }, &[5]),
            (InventoryFilter { within: "::/0".parse().ok(), ..none() }, &[4, 5]),
            (InventoryFilter { within: "0.0.0.0/0".parse().ok(), ..none() }, &[0, 1, 2, 3]),
            (InventoryFilter { address_space: text("massdot"), ..none() }, &[1]),
            (InventoryFilter { secretariat: text("anf"), ..none() }, &[2]),
            (InventoryFilter { site: text("lowell"), ..none() }, &[1, 5]),
            (InventoryFilter { segment: text("boston-eohhs"), ..none() }, &[0, 3, 4]),
            (InventoryFilter { strength: Some(Strength::Medium), ..none() }, &[0, 1, 2, 4, 5]),
            (InventoryFilter { strength: Some(Strength::Strong), ..none() }, &[0, 1, 4, 5]),
            (InventoryFilter { standing: Some(Standing::Declared), ..none() }, &[0, 3, 4, 5]),
            (InventoryFilter { standing: Some(Standing::Undeclared), ..none() }, &[2]),
            (InventoryFilter { standing: Some(Standing::Misplaced), ..none() }, &[1]),
            (InventoryFilter { since: at(400), ..none() }, &[3, 4, 5]),
            (InventoryFilter { until: at(200), ..none() }, &[0, 2]),
            (InventoryFilter { since: at(200), until: at(400), site: text("boston"), ..none() }, &[0]),
            (InventoryFilter { site: text("worcester"), ..none() }, &[]),
        ] {
            let expected: Vec<&str> = expected.iter().map(|&index: &usize| ORDER[index]).collect();
            for limit in [1, 100] {
                assert_eq!(all(&store, &filter, limit).concat(), expected, "{filter:?}");
            }
        }
    }

    #[test]
    fn a_page_begins_at_its_key_in_the_index_and_sorts_nothing() {
        let (_directory, store) = control();
        let key: InventoryKey = "eohhs/10.1.0.2".parse().expect("a key");
        let filters = [
            InventoryFilter::default(),
            InventoryFilter { within: "10.0.0.0/8".parse().ok(), ..InventoryFilter::default() },
            InventoryFilter { secretariat: Some("anf".to_owned()), ..InventoryFilter::default() },
        ];
        for (filter, after) in filters.iter().flat_map(|filter| [(filter, None), (filter, Some(&key))]) {
            let (sql, values) = keys(filter, false, after);
            let plan = store.read(|connection| {
                let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                let lines =
                    statement.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3))?;
                lines.collect::<Result<Vec<_>, _>>()
            });
            let plan = plan.expect("readable").join("\n");
            assert!(plan.contains("USING COVERING INDEX inventory_listed (<expr>=?"), "{plan}");
            let begins = if after.is_some() { "(address,address_space)>(?,?)" } else { "address>?" };
            assert_eq!(plan.contains(begins), after.is_some() || filter.within.is_some(), "{plan}");
            assert_eq!(plan.contains("address<?"), filter.within.is_some(), "{plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{plan}");
        }
    }

    #[test]
    fn a_key_reads_back_and_anything_else_is_refused() {
        for text in ["eohhs/10.1.1.1", "a/b/fd00::1"] {
            assert_eq!(text.parse::<InventoryKey>().expect(text).to_string(), text);
        }
        for text in ["", "10.1.1.1", "eohhs/", "eohhs/10.1"] {
            assert!(text.parse::<InventoryKey>().expect_err(text).contains("expected the `next`"), "{text}");
        }
    }
}

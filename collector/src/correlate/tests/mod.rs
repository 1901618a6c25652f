//! The correlator on a real control database.

mod addresses;

use onenet_core::record::{
    Change, FindingId, Observation,
    ObservationKind::{self, ArpProbe, ArpReply, Traffic},
    RuleId, Severity,
};
use proptest::prelude::*;

use super::*;
use crate::{
    seed::{at, body, control, judge, observation, scan, stored, told},
    store::{
        control_findings::{self, FindingFilter},
        inventory_list::{self, InventoryFilter},
    },
};

/// Commits batches in order, each by itself.
fn commit_all(store: &Store, batches: &[StoredBatch]) {
    for batch in batches {
        commit(store, &judge(), &SensorsConfig::default(), std::slice::from_ref(batch)).expect("it commits");
    }
}

fn findings(store: &Store) -> Vec<Finding> {
    let filter = FindingFilter::default();
    store.read(|connection| control_findings::findings(connection, &filter, 1_000, 0)).expect("readable")
}

fn changes(store: &Store) -> Vec<RecordedChange> {
    store.read(|connection| control_findings::changes_after(connection, 0, 10_000)).expect("readable")
}

/// What happened, as "change revision state".
fn life(store: &Store) -> Vec<String> {
    let line = |recorded: &RecordedChange| {
        let finding = &recorded.finding;
        format!("{} {} {}", finding.change, finding.revision, finding.state.as_str())
    };
    changes(store).iter().map(line).collect()
}

fn names(list: &[onenet_core::net::Name]) -> String {
    list.join(" ")
}

#[test]
fn one_incident_at_two_sites_is_one_finding() {
    let (_directory, store) = control();
    commit_all(
        &store,
        &[
            stored("boston-1", 1, &body(&[], &[scan("boston", 900)])),
            stored("lowell-1", 2, &body(&[], &[scan("lowell", 950)])),
        ],
    );
    let all = findings(&store);
    let [finding] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(
        (names(&finding.sites).as_str(), names(&finding.sources).as_str()),
        ("boston lowell", "boston-1 lowell-1")
    );
    assert_eq!((finding.first_seen, finding.last_seen), (at(0), at(950)));
    assert_eq!((finding.evidence.counts["failures"], finding.evidence.counts["targets"]), (422, 214));
    assert_eq!(names(&finding.contacts), "ipam@eohhs.example");
    assert_eq!(life(&store), ["raised 0 open", "updated 1 open"]);
}

#[test]
fn a_sensor_that_starts_anew_and_tells_the_same_again_changes_nothing() {
    let (_directory, store) = control();
    let mut later = scan("boston", 1_000);
    later.change = Change::Updated;
    later.revision = 1;
    later.confidence = 99;
    later.evidence.counts.insert("failures".to_owned(), 500);
    let tellings = [scan("boston", 900), later, scan("boston", 900), scan("boston", 1_000)];
    for (number, told) in tellings.into_iter().enumerate() {
        let number = i64::try_from(number).expect("small") + 1;
        commit_all(&store, &[stored("boston-1", number, &body(&[], &[told]))]);
    }
    assert_eq!(life(&store), ["raised 0 open", "updated 1 open"]);
    let finding = &findings(&store)[0];
    assert_eq!(
        (finding.confidence, finding.evidence.counts["failures"]),
        (99, 500),
        "evidence does not shrink"
    );
}

#[test]
fn a_finding_closes_when_every_source_says_so_and_opens_again() {
    let (_directory, store) = control();
    let tell = |number, sensor: &str, change, seconds| {
        let site = sensor.trim_end_matches("-1");
        let told = told(RuleId::SpoofInbound, "10.9.9.9", site, change, seconds);
        commit_all(&store, &[stored(sensor, number, &body(&[], &[told]))]);
    };
    tell(1, "boston-1", Change::Raised, 10);
    tell(2, "lowell-1", Change::Raised, 20);
    tell(3, "boston-1", Change::Closed, 30);
    assert_eq!(findings(&store)[0].state, State::Open, "lowell still sees it");
    tell(4, "lowell-1", Change::Closed, 40);
    tell(5, "lowell-1", Change::Raised, 50);
    let expected = ["raised 0 open", "updated 1 open", "updated 2 open", "closed 3 closed", "raised 4 open"];
    assert_eq!(life(&store), expected);
}

#[test]
fn an_address_in_use_in_two_spaces_at_two_sites_is_an_overlap_that_no_sensor_sees_alone() {
    let (_directory, store) = control();
    commit_all(
        &store,
        &[
            stored("boston-1", 1, &body(&[observation("10.1.1.1", "eohhs", "boston", ArpReply, 1)], &[])),
            stored("lowell-1", 2, &body(&[observation("10.1.1.1", "massdot", "lowell", ArpReply, 2)], &[])),
        ],
    );
    let all = findings(&store);
    let [finding] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(finding.finding_id, FindingId::of_key("overlap.address|10.1.1.1"));
    assert_eq!((finding.severity, finding.state), (Severity::High, State::Open));
    assert_eq!(names(&finding.sites), "boston lowell");
    assert_eq!(names(&finding.sources), COLLECTOR);
    assert_eq!(names(&finding.address_spaces), "eohhs massdot");
    assert_eq!(names(&finding.contacts), "ipam@eohhs.example ipam@massdot.example");
    assert_eq!(finding.evidence.observations.len(), 2);
}

#[test]
fn an_overlap_that_a_sensor_tells_too_is_the_same_finding() {
    let (_directory, store) = control();
    let mut sensors = told(RuleId::OverlapAddress, "10.1.1.1", "boston", Change::Raised, 3);
    sensors.address_spaces = vec!["anf".into(), "eohhs".into()];
    sensors.secretariats = vec!["anf".into(), "eohhs".into()];
    // The sensor leaves out whoever has no contact, so its list does not say whose contact this is.
    sensors.contacts = vec!["else@eohhs.example".into()];
    let seen = [
        observation("10.1.1.1", "eohhs", "boston", ArpReply, 1),
        observation("10.1.1.1", "massdot", "boston", ArpReply, 2),
    ];
    commit_all(&store, &[stored("boston-1", 1, &body(&seen, &[sensors]))]);
    let all = findings(&store);
    let [finding] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(names(&finding.sources), "boston-1 collector");
    assert_eq!(names(&finding.secretariats), "anf eohhs massdot");
    assert_eq!(names(&finding.contacts), " ipam@eohhs.example ipam@massdot.example");
}

#[test]
fn questions_and_other_addresses_make_no_overlap() {
    let (_directory, store) = control();
    let seen = [
        observation("10.1.1.1", "eohhs", "boston", ArpReply, 1),
        observation("10.1.1.1", "massdot", "lowell", ArpProbe, 2),
        observation("8.8.8.8", "eohhs", "boston", ArpReply, 1),
        observation("8.8.8.8", "massdot", "lowell", ArpReply, 2),
    ];
    commit_all(&store, &[stored("boston-1", 1, &body(&seen, &[]))]);
    assert_eq!(findings(&store), []);
}

#[test]
fn an_overlap_that_goes_on_is_told_when_its_evidence_doubles_and_not_with_every_packet() {
    let (_directory, store) = control();
    let first = observation("10.1.1.1", "eohhs", "boston", ArpReply, 0);
    let mut seen = vec![first];
    seen.extend((1..1_000).map(|second| observation("10.1.1.1", "massdot", "lowell", ArpReply, second)));
    let batches: Vec<StoredBatch> = seen
        .chunks(50)
        .enumerate()
        .map(|(index, some)| stored("boston-1", i64::try_from(index).expect("small") + 1, &body(some, &[])))
        .collect();
    commit_all(&store, &batches);
    let told = changes(&store);
    assert!((5..=12).contains(&told.len()), "{} changes", told.len());
    let last = told.last().expect("some");
    assert!(last.finding.evidence.counts["packets"] >= 500, "{:?}", last.finding.evidence.counts);
}

#[test]
fn an_overlap_closes_when_one_side_was_not_seen_for_the_window() {
    let (_directory, store) = control();
    let week = judge().config.window() / onenet_core::time::NANOS_PER_SECOND;
    let see = |number, space: &str, seconds| {
        let seen = observation("10.1.1.1", space, "boston", ArpReply, seconds);
        commit_all(&store, &[stored("boston-1", number, &body(&[seen], &[]))]);
    };
    see(1, "eohhs", 0);
    see(2, "massdot", 10);
    see(3, "massdot", week / 2);
    assert_eq!(life(&store).len(), 1, "nothing new is told");
    see(4, "massdot", week + 100);
    assert_eq!(life(&store), ["raised 0 open", "closed 1 closed"]);
    see(5, "eohhs", week + 200);
    assert_eq!(life(&store)[2..], ["raised 2 open"]);
}

#[test]
fn the_inventory_keeps_one_entry_per_address_and_space_with_all_that_was_seen() {
    let (_directory, store) = control();
    let mut named = observation("10.1.1.1", "eohhs", "lowell", ObservationKind::Dhcp4Lease, 5);
    named.hostname = Some("printer-7".to_owned());
    let seen = [
        observation("10.1.1.1", "eohhs", "boston", Traffic, 9),
        named,
        observation("10.1.1.1", "massdot", "boston", Traffic, 7),
    ];
    commit_all(&store, &[stored("boston-1", 1, &body(&seen, &[]))]);
    let all = |filter: InventoryFilter| {
        let page = store.read(|connection| inventory_list::page(connection, &filter, 100, None));
        page.expect("readable").entries
    };
    let entries = all(InventoryFilter::default());
    assert_eq!(entries.len(), 2);
    let entry = &entries[0];
    assert_eq!((&*entry.address_space, entry.packets), ("eohhs", 2));
    assert_eq!((entry.first_seen, entry.last_seen), (at(5), at(9)));
    assert_eq!(
        (entry.kinds(), entry.hostnames.as_slice()),
        (vec![Traffic, ObservationKind::Dhcp4Lease], &["printer-7".to_owned()][..])
    );
    assert_eq!((entry.sites().len(), entry.macs().len()), (2, 2));
    let lowell = InventoryFilter { site: Some("lowell".to_owned()), ..InventoryFilter::default() };
    assert_eq!(all(lowell).len(), 1);
    let within = InventoryFilter { within: "10.1.0.0/16".parse().ok(), ..InventoryFilter::default() };
    assert_eq!(all(within).len(), 2);
    let elsewhere = InventoryFilter { within: "10.2.0.0/16".parse().ok(), ..InventoryFilter::default() };
    assert_eq!(all(elsewhere).len(), 0);
}

#[test]
fn a_batch_that_makes_no_sense_is_passed_over() {
    let (_directory, store) = control();
    let mut poison = stored("boston-1", 1, &body(&[], &[scan("boston", 1)]));
    poison.poison = Some("flow 0".to_owned());
    let good = stored("boston-1", 2, &body(&[], &[told(RuleId::Beacon, "k", "boston", Change::Raised, 2)]));
    commit_all(&store, &[poison, good]);
    assert_eq!(findings(&store).len(), 1);
    let cursor = store.read(control_cursors::correlated).expect("readable");
    assert_eq!(cursor.batch, 2);
}

/// Every row of every table that the correlator writes, as text.
fn dump(store: &Store) -> Vec<String> {
    let tables = [
        "findings",
        "finding_sources",
        "finding_changes",
        "inventory",
        "losses",
        "batch_cursors",
        "dhcp_servers",
        "address_sums",
        "sweeps",
    ];
    let read = |connection: &rusqlite::Connection| {
        let mut rows = Vec::new();
        for table in tables {
            let mut statement = connection.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2"))?;
            let columns = statement.column_count();
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                let values: Result<Vec<_>, _> =
                    (0..columns).map(|column| row.get::<_, rusqlite::types::Value>(column)).collect();
                rows.push(format!("{table} {:?}", values?));
            }
        }
        Ok(rows)
    };
    store.read(read).expect("readable")
}

/// Applies batches and then fails, as a kill before the commit would.
fn crash(store: &Store, batches: &[StoredBatch]) {
    let result = store.transaction(|transaction| {
        let judge = judge();
        let sensors = SensorsConfig::default();
        let mut applier = Applier::new(transaction, &judge, &sensors, Timestamp(0));
        for batch in batches {
            applier.apply(batch, &records(batch))?;
        }
        Err::<(), _>(rusqlite::Error::InvalidQuery)
    });
    assert!(result.is_err());
}

#[derive(Clone, Debug)]
enum Record {
    Seen(Box<Observation>),
    Told(Box<onenet_core::record::FindingChange>),
}

fn record() -> impl Strategy<Value = Record> {
    let seen = (0..3usize, 0..3usize, 0..2usize, 0..3usize, 0..2_000_000_i64).prop_map(
        |(address, space, site, kind, seconds)| {
            let address = ["10.1.1.1", "10.1.1.2", "8.8.8.8"][address];
            let (space, site) = (["eohhs", "massdot", "anf"][space], ["boston", "lowell"][site]);
            let kind = [Traffic, ArpReply, ArpProbe][kind];
            Record::Seen(Box::new(observation(address, space, site, kind, seconds)))
        },
    );
    let said = (0..2usize, 0..2usize, 0..3usize, 0..1_000_i64, 0.0..1e9_f64).prop_map(
        |(rule, key, change, seconds, score)| {
            let rule = [RuleId::OverlapAddress, RuleId::Beacon][rule];
            let change = [Change::Raised, Change::Updated, Change::Closed][change];
            let mut told = told(rule, ["10.1.1.1", "10.1.1.2"][key], "boston", change, seconds);
            told.evidence.counts.insert("packets".to_owned(), seconds.cast_unsigned());
            told.evidence.scores.insert("score".to_owned(), score);
            Record::Told(Box::new(told))
        },
    );
    prop_oneof![2 => seen, 1 => said]
}

fn batches(groups: &[(bool, Vec<Record>)]) -> Vec<StoredBatch> {
    let batch = |(index, (boston, records)): (usize, &(bool, Vec<Record>))| {
        let (mut seen, mut told) = (Vec::new(), Vec::new());
        for record in records {
            match record {
                Record::Seen(observation) => seen.push((**observation).clone()),
                Record::Told(change) => told.push((**change).clone()),
            }
        }
        let sensor = if *boston { "boston-1" } else { "lowell-1" };
        stored(sensor, i64::try_from(index).expect("small") + 1, &body(&seen, &told))
    };
    groups.iter().enumerate().map(batch).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_same_batches_give_the_same_state_however_they_fall_into_steps_crashes_and_restarts(
        groups in prop::collection::vec((any::<bool>(), prop::collection::vec(record(), 0..5)), 1..8),
        steps in prop::collection::vec((1..4usize, any::<bool>(), any::<bool>()), 8),
    ) {
        let batches = batches(&groups);
        let (_directory, whole) = control();
        commit(&whole, &judge(), &SensorsConfig::default(), &batches).expect("it commits");

        let directory = tempfile::tempdir().expect("a directory");
        let config = crate::testing::store_config(&directory);
        let mut store = Store::attach(&config).expect("a store");
        let mut rest = batches.as_slice();
        for (size, crashes, restarts) in steps {
            let (step, later) = rest.split_at(size.min(rest.len()));
            if crashes {
                crash(&store, step);
            }
            if restarts {
                store = Store::attach(&config).expect("the store opens again");
            }
            commit(&store, &judge(), &SensorsConfig::default(), step).expect("it commits");
            rest = later;
        }
        prop_assert_eq!(dump(&store), dump(&whole));
    }

    #[test]
    fn folding_again_is_no_change(
        tellings in prop::collection::vec((any::<bool>(), record()), 1..12),
    ) {
        let (_directory, store) = control();
        let told: Vec<_> = tellings
            .into_iter()
            .filter_map(|(boston, record)| match record {
                Record::Told(change) => Some((boston, *change)),
                Record::Seen(_) => None,
            })
            .collect();
        for (number, (boston, change)) in told.iter().enumerate() {
            let sensor = if *boston { "boston-1" } else { "lowell-1" };
            let number = i64::try_from(number).expect("small") + 1;
            let batch = stored(sensor, number, &body(&[], std::slice::from_ref(change)));
            commit_all(&store, std::slice::from_ref(&batch));
            let before = changes(&store).len();
            // The same once more, as a sensor without a spool would send it.
            commit_all(&store, &[batch]);
            prop_assert_eq!(changes(&store).len(), before);
        }
    }
}

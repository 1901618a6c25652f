//! Rules about addresses: duplicates, uses that are not as the plan says, who serves a segment, and what the plan itself
//! says.

use std::sync::Arc;

use onenet_core::{
    net::MacAddress,
    plan::AddressPlan,
    record::{Observation, ObservationAggregate, ObservationKind, Strength, Verdict},
};

use super::*;
use crate::{config::InventoryConfig, store::inventory_sweep};

const PLAN: &str = "
    secretariat = [{id='eohhs', contact='ipam@eohhs.example'}, {id='massdot'}, {id='anf'}]
    prefix = [
        {cidr='10.1.0.0/16', secretariat='eohhs'}, {cidr='10.1.0.0/16', secretariat='massdot'},
        {cidr='10.2.0.0/16', secretariat='eohhs'}, {cidr='10.3.0.0/16', secretariat='massdot'},
        {cidr='fd00:2::/32', secretariat='eohhs'}, {cidr='10.9.0.0/16', secretariat='anf', status='reserved'},
    ]
    address = [{address='10.2.0.99', secretariat='eohhs', role='vip'}]
    segment = [
        {id='boston-eohhs', site='boston', secretariat='eohhs', vlan=120, gateways=['10.2.0.1']},
        {id='boston-massdot', site='boston', secretariat='massdot', vlan=130, dhcp_servers=['10.3.0.2']},
    ]";

fn judge_of(text: &str) -> Judge {
    let plan: AddressPlan = toml::from_str(text).expect("a plan");
    assert_eq!(plan.check(), Ok(()));
    Judge::new(Arc::new(plan), InventoryConfig { window_days: 30, dark_days: 2 })
}

/// A store, the judge, and batches one after the other.
struct Bench {
    _directory: tempfile::TempDir,
    store: Store,
    judge: Judge,
    number: i64,
}

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;

impl Bench {
    fn new(plan: &str) -> Self {
        let (directory, store) = control();
        Self { _directory: directory, store, judge: judge_of(plan), number: 0 }
    }

    fn see(&mut self, observations: &[Observation]) {
        self.number += 1;
        let batch = stored("boston-1", self.number, &body(observations, &[]));
        commit(&self.store, &self.judge, &SensorsConfig::default(), &[batch]).expect("it commits");
    }

    /// Open findings as "rule subject severity", sorted.
    fn open(&self) -> Vec<String> {
        let all = findings(&self.store);
        let mut lines: Vec<String> = all
            .iter()
            .filter(|finding| finding.state == State::Open)
            .map(|finding| format!("{} {}", finding.key, finding.severity))
            .collect();
        lines.sort();
        lines
    }

    fn finding(&self, rule: RuleId) -> Finding {
        let found = findings(&self.store).into_iter().find(|finding| finding.rule == rule);
        found.unwrap_or_else(|| panic!("no {rule}: {:?}", self.open()))
    }
}

/// An answer for an address on a secretariat's segment, by a station.
fn answer(address: &str, space: &str, station: u8, seconds: i64) -> Observation {
    Observation {
        mac: Some(MacAddress([2, 0, 0, 0, 1, station])),
        ..observation(address, space, "boston", ArpReply, seconds)
    }
}

/// Traffic that was answered, through a router.
fn routed(address: &str, space: &str, router: u8, seconds: i64) -> Observation {
    Observation {
        mac: Some(MacAddress([2, 0, 0, 0, 2, router])),
        strength: Strength::Strong,
        conversations: 1,
        ..observation(address, space, "boston", Traffic, seconds)
    }
}

#[test]
fn stations_that_take_turns_are_a_duplicate_and_one_new_card_is_none() {
    let mut bench = Bench::new(PLAN);
    bench.see(&[answer("10.2.0.5", "eohhs", 1, 0), answer("10.2.0.6", "eohhs", 1, 0)]);
    bench.see(&[answer("10.2.0.6", "eohhs", 2, 5 * MINUTE), answer("10.2.0.6", "eohhs", 2, 9 * MINUTE)]);
    for turn in 1..4 {
        let station = if turn % 2 == 1 { 2 } else { 1 };
        bench.see(&[answer("10.2.0.5", "eohhs", station, turn * 5 * MINUTE)]);
    }
    let duplicates: Vec<String> =
        bench.open().into_iter().filter(|line| line.starts_with("address.")).collect();
    assert_eq!(duplicates, ["address.duplicate|eohhs|10.2.0.5 high"]);
    let finding = bench.finding(RuleId::AddressDuplicate);
    assert_eq!(finding.evidence.verdict, Some(Verdict::TwoHosts));
    assert!(finding.summary.contains("02:00:00:00:01:01") && finding.summary.contains("02:00:00:00:01:02"));
    assert_eq!(names(&finding.contacts), "ipam@eohhs.example");
}

#[test]
fn an_address_with_a_role_is_no_duplicate_and_no_overlap_within_its_space() {
    let mut bench = Bench::new(PLAN);
    for turn in 0..6 {
        bench.see(&[answer("10.2.0.99", "eohhs", u8::try_from(turn % 2).expect("small"), turn * MINUTE)]);
    }
    assert_eq!(bench.open(), ["overlap.declared|10.1.0.0/16 medium"]);
}

#[test]
fn an_address_that_each_space_shares_is_no_overlap_and_one_that_only_one_shares_is() {
    let roles =
        |both: &str| format!("address = [{{address='10.1.0.99', secretariat='eohhs', role='vip'}}{both}]");
    let vip = ", {address='10.1.0.99', secretariat='massdot', role='vrrp'}";
    for (both, expected) in [("", true), (vip, false)] {
        let plan =
            PLAN.replace("address = [{address='10.2.0.99', secretariat='eohhs', role='vip'}]", &roles(both));
        let mut bench = Bench::new(&plan);
        bench.see(&[answer("10.1.0.99", "eohhs", 1, 0), answer("10.1.0.99", "massdot", 2, 1)]);
        let found = bench.open().iter().any(|line| line.starts_with("overlap.address"));
        assert_eq!(found, expected, "{plan}");
    }
}

#[test]
fn two_hosts_of_one_space_at_two_sites_are_a_duplicate_and_one_host_is_none() {
    let mut bench = Bench::new(PLAN);
    let at = |site: &str, station, seconds| Observation {
        mac: Some(MacAddress([2, 0, 0, 0, 1, station])),
        ..observation("10.2.0.7", "eohhs", site, ArpReply, seconds)
    };
    bench.see(&[at("boston", 1, 0), at("lowell", 1, MINUTE)]);
    assert_eq!(bench.open(), ["overlap.declared|10.1.0.0/16 medium"]);
    let mut bench = Bench::new(PLAN);
    bench.see(&[at("boston", 1, 0), at("lowell", 2, MINUTE)]);
    let finding = bench.finding(RuleId::AddressDuplicate);
    assert_eq!((names(&finding.sites).as_str(), finding.evidence.scores["bits.mac"]), ("boston lowell", 8.0));
}

#[test]
fn what_nobody_claims_and_what_others_claim_is_told_once_a_prefix() {
    let mut bench = Bench::new(PLAN);
    bench.see(&[
        answer("10.77.1.1", "eohhs", 1, 0),
        answer("10.77.1.2", "eohhs", 2, 1),
        answer("10.3.0.9", "eohhs", 3, 2),
        answer("10.2.0.9", "eohhs", 4, 3),
        answer("fd77::9", "massdot", 5, 3),
        answer("fd00:2::9", "massdot", 6, 3),
        // Nobody answered for it, and reserved is a claim.
        observation("10.78.0.1", "eohhs", "boston", Traffic, 4),
        answer("10.9.0.1", "anf", 7, 4),
    ]);
    let expected = [
        "address.misplaced|eohhs|10.3.0.0/16|massdot medium",
        "address.misplaced|massdot|fd00:2::/32|eohhs medium",
        "address.undeclared|eohhs|10.77.1.0/24 low",
        "address.undeclared|massdot|fd77::/64 low",
        "overlap.declared|10.1.0.0/16 medium",
    ];
    assert_eq!(bench.open(), expected);
    assert_eq!(findings(&bench.store).len(), expected.len(), "and nothing was told and taken back");
    let finding =
        findings(&bench.store).into_iter().find(|finding| finding.key.contains("10.77.1.0")).expect("it");
    assert_eq!(finding.evidence.counts["addresses"], 2);
}

#[test]
fn a_prefix_that_arrives_through_a_router_is_routed_and_takes_the_place_of_its_addresses() {
    let mut bench = Bench::new(PLAN);
    for host in 1..4 {
        bench.see(&[routed(&format!("10.3.7.{host}"), "eohhs", 1, host)]);
    }
    assert!(bench.open().contains(&"address.misplaced|eohhs|10.3.0.0/16|massdot medium".to_owned()));
    bench.see(&[routed("10.3.7.4", "eohhs", 1, 4)]);
    let open = bench.open();
    assert!(open.contains(&"overlap.routed|eohhs|10.3.0.0/16|massdot medium".to_owned()), "{open:?}");
    assert!(!open.iter().any(|line| line.starts_with("address.misplaced")), "{open:?}");
    let finding = bench.finding(RuleId::OverlapRouted);
    assert!(
        finding.summary.starts_with("10.3.0.0/16 of massdot arrives on eohhs's segment by 02:00:00:00:02:01")
    );
    assert_eq!(names(&finding.secretariats), "eohhs massdot");
}

#[test]
fn another_station_for_a_gateway_is_told_and_no_duplicate_besides() {
    let mut bench = Bench::new(PLAN);
    bench.see(&[answer("10.2.0.1", "eohhs", 1, 0)]);
    assert_eq!(bench.open().len(), 1);
    bench.see(&[answer("10.2.0.1", "eohhs", 66, 3 * MINUTE)]);
    assert!(
        bench.open().contains(&"gateway.mac|boston-eohhs|10.2.0.1 medium".to_owned()),
        "{:?}",
        bench.open()
    );
    for turn in 2..6 {
        let station = if turn % 2 == 0 { 1 } else { 66 };
        bench.see(&[answer("10.2.0.1", "eohhs", station, turn * 3 * MINUTE)]);
    }
    let open = bench.open();
    assert!(open.contains(&"gateway.mac|boston-eohhs|10.2.0.1 high".to_owned()), "{open:?}");
    assert!(!open.iter().any(|line| line.starts_with("address.duplicate")), "{open:?}");
    // A router that says so itself is a gateway without the plan.
    let advertised = |station, seconds| Observation {
        kind: ObservationKind::RouterAdvertisement,
        strength: Strength::Medium,
        ..answer("fd00:2::1", "eohhs", station, seconds)
    };
    let neighbor = |station, seconds| Observation {
        kind: ObservationKind::NeighborAdvertisement,
        ..answer("fd00:2::1", "eohhs", station, seconds)
    };
    bench.see(&[advertised(1, 0), neighbor(1, 1), neighbor(2, 2)]);
    assert!(bench.open().contains(&"gateway.mac|boston-eohhs|fd00:2::1 medium".to_owned()));
}

#[test]
fn a_dhcp_server_is_held_to_the_plan_or_to_the_first_day() {
    let mut bench = Bench::new(PLAN);
    let server = |address: &str, space: &str, seconds| {
        observation(address, space, "boston", ObservationKind::DhcpServer, seconds)
    };
    bench.see(&[
        server("10.3.0.2", "massdot", 0),
        server("10.2.0.2", "eohhs", 0),
        server("10.2.0.3", "eohhs", DAY / 2),
    ]);
    assert_eq!(bench.open().len(), 1, "{:?}", bench.open());
    bench.see(&[server("10.3.0.66", "massdot", 1), server("10.2.0.66", "eohhs", DAY + 10)]);
    let open: Vec<String> = bench.open().into_iter().filter(|line| line.starts_with("dhcp")).collect();
    assert_eq!(
        open,
        ["dhcp.rogue|boston-eohhs|10.2.0.66 medium", "dhcp.rogue|boston-massdot|10.3.0.66 high"]
    );
    assert_eq!(bench.finding(RuleId::DhcpRogue).rule.technique(), Some("T1557.003"));
}

#[test]
fn claims_that_overlap_are_told_by_the_plan_alone_and_closed_by_the_next() {
    let (_directory, store) = control();
    let judge = judge_of(PLAN);
    look(&store, &judge, &SensorsConfig::default(), at(0)).expect("it looks");
    look(&store, &judge, &SensorsConfig::default(), at(1)).expect("it looks");
    assert_eq!(life(&store), ["raised 0 open"]);
    let finding = &findings(&store)[0];
    assert_eq!((names(&finding.address_spaces).as_str(), finding.first_seen), ("eohhs massdot", at(0)));
    let mended = PLAN.replace(", {cidr='10.1.0.0/16', secretariat='massdot'}", "");
    assert_ne!(mended, PLAN);
    look(&store, &judge_of(&mended), &SensorsConfig::default(), at(2)).expect("it looks");
    assert_eq!(life(&store), ["raised 0 open", "closed 1 closed"]);
}

#[test]
fn a_changed_plan_judges_what_was_seen_before_anew() {
    let mut bench = Bench::new(PLAN);
    bench.see(&[
        answer("10.77.1.1", "eohhs", 1, 0),
        answer("10.1.0.1", "eohhs", 1, 0),
        answer("10.1.0.1", "massdot", 2, 1),
    ]);
    assert_eq!(bench.open().len(), 3, "{:?}", bench.open());
    let claimed = PLAN.replace("prefix = [", "prefix = [{cidr='10.77.0.0/16', secretariat='eohhs'},");
    bench.judge = judge_of(&claimed);
    look(&bench.store, &bench.judge, &SensorsConfig::default(), at(2)).expect("it looks");
    assert_eq!(bench.open(), ["overlap.address|10.1.0.1 high", "overlap.declared|10.1.0.0/16 medium"]);
}

#[test]
fn a_claim_is_dark_once_it_was_watched_for_long_enough() {
    let mut bench = Bench::new(PLAN);
    bench.see(&[answer("10.1.0.1", "eohhs", 1, 0), answer("10.3.0.1", "massdot", 1, 0)]);
    bench.see(&[answer("10.1.0.1", "eohhs", 1, DAY)]);
    assert!(!bench.open().iter().any(|line| line.starts_with("claim.dark")), "{:?}", bench.open());
    bench.see(&[answer("10.1.0.1", "eohhs", 1, 2 * DAY + 10)]);
    let dark: Vec<String> = bench.open().into_iter().filter(|line| line.starts_with("claim.dark")).collect();
    assert_eq!(dark, ["claim.dark|eohhs low", "claim.dark|massdot low"]);
    let of = |owner: &str| {
        findings(&bench.store)
            .into_iter()
            .find(|finding| finding.key == format!("claim.dark|{owner}"))
            .expect("it")
    };
    // Reserved claims need no use; massdot's 10.3/16 was in use two days ago.
    let counts = |finding: &Finding| {
        (finding.evidence.counts["dark_claims"], finding.evidence.counts["active_claims"])
    };
    assert_eq!((counts(&of("eohhs")), counts(&of("massdot"))), ((2, 3), (2, 2)));
    let claims = bench
        .store
        .read(|connection| crate::correlate::dark_claims(connection, &bench.judge, at(2 * DAY + 10)))
        .expect("readable");
    let claims: Vec<String> =
        claims.iter().map(|claim| format!("{} {}", claim.cidr, claim.secretariat)).collect();
    assert_eq!(
        claims,
        ["10.1.0.0/16 massdot", "10.2.0.0/16 eohhs", "10.3.0.0/16 massdot", "fd00:2::/32 eohhs"]
    );
}

#[test]
fn an_exempt_claim_is_never_dark() {
    let exempt = "exemption = [{rule='claim.dark', source='10.3.0.0/16', reason='for next year'}]";
    let bench = Bench::new(&format!("{PLAN}\n{exempt}"));
    let claims = bench
        .store
        .read(|connection| crate::correlate::dark_claims(connection, &bench.judge, at(0)))
        .expect("readable");
    assert!(claims.iter().all(|claim| claim.cidr.to_string() != "10.3.0.0/16"), "{claims:?}");
    assert_eq!(claims.len(), 4);
}

#[test]
fn what_a_sensor_could_not_tell_apart_is_kept_as_a_sum_and_is_no_use() {
    let mut bench = Bench::new(PLAN);
    let sum = |addresses, seconds| Observation {
        aggregate: Some(Box::new(ObservationAggregate {
            prefix_length: 16,
            addresses,
            top: Default::default(),
        })),
        packets: 100,
        ..routed("10.77.0.0", "eohhs", 1, seconds)
    };
    bench.see(&[sum(900, 0), sum(700, 300)]);
    let sums = bench
        .store
        .read(|connection| inventory_sweep::sums(connection, &Default::default(), 10, 0))
        .expect("readable");
    let [kept] = sums.as_slice() else { panic!("{sums:?}") };
    assert_eq!((kept.prefix.as_str(), kept.packets, kept.addresses), ("10.77.0.0/16", 200, 900));
    assert_eq!(bench.open().len(), 1, "{:?}", bench.open());
}

#[test]
fn the_verdict_is_told_anew_when_it_changes_and_the_collectors_word_goes_before_a_sensors() {
    let mut bench = Bench::new(PLAN);
    bench.see(&[routed("10.1.0.5", "eohhs", 1, 0), routed("10.1.0.5", "massdot", 2, 1)]);
    let mut told = told(RuleId::OverlapAddress, "10.1.0.5", "boston", Change::Raised, 2);
    (told.severity, told.confidence) = (Severity::High, 95);
    bench.number += 1;
    let batch = stored("boston-1", bench.number, &body(&[], &[told]));
    commit(&bench.store, &bench.judge, &SensorsConfig::default(), &[batch]).expect("it commits");
    let finding = bench.finding(RuleId::OverlapAddress);
    assert_eq!((finding.evidence.verdict, finding.severity), (Some(Verdict::Unknown), Severity::Medium));
    bench.see(&[answer("10.1.0.5", "eohhs", 1, 10), answer("10.1.0.5", "massdot", 2, 11)]);
    let finding = bench.finding(RuleId::OverlapAddress);
    assert_eq!((finding.evidence.verdict, finding.severity), (Some(Verdict::TwoHosts), Severity::High));
    assert_eq!(finding.evidence.scores["bits.mac"], 8.0);
    assert!(finding.evidence.scores["likelihood_ratio"] > 100.0);
}

#[test]
fn forged_packets_give_an_address_no_second_host() {
    let mut bench = Bench::new(PLAN);
    let forged =
        |seconds| Observation { mac: None, ..observation("10.1.0.6", "massdot", "boston", Traffic, seconds) };
    bench.see(&[answer("10.1.0.6", "eohhs", 1, 0), forged(1), forged(50)]);
    assert_eq!(bench.open(), ["overlap.declared|10.1.0.0/16 medium"]);
}

#[test]
fn an_inventory_of_an_earlier_version_is_brought_up_to_date() {
    let connection = rusqlite::Connection::open_in_memory().expect("a database");
    let earlier = "CREATE TABLE inventory (
        address BLOB NOT NULL, address_space TEXT NOT NULL, secretariat TEXT, strength INTEGER NOT NULL,
        kinds INTEGER NOT NULL, first_seen INTEGER NOT NULL, last_seen INTEGER NOT NULL, packets INTEGER NOT NULL,
        hostnames TEXT NOT NULL, witnesses TEXT NOT NULL, PRIMARY KEY (address, address_space)) STRICT, WITHOUT ROWID;
        INSERT INTO inventory VALUES (x'0a010005', 'eohhs', 'eohhs', 2, 4, 1, 2, 3, '[]', '[{}]');";
    connection.execute_batch(earlier).expect("a table");
    for _ in 0..2 {
        control_inventory::upgrade(&connection).expect("it is brought up to date");
    }
    let seen = answer("10.1.0.5", "eohhs", 1, 10);
    let entered = control_inventory::upsert(&connection, &seen, |_| None).expect("it is entered");
    let entry = entered.entry;
    assert_eq!((entry.packets, entry.usages.len(), entry.first_seen), (4, 1, Timestamp(1)));
}

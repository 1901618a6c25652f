//! Several sensors at once, each behind a link of its own that flaps.

use std::{sync::Arc, time::Instant};

use onenet_tests::chaos::Proxy;

use crate::{
    harness::Lab,
    kill::Flapping,
    kit::{Case, PATIENCE, QUICK, Sensor, ms, seed, size},
    oracle::{self, Account},
};

/// Sensors.
const SENSORS: u64 = 4;

#[test]
fn four_sensors_at_once_on_flapping_links_lose_and_double_nothing() {
    let flows = size(4_000, 200_000);
    let case = Case::begin("four sensors, links flapping", SENSORS);
    let mut lab = Lab::new(None, "");
    lab.start();
    let mut links = Vec::new();
    let mut sensors = Vec::new();
    for number in 1..=SENSORS {
        let proxy = Arc::new(Proxy::start(lab.ingest).expect("a proxy"));
        let own_seed = seed() * 10 + number;
        sensors.push(Sensor::enrol(
            &lab,
            &format!("boston-{number}"),
            own_seed,
            QUICK,
            Some(proxy.address()),
        ));
        links.push((Flapping::start(&proxy, own_seed), proxy));
    }
    let arguments = ["--flows", &flows.to_string(), "--rate", "2000", "--until-end"];
    let mut feeds: Vec<_> = sensors.iter().map(|sensor| sensor.start(&arguments)).collect();
    let limit = PATIENCE + ms(flows);
    let begun = Instant::now();
    for feed in &mut feeds {
        while feed.ended().is_none() {
            assert!(begun.elapsed() < limit, "it goes on for {limit:?}:\n{}", feed.log());
            std::thread::sleep(ms(50));
        }
        assert!(feed.wait().success(), "{}", feed.log());
    }
    lab.collector.as_mut().expect("it runs").stop();
    let mut account = Account::default();
    for sensor in &sensors {
        account.add(&oracle::settle(&lab, sensor, flows));
    }
    let cuts: u64 = links.iter().map(|(_, proxy)| proxy.totals().cuts).sum();
    assert!(cuts > 0, "no link was ever cut");
    case.end(&account, &format!("{cuts} connections cut"));
}

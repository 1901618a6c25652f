//! A bad network: packets lost, packets late, no packets at all, a connection that is dead and tells nobody. Collector and
//! sensor are in network namespaces of their own, and what lies between them is [`crate::road`].

use std::{
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    harness::{Background, Lab, say},
    inside::{Own, inside},
    kit::{Case, QUICK, Sensor, feed_program, full, seed, size, told, until},
    oracle,
    road::{COLLECTOR, Road, SET_UP, Weather},
};

/// What is promised: once the network is well again, what is made is delivered again within this time.
const PROMISED: Duration = Duration::from_secs(30);

#[test]
fn a_network_that_loses_delays_parts_and_forgets_loses_nothing_and_delivery_goes_on_soon() {
    inside("network::on_a_bad_road", Own::Networks, SET_UP);
}

/// Starts to feed the sensor in its namespace.
fn start(sensor: &Sensor, more: &[&str]) -> Background {
    let mut command = Command::new("ip");
    let program = feed_program();
    let inner = sensor.command(&program, more);
    command.args(["netns", "exec", "edge"]).arg(&program).args(inner.get_args());
    Background::start(&mut command, &sensor.edge.log)
}

/// Waits until what was made until now, and more, is stored; tells how long that took.
fn resumed(lab: &Lab, sensor: &Sensor) -> Duration {
    let (since, made) = (Instant::now(), sensor.made());
    until("delivery to go on", || told(lab, sensor).filter(|told| *told > made));
    since.elapsed()
}

#[test]
#[ignore = "runs in the namespaces that a_network_that_loses_delays_parts_and_forgets_loses_nothing_and_delivery_goes_on_soon makes"]
fn on_a_bad_road() {
    let mut case = Case::begin("bad network", size(1, 10));
    let seconds = |small, large| Duration::from_secs(if full() { large } else { small });
    let mut lab = Lab::on(COLLECTOR.parse().expect("an address"), None, "");
    lab.start();
    let sensor = Sensor::enrol(&lab, "boston-1", seed(), QUICK, None);
    let road = Road::open(seed());
    let mut feed = start(&sensor, &["--rate", "300"]);
    resumed(&lab, &sensor);
    let mut times = Vec::new();
    for _ in 0..case.rounds {
        let weathers = [
            ("30 % lost", Weather { loss: 30, ..Weather::default() }, seconds(8, 60)),
            // Each way, so that an answer takes two seconds.
            ("2 s late", Weather { delay: Duration::from_secs(1), ..Weather::default() }, seconds(10, 60)),
            ("parted", Weather { closed: true, ..Weather::default() }, seconds(15, 120)),
        ];
        for (name, weather, lasting) in weathers {
            let before = told(&lab, &sensor).expect("the collector answers");
            let closed = weather.closed;
            road.set(weather);
            std::thread::sleep(lasting);
            let during = told(&lab, &sensor).expect("the collector answers") - before;
            assert!(closed || during > 0, "nothing was delivered in {lasting:?} of {name}");
            road.set(Weather::default());
            let after = resumed(&lab, &sensor);
            times.push(format!("{name}: {:.1} s", after.as_secs_f64()));
            case.resumed(after);
            assert_eq!(feed.ended(), None, "{}", feed.log());
        }
        // Nobody is told, and nothing heals: the sensor itself has to find that its connection is dead.
        road.forget_connections();
        let after = resumed(&lab, &sensor);
        times.push(format!("half-open: {:.1} s", after.as_secs_f64()));
        case.resumed(after);
    }
    let told = times.join(", ");
    assert!(case.resume <= PROMISED, "it took {:?} to go on: {told}", case.resume);
    feed.kill();
    let flows = sensor.made() + 500;
    let mut feed = start(&sensor, &["--flows", &flows.to_string(), "--until-end"]);
    assert!(feed.wait().success(), "{}", feed.log());
    let (carried, lost) = road.totals();
    assert!(lost > 0, "nothing was lost on the road");
    lab.collector.as_mut().expect("it runs").stop();
    let account = oracle::settle(&lab, &sensor, flows);
    say(&format!("after healing: {told}"));
    let last = times.iter().rev().take(4).rev().cloned().collect::<Vec<_>>().join(", ");
    case.end(&account, &format!("{carried} packets carried, {lost} lost; last round: {last}"));
}

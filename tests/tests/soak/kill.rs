//! SIGKILL at any moment: of the agent, of the collector, of both with a link that flaps.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};

use onenet_tests::chaos::{Link, Proxy};

use crate::{
    harness::Lab,
    kit::{Case, QUICK, Sensor, ms, seed, size, stored, until, until_written},
    oracle,
};

/// Flows a second while programs are killed.
const RATE: &[&str] = &["--rate", "600"];
/// Flows that are still to come after the last kill.
const REST: u64 = 500;

/// Brings the case to its end: everything is delivered, and the account balances.
fn finish(case: Case, lab: &mut Lab, sensor: &Sensor, more: &str) {
    let truth = sensor.finish(sensor.made() + REST);
    lab.collector.as_mut().expect("it runs").stop();
    let account = oracle::settle(lab, sensor, truth);
    case.end(&account, more);
}

#[test]
fn an_agent_killed_at_any_moment_loses_and_doubles_nothing() {
    let mut case = Case::begin("agent killed", size(100, 2000));
    let mut lab = Lab::new(None, "");
    lab.start();
    let sensor = Sensor::enrol(&lab, "boston-1", seed(), QUICK, None);
    let mut before = 0;
    let mut rounds_with_progress = 0_u64;
    for round in 0..case.rounds {
        let (begun, life) = (Instant::now(), ms(case.chance.u64(1..220)));
        let mut feed = sensor.start(RATE);
        let mut resumed = None;
        while begun.elapsed() < life {
            if resumed.is_none() && stored(&lab, "boston-1").is_some_and(|stored| stored > before) {
                resumed = Some(begun.elapsed());
            }
            std::thread::sleep(ms(2).min(life.saturating_sub(begun.elapsed())));
        }
        if case.chance.bool() {
            until_written(&sensor.spool());
        }
        assert_eq!(feed.ended(), None, "round {round}:\n{}", feed.log());
        feed.kill();
        if let Some(resumed) = resumed {
            rounds_with_progress += 1;
            case.resumed(resumed);
        }
        before = stored(&lab, "boston-1").unwrap_or(before);
    }
    let more = format!("{rounds_with_progress} rounds came to deliver before the kill");
    assert!(rounds_with_progress > case.rounds / 10, "{more}");
    finish(case, &mut lab, &sensor, &more);
}

#[test]
fn a_collector_killed_at_any_moment_loses_and_doubles_nothing() {
    let mut case = Case::begin("collector killed", size(100, 2000));
    let mut lab = Lab::new(None, "");
    lab.start();
    let sensor = Sensor::enrol(&lab, "boston-1", seed(), QUICK, None);
    let segments = lab.collector_dir().join("data").join("segments");
    let mut feed = sensor.start(RATE);
    let mut in_commit = 0_u64;
    for round in 0..case.rounds {
        let begun = Instant::now();
        match case.chance.u64(0..4) {
            // While it starts, or the sensor comes back.
            0 => std::thread::sleep(ms(case.chance.u64(0..100))),
            // While it writes to its store, between write, fsync and ack.
            kind => {
                let resumed = resumed(&lab, "boston-1");
                case.resumed(resumed.saturating_duration_since(begun));
                if kind > 1 {
                    in_commit += u64::from(until_written(&segments));
                } else {
                    std::thread::sleep(ms(case.chance.u64(0..40)));
                }
            }
        }
        lab.collector.as_mut().expect("it runs").kill();
        assert_eq!(feed.ended(), None, "round {round}:\n{}", feed.log());
        lab.launch();
    }
    feed.kill();
    let more = format!("{in_commit} of them as its store was written");
    assert!(in_commit > case.rounds / 10, "{more}");
    finish(case, &mut lab, &sensor, &more);
}

/// Waits until something new is stored; tells when.
fn resumed(lab: &Lab, sensor: &str) -> Instant {
    let first = until("the collector's API", || stored(lab, sensor));
    until("something new to be stored", || stored(lab, sensor).filter(|now| *now > first));
    Instant::now()
}

/// A link that flaps until told to stop.
pub(crate) struct Flapping {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flapping {
    /// Begins: every few hundred milliseconds the link is cut, silent, refusing, slow or narrow for a while.
    pub(crate) fn start(proxy: &Arc<Proxy>, chance: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, proxy) = (Arc::clone(&stop), Arc::clone(proxy));
        let mut chance = fastrand::Rng::with_seed(chance);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let good = Link::default();
                match chance.u8(0..5) {
                    0 => proxy.cut(),
                    1 => proxy.set(Link { silent: true, ..good }),
                    2 => {
                        proxy.set(Link { refusing: true, ..good });
                        proxy.cut();
                    }
                    3 => proxy.set(Link { delay: ms(chance.u64(1..60)), ..good }),
                    _ => proxy.set(Link { bytes_per_second: Some(chance.u64(20_000..2_000_000)), ..good }),
                }
                std::thread::sleep(ms(chance.u64(5..150)));
                proxy.set(good);
                std::thread::sleep(ms(chance.u64(20..300)));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Flapping {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn agent_and_collector_killed_while_the_link_flaps_lose_and_double_nothing() {
    let mut case = Case::begin("both killed, link flapping", size(25, 500));
    let mut lab = Lab::new(None, "");
    lab.start();
    let proxy = Arc::new(Proxy::start(lab.ingest).expect("a proxy"));
    let sensor = Sensor::enrol(&lab, "boston-1", seed(), QUICK, Some(proxy.address()));
    let flapping = Flapping::start(&proxy, seed());
    let mut feed = sensor.start(RATE);
    for round in 0..case.rounds {
        std::thread::sleep(ms(case.chance.u64(20..400)));
        let victim = case.chance.u8(0..3);
        if victim != 0 {
            assert_eq!(feed.ended(), None, "round {round}:\n{}", feed.log());
            feed.kill();
        }
        if victim != 1 {
            lab.collector.as_mut().expect("it runs").kill();
            std::thread::sleep(ms(case.chance.u64(0..60)));
            lab.launch();
        }
        if victim != 0 {
            feed = sensor.start(RATE);
        }
    }
    drop(flapping);
    // From here on nothing stands in the way.
    let healed = Instant::now();
    case.resumed(resumed(&lab, "boston-1").saturating_duration_since(healed));
    feed.kill();
    let totals = proxy.totals();
    let more = format!("{} connections, {} of them cut", totals.connections, totals.cuts);
    assert!(totals.cuts > 0, "{more}");
    finish(case, &mut lab, &sensor, &more);
}

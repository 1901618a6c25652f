//! A sensor whose clock is off by an hour, by ten years, and steps while it runs. The clock of its process alone is
//! shifted (libfaketime); time that only goes forward is left alone, as a set clock leaves it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use onenet_core::record::RuleId;

use crate::{
    harness::{Background, Lab, run, say, text},
    kit::{Case, QUICK, Sensor, feed_program, found, full, ms, seed, told, until},
    oracle,
};

/// Shifts, as libfaketime writes them, and whether the sensor may still trust the collector's certificate then.
const SHIFTS: [(&str, bool); 4] = [("+1h", true), ("-1h", true), ("+10y", false), ("-10y", false)];
const RIGHT: &str = "+0";

/// A clock that can be set.
struct Clock {
    file: PathBuf,
    library: String,
}

impl Clock {
    /// None where libfaketime is not here.
    fn new(file: PathBuf) -> Option<Self> {
        let library = run(Command::new("sh").args(["-c", "faketime -f +0s printenv LD_PRELOAD"]));
        let library = library.out.trim().to_owned();
        (!library.is_empty()).then(|| {
            let clock = Self { file, library };
            clock.set(RIGHT);
            clock
        })
    }

    /// Steps to another shift, in one step.
    fn set(&self, shift: &str) {
        let half = self.file.with_extension("half");
        fs::write(&half, shift).and_then(|()| fs::rename(&half, &self.file)).expect("a file");
    }

    /// Starts to feed a sensor by this clock.
    fn start(&self, sensor: &Sensor, more: &[&str]) -> Background {
        let mut command = sensor.command(&feed_program(), more);
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", text(&self.file));
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Background::start(&mut command, &sensor.edge.log)
    }
}

fn years_of(collector_dir: &Path, sensor: &str) -> (i64, i64) {
    let times = oracle::sealed_at(collector_dir, sensor);
    let year = |nanos: i64| 1970 + nanos / 31_556_952_000_000_000;
    (year(times.iter().copied().min().unwrap_or_default()), year(times.into_iter().max().unwrap_or_default()))
}

#[test]
fn a_clock_that_is_off_or_steps_breaks_no_order_and_needs_no_enrolment() {
    let mut case = Case::begin("clock off and stepping", if full() { 10 } else { 1 });
    let mut lab = Lab::new(None, "");
    let Some(clock) = Clock::new(lab.path("clock")) else {
        say("SKIPPED clock off and stepping: libfaketime is not installed (cargo xtask setup)");
        return;
    };
    lab.start();
    let sensor = Sensor::enrol(&lab, "boston-1", seed(), QUICK, None);
    let enrolled = lab.sensor("boston-1")["enrolled_at"].clone();
    let mut feed = clock.start(&sensor, &["--rate", "300"]);
    let resumed = || {
        let (since, made) = (Instant::now(), sensor.made());
        until("delivery to go on", || told(&lab, &sensor).filter(|told| *told > made));
        since.elapsed()
    };
    resumed();
    for _ in 0..case.rounds {
        for (shift, trusts) in SHIFTS {
            // A step while it runs: the stream goes on.
            clock.set(shift);
            case.resumed(resumed());
            found(&lab, RuleId::SensorClock);
            // A start with the clock off. Where no certificate is valid, what is sealed waits.
            feed.kill();
            let before = told(&lab, &sensor).expect("the collector answers");
            let sealed = || sensor.status()["flows_sealed"].as_u64().unwrap_or_default();
            feed = clock.start(&sensor, &["--rate", "300"]);
            if trusts {
                case.resumed(resumed());
            } else {
                until("flows to be sealed", || (sealed() > before + 300).then_some(()));
                let log = feed.log();
                assert!(log.contains("certificate"), "its own error was expected:\n{log}");
            }
            std::thread::sleep(ms(case.chance.u64(0..200)));
            clock.set(RIGHT);
            case.resumed(resumed());
            assert_eq!(feed.ended(), None, "{}", feed.log());
        }
    }
    assert!(case.resume <= Duration::from_secs(30), "it took {:?} to go on", case.resume);
    assert_eq!(lab.sensor("boston-1")["enrolled_at"], enrolled, "it has enrolled again");
    feed.kill();
    let truth = sensor.finish(sensor.made() + 500);
    lab.settle();
    lab.collector.as_mut().expect("it runs").stop();
    let account = oracle::settle(&lab, &sensor, truth);
    let (first, last) = years_of(&lab.collector_dir(), "boston-1");
    assert!(last - first >= 19, "the clock was never off: sealed from {first} to {last}");
    case.end(&account, &format!("in order although sealed in the years {first} to {last}"));
}

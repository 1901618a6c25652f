//! kill -9 of an agent and of the collector while they are at work, again and again: whatever was sealed is stored
//! once, and the totals are those of a run that nobody killed.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use onenet_tests::traffic::Options;

use crate::{
    harness::{AgentConfig, Edge, Lab, PATIENCE, day},
    store::{self, Stored},
};

const OPTIONS: Options = Options { seed: 3, scale: 0.3 };

/// Small batches, so that there are many for a kill to fall between.
const BATCHES: &str = "\n[batch]\nmax_records = 100\nmax_delay_ms = 100\n\n[spool]\nsegment_mib = 1\n";

fn enrolled(lab: &Lab) -> Vec<Edge> {
    let (captures, truth) = day(OPTIONS);
    let enrol = |site| {
        let mut agent = AgentConfig::of_day(&captures, &truth, site);
        agent.tables.push_str(BATCHES);
        lab.enrol(agent)
    };
    vec![enrol("boston"), enrol("lowell")]
}

fn undisturbed() -> BTreeMap<String, Stored> {
    let (captures, _) = day(OPTIONS);
    let mut lab = Lab::new(Some(&captures.join("plan.toml")), "");
    lab.start();
    for edge in enrolled(&lab) {
        edge.run_until_end();
    }
    lab.collector.as_mut().expect("it runs").stop();
    store::read(&lab.collector_dir())
}

/// Compares what is stored after the kills with a run without.
fn compare(lab: &mut Lab, edges: &[Edge], kills: u64) {
    lab.collector.as_mut().expect("it runs").stop();
    let expected = undisturbed();
    let stored = store::read(&lab.collector_dir());
    for edge in edges {
        let (stored, expected) = (&stored[&edge.sensor], &expected[&edge.sensor]);
        let status = edge.status();
        println!("{}: {} batches after {kills} kills; {status}", edge.sensor, stored.batches.len());
        let epoch = stored.batches.last().map(|&(epoch, _)| epoch);
        let of_epoch = stored.batches.iter().filter(|batch| Some(batch.0) == epoch).count() as u64;
        assert_eq!(status["batches_sealed"].as_u64(), Some(of_epoch), "{status}");
        assert_eq!(status["batches_acked"].as_u64(), Some(of_epoch), "{status}");
        assert_eq!(stored.batches_twice(), []);
        assert!(stored.has_no_gap(), "{:?}", stored.batches);
        assert_eq!(stored.flows_twice(), 0);
        assert_eq!(stored.totals(), expected.totals(), "{}", edge.sensor);
    }
}

#[test]
fn a_collector_that_is_killed_during_the_transfer_loses_and_doubles_nothing() {
    let (captures, _) = day(OPTIONS);
    let mut lab = Lab::new(Some(&captures.join("plan.toml")), "");
    lab.start();
    let edges = enrolled(&lab);
    let mut agents: Vec<_> = edges.iter().map(|edge| edge.start(&["--until-end"])).collect();
    let deadline = Instant::now() + PATIENCE;
    let mut kills = 0;
    while agents.iter_mut().any(|agent| agent.ended().is_none()) {
        assert!(Instant::now() < deadline, "the agents do not come to an end:\n{}", agents[0].log());
        std::thread::sleep(Duration::from_millis(150 + 70 * (kills % 5)));
        if kills < 12 {
            lab.collector.as_mut().expect("it runs").kill();
            kills += 1;
            std::thread::sleep(Duration::from_millis(40 * (kills % 3)));
            lab.start();
        }
    }
    for agent in &mut agents {
        assert!(agent.wait().success(), "{}", agent.log());
    }
    assert!(kills > 0, "the agents were done before the first kill");
    compare(&mut lab, &edges, kills);
}

#[test]
fn an_agent_that_is_killed_during_the_transfer_loses_and_doubles_nothing() {
    let (captures, _) = day(OPTIONS);
    let mut lab = Lab::new(Some(&captures.join("plan.toml")), "");
    lab.start();
    let edges = enrolled(&lab);
    let mut kills = 0;
    for edge in &edges {
        for wait in [60, 130, 220, 310, 90, 400, 170, 500] {
            let mut agent = edge.start(&["--until-end"]);
            std::thread::sleep(Duration::from_millis(wait));
            if agent.ended().is_some() {
                break;
            }
            agent.kill();
            kills += 1;
        }
        edge.run_until_end();
    }
    assert!(kills > 0, "the agents were done before the first kill");
    compare(&mut lab, &edges, kills);
}

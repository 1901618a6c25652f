//! Which plan a batch says that its records were judged by.

use onenet_core::{plan::AddressPlan, record::RecordSink as _, sensor::Sensor};

use super::*;
use crate::{
    plan::{Held, InUse},
    run::batch::tests::observation,
};

fn version(version: u64) -> InUse {
    let plan: AddressPlan = toml::from_str("[[secretariat]]\nid = 'eohhs'\n").unwrap();
    InUse { plan: plan.into(), held: Held { version, sha256: [3; 32], ..Held::default() } }
}

/// Kind of record and version told, of every batch.
fn told(spool: &Arc<Shared>) -> Vec<(usize, u64)> {
    let version = |body: &BatchBody| body.plan.as_ref().unwrap().version;
    entries(spool, Position::default())
        .iter()
        .map(|(_, body)| (body.observations.len(), version(body)))
        .collect()
}

#[test]
fn records_are_sealed_with_the_plan_that_judged_them_also_those_that_waited_when_it_changed() {
    let directory = spool::scratch();
    let thread = start(directory.path(), &signing_key().0, WhenFull::Shed, 1 << 24);
    let config = Config::default();
    let limits = Limits { records: 100, bytes: 1 << 20, delay: Duration::from_secs(3600) };
    let mut pump = Pump {
        sensor: Sensor::new(config.sensor_config([1, 2, 3, 4])).unwrap(),
        batcher: Batcher::new(limits, thread.drafts.clone(), 0),
        config: config.clone(),
        control: Arc::default(),
        sealing: thread.control.clone(),
        view: Arc::default(),
        told: None,
    };
    pump.batcher.observation(&observation(1));
    pump.control.reload((version(8), config.detect.clone()));
    pump.reload_if_asked();
    pump.batcher.observation(&observation(2));
    pump.batcher.cut();
    // Again the same, as after SIGHUP: nothing is told.
    pump.control.reload((version(8), config.detect.clone()));
    pump.reload_if_asked();
    assert_eq!(pump.view.lock().plan.version, 8);
    drop(pump);
    eventually("both are sealed", || {
        told(&thread.spool).iter().filter(|(records, _)| *records > 0).count() == 2
    });
    let spool = thread.spool.clone();
    let (_, last) = entries(&spool, Position::default()).pop().unwrap();
    thread.stop();
    let told = told(&spool);
    let with_records: Vec<_> = told.iter().copied().filter(|(records, _)| *records > 0).collect();
    // The thread began with version 7.
    assert_eq!(with_records, [(1, 7), (1, 8)]);
    assert!(told.is_sorted_by_key(|(_, version)| *version), "{told:?}");
    assert_eq!(last.plan.unwrap().sha256, vec![3; 32]);
    let taken = entries(&spool, Position::default());
    let taken = taken.iter().flat_map(|(_, body)| &body.audit).filter(|entry| entry.action == "plan-taken");
    let taken: Vec<_> = taken.map(|entry| entry.detail.clone()).collect();
    assert_eq!(taken.len(), 1, "{taken:?}");
    assert!(taken[0].starts_with("the plan version 8 of the collector's, SHA-256 0303"), "{taken:?}");
}

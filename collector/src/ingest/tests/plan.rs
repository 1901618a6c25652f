//! The address plan to a sensor, over its stream.

use onenet_core::plan::AddressPlan;
use onenet_proto::{
    edge_plan,
    v1::{BatchBody, PlanHeld, SignedPlan},
};

use super::*;
use crate::sensors::{self, PlanStanding};

impl Delivery {
    /// Reads up to the next plan.
    async fn plan(&mut self) -> SignedPlan {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.acks.message()).await.expect("in time");
            if let Some(plan) = message.expect("no refusal").expect("the stream goes on").plan {
                return plan;
            }
        }
    }
}

impl Rig {
    /// A batch that says which plan the sensor goes by.
    fn says(&mut self, version: u64, own: bool) -> SealedBatch {
        let plan = Some(PlanHeld { version, sha256: vec![1; 32].into(), own });
        self.client.sensor.seal(&BatchBody { plan, ..BatchBody::default() })
    }

    async fn issue(&self, text: &str) -> AddressPlan {
        let plan: AddressPlan = toml::from_str(text).expect("a plan");
        self.collector.issue(Arc::new(plan.clone())).await;
        plan
    }

    /// Waits until the sensor is told with this standing.
    async fn stands(&self, standing: PlanStanding) {
        let until = std::time::Instant::now() + PATIENCE;
        loop {
            let status = sensors::status(&self.collector.store).expect("readable").remove(0);
            if status.plan == standing {
                return;
            }
            assert!(std::time::Instant::now() < until, "{status:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

const PLAN: &str = "[[secretariat]]\nid = 'eohhs'\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_is_sent_the_plan_once_and_again_after_a_change_on_the_open_stream() {
    let mut rig = Rig::new().await;
    let mut delivery = rig.deliver().await.expect("a stream");
    delivery.send(rig.says(0, false)).await;
    let first = delivery.plan().await;
    edge_plan::verify(&first, &rig.cosign_key).expect("it is the word of the key that enrolment gave");
    rig.stands(PlanStanding::Behind).await;
    delivery.send(rig.says(first.version, false)).await;
    rig.stands(PlanStanding::Current).await;
    let plan = rig.issue(PLAN).await;
    // Nothing was sent in between, or it would come first.
    let second = delivery.plan().await;
    assert!(second.version > first.version);
    assert_eq!(edge_plan::verify(&second, &rig.cosign_key), Ok(plan));
    // The sensor still goes by the first, and is not sent the second again.
    delivery.send(rig.says(first.version, false)).await;
    rig.stands(PlanStanding::Behind).await;
    rig.issue("[[secretariat]]\nid = 'massdot'\n").await;
    assert!(delivery.plan().await.version > second.version);
    // On a new stream it is sent what is the latest.
    let mut again = rig.deliver().await.expect("a stream");
    again.send(rig.says(first.version, false)).await;
    assert!(again.plan().await.version > second.version);
    rig.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_with_its_own_file_and_one_that_says_nothing_are_sent_no_plan() {
    let mut rig = Rig::new().await;
    let mut delivery = rig.deliver().await.expect("a stream");
    delivery.send(rig.batch(1)).await;
    delivery.acked(1).await;
    rig.stands(PlanStanding::Unknown).await;
    delivery.send(rig.says(0, true)).await;
    rig.stands(PlanStanding::OwnFile).await;
    rig.issue(PLAN).await;
    // Had a plan been sent before, it would be the earlier version.
    delivery.send(rig.says(0, false)).await;
    let latest = delivery.plan().await;
    assert_eq!(edge_plan::verify(&latest, &rig.cosign_key), Ok(toml::from_str(PLAN).expect("a plan")));
    rig.collector.stop().await;
}

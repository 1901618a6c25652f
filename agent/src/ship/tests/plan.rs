//! A plan that comes with an ack.

use onenet_core::plan::AddressPlan;
use onenet_proto::edge_plan;

use super::*;
use crate::plan::Held;

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_taken_from_the_stream_and_one_that_is_refused_ends_no_stream() {
    let mut lab = Lab::new();
    let (key, _) = SigningKey::generate().unwrap();
    let plan: AddressPlan = toml::from_str("[[secretariat]]\nid = 'eohhs'\n").unwrap();
    // Larger than a message may be unless more is said.
    let mut body = edge_plan::encode(&plan).unwrap();
    body.resize(5 << 20, b' ');
    let sound = edge_plan::sign(&key, body, 9, 5);
    let directory = tempfile::tempdir().unwrap();
    let plans =
        Plans::open(directory.path(), Some(key.public_key().to_vec()), PlanSource::Collector, Arc::default());
    let plans = Arc::new(plans);
    let mut forged = sound.clone();
    forged.version = 10;
    *lab.store.plans.lock().unwrap() = vec![sound, forged];
    lab.sensor.seal(2);
    let (address, server) = lab.serve(0).await;
    let (_, shipping) = lab.sensor.ship_with(&lab.certificates, address, |shipper| {
        shipper.plans = plans.clone();
    });
    lab.all_acked().await;
    eventually("both were looked at", || lab.store.plans.lock().unwrap().is_empty()).await;
    lab.sensor.seal(20);
    lab.all_acked().await;
    assert_eq!(plans.in_use().held.version, 9);
    assert_eq!(plans.state(Held::default()).refused, 1);
    assert_eq!(lab.store.streams.load(Ordering::SeqCst), 1);
    shipping.abort();
    server.abort();
}

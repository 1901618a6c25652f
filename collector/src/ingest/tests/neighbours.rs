//! Several sensors at once: one that attacks and one that does not listen hold up nobody else.

use super::*;

/// A sensor that has enrolled at a collector that others use too.
struct Neighbour {
    client: Client,
    tls: Arc<rustls::ClientConfig>,
    cosign_key: Vec<u8>,
}

impl Neighbour {
    async fn enrol(site: &Site, collector: &Collector, name: &str) -> Self {
        let client = Client::named(name);
        let token = site.token_for(&collector.store, name, HOUR);
        let answer =
            enroll(collector, &site.authority(), client.request(&token)).await.expect("a certificate");
        let tls = client_tls(&site.authority(), Some((answer.certificate_der.to_vec(), &client.key)));
        Self { client, tls, cosign_key: answer.cosign_key.to_vec() }
    }

    async fn deliver(&self, collector: &Collector) -> Delivery {
        let channel = connect(collector, Arc::clone(&self.tls)).await.expect("it connects");
        let mut delivery = Delivery::start(channel, &self.cosign_key).await.expect("it begins");
        delivery.sensor.clone_from(&self.client.sensor.name.to_string());
        delivery
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_that_attacks_and_one_that_does_not_listen_hold_up_nobody() {
    let site = Site::new();
    let collector = Collector::start(&site.config).await.expect("it starts");
    let mut good = Neighbour::enrol(&site, &collector, "lowell-1").await;
    let mut deaf = Neighbour::enrol(&site, &collector, "worcester-1").await;
    let mut hostile = Neighbour::enrol(&site, &collector, "boston-1").await;

    // It sends and never reads: its acks fill what the network and the collector keep for it.
    let unheard = deaf.deliver(&collector).await;
    for _ in 0..200 {
        unheard.send(deaf.client.sensor.batch(1)).await;
    }
    let first = hostile.client.sensor.batch(1);
    let head = hostile.client.sensor.head();
    let mut delivery = hostile.deliver(&collector).await;
    delivery.send(first).await;
    delivery.acked(1).await;

    let mut told = good.deliver(&collector).await;
    for round in 0..20 {
        hostile.client.sensor.restore(head);
        let mut attack = hostile.client.sensor.batch(2);
        let expected = if round % 2 == 0 {
            attack.signature = vec![round; 64].into();
            Code::InvalidArgument
        } else {
            attack = hostile.client.sensor.batch(2);
            Code::OutOfRange
        };
        let mut delivery = hostile.deliver(&collector).await;
        delivery.send(attack).await;
        for _ in 0..10 {
            told.send(good.client.sensor.batch(20)).await;
        }
        told.acked(u64::from(round + 1) * 10).await;
        assert_eq!(delivery.refusal().await.code(), expected, "round {round}");
    }
    let heads = collector.store.heads().expect("readable");
    assert_eq!((heads["lowell-1"].batches, heads["lowell-1"].flows), (200, 4_000));
    assert_eq!(heads["worcester-1"].batches, 200, "what a sensor does not hear of is stored all the same");
    assert_eq!(heads["boston-1"].head, head, "nothing of the attacks is in its chain");
    drop(unheard);
    collector.stop().await;
}

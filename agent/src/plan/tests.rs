//! Versions that come from a collector: one is taken, durably, and each way of being wrong is refused.

use std::os::unix::fs::PermissionsExt as _;

use onenet_proto::seal::SigningKey;

use super::*;

struct Place {
    directory: tempfile::TempDir,
    key: SigningKey,
}

fn plan(text: &str) -> AddressPlan {
    toml::from_str(text).expect("a plan")
}

fn of(secretariat: &str) -> AddressPlan {
    plan(&format!("[[secretariat]]\nid = '{secretariat}'\n"))
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { directory, key: SigningKey::generate().expect("a key").0 }
    }

    fn open(&self, source: PlanSource) -> Plans {
        let key = self.key.public_key().to_vec();
        Plans::open(self.directory.path(), Some(key), source, Arc::new(of("mine")))
    }

    fn signed(&self, plan: &AddressPlan, version: u64) -> SignedPlan {
        edge_plan::sign(&self.key, edge_plan::encode(plan).expect("JSON"), version, 5)
    }
}

fn uses(plans: &Plans) -> (u64, String) {
    let InUse { plan, held } = plans.in_use();
    (held.version, plan.secretariats[0].id.to_string())
}

#[test]
fn a_version_that_came_is_private_and_survives_a_restart() {
    let place = Place::new();
    let plans = place.open(PlanSource::Collector);
    assert_eq!(uses(&plans), (0, "mine".to_owned()));
    plans.receive(&place.signed(&of("eohhs"), 9));
    assert_eq!(uses(&plans), (9, "eohhs".to_owned()));
    let mode = fs::metadata(plans.path(HELD)).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = place.open(PlanSource::Collector);
    assert_eq!(uses(&again), (9, "eohhs".to_owned()));
    assert_eq!(again.in_use().held, plans.in_use().held);
    again.receive(&place.signed(&of("massdot"), 10));
    assert_eq!(uses(&place.open(PlanSource::Collector)), (10, "massdot".to_owned()));
}

#[test]
fn a_sensor_that_keeps_to_its_own_plan_takes_none_until_its_configuration_says_so() {
    let place = Place::new();
    let plans = place.open(PlanSource::File);
    assert!(plans.in_use().held.own);
    plans.receive(&place.signed(&of("eohhs"), 9));
    assert_eq!(uses(&plans), (0, "mine".to_owned()));
    assert!(plans.state(Held::default()).refusal.is_some_and(|why| why.contains("plan_source")));
    plans.configure(PlanSource::Collector, Arc::new(of("mine")));
    assert!(!plans.in_use().held.own);
    plans.receive(&place.signed(&of("eohhs"), 9));
    assert_eq!(uses(&plans), (9, "eohhs".to_owned()));
    plans.configure(PlanSource::Collector, Arc::new(of("other")));
    assert_eq!(uses(&plans), (9, "eohhs".to_owned()), "the file's plan does not come back");
    plans.configure(PlanSource::File, Arc::new(of("other")));
    assert_eq!(uses(&plans), (0, "other".to_owned()));
}

#[test]
fn whatever_is_wrong_is_refused_counted_and_told_and_the_plan_held_goes_on() {
    let place = Place::new();
    let plans = place.open(PlanSource::Collector);
    plans.receive(&place.signed(&of("eohhs"), 9));
    let good = place.signed(&of("massdot"), 10);
    let other = SigningKey::generate().expect("a key").0;
    let mut damaged = good.body.to_vec();
    damaged[3] ^= 1;
    let body = |text: &str| edge_plan::sign(&place.key, text.as_bytes().to_vec(), 10, 5);
    for (signed, expected) in [
        (edge_plan::sign(&other, good.body.to_vec(), 10, 5), "version 10: it is signed by another key"),
        (SignedPlan { version: 11, ..good.clone() }, "version 11: the signature does not fit"),
        (SignedPlan { body: damaged.into(), ..good.clone() }, "version 10: the signature does not fit"),
        (SignedPlan { algorithm: 7, ..good.clone() }, "version 10: signature algorithm 7 is not known"),
        (place.signed(&of("massdot"), 8), "version 8: version 9 is held"),
        (place.signed(&of("massdot"), 9), "version 9: another plan is held under that version"),
        (body(r#"{"zone":[]}"#), "a newer collector may have made it: unknown field `zone`"),
        (body(r#"{"prefix":[{"cidr":"10.0.0.0/8","secretariat":"x"}]}"#), "it contradicts itself"),
    ] {
        let before = plans.state(Held::default()).refused;
        plans.receive(&signed);
        let state = plans.state(Held::default());
        assert_eq!(state.refused, before + 1, "{expected}");
        assert!(state.refusal.as_deref().is_some_and(|why| why.contains(expected)), "{state:?}");
        assert_eq!(uses(&plans), (9, "eohhs".to_owned()), "{expected}");
        assert_eq!(uses(&place.open(PlanSource::Collector)), (9, "eohhs".to_owned()), "{expected}");
    }
    // The same version again is no news, and no fault.
    let before = plans.state(Held::default()).refused;
    plans.receive(&place.signed(&of("eohhs"), 9));
    assert_eq!(plans.state(Held::default()).refused, before);
    plans.receive(&good);
    assert_eq!(uses(&plans), (10, "massdot".to_owned()));
    assert_eq!(plans.state(Held::default()).refusal, None);
}

#[test]
fn without_a_key_from_enrolment_no_plan_is_taken() {
    let place = Place::new();
    let plans = Plans::open(place.directory.path(), None, PlanSource::Collector, Arc::new(of("mine")));
    plans.receive(&place.signed(&of("eohhs"), 9));
    assert_eq!(uses(&plans), (0, "mine".to_owned()));
    assert!(plans.state(Held::default()).refusal.is_some_and(|why| why.contains("enroll")));
}

#[test]
fn a_version_that_cannot_be_kept_does_not_count_as_held() {
    let place = Place::new();
    let plans = place.open(PlanSource::Collector);
    // Where the draft would be is a directory.
    fs::create_dir(plans.path("plan.signed.new")).expect("made");
    plans.receive(&place.signed(&of("eohhs"), 9));
    assert_eq!(uses(&plans), (0, "mine".to_owned()));
    assert!(plans.state(Held::default()).refusal.is_some_and(|why| why.contains("cannot be written")));
}

#[test]
fn what_is_kept_is_checked_again_at_every_start() {
    let place = Place::new();
    place.open(PlanSource::Collector).receive(&place.signed(&of("eohhs"), 9));
    let path = place.directory.path().join(HELD);
    let sound = fs::read(&path).expect("it is there");
    for damaged in [&sound[..sound.len() / 2], b"junk", &[&sound[..], &[0]].concat()] {
        fs::write(&path, damaged).expect("written");
        let plans = place.open(PlanSource::Collector);
        assert_eq!(uses(&plans), (0, "mine".to_owned()));
        assert!(plans.state(Held::default()).refusal.is_some_and(|why| why.contains("plan.signed: ")));
    }
    fs::write(&path, &sound).expect("written");
    // Another collector has another key.
    let elsewhere = Place { directory: place.directory, ..Place::new() };
    assert_eq!(uses(&elsewhere.open(PlanSource::Collector)), (0, "mine".to_owned()));
}

#[test]
fn a_run_of_captures_finds_the_plan_it_began_with() {
    let place = Place::new();
    let plans = place.open(PlanSource::Collector);
    plans.begin_run().expect("nothing is to be kept");
    plans.receive(&place.signed(&of("eohhs"), 9));
    assert_eq!(plans.of_run().held.version, 0);
    plans.begin_run().expect("kept");
    plans.receive(&place.signed(&of("massdot"), 10));
    let again = place.open(PlanSource::Collector);
    assert_eq!((again.of_run().held.version, again.in_use().held.version), (9, 10));
    again.begin_run().expect("kept");
    assert_eq!(again.of_run().held, again.in_use().held);
}

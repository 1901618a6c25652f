//! The month against what is promised of it.

use std::collections::BTreeSet;

use onenet_core::plan::AddressPlan;

use super::*;

fn made(options: Options) -> (tempfile::TempDir, MonthTruth) {
    let directory = tempfile::tempdir().expect("a directory");
    let truth = generate_month(directory.path(), options).expect("captures");
    (directory, truth)
}

const SMALL: Options = Options { seed: 5, scale: 0.01 };

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_does_not() {
    let ((one, _), (two, _)) = (made(SMALL), made(SMALL));
    let (other, _) = made(Options { seed: 6, ..SMALL });
    for name in ["boston-inside.pcap", "lowell-inside.pcap", "plan.toml", "month.json"] {
        let bytes = |directory: &tempfile::TempDir| fs::read(directory.path().join(name)).expect("a file");
        assert!(bytes(&one) == bytes(&two), "{name}");
        assert!(bytes(&one) != bytes(&other), "{name}");
    }
}

#[test]
fn captures_are_in_order_of_time_and_the_truth_reads_back() {
    let (directory, truth) = made(SMALL);
    assert_eq!(read_month(directory.path()).expect("truth"), truth);
    let mut packets = 0;
    for site in Site::ALL {
        let name = format!("{}-inside.pcap", site.name());
        let bytes = fs::read(directory.path().join(&name)).expect("a capture");
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four octets"));
        let (mut at, mut before) = (24, (0, 0));
        while at < bytes.len() {
            let time = (word(at), word(at + 4));
            assert!(before <= time && time.1 < 1_000_000, "{name}");
            before = time;
            at += 16 + word(at + 8) as usize;
            packets += 1;
        }
        let text = fs::read_to_string(directory.path().join(format!("{}-interfaces.toml", site.name())));
        let interfaces: Interfaces = toml::from_str(&text.expect("interfaces")).expect("interfaces");
        assert_eq!(interfaces.interface, [interface_plan(Link::Inside(site))]);
    }
    assert_eq!(packets, truth.packets);
}

#[test]
fn the_plan_is_sound_and_claims_what_the_truth_says() {
    let (directory, truth) = made(SMALL);
    let text = fs::read_to_string(directory.path().join("plan.toml")).expect("a plan");
    let plan: AddressPlan = toml::from_str(&text).expect("a plan");
    assert_eq!(plan.check(), Ok(()));
    let owners = |address: IpAddr| -> BTreeSet<String> {
        let prefixes = plan.prefixes.iter().filter(|prefix| prefix.cidr.contains(&address));
        prefixes.map(|prefix| prefix.secretariat.to_string()).collect()
    };
    for undeclared in &truth.undeclared {
        assert_eq!(owners(undeclared.address), BTreeSet::new(), "{}", undeclared.address);
    }
    for misplaced in &truth.misplaced {
        assert_eq!(owners(misplaced.address), misplaced.owner.clone().into_iter().collect());
    }
    for routed in &truth.routed {
        assert!(routed.addresses.len() >= 8, "{}", routed.prefix);
        assert!(routed.addresses.iter().all(|ip| owners(*ip) == BTreeSet::from([routed.owner.clone()])));
    }
    for moved in truth.addresses.iter().filter(|truth| truth.verdict.as_deref() == Some("moved")) {
        let owners = owners(moved.address);
        assert!(moved.spaces.iter().all(|space| owners.contains(space)), "{}", moved.address);
    }
}

#[test]
fn cases_do_not_meet() {
    for seed in 1..4 {
        let (_directory, truth) = made(Options { seed, ..SMALL });
        let of_cases: BTreeSet<IpAddr> = truth.addresses.iter().map(|truth| truth.address).collect();
        assert_eq!(of_cases.len(), truth.addresses.len());
        let must_not: BTreeSet<IpAddr> = truth.must_not.iter().map(|truth| truth.address).collect();
        assert_eq!(must_not.len(), truth.must_not.len());
        for address in &truth.addresses {
            let raises = !address.rules.is_empty() || !address.accepted.is_empty();
            assert_eq!(must_not.contains(&address.address), !raises, "{}", address.address);
            assert!(address.verdict.is_none() || !address.rules.is_empty(), "{}", address.address);
            assert!(address.from <= address.until, "{}", address.address);
        }
        for case in
            ["two-hosts", "replaced", "moved", "seen-twice", "indistinct", "both-edges", "nat", "routed"]
        {
            assert!(truth.addresses.iter().filter(|truth| truth.case == case).count() >= 4, "{case}");
        }
        let answers = truth.addresses.iter().filter_map(|truth| {
            let spaces: BTreeSet<String> = truth.spaces.iter().cloned().collect();
            truth.verdict.clone().map(|verdict| (truth.address, BTreeSet::from([(spaces, verdict)])))
        });
        let comparison = truth.compare(&answers.collect());
        assert!(comparison.is_right(), "{:?}", comparison.mistakes);
    }
}

//! Observer and rules apart from the sensor: what comes out is what comes out of one place.

use std::sync::{Arc, Mutex};

use super::*;

/// What was handed over, and not taken yet.
type Under = Arc<Mutex<Vec<Tellings>>>;

const CLAIM: &str =
    "[[secretariat]]\nid = 'eohhs'\n[[prefix]]\ncidr = '10.0.0.0/16'\nsecretariat = 'eohhs'\n";

fn split(sensor: &mut Sensor, keeps_records: bool) -> (Rules, Under) {
    let under = Under::default();
    let way = under.clone();
    let hand_over = Box::new(move |told| {
        way.lock().expect("nothing panicked").push(told);
        Tellings::default()
    });
    (sensor.split_rules(hand_over, keeps_records).expect("it has the rules"), under)
}

fn take(rules: &mut Rules, under: &Under, kept: &mut Kept) {
    let told = std::mem::take(&mut *under.lock().expect("nothing panicked"));
    for mut told in told {
        rules.take(&mut told, kept);
    }
}

/// An ARP reply of an address.
fn arp(vlan: Option<u16>, address: [u8; 4], mac: u8) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, mac];
    body.extend(address);
    body.extend([2, 0, 0, 0, 0, 2]);
    body.extend(A);
    ethernet(vlan, 0x0806, &body)
}

/// An advertisement of a neighbour.
fn neighbour(last: u8) -> Vec<u8> {
    let target = |last| [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    let mut packet = vec![0x60, 0, 0, 0, 0, 32, 58, 255];
    packet.extend(target(last));
    packet.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([136, 0, 0, 0, 0x20, 0, 0, 0]);
    packet.extend(target(last));
    packet.extend([2, 1, 2, 0, 0, 0, 0, last]);
    ethernet(None, 0x86dd, &packet)
}

/// Packets of several kinds; the same address in two places among them.
fn packets() -> Vec<(i64, Vec<u8>)> {
    let mut packets = Vec::new();
    for step in 0..400_u16 {
        let [high, low] = step.to_be_bytes();
        let (vlan, second) = ([None, Some(10), Some(20)][usize::from(step % 3)], i64::from(step));
        let ours = [10, 0, high, low];
        packets
            .push((second, ethernet(vlan, 0x0800, &ipv4(17, ours, [9, 9, 9, low], &udp(step, 53, b"ask")))));
        packets
            .push((second, ethernet(vlan, 0x0800, &ipv4(17, ours, [10, 9, 0, low], &udp(step, 99, b"ask")))));
        packets
            .push((second, ethernet(vlan, 0x0800, &ipv4(17, [9, 9, 9, low], ours, &udp(53, step, b"told")))));
        packets.push((second, arp(vlan, [10, 0, 0, low % 8], low % 5)));
        packets.push((second, neighbour(low)));
    }
    packets
}

/// Where observer and rules are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    Here,
    Apart,
    /// And records stay here.
    ApartFromRecords,
}

/// What comes of the packets, where a plan follows another while they come.
fn run(plans: [&str; 2], apart: Where) -> (Kept, Ledger, Vec<bool>) {
    let (mut sensor, mut kept) = (sensor(plans[0], 1), Kept::default());
    let stay = apart == Where::ApartFromRecords;
    let mut rules = (apart != Where::Here).then(|| split(&mut sensor, stay));
    let mut here = Vec::new();
    for (at, (seconds, data)) in packets().iter().enumerate() {
        if at % 500 == 250 {
            let plan: AddressPlan = toml::from_str(plans[(at / 500 + 1) % 2]).expect("the plan parses");
            sensor.reload(plan.into(), DetectConfig::default()).expect("the plan is sound");
        }
        feed(&mut sensor, *seconds, data, &mut kept);
        if let Some((rules, under)) = &mut rules
            && at % 100 == 99
        {
            here.push(sensor.observer.is_some());
            sensor.hand_over();
            let told = kept.flows.len();
            take(rules, under, &mut kept);
            assert!(!stay || told == kept.flows.len());
        }
    }
    if let Some((mut rules, under)) = rules {
        sensor.hand_over();
        take(&mut rules, &under, &mut kept);
        sensor.join_rules(rules);
    }
    sensor.finish(&mut kept);
    (kept, sensor.ledger().clone(), here)
}

#[test]
fn what_comes_out_is_the_same_with_any_plan_and_over_changes_of_it() {
    let segments = plan_of(&[EOHHS, DOT]);
    for (plans, stays) in [
        (["", ""], Some(false)),
        ([CLAIM, ""], Some(false)),
        ([&segments, DOT], Some(true)),
        ([&segments, CLAIM], None),
        (["", &segments], None),
    ] {
        let (one, ledger, _) = run(plans, Where::Here);
        assert!(one.flows.len() > 400 && one.observations.len() > 100, "{}", one.observations.len());
        for apart in [Where::Apart, Where::ApartFromRecords] {
            let (other, other_ledger, here) = run(plans, apart);
            assert_eq!(one.flows, other.flows, "{plans:?} {apart:?}");
            assert_eq!(one.observations, other.observations, "{plans:?} {apart:?}");
            assert_eq!(one.findings, other.findings, "{plans:?} {apart:?}");
            assert_eq!(ledger, other_ledger, "{plans:?} {apart:?}");
            match stays {
                Some(stays) => assert!(here.iter().all(|here| *here == stays), "{plans:?}: {here:?}"),
                None => assert!(here.contains(&true) && here.contains(&false), "{plans:?}: {here:?}"),
            }
        }
    }
}

#[test]
fn what_is_gathered_is_handed_over_before_it_is_much() {
    for plan in ["", &plan_of(&[EOHHS])] {
        let (mut sensor, mut kept) = (sensor(plan, 1), Kept::default());
        let (_rules, under) = split(&mut sensor, false);
        for (seconds, data) in packets() {
            feed(&mut sensor, seconds, &data, &mut kept);
        }
        sensor.finish(&mut kept);
        let most = under.lock().expect("nothing panicked").iter().map(Tellings::len).max();
        assert!(most.is_some_and(|most| most < 2 * 1024 + 64), "{plan}: {most:?}");
    }
}

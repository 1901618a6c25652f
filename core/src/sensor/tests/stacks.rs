//! What whole connections say of the hosts that open them.

use super::*;
use crate::record::{ObservationKind, Strength};

const HOST: [u8; 4] = [10, 40, 0, 7];
const SERVER: [u8; 4] = [8, 8, 8, 8];
/// Maximum segment size, then what Linux and Windows put behind it.
const LINUX: [u8; 12] = [2, 4, 5, 0xb4, 4, 2, 1, 1, 1, 3, 3, 7];
const WINDOWS: [u8; 12] = [2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2];

fn segment(from: u16, to: u16, sequence: [u32; 2], flags: u8, options: &[u8]) -> Vec<u8> {
    let size = u8::try_from(20 + options.len()).expect("short");
    let [sequence, acknowledgement] = sequence.map(u32::to_be_bytes);
    let ports = [from, to].map(u16::to_be_bytes).concat();
    [&ports[..], &sequence, &acknowledgement, &[(size / 4) << 4, flags, 0xfa, 0xf0, 0, 0, 0, 0], options]
        .concat()
}

/// A connection of the host from a port: its SYN with options, and the rest of the handshake where it is answered.
fn connect(sensor: &mut Sensor, kept: &mut Kept, second: i64, port: u16, options: &[u8], is_answered: bool) {
    let mut there = |second, flags, sequence, options: &[u8]| {
        let frame =
            ethernet(None, 0x0800, &ipv4(6, HOST, SERVER, &segment(port, 443, sequence, flags, options)));
        feed(sensor, second, &frame, kept);
    };
    there(second, 2, [100, 0], options);
    if is_answered {
        there(second + 1, 0x10, [101, 501], &[]);
    }
}

fn answer(sensor: &mut Sensor, kept: &mut Kept, second: i64, port: u16) {
    let mut frame =
        ethernet(None, 0x0800, &ipv4(6, SERVER, HOST, &segment(443, port, [500, 101], 0x12, &LINUX)));
    // From the router.
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9]);
    feed(sensor, second, &frame, kept);
}

#[test]
fn a_handshake_makes_traffic_strong_and_tells_the_system_of_who_began_it() {
    let (mut sensor, mut kept) = (sensor("", 1), Kept::default());
    connect(&mut sensor, &mut kept, 0, 5000, &LINUX, false);
    answer(&mut sensor, &mut kept, 0, 5000);
    connect(&mut sensor, &mut kept, 0, 5000, &LINUX, true);
    sensor.finish(&mut kept);
    let [first, last] = kept.observations.as_slice() else { panic!("{:#?}", kept.observations) };
    assert_eq!(
        (first.kind, first.strength, first.conversations),
        (ObservationKind::Traffic, Strength::Medium, 0)
    );
    assert_eq!((last.strength, last.conversations, last.active_hours), (Strength::Strong, 1, 1));
    let seen = first.stack.as_ref().expect("a SYN").signatures[0];
    assert_eq!(seen.signature.to_string(), "4:64:0:1460:64240,7:mss,sok,nop,nop,nop,ws::0");
    assert_eq!(last.stack, None, "it is told once");
}

#[test]
fn attempts_that_nobody_answers_stay_medium_and_the_servers_system_is_not_the_hosts() {
    let (mut sensor, mut kept) = (sensor("", 1), Kept::default());
    connect(&mut sensor, &mut kept, 0, 5000, &LINUX, false);
    connect(&mut sensor, &mut kept, 5, 5001, &WINDOWS, false);
    sensor.finish(&mut kept);
    assert!(
        kept.observations.iter().all(|seen| seen.strength == Strength::Medium),
        "{:#?}",
        kept.observations
    );
    let told: Vec<_> = kept.observations.iter().flat_map(|seen| &seen.stack).collect();
    let [first, second] = told.as_slice() else { panic!("{told:#?}") };
    assert_eq!((first.changes, second.changes), (0, 1), "two systems behind one address");
    assert_eq!(
        kept.observations.iter().filter(|seen| seen.address == std::net::IpAddr::from(SERVER)).count(),
        0
    );
}

#[test]
fn a_plan_keeps_what_the_systems_of_two_secretariats_say_apart() {
    let (mut sensor, mut kept) = (sensor(&plan_of(&[EOHHS, DOT]), 1), Kept::default());
    for (vlan, options) in [(10, LINUX), (20, WINDOWS)] {
        let syn = ipv4(6, HOST, SERVER, &segment(5000, 443, [1, 0], 2, &options));
        feed(&mut sensor, 0, &ethernet(Some(vlan), 0x0800, &syn), &mut kept);
    }
    sensor.finish(&mut kept);
    let told: Vec<(String, u8)> = kept
        .observations
        .iter()
        .filter_map(|seen| {
            let stack = seen.stack.as_ref()?;
            Some((seen.address_space.to_string(), stack.signatures[0].signature.window_scale))
        })
        .collect();
    assert_eq!(told.len(), 2, "{:#?}", kept.observations);
    assert_ne!(told[0].0, told[1].0);
    assert_ne!(told[0].1, told[1].1);
}

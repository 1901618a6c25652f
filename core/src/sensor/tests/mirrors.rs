//! Mirrors: their tunnel is stripped, and what is inside counts as captured on an interface of its own.

use super::*;
use crate::{
    mirror::MirrorKind,
    record::{Layer, Reason},
};

fn mirror(kind: MirrorKind) -> MirrorPlan {
    MirrorPlan { name: "span0".into(), kind, destination: None, id: None, port: None }
}

fn with_mirror(plan: &str, mirror: MirrorPlan) -> Sensor {
    let mut sensor = sensor(plan, 1);
    let interface = InterfacePlan { name: "span0".into(), role: Role::Inside, router_macs: Vec::new() };
    assert_eq!(sensor.add_mirror(mirror, interface), InterfaceIndex(1));
    sensor
}

/// A frame on VLAN 20 as it was on the wire: 14 + 4 + 20 + 8 + 4 bytes.
fn copied() -> Vec<u8> {
    ethernet(Some(20), 0x0800, &ipv4(17, A, B, &udp(5000, 6000, b"four")))
}

fn erspan(sequence: u32, session: u16, frame: &[u8]) -> Vec<u8> {
    let [high, low] = session.to_be_bytes();
    let header = [&[0x10, 0, 0x88, 0xbe][..], &sequence.to_be_bytes(), &[0x10, 20, high, low, 0, 0, 0, 0]];
    let packet = ipv4(47, [172, 16, 0, 1], [172, 16, 0, 9], &[&header.concat()[..], frame].concat());
    ethernet(None, 0x0800, &packet)
}

#[test]
fn a_copy_counts_as_captured_on_the_mirrors_interface_with_its_own_lengths_and_places() {
    let (mut sensor, mut kept) = (with_mirror(DOT, mirror(MirrorKind::Erspan)), Kept::default());
    feed(&mut sensor, 0, &erspan(1, 5, &copied()), &mut kept);
    sensor.finish(&mut kept);
    assert_eq!(kept.flows.len(), 1, "the mirror's own flow is none");
    let flow = &kept.flows[0];
    assert_eq!((&*flow.interface, flow.vlans.as_slice(), flow.tunnel), ("span0", &[20][..], None));
    assert_eq!((flow.originator.ip, flow.originator.segment.as_deref()), (A.into(), Some("b-dot")));
    assert_eq!((flow.originator.wire_bytes, flow.originator.ip_bytes), (50, 32));
    assert_eq!(flow.originator.mac, Some(MacAddress([2, 0, 0, 0, 0, 1])));
    let ledger = sensor.ledger();
    assert_eq!((ledger.packets, ledger.parsed, ledger.mirrored, ledger.balances()), (1, 1, 1, true));
    assert_eq!((ledger.wire_bytes, ledger.mirror_bytes), (14 + 20 + 16 + 50, 14 + 20 + 16));
}

#[test]
fn a_vlan_tag_that_the_mirror_took_off_comes_back() {
    let (mut sensor, mut kept) = (with_mirror(DOT, mirror(MirrorKind::Erspan)), Kept::default());
    let untagged = ethernet(None, 0x0800, &ipv4(17, A, B, &udp(5000, 6000, b"four")));
    feed(&mut sensor, 0, &erspan(1, 0x1000 | 5, &untagged), &mut kept);
    sensor.finish(&mut kept);
    assert_eq!(kept.flows[0].vlans.as_slice(), [20]);
    assert_eq!(kept.flows[0].originator.segment.as_deref(), Some("b-dot"));
}

#[test]
fn what_is_not_the_mirrors_is_an_ordinary_tunnel() {
    let other_session = MirrorPlan { id: Some(6), ..mirror(MirrorKind::Erspan) };
    let elsewhere = MirrorPlan { destination: "172.16.1.0/24".parse().ok(), ..mirror(MirrorKind::Erspan) };
    for mirror in [other_session, elsewhere, mirror(MirrorKind::Gre), mirror(MirrorKind::Vxlan)] {
        let (mut sensor, mut kept) = (with_mirror("", mirror), Kept::default());
        feed(&mut sensor, 0, &erspan(1, 5, &copied()), &mut kept);
        sensor.finish(&mut kept);
        assert_eq!((kept.flows.len(), sensor.ledger().mirrored), (2, 0));
    }
}

#[test]
fn a_vxlan_mirror_is_opened_on_a_port_of_its_own() {
    let vxlan = |flags: u8| {
        let packet = udp(50000, 7000, &[&[flags, 0, 0, 0, 0, 0, 9, 0][..], &copied()].concat());
        ethernet(None, 0x0800, &ipv4(17, [172, 16, 0, 1], [172, 16, 0, 9], &packet))
    };
    let on_port = MirrorPlan { port: Some(7000), ..mirror(MirrorKind::Vxlan) };
    let (mut sensor, mut kept) = (with_mirror("", on_port.clone()), Kept::default());
    feed(&mut sensor, 0, &vxlan(8), &mut kept);
    feed(&mut sensor, 0, &vxlan(0), &mut kept);
    sensor.finish(&mut kept);
    assert_eq!((kept.flows.len(), sensor.ledger().mirrored), (2, 1), "what contradicts is no copy");
    let to_address = MirrorPlan { destination: "172.16.0.9/32".parse().ok(), ..on_port };
    let (mut sensor, mut kept) = (with_mirror("", to_address), Kept::default());
    feed(&mut sensor, 0, &vxlan(0), &mut kept);
    let ledger = sensor.ledger();
    assert_eq!((ledger.mirrored, ledger.parsed, ledger.balances()), (1, 0, true));
    assert_eq!(ledger.unparsed().collect::<Vec<_>>(), [(Layer::Shim, Reason::BadTunnel, 1)]);
}

#[test]
fn a_copy_that_cannot_be_parsed_is_counted_by_reason() {
    let (mut sensor, mut kept) = (with_mirror("", mirror(MirrorKind::Erspan)), Kept::default());
    feed(&mut sensor, 0, &erspan(1, 5, &copied()[..16]), &mut kept);
    let mut wrong_version = erspan(2, 5, &copied());
    wrong_version[14 + 20 + 8] = 0x70;
    feed(&mut sensor, 0, &wrong_version, &mut kept);
    let ledger = sensor.ledger();
    let unparsed: Vec<_> = ledger.unparsed().collect();
    assert_eq!(unparsed, [(Layer::Shim, Reason::Truncated, 1), (Layer::Shim, Reason::BadVersion, 1)]);
    assert_eq!((ledger.mirrored, ledger.packets, ledger.balances()), (2, 2, true));
}

#[test]
fn gaps_in_the_sequence_are_losses_and_late_packets_are_not() {
    let (mut sensor, mut kept) = (with_mirror("", mirror(MirrorKind::Erspan)), Kept::default());
    let mut lost = |sequence, session| {
        feed(&mut sensor, 0, &erspan(sequence, session, &copied()), &mut kept);
        sensor.ledger().dropped(DropStage::Mirror)
    };
    assert_eq!([lost(10, 1), lost(11, 1), lost(14, 1)], [0, 0, 2]);
    assert_eq!(lost(12, 1), 1, "it was only overtaken");
    assert_eq!([lost(15, 1), lost(500, 2), lost(501, 2)], [1, 1, 1], "each session has its own numbers");
    assert_eq!([lost(1_000_000, 1), lost(1_000_001, 1)], [1, 1], "a restart is no loss");
    assert_eq!([lost(0, 3), lost(0, 3), lost(0, 3)], [1, 1, 1], "some mirrors do not count");
    assert_eq!([lost(u32::MAX, 4), lost(0, 4), lost(2, 4)], [1, 1, 2]);
}

#[test]
fn where_only_a_part_of_a_mirrors_packets_comes_gaps_are_no_losses() {
    let (mut sensor, mut kept) = (with_mirror("", mirror(MirrorKind::Erspan)), Kept::default());
    sensor.set_mirrors_partial();
    for sequence in [10, 11, 400, 900] {
        feed(&mut sensor, 0, &erspan(sequence, 1, &copied()), &mut kept);
    }
    assert_eq!((sensor.ledger().dropped(DropStage::Mirror), sensor.ledger().mirrored), (0, 4));
}

#[test]
fn later_fragments_of_a_mirrors_packet_count_to_no_flow() {
    let (mut sensor, mut kept) = (with_mirror("", mirror(MirrorKind::Erspan)), Kept::default());
    let mut first = erspan(1, 5, &copied());
    first[14 + 6] = 0x20;
    let mut later = ethernet(None, 0x0800, &ipv4(47, [172, 16, 0, 1], [172, 16, 0, 9], &[7; 30]));
    later[14 + 7] = 9;
    feed(&mut sensor, 0, &first, &mut kept);
    feed(&mut sensor, 0, &later, &mut kept);
    sensor.finish(&mut kept);
    assert_eq!((kept.flows.len(), kept.flows[0].originator.packets), (1, 1));
    let ledger = sensor.ledger();
    assert_eq!((ledger.mirrored, ledger.mirror_fragments, ledger.parsed, ledger.balances()), (2, 1, 2, true));
    assert_eq!(ledger.mirror_bytes, u64::from(14_u8 + 20 + 16 + 14 + 20 + 30));
}

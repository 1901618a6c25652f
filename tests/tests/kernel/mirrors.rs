//! Mirrors' tunnels: stripped by the program as core strips them, and what is inside counts on the mirror's interface.

use std::net::IpAddr;

use onenet_core::{
    decode::{Content, InterfaceIndex, MirrorOpened, decode_inner, mirrored},
    mirror::{MirrorKind, MirrorPlan},
};
use onenet_ebpf::{Hook, Meter, Mirror, Options, Rates};
use onenet_tests::craft::{ACK, Ip, Tcp, frame};

use crate::kit::{Sums, Whole, add, counters, decoded, meter, of_core, of_delta, options, run};

fn plan(name: &str, kind: MirrorKind) -> MirrorPlan {
    MirrorPlan { name: name.into(), kind, destination: None, id: None, port: None }
}

fn with(mirrors: Vec<MirrorPlan>) -> Options {
    let numbered = mirrors.into_iter().zip(10..);
    let mirrors = numbered.map(|(plan, number)| Mirror { plan, interface: InterfaceIndex(number) }).collect();
    Options { rates: Rates::NONE, mirrors, ..options() }
}

fn outer(protocol: u8) -> Ip {
    Ip::v4([192, 0, 2, 50], [192, 0, 2, 60], protocol)
}

fn copy() -> Vec<u8> {
    let segment = Tcp {
        source: 50_000,
        destination: 443,
        flags: ACK,
        window: 9,
        payload: b"mirrored",
        ..Tcp::default()
    };
    frame(7, 8, &[44], &Ip::v6(5, 6, 6).tcp_packet(&segment))
}

/// Headers of each kind of mirror before the copy.
fn wrapped() -> Vec<(&'static str, MirrorKind, Vec<u8>)> {
    let copy = copy();
    let gre = |header: &[u8], inner: &[u8]| frame(1, 2, &[], &outer(47).packet(&[header, inner].concat()));
    let udp = |port: u16, header: &[u8]| {
        frame(1, 2, &[], &outer(17).udp_packet(40_000, port, &[header, &copy].concat()))
    };
    vec![
        ("GRE", MirrorKind::Gre, gre(&[0, 0, 0x65, 0x58], &copy)),
        ("GRE with key and sequence", MirrorKind::Gre, {
            gre(&[0x30, 0, 0x65, 0x58, 0, 0, 0, 77, 0, 0, 0, 1], &copy)
        }),
        ("GRE with checksum, IPv6", MirrorKind::Gre, gre(&[0x80, 0, 0x86, 0xdd, 1, 2, 0, 0], &copy[18..])),
        ("ERSPAN I", MirrorKind::Erspan, gre(&[0, 0, 0x88, 0xbe], &copy)),
        ("ERSPAN II", MirrorKind::Erspan, {
            gre(&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 9, 0x10, 0x64, 0x18, 5, 0, 0, 0, 0], &copy)
        }),
        ("ERSPAN II, tag taken off", MirrorKind::Erspan, {
            gre(&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 9, 0x10, 0x64, 0x08, 5, 0, 0, 0, 0], &copy)
        }),
        ("ERSPAN III", MirrorKind::Erspan, {
            gre(&[0x10, 0, 0x22, 0xeb, 0, 0, 0, 9, 0x20, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0], &copy)
        }),
        ("ERSPAN III with more header", MirrorKind::Erspan, {
            let header = [0x10, 0, 0x22, 0xeb, 0, 0, 0, 9, 0x20, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1];
            gre(&[&header[..], &[0; 8]].concat(), &copy)
        }),
        ("VXLAN", MirrorKind::Vxlan, udp(4789, &[8, 0, 0, 0, 0, 0, 42, 0])),
        ("VXLAN with a group policy", MirrorKind::Vxlan, udp(8472, &[0x88, 8, 0, 3, 0, 0, 42, 0])),
        ("VXLAN-GPE", MirrorKind::Vxlan, udp(4790, &[0x0c, 0, 0, 3, 0, 0, 42, 0])),
        ("Geneve with an option", MirrorKind::Geneve, {
            udp(6081, &[1, 0, 0x65, 0x58, 0, 0, 9, 0, 0, 0, 0, 0])
        }),
        ("TZSP", MirrorKind::Tzsp, udp(37008, &[1, 0, 0, 1, 10, 1, 99, 0, 1])),
    ]
}

/// What core makes of a mirror's packet, and the bytes of its tunnel.
fn core_of(frame: &[u8], kind: MirrorKind) -> (Sums, u64) {
    let outer = decoded(frame).unwrap();
    let Content::Ip(ip) = &outer.content else { panic!("not IP") };
    let MirrorOpened::Inner(inner) = mirrored(kind.tunnel(), None, ip).unwrap() else { panic!("no copy") };
    let copy = decode_inner(&inner).unwrap();
    let (key, sum) = of_core(&copy, inner.wire_length as usize, 1).unwrap();
    let mut sums = Sums::new();
    add(&mut sums, key, sum);
    (sums, frame.len() as u64 - u64::from(inner.wire_length))
}

/// Interfaces, sums, and bytes of tunnels.
fn drain(meter: &mut Meter) -> (Vec<InterfaceIndex>, Sums, Option<u64>) {
    let (mut interfaces, mut sums, mut bytes) = (Vec::new(), Sums::new(), None);
    let take = &mut |delta: &onenet_core::flow::FlowDelta| {
        interfaces.push(delta.interface);
        bytes = delta.mirror_bytes;
        of_delta(delta).into_iter().for_each(|(key, sum, _)| add(&mut sums, key, sum));
    };
    meter.drain(take).unwrap();
    (interfaces, sums, bytes)
}

#[test]
fn what_is_in_a_mirror_counts_on_its_interface() {
    let kinds = [MirrorKind::Gre, MirrorKind::Erspan, MirrorKind::Vxlan, MirrorKind::Geneve];
    let Some(mut four) = meter(&with(kinds.map(|kind| plan("m", kind)).to_vec())) else { return };
    let mut tzsp = meter(&with(vec![plan("t", MirrorKind::Tzsp)])).expect("the first could be loaded");
    for (name, kind, frame) in wrapped() {
        let at = kinds.iter().position(|&other| other == kind);
        let meter = if at.is_some() { &mut four } else { &mut tzsp };
        assert!(run(meter, Hook::Ingress, &frame), "{name}");
        let (sums, bytes) = core_of(&frame, kind);
        let interface = InterfaceIndex(10 + u16::try_from(at.unwrap_or(0)).unwrap());
        assert_eq!(drain(meter), (vec![interface], sums, Some(bytes)), "{name}");
    }
}

#[test]
fn a_mirror_has_what_its_conditions_say_and_nothing_else() {
    let (_, _, tagged) = wrapped().swap_remove(8);
    let to = |prefix: &str| Some(prefix.parse().unwrap());
    let conditions = [
        (MirrorPlan { id: Some(42), ..plan("m", MirrorKind::Vxlan) }, true),
        (MirrorPlan { id: Some(43), ..plan("m", MirrorKind::Vxlan) }, false),
        (MirrorPlan { port: Some(4789), ..plan("m", MirrorKind::Vxlan) }, true),
        (MirrorPlan { port: Some(4790), ..plan("m", MirrorKind::Vxlan) }, false),
        (MirrorPlan { destination: to("192.0.2.0/26"), ..plan("m", MirrorKind::Vxlan) }, true),
        (MirrorPlan { destination: to("192.0.2.0/27"), ..plan("m", MirrorKind::Vxlan) }, false),
        (MirrorPlan { destination: to("2001:db8::/32"), ..plan("m", MirrorKind::Vxlan) }, false),
        (plan("m", MirrorKind::Gre), false),
    ];
    for (plan, is_its_own) in conditions {
        let Some(mut meter) = meter(&with(vec![plan.clone()])) else { return };
        assert!(run(&meter, Hook::Ingress, &tagged));
        let (interfaces, sums, bytes) = drain(&mut meter);
        let expected = if is_its_own { InterfaceIndex(10) } else { InterfaceIndex(0) };
        assert_eq!((interfaces, bytes.is_some()), (vec![expected], is_its_own), "{plan:?}");
        let source: IpAddr = [192, 0, 2, 50].into();
        assert_eq!(sums.keys().any(|key| key.3.0 == source), !is_its_own, "{plan:?}");
    }
}

#[test]
fn a_prefix_of_ipv6_is_compared_whole() {
    let prefixes = [
        ("2001:db8::2/128", true),
        ("2001:db8::3/128", false),
        ("2001:db8::/125", true),
        ("2001:db8:0:0:1::/80", false),
        ("2001:db8:0:1::/64", false),
        ("2001:db9::/32", false),
    ];
    for (prefix, is_its_own) in prefixes {
        let plan = MirrorPlan { destination: Some(prefix.parse().unwrap()), ..plan("m", MirrorKind::Vxlan) };
        let Some(mut meter) = meter(&with(vec![plan])) else { return };
        let payload = [&[8, 0, 0, 0, 0, 0, 42, 0][..], &copy()].concat();
        assert!(run(
            &meter,
            Hook::Ingress,
            &frame(1, 2, &[], &Ip::v6(1, 2, 17).udp_packet(40_000, 4789, &payload))
        ));
        let (interfaces, ..) = drain(&mut meter);
        assert_eq!(interfaces, [InterfaceIndex(if is_its_own { 10 } else { 0 })], "{prefix}");
    }
}

#[test]
fn a_copy_without_a_flow_is_counted_by_reason() {
    let Some(meter) = meter(&with(vec![plan("m", MirrorKind::Vxlan)])) else { return };
    let lldp = [&[8, 0, 0, 0, 0, 0, 42, 0][..], &[2; 12], &[0x88, 0xcc], &[1; 40]].concat();
    assert!(run(&meter, Hook::Ingress, &frame(1, 2, &[], &outer(17).udp_packet(40_000, 4789, &lldp))));
    let all = counters(&meter);
    assert_eq!((all.unparsed_packets(), all.counted, all.seen_packets()), (1, 0, 1));
}

//! The meter on a wire: a veth pair in a network namespace of its own, frames sent by AF_PACKET, and the kernel's own
//! counters of the interface to compare with. The test starts itself again inside the namespace, so that everything in
//! it goes with the process.

use std::{process::Command, thread::sleep, time::Duration};

use onenet_core::decode::InterfaceIndex;
use onenet_ebpf::{EbpfError, Hook, HookChoice, Kind, Meter, Options, Rates};
use onenet_tests::craft::{ACK, Ip, Tcp, arp, frame};
use pnet::datalink::{self, Channel, DataLinkSender};
use serde_json::Value;

use crate::kit::{Whole, counters, drained, meter, options, say};

const SET_UP: &str = "ip link set lo up && ip link add tap0 type veth peer name wire0 && \
    sysctl -qw net.ipv6.conf.tap0.disable_ipv6=1 net.ipv6.conf.wire0.disable_ipv6=1 && \
    ip link set tap0 up && ip link set wire0 up && (ip tuntap add dev tun0 mode tun; true)";

#[test]
fn counts_on_a_wire_are_the_interfaces_own() {
    if meter(&options()).is_none() {
        return;
    }
    let unshare = |line: &str| {
        let own = std::env::current_exe().expect("the path of this test");
        Command::new("unshare").args(["--net", "sh", "-c", line]).arg(own).output().expect("unshare starts")
    };
    let probe = unshare(SET_UP);
    if !probe.status.success() {
        let said = String::from_utf8_lossy(&probe.stderr).into_owned();
        say(&format!("SKIPPED: this machine lets nobody make a network namespace here: {}", said.trim()));
        return;
    }
    let inside = format!("{SET_UP}; exec \"$0\" --exact live::inside_the_namespace --ignored --nocapture");
    let told = unshare(&inside);
    let out = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(
        told.status.success() && out.contains("1 passed"),
        "{out}\n{}",
        String::from_utf8_lossy(&told.stderr)
    );
    say(&String::from_utf8_lossy(&told.stderr));
}

/// Packets and bytes that the interface itself counted as received and sent.
fn of_interface(name: &str) -> [(u64, u64); 2] {
    let output = Command::new("ip").args(["-s", "-j", "link", "show", name]).output().expect("ip starts");
    let links: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    ["rx", "tx"].map(|way| {
        let number = |key: &str| links[0]["stats64"][way][key].as_u64().expect("a number");
        (number("packets"), number("bytes"))
    })
}

fn sender(name: &str) -> Box<dyn DataLinkSender> {
    let interfaces = datalink::interfaces();
    let interface = interfaces.iter().find(|interface| interface.name == name).expect("our wire");
    match datalink::channel(interface, datalink::Config::default()) {
        Ok(Channel::Ethernet(sender, _)) => sender,
        _ => panic!("no channel to {name}"),
    }
}

fn send(to: &mut dyn DataLinkSender, frame: &[u8], count: u32) {
    for number in 0..count {
        to.send_to(frame, None).expect("a frame to leave").expect("the wire is up");
        if number % 200 == 199 {
            sleep(Duration::from_millis(1));
        }
    }
}

fn open(hook: HookChoice) -> Meter {
    let options = Options { interface: "tap0".into(), index: InterfaceIndex(4), hook, ..options() };
    Meter::open(&Options { rates: Rates::NONE.with(Kind::Arp, 10_000), ..options })
        .unwrap_or_else(|e| panic!("{e}"))
}

/// Sends a known mix both ways, and compares with the interface's counters.
fn compare(hook: HookChoice) {
    let mut meter = open(hook);
    let names: Vec<&str> = meter.hooks().unwrap().iter().map(|hook| hook.name).collect();
    let before = of_interface("tap0");
    let tcp = |ip: Ip, source, destination| {
        ip.tcp_packet(&Tcp {
            source,
            destination,
            flags: ACK,
            window: 9,
            payload: &[7; 400],
            ..Tcp::default()
        })
    };
    let there = frame(1, 2, &[], &tcp(Ip::v4([10, 0, 0, 1], [10, 0, 0, 2], 6), 5000, 80));
    let tagged = frame(1, 2, &[77], &tcp(Ip::v6(1, 2, 6), 5000, 80));
    let twice = frame(1, 2, &[77, 88], &Ip::v4([10, 0, 0, 1], [10, 0, 0, 2], 17).udp_packet(1, 2, &[0; 60]));
    let tagged_arp =
        [&there[..12], &[0x81, 0, 0, 9], &arp(1, (1, [10, 0, 0, 1]), (0, [10, 0, 0, 2]))[12..]].concat();
    let back = frame(2, 1, &[], &tcp(Ip::v4([10, 0, 0, 2], [10, 0, 0, 1], 6), 80, 5000));
    let (mut wire, mut tap) = (sender("wire0"), sender("tap0"));
    for (frame, count) in [(&there, 3000), (&tagged, 1000), (&twice, 500), (&tagged_arp, 100)] {
        send(wire.as_mut(), frame, count);
    }
    send(tap.as_mut(), &back, 2000);
    // What a veth pair passes on is received a little later.
    for _ in 0..100 {
        if counters(&meter).seen_packets() >= 4600 + if hook == HookChoice::Xdp { 0 } else { 2000 } {
            break;
        }
        sleep(Duration::from_millis(20));
    }
    sleep(Duration::from_millis(50));
    let (after, all) = (of_interface("tap0"), counters(&meter));
    let received = if hook == HookChoice::Xdp { all.xdp } else { all.ingress };
    let growth = |way: usize| (after[way].0 - before[way].0, after[way].1 - before[way].1);
    // Where it has XDP, veth counts a frame without its Ethernet header.
    let uncounted = if hook == HookChoice::Xdp { 14 * received.packets } else { 0 };
    assert_eq!((received.packets, received.bytes - uncounted), growth(0), "received, {names:?}");
    if hook != HookChoice::Xdp {
        assert_eq!((all.egress.packets, all.egress.bytes), growth(1), "sent, {names:?}");
    }
    assert_eq!(all.seen_packets(), all.accounted_packets());
    let mut arps = 0;
    meter.punts(&mut |punt| {
        arps += 1;
        assert_eq!(
            (punt.kind, punt.wire_length as usize, punt.data),
            (Kind::Arp, tagged_arp.len(), &tagged_arp[..])
        );
    });
    assert_eq!(arps, 100);
    let sums = drained(&mut meter);
    let of = |port: u16, vlans: &[u16], length: usize| {
        let found = sums.iter().find(|(key, _)| key.3.1 == port && key.0 == vlans).map(|(_, sum)| sum);
        let sum = found.unwrap_or_else(|| panic!("{port} {vlans:?} in {sums:?}"));
        assert_eq!(sum.wire_bytes, sum.packets * length as u64, "{names:?}");
        sum.packets
    };
    assert_eq!(of(5000, &[], there.len()), 3000);
    assert_eq!(of(5000, &[77], tagged.len()), 1000);
    assert_eq!(of(1, &[77, 88], twice.len()), 500);
    if hook != HookChoice::Xdp {
        assert_eq!(of(80, &[], back.len()), 2000);
    }
    for state in meter.hooks().unwrap() {
        assert_eq!(state.attached, (hook == HookChoice::Tcx).then_some(true), "{state:?}");
        assert!(state.packets >= 2000, "{state:?}");
    }
    say(&format!(
        "{}: {} packets received, {} sent, as the interface counts them",
        names.join(", "),
        received.packets,
        all.egress.packets
    ));
}

#[test]
#[ignore = "runs inside the namespace that counts_on_a_wire_are_the_interfaces_own makes"]
fn inside_the_namespace() {
    let names: Vec<String> = datalink::interfaces().into_iter().map(|interface| interface.name).collect();
    assert!(
        names.iter().any(|name| name == "tap0") && names.len() <= 8,
        "not inside the namespace: {names:?}"
    );
    for hook in [HookChoice::Tcx, HookChoice::Clsact, HookChoice::Xdp] {
        compare(hook);
    }
    // A second meter on the same interface, by whatever process, is refused; one after the first is not.
    let first = open(HookChoice::Tcx);
    let second = Meter::open(&Options { interface: "tap0".into(), ..options() });
    assert!(matches!(second.err(), Some(EbpfError::AlreadyAttached { .. })));
    drop(first);
    drop(open(HookChoice::Auto));
    stale_filters_go();
    raw();
}

/// Filters of a process that was killed stay on the interface; the next meter takes them off.
fn stale_filters_go() {
    let left = open(HookChoice::Clsact);
    std::mem::forget(left);
    let _meter = open(HookChoice::Clsact);
    let Ok(output) = Command::new("tc").args(["filter", "show", "dev", "tap0", "ingress"]).output() else {
        say("SKIPPED: no tc here, which lists filters");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text.matches("direct-action").count(), 1, "{text}");
}

/// An interface without link headers is known as one.
fn raw() {
    let options = Options { interface: "tun0".into(), ..options() };
    match Meter::open(&options) {
        Ok(meter) => {
            assert_eq!(meter.link_type(), onenet_core::decode::LinkType::RAW);
            assert_eq!(
                meter.hooks().unwrap().iter().map(|hook| hook.hook).collect::<Vec<_>>(),
                [Hook::Ingress, Hook::Egress]
            );
        }
        Err(EbpfError::NoInterface { .. }) => say("SKIPPED: no tunnel interface can be made here"),
        Err(error) => panic!("{error}"),
    }
}

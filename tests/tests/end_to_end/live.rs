//! Live capture: a sensor on one end of a veth pair, packets sent into the other, in a network namespace of their
//! own. The test starts itself again inside that namespace, so that everything in it goes with the process.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::Command,
    time::Duration,
};

use onenet_tests::traffic::Options;
use pnet::datalink::{self, Channel};

use crate::harness::{AgentConfig, Lab, day, run, wait_for};

const SET_UP: &str = "ip link set lo up && ip link add tap0 type veth peer name wire0 && \
    sysctl -qw net.ipv6.conf.tap0.disable_ipv6=1 net.ipv6.conf.wire0.disable_ipv6=1 && \
    ip link set tap0 up && ip link set wire0 up";

#[test]
fn packets_on_a_wire_become_flows_at_the_collector() {
    let probe = run(Command::new("unshare").args(["--net", "sh", "-c", SET_UP]));
    if probe.code != Some(0) {
        println!("SKIPPED: this machine lets nobody make a network namespace here: {}", probe.err.trim());
        return;
    }
    // Built here, outside, where a build may need the network.
    let programs = crate::harness::program("onenet-agent");
    let own = std::env::current_exe().expect("the path of this test");
    let inside = format!("{SET_UP} && exec \"$0\" --exact live::inside_the_namespace --ignored --nocapture");
    let told = run(Command::new("unshare")
        .args(["--net", "sh", "-c", &inside, own.to_str().expect("a path in UTF-8")])
        .env("ONENET_PROGRAMS", programs.parent().expect("a directory")));
    assert_eq!(told.code, Some(0), "{}\n{}", told.out, told.err);
    assert!(told.out.contains("1 passed"), "{}", told.out);
}

/// The packets of a capture file.
fn packets(capture: &[u8]) -> Vec<&[u8]> {
    let mut packets = Vec::new();
    let mut rest = &capture[24..];
    while rest.len() > 16 {
        let length = u32::from_le_bytes(rest[8..12].try_into().expect("four octets")) as usize;
        packets.push(&rest[16..16 + length]);
        rest = &rest[16 + length..];
    }
    packets
}

#[test]
#[ignore = "runs inside the namespace that packets_on_a_wire_become_flows_at_the_collector makes"]
fn inside_the_namespace() {
    let interfaces = datalink::interfaces();
    let names: BTreeSet<&str> = interfaces.iter().map(|interface| interface.name.as_str()).collect();
    assert!(names.contains("tap0") && names.len() <= 3, "not inside the namespace: {names:?}");
    let (captures, _) = day(Options { seed: 1, scale: 0.05 });
    let mut lab = Lab::new(Some(&captures.join("plan.toml")), "");
    lab.start();
    let edge = lab.enrol(AgentConfig {
        sensor: "boston-live".into(),
        site: "boston".into(),
        plan: Some(captures.join("plan.toml")),
        top: "heartbeat_seconds = 1\n".into(),
        tables: "[[source]]\nkind = \"pcap\"\ninterface = \"tap0\"\nimmediate = true\n\n\
                 [[interface]]\nname = \"tap0\"\nrole = \"inside\"\nrouter_macs = [\"00:1b:54:b0:00:01\"]\n"
            .into(),
    });
    let mut agent = edge.start(&[]);
    let wire = interfaces.iter().find(|interface| interface.name == "wire0").expect("our end of the wire");
    let Ok(Channel::Ethernet(mut sender, _receiver)) = datalink::channel(wire, datalink::Config::default())
    else {
        panic!("no channel to {}", wire.name)
    };
    // The sensor is there once the wire's own test packets are counted.
    let packets_of = |lab: &Lab| lab.sensor("boston-live")["ledger"]["packets"].as_u64().unwrap_or(0);
    wait_for("the sensor to see the wire", || {
        assert!(agent.ended().is_none(), "the agent ended:\n{}", agent.log());
        sender.send_to(&[0xff; 60], None).expect("a frame to leave").expect("the wire is up");
        std::thread::sleep(Duration::from_millis(200));
        (packets_of(&lab) > 0).then_some(())
    });
    let before = packets_of(&lab);

    let capture = fs::read(captures.join("boston-inside.pcap")).expect("a capture");
    // Frames longer than the link takes would not leave.
    let all: Vec<&[u8]> =
        packets(&capture).into_iter().filter(|packet| packet.len() <= 1514).take(5000).collect();
    for (number, packet) in all.iter().enumerate() {
        sender.send_to(packet, None).expect("a frame to leave").expect("the wire is up");
        if number % 100 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let expected = all.len() as u64;
    wait_for("all packets at the collector", || (packets_of(&lab) >= before + expected).then_some(()));
    assert!(agent.stop().success(), "{}", agent.log());
    let sensor = lab.sensor("boston-live");
    let ledger = &sensor["ledger"];
    let number = |key: &str| ledger[key].as_u64().expect("a number");
    assert_eq!(number("packets"), number("parsed") + number("unparsed"), "{sensor}");
    assert_eq!(number("dropped"), 0, "{sensor}");
    let flows = lab.get("/api/v1/flows?limit=1000");
    let flows = flows["items"].as_array().expect("items");
    assert!(flows.len() > 50, "{} flows", flows.len());
    assert!(flows.iter().any(|flow| flow.to_string().contains("boston-eohhs")), "a segment of the plan");
    println!("{expected} packets sent, {} flows", sensor["flows"]);

    // Nothing of this goes anywhere: the namespace has no way out.
    let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a socket on loopback");
    assert!(socket.send_to(b"x", (Ipv4Addr::new(9, 9, 9, 9), 53)).is_err());
}

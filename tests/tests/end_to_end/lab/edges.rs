//! Both edges: two secretariats use 10.10.0.0/16, one of them tagged, and a connection leaves by Boston and comes back by
//! Lowell. The overlaps are found and proven to be two hosts each, one by the hosts' own MAC addresses and one, behind
//! routers, by their systems; each edge tells its half of the connection, and every frame on every wire is accounted for
//! down to the collector.

use onenet_core::record::FlowRecord;
use onenet_tests::{
    craft::{ACK, FIN, Ip, PSH, SYN, Tcp, arp, frame},
    wire::Wire,
};
use serde_json::Value;

use super::{bpf_permitted, flows::told, in_namespace, inside};
use crate::harness::{AgentConfig, Background, Edge, Lab, wait_for};

/// Where the sensors find the collector.
const CENTRE: &str = "198.18.0.1";

const SET_UP: &str = "
    for name in internet boston lowell eohhs eopss; do
        ip netns add $name
        ip netns exec $name sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
        ip -n $name link set lo up
    done
    wire() { ip link add $2 netns $1 type veth peer name $4 netns $3; ip -n $1 link set $2 up; ip -n $3 link set $4 up; }
    wire boston in-a eohhs eth0
    wire boston in-b eopss eth0
    wire boston out internet bos
    wire lowell in-a eohhs eth1
    wire lowell out internet low
    ip addr add 198.18.0.1/32 dev lo
    number=1
    for edge in boston lowell; do
        ip link add mgmt-$edge type veth peer name mgmt netns $edge
        ip addr add 198.18.$number.1/24 dev mgmt-$edge && ip link set mgmt-$edge up
        ip -n $edge addr add 198.18.$number.2/24 dev mgmt && ip -n $edge link set mgmt up
        ip -n $edge route add 198.18.0.1 via 198.18.$number.1
        number=2
    done";

const PLAN: &str = "
    secretariat = [{id = 'eohhs', contact = 'ipam@eohhs.example'}, {id = 'eopss', contact = 'ipam@eopss.example'}]
    prefix = [{cidr = '10.10.0.0/16', secretariat = 'eohhs'}, {cidr = '10.10.0.0/16', secretariat = 'eopss'}]
    segment = [
        {id = 'boston-eohhs', site = 'boston', secretariat = 'eohhs', interface = 'in-a'},
        {id = 'boston-eopss', site = 'boston', secretariat = 'eopss', interface = 'in-b', vlan = 120},
        {id = 'lowell-eohhs', site = 'lowell', secretariat = 'eohhs', interface = 'in-a'},
    ]";

/// Stations by the last byte of their MAC address.
const HOST_A: u8 = 0x11;
const HOST_B: u8 = 0x21;
const ROUTER: u8 = 0xfe;
const PROVIDER: u8 = 0xee;

const SHARED: [u8; 4] = [10, 10, 1, 10];
/// The same address behind a router of each secretariat.
const ROUTED: [u8; 4] = [10, 10, 3, 30];
const ROUTER_A: u8 = 0x1e;
const ROUTER_B: u8 = 0x2e;
/// What Linux and Windows put into a SYN, and their time to live after one hop.
const LINUX: (&[u8], u8) = (&[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 9, 9, 0, 0, 0, 0, 1, 3, 3, 7], 63);
const WINDOWS: (&[u8], u8) = (&[2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2], 127);
const CLIENT: [u8; 4] = [10, 10, 2, 20];
const SERVER: [u8; 4] = [198, 51, 100, 9];

#[test]
fn overlap_and_asymmetry_are_seen_across_both_edges_and_every_frame_is_accounted_for() {
    inside("edges::in_the_lab", SET_UP);
}

/// A way of a connection with so many data segments.
struct Talk {
    there: Vec<Vec<u8>>,
    back: Vec<Vec<u8>>,
}

/// A whole connection between two addresses: IP packets of each way.
fn talk(client: [u8; 4], server: [u8; 4], port: u16, data: u32) -> Talk {
    talk_of((&[], 64), client, server, port, data)
}

/// The same of a client whose system puts these options into its SYN.
fn talk_of((options, ttl): (&[u8], u8), client: [u8; 4], server: [u8; 4], port: u16, data: u32) -> Talk {
    let (there, back) = (Ip::v4(client, server, 6).ttl(ttl), Ip::v4(server, client, 6));
    let payload = [7_u8; 500];
    let up = |flags, sequence, acknowledgement, payload| {
        let options = if flags == SYN { options } else { &[] };
        let ports = Tcp { source: port, destination: 443, window: 1000, options, ..Tcp::default() };
        there.packet(&there.tcp(&Tcp { flags, sequence, acknowledgement, payload, ..ports }))
    };
    let down = |flags, sequence, acknowledgement, payload| {
        let ports = Tcp { source: 443, destination: port, window: 1000, ..Tcp::default() };
        back.packet(&back.tcp(&Tcp { flags, sequence, acknowledgement, payload, ..ports }))
    };
    let (mut sent, mut answered) = (vec![up(SYN, 100, 0, &[])], vec![down(SYN | ACK, 900, 101, &[])]);
    sent.push(up(ACK, 101, 901, &[]));
    for number in 0..data {
        sent.push(up(ACK | PSH, 101 + number * 500, 901, &payload));
        answered.push(down(ACK, 901, 601 + number * 500, &[]));
    }
    let end = 101 + data * 500;
    sent.push(up(FIN | ACK, end, 901, &[]));
    answered.push(down(FIN | ACK, 901, end + 1, &[]));
    sent.push(up(ACK, end + 1, 902, &[]));
    Talk { there: sent, back: answered }
}

fn framed(from: u8, to: u8, vlans: &[u16], packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    packets.iter().map(|packet| frame(from, to, vlans, packet)).collect()
}

/// Sends frames of an interface in a namespace; gives how many.
fn send(namespace: &str, interface: &str, frames: &[Vec<u8>]) -> u64 {
    in_namespace(namespace, || {
        Wire::open(interface).and_then(|wire| wire.send(frames, 20_000)).expect("sent")
    });
    frames.len() as u64
}

fn edge(lab: &Lab, kind: &str, site: &str, inside: &[&str]) -> (Edge, Background) {
    let mut tables = String::new();
    for (name, role) in inside.iter().map(|name| (*name, "inside")).chain([("out", "outside")]) {
        let router = format!("router_macs = [\"02:00:00:00:00:{ROUTER:02x}\"]");
        tables += &format!("[[source]]\nkind = \"{kind}\"\ninterface = \"{name}\"\n\n");
        tables += &format!("[[interface]]\nname = \"{name}\"\nrole = \"{role}\"\n{router}\n\n");
    }
    let edge = lab.enrol(AgentConfig {
        sensor: format!("{site}-1"),
        site: site.to_owned(),
        plan: Some(lab.path("plan.toml")),
        top: "heartbeat_seconds = 1\n".into(),
        tables,
    });
    let mut agent = edge.start_in(site);
    wait_for("the agent to run", || {
        assert!(agent.ended().is_none(), "{}", agent.log());
        edge.state_dir.join("status.json").is_file().then_some(())
    });
    (edge, agent)
}

#[test]
#[ignore = "runs in the namespaces that overlap_and_asymmetry_are_seen_across_both_edges_and_every_frame_is_accounted_for makes"]
fn in_the_lab() {
    let kind = if bpf_permitted() { "ebpf" } else { "pcap" };
    let plan = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(plan.path(), PLAN).expect("a plan");
    let mut lab = Lab::on(CENTRE.parse().expect("an address"), Some(plan.path()), "");
    std::fs::write(lab.path("plan.toml"), PLAN).expect("a plan");
    lab.start();
    let (boston, mut boston_agent) = edge(&lab, kind, "boston", &["in-a", "in-b"]);
    let (lowell, mut lowell_agent) = edge(&lab, kind, "lowell", &["in-a"]);

    // One private address, two hosts: one untagged at one secretariat, one tagged at another.
    let mut at_boston = 0;
    for (namespace, host, vlans, port) in
        [("eohhs", HOST_A, &[][..], 41_000), ("eopss", HOST_B, &[120_u16][..], 42_000)]
    {
        let mut claim = arp(2, (host, SHARED), (ROUTER, [10, 10, 0, 1]));
        if let [vlan] = vlans {
            claim.splice(12..12, [[0x81, 0x00], vlan.to_be_bytes()].concat());
        }
        let Talk { there, back } = talk(SHARED, [203, 0, 113, 80], port, 20);
        let (there, back) = (framed(host, ROUTER, vlans, &there), framed(ROUTER, host, vlans, &back));
        at_boston += send(namespace, "eth0", &[claim]);
        at_boston += send(namespace, "eth0", &there[..1]);
        let inside = if namespace == "eohhs" { "in-a" } else { "in-b" };
        at_boston += send("boston", inside, &back[..1]);
        at_boston += send(namespace, "eth0", &there[1..]);
        at_boston += send("boston", inside, &back[1..]);
    }
    at_boston += behind_routers();
    // Out by Boston, back by Lowell.
    let Talk { there, back } = talk(CLIENT, SERVER, 43_000, 50);
    at_boston += send("eohhs", "eth0", &framed(HOST_A, ROUTER, &[], &there));
    at_boston += send("boston", "out", &framed(ROUTER, PROVIDER, &[], &there));
    let at_lowell = send("internet", "low", &framed(PROVIDER, ROUTER, &[], &back))
        + send("lowell", "in-a", &framed(ROUTER, HOST_A, &[], &back));

    for agent in [&mut boston_agent, &mut lowell_agent] {
        assert!(agent.stop().success(), "{}", agent.log());
    }
    lab.settle();
    for (edge, frames) in [(&boston, at_boston), (&lowell, at_lowell)] {
        account(&lab, edge, frames);
    }
    overlap(&lab);
    halves(&told(&lab, "boston-1"), &told(&lab, "lowell-1"), there.len() as u64, back.len() as u64);
    println!(
        "LAB both edges by {kind}: {at_boston} and {at_lowell} frames, accounted for down to the collector"
    );
}

/// One address behind a router of each secretariat, with nothing but its packets to tell the hosts by; gives how many
/// frames Boston sees.
fn behind_routers() -> u64 {
    let mut frames = 0;
    for round in 0..3 {
        for (namespace, inside, router, vlans, system) in [
            ("eohhs", "in-a", ROUTER_A, &[][..], LINUX),
            ("eopss", "in-b", ROUTER_B, &[120_u16][..], WINDOWS),
        ] {
            let Talk { there, back } = talk_of(system, ROUTED, [203, 0, 113, 80], 44_000 + round, 2);
            let (there, back) = (framed(router, ROUTER, vlans, &there), framed(ROUTER, router, vlans, &back));
            frames += send(namespace, "eth0", &there[..1]);
            frames += send("boston", inside, &back[..1]);
            frames += send(namespace, "eth0", &there[1..]);
            frames += send("boston", inside, &back[1..]);
        }
    }
    frames
}

/// Every frame is in the sensor's account, and the account is the one that the collector has.
fn account(lab: &Lab, edge: &Edge, frames: u64) {
    let (status, stored) = (edge.status(), lab.sensor(&edge.sensor));
    let of =
        |ledger: &Value, key: &str| ledger[key].as_u64().unwrap_or_else(|| panic!("no {key} in {ledger}"));
    for ledger in [&status, &stored["ledger"]] {
        assert_eq!(of(ledger, "packets"), frames, "{}: {ledger:#}", edge.sensor);
        assert_eq!(of(ledger, "parsed") + of(ledger, "unparsed"), frames, "{}: {ledger:#}", edge.sensor);
        assert_eq!(of(ledger, "dropped"), 0, "{}: {ledger:#}", edge.sensor);
    }
    let sealed = of(&status, "batches_sealed");
    assert_eq!((of(&stored, "batches"), of(&status, "batches_acked")), (sealed, sealed), "{}", edge.sensor);
    assert_eq!(of(&stored, "flows"), of(&status, "flow_records"), "{}", edge.sensor);
    assert_eq!(of(&status, "unparsed"), 0, "{}: {status:#}", edge.sensor);
}

/// Each shared address is one open overlap of both secretariats, proven to be two hosts by what tells them apart.
fn overlap(lab: &Lab) {
    let findings = lab.items("/api/v1/findings");
    let overlaps = findings.iter().filter(|finding| finding["rule"] == "overlap.address");
    let mut proven: Vec<(&str, &str, bool, bool)> = overlaps
        .map(|finding| {
            assert_eq!(finding["secretariats"], serde_json::json!(["eohhs", "eopss"]), "{finding:#}");
            assert_eq!(finding["contacts"].as_array().map(Vec::len), Some(2), "{finding:#}");
            assert_eq!(finding["state"], "open", "{finding:#}");
            let (subject, evidence) = (&finding["subject"], &finding["evidence"]);
            let speaks = |term: &str| evidence["scores"][term].as_f64().is_some_and(|bits| bits > 0.0);
            let of_systems = speaks("bits.initial_ttl") && speaks("bits.options");
            let text = |value: &'_ Value| value.as_str().unwrap_or_default().to_owned();
            println!("LAB {}", text(&finding["summary"]));
            (
                subject["address"].as_str().expect("an address"),
                evidence["verdict"].as_str().expect("a verdict"),
                speaks("bits.mac"),
                of_systems,
            )
        })
        .collect();
    proven.sort_unstable();
    assert_eq!(
        proven,
        [("10.10.1.10", "two-hosts", true, false), ("10.10.3.30", "two-hosts", false, true)],
        "{findings:#?}"
    );
}

/// Each edge tells the half that passed it, on both its wires, under one Community ID.
fn halves(boston: &[FlowRecord], lowell: &[FlowRecord], there: u64, back: u64) {
    let of = |flows: &[FlowRecord], packets: (u64, u64)| -> Vec<String> {
        let ours = flows.iter().filter(|flow| [flow.originator.port, flow.responder.port].contains(&43_000));
        let sent = |flow: &FlowRecord, ip: [u8; 4]| {
            let sides = [&flow.originator, &flow.responder];
            sides
                .into_iter()
                .find(|side| side.ip == std::net::IpAddr::from(ip))
                .map_or(0, |side| side.packets)
        };
        ours.map(|flow| {
            assert_eq!((sent(flow, CLIENT), sent(flow, SERVER)), packets, "{flow:#?}");
            assert!(flow.is_half_flow(), "{flow:#?}");
            flow.community_id.clone()
        })
        .collect()
    };
    let ids = [of(boston, (there, 0)), of(lowell, (0, back))];
    assert_eq!([ids[0].len(), ids[1].len()], [2, 2], "{ids:?} {boston:#?}");
    assert!(ids.concat().windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
    println!("LAB the halves of one connection, out by Boston and back by Lowell, have one Community ID");
}

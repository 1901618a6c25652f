//! A real TCP transfer whose segments the kernel joins and divides on the way (GSO, GRO): the sensor counts the segments
//! on the wire, as both hosts' own TCP does.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::mpsc::sync_channel,
    time::{Duration, Instant},
};

use onenet_core::record::{ConnState, Counting};

use super::{bpf_permitted, flows::told, in_namespace, inside};
use crate::harness::{AgentConfig, Lab, wait_for};

/// Client and server, and between them a router that the sensor is on.
const SET_UP: &str = "
    ip netns add client && ip netns add server &&
    ip link add tap0 type veth peer name eth0 netns client &&
    ip link add out0 type veth peer name eth0 netns server &&
    sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.disable_ipv6=1 &&
    ip addr add 10.10.1.1/24 dev tap0 && ip addr add 203.0.113.1/24 dev out0 &&
    ip link set tap0 up && ip link set out0 up &&
    ip -n client addr add 10.10.1.10/24 dev eth0 && ip -n client link set eth0 up &&
    ip -n client route add default via 10.10.1.1 &&
    ip -n server addr add 203.0.113.2/24 dev eth0 && ip -n server link set eth0 up &&
    ip -n server route add default via 203.0.113.1";

/// How long late segments are waited for.
const SETTLE: Duration = Duration::from_millis(300);

/// Bytes that are sent.
const BYTES: usize = 100 << 20;

#[test]
fn segments_that_offload_joined_are_counted_as_they_are_on_the_wire() {
    inside("offload::in_the_lab", SET_UP);
}

#[test]
fn throughput_with_and_without_an_agent() {
    inside("offload::throughput", SET_UP);
}

/// Segments that a host's TCP has sent, by its own counters (RFC 4022: OutSegs, and RetransSegs beside).
fn segments_sent() -> u64 {
    let table = std::fs::read_to_string("/proc/thread-self/net/snmp").expect("the kernel's table");
    let lines: Vec<&str> = table.lines().filter(|line| line.starts_with("Tcp:")).collect();
    let [names, values] = lines[..] else { panic!("{table}") };
    let value = |name: &str| {
        let pairs = names.split_whitespace().zip(values.split_whitespace());
        let found = pairs.filter(|(known, _)| *known == name).map(|(_, value)| value).next();
        found.and_then(|value| value.parse::<u64>().ok()).unwrap_or_else(|| panic!("no {name} in {table}"))
    };
    value("OutSegs") + value("RetransSegs")
}

/// Sends so many bytes from client to server; gives the segments that each has sent.
fn transfer() -> (u64, u64) {
    let (listening, ready) = sync_channel(1);
    std::thread::scope(|scope| {
        let server = scope.spawn(move || {
            in_namespace("server", move || {
                let before = segments_sent();
                let listener = TcpListener::bind("203.0.113.2:5001").expect("a port");
                listening.send(()).expect("the client waits");
                let (mut stream, _) = listener.accept().expect("a client");
                let (mut buffer, mut received) = (vec![0; 1 << 20], 0);
                loop {
                    match stream.read(&mut buffer).expect("the client sends") {
                        0 => break,
                        some => received += some,
                    }
                }
                assert_eq!(received, BYTES);
                drop(stream);
                std::thread::sleep(SETTLE);
                segments_sent() - before
            })
        });
        let client = scope.spawn(move || {
            in_namespace("client", move || {
                let before = segments_sent();
                ready.recv().expect("the server listens");
                let mut stream = TcpStream::connect("203.0.113.2:5001").expect("a server");
                let chunk = vec![7; 1 << 20];
                for _ in 0..BYTES >> 20 {
                    stream.write_all(&chunk).expect("the server reads");
                }
                stream.shutdown(Shutdown::Write).expect("an end");
                assert_eq!(stream.read(&mut [0; 1]).expect("the server's end"), 0);
                std::thread::sleep(SETTLE);
                segments_sent() - before
            })
        });
        (client.join().expect("the client ends"), server.join().expect("the server ends"))
    })
}

#[test]
#[ignore = "runs in the namespaces that segments_that_offload_joined_are_counted_as_they_are_on_the_wire makes"]
fn in_the_lab() {
    let mut kinds = vec!["pcap"];
    if bpf_permitted() {
        kinds.push("ebpf");
    }
    let mut lab = Lab::new(None, "");
    lab.start();
    let mut agents = Vec::new();
    for kind in &kinds {
        let edge = lab.enrol(AgentConfig {
            sensor: format!("by-{kind}"),
            site: "boston".into(),
            plan: None,
            top: String::new(),
            tables: format!(
                "[[source]]\nkind = \"{kind}\"\ninterface = \"tap0\"\n\n\
                 [[interface]]\nname = \"tap0\"\nrole = \"inside\"\n"
            ),
        });
        let agent = edge.start(&[]);
        wait_for("the agent to run", || edge.state_dir.join("status.json").is_file().then_some(()));
        agents.push((edge, agent));
    }
    let (client, server) = transfer();
    for (edge, agent) in &mut agents {
        assert!(agent.stop().success(), "{}", agent.log());
        let flows = told(&lab, &edge.sensor);
        let flow = flows.iter().find(|flow| flow.responder.port == 5001);
        let flow = flow.unwrap_or_else(|| panic!("{}: no such flow in {flows:?}", edge.sensor));
        let (sent, received) = (&flow.originator, &flow.responder);
        println!(
            "LAB {}: {} MiB by TCP, {} packets for {client} segments, {} back for {server}, {:?}",
            edge.sensor,
            BYTES >> 20,
            sent.packets,
            received.packets,
            flow.counting
        );
        assert_eq!(flow.conn_state, ConnState::SF, "{flow:?}");
        assert!(sent.payload_bytes >= BYTES as u64, "{flow:?}");
        let account = &edge.status()["sources"][0]["account"];
        assert_eq!(account["unexplained"], 0, "{}: {account:#}", edge.sensor);
        if edge.sensor == "by-pcap" {
            // Reckoned by the MTU: right as far as senders fill their segments.
            assert_eq!(flow.counting, Counting::Estimated, "{flow:?}");
            let (low, high) = (client * 95 / 100, client * 105 / 100);
            assert!((low..=high).contains(&sent.packets), "{client} segments: {flow:?}");
        }
        if edge.sensor == "by-ebpf" {
            assert_eq!((sent.packets, received.packets), (client, server), "{flow:?}");
            assert_eq!(flow.counting, Counting::Exact, "{flow:?}");
            let headers = sent.ip_bytes - sent.payload_bytes;
            // 20 bytes of IPv4, 20 to 60 of TCP.
            assert!((client * 40..=client * 80).contains(&headers), "{flow:?}");
        }
    }
}

#[test]
#[ignore = "runs in the namespaces that throughput_with_and_without_an_agent makes"]
fn throughput() {
    let mut kinds = vec![None, Some("pcap")];
    if bpf_permitted() {
        kinds.insert(1, Some("ebpf"));
    }
    let mut lab = Lab::new(None, "");
    lab.start();
    for kind in kinds {
        let mut agent = kind.map(|kind| {
            let edge = lab.enrol(AgentConfig {
                sensor: format!("beside-{kind}"),
                site: "boston".into(),
                plan: None,
                top: String::new(),
                tables: format!("[[source]]\nkind = \"{kind}\"\ninterface = \"tap0\"\n"),
            });
            let agent = edge.start(&[]);
            wait_for("the agent to run", || edge.state_dir.join("status.json").is_file().then_some(()));
            agent
        });
        let mut rates: Vec<f64> = (0..5)
            .map(|_| {
                let start = Instant::now();
                transfer();
                // Both hosts wait for so long before they count.
                let took = start.elapsed().saturating_sub(SETTLE);
                BYTES as f64 * 8.0 / took.as_secs_f64() / 1e9
            })
            .collect();
        rates.sort_by(f64::total_cmp);
        println!("LAB TCP through the router, {}: {:.1} Gbit/s", kind.unwrap_or("no agent"), rates[2]);
        if let Some(agent) = &mut agent {
            assert!(agent.stop().success(), "{}", agent.log());
        }
    }
}

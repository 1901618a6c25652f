//! `onenet-agent read` as a program: what it writes for good captures, and what it says and returns for bad ones.

#![expect(clippy::expect_used, reason = "a test stops where it finds what it did not expect")]

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

fn agent() -> Command {
    Command::new(env!("CARGO_BIN_EXE_onenet-agent"))
}

fn read(arguments: &[&str], paths: &[&Path]) -> Output {
    agent().arg("read").args(arguments).args(paths).output().expect("the agent runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asserts the exit code and that standard error is one line that holds the text.
fn assert_one_line(output: &Output, code: i32, expected: &str) {
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.starts_with("error: ") && told.contains(expected), "{told}");
}

fn sum(words: &[u8]) -> u16 {
    let mut total: u32 =
        words.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !u16::try_from(total).unwrap_or(0)
}

const CLIENT: [u8; 4] = [10, 1, 2, 3];
const SERVER: [u8; 4] = [151, 101, 1, 69];

/// An Ethernet frame with an IPv4 packet.
fn frame(from: [u8; 4], to: [u8; 4], protocol: u8, transport: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + transport.len()).expect("a short packet");
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
    header.extend(from);
    header.extend(to);
    let checksum = sum(&header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mac = |ip: [u8; 4]| [2, 0, ip[0], ip[1], ip[2], ip[3]];
    [&mac(to)[..], &mac(from)[..], &[8, 0], &header, transport].concat()
}

fn tcp(ports: [u16; 2], sequence: u32, acknowledgement: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = [ports[0].to_be_bytes(), ports[1].to_be_bytes()].concat();
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledgement.to_be_bytes());
    segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(payload);
    segment
}

fn udp(ports: [u16; 2], payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("a short datagram");
    let mut datagram = [ports[0].to_be_bytes(), ports[1].to_be_bytes(), length.to_be_bytes()].concat();
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

/// A whole TCP connection, a DNS query with its answer, an ARP request and a frame that is not IP.
fn frames() -> Vec<Vec<u8>> {
    let (out, back) = ([49152, 443], [443, 49152]);
    let request = |segment: Vec<u8>| frame(CLIENT, SERVER, 6, &segment);
    let answer = |segment: Vec<u8>| frame(SERVER, CLIENT, 6, &segment);
    let arp = [
        &[0xff; 6][..],
        &[2, 0, 10, 1, 2, 3],
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &[2, 0, 10, 1, 2, 3],
        &CLIENT,
        &[0; 6],
        &[10, 1, 2, 1],
    ];
    let lldp = [&[1, 0x80, 0xc2, 0, 0, 0x0e, 2, 0, 10, 1, 2, 3, 0x88, 0xcc][..], &[0; 46]].concat();
    vec![
        request(tcp(out, 100, 0, 0x02, b"")),
        answer(tcp(back, 500, 101, 0x12, b"")),
        request(tcp(out, 101, 501, 0x10, b"")),
        request(tcp(out, 101, 501, 0x18, b"hello")),
        answer(tcp(back, 501, 106, 0x18, b"good day")),
        request(tcp(out, 106, 509, 0x11, b"")),
        answer(tcp(back, 509, 107, 0x11, b"")),
        request(tcp(out, 107, 510, 0x10, b"")),
        frame(CLIENT, [151, 101, 1, 53], 17, &udp([5353, 53], b"query")),
        frame([151, 101, 1, 53], CLIENT, 17, &udp([53, 5353], b"the answer")),
        arp.concat(),
        lldp,
    ]
}

/// A pcap of these frames, 1 ms apart, from 2026-11-21T08:00:00Z.
fn pcap(link_type: u32, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, link_type].map(u32::to_le_bytes).concat();
    for (index, frame) in frames.iter().enumerate() {
        let length = u32::try_from(frame.len()).expect("a short frame");
        let micros = u32::try_from(index).expect("few frames") * 1000;
        file.extend([1_795_248_000, micros, length, length].map(u32::to_le_bytes).concat());
        file.extend(frame);
    }
    file
}

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.path(name)).expect("a file")).expect("JSON")
    }
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    text(bytes).lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

#[test]
fn flows_are_json_lines_on_standard_output_and_the_summary_is_beside_them() {
    let files = Files::new();
    let capture = files.write("edge.pcap", &pcap(1, &frames()));
    let output = read(&[], &[&capture]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let flows = lines(&output.stdout);
    assert_eq!(flows.len(), 2, "{flows:?}");
    let tcp = flows.iter().find(|flow| flow["protocol"] == 6).expect("a TCP flow");
    assert_eq!((&tcp["originator"]["ip"], &tcp["responder"]["port"]), (&"10.1.2.3".into(), &443.into()));
    assert_eq!((&tcp["conn_state"], &tcp["history"]), (&"SF".into(), &"ShADdFf".into()), "{tcp}");
    assert_eq!(
        (&tcp["originator"]["payload_bytes"], &tcp["responder"]["payload_bytes"]),
        (&5.into(), &8.into())
    );
    assert_eq!((&tcp["interface"], &tcp["direction"]), (&"edge".into(), &"outbound".into()));
    assert!(told.contains("edge.pcap: 12 packets, "), "{told}");
    assert!(told.contains("12 packets = 11 parsed + 1 unparsed\n"), "{told}");
    assert!(told.contains("1 unparsed  network: not-ip\n"), "{told}");
    assert!(told.contains("flows     2: 1 tcp, 1 udp\n"), "{told}");
}

#[test]
fn a_capture_reads_the_same_from_a_pipe_in_gzip_and_split_over_files() {
    let files = Files::new();
    let whole = pcap(1, &frames());
    let capture = files.write("edge.pcap", &whole);
    let expected = text(&read(&["-q"], &[&capture]).stdout);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&whole).expect("memory");
    let packed = files.write("edge.pcap.gz", &gzip.finish().expect("memory"));
    assert_eq!(text(&read(&["-q"], &[&packed]).stdout), expected);
    let mut child = agent()
        .args(["read", "-q", "--interface", "edge", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the agent runs");
    child.stdin.take().expect("a pipe").write_all(&whole).expect("written");
    assert_eq!(text(&child.wait_with_output().expect("an end").stdout), expected);
    // The second part is named first: packet time gives the order.
    let cut = 24 + frames().iter().take(5).map(|frame| 16 + frame.len()).sum::<usize>();
    let late = files.write("b.pcap", &[&whole[..24], &whole[cut..]].concat());
    let early = files.write("c.pcap", &whole[..cut]);
    assert_eq!(text(&read(&["-q", "--interface", "edge"], &[&late, &early]).stdout), expected);
}

#[test]
fn every_output_goes_where_it_is_told() {
    let files = Files::new();
    let capture = files.write("edge.pcap", &pcap(1, &frames()));
    let names = ["flows", "observations", "findings", "summary"];
    let options: Vec<String> =
        names.iter().map(|name| format!("--{name}={}", files.path(name).display())).collect();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let output = read(&options, &[&capture]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), String::new()));
    let summary = files.json("summary");
    assert_eq!((&summary["ledger"]["packets"], &summary["ledger"]["arp"]), (&12.into(), &1.into()));
    assert_eq!(summary["ledger"]["balanced"], true);
    assert_eq!(summary["captures"][0]["error"], Value::Null);
    let written = |name| lines(&std::fs::read(files.path(name)).expect("a file")).len();
    assert_eq!(summary["ledger"]["flow_records"], written("flows"));
    assert_eq!(summary["ledger"]["observations"], written("observations"));
    assert_eq!(summary["ledger"]["finding_changes"], written("findings"));
    assert!(written("observations") > 0, "the ARP request shows an address in use");
    // Where something else takes standard output, flows do not go there too.
    let output = read(&["-q", "--summary", "-"], &[&capture]);
    assert_eq!(
        serde_json::from_slice::<Value>(&output.stdout).expect("one JSON object")["flows"]["total"],
        2
    );
}

#[test]
fn zeek_and_csv_have_a_header_and_a_line_for_each_flow() {
    let files = Files::new();
    let capture = files.write("edge.pcap", &pcap(1, &frames()));
    let zeek = text(&read(&["-q", "--format", "zeek"], &[&capture]).stdout);
    let fields: Vec<&str> =
        zeek.lines().find_map(|l| l.strip_prefix("#fields\t")).expect("fields").split('\t').collect();
    let rows: Vec<Vec<&str>> =
        zeek.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows.len(), 2, "{zeek}");
    assert!(rows.iter().all(|row| row.len() == fields.len()));
    let tcp = rows.iter().find(|row| row[6] == "tcp").expect("a TCP flow");
    assert_eq!(tcp[0], "1795248000.000000");
    assert_eq!(
        tcp[2..14],
        ["10.1.2.3", "49152", "151.101.1.69", "443", "tcp", "-", "0.007000", "5", "8", "SF", "T", "F"]
    );
    assert_eq!(tcp[14..21], ["0", "ShADdFf", "5", "205", "3", "128", "(empty)"]);
    let csv = text(&read(&["-q", "--format", "csv"], &[&capture]).stdout);
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(rows.len(), 3, "{csv}");
    assert!(
        rows[0].starts_with("flow_id,community_id,")
            && rows.iter().any(|row| row.contains(",10.1.2.3,49152,"))
    );
}

#[test]
fn a_capture_that_cannot_be_read_is_one_line_and_exit_code_1() {
    let files = Files::new();
    let whole = pcap(1, &frames());
    for (path, expected) in [
        (files.path("none.pcap"), "none.pcap: no such file"),
        (files.write("empty.pcap", b""), "empty.pcap: is empty, expected a pcap or pcapng capture"),
        (
            files.write("text.pcap", b"hello there\n"),
            "text.pcap: is not a capture: it begins with 68 65 6c 6c",
        ),
        (
            files.write("head.pcap", &whole[..10]),
            "head.pcap: broken at byte 0: the file ends after 10 of the 24 bytes",
        ),
        (files.dir.path().to_owned(), ": is a directory, expected a capture file"),
    ] {
        let output = read(&[], &[&path]);
        assert_one_line(&output, 1, expected);
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn packets_before_the_damage_count_and_the_summary_says_where_the_file_broke() {
    let files = Files::new();
    let whole = pcap(1, &frames());
    let cut = files.write("cut.pcap", &whole[..whole.len() - 1]);
    let summary = files.path("summary");
    let output = read(&["--summary", &summary.display().to_string()], &[&cut]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert_eq!(lines(&output.stdout).len(), 2);
    let offset = whole.len() - 76;
    assert!(
        told.contains(&format!("broken at byte {offset}: the file ends after 75 of the 76 bytes")),
        "{told}"
    );
    assert!(told.contains("the 11 packets before that are counted"), "{told}");
    assert!(
        told.lines()
            .last()
            .is_some_and(|line| line.starts_with("error: ") && line.contains("cut.pcap: broken"))
    );
    let summary = files.json("summary");
    assert_eq!(
        (&summary["ledger"]["packets"], &summary["captures"][0]["error_offset"]),
        (&11.into(), &offset.into())
    );
    // The other captures are read all the same.
    let good = files.write("good.pcap", &whole);
    let output = read(&[], &[&files.path("none.pcap"), &good]);
    assert_eq!((output.status.code(), lines(&output.stdout).len()), (Some(1), 2));
    assert!(text(&output.stderr).contains("none.pcap: no such file"));
}

#[test]
fn an_unknown_link_type_is_counted_and_is_no_failure() {
    let files = Files::new();
    let capture = files.write("odd.pcap", &pcap(0xfffe, &frames()));
    let output = read(&[], &[&capture]);
    let told = text(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0), "{told}");
    assert!(told.contains("12 packets = 0 parsed + 12 unparsed"), "{told}");
    assert!(told.contains("12 unparsed  link: unknown-link-type"), "{told}");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let files = Files::new();
    let capture = files.write("edge.pcap", &pcap(1, &frames()));
    let nothing = read(&[], &[]);
    assert_eq!(nothing.status.code(), Some(2));
    assert!(text(&nothing.stderr).contains("<CAPTURE>"), "{}", text(&nothing.stderr));
    assert_eq!(agent().output().expect("the agent runs").status.code(), Some(2));
    assert_eq!(read(&["--format", "xml"], &[&capture]).status.code(), Some(2));
    let same = capture.display().to_string();
    assert_one_line(&read(&["--flows", &same], &[&capture]), 2, "is one of the captures to be read");
    assert_eq!(std::fs::read(&capture).expect("still there"), pcap(1, &frames()));
    assert_one_line(&read(&["--flows=-", "--findings=-"], &[&capture]), 2, "are the same: -");
    let config = files.write("agent.toml", b"[flow]\nmax_flow = 1\n");
    let config = config.display().to_string();
    assert_one_line(
        &read(&["--config", &config], &[&capture]),
        2,
        "agent.toml:2:1: flow.max_flow: unknown field `max_flow`, expected one of `tcp_idle_seconds`",
    );
    let unwritable = files.path("no/such/directory");
    let output = read(&["--flows", &unwritable.display().to_string()], &[&capture]);
    assert_one_line(&output, 1, "no/such/directory: cannot be created");
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let files = Files::new();
    // Each datagram is a flow of its own, more than any pipe holds.
    let many: Vec<Vec<u8>> = (1..3000).map(|port| frame(CLIENT, SERVER, 17, &udp([port, 9], b"x"))).collect();
    let capture = files.write("many.pcap", &pcap(1, &many));
    let mut child = agent()
        .arg("read")
        .arg(&capture)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the agent runs");
    let mut first = [0; 10];
    child.stdout.take().expect("a pipe").read_exact(&mut first).expect("the first flow");
    let output = child.wait_with_output().expect("an end");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn ctrl_c_ends_a_live_capture_with_all_its_records_and_the_summary() {
    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };

    // The second packet comes long after the first, whose flow is then told while the capture goes on.
    let first = frame(CLIENT, SERVER, 17, &udp([1000, 9], b"x"));
    let mut capture = pcap(1, &[first.clone(), first]);
    let second = capture.len() / 2 + 12;
    capture[second..second + 4].copy_from_slice(&1_795_249_000_u32.to_le_bytes());
    let mut child = agent()
        .args(["read", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the agent runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(&capture).expect("written");
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut told = vec![0; 1];
    stdout.read_exact(&mut told).expect("the first flow");
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a process id")), Signal::SIGINT).expect("a signal");
    drop(stdin);
    stdout.read_to_end(&mut told).expect("the rest");
    let output = child.wait_with_output().expect("an end");
    assert_eq!((output.status.code(), lines(&told).len()), (Some(0), 2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("standard input: 2 packets"), "{}", text(&output.stderr));
}

#[test]
fn the_plan_of_a_configuration_places_the_flows() {
    let files = Files::new();
    let capture = files.write("edge.pcap", &pcap(1, &frames()));
    let config = files.write(
        "agent.toml",
        b"plan = 'plan.toml'\n[sensor]\nname = 'b1'\nsite = 'boston'\n[[interface]]\nname = 'edge'\nrole = 'inside'\n",
    );
    files.write(
        "plan.toml",
        b"[[secretariat]]\nid = 'eohhs'\n[[prefix]]\ncidr = '10.1.0.0/16'\nsecretariat = 'eohhs'\n",
    );
    let output = read(&["-q", "--config", &config.display().to_string()], &[&capture]);
    let flows = lines(&output.stdout);
    assert!(!flows.is_empty(), "{}", text(&output.stderr));
    for flow in flows {
        assert_eq!(
            (&flow["site"], &flow["originator"]["secretariat"]),
            (&"boston".into(), &"eohhs".into()),
            "{flow}"
        );
    }
}

#[test]
fn check_config_says_what_will_be_done_and_interfaces_lists_loopback() {
    let files = Files::new();
    let config = files.write(
        "agent.toml",
        b"[sensor]\nname = 'b1'\nsite = 'boston'\n[collector]\nendpoint = 'https://c.example:7443'\n\
          [[source]]\nkind = 'pcap-file'\npath = 'none.pcap'\n[[source]]\nkind = 'pcap'\ninterface = 'nope0'\n",
    );
    let output = agent().arg("check-config").arg("--config").arg(&config).output().expect("the agent runs");
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{told}{}", text(&output.stderr));
    for expected in [
        "sensor     b1 at boston\n",
        "collector  https://c.example:7443 as c.example\n",
        "RFC 1918 and ULA count as inside\n",
        "none.pcap: no such file\n",
        "warning: this host has no interface nope0\n",
        "agent.toml: configuration is sound\n",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    let missing =
        agent().args(["check-config", "--config", "/nonexistent/a.toml"]).output().expect("the agent runs");
    assert_one_line(&missing, 2, "/nonexistent/a.toml: no such file; expected a file in TOML");
    let table = agent().arg("interfaces").output().expect("the agent runs");
    assert!(text(&table.stdout).starts_with("NAME"), "{}", text(&table.stdout));
    let json = agent().args(["interfaces", "--format", "json"]).output().expect("the agent runs");
    let listed: Vec<Value> = serde_json::from_slice(&json.stdout).expect("JSON");
    if listed.iter().all(|interface| interface["loopback"] != true) {
        eprintln!("skipped in part: this host shows no loopback interface");
    }
}

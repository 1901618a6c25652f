//! The whole configuration: the packaged file, its defaults, and what is refused, with the place.

mod packaged;

use std::path::Path;

use super::*;

fn load(text: &str, purpose: Purpose) -> Result<Config, ConfigError> {
    Config::from_document(&Document::new(Path::new("/etc/onenet/agent.toml"), text.to_owned()), purpose)
}

const MINIMAL: &str =
    "[sensor]\nname = 'b1'\nsite = 'boston'\n[collector]\nendpoint = 'https://c.example:7443'\n";

const PACKAGED: &str = include_str!("../../../packaging/agent.toml");

#[test]
fn the_packaged_file_is_sound_and_has_the_defaults() {
    let packaged = load(PACKAGED, Purpose::Run).expect("sound");
    let minimal = load(MINIMAL, Purpose::Run).expect("sound");
    assert_eq!((&packaged.flow, &packaged.spool), (&minimal.flow, &minimal.spool));
    assert_eq!((&packaged.batch, &packaged.log), (&minimal.batch, &minimal.log));
    assert_eq!((packaged.heartbeat_seconds, packaged.drain_seconds), (10, 10));
}

#[test]
fn whoever_states_a_plan_means_it_unless_told_otherwise() {
    let source = |top: &str| load(&format!("{top}{MINIMAL}"), Purpose::Run).expect("sound").plan_source;
    let inline = format!("{MINIMAL}[[plan.secretariat]]\nid = 'eohhs'\n");
    assert_eq!(source(""), PlanSource::Collector);
    assert_eq!(load(&inline, Purpose::Run).expect("sound").plan_source, PlanSource::File);
    assert_eq!(source("plan_source = 'file'\n"), PlanSource::File);
    assert_eq!(
        load(&format!("plan_source = 'collector'\n{inline}"), Purpose::Run).expect("sound").plan_source,
        PlanSource::Collector
    );
    let wrong = load(&format!("plan_source = 'cloud'\n{MINIMAL}"), Purpose::Run).expect_err("no source");
    assert!(wrong.to_string().contains("agent.toml:1:15: plan_source: unknown variant `cloud`"), "{wrong}");
}

#[test]
fn the_sources_that_the_packaged_file_shows_are_what_they_say() {
    let all = packaged::uncommented(PACKAGED).replace("\nplan = \"plan.toml\"\n", "\n");
    let config = load(&all, Purpose::Run).expect("sound");
    assert_eq!((config.sources.len(), config.interfaces.len(), config.mirrors.len()), (3, 1, 1));
    let pcap = |name: &str, filter: Option<&str>| PcapSource {
        interface: name.into(),
        snap_length: 2048,
        buffer_mib: 64,
        promiscuous: true,
        filter: filter.map(str::to_owned),
        immediate: false,
    };
    let ebpf = EbpfSource {
        interface: "eth0".into(),
        hook: Hook::Auto,
        max_flows: 65_536,
        max_flows_v6: 16_384,
        interval_ms: 1000,
        first_packets: 4,
        snap_length: 256,
        ring_mib: 8,
        sample: 1,
        promiscuous: true,
    };
    assert_eq!(config.sources[0], Source::Auto { ebpf, pcap: pcap("eth0", None) });
    assert_eq!(config.sources[1], Source::Pcap(pcap("eth1", Some("not port 7443"))));
}

#[test]
fn what_is_wrong_is_told_with_file_line_column_and_key() {
    for (text, expected) in [
        (
            "[senzor]\n",
            "agent.toml:1:2: senzor: unknown field `senzor`, expected one of `sensor`, `collector`",
        ),
        ("[sensor]\nname = 'a'\n", "agent.toml:1:1: sensor: missing field `site`"),
        ("[sensor]\nname = 'a b'\nsite = 's'\n", "agent.toml:2:8: sensor.name: \"a b\", expected 1 to 64 of"),
        (
            "[spool]\nsegment_mib = 65\n",
            "agent.toml:2:15: spool.segment_mib: 65, expected a whole number from 1 to 64",
        ),
        (
            "[spool]\nmax_mib = 64\nsegment_mib = 32\n",
            "agent.toml:2:11: spool.max_mib: 64, expected at least four",
        ),
        (
            "[flow]\nmax_flows = 0\n",
            "agent.toml:2:13: flow.max_flows: 0, expected a whole number from 1 to 100000000",
        ),
        (
            "[detect.scan]\nlimit = 0\n",
            "agent.toml:2:9: detect.scan.limit: 0, expected a whole number from 1 to 1000000",
        ),
        (
            "[detect.flood]\nmax_resolved_share = nan\n",
            "agent.toml:2:22: detect.flood.max_resolved_share: NaN, expected a number from 0.001 to 0.999",
        ),
        (
            "[detect.beacon]\nsamples = 19\n",
            "agent.toml:1:1: detect.beacon.min_connections: 20, expected no more than beacon.samples, 19",
        ),
        (
            "[sensor]\nname = 'a'\nsite = 'b'\nstate_dir = ''\n",
            "agent.toml:4:13: sensor.state_dir: is empty, expected a directory",
        ),
        (
            "[collector]\nendpoint = 'https://c:1'\nserver_name = 'a b'\n",
            "agent.toml:3:15: collector.server_name: \"a b\", expected a host name or an address, such as",
        ),
        (
            "[flow]\ntcp_idle_seconds = -1\n",
            "agent.toml:2:20: flow.tcp_idle_seconds: invalid value: integer `-1`, expected a whole number from 0 to 4294967295",
        ),
        (
            "heartbeat_seconds = 31\n",
            "agent.toml:1:21: heartbeat_seconds: 31, expected a whole number from 1 to 30",
        ),
        (
            "[collector]\nendpoint = 'c:1'\n",
            "agent.toml:2:12: collector.endpoint: \"c:1\": expected https://host:port",
        ),
        (
            "[[source]]\nkind = 'pcapp'\n",
            "agent.toml:2:8: source[0].kind: unknown variant `pcapp`, expected one of `pcap-file`, `pcap`, `ebpf`, `auto`",
        ),
        ("[[source]]\nkind = 'pcap'\n", "source[0].interface: is missing, expected one of those that"),
        ("[[source]]\nkind = 'pcap-file'\n", "agent.toml:1:1: source[0].path: is missing, expected a file"),
        (
            "[[source]]\nkind = 'pcap-file'\npath = 'a'\nfilter = 'tcp'\n",
            "agent.toml:4:10: source[0].filter: is not a key of kind \"pcap-file\"",
        ),
        (
            "[[source]]\nkind = 'pcap'\ninterface = 'e'\npace = 'fast'\n",
            "agent.toml:4:8: source[0].pace: is not a key of kind \"pcap\"",
        ),
        (
            "[[source]]\nkind = 'ebpf'\ninterface = 'e'\nfilter = 'tcp'\n",
            "agent.toml:4:10: source[0].filter: is not a key of kind \"ebpf\"",
        ),
        (
            "[[source]]\nkind = 'auto'\ninterface = 'e'\nring_mib = 3\n",
            "agent.toml:4:12: source[0].ring_mib: 3, expected a power of two",
        ),
        (
            "[[source]]\nkind = 'ebpf'\ninterface = 'e'\nsnap_length = 2048\n",
            "agent.toml:4:15: source[0].snap_length: 2048, expected 64 to 1024",
        ),
        (
            "[[source]]\nkind = 'ebpf'\ninterface = 'e'\nsample = 0\n",
            "agent.toml:4:10: source[0].sample: 0, expected a whole number from 1",
        ),
        (
            "[[source]]\nkind = 'pcap'\ninterface = 'e'\nsnap_length = 1\n",
            "agent.toml:4:15: source[0].snap_length: 1, expected a whole number from 64 to 262144",
        ),
        (
            "[[interface]]\nname = 'e'\n[[interface]]\nname = 'e'\n",
            "agent.toml:4:8: interface[1].name: is stated twice",
        ),
        (
            "[[interface]]\nname = 'e'\nrouter_macs = ['1']\n",
            "agent.toml:3:15: interface[0].router_macs: expected a MAC address such as",
        ),
        (
            "[[interface]]\nname = 'e'\nrouter_macs = ['01:00:5e:00:00:01']\n",
            "agent.toml:3:15: interface[0].router_macs: 01:00:5e:00:00:01, which no station has, expected",
        ),
        (
            "[flow]\ntunnels = 'none'\n",
            "agent.toml:2:11: flow.tunnels: unknown variant `none`, expected one of `both`, `inner`, `outer`",
        ),
        ("[[mirror]]\nname = 'm'\n", "agent.toml:1:1: mirror[0]: missing field `kind`"),
        (
            "[[mirror]]\nname = 'm'\nkind = 'span'\n",
            "agent.toml:3:8: mirror[0].kind: unknown variant `span`, expected one of `erspan`, `gre`, `vxlan`",
        ),
        (
            "[[mirror]]\nname = 'm'\nkind = 'erspan'\nport = 1\n",
            "agent.toml:4:8: mirror[0].port: is not a key of this kind, which is not carried by UDP",
        ),
        (
            "[[mirror]]\nname = 'm'\nkind = 'tzsp'\nid = 1\n",
            "agent.toml:4:6: mirror[0].id: is not a key of kind \"tzsp\"",
        ),
        (
            "[[mirror]]\nname = 'm'\nkind = 'erspan'\nid = 1024\n",
            "agent.toml:4:6: mirror[0].id: 1024, expected a whole number from 0 to 1023",
        ),
        (
            "[[mirror]]\nname = 'm'\nkind = 'gre'\ndestination = '10.0.0.0/33'\n",
            "agent.toml:4:15: mirror[0].destination: \"10.0.0.0/33\", expected an address or a prefix, such as",
        ),
        (
            "[[mirror]]\nname = 'm'\nkind = 'gre'\n[[mirror]]\nname = 'n'\nkind = 'gre'\nid = 7\n",
            "agent.toml:6:8: mirror[1].kind: has no packet that mirror \"m\" before it does not have",
        ),
        ("[log]\nlevel = 'loud'\n", "agent.toml:2:9: log.level: unknown variant `loud`, expected one of"),
        (
            "[[plan.prefix]]\ncidr = '10.0.0.0/8'\nsecretariat = 'x'\n",
            "agent.toml:3:15: plan.prefix[0].secretariat: prefix \"10.0.0.0/8\" names the secretariat \"x\"",
        ),
        (
            "[[plan.prefix]]\ncidr = '10.0.0.0/33'\nsecretariat = 'x'\n",
            "agent.toml:2:8: plan.prefix[0].cidr: ",
        ),
        (
            "[[plan.segment]]\nid = 's'\nvlan = 'x'\n",
            "agent.toml:3:8: plan.segment[0].vlan: invalid type: string \"x\", expected a whole number from 0 to 65535",
        ),
        (
            "plan = 7\n",
            "agent.toml:1:8: plan: invalid type: integer `7`, expected the path of a plan file, or the plan",
        ),
        ("plan = 'none.toml'\n", "/etc/onenet/none.toml: no such file"),
        ("[log\n", "agent.toml:1:5: "),
    ] {
        let error = load(text, Purpose::Read).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}\n{error}\n{expected}");
        assert!(error.starts_with("/etc/onenet/") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn to_run_a_sensor_must_be_stated() {
    assert!(load("", Purpose::Read).is_ok());
    let error = load("", Purpose::Run).expect_err("no sensor").to_string();
    assert_eq!(error, "/etc/onenet/agent.toml: sensor: is missing, expected [sensor] with name and site");
}

#[test]
fn a_plan_file_is_beside_the_configuration_and_tells_its_own_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("agent.toml");
    std::fs::write(
        &path,
        "plan = 'plan.toml'\n[[source]]\nkind = 'pcap-file'\npath = ['a.pcap', '/b.pcap']\n",
    )
    .expect("a file");
    let plan = dir.path().join("plan.toml");
    std::fs::write(&plan, "[[secretariat]]\nid = 'eohhs'\n[[secretariat]]\nid = 'eohhs'\n").expect("a file");
    let error = Config::load(&path, Purpose::Read).expect_err("a contradiction").to_string();
    assert!(
        error.ends_with("plan.toml:4:6: secretariat[1].id: secretariat \"eohhs\" is stated twice"),
        "{error}"
    );
    std::fs::write(&plan, "[[secretariat]]\nid = 'eohhs'\n").expect("a file");
    let config = Config::load(&path, Purpose::Read).expect("sound");
    assert_eq!((config.plan.secretariats.len(), config.plan_path), (1, Some(plan)));
    let Source::PcapFile(files) = &config.sources[0] else { panic!("a pcap-file source") };
    assert_eq!(files.paths, [dir.path().join("a.pcap"), "/b.pcap".into()]);
}

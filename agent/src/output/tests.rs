//! Each format against golden text, and against the fields that the records have.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    io::{self, Write},
    rc::Rc,
};

use onenet_core::record::{EndReason, FindingChange, FlowRecord, Observation};
use serde_json::Value;

use super::{
    RecordWriter, check_distinct, columns::Columns, csv::CsvWriter, json::JsonWriter, zeek::ZeekWriter,
};
use crate::samples;

/// A buffer that is still there after its writer.
#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).expect("UTF-8")
    }
}

#[test]
fn json_is_one_line_for_each_record_and_reads_back() {
    let out = Shared::default();
    let mut writer = JsonWriter::new(out.clone());
    writer.write(&samples::flow()).expect("written");
    writer.write(&samples::observation()).expect("written");
    writer.write(&samples::finding()).expect("written");
    RecordWriter::<FlowRecord>::flush(&mut writer).expect("flushed");
    let expected = [samples::FLOW, samples::OBSERVATION, samples::FINDING].join("\n") + "\n";
    assert_eq!(out.text(), expected);
}

/// The paths of all leaves of a record in JSON; lists and maps of numbers are leaves.
fn leaves(value: &Value, path: &str, paths: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) if !matches!(path, "evidence.counts" | "evidence.scores") => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(value, &path, paths);
            }
        }
        _ => {
            paths.insert(path.to_owned());
        }
    }
}

fn assert_columns_are_the_fields<R: Columns>(json: &str) {
    let mut expected = BTreeSet::new();
    leaves(&serde_json::from_str(json).expect("JSON"), "", &mut expected);
    let columns: BTreeSet<String> = R::COLUMNS.iter().map(|column| column.name.to_owned()).collect();
    assert_eq!(columns.len(), R::COLUMNS.len(), "a column is there twice");
    assert_eq!(columns, expected);
}

#[test]
fn the_columns_of_csv_are_the_fields_of_json() {
    assert_columns_are_the_fields::<FlowRecord>(samples::FLOW);
    assert_columns_are_the_fields::<Observation>(samples::OBSERVATION);
    assert_columns_are_the_fields::<FindingChange>(samples::FINDING);
}

fn csv<R: Columns>(records: &[R]) -> String {
    let out = Shared::default();
    let mut writer = CsvWriter::new::<R>(out.clone()).expect("a header");
    for record in records {
        writer.write(record).expect("written");
    }
    RecordWriter::<R>::finish(&mut writer).expect("finished");
    out.text()
}

#[test]
fn a_flow_in_csv_is_one_line_in_the_order_of_the_header() {
    let mut bare = samples::flow();
    (bare.tunnel, bare.rtt_syn_to_syn_ack, bare.originator.mac) = (None, None, None);
    bare.vlans.clear();
    let text = csv(&[samples::flow(), bare]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0]
            .starts_with("flow_id,community_id,flow_start,start,end,part,end_reason,protocol,originator.ip,")
    );
    assert_eq!(
        lines[1],
        "000102030405060708090a0b0c0d0e0f,1:LQU9qZlK+B5F3KDmev6m5PMibrg=,2026-11-21T08:00:00.123456789Z,\
         2026-11-21T08:00:00.123456789Z,2026-11-21T08:00:02.623457789Z,0,ended,6,\
         10.1.2.3,49152,00:1b:21:3c:4d:5e,6,900,816,500,27,1,62,63,10,2,3,1,2,4,inside,boston-eohhs,eohhs,\
         192.0.2.80,443,00:1b:21:00:00:01,5,1900,1830,1600,26,0,55,55,0,0,4,5,0,0,outside,boston-isp,eotss,\
         SF,ShADadFf,syn,outbound,boston,inside0,100;7,16;17,vxlan,5000,\
         0000000000000000000000000000003e;ffffffffffffffffffffffffffffffff,10000000,200000,exact,1,1,1,32,24"
    );
    assert!(
        lines[2].contains(",10.1.2.3,49152,,6,900") && lines[2].contains(",inside0,,16;17,,,"),
        "{}",
        lines[2]
    );
    let commas = |line: &str| line.matches(',').count();
    assert!(commas(lines[0]) == commas(lines[1]) && commas(lines[0]) == commas(lines[2]));
}

#[test]
fn csv_quotes_what_needs_it_and_defuses_formulas_from_the_network() {
    let seen = csv(&[samples::observation()]);
    assert!(
        seen.contains(",'=cmd|'x',3600,10.1.0.1,10.1.2.1,MSFT 5.0,000100012a,\"4:64:0:1460:64240,7:mss,"),
        "{seen}"
    );
    let found = csv(&[samples::finding()]);
    assert!(found.contains(",\"10.1.2.3 is in use by EOHHS, and by \"\"MassDOT\"\"\","), "{found}");
    assert!(found.contains(",eohhs 00:1b:21:3c:4d:5e,packets=12,two-hosts,score=0.5\n"), "{found}");
}

fn zeek(records: &[FlowRecord]) -> String {
    let out = Shared::default();
    let mut writer = ZeekWriter::new(out.clone());
    for record in records {
        writer.write(record).expect("written");
    }
    writer.finish().expect("finished");
    out.text()
}

/// A flow of its own: an aggregate has no line in a conn.log.
fn connection() -> FlowRecord {
    FlowRecord { aggregate: None, ..samples::flow() }
}

const ZEEK_HEADER: &str = "#separator \\x09
#set_separator\t,
#empty_field\t(empty)
#unset_field\t-
#path\tconn
#open\t2026-11-21-08-00-00
#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tservice\tduration\torig_bytes\tresp_bytes\tconn_state\tlocal_orig\tlocal_resp\tmissed_bytes\thistory\torig_pkts\torig_ip_bytes\tresp_pkts\tresp_ip_bytes\ttunnel_parents\tcommunity_id\tvlan\tinner_vlan
#types\ttime\tstring\taddr\tport\taddr\tport\tenum\tstring\tinterval\tcount\tcount\tstring\tbool\tbool\tcount\tstring\tcount\tcount\tcount\tcount\tset[string]\tstring\tint\tint
";

#[test]
fn a_conn_log_is_as_zeek_writes_it() {
    let mut bare = connection();
    bare.protocol = 58;
    bare.originator.ip = "fe80::1".parse().expect("an address");
    bare.responder.packets = 0;
    bare.originator.packets = 1;
    bare.tunnel_parents.clear();
    bare.vlans.clear();
    bare.history.clear();
    bare.responder.locality = onenet_core::record::Locality::Unknown;
    let text = zeek(&[connection(), bare, samples::flow()]);
    let line_one = "1795248000.123456\tC000SYW7RiJxkEgOGusQGwp\t10.1.2.3\t49152\t192.0.2.80\t443\ttcp\t-\t2.500001\t500\t1600\tSF\tT\tF\t7\tShADadFf\t6\t816\t5\t1830\t\
                    C0000000000000000000010,C7n42DGM5Tflk9n8mt7Fhc7\t1:LQU9qZlK+B5F3KDmev6m5PMibrg=\t100\t7\n";
    let line_two = "fe80::1\t49152\t192.0.2.80\t443\ticmp\t-\t-\t500\t1600\tSF\tT\t-\t7\t-\t1\t816\t0\t1830\t(empty)\t\
                    1:LQU9qZlK+B5F3KDmev6m5PMibrg=\t-\t-\n";
    assert!(text.starts_with(ZEEK_HEADER), "{text}");
    assert!(text.contains(line_one), "{text}");
    assert!(text.contains(line_two), "{text}");
    assert!(text.ends_with("\n#close\t2026-11-21-08-00-02\n"), "{text}");
    assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), 2, "{text}");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert_eq!(line.split('\t').count(), 24, "{line}");
        let uid = line.split('\t').nth(1).expect("a uid");
        assert!(uid.len() == 23 && uid.starts_with('C') && uid.bytes().all(|b| b.is_ascii_alphanumeric()));
        assert!(line.starts_with("1795248000.123456\t"), "{line}");
    }
}

#[test]
fn a_conn_log_has_one_line_for_a_flow_of_many_parts() {
    let whole = connection();
    let mut first = whole.clone();
    first.end_reason = EndReason::Active;
    let mut second = first.clone();
    second.part = 1;
    // The second part knows better who started it.
    let mut last = whole.clone();
    std::mem::swap(&mut last.originator, &mut last.responder);
    (last.part, last.end) = (2, whole.end.plus(60_000_000_000));
    let text = zeek(&[first.clone(), second, last]);
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines.len(), 1, "{text}");
    let fields: Vec<&str> = lines[0].split('\t').collect();
    assert_eq!((fields[2], fields[4], fields[8]), ("192.0.2.80", "10.1.2.3", "62.500001"));
    assert_eq!(fields[9..11], ["4800", "1500"]);
    assert_eq!(fields[14], "21");
    assert_eq!(fields[16..20], ["15", "5490", "18", "2448"]);
    // A flow whose end was never told is written at the end.
    assert_eq!(zeek(&[first]).lines().filter(|line| !line.starts_with('#')).count(), 1);
}

#[test]
fn a_conn_log_of_nothing_still_has_its_header() {
    let text = zeek(&[]);
    assert!(text.contains("#open\t1970-01-01-00-00-00\n#fields\tts\tuid"), "{text}");
    assert!(text.ends_with("#close\t1970-01-01-00-00-00\n"), "{text}");
}

#[test]
fn an_output_that_is_an_input_or_another_output_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let capture = dir.path().join("a.pcap");
    std::fs::write(&capture, "x").expect("a file");
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&capture, &link).expect("a link");
    let inputs = [capture];
    let error = check_distinct(&inputs, &[("--flows", &link)]).expect_err("refused").to_string();
    assert!(error.ends_with("link: is one of the captures to be read"), "{error}");
    let (one, same) = (dir.path().join("one"), dir.path().join("one"));
    let error = check_distinct(&inputs, &[("--flows", &one), ("--findings", &same)]).expect_err("refused");
    assert!(error.to_string().starts_with("--findings and --flows are the same: "), "{error}");
    let null = std::path::Path::new("/dev/null");
    assert_eq!(
        check_distinct(&inputs, &[("--flows", &one), ("--observations", null), ("--findings", null)]),
        Ok(())
    );
}

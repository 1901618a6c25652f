//! Every Ethernet packet of the captures through the kernel program and through core's decode.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use onenet_agent::source::Capture;
use onenet_core::decode::{Content, LinkType};
use onenet_ebpf::{Counters, Hook, HookChoice, Kind, Meter, OddReason, Options, Rates};

use crate::kit::{Sums, add, counters, decoded, drained, meter, of_core, options, run, say};

/// The captures; none, aloud, where they are not there.
fn captures() -> Option<Vec<PathBuf>> {
    let workspace =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above this package");
    let beside = workspace.join("../shared/captures");
    let directory = std::env::var_os("ONENET_CAPTURES").map_or(beside, PathBuf::from);
    if !directory.is_dir() {
        say(&format!("SKIPPED: no captures at {}; nothing was compared", directory.display()));
        return None;
    }
    let entries = directory.read_dir().expect("the captures can be listed");
    let mut captures: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the captures can be listed").path())
        .filter(|path| path.is_file())
        .collect();
    captures.sort();
    Some(captures)
}

/// Hands every Ethernet packet of a capture to `take`; a capture that breaks ends there.
fn for_each(path: &Path, mut take: impl FnMut(&[u8])) {
    let Ok(mut capture) = Capture::open(path) else { return };
    while let Ok(true) = capture.advance() {
        let Some(packet) = capture.packet() else { return };
        if packet.link_type == LinkType::ETHERNET {
            take(packet.data);
        }
    }
}

/// What became of packets, by name.
#[derive(Default)]
struct Table(BTreeMap<String, u64>);

impl Table {
    fn count(&mut self, what: &str) {
        *self.0.entry(what.to_owned()).or_default() += 1;
    }

    fn print(&self, title: &str) {
        let mut text = format!("\n{title}\n");
        for (what, count) in &self.0 {
            text.push_str(&format!("{count:>9}  {what}\n"));
        }
        say(&text);
    }
}

/// Which counter a packet went to, of those that no flow is in.
fn odd_reason(before: &Counters, after: &Counters) -> Option<OddReason> {
    OddReason::ALL
        .into_iter()
        .find(|&reason| after.unparsed(reason).packets > before.unparsed(reason).packets)
}

/// What a packet without a flow is to core. Only what the kernel program does not follow, by design, may have one.
fn judge_odd(frame: &[u8], reason: OddReason, table: &mut Table, failures: &mut Vec<String>) {
    let name = reason.name();
    match (decoded(frame).map(|decoded| decoded.content), reason) {
        (Err(unparsed), _) => {
            table.count(&format!("without a flow in both: {name} here, {unparsed} in core"))
        }
        (Ok(Content::Arp(_)), OddReason::Arp) => table.count("without a flow in both: ARP"),
        (Ok(_), OddReason::NotIp) => {
            table.count(&format!("limit: core follows more headers {}", ether_type(frame)))
        }
        (Ok(_), OddReason::TooDeep) => {
            table.count("limit: core follows more tags, labels or extension headers")
        }
        (Ok(content), _) => failures.push(format!("{name}, but core has {content:?}")),
    }
}

fn ether_type(frame: &[u8]) -> String {
    match frame {
        [_, _, _, _, _, _, _, _, _, _, _, _, high, low, ..] => match u16::from_be_bytes([*high, *low]) {
            ..=1500 => "(802.2)".to_owned(),
            other => format!("({other:#06x})"),
        },
        _ => String::new(),
    }
}

fn compare(expected: &Sums, found: &Sums, capture: &str, failures: &mut Vec<String>) {
    for (key, sum) in expected {
        let other = found.get(key);
        if other != Some(sum) {
            failures.push(format!("{capture}: {key:?}\n   core   {sum:?}\n   kernel {other:?}"));
        }
    }
    for key in found.keys().filter(|key| !expected.contains_key(*key)) {
        failures.push(format!("{capture}: {key:?} only in the kernel"));
    }
}

/// One capture through a hook with nothing punted.
fn through(meter: &mut Meter, hook: Hook, path: &Path, table: &mut Table, failures: &mut Vec<String>) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut expected = Sums::new();
    let mut before = counters(meter);
    for_each(path, |frame| {
        if !run(meter, hook, frame) {
            table.count(if frame.len() < 100 {
                "not run: too short for a test run"
            } else {
                "not run: too long for a test run"
            });
            return;
        }
        let after = counters(meter);
        if after.counted == before.counted + 1 {
            table.count("counted in both, equal by key and sums (unless told below)");
            match decoded(frame).ok().and_then(|decoded| of_core(&decoded, frame.len(), 1)) {
                Some((key, sum)) => add(&mut expected, key, sum),
                None => failures.push(format!("{name}: counted, but core has no flow of {frame:02x?}")),
            }
        } else if let Some(reason) = odd_reason(&before, &after) {
            judge_odd(frame, reason, table, failures);
        } else {
            failures.push(format!("{name}: in no counter: {before:?} {after:?}"));
        }
        before = after;
    });
    compare(&expected, &drained(meter), &name, failures);
}

fn all_through(mut options: Options, hook: Hook) {
    let Some(captures) = captures() else { return };
    options.rates = Rates::NONE;
    (options.max_flows, options.max_flows_v6) = (131_072, 65_536);
    let Some(mut meter) = meter(&options) else { return };
    let (mut table, mut failures) = (Table::default(), Vec::new());
    for path in &captures {
        through(&mut meter, hook, path, &mut table, &mut failures);
    }
    table.print(&format!("captures through the kernel program ({hook:?}), packets:"));
    let all = counters(&meter);
    assert_eq!(all.seen_packets(), all.accounted_packets());
    assert_eq!((all.lost.packets, all.map_full, all.punted_packets()), (0, 0, 0));
    let shown: Vec<&String> = failures.iter().take(20).collect();
    assert!(failures.is_empty(), "{} differences:\n{shown:#?}", failures.len());
}

#[test]
fn captures_count_the_same_as_in_core() {
    all_through(options(), Hook::Ingress);
}

/// As packets do whose headers are not in their first part.
#[test]
fn captures_count_the_same_without_the_short_way() {
    all_through(Options { general_only: true, ..options() }, Hook::Ingress);
}

#[test]
fn captures_count_the_same_by_xdp() {
    all_through(Options { hook: HookChoice::Xdp, ..options() }, Hook::Xdp);
}

#[test]
fn every_packet_is_punted_or_counted_and_punts_are_the_packets_own_bytes() {
    let Some(captures) = captures() else { return };
    let rates = Kind::ALL.into_iter().fold(Rates::NONE, |rates, kind| rates.with(kind, 1_000_000_000));
    let Some(mut meter) = meter(&Options { rates, ..options() }) else { return };
    let snap = usize::from(options().snap);
    let mut table = Table::default();
    let mut counted = 0;
    for path in &captures {
        for_each(path, |frame| {
            if !run(&meter, Hook::Ingress, frame) {
                return;
            }
            let mut kind = None;
            meter.punts(&mut |punt| {
                assert!(kind.is_none(), "punted twice");
                kind = Some(punt.kind);
                assert_eq!(punt.wire_length as usize, frame.len());
                assert_eq!(punt.segments, 1);
                assert_eq!(punt.data, &frame[..frame.len().min(snap)], "{:?}", punt.kind);
            });
            table.count(kind.map_or("counted", Kind::name));
            counted += u64::from(kind.is_none());
        });
        let drained: u64 = drained(&mut meter).values().map(|sum| sum.packets).sum();
        assert_eq!(drained, counted, "{}", path.display());
        counted = 0;
    }
    table.print("captures with punts on, packets:");
    let all = counters(&meter);
    assert_eq!(all.seen_packets(), all.punted_packets() + all.counted);
}

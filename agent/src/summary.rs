//! The summary of `read`: what was in the captures and what became of every packet, as JSON and for people.

use std::{
    borrow::Cow,
    io::{self, Write},
    net::IpAddr,
};

use onenet_core::{
    net::protocol_keyword,
    record::{Change, DropStage, FindingId, Ledger, RuleId, Severity},
    time::{NANOS_PER_SECOND, Timestamp},
};
use serde::Serialize;

use crate::{source::CaptureReport, tally::Tally};

/// Talkers that are told.
const TALKERS: usize = 5;

/// Findings that are listed for people; all are in the JSON.
const LISTED_FINDINGS: usize = 20;

/// The summary; docs/records.md states each field.
#[derive(Debug, Serialize)]
pub(crate) struct Summary<'a> {
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    captures: Vec<CaptureSummary<'a>>,
    ledger: &'a Ledger,
    flows: FlowSummary,
    observations: ObservationSummary,
    findings: Vec<FindingSummary<'a>>,
    talkers: Vec<TalkerSummary>,
    talkers_beyond_limit: u64,
    #[serde(skip)]
    findings_raised: u64,
}

#[derive(Debug, Serialize)]
struct CaptureSummary<'a> {
    name: &'a str,
    format: Option<&'static str>,
    packets: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    file_bytes: Option<u64>,
    dropped_interface: u64,
    dropped_kernel: u64,
    irregular_blocks: u64,
    error: Option<String>,
    error_offset: Option<u64>,
}

#[derive(Debug, Serialize)]
struct FlowSummary {
    total: u64,
    records: u64,
    half: u64,
    estimated: u64,
    tunnelled: u64,
    by_protocol: Vec<ProtocolSummary>,
}

#[derive(Debug, Serialize)]
struct ProtocolSummary {
    protocol: u8,
    name: Cow<'static, str>,
    flows: u64,
    packets: u64,
    ip_bytes: u64,
}

#[derive(Debug, Serialize)]
struct ObservationSummary {
    total: u64,
    addresses: usize,
    addresses_beyond_limit: u64,
}

#[derive(Debug, Serialize)]
struct FindingSummary<'a> {
    finding_id: FindingId,
    rule: RuleId,
    change: Change,
    severity: Severity,
    confidence: u8,
    first_seen: Timestamp,
    last_seen: Timestamp,
    summary: &'a str,
}

#[derive(Debug, Serialize)]
struct TalkerSummary {
    address: IpAddr,
    flows: u64,
    sent_ip_bytes: u64,
    received_ip_bytes: u64,
}

impl<'a> Summary<'a> {
    pub(crate) fn new(reports: &'a [CaptureReport], ledger: &'a Ledger, tally: &'a mut Tally) -> Self {
        tally.settle();
        let tally = &*tally;
        let captures = reports.iter().map(|report| CaptureSummary {
            name: &report.name,
            format: report.format,
            packets: report.packets,
            first: report.first,
            last: report.last,
            file_bytes: report.size,
            dropped_interface: report.drops.interface,
            dropped_kernel: report.drops.kernel,
            irregular_blocks: report.irregular_blocks,
            error: report.error.as_ref().map(|error| error.problem.to_string()),
            error_offset: report.error.as_ref().and_then(|error| error.offset),
        });
        let by_protocol = tally.of_flows.protocols().map(|(protocol, counts)| ProtocolSummary {
            protocol,
            name: protocol_name(protocol),
            flows: counts.flows,
            packets: counts.packets,
            ip_bytes: counts.ip_bytes,
        });
        let findings = tally.findings().into_iter().map(|change| FindingSummary {
            finding_id: change.finding_id,
            rule: change.rule,
            change: change.change,
            severity: change.severity,
            confidence: change.confidence,
            first_seen: change.first_seen,
            last_seen: change.last_seen,
            summary: &change.summary,
        });
        let talkers =
            tally.of_flows.top_talkers(TALKERS).into_iter().map(|(address, counts)| TalkerSummary {
                address,
                flows: counts.flows,
                sent_ip_bytes: counts.sent_ip_bytes,
                received_ip_bytes: counts.received_ip_bytes,
            });
        Self {
            first: reports.iter().filter_map(|report| report.first).min(),
            last: reports.iter().filter_map(|report| report.last).max(),
            captures: captures.collect(),
            ledger,
            flows: FlowSummary {
                total: tally.of_flows.flows,
                records: tally.of_flows.flow_records,
                half: tally.of_flows.half_flows,
                estimated: tally.of_flows.estimated_flows,
                tunnelled: tally.of_flows.tunnelled_flows,
                by_protocol: by_protocol.collect(),
            },
            observations: ObservationSummary {
                total: tally.observations,
                addresses: tally.observed_addresses(),
                addresses_beyond_limit: tally.more_addresses(),
            },
            findings: findings.collect(),
            talkers: talkers.collect(),
            talkers_beyond_limit: tally.of_flows.more_talkers(),
            findings_raised: tally.findings,
        }
    }

    /// The summary for people.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.write_captures(out)?;
        self.write_ledger(out)?;
        self.write_flows(out)?;
        self.write_findings(out)?;
        if !self.talkers.is_empty() {
            writeln!(out, "talkers")?;
        }
        for talker in &self.talkers {
            writeln!(
                out,
                "  {:<39}  sent {:>9}  received {:>9}  {}",
                talker.address,
                bytes(talker.sent_ip_bytes),
                bytes(talker.received_ip_bytes),
                count(talker.flows, "flow")
            )?;
        }
        if self.talkers_beyond_limit > 0 {
            let more = count_of(self.talkers_beyond_limit, "address", "addresses");
            writeln!(out, "  beyond the addresses that are followed about {more} more sent or received")?;
        }
        Ok(())
    }

    fn write_captures(&self, out: &mut dyn Write) -> io::Result<()> {
        let name = match self.captures.as_slice() {
            [only] => only.name.to_owned(),
            several => count(several.len() as u64, "capture"),
        };
        write!(out, "{name}: {}", count(self.ledger.packets, "packet"))?;
        write!(out, ", {} on the wire", bytes(self.ledger.wire_bytes))?;
        if let (Some(first), Some(last)) = (self.first, self.last) {
            write!(out, ", {} to {} ({})", moment(first), moment(last), duration(last.since(first)))?;
        }
        writeln!(out)?;
        for capture in &self.captures {
            if capture.irregular_blocks > 0 {
                let blocks = count(capture.irregular_blocks, "block");
                writeln!(out, "  {}: {blocks} contradict themselves", capture.name)?;
            }
            if let Some(error) = &capture.error {
                let place = capture.error_offset.map_or(String::new(), |at| format!("broken at byte {at}: "));
                writeln!(out, "  {}: {place}{error}", capture.name)?;
                if capture.packets > 0 {
                    let packets = count(capture.packets, "packet");
                    writeln!(out, "  {}: the {packets} before that are counted", capture.name)?;
                }
            }
        }
        Ok(())
    }

    fn write_ledger(&self, out: &mut dyn Write) -> io::Result<()> {
        let ledger = self.ledger;
        writeln!(
            out,
            "ledger    {} packets = {} parsed + {} unparsed{}",
            grouped(ledger.packets),
            grouped(ledger.parsed),
            grouped(ledger.unparsed_total()),
            if ledger.balances() { "" } else { "  DOES NOT BALANCE" }
        )?;
        for (layer, reason, packets) in ledger.unparsed() {
            writeln!(out, "  {:>12} unparsed  {layer}: {reason}", grouped(packets))?;
        }
        if ledger.tunnels_unopened > 0 {
            writeln!(
                out,
                "  {:>12} parsed, but the tunnel inside not opened",
                grouped(ledger.tunnels_unopened)
            )?;
        }
        if ledger.fragments_unassembled > 0 {
            writeln!(
                out,
                "  {:>12} parsed, but fragments of datagrams that never became whole",
                grouped(ledger.fragments_unassembled)
            )?;
        }
        for (layer, reason, packets) in ledger.unopened() {
            writeln!(out, "  {:>12} not opened  {layer}: {reason}", grouped(packets))?;
        }
        if ledger.mirrored > 0 {
            writeln!(
                out,
                "  {:>12} came in the tunnel of a mirror, which was stripped: {}",
                grouped(ledger.mirrored),
                bytes(ledger.mirror_bytes)
            )?;
        }
        let by_mirror = ledger.dropped(DropStage::Mirror);
        if by_mirror > 0 {
            let lost = grouped(by_mirror);
            writeln!(out, "  {lost:>12} lost on the way from a mirror, by the gaps in its numbers")?;
        }
        let by_capture = ledger.dropped_total().saturating_sub(by_mirror);
        if by_capture > 0 {
            let dropped = grouped(by_capture);
            writeln!(out, "  {dropped:>12} lost before they were captured, by the capture's own account")?;
        }
        Ok(())
    }

    fn write_flows(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "flows     {}", grouped(self.flows.total))?;
        let mut protocols: Vec<_> = self.flows.by_protocol.iter().filter(|p| p.flows > 0).collect();
        protocols.sort_by_key(|protocol| (std::cmp::Reverse(protocol.flows), protocol.protocol));
        for (index, protocol) in protocols.iter().enumerate() {
            let lead = if index == 0 { ": " } else { ", " };
            write!(out, "{lead}{} {}", grouped(protocol.flows), protocol.name)?;
        }
        for (number, what) in [
            (self.flows.half, "seen in one direction only"),
            (self.flows.tunnelled, "inside tunnels"),
            (self.flows.estimated, "with estimated counts"),
        ] {
            if number > 0 {
                write!(out, "; {} {what}", grouped(number))?;
            }
        }
        writeln!(out)?;
        if self.observations.total > 0 {
            let addresses = count_of(self.observations.addresses as u64, "address", "addresses");
            write!(out, "in use    {addresses} ({})", count(self.observations.total, "observation"))?;
            if self.observations.addresses_beyond_limit > 0 {
                let more = grouped(self.observations.addresses_beyond_limit);
                write!(out, "; beyond those that are followed about {more} more")?;
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn write_findings(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "findings  {}", grouped(self.findings_raised))?;
        for finding in self.findings.iter().take(LISTED_FINDINGS) {
            writeln!(
                out,
                "  {:8}  {:15}  {}",
                finding.severity.as_str(),
                finding.rule.as_str(),
                printable(finding.summary)
            )?;
        }
        if self.findings.len() > LISTED_FINDINGS {
            let more = grouped((self.findings.len() - LISTED_FINDINGS) as u64);
            writeln!(out, "  … and {more} more: --findings FILE writes them all")?;
        }
        Ok(())
    }
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn count(number: u64, what: &str) -> String {
    count_of(number, what, &format!("{what}s"))
}

fn count_of(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// Bytes to three digits, in decimal units.
fn bytes(number: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut unit = 0;
    let mut divisor = 1_u64;
    while unit + 1 < UNITS.len() && number / divisor >= 1000 {
        divisor = divisor.saturating_mul(1000);
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or("B");
    let rounded = |number: u128| (number + u128::from(divisor) / 2) / u128::from(divisor);
    let (whole, tenths) = (rounded(u128::from(number)), rounded(u128::from(number) * 10));
    if unit == 0 || tenths >= 1000 {
        format!("{whole} {name}")
    } else {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    }
}

/// A time to the second, for people.
fn moment(time: Timestamp) -> String {
    let text = time.to_string();
    text.get(..19).unwrap_or(&text).replace('T', " ")
}

fn duration(nanos: i64) -> String {
    let seconds = nanos / NANOS_PER_SECOND;
    match seconds {
        0..60 => format!("{}.{:03} s", seconds, nanos % NANOS_PER_SECOND / 1_000_000),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Text without what could steer a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The keyword of a protocol; its number where it is a rare one.
fn protocol_name(protocol: u8) -> Cow<'static, str> {
    protocol_keyword(protocol).map_or_else(|| format!("protocol-{protocol}").into(), Cow::from)
}

#[cfg(test)]
mod tests {
    use onenet_core::record::{FlowRecord, Observation};

    use super::*;
    use crate::samples;

    #[test]
    fn numbers_are_written_for_people() {
        for (number, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), expected);
        }
        for (number, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (1_550, "1.6 kB"),
            (99_960, "100 kB"),
            (123_456_789, "123 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(bytes(number), expected);
        }
        for (nanos, expected) in [
            (0, "0.000 s"),
            (1_500_000_000, "1.500 s"),
            (61_000_000_000, "1 min 1 s"),
            (3_660_000_000_000, "1 h 1 min"),
            (90_000_000_000_000, "1 d 1 h"),
        ] {
            assert_eq!(duration(nanos), expected);
        }
    }

    #[test]
    fn a_summary_says_how_many_addresses_are_beyond_the_limit() {
        let ledger = Ledger::default();
        for (limit, more) in [(1, [2, 1]), (2, [1, 0]), (3, [0, 0])] {
            let mut tally = Tally::with_limit(limit);
            let mut flow = FlowRecord { aggregate: None, ..samples::flow() };
            for last in [1, 2, 2, 1] {
                flow.originator.ip = [10, 0, 0, last].into();
                tally.flow(&flow);
                tally.observation(&Observation { address: flow.originator.ip, ..samples::observation() });
            }
            let summary = Summary::new(&[], &ledger, &mut tally);
            let json = serde_json::to_value(&summary).expect("JSON");
            assert_eq!(json["talkers_beyond_limit"], more[0], "{limit}");
            assert_eq!(json["observations"]["addresses_beyond_limit"], more[1], "{limit}");
            let mut text = Vec::new();
            summary.write(&mut text).expect("a vector takes it");
            let text = String::from_utf8(text).expect("text");
            for (more, said) in [
                (
                    more[0] == 2,
                    "  beyond the addresses that are followed about 2 addresses more sent or received\n",
                ),
                (
                    more[0] == 1,
                    "  beyond the addresses that are followed about 1 address more sent or received\n",
                ),
                (more[1] == 1, "(4 observations); beyond those that are followed about 1 more\n"),
                (more[1] == 0, "(4 observations)\n"),
            ] {
                assert_eq!(text.contains(said), more, "{said} {text}");
            }
        }
    }

    #[test]
    fn a_summary_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }
}

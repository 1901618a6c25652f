//! What the templates show: records as the words and numbers that people read.

use onenet_core::{
    record::{FlowSide, ObservationEvidence, Verdict},
    time::NANOS_PER_SECOND,
};

use super::plan::PlanHeldRow;
use crate::{
    api::{SensorView, Window},
    correlate::{Finding, RecordedChange, State},
    findings::owners,
    overlaps::{Grounds, Overlap},
    render::{self, moment},
    search::protocol_name,
    store::{EventKind, SensorState, StoredEvent, StoredFlow, control_inventory::InventoryEntry},
    uses::UsageView,
};

/// What every page has.
pub(super) struct PageHead {
    current: &'static str,
    /// Seconds after which the page is loaded again.
    pub(super) refresh: Option<u32>,
    pub(super) now: String,
    pub(super) version: &'static str,
}

impl PageHead {
    pub(super) fn new(current: &'static str, refresh: Option<u32>) -> Self {
        let now = moment(crate::clock::now());
        Self { current, refresh, now, version: env!("CARGO_PKG_VERSION") }
    }

    #[expect(clippy::unused_self, reason = "templates call it on the page")]
    pub(super) const fn links(&self) -> [(&'static str, &'static str); 7] {
        [
            ("/", "Overview"),
            ("/sensors", "Sensors"),
            ("/findings", "Findings"),
            ("/overlaps", "Overlaps"),
            ("/inventory", "Inventory"),
            ("/flows", "Flows"),
            ("/plan", "Plan"),
        ]
    }

    pub(super) fn is_current(&self, href: &str) -> bool {
        self.current == href
    }
}

/// A number with commas between the thousands.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of bytes by its size.
fn bytes(value: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut whole, mut tenths, mut unit) = (value, 0, 0);
    while whole >= 1024 && unit + 1 < UNITS.len() {
        tenths = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 || whole >= 100 {
        format!("{} {name}", number(whole))
    } else {
        format!("{whole}.{tenths} {name}")
    }
}

/// A length of time by its size.
fn duration(nanos: i64) -> String {
    let seconds = nanos / NANOS_PER_SECOND;
    match seconds {
        ..=0 => format!("{} ms", nanos / 1_000_000),
        1..=119 => format!("{seconds}.{} s", nanos % NANOS_PER_SECOND / 100_000_000),
        120..=7_199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}

/// One part of a ledger's bar, in thousandths.
pub(super) struct BarPart {
    pub(super) name: &'static str,
    pub(super) start: u64,
    pub(super) width: u64,
}

/// Parts of a bar 1,000 wide; whatever is not zero is wide enough to be seen.
pub(super) fn bar(parsed: u64, unparsed: u64, dropped: u64) -> Vec<BarPart> {
    const WIDTH: u64 = 1_000;
    const SEEN: u64 = 6;
    let total = u128::from(parsed) + u128::from(unparsed) + u128::from(dropped);
    if total == 0 {
        return Vec::new();
    }
    let share = |part: u64| u64::try_from(u128::from(part) * u128::from(WIDTH) / total).unwrap_or(WIDTH);
    let seen = |part: u64| if part == 0 { 0 } else { share(part).max(SEEN) };
    let (unparsed, dropped) = (seen(unparsed), seen(dropped));
    let parsed = if parsed == 0 { 0 } else { WIDTH.saturating_sub(unparsed).saturating_sub(dropped) };
    let parts =
        [("parsed", 0, parsed), ("unparsed", parsed, unparsed), ("dropped", parsed + unparsed, dropped)];
    let part = |(name, start, width)| BarPart { name, start, width };
    parts.into_iter().filter(|(_, _, width)| *width > 0).map(part).collect()
}

/// One sensor with its account.
pub(super) struct SensorCard {
    pub(super) name: String,
    pub(super) site: String,
    pub(super) state: &'static str,
    pub(super) last_seen: String,
    pub(super) balanced: bool,
    pub(super) wire: String,
    pub(super) parsed: String,
    pub(super) unparsed: String,
    pub(super) dropped: String,
    pub(super) bar: Vec<BarPart>,
    pub(super) unparsed_by: Vec<(&'static str, &'static str, String)>,
    pub(super) epoch: u64,
    pub(super) sealed: String,
    pub(super) stored: String,
    pub(super) flows_stored: String,
    pub(super) flows_told: String,
    pub(super) lost: String,
    pub(super) lost_why: Option<String>,
    pub(super) plan: PlanHeldRow,
}

impl SensorCard {
    pub(super) fn new(sensor: &SensorView) -> Self {
        let (status, ledger) = (&sensor.status, &sensor.status.ledger);
        let (unparsed, dropped) = (ledger.unparsed_total(), ledger.dropped_total());
        let why = sensor.losses.iter().map(|loss| format!("{} {} ({})", loss.count, loss.what, loss.reason));
        Self {
            name: status.sensor.to_string(),
            site: status.site.to_string(),
            state: match status.state {
                SensorState::Active => "active",
                SensorState::Revoked => "revoked",
            },
            last_seen: status.last_heard.map_or_else(|| "never".to_owned(), moment),
            balanced: ledger.balances(),
            wire: number(ledger.packets.saturating_add(dropped)),
            parsed: number(ledger.parsed),
            unparsed: number(unparsed),
            dropped: number(dropped),
            bar: bar(ledger.parsed, unparsed, dropped),
            unparsed_by: ledger
                .unparsed()
                .map(|(layer, reason, packets)| (layer.as_str(), reason.as_str(), number(packets)))
                .collect(),
            epoch: status.epoch,
            sealed: number(status.sequence),
            stored: number(status.batches),
            flows_stored: number(status.flows),
            flows_told: number(ledger.flow_records),
            lost: number(status.lost),
            plan: PlanHeldRow::new(status),
            lost_why: (!sensor.losses.is_empty()).then(|| render::list(why)),
        }
    }
}

/// One event of a sensor.
pub(super) struct EventRow {
    pub(super) time: String,
    pub(super) kind: String,
    pub(super) alarm: bool,
    pub(super) sensor: String,
    pub(super) message: String,
}

impl EventRow {
    pub(super) fn new(event: &StoredEvent) -> Self {
        let alarms = [EventKind::BadSeal, EventKind::Fork, EventKind::Rollback, EventKind::Poison];
        Self {
            time: moment(event.time),
            kind: event.kind.clone(),
            alarm: alarms.iter().any(|kind| kind.as_str() == event.kind),
            sensor: event.sensor.clone(),
            message: event.message.clone(),
        }
    }
}

/// A secretariat with its contact.
pub(super) struct Owner {
    pub(super) name: String,
    pub(super) contact: Option<String>,
}

fn owners_of(finding: &Finding) -> Vec<Owner> {
    owners(finding).into_iter().map(|(name, contact)| Owner { name, contact }).collect()
}

fn texts<T: ToString>(values: impl IntoIterator<Item = T>) -> Vec<String> {
    values.into_iter().map(|value| value.to_string()).collect()
}

/// One finding in a list.
pub(super) struct FindingRow {
    pub(super) id: String,
    pub(super) severity: &'static str,
    pub(super) closed: bool,
    pub(super) title: &'static str,
    pub(super) rule: &'static str,
    pub(super) summary: String,
    pub(super) owners: Vec<Owner>,
    pub(super) sites: Vec<String>,
    pub(super) last_seen: String,
}

impl FindingRow {
    pub(super) fn new(finding: &Finding) -> Self {
        Self {
            id: finding.finding_id.to_string(),
            severity: finding.severity.as_str(),
            closed: finding.state == State::Closed,
            title: finding.rule.title(),
            rule: finding.rule.as_str(),
            summary: finding.summary.clone(),
            owners: owners_of(finding),
            sites: texts(&finding.sites),
            last_seen: moment(finding.last_seen),
        }
    }
}

/// One overlap in a list.
pub(super) struct OverlapRow {
    pub(super) finding_id: String,
    pub(super) layer: &'static str,
    pub(super) verdict: Option<&'static str>,
    pub(super) two_hosts: bool,
    pub(super) closed: bool,
    pub(super) subject: String,
    pub(super) address_spaces: Vec<String>,
    pub(super) owners: Vec<Owner>,
    pub(super) sites: Vec<String>,
    pub(super) confidence: u8,
    pub(super) last_seen: String,
}

impl OverlapRow {
    pub(super) fn new(overlap: &Overlap) -> Self {
        let contact = |index: usize| overlap.contacts.get(index).filter(|contact| !contact.is_empty());
        let owner = |(index, name): (usize, &onenet_core::net::Name)| Owner {
            name: name.to_string(),
            contact: contact(index).map(|contact| contact.to_string()),
        };
        Self {
            finding_id: overlap.finding_id.to_string(),
            layer: overlap.layer.as_str(),
            verdict: overlap.verdict.map(Verdict::as_str),
            two_hosts: overlap.verdict == Some(Verdict::TwoHosts),
            closed: overlap.state == State::Closed,
            subject: overlap.subject(),
            address_spaces: texts(&overlap.address_spaces),
            owners: overlap.secretariats.iter().enumerate().map(owner).collect(),
            sites: texts(&overlap.sites),
            confidence: overlap.confidence,
            last_seen: moment(overlap.last_seen),
        }
    }
}

/// One use in full.
pub(super) struct UsageRow {
    pub(super) title: String,
    pub(super) facts: Vec<(&'static str, Vec<String>)>,
}

impl UsageRow {
    pub(super) fn new(usage: &UsageView) -> Self {
        Self { title: usage.title(), facts: usage.facts() }
    }
}

/// One term of the likelihood ratio.
pub(super) struct TermRow {
    pub(super) name: String,
    pub(super) bits: String,
    pub(super) two_hosts: bool,
}

/// Why an overlap is what it is.
pub(super) struct GroundsView {
    pub(super) sum: Option<String>,
    pub(super) terms: Vec<TermRow>,
    pub(super) usages: Vec<UsageRow>,
}

impl GroundsView {
    pub(super) fn new(grounds: &Grounds) -> Self {
        let term = |term: &crate::overlaps::TermView| TermRow {
            name: term.name.replace('_', " "),
            bits: format!("{:+.2}", term.bits),
            two_hosts: term.bits > 0.0,
        };
        Self {
            sum: grounds.sum(),
            terms: grounds.terms.iter().map(term).collect(),
            usages: grounds.usages.iter().map(UsageRow::new).collect(),
        }
    }
}

/// One observation inside a finding's evidence.
pub(super) struct ObservationRow {
    pub(super) address: String,
    pub(super) address_space: String,
    pub(super) place: String,
    pub(super) mac: String,
    pub(super) kind: &'static str,
    pub(super) strength: &'static str,
    pub(super) first_seen: String,
    pub(super) last_seen: String,
}

impl ObservationRow {
    fn new(observation: &ObservationEvidence) -> Self {
        let segment = observation.segment.as_ref().map(|segment| format!(", {segment}")).unwrap_or_default();
        Self {
            address: observation.address.to_string(),
            address_space: observation.address_space.to_string(),
            place: format!("{}{segment}", observation.site),
            mac: render::optional(observation.mac),
            kind: observation.kind.as_str(),
            strength: observation.strength.as_str(),
            first_seen: moment(observation.first_seen),
            last_seen: moment(observation.last_seen),
        }
    }
}

/// One finding by itself.
pub(super) struct FindingDetailView {
    pub(super) id: String,
    pub(super) verdict: Option<&'static str>,
    pub(super) two_hosts: bool,
    /// The address that the inventory tells more of.
    pub(super) address: Option<String>,
    pub(super) severity: &'static str,
    pub(super) closed: bool,
    pub(super) confidence: u8,
    pub(super) title: &'static str,
    pub(super) summary: String,
    pub(super) facts: Vec<(&'static str, String)>,
    pub(super) owners: Vec<Owner>,
    pub(super) observations: Vec<ObservationRow>,
    pub(super) counts: Vec<(String, String)>,
    pub(super) flow_ids: Vec<String>,
    /// Where the flows of its source are found.
    pub(super) flows_link: Option<String>,
}

impl FindingDetailView {
    pub(super) fn new(finding: &Finding) -> Self {
        let evidence = &finding.evidence;
        let name = |name: &str| name.replace('_', " ");
        let counts = evidence.counts.iter().map(|(key, &count)| (name(key), number(count)));
        // The terms of a verdict are told by themselves.
        let scores = evidence.scores.iter().filter(|(key, _)| !key.starts_with("bits."));
        let scores = scores.map(|(key, score)| (name(key), format!("{score:.3}")));
        let subject = &finding.subject;
        let about = subject.source.or(subject.target).or(subject.address);
        Self {
            id: finding.finding_id.to_string(),
            verdict: evidence.verdict.map(Verdict::as_str),
            two_hosts: evidence.verdict == Some(Verdict::TwoHosts),
            address: subject.address.map(|address| address.to_string()),
            severity: finding.severity.as_str(),
            closed: finding.state == State::Closed,
            confidence: finding.confidence,
            title: finding.rule.title(),
            summary: finding.summary.clone(),
            facts: facts(finding),
            owners: owners_of(finding),
            observations: evidence.observations.iter().map(ObservationRow::new).collect(),
            counts: counts.chain(scores).collect(),
            flow_ids: texts(&evidence.flow_ids),
            flows_link: about.map(|address| format!("/flows?address={address}")),
        }
    }
}

fn facts(finding: &Finding) -> Vec<(&'static str, String)> {
    let subject = &finding.subject;
    let mut facts = vec![("Rule", format!("{}, version {}", finding.rule, finding.rule_version))];
    let mut add = |name, value: Option<String>| facts.extend(value.map(|value| (name, value)));
    add("Source", subject.source.map(|ip| ip.to_string()));
    add("Target", subject.target.map(|ip| ip.to_string()));
    add("Address", subject.address.map(|ip| ip.to_string()));
    add("Prefix", subject.prefix.map(|prefix| prefix.to_string()));
    add("Port", subject.port.map(|port| port.to_string()));
    add("Protocol", subject.protocol.map(protocol_name));
    let listed = |names: &[onenet_core::net::Name]| (!names.is_empty()).then(|| render::list(names));
    add("Address spaces", listed(&finding.address_spaces));
    add("Sites", listed(&finding.sites));
    add("Told by", listed(&finding.sources));
    add("Interfaces", listed(&finding.interfaces));
    add("ATT&CK", finding.rule.technique().map(str::to_owned));
    add("First seen", Some(moment(finding.first_seen)));
    add("Last seen", Some(moment(finding.last_seen)));
    facts
}

/// One change in a finding's life.
pub(super) struct ChangeRow {
    pub(super) revision: u32,
    pub(super) change: &'static str,
    pub(super) time: String,
    pub(super) recorded: String,
    pub(super) summary: String,
}

impl ChangeRow {
    pub(super) fn new(recorded: &RecordedChange) -> Self {
        Self {
            revision: recorded.finding.revision,
            change: recorded.finding.change.as_str(),
            time: moment(recorded.finding.time),
            recorded: moment(recorded.recorded),
            summary: recorded.finding.summary.clone(),
        }
    }
}

/// One address in the inventory.
pub(super) struct InventoryRow {
    pub(super) address: String,
    pub(super) address_space: String,
    pub(super) segments: String,
    pub(super) sites: String,
    pub(super) macs: String,
    pub(super) hostnames: String,
    pub(super) kinds: String,
    pub(super) strength: &'static str,
    pub(super) standing: &'static str,
    pub(super) secretariat: String,
    pub(super) packets: String,
    pub(super) last_seen: String,
}

impl InventoryRow {
    pub(super) fn new(entry: &InventoryEntry) -> Self {
        Self {
            address: entry.address.to_string(),
            address_space: entry.address_space.to_string(),
            segments: render::list(entry.segments()),
            sites: render::list(entry.sites()),
            macs: render::list(entry.macs().iter().map(ToString::to_string)),
            hostnames: render::list(&entry.hostnames),
            kinds: render::list(entry.kinds().iter().map(|kind| kind.as_str())),
            strength: entry.strength.as_str(),
            standing: entry.standing_word().as_str(),
            secretariat: entry.secretariat.as_deref().unwrap_or_default().to_owned(),
            packets: number(entry.packets),
            last_seen: moment(entry.last_seen),
        }
    }
}

/// One flow.
pub(super) struct FlowRow {
    pub(super) start: String,
    pub(super) duration: String,
    pub(super) originator: String,
    pub(super) originator_owner: Option<String>,
    pub(super) responder: String,
    pub(super) responder_owner: Option<String>,
    pub(super) protocol: String,
    pub(super) state: &'static str,
    pub(super) history: String,
    pub(super) packets: String,
    pub(super) bytes: String,
    pub(super) direction: &'static str,
    pub(super) sensor: String,
}

impl FlowRow {
    pub(super) fn new(flow: &StoredFlow) -> Self {
        let record = &flow.record;
        let (originator, responder) = (&record.originator, &record.responder);
        let has_ports = matches!(record.protocol, 6 | 17 | 33 | 132 | 136);
        let end = |side: &FlowSide| match (has_ports, side.ip.is_ipv6()) {
            (true, true) => format!("[{}]:{}", side.ip, side.port),
            (true, false) => format!("{}:{}", side.ip, side.port),
            (false, _) => side.ip.to_string(),
        };
        let owner = |side: &FlowSide| side.secretariat.as_ref().map(|name| name.to_string());
        Self {
            start: moment(record.start),
            duration: duration(record.end.since(record.start)),
            originator: end(originator),
            originator_owner: owner(originator),
            responder: end(responder),
            responder_owner: owner(responder),
            protocol: protocol_name(record.protocol),
            state: record.conn_state.as_str(),
            history: record.history.clone(),
            packets: format!("{} / {}", number(originator.packets), number(responder.packets)),
            bytes: format!("{} / {}", bytes(originator.ip_bytes), bytes(responder.ip_bytes)),
            direction: record.direction.as_str(),
            sensor: flow.sensor.to_string(),
        }
    }
}

/// One choice of a list.
pub(super) struct Choice {
    pub(super) value: &'static str,
    pub(super) name: &'static str,
    pub(super) selected: bool,
}

/// Links to the rows before and after those shown.
#[derive(Default)]
pub(super) struct Pages {
    pub(super) previous: Option<String>,
    pub(super) next: Option<String>,
    pub(super) shown: String,
}

impl Pages {
    /// The pages around a window; `filters` are the other parameters, already encoded and ending in `&`.
    pub(super) fn new(path: &str, filters: &str, window: Window, rows: usize, next: Option<u32>) -> Self {
        let link = |offset: u32| format!("{path}?{filters}limit={}&offset={offset}", window.limit);
        let previous = (window.offset > 0).then(|| link(window.offset.saturating_sub(window.limit)));
        let first = window.offset.saturating_add(1);
        let last = u64::from(window.offset).saturating_add(rows as u64);
        Self { previous, next: next.map(link), shown: format!("{first}–{last}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1023, 1536, 200 << 20].map(bytes), ["0 B", "1,023 B", "1.5 KiB", "200 MiB"]);
        assert_eq!(
            [5_000_000, 1_500_000_000, 600_000_000_000, i64::MAX].map(duration),
            ["5 ms", "1.5 s", "10 min", "2562047 h"]
        );
    }

    #[test]
    fn a_bar_is_whole_and_shows_the_smallest_part() {
        let widths = |bar: Vec<BarPart>| {
            bar.iter().map(|part| (part.name, part.start, part.width)).collect::<Vec<_>>()
        };
        assert_eq!(widths(bar(1_000_000, 1, 0)), [("parsed", 0, 994), ("unparsed", 994, 6)]);
        assert_eq!(widths(bar(0, 0, 0)), []);
        assert_eq!(widths(bar(u64::MAX, u64::MAX, u64::MAX)).len(), 3);
    }
}

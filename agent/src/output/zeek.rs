//! Flows as a Zeek conn.log (TSV), as zeek-cut and RITA read it. One line per connection: the parts of a long
//! flow are added up and written at its end. `#open` and `#close` are packet time, so that the same capture
//! gives the same file.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use onenet_core::{
    record::{Counting, EndReason, FlowId, FlowRecord, FlowSide, Locality},
    time::{NANOS_PER_SECOND, Timestamp},
};

use super::RecordWriter;

/// Name and Zeek type of each column.
const COLUMNS: [(&str, &str); 24] = [
    ("ts", "time"),
    ("uid", "string"),
    ("id.orig_h", "addr"),
    ("id.orig_p", "port"),
    ("id.resp_h", "addr"),
    ("id.resp_p", "port"),
    ("proto", "enum"),
    ("service", "string"),
    ("duration", "interval"),
    ("orig_bytes", "count"),
    ("resp_bytes", "count"),
    ("conn_state", "string"),
    ("local_orig", "bool"),
    ("local_resp", "bool"),
    ("missed_bytes", "count"),
    ("history", "string"),
    ("orig_pkts", "count"),
    ("orig_ip_bytes", "count"),
    ("resp_pkts", "count"),
    ("resp_ip_bytes", "count"),
    ("tunnel_parents", "set[string]"),
    ("community_id", "string"),
    ("vlan", "int"),
    ("inner_vlan", "int"),
];

/// Writes a conn.log.
pub(super) struct ZeekWriter<W: Write> {
    out: W,
    begun: bool,
    latest: Timestamp,
    /// Flows that have reported a part and go on, as added up so far. Only live flows are here.
    unfinished: HashMap<FlowId, FlowRecord>,
}

impl<W: Write> ZeekWriter<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, begun: false, latest: Timestamp::default(), unfinished: HashMap::new() }
    }

    fn begin(&mut self, opened: Timestamp) -> io::Result<()> {
        if self.begun {
            return Ok(());
        }
        self.begun = true;
        write!(
            self.out,
            "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n#open\t{}\n",
            log_date(opened)
        )?;
        self.out.write_all(b"#fields")?;
        for (name, _) in COLUMNS {
            write!(self.out, "\t{name}")?;
        }
        self.out.write_all(b"\n#types")?;
        for (_, kind) in COLUMNS {
            write!(self.out, "\t{kind}")?;
        }
        self.out.write_all(b"\n")
    }

    fn line(&mut self, flow: &FlowRecord) -> io::Result<()> {
        self.begin(flow.flow_start)?;
        self.latest = self.latest.max(flow.end);
        let (originator, responder) = (&flow.originator, &flow.responder);
        let out = &mut self.out;
        write!(
            out,
            "{}\t{}\t{}\t{}\t{}\t{}\t{}\t-\t",
            seconds(flow.flow_start.as_nanos()),
            Uid(flow.flow_id),
            originator.ip,
            originator.port,
            responder.ip,
            responder.port,
            protocol(flow.protocol),
        )?;
        if originator.packets.saturating_add(responder.packets) > 1 {
            write!(out, "{}", seconds(flow.end.since(flow.flow_start)))?;
        } else {
            out.write_all(b"-")?;
        }
        write!(
            out,
            "\t{}\t{}\t{}\t{}\t{}\t{}\t",
            originator.payload_bytes,
            responder.payload_bytes,
            flow.conn_state,
            locality(originator.locality),
            locality(responder.locality),
            originator.missed_bytes.saturating_add(responder.missed_bytes),
        )?;
        text(out, &flow.history)?;
        write!(
            out,
            "\t{}\t{}\t{}\t{}\t",
            originator.packets, originator.ip_bytes, responder.packets, responder.ip_bytes
        )?;
        if flow.tunnel_parents.is_empty() {
            out.write_all(b"(empty)")?;
        }
        for (index, &parent) in flow.tunnel_parents.iter().enumerate() {
            write!(out, "{}{}", if index > 0 { "," } else { "" }, Uid(parent))?;
        }
        out.write_all(b"\t")?;
        text(out, &flow.community_id)?;
        for index in 0..2 {
            match flow.vlans.get(index) {
                Some(vlan) => write!(out, "\t{vlan}")?,
                None => out.write_all(b"\t-")?,
            }
        }
        out.write_all(b"\n")
    }
}

impl<W: Write> RecordWriter<FlowRecord> for ZeekWriter<W> {
    fn write(&mut self, record: &FlowRecord) -> io::Result<()> {
        if record.aggregate.is_some() {
            // Not a connection; conn.log has no line for it.
            return Ok(());
        }
        if record.end_reason == EndReason::Active {
            match self.unfinished.get_mut(&record.flow_id) {
                Some(sum) => add_part(sum, record),
                None => {
                    self.unfinished.insert(record.flow_id, record.clone());
                }
            }
            return Ok(());
        }
        match self.unfinished.remove(&record.flow_id) {
            Some(mut sum) => {
                add_part(&mut sum, record);
                self.line(&sum)
            }
            None => self.line(record),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        // Flows still unfinished are there only where the engine was not told to end.
        let mut rest: Vec<FlowRecord> = self.unfinished.drain().map(|(_, flow)| flow).collect();
        rest.sort_by_key(|flow| (flow.end, flow.flow_id));
        for flow in &rest {
            self.line(flow)?;
        }
        self.begin(Timestamp::default())?;
        writeln!(self.out, "#close\t{}", log_date(self.latest))?;
        self.out.flush()
    }
}

/// Adds a later part of a flow to the sum of the earlier ones; what is not a count is that of the later part.
fn add_part(sum: &mut FlowRecord, part: &FlowRecord) {
    let mut earlier = std::mem::replace(sum, part.clone());
    // A later part may have turned the direction round.
    let turned =
        (earlier.originator.ip, earlier.originator.port) != (part.originator.ip, part.originator.port);
    if turned {
        std::mem::swap(&mut earlier.originator, &mut earlier.responder);
    }
    add_side(&mut sum.originator, &earlier.originator);
    add_side(&mut sum.responder, &earlier.responder);
    sum.flow_start = sum.flow_start.min(earlier.flow_start);
    sum.start = sum.start.min(earlier.start);
    sum.end = sum.end.max(earlier.end);
    if earlier.counting == Counting::Estimated {
        sum.counting = Counting::Estimated;
    }
}

fn add_side(sum: &mut FlowSide, earlier: &FlowSide) {
    for (counter, more) in [
        (&mut sum.packets, earlier.packets),
        (&mut sum.wire_bytes, earlier.wire_bytes),
        (&mut sum.ip_bytes, earlier.ip_bytes),
        (&mut sum.payload_bytes, earlier.payload_bytes),
        (&mut sum.fragments, earlier.fragments),
        (&mut sum.retransmissions, earlier.retransmissions),
        (&mut sum.missed_bytes, earlier.missed_bytes),
        (&mut sum.zero_windows, earlier.zero_windows),
        (&mut sum.bad_checksums, earlier.bad_checksums),
        (&mut sum.overlapping_fragments, earlier.overlapping_fragments),
    ] {
        *counter = counter.saturating_add(more);
    }
    sum.tcp_flags |= earlier.tcp_flags;
}

/// Zeek's transport_proto. ICMPv6 is icmp there too; what is neither TCP, UDP nor ICMP has no name.
const fn protocol(number: u8) -> &'static str {
    match number {
        6 => "tcp",
        17 => "udp",
        1 | 58 => "icmp",
        _ => "unknown_transport",
    }
}

const fn locality(locality: Locality) -> &'static str {
    match locality {
        Locality::Inside => "T",
        Locality::Outside => "F",
        Locality::Unknown => "-",
    }
}

/// Seconds with six fraction digits.
struct Seconds(i64);

const fn seconds(nanos: i64) -> Seconds {
    Seconds(nanos)
}

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nanos = self.0.unsigned_abs();
        let second = NANOS_PER_SECOND.unsigned_abs();
        write!(f, "{sign}{}.{:06}", nanos / second, nanos % second / 1000)
    }
}

/// A flow id as Zeek writes its uids: `C` and base 62.
struct Uid(FlowId);

impl std::fmt::Display for Uid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        // 62^22 is more than 2^128.
        let mut text = [b'0'; 23];
        text[0] = b'C';
        let mut left = self.0.0;
        for place in text.iter_mut().skip(1).rev() {
            *place =
                usize::try_from(left % 62).ok().and_then(|digit| DIGITS.get(digit)).copied().unwrap_or(b'0');
            left /= 62;
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

/// A date as Zeek writes it in `#open`.
fn log_date(time: Timestamp) -> String {
    let written = time.max(Timestamp::default()).to_string();
    written.get(..19).unwrap_or(&written).replace([':', 'T'], "-")
}

/// A string as Zeek's writer escapes it: control characters, the separators, and what would read as unset or
/// empty.
fn text(out: &mut impl Write, value: &str) -> io::Result<()> {
    if value.is_empty() {
        return out.write_all(b"-");
    }
    let marker = value == "-" || value == "(empty)";
    for (index, byte) in value.bytes().enumerate() {
        if byte < 0x20 || byte == 0x7f || byte == b'\\' || (marker && index == 0) {
            write!(out, "\\x{byte:02x}")?;
        } else {
            out.write_all(&[byte])?;
        }
    }
    Ok(())
}

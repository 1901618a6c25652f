//! Syslog messages as RFC 5424 writes them, and their framing on a TCP stream by octet counting (RFC 6587
//! §3.4.1). Pure: parts in, bytes out.

use onenet_core::{record::Severity, time::Timestamp};

/// Structured-data id of everything that is ours. 32473 is the private enterprise number that RFC 5612 keeps
/// for documentation; a site with its own number changes it here and in the receiver's rules.
pub(crate) const SD_ID: &str = "onenet@32473";

/// Facility of the messages (RFC 5424 table 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facility(u8);

/// Names of facilities that a configuration may use, by their codes.
const FACILITIES: [(&str, u8); 13] = [
    ("user", 1),
    ("daemon", 3),
    ("auth", 4),
    ("authpriv", 10),
    ("audit", 13),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

impl Default for Facility {
    fn default() -> Self {
        Self(16)
    }
}

impl std::str::FromStr for Facility {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        FACILITIES.iter().find(|(name, _)| *name == text).map(|&(_, code)| Self(code)).ok_or_else(|| {
            let names: Vec<&str> = FACILITIES.iter().map(|&(name, _)| name).collect();
            format!("unknown syslog facility {text:?}; expected one of {}", names.join(", "))
        })
    }
}

/// Severity of a message (RFC 5424 table 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Level {
    Critical = 2,
    Error = 3,
    Warning = 4,
    Notice = 5,
    Informational = 6,
}

impl Level {
    /// The level of a finding that is open; what has closed is informational.
    pub(crate) const fn of(severity: Severity, closed: bool) -> Self {
        match (closed, severity) {
            (true, _) => Self::Informational,
            (false, Severity::Critical) => Self::Critical,
            (false, Severity::High) => Self::Error,
            (false, Severity::Medium) => Self::Warning,
            (false, Severity::Low) => Self::Notice,
        }
    }
}

/// What does not differ from message to message.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// Facility.
    pub(crate) facility: Facility,
    /// HOSTNAME of the collector.
    pub(crate) hostname: String,
    /// PROCID of the collector.
    pub(crate) process_id: u32,
}

/// One message.
#[derive(Clone, Debug)]
pub(crate) struct Message<'a> {
    /// How urgent.
    pub(crate) level: Level,
    /// When it happened.
    pub(crate) time: Timestamp,
    /// MSGID: the kind of event.
    pub(crate) message_id: &'static str,
    /// Parameters of the structured data, in order; a name may come twice.
    pub(crate) parameters: &'a [(&'static str, String)],
    /// The text.
    pub(crate) text: &'a str,
}

/// Byte order mark, by which RFC 5424 §6.4 marks a text as UTF-8.
const BOM: &str = "\u{feff}";

impl Message<'_> {
    /// The message, without framing.
    pub(crate) fn format(&self, origin: &Origin) -> String {
        let priority = u16::from(origin.facility.0) * 8 + self.level as u16;
        let mut out = format!(
            "<{priority}>1 {} {} onenet-collector {} {} [{SD_ID}",
            timestamp(self.time),
            header_field(&origin.hostname, 255),
            origin.process_id,
            header_field(self.message_id, 32),
        );
        for (name, value) in self.parameters {
            out.push(' ');
            out.push_str(name);
            out.push_str("=\"");
            push_parameter_value(&mut out, value);
            out.push('"');
        }
        out.push_str("] ");
        if !self.text.is_ascii() {
            out.push_str(BOM);
        }
        out.extend(self.text.chars().map(without_control));
        out
    }
}

/// Frames a message for a TCP stream: its length in octets, a space, the message.
pub(crate) fn frame(message: &str) -> Vec<u8> {
    let mut framed = message.len().to_string().into_bytes();
    framed.push(b' ');
    framed.extend_from_slice(message.as_bytes());
    framed
}

/// RFC 3339 with six fraction digits, the most that RFC 5424 §6.2.3 admits. A year beyond four digits, which a
/// damaged capture can carry, is no RFC 3339 time: NILVALUE.
fn timestamp(time: Timestamp) -> String {
    let text = time.to_string();
    match (text.len(), text.get(..26)) {
        (30, Some(micros)) => format!("{micros}Z"),
        _ => "-".to_owned(),
    }
}

/// A header field: printable ASCII without spaces, at most `limit` octets, `-` where nothing is left.
fn header_field(text: &str, limit: usize) -> String {
    let field: String = text.chars().filter(char::is_ascii_graphic).take(limit).collect();
    if field.is_empty() { "-".to_owned() } else { field }
}

/// RFC 5424 §6.3.3: `"`, `\` and `]` are escaped; control characters have no place in a value.
fn push_parameter_value(out: &mut String, value: &str) {
    for character in value.chars() {
        if matches!(character, '"' | '\\' | ']') {
            out.push('\\');
        }
        out.push(without_control(character));
    }
}

const fn without_control(character: char) -> char {
    if character.is_ascii_control() { ' ' } else { character }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn origin() -> Origin {
        Origin { facility: Facility::default(), hostname: "edge-collector".to_owned(), process_id: 4711 }
    }

    fn message<'a>(parameters: &'a [(&'static str, String)], text: &'a str) -> Message<'a> {
        Message {
            level: Level::Warning,
            time: Timestamp(1_795_251_661_123_456_789),
            message_id: "FINDING",
            parameters,
            text,
        }
    }

    #[test]
    fn a_message_has_the_parts_of_rfc_5424_in_order() {
        let parameters = [("rule", "overlap.address".to_owned()), ("site", "boston".to_owned())];
        assert_eq!(
            message(&parameters, "10.1.1.1 is in use twice").format(&origin()),
            "<132>1 2026-11-21T09:01:01.123456Z edge-collector onenet-collector 4711 FINDING \
             [onenet@32473 rule=\"overlap.address\" site=\"boston\"] 10.1.1.1 is in use twice"
        );
    }

    #[test]
    fn what_would_end_a_value_early_is_escaped() {
        let parameters = [("summary", "a \"b\" [c] \\d\ne".to_owned())];
        let text = message(&parameters, "x\r\n<1>1 forged").format(&origin());
        assert!(text.contains(r#"summary="a \"b\" [c\] \\d e"]"#), "{text}");
        assert!(text.ends_with("] x  <1>1 forged"), "{text}");
    }

    #[test]
    fn a_text_beyond_ascii_is_marked_as_utf_8() {
        let text = message(&[], "Büro").format(&origin());
        assert!(text.ends_with("] \u{feff}Büro"), "{text}");
    }

    #[test]
    fn header_fields_are_printable_and_bounded() {
        let origin = Origin { hostname: "a b\u{e9}\n".repeat(200), ..origin() };
        let text = message(&[], "x").format(&origin);
        assert_eq!(text.split(' ').nth(2).map(str::len), Some(255));
        assert_eq!(header_field("\n é", 10), "-");
    }

    #[test]
    fn a_year_that_rfc_3339_cannot_write_is_nil() {
        assert_eq!(timestamp(Timestamp(0)), "1970-01-01T00:00:00.000000Z");
        assert_eq!(timestamp(Timestamp(i64::MAX)), "2262-04-11T23:47:16.854775Z");
        assert_eq!(timestamp(Timestamp(i64::MIN)), "1677-09-21T00:12:43.145224Z");
    }

    #[test]
    fn the_priority_is_facility_times_eight_plus_severity() {
        for (severity, closed, facility, expected) in [
            (Severity::Critical, false, "local0", 130),
            (Severity::High, false, "local0", 131),
            (Severity::Low, false, "audit", 109),
            (Severity::Critical, true, "local7", 190),
        ] {
            let facility: Facility = facility.parse().expect("a known facility");
            let origin = Origin { facility, ..origin() };
            let text = Message { level: Level::of(severity, closed), ..message(&[], "x") }.format(&origin);
            assert!(text.starts_with(&format!("<{expected}>1 ")), "{text}");
        }
        assert!("local8".parse::<Facility>().expect_err("no such facility").contains("local7"));
    }

    #[test]
    fn a_frame_counts_octets_not_characters() {
        assert_eq!(frame("abc"), b"3 abc");
        assert_eq!(frame("é"), [b"2 ".as_slice(), "é".as_bytes()].concat());
    }

    /// A reader written from the ABNF of RFC 5424, as the receiver would be.
    fn read_value(text: &str) -> Option<(String, &str)> {
        let mut value = String::new();
        let mut characters = text.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => return Some((value, &text[at + 1..])),
                '\\' => value.push(characters.next()?.1),
                ']' => return None,
                other => value.push(other),
            }
        }
        None
    }

    proptest! {
        #[test]
        fn any_value_reads_back_and_nothing_leaks_out_of_it(value in any::<String>()) {
            let parameters = [("v", value.clone())];
            let text = message(&parameters, "end").format(&origin());
            let start = text.find("v=\"").expect("the parameter is there") + 3;
            let (read, rest) = read_value(&text[start..]).expect("the value ends");
            let expected: String = value.chars().map(without_control).collect();
            prop_assert_eq!(read, expected);
            prop_assert_eq!(rest, "] end");
        }
    }
}

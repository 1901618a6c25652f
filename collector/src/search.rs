//! What people type to search by: addresses or prefixes, protocols, moments. The command line, the API and the
//! page read them by the same rules.

use std::{net::IpAddr, str::FromStr};

use ipnet::IpNet;
use onenet_core::{net::protocol_keyword, time::Timestamp};

/// An address or a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Within(pub(crate) IpNet);

impl FromStr for Within {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let net = text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse::<IpNet>());
        net.map(|net| Self(net.trunc()))
            .map_err(|_| format!("{text:?}, expected an address or a prefix such as 10.1.0.0/16"))
    }
}

/// An IP protocol, by its number or by the name that ECS has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protocol(pub(crate) u8);

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named =
            || (0..=u8::MAX).find(|&number| protocol_keyword(number) == Some(&text.to_ascii_lowercase()));
        text.parse()
            .ok()
            .or_else(named)
            .map(Self)
            .ok_or_else(|| format!("{text:?}, expected a protocol such as tcp, icmp or 47"))
    }
}

/// A protocol as people read it.
pub(crate) fn protocol_name(number: u8) -> String {
    protocol_keyword(number).map_or_else(|| number.to_string(), str::to_owned)
}

/// A moment in UTC: RFC 3339, or less of it from the right (`2026-11-21`, `2026-11-21T08:00`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) Timestamp);

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let whole = match text.trim_end_matches('Z').replacen(' ', "T", 1) {
            date if date.len() == 10 => format!("{date}T00:00:00Z"),
            minute if minute.len() == 16 => format!("{minute}:00Z"),
            second => format!("{second}Z"),
        };
        whole
            .parse()
            .map(Self)
            .map_err(|_| format!("{text:?}, expected a time in UTC such as 2026-11-21T08:00 or 2026-11-21"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_prefix_of_one_and_host_bits_do_not_matter() {
        assert_eq!("10.1.2.3".parse(), Ok(Within("10.1.2.3/32".parse().expect("a prefix"))));
        assert_eq!("10.1.2.3/16".parse(), Ok(Within("10.1.0.0/16".parse().expect("a prefix"))));
        assert_eq!("fd00::1".parse(), Ok(Within("fd00::1/128".parse().expect("a prefix"))));
        assert!("10.1".parse::<Within>().expect_err("no address").contains("expected an address"));
    }

    #[test]
    fn a_protocol_has_a_name_or_a_number() {
        assert_eq!(("TCP".parse(), "47".parse()), (Ok(Protocol(6)), Ok(Protocol(47))));
        assert!("256".parse::<Protocol>().is_err());
        assert_eq!((protocol_name(17), protocol_name(200)), ("udp".to_owned(), "200".to_owned()));
    }

    #[test]
    fn a_moment_may_leave_out_what_is_zero() {
        let expected = Ok(Moment("2026-11-21T08:00:00Z".parse().expect("a time")));
        for text in
            ["2026-11-21T08:00:00Z", "2026-11-21T08:00:00.000Z", "2026-11-21 08:00", "2026-11-21T08:00Z"]
        {
            assert_eq!(text.parse(), expected, "{text}");
        }
        assert_eq!("2026-11-21".parse(), Ok(Moment("2026-11-21T00:00:00Z".parse().expect("a time"))));
        assert!("yesterday".parse::<Moment>().is_err());
    }
}

//! Community ID version 1 (corelight/community-id-spec).

use std::net::IpAddr;

use super::{
    block::Block,
    icmp::{ICMP, ICMPV6},
    key::End,
};

/// Writes the Community ID of a flow between two endpoints, in either order, over what `text` held. `one_way` is
/// set for ICMP types without a counterpart: those are not reordered.
pub fn write(text: &mut String, seed: u16, protocol: u8, source: End, destination: End, one_way: bool) {
    let (first, second) =
        if one_way || source <= destination { (source, destination) } else { (destination, source) };
    let mut block = Block::new();
    block.put(seed.to_be_bytes());
    for (ip, _) in [first, second] {
        match ip {
            IpAddr::V4(v4) => block.put(v4.octets()),
            IpAddr::V6(v6) => block.put(v6.octets()),
        }
    }
    block.put([protocol, 0]);
    if has_ports(protocol) {
        block.put(first.1.to_be_bytes());
        block.put(second.1.to_be_bytes());
    }
    text.clear();
    text.push_str(std::str::from_utf8(&in_base64(block.digest())).unwrap_or_default());
}

/// The version, then a digest in base64 (RFC 4648): 26 digits of six bits, one of the last four, and a filler.
fn in_base64([a, b, c, d, e]: [u32; 5]) -> [u8; 30] {
    let (a, b, c, d, e) = (u64::from(a), u64::from(b), u64::from(c), u64::from(d), u64::from(e));
    let digit = |bits: u64| DIGITS[(bits % 64) as usize];
    let four = |bits: u64| [digit(bits >> 18), digit(bits >> 12), digit(bits >> 6), digit(bits)];
    let eight = |bits: u64| {
        let ([a, b, c, d], [e, f, g, h]) = (four(bits >> 24), four(bits));
        [a, b, c, d, e, f, g, h]
    };
    let mut text = *b"1:0000000000000000000000000000";
    // Three times 48 bits, then 16 that are left.
    let (first, second) = (eight(a << 16 | b >> 16), eight((b & 0xffff) << 32 | c));
    let third = eight(d << 16 | e >> 16);
    text[2..10].copy_from_slice(&first);
    text[10..18].copy_from_slice(&second);
    text[18..26].copy_from_slice(&third);
    text[26..].copy_from_slice(&[digit(e >> 10), digit(e >> 4), digit(e << 2), b'=']);
    text
}

/// The digits of base64.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The specification hashes ports of TCP, UDP, SCTP and the two ICMPs.
const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, ICMP | 6 | 17 | ICMPV6 | 132)
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_digest_is_written_in_base64(words: [u32; 5]) {
            let text = in_base64(words);
            let expected = format!("1:{}", STANDARD.encode(words.map(u32::to_be_bytes).as_flattened()));
            prop_assert_eq!(std::str::from_utf8(&text), Ok(expected.as_str()));
        }
    }

    fn id(seed: u16, protocol: u8, source: (&str, u16), destination: (&str, u16), one_way: bool) -> String {
        let end = |(ip, port): (&str, u16)| (ip.parse().expect("an address"), port);
        let mut text = "what was there before".to_owned();
        write(&mut text, seed, protocol, end(source), end(destination), one_way);
        text
    }

    #[test]
    fn published_vectors_are_met_in_either_direction() {
        let vectors = [
            (17, ("192.168.1.52", 54585), ("8.8.8.8", 53), "1:d/FP5EW3wiY1vCndhwleRRKHowQ="),
            (6, ("128.232.110.120", 34855), ("66.35.250.204", 80), "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
            (
                58,
                ("fe80::200:86ff:fe05:80da", 135),
                ("fe80::260:97ff:fe07:69ea", 136),
                "1:dGHyGvjMfljg6Bppwm3bg0LO8TY=",
            ),
        ];
        for (protocol, a, b, expected) in vectors {
            assert_eq!(id(0, protocol, a, b, false), expected);
            assert_eq!(id(0, protocol, b, a, false), expected);
        }
    }

    /// The specification's own baselines: every conversation of its captures, in both directions.
    #[test]
    fn the_baselines_of_the_specification_are_met_with_either_seed() {
        for (seed, name) in [(0, "deflt"), (1, "seed1")] {
            let path = format!(
                "{}/../../shared/captures/expected/community-id-spec.baseline_{name}.json",
                env!("CARGO_MANIFEST_DIR")
            );
            let Ok(text) = std::fs::read_to_string(&path) else {
                eprintln!("skipped: {path} is not there");
                continue;
            };
            let vectors: Vec<serde_json::Value> = serde_json::from_str(&text).expect("a list");
            assert!(!vectors.is_empty());
            for vector in vectors {
                let number =
                    |key: &str| vector[key].as_u64().and_then(|n| u16::try_from(n).ok()).unwrap_or(0);
                let protocol = u8::try_from(number("proto")).expect("a protocol");
                let (source, destination) = (number("sport"), number("dport"));
                let kind = u8::try_from(source).unwrap_or(0);
                let answer = match protocol {
                    ICMP => super::super::icmp::counterpart_v4(kind),
                    _ => super::super::icmp::counterpart_v6(kind),
                };
                let is_icmp = matches!(protocol, ICMP | ICMPV6);
                let one_way = is_icmp && answer.map(u16::from) != Some(destination);
                let ip = |key: &str| vector[key].as_str().expect("an address").to_owned();
                let (saddr, daddr) = (ip("saddr"), ip("daddr"));
                let got = id(seed, protocol, (&saddr, source), (&daddr, destination), one_way);
                assert_eq!(Some(got.as_str()), vector["communityid"].as_str(), "{vector}");
            }
        }
    }

    #[test]
    fn the_seed_counts_and_protocols_without_ports_ignore_them() {
        let (a, b) = (("128.232.110.120", 34855), ("66.35.250.204", 80));
        assert_eq!(id(1, 6, a, b, false), "1:3V71V58M3Ksw/yuFALMcW0LAHvc=");
        assert_eq!(id(0, 46, a, b, false), id(0, 46, (a.0, 0), (b.0, 0), false));
    }
}

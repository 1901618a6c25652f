//! Why tshark and we read a mutated packet differently.

use onenet_core::decode::{ArpOperation, Content, Decoded};

use crate::tshark::Case;

/// The cause of a mismatch, as docs/differences.md ("Mutated packets") states it.
pub(crate) fn cause(case: &Case<'_>) -> Option<&'static str> {
    if case.layers == ["data"] {
        return Some("a link type that this tshark does not read");
    }
    if let Some(cause) = link(case) {
        return Some(cause);
    }
    if let Ok(Decoded { content: Content::Arp(arp), .. }) = case.decoded
        && matches!(arp.operation, ArpOperation::Other(_))
    {
        return Some(
            "ARP with an operation other than request and reply, whose fields tshark names otherwise",
        );
    }
    let ip = case.ip()?;
    let v4 = ip.source.is_ipv4();
    if case.theirs.ends.is_none() {
        if v4 && ip.estimated && ip.ip_bytes < 60 && case.layers.last() == Some(&"ip") {
            return Some("IPv4 total length below the header's: tshark stops");
        }
        if takes_check_sequence(case) {
            return Some(CHECK_SEQUENCE);
        }
        if v4 && ip.payload.is_empty() && case.layers.last() == Some(&"ip") {
            return Some("IPv4 options that are cut: tshark stops");
        }
        if case.layers.contains(&"pppoes") {
            return Some("PPPoE: a length below the packet's: tshark stops");
        }
        return None;
    }
    if case.layers.contains(&"mipv6") {
        return Some("a mobility header that something follows");
    }
    if ["0", "43", "44", "60", "135", "139", "140", "ah"].contains(&case.ours.protocol.as_str()) {
        return Some("an extension header that is cut: we give its number, tshark the one in it");
    }
    if !is_part(case) {
        return None;
    }
    if case.theirs.flags.is_none() && case.ours.flags.is_some() && is_offset_impossible(case) {
        return Some("TCP data offset below 5: tshark stops before the flags");
    }
    if !v4 && ip.estimated && case.theirs.ports.is_none() {
        return Some("IPv6 payload length 0: we go by the frame, as offload needs it");
    }
    if takes_check_sequence(case) {
        return Some(CHECK_SEQUENCE);
    }
    if case.malformed || case.layers.last().is_some_and(|layer| layer.starts_with("ipv6.")) {
        return Some("tshark stops where something is malformed; what it gave before agrees");
    }
    None
}

/// What switches put before a second tag when there was no standard for it.
const OLD_TAGS: [[u8; 2]; 3] = [[0x91, 0x00], [0x92, 0x00], [0x93, 0x00]];
const FAMILY: &str = "loopback: an address family that no system has";
const CHECK_SEQUENCE: &str = "FabricPath, 802.11: tshark takes the last four bytes for the check sequence";

/// Whether the last four bytes are no part of the packet to tshark, and our packet needs them.
fn takes_check_sequence(case: &Case<'_>) -> bool {
    let Some(ip) = case.ip() else { return false };
    let behind = case.data.as_ptr_range().end.addr().wrapping_sub(ip.payload.as_ptr().addr());
    case.layers.iter().any(|layer| matches!(*layer, "cfp" | "wlan")) && (ip.payload.is_empty() || behind < 4)
}

/// Causes in the header of the link.
fn link(case: &Case<'_>) -> Option<&'static str> {
    let unparsed = case.decoded.is_err();
    let byte = |at: usize| case.data.get(at).copied().unwrap_or(0);
    match case.link_type.0 {
        226 => Some("IPNET: tshark needs a hook type that it knows and counts from the end"),
        239 if case.layers.starts_with(&["nflog"]) => {
            Some("NFLOG: a damaged attribute, or a family that the packet contradicts")
        }
        258 if case.layers == ["pktap"] => Some("PKTAP: tshark needs a record type that it knows"),
        192 => Some("PPI: a damaged list of fields, which we pass over by its length"),
        127 if unparsed && byte(0) != 0 => Some("radiotap of a version that there is not"),
        105 | 127 if unparsed => {
            Some("802.11: presence bits, fragment number or type say that there is no packet")
        }
        105 | 127 if case.layers.last() == Some(&"data") => {
            Some("802.11: a first fragment, which tshark keeps for later")
        }
        127 if case.layers == ["radiotap"] => {
            Some("radiotap: damaged fields, which we pass over by their length")
        }
        107 if byte(0) & 1 == 1 || byte(1) & 1 == 0 => {
            Some("frame relay: an address of one, three or four bytes")
        }
        107 if unparsed && case.layers.contains(&"eth") => {
            Some("frame relay: tshark takes an unknown protocol for a frame")
        }
        258 if unparsed && case.layers.contains(&"null") => Some(FAMILY),
        9 | 50 if unparsed && byte(0) == 0xff && byte(1) != 3 => Some("PPP: a control field other than 3"),
        204 if unparsed && byte(1) == 0xff && byte(2) != 3 => Some("PPP: a control field other than 3"),
        0 | 108 if unparsed => Some(FAMILY),
        1 if !unparsed && case.layers.last() == Some(&"data") && OLD_TAGS.contains(&[byte(12), byte(13)]) => {
            Some("a VLAN tag under an ethertype of the time before 802.1ad")
        }
        _ if case.layers.contains(&"pwethheuristic") => Some(
            "MPLS pseudowire: nothing states whether there is a control word, and tshark guesses otherwise",
        ),
        _ if unparsed && (case.layers.contains(&"crtp") || case.layers.contains(&"vjc")) => {
            Some("PPP with compressed headers (RFC 1144, RFC 2508)")
        }
        _ if !unparsed && case.layers.contains(&"mp") => {
            Some("PPP multilink: a first fragment, which tshark keeps for later")
        }
        _ if unparsed && case.layers.contains(&"pppoes") && is_no_session(case.data) => {
            Some("PPPoE: a session packet of another version or with a code")
        }
        _ if unparsed && case.layers.contains(&"llc") && !case.layers.contains(&"wlan") => {
            Some("802.2: IP by one service access point of the two")
        }
        _ => None,
    }
}

/// Whether there is a PPPoE session header that is not of version 1 and type 1 without a code.
fn is_no_session(data: &[u8]) -> bool {
    data.windows(4).any(|bytes| bytes[..2] == [0x88, 0x64] && bytes[2..] != [0x11, 0])
}

/// Whether all that tshark gives is what we give, but less of it.
fn is_part(case: &Case<'_>) -> bool {
    let (ours, theirs) = (case.ours, case.theirs);
    theirs.ends == ours.ends
        && theirs.vlans == ours.vlans
        && (theirs.fragment.is_none() || theirs.fragment == ours.fragment)
        && (theirs.ports.is_none() || theirs.ports == ours.ports)
        && (theirs.flags.is_none() || theirs.flags == ours.flags)
}

/// Whether the TCP header states that it is shorter than it can be: then our payload begins inside the header.
fn is_offset_impossible(case: &Case<'_>) -> bool {
    let Some(ip) = case.ip() else { return false };
    let payload = ip.payload.as_ptr().addr().wrapping_sub(case.data.as_ptr().addr());
    let says = |words: usize| {
        let header = payload.checked_sub(words * 4)?;
        case.data.get(header + 12).map(|byte| usize::from(byte >> 4) == words)
    };
    ip.estimated && (0..5).any(|words| says(words) == Some(true))
}

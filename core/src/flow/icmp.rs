//! ICMP messages as endpoints: the type stands for the sender's port, and the type of the answer for the other.

/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IP protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;

/// The type that answers, or is answered by, this type of ICMP (IANA icmp-parameters); none for messages that
/// have no counterpart.
pub const fn counterpart_v4(kind: u8) -> Option<u8> {
    Some(match kind {
        0 => 8,
        8 => 0,
        9 => 10,
        10 => 9,
        13 => 14,
        14 => 13,
        15 => 16,
        16 => 15,
        17 => 18,
        18 => 17,
        _ => return None,
    })
}

/// The same for ICMPv6 (IANA icmpv6-parameters).
pub const fn counterpart_v6(kind: u8) -> Option<u8> {
    Some(match kind {
        128 => 129,
        129 => 128,
        130 => 131,
        131 => 130,
        133 => 134,
        134 => 133,
        135 => 136,
        136 => 135,
        139 => 140,
        140 => 139,
        144 => 145,
        145 => 144,
        _ => return None,
    })
}

/// Ports of an ICMP packet, sender's first, and whether the flow is one-way: unpaired types have type and code.
/// A protocol in the wrong IP version pairs nothing.
pub fn ports(protocol: u8, v6: bool, kind: u8, code: u8) -> (u16, u16, bool) {
    let counterpart = match (protocol, v6) {
        (ICMP, false) => counterpart_v4(kind),
        (ICMPV6, true) => counterpart_v6(kind),
        _ => None,
    };
    match counterpart {
        Some(other) => (kind.into(), other.into(), false),
        None => (kind.into(), code.into(), true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counterpart_points_back() {
        for kind in 0..=255 {
            for counterpart in [counterpart_v4, counterpart_v6] {
                if let Some(other) = counterpart(kind) {
                    assert_eq!(counterpart(other), Some(kind));
                }
            }
        }
    }

    #[test]
    fn an_echo_is_paired_and_an_error_is_one_way() {
        assert_eq!(ports(ICMP, false, 8, 0), (8, 0, false));
        assert_eq!(ports(ICMP, false, 3, 1), (3, 1, true));
        assert_eq!(ports(ICMPV6, true, 135, 0), (135, 136, false));
        assert_eq!(ports(ICMP, true, 8, 0), (8, 0, true));
    }
}

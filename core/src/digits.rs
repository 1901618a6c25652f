//! Numbers as digits in a place of fixed width. Records carry so many times and identities that writing them by
//! way of format strings would cost more than counting the packets.

const HEX: &[u8; 16] = b"0123456789abcdef";

/// 00 to 99.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let (mut at, mut digits) = (0, [b'0'; 2]);
    while at < 100 {
        pairs[at] = digits;
        digits = if digits[1] == b'9' { [digits[0] + 1, b'0'] } else { [digits[0], digits[1] + 1] };
        at += 1;
    }
    pairs
};

/// The last two decimal digits of a number.
const fn pair(value: u64) -> [u8; 2] {
    PAIRS[(value % 100) as usize]
}

/// Fills a place with the last decimal digits of a number, with zeros in front.
pub(crate) fn decimal(place: &mut [u8], value: u64) {
    let mut left = value;
    let mut pairs = place.rchunks_exact_mut(2);
    for two in pairs.by_ref() {
        two.copy_from_slice(&pair(left));
        left /= 100;
    }
    if let [first] = pairs.into_remainder() {
        let [_, last] = pair(left);
        *first = last;
    }
}

/// The two hexadecimal digits of a byte.
pub(crate) const fn hex(byte: u8) -> [u8; 2] {
    [HEX[(byte >> 4) as usize], HEX[(byte & 0x0f) as usize]]
}

/// Text out of bytes that are digits and separators.
pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_fills_its_place_as_format_strings_do(value in 0..1_000_000_000_u64, byte: u8) {
            for width in 9..12_usize {
                let mut place = vec![0; width];
                decimal(&mut place, value);
                prop_assert_eq!(text(&place), format!("{value:0width$}"));
            }
            let digits = hex(byte);
            prop_assert_eq!(text(&digits), format!("{byte:02x}"));
        }
    }
}

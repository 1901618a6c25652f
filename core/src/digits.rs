//! Numbers as digits in a place of fixed width. Records carry so many numbers, times and identities that writing them
//! by way of format strings would cost more than counting the packets. Eight digits are made at a time, in the bytes
//! of one word.

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

/// `0` in each byte.
const ZEROS: u64 = 0x3030_3030_3030_3030;

/// The last two decimal digits of a number.
pub(crate) const fn pair(value: u32) -> [u8; 2] {
    PAIRS[(value % 100) as usize]
}

/// The values of the last eight decimal digits of a number, the first digit in the lowest byte.
const fn eight_values(value: u32) -> u64 {
    let value = value % 100_000_000;
    // Halves of four digits, then quarters of two, then the digits, each beside the other in a lane of twice its
    // width. A quotient is a product with the reciprocal, which is exact for numbers this small.
    let halves = (value / 10_000) as u64 | ((value % 10_000) as u64) << 32;
    let hundreds = (halves.wrapping_mul(10_486) >> 20) & 0x0000_007f_0000_007f;
    let pairs = hundreds | halves.wrapping_sub(hundreds.wrapping_mul(100)) << 16;
    let tens = (pairs.wrapping_mul(103) >> 10) & 0x000f_000f_000f_000f;
    tens | pairs.wrapping_sub(tens.wrapping_mul(10)) << 8
}

/// The last eight decimal digits of a number, with zeros in front.
pub(crate) const fn eight(value: u32) -> [u8; 8] {
    (eight_values(value) | ZEROS).to_le_bytes()
}

/// A number below 100,000,000 in decimal digits without zeros in front, and how many they are; what is behind them
/// means nothing.
#[inline]
pub const fn short(value: u32) -> ([u8; 8], usize) {
    let values = eight_values(value);
    // Zeros in front, each a byte; of a zero the last digit stays.
    let skipped = (values | 1 << 56).trailing_zeros() / 8;
    (((values | ZEROS) >> (skipped * 8)).to_le_bytes(), 8 - skipped as usize)
}

/// The hexadecimal digits of 32 bits.
#[inline]
pub const fn hex(value: u32) -> [u8; 8] {
    // One nibble in each byte, the first in the lowest.
    let value = value.swap_bytes() as u64;
    let words = (value | value << 16) & 0x0000_ffff_0000_ffff;
    let bytes = (words | words << 8) & 0x00ff_00ff_00ff_00ff;
    let nibbles = (bytes >> 4 | bytes << 8) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 where it is a letter.
    let letters = (nibbles.wrapping_add(0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    nibbles.wrapping_add(ZEROS).wrapping_add(letters.wrapping_mul(39)).to_le_bytes()
}

/// Text out of bytes that are digits and separators.
pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn assert_written(value: u32) {
        assert_eq!(text(&eight(value)), format!("{:08}", value % 100_000_000));
        assert_eq!(text(&hex(value)), format!("{value:08x}"));
        assert_eq!(text(&pair(value)), format!("{:02}", value % 100));
        let (digits, length) = short(value % 100_000_000);
        assert_eq!(text(&digits[..length]), (value % 100_000_000).to_string());
    }

    #[test]
    fn every_four_digits_are_written_as_format_strings_write_them() {
        for value in 0..10_000 {
            assert_written(value);
            assert_written(value * 10_000);
        }
    }

    proptest! {
        #[test]
        fn a_number_is_written_as_format_strings_write_it(value: u32) {
            assert_written(value);
        }
    }
}

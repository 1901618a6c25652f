//! In which hours of the last 32 days an address was active, one bit an hour.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::time::{NANOS_PER_SECOND, Timestamp};

const WORDS: usize = 12;
/// Hours that are remembered.
pub const HOURS: u32 = 768;

/// The bitmap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hours {
    /// The latest hour, since the epoch.
    last: i64,
    /// Bit n of the first word is the n-th hour before it.
    words: [u64; WORDS],
}

/// How two addresses take turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    /// Hours in which both are active.
    pub shared: u32,
    /// Times that the one was active after the other, or both in one hour: 0 or 1 where one follows the other for good.
    pub turns: u32,
}

/// The hour of a moment, since the epoch.
pub(super) const fn hour_of(time: Timestamp) -> i64 {
    time.as_nanos().div_euclid(3_600 * NANOS_PER_SECOND)
}

impl Hours {
    /// Adds the hours of an observation: bit n of `bits` is the n-th hour before that of `last`.
    pub fn add(&mut self, last: Timestamp, bits: u32) {
        let hour = hour_of(last);
        if hour > self.last {
            self.shift(hour.saturating_sub(self.last));
            self.last = hour;
        }
        let age = self.last.saturating_sub(hour);
        for bit in (0..32_i64).filter(|bit| bits >> bit & 1 == 1) {
            self.set(age.saturating_add(bit));
        }
    }

    fn set(&mut self, age: i64) {
        if let Ok(age) = u32::try_from(age)
            && let Some(word) = self.words.get_mut((age / 64) as usize)
        {
            *word |= 1 << (age % 64);
        }
    }

    /// Makes room for so many new hours.
    fn shift(&mut self, by: i64) {
        let old = std::mem::take(&mut self.words);
        let Some(by) = u32::try_from(by).ok().filter(|&by| by < HOURS) else { return };
        let (whole, rest) = ((by / 64) as usize, by % 64);
        for (at, word) in self.words.iter_mut().enumerate().skip(whole) {
            let low = old.get(at - whole).copied().unwrap_or(0);
            let carried = if rest > 0 && at > whole {
                old.get(at - whole - 1).copied().unwrap_or(0) >> (64 - rest)
            } else {
                0
            };
            *word = low << rest | carried;
        }
    }

    /// Whether it was active in this hour since the epoch.
    fn is_active(&self, hour: i64) -> bool {
        u32::try_from(self.last.saturating_sub(hour)).is_ok_and(|age| {
            self.words.get((age / 64) as usize).is_some_and(|word| word >> (age % 64) & 1 == 1)
        })
    }

    /// Active hours.
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// How it takes turns with another.
    pub fn turns(&self, other: &Self) -> Turns {
        #[derive(PartialEq)]
        enum Latest {
            Neither,
            One(bool),
            Both,
        }
        let end = self.last.max(other.last);
        let (mut latest, mut found) = (Latest::Neither, Turns::default());
        for hour in end.saturating_sub(HOURS.into())..=end {
            match (self.is_active(hour), other.is_active(hour)) {
                (false, false) => {}
                (true, true) => {
                    found.shared += 1;
                    found.turns += 1;
                    latest = Latest::Both;
                }
                (one, _) => {
                    if latest == Latest::One(!one) {
                        found.turns += 1;
                    }
                    latest = Latest::One(one);
                }
            }
        }
        found
    }
}

/// The latest hour, then the bits from the oldest to it in hexadecimal: `2026-10-06T08:00:00.000000000Z 1f`.
impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", Timestamp(self.last.saturating_mul(3_600 * NANOS_PER_SECOND)))?;
        let highest = self.words.iter().rposition(|&word| word != 0).unwrap_or(0);
        for (at, word) in self.words.iter().enumerate().take(highest + 1).rev() {
            if at == highest { write!(f, "{word:x}")? } else { write!(f, "{word:016x}")? }
        }
        Ok(())
    }
}

impl Serialize for Hours {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let wrong = || de::Error::custom("expected an hour and its bits in hexadecimal");
        let (time, bits) = text.split_once(' ').ok_or_else(wrong)?;
        let time: Timestamp = time.parse().map_err(de::Error::custom)?;
        let mut hours = Self { last: hour_of(time), words: [0; WORDS] };
        let digits = bits.as_bytes();
        for (word, digits) in hours.words.iter_mut().zip(digits.rchunks(16)) {
            let digits = std::str::from_utf8(digits).map_err(de::Error::custom)?;
            *word = u64::from_str_radix(digits, 16).map_err(de::Error::custom)?;
        }
        if digits.len() > 16 * WORDS { Err(wrong()) } else { Ok(hours) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp(hour * 3_600 * NANOS_PER_SECOND)
    }

    fn hours(active: &[i64]) -> Hours {
        let mut hours = Hours::default();
        for &hour in active {
            hours.add(at(hour), 1);
        }
        hours
    }

    #[test]
    fn one_after_the_other_is_one_turn_and_back_and_forth_are_more() {
        for (one, other, shared, turns) in [
            (&[100, 101][..], &[110, 111][..], 0, 1),
            (&[100, 110], &[110, 111], 1, 1),
            (&[100, 120], &[110], 0, 2),
            (&[100, 101, 102], &[100, 101, 102], 3, 3),
            (&[100], &[], 0, 0),
        ] {
            let (one, other) = (hours(one), hours(other));
            assert_eq!(one.turns(&other), Turns { shared, turns });
            assert_eq!(other.turns(&one), Turns { shared, turns });
        }
    }

    #[test]
    fn the_bits_of_an_observation_are_the_hours_before_its_last() {
        let mut hours = Hours::default();
        hours.add(at(500_000), 0b101);
        assert_eq!(hours, self::hours(&[499_998, 500_000]));
        assert_eq!(hours.to_string(), "2027-01-15T08:00:00.000000000Z 5");
    }

    proptest! {
        #[test]
        fn it_is_the_set_of_hours_within_its_reach(active in prop::collection::vec(490_000_i64..492_000, 1..40)) {
            let hours = hours(&active);
            let last = active.iter().max().unwrap();
            for hour in 489_000..492_100 {
                let expected = active.contains(&hour) && last - hour < i64::from(HOURS);
                prop_assert_eq!(hours.is_active(hour), expected, "{}", hour);
            }
            let text = serde_json::to_string(&hours).unwrap();
            prop_assert_eq!(serde_json::from_str::<Hours>(&text).unwrap(), hours);
        }
    }
}

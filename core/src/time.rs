//! Packet time: a moment as nanoseconds since the Unix epoch, and how it is written.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::digits;

/// Nanoseconds in one second.
pub const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// A moment in packet time: nanoseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
///
/// It reads and writes as RFC 3339 in UTC with nine fraction digits. Arithmetic saturates, because capture
/// files can carry any 64 bits as a time stamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// From whole seconds and nanoseconds, saturating.
    #[inline]
    pub const fn from_parts(seconds: i64, nanos: i64) -> Self {
        Self(seconds.saturating_mul(NANOS_PER_SECOND).saturating_add(nanos))
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Seconds since the epoch, rounded down, and the nanoseconds after them.
    pub const fn parts(self) -> (i64, i64) {
        (self.0.div_euclid(NANOS_PER_SECOND), self.0.rem_euclid(NANOS_PER_SECOND))
    }

    /// Nanoseconds from `earlier` to here; zero where `earlier` is later (captures run backwards at times).
    pub const fn since(self, earlier: Self) -> i64 {
        let difference = self.0.saturating_sub(earlier.0);
        if difference < 0 { 0 } else { difference }
    }

    /// This moment plus `nanos`, saturating.
    pub const fn plus(self, nanos: i64) -> Self {
        Self(self.0.saturating_add(nanos))
    }
}

/// Days since the epoch to (year, month, day) of the proleptic Gregorian calendar.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    // Years are counted from 1 March of year 0, so that the leap day is the last day of a year.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// (year, month, day) to days since the epoch.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_index = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_index + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Length of a moment as text: the years that 64 bits of nanoseconds reach have four digits.
const TEXT: usize = 30;

impl Timestamp {
    fn to_text(self) -> [u8; TEXT] {
        let (seconds, nanos) = self.parts();
        let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
        let second = seconds.rem_euclid(86_400);
        let mut text = *b"0000-00-00T00:00:00.000000000Z";
        let parts = [
            (0..4, year),
            (5..7, month),
            (8..10, day),
            (11..13, second / 3_600),
            (14..16, second / 60 % 60),
            (17..19, second % 60),
            (20..29, nanos),
        ];
        for (place, value) in parts {
            if let Some(place) = text.get_mut(place) {
                digits::decimal(place, value.unsigned_abs());
            }
        }
        text
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(digits::text(&self.to_text()))
    }
}

/// What was expected where a text is not a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a time as RFC 3339 in UTC, such as 2026-11-21T08:00:00Z")]
pub struct InvalidTimestamp;

impl std::str::FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        let number = |range: std::ops::Range<usize>| -> Result<i64, InvalidTimestamp> {
            let digits = text.get(range).ok_or(InvalidTimestamp)?;
            if !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(InvalidTimestamp);
            }
            digits.parse().map_err(|_| InvalidTimestamp)
        };
        let bytes = text.as_bytes();
        let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
        if separators.iter().any(|&(at, byte)| bytes.get(at) != Some(&byte)) {
            return Err(InvalidTimestamp);
        }
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
        let in_range = (1..=12).contains(&month) && (1..=31).contains(&day);
        if !in_range || hour > 23 || minute > 59 || second > 60 {
            return Err(InvalidTimestamp);
        }
        let mut nanos = 0;
        let mut at = 19;
        if bytes.get(at) == Some(&b'.') {
            at += 1;
            let mut unit = NANOS_PER_SECOND / 10;
            while let Some(digit) = bytes.get(at).filter(|b| b.is_ascii_digit()) {
                nanos += i64::from(digit - b'0') * unit;
                unit /= 10;
                at += 1;
            }
        }
        if text.get(at..) != Some("Z") {
            return Err(InvalidTimestamp);
        }
        let days = days_from_civil(year, month, day);
        Ok(Self::from_parts(days * 86_400 + hour * 3_600 + minute * 60 + second, nanos))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(digits::text(&self.to_text()))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_moments_are_written_as_rfc_3339() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z"),
            (1_795_251_661_123_456_789, "2026-11-21T09:01:01.123456789Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (i64::MAX, "2262-04-11T23:47:16.854775807Z"),
        ] {
            assert_eq!(Timestamp(nanos).to_string(), text);
            assert_eq!(text.parse(), Ok(Timestamp(nanos)));
        }
    }

    #[test]
    fn a_text_that_is_no_time_is_refused() {
        for text in
            ["", "2026-11-21", "2026-13-01T00:00:00Z", "2026-11-21T00:00:00", "2026-11-21T00:00:00+01:00"]
        {
            assert_eq!(text.parse::<Timestamp>(), Err(InvalidTimestamp), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(nanos in 0..i64::MAX) {
            let written = Timestamp(nanos).to_string();
            prop_assert_eq!(written.parse(), Ok(Timestamp(nanos)));
        }
    }
}

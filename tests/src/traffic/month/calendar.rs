//! The month's days and hours: thirty days from a Monday on, five of seven worked.

use super::super::{
    day::{HOUR, OPENING},
    random::Random,
};

/// One day in nanoseconds.
pub(super) const DAY: i64 = 24 * HOUR;
/// Days of the month.
pub(super) const DAYS: i64 = 30;
/// 2026-10-05T00:00:00Z, the Monday before the generator's working day.
pub(super) const START: i64 = OPENING - 8 * HOUR - DAY;
/// Its end: nothing starts after it.
pub(super) const END: i64 = START + DAYS * DAY;
/// The hours that are worked, 08:00 to 18:00 in Boston.
const OPEN: (i64, i64) = (12 * HOUR, 22 * HOUR);

/// An hour of a day, both counted from 0.
pub(super) const fn at(day: i64, hour: i64) -> i64 {
    START + day * DAY + hour * HOUR
}

/// Whether offices are open.
pub(super) const fn is_worked(day: i64) -> bool {
    day % 7 < 5
}

/// A worked day from `from` on.
pub(super) fn worked_from(from: i64) -> i64 {
    (from..from + 7).find(|day| is_worked(*day)).unwrap_or(from)
}

/// A random moment of a day's open hours.
pub(super) fn moment(random: &mut Random, day: i64) -> i64 {
    at(day, 0) + random.between(OPEN.0, OPEN.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_begins_on_monday() {
        assert_eq!((0..7).filter(|day| is_worked(*day)).count(), 5);
        assert_eq!((worked_from(4), worked_from(5), worked_from(6)), (4, 7, 7));
        // Thursday the first of January 1970 was day 0, so day 4 was a Monday.
        assert_eq!((START / DAY - 4) % 7, 0);
    }
}

//! The collector's clock, read in one place.

use std::time::{SystemTime, UNIX_EPOCH};

use onenet_core::time::Timestamp;

/// This moment, by the system's clock.
pub fn now() -> Timestamp {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    Timestamp(i64::try_from(nanos).unwrap_or(i64::MAX))
}

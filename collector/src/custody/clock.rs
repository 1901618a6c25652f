//! Whether a sensor's clock is right, from the times in its headers and the times at which its batches came. Pure.
//!
//! A batch may come late for two reasons that look alike: it waited in the spool, or the sensor's clock is behind. So a
//! clock is called behind only while the sensor is live, that is while batches come as fast as they are sealed by the
//! monotonic clock, which nobody sets. A time of sealing in the future is wrong whatever the delay, and so is wall time
//! that steps while monotonic time and the collector's clock do not.

use onenet_core::time::{NANOS_PER_SECOND, Timestamp};

use super::between;

/// Monotonic time over which it is looked whether a sensor is live.
const WINDOW: i64 = 10 * NANOS_PER_SECOND;

/// By how much arrival may differ from sealing over a window: batches are grouped and travel.
const SLACK: i64 = 3 * NANOS_PER_SECOND;

/// The clocks of a sensor after a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Clock {
    /// Collector's clock at the commit.
    pub(super) received_at: Timestamp,
    /// Sensor's clock at the seal.
    pub(super) wall_time: Timestamp,
    /// Sensor's monotonic clock at the seal, nanoseconds.
    pub(super) monotonic_time: i64,
    /// Where the present window began, by the collector's clock.
    pub(super) anchor_received: Timestamp,
    /// The same by the sensor's monotonic clock.
    pub(super) anchor_monotonic: i64,
    /// Whether batches came as fast as they were sealed over the last whole window.
    pub(super) live: bool,
}

/// What is wrong with a clock, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skew {
    /// It is ahead of the collector's by at least this.
    Ahead(i64),
    /// It is behind the collector's by about this.
    Behind(i64),
    /// It was set by this much, back where negative.
    Stepped(i64),
}

impl Skew {
    /// How much, without its direction.
    pub(super) const fn size(self) -> i64 {
        match self {
            Self::Ahead(nanos) | Self::Behind(nanos) | Self::Stepped(nanos) => nanos.saturating_abs(),
        }
    }
}

/// What a batch says of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is wrong.
    Wrong(Skew),
    /// It is right, beyond doubt.
    Right,
    /// It cannot be told from this batch.
    Unknown,
}

impl Clock {
    /// The first of a sensor that is known, or of a run.
    pub(super) const fn begin(received_at: Timestamp, wall_time: Timestamp, monotonic_time: i64) -> Self {
        Self {
            received_at,
            wall_time,
            monotonic_time,
            anchor_received: received_at,
            anchor_monotonic: monotonic_time,
            live: false,
        }
    }

    /// Moves on to the next batch of the same run.
    pub(super) fn advance(self, next: Self) -> Self {
        let (received, monotonic) = (
            between(self.anchor_received, next.received_at),
            next.monotonic_time.saturating_sub(self.anchor_monotonic),
        );
        if monotonic < WINDOW {
            let Self { anchor_received, anchor_monotonic, live, .. } = self;
            return Self { anchor_received, anchor_monotonic, live, ..next };
        }
        let apart = received.saturating_sub(monotonic).saturating_abs();
        Self { live: apart <= SLACK.max(monotonic / 10), ..next }
    }
}

/// Judges a batch; `before` is the clock after the batch before it of the same run.
pub(super) fn judge(before: Option<&Clock>, now: &Clock, allowed: i64) -> Verdict {
    let ahead = between(now.received_at, now.wall_time);
    if ahead > allowed {
        return Verdict::Wrong(Skew::Ahead(ahead));
    }
    if let Some(before) = before {
        let wall = between(before.wall_time, now.wall_time);
        let monotonic = now.monotonic_time.saturating_sub(before.monotonic_time);
        let arrival = between(before.received_at, now.received_at);
        let (step, unexplained) = (wall.saturating_sub(monotonic), wall.saturating_sub(arrival));
        if step.saturating_abs() > allowed && unexplained.saturating_abs() > allowed {
            return Verdict::Wrong(Skew::Stepped(step));
        }
    }
    // What the clock has to come back to before it counts as right: it would be called wrong and right in turn else.
    let settled = allowed / 4 * 3;
    match (now.live, ahead.saturating_neg()) {
        (true, behind) if behind > allowed => Verdict::Wrong(Skew::Behind(behind)),
        (_, behind) if behind.saturating_abs() <= settled => Verdict::Right,
        _ => Verdict::Unknown,
    }
}

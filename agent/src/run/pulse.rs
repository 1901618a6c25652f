//! Whether a thread gets on with its work: it counts its turns, and who watches sees whether the count goes up. The
//! service manager is told only then, so that it starts an agent anew whose threads hang although its process lives.

use std::time::{Duration, Instant};

/// What was last seen of a thread.
pub(super) struct Pulse {
    turns: u64,
    changed: Instant,
}

impl Pulse {
    /// A thread that has been seen at work just now.
    pub(super) const fn new(now: Instant) -> Self {
        Self { turns: 0, changed: now }
    }

    /// Whether the count has gone up within the time before now.
    pub(super) fn beats(&mut self, turns: u64, now: Instant, within: Duration) -> bool {
        if turns != self.turns {
            *self = Self { turns, changed: now };
        }
        now.saturating_duration_since(self.changed) < within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_alive_as_long_as_its_count_goes_up() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let within = Duration::from_secs(30);
        let mut pulse = Pulse::new(start);
        assert!(pulse.beats(0, after(15), within), "it may take its time");
        assert!(!pulse.beats(0, after(30), within), "but not for ever");
        assert!(pulse.beats(7, after(45), within), "a count that went up is a sign of life");
        assert!(pulse.beats(7, after(60), within));
        assert!(!pulse.beats(7, after(75), within));
    }
}

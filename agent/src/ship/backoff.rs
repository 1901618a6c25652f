//! How long to wait before the next attempt: exponential with full jitter, so that the sensors of a collector
//! that comes back do not all come at once.

use std::time::Duration;

/// Bounds of the waiting time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    attempts: u32,
}

impl Backoff {
    /// Waits up to `first`, then up to twice as long each time, never longer than `most`.
    pub(crate) const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, attempts: 0 }
    }

    /// There was progress: the next wait is short again.
    pub(crate) const fn reset(&mut self) {
        self.attempts = 0;
    }

    /// The longest that the next wait can be.
    fn ceiling(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.attempts).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.most)
    }

    /// The next wait; `random` is from 0 to 1.
    pub(crate) fn next(&mut self, random: f64) -> Duration {
        let wait = self.ceiling().mul_f64(random.clamp(0.0, 1.0));
        self.attempts = self.attempts.saturating_add(1);
        wait
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_millis(200), Duration::from_secs(30))
    }

    #[test]
    fn the_wait_doubles_up_to_its_cap_and_starts_again_after_progress() {
        let mut backoff = backoff();
        let waits: Vec<u128> = (0..10).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
        backoff.reset();
        assert_eq!(backoff.next(1.0).as_millis(), 200);
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_the_cap(attempts in 0..200_u32, random in 0.0..=1.0_f64) {
            let mut backoff = backoff();
            for _ in 0..attempts {
                backoff.next(random);
            }
            prop_assert!(backoff.next(random) <= Duration::from_secs(30));
        }
    }
}

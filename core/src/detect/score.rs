//! The beacon score of RITA version 5 (Active Countermeasures), recomputed from its published definition: the mean
//! of four scores between 0 and 1, to three decimals.
//!
//! - `timing`: how even the intervals between connections are. `sizes`: how even the bytes sent are. Each is the
//!   mean of 1 − |Bowley skewness| and (median − MAD) / median, where the skewness is 0 if Q3 − Q1 < 10 or the
//!   median equals a quartile, and the second term is 1 (timing) or 0 (sizes) for a median below 1. Intervals are
//!   whole seconds; intervals of zero are left out.
//! - `histogram`: how even the connections are spread over 24 bins of the window: the greater of 1 − σ/μ and, with
//!   at least 11 bins in use, the share of the two most frequent bin heights among all bins in use but one; heights
//!   count as equal within 5 % of the greatest.
//! - `duration`: with at least 6 bins in use, the greater of the share of the window between first and last
//!   connection and longest run of bins in use (the window taken as a circle) / 12.
//!
//! Quartiles are medians of the lower and the upper half, the middle value in neither.

/// Bins of the histogram.
const BINS: usize = 24;
/// Bins in use before duration counts.
const MIN_BINS_FOR_DURATION: usize = 6;
/// Bins in use before two heights may explain the histogram.
const MIN_BINS_FOR_HEIGHTS: usize = 11;
/// Run of bins that is taken as constant.
const IDEAL_RUN: f64 = 12.0;
/// Heights within this share of the greatest count as one.
const HEIGHT_SHARE: f64 = 0.05;
/// Seconds or bytes between the quartiles below which a distribution has no skewness worth the name.
const MIN_QUARTILE_RANGE: f64 = 10.0;

/// The four scores of a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Scores {
    pub(crate) timing: f64,
    pub(crate) sizes: f64,
    pub(crate) histogram: f64,
    pub(crate) duration: f64,
    /// Median interval in seconds.
    pub(crate) interval: f64,
}

impl Scores {
    /// Scores of connections at these whole seconds with these numbers of bytes, within the window `from..to` in
    /// seconds. None with fewer than three intervals that are not zero, or an empty window.
    pub(crate) fn of(mut times: Vec<u32>, sizes: &[u64], (from, to): (u32, u32)) -> Option<Self> {
        times.sort_unstable();
        let mut intervals: Vec<f64> = times
            .iter()
            .zip(times.iter().skip(1))
            .map(|(earlier, later)| f64::from(later.saturating_sub(*earlier)))
            .filter(|&interval| interval > 0.0)
            .collect();
        let mut sizes: Vec<f64> = sizes.iter().map(|&size| size as f64).collect();
        if intervals.len() < 3 || sizes.len() < 3 || to <= from {
            return None;
        }
        intervals.sort_by(f64::total_cmp);
        sizes.sort_by(f64::total_cmp);
        let bins = histogram(&times, from, to);
        Some(Self {
            timing: evenness(&intervals, 1.0),
            sizes: evenness(&sizes, 0.0),
            histogram: f64::max(flatness(&bins), two_heights(&bins)),
            duration: duration(&bins, &times, from, to),
            interval: median(&intervals),
        })
    }

    /// The score.
    pub(crate) fn total(&self) -> f64 {
        thousandths(0.25 * (self.timing + self.sizes + self.histogram + self.duration))
    }
}

fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Median of sorted values; zero of none.
fn median(sorted: &[f64]) -> f64 {
    let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
    let half = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { (at(half.wrapping_sub(1)) + at(half)) / 2.0 } else { at(half) }
}

/// How even sorted values are.
fn evenness(sorted: &[f64], of_small: f64) -> f64 {
    let half = sorted.len() / 2;
    let lower = median(sorted.get(..half).unwrap_or(&[]));
    let upper = median(sorted.get(sorted.len() - half..).unwrap_or(&[]));
    let middle = median(sorted);
    let range = upper - lower;
    let skewed = range >= MIN_QUARTILE_RANGE && middle != lower && middle != upper;
    let skewness = if skewed { (lower + upper - 2.0 * middle) / range } else { 0.0 };
    let mut deviations: Vec<f64> = sorted.iter().map(|value| (value - middle).abs()).collect();
    deviations.sort_by(f64::total_cmp);
    let spread = if middle < 1.0 { of_small } else { ((middle - median(&deviations)) / middle).max(0.0) };
    thousandths((1.0 - skewness.abs() + spread) / 2.0)
}

/// Connections in each bin; those outside of the window count to its first or last bin.
fn histogram(times: &[u32], from: u32, to: u32) -> [u32; BINS] {
    let mut bins = [0u32; BINS];
    let span = u64::from(to.saturating_sub(from)).max(1);
    for &time in times {
        let at = u64::from(time.saturating_sub(from)).saturating_mul(BINS as u64) / span;
        let at = usize::try_from(at).unwrap_or(BINS).min(BINS - 1);
        if let Some(bin) = bins.get_mut(at) {
            *bin = bin.saturating_add(1);
        }
    }
    bins
}

/// 1 − coefficient of variation.
fn flatness(bins: &[u32; BINS]) -> f64 {
    let mean = bins.iter().map(|&bin| f64::from(bin)).sum::<f64>() / BINS as f64;
    let variance = bins.iter().map(|&bin| (f64::from(bin) - mean).powi(2)).sum::<f64>() / BINS as f64;
    if mean > 0.0 { thousandths((1.0 - variance.sqrt() / mean).max(0.0)) } else { 0.0 }
}

/// Share of the bins in use that have one of the two most frequent heights, one bin forgiven.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "heights are counts of at most u32"
)]
fn two_heights(bins: &[u32; BINS]) -> f64 {
    let in_use = bins.iter().filter(|&&bin| bin > 0).count();
    if in_use < MIN_BINS_FOR_HEIGHTS {
        return 0.0;
    }
    let greatest = bins.iter().copied().max().unwrap_or(0);
    let step = (f64::from(greatest) * HEIGHT_SHARE).ceil().max(1.0) as u32;
    let mut heights: Vec<u32> = bins.iter().filter(|&&bin| bin > 0).map(|bin| bin / step).collect();
    heights.sort_unstable();
    let mut counts: Vec<usize> = heights.chunk_by(|a, b| a == b).map(<[u32]>::len).collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let two: usize = counts.iter().take(2).sum();
    thousandths((two as f64 / (in_use - 1).max(1) as f64).min(1.0))
}

fn duration(bins: &[u32; BINS], times: &[u32], from: u32, to: u32) -> f64 {
    if bins.iter().filter(|&&bin| bin > 0).count() < MIN_BINS_FOR_DURATION {
        return 0.0;
    }
    let first = times.first().copied().unwrap_or(from);
    let last = times.last().copied().unwrap_or(from);
    let up = |share: f64| ((share * 1000.0).ceil() / 1000.0).min(1.0);
    let coverage = up(f64::from(last.saturating_sub(first)) / f64::from(to.saturating_sub(from)));
    let (mut run, mut longest) = (0usize, 0usize);
    for bin in bins.iter().chain(bins) {
        run = if *bin > 0 { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    coverage.max(up(longest.min(BINS) as f64 / IDEAL_RUN))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Intervals 60 ×23 over a window of exactly 24 minutes: one connection a bin, all intervals and sizes equal.
    #[test]
    fn a_perfect_beacon_scores_one() {
        let times = (0..24).map(|n| 1000 + n * 60).collect();
        let scores = Scores::of(times, &[512; 24], (1000, 2440)).unwrap();
        // Coverage is 1380/1440, but the run of 24 bins is twice the ideal.
        assert_eq!(scores, Scores { timing: 1.0, sizes: 1.0, histogram: 1.0, duration: 1.0, interval: 60.0 });
        assert_eq!(scores.total(), 1.0);
    }

    /// By hand: intervals 10 20 30 40 100. Lower half 10 20, upper half 40 100, so Q1 = 15, Q2 = 30, Q3 = 70;
    /// skewness (15 + 70 − 60) / 55 = 0.4545; deviations 20 10 0 10 70, MAD = 10; (30 − 10) / 30 = 0.6667;
    /// (1 − 0.4545 + 0.6667) / 2 = 0.606.
    #[test]
    fn the_evenness_of_a_skewed_sample_is_as_computed_by_hand() {
        assert_eq!(evenness(&[10.0, 20.0, 30.0, 40.0, 100.0], 1.0), 0.606);
    }

    /// By hand: 1 2 3 4: Q1 = 1.5, Q2 = 2.5, Q3 = 3.5; the range is below 10, so no skewness; MAD of 1.5 0.5 0.5 1.5
    /// is 1; (2.5 − 1) / 2.5 = 0.6; (1 + 0.6) / 2 = 0.8.
    #[test]
    fn a_narrow_range_has_no_skewness() {
        assert_eq!(evenness(&[1.0, 2.0, 3.0, 4.0], 1.0), 0.8);
    }

    #[test]
    fn a_median_below_one_is_even_for_times_and_says_nothing_for_sizes() {
        assert_eq!(evenness(&[0.0, 0.0, 0.0], 1.0), 1.0);
        assert_eq!(evenness(&[0.0, 0.0, 0.0], 0.0), 0.5);
    }

    /// By hand: 12 bins of 10 and 12 empty: μ = 5, σ = 5, so flatness 0; one height, 12 / 11 is cut to 1.
    #[test]
    fn half_a_day_of_even_connections_is_explained_by_one_height() {
        let mut bins = [0; BINS];
        bins[..12].fill(10);
        assert_eq!(flatness(&bins), 0.0);
        assert_eq!(two_heights(&bins), 1.0);
        // Three heights of four bins each: 8 / 11.
        bins[4..8].fill(20);
        bins[8..12].fill(40);
        assert_eq!(two_heights(&bins), 0.727);
        // By hand: bins 10 ×12 and 20 ×12: μ = 15, σ = 5, 1 − 1/3.
        bins.fill(10);
        bins[..12].fill(20);
        assert_eq!(flatness(&bins), 0.667);
    }

    /// By hand: 6 bins in use from 22 to 3 over midnight: run 6 of 12; first to last spans 22/24 and a bit less.
    #[test]
    fn the_longest_run_goes_round_the_window() {
        let times: Vec<u32> = [0, 3600, 7200, 10_800, 79_200, 82_800].to_vec();
        let bins = histogram(&times, 0, 86_400);
        // Coverage (82800 − 0) / 86400 = 0.9583, rounded up to a thousandth.
        assert_eq!(duration(&bins, &times, 0, 86_400), 0.959);
        let times: Vec<u32> = [0, 3600, 7200, 10_800, 14_400, 18_000].to_vec();
        let bins = histogram(&times, 0, 86_400);
        assert_eq!(duration(&bins, &times, 0, 86_400), 0.5);
        assert_eq!(duration(&histogram(&times[..5], 0, 86_400), &times[..5], 0, 86_400), 0.0);
    }

    #[test]
    fn too_few_intervals_have_no_score() {
        assert_eq!(Scores::of(vec![1, 1, 1, 2, 3], &[1; 5], (0, 10)), None);
        assert_eq!(Scores::of(vec![1, 2, 3, 4], &[1; 4], (5, 5)), None);
        assert!(Scores::of(vec![1, 2, 3, 4], &[1; 4], (0, 10)).is_some());
    }
}

//! How many different things were seen, in fixed memory: exact for a few, then an estimate by HyperLogLog
//! (Flajolet, Fusy, Gandouet, Meunier 2007) with 256 registers, standard error 6.5 %.

use std::net::IpAddr;

const EXACT: usize = 32;
const REGISTERS: usize = 256;

/// A count of different 64-bit hashes. One or two, which is what most counts see, take no memory of their own.
#[derive(Clone, Debug, Default)]
pub enum Distinct {
    /// Nothing.
    #[default]
    None,
    /// One hash.
    One(u64),
    /// Two.
    Two([u64; 2]),
    /// The hashes themselves.
    Exact(Vec<u64>),
    /// Highest rank by register.
    Estimated(Box<[u8; REGISTERS]>),
}

impl Distinct {
    /// Adds one by its hash. Whether it was new, as far as is known: an estimate says so only when it grows.
    pub fn add(&mut self, hash: u64) -> bool {
        if let Self::Estimated(registers) = self {
            return raise(registers, hash);
        }
        if self.exact().contains(&hash) {
            return false;
        }
        match self {
            Self::None => *self = Self::One(hash),
            &mut Self::One(first) => *self = Self::Two([first, hash]),
            &mut Self::Two([first, second]) => *self = Self::Exact(vec![first, second, hash]),
            Self::Exact(seen) if seen.len() < EXACT => seen.push(hash),
            Self::Exact(_) | Self::Estimated(_) => {
                let mut registers = Box::new([0; REGISTERS]);
                for &hash in self.exact() {
                    raise(&mut registers, hash);
                }
                raise(&mut registers, hash);
                *self = Self::Estimated(registers);
            }
        }
        true
    }

    /// Whether it is one thing so far.
    pub const fn is_one(&self) -> bool {
        matches!(self, Self::One(_))
    }

    /// The hashes, while they are kept.
    fn exact(&self) -> &[u64] {
        match self {
            Self::None | Self::Estimated(_) => &[],
            Self::One(hash) => std::slice::from_ref(hash),
            Self::Two(hashes) => hashes,
            Self::Exact(hashes) => hashes,
        }
    }

    /// Adds what another one has counted.
    pub fn merge(&mut self, other: &Self) {
        let Self::Estimated(more) = other else {
            for &hash in other.exact() {
                self.add(hash);
            }
            return;
        };
        let mut all = more.clone();
        if let Self::Estimated(held) = self {
            all.iter_mut().zip(held.iter()).for_each(|(rank, &held)| *rank = held.max(*rank));
        }
        for &hash in self.exact() {
            raise(&mut all, hash);
        }
        *self = Self::Estimated(all);
    }

    /// How many.
    pub fn count(&self) -> u64 {
        match self {
            Self::Estimated(registers) => estimate(registers),
            _ => self.exact().len() as u64,
        }
    }
}

/// SplitMix64's finalizer: spreads small numbers over 64 bits.
const fn spread(number: u64) -> u64 {
    let z = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Hash of an address and a number for counting, the same in every run and on every machine. What is counted
/// need not withstand aimed collisions.
pub fn hash_of(ip: IpAddr, number: u64) -> u64 {
    match ip {
        IpAddr::V4(ip) => hash_of_words(false, [0, u32::from(ip).into()], number),
        IpAddr::V6(ip) => {
            let [a, b, c, d, e, f, g, h, low @ ..] = ip.octets();
            hash_of_words(
                true,
                [u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes(low)],
                number,
            )
        }
    }
}

/// The same of an address in words: IPv4 in the low half of the second.
#[inline]
pub(crate) fn hash_of_words(is_v6: bool, [high, low]: [u64; 2], number: u64) -> u64 {
    let family = if is_v6 { 6 } else { 4 };
    [high, low, number]
        .iter()
        .fold(family, |hash: u64, &part| spread(hash.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ part))
}

fn raise(registers: &mut [u8; REGISTERS], hash: u64) -> bool {
    let [register, ..] = hash.to_be_bytes();
    // The rank is the place of the first one bit behind the eight that choose the register: 1 to 57.
    let rank = u8::try_from((hash << 8 | 0x80).leading_zeros() + 1).unwrap_or(u8::MAX);
    let Some(held) = registers.get_mut(usize::from(register)) else { return false };
    let grows = rank > *held;
    *held = rank.max(*held);
    grows
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate is positive and finite"
)]
fn estimate(registers: &[u8; REGISTERS]) -> u64 {
    let size = REGISTERS as f64;
    let sum: f64 = registers.iter().map(|&rank| 2f64.powi(-i32::from(rank))).sum();
    let raw = 0.7213 / (1.0 + 1.079 / size) * size * size / sum;
    let empty = registers.iter().filter(|&&rank| rank == 0).count();
    let estimate = if raw <= 2.5 * size && empty > 0 { size * (size / empty as f64).ln() } else { raw };
    estimate.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u64) -> u64 {
        hash_of("10.0.0.1".parse().unwrap(), number)
    }

    #[test]
    fn a_few_are_counted_exactly() {
        let mut distinct = Distinct::default();
        for round in 0..3 {
            for number in 0..32 {
                assert_eq!(distinct.add(hash(number)), round == 0);
            }
        }
        assert_eq!(distinct.count(), 32);
        assert_eq!(size_of::<Distinct>(), 24);
    }

    #[test]
    fn counts_that_are_merged_count_each_thing_once() {
        let of = |numbers: std::ops::Range<u64>| {
            let mut distinct = Distinct::default();
            for number in numbers {
                distinct.add(hash(number));
            }
            distinct
        };
        for (one, other, all) in [(0..10, 5..20, 0..20), (0..10, 5..5000, 0..5000), (0..900, 0..9, 0..900)] {
            let mut merged = of(one.clone());
            merged.merge(&of(other.clone()));
            assert_eq!(merged.count(), of(all).count(), "{one:?} {other:?}");
        }
    }

    #[test]
    fn many_are_estimated_within_a_fifth() {
        for many in [100u64, 1000, 50_000, 1_000_000] {
            let mut distinct = Distinct::default();
            for number in 0..many {
                distinct.add(hash(number));
                distinct.add(hash(number));
            }
            let error = (distinct.count() as f64 / many as f64 - 1.0).abs();
            assert!(error < 0.2, "{many}: {}", distinct.count());
        }
    }
}

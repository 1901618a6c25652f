//! Choices drawn from a seed. Each actor of the day has its own stream, so that a change of one leaves the
//! traffic of the others as it was. Integers only: the same seed gives the same bytes on every machine.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// One actor's stream of choices.
#[derive(Clone, Debug)]
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    /// The stream of the actor with this name.
    pub(crate) fn for_actor(seed: u64, actor: &str) -> Self {
        // FNV-1a: any fixed hash will do, the names are ours.
        let stream = actor.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(stream);
        Self(generator)
    }

    /// Any 32 bits.
    pub(crate) fn bits(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// A number from 0 to `end` - 1.
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        let scaled = u64::from(self.0.next_u32()) * u64::from(end.max(1));
        u32::try_from(scaled >> 32).unwrap_or(0)
    }

    /// A number from `from` to `to` - 1, in 31 bits of resolution.
    pub(crate) fn between(&mut self, from: i64, to: i64) -> i64 {
        let span = i128::from((to - from).max(1));
        let scaled = (i128::from(self.0.next_u64() >> 1) * span) >> 63;
        from + i64::try_from(scaled).unwrap_or(0)
    }

    /// A 16-bit number from `from` to `to` - 1.
    pub(crate) fn port(&mut self, from: u16, to: u16) -> u16 {
        from + u16::try_from(self.below(u32::from(to - from))).unwrap_or(0)
    }

    /// An octet from `from` to `to` - 1.
    pub(crate) fn octet(&mut self, from: u8, to: u8) -> u8 {
        from + u8::try_from(self.below(u32::from(to - from))).unwrap_or(0)
    }

    /// A client's port, from the range of IANA's dynamic ports.
    pub(crate) fn client_port(&mut self) -> u16 {
        self.port(49_152, 65_535)
    }

    /// True so many times in a thousand.
    pub(crate) fn per_mille(&mut self, chance: u32) -> bool {
        self.below(1000) < chance
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(u32::try_from(items.len()).unwrap_or(u32::MAX)) as usize]
    }

    /// A size with a long tail: `base`, doubled with probability one half as often as luck has it, `doublings`
    /// times at most, and spread within the last octave.
    pub(crate) fn long_tail(&mut self, base: u32, doublings: u32) -> u32 {
        let octave = self.bits().trailing_ones().min(doublings);
        let low = base << octave;
        low + self.below(low)
    }

    /// Random octets.
    pub(crate) fn octets<const N: usize>(&mut self) -> [u8; N] {
        let mut octets = [0; N];
        self.0.fill_bytes(&mut octets);
        octets
    }
}

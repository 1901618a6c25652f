//! A small mutator with a fixed seed: the short fuzz run of every test needs neither libFuzzer nor its compiler, and
//! gives the same inputs everywhere.

/// Values at the ends of ranges, and lengths that headers have.
const EDGES: [u8; 12] = [0, 1, 4, 8, 20, 40, 0x45, 0x7f, 0x80, 0xfe, 0xff, 0x60];

/// A stream of mutated inputs.
#[derive(Clone, Debug)]
pub struct Mutator {
    state: u64,
}

impl Mutator {
    /// A stream that this seed decides.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed ^ 0x9e37_79b9_7f4a_7c15 }
    }

    /// The next 64 bits (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }

    /// A number below `limit`; 0 where that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = limit as u64;
        usize::try_from(self.bits().checked_rem(limit).unwrap_or(0)).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.bits().to_le_bytes()[0]
    }

    /// A mutated copy of one input of a corpus, at most `longest` bytes.
    pub fn next(&mut self, corpus: &[Vec<u8>], longest: usize) -> Vec<u8> {
        let mut bytes = corpus.get(self.below(corpus.len())).cloned().unwrap_or_default();
        for _ in 0..1 + self.below(5) {
            self.change(&mut bytes, corpus);
        }
        bytes.truncate(longest);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        if bytes.is_empty() {
            bytes.push(self.byte());
            return;
        }
        let at = self.below(bytes.len());
        match self.below(8) {
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = self.byte(),
            2 => bytes[at] = EDGES[self.below(EDGES.len())],
            3 => bytes[at] = bytes[at].wrapping_add(1 + self.byte() % 8).wrapping_sub(4),
            4 => bytes.truncate(at + 1),
            5 => {
                let length = (1 + self.below(8)).min(bytes.len() - at);
                bytes.drain(at..at + length);
            }
            6 => {
                let more: Vec<u8> = (0..=self.below(8)).map(|_| self.byte()).collect();
                bytes.splice(at..at, more);
            }
            // A part of another input, over what is there or behind it.
            _ => {
                let other = corpus.get(self.below(corpus.len())).map_or(&[][..], Vec::as_slice);
                let from = self.below(other.len());
                let part = other.get(from..).unwrap_or_default();
                let part = part.get(..1 + self.below(24)).unwrap_or(part);
                let end = if self.below(2) == 0 { at } else { (at + part.len()).min(bytes.len()) };
                bytes.splice(at..end, part.iter().copied());
            }
        }
    }
}

//! The history of a connection in Zeek's letters: upper case for the originator, lower case for the responder.

use arrayvec::ArrayVec;

/// Letters that are kept; a connection that goes on making them has nothing new to say.
const MOST: usize = 120;
/// Letters that need no allocation.
const INLINE: u32 = 10;
/// Every letter there is.
const LETTERS: [u8; 25] = *b"^SHADFRITGWQCshadfritgwqc";
const BASE: u64 = LETTERS.len() as u64;
/// The least number of [`INLINE`] digits.
const FULL: u64 = (BASE.pow(INLINE) - 1) / (BASE - 1);
/// The digit of each letter, from 1, by its low six bits.
const DIGITS: [u64; 64] = {
    let mut digits = [1; 64];
    let (mut at, mut digit) = (0, 1);
    while at < LETTERS.len() {
        digits[LETTERS[at] as usize % 64] = digit;
        (at, digit) = (at + 1, digit + 1);
    }
    digits
};

/// A letter of the originator, or of the responder.
#[inline]
pub(super) const fn cased(letter: u8, from_originator: bool) -> u8 {
    if from_originator { letter } else { letter.to_ascii_lowercase() }
}

/// Repeated events are written at 1, 10, 100, …
pub(super) const fn is_power_of_ten(count: u64) -> bool {
    let mut power = 1_u64;
    while power < count {
        match power.checked_mul(10) {
            Some(next) => power = next,
            None => return false,
        }
    }
    power == count
}

/// The first letters in 47 bits: a number to the base of 25 whose digits go from 1 to 25, so that it says by itself
/// how many they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Few(u64);

/// Letters behind the first few.
pub(super) type Many = ArrayVec<u8, { MOST - INLINE as usize }>;

impl Few {
    /// Bits that are never set.
    pub(super) const UNUSED: u32 = 16;

    /// Out of the number that it is.
    #[inline]
    pub(super) const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number that it is.
    #[inline]
    pub(super) const fn number(self) -> u64 {
        self.0
    }

    /// With another letter, if there is room.
    #[inline]
    pub(super) const fn with(self, letter: u8) -> Option<Self> {
        if self.0 >= FULL {
            return None;
        }
        // Below `FULL`, nothing of this comes near 64 bits.
        Some(Self(self.0.wrapping_mul(BASE).wrapping_add(DIGITS[letter as usize % 64])))
    }

    fn letters(self) -> ArrayVec<u8, { INLINE as usize }> {
        let mut letters = ArrayVec::new();
        let mut rest = self.0;
        while rest > 0 && !letters.is_full() {
            let [digit, ..] = ((rest - 1) % BASE).to_le_bytes();
            letters.push(LETTERS[usize::from(digit)]);
            rest = (rest - 1) / BASE;
        }
        letters.reverse();
        letters
    }
}

/// The letters of a history, wherever they stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Letters<'a> {
    few: Few,
    many: &'a [u8],
}

impl<'a> Letters<'a> {
    #[inline]
    pub(super) const fn new(few: Few, many: &'a [u8]) -> Self {
        Self { few, many }
    }

    /// One after the other.
    pub(super) fn iter(self) -> impl Iterator<Item = u8> + 'a {
        self.few.letters().into_iter().chain(self.many.iter().copied())
    }

    /// Writes the letters over what `text` held.
    pub(super) fn write(self, text: &mut String) {
        text.clear();
        text.extend(self.iter().map(char::from));
    }

    /// Whether the originator sent SYN and then RST, with nothing else of its own between.
    pub(super) fn is_syn_then_reset(self) -> bool {
        let mut letters = self.iter().skip_while(|&letter| letter == b'^');
        if letters.next() != Some(b'S') {
            return false;
        }
        letters.find(|letter| b"HAFGIQR".contains(letter)) == Some(b'R')
    }
}

/// A history that stands by itself.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    few: Few,
    many: Option<Box<Many>>,
}

impl History {
    /// Adds a letter.
    pub(super) fn push(&mut self, letter: u8) {
        match self.few.with(letter) {
            Some(few) => self.few = few,
            None => {
                // The first hundred or so are kept.
                let _ = self.many.get_or_insert_default().try_push(letter);
            }
        }
    }

    /// The letters.
    pub(super) fn letters(&self) -> Letters<'_> {
        Letters::new(self.few, self.many.as_deref().map_or(&[], |many| many))
    }

    /// Writes the letters over what `text` held.
    pub(super) fn write(&self, text: &mut String) {
        self.letters().write(text);
    }
}

impl FromIterator<u8> for History {
    fn from_iter<I: IntoIterator<Item = u8>>(letters: I) -> Self {
        let mut history = Self::default();
        letters.into_iter().for_each(|letter| history.push(letter));
        history
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_histories_are_kept_up_to_a_bound() {
        let every = String::from_utf8_lossy(&LETTERS);
        for length in 0..=LETTERS.len() {
            for letters in [&every[..length], &every[length..]] {
                let mut text = String::new();
                letters.bytes().collect::<History>().write(&mut text);
                assert_eq!(text, letters);
            }
        }
        let long = "ShADad".repeat(40);
        let mut text = "before".to_owned();
        long.bytes().collect::<History>().write(&mut text);
        assert_eq!(text, long[..MOST]);
    }

    #[test]
    fn the_first_few_letters_leave_the_bits_they_say() {
        let mut few = Few::default();
        while let Some(more) = few.with(b'c') {
            few = more;
        }
        assert_eq!(few.letters().as_slice(), b"cccccccccc");
        assert!(few.number().leading_zeros() >= Few::UNUSED);
    }

    #[test]
    fn a_syn_then_a_reset_is_told_from_other_histories() {
        for (letters, expected) in
            [("SR", true), ("^SR", true), ("STcR", true), ("SAR", false), ("RS", false)]
        {
            let history: History = letters.bytes().collect();
            assert_eq!(history.letters().is_syn_then_reset(), expected, "{letters}");
        }
    }
}

//! The history of a connection in Zeek's letters: upper case for the originator, lower case for the responder.

use arrayvec::ArrayVec;

/// Letters that are kept; a connection that goes on making them has nothing new to say.
const MOST: usize = 120;
/// Letters that need no allocation.
const INLINE: u32 = 10;

/// A letter of the originator, or of the responder.
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

/// Letters in order. The first few stand in six bits each, which hold any of `@` to DEL, and their number behind
/// them; all of them move elsewhere when there are more.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    few: u64,
    many: Option<Box<ArrayVec<u8, MOST>>>,
}

impl History {
    /// Adds a letter.
    pub(super) fn push(&mut self, letter: u8) {
        if let Some(many) = &mut self.many {
            // The first hundred or so are kept.
            let _ = many.try_push(letter);
            return;
        }
        let length = self.few_letters();
        if length < INLINE {
            let code = u64::from(letter & 0x3f) << (length * 6);
            self.few = (self.few | code) + (1 << 60);
        } else {
            let mut many: ArrayVec<u8, MOST> = self.letters().collect();
            many.push(letter);
            self.many = Some(Box::new(many));
        }
    }

    /// How many letters stand in six bits each.
    fn few_letters(&self) -> u32 {
        u32::from(self.few.to_be_bytes()[0] >> 4)
    }

    /// The letters.
    pub(super) fn letters(&self) -> impl Iterator<Item = u8> + '_ {
        let few = if self.many.is_some() { 0 } else { self.few_letters() };
        let of_few = (0..few).map(|at| (self.few >> (at * 6)).to_le_bytes()[0] & 0x3f | 0x40);
        of_few.chain(self.many.iter().flat_map(|many| many.iter().copied()))
    }

    /// Writes the letters over what `text` held.
    pub(super) fn write(&self, text: &mut String) {
        text.clear();
        text.extend(self.letters().map(char::from));
    }

    /// Whether the originator sent SYN and then RST, with nothing else of its own between.
    pub(super) fn is_syn_then_reset(&self) -> bool {
        let mut letters = self.letters().skip_while(|&letter| letter == b'^');
        if letters.next() != Some(b'S') {
            return false;
        }
        letters.find(|letter| b"HAFGIQR".contains(letter)) == Some(b'R')
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

    fn history(letters: &str) -> History {
        let mut history = History::default();
        letters.bytes().for_each(|letter| history.push(letter));
        history
    }

    #[test]
    fn long_histories_are_kept_up_to_a_bound() {
        for length in 0..20 {
            let letters = &"^sShHaAdDfFrRgGtTwWiIqQcC"[..length];
            let mut text = String::new();
            history(letters).write(&mut text);
            assert_eq!(text, letters);
        }
        let long = "ShADad".repeat(40);
        let mut text = "before".to_owned();
        history(&long).write(&mut text);
        assert_eq!(text, long[..MOST]);
    }

    #[test]
    fn a_syn_then_a_reset_is_told_from_other_histories() {
        for (letters, expected) in
            [("SR", true), ("^SR", true), ("STcR", true), ("SAR", false), ("RS", false)]
        {
            assert_eq!(history(letters).is_syn_then_reset(), expected, "{letters}");
        }
    }
}

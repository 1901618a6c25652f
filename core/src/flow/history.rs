//! The history of a connection in Zeek's letters: upper case for the originator, lower case for the responder.

/// Letters that are kept; a connection that goes on making them has nothing new to say.
const MOST: usize = INLINE + MORE;
const INLINE: usize = 23;
const MORE: usize = 97;

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

/// Letters in order. The first few need no allocation.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    inline: [u8; INLINE],
    length: u8,
    more: Option<Box<[u8; MORE]>>,
}

impl History {
    /// Adds a letter.
    pub(super) fn push(&mut self, letter: u8) {
        let length = usize::from(self.length);
        if length < INLINE {
            self.inline[length] = letter;
        } else if length < MOST {
            self.more.get_or_insert_with(|| Box::new([0; MORE]))[length - INLINE] = letter;
        } else {
            return;
        }
        self.length += 1;
    }

    /// The letters.
    pub(super) fn letters(&self) -> impl Iterator<Item = u8> + '_ {
        let more = self.more.iter().flat_map(|more| more.iter());
        self.inline.iter().chain(more).copied().take(self.length.into())
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

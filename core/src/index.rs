//! An index of slots by hash: open addressing over words that hold both, so that a lookup reads one line here and
//! then the slot it wants, and neither growth nor removal has to hash a key again.

/// Hash above, slot and one below; zero where nothing is.
const EMPTY: u64 = 0;

#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    words: Vec<u64>,
    held: usize,
    /// How many are held before it grows.
    room: usize,
    /// Which hashes were put in since [`Self::mark`], by their highest six bits.
    recent: u64,
}

fn word_of(hash: u32, slot: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(slot.saturating_add(1))
}

const fn hash_of(word: u64) -> u32 {
    let [a, b, c, d, ..] = word.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

const fn slot_of(word: u64) -> u32 {
    let [.., a, b, c, d] = word.to_be_bytes();
    u32::from_be_bytes([a, b, c, d]).saturating_sub(1)
}

impl Index {
    pub(crate) const fn len(&self) -> usize {
        self.held
    }

    const fn mask(&self) -> usize {
        self.words.len().saturating_sub(1)
    }

    /// The slot with this hash that `is` says yes to.
    pub(crate) fn find(&self, hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = hash as usize & self.mask();
        // At least a quarter of the words is empty, so this ends.
        while let Some(&word) = self.words.get(at)
            && word != EMPTY
        {
            if hash_of(word) == hash && is(slot_of(word)) {
                return Some(slot_of(word));
            }
            at = (at + 1) & self.mask();
        }
        None
    }

    /// What is read where a search for this hash begins, and where it goes on if the line ends there.
    pub(crate) fn first(&self, hash: u32) -> u64 {
        let word = |ahead: usize| self.words.get((hash as usize).wrapping_add(ahead) & self.mask());
        word(0).copied().unwrap_or(EMPTY) ^ word(3).copied().unwrap_or(EMPTY)
    }

    /// From now on it is noted what is put in.
    pub(crate) const fn mark(&mut self) {
        self.recent = 0;
    }

    /// Whether a slot with this hash may have been put in since the mark.
    #[inline]
    pub(crate) const fn may_be_recent(&self, hash: u32) -> bool {
        self.recent >> (hash >> 26) & 1 != 0
    }

    /// Puts a slot in that is not there.
    pub(crate) fn insert(&mut self, hash: u32, slot: u32) {
        self.recent |= 1 << (hash >> 26);
        if self.held >= self.room {
            self.widen();
        }
        self.place(word_of(hash, slot));
        self.held += 1;
    }

    #[cold]
    fn widen(&mut self) {
        let wider = vec![EMPTY; (self.words.len() * 2).max(8)];
        // Five eighths full at most: most lookups then end within one cache line.
        self.room = wider.len() / 8 * 5;
        for word in std::mem::replace(&mut self.words, wider) {
            self.place(word);
        }
    }

    fn place(&mut self, word: u64) {
        let mask = self.mask();
        let mut at = hash_of(word) as usize & mask;
        while let Some(held) = self.words.get_mut(at) {
            if *held == EMPTY {
                *held = word;
                return;
            }
            at = (at + 1) & mask;
        }
    }

    /// Puts another slot in the place of one.
    pub(crate) fn replace(&mut self, hash: u32, slot: u32, by: u32) {
        let (mask, wanted) = (self.mask(), word_of(hash, slot));
        let mut at = hash as usize & mask;
        while let Some(word) = self.words.get_mut(at)
            && *word != EMPTY
        {
            if *word == wanted {
                *word = word_of(hash, by);
                return;
            }
            at = (at + 1) & mask;
        }
    }

    /// Every slot, in no order that means anything.
    pub(crate) fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().filter(|&&word| word != EMPTY).map(|&word| slot_of(word))
    }

    /// Takes everything out.
    pub(crate) fn clear(&mut self) {
        self.words.fill(EMPTY);
        self.held = 0;
    }

    /// Takes a slot out, and moves up what stood behind it.
    pub(crate) fn remove(&mut self, hash: u32, slot: u32) {
        let (mask, wanted) = (self.mask(), word_of(hash, slot));
        let mut hole = hash as usize & mask;
        while self.words.get(hole).is_some_and(|&word| word != wanted) {
            if self.words.get(hole) == Some(&EMPTY) {
                return;
            }
            hole = (hole + 1) & mask;
        }
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let Some(&word) = self.words.get(at) else { return };
            if word == EMPTY {
                break;
            }
            // Whoever would be found from the hole on moves there.
            let home = hash_of(word) as usize & mask;
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                if let Some(place) = self.words.get_mut(hole) {
                    *place = word;
                }
                hole = at;
            }
        }
        if let Some(place) = self.words.get_mut(hole) {
            *place = EMPTY;
            self.held -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a plain list, with few hashes, so that many stand in each other's way and round the end.
        #[test]
        fn it_holds_what_a_list_holds(steps in prop::collection::vec((any::<bool>(), 0u32..40), 0..300)) {
            let hash = |slot: u32| [0, 5, 6, 7, 7, 15, 31, u32::MAX][slot as usize % 8];
            let mut index = Index::default();
            let mut list: Vec<u32> = Vec::new();
            for (puts, slot) in steps {
                match list.iter().position(|&held| held == slot) {
                    Some(at) if !puts => {
                        list.remove(at);
                        index.remove(hash(slot), slot);
                    }
                    None if puts => {
                        list.push(slot);
                        index.insert(hash(slot), slot);
                    }
                    // What is not there changes nothing.
                    None => index.remove(hash(slot), slot),
                    Some(_) => {}
                }
                prop_assert_eq!(index.len(), list.len());
                for slot in 0..40 {
                    let found = index.find(hash(slot), |held| held == slot);
                    prop_assert_eq!(found.is_some(), list.contains(&slot));
                }
            }
        }
    }
}

//! A slab: values by number, numbers used again.

use super::{chunks::Chunks, live::NO_ENTRY};

/// Values by number.
#[derive(Clone, Debug)]
pub(super) struct Slab<T> {
    values: Chunks<T>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { values: Chunks::default(), free: Vec::new() }
    }
}

impl<T: Clone + Default> Slab<T> {
    /// Keeps a value; gives its number.
    #[inline]
    pub(super) fn insert(&mut self, value: T) -> u32 {
        match self.free.pop() {
            Some(entry) => {
                self.values[entry as usize] = value;
                entry
            }
            None => u32::try_from(self.values.push(value)).unwrap_or(NO_ENTRY),
        }
    }

    /// The value of a number that is in use.
    #[inline]
    pub(super) fn get(&self, entry: u32) -> Option<&T> {
        self.values.get(entry as usize)
    }

    /// The value of a number that is in use.
    #[inline]
    pub(super) fn get_mut(&mut self, entry: u32) -> Option<&mut T> {
        self.values.get_mut(entry as usize)
    }

    /// Gives a number back, unless it is [`NO_ENTRY`].
    #[inline]
    pub(super) fn remove(&mut self, entry: u32) {
        if entry != NO_ENTRY {
            self.free.push(entry);
        }
    }
}

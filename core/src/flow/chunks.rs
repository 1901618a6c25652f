//! Values by number in chunks that never move. A vector that doubles would hold everything twice while it grows,
//! and could not keep values on the boundaries of cache lines without that.

use std::ops::{Index, IndexMut};

const BITS: u32 = 8;
const SIZE: usize = 1 << BITS;

/// Values by number, from 0 on without a hole.
#[derive(Clone, Debug)]
pub(super) struct Chunks<T> {
    chunks: Vec<Box<[T]>>,
    length: usize,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), length: 0 }
    }
}

impl<T: Clone + Default> Chunks<T> {
    /// How many there are.
    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.length
    }

    /// Adds a value behind the last one; gives its number.
    #[inline]
    pub(super) fn push(&mut self, value: T) -> usize {
        let at = self.length;
        if at >> BITS == self.chunks.len() {
            self.chunks.push(vec![T::default(); SIZE].into_boxed_slice());
        }
        self.length += 1;
        self[at] = value;
        at
    }

    /// The value of a number, if there is one.
    #[inline]
    pub(super) fn get(&self, at: usize) -> Option<&T> {
        self.chunks.get(at >> BITS)?.get(at % SIZE)
    }

    /// The value of a number, if there is one.
    #[inline]
    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.chunks.get_mut(at >> BITS)?.get_mut(at % SIZE)
    }
}

impl<T> Index<usize> for Chunks<T> {
    type Output = T;

    #[inline]
    fn index(&self, at: usize) -> &T {
        &self.chunks[at >> BITS][at % SIZE]
    }
}

impl<T> IndexMut<usize> for Chunks<T> {
    #[inline]
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut self.chunks[at >> BITS][at % SIZE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_where_they_were_put() {
        let mut chunks = Chunks::default();
        for value in 0..1000_u32 {
            assert_eq!(chunks.push(value), value as usize);
        }
        chunks[700] = 5;
        assert_eq!((chunks.len(), chunks[699], chunks[700]), (1000, 699, 5));
        assert_eq!((chunks.get(999), chunks.get(1024)), (Some(&999), None));
    }
}

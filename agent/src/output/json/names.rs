//! Names as they stand in JSON, escaped and in quotes. A name out of the configuration is one allocation that all
//! records share, so it is known again by its place, without looking at its letters.

use std::sync::Arc;

use onenet_core::net::Name;

/// Names that are kept; a power of two.
const KEPT: usize = 64;

/// Bytes of a name in quotes that are copied whole, whatever its length.
pub(super) const SHORT: usize = 32;

/// A name as it stands in JSON.
pub(super) struct Quoted {
    name: Name,
    pub(super) short: [u8; SHORT],
    pub(super) length: usize,
    /// All of it where it is longer than `short`.
    pub(super) long: Vec<u8>,
}

impl Quoted {
    fn new(name: &Name) -> Self {
        // A text is always JSON.
        let mut long = serde_json::to_vec(&**name).unwrap_or_default();
        let (mut short, length) = ([0; SHORT], long.len());
        if let Some(place) = short.get_mut(..length) {
            place.copy_from_slice(&long);
            long.clear();
        }
        Self { name: name.clone(), short, length, long }
    }
}

/// The names that were written last. Each is held, so that its place is not given to another.
pub(crate) struct Names(Vec<Option<Quoted>>);

impl Default for Names {
    fn default() -> Self {
        Self((0..KEPT).map(|_| None).collect())
    }
}

impl Names {
    /// A name as it stands in JSON.
    #[inline]
    pub(super) fn quoted(&mut self, name: &Name) -> Option<&Quoted> {
        // Allocations are multiples of 16 bytes apart.
        let at = (Arc::as_ptr(name).addr() >> 4) % KEPT;
        let kept = self.0.get_mut(at)?;
        if kept.as_ref().is_none_or(|kept| !Arc::ptr_eq(&kept.name, name)) {
            *kept = Some(Quoted::new(name));
        }
        kept.as_ref()
    }
}

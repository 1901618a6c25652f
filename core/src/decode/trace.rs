//! A hook that hears of each header as it is decoded. Without one (`()`) nothing of it is left in the program.

use super::packet::Link;

/// Hears of headers in the order in which they are read.
pub trait Trace {
    /// One header: its name, its captured bytes (a part of the packet's), and up to the network
    /// header what is known of the link with it.
    fn header(&mut self, name: &'static str, bytes: &[u8], link: Option<&Link>);
}

impl Trace for () {
    #[inline(always)]
    fn header(&mut self, _: &'static str, _: &[u8], _: Option<&Link>) {}
}

/// The bytes of a header: those of `from` that are not of `behind`, which is its end.
#[inline(always)]
pub(super) fn between<'a>(from: &'a [u8], behind: &[u8]) -> &'a [u8] {
    from.get(..from.len().saturating_sub(behind.len())).unwrap_or_default()
}

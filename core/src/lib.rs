//! The engine of the One Network edge sensor: packets and time in, flow records, address observations and
//! findings out.
//!
//! The contract of this crate: it does no input or output, reads no clock, starts no thread, and holds no
//! unsafe code. Time is a parameter (packet time), randomness is a parameter (the hash seed), and a replayed
//! capture gives exactly the records that the wire gave. Every byte it is given is taken as hostile: work per
//! packet is bounded, every table has a limit, and what cannot be parsed is counted by layer and reason.
//!
//! Floors, each of which names only those before it: [`digits`], [`time`], [`net`], [`record`], [`plan`], [`bounded`],
//! [`distinct`], [`findings`] →
//! [`decode`] → [`flow`], `ipam`, [`mirror`] → `detect` → `sensor`.

pub mod bounded;
pub mod decode;
pub mod detect;
pub mod digits;
pub mod distinct;
pub mod findings;
pub mod flow;
mod index;
pub mod ipam;
pub mod mirror;
pub mod net;
pub mod plan;
pub mod record;
pub mod sensor;
pub mod time;

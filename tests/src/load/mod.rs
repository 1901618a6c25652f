//! Captures for speed runs, too large to keep: ordinary traffic, a SYN flood with whole flows in it, and traffic with
//! a stated number of live flows; and traffic of a stated number of addresses, with the plan and the sheets that go
//! with it. The same arguments give the same bytes; what is in a capture is its [`Truth`].

pub mod addresses;
mod flow;
mod frame;
pub mod inventory;
pub mod live;
pub mod mix;
mod stage;
pub mod syn;
#[cfg(test)]
mod tests;

pub use stage::{Canaries, Flood, Truth};

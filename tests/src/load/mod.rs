//! Captures for speed runs, too large to keep: ordinary traffic, a SYN flood with whole flows in it, and traffic with
//! a stated number of live flows. The same arguments give the same bytes; what is in a capture is its [`Truth`].

mod flow;
mod frame;
pub mod live;
pub mod mix;
mod stage;
pub mod syn;
#[cfg(test)]
mod tests;

pub use stage::{Canaries, Flood, Truth};

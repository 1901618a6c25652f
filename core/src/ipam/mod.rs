//! Addresses: the special-purpose registries, places in the plan, observations, overlap.

mod place;
mod prefixes;
mod registry;

pub use place::{DEFAULT_SPACE, Place, Places, Resident};
pub use registry::{AddressClass, Special, classify};

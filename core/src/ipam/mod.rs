//! Addresses: the special-purpose registries, places in the plan, observations, overlap.

mod observe;
pub mod overlap;
mod place;
mod prefixes;
mod registry;

pub use observe::{Ahead, ObservationSink, ObserveConfig, Observer, Seen};
pub(crate) use observe::{Stated, may_state, may_state_by};
pub use overlap::{ObservedOwner, OverlapConfig, OverlapTracker};
pub use place::{Came, DEFAULT_SPACE, Place, Places, Resident};
pub use registry::{AddressClass, Special, block_of, classify};

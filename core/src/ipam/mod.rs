//! Addresses: the special-purpose registries, places in the plan, observations, overlap.

mod claims;
mod hours;
mod observe;
pub mod overlap;
mod place;
mod prefixes;
mod registry;
mod usage;
pub mod verdict;

pub use claims::{Claim, Claims, Standing};
pub use hours::{HOURS, Hours, Turns};
pub use observe::{Ahead, ObservationSink, ObserveConfig, Observer, Seen};
pub(crate) use observe::{Stated, may_state, may_state_by};
pub use overlap::{ObservedOwner, OverlapConfig, OverlapTracker};
pub use place::{Came, DEFAULT_SPACE, Place, Places, Resident};
pub use registry::{AddressClass, Special, block_of, classify};
pub use usage::{StackUse, Station, Usage, is_of_station, is_virtual};

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
pub use usage::{ClockUse, StackUse, Station, Usage, is_answer, is_of_station, is_virtual};

/// An observation of 10.1.1.1 in a space, at a second, for tests.
#[cfg(test)]
fn observation(kind: crate::record::ObservationKind, second: i64) -> crate::record::Observation {
    use crate::record::{Observation, ObservationKind, Strength};
    let strength = match kind {
        ObservationKind::ArpReply => Strength::Strong,
        ObservationKind::ArpProbe => Strength::Weak,
        _ => Strength::Medium,
    };
    let (place, time) = (("boston".into(), "in0".into()), crate::time::Timestamp::from_parts(second, 0));
    Observation::of(kind, strength, [10, 1, 1, 1].into(), "eohhs".into(), place, time)
}

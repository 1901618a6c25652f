//! Addresses: the special-purpose registries, places in the plan, observations, overlap.

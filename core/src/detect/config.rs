//! Settings of the rules.

use serde::{Deserialize, Serialize};

/// Thresholds of the rules.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DetectConfig {}

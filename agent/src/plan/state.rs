//! What a sensor tells of its plan to people: `status` and metrics.

use onenet_core::time::Timestamp;
use serde_json::{Value, json};

use super::Held;
use crate::{config::PlanSource, keys::hex};

/// The plan in use, and what was refused.
#[derive(Clone, Debug)]
pub(crate) struct PlanState {
    pub(crate) source: PlanSource,
    pub(crate) in_use: Held,
    /// Version of the collector's plan that is kept; it is in use unless captures are read under another.
    pub(crate) kept: Option<u64>,
    /// Versions refused since the start.
    pub(crate) refused: u64,
    /// Why the last one was.
    pub(crate) refusal: Option<String>,
}

impl PlanState {
    /// As `status.json` has it.
    pub(crate) fn to_json(&self) -> Value {
        let Held { version, time, sha256, .. } = self.in_use;
        json!({
            "plan_source": self.source.as_str(),
            "plan_version": version,
            "plan_issued_at": (version > 0).then(|| Timestamp(time).to_string()),
            "plan_sha256": hex(&sha256),
            "plan_kept_version": self.kept,
            "plan_refused": self.refused,
            "plan_refusal": self.refusal,
        })
    }
}

/// The line of the table, from `status.json`.
pub(crate) fn line(status: &Value) -> Option<String> {
    let text = |key| status.get(key).and_then(Value::as_str);
    let number = |key| status.get(key).and_then(Value::as_u64);
    let version = number("plan_version")?;
    let mut line = match (text("plan_source")?, version) {
        ("file", _) => "of its own configuration".to_owned(),
        (_, 0) => "of its own configuration, until the collector's comes".to_owned(),
        _ => format!(
            "version {version} of the collector's, issued at {}",
            text("plan_issued_at").unwrap_or_default()
        ),
    };
    if let Some(kept) = number("plan_kept_version").filter(|&kept| kept != version)
        && text("plan_source") == Some("collector")
    {
        line.push_str(&format!("; version {kept} waits until these captures have been read"));
    }
    Some(line)
}

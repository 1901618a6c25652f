//! `[[mirror]]`: tunnels that bring copies of packets, and which interface those count as captured on.

use onenet_core::mirror::{MirrorKind, MirrorPlan};
use onenet_proto::config::{ConfigError, Document};

/// Refuses what contradicts itself, or could never have a packet.
pub(super) fn check(document: &Document, mirrors: &[MirrorPlan]) -> Result<(), ConfigError> {
    for (index, mirror) in mirrors.iter().enumerate() {
        let number = index.to_string();
        let refuse = |key: &str, message: &str| Err(document.error(&["mirror", &number, key], message));
        let before = mirrors.get(..index).unwrap_or_default();
        if mirror.name.is_empty() {
            return refuse("name", "is empty, expected a name");
        }
        if before.iter().any(|other| other.name == mirror.name) {
            return refuse("name", "is stated twice");
        }
        if mirror.port.is_some() && !mirror.kind.has_port() {
            return refuse("port", "is not a key of this kind, which is not carried by UDP");
        }
        if mirror.port == Some(0) {
            return refuse("port", "0, expected a whole number from 1 to 65535");
        }
        if mirror.id.is_some() && !mirror.kind.has_id() {
            return refuse("id", "is not a key of kind \"tzsp\", whose header has no number");
        }
        let highest = highest_id(mirror.kind);
        if let Some(id) = mirror.id.filter(|id| *id > highest) {
            return refuse("id", &format!("{id}, expected a whole number from 0 to {highest}"));
        }
        if let Some(other) = before.iter().find(|other| other.covers(mirror)) {
            let message = format!("has no packet that mirror {:?} before it does not have", other.name);
            return refuse("kind", &message);
        }
    }
    Ok(())
}

/// The highest number that the header of a kind has room for: more would never be met.
const fn highest_id(kind: MirrorKind) -> u32 {
    match kind {
        MirrorKind::Erspan => (1 << 10) - 1,
        MirrorKind::Vxlan | MirrorKind::Geneve => (1 << 24) - 1,
        MirrorKind::Gre | MirrorKind::Tzsp => u32::MAX,
    }
}

//! The identity of a flow: made from what it names when something asks for it, because most flows are counted and
//! forgotten without anybody asking.

use arrayvec::ArrayVec;
use sha1::{Digest, Sha1};

use super::key::FlowKey;
use crate::{record::FlowId, time::Timestamp};

/// What the identity of a flow is made of, or the identity itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowIdentity {
    /// Known already.
    Known(FlowId),
    /// Site, sensor and scope as [`scope_digest`] has them, the tuple, the time of the first packet to arrive, and
    /// a number for flows of one tuple that began at the same moment.
    Parts {
        /// Site, sensor and scope.
        scope: [u8; 8],
        /// Scope number and tuple.
        key: FlowKey,
        /// First packet to arrive.
        created: Timestamp,
        /// Number.
        serial: u16,
    },
}

impl FlowIdentity {
    /// The identity: the first 128 bits of a SHA-1.
    pub fn id(&self) -> FlowId {
        let (scope, key, created, serial) = match self {
            Self::Known(id) => return *id,
            Self::Parts { scope, key, created, serial } => (scope, key, created, serial),
        };
        let mut input = ArrayVec::<u8, 56>::new();
        input.extend(*scope);
        for side in 0..2 {
            let (ip, port) = key.end(side);
            match ip {
                std::net::IpAddr::V4(v4) => input.extend(v4.octets()),
                std::net::IpAddr::V6(v6) => input.extend(v6.octets()),
            }
            input.extend(port.to_be_bytes());
        }
        input.push(key.protocol());
        input.extend(created.as_nanos().to_be_bytes());
        let tunnelled = if key.is_in_tunnel() { 0x8000 } else { 0 };
        input.extend((serial ^ tunnelled).to_be_bytes());
        let digest = Sha1::digest(&input);
        FlowId(digest.iter().take(16).fold(0, |id, &byte| id << 8 | u128::from(byte)))
    }
}

impl From<FlowId> for FlowIdentity {
    fn from(id: FlowId) -> Self {
        Self::Known(id)
    }
}

/// What stands for site, sensor and scope in identities: the same on every machine and in every run.
pub(super) fn scope_digest(site: &str, sensor: &str, scope: &str) -> [u8; 8] {
    let mut digest = Sha1::new();
    for text in [site, sensor, scope] {
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text.as_bytes());
    }
    let [a, b, c, d, e, f, g, h, ..]: [u8; 20] = digest.finalize().into();
    [a, b, c, d, e, f, g, h]
}

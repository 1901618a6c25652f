//! The identity of a flow: made from what it names when something asks for it, because most flows are counted and
//! forgotten without anybody asking.

use std::net::IpAddr;

use sha1::{Digest, Sha1};

use super::{block::Block, key::FlowKey};
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
    /// Writes parts over what was there, each in its place where there were parts: a key that is copied twice makes the
    /// second copy wait for the first.
    #[inline]
    pub(super) fn write_parts(
        &mut self,
        its_scope: [u8; 8],
        its_key: &FlowKey,
        begun: Timestamp,
        number: u16,
    ) {
        match self {
            Self::Parts { scope, key, created, serial } => {
                (*scope, *key, *created, *serial) = (its_scope, *its_key, begun, number);
            }
            Self::Known(_) => {
                *self = Self::Parts { scope: its_scope, key: *its_key, created: begun, serial: number };
            }
        }
    }

    /// The identity: the first 128 bits of a SHA-1.
    pub fn id(&self) -> FlowId {
        let (scope, key, created, serial) = match self {
            Self::Known(id) => return *id,
            Self::Parts { scope, key, created, serial } => (scope, key, created, serial),
        };
        let mut block = Block::new();
        block.put(*scope);
        for side in 0..2 {
            let (ip, port) = key.end(side);
            match ip {
                IpAddr::V4(v4) => block.put(v4.octets()),
                IpAddr::V6(v6) => block.put(v6.octets()),
            }
            block.put(port.to_be_bytes());
        }
        block.put([key.protocol()]);
        block.put(created.as_nanos().to_be_bytes());
        let tunnelled = if key.is_in_tunnel() { 0x8000 } else { 0 };
        block.put((serial ^ tunnelled).to_be_bytes());
        let [a, b, c, d, _] = block.digest().map(u128::from);
        FlowId(a << 96 | b << 64 | c << 32 | d)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_identity_is_the_sha_1_of_its_parts(
            scope: [u8; 8],
            ips: ([u8; 16], [u8; 16]),
            ports: (u16, u16),
            v6: bool,
            in_tunnel: bool,
            protocol: u8,
            created: i64,
            serial in 0..0x8000_u16,
        ) {
            let ip = |bytes: [u8; 16]| -> IpAddr {
                if v6 { bytes.into() } else { [bytes[0], bytes[1], bytes[2], bytes[3]].into() }
            };
            let mut key = FlowKey::new(1, protocol, (ip(ips.0), ports.0), (ip(ips.1), ports.1), false).0;
            if in_tunnel {
                key = key.in_tunnel();
            }
            let mut message = scope.to_vec();
            for (ip, port) in [key.end(0), key.end(1)] {
                match ip {
                    IpAddr::V4(v4) => message.extend(v4.octets()),
                    IpAddr::V6(v6) => message.extend(v6.octets()),
                }
                message.extend(port.to_be_bytes());
            }
            message.push(protocol);
            message.extend(created.to_be_bytes());
            message.extend((if in_tunnel { serial | 0x8000 } else { serial }).to_be_bytes());
            let digest: [u8; 20] = Sha1::digest(&message).into();
            let identity = FlowIdentity::Parts { scope, key, created: Timestamp(created), serial };
            let id = identity.id().0.to_be_bytes();
            prop_assert_eq!(id.as_slice(), &digest[..16]);
        }
    }
}

//! 128-bit identities of flows and findings, written as 32 hexadecimal digits.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::digits;

/// What was expected where a text is not an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an identity of 32 hexadecimal digits")]
pub struct InvalidId;

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl $name {
            /// It as text.
            #[inline]
            pub fn to_text(self) -> [u8; 32] {
                let mut text = [0; 32];
                for (place, word) in text.as_chunks_mut().0.iter_mut().zip(self.0.to_be_bytes().as_chunks().0) {
                    *place = digits::hex(u32::from_be_bytes(*word));
                }
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(digits::text(&self.to_text()))
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(InvalidId);
                }
                u128::from_str_radix(text, 16).map(Self).map_err(|_| InvalidId)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(digits::text(&self.to_text()))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

identity! {
    /// Identity of one flow: a hash of site, sensor, scope, tuple and the time of its first packet. Two
    /// secretariats that use one private address share a Community ID, never a flow id.
    FlowId
}

identity! {
    /// Identity of one finding: the first 128 bits of the SHA-1 of its stable key.
    FindingId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_and_writes() {
        assert_eq!(FlowId(0xab).to_string(), format!("{:0>32}", "ab"));
        assert_eq!(format!("{:0>32}", "ab").parse(), Ok(FlowId(0xab)));
        assert_eq!("ab".parse::<FlowId>(), Err(InvalidId));
        assert_eq!(format!("+{:0>31}", "ab").parse::<FlowId>(), Err(InvalidId));
    }
}

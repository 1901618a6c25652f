//! Statements: what the collector signs beside cosignatures, its audit trail and the manifests of evidence bundles.
//! The hash of a statement is SHA-256 over its domain and then each of its parts with its length before it (64 bits,
//! little-endian); the signature covers that hash.

use ring::digest;

use crate::seal::{self, BatchHash, SigningKey};

/// What a statement is: no signature of one kind can be taken for another, nor for a seal or a cosignature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// An entry of the audit trail.
    Audit,
    /// The manifest of an evidence bundle.
    Manifest,
}

impl Domain {
    const fn bytes(self) -> &'static [u8] {
        match self {
            Self::Audit => b"onenet-audit-v1\0",
            Self::Manifest => b"onenet-manifest-v1\0",
        }
    }
}

/// The hash of a statement with these parts.
pub fn digest(domain: Domain, parts: &[&[u8]]) -> BatchHash {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(domain.bytes());
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    seal::finish(context)
}

/// The Ed25519 signature of a statement by its hash, 64 bytes.
pub fn sign(key: &SigningKey, hash: &BatchHash) -> Vec<u8> {
    key.sign(hash)
}

/// Whether `signature` is `key`'s for the statement with this hash.
pub fn holds(key: &[u8], hash: &BatchHash, signature: &[u8]) -> bool {
    seal::is_signed(key, hash, signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_laid_out_as_documented() {
        let mut bytes = b"onenet-audit-v1\0".to_vec();
        bytes.extend([2, 0, 0, 0, 0, 0, 0, 0, b'a', b'b']);
        bytes.extend([0; 8]);
        let expected = digest::digest(&digest::SHA256, &bytes);
        assert_eq!(super::digest(Domain::Audit, &[b"ab", b""]), expected.as_ref());
        // sha256("onenet-manifest-v1\0" + 01 00 00 00 00 00 00 00 + "x")
        let mut bytes = b"onenet-manifest-v1\0".to_vec();
        bytes.extend([1, 0, 0, 0, 0, 0, 0, 0, b'x']);
        let expected = digest::digest(&digest::SHA256, &bytes);
        assert_eq!(super::digest(Domain::Manifest, &[b"x"]), expected.as_ref());
    }

    #[test]
    fn a_signature_holds_for_its_key_domain_and_parts_alone() {
        let (key, _) = SigningKey::generate().expect("a key");
        let (other, _) = SigningKey::generate().expect("a key");
        let hash = super::digest(Domain::Audit, &[b"ab", b"c"]);
        let signature = sign(&key, &hash);
        assert!(holds(key.public_key(), &hash, &signature));
        assert!(!holds(other.public_key(), &hash, &signature));
        for hash in [
            super::digest(Domain::Manifest, &[b"ab", b"c"]),
            super::digest(Domain::Audit, &[b"a", b"bc"]),
            super::digest(Domain::Audit, &[b"ab"]),
        ] {
            assert!(!holds(key.public_key(), &hash, &signature));
        }
    }
}

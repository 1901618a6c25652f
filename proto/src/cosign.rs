//! Cosignatures: the collector's word, signed, that it holds the head of a sensor's chain. A sensor keeps the latest
//! one, so that a collector that was set back cannot deny what it had, and an auditor can hold both to each other.

use ring::digest;

use crate::{
    seal::{self, ALGORITHM_ED25519_SHA256, BatchHash, ChainHead, SigningKey},
    v1::Cosignature,
};

/// Domain separation of the hash: no seal can be taken for a cosignature, nor the other way round.
const DOMAIN: &[u8; 17] = b"onenet-cosign-v1\0";

/// Why a cosignature does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CosignError {
    /// By an algorithm that is not known here.
    #[error("cosignature algorithm {0} is not known, expected 1 (Ed25519 over SHA-256)")]
    UnknownAlgorithm(u32),
    /// The key is not the one that is trusted.
    #[error("the cosignature is by another key than the one that this collector enrolled with")]
    OtherKey,
    /// The signature does not fit.
    #[error("the cosignature does not fit the head and the collector's key")]
    BadSignature,
}

/// What is signed.
fn digest_of(sensor: &str, head: &ChainHead, time: i64) -> BatchHash {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(DOMAIN);
    context.update(&(sensor.len() as u64).to_le_bytes());
    context.update(sensor.as_bytes());
    context.update(&head.epoch.to_le_bytes());
    context.update(&head.sequence.to_le_bytes());
    context.update(&head.hash);
    context.update(&time.to_le_bytes());
    seal::finish(context)
}

/// Signs a head; `time` is the collector's clock, nanoseconds since the Unix epoch.
pub fn cosign(key: &SigningKey, sensor: &str, head: &ChainHead, time: i64) -> Cosignature {
    Cosignature {
        algorithm: ALGORITHM_ED25519_SHA256,
        key: key.public_key().to_vec().into(),
        time,
        signature: key.sign(&digest_of(sensor, head, time)).into(),
    }
}

/// Checks that `cosignature` is `key`'s word for this head.
pub fn verify_cosignature(
    cosignature: &Cosignature,
    key: &[u8],
    sensor: &str,
    head: &ChainHead,
) -> Result<(), CosignError> {
    if cosignature.algorithm != ALGORITHM_ED25519_SHA256 {
        return Err(CosignError::UnknownAlgorithm(cosignature.algorithm));
    }
    if cosignature.key != key {
        return Err(CosignError::OtherKey);
    }
    let digest = digest_of(sensor, head, cosignature.time);
    if seal::is_signed(key, &digest, &cosignature.signature) {
        Ok(())
    } else {
        Err(CosignError::BadSignature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: ChainHead = ChainHead { epoch: 7, sequence: 9, hash: [3; 32] };

    #[test]
    fn what_is_signed_is_laid_out_as_documented() {
        let mut bytes = b"onenet-cosign-v1\0".to_vec();
        bytes.extend([1, 0, 0, 0, 0, 0, 0, 0, b's']);
        bytes.extend([7, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([3; 32]);
        bytes.extend([5, 0, 0, 0, 0, 0, 0, 0]);
        let expected = digest::digest(&digest::SHA256, &bytes);
        assert_eq!(digest_of("s", &HEAD, 5), expected.as_ref());
    }

    #[test]
    fn a_cosignature_holds_for_its_head_sensor_time_and_key_alone() {
        let (key, _) = SigningKey::generate().expect("a key");
        let (other, _) = SigningKey::generate().expect("a key");
        let signed = cosign(&key, "boston-1", &HEAD, 5);
        let check = |signed: &Cosignature, sensor: &str, head: &ChainHead| {
            verify_cosignature(signed, key.public_key(), sensor, head)
        };
        assert_eq!(check(&signed, "boston-1", &HEAD), Ok(()));
        assert_eq!(check(&signed, "boston-2", &HEAD), Err(CosignError::BadSignature));
        for head in [
            ChainHead { epoch: 8, ..HEAD },
            ChainHead { sequence: 8, ..HEAD },
            ChainHead { hash: [4; 32], ..HEAD },
        ] {
            assert_eq!(check(&signed, "boston-1", &head), Err(CosignError::BadSignature));
        }
        let later = Cosignature { time: 6, ..signed.clone() };
        assert_eq!(check(&later, "boston-1", &HEAD), Err(CosignError::BadSignature));
        let unknown = Cosignature { algorithm: 2, ..signed.clone() };
        assert_eq!(check(&unknown, "boston-1", &HEAD), Err(CosignError::UnknownAlgorithm(2)));
        let of_other = verify_cosignature(&signed, other.public_key(), "boston-1", &HEAD);
        assert_eq!(of_other, Err(CosignError::OtherKey));
    }
}

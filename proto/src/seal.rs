//! Seals: what makes a batch provably one sensor's, whole, and in its place.
//!
//! The hash of a batch is SHA-256 over `onenet-seal-v1` NUL, the header's length (64 bits, little-endian), the
//! header bytes and the body bytes, exactly as sent. The signature covers that hash. Each header carries the
//! hash of the batch before, so that an epoch is one chain: nothing can be taken out, put in or moved.

use prost::Message;
use ring::{
    digest,
    rand::SystemRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};

use crate::v1::{BatchBody, BatchHeader, BatchKind, SealedBatch};

/// Domain separation of the hash: no other signature of this key can be taken for a seal.
const DOMAIN: &[u8; 15] = b"onenet-seal-v1\0";

/// Ed25519 (RFC 8032) over SHA-256 (FIPS 180-4).
pub const ALGORITHM_ED25519_SHA256: u32 = 1;

/// A header and a body larger than this together are refused before any work is done on them.
pub const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;

/// SHA-256 of a batch, its identity within the chain.
pub type BatchHash = [u8; 32];

/// What is wrong with a key or a seal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The stored signing key does not parse.
    #[error("the signing key is not an Ed25519 key in PKCS #8 form")]
    BadKey,
    /// The system gave no randomness.
    #[error("the system's random source failed")]
    NoRandomness,
    /// Larger than [`MAX_BATCH_BYTES`].
    #[error("a batch of {0} bytes is larger than the limit of {MAX_BATCH_BYTES}")]
    TooLarge(usize),
    /// The signature does not fit the bytes and the key.
    #[error("the signature does not fit the batch and the sensor's key")]
    BadSignature,
    /// The header does not parse.
    #[error("the batch header does not parse: {0}")]
    BadHeader(String),
    /// A signature by an algorithm that is not known here.
    #[error("seal algorithm {0} is not known, expected 1 (Ed25519 over SHA-256)")]
    UnknownAlgorithm(u32),
    /// `previous_hash` is not 32 bytes.
    #[error("the previous hash has {0} bytes, expected 32")]
    BadPreviousHash(usize),
}

/// A sensor's Ed25519 signing key.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// Makes a new key and gives it with its PKCS #8 bytes, to be stored.
    pub fn generate() -> Result<(Self, Vec<u8>), SealError> {
        let pkcs8 =
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| SealError::NoRandomness)?;
        let key = Self::from_pkcs8(pkcs8.as_ref())?;
        Ok((key, pkcs8.as_ref().to_vec()))
    }

    /// Reads a stored key.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, SealError> {
        Ed25519KeyPair::from_pkcs8(bytes).map(Self).map_err(|_| SealError::BadKey)
    }

    /// The 32 bytes of the public key.
    pub fn public_key(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    /// The signature of a hash.
    pub(crate) fn sign(&self, hash: &BatchHash) -> Vec<u8> {
        self.0.sign(hash).as_ref().to_vec()
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").finish_non_exhaustive()
    }
}

/// Where a chain stands: the last batch sealed or accepted. The default is a chain with no batch yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChainHead {
    /// Epoch of the chain.
    pub epoch: u64,
    /// Sequence of its last batch; 0 before the first.
    pub sequence: u64,
    /// Hash of its last batch; zeros before the first.
    pub hash: BatchHash,
}

/// Seals batches one after another into a chain.
#[derive(Debug)]
pub struct Sealer {
    key: SigningKey,
    sensor: String,
    head: ChainHead,
}

impl Sealer {
    /// Goes on from `head`; for a new chain a head of sequence 0 and zero hash.
    pub const fn new(key: SigningKey, sensor: String, head: ChainHead) -> Self {
        Self { key, sensor, head }
    }

    /// The last batch sealed.
    pub const fn head(&self) -> ChainHead {
        self.head
    }

    /// Seals the next batch. `wall_time` is nanoseconds since the epoch, `monotonic_time` since the start.
    pub fn seal(
        &mut self,
        body: &BatchBody,
        kind: BatchKind,
        wall_time: i64,
        monotonic_time: i64,
    ) -> SealedBatch {
        let records = body.flows.len() + body.observations.len() + body.findings.len();
        let header = BatchHeader {
            sensor: self.sensor.clone(),
            epoch: self.head.epoch,
            sequence: self.head.sequence + 1,
            previous_hash: self.head.hash.to_vec().into(),
            algorithm: ALGORITHM_ED25519_SHA256,
            wall_time,
            monotonic_time,
            kind: kind.into(),
            records: u32::try_from(records).unwrap_or(u32::MAX),
        };
        let (header, body) = (header.encode_to_vec(), body.encode_to_vec());
        let hash = hash(&header, &body);
        let signature = self.key.sign(&hash);
        self.head.sequence += 1;
        self.head.hash = hash;
        SealedBatch { header: header.into(), body: body.into(), signature: signature.into() }
    }
}

/// The hash of a batch with these exact bytes.
pub fn hash(header: &[u8], body: &[u8]) -> BatchHash {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(DOMAIN);
    context.update(&(header.len() as u64).to_le_bytes());
    context.update(header);
    context.update(body);
    finish(context)
}

/// The SHA-256 of what `context` has taken.
pub(crate) fn finish(context: digest::Context) -> BatchHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Whether `signature` is the Ed25519 signature of `hash` by `public_key`.
pub(crate) fn is_signed(public_key: &[u8], hash: &BatchHash, signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public_key).verify(hash, signature).is_ok()
}

/// A batch whose signature fits: header and hash. The body is still bytes, because what it holds is judged apart.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifiedBatch {
    /// The header.
    pub header: BatchHeader,
    /// The `previous_hash` of the header.
    pub previous_hash: BatchHash,
    /// Hash of the batch.
    pub hash: BatchHash,
}

impl VerifiedBatch {
    /// Where the chain stands after this batch.
    pub const fn head(&self) -> ChainHead {
        ChainHead { epoch: self.header.epoch, sequence: self.header.sequence, hash: self.hash }
    }

    /// Whether this batch is the next of the chain that stands at `head`.
    pub fn follows(&self, head: &ChainHead) -> bool {
        self.header.epoch == head.epoch
            && head.sequence.checked_add(1) == Some(self.header.sequence)
            && self.previous_hash == head.hash
    }
}

/// Checks size, signature and header, in that order: nothing unsigned is parsed but the algorithm it names.
pub fn verify(batch: &SealedBatch, public_key: &[u8]) -> Result<VerifiedBatch, SealError> {
    let size = batch.header.len().saturating_add(batch.body.len());
    if size > MAX_BATCH_BYTES {
        return Err(SealError::TooLarge(size));
    }
    let hash = hash(&batch.header, &batch.body);
    if !is_signed(public_key, &hash, &batch.signature) {
        return Err(SealError::BadSignature);
    }
    let header =
        BatchHeader::decode(&batch.header[..]).map_err(|error| SealError::BadHeader(error.to_string()))?;
    if header.algorithm != ALGORITHM_ED25519_SHA256 {
        return Err(SealError::UnknownAlgorithm(header.algorithm));
    }
    let previous_hash = BatchHash::try_from(&header.previous_hash[..])
        .map_err(|_| SealError::BadPreviousHash(header.previous_hash.len()))?;
    Ok(VerifiedBatch { header, previous_hash, hash })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::v1::Loss;

    fn body(count: u64) -> BatchBody {
        let loss =
            Loss { what: "flow".into(), count, bytes: 1, reason: "spool-full".into(), ..Loss::default() };
        BatchBody { losses: vec![loss], ..BatchBody::default() }
    }

    fn sealer() -> Sealer {
        let (key, _) = SigningKey::generate().expect("a key");
        Sealer::new(key, "boston-1".into(), ChainHead { epoch: 7, ..ChainHead::default() })
    }

    /// A fixed key gives fixed bytes: header and body encodings, hash and signature may never change unnoticed.
    #[test]
    fn a_known_batch_has_its_known_hash() {
        let header = BatchHeader { sensor: "s".into(), epoch: 1, sequence: 1, ..BatchHeader::default() };
        assert_eq!(header.encode_to_vec(), [0x0a, 0x01, b's', 0x10, 0x01, 0x18, 0x01]);
        // sha256("onenet-seal-v1\0" + 07 00 00 00 00 00 00 00 + 0a 01 73 10 01 18 01 + "body")
        let expected = "5f3d65a307f901028adcb0b39c26d8c816cab28e2d8a4e02d1336820c3ebaf61";
        let hex: String = hash(&header.encode_to_vec(), b"body").iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, expected);
    }

    #[test]
    fn a_chain_verifies_and_each_batch_follows_the_one_before() {
        let mut sealer = sealer();
        let public_key = sealer.key.public_key().to_vec();
        let mut head = sealer.head();
        for count in 0..5 {
            let batch = sealer.seal(&body(count), BatchKind::Records, 1, 2);
            let verified = verify(&batch, &public_key).expect("the seal fits");
            assert!(verified.follows(&head));
            assert_eq!(verified.header.sequence, count + 1);
            head = verified.head();
        }
        assert_eq!(head, sealer.head());
    }

    #[test]
    fn another_key_does_not_verify() {
        let batch = sealer().seal(&body(1), BatchKind::Records, 1, 2);
        let other = sealer();
        assert_eq!(verify(&batch, other.key.public_key()), Err(SealError::BadSignature));
    }

    #[test]
    fn a_batch_over_the_limit_is_refused_unread() {
        let batch = SealedBatch { body: vec![0; MAX_BATCH_BYTES + 1].into(), ..SealedBatch::default() };
        assert_eq!(verify(&batch, &[0; 32]), Err(SealError::TooLarge(MAX_BATCH_BYTES + 1)));
    }

    #[test]
    fn a_batch_out_of_its_place_does_not_follow() {
        let mut sealer = sealer();
        let public_key = sealer.key.public_key().to_vec();
        let start = sealer.head();
        let first = sealer.seal(&body(1), BatchKind::Records, 1, 2);
        let second = sealer.seal(&body(2), BatchKind::Records, 1, 2);
        let second = verify(&second, &public_key).expect("the seal fits");
        assert!(!second.follows(&start));
        let first = verify(&first, &public_key).expect("the seal fits");
        assert!(second.follows(&first.head()));
        assert!(!second.follows(&ChainHead { hash: [1; 32], ..first.head() }));
        assert!(!second.follows(&ChainHead { epoch: 8, ..first.head() }));
    }

    proptest! {
        #[test]
        fn any_changed_byte_breaks_the_seal(part in 0..3_usize, at in any::<prop::sample::Index>(), mask in 1..=255_u8) {
            let mut sealer = sealer();
            let public_key = sealer.key.public_key().to_vec();
            let mut batch = sealer.seal(&body(1), BatchKind::Records, 1, 2);
            let field = match part { 0 => &mut batch.header, 1 => &mut batch.body, _ => &mut batch.signature };
            let mut bytes = field.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= mask;
            *field = bytes.into();
            prop_assert_eq!(verify(&batch, &public_key), Err(SealError::BadSignature));
        }
    }
}

//! The edge plan: the address plan as the collector signs it and agents take it, over the stream of acks. It is the
//! whole plan, but of its single addresses only those with a role: these change how an edge judges a packet, and the
//! others, of which there may be a million, do not.

use onenet_core::plan::AddressPlan;
use ring::digest;

use crate::{
    seal::{self, ALGORITHM_ED25519_SHA256, BatchHash, SigningKey},
    v1::SignedPlan,
};

/// Domain separation of the hash: no other word of the collector's can be taken for a plan.
const DOMAIN: &[u8; 15] = b"onenet-plan-v1\0";

/// The body of a plan that is larger is not sent. Ten thousand prefixes and segments take some 2 MiB.
pub const MAX_PLAN_BYTES: usize = 32 * 1024 * 1024;

/// Largest ack: a plan at its limit, and what is around it.
pub const MAX_ACK_BYTES: usize = MAX_PLAN_BYTES + 64 * 1024;

/// Why a plan is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EdgePlanError {
    /// By an algorithm that is not known here.
    #[error("signature algorithm {0} is not known, expected 1 (Ed25519 over SHA-256)")]
    UnknownAlgorithm(u32),
    /// The key is not the one that is trusted.
    #[error("it is signed by another key than the one that this sensor enrolled with")]
    OtherKey,
    /// The signature does not fit.
    #[error("the signature does not fit the plan and the collector's key")]
    BadSignature,
    /// Larger than [`MAX_PLAN_BYTES`].
    #[error("its {0} bytes are more than the limit of {MAX_PLAN_BYTES}")]
    TooLarge(usize),
    /// It is sound, and not a plan as this version knows it.
    #[error("it is no address plan that this version understands, a newer collector may have made it: {0}")]
    NotUnderstood(String),
    /// It contradicts itself.
    #[error("it contradicts itself: {0}")]
    Contradiction(String),
}

/// The body that is signed: deterministic JSON, so that one plan has one hash.
pub fn encode(plan: &AddressPlan) -> Result<Vec<u8>, serde_json::Error> {
    let with_role = plan.addresses.iter().filter(|address| address.role.is_some());
    // Field by field: a million addresses are not copied only to be left out.
    serde_json::to_vec(&AddressPlan {
        secretariats: plan.secretariats.clone(),
        agencies: plan.agencies.clone(),
        prefixes: plan.prefixes.clone(),
        addresses: with_role.cloned().collect(),
        segments: plan.segments.clone(),
        public: plan.public.clone(),
        exemptions: plan.exemptions.clone(),
    })
}

/// SHA-256 of a body: what a sensor tells of the plan it goes by.
pub fn hash(body: &[u8]) -> BatchHash {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(body);
    seal::finish(context)
}

/// What is signed.
fn digest_of(body: &[u8], version: u64, time: i64) -> BatchHash {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(DOMAIN);
    context.update(&(body.len() as u64).to_le_bytes());
    context.update(body);
    context.update(&version.to_le_bytes());
    context.update(&time.to_le_bytes());
    seal::finish(context)
}

/// Signs a version; `time` is the collector's clock, nanoseconds since the Unix epoch.
pub fn sign(key: &SigningKey, body: Vec<u8>, version: u64, time: i64) -> SignedPlan {
    SignedPlan {
        version,
        time,
        algorithm: ALGORITHM_ED25519_SHA256,
        key: key.public_key().to_vec().into(),
        signature: key.sign(&digest_of(&body, version, time)).into(),
        body: body.into(),
    }
}

/// Checks that a version is `key`'s word, and reads the plan in it. Nothing of the body is read before its signature holds.
pub fn verify(signed: &SignedPlan, key: &[u8]) -> Result<AddressPlan, EdgePlanError> {
    if signed.body.len() > MAX_PLAN_BYTES {
        return Err(EdgePlanError::TooLarge(signed.body.len()));
    }
    if signed.algorithm != ALGORITHM_ED25519_SHA256 {
        return Err(EdgePlanError::UnknownAlgorithm(signed.algorithm));
    }
    if signed.key != key {
        return Err(EdgePlanError::OtherKey);
    }
    let digest = digest_of(&signed.body, signed.version, signed.time);
    if !seal::is_signed(key, &digest, &signed.signature) {
        return Err(EdgePlanError::BadSignature);
    }
    let plan: AddressPlan = serde_json::from_slice(&signed.body)
        .map_err(|error| EdgePlanError::NotUnderstood(error.to_string()))?;
    plan.check().map_err(|error| EdgePlanError::Contradiction(error.to_string()))?;
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "\
[[secretariat]]
id = 'eohhs'
[[prefix]]
cidr = '10.1.0.0/16'
secretariat = 'eohhs'
[[address]]
address = '10.1.2.1'
secretariat = 'eohhs'
role = 'vrrp'
[[address]]
address = '10.1.2.7'
secretariat = 'eohhs'
";

    fn key() -> SigningKey {
        SigningKey::generate().expect("a key").0
    }

    fn plan() -> AddressPlan {
        toml::from_str(PLAN).expect("a plan")
    }

    fn signed(key: &SigningKey, body: &[u8]) -> SignedPlan {
        sign(key, body.to_vec(), 9, 5)
    }

    #[test]
    fn what_is_signed_is_laid_out_as_documented() {
        let mut bytes = b"onenet-plan-v1\0".to_vec();
        bytes.extend([2, 0, 0, 0, 0, 0, 0, 0, b'{', b'}']);
        bytes.extend([9, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([5, 0, 0, 0, 0, 0, 0, 0]);
        let expected = digest::digest(&digest::SHA256, &bytes);
        assert_eq!(digest_of(b"{}", 9, 5), expected.as_ref());
    }

    #[test]
    fn an_edge_gets_the_addresses_with_a_role_and_always_the_same_bytes() {
        let body = encode(&plan()).expect("JSON");
        let text = r#"{"secretariat":[{"id":"eohhs"}],"prefix":[{"cidr":"10.1.0.0/16","secretariat":"eohhs","status":"active"}],"address":[{"address":"10.1.2.1","secretariat":"eohhs","status":"active","role":"vrrp"}]}"#;
        assert_eq!(std::str::from_utf8(&body), Ok(text));
        let key = key();
        let read = verify(&signed(&key, &body), key.public_key()).expect("it holds");
        assert_eq!(read.addresses.len(), 1);
        assert_eq!(encode(&read).expect("JSON"), body);
    }

    #[test]
    fn a_plan_holds_for_its_key_version_time_and_bytes_alone() {
        let key = key();
        let good = signed(&key, &encode(&plan()).expect("JSON"));
        let check = |signed: &SignedPlan| verify(signed, key.public_key()).map(drop);
        assert_eq!(check(&good), Ok(()));
        let bad = Err(EdgePlanError::BadSignature);
        assert_eq!(check(&SignedPlan { version: 10, ..good.clone() }), bad);
        assert_eq!(check(&SignedPlan { time: 6, ..good.clone() }), bad);
        let mut damaged = good.body.to_vec();
        *damaged.last_mut().expect("a byte") ^= 1;
        assert_eq!(check(&SignedPlan { body: damaged.into(), ..good.clone() }), bad);
        assert_eq!(check(&SignedPlan { signature: vec![0; 64].into(), ..good.clone() }), bad);
        assert_eq!(
            check(&SignedPlan { algorithm: 2, ..good.clone() }),
            Err(EdgePlanError::UnknownAlgorithm(2))
        );
        assert_eq!(verify(&good, self::key().public_key()).map(drop), Err(EdgePlanError::OtherKey));
        let huge = SignedPlan { body: vec![b' '; MAX_PLAN_BYTES + 1].into(), ..good };
        assert_eq!(check(&huge), Err(EdgePlanError::TooLarge(MAX_PLAN_BYTES + 1)));
    }

    #[test]
    fn a_signed_body_that_is_no_sound_plan_is_refused_with_the_reason() {
        let key = key();
        let told = |body: &str| {
            verify(&signed(&key, body.as_bytes()), key.public_key()).expect_err(body).to_string()
        };
        let newer = told(r#"{"zone":[]}"#);
        assert!(newer.contains("a newer collector may have made it: unknown field `zone`"), "{newer}");
        assert!(told("[[prefix]]").contains("no address plan"));
        assert!(told(r#"{"secretariat":[{"id":"#).contains("no address plan"));
        let nobody = told(r#"{"prefix":[{"cidr":"10.1.0.0/16","secretariat":"nobody"}]}"#);
        assert!(nobody.contains("it contradicts itself: prefix \"10.1.0.0/16\" names"), "{nobody}");
    }
}

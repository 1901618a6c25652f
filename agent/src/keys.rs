//! What makes this sensor this sensor: its TLS key and certificate, its signing key, and where it enrolled. All
//! of it is in `keys/` of the state directory, for its owner only.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use onenet_proto::seal::SigningKey;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use ring::digest::{SHA256, digest};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};

use crate::spool::disk::replace_file;

const TLS_KEY: &str = "tls.key";
const SIGNING_KEY: &str = "signing.key";
const CERTIFICATE: &str = "sensor.crt";
const AUTHORITY: &str = "ca.crt";
const ENROLMENT: &str = "enrolment.json";
const COSIGN_KEY: &str = "cosign.pub";

/// What enrolment gave beside the certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Enrolment {
    /// Name of the sensor.
    pub(crate) sensor: String,
    /// Its site.
    pub(crate) site: String,
    /// Collector it enrolled at, `https://host:port`.
    pub(crate) endpoint: String,
}

/// Everything an enrolled sensor has.
pub(crate) struct Identity {
    /// Where it enrolled, and as whom.
    pub(crate) enrolment: Enrolment,
    /// The TLS key.
    pub(crate) tls_key: PrivateKeyDer<'static>,
    /// Its certificate.
    pub(crate) certificate: CertificateDer<'static>,
    /// The authority that signed it, and the collector's.
    pub(crate) authority: CertificateDer<'static>,
    /// The signing key, PKCS #8.
    pub(crate) signing_key: Vec<u8>,
    /// The collector's key for cosignatures, 32 bytes; none where it gave none.
    pub(crate) cosign_key: Option<Vec<u8>>,
}

/// The directory of the keys.
pub(crate) struct KeyStore {
    directory: PathBuf,
}

/// SHA-256 of these bytes.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// These bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of hexadecimal digits.
fn from_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(digits).ok()?.trim();
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(pair).collect()
}

impl KeyStore {
    /// The keys of the sensor with this state directory.
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self { directory: state_dir.join("keys") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, anyhow::Error> {
        let path = self.path(name);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
            Ok(bytes) => Ok(Some(bytes)),
        }
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), anyhow::Error> {
        let path = self.path(name);
        replace_file(&path, content).with_context(|| format!("{} cannot be written", path.display()))
    }

    /// Makes the directory.
    fn create(&self) -> Result<(), anyhow::Error> {
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .with_context(|| format!("{} cannot be made", self.directory.display()))
    }

    /// The TLS key and the signing key, made where they are not there yet. They are on the disk before they are
    /// shown to anyone, so that a retry after a broken connection comes with the same ones.
    pub(crate) fn load_or_create(&self) -> Result<(KeyPair, SigningKey), anyhow::Error> {
        self.create()?;
        let tls_key = match self.read(TLS_KEY)? {
            Some(pem) => {
                let text = String::from_utf8(pem).unwrap_or_default();
                KeyPair::from_pem(&text)
                    .with_context(|| format!("{}: expected a key in PEM", self.path(TLS_KEY).display()))?
            }
            None => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("no TLS key can be made")?;
                self.write(TLS_KEY, key.serialize_pem().as_bytes())?;
                key
            }
        };
        let signing_key = match self.read(SIGNING_KEY)? {
            Some(pkcs8) => SigningKey::from_pkcs8(&pkcs8)
                .with_context(|| self.path(SIGNING_KEY).display().to_string())?,
            None => {
                let (key, pkcs8) = SigningKey::generate()?;
                self.write(SIGNING_KEY, &pkcs8)?;
                key
            }
        };
        Ok((tls_key, signing_key))
    }

    /// The authority this sensor is enrolled with, where it is.
    pub(crate) fn authority(&self) -> Result<Option<CertificateDer<'static>>, anyhow::Error> {
        let Some(pem) = self.read(AUTHORITY)? else { return Ok(None) };
        let certificate = CertificateDer::from_pem_slice(&pem)
            .with_context(|| format!("{}: expected a certificate in PEM", self.path(AUTHORITY).display()))?;
        Ok(Some(certificate))
    }

    /// Where this sensor is enrolled, where it is.
    pub(crate) fn enrolment(&self) -> Result<Option<Enrolment>, anyhow::Error> {
        let Some(bytes) = self.read(ENROLMENT)? else { return Ok(None) };
        let enrolment = serde_json::from_slice(&bytes)
            .with_context(|| format!("{}: expected an enrolment", self.path(ENROLMENT).display()))?;
        Ok(Some(enrolment))
    }

    /// The collector's key for cosignatures; none where enrolment gave none.
    pub(crate) fn cosign_key(&self) -> Result<Option<Vec<u8>>, anyhow::Error> {
        let Some(text) = self.read(COSIGN_KEY)?.filter(|text| !text.is_empty()) else { return Ok(None) };
        let key = from_hex(&text).filter(|key| key.len() == 32);
        let key = key
            .with_context(|| format!("{}: expected 64 hexadecimal digits", self.path(COSIGN_KEY).display()));
        Ok(Some(key?))
    }

    /// Stores what enrolment gave; the enrolment counts once its own file is there.
    pub(crate) fn store(
        &self,
        enrolment: &Enrolment,
        certificate: &[u8],
        authority: &[u8],
        cosign_key: &[u8],
    ) -> Result<(), anyhow::Error> {
        // Of a collector that gives none, the first one seen counts; one that is here from before would refuse it.
        self.write(COSIGN_KEY, hex(cosign_key).as_bytes())?;
        self.write(CERTIFICATE, pem("CERTIFICATE", certificate).as_bytes())?;
        self.write(AUTHORITY, pem("CERTIFICATE", authority).as_bytes())?;
        self.write(ENROLMENT, &serde_json::to_vec_pretty(enrolment)?)
    }

    /// Everything, of a sensor that has enrolled.
    pub(crate) fn identity(&self) -> Result<Identity, anyhow::Error> {
        let not_enrolled = || {
            let directory = self.directory.display();
            anyhow::anyhow!(
                "this sensor is not enrolled ({directory} holds no enrolment): run `onenet-agent enroll`"
            )
        };
        let enrolment = self.enrolment()?.ok_or_else(not_enrolled)?;
        let certificate = self.read(CERTIFICATE)?.ok_or_else(not_enrolled)?;
        let certificate = CertificateDer::from_pem_slice(&certificate).with_context(|| {
            format!("{}: expected a certificate in PEM", self.path(CERTIFICATE).display())
        })?;
        let tls_key = self.read(TLS_KEY)?.ok_or_else(not_enrolled)?;
        let tls_key = PrivateKeyDer::from_pem_slice(&tls_key)
            .with_context(|| format!("{}: expected a key in PEM", self.path(TLS_KEY).display()))?;
        let authority = self.authority()?.ok_or_else(not_enrolled)?;
        let signing_key = self.read(SIGNING_KEY)?.ok_or_else(not_enrolled)?;
        SigningKey::from_pkcs8(&signing_key).with_context(|| self.path(SIGNING_KEY).display().to_string())?;
        let cosign_key = self.cosign_key()?;
        Ok(Identity { enrolment, tls_key, certificate, authority, signing_key, cosign_key })
    }
}

/// DER as PEM (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let encoded = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_made_once_and_only_their_owner_can_read_them() {
        let state = tempfile::tempdir().unwrap();
        let store = KeyStore::new(state.path());
        let (tls, signing) = store.load_or_create().unwrap();
        let (tls_again, signing_again) = store.load_or_create().unwrap();
        assert_eq!(tls.serialize_pem(), tls_again.serialize_pem());
        assert_eq!(signing.public_key(), signing_again.public_key());
        for name in [TLS_KEY, SIGNING_KEY] {
            let mode = fs::metadata(store.path(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let error = store.identity().err().unwrap().to_string();
        assert!(error.starts_with("this sensor is not enrolled"), "{error}");
    }

    #[test]
    fn a_certificate_reads_back_from_its_pem() {
        let der = vec![7; 100];
        assert_eq!(
            CertificateDer::from_pem_slice(pem("CERTIFICATE", &der).as_bytes()).unwrap().as_ref(),
            der
        );
    }

    #[test]
    fn the_collectors_key_is_kept_as_enrolment_gave_it_and_one_that_is_none_is_named() {
        let state = tempfile::tempdir().unwrap();
        let store = KeyStore::new(state.path());
        store.create().unwrap();
        assert_eq!(store.cosign_key().unwrap(), None);
        let enrolment = Enrolment { sensor: "s".into(), site: "b".into(), endpoint: String::new() };
        store.store(&enrolment, &[1], &[2], &[0xab; 32]).unwrap();
        assert_eq!(store.cosign_key().unwrap(), Some(vec![0xab; 32]));
        store.store(&enrolment, &[1], &[2], &[]).unwrap();
        assert_eq!(store.cosign_key().unwrap(), None, "a collector that gives none has none from before");
        fs::write(store.path(COSIGN_KEY), "abc").unwrap();
        let error = store.cosign_key().unwrap_err().to_string();
        assert!(error.ends_with("cosign.pub: expected 64 hexadecimal digits"), "{error}");
    }
}

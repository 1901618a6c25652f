//! The collector's certificate authority: one ECDSA P-256 key that certifies the collector's own server key and
//! the TLS key of each sensor that enrols.

use std::{fs, path::Path};

use anyhow::Context as _;
use onenet_core::time::{NANOS_PER_SECOND, Timestamp};
use onenet_proto::config::ConfigError;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData as _, SerialNumber,
};
use ring::{
    digest::{SHA256, digest},
    rand::{SecureRandom as _, SystemRandom},
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, pem::PemObject as _};
use time::{Duration, OffsetDateTime};

use crate::store::{IssuedCertificate, Sha256};

/// Validity of the authority's own certificate.
const CA_DAYS: i64 = 20 * 365;

/// Validity of the server certificate.
const SERVER_DAYS: i64 = 5 * 365;

/// How far a certificate reaches back, so that a sensor whose clock is slow can use it at once.
const BACKDATED: Duration = Duration::hours(1);

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Sha256 {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// `bytes` as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes from the system's random source.
pub fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system's random source failed"))?;
    Ok(bytes)
}

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Pem {
    /// The certificate.
    pub certificate: String,
    /// The key, PKCS #8.
    pub key: String,
}

/// The authority: it can sign.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

fn moment(now: Timestamp) -> anyhow::Result<OffsetDateTime> {
    let (seconds, _) = now.parts();
    OffsetDateTime::from_unix_timestamp(seconds).context("the system's clock is out of range")
}

/// What all our certificates have in common.
fn params(name: &str, now: Timestamp, days: i64) -> anyhow::Result<CertificateParams> {
    let now = moment(now)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = now - BACKDATED;
    params.not_after = now + Duration::days(days);
    // The top bit stays clear, or the serial number would be negative; the next is set, or it could be zero.
    let mut serial = random::<16>()?;
    serial[0] = serial[0] & 0x3f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

impl Authority {
    /// Makes a new authority.
    pub fn create(now: Timestamp) -> anyhow::Result<(Self, Pem)> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params("One Network collector CA", now, CA_DAYS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        let pem = Pem { certificate: certificate.pem(), key: key.serialize_pem() };
        let issuer = Issuer::new(params, key);
        Ok((Self { certificate: certificate.der().clone(), issuer }, pem))
    }

    /// Reads an authority from its files.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(key)
            .map_err(|error| ConfigError::of_file(key, format!("cannot be read: {error}")))?;
        let parsed = KeyPair::from_pem(&text)
            .map_err(|error| ConfigError::of_file(key, format!("expected a private key in PEM: {error}")))?;
        let der = read_certificate(certificate)?;
        let problem = |error: rcgen::Error| {
            ConfigError::of_file(certificate, format!("expected the certificate of an authority: {error}"))
        };
        let issuer = Issuer::from_ca_cert_der(&der, parsed).map_err(problem)?;
        Ok(Self { certificate: der, issuer })
    }

    /// The authority's certificate.
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Certifies a new server key for these host names and addresses.
    pub fn issue_server(&self, names: &[String], now: Timestamp) -> anyhow::Result<Pem> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params("One Network collector", now, SERVER_DAYS)?;
        params.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Pem { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Certifies a sensor's key. Of the request only the key is taken: name and use are ours to state.
    pub fn issue_sensor(
        &self,
        sensor: &str,
        request: &SensorRequest,
        now: Timestamp,
        days: u32,
    ) -> anyhow::Result<IssuedCertificate> {
        let mut params = params(sensor, now, days.into())?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&request.0.public_key, &self.issuer)?;
        let der = certificate.der().to_vec();
        let expires = params.not_after.unix_timestamp().saturating_mul(NANOS_PER_SECOND);
        Ok(IssuedCertificate { fingerprint: sha256(&der), der, expires: Timestamp(expires) })
    }
}

/// A certificate request (PKCS #10) whose signature proves that its sender holds the key.
#[derive(Debug)]
pub struct SensorRequest(CertificateSigningRequestParams);

impl SensorRequest {
    /// Parses and verifies a request.
    pub fn verify(der: &[u8]) -> Result<Self, rcgen::Error> {
        CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der)).map(Self)
    }

    /// SHA-256 of its key, as SubjectPublicKeyInfo.
    pub fn key_hash(&self) -> Sha256 {
        sha256(&self.0.public_key.subject_public_key_info())
    }
}

/// Reads the first certificate of a PEM file.
pub fn read_certificate(file: &Path) -> Result<CertificateDer<'static>, ConfigError> {
    CertificateDer::from_pem_file(file)
        .map_err(|error| ConfigError::of_file(file, format!("expected a certificate in PEM: {error}")))
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    use super::*;

    const NOW: Timestamp = Timestamp(1_795_251_661_000_000_000);

    #[test]
    fn a_sensor_certificate_is_for_clients_by_our_authority_under_our_name() {
        let (authority, _) = Authority::create(NOW).expect("an authority");
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        // The request asks for more than it gets.
        let mut asked = CertificateParams::new(["collector.example".to_owned()]).expect("names");
        asked.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let request = asked.serialize_request(&key).expect("a request");
        let request = SensorRequest::verify(request.der()).expect("the request holds");
        assert_eq!(request.key_hash(), sha256(&key.subject_public_key_info()));
        let issued = authority.issue_sensor("boston-1", &request, NOW, 30).expect("a certificate");
        let (_, certificate) = X509Certificate::from_der(&issued.der).expect("it parses");
        let (_, ca) = X509Certificate::from_der(authority.certificate()).expect("it parses");
        assert_eq!(certificate.verify_signature(Some(ca.public_key())), Ok(()));
        assert_eq!(certificate.subject().to_string(), "CN=boston-1");
        let usage = certificate.extended_key_usage().expect("readable").expect("present").value;
        assert!(usage.client_auth && !usage.server_auth);
        assert!(certificate.subject_alternative_name().expect("readable").is_none());
        assert_eq!(certificate.validity().not_after.timestamp(), 1_795_251_661 + 30 * 86_400);
        assert_eq!(issued.expires, Timestamp(NOW.0 + 30 * 86_400 * NANOS_PER_SECOND));
        assert!(ca.is_ca() && !certificate.is_ca());
    }

    #[test]
    fn a_request_that_its_key_did_not_sign_is_refused() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let request = CertificateParams::default().serialize_request(&key).expect("a request");
        let mut der = request.der().to_vec();
        *der.last_mut().expect("a byte") ^= 1;
        assert!(SensorRequest::verify(&der).is_err());
        assert!(SensorRequest::verify(b"").is_err());
        assert!(SensorRequest::verify(&[0x30; 400]).is_err());
    }
}

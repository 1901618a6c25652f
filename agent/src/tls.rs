//! TLS towards the collector: 1.3 only, on ring. An enrolled sensor trusts the one authority it enrolled with; a
//! sensor that enrols trusts the authority whose hash is in its token.

use std::sync::Arc;

use anyhow::Context as _;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::keys::{Identity, sha256};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(authority: &CertificateDer<'_>) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone().into_owned())?;
    Ok(Arc::new(roots))
}

/// For an enrolled sensor.
pub(crate) fn client_config(identity: &Identity) -> Result<Arc<ClientConfig>, anyhow::Error> {
    let roots = roots(&identity.authority).context("the authority's certificate cannot be used")?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![identity.certificate.clone(), identity.authority.clone()],
            identity.tls_key.clone_key(),
        )
        .context("the sensor's certificate and key do not fit")?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// For a sensor that enrols: the collector must show the certificate of the authority with this SHA-256 and be
/// certified by it.
pub(crate) fn enrolment_config(authority_hash: [u8; 32]) -> Result<Arc<ClientConfig>, anyhow::Error> {
    let verifier = PinnedAuthority { hash: authority_hash, provider: provider() };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// What is said where the collector shows another authority than the token names.
pub(crate) const OTHER_AUTHORITY: &str = "the collector's authority is not the one that the token names";

/// Trusts what is certified by one authority, known by its hash alone.
#[derive(Debug)]
struct PinnedAuthority {
    hash: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| sha256(certificate) == self.hash)
            .ok_or_else(|| Error::General(OTHER_AUTHORITY.to_owned()))?;
        WebPkiServerVerifier::builder_with_provider(roots(authority)?, self.provider.clone())
            .build()
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

//! `onenet-agent enroll`: makes this sensor's keys and has the collector certify them, by a one-use token.
//!
//! A token is `<secret>.<SHA-256 of the authority's certificate in hexadecimal>`: the sensor trusts the collector
//! by that hash before it shows the secret. The keys are on the disk before the first attempt, so a retry after a
//! broken connection comes with the same ones and the collector answers it again.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use onenet_proto::{
    owner::as_owner_of,
    v1::{EnrollRequest, EnrollResponse, enrollment_client::EnrollmentClient},
};
use rcgen::{CertificateParams, DistinguishedName, DnType, PublicKeyData as _};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{
    config::{Config, ConfigArgs, Endpoint, Purpose},
    error::UsageError,
    keys::{Enrolment, KeyStore, hex, sha256},
    ship::connect::{Target, connect, describe},
    tls,
};

/// For the collector's answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Arguments of `enroll`.
#[derive(Debug, clap::Args)]
pub struct EnrollArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Collector, such as https://collector.example:7443; the configuration's unless given
    #[arg(long, value_name = "URL")]
    collector: Option<Endpoint>,
    /// Token that `onenet-collector token create` printed
    #[arg(long)]
    token: String,
    /// Certificate of the collector's authority in PEM; it must be the one that the token names
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// A token in its two parts.
struct Token<'a> {
    text: &'a str,
    authority: [u8; 32],
}

impl<'a> Token<'a> {
    fn parse(text: &'a str) -> Result<Self, UsageError> {
        let expected = "expected a token such as `onenet-collector token create` prints: a secret, a dot and 64 \
                        hexadecimal digits";
        let wrong = || UsageError(format!("--token: {expected}"));
        let (secret, digits) = text.split_once('.').ok_or_else(wrong)?;
        if secret.len() < 20 || digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut authority = [0; 32];
        for (index, byte) in authority.iter_mut().enumerate() {
            let pair = digits.get(index * 2..index * 2 + 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self { text, authority })
    }
}

/// Runs the command.
pub fn enroll(args: &EnrollArgs) -> Result<(), anyhow::Error> {
    let config = Config::load(&args.config.config, Purpose::Run)?;
    let token = Token::parse(&args.token)?;
    let stated = config.collector.as_ref();
    let endpoint = args.collector.clone().or_else(|| stated.map(|collector| collector.endpoint.clone()));
    let endpoint =
        endpoint.ok_or_else(|| UsageError("--collector: expected https://host:port".to_owned()))?;
    if let Some(path) = &args.ca {
        check_authority_file(path, &token)?;
    }
    let server_name = stated.and_then(|collector| collector.server_name.clone());
    let server_name = server_name.unwrap_or_else(|| endpoint.host.clone());
    let target = Target { endpoint, server_name, tls: tls::enrolment_config(token.authority)? };

    let keys = KeyStore::new(&config.sensor.state_dir);
    if let Some(known) = keys.authority()?
        && sha256(&known) != token.authority
    {
        anyhow::bail!(
            "this sensor is enrolled with another collector (authority {}); to move it, stop it and remove {}",
            hex(&sha256(&known)),
            config.sensor.state_dir.display()
        );
    }
    let state_dir = &config.sensor.state_dir;
    let (tls_key, signing_key) = as_owner_of(state_dir, || keys.load_or_create())?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, &*config.sensor.name);
    let request = EnrollRequest {
        token: token.text.to_owned(),
        csr_der: params.serialize_request(&tls_key)?.der().to_vec().into(),
        signing_public_key: signing_key.public_key().to_vec().into(),
        sensor: config.sensor.name.to_string(),
        site: config.sensor.site.to_string(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(ask(&target, request))?;
    check_answer(&answer, &token, &tls_key.subject_public_key_info())?;
    let enrolment = Enrolment {
        sensor: answer.sensor.clone(),
        site: answer.site.clone(),
        endpoint: target.endpoint.to_string(),
    };
    as_owner_of(state_dir, || {
        keys.store(&enrolment, &answer.certificate_der, &answer.ca_certificate_der, &answer.cosign_key)
    })?;
    println!("enrolled as {} at {} with {}", answer.sensor, answer.site, target.endpoint);
    if *answer.sensor != *config.sensor.name || *answer.site != *config.sensor.site {
        anyhow::bail!(
            "the collector knows this sensor as {} at {}: change sensor.name and sensor.site in {}",
            answer.sensor,
            answer.site,
            config.path.display()
        );
    }
    Ok(())
}

async fn ask(target: &Target, request: EnrollRequest) -> Result<EnrollResponse, anyhow::Error> {
    let channel = connect(target).await?;
    let answer = tokio::time::timeout(ANSWER_LIMIT, EnrollmentClient::new(channel).enroll(request)).await;
    match answer {
        Err(_) => anyhow::bail!("{}: no answer to the request", target.endpoint),
        Ok(Err(status)) => anyhow::bail!("{}: not enrolled: {}", target.endpoint, describe(&status)),
        Ok(Ok(answer)) => Ok(answer.into_inner()),
    }
}

fn check_authority_file(path: &std::path::Path, token: &Token<'_>) -> Result<(), anyhow::Error> {
    let certificate = CertificateDer::from_pem_file(path)
        .with_context(|| format!("{}: expected a certificate in PEM", path.display()))?;
    let hash = sha256(&certificate);
    anyhow::ensure!(
        hash == token.authority,
        "{}: SHA-256 is {}, the token names {}",
        path.display(),
        hex(&hash),
        hex(&token.authority)
    );
    Ok(())
}

/// The certificate must be of our key and of the authority that the token names.
fn check_answer(answer: &EnrollResponse, token: &Token<'_>, key: &[u8]) -> Result<(), anyhow::Error> {
    anyhow::ensure!(
        sha256(&answer.ca_certificate_der) == token.authority,
        "the collector answered with an authority that the token does not name"
    );
    let (_, certificate) = X509Certificate::from_der(&answer.certificate_der)
        .map_err(|_| anyhow::anyhow!("the collector answered with something that is no certificate"))?;
    anyhow::ensure!(
        matches!(answer.cosign_key.len(), 0 | 32),
        "the collector answered with a key for cosignatures of {} bytes, expected 32",
        answer.cosign_key.len()
    );
    anyhow::ensure!(
        certificate.public_key().raw == key,
        "the collector answered with the certificate of another key"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_the_authority() {
        let text = format!("{}.{}", "s".repeat(32), "ab".repeat(32));
        assert_eq!(Token::parse(&text).unwrap().authority, [0xab; 32]);
        let short = format!("{}.{}", "s".repeat(19), "ab".repeat(32));
        let odd = format!("{}.{}x", "s".repeat(32), "ab".repeat(31));
        for bad in ["", ".", "abc", &"a".repeat(97), &short, &odd] {
            assert!(Token::parse(bad).is_err(), "{bad}");
        }
    }
}

//! Enrolment: a one-use token against a certificate. The token names the authority's certificate by its hash, so
//! that a sensor can tell the right collector before it trusts any; only the hash of the token's secret is kept.

use std::sync::Arc;

use clap::{Args, Subcommand};
use onenet_core::time::Timestamp;
use onenet_proto::v1::{EnrollRequest, EnrollResponse, enrollment_server::Enrollment};
use tonic::{Request, Response, Status};

use crate::{
    ca::{self, Authority, SensorRequest},
    cli::{self, CliError, Place},
    clock,
    store::{self, EnrollmentRefused, Event, EventKind, NewToken, Sha256, Store},
    tls::Peer,
};

/// Arguments of `token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    #[command(subcommand)]
    action: TokenAction,
}

#[derive(Debug, Subcommand)]
enum TokenAction {
    /// Make a token by which one sensor may enrol, once; it is printed and kept nowhere.
    Create {
        /// Name of the sensor, such as boston-1.
        #[arg(long, value_parser = name)]
        sensor: String,
        /// Site of the sensor, such as boston.
        #[arg(long, value_parser = name)]
        site: String,
        /// How long the token is valid, such as 30m, 24h or 7d.
        #[arg(long, value_parser = duration, default_value = "24h", value_name = "TIME")]
        ttl: i64,
        #[command(flatten)]
        place: Place,
    },
}

/// A name that is safe everywhere: in certificates, file names and URLs.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    let first = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if first && text.len() <= 63 && text.chars().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 63 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit".to_owned())
    }
}

/// A duration in nanoseconds.
fn duration(text: &str) -> Result<i64, String> {
    let error = || "expected a number with s, m, h or d, such as 24h, of at most 365 days".to_owned();
    let split = text.len().saturating_sub(1);
    let unit = match text.get(split..) {
        Some("s") => 1,
        Some("m") => 60,
        Some("h") => 3_600,
        Some("d") => 86_400,
        _ => return Err(error()),
    };
    let number: u32 = text.get(..split).and_then(|digits| digits.parse().ok()).ok_or_else(error)?;
    let seconds = i64::from(number) * unit;
    if (1..=365 * 86_400).contains(&seconds) { Ok(seconds * 1_000_000_000) } else { Err(error()) }
}

/// Runs the command `token`.
pub fn run_token(args: &TokenArgs) -> Result<(), CliError> {
    let TokenAction::Create { sensor, site, ttl, place } = &args.action;
    let (config, store) = place.store()?;
    let ca_certificate = ca::read_certificate(&config.server.ca_certificate)?;
    let token = create_token(&store, &ca_certificate, sensor, site, *ttl, clock::now())?;
    cli::print(&format!("{token}\n"))
}

/// Makes a token and stores the hash of its secret.
pub fn create_token(
    store: &Store,
    ca_certificate: &[u8],
    sensor: &str,
    site: &str,
    ttl: i64,
    now: Timestamp,
) -> anyhow::Result<String> {
    let secret = ca::hex(&ca::random::<16>()?);
    store.add_token(&NewToken {
        hash: ca::sha256(secret.as_bytes()),
        sensor: sensor.to_owned(),
        site: site.to_owned(),
        created_at: now,
        expires_at: now.plus(ttl),
    })?;
    Ok(format!("{secret}.{}", ca::hex(&ca::sha256(ca_certificate))))
}

/// The secret's hash of a token: what stands before the dot.
fn token_hash(token: &str) -> Sha256 {
    let secret = token.split_once('.').map_or(token, |(secret, _)| secret);
    ca::sha256(secret.as_bytes())
}

/// The service that sensors enrol at.
#[derive(Debug)]
pub struct EnrollmentService {
    store: Store,
    authority: Arc<Authority>,
    certificate_days: u32,
}

impl EnrollmentService {
    /// Serves enrolment from `store`, with certificates of `authority` valid for so many days.
    pub const fn new(store: Store, authority: Arc<Authority>, certificate_days: u32) -> Self {
        Self { store, authority, certificate_days }
    }
}

#[tonic::async_trait]
impl Enrollment for EnrollmentService {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        let address = request.extensions().get::<Peer>().map(|peer| peer.address.to_string());
        let address = address.unwrap_or_default();
        let request = request.into_inner();
        let (authority, days) = (Arc::clone(&self.authority), self.certificate_days);
        let answer =
            self.store.call(move |store| Ok(enroll(store, &authority, days, &request, &address))).await;
        match answer {
            Ok(response) => response.map(Response::new),
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }
}

/// Answers one request. It blocks.
fn enroll(
    store: &Store,
    authority: &Authority,
    days: u32,
    request: &EnrollRequest,
    address: &str,
) -> Result<EnrollResponse, Status> {
    let now = clock::now();
    let certificate_request = SensorRequest::verify(&request.csr_der).map_err(|error| {
        Status::invalid_argument(format!("csr_der: expected a PKCS #10 request: {error}"))
    })?;
    let signing_key: [u8; 32] = request.signing_public_key[..].try_into().map_err(|_| {
        let length = request.signing_public_key.len();
        Status::invalid_argument(format!("signing_public_key: {length} bytes, expected 32 (Ed25519)"))
    })?;
    let enrollment = store::Enrollment {
        token_hash: token_hash(&request.token),
        key_hash: certificate_request.key_hash(),
        signing_key,
        sensor: request.sensor.clone(),
        site: request.site.clone(),
        now,
    };
    let issue = |sensor: &str| {
        authority.issue_sensor(sensor, &certificate_request, now, days).map_err(|error| error.to_string())
    };
    let answer = store.enroll(&enrollment, issue).map_err(|error| Status::unavailable(error.to_string()))?;
    match answer {
        Ok(enrolled) => {
            tracing::info!(sensor = enrolled.sensor, address, "enrolled");
            Ok(EnrollResponse {
                cosign_key: store.cosigner().public_key().to_vec().into(),
                sensor: enrolled.sensor,
                site: enrolled.site,
                certificate_der: enrolled.certificate.into(),
                ca_certificate_der: authority.certificate().to_vec().into(),
            })
        }
        Err(refused) => {
            tracing::warn!(address, "enrolment refused: {refused}");
            record_refusal(store, &refused, &enrollment, address);
            Err(status_of(&refused))
        }
    }
}

/// Records a refusal, except of an unknown token: anyone can send those, and the record is kept for ever.
fn record_refusal(store: &Store, refused: &EnrollmentRefused, enrollment: &store::Enrollment, address: &str) {
    if *refused == EnrollmentRefused::UnknownToken {
        return;
    }
    let event = Event {
        time: enrollment.now,
        kind: EventKind::EnrollmentRefused,
        sensor: enrollment.sensor.clone(),
        batch: None,
        message: format!("from {address}: {refused}"),
    };
    if let Err(error) = store.record_event(&event) {
        tracing::error!("the refusal could not be recorded: {error}");
    }
}

fn status_of(refused: &EnrollmentRefused) -> Status {
    let message = refused.to_string();
    match refused {
        EnrollmentRefused::UnknownToken => Status::unauthenticated(message),
        EnrollmentRefused::Expired(_)
        | EnrollmentRefused::Used(_)
        | EnrollmentRefused::OtherSensor { .. }
        | EnrollmentRefused::OtherSite { .. } => Status::permission_denied(message),
        EnrollmentRefused::Certificate(_) => Status::internal(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_is_a_number_with_its_unit() {
        assert_eq!(duration("90s"), Ok(90_000_000_000));
        assert_eq!(duration("24h"), Ok(86_400_000_000_000));
        assert_eq!(duration("365d"), Ok(31_536_000_000_000_000));
        for bad in ["", "h", "0h", "366d", "-1h", "1w", "1.5h", "4294967295d", "é"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_is_safe_everywhere() {
        assert!(name("boston-1").is_ok());
        let long = "a".repeat(64);
        for bad in ["", "-a", "Boston", "a b", "a/b", "é", long.as_str()] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}

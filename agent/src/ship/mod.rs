//! Ships what is durable: one stream to the collector, resumed where the collector says it stands, with a bounded
//! number of batches on the way, and again after every break. The spool keeps everything until it is acked.
//!
//! # Whom an ack is taken from
//! Each cosignature is verified, against the key that enrolment gave or else the first one seen, and the latest is kept
//! in the spool's state. A collector whose cosignature does not hold, or that answers with a head older than the one it
//! cosigned or with another hash for it, is not trusted: nothing is sent, acked or sealed anew, until an operator looks
//! at it. `onenet-agent spool accept-head` leaves the acceptance of a head in the spool, for this module to take up.

mod accept;
mod backoff;
pub(crate) mod connect;
mod resume;
mod session;

#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use onenet_proto::seal::ChainHead;
use tonic::Code;

pub(crate) use accept::Acceptance;
pub(crate) use resume::{Anew, Resume, resume};

use self::{backoff::Backoff, connect::Target, session::Session};
use crate::{plan::Plans, spool::Shared};

/// First and longest wait between two attempts.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How often a reason that stays the same is logged.
const REPEAT_INTERVAL: Duration = Duration::from_secs(300);
/// For the next ack where nothing else is stated.
pub(crate) const ACK_LIMIT: Duration = Duration::from_secs(30);
/// How often an operator's acceptance is looked for.
const ACCEPTANCE_INTERVAL: Duration = Duration::from_secs(1);
/// How long to wait where only an operator can help.
const OPERATOR_WAIT: Duration = Duration::from_secs(30);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionEnd {
    /// The network, the collector's restart, or anything else that passes.
    #[error("{0}")]
    Transient(String),
    /// The collector refuses this sensor until somebody acts.
    #[error("{0}")]
    Refused(String),
    /// What the collector says of its head cannot be: it was set back, or somebody else speaks for it.
    #[error("{message}")]
    Untrusted {
        /// Why.
        message: String,
        /// Whether an operator can accept its head.
        set_back: bool,
    },
    /// The spool cannot be read.
    #[error("the spool cannot be read: {0}")]
    Spool(#[from] std::io::Error),
}

impl From<tonic::Status> for SessionEnd {
    fn from(status: tonic::Status) -> Self {
        let text = connect::describe(&status);
        match status.code() {
            Code::Unauthenticated => {
                Self::Refused(format!("the collector does not know this sensor: {text}"))
            }
            Code::PermissionDenied => Self::Refused(format!("the collector refuses this sensor: {text}")),
            Code::FailedPrecondition | Code::InvalidArgument => {
                Self::Refused(format!("the collector refuses a batch: {text}"))
            }
            _ => Self::Transient(text),
        }
    }
}

/// State of the connection, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConnectionState {
    /// Whether a stream is open and its first ack has come.
    pub(crate) connected: bool,
    /// Streams opened so far.
    pub(crate) sessions: u64,
    /// Why the last attempt or stream ended; none while all is well.
    pub(crate) last_error: Option<String>,
    /// Batches on the way to the collector.
    pub(crate) in_flight: u64,
    /// Why the collector is not trusted, where it is not.
    pub(crate) untrusted: Option<String>,
    /// Whether that is a head that an operator can accept.
    pub(crate) set_back: bool,
}

/// State of the connection, shared with those who tell it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connection(Arc<Mutex<ConnectionState>>);

impl Connection {
    /// The state now.
    pub(crate) fn state(&self) -> ConnectionState {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut ConnectionState)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Asks whoever seals to seal anew what the collector cannot take as it is; done when the call returns.
pub(crate) type SealAnew = Arc<dyn Fn(Anew) -> Result<(), String> + Send + Sync>;

/// Asks whoever seals to give up the cosigned head for the one that the collector holds, and to tell so; done when the
/// call returns.
pub(crate) type AcceptHead = Arc<dyn Fn(ChainHead, String) -> Result<(), String> + Send + Sync>;

/// Everything that shipping needs.
pub(crate) struct Shipper {
    /// Name of the sensor.
    pub(crate) sensor: String,
    /// Where its plans go.
    pub(crate) plans: Arc<Plans>,
    /// The collector's key for cosignatures, where enrolment gave it.
    pub(crate) cosign_key: Option<Vec<u8>>,
    /// For the next ack while batches are on the way: a collector that commits nothing for so long is as good as gone.
    pub(crate) ack_limit: Duration,
    /// Where an operator's acceptance is found.
    pub(crate) acceptance: Acceptance,
    /// What to do with it.
    pub(crate) accept_head: AcceptHead,
    /// Where to.
    pub(crate) target: Target,
    /// What.
    pub(crate) spool: Arc<Shared>,
    /// How it is going.
    pub(crate) connection: Connection,
    /// What to do where the chains do not meet.
    pub(crate) seal_anew: SealAnew,
}

impl Shipper {
    /// Ships for ever. Dropping the future ends it at any point without harm.
    pub(crate) async fn run(self) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut told: Option<(String, Instant)> = None;
        loop {
            let mut session = Session::new(&self);
            let end = match session.run().await {
                Ok(never) => match never {},
                Err(end) => end,
            };
            if session.progressed() {
                backoff.reset();
                told = None;
            }
            let text = end.to_string();
            let (untrusted, set_back) = match &end {
                SessionEnd::Untrusted { message, set_back } => (Some(message.clone()), *set_back),
                _ => (None, false),
            };
            self.connection.change(|state| {
                // What the collector said stands until it says something else.
                let unheard = untrusted.is_none() && !session.heard();
                *state = ConnectionState {
                    sessions: state.sessions,
                    last_error: Some(text.clone()),
                    untrusted: if unheard { state.untrusted.take() } else { untrusted },
                    set_back: if unheard { state.set_back } else { set_back },
                    ..ConnectionState::default()
                };
            });
            let news = told.as_ref().is_none_or(|(last, at)| *last != text || at.elapsed() > REPEAT_INTERVAL);
            let mut wait = backoff.next(fastrand::f64());
            if matches!(end, SessionEnd::Refused(_) | SessionEnd::Untrusted { .. }) {
                wait = OPERATOR_WAIT.mul_f64(0.5 + fastrand::f64() / 2.0);
                if news {
                    tracing::error!("{text}; the spool keeps what is sealed");
                }
            } else if news {
                tracing::warn!("not connected: {text}");
            }
            if news {
                told = Some((text, Instant::now()));
            }
            self.rest(wait).await;
        }
    }

    /// Waits, but not beyond an operator's acceptance of what is waited for.
    async fn rest(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let set_back = self.connection.state().set_back;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || (set_back && self.acceptance.is_there()) {
                return;
            }
            tokio::time::sleep(if set_back { left.min(ACCEPTANCE_INTERVAL) } else { left }).await;
        }
    }
}

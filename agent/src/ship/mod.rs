//! Ships what is durable: one stream to the collector, resumed where the collector says it stands, with a bounded
//! number of batches on the way, and again after every break. The spool keeps everything until it is acked.

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

use tonic::Code;

pub(crate) use resume::{Anew, Resume, resume};

use self::{backoff::Backoff, connect::Target, session::Session};
use crate::spool::Shared;

/// First and longest wait between two attempts.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
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

/// Everything that shipping needs.
pub(crate) struct Shipper {
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
            self.connection.change(|state| {
                *state = ConnectionState {
                    sessions: state.sessions,
                    last_error: Some(text.clone()),
                    ..ConnectionState::default()
                };
            });
            let news =
                told.as_ref().is_none_or(|(last, at)| *last != text || at.elapsed() > LONGEST_WAIT * 10);
            let mut wait = backoff.next(fastrand::f64());
            if matches!(end, SessionEnd::Refused(_)) {
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
            tokio::time::sleep(wait).await;
        }
    }
}

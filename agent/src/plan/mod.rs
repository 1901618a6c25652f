//! The address plan that this sensor goes by: its own, from the configuration, or the collector's, which comes signed
//! over the stream of acks.
//!
//! # What is taken
//! A version whose signature holds under the key that enrolment gave, greater than the one held, whose body is a plan
//! that this version of the agent understands whole and that does not contradict itself. Anything else is refused: it
//! is counted, logged once, told by `status`, and the plan held goes on, as does the stream. A plan that is understood in
//! part would judge packets by a part of it, so one field that is not known refuses it.
//!
//! # What is kept
//! `plan.signed` in the state directory is the version held, as it came: its signature is checked again at every start.
//! It is there, durably, before the version counts as held. `plan.run` is the version that the last run of captures
//! began with: the same captures must give the same records after a restart, whatever version has come since (see
//! [`crate::run`]).

pub(crate) mod state;
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use onenet_core::plan::AddressPlan;
use onenet_proto::{
    edge_plan::{self, EdgePlanError, MAX_ACK_BYTES},
    seal::BatchHash,
    v1::{PlanHeld, SignedPlan},
};
use prost::Message as _;

pub(crate) use state::PlanState;

use crate::{config::PlanSource, keys::hex, spool::disk::replace_file};

const HELD: &str = "plan.signed";
const OF_RUN: &str = "plan.run";

/// Which plan a sensor goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Version of the collector's plan; 0 for the plan of the configuration.
    pub(crate) version: u64,
    /// Collector's clock when it was issued, nanoseconds since the Unix epoch.
    pub(crate) time: i64,
    /// SHA-256 of the plan as a collector would send it.
    pub(crate) sha256: BatchHash,
    /// Whether the sensor keeps to the plan of its configuration.
    pub(crate) own: bool,
}

impl From<&Held> for PlanHeld {
    fn from(held: &Held) -> Self {
        Self { version: held.version, sha256: held.sha256.to_vec().into(), own: held.own }
    }
}

/// A plan to judge packets by.
#[derive(Clone, Debug)]
pub(crate) struct InUse {
    /// The plan.
    pub(crate) plan: Arc<AddressPlan>,
    /// Which one it is.
    pub(crate) held: Held,
}

/// Why a version is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("this sensor keeps to the plan of its own configuration (plan_source)")]
    OwnPlan,
    #[error("enrolment gave no key of the collector's to check it by; enroll this sensor anew")]
    NoKey,
    #[error("{0}")]
    Unsound(#[from] EdgePlanError),
    #[error("version {0} is held")]
    Older(u64),
    #[error("another plan is held under that version")]
    OtherBody,
    #[error("{path} cannot be written: {error}")]
    NotKept { path: PathBuf, error: io::Error },
}

/// What is known of plans, shared by those who bring, use and tell them.
#[derive(Debug)]
pub(crate) struct Plans {
    directory: PathBuf,
    /// The collector's key; none where enrolment gave none.
    key: Option<Vec<u8>>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    source: PlanSource,
    /// The plan of the configuration.
    own: InUse,
    /// The collector's, where there is one.
    held: Option<InUse>,
    refused: u64,
    refusal: Option<String>,
}

fn own(plan: Arc<AddressPlan>, source: PlanSource) -> InUse {
    // A plan serialises, or else it could not have been read.
    let sha256 =
        edge_plan::encode(&plan).map_or_else(|_| BatchHash::default(), |body| edge_plan::hash(&body));
    let held = Held { sha256, own: source == PlanSource::File, ..Held::default() };
    InUse { plan, held }
}

/// Checks a version by the collector's key.
fn check(signed: &SignedPlan, key: Option<&[u8]>) -> Result<InUse, Refused> {
    let plan = edge_plan::verify(signed, key.ok_or(Refused::NoKey)?)?;
    let held = Held {
        version: signed.version,
        time: signed.time,
        sha256: edge_plan::hash(&signed.body),
        own: false,
    };
    Ok(InUse { plan: Arc::new(plan), held })
}

impl Plans {
    /// Reads what is kept in a state directory. What does not hold there is told, and as good as absent.
    pub(crate) fn open(
        directory: &Path,
        key: Option<Vec<u8>>,
        source: PlanSource,
        plan: Arc<AddressPlan>,
    ) -> Self {
        let inner = Inner { source, own: own(plan, source), held: None, refused: 0, refusal: None };
        let plans = Self { directory: directory.to_owned(), key, inner: Mutex::new(inner) };
        match plans.read(HELD) {
            Ok(held) => plans.lock().held = held,
            Err(why) => plans.refuse(&format!("{}: {why}", plans.path(HELD).display())),
        }
        plans
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn read(&self, name: &str) -> Result<Option<InUse>, String> {
        let path = self.path(name);
        let length = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata.map_err(|error| error.to_string())?.len(),
        };
        if length > MAX_ACK_BYTES as u64 {
            return Err(format!("its {length} bytes are more than the limit of {MAX_ACK_BYTES}"));
        }
        let bytes = fs::read(&path).map_err(|error| error.to_string())?;
        let signed = SignedPlan::decode(&bytes[..]).map_err(|error| error.to_string())?;
        check(&signed, self.key.as_deref()).map(Some).map_err(|why| why.to_string())
    }

    fn refuse(&self, why: &str) {
        let mut inner = self.lock();
        inner.refused = inner.refused.saturating_add(1);
        if inner.refusal.as_deref() != Some(why) {
            tracing::error!("a plan of the collector is refused, the plan held goes on: {why}");
            inner.refusal = Some(why.to_owned());
        }
    }

    /// Takes a version that the collector sent, once it is durable, or refuses it. It blocks.
    pub(crate) fn receive(&self, signed: &SignedPlan) {
        if let Err(refused) = self.take(signed) {
            self.refuse(&format!("version {}: {refused}", signed.version));
        }
    }

    fn take(&self, signed: &SignedPlan) -> Result<(), Refused> {
        if self.lock().source == PlanSource::File {
            return Err(Refused::OwnPlan);
        }
        let new = check(signed, self.key.as_deref())?;
        if let Some(held) = self.lock().held.as_ref().map(|held| held.held) {
            match new.held.version.cmp(&held.version) {
                std::cmp::Ordering::Greater => {}
                std::cmp::Ordering::Equal if new.held.sha256 == held.sha256 => return Ok(()),
                std::cmp::Ordering::Equal => return Err(Refused::OtherBody),
                std::cmp::Ordering::Less => return Err(Refused::Older(held.version)),
            }
        }
        let path = self.path(HELD);
        replace_file(&path, &signed.encode_to_vec()).map_err(|error| Refused::NotKept { path, error })?;
        tracing::info!(version = new.held.version, "the collector's address plan is kept");
        let mut inner = self.lock();
        inner.held = Some(new);
        inner.refusal = None;
        Ok(())
    }

    /// The plan to go by.
    pub(crate) fn in_use(&self) -> InUse {
        let inner = self.lock();
        let held = inner.held.as_ref().filter(|_| inner.source == PlanSource::Collector);
        held.unwrap_or(&inner.own).clone()
    }

    /// Takes over what the configuration says.
    pub(crate) fn configure(&self, source: PlanSource, plan: Arc<AddressPlan>) {
        let own = own(plan, source);
        let mut inner = self.lock();
        (inner.source, inner.own) = (source, own);
    }

    /// The plan of the last run of captures; that of the configuration where it had none of the collector's.
    pub(crate) fn of_run(&self) -> InUse {
        let read = self.read(OF_RUN).unwrap_or_else(|why| {
            tracing::warn!("{}: {why}", self.path(OF_RUN).display());
            None
        });
        let inner = self.lock();
        read.filter(|_| inner.source == PlanSource::Collector).unwrap_or_else(|| inner.own.clone())
    }

    /// Notes that a run of captures begins with the plan to go by.
    pub(crate) fn begin_run(&self) -> io::Result<()> {
        let path = self.path(OF_RUN);
        if self.in_use().held.version > 0 {
            return replace_file(&path, &fs::read(self.path(HELD))?);
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// For people, where this is the plan in use.
    pub(crate) fn state(&self, in_use: Held) -> PlanState {
        let inner = self.lock();
        PlanState {
            source: inner.source,
            in_use,
            kept: inner.held.as_ref().map(|held| held.held.version),
            refused: inner.refused,
            refusal: inner.refusal.clone(),
        }
    }
}

impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.version == 0 {
            return write!(f, "of the configuration, SHA-256 {}", hex(&self.sha256));
        }
        write!(f, "version {} of the collector's, SHA-256 {}", self.version, hex(&self.sha256))
    }
}

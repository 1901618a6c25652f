//! What the body of a batch holds, checked whole.

use bytes::Bytes;
use onenet_core::record::{FindingChange, FlowRecord, Ledger, Observation};
use onenet_proto::v1::{BatchBody, Loss};
use prost::Message as _;

/// The records of one batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Records {
    /// Flows.
    pub flows: Vec<FlowRecord>,
    /// Address observations.
    pub observations: Vec<Observation>,
    /// Changes of findings.
    pub findings: Vec<FindingChange>,
    /// The sensor's account when it sealed the batch.
    pub ledger: Option<Ledger>,
    /// What the sensor had to give up before this batch.
    pub losses: Vec<Loss>,
}

impl Records {
    /// Decodes a body; the error says which record makes no sense, and why.
    pub fn decode(body: Bytes) -> Result<Self, String> {
        let body = BatchBody::decode(body).map_err(|error| format!("the body does not parse: {error}"))?;
        let ledger = body.ledger.as_ref().map(Ledger::try_from).transpose();
        Ok(Self {
            flows: all("flow", body.flows)?,
            observations: all("observation", body.observations)?,
            findings: all("finding", body.findings)?,
            ledger: ledger.map_err(|error| format!("ledger: {error}"))?,
            losses: body.losses,
        })
    }

    /// Flows, observations and findings.
    pub fn count(&self) -> usize {
        self.flows.len() + self.observations.len() + self.findings.len()
    }

    /// Records the sensor says it lost.
    pub fn lost(&self) -> u64 {
        self.losses.iter().fold(0, |sum, loss| sum.saturating_add(loss.count))
    }
}

fn all<W, R: TryFrom<W>>(what: &str, items: Vec<W>) -> Result<Vec<R>, String>
where
    R::Error: std::fmt::Display,
{
    let convert = |(index, item)| R::try_from(item).map_err(|error| format!("{what} {index}: {error}"));
    items.into_iter().enumerate().map(convert).collect()
}

//! What the body of a batch holds, checked whole.

use bytes::Bytes;
use onenet_core::record::{FindingChange, FlowRecord, Ledger, Observation};
use onenet_proto::v1::{self, BatchBody, Loss};
use prost::Message as _;

/// A body as it is read by who does not ask for its flows: they are passed over, which costs a tenth of reading them.
/// The numbers are those of `BatchBody`.
#[derive(Clone, PartialEq, prost::Message)]
struct BodyWithoutFlows {
    #[prost(message, repeated, tag = "2")]
    observations: Vec<v1::Observation>,
    #[prost(message, repeated, tag = "3")]
    findings: Vec<v1::FindingChange>,
    #[prost(message, optional, tag = "4")]
    ledger: Option<v1::Ledger>,
    #[prost(message, repeated, tag = "5")]
    losses: Vec<Loss>,
    #[prost(message, optional, tag = "6")]
    epoch_start: Option<v1::EpochStart>,
    #[prost(message, repeated, tag = "7")]
    audit: Vec<v1::AuditEntry>,
    #[prost(message, optional, tag = "8")]
    plan: Option<v1::PlanHeld>,
}

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
    /// Why its epoch began, in the first batch of one.
    pub epoch_start: Option<v1::EpochStart>,
    /// What was done to the sensor, or by it.
    pub audit: Vec<v1::AuditEntry>,
    /// The address plan that they were judged by; none where an earlier version of the agent sealed them.
    pub plan: Option<v1::PlanHeld>,
}

impl Records {
    /// Decodes a body; the error says which record makes no sense, and why.
    pub fn decode(body: Bytes) -> Result<Self, String> {
        let body = BatchBody::decode(body).map_err(|error| format!("the body does not parse: {error}"))?;
        let BatchBody { flows, observations, findings, ledger, losses, epoch_start, audit, plan } = body;
        let rest = BodyWithoutFlows { observations, findings, ledger, losses, epoch_start, audit, plan };
        Ok(Self { flows: all("flow", flows)?, ..Self::of(rest)? })
    }

    /// The same without the flows, for who does not ask for them.
    pub(crate) fn decode_without_flows(body: Bytes) -> Result<Self, String> {
        BodyWithoutFlows::decode(body)
            .map_err(|error| format!("the body does not parse: {error}"))
            .and_then(Self::of)
    }

    fn of(body: BodyWithoutFlows) -> Result<Self, String> {
        let ledger = body.ledger.as_ref().map(Ledger::try_from).transpose();
        Ok(Self {
            flows: Vec::new(),
            observations: all("observation", body.observations)?,
            findings: all("finding", body.findings)?,
            ledger: ledger.map_err(|error| format!("ledger: {error}"))?,
            losses: body.losses,
            epoch_start: body.epoch_start,
            audit: body.audit,
            plan: body.plan,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::{body, scan};

    #[test]
    fn all_but_the_flows_is_the_same_without_them() {
        let mut body = body(&[], &[scan("boston", 900)]);
        body.flows = vec![v1::Flow { part: 3, ..v1::Flow::default() }];
        body.losses = vec![Loss { count: 2, ..Loss::default() }];
        body.epoch_start = Some(v1::EpochStart { previous_epoch: 4, ..v1::EpochStart::default() });
        body.audit = vec![v1::AuditEntry { time: 5, ..v1::AuditEntry::default() }];
        body.plan = Some(v1::PlanHeld { version: 6, ..v1::PlanHeld::default() });
        let without = BatchBody { flows: Vec::new(), ..body.clone() };
        let passed_over = Records::decode_without_flows(body.encode_to_vec().into());
        assert_eq!(passed_over, Records::decode(without.encode_to_vec().into()));
        assert!(Records::decode(body.encode_to_vec().into()).is_err(), "the flow has no sides");
    }
}

//! The records that leave the engine: flows, observations, findings and the ledger. They are plain data, so
//! that every floor can name them; `docs/records.md` states each field for those who read them as JSON.

mod finding;
mod flow;
mod id;
mod ledger;
mod observation;
mod stack;

pub use finding::{
    Change, Confidence, Evidence, FindingChange, ObservationEvidence, RuleId, Severity, Subject, UnknownRule,
    Verdict,
};
pub(crate) use flow::named_enum;
pub use flow::{
    Aggregate, ConnState, Counting, Direction, DirectionReason, EndReason, FlowRecord, FlowSide, Locality,
    Tunnel, TunnelKind,
};
pub use id::{FindingId, FlowId, InvalidId};
pub use ledger::{DropStage, Layer, Ledger, Reason};
pub use observation::{Observation, ObservationAggregate, ObservationKind, Strength, TopAddress};
pub use stack::{
    IpIdBehaviour, MAX_OPTIONS, MAX_SIGNATURES, OptionKind, Quirk, SeenSignature, StackEvidence, StackSample,
    StackSignature, TcpClock, initial_ttl,
};

/// Where the engine puts what it has made. The references live only for the call, so that a receiver that
/// writes straight into its output buffer needs no allocation.
pub trait RecordSink {
    /// A flow ended, or reported at the active timeout.
    fn flow(&mut self, record: &FlowRecord);
    /// An address was seen in use, or its counts moved on.
    fn observation(&mut self, observation: &Observation);
    /// A finding was raised, updated or closed.
    fn finding(&mut self, change: &FindingChange);

    /// Whether anybody reads the texts of flow records: `flow_id` and `community_id`, which are a SHA-1 each, and
    /// `history`. Where nobody does, the engine need not make them, and what they hold means nothing. What findings name as evidence, and the flows
    /// that carry a tunnel's, are made either way.
    fn wants_identities(&self) -> bool {
        true
    }
}

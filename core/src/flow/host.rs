//! What the flow table asks of the floor that holds it, and what it tells there.

use std::net::IpAddr;

use super::{
    event::{FlowContext, FlowEvent},
    live::{Origin, SidePlace},
};
use crate::{
    decode::InterfaceIndex,
    net::{MacAddress, Name},
    plan::Role,
    record::FlowRecord,
    time::Timestamp,
};

/// The surroundings of a flow table. Nothing here is called for a packet that only adds to counters.
pub trait FlowHost {
    /// What a side is to the plan: asked at the first packet of the flow for both sides, with the MAC address of
    /// the one that sent it, and again at the first packet of the other.
    fn side_place(&self, origin: &Origin<'_>, ip: &IpAddr, mac: Option<MacAddress>) -> SidePlace;
    /// Side of the edge that an interface is on.
    fn role(&self, interface: InterfaceIndex) -> Role;
    /// Name of an interface.
    fn interface_name(&self, interface: InterfaceIndex) -> Name;
    /// The same, written over another name, which most of the time it is already.
    fn name_interface(&self, interface: InterfaceIndex, name: &mut Name) {
        *name = self.interface_name(interface);
    }
    /// Whether anybody reads the identities and histories of records, see `RecordSink`.
    fn wants_identities(&self) -> bool {
        true
    }
    /// What a scope is called in the identity of flows: the same on every machine. The space is that of a flow
    /// in the scope.
    fn scope_name(&self, scope: u16, space: u16) -> Name;
    /// Name of a segment of the plan.
    fn segment_name(&self, segment: u16) -> Option<Name>;
    /// Name of a secretariat of the plan.
    fn secretariat_name(&self, secretariat: u16) -> Option<Name>;
    /// Whether it matters to be told that an attempt of `originator` at an address and port was added to an
    /// aggregate. In a flood the answer is no millions of times, and saves telling.
    fn hears_collapse(
        &self,
        interface: InterfaceIndex,
        originator: &IpAddr,
        responder: &(IpAddr, u16),
        secretariat: Option<u16>,
    ) -> bool {
        let _ = (interface, originator, responder, secretariat);
        true
    }
    /// Something happened to a flow of this protocol. `write` writes what is known of it over another context: where
    /// nobody listens that is spared, and where events wait it is written where they wait.
    fn tell(&mut self, event: FlowEvent, protocol: u8, now: Timestamp, write: impl FnOnce(&mut FlowContext)) {
        let _ = (protocol, now);
        let mut context = FlowContext::default();
        write(&mut context);
        self.event(event, &context);
    }
    /// Something happened to a flow.
    fn event(&mut self, event: FlowEvent, flow: &FlowContext);
    /// A flow ended, or a part of it is reported. Told before the event of the same.
    /// What is left in its place is filled anew: the record itself, or one that was told before.
    fn record(&mut self, record: &mut Box<FlowRecord>);
}

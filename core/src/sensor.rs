//! The sensor: packets and time in, records out. It wires decode, flows, observations and rules together.

use std::sync::Arc;

use crate::{
    decode::{CapturedPacket, InterfaceIndex},
    detect::DetectConfig,
    flow::FlowConfig,
    net::Name,
    plan::{AddressPlan, InterfacePlan, PlanError},
    record::{Layer, Ledger, Reason, RecordSink},
    time::Timestamp,
};

/// Everything a sensor needs to know before its first packet.
#[derive(Clone, Debug)]
pub struct SensorConfig {
    /// Site, such as `boston`.
    pub site: Name,
    /// Name of the sensor.
    pub sensor: Name,
    /// The address plan.
    pub plan: Arc<AddressPlan>,
    /// Flow table.
    pub flow: FlowConfig,
    /// Rules.
    pub detect: DetectConfig,
    /// Key of every hash table, to be drawn at random by the caller, so that nobody outside can aim collisions.
    /// Records do not depend on it.
    pub hash_seed: [u64; 4],
}

/// The engine of one sensor.
#[derive(Debug)]
pub struct Sensor {
    interfaces: Vec<InterfacePlan>,
    ledger: Ledger,
}

impl Sensor {
    /// A sensor with no interfaces and no flows.
    pub fn new(config: SensorConfig) -> Result<Self, PlanError> {
        config.plan.check()?;
        Ok(Self { interfaces: Vec::new(), ledger: Ledger::default() })
    }

    /// Makes an interface known; packets name it by the index. The same name gives the same index again.
    pub fn add_interface(&mut self, interface: InterfacePlan) -> InterfaceIndex {
        let position = self.interfaces.iter().position(|known| known.name == interface.name);
        let index = position.unwrap_or_else(|| {
            self.interfaces.push(interface);
            self.interfaces.len() - 1
        });
        InterfaceIndex(u16::try_from(index).unwrap_or(u16::MAX))
    }

    /// Takes one packet. Packet time moves on to the latest time seen and never back.
    pub fn handle_packet(&mut self, packet: &CapturedPacket<'_>, sink: &mut dyn RecordSink) {
        let _ = sink;
        self.ledger.packets += 1;
        self.ledger.wire_bytes += u64::from(packet.wire_length);
        self.ledger.count_unparsed(Layer::Link, Reason::UnknownLinkType);
    }

    /// Moves packet time on without a packet, so that timeouts run on a quiet link.
    pub fn advance(&mut self, now: Timestamp, sink: &mut dyn RecordSink) {
        let _ = (now, sink);
    }

    /// Ends every flow and tells what is pending: the capture has ended. The sensor can go on afterwards.
    pub fn finish(&mut self, sink: &mut dyn RecordSink) {
        let _ = sink;
    }

    /// Replaces plan and thresholds without losing a flow; what cannot change at run time stays.
    pub fn reload(&mut self, plan: Arc<AddressPlan>, detect: DetectConfig) -> Result<(), PlanError> {
        let _ = detect;
        plan.check()
    }

    /// Flows that are live.
    pub fn live_flows(&self) -> usize {
        0
    }

    /// The account so far.
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The account, for a source to enter what it dropped.
    pub const fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }
}

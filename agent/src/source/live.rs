//! What every source that reads interfaces while they live can do. libpcap and eBPF are two of them; the sensor
//! thread knows neither.

use std::time::Duration;

use onenet_core::{
    decode::InterfaceIndex,
    detect::HealthReport,
    record::{DropStage, RecordSink},
    sensor::Sensor,
    time::Timestamp,
};

use crate::run::SourceView;

/// One interface that is read while it lives.
///
/// Packets come in bursts, so that no interface waits long for another. Where there are several, the sensor thread
/// goes through packet time in small steps and asks each for its packets up to the next: an answer that took
/// another way than the question should not be heard before it. A source that cannot tell what it has by time, or
/// that tells counts and no packets, may leave `waiting` as it is and give in `read` whatever it has.
pub(crate) trait Live: Send {
    /// The interface.
    fn name(&self) -> &str;

    /// Hands over a burst of what has come up to this packet time; whether there was any.
    fn read(
        &mut self,
        until: Timestamp,
        interface: InterfaceIndex,
        sensor: &mut Sensor,
        sink: &mut dyn RecordSink,
    ) -> bool;

    /// Time of the oldest packet that waits to be handed over, where one does.
    fn waiting(&mut self) -> Option<Timestamp> {
        None
    }

    /// Packets up to this time have been handed over, or wait where `waiting` finds them: time may go on until
    /// there although nothing comes.
    fn quiet_until(&self) -> Timestamp;

    /// Packets up to this time are handed over whether or not it is their turn: where they wait would run over.
    fn cannot_wait(&self) -> Timestamp {
        Timestamp(i64::MIN)
    }

    /// Looks at counters, and opens an interface again that was lost; called a few times a second.
    fn look_after(&mut self, reopen_after: Duration);

    /// Packets that this source has lost or left out at a stage, since its start.
    fn drops(&self, stage: DropStage) -> u64;

    /// What each of its hooks has seen and what its interface counted meanwhile, for the rules on the sensor's health.
    fn health(&self) -> Vec<HealthReport>;

    /// How it is going.
    fn view(&self) -> SourceView;

    /// Stops capturing, once everything has been read.
    fn close(&mut self);
}

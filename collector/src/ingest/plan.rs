//! Plans to a sensor: on a stream on which it has said which one it goes by, the latest version, once, where that is a
//! later one. A sensor that has said nothing is of an earlier version, which might not be able to read so large an ack.

use std::sync::Arc;

use onenet_core::net::Name;
use onenet_proto::v1::{Ack, PlanHeld, SignedPlan};
use tokio::sync::{mpsc, watch};
use tonic::Status;

use super::Issued;

/// What one stream's plans are sent by.
pub(super) struct Sending {
    pub(super) sensor: Name,
    /// What the sensor said with its last batch.
    pub(super) told: watch::Receiver<Option<PlanHeld>>,
    pub(super) issued: Issued,
}

impl Sending {
    /// Sends plans until the stream ends. A sensor that does not read holds up nobody else.
    pub(super) async fn run(mut self, acks: mpsc::Sender<Result<Ack, Status>>, held: impl Fn() -> Ack) {
        let mut sent = 0;
        loop {
            if let Some(plan) = self.due(sent) {
                let Ok(room) = acks.reserve().await else { return };
                sent = plan.version;
                tracing::info!(sensor = %self.sensor, version = sent, "the address plan is sent");
                room.send(Ok(Ack { plan: Some((*plan).clone()), ..held() }));
            }
            let more = tokio::select! {
                more = self.told.changed() => more,
                more = self.issued.changed() => more,
                () = acks.closed() => return,
            };
            if more.is_err() {
                return;
            }
        }
    }

    /// The version to send, if there is one.
    fn due(&mut self, sent: u64) -> Option<Arc<SignedPlan>> {
        let told = self.told.borrow_and_update().clone()?;
        let issued = self.issued.borrow_and_update().clone()?;
        (!told.own && issued.version > told.version.max(sent)).then_some(issued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(version: u64, own: bool) -> Option<PlanHeld> {
        Some(PlanHeld { version, own, ..PlanHeld::default() })
    }

    fn issued(version: u64) -> Option<Arc<SignedPlan>> {
        Some(Arc::new(SignedPlan { version, ..SignedPlan::default() }))
    }

    #[test]
    fn a_version_is_sent_once_to_who_holds_an_earlier_one_and_takes_it() {
        let due = |told, issued, sent| {
            let (told, issued) = (watch::Sender::new(told), watch::Sender::new(issued));
            let mut sending =
                Sending { sensor: "boston-1".into(), told: told.subscribe(), issued: issued.subscribe() };
            sending.due(sent).map(|plan| plan.version)
        };
        assert_eq!(due(told(7, false), issued(9), 0), Some(9));
        assert_eq!(due(told(0, false), issued(9), 0), Some(9));
        assert_eq!(due(told(7, false), issued(9), 9), None, "it has been sent");
        assert_eq!(due(told(9, false), issued(9), 0), None, "it is held");
        assert_eq!(due(told(10, false), issued(9), 0), None, "no sensor takes an earlier one");
        assert_eq!(due(told(0, true), issued(9), 0), None, "it keeps to its own");
        assert_eq!(due(None, issued(9), 0), None, "an earlier version of the agent");
        assert_eq!(due(told(7, false), None, 0), None);
    }
}

//! What the collector cannot take as it is, and what an operator has accepted: sealing anew, and giving up a head.

use onenet_proto::{
    seal::{ChainHead, Sealer, SigningKey},
    v1::{BatchBody, BatchKind, SealedBatch},
};
use prost::Message as _;
use std::sync::atomic::Ordering;

use super::{
    loss::{Losses, NOT_HELD, Place},
    seal::{RETRY_INTERVAL, SealLoop},
};
use crate::{
    ship::Anew,
    spool::{Entry, Position, Reader, Start, StartReason},
};

fn unusable(error: std::io::Error) -> String {
    format!("the spool cannot be used: {error}")
}

impl SealLoop {
    /// Seals everything behind a position once more, in a new epoch, which holds once all of it is durable.
    pub(super) fn seal_anew(&mut self, anew: &Anew) -> Result<(), String> {
        let floor = self.writer.begin_epoch().map_err(unusable)?;
        let old = Position::from(&self.sealer.head());
        // Whatever the clock says, a later epoch is greater.
        let epoch = self.epoch_now().max(anew.beyond_epoch.max(old.epoch).saturating_add(1));
        let key = SigningKey::from_pkcs8(&self.settings.signing_key).map_err(|error| error.to_string())?;
        self.sealer =
            Sealer::new(key, self.settings.sensor.clone(), ChainHead { epoch, ..ChainHead::default() });
        let start = Start { reason: StartReason::SealedAnew, previous: anew.previous };
        let mut epoch_start = start.to_wire(anew.reason.clone());
        let mut reader = Reader::new(self.writer.shared().clone());
        reader.seek(anew.after);
        let mut last = anew.after;
        while let Some(Entry { header, payload }) = reader.next().map_err(unusable)? {
            if header.position > old {
                break;
            }
            self.miss(last, header.position);
            last = header.position;
            let body =
                SealedBatch::decode(&payload[..]).and_then(|sealed| BatchBody::decode(&sealed.body[..]));
            let Ok(mut body) = body else {
                self.miss_batches(header.position.epoch, header.position.sequence, header.position.sequence);
                continue;
            };
            // An epoch begins once: why an earlier one did, which the collector never heard, is told with this one.
            if let Some(earlier) = body.epoch_start.take() {
                epoch_start.detail.push_str(&format!("; before it: {} ({})", earlier.reason, earlier.detail));
            }
            self.epoch_start = Some(epoch_start.clone());
            let kind = if header.records > 0 { BatchKind::Records } else { BatchKind::Heartbeat };
            self.seal(body, kind, header.mark);
        }
        self.miss(last, Position { sequence: old.sequence.saturating_add(1), ..old });
        self.epoch_start = Some(epoch_start);
        self.seal_heartbeat_at_any_rate();
        while let Err(error) = self.writer.publish_epoch(floor, epoch, start) {
            if self.control.closing.load(Ordering::SeqCst) {
                return Err(unusable(error));
            }
            tracing::error!(%error, "a new epoch cannot be made durable; trying again");
            std::thread::sleep(RETRY_INTERVAL);
        }
        tracing::warn!(epoch, "a new epoch has begun");
        Ok(())
    }

    /// Gives up the cosigned head, because an operator accepted that the collector holds `held`; durable on return.
    pub(super) fn accept_head(&mut self, held: &ChainHead, detail: String) -> Result<(), String> {
        self.writer.set_back(held).map_err(unusable)?;
        tracing::warn!("accepted: {detail}");
        self.control.audit("head-accepted", detail);
        self.seal_heartbeat_at_any_rate();
        self.flush();
        Ok(())
    }

    /// Counts the batches between two positions as lost.
    fn miss(&mut self, last: Position, next: Position) {
        let from = if last.epoch == next.epoch { last.sequence } else { 0 };
        self.miss_batches(next.epoch, from.saturating_add(1), next.sequence.saturating_sub(1));
    }

    fn miss_batches(&mut self, epoch: u64, first: u64, last: u64) {
        let count = last.saturating_add(1).saturating_sub(first);
        let mut lost = Losses::default();
        lost.add("batch", count, 0, NOT_HELD, Place { epoch, first, last, time: self.wall_time() });
        self.lose(&lost);
    }
}

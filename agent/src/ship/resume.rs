//! Where a stream goes on: the collector says which batch it has committed last, the spool says what it holds.
//! Usually the next batch follows. Where it does not (a damaged record, a sensor or collector restored from an
//! older copy), what is not committed is sealed anew in a new epoch, and what is missing becomes a loss record.

use std::{io, sync::Arc};

use onenet_proto::seal::ChainHead;

use crate::spool::{Position, Reader, Shared};

/// How a stream goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resume {
    /// With the batch behind this one.
    From(Position),
    /// Not before the batches are sealed anew.
    Anew(Anew),
}

/// What is to be sealed anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Anew {
    /// Everything behind this position.
    pub(crate) after: Position,
    /// The last batch that this sensor knows the collector to have had: where the chain stood before.
    pub(crate) previous: ChainHead,
    /// In an epoch greater than this.
    pub(crate) beyond_epoch: u64,
    /// Why.
    pub(crate) reason: String,
}

/// Compares what the collector holds with the spool.
pub(crate) fn resume(spool: &Arc<Shared>, collector: &ChainHead) -> io::Result<Resume> {
    let held = Position::from(collector);
    let durable = spool.durable().chain;
    let ours = Position::from(&durable);
    let mut reader = Reader::new(spool.clone());
    reader.seek(held);
    // The whole record, because one that is damaged does not follow either.
    let next = reader.next()?.map(|entry| entry.header);
    let anew = |after, previous, reason: String| {
        Ok(Resume::Anew(Anew { after, previous, beyond_epoch: held.epoch.max(ours.epoch), reason }))
    };
    let behind = |next: u64| {
        let reason = format!("the collector holds batch {}, the next one here is {next}", held.sequence);
        anew(held, *collector, reason)
    };
    let acked = spool.acked();
    if held > ours {
        let reason =
            format!("the collector holds batch {}, this sensor only {}", held.sequence, ours.sequence);
        return anew(Position::from(&acked), acked, reason);
    }
    let Some(next) = next else {
        // An epoch that has no batch yet misses none.
        if held < ours && ours.sequence > 0 {
            return behind(ours.sequence.saturating_add(1));
        }
        if held == ours && collector.hash != durable.hash {
            let reason = format!("the collector holds another batch {}", held.sequence);
            return anew(Position::from(&acked), acked, reason);
        }
        return Ok(Resume::From(held));
    };
    if next.position.epoch > held.epoch && next.position.sequence == 1 {
        return Ok(Resume::From(held));
    }
    let follows = next.position.epoch == held.epoch && next.position.sequence == held.sequence + 1;
    if follows && next.previous_hash == collector.hash {
        return Ok(Resume::From(held));
    }
    if follows {
        let reason = format!("the collector holds another batch {}", held.sequence);
        let after = Position::from(&acked).min(held);
        return anew(after, acked, reason);
    }
    behind(next.position.sequence)
}

//! The spool: the agent's durable queue of sealed batches. A batch counts, and may be sent, only once it is on
//! stable storage; it is deleted only after the collector has acknowledged it.
//!
//! # On disk
//! One directory, for its owner only (directory 0700, files 0600). All numbers are little-endian.
//!
//! | file | what |
//! |---|---|
//! | `lock` | held under `flock` while an agent uses the directory |
//! | `state` | two slots of 512 bytes, at 0 and 4096 |
//! | `reserve` | bytes kept back for a full disk: 4 MiB, at most an eighth of the limit |
//! | `quarantine/` | damaged bytes, at most a sixteenth of the limit: `<segment>-<offset>.damaged`, `<segment>.segment` |
//! | `accept-head` | there while an operator's acceptance waits to be taken up: the cosigned head it gives up |
//! | `<16 hexadecimal digits>.segment` | batches, oldest first; numbers grow and are never used again |
//!
//! A **segment** opens with 24 bytes: `ONSEGM01`, its number (u64), CRC-32C of those 16 bytes (u32), zero (u32).
//! Records follow without gaps:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | `ONRB` |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | kind of batch, as on the wire |
//! | 6 | 2 | algorithm of the signature, as on the wire |
//! | 8 | 4 | length of the payload, at most [`record::MAX_PAYLOAD`] |
//! | 12 | 4 | flows + observations + findings in the batch |
//! | 16 | 8 | epoch |
//! | 24 | 8 | sequence |
//! | 32 | 32 | hash of the batch before |
//! | 64 | 32 | hash of this batch |
//! | 96 | 8 | sealed at, nanoseconds since the Unix epoch |
//! | 104 | 48 | mark: run, records of the run, flows, observations, findings of the chain, monotonic time (u64 each) |
//! | 152 | 4 | CRC-32C of the payload |
//! | 156 | 4 | CRC-32C of the 156 bytes before |
//! | 160 | … | payload: the encoded `SealedBatch` |
//!
//! A **state slot**:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | `ONSTATE2` |
//! | 8 | 24 | generation, floor, epoch (u64 each) |
//! | 32 | 48 | head: epoch, sequence (u64 each), hash |
//! | 80 | 48 | acked, as the head |
//! | 128 | 48 | the head's mark |
//! | 176 | 48 | the head that the collector cosigned last, as the head |
//! | 224 | 8 | algorithm of the cosignature (u32; 0 = there is none), zero (u32) |
//! | 232 | 32 | the collector's key |
//! | 264 | 8 | the collector's time, nanoseconds since the Unix epoch (i64) |
//! | 272 | 64 | the cosignature |
//! | 336 | 8 | why the epoch begins: 0 new, 1 state lost, 2 sealed anew (u64) |
//! | 344 | 48 | head of the chain before this epoch, as the head |
//! | 392 | 116 | zeros |
//! | 508 | 4 | CRC-32C of the 508 bytes before |
//!
//! The sound slot with the greater generation holds; a write goes to the other one. A slot of version 1 (`ONSTATE1`,
//! the first 176 bytes, twelve zeros, CRC-32C) is read, and written as version 2 at the next start.
//!
//! # Invariants
//! - What a reader is given has been through fsync. Records wait in memory until then, and one fsync serves all
//!   that came within the flush interval (100 ms unless configured).
//! - A failed write or fsync is not tried again on the same file: what the kernel holds of it is not known. The
//!   segment is cut back to what was durable and left, and the records are written to a new one.
//! - Positions never fall from record to record, except for records that such a rewrite repeats; a reader passes
//!   over what it has had.
//! - The state names a new floor durably before a segment is deleted, so that no number is used again and no
//!   half-deleted backlog is taken for a whole one.
//! - Records of an epoch later than the state's were never published; they are deleted at start. A new epoch is
//!   published in both slots before anything of the one before is deleted, so that no damage to one of them undoes it.
//! - The state names the latest cosigned head; acks below it are refused until an operator accepts that.
//!
//! - The reserve is given back when the disk is full, and taken again when there is room: heartbeats, losses, the state
//!   and deletion go on meanwhile.
//! - Damaged bytes are copied to quarantine before anything deletes them; what does not fit there is counted.
//!
//! # Recovery
//! Opening reads the first header of every segment and all of the last one, so a backlog of any size starts at
//! once. What follows the last sound record of the last segment is taken for a torn write, which was never sent, and is
//! cut off. (Should it have been durable, and damaged since, the state that an orderly end writes still knows of it; after
//! a kill nothing does, and it is only counted as torn bytes.) Elsewhere damage is passed over to the next sound header and counted; the shipper sees the missing
//! sequence and seals anew what follows (see [`crate::run`]). With no sound state slot the chain begins a new,
//! greater epoch, because what was deleted can no longer be known.

pub(crate) mod disk;
#[cfg(test)]
mod faults;
#[cfg(test)]
pub(crate) mod memory;
mod open;
#[cfg(test)]
mod outage;
mod quarantine;
mod reader;
mod record;
mod segment;
mod shared;
mod state;
mod survey;
mod writer;

#[cfg(test)]
mod tests;

use onenet_proto::seal::ChainHead;

pub(crate) use open::{Opened, Settings, on_disk, open};
pub(crate) use reader::{Entry, Reader};
pub(crate) use record::{Header, Mark};
pub(crate) use shared::{Damage, Shared, Storage};
pub(crate) use state::{Cosigned, Start, StartReason};
pub(crate) use survey::{Found, Survey, What};
pub(crate) use writer::{Batch, Writer};

#[cfg(test)]
pub(crate) use tests::scratch;

/// Place of a batch in a sensor's history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position {
    /// Epoch of the chain.
    pub(crate) epoch: u64,
    /// Sequence within the epoch, from 1; 0 before the first.
    pub(crate) sequence: u64,
}

impl From<&ChainHead> for Position {
    fn from(head: &ChainHead) -> Self {
        Self { epoch: head.epoch, sequence: head.sequence }
    }
}

/// Where the chain stands and how far the records had got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// Last batch.
    pub(crate) chain: ChainHead,
    /// Its mark.
    pub(crate) mark: Mark,
}

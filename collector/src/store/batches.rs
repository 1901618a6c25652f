//! Committed batches in the order of their commit, for whoever follows them.

use bytes::Bytes;
use onenet_core::{net::Name, time::Timestamp};
use onenet_proto::seal::BatchHash;
use rusqlite::params;

use super::{SegmentNumber, Store, StoreError};

/// A place among the committed batches: all batches up to and with this one. The default is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// The segment.
    pub segment: SegmentNumber,
    /// `batches.id` within it.
    pub batch: i64,
}

/// A batch as it was committed.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredBatch {
    /// Its place.
    pub cursor: Cursor,
    /// Who sealed it.
    pub sensor: Name,
    /// Epoch of the chain.
    pub epoch: u64,
    /// Sequence within the epoch.
    pub sequence: u64,
    /// Hash.
    pub hash: BatchHash,
    /// Header, as sealed.
    pub header: Bytes,
    /// Body, as sealed; `Records::decode` reads it.
    pub body: Bytes,
    /// Signature.
    pub signature: Bytes,
    /// Collector time of the commit.
    pub received_at: Timestamp,
    /// Why the body makes no sense, where it does not. Such a batch has its place in the chain but no records.
    pub poison: Option<String>,
}

impl Store {
    /// The batches after `cursor`, oldest first, at most `limit` of them. Once it gives none, wait for
    /// [`Store::committed`] to change.
    pub fn batches_after(&self, cursor: Cursor, limit: usize) -> Result<Vec<StoredBatch>, StoreError> {
        let mut batches = Vec::new();
        for segment in self.segments().iter().filter(|segment| segment.number >= cursor.segment) {
            let after = if segment.number == cursor.segment { cursor.batch } else { 0 };
            let left = limit.saturating_sub(batches.len());
            if left == 0 {
                break;
            }
            let number = segment.number;
            let more = segment.readers.with(|connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT id, sensor, epoch, sequence, hash, header, body, signature, received_at, poison
                     FROM batches WHERE id > ? ORDER BY id LIMIT ?",
                )?;
                let rows =
                    statement.query_map(params![after, i64::try_from(left).unwrap_or(i64::MAX)], |row| {
                        Ok(StoredBatch {
                            cursor: Cursor { segment: number, batch: row.get(0)? },
                            sensor: row.get(1)?,
                            epoch: row.get::<_, i64>(2)?.cast_unsigned(),
                            sequence: row.get::<_, i64>(3)?.cast_unsigned(),
                            hash: row.get(4)?,
                            header: row.get::<_, Vec<u8>>(5)?.into(),
                            body: row.get::<_, Vec<u8>>(6)?.into(),
                            signature: row.get::<_, Vec<u8>>(7)?.into(),
                            received_at: Timestamp(row.get(8)?),
                            poison: row.get(9)?,
                        })
                    })?;
                rows.collect::<Result<Vec<_>, _>>()
            })?;
            batches.extend(more);
        }
        Ok(batches)
    }
}

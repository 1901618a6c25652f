//! `spool export`: the batches that wait, for programs or for people.

use std::{fs::File, io::Write};

use anyhow::Context as _;
use onenet_core::{
    record::{FindingChange, FlowRecord, Observation},
    time::Timestamp,
};
use onenet_proto::seal::ChainHead;
use serde_json::{Value, json};

use super::{Batch, ExportFormat, Place};
use crate::{
    error::UsageError,
    keys::hex,
    spool::{Position, What},
};

/// Runs the command.
pub(super) fn export(
    place: &Place,
    to: &std::path::Path,
    format: ExportFormat,
    out: &mut dyn Write,
) -> Result<(), anyhow::Error> {
    let survey = place.survey()?;
    let acked = survey.state.as_ref().map_or_else(ChainHead::default, |state| state.acked);
    let to_stdout = to.as_os_str() == "-";
    let mut file;
    let target: &mut dyn Write = if to_stdout {
        out
    } else {
        let made = File::create_new(to).with_context(|| format!("{} cannot be made", to.display()));
        file =
            std::io::BufWriter::new(made.map_err(|error| match error.downcast_ref::<std::io::Error>() {
                Some(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists => {
                    UsageError(format!("--to {}: expected a file that is not there yet", to.display())).into()
                }
                _ => error,
            })?);
        &mut file
    };
    let (mut batches, mut damaged) = (0_u64, Vec::new());
    let mut last = Position::from(&acked);
    survey.walk(|found| {
        damaged.extend(place.damage(&found));
        let What::Record(header, payload) = found.what else { return Ok(()) };
        if header.position <= last {
            return Ok(());
        }
        last = header.position;
        match format {
            ExportFormat::Protobuf => {
                let mut length = Vec::new();
                prost::encoding::encode_varint(payload.len() as u64, &mut length);
                target.write_all(&length)?;
                target.write_all(&payload)?;
            }
            ExportFormat::Json => {
                let batch = Batch::decode(header, &payload)?;
                serde_json::to_writer(&mut *target, &batch_json(batch)?)?;
                target.write_all(b"\n")?;
            }
        }
        batches += 1;
        Ok(())
    })?;
    target.flush()?;
    eprintln!("{batches} batches written");
    if let Some(first) = damaged.first() {
        anyhow::bail!("{} damaged places left out, the first: {first}", damaged.len());
    }
    Ok(())
}

/// A batch as a person reads it.
fn batch_json(batch: Batch) -> Result<Value, anyhow::Error> {
    let Batch { header, sealed, body } = batch;
    fn records<W, R: TryFrom<W, Error: std::error::Error + Send + Sync + 'static> + serde::Serialize>(
        messages: Vec<W>,
    ) -> Result<Vec<Value>, anyhow::Error> {
        let value = |message| Ok(serde_json::to_value(R::try_from(message)?)?);
        messages.into_iter().map(value).collect()
    }
    let losses: Vec<Value> = body
        .losses
        .iter()
        .map(|loss| {
            json!({"what": loss.what, "count": loss.count, "bytes": loss.bytes, "reason": loss.reason,
                "epoch": loss.epoch, "first_sequence": loss.first_sequence, "last_sequence": loss.last_sequence,
                "since": Timestamp(loss.since).to_string(), "until": Timestamp(loss.until).to_string()})
        })
        .collect();
    let audit: Vec<Value> = body
        .audit
        .iter()
        .map(|entry| {
            json!({"time": Timestamp(entry.time).to_string(), "action": entry.action, "detail": entry.detail})
        })
        .collect();
    let start = body.epoch_start.as_ref().map(|start| {
        json!({"reason": start.reason, "detail": start.detail, "previous_epoch": start.previous_epoch,
            "previous_sequence": start.previous_sequence, "previous_hash": hex(&start.previous_hash)})
    });
    Ok(json!({
        "epoch": header.position.epoch,
        "sequence": header.position.sequence,
        "hash": hex(&header.hash),
        "previous_hash": hex(&header.previous_hash),
        "signature": hex(&sealed.signature),
        "sealed_at": Timestamp(header.sealed_at).to_string(),
        "epoch_start": start,
        "audit": audit,
        "losses": losses,
        "flows": records::<_, FlowRecord>(body.flows)?,
        "observations": records::<_, Observation>(body.observations)?,
        "findings": records::<_, FindingChange>(body.findings)?,
    }))
}

//! The ledger.

use onenet_core::record::{DropStage, Layer, Ledger, Reason};

use super::{InvalidField, code};
use crate::v1;

impl From<&Ledger> for v1::Ledger {
    fn from(ledger: &Ledger) -> Self {
        let counter = |(layer, reason, packets): (Layer, Reason, u64)| v1::Unparsed {
            layer: layer.code().into(),
            reason: reason.code().into(),
            packets,
        };
        let dropped = DropStage::ALL
            .iter()
            .map(|&stage| v1::Dropped { stage: stage.code().into(), packets: ledger.dropped(stage) })
            .filter(|dropped| dropped.packets > 0);
        Self {
            packets: ledger.packets,
            wire_bytes: ledger.wire_bytes,
            parsed: ledger.parsed,
            arp: ledger.arp,
            tunnels_unopened: ledger.tunnels_unopened,
            fragments_unassembled: ledger.fragments_unassembled,
            flow_records: ledger.flow_records,
            observations: ledger.observations,
            finding_changes: ledger.finding_changes,
            unparsed: ledger.unparsed().map(counter).collect(),
            dropped: dropped.collect(),
            unopened: ledger.unopened().map(counter).collect(),
            mirrored: ledger.mirrored,
            mirror_bytes: ledger.mirror_bytes,
            mirror_fragments: ledger.mirror_fragments,
        }
    }
}

impl TryFrom<&v1::Ledger> for Ledger {
    type Error = InvalidField;

    fn try_from(wire: &v1::Ledger) -> Result<Self, InvalidField> {
        let mut ledger = Self::default();
        ledger.packets = wire.packets;
        ledger.wire_bytes = wire.wire_bytes;
        ledger.parsed = wire.parsed;
        ledger.arp = wire.arp;
        ledger.tunnels_unopened = wire.tunnels_unopened;
        ledger.fragments_unassembled = wire.fragments_unassembled;
        ledger.flow_records = wire.flow_records;
        ledger.observations = wire.observations;
        ledger.finding_changes = wire.finding_changes;
        ledger.mirrored = wire.mirrored;
        ledger.mirror_bytes = wire.mirror_bytes;
        ledger.mirror_fragments = wire.mirror_fragments;
        for unparsed in &wire.unparsed {
            let layer = code("unparsed.layer", unparsed.layer, Layer::from_code)?;
            let reason = code("unparsed.reason", unparsed.reason, Reason::from_code)?;
            ledger.add_unparsed(layer, reason, unparsed.packets);
        }
        for unopened in &wire.unopened {
            let layer = code("unopened.layer", unopened.layer, Layer::from_code)?;
            let reason = code("unopened.reason", unopened.reason, Reason::from_code)?;
            ledger.add_unopened(layer, reason, unopened.packets);
        }
        for dropped in &wire.dropped {
            ledger.set_dropped(code("dropped.stage", dropped.stage, DropStage::from_code)?, dropped.packets);
        }
        Ok(ledger)
    }
}

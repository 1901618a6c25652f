//! From captures to the sensor, in batches: on one thread, or with reading and decoding on a thread of its own.
//! The sensor takes the same batches in the same order either way, so the records are the same.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use onenet_core::{
    decode::InterfaceIndex,
    net::Name,
    record::RecordSink,
    sensor::{Batch, Sensor},
};

use crate::{config::Config, interrupt::Interrupt, progress::Progress, source::CaptureSet};

/// Batches between the two threads at most.
const IN_FLIGHT: usize = 16;

/// Captures, and how they are read.
pub(crate) struct Intake<'a> {
    pub(crate) config: &'a Config,
    pub(crate) captures: &'a mut CaptureSet,
    pub(crate) progress: &'a mut Progress,
    pub(crate) interrupt: &'a Interrupt,
    /// Whether somebody may be waiting for the records of packets that have come, while no more come.
    pub(crate) live: bool,
}

/// Where records go while a capture is read.
pub(crate) trait Destination: RecordSink {
    /// Whether nobody is left to read for.
    fn unwanted(&self) -> bool;
}

impl Intake<'_> {
    /// Hands every packet to the sensor, until the captures end or somebody asks to stop.
    pub(crate) fn run(&mut self, threads: usize, sensor: &mut Sensor, to: &mut impl Destination) {
        let interfaces = sensor.interface_names().cloned().collect();
        let mut filler = Filler { intake: self, interfaces };
        if threads > 1 {
            return run_apart(&mut filler, sensor, to);
        }
        let mut batch = sensor.batch();
        while filler.fill(&mut batch) {
            sensor.handle_batch(&batch, to);
            batch.clear();
            if to.unwanted() || filler.intake.interrupt.asked() {
                break;
            }
        }
    }
}

/// Fills batches.
struct Filler<'a, 'b> {
    intake: &'a mut Intake<'b>,
    /// Names of the interfaces, in the order of their indices.
    interfaces: Vec<Name>,
}

impl Filler<'_, '_> {
    /// Fills an empty batch as far as packets come; false where there are no more.
    fn fill(&mut self, batch: &mut Batch) -> bool {
        let Self { intake: Intake { config, captures, progress, live, .. }, interfaces } = self;
        let mut packets = 0;
        while !batch.is_full() && (!*live || batch.is_empty() || captures.is_at_hand()) {
            let mut resolve = |name: &str| index_of(config, interfaces, batch, name);
            let Some(packet) = captures.next(&mut resolve) else { break };
            batch.push(&packet);
            packets += 1;
        }
        progress.packets(packets, captures);
        !batch.is_empty()
    }
}

/// The index that the sensor will give an interface.
fn index_of(config: &Config, interfaces: &mut Vec<Name>, batch: &mut Batch, name: &str) -> InterfaceIndex {
    let plan = config.interface(name);
    let index = interfaces.iter().position(|known| *known == plan.name).unwrap_or_else(|| {
        interfaces.push(plan.name.clone());
        batch.push_interface(plan);
        interfaces.len() - 1
    });
    InterfaceIndex(u16::try_from(index).unwrap_or(u16::MAX))
}

/// Reads and decodes on a thread of its own. Batches go round: filled ones this way, empty ones back.
fn run_apart(filler: &mut Filler<'_, '_>, sensor: &mut Sensor, to: &mut impl Destination) {
    let (filled, incoming) = sync_channel(IN_FLIGHT);
    let (emptied, empty) = sync_channel(IN_FLIGHT);
    for _ in 0..IN_FLIGHT {
        // There is room for all of them.
        let _ = emptied.try_send(sensor.batch());
    }
    std::thread::scope(|scope| {
        // Each side drops its ends when it stops, so that the other does not wait for it; a panic there goes on
        // here, when the scope ends.
        scope.spawn(move || fill_all(filler, &filled, &empty));
        for mut batch in incoming {
            if to.unwanted() {
                break;
            }
            sensor.handle_batch(&batch, to);
            batch.clear();
            let _ = emptied.try_send(batch);
        }
    });
}

fn fill_all(filler: &mut Filler<'_, '_>, filled: &SyncSender<Batch>, empty: &Receiver<Batch>) {
    while let Ok(mut batch) = empty.recv() {
        if !filler.fill(&mut batch) || filled.send(batch).is_err() || filler.intake.interrupt.asked() {
            return;
        }
    }
}

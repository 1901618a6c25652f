//! From captures to the sensor, in batches: on one thread, or with the flow table on a thread of its own. The sensor
//! takes the same batches in the same order either way, and the rules are told the same, so the records are the same.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use onenet_core::{
    decode::InterfaceIndex,
    net::Name,
    record::{FindingChange, FlowRecord, Observation, RecordSink},
    sensor::{Batch, Rules, Sensor, Tellings},
};

use crate::{config::Config, interrupt::Interrupt, progress::Progress, source::CaptureSet};

/// Batches that two threads share.
const BATCHES: usize = 16;
/// Gatherings of what is to be told that they share.
const TELLINGS: usize = 8;

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

/// What the thread of the flow table gives back.
enum Back {
    /// What rules and receiver of records are to be told.
    Told(Tellings),
    /// A batch that was taken, to be filled again. What came of it was told before.
    Taken(Batch),
    /// Nothing more will come.
    Stopped,
}

/// The flow table and the observer on a thread of their own; this thread reads and decodes, runs the rules and writes
/// the records.
///
/// Batches and tellings go round in fixed numbers, and every channel has room for all that can be in it. So this
/// thread waits only for the captures, or for something that comes back without its help; the other waits for this
/// one at two places, both of which end when this one does.
fn run_apart(filler: &mut Filler<'_, '_>, sensor: &mut Sensor, to: &mut impl Destination) {
    let (work, batches) = sync_channel(BATCHES);
    let (back, returned) = sync_channel(BATCHES + TELLINGS + 1);
    let (cleared, empty) = sync_channel::<Tellings>(TELLINGS);
    for _ in 1..TELLINGS {
        let _ = cleared.try_send(Tellings::default());
    }
    let tell = back.clone();
    let hand_over = Box::new(move |told| {
        let _ = tell.send(Back::Told(told));
        empty.recv().unwrap_or_default()
    });
    let free = (0..BATCHES).map(|_| sensor.batch()).collect();
    let Some(rules) = sensor.split_rules(hand_over) else { return };
    let table = &mut *sensor;
    let near = Near { rules, to, free, under_way: 0, work, returned, cleared };
    // The scope's own part owns its ends of the channels, so that a panic in it lets the other thread end; a panic
    // there goes on here.
    let rules = std::thread::scope(move |scope| {
        scope.spawn(move || take_all(table, &batches, Stop(back)));
        near.run(filler)
    });
    sensor.join_rules(rules);
}

/// Tells that nothing more will come, however a thread ends.
struct Stop(SyncSender<Back>);

impl Drop for Stop {
    fn drop(&mut self) {
        let _ = self.0.send(Back::Stopped);
    }
}

/// The part of the thread with the flow table.
fn take_all(sensor: &mut Sensor, batches: &Receiver<Batch>, back: Stop) {
    for mut batch in batches {
        sensor.handle_batch(&batch, &mut Nobody);
        sensor.hand_over();
        batch.clear();
        if back.0.send(Back::Taken(batch)).is_err() {
            return;
        }
    }
}

/// Receives nothing: a sensor without rules tells everything to them.
struct Nobody;

impl RecordSink for Nobody {
    fn flow(&mut self, _: &FlowRecord) {}
    fn observation(&mut self, _: &Observation) {}
    fn finding(&mut self, _: &FindingChange) {}
}

/// The part of the thread that reads.
struct Near<'a, D> {
    rules: Rules,
    to: &'a mut D,
    free: Vec<Batch>,
    /// Batches that the other thread has.
    under_way: usize,
    work: SyncSender<Batch>,
    returned: Receiver<Back>,
    cleared: SyncSender<Tellings>,
}

impl<D: Destination> Near<'_, D> {
    fn run(mut self, filler: &mut Filler<'_, '_>) -> Rules {
        loop {
            while let Ok(back) = self.returned.try_recv() {
                self.take(back);
            }
            if self.to.unwanted() || filler.intake.interrupt.asked() {
                break;
            }
            if filler.intake.live && !filler.intake.captures.is_at_hand() {
                self.settle();
            }
            let Some(mut batch) = self.free.pop() else { if self.wait() { continue } else { break } };
            if !filler.fill(&mut batch) || self.work.send(batch).is_err() {
                break;
            }
            self.under_way += 1;
        }
        self.settle();
        self.rules
    }

    /// Waits until everything that is under way has been told.
    fn settle(&mut self) {
        while self.under_way > 0 && self.wait() {}
    }

    /// Waits for what comes back next; false where nothing more will.
    fn wait(&mut self) -> bool {
        self.returned.recv().is_ok_and(|back| self.take(back))
    }

    fn take(&mut self, back: Back) -> bool {
        match back {
            Back::Told(mut told) => {
                self.rules.take(&told, self.to);
                told.clear();
                let _ = self.cleared.try_send(told);
            }
            Back::Taken(batch) => {
                self.under_way -= 1;
                self.free.push(batch);
            }
            Back::Stopped => return false,
        }
        true
    }
}

//! From captures to the sensor, in batches: on one thread, or with the flow table on a thread of its own. The sensor
//! takes the same batches in the same order either way, and the rules are told the same, so the records are the same.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use onenet_core::{
    decode::InterfaceIndex,
    net::Name,
    record::{FindingChange, FlowRecord, Observation, RecordSink},
    sensor::{Batch, Rules, Sensor, Tellings},
};

use crate::{config::Config, interrupt::Interrupt, progress::Progress, source::CaptureSet, tally::FlowTally};

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

    /// Gives away what counts flows, if their records are for nothing else: then they are counted where they come
    /// about, and do not cross over to another thread.
    fn give_flows(&mut self) -> Option<FlowTally> {
        None
    }

    /// Takes that back.
    fn take_flows(&mut self, _flows: FlowTally) {}
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
        loop {
            packets += captures.follow(|packet| {
                batch.push(packet);
                !batch.is_full()
            });
            if batch.is_full() || (*live && !batch.is_empty() && !captures.is_at_hand()) {
                break;
            }
            let mut resolve = |name: &str| index_of(config, interfaces, batch, name);
            let Some(packet) = captures.next(&mut resolve) else { break };
            batch.push(&packet);
            packets += 1;
            if batch.is_full() {
                break;
            }
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
    /// A batch that was taken, to be filled again. What came of it was told before, where no other batch follows.
    Taken(Batch),
    /// Nothing more will come.
    Stopped,
}

/// The flow table on a thread of its own; this thread reads and decodes, runs the rules and the observer, which the
/// flow table keeps where it must ask it, and writes the records.
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
    let mut far = Far { wants_identities: to.wants_identities(), flows: to.give_flows() };
    let Some(rules) = sensor.split_rules(hand_over, far.flows.is_some()) else {
        far.flows.into_iter().for_each(|flows| to.take_flows(flows));
        return;
    };
    let (table, receiver) = (&mut *sensor, &mut far);
    let near = Near { rules, to: &mut *to, free, under_way: 0, work, returned, cleared };
    // The scope's own part owns its ends of the channels, so that a panic in it lets the other thread end; a panic
    // there goes on here.
    let rules = std::thread::scope(move |scope| {
        scope.spawn(move || take_all(table, &batches, receiver, Stop(back)));
        near.run(filler)
    });
    sensor.join_rules(rules);
    if let Some(flows) = far.flows {
        to.take_flows(flows);
    }
}

/// Tells that nothing more will come, however a thread ends.
struct Stop(SyncSender<Back>);

impl Drop for Stop {
    fn drop(&mut self) {
        let _ = self.0.send(Back::Stopped);
    }
}

/// The part of the thread with the flow table.
fn take_all(sensor: &mut Sensor, batches: &Receiver<Batch>, receiver: &mut Far, back: Stop) {
    let mut next = batches.recv().ok();
    while let Some(mut batch) = next.take() {
        sensor.handle_batch(&batch, receiver);
        // While more is at hand it goes over as it gathers; the other thread does not wait for the last batch alone.
        next = batches.try_recv().ok();
        if next.is_none() {
            sensor.hand_over();
        }
        batch.clear();
        if back.0.send(Back::Taken(batch)).is_err() {
            return;
        }
        next = next.or_else(|| batches.recv().ok());
    }
}

/// Receives what the sensor does not tell to the rules: the records of flows, where they are only counted. What the
/// records must have is what the receiver behind the rules wanted at the beginning.
struct Far {
    wants_identities: bool,
    flows: Option<FlowTally>,
}

impl RecordSink for Far {
    fn flow(&mut self, record: &FlowRecord) {
        if let Some(flows) = &mut self.flows {
            flows.flow(record);
        }
    }
    fn observation(&mut self, _: &Observation) {}
    fn finding(&mut self, _: &FindingChange) {}

    fn wants_identities(&self) -> bool {
        self.wants_identities
    }
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
                self.rules.take(&mut told, self.to);
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

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use onenet_core::decode::{self, CapturedPacket};

    use super::*;
    use crate::{output::json_line, summary::Summary, tally::Tally};

    /// Every record as a line, in the order they came.
    #[derive(Default)]
    struct Lines(Vec<u8>);

    impl RecordSink for Lines {
        fn flow(&mut self, record: &FlowRecord) {
            json_line(&mut self.0, record);
        }

        fn observation(&mut self, observation: &Observation) {
            json_line(&mut self.0, observation);
        }

        fn finding(&mut self, change: &FindingChange) {
            json_line(&mut self.0, change);
        }
    }

    impl Destination for Lines {
        fn unwanted(&self) -> bool {
            false
        }
    }

    fn sensor(config: &Config) -> Sensor {
        config.sensor([1, 2, 3, 4]).expect("the configuration is sound")
    }

    /// Plans: none, one with claims alone, and one with segments.
    const PLANS: [&str; 3] = [
        "",
        "secretariat = [{id='eohhs'}]\nprefix = [{cidr='192.168.0.0/16', secretariat='eohhs'}]",
        "secretariat = [{id='eohhs'}, {id='anf'}]\nprefix = [{cidr='192.168.0.0/16', secretariat='eohhs'}]\n\
         segment = [{id='a', site='SITE', secretariat='eohhs'}, {id='b', site='SITE', secretariat='anf', vlan=1}]",
    ];

    fn config(plan: &str) -> Config {
        let mut config = Config::default();
        let plan = plan.replace("SITE", &config.sensor.site);
        config.plan = std::sync::Arc::new(toml::from_str(&plan).expect("the plan parses"));
        config
    }

    /// What comes of a capture packet by packet, or in batches on so many threads.
    fn read(config: &Config, paths: &[PathBuf], threads: Option<usize>, live: bool) -> (Vec<u8>, String) {
        let (mut sensor, mut lines) = (sensor(config), Lines::default());
        let mut captures = CaptureSet::open(paths, None);
        match threads {
            None => {
                while let Some(packet) =
                    captures.next(&mut |name| sensor.add_interface(config.interface(name)))
                {
                    sensor.handle_packet(&packet, &mut lines);
                }
            }
            Some(threads) => {
                let (progress, interrupt) = (&mut Progress::new(true), &Interrupt::default());
                let mut intake = Intake { config, captures: &mut captures, progress, interrupt, live };
                intake.run(threads, &mut sensor, &mut lines);
            }
        }
        sensor.finish(&mut lines);
        let ledger = serde_json::to_string(sensor.ledger()).expect("a ledger is JSON");
        (lines.0, ledger)
    }

    fn assert_same_each_way(plan: &str, paths: &[PathBuf], ways: &[(usize, bool)]) {
        let config = config(plan);
        let one_by_one = read(&config, paths, None, false);
        for &(threads, live) in ways {
            let batched = read(&config, paths, Some(threads), live);
            assert!(batched == one_by_one, "{paths:?}: {threads} threads, live: {live}, plan: {plan}");
        }
    }

    fn captures() -> Option<Vec<PathBuf>> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/captures");
        let Ok(listed) = directory.read_dir() else {
            eprintln!("SKIPPED: no captures at {}", directory.display());
            return None;
        };
        let mut captures: Vec<PathBuf> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
        captures.sort();
        captures.retain(|path| path.is_file());
        Some(captures)
    }

    #[test]
    fn every_capture_gives_the_same_in_batches_and_on_two_threads_as_packet_by_packet() {
        let Some(captures) = captures() else { return };
        for capture in &captures {
            assert_same_each_way("", std::slice::from_ref(capture), &[(1, false), (2, false)]);
        }
        for several in captures.chunks(40) {
            for plan in PLANS {
                assert_same_each_way(plan, several, &[(2, false), (2, true)]);
            }
        }
    }

    /// Changes one byte of each packet too, at a place that moves on.
    #[test]
    fn the_usual_headers_of_every_capture_read_as_any_header_does() {
        let Some(captures) = captures() else { return };
        let (mut place, mut changed, mut packets) = (0_usize, Vec::new(), 0_u64);
        for capture in captures {
            let mut set = CaptureSet::open(&[capture], None);
            while let Some(packet) = set.next(&mut |_| InterfaceIndex(0)) {
                place = place.wrapping_add(1);
                changed.clear();
                changed.extend_from_slice(packet.data);
                let range = changed.len().clamp(1, 64);
                if let Some(byte) = changed.get_mut(place % range) {
                    *byte = byte.wrapping_add(1 << (place % 8));
                }
                for data in [packet.data, &changed, changed.get(..place % range).unwrap_or_default()] {
                    let packet = CapturedPacket { data, ..packet };
                    assert_eq!(decode::decode(&packet), decode::decode_traced(&packet, &mut ()));
                    packets += 1;
                }
            }
        }
        eprintln!("{packets} packets read the same both ways");
    }

    /// Stops after its first record, as the reader of a pipe may.
    #[derive(Default)]
    struct Enough(u64);

    impl RecordSink for Enough {
        fn flow(&mut self, _: &FlowRecord) {
            self.0 += 1;
        }
        fn observation(&mut self, _: &Observation) {
            self.0 += 1;
        }
        fn finding(&mut self, _: &FindingChange) {}
    }

    impl Destination for Enough {
        fn unwanted(&self) -> bool {
            self.0 > 0
        }
    }

    /// Panics at its first record.
    struct Broken;

    impl RecordSink for Broken {
        fn flow(&mut self, _: &FlowRecord) {
            panic!("broken");
        }
        fn observation(&mut self, _: &Observation) {
            panic!("broken");
        }
        fn finding(&mut self, _: &FindingChange) {}
    }

    impl Destination for Broken {
        fn unwanted(&self) -> bool {
            false
        }
    }

    /// A capture of so many flows of one packet each.
    fn capture(directory: &Path, flows: u32) -> PathBuf {
        let mut bytes =
            vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];
        for flow in 0..flows {
            let [_, a, b, c] = flow.to_be_bytes();
            bytes.extend((1_700_000_000 + flow / 1000).to_le_bytes());
            bytes.extend([0, 0, 0, 0, 42, 0, 0, 0, 42, 0, 0, 0]);
            bytes
                .extend([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0]);
            bytes.extend([10, a, b, c, 192, 0, 2, 1, 0x12, 0x34, 0, 53, 0, 8, 0, 0]);
        }
        let path = directory.join("flows.pcap");
        std::fs::write(&path, bytes).expect("written");
        path
    }

    fn run(path: PathBuf, to: &mut impl Destination) -> Sensor {
        let config = Config::default();
        let mut sensor = sensor(&config);
        let mut captures = CaptureSet::open(&[path], None);
        let (progress, interrupt) = (&mut Progress::new(true), &Interrupt::default());
        let mut intake =
            Intake { config: &config, captures: &mut captures, progress, interrupt, live: false };
        intake.run(2, &mut sensor, to);
        sensor
    }

    #[test]
    fn more_at_once_than_goes_round_is_told_on_the_way() {
        let directory = tempfile::tempdir().expect("a directory");
        let capture = [capture(directory.path(), 20_000)];
        PLANS.iter().for_each(|plan| assert_same_each_way(plan, &capture, &[(2, false)]));
    }

    /// Only counts.
    #[derive(Default)]
    struct Counted(Tally, bool);

    impl RecordSink for Counted {
        fn flow(&mut self, record: &FlowRecord) {
            self.0.flow(record);
        }
        fn observation(&mut self, observation: &Observation) {
            self.0.observation(observation);
        }
        fn finding(&mut self, change: &FindingChange) {
            self.0.finding(change);
        }
    }

    impl Destination for Counted {
        fn unwanted(&self) -> bool {
            false
        }
        fn give_flows(&mut self) -> Option<FlowTally> {
            Some(std::mem::take(&mut self.0.of_flows))
        }
        fn take_flows(&mut self, flows: FlowTally) {
            (self.0.of_flows, self.1) = (flows, true);
        }
    }

    #[test]
    fn flows_that_are_only_counted_count_the_same_where_they_come_about() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = capture(directory.path(), 70_000);
        let summary = |threads| {
            let (config, mut counted) = (Config::default(), Counted::default());
            let mut sensor = sensor(&config);
            let mut captures = CaptureSet::open(std::slice::from_ref(&path), None);
            let (progress, interrupt) = (&mut Progress::new(true), &Interrupt::default());
            let mut intake =
                Intake { config: &config, captures: &mut captures, progress, interrupt, live: false };
            intake.run(threads, &mut sensor, &mut counted);
            assert_eq!(counted.1, threads == 2);
            let on_the_way = counted.0.of_flows.flow_records;
            sensor.finish(&mut counted);
            let summary = Summary::new(captures.reports(), sensor.ledger(), &mut counted.0);
            (on_the_way, serde_json::to_string(&summary).expect("a summary is JSON"))
        };
        let (on_the_way, one) = summary(1);
        assert!(on_the_way > 0, "some flows are to end while the capture is read");
        assert_eq!(summary(2), (on_the_way, one));
    }

    #[test]
    fn two_threads_end_when_nobody_is_left_to_read_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut enough = Enough::default();
        let sensor = run(capture(directory.path(), 20_000), &mut enough);
        assert!(enough.0 > 0 && sensor.ledger().packets < 20_000, "{:?}", sensor.ledger());
    }

    #[test]
    #[should_panic(expected = "broken")]
    fn a_panic_on_this_thread_ends_both() {
        let directory = tempfile::tempdir().expect("a directory");
        run(capture(directory.path(), 20_000), &mut Broken);
    }
}

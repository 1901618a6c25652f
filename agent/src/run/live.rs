//! The sensor thread on interfaces: bursts of packets in the order of time as far as that can be had, time on a quiet
//! link, and at a stop everything that had come until then.

use std::time::{Duration, Instant};

use onenet_core::{record::DropStage, time::Timestamp};

use super::{
    pump::{Pump, VIEW_INTERVAL},
    seal::wall_time,
    view::SourceView,
};
use crate::source::live::Live;

/// How long nothing is looked for on interfaces that gave nothing.
const IDLE_NAP: Duration = Duration::from_millis(5);
/// How often interfaces that broke are opened again.
const REOPEN_INTERVAL: Duration = Duration::from_secs(5);
/// Within so many nanoseconds of packet time, packets of several interfaces may be told out of order: a packet is
/// copied at each step.
const STEP: i64 = 1_000_000;
/// How long a stop waits at most for what had come until then.
const LAST_LOOK: Duration = Duration::from_secs(3);

/// The sources as the sensor thread has them.
pub(crate) type Sources = Vec<Box<dyn Live>>;

/// A stop: when it was asked for, in packet time, and until when it is waited.
#[derive(Clone, Copy)]
struct Ending {
    at: Timestamp,
    deadline: Instant,
}

impl Pump {
    /// Reads interfaces until told to stop, then ends every flow.
    pub(crate) fn run_live(&mut self, mut sources: Sources) {
        let mut looked = Instant::now();
        let mut ending: Option<Ending> = None;
        self.look_after_live(&mut sources);
        while !self.batcher.is_closed() {
            self.control.turn();
            if ending.is_none() && self.control.is_stopped() {
                ending = Some(Ending { at: Timestamp(wall_time()), deadline: Instant::now() + LAST_LOOK });
                self.look_after_live(&mut sources);
            }
            let (any, quiet) = self.read_live(&mut sources, ending);
            self.batcher.cut_if_due();
            if looked.elapsed() >= VIEW_INTERVAL {
                looked = Instant::now();
                self.look_after_live(&mut sources);
            }
            if let Some(ending) = ending
                && (quiet >= ending.at && !any || Instant::now() >= ending.deadline)
            {
                break;
            }
            if !any {
                self.sensor.advance(quiet, &mut self.batcher);
                std::thread::sleep(IDLE_NAP);
            }
        }
        self.look_after_live(&mut sources);
        for source in &mut sources {
            source.close();
        }
        self.finish();
        self.view.lock().ended = true;
        self.tell(|| live_views(&sources), true);
    }

    /// Takes a burst of each interface: whether there was anything, and up to when everything has been taken where
    /// there was nothing.
    fn read_live(&mut self, sources: &mut Sources, ending: Option<Ending>) -> (bool, Timestamp) {
        let last = ending.map_or(Timestamp(i64::MAX), |ending| ending.at);
        let order = if let [only] = &mut sources[..] {
            Order { until: last, quiet: only.quiet_until() }
        } else {
            Order::of(sources)
        };
        let mut any = false;
        for source in sources {
            let Self { config, sensor, batcher, .. } = self;
            let interface = sensor.add_interface(config.interface(source.name()));
            let until = order.until.max(source.cannot_wait()).min(last);
            any |= source.read(until, interface, sensor, batcher);
        }
        (any, order.quiet)
    }

    fn look_after_live(&mut self, sources: &mut Sources) {
        for source in &mut *sources {
            source.look_after(REOPEN_INTERVAL);
            for report in source.health() {
                self.sensor.handle_health(&report, &mut self.batcher);
            }
        }
        // What mirrors lost on their way the engine counts itself.
        for &stage in DropStage::ALL.iter().filter(|&&stage| stage != DropStage::Mirror) {
            let drops = sources.iter().fold(0_u64, |sum, source| sum.saturating_add(source.drops(stage)));
            self.sensor.ledger_mut().set_dropped(stage, drops);
        }
        self.reload_if_asked();
        self.tell(|| live_views(sources), true);
    }
}

/// How far packet time may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Order {
    /// Each source is asked for its packets up to here.
    until: Timestamp,
    /// Before this nothing comes any more.
    quiet: Timestamp,
}

impl Order {
    /// A step on from the oldest packet that waits, and no further than every source has told everything: one whose
    /// next packet is known tells nothing older, and one that has none is waited for until it is quiet.
    fn of(sources: &mut Sources) -> Self {
        let (mut oldest, mut silent) = (Timestamp(i64::MAX), Timestamp(i64::MAX));
        for source in sources {
            // In this order: what comes in between is then known.
            let quiet = source.quiet_until();
            match source.waiting() {
                Some(time) => oldest = oldest.min(time),
                None => silent = silent.min(quiet),
            }
        }
        Self { until: oldest.plus(STEP).min(silent), quiet: oldest.min(silent) }
    }
}

pub(super) fn live_views(sources: &[Box<dyn Live>]) -> Vec<SourceView> {
    sources.iter().map(|source| source.view()).collect()
}

#[cfg(test)]
mod tests {
    use onenet_core::{decode::InterfaceIndex, detect::HealthReport, record::RecordSink, sensor::Sensor};

    use super::*;

    /// Quiet until, and the time of a packet that waits.
    struct Fake(i64, Option<i64>);

    impl Live for Fake {
        fn name(&self) -> &str {
            "fake"
        }

        fn read(&mut self, _: Timestamp, _: InterfaceIndex, _: &mut Sensor, _: &mut dyn RecordSink) -> bool {
            false
        }

        fn waiting(&mut self) -> Option<Timestamp> {
            self.1.map(Timestamp)
        }

        fn quiet_until(&self) -> Timestamp {
            Timestamp(self.0)
        }

        fn look_after(&mut self, _: Duration) {}

        fn drops(&self, _: DropStage) -> u64 {
            0
        }

        fn health(&self) -> Vec<HealthReport> {
            Vec::new()
        }

        fn view(&self) -> SourceView {
            SourceView::default()
        }

        fn close(&mut self) {}
    }

    #[test]
    fn time_goes_a_step_beyond_the_oldest_packet_and_not_beyond_what_may_still_come() {
        let order = |fakes: &[(i64, Option<i64>)]| {
            let boxed = |&(quiet, waiting)| -> Box<dyn Live> { Box::new(Fake(quiet, waiting)) };
            let Order { until, quiet } = Order::of(&mut fakes.iter().map(boxed).collect());
            (until.0, quiet.0)
        };
        let far = 100 * STEP;
        assert_eq!(order(&[(far, Some(5)), (far, Some(9))]), (5 + STEP, 5), "both are known");
        assert_eq!(order(&[(far, Some(5)), (7, None)]), (7, 5), "the other may still tell what came at 8");
        assert_eq!(order(&[(far, Some(9)), (7, None)]), (7, 7), "and it comes first");
        assert_eq!(order(&[(6, None), (7, None)]), (6, 6));
        assert_eq!(order(&[(far, Some(5)), (far + 1, None)]), (5 + STEP, 5));
    }
}

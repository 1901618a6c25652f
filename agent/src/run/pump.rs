//! The sensor thread: packets from the sources into the engine, records into batches. Nothing here waits for the
//! network, and nothing but this loop and the batches' limits reads a clock.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use onenet_core::{
    detect::DetectConfig,
    record::DropStage,
    sensor::Sensor,
    time::{NANOS_PER_SECOND, Timestamp},
};
use onenet_proto::v1::PlanHeld;

use super::{
    batch::Batcher,
    seal::SealControl,
    view::{SharedView, SourceView},
};
use crate::{
    config::Config,
    plan::InUse,
    source::{CaptureDrops, CaptureSet},
};

/// Packets between two looks at clock and flags.
const BURST: u32 = 256;
/// Between two looks of those who ask.
pub(super) const VIEW_INTERVAL: Duration = Duration::from_millis(250);
/// The longest sleep, so that a stop is heeded soon.
const NAP: Duration = Duration::from_millis(20);
/// Within a longer gap of a capture time does not tick by the second.
const LONGEST_TICKING_GAP: i64 = 3600 * NANOS_PER_SECOND;

/// Plan and thresholds to go on with.
pub(crate) type Reload = (InUse, DetectConfig);

/// What the sensor thread is told.
#[derive(Debug, Default)]
pub(crate) struct PumpControl {
    /// Stop reading.
    pub(crate) stop: AtomicBool,
    /// Turns of the loop that reads, for the watchdog.
    pub(crate) turns: AtomicU64,
    reload: Mutex<Option<Reload>>,
}

impl PumpControl {
    /// Hands over what is to be gone on with.
    pub(crate) fn reload(&self, reload: Reload) {
        *self.reload.lock().unwrap_or_else(PoisonError::into_inner) = Some(reload);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// The loop that reads has taken another turn.
    pub(super) fn turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }
}

/// The sensor thread's own state.
pub(crate) struct Pump {
    pub(crate) config: Config,
    pub(crate) sensor: Sensor,
    pub(crate) batcher: Batcher,
    pub(crate) control: Arc<PumpControl>,
    pub(crate) sealing: Arc<SealControl>,
    pub(crate) view: Arc<SharedView>,
    pub(crate) told: Option<Instant>,
}

/// The pace at which a capture was made, in this process's time.
struct Pacer {
    start: Option<(Instant, Timestamp)>,
    ticked: Option<Timestamp>,
}

impl Pump {
    /// Reads captures to their end, or until told to stop. On a stop the flows that are live are left: the next
    /// run reads the same captures again and passes over what is sealed.
    pub(crate) fn run_files(&mut self, mut captures: CaptureSet, paced: bool) {
        let mut pacer = Pacer { start: None, ticked: None };
        let mut count = 0_u32;
        loop {
            if self.control.is_stopped() || self.batcher.is_closed() {
                self.batcher.cut();
                self.tell(|| file_views(&captures), true);
                return;
            }
            let Self { config, sensor, .. } = self;
            let mut resolve = |name: &str| sensor.add_interface(config.interface(name));
            let Some(packet) = captures.next(&mut resolve) else { break };
            if paced {
                self.keep_pace(&mut pacer, packet.time);
                if self.control.is_stopped() {
                    continue;
                }
            }
            self.sensor.handle_packet(&packet, &mut self.batcher);
            count = count.wrapping_add(1);
            if paced || count.is_multiple_of(BURST) {
                self.batcher.cut_if_due();
                self.tell(|| file_views(&captures), false);
            }
        }
        let sum = |sum: CaptureDrops, report: &crate::source::CaptureReport| sum.plus(report.drops);
        let drops = captures.reports().iter().fold(CaptureDrops::default(), sum);
        self.sensor.ledger_mut().set_dropped(DropStage::Interface, drops.interface);
        self.sensor.ledger_mut().set_dropped(DropStage::Kernel, drops.kernel);
        self.finish();
        for error in captures.reports().iter().filter_map(|report| report.error.as_ref()) {
            tracing::error!("{error}");
        }
        self.view.lock().ended = true;
        self.tell(|| file_views(&captures), true);
        tracing::info!(packets = self.sensor.ledger().packets, "every capture has been read");
    }

    /// Waits for the stop after the sources have ended; heartbeats go on meanwhile.
    pub(crate) fn linger(&mut self) {
        while !self.control.is_stopped() && !self.batcher.is_closed() {
            self.control.turn();
            self.reload_if_asked();
            std::thread::sleep(NAP);
        }
    }

    /// Ends every flow and completes the last batch.
    pub(super) fn finish(&mut self) {
        self.sensor.finish(&mut self.batcher);
        self.batcher.set_ledger(self.sensor.ledger());
        self.batcher.cut();
    }

    /// Waits until it is time for a packet of the capture. Time ticks by the second of packet time, at the same
    /// moments in every run, so that every run makes the same records.
    fn keep_pace(&mut self, pacer: &mut Pacer, time: Timestamp) {
        let ticked = *pacer.ticked.get_or_insert(time);
        let mut tick = ticked;
        while time.since(tick) >= NANOS_PER_SECOND && time.since(ticked) < LONGEST_TICKING_GAP {
            tick = tick.plus(NANOS_PER_SECOND);
            self.wait_until(pacer, tick);
            if self.control.is_stopped() {
                return;
            }
            self.sensor.advance(tick, &mut self.batcher);
        }
        if time.since(ticked) >= LONGEST_TICKING_GAP {
            tick = time;
        }
        pacer.ticked = Some(tick);
        self.wait_until(pacer, time);
    }

    fn wait_until(&mut self, pacer: &mut Pacer, time: Timestamp) {
        if self.batcher.is_catching_up() {
            pacer.start = None;
            return;
        }
        let (start, first) = *pacer.start.get_or_insert_with(|| (Instant::now(), time));
        let due = Duration::from_nanos(u64::try_from(time.since(first)).unwrap_or_default());
        while !self.control.is_stopped() {
            let left = due.saturating_sub(start.elapsed());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(NAP));
            self.batcher.cut_if_due();
            self.tell_account(false);
        }
    }

    /// Takes over plan and thresholds, where others were loaded.
    pub(super) fn reload_if_asked(&mut self) {
        let reload = self.control.reload.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((InUse { plan, held }, detect)) = reload else { return };
        if let Err(error) = self.sensor.reload(plan, detect) {
            return tracing::error!("the plan cannot be reloaded, the one before holds: {error}");
        }
        // The change is made here and now, and what it ends still goes with what was judged by the plan before.
        self.sensor.advance(Timestamp(i64::MIN), &mut self.batcher);
        tracing::info!("plan and thresholds reloaded: the plan {held}");
        let before = std::mem::replace(&mut self.view.lock().plan, held);
        if before == held {
            return;
        }
        self.batcher.change_plan(PlanHeld::from(&held));
        if held.version > 0 {
            self.sealing.audit("plan-taken", format!("the plan {held}"));
        }
    }

    /// Tells the account and the sources, if it is time or must be.
    pub(super) fn tell(&mut self, sources: impl FnOnce() -> Vec<SourceView>, at_once: bool) {
        if self.tell_account(at_once) {
            self.view.lock().sources = sources();
        }
    }

    fn tell_account(&mut self, at_once: bool) -> bool {
        let due = self.told.is_none_or(|told| told.elapsed() >= VIEW_INTERVAL);
        if !due && !at_once {
            return false;
        }
        self.told = Some(Instant::now());
        let ledger = self.sensor.ledger();
        self.batcher.set_ledger(ledger);
        if !self.batcher.is_catching_up() {
            let mut told = self.sealing.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            *told = Some(ledger.clone());
        }
        let mut view = self.view.lock();
        view.ledger.clone_from(ledger);
        view.live_flows = self.sensor.live_flows() as u64;
        view.catching_up = self.batcher.is_catching_up();
        true
    }
}

/// How far each capture has been read.
pub(crate) fn file_views(captures: &CaptureSet) -> Vec<SourceView> {
    let view = |report: &crate::source::CaptureReport| SourceView {
        name: report.name.clone(),
        method: None,
        packets: report.packets,
        bytes_read: Some(report.bytes_read),
        size: report.size,
        last_packet: report.last.map(|time| time.to_string()),
        error: report.error.as_ref().map(ToString::to_string),
        account: None,
    };
    captures.reports().iter().map(view).collect()
}

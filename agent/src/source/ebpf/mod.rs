//! A network interface, by eBPF: the kernel counts packets by flow and hands on those that say more. Once per interval
//! its counts are told, among the packets that were handed on meanwhile.

mod account;
mod interval;

use std::time::{Duration, Instant};

use account::Totals;
use interval::{Handed, Intervals, Kernel};
use onenet_core::{
    decode::{InterfaceIndex, LinkType},
    detect::HealthReport,
    flow::{FlowDelta, Offload},
    mirror::MirrorPlan,
    record::{DropStage, RecordSink},
    sensor::Sensor,
    time::Timestamp,
};
use onenet_ebpf::{EbpfError, HookChoice, Meter, Mirror, Options, Promiscuous, Punt};

use super::{counters::Account, live::Live};
use crate::{
    config::{EbpfSource, Hook},
    run::{SourceView, wall_time},
};

/// Packets and flows of one interface in turn with the others.
const BURST: usize = 1024;
/// Bytes of packets that wait for the end of their interval at most; beyond, they stay in the ring.
const MOST_WAITING: usize = 64 << 20;
/// Between two looks at how full the tables are.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Hundredths of a table from which on its interval ends early.
const FULL_PERCENT: u64 = 50;

/// Why an interface cannot be metered.
#[derive(Debug, thiserror::Error)]
#[error("interface {interface}: {error}")]
pub(crate) struct MeterError {
    interface: String,
    error: EbpfError,
}

impl MeterError {
    /// What is wrong, without the interface.
    pub(crate) fn reason(&self) -> String {
        self.error.to_string()
    }
}

/// One interface.
pub(crate) struct MeterSource {
    source: EbpfSource,
    mirrors: Vec<MirrorPlan>,
    open: Option<Open>,
    intervals: Intervals,
    totals: Totals,
    account: Account,
    last: Option<Timestamp>,
    quiet: Timestamp,
    error: Option<String>,
    failed_at: Option<Instant>,
}

/// A meter that runs.
struct Open {
    meter: Meter,
    _promiscuous: Option<Promiscuous>,
    /// Number of the interface in the kernel.
    number: u32,
    hooks: String,
    link_type: LinkType,
    drained: Instant,
    looked: Instant,
    is_filling: bool,
}

impl Open {
    fn new(source: &EbpfSource, mirrors: &[MirrorPlan]) -> Result<Self, MeterError> {
        let fail = |error| MeterError { interface: source.interface.to_string(), error };
        let meter = Meter::open(&options(source, mirrors)).map_err(fail)?;
        let names: Vec<&str> = meter.hooks().map_err(fail)?.iter().map(|hook| hook.name).collect();
        let now = Instant::now();
        Ok(Self {
            _promiscuous: source.promiscuous.then(|| promiscuous(&source.interface)).flatten(),
            number: number_of(&source.interface),
            hooks: names.join(", "),
            link_type: meter.link_type(),
            meter,
            drained: now,
            looked: now,
            is_filling: false,
        })
    }

    /// Whether an interval has gone by, or a table fills.
    fn is_due(&mut self, interval: Duration) -> Result<bool, EbpfError> {
        if self.looked.elapsed() >= LOOK_INTERVAL {
            self.looked = Instant::now();
            self.is_filling = self.meter.fill()?.percent() >= FULL_PERCENT;
        }
        Ok(self.is_filling || self.drained.elapsed() >= interval)
    }
}

impl Kernel for Open {
    type Error = EbpfError;

    fn drain(&mut self, take: &mut dyn FnMut(&FlowDelta)) -> Result<Timestamp, EbpfError> {
        self.meter.drain(take).map(|drained| drained.until)
    }

    fn packets(&mut self, take: &mut dyn FnMut(&Handed<'_>)) {
        let link_type = self.link_type;
        self.meter.punts(&mut |punt| take(&handed(punt, link_type)));
    }
}

/// Asks for frames for other stations. Without them the sensor still sees what is for this host and what it sends.
fn promiscuous(interface: &str) -> Option<Promiscuous> {
    Promiscuous::on(interface)
        .inspect_err(|error| {
            tracing::warn!(
                "interface {interface}: not promiscuous, so frames for others may be missed: {error}"
            );
        })
        .ok()
}

/// Number of an interface in the kernel, 0 where there is none.
fn number_of(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap_or(0)
}

fn options(source: &EbpfSource, mirrors: &[MirrorPlan]) -> Options {
    let narrow = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    Options {
        hook: match source.hook {
            Hook::Auto => HookChoice::Auto,
            Hook::Tcx => HookChoice::Tcx,
            Hook::Clsact => HookChoice::Clsact,
            Hook::Xdp => HookChoice::Xdp,
        },
        max_flows: source.max_flows,
        max_flows_v6: source.max_flows_v6,
        ring_kib: source.ring_mib.saturating_mul(1024),
        first_packets: u8::try_from(source.first_packets).unwrap_or(u8::MAX),
        snap: narrow(source.snap_length),
        sample: source.sample,
        // Mirrors are the first interfaces that a sensor knows, in the order of the configuration.
        mirrors: (0..)
            .zip(mirrors)
            .map(|(at, plan)| Mirror { plan: plan.clone(), interface: InterfaceIndex(at) })
            .collect(),
        ..Options::new(&source.interface, InterfaceIndex(0))
    }
}

fn handed<'a>(punt: &Punt<'a>, link_type: LinkType) -> Handed<'a> {
    Handed {
        time: punt.time,
        link_type,
        direction: punt.direction,
        wire_length: punt.wire_length,
        offload: Offload { segments: punt.segments, is_exact: true },
        data: punt.data,
    }
}

impl MeterSource {
    /// Loads the program and attaches it to the interface.
    pub(crate) fn open(source: &EbpfSource, mirrors: &[MirrorPlan]) -> Result<Self, MeterError> {
        let open = Open::new(source, mirrors)?;
        tracing::info!("interface {}: metered by {}", source.interface, open.hooks);
        Ok(Self {
            source: source.clone(),
            mirrors: mirrors.to_vec(),
            open: Some(open),
            intervals: Intervals::default(),
            totals: Totals::new(source.hook),
            account: if source.hook == Hook::Xdp { Account::of_received() } else { Account::default() },
            last: None,
            quiet: Timestamp(wall_time()),
            error: None,
            failed_at: None,
        })
    }

    /// Takes what was handed on, and ends the interval where it is time.
    fn collect(&mut self, interface: InterfaceIndex, sensor: &mut Sensor) -> Result<(), EbpfError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let intervals = &mut self.intervals;
        if intervals.waiting_bytes() < MOST_WAITING {
            open.packets(&mut |packet| intervals.push(packet));
        }
        // An interval is told before the next one ends, so that no more than two wait.
        let interval = Duration::from_millis(self.source.interval_ms.into());
        if !intervals.is_told() || !open.is_due(interval)? {
            return Ok(());
        }
        open.drained = Instant::now();
        open.is_filling = false;
        self.quiet = intervals.end(interface, open)?;
        self.totals.update(&open.meter.counters()?, sensor.ledger_mut());
        // Nothing has been told before the first interval ends.
        if !self.mirrors.is_empty() {
            sensor.set_mirrors_partial();
        }
        if self.source.sample > 1 {
            sensor.set_sampling(interface, self.source.sample);
        }
        Ok(())
    }

    fn fail(&mut self, error: String) {
        self.error.get_or_insert(error);
        self.failed_at.get_or_insert_with(Instant::now);
    }
}

impl Live for MeterSource {
    fn name(&self) -> &str {
        &self.source.interface
    }

    fn read(
        &mut self,
        until: Timestamp,
        interface: InterfaceIndex,
        sensor: &mut Sensor,
        sink: &mut dyn RecordSink,
    ) -> bool {
        if let Err(error) = self.collect(interface, sensor) {
            self.fail(error.to_string());
        }
        let (told, last) = self.intervals.tell(BURST, until, interface, sensor, sink);
        self.last = last.or(self.last);
        told > 0
    }

    fn waiting(&mut self) -> Option<Timestamp> {
        self.intervals.next()
    }

    fn quiet_until(&self) -> Timestamp {
        // Without a meter nothing will come, and time goes on.
        if self.open.is_some() { self.quiet } else { Timestamp(wall_time()) }
    }

    fn look_after(&mut self, reopen_after: Duration) {
        let Self { source, account, totals, open, .. } = self;
        account.compare(&source.interface, || totals.seen(open.as_ref().map(|open| &open.meter)));
        if let Some(open) = open
            && number_of(&source.interface) != open.number
        {
            self.fail("it went away".to_owned());
        }
        let Some(failed_at) = self.failed_at else { return };
        if self.open.take().is_some() {
            let problem = self.error.as_deref().unwrap_or_default();
            tracing::error!("interface {}: {problem}; opening it again", self.source.interface);
            self.totals.close();
        }
        if failed_at.elapsed() < reopen_after {
            return;
        }
        match Open::new(&self.source, &self.mirrors) {
            Ok(open) => {
                tracing::info!("interface {} is back", self.source.interface);
                self.quiet = Timestamp(wall_time());
                self.open = Some(open);
                self.failed_at = None;
                self.error = None;
            }
            Err(error) => {
                self.failed_at = Some(Instant::now());
                self.error = Some(error.reason());
            }
        }
    }

    fn drops(&self, stage: DropStage) -> u64 {
        match stage {
            DropStage::Kernel => self.totals.lost(),
            DropStage::Sampling => self.totals.sampled_out(),
            _ => 0,
        }
    }

    fn health(&self) -> Vec<HealthReport> {
        let Some(seen) = self.account.seen() else { return Vec::new() };
        self.totals.health(&self.source.interface, &seen)
    }

    fn view(&self) -> SourceView {
        SourceView {
            name: self.source.interface.to_string(),
            method: Some(self.open.as_ref().map_or_else(|| "ebpf".to_owned(), |open| open.hooks.clone())),
            packets: self.totals.packets(),
            account: self.account.view().cloned(),
            last_packet: self.last.map(|time| time.to_string()),
            error: self.error.clone(),
            ..SourceView::default()
        }
    }

    fn close(&mut self) {
        self.open = None;
    }
}

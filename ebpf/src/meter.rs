//! One interface's meter.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, RingBuf},
};
use onenet_core::{
    decode::{InterfaceIndex, LinkType},
    flow::FlowDelta,
};

use crate::{
    counters::Counters,
    drain::{Drained, Flows, Place},
    error::EbpfError,
    hooks::{self, Hook, HookState, Way},
    layout::Local,
    load,
    options::{HookChoice, Options},
    probe::{self, Version},
    rings::{self, Punt},
    sys::{self, TestContext},
};

/// How full the maps are that are being counted into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Entries of IPv4, and of IPv6.
    pub entries: [u64; 2],
    /// How many there is room for.
    pub limits: [u64; 2],
}

impl Fill {
    /// The fuller one's share of its room, in hundredths.
    pub fn percent(&self) -> u64 {
        let of = |at: usize| self.entries[at].saturating_mul(100).checked_div(self.limits[at]).unwrap_or(100);
        of(0).max(of(1))
    }
}

/// The meter of one interface. It counts from [`Meter::open`] until it is dropped.
pub struct Meter {
    ebpf: Ebpf,
    interface: Box<str>,
    index: InterfaceIndex,
    mirrors: Vec<InterfaceIndex>,
    has_link_header: bool,
    limits: [u64; 2],
    hooks: Vec<(Hook, Way)>,
    flows: Flows,
    local: PerCpuArray<MapData, Local>,
    ring: RingBuf<MapData>,
    urgent: RingBuf<MapData>,
    /// What the self-test counted.
    before: Counters,
    /// Entries made before the last swap.
    inserts_before: [u64; 2],
}

impl Meter {
    /// Checks what is needed, loads the program, runs it once, and attaches it to the interface.
    pub fn open(options: &Options) -> Result<Self, EbpfError> {
        let version = probe::machine()?;
        let has_link_header = probe::has_link_header(&options.interface)?;
        let mut meter = Self::make(options, has_link_header)?;
        meter.attach(options.hook, version)?;
        Ok(meter)
    }

    /// A meter on no interface, whose program runs by [`Meter::test_run`] only: for tests and benchmarks. The
    /// interface that the options name need not be there.
    pub fn load(options: &Options, has_link_header: bool) -> Result<Self, EbpfError> {
        probe::machine()?;
        Self::make(options, has_link_header)
    }

    fn make(options: &Options, has_link_header: bool) -> Result<Self, EbpfError> {
        options.check()?;
        let mut ebpf = load::object(options, options.hook == HookChoice::Xdp, has_link_header)?;
        let hooks: Vec<(Hook, Way)> =
            hooks::of(options.hook).iter().map(|&hook| (hook, Way::Loose)).collect();
        for &(hook, _) in &hooks {
            hooks::load(&mut ebpf, hook)?;
        }
        let flows = Flows::take(&mut ebpf)?;
        let mut map = |name| load::map(&mut ebpf, name);
        let local = map("LOCAL")?.try_into().map_err(|_| EbpfError::Object("LOCAL"))?;
        let ring = map("RING")?.try_into().map_err(|_| EbpfError::Object("RING"))?;
        let urgent = map("URGENT")?.try_into().map_err(|_| EbpfError::Object("URGENT"))?;
        let mut meter = Self {
            ebpf,
            interface: options.interface.clone(),
            index: options.index,
            mirrors: options.mirrors.iter().map(|mirror| mirror.interface).collect(),
            has_link_header,
            limits: [options.max_flows.into(), options.max_flows_v6.into()],
            hooks,
            flows,
            local,
            ring,
            urgent,
            before: Counters::default(),
            inserts_before: [0; 2],
        };
        meter.prove()?;
        Ok(meter)
    }

    /// Runs each program on a frame that is none of a flow, before it is attached: its counter must grow by one.
    fn prove(&mut self) -> Result<(), EbpfError> {
        /// An ethertype for local experiments (IEEE 802).
        const FRAME: [u8; 60] = {
            let mut frame = [0; 60];
            frame[12] = 0x88;
            frame[13] = 0xb5;
            frame
        };
        for (hook, _) in self.hooks.clone() {
            let before = self.seen(hook, &self.counters()?);
            sys::test_run(hooks::fd(&self.ebpf, hook)?, &FRAME, None, 1)
                .map_err(|error| EbpfError::Kernel { what: "running the program once", error })?;
            if self.seen(hook, &self.counters()?) != before.saturating_add(1) {
                return Err(EbpfError::SelfTest { hook: hooks::name(hook, Way::Loose) });
            }
        }
        self.punts(&mut |_| {});
        self.before = self.counters()?;
        Ok(())
    }

    /// Takes the hooks of the interface.
    fn attach(&mut self, choice: HookChoice, version: Version) -> Result<(), EbpfError> {
        self.hooks = hooks::attach(&mut self.ebpf, &self.interface, choice, version)?;
        for &(hook, way) in &self.hooks {
            if way == Way::Tcx && hooks::is_attached(&self.ebpf, &self.interface, hook) != Some(true) {
                return Err(EbpfError::SelfTest { hook: hooks::name(hook, way) });
            }
        }
        Ok(())
    }

    /// What frames of the interface begin with: how punted packets are to be decoded.
    pub const fn link_type(&self) -> LinkType {
        if self.has_link_header { LinkType::ETHERNET } else { LinkType::RAW }
    }

    /// Hands every packet that waits in the rings to `take`, the urgent ones first; gives how many. To be called before
    /// [`Meter::drain`], so that what begins a flow is known before what was counted of it.
    pub fn punts(&mut self, take: &mut dyn FnMut(&Punt<'_>)) -> usize {
        let (_, offset) = sys::clocks();
        let urgent = rings::read(&mut self.urgent, offset, take);
        urgent.saturating_add(rings::read(&mut self.ring, offset, take))
    }

    /// Turns the program to the other maps, and hands what was counted since the last call to `take`.
    pub fn drain(&mut self, take: &mut dyn FnMut(&FlowDelta)) -> Result<Drained, EbpfError> {
        let inserts = self.counters()?.inserts;
        let place =
            Place { interface: self.index, mirrors: &self.mirrors, has_link_header: self.has_link_header };
        let entries = [0, 1].map(|at| inserts[at].saturating_sub(self.inserts_before[at]));
        let drained = self.flows.drain(&place, entries, take)?;
        self.inserts_before = inserts;
        Ok(drained)
    }

    /// What the program did with packets since it was opened.
    pub fn counters(&self) -> Result<Counters, EbpfError> {
        let values = self.local.get(&0, 0).map_err(|error| EbpfError::Kernel {
            what: "reading the counters",
            error: std::io::Error::other(error),
        })?;
        let mut sum = Counters::default();
        values.iter().for_each(|local| sum.add(local));
        Ok(sum - self.before)
    }

    /// How full the maps are, about: what was entered while the last drain ran counts too.
    pub fn fill(&self) -> Result<Fill, EbpfError> {
        let inserts = self.counters()?.inserts;
        let entries = [0, 1].map(|at| inserts[at].saturating_sub(self.inserts_before[at]));
        Ok(Fill { entries, limits: self.limits })
    }

    /// The hooks, and what each has seen. That a hook runs is proven by its packets: they grow with the interface's
    /// own counters, and `attached` says that the kernel lists the program there.
    pub fn hooks(&self) -> Result<Vec<HookState>, EbpfError> {
        let counters = self.counters()?;
        let state = |&(hook, way): &(Hook, Way)| HookState {
            hook,
            name: hooks::name(hook, way),
            attached: if way == Way::Tcx {
                hooks::is_attached(&self.ebpf, &self.interface, hook)
            } else {
                None
            },
            packets: self.seen(hook, &counters),
        };
        Ok(self.hooks.iter().map(state).collect())
    }

    /// What runs the program of a hook on frames while the meter is drained, on another thread: for tests.
    pub fn runner(&self, hook: Hook) -> Result<Runner, EbpfError> {
        let fd = hooks::fd(&self.ebpf, hook)?.try_clone_to_owned();
        fd.map(|program| Runner { program, hook })
            .map_err(|error| EbpfError::Kernel { what: "another handle of the program", error })
    }

    pub(crate) const fn object(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    fn seen(&self, hook: Hook, counters: &Counters) -> u64 {
        match hook {
            Hook::Ingress => counters.ingress.packets,
            Hook::Egress => counters.egress.packets,
            Hook::Xdp => counters.xdp.packets,
        }
    }

    /// Runs the program of a hook on a frame so many times, as if it had passed there; gives the ns of one run. For
    /// tests and benchmarks: what it counts is as real as all else.
    pub fn test_run(
        &self,
        hook: Hook,
        frame: &[u8],
        context: TestContext,
        repeat: u32,
    ) -> Result<u32, EbpfError> {
        run(hooks::fd(&self.ebpf, hook)?, hook, frame, context, repeat)
    }
}

/// See [`Meter::runner`].
#[derive(Debug)]
pub struct Runner {
    program: OwnedFd,
    hook: Hook,
}

impl Runner {
    /// As [`Meter::test_run`].
    pub fn run(&self, frame: &[u8], context: TestContext, repeat: u32) -> Result<u32, EbpfError> {
        run(self.program.as_fd(), self.hook, frame, context, repeat)
    }
}

fn run(
    program: BorrowedFd<'_>,
    hook: Hook,
    frame: &[u8],
    context: TestContext,
    repeat: u32,
) -> Result<u32, EbpfError> {
    // XDP has another context.
    let context = (hook != Hook::Xdp).then_some(context);
    sys::test_run(program, frame, context, repeat)
        .map(|(_, duration)| duration)
        .map_err(|error| EbpfError::Kernel { what: "running the program on a frame", error })
}

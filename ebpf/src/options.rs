//! What a meter is told when it is opened, and what of it the kernel program is told.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
};

use onenet_core::{
    decode::InterfaceIndex,
    mirror::{MirrorKind, MirrorPlan},
};

use crate::{
    error::EbpfError,
    layout::{Config, KINDS, MIRRORS, MirrorRule, SMALL_SNAP, SNAP_MAX},
    rings::Kind,
};

/// Which hook to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HookChoice {
    /// TCX where the kernel has it (6.6), else clsact.
    #[default]
    Auto,
    /// Traffic control by links: they go with the process.
    Tcx,
    /// Traffic control by a qdisc of its own.
    Clsact,
    /// XDP: before all else, and only what is received.
    Xdp,
}

/// Which clock stamps packets that are counted; packets that are punted always have the exact one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// To the ns.
    #[default]
    Exact,
    /// To a tick of the kernel (1 to 10 ms), which costs less.
    Coarse,
}

/// Packets that are punted per second and CPU, by kind; 0 switches a kind off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates([u32; KINDS]);

impl Rates {
    /// No packet is punted.
    pub const NONE: Self = Self([0; KINDS]);

    /// The rate of a kind.
    pub fn of(&self, kind: Kind) -> u32 {
        self.0.get(kind as usize).copied().unwrap_or_default()
    }

    /// With another rate of a kind.
    #[must_use]
    pub fn with(mut self, kind: Kind, rate: u32) -> Self {
        if let Some(of) = self.0.get_mut(kind as usize) {
            *of = rate;
        }
        self
    }
}

impl Default for Rates {
    fn default() -> Self {
        Kind::ALL.into_iter().fold(Self::NONE, |rates, kind| rates.with(kind, kind.usual_rate()))
    }
}

/// A mirror whose tunnel the kernel strips.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// What its packets are known by.
    pub plan: MirrorPlan,
    /// Interface that they count as captured on.
    pub interface: InterfaceIndex,
}

/// What a meter is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the interface.
    pub interface: Box<str>,
    /// Its number in the sensor.
    pub index: InterfaceIndex,
    /// Hook.
    pub hook: HookChoice,
    /// Flows of IPv4 that each of two maps holds (about 260 bytes each).
    pub max_flows: u32,
    /// Flows of IPv6 (about 290 bytes each).
    pub max_flows_v6: u32,
    /// Ring of punted packets, KiB; rounded up to a power of two.
    pub ring_kib: u32,
    /// Ring of ARP, NDP and DHCP, KiB; rounded up to a power of two.
    pub urgent_ring_kib: u32,
    /// Packets punted per second and CPU.
    pub rates: Rates,
    /// Packets at the beginning of each direction of a flow that are punted.
    pub first_packets: u8,
    /// Bytes of a punted packet, 96 to 2048.
    pub snap: u16,
    /// One in so many flows is metered, both directions of it; 0 and 1: every one. NDP and DHCP, and what is no IP, are
    /// never left out.
    pub sample: u32,
    /// Mirrors that come to this interface; at most four, of which the first that fits a packet has it.
    pub mirrors: Vec<Mirror>,
    /// Clock of counted packets.
    pub clock: Clock,
    /// No packet takes the short way for usual headers: for tests, which compare both.
    pub general_only: bool,
}

impl Options {
    /// Defaults for an interface.
    pub fn new(interface: &str, index: InterfaceIndex) -> Self {
        Self {
            interface: interface.into(),
            index,
            hook: HookChoice::Auto,
            max_flows: 131_072,
            max_flows_v6: 65_536,
            ring_kib: 8192,
            urgent_ring_kib: 1024,
            rates: Rates::default(),
            first_packets: 4,
            snap: 256,
            sample: 1,
            mirrors: Vec::new(),
            clock: Clock::default(),
            general_only: false,
        }
    }

    pub(crate) fn check(&self) -> Result<(), EbpfError> {
        let bad = |option, value: &dyn ToString, expected| {
            Err(EbpfError::Option { option, value: value.to_string(), expected })
        };
        if !(SMALL_SNAP..=SNAP_MAX).contains(&self.snap.into()) {
            return bad("snap", &self.snap, "96 to 2048 bytes");
        }
        if self.mirrors.len() > MIRRORS {
            return bad("the number of mirrors of an interface", &self.mirrors.len(), "at most 4");
        }
        if self.first_packets > 250 {
            return bad("first_packets", &self.first_packets, "at most 250");
        }
        for (option, flows) in [("max_flows", self.max_flows), ("max_flows_v6", self.max_flows_v6)] {
            if !(1..=1 << 26).contains(&flows) {
                return bad(option, &flows, "1 to 67108864");
            }
        }
        Ok(())
    }

    /// Cells of the memory of first packets: about four per flow.
    pub(crate) fn seen_cells(&self) -> u32 {
        let flows = self.max_flows.saturating_add(self.max_flows_v6).clamp(256, 1 << 22);
        flows.saturating_mul(2).next_power_of_two()
    }

    /// Bytes of a ring of so many KiB: a power of two, and whole pages.
    pub(crate) fn ring_bytes(kib: u32) -> u32 {
        kib.clamp(64, 1 << 20).next_power_of_two().saturating_mul(1024)
    }

    /// What the kernel program is told.
    pub(crate) fn config(&self, has_link_header: bool) -> Config {
        /// What a bucket can hold: so many ns' worth of tokens.
        const BURST: u64 = 1_000_000_000;
        let mut config = Config {
            seed: RandomState::new().hash_one(0_u8),
            seen_mask: self.seen_cells().saturating_sub(1),
            sample: self.sample,
            snap: self.snap.into(),
            first_packets: if self.rates.of(Kind::First) == 0 { 0 } else { self.first_packets.into() },
            link_header: if has_link_header { 14 } else { 0 },
            coarse_clock: (self.clock == Clock::Coarse).into(),
            wake_bytes: Self::ring_bytes(self.urgent_ring_kib.min(self.ring_kib)) / 4,
            general_only: self.general_only.into(),
            mirror_count: u32::try_from(self.mirrors.len()).unwrap_or_default(),
            ..Config::default()
        };
        for kind in Kind::ALL {
            let rate = u64::from(self.rates.of(kind));
            config.cost[kind as usize] = BURST.checked_div(rate).unwrap_or_default();
            config.burst[kind as usize] = BURST;
        }
        for (rule, mirror) in config.mirrors.iter_mut().zip(&self.mirrors) {
            *rule = rule_of(&mirror.plan);
        }
        config
    }
}

fn rule_of(plan: &MirrorPlan) -> MirrorRule {
    let kind = match plan.kind {
        MirrorKind::Erspan => 1,
        MirrorKind::Gre => 2,
        MirrorKind::Vxlan => 3,
        MirrorKind::Geneve => 4,
        MirrorKind::Tzsp => 5,
    };
    let mut rule = MirrorRule {
        kind,
        has_id: plan.id.is_some().into(),
        id: plan.id.unwrap_or_default(),
        port: plan.port.unwrap_or_default(),
        ..MirrorRule::default()
    };
    if let Some(prefix) = plan.destination {
        rule.prefix_bits = prefix.prefix_len();
        rule.family = if prefix.addr().is_ipv4() { 4 } else { 6 };
        put(&mut rule.address, prefix.network());
        put(&mut rule.mask, prefix.netmask());
    }
    rule
}

fn put(to: &mut [u8; 16], address: IpAddr) {
    match address {
        IpAddr::V4(v4) => to.iter_mut().zip(v4.octets()).for_each(|(to, from)| *to = from),
        IpAddr::V6(v6) => *to = v6.octets(),
    }
}

//! Which way a packet crosses an outside link: what the source or the configured router MAC addresses say, or else
//! what was learnt, or else what the addresses allow.
//!
//! A station that sends from our public prefixes to addresses that are not ours is the edge router. A forged
//! packet that arrives does not teach this, because it is sent to us.

use std::net::IpAddr;

use crate::{
    bounded::Bounded,
    decode::InterfaceIndex,
    flow::{FlowContext, FlowIdentity, Party},
    ipam::{Places, classify},
    net::MacAddress,
    record::{Confidence, Locality},
    time::Timestamp,
};

/// The packet that raised an event, on an outside link, as far as its rules need it.
#[derive(Clone, Debug)]
pub(super) struct Crossing {
    pub(super) identity: FlowIdentity,
    pub(super) time: Timestamp,
    pub(super) interface: InterfaceIndex,
    pub(super) protocol: u8,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// Port of the destination; for ICMP nothing.
    pub(super) port: Option<u16>,
    /// Whether it is an ICMP error, which routers on the way send from whatever address they have.
    pub(super) is_icmp_error: bool,
    pub(super) secretariat: Option<u16>,
    pub(super) mac: Option<MacAddress>,
    pub(super) way: Way,
}

/// Which way, and how sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From us to the internet.
    Leaving(Confidence),
    /// From the internet to us.
    Arriving(Confidence),
    /// Neither link nor addresses say.
    Undecided,
}

/// By router MAC or by the source.
const STATED: Confidence = 95;
/// By what was learnt.
const LEARNT: Confidence = 90;
/// By addresses alone.
const BY_ADDRESS: Confidence = 70;

/// Which stations on outside links are the edge router, as far as it was learnt.
#[derive(Clone, Debug)]
pub(super) struct Border {
    routers: Bounded<(InterfaceIndex, MacAddress), ()>,
    known: Bounded<InterfaceIndex, ()>,
}

impl Border {
    pub(super) fn new(seed: [u64; 4]) -> Self {
        Self { routers: Bounded::new(256, seed), known: Bounded::new(256, seed) }
    }

    /// Whether the edge router was learnt on this interface.
    pub(super) fn knows(&self, interface: InterfaceIndex) -> bool {
        self.known.peek(&interface).is_some()
    }

    /// The crossing of the packet from `source` to `destination` that raised an event, and what it teaches.
    pub(super) fn cross(
        &mut self,
        flow: &FlowContext,
        source: &Party,
        destination: &Party,
        places: &Places,
    ) -> Crossing {
        if flow.leaving.is_none()
            && let Some(mac) = source.mac
            && places.is_own_public(source.ip)
            && destination.locality == Locality::Outside
        {
            self.routers.insert((flow.interface, mac), ());
            self.known.insert(flow.interface, ());
        }
        let mut crossing = Crossing {
            identity: flow.identity,
            time: flow.now,
            interface: flow.interface,
            protocol: flow.protocol,
            source: source.ip,
            destination: destination.ip,
            port: (!matches!(flow.protocol, 1 | 58)).then_some(destination.port),
            is_icmp_error: is_icmp_error(flow, source),
            secretariat: source.secretariat,
            mac: source.mac,
            way: Way::Undecided,
        };
        crossing.way = match flow.leaving {
            Some(true) => Way::Leaving(STATED),
            Some(false) => Way::Arriving(STATED),
            None => self.decide(&crossing, places),
        };
        crossing
    }

    /// The way of a packet that the link says nothing about.
    pub(super) fn decide(&self, crossing: &Crossing, places: &Places) -> Way {
        if let Some(mac) = crossing.mac
            && self.knows(crossing.interface)
        {
            let is_router = self.routers.peek(&(crossing.interface, mac)).is_some();
            return if is_router { Way::Leaving(LEARNT) } else { Way::Arriving(LEARNT) };
        }
        let (from_us, to_us) =
            (places.is_own_public(crossing.source), places.is_own_public(crossing.destination));
        match (from_us, to_us) {
            (true, true) => Way::Undecided,
            (_, true) => Way::Arriving(BY_ADDRESS),
            (true, _) => Way::Leaving(BY_ADDRESS),
            // Nobody outside routes such a source towards a destination that is not ours.
            _ if !classify(crossing.source).globally_reachable => Way::Leaving(BY_ADDRESS),
            _ => Way::Undecided,
        }
    }
}

/// ICMP types that answer a packet with what is wrong with it: RFC 792, RFC 4443.
fn is_icmp_error(flow: &FlowContext, source: &Party) -> bool {
    // The originator's port is the type; a responder of ICMP answers a request and is no error.
    source.ip == flow.originator.ip
        && match flow.protocol {
            1 => matches!(source.port, 3 | 4 | 5 | 11 | 12),
            58 => matches!(source.port, 1..=4),
            _ => false,
        }
}

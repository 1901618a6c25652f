//! Mirrors: tunnels that bring copies of packets from another place. Their own headers are stripped, and what is
//! in them counts as captured on an interface of its own.

use std::{collections::VecDeque, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::{
    decode::{self, Inner, InterfaceIndex, IpPacket, Unparsed},
    net::Name,
    record::{Layer, Reason, TunnelKind},
};

/// How a mirror wraps its copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MirrorKind {
    /// ERSPAN types I, II and III, in GRE.
    Erspan,
    /// GRE with frames or IP packets in it.
    Gre,
    /// VXLAN, on UDP port 4789 or 8472, or GPE on 4790, unless another is stated.
    Vxlan,
    /// Geneve, on UDP port 6081 unless another is stated.
    Geneve,
    /// TaZmen Sniffer Protocol, on UDP port 37008 unless another is stated.
    Tzsp,
}

impl MirrorKind {
    /// The tunnel it is.
    pub const fn tunnel(self) -> TunnelKind {
        match self {
            Self::Erspan => TunnelKind::Erspan,
            Self::Gre => TunnelKind::Gre,
            Self::Vxlan => TunnelKind::Vxlan,
            Self::Geneve => TunnelKind::Geneve,
            Self::Tzsp => TunnelKind::Tzsp,
        }
    }

    /// Whether it is carried by UDP, and so has a port.
    pub const fn has_port(self) -> bool {
        matches!(self, Self::Vxlan | Self::Geneve | Self::Tzsp)
    }

    /// Whether a UDP port is one that this kind has by registration.
    pub fn registered(self, port: u16) -> bool {
        decode::is_mirror_port(self.tunnel(), port)
    }

    /// Whether its header carries a number: a session, key or VNI.
    pub const fn has_id(self) -> bool {
        !matches!(self, Self::Tzsp)
    }
}

/// One mirror. A packet is its own where every condition that is stated holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirrorPlan {
    /// Name of the interface that its packets count as captured on.
    pub name: Name,
    /// How its packets are wrapped.
    pub kind: MirrorKind,
    /// Address or prefix it is sent to; any where none is stated.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "address_or_prefix")]
    pub destination: Option<IpNet>,
    /// ERSPAN session, GRE key or VNI; any where none is stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// UDP port it is sent to; the registered ones of its kind where none is stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl MirrorPlan {
    /// Whether every packet of the other mirror is also one of this.
    pub fn covers(&self, other: &Self) -> bool {
        let is_within = |prefix: &IpNet| other.destination.is_some_and(|inner| prefix.contains(&inner));
        self.kind == other.kind
            && self.destination.as_ref().is_none_or(is_within)
            && (self.id.is_none() || self.id == other.id)
            && (self.port.is_none() && other.port.is_none_or(|p| self.kind.registered(p))
                || self.port == other.port)
    }
}

fn address_or_prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpNet>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let prefix = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    prefix.map(Some).map_err(|_| {
        de::Error::custom(format_args!("{text:?}, expected an address or a prefix, such as 192.0.2.7"))
    })
}

/// What a packet is to the mirrors.
pub(crate) enum Mirrored<'a> {
    /// Nothing.
    No,
    /// A copy: of which mirror, and what is inside.
    Copy(usize, Inner<'a>),
    /// A later fragment of a mirror's packet.
    Fragment(usize),
    /// A mirror's packet that cannot be opened.
    Broken(usize, Unparsed),
}

/// The mirrors of a sensor.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mirrors {
    mirrors: Vec<(MirrorPlan, InterfaceIndex)>,
    /// Mirrors' packets that came in fragments, by addresses and identification: the latest, oldest first.
    fragmented: VecDeque<(usize, Datagram)>,
    streams: Vec<Stream>,
    lost: u64,
    /// Whether only a part of their packets comes here, so that gaps say nothing.
    is_partial: bool,
}

type Datagram = (IpAddr, IpAddr, u32);

/// Fragmented packets that are remembered, to know their later fragments by.
const MAX_FRAGMENTED: usize = 64;
/// Streams of sequence numbers that are followed; beyond, the one that was longest unused gives way.
const MAX_STREAMS: usize = 64;
/// A leap beyond this is a restart of the mirror, and no loss.
const MAX_GAP: u32 = 1 << 16;
/// Packets that come so much too late were only overtaken.
const MAX_LATE: u32 = 1 << 10;

/// Sequence numbers of one mirror, source and session.
#[derive(Clone, Debug)]
struct Stream {
    key: (usize, IpAddr, Option<u32>),
    next: u32,
    missing: u64,
}

impl Stream {
    /// Takes a number; gives by how much the losses change.
    fn take(&mut self, sequence: u32) -> i64 {
        let ahead = sequence.wrapping_sub(self.next);
        let behind = self.next.wrapping_sub(sequence);
        if ahead != 0 && behind <= MAX_LATE {
            let late = self.missing > 0;
            self.missing = self.missing.saturating_sub(1);
            return -i64::from(late);
        }
        let lost = if ahead < MAX_GAP { ahead } else { 0 };
        self.next = sequence.wrapping_add(1);
        self.missing = self.missing.saturating_add(lost.into());
        lost.into()
    }
}

impl Mirrors {
    pub(crate) fn add(&mut self, mirror: MirrorPlan, interface: InterfaceIndex) {
        self.mirrors.push((mirror, interface));
    }

    /// From now on only a part of their packets comes here.
    pub(crate) fn set_partial(&mut self) {
        self.is_partial = true;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.mirrors.is_empty()
    }

    /// Packets lost between the mirrors and here, by the gaps in their sequence numbers.
    pub(crate) const fn lost(&self) -> u64 {
        self.lost
    }

    /// Interface and name of a mirror.
    pub(crate) fn interface(&self, mirror: usize) -> Option<(InterfaceIndex, &Name)> {
        self.mirrors.get(mirror).map(|(plan, interface)| (*interface, &plan.name))
    }

    /// Says what a packet is: the first mirror whose conditions hold has it.
    pub(crate) fn strip<'a>(&mut self, ip: &IpPacket<'a>) -> Mirrored<'a> {
        let datagram = ip.fragment.map(|fragment| (ip.source, ip.destination, fragment.identification));
        if ip.fragment.is_some_and(|fragment| fragment.offset != 0) {
            let known = self.fragmented.iter().find(|(_, other)| Some(*other) == datagram);
            return known.map_or(Mirrored::No, |&(mirror, _)| Mirrored::Fragment(mirror));
        }
        let found = self.mirrors.iter().enumerate().find_map(|(at, (mirror, _))| {
            let opened = open(mirror, ip).transpose()?;
            Some((at, opened))
        });
        let Some((at, opened)) = found else { return Mirrored::No };
        if let Some(datagram) = datagram {
            if self.fragmented.len() >= MAX_FRAGMENTED {
                self.fragmented.pop_front();
            }
            self.fragmented.push_back((at, datagram));
        }
        match opened {
            Ok(inner) => {
                self.follow(at, ip.source, &inner);
                Mirrored::Copy(at, inner)
            }
            Err(unparsed) => Mirrored::Broken(at, unparsed),
        }
    }

    /// Counts what is missing in the sequence.
    fn follow(&mut self, mirror: usize, source: IpAddr, inner: &Inner<'_>) {
        let Some(sequence) = inner.sequence.filter(|_| !self.is_partial) else { return };
        let key = (mirror, source, inner.tunnel.id);
        let known = self.streams.iter().position(|stream| stream.key == key);
        let at = known.unwrap_or_else(|| {
            if self.streams.len() >= MAX_STREAMS {
                self.streams.pop();
            }
            self.streams.push(Stream { key, next: sequence, missing: 0 });
            self.streams.len() - 1
        });
        let change = self.streams.get_mut(at).map_or(0, |stream| stream.take(sequence));
        self.lost = self.lost.saturating_add_signed(change);
        // The latest stands first: most mirrors have one stream, and the search is for them.
        if let Some(front) = self.streams.get_mut(..=at) {
            front.rotate_right(1);
        }
    }
}

/// Opens a packet as one of a mirror. None where a condition does not hold.
fn open<'a>(mirror: &MirrorPlan, ip: &IpPacket<'a>) -> Result<Option<Inner<'a>>, Unparsed> {
    if mirror.destination.is_some_and(|prefix| !prefix.contains(&ip.destination)) {
        return Ok(None);
    }
    let is_wanted = |inner: &Inner<'_>| mirror.id.is_none() || inner.tunnel.id == mirror.id;
    match decode::mirrored(mirror.kind.tunnel(), mirror.port, ip)? {
        decode::MirrorOpened::Other => Ok(None),
        decode::MirrorOpened::Inner(inner) => Ok(Some(inner).filter(is_wanted)),
        // Where the mirror's address is stated nothing else is meant to come to it on that port.
        decode::MirrorOpened::Contradicts if mirror.destination.is_some() && mirror.id.is_none() => {
            Err(Unparsed { layer: Layer::Shim, reason: Reason::BadTunnel })
        }
        decode::MirrorOpened::Contradicts => Ok(None),
    }
}

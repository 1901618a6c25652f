//! Fragments of IP datagrams. Only the first carries ports; the others are counted to its flow, also those that
//! come before it. No payload is kept, only which bytes were seen; where datagrams are to count whole, what they
//! count as is gathered until nothing is missing.

use std::{collections::VecDeque, net::IpAddr};

use arrayvec::ArrayVec;
use hashbrown::HashTable;

use super::{
    FragmentMode,
    key::KeyedHash,
    live::{FlowPacket, Origin, PacketPlace, Tally},
    pieces::{Fit, Pieces},
};
use crate::{
    decode::{Fragment, InterfaceIndex, Link, TcpSegment, Transport},
    record::{FlowId, Tunnel},
    time::{NANOS_PER_SECOND, Timestamp},
};

/// How long a datagram is remembered, in nanoseconds: what RFC 8200 section 4.5 gives reassembly, from the first
/// fragment to arrive.
const LIFETIME: i64 = 60 * NANOS_PER_SECOND;

/// What the fragments of one datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct DatagramKey {
    source: IpAddr,
    destination: IpAddr,
    identification: u32,
    scope: u16,
    protocol: u8,
    tunnelled: bool,
}

impl DatagramKey {
    pub(super) fn new(packet: &FlowPacket<'_>, fragment: &Fragment) -> Self {
        Self {
            source: packet.ip.source,
            destination: packet.ip.destination,
            identification: fragment.identification,
            scope: packet.origin.place.scope,
            protocol: fragment.key_protocol,
            tunnelled: packet.origin.tunnel.is_some(),
        }
    }
}

/// What the first fragment told: protocol, ports, and whether the flow is one-way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    pub protocol: u8,
    pub source: u16,
    pub destination: u16,
    pub one_way: bool,
}

/// An [`Origin`] that is kept.
#[derive(Clone, Debug)]
struct KeptOrigin {
    interface: InterfaceIndex,
    link: Link,
    place: PacketPlace,
    tunnel: Option<Tunnel>,
    parents: ArrayVec<FlowId, 4>,
    leaving: Option<bool>,
}

/// Fragments whose first one has not been seen.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub tally: Tally,
    origin: KeptOrigin,
}

impl Pending {
    fn new(packet: &FlowPacket<'_>) -> Self {
        let Origin { interface, link, place, tunnel, parents, leaving } = packet.origin;
        let parents = parents.iter().copied().take(4).collect();
        Self {
            source: packet.ip.source,
            destination: packet.ip.destination,
            protocol: packet.ip.protocol,
            tally: Tally::of(packet),
            origin: KeptOrigin { interface, link: link.clone(), place, tunnel, parents, leaving },
        }
    }

    /// Where the first of them came from.
    pub(super) fn origin(&self) -> Origin<'_> {
        let KeptOrigin { interface, ref link, place, tunnel, ref parents, leaving } = self.origin;
        Origin { interface, link, place, tunnel, parents, leaving }
    }
}

/// Bytes at the start of a TCP header that flows need: those behind may come in the second fragment (RFC 1858).
const HEAD: usize = 16;

/// A TCP header whose end is still to come.
type Head = ArrayVec<u8, HEAD>;

#[derive(Clone, Debug)]
enum State {
    Known(Ports, Option<Box<Head>>),
    Waiting(Box<Pending>),
    Gathering(Box<Gathering>),
    Free,
}

/// A datagram that counts once it is whole.
#[derive(Clone, Debug)]
struct Gathering {
    tally: Tally,
    first: Option<First>,
}

/// What the first fragment tells of the datagram.
#[derive(Clone, Debug)]
struct First {
    ports: Ports,
    transport: Transport,
    head: Option<Head>,
    /// Bytes of IP headers, without the fragment header of IPv6, and of the transport header.
    ip_header: u32,
    transport_header: u32,
}

/// What a fragment gives to be counted.
#[derive(Clone, Debug)]
pub(super) struct Counted {
    pub ports: Ports,
    pub tally: Tally,
    /// A TCP header and the bytes behind it: of a whole datagram, or one that took two fragments.
    pub tcp: Option<(TcpSegment, u32)>,
    /// What came before the first fragment.
    pub before: Option<Box<Pending>>,
}

#[derive(Clone, Debug)]
struct Datagram {
    key: DatagramKey,
    since: Timestamp,
    state: State,
    pieces: Pieces,
}

/// Datagrams of which fragments were seen lately. At most `limit`; the oldest give way.
#[derive(Clone, Debug)]
pub(super) struct FragmentTable {
    index: HashTable<u32>,
    datagrams: Vec<Datagram>,
    free: Vec<u32>,
    /// In order of age, which is the order in which they are forgotten.
    order: VecDeque<u32>,
    orphans: VecDeque<Box<Pending>>,
    hash: KeyedHash,
    limit: usize,
    mode: FragmentMode,
    unassembled: u64,
}

impl FragmentTable {
    pub(super) fn new(limit: u32, mode: FragmentMode, hash: KeyedHash) -> Self {
        Self {
            index: HashTable::new(),
            datagrams: Vec::new(),
            free: Vec::new(),
            order: VecDeque::new(),
            orphans: VecDeque::new(),
            hash,
            limit: limit.max(1) as usize,
            mode,
            unassembled: 0,
        }
    }

    /// Fragments of datagrams that were to count whole and never were.
    pub(super) const fn unassembled(&self) -> u64 {
        self.unassembled
    }

    /// Takes a fragment; gives what is to be counted now.
    pub(super) fn take(
        &mut self,
        packet: &FlowPacket<'_>,
        fragment: &Fragment,
        ports: Ports,
        clock: Timestamp,
    ) -> Option<Counted> {
        let at = self.find_or_insert(DatagramKey::new(packet, fragment), clock) as usize;
        let length = packet.ip.body_bytes();
        let [.., a, b, c, d] = self.hash.of(&packet.ip.body()).to_be_bytes();
        let datagram = &mut self.datagrams[at];
        let mut tally = Tally::of(packet);
        let fit =
            datagram.pieces.add(fragment.offset, length, fragment.more, u32::from_be_bytes([a, b, c, d]));
        tally.flaws.overlapping_fragments = u64::from(fit == Fit::Overlap);
        let whole = datagram.pieces.whole();
        if whole.is_some() {
            datagram.pieces.clear();
        }
        match self.mode {
            FragmentMode::Counted => datagram.count(packet, fragment, ports, tally),
            FragmentMode::Reassembled => datagram.gather(packet, fragment, ports, tally, whole),
        }
    }

    /// Forgets what is too old at `clock`.
    pub(super) fn expire(&mut self, clock: Timestamp) {
        while let Some(&oldest) = self.order.front() {
            if clock.since(self.datagrams[oldest as usize].since) < LIFETIME {
                return;
            }
            self.forget_oldest();
        }
    }

    /// Forgets everything.
    pub(super) fn finish(&mut self) {
        while !self.order.is_empty() {
            self.forget_oldest();
        }
    }

    /// Fragments that were forgotten before their first one came, in order.
    pub(super) fn take_orphan(&mut self) -> Option<Box<Pending>> {
        self.orphans.pop_front()
    }

    fn find_or_insert(&mut self, key: DatagramKey, clock: Timestamp) -> u32 {
        let hash = self.hash.of(&key);
        if let Some(&found) = self.index.find(hash, |&at| self.datagrams[at as usize].key == key) {
            return found;
        }
        if self.order.len() >= self.limit {
            self.forget_oldest();
        }
        let datagram = Datagram { key, since: clock, state: State::Free, pieces: Pieces::default() };
        let at = match self.free.pop() {
            Some(at) => {
                self.datagrams[at as usize] = datagram;
                at
            }
            None => {
                self.datagrams.push(datagram);
                u32::try_from(self.datagrams.len() - 1).unwrap_or(0)
            }
        };
        let Self { index, datagrams, hash: keyed, .. } = self;
        index.insert_unique(hash, at, |&at| keyed.of(&datagrams[at as usize].key));
        self.order.push_back(at);
        at
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.order.pop_front() else { return };
        let datagram = &mut self.datagrams[oldest as usize];
        let hash = self.hash.of(&datagram.key);
        datagram.pieces = Pieces::default();
        match std::mem::replace(&mut datagram.state, State::Free) {
            State::Waiting(pending) => self.orphans.push_back(pending),
            State::Gathering(gathering) => {
                self.unassembled = self.unassembled.saturating_add(gathering.tally.fragments);
            }
            State::Known(..) | State::Free => {}
        }
        if let Ok(entry) = self.index.find_entry(hash, |&at| at == oldest) {
            entry.remove();
        }
        self.free.push(oldest);
    }
}

impl Datagram {
    /// Each fragment counts: at once where the ports are known, else when they are.
    fn count(
        &mut self,
        packet: &FlowPacket<'_>,
        fragment: &Fragment,
        ports: Ports,
        mut tally: Tally,
    ) -> Option<Counted> {
        if fragment.offset == 0 {
            let head = begun(packet).map(Box::new);
            let before = match std::mem::replace(&mut self.state, State::Known(ports, head)) {
                State::Waiting(pending) => Some(pending),
                State::Known(..) | State::Gathering(_) | State::Free => None,
            };
            let tcp = match packet.ip.transport {
                Transport::Tcp(segment) => Some((segment, packet.ip.payload_bytes)),
                _ => None,
            };
            return Some(Counted { ports, tally, tcp, before });
        }
        match &mut self.state {
            State::Known(ports, head) => {
                let ports = *ports;
                let joined = head.as_mut().and_then(|head| join(head, packet, fragment));
                let tcp = joined.map(|(segment, length)| {
                    tally.tcp_flags |= segment.flags;
                    *head = None;
                    let end = packet.ip.body_bytes().saturating_add(fragment.offset.into());
                    (segment, end.saturating_sub(length))
                });
                return Some(Counted { ports, tally, tcp, before: None });
            }
            State::Waiting(pending) => pending.tally.add(&tally),
            State::Gathering(_) | State::Free => {
                self.state = State::Waiting(Box::new(Pending { tally, ..Pending::new(packet) }));
            }
        }
        None
    }

    /// The datagram counts, once it is whole.
    fn gather(
        &mut self,
        packet: &FlowPacket<'_>,
        fragment: &Fragment,
        ports: Ports,
        tally: Tally,
        whole: Option<u16>,
    ) -> Option<Counted> {
        match &mut self.state {
            State::Gathering(gathering) => gathering.tally.add(&tally),
            state => *state = State::Gathering(Box::new(Gathering { tally, first: None })),
        }
        let State::Gathering(gathering) = &mut self.state else { return None };
        if fragment.offset == 0 && gathering.first.is_none() {
            let ip = packet.ip;
            let fragment_header = if ip.source.is_ipv6() { 8 } else { 0 };
            gathering.first = Some(First {
                ports,
                transport: ip.transport,
                head: begun(packet),
                ip_header: ip.header_bytes.saturating_sub(fragment_header),
                transport_header: ip.body_bytes().saturating_sub(ip.payload_bytes),
            });
        } else if let Some(First { transport, head, transport_header, .. }) = &mut gathering.first
            && let Some((segment, length)) = head.as_mut().and_then(|head| join(head, packet, fragment))
        {
            *transport = Transport::Tcp(segment);
            *transport_header = length;
            *head = None;
            gathering.tally.tcp_flags |= segment.flags;
        }
        let length = u32::from(whole?);
        let State::Gathering(gathering) = std::mem::replace(&mut self.state, State::Free) else {
            return None;
        };
        let Gathering { mut tally, first } = *gathering;
        let first = first?;
        let payload = length.saturating_sub(first.transport_header);
        tally.packets = 1;
        tally.ip_bytes = first.ip_header.saturating_add(length).into();
        tally.payload_bytes = payload.into();
        let tcp = match first.transport {
            Transport::Tcp(segment) => Some((segment, payload)),
            _ => None,
        };
        Some(Counted { ports: first.ports, tally, tcp, before: None })
    }
}

/// The start of a TCP header that goes on in the second fragment.
fn begun(packet: &FlowPacket<'_>) -> Option<Head> {
    let ip = packet.ip;
    let goes_on = ip.protocol == 6 && !matches!(ip.transport, Transport::Tcp(_)) && ip.is_whole();
    goes_on.then(|| ip.body().iter().copied().take(HEAD).collect())
}

/// Joins the rest of a TCP header to its start; gives it with its length.
fn join(head: &mut Head, packet: &FlowPacket<'_>, fragment: &Fragment) -> Option<(TcpSegment, u32)> {
    if usize::from(fragment.offset) != head.len() {
        return None;
    }
    let missing = HEAD - head.len();
    head.extend(packet.ip.body().iter().copied().take(missing));
    TcpSegment::read(head)
}

//! Fragments of IP datagrams. Only the first carries ports; the others are counted to its flow, also those that
//! come before it. Nothing is reassembled, and no bytes are kept.

use std::{collections::VecDeque, net::IpAddr};

use arrayvec::ArrayVec;
use hashbrown::HashTable;

use super::{
    key::KeyedHash,
    live::{FlowPacket, Origin, PacketPlace, Tally},
};
use crate::{
    decode::{Fragment, InterfaceIndex, Link},
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

#[derive(Clone, Debug)]
enum State {
    Known(Ports),
    Waiting(Box<Pending>),
    Free,
}

#[derive(Clone, Debug)]
struct Datagram {
    key: DatagramKey,
    since: Timestamp,
    state: State,
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
}

impl FragmentTable {
    pub(super) fn new(limit: u32, hash: KeyedHash) -> Self {
        Self {
            index: HashTable::new(),
            datagrams: Vec::new(),
            free: Vec::new(),
            order: VecDeque::new(),
            orphans: VecDeque::new(),
            hash,
            limit: limit.max(1) as usize,
        }
    }

    /// Takes a first fragment; gives what came before it.
    pub(super) fn first(&mut self, key: DatagramKey, ports: Ports, clock: Timestamp) -> Option<Box<Pending>> {
        let at = self.find_or_insert(key, clock, || State::Free) as usize;
        match std::mem::replace(&mut self.datagrams[at].state, State::Known(ports)) {
            State::Waiting(pending) => Some(pending),
            State::Known(_) | State::Free => None,
        }
    }

    /// Takes a later fragment: its ports where the first one is known; else it is kept.
    pub(super) fn later(
        &mut self,
        key: DatagramKey,
        packet: &FlowPacket<'_>,
        clock: Timestamp,
    ) -> Option<Ports> {
        let mut is_new = false;
        let at = self.find_or_insert(key, clock, || {
            is_new = true;
            State::Waiting(Box::new(Pending::new(packet)))
        });
        match &mut self.datagrams[at as usize].state {
            State::Known(ports) => return Some(*ports),
            State::Waiting(pending) if !is_new => pending.tally.add(&Tally::of(packet)),
            State::Waiting(_) | State::Free => {}
        }
        None
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

    fn find_or_insert(&mut self, key: DatagramKey, clock: Timestamp, state: impl FnOnce() -> State) -> u32 {
        let hash = self.hash.of(&key);
        if let Some(&found) = self.index.find(hash, |&at| self.datagrams[at as usize].key == key) {
            return found;
        }
        if self.order.len() >= self.limit {
            self.forget_oldest();
        }
        let datagram = Datagram { key, since: clock, state: state() };
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
        if let State::Waiting(pending) = std::mem::replace(&mut datagram.state, State::Free) {
            self.orphans.push_back(pending);
        }
        if let Ok(entry) = self.index.find_entry(hash, |&at| at == oldest) {
            entry.remove();
        }
        self.free.push(oldest);
    }
}

//! The flow table: finds the flow of a packet by one hash lookup, counts, runs timers, and makes room when full.

use hashbrown::HashTable;

use super::{
    FlowConfig,
    direction::judge,
    event::FlowEvent,
    fragment::{DatagramKey, FragmentTable, Ports},
    history::{History, cased, is_power_of_ten},
    host::FlowHost,
    icmp,
    key::{End, FlowKey, KeyedHash, Side},
    lifetime::Timeouts,
    live::{
        Cold, Counters, Flaws, Flow, FlowPacket, Integrity, NO_ENTRY, Origin, SidePlace, Tally, Waiting,
        Wrapping,
    },
    queue::{Queues, Rank},
    report::Reporter,
    slab::Slab,
    tcp::{Outcome, Segment, TcpState},
    wheel::{TimerWheel, tick_of},
};
use crate::{
    decode::{TcpSegment, Transport},
    net::Name,
    record::{EndReason, FlowId, FlowRecord},
    time::Timestamp,
};

/// Scope of flows whose address space is no longer in the plan.
const GONE: u16 = u16::MAX;

/// A flow of the table. It is valid until the next packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowHandle(u32);

/// Where the flow of a packet is looked for: its key, its side of it, and the key's hash in one table.
#[derive(Clone, Copy, Debug)]
pub struct FlowAddress {
    key: FlowKey,
    side: Side,
    hash: u64,
}

/// What a packet says of TCP.
#[derive(Clone, Copy, Debug)]
struct TcpPart<'a> {
    header: &'a TcpSegment,
    payload: u32,
    fragment: bool,
}

/// Live flows. Time is packet time: the clock stands at the latest time seen, and packets with an earlier one
/// move nothing.
#[derive(Debug)]
pub struct FlowTable {
    pub(super) index: HashTable<u32>,
    pub(super) hash: KeyedHash,
    pub(super) flows: Vec<Flow>,
    pub(super) cold: Vec<Cold>,
    pub(super) tcp: Slab<TcpState>,
    pub(super) free: Vec<u32>,
    pub(super) wheel: TimerWheel,
    pub(super) queues: Queues,
    pub(super) fragments: FragmentTable,
    pub(super) clock: Timestamp,
    pub(super) timeouts: Timeouts,
    pub(super) limit: usize,
    pub(super) gave_way: u64,
    /// Latest begin of a flow that has ended: only what begins at or before it can be taken for another.
    pub(super) gone_until: Timestamp,
    repeats: u16,
    pub(super) reporter: Reporter,
}

impl FlowTable {
    /// An empty table. Identities of flows depend on site and sensor; nothing depends on the hash seed but speed.
    pub fn new(config: &FlowConfig, site: Name, sensor: &str, hash_seed: [u64; 4]) -> Self {
        let hash = KeyedHash::new(hash_seed);
        Self {
            index: HashTable::new(),
            hash: hash.clone(),
            flows: Vec::new(),
            cold: Vec::new(),
            tcp: Slab::default(),
            free: Vec::new(),
            wheel: TimerWheel::default(),
            queues: Queues::default(),
            fragments: FragmentTable::new(config.max_fragmented_datagrams, hash),
            clock: Timestamp(i64::MIN),
            timeouts: Timeouts::new(config),
            limit: config.max_flows.clamp(1, NO_ENTRY - 1) as usize,
            gave_way: 0,
            gone_until: Timestamp(i64::MIN),
            repeats: 0,
            reporter: Reporter::new(site, sensor, config.community_id_seed),
        }
    }

    /// Flows that are live.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether no flow is live.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Flows that had to give way because the table was full.
    pub const fn gave_way(&self) -> u64 {
        self.gave_way
    }

    /// Moves packet time on; ends and reports what is due. True where time went on by a tick of the timers, so
    /// that others can run theirs at the same pace.
    pub fn advance<H: FlowHost>(&mut self, now: Timestamp, host: &mut H) -> bool {
        if now <= self.clock {
            return false;
        }
        self.clock = now;
        let tick = tick_of(now);
        if tick == self.wheel.tick() {
            return false;
        }
        while let Some(entry) = self.wheel.next_due(tick) {
            if self.settle(entry, host) {
                self.arm(entry);
            }
        }
        self.fragments.expire(now);
        self.count_orphans(host);
        true
    }

    /// Clock of the table: the latest packet time.
    pub const fn clock(&self) -> Timestamp {
        self.clock
    }

    /// Where the flow of a packet is looked for; none for a fragment, whose ports may be another packet's.
    ///
    /// With [`Self::warm`] this serves batches: `address` of each packet first, then `warm` of all of them, then
    /// [`Self::observe_at`] of each in order. It changes nothing in the table, so it may be asked long before the
    /// packet is observed (though not across [`Self::renumber`]).
    pub fn address(&self, packet: &FlowPacket<'_>) -> Option<FlowAddress> {
        if packet.ip.fragment.is_some() {
            return None;
        }
        Some(self.address_of(packet, ports_of(packet)))
    }

    /// Touches what the lookups at these addresses will read. The reads do not depend on each other, so that
    /// the processor waits for them all at once; a lookup by itself waits for the index, then for the flow.
    pub fn warm<'a>(&self, addresses: impl IntoIterator<Item = &'a FlowAddress>) {
        let mut touched = 0;
        for address in addresses {
            // The first candidate is all but certainly the flow.
            let candidate = self.index.find(address.hash, |_| true);
            if let Some(flow) = candidate.and_then(|&entry| self.flows.get(entry as usize)) {
                touched ^= flow.tcp;
            }
        }
        std::hint::black_box(touched);
    }

    /// Counts one packet to its flow. None for a later fragment whose first one is still to come.
    pub fn observe<H: FlowHost>(&mut self, packet: &FlowPacket<'_>, host: &mut H) -> Option<FlowHandle> {
        self.observe_at(packet, self.address(packet), host)
    }

    /// The same for a packet whose [`Self::address`] was taken before.
    pub fn observe_at<H: FlowHost>(
        &mut self,
        packet: &FlowPacket<'_>,
        address: Option<FlowAddress>,
        host: &mut H,
    ) -> Option<FlowHandle> {
        self.advance(packet.time, host);
        let ip = packet.ip;
        let mut ports = ports_of(packet);
        let mut before = None;
        if let Some(fragment) = &ip.fragment {
            let datagram = DatagramKey::new(packet, fragment);
            if fragment.offset == 0 {
                before = self.fragments.first(datagram, ports, self.clock);
            } else {
                let known = self.fragments.later(datagram, packet, self.clock);
                self.count_orphans(host);
                ports = known?;
            }
        }
        let tcp = match &ip.transport {
            Transport::Tcp(header) => {
                Some(TcpPart { header, payload: ip.payload_bytes, fragment: ip.fragment.is_some() })
            }
            _ => None,
        };
        let address = address.unwrap_or_else(|| self.address_of(packet, ports));
        let tally = Tally::of(packet);
        if packet.integrity == Integrity::Rejected {
            return Some(FlowHandle(self.reject(address, &packet.origin, &tally, tcp, host)));
        }
        let entry = self.account(address, &packet.origin, &tally, tcp, host);
        if let Some(pending) = before {
            self.account(address, &packet.origin, &pending.tally, None, host);
        }
        if ip.fragment.is_some() {
            self.count_orphans(host);
        }
        Some(FlowHandle(entry))
    }

    /// Identity of a flow that was just observed.
    pub fn flow_id<H: FlowHost>(&mut self, FlowHandle(entry): FlowHandle, host: &H) -> FlowId {
        self.identify(entry as usize, host)
    }

    /// The record of a flow that was just observed, as it stands; nothing is reported or ended.
    pub fn peek<H: FlowHost>(&mut self, FlowHandle(entry): FlowHandle, host: &H) -> FlowRecord {
        self.peek_at(entry as usize, host)
    }

    /// Ends every flow, in order of start. What was due by the clock is told as such, and a connection whose end
    /// was seen has ended, though late packets could still have come.
    pub fn finish<H: FlowHost>(&mut self, host: &mut H) {
        self.fragments.finish();
        self.count_orphans(host);
        let mut live: Vec<u32> = self.index.iter().copied().collect();
        live.sort_unstable_by_key(|&entry| {
            let at = entry as usize;
            (self.cold[at].flow_start, self.flows[at].key)
        });
        for entry in live {
            let due = self.due(entry, host);
            let closed = self.flows[entry as usize].waiting == Waiting::Late;
            let reason = due.unwrap_or(if closed { EndReason::Ended } else { EndReason::Forced });
            self.end(entry, reason, host);
        }
    }

    /// Takes new numbers for scopes, spaces, segments and secretariats, after the plan has changed. Flows whose
    /// scope is gone stay until they end, and take no more packets.
    pub fn renumber<H: FlowHost>(
        &mut self,
        host: &H,
        scope: impl Fn(u16) -> Option<u16>,
        space: impl Fn(u16) -> Option<u16>,
        segment: impl Fn(u16) -> Option<u16>,
        secretariat: impl Fn(u16) -> Option<u16>,
    ) {
        let live: Vec<u32> = self.index.drain().collect();
        for entry in live {
            let at = entry as usize;
            self.identify(at, host);
            let key = self.flows[at].key;
            self.flows[at].key = key.with_scope(scope(key.scope()).unwrap_or(GONE));
            // The identity is by the names so far.
            let cold = &mut self.cold[at];
            cold.space = space(cold.space).unwrap_or(0);
            for place in &mut cold.places {
                place.segment = place.segment.and_then(&segment);
                place.secretariat = place.secretariat.and_then(&secretariat);
            }
            self.link(entry);
        }
        self.reporter.forget_scopes();
    }

    fn address_of(&self, packet: &FlowPacket<'_>, ports: Ports) -> FlowAddress {
        let (source, destination) =
            ((packet.ip.source, ports.source), (packet.ip.destination, ports.destination));
        self.locate(&packet.origin, ports.protocol, source, destination, ports.one_way)
    }

    fn locate(
        &self,
        origin: &Origin<'_>,
        protocol: u8,
        source: End,
        destination: End,
        one_way: bool,
    ) -> FlowAddress {
        let (key, side) = FlowKey::new(origin.place.scope, protocol, source, destination, one_way);
        let key = if origin.tunnel.is_some() { key.in_tunnel() } else { key };
        FlowAddress { key, side, hash: self.hash.of(&key) }
    }

    /// Counts a tally to the flow of a key, which is found, taken over, or created.
    fn account<H: FlowHost>(
        &mut self,
        address: FlowAddress,
        origin: &Origin<'_>,
        tally: &Tally,
        tcp: Option<TcpPart<'_>>,
        host: &mut H,
    ) -> u32 {
        let (entry, _) = self.find_or_begin(address, origin, tally, tcp, host);
        self.count(entry, address.side, origin, tally, tcp, host);
        entry
    }

    /// The flow of a key, which is found, taken over, or begun; and whether it was begun.
    fn find_or_begin<H: FlowHost>(
        &mut self,
        FlowAddress { key, side, hash }: FlowAddress,
        origin: &Origin<'_>,
        tally: &Tally,
        tcp: Option<TcpPart<'_>>,
        host: &mut H,
    ) -> (u32, bool) {
        match self.index.find(hash, |&entry| self.flows[entry as usize].key == key).copied() {
            Some(entry) => {
                let goes_on = self.is_current(entry, tcp, host);
                if !goes_on {
                    self.begin(entry, key, side, origin, tally, tcp, host);
                }
                (entry, !goes_on)
            }
            None => {
                let entry = self.new_entry(host);
                self.begin(entry, key, side, origin, tally, tcp, host);
                self.link(entry);
                (entry, true)
            }
        }
    }

    /// Notes a packet that is rejected for its checksum with its flow, and counts nothing else of it.
    fn reject<H: FlowHost>(
        &mut self,
        address: FlowAddress,
        origin: &Origin<'_>,
        tally: &Tally,
        tcp: Option<TcpPart<'_>>,
        host: &mut H,
    ) -> u32 {
        let (entry, is_new) = self.find_or_begin(address, origin, tally, tcp, host);
        if is_new {
            self.arm(entry);
        }
        let (at, side) = (entry as usize, address.side);
        let flow = &self.flows[at];
        let originator = flow.originator();
        let letters = self.letters_by_sides(flow, self.cold[at].reason);
        let flawed = self.cold[at].flawed.get_or_insert_default();
        flawed.flaws[side].add(tally.flaws);
        flawed.rejected[side] = flawed.rejected[side].saturating_add(1);
        if let Some(state) = self.tcp.get_mut(flow.tcp) {
            state.reject(side, originator);
        } else if is_power_of_ten(flawed.rejected[side]) {
            let history = flawed.history.get_or_insert_with(|| letters.bytes().collect());
            history.push(cased(b'C', side == originator));
        }
        entry
    }

    /// Whether a flow that was found goes on. If not, it has been reported, and its entry is to be used anew.
    fn is_current<H: FlowHost>(&mut self, entry: u32, tcp: Option<TcpPart<'_>>, host: &mut H) -> bool {
        if let Some(reason) = self.due(entry, host) {
            self.tell_end(entry, reason, host);
            return false;
        }
        let Some(tcp) = tcp else { return true };
        if !tcp.header.has(TcpSegment::SYN) {
            return true;
        }
        let flow = &self.flows[entry as usize];
        let originator = flow.originator();
        let reused = self.tcp.get(flow.tcp).is_some_and(|state| state.is_reuse(originator, tcp.header));
        if reused {
            self.tell_end(entry, EndReason::Ended, host);
        }
        !reused
    }

    /// Fills an entry with a new flow, armed and queued but without counts. The key is in the index already, or
    /// is linked by the caller.
    #[expect(clippy::too_many_arguments, reason = "the facts of a packet, already split")]
    fn begin<H: FlowHost>(
        &mut self,
        entry: u32,
        key: FlowKey,
        side: Side,
        origin: &Origin<'_>,
        tally: &Tally,
        tcp: Option<TcpPart<'_>>,
        host: &mut H,
    ) {
        let (source, destination) = (key.end(side), key.end(1 - side));
        let (flip, reason) = judge(key.protocol(), source, destination, tcp.map(|tcp| tcp.header));
        let originator = if flip { 1 - side } else { side };
        let mut places = [SidePlace::default(); 2];
        places[side] = host.side_place(origin, source.0, origin.link.source_mac);
        places[1 - side] = host.side_place(origin, destination.0, None);
        let flow = Flow {
            key,
            start: tally.first,
            end: tally.last,
            seen: self.clock,
            part_since: self.clock,
            wait_until: Timestamp(i64::MAX),
            sides: [Counters::default(); 2],
            tcp: NO_ENTRY,
            waiting: Waiting::No,
            originator: u8::from(originator == 1),
            referenced: false,
            answered: false,
            established: false,
            estimated: false,
        };
        let serial = if tally.first > self.gone_until {
            0
        } else {
            // One bit of the number tells tunnelled flows from others.
            self.repeats = if self.repeats >= 0x7fff { 1 } else { self.repeats + 1 };
            self.repeats
        };
        let cold = Cold {
            created: tally.first,
            serial,
            moves: 0,
            reason,
            flow_start: tally.first,
            part: 0,
            interface: origin.interface,
            space: origin.place.space,
            vlans: origin.link.vlans.clone(),
            places,
            first_mac: [None; 2],
            moved_packets: [0; 2],
            id: None,
            past: None,
            flawed: None,
            wrapping: wrapping(origin),
        };
        let at = entry as usize;
        if at < self.flows.len() {
            self.flows[at] = flow;
            self.cold[at] = cold;
        } else {
            self.flows.push(flow);
            self.cold.push(cold);
        }
        if tcp.is_some() {
            let mut state = TcpState::default();
            if flip {
                state.note_flip();
            }
            self.flows[at].tcp = self.tcp.insert(state);
        }
        self.queues.append(entry, Rank::Unanswered);
    }

    /// Links a flow into the index.
    fn link(&mut self, entry: u32) {
        let Self { index, flows, hash, .. } = self;
        let of = |&entry: &u32| hash.of(&flows[entry as usize].key);
        index.insert_unique(of(&entry), entry, of);
    }

    fn count<H: FlowHost>(
        &mut self,
        entry: u32,
        side: Side,
        origin: &Origin<'_>,
        tally: &Tally,
        tcp: Option<TcpPart<'_>>,
        host: &mut H,
    ) {
        let at = entry as usize;
        let flow = &self.flows[at];
        let is_new = !flow.sides[0].heard && !flow.sides[1].heard;
        let first_of_side = !flow.sides[side].heard;
        let originator = flow.originator();
        if flow.sides[side].mac != tally.mac {
            self.change_mac(at, side, origin, tally, host);
        }
        let flow = &mut self.flows[at];
        if flow.is_empty() {
            flow.start = tally.first;
            flow.end = tally.last;
        } else {
            flow.start = flow.start.min(tally.first);
            flow.end = flow.end.max(tally.last);
        }
        flow.seen = self.clock;
        flow.referenced = true;
        flow.estimated |= tally.estimated;
        flow.sides[side].add(tally);
        if tally.flaws != Flaws::default() {
            self.cold[at].flawed.get_or_insert_default().flaws[side].add(tally.flaws);
        }
        if first_of_side && let Some(history) = self.history_of(at) {
            history.push(cased(b'D', side == originator));
        }
        let outcome = tcp.map(|tcp| self.track(at, side, &tcp, tally.first)).unwrap_or_default();
        if first_of_side {
            self.first_of_side(entry, side, origin, is_new, host);
        }
        if is_new {
            self.cold[at].flow_start = tally.first;
            self.start_waiting(entry);
            self.tell(at, FlowEvent::Started, Some((side, origin)), host);
        } else {
            self.cold[at].flow_start = self.cold[at].flow_start.min(tally.first);
        }
        if first_of_side || outcome != Outcome::default() || self.flows[at].waiting == Waiting::Answer {
            self.react(entry, &outcome, first_of_side && !is_new, (side, origin), host);
        }
    }

    /// The letters of a flow that is not TCP and had packets rejected.
    fn history_of(&mut self, at: usize) -> Option<&mut History> {
        self.cold[at].flawed.as_mut()?.history.as_mut()
    }

    /// Runs the TCP state machine.
    fn track(&mut self, at: usize, side: Side, tcp: &TcpPart<'_>, time: Timestamp) -> Outcome {
        let flow = &mut self.flows[at];
        if flow.tcp == NO_ENTRY {
            // The first packets were cut before the flags.
            flow.tcp = self.tcp.insert(TcpState::default());
        }
        let Some(state) = self.tcp.get_mut(flow.tcp) else { return Outcome::default() };
        let outcome = state.update(&Segment {
            side,
            originator: flow.originator(),
            header: tcp.header,
            payload: tcp.payload,
            time,
            fragment: tcp.fragment,
        });
        if outcome.flip {
            // Counters, places and states are kept by side of the key, so this moves all of them.
            flow.originator = 1 - flow.originator;
            self.cold[at].reason = crate::record::DirectionReason::Repaired;
        }
        outcome
    }

    fn change_mac<H: FlowHost>(
        &mut self,
        at: usize,
        side: Side,
        origin: &Origin<'_>,
        tally: &Tally,
        host: &mut H,
    ) {
        /// Moves told of one side in one part: routers that share the load would else make one of each packet.
        const MOVES: u8 = 16;
        if self.flows[at].sides[side].heard {
            let cold = &mut self.cold[at];
            if tally.mac.is_none() || cold.moves >= MOVES {
                return;
            }
            cold.moves += 1;
            self.tell(at, FlowEvent::Moved, Some((side, origin)), host);
            self.cold[at].moved_packets = [0, 1].map(|side| self.flows[at].sides[side].packets);
        } else {
            self.cold[at].first_mac[side] = tally.mac;
        }
        self.flows[at].sides[side].mac = tally.mac;
    }

    /// Looks up what a side is to the plan by its own first packet.
    fn first_of_side<H: FlowHost>(
        &mut self,
        entry: u32,
        side: Side,
        origin: &Origin<'_>,
        is_new: bool,
        host: &mut H,
    ) {
        if is_new {
            return;
        }
        let at = entry as usize;
        let ip = self.flows[at].key.end(side).0;
        self.cold[at].places[side] = host.side_place(origin, ip, origin.link.source_mac);
        self.flows[at].answered = true;
    }

    /// Sets the timer of a new flow.
    fn start_waiting(&mut self, entry: u32) {
        let flow = &mut self.flows[entry as usize];
        let originator = flow.originator();
        if self.tcp.get(flow.tcp).is_some_and(|state| state.is_unanswered(originator)) {
            flow.waiting = Waiting::Answer;
            flow.wait_until = self.clock.plus(self.timeouts.attempt);
        }
        self.arm(entry);
    }

    /// Tells what a packet brought about beside counts, and sets queue and timer accordingly.
    fn react<H: FlowHost>(
        &mut self,
        entry: u32,
        outcome: &Outcome,
        answers: bool,
        packet: (Side, &Origin<'_>),
        host: &mut H,
    ) {
        let at = entry as usize;
        let flow = &mut self.flows[at];
        let originator = flow.originator();
        let tcp = self.tcp.get(flow.tcp);
        let unanswered = tcp.map_or(!flow.answered, |state| state.is_unanswered(originator));
        if !unanswered {
            if flow.waiting == Waiting::Answer {
                flow.waiting = Waiting::No;
                flow.wait_until = Timestamp(i64::MAX);
            }
            self.queues.promote(entry);
        }
        if outcome.ended {
            let flow = &mut self.flows[at];
            flow.waiting = Waiting::Late;
            flow.wait_until = self.clock.plus(self.timeouts.closing);
            self.arm(entry);
        }
        let is_tcp = self.flows[at].tcp != NO_ENTRY;
        if answers {
            self.tell(at, FlowEvent::Answered, Some(packet), host);
        }
        if outcome.refused {
            self.tell(at, FlowEvent::Refused, Some(packet), host);
        }
        if (outcome.established || answers && !is_tcp) && !self.flows[at].established {
            self.flows[at].established = true;
            self.tell(at, FlowEvent::Established, Some(packet), host);
        }
    }

    /// Counts fragments whose first one did not come to flows without ports.
    fn count_orphans<H: FlowHost>(&mut self, host: &mut H) {
        while let Some(pending) = self.fragments.take_orphan() {
            let origin = pending.origin();
            let (source, destination) = ((pending.source, 0), (pending.destination, 0));
            let address = self.locate(&origin, pending.protocol, source, destination, false);
            self.account(address, &origin, &pending.tally, None, host);
        }
    }
}

/// Ports of a packet that carries its transport header, or none.
fn ports_of(packet: &FlowPacket<'_>) -> Ports {
    let ip = packet.ip;
    let (source, destination, one_way) = match ip.transport {
        Transport::Tcp(TcpSegment { source, destination, .. }) | Transport::Ports { source, destination } => {
            (source, destination, false)
        }
        Transport::Icmp { kind, code, .. } => icmp::ports(ip.protocol, ip.source.is_ipv6(), kind, code),
        Transport::None => (0, 0, false),
    };
    Ports { protocol: ip.protocol, source, destination, one_way }
}

fn wrapping(origin: &Origin<'_>) -> Option<Box<Wrapping>> {
    let plain = origin.link.mpls_labels.is_empty() && origin.tunnel.is_none() && origin.parents.is_empty();
    (!plain).then(|| {
        Box::new(Wrapping {
            mpls_labels: origin.link.mpls_labels.clone(),
            tunnel: origin.tunnel,
            parents: origin.parents.iter().copied().take(4).collect(),
        })
    })
}

//! The flow table: finds the flow of a packet by one hash lookup, counts, runs timers, and makes room when full.

use hashbrown::HashTable;

use super::{
    FlowConfig, FragmentMode,
    aggregate::Aggregates,
    attempt::Attempts,
    chunks::Chunks,
    compact::{Addresses, Extensions, Flow, Waiting, flag},
    direction::judge,
    event::FlowEvent,
    fragment::{Counted, FragmentTable, Ports},
    history::{History, cased, is_power_of_ten},
    host::FlowHost,
    icmp,
    key::{End, FlowKey, KeyedHash, PackedKey, Side},
    lifetime::Timeouts,
    live::{FlowPacket, Integrity, NO_ENTRY, Origin, SidePlace, Tally, Wrapping},
    path::{self, Path, Paths},
    queue::{Queues, Rank},
    report::{Reporter, letters_by_sides},
    slab::Slab,
    tcp::{Outcome, Segment, TcpState},
    wheel::{TimerWheel, tick_of},
};
use crate::{
    decode::{Fragment, TcpSegment, Transport},
    net::Name,
    record::{EndReason, FlowId, FlowRecord},
    time::Timestamp,
};

/// Bit of the index's entries: an attempt, and not a flow.
pub(super) const ATTEMPT: u32 = 1 << 31;

/// Scope of flows whose address space is no longer in the plan.
const GONE: u16 = u16::MAX;

/// A flow of the table. It is valid until the next packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowHandle(u32);

/// Where the flow of a packet is looked for: its key, its side of it, and the key's hash in one table.
#[derive(Clone, Copy, Debug)]
pub struct FlowAddress {
    pub(super) key: FlowKey,
    pub(super) side: Side,
    pub(super) hash: u64,
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
    pub(super) flows: Chunks<Flow>,
    pub(super) addresses: Addresses,
    pub(super) extensions: Extensions,
    pub(super) paths: Paths,
    pub(super) tcp: Slab<TcpState>,
    pub(super) free: Vec<u32>,
    pub(super) wheel: TimerWheel,
    pub(super) queues: Queues,
    pub(super) attempts: Attempts,
    pub(super) aggregates: Aggregates,
    pub(super) fragments: FragmentTable,
    pub(super) fragment_mode: FragmentMode,
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
            flows: Chunks::default(),
            addresses: Addresses::default(),
            extensions: Extensions::default(),
            paths: Paths::new(hash.clone()),
            tcp: Slab::default(),
            free: Vec::new(),
            wheel: TimerWheel::default(),
            queues: Queues::default(),
            attempts: Attempts::new(config.max_attempts.clamp(1, ATTEMPT / 2) as usize),
            aggregates: Aggregates::new(hash.clone()),
            fragments: FragmentTable::new(config.max_fragmented_datagrams, config.fragments, hash),
            fragment_mode: config.fragments,
            clock: Timestamp(i64::MIN),
            timeouts: Timeouts::new(config),
            limit: config.max_flows.clamp(1, ATTEMPT - 1) as usize,
            gave_way: 0,
            gone_until: Timestamp(i64::MIN),
            repeats: 0,
            reporter: Reporter::new(site, sensor, config.community_id_seed),
        }
    }

    /// Flows that are live, attempts among them.
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

    /// Attempts that were added to aggregates because there were too many.
    pub const fn collapsed(&self) -> u64 {
        self.aggregates.collapsed()
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
        self.expire_attempts(tick, host);
        self.tell_aggregates(Some(now), host);
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
            touched ^= match candidate {
                Some(&entry) if entry & ATTEMPT == 0 => self.flows[entry as usize].tcp,
                Some(&entry) => self.attempts.get(entry & !ATTEMPT).path,
                None => 0,
            };
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
        if let Some(fragment) = &ip.fragment {
            return self.observe_fragment(packet, fragment, host);
        }
        let tcp = match &ip.transport {
            Transport::Tcp(header) => Some(TcpPart { header, payload: ip.payload_bytes, fragment: false }),
            _ => None,
        };
        let address = address.unwrap_or_else(|| self.address_of(packet, ports_of(packet)));
        let tally = Tally::of(packet);
        if packet.integrity == Integrity::Rejected {
            return Some(FlowHandle(self.reject(address, &packet.origin, &tally, tcp, host)));
        }
        let entry = self.account(address, &packet.origin, &tally, tcp, Some(packet), host);
        Some(FlowHandle(entry))
    }

    /// Counts a fragment, or the datagram that it makes whole.
    #[cold]
    fn observe_fragment<H: FlowHost>(
        &mut self,
        packet: &FlowPacket<'_>,
        fragment: &Fragment,
        host: &mut H,
    ) -> Option<FlowHandle> {
        let counted = self.fragments.take(packet, fragment, ports_of(packet), self.clock);
        self.count_orphans(host);
        let Counted { ports, tally, tcp, before } = counted?;
        let fragment = self.fragment_mode == FragmentMode::Counted;
        let tcp = tcp.as_ref().map(|(header, payload)| TcpPart { header, payload: *payload, fragment });
        let address = self.address_of(packet, ports);
        let mut entry = self.account(address, &packet.origin, &tally, tcp, None, host);
        if let Some(pending) = before {
            entry = self.account(address, &packet.origin, &pending.tally, None, None, host);
        }
        Some(FlowHandle(entry))
    }

    /// Fragments of datagrams that were to count whole and never were.
    pub const fn unassembled(&self) -> u64 {
        self.fragments.unassembled()
    }

    /// Identity of a flow that was just observed.
    pub fn flow_id(&mut self, FlowHandle(entry): FlowHandle) -> FlowId {
        if entry & ATTEMPT != 0 {
            return self.attempt_identity(self.attempts.get(entry & !ATTEMPT)).id();
        }
        let Self { flows, extensions, .. } = self;
        let flow = &mut flows[entry as usize];
        if let Some(id) = extensions.of(flow).and_then(|more| more.id) {
            return id;
        }
        // Whatever is asked for the identity once is a tunnel, and asked for it with each packet.
        let id = self.identity(&self.flows[entry as usize]).id();
        let Self { flows, extensions, .. } = self;
        extensions.change(&mut flows[entry as usize], |more| more.id = Some(id));
        id
    }

    /// The record of a flow that was just observed, as it stands; nothing is reported or ended.
    pub fn peek<H: FlowHost>(&mut self, FlowHandle(entry): FlowHandle, host: &H) -> FlowRecord {
        let entry = if entry & ATTEMPT != 0 { self.promote(entry & !ATTEMPT) } else { entry };
        self.peek_at(entry as usize, host)
    }

    /// Ends every flow, in order of start. What was due by the clock is told as such, and a connection whose end
    /// was seen has ended, though late packets could still have come.
    pub fn finish<H: FlowHost>(&mut self, host: &mut H) {
        self.fragments.finish();
        self.count_orphans(host);
        for entry in self.in_order() {
            let entry = if entry & ATTEMPT != 0 { self.promote(entry & !ATTEMPT) } else { entry };
            let due = self.due(entry, host);
            let closed = self.flows[entry as usize].waiting() == Waiting::Late;
            let reason = due.unwrap_or(if closed { EndReason::Ended } else { EndReason::Forced });
            self.end(entry, reason, host);
        }
        self.tell_aggregates(None, host);
    }

    /// Flows and attempts in order of start, then of key. Eight bytes for each: so many flows are live where memory
    /// is short that a list of starts and keys would be a quarter of it.
    fn in_order(&self) -> Vec<u32> {
        let start = |entry: u32| match entry & ATTEMPT {
            0 => self.extensions.starts(&self.flows[entry as usize]).1,
            _ => self.attempts.get(entry & !ATTEMPT).time,
        };
        let (mut first, mut last) = (Timestamp(i64::MAX), Timestamp(i64::MIN));
        for &entry in &self.index {
            (first, last) = (first.min(start(entry)), last.max(start(entry)));
        }
        // A start as coarse as it must be to fit beside the entry.
        let offset = |time: Timestamp| time.as_nanos().wrapping_sub(first.as_nanos()).cast_unsigned();
        let shift = (64 - offset(last).leading_zeros()).saturating_sub(32);
        let coarse = |word: u64| word >> 32;
        let entry_of = |word: u64| {
            let [.., a, b, c, d] = word.to_be_bytes();
            u32::from_be_bytes([a, b, c, d])
        };
        let mut live: Vec<u64> = Vec::with_capacity(self.index.len());
        live.extend(self.index.iter().map(|&entry| offset(start(entry)) >> shift << 32 | u64::from(entry)));
        live.sort_unstable();
        for same in live.chunk_by_mut(|&one, &next| coarse(one) == coarse(next)) {
            if same.len() > 1 {
                same.sort_unstable_by_key(|&word| {
                    let entry = entry_of(word);
                    (start(entry), self.addresses.unpack(self.key(entry)))
                });
            }
        }
        live.into_iter().map(entry_of).collect()
    }

    /// Takes new numbers for scopes, spaces, segments and secretariats, after the plan has changed. Flows whose
    /// scope is gone stay until they end, and take no more packets. Attempts become flows by that.
    pub fn renumber<H: FlowHost>(
        &mut self,
        host: &mut H,
        scope: impl Fn(u16) -> Option<u16>,
        space: impl Fn(u16) -> Option<u16>,
        segment: impl Fn(u16) -> Option<u16>,
        secretariat: impl Fn(u16) -> Option<u16>,
    ) {
        self.tell_aggregates(None, host);
        while let Some((slot, _)) = self.attempts.first() {
            self.promote(slot);
        }
        let live: Vec<u32> = self.index.drain().collect();
        for entry in live {
            let at = entry as usize;
            // The identity is by the names so far: the path keeps them.
            let mut path = self.path(&self.flows[at]).clone();
            path.space = space(path.space).unwrap_or(0);
            for place in &mut path.places {
                place.segment = place.segment.and_then(&segment);
                place.secretariat = place.secretariat.and_then(&secretariat);
            }
            self.set_path(at, path);
            let key = self.flows[at].key;
            self.flows[at].key = key.with_scope(scope(key.scope()).unwrap_or(GONE));
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

    /// Counts a tally to the flow of a key, which is found, taken over, or created. A packet that is nothing but a
    /// SYN makes an attempt.
    fn account<H: FlowHost>(
        &mut self,
        address: FlowAddress,
        origin: &Origin<'_>,
        tally: &Tally,
        tcp: Option<TcpPart<'_>>,
        packet: Option<&FlowPacket<'_>>,
        host: &mut H,
    ) -> u32 {
        let (entry, _) = self.find_or_begin(address, origin, tally, tcp, packet, host);
        if entry & ATTEMPT == 0 {
            self.count(entry, address.side, origin, tally, tcp, host);
        }
        entry
    }

    /// The flow of a key, which is found, taken over, or begun; and whether it was begun. An attempt that a packet
    /// makes is begun and counted.
    fn find_or_begin<H: FlowHost>(
        &mut self,
        address: FlowAddress,
        origin: &Origin<'_>,
        tally: &Tally,
        tcp: Option<TcpPart<'_>>,
        packet: Option<&FlowPacket<'_>>,
        host: &mut H,
    ) -> (u32, bool) {
        let FlowAddress { key, side, hash } = address;
        let found = match self.find(hash, &key) {
            Some(entry) if entry & ATTEMPT != 0 => self.resume(entry & !ATTEMPT, host),
            found => found,
        };
        match found {
            Some(entry) => {
                let goes_on = self.is_current(entry, tcp, host);
                if !goes_on {
                    self.begin(entry, key, side, origin, tally, tcp, host);
                }
                (entry, !goes_on)
            }
            None => {
                if let Some(packet) = packet
                    && let Some(slot) = self.begin_attempt(address, packet, tally, host)
                {
                    return (slot | ATTEMPT, true);
                }
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
        let (entry, is_new) = self.find_or_begin(address, origin, tally, tcp, None, host);
        if is_new {
            self.arm(entry);
        }
        let (at, side) = (entry as usize, address.side);
        let flow = &mut self.flows[at];
        let originator = flow.originator();
        let (letters, state) = (letters_by_sides(flow), self.tcp.get_mut(flow.tcp));
        self.extensions.change(flow, |more| {
            let flawed = more.flawed.get_or_insert_default();
            flawed.flaws[side].add(tally.flaws);
            flawed.rejected[side] = flawed.rejected[side].saturating_add(1);
            if let Some(state) = state {
                state.reject(side, originator);
            } else if is_power_of_ten(flawed.rejected[side]) {
                let history = flawed.history.get_or_insert_with(|| letters.bytes().collect());
                history.push(cased(b'C', side == originator));
            }
        });
        entry
    }

    fn find(&self, hash: u64, key: &FlowKey) -> Option<u32> {
        self.index.find(hash, |&entry| self.addresses.is(self.key(entry), key)).copied()
    }

    /// Key of an entry of the index: a flow, or an attempt.
    fn key(&self, entry: u32) -> PackedKey {
        if entry & ATTEMPT != 0 {
            self.attempts.get(entry & !ATTEMPT).key
        } else {
            self.flows[entry as usize].key
        }
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
        let at = entry as usize;
        let (flip, reason) =
            judge(key.protocol(), key.end(side), key.end(1 - side), tcp.map(|tcp| tcp.header));
        let serial = if tally.first > self.gone_until {
            0
        } else {
            // One bit of the number tells tunnelled flows from others.
            self.repeats = if self.repeats >= 0x7fff { 1 } else { self.repeats + 1 };
            self.repeats
        };
        let mut flow = Flow {
            key: self.addresses.pack(&key),
            created: tally.first,
            end: tally.last,
            seen: self.clock,
            part_since: self.clock,
            serial,
            ..Flow::default()
        };
        flow.set_originator(if flip { 1 - side } else { side });
        flow.set_reason(reason);
        if let Some(wrapping) = wrapping(origin) {
            self.extensions.change(&mut flow, |more| more.wrapping = Some(wrapping));
        }
        if tcp.is_some() {
            let mut state = TcpState::default();
            if flip {
                state.note_flip();
            }
            flow.tcp = self.tcp.insert(state);
        }
        self.put(entry, flow);
        let path = self.path_of(&key, side, origin, host);
        self.set_path(at, path);
        self.queues.append(entry, Rank::Unanswered);
    }

    /// Puts a flow into an entry that is free, or the next one.
    pub(super) fn put(&mut self, entry: u32, flow: Flow) {
        let at = entry as usize;
        if at < self.flows.len() {
            self.flows[at] = flow;
        } else {
            self.flows.push(flow);
        }
    }

    /// The way of a new flow, by its first packet.
    pub(super) fn path_of<H: FlowHost>(
        &mut self,
        key: &FlowKey,
        side: Side,
        origin: &Origin<'_>,
        host: &H,
    ) -> Path {
        let mut places = [SidePlace::default(); 2];
        places[side] = host.side_place(origin, key.end(side).0, origin.link.source_mac);
        places[1 - side] = host.side_place(origin, key.end(1 - side).0, None);
        let space = origin.place.space;
        Path {
            scope: self.reporter.scope_digest(key.scope(), || host.scope_name(key.scope(), space)),
            interface: origin.interface,
            space,
            vlans: origin.link.vlans.clone(),
            places,
        }
    }

    /// The way of a flow.
    pub(super) fn path(&self, flow: &Flow) -> &Path {
        self.paths
            .get(flow.path)
            .or_else(|| self.extensions.of(flow)?.path.as_deref())
            .unwrap_or(&path::NOWHERE)
    }

    /// Sets the way of a flow, in place of the one it had.
    fn set_path(&mut self, at: usize, path: Path) {
        let Self { flows, paths, extensions, .. } = self;
        let flow = &mut flows[at];
        let before = flow.path;
        match paths.take(&path) {
            Some(number) => flow.path = number,
            None => {
                flow.path = NO_ENTRY;
                extensions.change(flow, |more| more.path = Some(Box::new(path)));
            }
        }
        paths.release(before);
    }

    /// Links a flow into the index.
    fn link(&mut self, entry: u32) {
        let hash = self.addresses.hash(&self.hash, self.key(entry));
        self.link_at(hash, entry);
    }

    /// Links a flow or an attempt into the index.
    pub(super) fn link_at(&mut self, hash: u64, entry: u32) {
        let Self { index, flows, attempts, addresses, hash: hasher, .. } = self;
        index.insert_unique(hash, entry, |&entry| {
            let key = if entry & ATTEMPT != 0 {
                attempts.get(entry & !ATTEMPT).key
            } else {
                flows[entry as usize].key
            };
            addresses.hash(hasher, key)
        });
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
        let is_new = flow.is_new();
        let first_of_side = !flow.sides[side].heard();
        let originator = flow.originator();
        if flow.sides[side].mac() != tally.mac {
            self.change_mac(at, side, origin, tally, host);
        }
        let flow = &mut self.flows[at];
        self.extensions.count(flow, side, tally);
        flow.seen = self.clock;
        flow.set(flag::REFERENCED, true);
        if tally.estimated {
            flow.set(flag::ESTIMATED, true);
        }
        if first_of_side && let Some(history) = self.history_of(at) {
            history.push(cased(b'D', side == originator));
        }
        let outcome = tcp.map(|tcp| self.track(at, side, &tcp, tally.first)).unwrap_or_default();
        if first_of_side {
            self.first_of_side(entry, side, origin, is_new, host);
        }
        if is_new {
            self.start_waiting(entry);
            self.tell(at, FlowEvent::Started, Some((side, origin)), host);
        }
        if first_of_side || outcome != Outcome::default() || self.flows[at].waiting() == Waiting::Answer {
            self.react(entry, &outcome, first_of_side && !is_new, (side, origin), host);
        }
    }

    /// The letters of a flow that is not TCP and had packets rejected.
    fn history_of(&mut self, at: usize) -> Option<&mut History> {
        self.extensions.of_mut(&self.flows[at])?.flawed.as_mut()?.history.as_mut()
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
            flow.set_originator(1 - flow.originator());
            flow.set_reason(crate::record::DirectionReason::Repaired);
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
        let flow = &self.flows[at];
        if flow.sides[side].heard() {
            let moves = self.extensions.of(flow).map_or(0, |more| more.moves);
            if tally.mac.is_none() || moves >= MOVES {
                return;
            }
            self.tell(at, FlowEvent::Moved, Some((side, origin)), host);
            let flow = &mut self.flows[at];
            let before = flow.sides[side].mac();
            let packets = [0, 1].map(|side| self.extensions.totals(flow, side).packets);
            self.extensions.change(flow, |more| {
                more.moves += 1;
                more.first_mac[side].get_or_insert(before);
                more.moved_packets = packets;
            });
        }
        self.flows[at].sides[side].set_mac(tally.mac);
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
        let flow = &self.flows[at];
        let ip = self.addresses.unpack(flow.key).end(side).0;
        let place = host.side_place(origin, ip, origin.link.source_mac);
        let path = self.path(flow);
        if path.places[side] != place {
            let mut path = path.clone();
            path.places[side] = place;
            self.set_path(at, path);
        }
        self.flows[at].set(flag::ANSWERED, true);
    }

    /// Sets the timer of a new flow.
    pub(super) fn start_waiting(&mut self, entry: u32) {
        let flow = &mut self.flows[entry as usize];
        let originator = flow.originator();
        if self.tcp.get(flow.tcp).is_some_and(|state| state.is_unanswered(originator)) {
            flow.set_waiting(Waiting::Answer);
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
        let unanswered = tcp.map_or(!flow.is(flag::ANSWERED), |state| state.is_unanswered(originator));
        if !unanswered {
            if flow.waiting() == Waiting::Answer {
                flow.set_waiting(Waiting::No);
                flow.wait_until = Timestamp(i64::MAX);
            }
            self.queues.promote(entry);
        }
        if outcome.ended {
            let flow = &mut self.flows[at];
            flow.set_waiting(Waiting::Late);
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
        if (outcome.established || answers && !is_tcp) && !self.flows[at].is(flag::ESTABLISHED) {
            self.flows[at].set(flag::ESTABLISHED, true);
            self.tell(at, FlowEvent::Established, Some(packet), host);
        }
    }

    /// Counts fragments whose first one did not come to flows without ports.
    fn count_orphans<H: FlowHost>(&mut self, host: &mut H) {
        while let Some(pending) = self.fragments.take_orphan() {
            let origin = pending.origin();
            let (source, destination) = ((pending.source, 0), (pending.destination, 0));
            let address = self.locate(&origin, pending.protocol, source, destination, false);
            self.account(address, &origin, &pending.tally, None, None, host);
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

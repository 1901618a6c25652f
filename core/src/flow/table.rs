//! The flow table: finds the flow of a packet by one hash lookup, counts, runs timers, and makes room when full.

use arrayvec::ArrayVec;

use super::{
    FlowConfig, FragmentMode,
    aggregate::Aggregates,
    attempt::{Attempt, Attempts},
    chunks::Chunks,
    compact::{Addresses, Extensions, Flow, Waiting},
    fragment::{Counted, FragmentTable, Ports},
    history::{cased, is_power_of_ten},
    host::FlowHost,
    icmp,
    key::{End, FlowKey, KeyedHash, PackedKey, Side},
    lifetime::Timeouts,
    live::{FlowPacket, Integrity, Origin, Tally},
    pass::TOGETHER,
    path::Paths,
    queue::Line,
    report::{Reporter, letters_by_sides},
    slab::Slab,
    tcp::TcpState,
    wheel::{TimerWheel, tick_of},
};
use crate::{
    decode::{Fragment, TcpSegment, Transport},
    index::Index,
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
    pub(super) hash: u32,
}

/// What a packet says of TCP.
#[derive(Clone, Copy, Debug)]
pub(super) struct TcpPart<'a> {
    pub(super) header: &'a TcpSegment,
    pub(super) payload: u32,
    /// Whether bytes will seem missing that are not: the segment came in fragments, or others were counted elsewhere.
    pub(super) fragment: bool,
}

/// Live flows. Time is packet time: the clock stands at the latest time seen, and packets with an earlier one
/// move nothing.
#[derive(Debug)]
pub struct FlowTable {
    pub(super) index: Index,
    pub(super) hash: KeyedHash,
    pub(super) flows: Chunks<Flow>,
    pub(super) addresses: Addresses,
    pub(super) extensions: Extensions,
    pub(super) paths: Paths,
    pub(super) tcp: Slab<TcpState>,
    pub(super) free: Vec<u32>,
    pub(super) wheel: TimerWheel,
    pub(super) line: Line,
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
    pub(super) repeats: u16,
    pub(super) reporter: Reporter,
}

impl FlowTable {
    /// An empty table. Identities of flows depend on site and sensor; nothing depends on the hash seed but speed.
    pub fn new(config: &FlowConfig, site: Name, sensor: &str, hash_seed: [u64; 4]) -> Self {
        let hash = KeyedHash::new(hash_seed);
        Self {
            index: Index::default(),
            hash: hash.clone(),
            flows: Chunks::default(),
            addresses: Addresses::default(),
            extensions: Extensions::default(),
            paths: Paths::new(hash.clone()),
            tcp: Slab::default(),
            free: Vec::new(),
            wheel: TimerWheel::default(),
            line: Line::default(),
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
        self.index.len() == 0
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
    #[inline]
    pub fn advance<H: FlowHost>(&mut self, now: Timestamp, host: &mut H) -> bool {
        if now <= self.clock {
            return false;
        }
        self.clock = now;
        let tick = tick_of(now);
        let moves = tick != self.wheel.tick();
        if moves {
            self.run_timers(now, tick, host);
        }
        moves
    }

    fn run_timers<H: FlowHost>(&mut self, now: Timestamp, tick: u64, host: &mut H) {
        loop {
            let mut due = ArrayVec::<u32, TOGETHER>::new();
            self.wheel.due_into(tick, &mut due);
            if due.is_empty() {
                break;
            }
            self.touch(&due);
            for entry in due {
                if self.settle(entry, host) {
                    self.arm(entry);
                }
            }
        }
        self.expire_attempts(tick, host);
        self.tell_aggregates(Some(now), host);
        self.fragments.expire(now);
        self.count_orphans(host);
    }

    /// Clock of the table: the latest packet time.
    pub const fn clock(&self) -> Timestamp {
        self.clock
    }

    /// Where the flow of a packet is looked for; none for a fragment, whose ports may be another packet's. It
    /// changes nothing in the table, so it may be asked long before the packet is observed (though not across
    /// [`Self::renumber`]).
    pub fn address(&self, packet: &FlowPacket<'_>) -> Option<FlowAddress> {
        if packet.ip.fragment.is_some() {
            return None;
        }
        Some(self.address_of(packet, ports_of(packet)))
    }

    /// Counts one packet to its flow. None for a later fragment whose first one is still to come.
    pub fn observe<H: FlowHost>(&mut self, packet: &FlowPacket<'_>, host: &mut H) -> Option<FlowHandle> {
        self.advance(packet.time, host);
        let ip = packet.ip;
        if let Some(fragment) = &ip.fragment {
            return self.observe_fragment(packet, fragment, host);
        }
        let tcp = match &ip.transport {
            Transport::Tcp(header) => Some(TcpPart { header, payload: ip.payload_bytes, fragment: false }),
            _ => None,
        };
        let address = self.address_of(packet, ports_of(packet));
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
        let id = self.view(entry as usize).identity().id();
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
            if entry & ATTEMPT != 0 {
                let reason = if self.is_over(entry & !ATTEMPT) { EndReason::Idle } else { EndReason::Forced };
                self.end_attempt(entry & !ATTEMPT, reason, host);
                continue;
            }
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
        for entry in self.index.slots() {
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
        live.extend(self.index.slots().map(|entry| offset(start(entry)) >> shift << 32 | u64::from(entry)));
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
        let live: Vec<u32> = self.index.slots().collect();
        self.index.clear();
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
        self.paths.forget_scopes();
    }

    fn address_of(&self, packet: &FlowPacket<'_>, ports: Ports) -> FlowAddress {
        let (source, destination) =
            ((packet.ip.source, ports.source), (packet.ip.destination, ports.destination));
        self.locate(&packet.origin, ports.protocol, source, destination, ports.one_way)
    }

    pub(super) fn locate(
        &self,
        origin: &Origin<'_>,
        protocol: u8,
        source: End,
        destination: End,
        one_way: bool,
    ) -> FlowAddress {
        let (key, side) = FlowKey::new(origin.place.scope, protocol, source, destination, one_way);
        let key = if origin.tunnel.is_some() { key.in_tunnel() } else { key };
        FlowAddress { key, side, hash: self.hash.short(&key) }
    }

    /// Counts a tally to the flow of a key, which is found, taken over, or created. A packet that is nothing but a
    /// SYN makes an attempt.
    pub(super) fn account<H: FlowHost>(
        &mut self,
        address: FlowAddress,
        origin: &Origin<'_>,
        tally: &Tally,
        tcp: Option<TcpPart<'_>>,
        packet: Option<&FlowPacket<'_>>,
        host: &mut H,
    ) -> u32 {
        let found = self.find(address.hash, &address.key);
        let (entry, _) = self.go_on_or_begin(found, address, origin, tally, tcp, packet, host);
        if entry & ATTEMPT == 0 {
            self.count(entry, address.side, origin, tally, tcp, host);
        }
        entry
    }

    /// The flow of a key, which was found, is taken over, or begun; and whether it was begun. An attempt that a
    /// packet makes is begun and counted.
    #[expect(clippy::too_many_arguments, reason = "the facts of a packet, already split, and what was found")]
    pub(super) fn go_on_or_begin<H: FlowHost>(
        &mut self,
        found: Option<u32>,
        address: FlowAddress,
        origin: &Origin<'_>,
        tally: &Tally,
        tcp: Option<TcpPart<'_>>,
        packet: Option<&FlowPacket<'_>>,
        host: &mut H,
    ) -> (u32, bool) {
        let FlowAddress { key, side, .. } = address;
        let found = match found {
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
                    && let Some(tcp) = tcp
                    && Attempt::is_made_by(packet, tally)
                {
                    let write = |attempt: &mut Attempt| attempt.write(tcp.header, tally);
                    if let Some(slot) = self.begin_attempt(address, packet.time, write, origin, host) {
                        return (slot | ATTEMPT, true);
                    }
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
        let found = self.find(address.hash, &address.key);
        let (entry, is_new) = self.go_on_or_begin(found, address, origin, tally, tcp, None, host);
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

    pub(super) fn find(&self, hash: u32, key: &FlowKey) -> Option<u32> {
        self.index.find(hash, |entry| self.addresses.is(self.key(entry), key))
    }

    /// Key of an entry of the index: a flow, or an attempt.
    pub(super) fn key(&self, entry: u32) -> PackedKey {
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

    /// Links a flow into the index.
    fn link(&mut self, entry: u32) {
        let hash = self.addresses.hash(&self.hash, self.key(entry));
        self.index.insert(hash, entry);
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

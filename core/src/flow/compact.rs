//! One live flow in two cache lines, and what only some flows need beside it.
//!
//! | bytes | what | where |
//! | --- | --- | --- |
//! | 128 | every flow: key, times, counters of both sides | [`Flow`], in chunks |
//! | 32 | addresses of an IPv6 flow | [`Addresses`] |
//! | 29 to 42 | timer 12, place in line 4, index by its load 13 to 26 | `wheel`, `queue`, `index` |
//! | – | TCP: states, sequence space, history | `tcp` |
//! | – | rare: later parts, counters past 32 bits, other MAC addresses, tags, tunnels | [`Extension`] |
//!
//! Interface, VLANs and what the sides are to the plan are the same for many flows and stand once (`path`).
//! Identities are made when something asks for them (`identity`).

use super::{
    key::{FlowKey, KeyedHash, PackedKey, Side},
    live::{Flawed, Flaws, NO_ENTRY, Tally, Wrapping},
    path::Path,
    slab::Slab,
};
use crate::{
    decode::Plain,
    net::MacAddress,
    record::{DirectionReason, FlowId},
    time::Timestamp,
};

/// What a flow waits for, beside silence and the active timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// Nothing.
    No,
    /// An answer to a TCP SYN.
    Answer,
    /// Late packets of a connection that has ended.
    Late,
}

/// Counters of one side in the current part; what is more than they hold stands in [`Extension::carried`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub packets: u32,
    pub wire_bytes: u32,
    pub ip_bytes: u32,
    pub payload_bytes: u32,
    pub tcp_flags: u16,
    pub ttl_min: u8,
    pub ttl_max: u8,
    /// DSCP in six bits, and two flags.
    bits: u8,
    mac: [u8; 6],
}

const HEARD: u8 = 0x40;
const HAS_MAC: u8 = 0x80;

impl Counts {
    /// Whether the side has ever sent anything.
    pub(super) const fn heard(&self) -> bool {
        self.bits & HEARD != 0
    }

    /// DSCP of its first packet.
    pub(super) const fn dscp(&self) -> u8 {
        self.bits & 0x3f
    }

    /// Source MAC address of its latest packets.
    pub(super) fn mac(&self) -> Option<MacAddress> {
        (self.bits & HAS_MAC != 0).then_some(MacAddress(self.mac))
    }

    pub(super) fn set_mac(&mut self, mac: Option<MacAddress>) {
        self.bits = self.bits & !HAS_MAC | if mac.is_some() { HAS_MAC } else { 0 };
        self.mac = mac.map_or([0; 6], |mac| mac.0);
    }

    /// Whether a packet with this source MAC address is one more of the side in its current part.
    #[inline]
    pub(super) fn goes_on(&self, mac: MacAddress) -> bool {
        const BOTH: u8 = HEARD | HAS_MAC;
        self.packets > 0 && self.bits & BOTH == BOTH && self.mac == mac.0
    }

    /// Whether the counters hold any one packet more.
    #[inline]
    pub(super) const fn has_room(&self) -> bool {
        // No length is beyond half of what a counter holds; one on the wire that is must be left out before.
        (self.packets | self.wire_bytes | self.ip_bytes | self.payload_bytes) < 1 << 31
    }

    /// Adds one packet of a side that goes on and has room.
    #[inline]
    pub(super) fn count_one(&mut self, packet: &Plain, tcp_flags: u16) {
        self.packets = self.packets.saturating_add(1);
        self.wire_bytes = self.wire_bytes.saturating_add(packet.wire_length);
        self.ip_bytes = self.ip_bytes.saturating_add(packet.ip_bytes);
        self.payload_bytes = self.payload_bytes.saturating_add(packet.payload_bytes);
        self.tcp_flags |= tcp_flags;
        self.ttl_min = self.ttl_min.min(packet.ttl);
        self.ttl_max = self.ttl_max.max(packet.ttl);
    }

    /// Adds what fits. False where a counter is full, and then no counter has changed.
    pub(super) fn add(&mut self, tally: &Tally) -> bool {
        let sum = |held: u32, more: u64| u32::try_from(u64::from(held).saturating_add(more)).ok();
        let (Some(packets), Some(wire_bytes), Some(ip_bytes), Some(payload_bytes)) = (
            sum(self.packets, tally.packets),
            sum(self.wire_bytes, tally.wire_bytes),
            sum(self.ip_bytes, tally.ip_bytes),
            sum(self.payload_bytes, tally.payload_bytes),
        ) else {
            return false;
        };
        if self.packets == 0 {
            (self.ttl_min, self.ttl_max) = (u8::MAX, 0);
        }
        (self.packets, self.wire_bytes) = (packets, wire_bytes);
        (self.ip_bytes, self.payload_bytes) = (ip_bytes, payload_bytes);
        self.note(tally);
        true
    }

    /// What is not counted but noted.
    fn note(&mut self, tally: &Tally) {
        if !self.heard() {
            self.bits = self.bits & HAS_MAC | HEARD | tally.dscp & 0x3f;
        }
        self.tcp_flags |= tally.tcp_flags;
        self.ttl_min = self.ttl_min.min(tally.ttl_min);
        self.ttl_max = self.ttl_max.max(tally.ttl_max);
    }

    /// Begins a new part; what is true of the side as such stays.
    fn reset(&mut self) {
        *self = Self { bits: self.bits, mac: self.mac, ..Self::default() };
    }
}

/// A flow that every packet of it touches. Sides are those of the key: 0 is the lower endpoint.
#[derive(Clone, Debug)]
#[repr(align(128))]
pub(super) struct Flow {
    pub key: PackedKey,
    /// Time of the first packet to arrive: part of the identity. First packet of flow and part, too, unless the
    /// extension says otherwise.
    pub created: Timestamp,
    /// Latest packet of this part; of the parts before it, while the part is empty.
    pub end: Timestamp,
    /// Clock of the table at the latest packet.
    pub seen: Timestamp,
    /// Clock at which the part began.
    pub part_since: Timestamp,
    /// Clock at which the wait ends.
    pub wait_until: Timestamp,
    pub sides: [Counts; 2],
    /// Entry of the slab of TCP states.
    pub tcp: u32,
    /// Entry of the paths.
    pub path: u32,
    /// Entry of the slab of extensions.
    pub extension: u32,
    /// Distinguishes flows of one tuple that began at the same moment: 0, or a number that counts such beginnings.
    pub serial: u16,
    pub bits: u16,
}

/// Flags of a flow.
pub(super) mod flag {
    /// Side 1 is the originator.
    pub(in super::super) const ORIGINATOR_HIGH: u16 = 1;
    /// Had a packet since it was last looked at for eviction.
    pub(in super::super) const REFERENCED: u16 = 2;
    /// Packets of both sides were seen.
    pub(in super::super) const ANSWERED: u16 = 4;
    pub(in super::super) const ESTABLISHED: u16 = 8;
    pub(in super::super) const ESTIMATED: u16 = 16;
    /// The entry holds a flow that is live.
    pub(in super::super) const LIVE: u16 = 32;
}

const WAITING_SHIFT: u32 = 8;
const REASON_SHIFT: u32 = 10;

impl Default for Flow {
    fn default() -> Self {
        let none = Timestamp(0);
        Self {
            key: PackedKey::default(),
            created: none,
            end: none,
            seen: none,
            part_since: none,
            wait_until: Timestamp(i64::MAX),
            sides: [Counts::default(); 2],
            tcp: NO_ENTRY,
            path: NO_ENTRY,
            extension: NO_ENTRY,
            serial: 0,
            bits: 0,
        }
    }
}

impl Flow {
    pub(super) fn originator(&self) -> Side {
        Side::from(self.is(flag::ORIGINATOR_HIGH))
    }

    pub(super) const fn is(&self, flag: u16) -> bool {
        self.bits & flag != 0
    }

    pub(super) const fn set(&mut self, flag: u16, on: bool) {
        self.bits = if on { self.bits | flag } else { self.bits & !flag };
    }

    pub(super) fn set_originator(&mut self, side: Side) {
        self.set(flag::ORIGINATOR_HIGH, side == 1);
    }

    pub(super) const fn waiting(&self) -> Waiting {
        match self.bits >> WAITING_SHIFT & 3 {
            1 => Waiting::Answer,
            2 => Waiting::Late,
            _ => Waiting::No,
        }
    }

    pub(super) const fn set_waiting(&mut self, waiting: Waiting) {
        self.bits = self.bits & !(3 << WAITING_SHIFT) | (waiting as u16) << WAITING_SHIFT;
    }

    pub(super) fn reason(&self) -> DirectionReason {
        let [low, high] = self.bits.to_le_bytes();
        debug_assert!(low <= 63, "no flag beyond those named");
        DirectionReason::from_code(high >> (REASON_SHIFT - 8) & 7).unwrap_or(DirectionReason::FirstPacket)
    }

    pub(super) fn set_reason(&mut self, reason: DirectionReason) {
        self.bits = self.bits & !(7 << REASON_SHIFT) | u16::from(reason.code() & 7) << REASON_SHIFT;
    }

    pub(super) const fn is_new(&self) -> bool {
        !self.sides[0].heard() && !self.sides[1].heard()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.sides[0].packets == 0 && self.sides[1].packets == 0
    }
}

/// Counters in full width.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub packets: u64,
    pub wire_bytes: u64,
    pub ip_bytes: u64,
    pub payload_bytes: u64,
    pub fragments: u64,
}

/// Totals of one side over the parts that were reported.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Past {
    pub packets: u64,
    pub ip_bytes: u64,
    pub payload_bytes: u64,
    pub ttl: Option<(u8, u8)>,
}

/// What few flows need.
#[derive(Clone, Debug, Default)]
pub(super) struct Extension {
    /// First packet of this part.
    pub start: Timestamp,
    pub flow_start: Timestamp,
    pub part: u32,
    /// Number of moves told in this part.
    pub moves: u8,
    /// First MAC address of each side that has another one now.
    pub first_mac: [Option<Option<MacAddress>>; 2],
    /// Packets of each side in this part that were counted to an earlier MAC address.
    pub moved_packets: [u64; 2],
    /// Counts of this part that the flow's own counters do not hold, and its fragments.
    pub carried: [Totals; 2],
    /// What was wrong with packets.
    pub flawed: Option<Box<Flawed>>,
    pub past: [Past; 2],
    /// The identity, where it is asked for again and again, or by names that have changed.
    pub id: Option<FlowId>,
    pub wrapping: Option<Box<Wrapping>>,
    /// The path, where there was no room for it among the paths.
    pub path: Option<Box<Path>>,
}

/// First packet of the current part of a flow, and of the flow.
pub(super) fn starts(flow: &Flow, more: Option<&Extension>) -> (Timestamp, Timestamp) {
    more.map_or((flow.created, flow.created), |more| (more.start, more.flow_start))
}

/// Counters of a side in this part.
pub(super) fn totals(counts: &Counts, side: Side, more: Option<&Extension>) -> Totals {
    let carried = more.map(|more| more.carried[side]).unwrap_or_default();
    Totals {
        packets: carried.packets.saturating_add(counts.packets.into()),
        wire_bytes: carried.wire_bytes.saturating_add(counts.wire_bytes.into()),
        ip_bytes: carried.ip_bytes.saturating_add(counts.ip_bytes.into()),
        payload_bytes: carried.payload_bytes.saturating_add(counts.payload_bytes.into()),
        fragments: carried.fragments,
    }
}

/// Extensions of flows.
#[derive(Clone, Debug, Default)]
pub(super) struct Extensions(Slab<Extension>);

impl Extensions {
    pub(super) fn of(&self, flow: &Flow) -> Option<&Extension> {
        if flow.extension == NO_ENTRY { None } else { self.0.get(flow.extension) }
    }

    pub(super) fn of_mut(&mut self, flow: &Flow) -> Option<&mut Extension> {
        if flow.extension == NO_ENTRY { None } else { self.0.get_mut(flow.extension) }
    }

    /// Extends a flow, if it is not yet, and changes something in the extension.
    pub(super) fn change(&mut self, flow: &mut Flow, change: impl FnOnce(&mut Extension)) {
        if flow.extension == NO_ENTRY {
            let plain = Extension { start: flow.created, flow_start: flow.created, ..Extension::default() };
            flow.extension = self.0.insert(plain);
        }
        if let Some(extension) = self.0.get_mut(flow.extension) {
            change(extension);
        }
    }

    /// Takes the extension of a flow away.
    pub(super) fn release(&mut self, flow: &mut Flow) {
        if let Some(extension) = self.of_mut(flow) {
            *extension = Extension::default();
        }
        self.0.remove(std::mem::replace(&mut flow.extension, NO_ENTRY));
    }

    /// First packet of the current part, and of the flow.
    pub(super) fn starts(&self, flow: &Flow) -> (Timestamp, Timestamp) {
        starts(flow, self.of(flow))
    }

    /// Counts a tally to a side, and to the times of the part.
    pub(super) fn count(&mut self, flow: &mut Flow, side: Side, tally: &Tally) {
        let (is_new, is_empty) = (flow.is_new(), flow.is_empty());
        if is_empty {
            flow.end = tally.last;
        } else {
            flow.end = flow.end.max(tally.last);
        }
        let (start, flow_start) = self.starts(flow);
        if is_new && tally.first != flow.created {
            // Begun by a packet that was rejected.
            self.change(flow, |more| (more.start, more.flow_start) = (tally.first, tally.first));
        } else if !is_new && (is_empty || tally.first < start || tally.first < flow_start) {
            self.change(flow, |more| {
                more.start = if is_empty { tally.first } else { more.start.min(tally.first) };
                more.flow_start = more.flow_start.min(tally.first);
            });
        }
        if !flow.sides[side].add(tally) {
            self.carry(flow, side, tally);
        }
        if tally.fragments > 0 || tally.flaws != Flaws::default() {
            self.change(flow, |more| {
                let carried = &mut more.carried[side];
                carried.fragments = carried.fragments.saturating_add(tally.fragments);
                if tally.flaws != Flaws::default() {
                    more.flawed.get_or_insert_default().flaws[side].add(tally.flaws);
                }
            });
        }
    }

    /// Moves counts to where they have 64 bits. One packet stays, so that the side still has one in this part.
    #[cold]
    fn carry(&mut self, flow: &mut Flow, side: Side, tally: &Tally) {
        let held = flow.sides[side];
        if held.packets == 0 {
            (flow.sides[side].ttl_min, flow.sides[side].ttl_max) = (u8::MAX, 0);
        }
        let packets = u64::from(held.packets).saturating_add(tally.packets).saturating_sub(1);
        self.change(flow, |more| {
            let carried = &mut more.carried[side];
            let add = |sum: &mut u64, held: u32, more: u64| {
                *sum = sum.saturating_add(u64::from(held)).saturating_add(more);
            };
            add(&mut carried.packets, 0, packets);
            add(&mut carried.wire_bytes, held.wire_bytes, tally.wire_bytes);
            add(&mut carried.ip_bytes, held.ip_bytes, tally.ip_bytes);
            add(&mut carried.payload_bytes, held.payload_bytes, tally.payload_bytes);
        });
        let counts = &mut flow.sides[side];
        (counts.packets, counts.wire_bytes, counts.ip_bytes, counts.payload_bytes) = (1, 0, 0, 0);
        counts.note(tally);
    }

    /// Counters of a side in this part.
    pub(super) fn totals(&self, flow: &Flow, side: Side) -> Totals {
        totals(&flow.sides[side], side, self.of(flow))
    }

    /// Begins the next part of a flow.
    pub(super) fn begin_part(&mut self, flow: &mut Flow) {
        let totals = [0, 1].map(|side| self.totals(flow, side));
        let (end, sides) = (flow.end, flow.sides);
        self.change(flow, |more| {
            for ((past, totals), counts) in more.past.iter_mut().zip(totals).zip(sides) {
                past.packets = past.packets.saturating_add(totals.packets);
                past.ip_bytes = past.ip_bytes.saturating_add(totals.ip_bytes);
                past.payload_bytes = past.payload_bytes.saturating_add(totals.payload_bytes);
                if counts.packets > 0 {
                    let (min, max) = past.ttl.unwrap_or((u8::MAX, 0));
                    past.ttl = Some((min.min(counts.ttl_min), max.max(counts.ttl_max)));
                }
            }
            more.start = end;
            more.part = more.part.saturating_add(1);
            more.moves = 0;
            more.moved_packets = [0; 2];
            more.carried = [Totals::default(); 2];
            if let Some(flawed) = &mut more.flawed {
                flawed.flaws = Default::default();
            }
        });
        flow.sides.iter_mut().for_each(Counts::reset);
        flow.set(flag::ESTIMATED, false);
    }
}

/// Addresses of IPv6 flows.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses(Slab<[u64; 4]>);

impl Addresses {
    /// Packs a key; the words of IPv6 addresses are kept until [`Self::release`].
    #[inline]
    pub(super) fn pack(&mut self, key: &FlowKey) -> PackedKey {
        key.pack(|words| self.0.insert(words))
    }

    pub(super) fn unpack(&self, key: PackedKey) -> FlowKey {
        key.unpack(|at| self.0.get(at).copied().unwrap_or_default())
    }

    pub(super) fn release(&mut self, key: PackedKey) {
        if let Some(at) = key.slot() {
            self.0.remove(at);
        }
    }

    /// Whether a flow has this key.
    pub(super) fn is(&self, packed: PackedKey, key: &FlowKey) -> bool {
        packed.tuple() == key.tuple()
            && match packed.slot() {
                None => packed.is_v4_of(key),
                Some(at) => self.0.get(at).is_some_and(|words| *words == key.words()),
            }
    }

    pub(super) fn hash(&self, hash: &KeyedHash, key: PackedKey) -> u32 {
        hash.short(&self.unpack(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_two_cache_lines() {
        assert_eq!((size_of::<Flow>(), align_of::<Flow>()), (128, 128));
    }

    #[test]
    fn what_is_packed_into_bits_does_not_touch_its_neighbours() {
        let mut flow = Flow::default();
        flow.set_reason(DirectionReason::Repaired);
        flow.set_waiting(Waiting::Late);
        flow.set_originator(1);
        flow.set(flag::ESTIMATED, true);
        flow.set_waiting(Waiting::Answer);
        assert_eq!((flow.reason(), flow.waiting()), (DirectionReason::Repaired, Waiting::Answer));
        assert!(flow.originator() == 1 && flow.is(flag::ESTIMATED) && !flow.is(flag::ANSWERED));
        let mut counts = Counts::default();
        counts.set_mac(Some(MacAddress([1; 6])));
        counts.add(&tally(1, 1));
        assert_eq!((counts.dscp(), counts.mac(), counts.heard()), (46, Some(MacAddress([1; 6])), true));
        counts.set_mac(None);
        assert_eq!((counts.dscp(), counts.mac(), counts.heard()), (46, None, true));
    }

    fn tally(packets: u64, bytes: u64) -> Tally {
        Tally {
            packets,
            wire_bytes: bytes,
            ip_bytes: bytes,
            payload_bytes: bytes,
            fragments: 0,
            tcp_flags: 2,
            ttl_min: 60,
            ttl_max: 60,
            dscp: 46,
            estimated: false,
            flaws: Flaws::default(),
            mac: None,
            first: Timestamp(5),
            last: Timestamp(5),
        }
    }

    #[test]
    fn counters_go_on_beyond_32_bits() {
        let (mut flow, mut extensions) = (Flow::default(), Extensions::default());
        for _ in 0..5 {
            extensions.count(&mut flow, 0, &tally(1, 3 << 30));
        }
        extensions.count(&mut flow, 0, &tally(7, 1 << 40));
        extensions.count(&mut flow, 1, &tally(1, 1 << 33));
        let totals = extensions.totals(&flow, 0);
        assert_eq!((totals.packets, totals.ip_bytes), (12, (15 << 30) + (1 << 40)));
        assert_eq!(extensions.totals(&flow, 1).payload_bytes, 1 << 33);
        assert_eq!((flow.sides[1].ttl_min, flow.sides[1].ttl_max), (60, 60));
        extensions.begin_part(&mut flow);
        assert!(flow.is_empty() && extensions.totals(&flow, 0) == Totals::default());
        let past = extensions.of(&flow).map(|more| more.past[0].packets);
        assert_eq!(past, Some(12));
        extensions.release(&mut flow);
        assert!(extensions.of(&flow).is_none());
    }
}

//! Connection attempts: a TCP SYN and nothing since. They stand apart from flows and take a third of the room,
//! because whoever floods makes as many as he likes. An attempt is everything its one packet said, so that a flow can
//! be made of it when a second packet comes, as if it had been one from the start.
//!
//! Attempts wait for the same time each, so the order in which they came is the order in which they end.

use super::{
    aggregate::Counted,
    chunks::Chunks,
    key::{PackedKey, Side},
    live::{FlowPacket, NO_ENTRY, Tally},
    tcp::{CONTROL, SYN},
};
use crate::{
    decode::{Plain, PlainTransport, TcpSegment, Transport},
    net::MacAddress,
    time::Timestamp,
};

/// One attempt.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Attempt {
    pub key: PackedKey,
    /// Time of the SYN, which is also when it came by the table's clock.
    pub time: Timestamp,
    /// Entry of the paths.
    pub path: u32,
    /// Hash of its key.
    pub hash: u32,
    sequence: u32,
    previous: u32,
    next: u32,
    wire_bytes: u16,
    ip_bytes: u16,
    window: u16,
    mac: [u8; 6],
    tcp_flags: u8,
    ttl: u8,
    /// DSCP in six bits, and two flags.
    bits: u8,
}

const SIDE: u8 = 0x40;
const HAS_MAC: u8 = 0x80;

impl Counted for Attempt {
    fn tally(&self) -> Tally {
        Self::tally(self)
    }

    #[inline]
    fn add_to(&self, sum: &mut Tally) {
        sum.packets = sum.packets.saturating_add(1);
        sum.wire_bytes = sum.wire_bytes.saturating_add(self.wire_bytes.into());
        sum.ip_bytes = sum.ip_bytes.saturating_add(self.ip_bytes.into());
        sum.tcp_flags |= u16::from(self.tcp_flags);
        (sum.ttl_min, sum.ttl_max) = (sum.ttl_min.min(self.ttl), sum.ttl_max.max(self.ttl));
        (sum.first, sum.last) = (sum.first.min(self.time), sum.last.max(self.time));
    }
}

impl Default for Attempt {
    fn default() -> Self {
        Self {
            key: PackedKey::default(),
            time: Timestamp(0),
            path: NO_ENTRY,
            hash: 0,
            sequence: 0,
            previous: NO_ENTRY,
            next: NO_ENTRY,
            wire_bytes: 0,
            ip_bytes: 0,
            window: 0,
            mac: [0; 6],
            tcp_flags: 0,
            ttl: 0,
            bits: 0,
        }
    }
}

impl Attempt {
    /// Whether a packet makes an attempt: it is nothing but a SYN, without data, fragment, tunnel or label, and
    /// without anything that needs more room.
    pub(super) fn is_made_by(packet: &FlowPacket<'_>, tally: &Tally) -> bool {
        let Transport::Tcp(segment) = &packet.ip.transport else { return false };
        let origin = &packet.origin;
        packet.ip.fragment.is_none()
            && origin.tunnel.is_none()
            && origin.parents.is_empty()
            && origin.link.mpls_labels.is_empty()
            && Self::has_room(segment, tally)
    }

    /// The same of a plain packet.
    #[inline]
    pub(super) fn is_made_by_plain(packet: &Plain) -> bool {
        packet.transport == PlainTransport::Tcp && Self::has_room(&packet.segment(), &Tally::of_plain(packet))
    }

    /// The same of what a packet says of TCP, and what it counts.
    #[inline]
    fn has_room(segment: &TcpSegment, tally: &Tally) -> bool {
        let is_syn = segment.flags & CONTROL == SYN && tally.payload_bytes == 0 && tally.is_plain();
        let most = u64::from(u16::MAX);
        is_syn && tally.wire_bytes <= most && tally.ip_bytes <= most && u8::try_from(segment.flags).is_ok()
    }

    /// Writes what the packet said, which makes an attempt. It is written in place: what is written in pieces and
    /// copied as a whole makes the copy wait for the pieces.
    #[inline]
    pub(super) fn write(&mut self, segment: &TcpSegment, tally: &Tally) {
        self.time = tally.first;
        self.sequence = segment.sequence;
        self.wire_bytes = tally.wire_bytes.try_into().unwrap_or(u16::MAX);
        self.ip_bytes = tally.ip_bytes.try_into().unwrap_or(u16::MAX);
        self.window = segment.window;
        self.mac = tally.mac.map_or([0; 6], |mac| mac.0);
        self.tcp_flags = segment.flags.try_into().unwrap_or(u8::MAX);
        self.ttl = tally.ttl_min;
        self.bits = tally.dscp & 0x3f | if tally.mac.is_some() { HAS_MAC } else { 0 };
    }

    /// The same of a plain packet.
    #[inline]
    pub(super) fn write_plain(&mut self, packet: &Plain) {
        self.write(&packet.segment(), &Tally::of_plain(packet));
    }

    /// Writes its key, the side of it that sent the SYN, its path, and the key's hash.
    pub(super) const fn place(&mut self, key: PackedKey, side: Side, path: u32, hash: u32) {
        if side == 1 {
            self.bits |= SIDE;
        }
        (self.key, self.path, self.hash) = (key, path, hash);
    }

    /// Side of the key that sent the SYN.
    pub(super) fn side(&self) -> Side {
        Side::from(self.bits & SIDE != 0)
    }

    pub(super) fn mac(&self) -> Option<MacAddress> {
        (self.bits & HAS_MAC != 0).then_some(MacAddress(self.mac))
    }

    pub(super) fn ip_bytes(&self) -> u64 {
        self.ip_bytes.into()
    }

    pub(super) const fn ttl(&self) -> u8 {
        self.ttl
    }

    /// What its packet counts.
    pub(super) fn tally(&self) -> Tally {
        Tally {
            packets: 1,
            wire_bytes: self.wire_bytes.into(),
            ip_bytes: self.ip_bytes.into(),
            tcp_flags: self.tcp_flags.into(),
            ttl_min: self.ttl,
            ttl_max: self.ttl,
            dscp: self.bits & 0x3f,
            mac: self.mac(),
            ..Tally::none(self.time)
        }
    }

    /// Its TCP header, as far as it says anything.
    pub(super) fn segment(&self, source: u16, destination: u16) -> TcpSegment {
        TcpSegment {
            source,
            destination,
            sequence: self.sequence,
            acknowledgement: 0,
            flags: self.tcp_flags.into(),
            window: self.window,
        }
    }
}

/// The attempts, in the order in which they came.
#[derive(Clone, Debug)]
pub(super) struct Attempts {
    slots: Chunks<Attempt>,
    free: Vec<u32>,
    first: u32,
    last: u32,
    live: usize,
    limit: usize,
}

impl Attempts {
    pub(super) fn new(limit: usize) -> Self {
        Self { slots: Chunks::default(), free: Vec::new(), first: NO_ENTRY, last: NO_ENTRY, live: 0, limit }
    }

    pub(super) const fn len(&self) -> usize {
        self.live
    }

    /// Whether another one has room only if one goes.
    pub(super) const fn is_full(&self) -> bool {
        self.live >= self.limit
    }

    /// The one that came first of those here.
    pub(super) fn first(&self) -> Option<(u32, &Attempt)> {
        if self.first == NO_ENTRY { None } else { Some((self.first, &self.slots[self.first as usize])) }
    }

    /// The one that came behind another.
    pub(super) fn after(&self, attempt: &Attempt) -> Option<(u32, &Attempt)> {
        if attempt.next == NO_ENTRY { None } else { Some((attempt.next, &self.slots[attempt.next as usize])) }
    }

    pub(super) fn get(&self, slot: u32) -> &Attempt {
        &self.slots[slot as usize]
    }

    /// Puts an attempt behind the last one, which `write` writes over another; gives its number.
    #[inline]
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Attempt)) -> u32 {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => u32::try_from(self.slots.push(Attempt::default())).unwrap_or(NO_ENTRY),
        };
        let previous = std::mem::replace(&mut self.last, slot);
        let attempt = &mut self.slots[slot as usize];
        write(attempt);
        (attempt.previous, attempt.next) = (previous, NO_ENTRY);
        match previous {
            NO_ENTRY => self.first = slot,
            previous => self.slots[previous as usize].next = slot,
        }
        self.live += 1;
        slot
    }

    /// Takes an attempt out.
    pub(super) fn remove(&mut self, slot: u32) {
        let &Attempt { previous, next, .. } = self.get(slot);
        match previous {
            NO_ENTRY => self.first = next,
            previous => self.slots[previous as usize].next = next,
        }
        match next {
            NO_ENTRY => self.last = previous,
            next => self.slots[next as usize].previous = previous,
        }
        self.free.push(slot);
        self.live -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_one_cache_line() {
        assert_eq!((size_of::<Attempt>(), align_of::<Attempt>()), (64, 64));
    }

    #[test]
    fn attempts_leave_in_the_order_they_came_whatever_was_taken_out() {
        let mut attempts = Attempts::new(4);
        let push = |attempts: &mut Attempts, time| attempts.push(|attempt| attempt.time = Timestamp(time));
        let slots = [1, 2, 3, 4].map(|time| push(&mut attempts, time));
        assert!(attempts.is_full());
        assert_eq!(attempts.get(slots[1]).time, Timestamp(2));
        attempts.remove(slots[1]);
        attempts.remove(slots[3]);
        assert_eq!(push(&mut attempts, 5), slots[3]);
        let left: Vec<i64> = std::iter::from_fn(|| {
            let (slot, attempt) = attempts.first().map(|(slot, attempt)| (slot, attempt.time.0))?;
            attempts.remove(slot);
            Some(attempt)
        })
        .collect();
        assert_eq!((left, attempts.len()), (vec![1, 3, 5], 0));
    }
}

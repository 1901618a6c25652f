//! The maps of flows: the swap, the draining of the idle ones, and what an entry is to core.
//!
//! Of two pairs of maps (IPv4, IPv6) the program counts into one. A swap turns it to the other, and a barrier waits for
//! the runs that still have the first; after that nobody writes there, and it is emptied by batches. Draining a map
//! that is being written to loses packets.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
};

use aya::{
    Ebpf, Pod,
    maps::{Array, MapData},
};
use onenet_core::{
    decode::{InterfaceIndex, LinkDirection},
    flow::{FlowDelta, WayDelta},
    net::MacAddress,
    time::Timestamp,
};

use crate::{
    error::EbpfError,
    layout::{KeyV4, KeyV6, Rare, Value, Way, mark, tag},
    load,
    rings::wall,
    sys,
};

/// Entries per call: enough that the call costs little, and more than any bucket of a hash holds.
const BATCH: usize = 4096;

/// What a drain took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Flows.
    pub flows: u64,
    /// Packets before this moment, by the wall clock, are in them or were told before.
    pub until: Timestamp,
}

/// The maps and where the program stands.
pub(crate) struct Flows {
    v4: [MapData; 2],
    v6: [MapData; 2],
    active: Array<MapData, u32>,
    is_second: bool,
    keys_v4: Vec<KeyV4>,
    keys_v6: Vec<KeyV6>,
    values: Vec<Value>,
}

/// What a delta takes from the meter.
pub(crate) struct Place<'a> {
    pub(crate) interface: InterfaceIndex,
    pub(crate) mirrors: &'a [InterfaceIndex],
    pub(crate) has_link_header: bool,
}

impl Flows {
    /// Takes the maps out of the object.
    pub(crate) fn take(ebpf: &mut Ebpf) -> Result<Self, EbpfError> {
        let v4 = [load::hash(ebpf, "V4_A")?, load::hash(ebpf, "V4_B")?];
        let v6 = [load::hash(ebpf, "V6_A")?, load::hash(ebpf, "V6_B")?];
        let active = load::map(ebpf, ".bss")?.try_into().map_err(|_| EbpfError::Object(".bss"))?;
        Ok(Self {
            v4,
            v6,
            active,
            is_second: false,
            keys_v4: vec![KeyV4::default(); BATCH],
            keys_v6: vec![KeyV6::default(); BATCH],
            values: vec![Value::default(); BATCH],
        })
    }

    /// Turns the program to the other maps, and hands what is in those it leaves to `take`; `entries` says how many were
    /// made in each, about.
    pub(crate) fn drain(
        &mut self,
        place: &Place<'_>,
        entries: [u64; 2],
        take: &mut dyn FnMut(&FlowDelta),
    ) -> Result<Drained, EbpfError> {
        self.active.set(0, u32::from(!self.is_second), 0).map_err(|error| EbpfError::Kernel {
            what: "swapping the maps",
            error: std::io::Error::other(error),
        })?;
        let idle = usize::from(self.is_second);
        self.is_second = !self.is_second;
        sys::barrier().map_err(|error| EbpfError::Kernel { what: "waiting for the swap", error })?;
        let (now, offset) = sys::clocks();
        let times = Times { offset, now: u64::try_from(now).unwrap_or_default() };
        let mut flows = 0;
        let mut hand = |delta: Option<FlowDelta>| {
            if let Some(delta) = delta {
                flows += 1;
                take(&delta);
            }
        };
        let [v4, v6] = entries;
        empty(&self.v4[idle], v4, &mut self.keys_v4, &mut self.values, |key, value| {
            hand(delta(place, &times, ends_v4(key), [key.tags, key.more], value));
        })?;
        empty(&self.v6[idle], v6, &mut self.keys_v6, &mut self.values, |key, value| {
            hand(delta(place, &times, ends_v6(key), [key.tags, key.more], value));
        })?;
        Ok(Drained { flows, until: wall(times.now, offset) })
    }
}

/// Takes every entry out of a map that nobody writes to. The kernel goes from bucket to bucket, and needs as long as the
/// flows need to come from memory: of many, the second half of the buckets is emptied at the same time.
fn empty<K: Pod + Default + Send>(
    map: &MapData,
    entries: u64,
    keys: &mut [K],
    values: &mut [Value],
    mut take: impl FnMut(&K, &Value),
) -> Result<(), EbpfError> {
    /// Entries from which on it is worth a thread.
    const MANY: u64 = 32_768;
    let failed = |error| EbpfError::Kernel { what: "draining a map of flows", error };
    let limit = if entries < MANY { 0 } else { map.info().map_or(0, |info| info.max_entries()) };
    if limit == 0 {
        return walk(map, None, u32::MAX, keys, values, &mut take).map_err(failed);
    }
    // A hash map has as many buckets as entries, rounded up to a power of two.
    let half = limit.next_power_of_two() / 2;
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            let (mut keys, mut values) = (vec![K::default(); BATCH], vec![Value::default(); BATCH]);
            let mut taken = Vec::new();
            walk(map, Some(half), u32::MAX, &mut keys, &mut values, &mut |key, value| {
                taken.push((*key, *value));
            })
            .map(|()| taken)
        });
        let first = walk(map, None, half, keys, values, &mut take);
        let taken = second.join().unwrap_or_else(|_| Err(std::io::Error::other("a thread has failed")));
        // What was taken out is told, whatever became of the rest.
        let taken = taken.map(|taken| taken.iter().for_each(|(key, value)| take(key, value)));
        first.and(taken).map_err(failed)
    })
}

/// Takes the entries from one bucket on, and up to another. Those that another thread takes at the same time are taken
/// by one of both.
fn walk<K: Pod>(
    map: &MapData,
    from: Option<u32>,
    to: u32,
    keys: &mut [K],
    values: &mut [Value],
    take: &mut impl FnMut(&K, &Value),
) -> std::io::Result<()> {
    let mut position = from;
    loop {
        let (count, is_end) = sys::take_batch(map.fd().as_fd(), &mut position, keys, values)?;
        keys.iter().zip(values.iter()).take(count).for_each(|(key, value)| take(key, value));
        if is_end || position.is_some_and(|position| position >= to) {
            return Ok(());
        }
    }
}

struct Times {
    /// From monotonic to wall clock.
    offset: i64,
    /// Monotonic ns.
    now: u64,
}

impl Times {
    /// The moment of a stamp, whose upper bits are those of the last hour.
    fn of_stamp(&self, stamp: u32) -> Option<Timestamp> {
        if stamp == 0 {
            return None;
        }
        let now = self.now >> 10;
        let mut whole = now & !0xffff_ffff | u64::from(stamp);
        if whole > now {
            whole = whole.saturating_sub(1 << 32);
        }
        Some(wall(whole << 10, self.offset))
    }
}

fn ends_v4(key: &KeyV4) -> [(IpAddr, u16); 2] {
    [(Ipv4Addr::from(key.low).into(), key.low_port), (Ipv4Addr::from(key.high).into(), key.high_port)]
}

fn ends_v6(key: &KeyV6) -> [(IpAddr, u16); 2] {
    [(Ipv6Addr::from(key.low).into(), key.low_port), (Ipv6Addr::from(key.high).into(), key.high_port)]
}

/// An entry as core takes it; none of one that was made and never counted in.
fn delta(
    place: &Place<'_>,
    times: &Times,
    ends: [(IpAddr, u16); 2],
    [tags, more]: [u32; 2],
    value: &Value,
) -> Option<FlowDelta> {
    let mirror = (more >> tag::MIRROR_SHIFT & 7).checked_sub(1);
    let interface = match mirror {
        None => place.interface,
        Some(mirror) => *place.mirrors.get(mirror as usize)?,
    };
    let [low_half, high_half] =
        [tags & 0xfff, tags >> 12 & 0xfff].map(|id| u16::try_from(id).unwrap_or_default());
    let outer = (tags & tag::OUTER != 0).then_some(low_half);
    let inner = (tags & tag::INNER != 0).then_some(high_half);
    let label = (more & tag::LABEL != 0).then_some(more & 0xf_ffff);
    // A mirror's copy of an IP packet without its frame has no addresses of its own.
    let has_frame = |way: &Way, rare: &Rare| way.source_mac != [0; 8] || rare.destination_mac != [0; 6];
    let has_macs = |way, rare| if mirror.is_some() { has_frame(way, rare) } else { place.has_link_header };
    let [one, other] = &value.ways;
    let [rare_one, rare_other] = &value.rare;
    let ways = [
        way(one, rare_one, times, has_macs(one, rare_one)),
        way(other, rare_other, times, has_macs(other, rare_other)),
    ];
    ways.iter().any(|way| way.packets > 0).then(|| FlowDelta {
        interface,
        vlans: outer.into_iter().chain(inner).collect(),
        mpls_labels: label.into_iter().collect(),
        protocol: u8::try_from(more >> tag::PROTOCOL_SHIFT).unwrap_or_default(),
        ends,
        ways,
        mirror_bytes: mirror.map(|_| value.mirror_bytes),
    })
}

fn way(way: &Way, rare: &Rare, times: &Times, has_macs: bool) -> WayDelta {
    if way.packets == 0 {
        return WayDelta::default();
    }
    let octet = |shift: u32| way.marks.checked_shr(shift).unwrap_or_default().to_le_bytes()[0];
    let [low, high, ..] = way.marks.to_le_bytes();
    let [a, b, c, d, e, f, _, _] = way.source_mac;
    let (source_mac, destination_mac) = (MacAddress([a, b, c, d, e, f]), MacAddress(rare.destination_mac));
    let direction = match (way.marks & mark::RECEIVED != 0, way.marks & mark::SENT != 0) {
        (true, false) => LinkDirection::Received,
        (false, true) => LinkDirection::Sent,
        _ => LinkDirection::Unknown,
    };
    WayDelta {
        packets: way.packets,
        wire_bytes: way.wire_bytes,
        ip_bytes: way.ip_bytes,
        payload_bytes: way.payload_bytes,
        fragments: rare.fragments.into(),
        tcp_flags: u16::from_le_bytes([low, high]),
        ttl_min: octet(mark::TTL_MIN_SHIFT),
        ttl_max: octet(mark::TTL_MAX_SHIFT),
        dscp: octet(mark::DSCP_SHIFT),
        estimated: way.marks & mark::ESTIMATED != 0,
        source_mac: has_macs.then_some(source_mac),
        destination_mac: has_macs.then_some(destination_mac),
        direction,
        first: wall(rare.first, times.offset),
        last: wall(way.last.max(rare.first), times.offset),
        syn: times.of_stamp(rare.syn),
        syn_ack: times.of_stamp(rare.syn_ack),
        ack: times.of_stamp(rare.ack),
    }
}

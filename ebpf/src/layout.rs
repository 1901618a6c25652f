//! What the kernel program and this crate share, as `program/abi.h` has it. Both sides assert sizes and offsets, so
//! that a field that moved on one side does not build.
#![expect(unsafe_code, reason = "these structs are read and written by the kernel")]

use std::mem::offset_of;

/// Kinds of punted packets.
pub(crate) const KINDS: usize = 11;
/// Reasons for which a packet has no flow.
pub(crate) const ODDS: usize = 6;
/// Hooks.
pub(crate) const HOOKS: usize = 3;
/// Mirrors that the program can strip.
pub(crate) const MIRRORS: usize = 4;
/// Bytes of a frame that a small record holds, and the least snap length.
pub(crate) const SMALL_SNAP: u32 = 96;
/// Greatest snap length.
pub(crate) const SNAP_MAX: u32 = 2048;
/// Bytes before the frame in a record.
pub(crate) const PUNT_HEADER: usize = size_of::<PuntHeader>();

/// Bits of `tags` and `more` of a key.
pub(crate) mod tag {
    pub(crate) const OUTER: u32 = 1 << 24;
    pub(crate) const INNER: u32 = 1 << 25;
    pub(crate) const LABEL: u32 = 1 << 20;
    pub(crate) const MIRROR_SHIFT: u32 = 21;
    pub(crate) const PROTOCOL_SHIFT: u32 = 24;
}

/// Bits of the marks of a way.
pub(crate) mod mark {
    pub(crate) const TTL_MIN_SHIFT: u32 = 16;
    pub(crate) const TTL_MAX_SHIFT: u32 = 24;
    pub(crate) const DSCP_SHIFT: u32 = 32;
    pub(crate) const ESTIMATED: u64 = 1 << 40;
    pub(crate) const RECEIVED: u64 = 1 << 41;
    pub(crate) const SENT: u64 = 1 << 42;
}

/// `struct key_v4`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyV4 {
    /// Network byte order.
    pub(crate) low: [u8; 4],
    pub(crate) high: [u8; 4],
    pub(crate) low_port: u16,
    pub(crate) high_port: u16,
    pub(crate) tags: u32,
    pub(crate) more: u32,
}

/// `struct key_v6`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyV6 {
    pub(crate) low: [u8; 16],
    pub(crate) high: [u8; 16],
    pub(crate) low_port: u16,
    pub(crate) high_port: u16,
    pub(crate) tags: u32,
    pub(crate) more: u32,
    pub(crate) unused: u32,
}

/// `struct way`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Way {
    pub(crate) packets: u64,
    pub(crate) wire_bytes: u64,
    pub(crate) ip_bytes: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) last: u64,
    pub(crate) marks: u64,
    pub(crate) source_mac: [u8; 8],
}

/// `struct rare`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rare {
    pub(crate) first: u64,
    pub(crate) destination_mac: [u8; 6],
    pub(crate) unused: u16,
    pub(crate) syn: u32,
    pub(crate) syn_ack: u32,
    pub(crate) ack: u32,
    pub(crate) fragments: u32,
}

/// `struct value`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Value {
    pub(crate) ways: [Way; 2],
    pub(crate) rare: [Rare; 2],
    pub(crate) mirror_bytes: u64,
}

/// `struct count`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RawCount {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// `struct local`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Local {
    pub(crate) seen: [RawCount; HOOKS],
    pub(crate) counted: u64,
    pub(crate) inserts: [u64; 2],
    pub(crate) sampled_out: RawCount,
    pub(crate) lost: RawCount,
    pub(crate) map_full: u64,
    pub(crate) ring_full: u64,
    pub(crate) punted: [RawCount; KINDS],
    pub(crate) refused: [u64; KINDS],
    pub(crate) unparsed: [RawCount; ODDS],
    pub(crate) turn: [u64; KINDS],
}

/// `struct punt`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PuntHeader {
    pub(crate) time: u64,
    pub(crate) wire_length: u32,
    pub(crate) captured: u16,
    pub(crate) segments: u16,
    pub(crate) kind: u8,
    pub(crate) hook: u8,
    pub(crate) unused: [u16; 3],
}

/// `struct mirror`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MirrorRule {
    pub(crate) kind: u8,
    pub(crate) family: u8,
    pub(crate) prefix_bits: u8,
    pub(crate) has_id: u8,
    pub(crate) port: u16,
    pub(crate) unused: u16,
    pub(crate) id: u32,
    pub(crate) address: [u8; 16],
    pub(crate) mask: [u8; 16],
}

/// `struct config`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Config {
    pub(crate) cost: [u64; KINDS],
    pub(crate) burst: [u64; KINDS],
    pub(crate) seed: u64,
    pub(crate) seen_mask: u32,
    pub(crate) sample: u32,
    pub(crate) snap: u32,
    pub(crate) first_packets: u32,
    pub(crate) link_header: u32,
    pub(crate) coarse_clock: u32,
    pub(crate) wake_bytes: u32,
    pub(crate) mirror_count: u32,
    pub(crate) general_only: u32,
    pub(crate) unused: u32,
    pub(crate) mirrors: [MirrorRule; MIRRORS],
}

const _: () = {
    assert!(size_of::<KeyV4>() == 20);
    assert!(size_of::<KeyV6>() == 48);
    assert!(size_of::<Way>() == 56);
    assert!(size_of::<Rare>() == 32);
    assert!(size_of::<Value>() == 184);
    assert!(size_of::<Local>() == 568);
    assert!(size_of::<PuntHeader>() == 24);
    assert!(size_of::<MirrorRule>() == 44);
    assert!(size_of::<Config>() == 400);
    assert!(offset_of!(KeyV4, low_port) == 8);
    assert!(offset_of!(KeyV4, tags) == 12);
    assert!(offset_of!(KeyV4, more) == 16);
    assert!(offset_of!(KeyV6, low_port) == 32);
    assert!(offset_of!(KeyV6, tags) == 36);
    assert!(offset_of!(KeyV6, more) == 40);
    assert!(offset_of!(Way, last) == 32);
    assert!(offset_of!(Way, marks) == 40);
    assert!(offset_of!(Way, source_mac) == 48);
    assert!(offset_of!(Rare, destination_mac) == 8);
    assert!(offset_of!(Rare, syn) == 16);
    assert!(offset_of!(Rare, fragments) == 28);
    assert!(offset_of!(Value, rare) == 112);
    assert!(offset_of!(Value, mirror_bytes) == 176);
    assert!(offset_of!(Local, counted) == 48);
    assert!(offset_of!(Local, sampled_out) == 72);
    assert!(offset_of!(Local, map_full) == 104);
    assert!(offset_of!(Local, punted) == 120);
    assert!(offset_of!(Local, refused) == 296);
    assert!(offset_of!(Local, unparsed) == 384);
    assert!(offset_of!(Local, turn) == 480);
    assert!(offset_of!(PuntHeader, wire_length) == 8);
    assert!(offset_of!(PuntHeader, captured) == 12);
    assert!(offset_of!(PuntHeader, kind) == 16);
    assert!(offset_of!(MirrorRule, port) == 4);
    assert!(offset_of!(MirrorRule, id) == 8);
    assert!(offset_of!(MirrorRule, address) == 12);
    assert!(offset_of!(Config, seed) == 176);
    assert!(offset_of!(Config, snap) == 192);
    assert!(offset_of!(Config, mirrors) == 224);
};

/// Marks structs that are whole numbers without gaps, in which every pattern of bytes is a value.
macro_rules! plain {
    ($($name:ty),*) => {$(
        // SAFETY: repr(C), whole numbers and arrays of them, and no padding, which the sizes asserted above show.
        unsafe impl aya::Pod for $name {}
    )*};
}

plain!(KeyV4, KeyV6, Value, Local, Config);

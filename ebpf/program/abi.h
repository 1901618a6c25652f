/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
 *
 * What the kernel program and the program in user space share: keys, values, counters, records and configuration.
 * layout.rs has the same in Rust; both sides assert sizes and offsets. Numbers are in the byte order of the machine
 * unless a comment says otherwise; every byte of padding has a name.
 */
#ifndef ONENET_ABI_H
#define ONENET_ABI_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed int __s32;
typedef signed long long __s64;

/* Ports and addresses of a flow; addresses in network byte order, the lower end (as a number) first. */
struct key_v4 {
	__u32 low, high;
	__u16 low_port, high_port;
	__u32 tags; /* TAGS_* */
	__u32 more; /* MORE_* */
};

struct key_v6 {
	__u64 low[2], high[2];
	__u16 low_port, high_port;
	__u32 tags;
	__u32 more;
	__u32 unused; /* zero */
};

/* Outer VLAN id in bits 0..11, inner in 12..23. */
#define TAGS_OUTER (1U << 24)
#define TAGS_INNER (1U << 25)
/* A later fragment: it has no ports. */
#define TAGS_LATER (1U << 26)
/* Source and destination as they are, type and code in place of the ports. */
#define TAGS_ICMP (1U << 27)
/* First MPLS label in bits 0..19. */
#define MORE_LABEL (1U << 20)
/* Number of the mirror plus one in bits 21..23, protocol in 24..31. */
#define MORE_MIRROR_SHIFT 21
#define MORE_PROTOCOL_SHIFT 24

/* What one end sent. An entry of the IPv4 map has its key up to byte 72, so that the first way ends with a line of
 * the cache; the second has most of the next. */
struct way {
	__u64 packets;
	__u64 wire_bytes;
	__u64 ip_bytes;
	__u64 payload_bytes;
	__u64 last; /* monotonic ns */
	__u64 marks; /* MARK_* */
	__u64 source_mac; /* six bytes in order, then zeros */
};

/* TCP flags in bits 0..15, least TTL in 16..23, greatest in 24..31, DSCP of the first packet in 32..39. */
#define MARK_TTL_MIN_SHIFT 16
#define MARK_TTL_MAX_SHIFT 24
#define MARK_DSCP_SHIFT 32
#define MARK_ESTIMATED (1ULL << 40)
#define MARK_RECEIVED (1ULL << 41)
#define MARK_SENT (1ULL << 42)
#define MARK_STARTED (1ULL << 43)
/* Its first packets have been told. */
#define MARK_FIRSTS_DONE (1ULL << 44)
/* A SYN was counted, and no ACK without SYN since. */
#define MARK_HANDSHAKE (1ULL << 45)

/* What only few packets of a way touch. Stamps are monotonic ns >> 10, never 0. */
struct rare {
	__u64 first; /* monotonic ns */
	__u8 destination_mac[6];
	__u16 unused;
	__u32 syn, syn_ack, ack;
	__u32 fragments;
};

struct value {
	struct way ways[2];
	struct rare rare[2];
	__u64 mirror_bytes;
};

enum kind {
	KIND_ARP,
	KIND_NDP,
	KIND_DHCP,
	KIND_FIRST,
	KIND_CONTROL,
	KIND_FRAGMENT,
	KIND_TUNNEL,
	KIND_ICMP,
	KIND_ODD,
	KIND_MOVED,
	KIND_OVERFLOW,
	KINDS,
};

/* Why a packet has no flow. */
enum odd {
	ODD_NONE,
	ODD_ARP,
	ODD_NOT_IP,
	ODD_TRUNCATED,
	ODD_BAD_HEADER,
	ODD_TOO_DEEP,
	ODDS,
};

enum hook { HOOK_INGRESS, HOOK_EGRESS, HOOK_XDP, HOOKS };

struct count {
	__u64 packets; /* on the wire: segments of an offloaded packet are counted each */
	__u64 bytes; /* of frames as the hook saw them, with the tag that the kernel keeps beside */
};

/* One per CPU. */
struct local {
	struct count seen[HOOKS];
	__u64 counted; /* packets in the flow maps */
	__u64 inserts[2]; /* entries made, IPv4 and IPv6 */
	struct count sampled_out;
	struct count lost;
	__u64 map_full;
	__u64 ring_full;
	struct count punted[KINDS];
	__u64 refused[KINDS]; /* packets without a token */
	struct count unparsed[ODDS];
	__u64 turn[KINDS]; /* token buckets: when the next token is free, monotonic ns */
};

/* Before the bytes of a punted packet. */
struct punt {
	__u64 time; /* monotonic ns */
	__u32 wire_length; /* of the frame, with its tag */
	__u16 captured; /* bytes that follow */
	__u16 segments; /* packets on the wire */
	__u8 kind;
	__u8 hook;
	__u16 unused[3];
};

#define MIRRORS 4
/* Bytes of a frame that a small record holds: the record then has 128 bytes in the ring. */
#define SMALL_SNAP 96
#define SNAP_MAX 2048
/* Longest time without a packet after which a flow's first packets are first again, in 2^30 ns. */
#define SEEN_AGE 300

struct mirror {
	__u8 kind; /* MIRROR_* */
	__u8 family; /* of the destination: 0 any, 4, 6 */
	__u8 prefix_bits;
	__u8 has_id;
	__u16 port; /* 0: the registered ones */
	__u16 unused;
	__u32 id;
	__u32 address[4]; /* masked, network byte order */
	__u32 mask[4];
};

enum { MIRROR_ERSPAN = 1, MIRROR_GRE, MIRROR_VXLAN, MIRROR_GENEVE, MIRROR_TZSP };

struct config {
	__u64 cost[KINDS]; /* ns per token; 0: none is given */
	__u64 burst[KINDS]; /* ns that a bucket can hold */
	__u64 seed;
	__u32 seen_mask;
	__u32 sample; /* one in so many flows; 0 and 1: every flow */
	__u32 snap; /* SMALL_SNAP..SNAP_MAX */
	__u32 first_packets;
	__u32 link_header; /* 14, or 0 where frames begin with IP */
	__u32 coarse_clock;
	__u32 wake_bytes;
	__u32 mirror_count;
	__u32 general_only; /* for tests: no packet is usual */
	__u32 unused;
	struct mirror mirrors[MIRRORS];
};

#define SAME(type, field, at) _Static_assert(__builtin_offsetof(struct type, field) == (at), #type "." #field)
_Static_assert(sizeof(struct key_v4) == 20, "key_v4");
_Static_assert(sizeof(struct key_v6) == 48, "key_v6");
_Static_assert(sizeof(struct way) == 56, "way");
_Static_assert(sizeof(struct rare) == 32, "rare");
_Static_assert(sizeof(struct value) == 184, "value");
_Static_assert(sizeof(struct local) == 568, "local");
_Static_assert(sizeof(struct punt) == 24, "punt");
_Static_assert(sizeof(struct mirror) == 44, "mirror");
_Static_assert(sizeof(struct config) == 400, "config");
SAME(key_v4, low_port, 8);
SAME(key_v4, tags, 12);
SAME(key_v4, more, 16);
SAME(key_v6, low_port, 32);
SAME(key_v6, tags, 36);
SAME(key_v6, more, 40);
SAME(way, last, 32);
SAME(way, marks, 40);
SAME(way, source_mac, 48);
SAME(rare, destination_mac, 8);
SAME(rare, syn, 16);
SAME(rare, fragments, 28);
SAME(value, rare, 112);
SAME(value, mirror_bytes, 176);
SAME(local, counted, 48);
SAME(local, sampled_out, 72);
SAME(local, map_full, 104);
SAME(local, punted, 120);
SAME(local, refused, 296);
SAME(local, unparsed, 384);
SAME(local, turn, 480);
SAME(punt, wire_length, 8);
SAME(punt, captured, 12);
SAME(punt, kind, 16);
SAME(mirror, port, 4);
SAME(mirror, id, 8);
SAME(mirror, address, 12);
SAME(config, seed, 176);
SAME(config, snap, 192);
SAME(config, mirrors, 224);

#endif

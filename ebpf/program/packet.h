/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
 *
 * What is known of a packet while it is metered, the maps, and the ways to read its bytes.
 */
#ifndef ONENET_PACKET_H
#define ONENET_PACKET_H

#include "kernel.h"

#define FLAG_V6 1
#define FLAG_FRAGMENT 2
#define FLAG_LATER 4
#define FLAG_ESTIMATED 8
#define FLAG_ICMP 16
#define FLAG_MIRRORED 32
/* Ports were read. */
#define FLAG_PORTS 64

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define PROTOCOL_ICMP 1
#define PROTOCOL_IGMP 2
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_GRE 47
#define PROTOCOL_AH 51
#define PROTOCOL_ICMP6 58

#define TYPE_IPV4 0x0800
#define TYPE_IPV6 0x86dd

/* One packet. Offsets count from the first byte that the context has. */
struct packet {
	/* Addresses as they are in the header; of IPv4 the first word. */
	__u64 source[2], destination[2];
	__u64 source_mac, destination_mac;
	union {
		struct key_v4 v4;
		struct key_v6 v6;
	} key;
	__u64 now;
	/* As the counters have them, made up for segments of an offloaded packet. */
	__u64 wire_bytes, ip_bytes;
	__u64 mirror_bytes;
	__u32 length; /* of the frame, as it is in memory */
	__u32 tag; /* that the kernel keeps beside the frame: ethertype (network byte order) << 16 | tag; 0: none */
	__u32 stated; /* length by the IP header */
	__u32 payload; /* behind the transport header, by the length fields */
	__u32 payload_at; /* where it begins */
	__u32 limit; /* where the bytes of the IP packet end that are there */
	__u32 frame_at; /* where the metered frame begins: 0, or behind the headers of a mirror's tunnel */
	__u32 frame_wire; /* its length on the wire */
	__u32 tags, more;
	__u32 hash;
	__u32 segments;
	__u32 segment_size; /* where the number of segments is to be reckoned, else 0 */
	__u16 source_port, destination_port;
	__u16 tcp_flags, window;
	__u8 protocol, ttl, dscp, flags;
	__u8 hook, way, unused[2];
};

#define FLOWS(name, key_type)                              \
	struct {                                           \
		MAP_UINT(type, BPF_MAP_TYPE_HASH);         \
		MAP_UINT(max_entries, 131072);             \
		MAP_TYPE(key, struct key_type);            \
		MAP_TYPE(value, struct value);             \
	} name SECTION(".maps")

FLOWS(V4_A, key_v4);
FLOWS(V4_B, key_v4);
FLOWS(V6_A, key_v6);
FLOWS(V6_B, key_v6);

struct {
	MAP_UINT(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	MAP_UINT(max_entries, 1);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, struct local);
} LOCAL SECTION(".maps");

/* Which flows told their first packets: by hash, see firsts.h. */
struct {
	MAP_UINT(type, BPF_MAP_TYPE_ARRAY);
	MAP_UINT(max_entries, 1024);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u64);
} SEEN SECTION(".maps");

struct {
	MAP_UINT(type, BPF_MAP_TYPE_RINGBUF);
	MAP_UINT(max_entries, 4194304);
} RING SECTION(".maps");

struct {
	MAP_UINT(type, BPF_MAP_TYPE_RINGBUF);
	MAP_UINT(max_entries, 262144);
} URGENT SECTION(".maps");

/* Set before the program is loaded; the verifier takes the values for constants and leaves out what they turn off. */
const volatile struct config CONFIG SECTION(".rodata") = {};

/* Which maps are being counted into: 0 is A. Set by user space at a swap. */
volatile __u32 ACTIVE SECTION(".bss");

INLINE struct local *local(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&LOCAL, &zero);
}

/* Reads bytes wherever they are, also behind the first part of a packet in several. */
INLINE long load(const void *ctx, __u32 at, void *to, __u32 size)
{
#ifdef METER_XDP
	return bpf_xdp_load_bytes(ctx, at, to, size);
#else
	return bpf_skb_load_bytes(ctx, at, to, size);
#endif
}

INLINE __u64 mac(const __u8 *at)
{
	return *(const __u32 *)at | (__u64)*(const __u16 *)(at + 4) << 32;
}

#endif

/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
 *
 * Telling user space of a packet: which kind it is of, whether there is a token for it, and its record in a ring.
 */
#ifndef ONENET_PUNT_H
#define ONENET_PUNT_H

#include "packet.h"

#define KIND_NONE KINDS

/* Whether core's decode may find a packet behind these UDP ports (core/src/decode/udp_tunnel.rs, may_open). */
INLINE __u32 udp_kind(__u16 source, __u16 destination)
{
	switch (destination) {
	case 67:
	case 68:
	case 546:
	case 547:
		return KIND_DHCP;
	case 1701:
	case 2152:
	case 3544:
	case 4341:
	case 4754:
	case 4789:
	case 4790:
	case 5072:
	case 5247:
	case 6080:
	case 6081:
	case 6635:
	case 8472:
	case 37008:
		return KIND_TUNNEL;
	}
	switch (source) {
	case 67:
	case 68:
	case 546:
	case 547:
		return KIND_DHCP;
	case 1701:
	case 2152:
	case 3544:
	case 5072:
	case 5247:
		return KIND_TUNNEL;
	}
	return KIND_NONE;
}

/* The kind of a packet by its own headers. */
INLINE __u32 kind_of(const struct packet *packet)
{
	if (UNLIKELY(packet->flags & FLAG_FRAGMENT))
		return KIND_FRAGMENT;
	switch (packet->protocol) {
	case PROTOCOL_TCP:
		return packet->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) || !packet->window ? KIND_CONTROL : KIND_NONE;
	case PROTOCOL_UDP:
		return udp_kind(packet->source_port, packet->destination_port);
	case PROTOCOL_ICMP6:
		return packet->source_port >= 133 && packet->source_port <= 137 ? KIND_NDP : KIND_ICMP;
	case PROTOCOL_ICMP:
	case PROTOCOL_IGMP:
		return KIND_ICMP;
	case 4:
	case 41:
	case PROTOCOL_GRE:
	case 94:
	case 97:
	case 115:
	case 137:
	case 143:
		return KIND_TUNNEL;
	}
	return KIND_NONE;
}

/* Takes a token of a kind: a bucket is the time at which its next token is free, never further back than a burst. */
INLINE int take_token(struct local *local, __u32 kind, __u64 now)
{
	__u64 turn = local->turn[kind], burst = CONFIG.burst[kind];
	__u64 oldest = now > burst ? now - burst : 0;

	if (turn < oldest)
		turn = oldest;
	turn += CONFIG.cost[kind];
	if (turn > now)
		return 0;
	local->turn[kind] = turn;
	return 1;
}

/* Writes the frame as it was on the wire: with the tag that the kernel keeps beside it in its place. */
INLINE long write_frame(const void *ctx, const struct packet *packet, __u8 *to, __u32 captured)
{
	if (packet->tag) {
		if (captured < 17)
			return -1;
		if (load(ctx, 0, to, 12))
			return -1;
		*(__u16 *)(to + 12) = packet->tag >> 16;
		*(__u16 *)(to + 14) = BE16((__u16)packet->tag);
		return load(ctx, 12, to + 16, captured - 16);
	}
	if (captured < 1)
		return -1;
	return load(ctx, 0, to, captured);
}

INLINE __u64 wakes(void *ring)
{
	return bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) >= CONFIG.wake_bytes ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

INLINE int put(const void *ctx, const struct packet *packet, __u32 kind, void *ring, __u32 snap)
{
	struct punt *record = bpf_ringbuf_reserve(ring, sizeof(struct punt) + snap, 0);
	__u32 length = packet->length + (packet->tag ? 4 : 0), captured = length;

	if (!record)
		return 0;
	if (captured > snap)
		captured = snap;
	record->time = CONFIG.coarse_clock ? bpf_ktime_get_ns() : packet->now;
	record->wire_length = length;
	record->captured = captured;
	record->segments = packet->segments;
	record->kind = kind;
	record->hook = packet->hook;
	record->unused[0] = 0;
	record->unused[1] = 0;
	record->unused[2] = 0;
	if (write_frame(ctx, packet, (__u8 *)(record + 1), captured)) {
		bpf_ringbuf_discard(record, BPF_RB_NO_WAKEUP);
		return 0;
	}
	bpf_ringbuf_submit(record, wakes(ring));
	return 1;
}

/* Tells user space of a packet; 0 where there is no token or no room, and the packet must be counted otherwise. */
NOINLINE int punt(const void *ctx, struct packet *packet, __u32 kind)
{
	struct local *local;
	int done;

	if (kind >= KINDS || !CONFIG.cost[kind])
		return 0;
	local = (struct local *)bpf_map_lookup_elem(&LOCAL, &(__u32){ 0 });
	if (!local)
		return 0;
	if (!take_token(local, kind, packet->now)) {
		local->refused[kind] += packet->segments;
		return 0;
	}
	if (kind <= KIND_DHCP)
		done = put(ctx, packet, kind, &URGENT, CONFIG.snap);
	else if (kind == KIND_OVERFLOW || packet->length + 4 <= SMALL_SNAP)
		done = put(ctx, packet, kind, &RING, SMALL_SNAP);
	else
		done = put(ctx, packet, kind, &RING, CONFIG.snap);
	if (!done) {
		local->ring_full++;
		return 0;
	}
	local->punted[kind].packets += packet->segments;
	local->punted[kind].bytes += packet->length + (packet->tag ? 4 : 0);
	return 1;
}

#endif

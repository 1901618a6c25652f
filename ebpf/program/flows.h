/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
 *
 * Keys, the memory of first packets, and counting into the active map.
 */
#ifndef ONENET_FLOWS_H
#define ONENET_FLOWS_H

#include "packet.h"
#include "punt.h"

INLINE int is_swapped_v6(const struct packet *packet)
{
	__u64 a = BE64(packet->source[0]), b = BE64(packet->destination[0]);

	if (a == b) {
		a = BE64(packet->source[1]);
		b = BE64(packet->destination[1]);
	}
	return a > b || (a == b && packet->source_port > packet->destination_port);
}

/* Writes the key, the lower end first, and which end sent the packet. */
INLINE void make_key(struct packet *packet)
{
	__u32 tags = packet->tags, more = packet->more | (__u32)packet->protocol << MORE_PROTOCOL_SHIFT;
	int swapped;

	if (packet->flags & FLAG_LATER)
		tags |= TAGS_LATER;
	if (packet->flags & FLAG_ICMP)
		tags |= TAGS_ICMP;
	if (packet->flags & FLAG_V6) {
		struct key_v6 *key = &packet->key.v6;

		swapped = !(packet->flags & FLAG_ICMP) && is_swapped_v6(packet);
		key->low[0] = swapped ? packet->destination[0] : packet->source[0];
		key->low[1] = swapped ? packet->destination[1] : packet->source[1];
		key->high[0] = swapped ? packet->source[0] : packet->destination[0];
		key->high[1] = swapped ? packet->source[1] : packet->destination[1];
		key->low_port = swapped ? packet->destination_port : packet->source_port;
		key->high_port = swapped ? packet->source_port : packet->destination_port;
		key->tags = tags;
		key->more = more;
		key->unused = 0;
	} else {
		struct key_v4 *key = &packet->key.v4;
		__u32 source = packet->source[0], destination = packet->destination[0];

		swapped = !(packet->flags & FLAG_ICMP) &&
			  (BE32(source) > BE32(destination) ||
			   (source == destination && packet->source_port > packet->destination_port));
		key->low = swapped ? destination : source;
		key->high = swapped ? source : destination;
		key->low_port = swapped ? packet->destination_port : packet->source_port;
		key->high_port = swapped ? packet->source_port : packet->destination_port;
		key->tags = tags;
		key->more = more;
	}
	packet->way = swapped;
}

/* The active map is chosen by a branch, and not by a pointer, so that the kernel can inline the look-up. */
INLINE struct value *find(struct packet *packet)
{
	struct value *value;

	if (packet->flags & FLAG_V6) {
		if (ACTIVE) {
			value = bpf_map_lookup_elem(&V6_B, &packet->key.v6);
			BARRIER();
		} else {
			value = bpf_map_lookup_elem(&V6_A, &packet->key.v6);
		}
	} else if (ACTIVE) {
		value = bpf_map_lookup_elem(&V4_B, &packet->key.v4);
		BARRIER();
	} else {
		value = bpf_map_lookup_elem(&V4_A, &packet->key.v4);
	}
	return value;
}

INLINE long insert(struct packet *packet, struct value *value)
{
	if (packet->flags & FLAG_V6) {
		if (ACTIVE)
			return bpf_map_update_elem(&V6_B, &packet->key.v6, value, BPF_NOEXIST);
		return bpf_map_update_elem(&V6_A, &packet->key.v6, value, BPF_NOEXIST);
	}
	if (ACTIVE)
		return bpf_map_update_elem(&V4_B, &packet->key.v4, value, BPF_NOEXIST);
	return bpf_map_update_elem(&V4_A, &packet->key.v4, value, BPF_NOEXIST);
}

INLINE __u64 mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ hash >> 29;
}

INLINE __u64 hash_of(const struct packet *packet)
{
	__u64 hash = CONFIG.seed;

	if (packet->flags & FLAG_V6) {
		const struct key_v6 *key = &packet->key.v6;

		hash = mix(hash, key->low[0]);
		hash = mix(hash, key->low[1]);
		hash = mix(hash, key->high[0]);
		hash = mix(hash, key->high[1]);
		hash = mix(hash, (__u64)key->low_port << 48 | (__u64)key->high_port << 32 | key->tags);
		return mix(hash, key->more);
	}
	hash = mix(hash, (__u64)packet->key.v4.low << 32 | packet->key.v4.high);
	hash = mix(hash, (__u64)packet->key.v4.low_port << 48 | (__u64)packet->key.v4.high_port << 32 |
				 packet->key.v4.tags);
	return mix(hash, packet->key.v4.more);
}

/* Whether the flow of a packet is not in the sample. Both directions give the same, and so do the fragments of a
 * datagram and the messages of ICMP between two hosts, which go by their addresses alone. */
INLINE int is_left_out(const struct packet *packet)
{
	__u64 hash = CONFIG.seed, ports;

	if (packet->flags & FLAG_V6) {
		const struct key_v6 *key = &packet->key.v6;

		hash = mix(hash, key->low[0] ^ key->high[0]);
		hash = mix(hash, key->low[1] ^ key->high[1]);
		hash = mix(hash, key->low[1] + key->high[1]);
		ports = (__u64)(key->low_port ^ key->high_port) << 32 | (__u32)(key->low_port + key->high_port);
	} else {
		const struct key_v4 *key = &packet->key.v4;

		hash = mix(hash, key->low ^ key->high);
		hash = mix(hash, (__u64)key->low + key->high);
		ports = (__u64)(key->low_port ^ key->high_port) << 32 | (__u32)(key->low_port + key->high_port);
	}
	if (packet->flags & (FLAG_FRAGMENT | FLAG_ICMP))
		ports = 0;
	hash = mix(mix(hash, ports), packet->protocol);
	return (__u32)(hash >> 32) % CONFIG.sample != 0;
}

#define FIRSTS_PUNTED 4

/* The first packets of a flow in each direction. SEEN remembers how many a flow has had, so that the swap of the maps
 * makes no packet a first one again: a table of cells by hash, each with the upper half of the hash, the time, and a
 * count per way. A cell is taken by whoever comes; the flow that lost it has first packets again, which costs a
 * little and is wrong in nothing. Touched only while a flow is young and once per interval.
 * Gives FIRSTS_PUNTED, or a bit for each way that is past its first packets. */
NOINLINE __u32 firsts(const void *ctx, struct packet *packet)
{
	__u64 hash, cell, *seen;
	__u32 index, shift = packet->way ? 8 : 0, count, done;
	__u16 age;

	if (!CONFIG.first_packets)
		return 3;
	hash = hash_of(packet);
	index = hash & CONFIG.seen_mask;
	seen = bpf_map_lookup_elem(&SEEN, &index);
	if (!seen)
		return 3;
	cell = *seen;
	age = packet->now >> 30;
	if (cell >> 32 != hash >> 32 || (__u16)(age - (__u16)(cell >> 16)) > SEEN_AGE)
		cell = 0;
	/* Another connection with the same numbers. */
	if ((packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		cell = 0;
	count = cell >> shift & 0xff;
	cell = (hash >> 32) << 32 | (__u64)age << 16 | (cell & 0xffff);
	if (count < CONFIG.first_packets) {
		cell += 1ULL << shift;
		*seen = cell;
		if (punt(ctx, packet, KIND_FIRST))
			return FIRSTS_PUNTED;
	} else {
		*seen = cell;
	}
	done = (cell & 0xff) >= CONFIG.first_packets;
	return done | ((cell >> 8 & 0xff) >= CONFIG.first_packets ? 2 : 0);
}

/* A SYN was told: what follows are first packets. */
NOINLINE void forget_firsts(struct packet *packet)
{
	__u64 hash, *seen;
	__u32 index;

	if (!CONFIG.first_packets)
		return;
	hash = hash_of(packet);
	index = hash & CONFIG.seen_mask;
	seen = bpf_map_lookup_elem(&SEEN, &index);
	if (seen)
		*seen = 0;
}

INLINE __u32 stamp(__u64 now)
{
	__u32 stamp = now >> 10;

	return stamp ? stamp : 1;
}

/* Marks of a way that had one packet, this one. */
INLINE __u64 marks_of(const struct packet *packet)
{
	__u64 marks = packet->tcp_flags | MARK_STARTED;

	marks |= (__u64)packet->ttl << MARK_TTL_MIN_SHIFT | (__u64)packet->ttl << MARK_TTL_MAX_SHIFT;
	marks |= (__u64)packet->dscp << MARK_DSCP_SHIFT;
	marks |= packet->hook == HOOK_EGRESS ? MARK_SENT : MARK_RECEIVED;
	return packet->flags & FLAG_ESTIMATED ? marks | MARK_ESTIMATED : marks;
}

INLINE __u64 merge(__u64 marks, __u64 other)
{
	__u64 ttl_min = marks & 0xffULL << MARK_TTL_MIN_SHIFT, ttl_max = marks & 0xffULL << MARK_TTL_MAX_SHIFT;
	__u64 other_min = other & 0xffULL << MARK_TTL_MIN_SHIFT, other_max = other & 0xffULL << MARK_TTL_MAX_SHIFT;
	const __u64 joined = 0xffff | MARK_ESTIMATED | MARK_RECEIVED | MARK_SENT | MARK_STARTED | MARK_FIRSTS_DONE;

	if (!(marks & MARK_STARTED))
		return marks | other;
	marks &= ~(0xffULL << MARK_TTL_MIN_SHIFT | 0xffULL << MARK_TTL_MAX_SHIFT);
	marks |= other_min < ttl_min ? other_min : ttl_min;
	marks |= other_max > ttl_max ? other_max : ttl_max;
	return marks | (other & joined);
}

/* Sets marks whatever other CPUs set at the same time; after many tries it gives up, which no count hangs on. */
INLINE void mark(struct way *way, __u64 other)
{
	int i;

	for (i = 0; i < 8; i++) {
		__u64 old = way->marks, new = merge(old, other);

		if (old == new || __sync_val_compare_and_swap(&way->marks, old, new) == old)
			return;
	}
}

INLINE void write_mac(__u8 *to, __u64 mac)
{
	*(__u32 *)to = mac;
	*(__u16 *)(to + 4) = mac >> 32;
}

/* Handshake times of packets that are counted. */
INLINE void handshake(struct packet *packet, struct value *value, int is_young)
{
	struct rare *rare = &value->rare[packet->way & 1];
	__u64 *marks = &value->ways[packet->way & 1].marks;

	if (packet->tcp_flags & TCP_SYN) {
		if (packet->tcp_flags & TCP_ACK) {
			if (!rare->syn_ack)
				rare->syn_ack = stamp(packet->now);
		} else if (!rare->syn) {
			rare->syn = stamp(packet->now);
		}
		__sync_fetch_and_or(&value->ways[0].marks, MARK_HANDSHAKE);
		__sync_fetch_and_or(&value->ways[1].marks, MARK_HANDSHAKE);
	} else if (packet->tcp_flags & TCP_ACK && (is_young || *marks & MARK_HANDSHAKE)) {
		if (!rare->ack)
			rare->ack = stamp(packet->now);
		__sync_fetch_and_and(marks, ~MARK_HANDSHAKE);
	}
}

/* What a packet changes beside the sums; 1 where the packet was told and must not be counted. */
NOINLINE int change(const void *ctx, struct packet *packet, struct value *value)
{
	struct way *way = &value->ways[packet->way & 1];
	__u64 marks = way->marks, new = marks_of(packet);
	int is_young = 0;

	if (!(marks & MARK_FIRSTS_DONE)) {
		__u32 done = firsts(ctx, packet);

		if (done == FIRSTS_PUNTED)
			return 1;
		is_young = !(marks & MARK_STARTED);
		if (done & 1U << (packet->way & 1))
			new |= MARK_FIRSTS_DONE;
	}
	if (!(marks & MARK_STARTED)) {
		struct rare *rare = &value->rare[packet->way & 1];

		rare->first = packet->now;
		write_mac(rare->destination_mac, packet->destination_mac);
		way->source_mac = packet->source_mac;
	} else if (way->source_mac != packet->source_mac) {
		way->source_mac = packet->source_mac;
		if (punt(ctx, packet, KIND_MOVED))
			return 1;
	}
	mark(way, new);
	if (packet->tcp_flags)
		handshake(packet, value, is_young);
	return 0;
}

INLINE void add(struct packet *packet, struct value *value)
{
	struct way *way = &value->ways[packet->way & 1];

	__sync_fetch_and_add(&way->packets, packet->segments);
	__sync_fetch_and_add(&way->wire_bytes, packet->wire_bytes);
	__sync_fetch_and_add(&way->ip_bytes, packet->ip_bytes);
	__sync_fetch_and_add(&way->payload_bytes, packet->payload);
	if (way->last < packet->now)
		way->last = packet->now;
	if (UNLIKELY(packet->flags & (FLAG_FRAGMENT | FLAG_MIRRORED))) {
		if (packet->flags & FLAG_FRAGMENT)
			__sync_fetch_and_add(&value->rare[packet->way & 1].fragments, 1);
		__sync_fetch_and_add(&value->mirror_bytes, packet->mirror_bytes);
	}
}

/* The first packet of a flow in the active map; done is what firsts() gave. 0: counted, else an error of the map. */
NOINLINE long begin(struct packet *packet, struct local *local, __u32 done)
{
	struct value value = {};
	__u32 at = packet->way & 1;
	long error;

	value.ways[at].packets = packet->segments;
	value.ways[at].wire_bytes = packet->wire_bytes;
	value.ways[at].ip_bytes = packet->ip_bytes;
	value.ways[at].payload_bytes = packet->payload;
	value.ways[at].last = packet->now;
	value.ways[at].source_mac = packet->source_mac;
	value.ways[at].marks = marks_of(packet);
	value.rare[at].first = packet->now;
	write_mac(value.rare[at].destination_mac, packet->destination_mac);
	value.rare[at].fragments = packet->flags & FLAG_FRAGMENT ? 1 : 0;
	value.mirror_bytes = packet->mirror_bytes;
	if (done & 1)
		value.ways[0].marks |= MARK_FIRSTS_DONE;
	if (done & 2)
		value.ways[1].marks |= MARK_FIRSTS_DONE;
	if (packet->tcp_flags & TCP_SYN) {
		if (packet->tcp_flags & TCP_ACK)
			value.rare[at].syn_ack = stamp(packet->now);
		else
			value.rare[at].syn = stamp(packet->now);
		value.ways[0].marks |= MARK_HANDSHAKE;
		value.ways[1].marks |= MARK_HANDSHAKE;
	} else if (packet->tcp_flags & TCP_ACK && !(done & 1U << at)) {
		value.rare[at].ack = stamp(packet->now);
	}
	error = insert(packet, &value);
	if (!error)
		local->inserts[packet->flags & FLAG_V6 ? 1 : 0]++;
	return error;
}

/* Whether a packet changes more of its way than sums. */
INLINE int is_change(const struct packet *packet, const struct way *way)
{
	__u64 marks = way->marks, wanted = packet->tcp_flags | MARK_STARTED | MARK_FIRSTS_DONE;
	__u32 ttl_min = marks >> MARK_TTL_MIN_SHIFT & 0xff, ttl_max = marks >> MARK_TTL_MAX_SHIFT & 0xff;

	wanted |= packet->hook == HOOK_EGRESS ? MARK_SENT : MARK_RECEIVED;
	if (packet->flags & FLAG_ESTIMATED)
		wanted |= MARK_ESTIMATED;
	return (marks & (wanted | MARK_HANDSHAKE)) != wanted || packet->ttl < ttl_min || packet->ttl > ttl_max ||
	       way->source_mac != packet->source_mac;
}

/* Counts a packet to its flow; what was told instead is done, too. */
INLINE void count(const void *ctx, struct packet *packet, struct local *local)
{
	struct value *value = find(packet);

	if (UNLIKELY(!value)) {
		__u32 done = firsts(ctx, packet);
		long error;

		if (done == FIRSTS_PUNTED)
			return;
		error = begin(packet, local, done);
		if (!error) {
			local->counted += packet->segments;
			return;
		}
		/* Another CPU may have been quicker with the same flow. */
		value = error == -EEXIST ? find(packet) : NULL;
		if (!value) {
			local->map_full += packet->segments;
			if (!punt(ctx, packet, KIND_OVERFLOW)) {
				local->lost.packets += packet->segments;
				local->lost.bytes += packet->length + (packet->tag ? 4 : 0);
			}
			return;
		}
	}
	if (UNLIKELY(is_change(packet, &value->ways[packet->way & 1])) && change(ctx, packet, value))
		return;
	add(packet, value);
	local->counted += packet->segments;
}

#endif

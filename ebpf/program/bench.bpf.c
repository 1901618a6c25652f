/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
 *
 * What the meter is measured beside: nothing at all, and the least that a meter can do (read the headers of IPv4 and
 * TCP, update one map) in three designs; and a wrapper that gives each packet another source address and goes on with
 * another program, so that a test run of one frame is a run of many flows.
 */
#include "kernel.h"

struct five {
	__u32 source, destination;
	__u16 source_port, destination_port;
	__u32 protocol;
};

struct sums {
	__u64 packets, bytes, first, last;
	__u32 flags, unused;
};

/* The design of netobserv's agent: a lock in each entry. */
struct bpf_spin_lock {
	__u32 value;
};

struct locked {
	struct sums sums;
	struct bpf_spin_lock lock;
	__u32 unused;
};

/* The same for both versions of IP in one map, with what a flow record needs beside sums: IPv4 addresses stand in the
 * form of IPv6 (RFC 4291, 2.5.5.2), and each direction is a flow of its own. */
struct both {
	__u64 source[2], destination[2];
	__u16 source_port, destination_port;
	__u32 protocol;
};

struct locked_record {
	__u64 packets, bytes, first, last;
	__u32 flags, interface;
	__u8 macs[12];
	struct bpf_spin_lock lock;
};

#define BPF_MAP_TYPE_PERCPU_HASH 5

static long (*bpf_spin_lock)(struct bpf_spin_lock *lock) = (void *)93;
static long (*bpf_spin_unlock)(struct bpf_spin_lock *lock) = (void *)94;

#define TABLE(name, kind, key_type, value_type)       \
	struct {                                      \
		MAP_UINT(type, kind);                 \
		MAP_UINT(max_entries, 262144);        \
		MAP_TYPE(key, struct key_type);       \
		MAP_TYPE(value, struct value_type);   \
	} name SECTION(".maps")

TABLE(SHARED, BPF_MAP_TYPE_HASH, five, sums);
TABLE(PER_CPU, BPF_MAP_TYPE_PERCPU_HASH, five, sums);
TABLE(LOCKED, BPF_MAP_TYPE_HASH, five, locked);
TABLE(LOCKED_RECORDS, BPF_MAP_TYPE_HASH, both, locked_record);

struct {
	MAP_UINT(type, BPF_MAP_TYPE_PROG_ARRAY);
	MAP_UINT(max_entries, 1);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u32);
} TARGET SECTION(".maps");

/* Flows less one; a power of two less one. */
const volatile __u32 FLOWS_MASK SECTION(".rodata") = 131071;

SECTION("classifier")
int bench_empty(struct __sk_buff *ctx)
{
	(void)ctx;
	return TC_NEXT;
}

SECTION("classifier")
int bench_rotate(struct __sk_buff *ctx)
{
	__u8 *data = (__u8 *)(long)ctx->data, *end = (__u8 *)(long)ctx->data_end;
	__u32 flow;

	if (data + 34 > end)
		return TC_NEXT;
	flow = bpf_get_prandom_u32() & FLOWS_MASK;
	if (data[12] == 0x86 && data + 54 <= end)
		*(__u32 *)(data + 34) = flow;
	else
		*(__u32 *)(data + 26) = BE32(0x0a000000 | flow);
	bpf_tail_call(ctx, &TARGET, 0);
	return TC_NEXT;
}

INLINE int parse(struct __sk_buff *ctx, struct five *key, struct sums *sums)
{
	__u8 *data = (__u8 *)(long)ctx->data, *end = (__u8 *)(long)ctx->data_end;

	if (data + 54 > end || *(__u16 *)(data + 12) != BE16(0x0800) || data[14] != 0x45 || data[23] != 6)
		return 0;
	key->source = *(__u32 *)(data + 26);
	key->destination = *(__u32 *)(data + 30);
	key->source_port = *(__u16 *)(data + 34);
	key->destination_port = *(__u16 *)(data + 36);
	key->protocol = 6;
	sums->packets = 1;
	sums->bytes = ctx->len;
	sums->first = sums->last = bpf_ktime_get_ns();
	sums->flags = data[47];
	sums->unused = 0;
	return 1;
}

SECTION("classifier")
int bench_shared(struct __sk_buff *ctx)
{
	struct five key;
	struct sums now, *sums;

	if (!parse(ctx, &key, &now))
		return TC_NEXT;
	sums = bpf_map_lookup_elem(&SHARED, &key);
	if (!sums) {
		bpf_map_update_elem(&SHARED, &key, &now, 0);
		return TC_NEXT;
	}
	__sync_fetch_and_add(&sums->packets, 1);
	__sync_fetch_and_add(&sums->bytes, now.bytes);
	sums->last = now.last;
	sums->flags |= now.flags;
	return TC_NEXT;
}

SECTION("classifier")
int bench_per_cpu(struct __sk_buff *ctx)
{
	struct five key;
	struct sums now, *sums;

	if (!parse(ctx, &key, &now))
		return TC_NEXT;
	sums = bpf_map_lookup_elem(&PER_CPU, &key);
	if (!sums) {
		bpf_map_update_elem(&PER_CPU, &key, &now, 0);
		return TC_NEXT;
	}
	sums->packets++;
	sums->bytes += now.bytes;
	sums->last = now.last;
	sums->flags |= now.flags;
	return TC_NEXT;
}

SECTION("classifier")
int bench_locked(struct __sk_buff *ctx)
{
	struct five key;
	struct locked new = {}, *known;

	if (!parse(ctx, &key, &new.sums))
		return TC_NEXT;
	known = bpf_map_lookup_elem(&LOCKED, &key);
	if (!known) {
		bpf_map_update_elem(&LOCKED, &key, &new, 0);
		return TC_NEXT;
	}
	bpf_spin_lock(&known->lock);
	known->sums.packets++;
	known->sums.bytes += new.sums.bytes;
	known->sums.last = new.sums.last;
	known->sums.flags |= new.sums.flags;
	bpf_spin_unlock(&known->lock);
	return TC_NEXT;
}

SECTION("classifier")
int bench_locked_record(struct __sk_buff *ctx)
{
	struct five five;
	struct sums now;
	struct both key = {};
	struct locked_record new = {}, *known;
	__u8 *data = (__u8 *)(long)ctx->data, *end = (__u8 *)(long)ctx->data_end;
	int at;

	if (!parse(ctx, &five, &now) || data + 14 > end)
		return TC_NEXT;
	key.source[1] = (__u64)five.source << 32 | 0xffff0000;
	key.destination[1] = (__u64)five.destination << 32 | 0xffff0000;
	key.source_port = five.source_port;
	key.destination_port = five.destination_port;
	key.protocol = five.protocol;
	known = bpf_map_lookup_elem(&LOCKED_RECORDS, &key);
	if (!known) {
		new.packets = 1;
		new.bytes = now.bytes;
		new.first = new.last = now.last;
		new.flags = now.flags;
		new.interface = ctx->ifindex;
		for (at = 0; at < 12; at++)
			new.macs[at] = data[at];
		bpf_map_update_elem(&LOCKED_RECORDS, &key, &new, 0);
		return TC_NEXT;
	}
	bpf_spin_lock(&known->lock);
	known->packets++;
	known->bytes += now.bytes;
	known->last = now.last;
	known->flags |= now.flags;
	bpf_spin_unlock(&known->lock);
	return TC_NEXT;
}

char LICENSE[] SECTION("license") = "Dual MIT/GPL";

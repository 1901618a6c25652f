/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
 *
 * What the program needs of the kernel's interface: contexts, helpers and numbers, as include/uapi/linux/bpf.h has
 * them, written out so that no header of the machine it is built on can change the object.
 */
#ifndef ONENET_KERNEL_H
#define ONENET_KERNEL_H

#include "abi.h"

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))
/* A function that the kernel checks by itself, whatever it is called with, and not once per path that leads to it:
 * what has loops. It may rely on nothing of its arguments, and gives an int. */
#define CHECKED_ALONE __attribute__((noinline))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
/* Keeps the compiler from joining or moving what stands on its two sides. */
#define BARRIER() asm volatile("" ::: "memory")
#define OPAQUE(x) asm volatile("" : "+r"(x))
#define NULL ((void *)0)

/* Maps are described by BTF: the type of an array's length is a number, of a pointer a type. */
#define MAP_UINT(name, value) int(*name)[value]
#define MAP_TYPE(name, value) value *name

#define BPF_MAP_TYPE_HASH 1
#define BPF_MAP_TYPE_ARRAY 2
#define BPF_MAP_TYPE_PROG_ARRAY 3
#define BPF_MAP_TYPE_PERCPU_ARRAY 6
#define BPF_MAP_TYPE_RINGBUF 27
#define BPF_NOEXIST 1
#define BPF_RB_NO_WAKEUP 1
#define BPF_RB_FORCE_WAKEUP 2
#define BPF_RB_AVAIL_DATA 0
#define TC_NEXT (-1) /* TCX_NEXT and TC_ACT_UNSPEC */
#define XDP_PASS 2
#define EEXIST 17

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static __u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static __u32 (*bpf_get_prandom_u32)(void) = (void *)7;
static long (*bpf_tail_call)(void *ctx, void *map, __u32 index) = (void *)12;
static long (*bpf_skb_load_bytes)(const void *skb, __u32 offset, void *to, __u32 len) = (void *)26;
static void *(*bpf_ringbuf_reserve)(void *ring, __u64 size, __u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *data, __u64 flags) = (void *)132;
static void (*bpf_ringbuf_discard)(void *data, __u64 flags) = (void *)133;
static __u64 (*bpf_ringbuf_query)(void *ring, __u64 flags) = (void *)134;
static __u64 (*bpf_ktime_get_coarse_ns)(void) = (void *)160;
static __u64 (*bpf_xdp_get_buff_len)(const void *xdp) = (void *)188;
static long (*bpf_xdp_load_bytes)(const void *xdp, __u32 offset, void *to, __u32 len) = (void *)189;

struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol;
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto;
	__u32 priority;
	__u32 ingress_ifindex;
	__u32 ifindex;
	__u32 tc_index;
	__u32 cb[5];
	__u32 hash;
	__u32 tc_classid;
	__u32 data;
	__u32 data_end;
	__u32 napi_id;
	__u32 family;
	__u32 remote_ip4;
	__u32 local_ip4;
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port;
	__u32 data_meta;
	__u64 flow_keys;
	__u64 tstamp;
	__u32 wire_len;
	__u32 gso_segs;
	__u64 sk;
	__u32 gso_size;
};

struct xdp_md {
	__u32 data;
	__u32 data_end;
	__u32 data_meta;
	__u32 ingress_ifindex;
	__u32 rx_queue_index;
	__u32 egress_ifindex;
};

#ifdef METER_XDP
#define CONTEXT struct xdp_md
#else
#define CONTEXT struct __sk_buff
#endif

#define BE16(x) __builtin_bswap16(x)
#define BE32(x) __builtin_bswap32(x)
#define BE64(x) __builtin_bswap64(x)

#endif

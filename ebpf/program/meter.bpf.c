/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
 *
 * The meter: every packet that passes an interface is told to user space (punted), counted in a map of flows, left
 * out by sampling, or lost and counted as such; never two of these. The packet itself is not touched.
 * Built twice: for traffic control (TCX or clsact), and with METER_XDP for XDP.
 *
 * Measured (ns a packet by test run, Linux 6.18 in a virtual machine, 1 and 131,072 flows): this 102 and 408, IPv6 105
 * and 454; the bare update of a shared map 84 and 400, of a map per CPU 84 and 552, of one with a lock per entry 127
 * and 423; an empty run 26 and 44. So the maps are shared, with atomic operations: a CPU of its own per way, which
 * needs none, gained nothing (102 and 423) for a line of cache more. The coarse clock saves 18, and is an option.
 */
#include "flows.h"
#include "fast.h"
#include "general.h"
#include "mirror.h"
#include "packet.h"
#include "punt.h"

/* A packet without a flow: told, or counted by reason. */
NOINLINE void odd(const void *ctx, struct packet *packet, struct local *local, __u32 reason)
{
	if (punt(ctx, packet, reason == ODD_ARP ? KIND_ARP : KIND_ODD) || reason >= ODDS)
		return;
	local->unparsed[reason].packets += packet->segments;
	local->unparsed[reason].bytes += packet->length + (packet->tag ? 4 : 0);
}

/* The way of all packets that fast() does not know. */
NOINLINE int slow(CONTEXT *ctx, struct packet *packet)
{
	packet->flags = 0;
	packet->tags = packet->tag ? (packet->tag & 0x0fff) | TAGS_OUTER : 0;
	packet->more = 0;
	packet->source_mac = 0;
	packet->destination_mac = 0;
	packet->limit = packet->length;
	return general(ctx, packet, CONFIG.link_header ? NEXT_ETHERNET : NEXT_IP, packet->length);
}

/* Bytes as on the wire: each segment of an offloaded packet has the headers of the whole. */
INLINE void measure(struct packet *packet, __u32 kind)
{
	packet->wire_bytes = packet->frame_wire;
	packet->ip_bytes = packet->stated;
	if (UNLIKELY(packet->segments > 1)) {
		__u64 more = packet->segments - 1;

		if (packet->frame_wire > packet->payload)
			packet->wire_bytes += more * (packet->frame_wire - packet->payload);
		if (packet->stated > packet->payload)
			packet->ip_bytes += more * (packet->stated - packet->payload);
		/* How long their headers are is known of plain TCP and UDP. */
		if (!(packet->flags & FLAG_PORTS) || packet->flags & (FLAG_MIRRORED | FLAG_FRAGMENT) ||
		    kind == KIND_TUNNEL)
			packet->flags |= FLAG_ESTIMATED;
	}
}

/* How many segments a packet will be cut into, where only their size is known. */
INLINE void segment(struct packet *packet, __u32 payload)
{
	if (UNLIKELY(packet->segment_size) && payload > packet->segment_size) {
		packet->segments = (payload + packet->segment_size - 1) / packet->segment_size;
		if (packet->segments > 0xffff)
			packet->segments = 0xffff;
	}
}

INLINE void see(struct packet *packet, struct local *local)
{
	__u32 hook = packet->hook;

	if (hook < HOOKS) {
		local->seen[hook].packets += packet->segments;
		local->seen[hook].bytes += packet->frame_wire;
	}
}

INLINE void meter(CONTEXT *ctx, struct packet *packet, const __u8 *data, const __u8 *end)
{
	struct local *local = (struct local *)bpf_map_lookup_elem(&LOCAL, &(__u32){ 0 });
	__u32 kind, reason;

	if (!local || packet->hook >= HOOKS)
		return;
	packet->frame_wire = packet->length + (packet->tag ? 4 : 0);
	packet->now = CONFIG.coarse_clock ? bpf_ktime_get_coarse_ns() : bpf_ktime_get_ns();
	packet->frame_at = 0;
	packet->mirror_bytes = 0;
	if (CONFIG.general_only || UNLIKELY(!fast(packet, data, end))) {
		reason = slow(ctx, packet);
		if (reason) {
			segment(packet, packet->length);
			see(packet, local);
			odd(ctx, packet, local, reason);
			return;
		}
	}
	segment(packet, packet->payload);
	see(packet, local);
	if (CONFIG.mirror_count && (packet->protocol == PROTOCOL_GRE || packet->protocol == PROTOCOL_UDP)) {
		reason = strip(ctx, packet);
		if (reason) {
			odd(ctx, packet, local, reason);
			return;
		}
	}
	kind = kind_of(packet);
	measure(packet, kind);
	make_key(packet);
	if (UNLIKELY(CONFIG.sample > 1) && kind != KIND_NDP && kind != KIND_DHCP && is_left_out(packet)) {
		local->sampled_out.packets += packet->segments;
		local->sampled_out.bytes += packet->wire_bytes;
		return;
	}
	if (UNLIKELY(kind != KIND_NONE) && punt(ctx, packet, kind)) {
		if ((packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
			forget_firsts(packet);
		return;
	}
	count(ctx, packet, local);
}

#ifdef METER_XDP

SECTION("xdp.frags")
int onenet_xdp(struct xdp_md *ctx)
{
	struct packet packet;

	packet.hook = HOOK_XDP;
	packet.length = bpf_xdp_get_buff_len(ctx);
	packet.segments = 1;
	packet.segment_size = 0;
	packet.tag = 0;
	meter(ctx, &packet, (const __u8 *)(long)ctx->data, (const __u8 *)(long)ctx->data_end);
	return XDP_PASS;
}

#else

INLINE int traffic(struct __sk_buff *ctx, __u32 hook)
{
	struct packet packet;

	packet.hook = hook;
	packet.length = ctx->len;
	packet.segments = ctx->gso_segs;
	packet.tag = 0;
	packet.segment_size = 0;
	if (UNLIKELY(packet.segments == 0)) {
		packet.segments = 1;
		/* Guests leave the number of segments to be reckoned: see segment(). */
		packet.segment_size = ctx->gso_size;
	}
	if (ctx->vlan_present)
		packet.tag = (ctx->vlan_proto & 0xffff) << 16 | (ctx->vlan_tci & 0xffff);
	meter(ctx, &packet, (const __u8 *)(long)ctx->data, (const __u8 *)(long)ctx->data_end);
	return TC_NEXT;
}

SECTION("classifier")
int onenet_ingress(struct __sk_buff *ctx)
{
	return traffic(ctx, HOOK_INGRESS);
}

SECTION("classifier")
int onenet_egress(struct __sk_buff *ctx)
{
	return traffic(ctx, HOOK_EGRESS);
}

#endif

char LICENSE[] SECTION("license") = "Dual MIT/GPL";

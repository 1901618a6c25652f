/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
 *
 * Mirrors: a packet of a configured mirror's tunnel is stripped, and what is inside is metered (core/src/mirror.rs,
 * core/src/decode/gre.rs and udp_tunnel.rs).
 */
#ifndef ONENET_MIRROR_H
#define ONENET_MIRROR_H

#include "general.h"

/* What a tunnel header leads to. */
struct opened {
	__u32 at; /* where the frame begins */
	__u32 next;
	__u32 id;
	__u32 has_id;
	__u32 tags;
};

INLINE int opens_ip(const void *ctx, const struct packet *packet, struct opened *opened)
{
	__u8 first;

	if (opened->at >= packet->limit || load(ctx, opened->at, &first, 1))
		return 0;
	opened->next = first >> 4 == 4 ? TYPE_IPV4 : TYPE_IPV6;
	return first >> 4 == 4 || first >> 4 == 6;
}

/* ERSPAN behind GRE: type I has no header, II and III have version, session and more. */
INLINE int open_erspan(const void *ctx, struct packet *packet, struct opened *opened, __u16 type, int has_sequence)
{
	__u32 second, size = 8;
	__u8 bytes[12];

	opened->next = NEXT_ETHERNET;
	opened->has_id = 0;
	if (type == 0x88be && !has_sequence)
		return 1;
	if (opened->at + 12 > packet->limit || load(ctx, opened->at, bytes, 12))
		return 0;
	second = bytes[2] << 8 | bytes[3];
	opened->has_id = 1;
	opened->id = second & 0x3ff;
	if (type == 0x88be) {
		if (bytes[0] >> 4 != 1)
			return 0;
		/* Encapsulations 1 and 2 say that the mirrored port took a tag off. */
		if ((second >> 11 & 3) == 1 || (second >> 11 & 3) == 2)
			opened->tags = (bytes[0] & 0x0f) << 8 | bytes[1] | TAGS_OUTER;
		opened->at += size;
		return 1;
	}
	if (bytes[0] >> 4 != 2)
		return 0;
	opened->at += bytes[11] & 1 ? 20 : 12;
	switch ((bytes[10] << 8 | bytes[11]) >> 10 & 0x1f) {
	case 0:
		return 1;
	case 2:
		return opens_ip(ctx, packet, opened);
	}
	return 0;
}

/* Opens GRE version 0 without source routes. Gives the kind of mirror it may be of, or 0. */
NOINLINE int open_gre(const void *ctx, struct packet *packet, struct opened *opened)
{
	__u32 at = packet->payload_at, flags, type;
	__u8 bytes[4];

	if (at + 4 > packet->limit || load(ctx, at, bytes, 4))
		return 0;
	flags = bytes[0] << 8 | bytes[1];
	type = bytes[2] << 8 | bytes[3];
	if (flags & 0x4007)
		return 0;
	at += flags & 0x8000 ? 8 : 4;
	opened->tags = 0;
	opened->has_id = flags & 0x2000;
	if (opened->has_id) {
		__u32 key;

		if (at + 4 > packet->limit || load(ctx, at, &key, 4))
			return 0;
		opened->id = BE32(key);
		at += 4;
	}
	at += flags & 0x1000 ? 4 : 0;
	if (at > packet->limit)
		return 0;
	opened->at = at;
	opened->next = type;
	switch (type) {
	case 0x88be:
	case 0x22eb:
		return open_erspan(ctx, packet, opened, type, flags & 0x1000) ? MIRROR_ERSPAN : 0;
	case 0x6558:
		opened->next = NEXT_ETHERNET;
		return MIRROR_GRE;
	case TYPE_IPV4:
	case TYPE_IPV6:
	case 0x0806:
	case 0x8100:
	case 0x88a8:
	case 0x8847:
	case 0x8848:
		return MIRROR_GRE;
	}
	return 0;
}

/* TaZmen Sniffer Protocol with Ethernet in it: tagged fields up to the end tag. */
INLINE int open_tzsp(const void *ctx, struct packet *packet, struct opened *opened)
{
	__u32 at = packet->payload_at + 4;
	__u8 bytes[4];
	int i;

	if (at > packet->limit || load(ctx, packet->payload_at, bytes, 4))
		return 0;
	if (bytes[0] != 1 || bytes[1] > 1 || bytes[2] || bytes[3] != 1)
		return 0;
	for (i = 0; i < 16; i++) {
		if (at >= packet->limit || load(ctx, at, bytes, 1))
			return 0;
		at++;
		if (bytes[0] == 1) {
			opened->at = at;
			opened->next = NEXT_ETHERNET;
			opened->has_id = 0;
			return 1;
		}
		if (bytes[0]) {
			if (at >= packet->limit || load(ctx, at, bytes, 1))
				return 0;
			at += 1 + bytes[0];
		}
	}
	return 0;
}

/* VXLAN, its GPE and Geneve have eight bytes, a VNI in the last four, and Geneve options. */
NOINLINE int open_udp(const void *ctx, struct packet *packet, struct opened *opened, __u32 kind)
{
	__u32 at = packet->payload_at;
	__u8 b[8];

	opened->tags = 0;
	if (kind == MIRROR_TZSP)
		return open_tzsp(ctx, packet, opened);
	if (at + 8 > packet->limit || load(ctx, at, b, 8))
		return 0;
	opened->at = at + 8;
	opened->has_id = 1;
	opened->id = b[4] << 16 | b[5] << 8 | b[6];
	opened->next = NEXT_ETHERNET;
	if (b[7])
		return 0;
	if (kind == MIRROR_GENEVE) {
		__u32 type = b[2] << 8 | b[3];

		if (b[0] >> 6 || b[1] & 0x3f)
			return 0;
		opened->at += (b[0] & 0x3f) * 4;
		if (opened->at > packet->limit)
			return 0;
		if (type != 0x6558)
			opened->next = type;
		return type == 0x6558 || type == TYPE_IPV4 || type == TYPE_IPV6;
	}
	if (packet->destination_port == 4790) {
		if ((b[0] & ~0x06) != 0x08 || b[1] || b[2])
			return 0;
		if (!(b[0] & 4))
			return !b[3];
		if (b[3] == 3)
			return 1;
		opened->next = b[3] == 1 ? TYPE_IPV4 : TYPE_IPV6;
		return b[3] == 1 || b[3] == 2;
	}
	if (packet->payload < 8 + 14)
		return 0;
	return (b[0] == 0x08 && !b[1] && !b[2] && !b[3]) || (b[0] == 0x88 && !(b[1] & ~0x48));
}

INLINE int is_port(__u32 kind, __u16 stated, __u16 port)
{
	if (stated)
		return stated == port;
	switch (kind) {
	case MIRROR_VXLAN:
		return port == 4789 || port == 4790 || port == 8472;
	case MIRROR_GENEVE:
		return port == 6081;
	case MIRROR_TZSP:
		return port == 37008;
	}
	return 0;
}

INLINE int is_destination(const struct packet *packet, const volatile struct mirror *mirror)
{
	__u32 family = packet->flags & FLAG_V6 ? 6 : 4;

	if (!mirror->family)
		return 1;
	if (mirror->family != family)
		return 0;
	if (((__u32)packet->destination[0] & mirror->mask[0]) != mirror->address[0])
		return 0;
	return family == 4 || (((__u32)(packet->destination[0] >> 32) & mirror->mask[1]) == mirror->address[1] &&
			       ((__u32)packet->destination[1] & mirror->mask[2]) == mirror->address[2] &&
			       ((__u32)(packet->destination[1] >> 32) & mirror->mask[3]) == mirror->address[3]);
}

/* Turns the packet into the one inside, if it is one of a mirror. ODD_NONE where it is metered, as it is or stripped.
 * Fragments of tunnels are left as they are: user space puts them together. */
CHECKED_ALONE int strip(CONTEXT *ctx, struct packet *packet)
{
	__u32 kind = 0, wire, inside, header, wire_end, i;
	struct opened opened = {};

	if (!packet)
		return ODD_BAD_HEADER;
	wire = packet->length + (packet->tag ? 4 : 0);
	if (packet->flags & FLAG_FRAGMENT)
		return ODD_NONE;
	if (packet->protocol == PROTOCOL_GRE)
		kind = open_gre(ctx, packet, &opened);
	for (i = 0; i < MIRRORS; i++) {
		const volatile struct mirror *mirror = &CONFIG.mirrors[i];

		if (i >= CONFIG.mirror_count || !is_destination(packet, mirror))
			continue;
		if (packet->protocol == PROTOCOL_GRE) {
			if (kind != mirror->kind)
				continue;
		} else if (!is_port(mirror->kind, mirror->port, packet->destination_port) ||
			   !open_udp(ctx, packet, &opened, mirror->kind)) {
			continue;
		}
		if (mirror->has_id && (!opened.has_id || opened.id != mirror->id))
			continue;
		header = opened.at - packet->payload_at;
		inside = packet->payload > header ? packet->payload - header : 0;
		wire_end = opened.at + inside;
		packet->mirror_bytes = wire > inside ? wire - inside : 0;
		packet->frame_at = opened.at;
		packet->frame_wire = inside;
		packet->flags = FLAG_MIRRORED;
		packet->tags = opened.tags;
		packet->more = (i + 1) << MORE_MIRROR_SHIFT;
		packet->source_mac = 0;
		packet->destination_mac = 0;
		return general(ctx, packet, opened.next, wire_end);
	}
	return ODD_NONE;
}

#endif

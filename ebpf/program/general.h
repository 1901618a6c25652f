/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
 *
 * Headers of every kind that flows are kept of, one by one: VLAN tags, MPLS labels, PPPoE, frames under labels, IPv4
 * with options and AH, IPv6 with extension headers, fragments, cut transport headers. Gives what core's decode gives
 * (core/src/decode/shim.rs, ip.rs, transport.rs), or why there is no flow.
 */
#ifndef ONENET_GENERAL_H
#define ONENET_GENERAL_H

#include "packet.h"

#define NEXT_ETHERNET 0x10000
#define NEXT_LABEL 0x10001
#define NEXT_PPP 0x10002
#define NEXT_IP 0x10003
#define STEP_SHIFT 20
#define STEP_NEXT 0xfffff
/* Headers up to the network header, labels too; core follows more, and such a packet is told to it. */
#define MAX_STEPS 16
#define MAX_EXTENSIONS 8

/* What is behind the IP headers that were read so far. */
struct upper {
	__u32 at; /* may lie behind the limit, where a length field says so */
	__u32 length; /* by the length field */
	__u8 cut;
};

INLINE __u32 available(const struct packet *packet, __u32 at)
{
	return packet->limit > at ? packet->limit - at : 0;
}

INLINE void behind(struct packet *packet, struct upper *upper, __u32 size)
{
	packet->payload = upper->length > size ? upper->length - size : 0;
	packet->payload_at = upper->at + size;
}

INLINE void read_ports(struct packet *packet, const __u8 *bytes)
{
	packet->source_port = bytes[0] << 8 | bytes[1];
	packet->destination_port = bytes[2] << 8 | bytes[3];
	packet->flags |= FLAG_PORTS;
}

INLINE void general_tcp(const void *ctx, struct packet *packet, struct upper *upper)
{
	__u32 there = available(packet, upper->at), size;
	__u8 bytes[16];

	if (there >= 16 && !load(ctx, upper->at, bytes, 16)) {
		read_ports(packet, bytes);
		size = (bytes[12] >> 4) * 4;
		packet->tcp_flags = (bytes[12] & 1) << 8 | bytes[13];
		packet->window = bytes[14] | bytes[15];
		if (size < 20 || size > upper->length)
			packet->flags |= FLAG_ESTIMATED;
		behind(packet, upper, size);
		return;
	}
	if (there >= 4 && !load(ctx, upper->at, bytes, 4))
		read_ports(packet, bytes);
	packet->flags |= FLAG_ESTIMATED;
	behind(packet, upper, 20);
}

NOINLINE void general_transport(const void *ctx, struct packet *packet, struct upper *upper)
{
	__u32 there = available(packet, upper->at), size;
	__u8 bytes[4];

	packet->source_port = 0;
	packet->destination_port = 0;
	packet->tcp_flags = 0;
	packet->window = 1;
	packet->payload = 0;
	packet->payload_at = upper->at;
	if (upper->cut) {
		packet->flags |= FLAG_ESTIMATED;
		return;
	}
	if (packet->flags & FLAG_LATER) {
		packet->payload = upper->length;
		return;
	}
	switch (packet->protocol) {
	case PROTOCOL_TCP:
		general_tcp(ctx, packet, upper);
		return;
	case PROTOCOL_UDP:
	case 136:
		size = 8;
		break;
	case 132:
	case 33:
		size = 12;
		break;
	case PROTOCOL_ICMP:
	case PROTOCOL_ICMP6:
		if (there >= 2 && !load(ctx, upper->at, bytes, 2)) {
			packet->source_port = bytes[0];
			packet->destination_port = bytes[1];
			packet->flags |= FLAG_ICMP;
		}
		behind(packet, upper, 8);
		return;
	default:
		packet->payload = upper->length;
		return;
	}
	if (there >= 4 && !load(ctx, upper->at, bytes, 4))
		read_ports(packet, bytes);
	behind(packet, upper, size);
}

INLINE void skip(struct packet *packet, struct upper *upper, __u32 size)
{
	if (upper->length < size)
		packet->flags |= FLAG_ESTIMATED;
	upper->length = upper->length > size ? upper->length - size : 0;
	upper->at += size;
}

/* Past an extension header that counts its length in units; 0 where it is cut. */
INLINE int skip_extension(const void *ctx, struct packet *packet, struct upper *upper, __u32 unit, __u32 extra)
{
	__u8 bytes[2];

	if (available(packet, upper->at) < 8 || load(ctx, upper->at, bytes, 2))
		return 0;
	packet->protocol = bytes[0];
	skip(packet, upper, (bytes[1] + extra) * unit);
	return 1;
}

CHECKED_ALONE int general_v4(CONTEXT *ctx, struct packet *packet, __u32 at, __u32 wire_end)
{
	struct upper upper = {};
	__u32 wire, total, size, fragment;
	__u8 bytes[20];

	if (!packet)
		return ODD_BAD_HEADER;
	if (at + 20 > packet->limit || load(ctx, at, bytes, 20))
		return at < packet->limit ? ODD_TRUNCATED : ODD_BAD_HEADER;
	if (bytes[0] >> 4 != 4)
		return ODD_BAD_HEADER;
	size = (bytes[0] & 0x0f) * 4;
	if (size < 20)
		return ODD_BAD_HEADER;
	wire = wire_end > at ? wire_end - at : 0;
	total = bytes[2] << 8 | bytes[3];
	if (!total || total < size || total > wire)
		packet->flags |= FLAG_ESTIMATED;
	if (!total)
		total = wire;
	fragment = bytes[6] << 8 | bytes[7];
	if (fragment & 0x3fff)
		packet->flags |= FLAG_FRAGMENT;
	if (fragment & 0x1fff)
		packet->flags |= FLAG_LATER;
	packet->stated = total;
	if (packet->limit > at + total)
		packet->limit = at + total;
	packet->dscp = bytes[1] >> 2;
	packet->ttl = bytes[8];
	packet->protocol = bytes[9];
	packet->source[0] = *(__u32 *)(bytes + 12);
	packet->destination[0] = *(__u32 *)(bytes + 16);
	upper.at = at + size;
	upper.length = total > size ? total - size : 0;
	if (packet->protocol == PROTOCOL_AH && !(packet->flags & FLAG_LATER))
		upper.cut = !skip_extension(ctx, packet, &upper, 4, 2);
	general_transport(ctx, packet, &upper);
	return ODD_NONE;
}

/* Follows the chain up to what is no extension header, or to a later fragment. */
NOINLINE int extensions(const void *ctx, struct packet *packet, struct upper *upper)
{
	__u8 bytes[4];
	int i;

	for (i = 0; i < MAX_EXTENSIONS; i++) {
		switch (packet->protocol) {
		case 0:
		case 43:
		case 60:
		case 135:
		case 139:
		case 140:
			if (!skip_extension(ctx, packet, upper, 8, 1))
				goto cut;
			break;
		case PROTOCOL_AH:
			if (!skip_extension(ctx, packet, upper, 4, 2))
				goto cut;
			break;
		case 44:
			if (available(packet, upper->at) < 8 || load(ctx, upper->at, bytes, 4))
				goto cut;
			packet->protocol = bytes[0];
			if (bytes[2] || bytes[3] & 0xf9)
				packet->flags |= FLAG_FRAGMENT;
			skip(packet, upper, 8);
			if (bytes[2] || bytes[3] & 0xf8) {
				packet->flags |= FLAG_LATER;
				return ODD_NONE;
			}
			break;
		default:
			return ODD_NONE;
		}
	}
	return ODD_TOO_DEEP;
cut:
	upper->cut = 1;
	return ODD_NONE;
}

CHECKED_ALONE int general_v6(CONTEXT *ctx, struct packet *packet, __u32 at, __u32 wire_end)
{
	struct upper upper = {};
	__u32 wire, length;
	__u64 words[5];
	__u8 *bytes = (__u8 *)words;
	int odd;

	if (!packet)
		return ODD_BAD_HEADER;
	if (at + 40 > packet->limit || load(ctx, at, words, 40))
		return at < packet->limit ? ODD_TRUNCATED : ODD_BAD_HEADER;
	if (bytes[0] >> 4 != 6)
		return ODD_BAD_HEADER;
	wire = wire_end > at ? wire_end - at : 0;
	length = bytes[4] << 8 | bytes[5];
	packet->protocol = bytes[6];
	/* A jumbogram, or a segment that the card was to cut; 59 says that nothing follows. */
	if (!length && packet->protocol != 59 && wire > 40) {
		packet->flags |= FLAG_ESTIMATED;
		length = wire - 40;
	}
	if (length + 40 > wire)
		packet->flags |= FLAG_ESTIMATED;
	packet->stated = length + 40;
	if (packet->limit > at + 40 + length)
		packet->limit = at + 40 + length;
	packet->dscp = (bytes[0] & 0x0f) << 2 | bytes[1] >> 6;
	packet->ttl = bytes[7];
	packet->flags |= FLAG_V6;
	packet->source[0] = words[1];
	packet->source[1] = words[2];
	packet->destination[0] = words[3];
	packet->destination[1] = words[4];
	upper.at = at + 40;
	upper.length = length;
	odd = extensions(ctx, packet, &upper);
	if (odd)
		return odd;
	general_transport(ctx, packet, &upper);
	return ODD_NONE;
}

/* Whether the ethertype of a frame here would be a common one. */
INLINE int is_frame(const void *ctx, const struct packet *packet, __u32 at)
{
	__u16 type;

	if (at + 14 > packet->limit || load(ctx, at + 12, &type, 2))
		return 0;
	switch (BE16(type)) {
	case TYPE_IPV4:
	case TYPE_IPV6:
	case 0x0806:
	case 0x8100:
	case 0x88a8:
	case 0x8847:
	case 0x8864:
		return 1;
	}
	return 0;
}

/* What is under a label stack: next, and from STEP_SHIFT on how many bytes on; 0 where that cannot be told. */
CHECKED_ALONE int under_labels(CONTEXT *ctx, struct packet *packet, __u32 at, __u32 wire_end)
{
	__u8 bytes[6];

	if (!packet)
		return 0;
	if (at >= packet->limit || load(ctx, at, bytes, 1))
		return 0;
	switch (bytes[0] >> 4) {
	case 4:
		if ((bytes[0] & 0x0f) >= 5 || !is_frame(ctx, packet, at))
			return TYPE_IPV4;
		return NEXT_ETHERNET;
	case 6:
		if (!is_frame(ctx, packet, at))
			return TYPE_IPV6;
		if (at + 6 <= packet->limit && !load(ctx, at, bytes, 6) &&
		    (__u32)(bytes[4] << 8 | bytes[5]) + 40 + at <= wire_end)
			return TYPE_IPV6;
		return NEXT_ETHERNET;
	case 0:
		if (at + 4 > packet->limit)
			return 0;
		if (is_frame(ctx, packet, at) && !is_frame(ctx, packet, at + 4))
			return NEXT_ETHERNET;
		return 4 << STEP_SHIFT | NEXT_ETHERNET;
	default:
		return is_frame(ctx, packet, at) ? NEXT_ETHERNET : 0;
	}
}

/* One PPP protocol field: next, and from STEP_SHIFT on how many bytes it has. */
INLINE __u32 under_ppp(const __u8 *bytes)
{
	__u32 odd = bytes[0] & 1;
	__u32 protocol = odd ? bytes[0] : bytes[0] << 8 | bytes[1];
	__u32 size = odd ? 1 << STEP_SHIFT : 2 << STEP_SHIFT;

	switch (protocol) {
	case 0x0021:
		return size | TYPE_IPV4;
	case 0x0057:
		return size | TYPE_IPV6;
	case 0x0281:
	case 0x0283:
		return size | NEXT_LABEL;
	}
	return 0;
}

/* Tags of switches: of fixed size, then an ethertype or a whole frame. As under_ppp(), but that next is 0 where the
 * ethertype is in the last two bytes. */
INLINE __u32 behind_tag(__u32 type)
{
	switch (type) {
	case 0x88e7: /* 802.1ah I-TAG */
		return 4 << STEP_SHIFT | NEXT_ETHERNET;
	case 0x8903: /* FabricPath */
		return 2 << STEP_SHIFT | NEXT_ETHERNET;
	case 0x8926: /* VN-Tag */
	case 0xf1c1: /* 802.1CB */
	case 0x892f: /* HSR */
		return 6 << STEP_SHIFT;
	case 0x893f: /* 802.1BR E-tag */
		return 8 << STEP_SHIFT;
	}
	return 0;
}

/* Reads what begins at packet->frame_at, whose bytes end at packet->limit and on the wire at wire_end. Flags, tags,
 * labels and addresses are as the caller left them until a header says more. */
CHECKED_ALONE int general(CONTEXT *ctx, struct packet *packet, __u32 next, __u32 wire_end)
{
	__u16 words[8];
	__u8 *bytes = (__u8 *)words;
	__u32 at, step;
	int i;

	if (!packet)
		return ODD_BAD_HEADER;
	at = packet->frame_at;
	if (wire_end < packet->limit)
		wire_end = packet->limit;
	for (i = 0; i < MAX_STEPS; i++) {
		switch (next) {
		case TYPE_IPV4:
			return general_v4(ctx, packet, at, wire_end);
		case TYPE_IPV6:
			return general_v6(ctx, packet, at, wire_end);
		case 0x0806:
		case 0x8035:
			return ODD_ARP;
		case NEXT_IP:
			if (at >= packet->limit || load(ctx, at, bytes, 1))
				return ODD_TRUNCATED;
			next = bytes[0] >> 4 == 4 ? TYPE_IPV4 : TYPE_IPV6;
			break;
		case NEXT_ETHERNET:
			if (at + 14 > packet->limit || load(ctx, at, bytes, 14))
				return ODD_TRUNCATED;
			packet->destination_mac = words[0] | (__u64)words[1] << 16 | (__u64)words[2] << 32;
			packet->source_mac = words[3] | (__u64)words[4] << 16 | (__u64)words[5] << 32;
			next = bytes[12] << 8 | bytes[13];
			at += 14;
			break;
		case 0x8100:
		case 0x88a8:
		case 0x9100:
		case 0x9200:
		case 0x9300:
			if (at + 4 > packet->limit || load(ctx, at, bytes, 4))
				return ODD_TRUNCATED;
			next = (bytes[0] & 0x0f) << 8 | bytes[1];
			if (!(packet->tags & TAGS_OUTER))
				packet->tags |= next | TAGS_OUTER;
			else if (!(packet->tags & TAGS_INNER))
				packet->tags |= next << 12 | TAGS_INNER;
			else
				return ODD_TOO_DEEP;
			next = bytes[2] << 8 | bytes[3];
			at += 4;
			break;
		case 0x8847:
		case 0x8848:
		case NEXT_LABEL:
			if (at + 4 > packet->limit || load(ctx, at, bytes, 4))
				return ODD_TRUNCATED;
			at += 4;
			if (!(packet->more & MORE_LABEL))
				packet->more |= MORE_LABEL | bytes[0] << 12 | bytes[1] << 4 | bytes[2] >> 4;
			next = NEXT_LABEL;
			if (bytes[2] & 1) {
				step = under_labels(ctx, packet, at, wire_end);
				if (!step)
					return ODD_NOT_IP;
				next = step & STEP_NEXT;
				at += step >> STEP_SHIFT;
			}
			break;
		case 0x8864:
			if (at + 6 > packet->limit || load(ctx, at, bytes, 2))
				return ODD_TRUNCATED;
			if (bytes[0] != 0x11 || bytes[1])
				return ODD_NOT_IP;
			at += 6;
			next = NEXT_PPP;
			break;
		case NEXT_PPP:
			if (at + 2 > packet->limit || load(ctx, at, bytes, 2))
				return ODD_TRUNCATED;
			step = under_ppp(bytes);
			if (!step)
				return ODD_NOT_IP;
			next = step & STEP_NEXT;
			at += step >> STEP_SHIFT;
			break;
		default:
			step = behind_tag(next);
			if (!step)
				return ODD_NOT_IP;
			at += step >> STEP_SHIFT;
			if (at > packet->limit)
				return ODD_TRUNCATED;
			next = step & STEP_NEXT;
			if (!next) {
				if (load(ctx, at - 2, bytes, 2))
					return ODD_TRUNCATED;
				next = bytes[0] << 8 | bytes[1];
			}
		}
	}
	return ODD_TOO_DEEP;
}

#endif

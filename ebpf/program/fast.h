/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
 *
 * The headers that nearly every packet has, read in place: Ethernet with at most one VLAN tag, IPv4 without options or
 * IPv6 without extension headers, not fragmented and of a length that fits, then TCP, UDP or ICMP. Whatever else a
 * packet is, general.h reads it; what is read here is what is read there.
 */
#ifndef ONENET_FAST_H
#define ONENET_FAST_H

#include "packet.h"

INLINE int fast_transport(struct packet *packet, const __u8 *at, const __u8 *end, __u32 offset, __u32 length)
{
	if (packet->protocol == PROTOCOL_TCP) {
		__u32 size;

		if (at + 16 > end)
			return 0;
		size = (at[12] >> 4) * 4;
		if (size < 20 || size > length)
			return 0;
		packet->source_port = BE16(*(const __u16 *)at);
		packet->destination_port = BE16(*(const __u16 *)(at + 2));
		packet->tcp_flags = (at[12] & 1) << 8 | at[13];
		packet->window = *(const __u16 *)(at + 14);
		packet->payload = length - size;
		packet->payload_at = offset + size;
		packet->flags |= FLAG_PORTS;
		return 1;
	}
	if (at + 8 > end || length < 8)
		return 0;
	packet->tcp_flags = 0;
	packet->window = 1;
	packet->payload = length - 8;
	packet->payload_at = offset + 8;
	if (packet->protocol == PROTOCOL_UDP) {
		packet->source_port = BE16(*(const __u16 *)at);
		packet->destination_port = BE16(*(const __u16 *)(at + 2));
		packet->flags |= FLAG_PORTS;
		return 1;
	}
	if (packet->protocol == PROTOCOL_ICMP || packet->protocol == PROTOCOL_ICMP6) {
		packet->source_port = at[0];
		packet->destination_port = at[1];
		packet->flags |= FLAG_ICMP;
		return 1;
	}
	return 0;
}

/* Reads the packet; 0 where it has other headers, and then what was written is void. */
INLINE int fast(struct packet *packet, const __u8 *data, const __u8 *end)
{
	const __u8 *at = data;
	__u32 offset = CONFIG.link_header, left;
	__u16 type;

	packet->flags = 0;
	packet->more = 0;
	packet->tags = packet->tag ? (packet->tag & 0x0fff) | TAGS_OUTER : 0;
	if (CONFIG.link_header) {
		if (at + 14 > end)
			return 0;
		packet->destination_mac = mac(at);
		packet->source_mac = mac(at + 6);
		type = *(const __u16 *)(at + 12);
		at += 14;
		if (type == BE16(0x8100)) {
			if (packet->tag || at + 4 > end)
				return 0;
			packet->tags = (BE16(*(const __u16 *)at) & 0x0fff) | TAGS_OUTER;
			type = *(const __u16 *)(at + 2);
			at += 4;
			offset = 18;
		}
	} else {
		if (at + 1 > end)
			return 0;
		packet->destination_mac = 0;
		packet->source_mac = 0;
		type = *at >> 4 == 4 ? BE16(TYPE_IPV4) : BE16(TYPE_IPV6);
	}
	if (packet->length < offset)
		return 0;
	left = packet->length - offset;
	if (type == BE16(TYPE_IPV4)) {
		__u32 total;

		if (at + 20 > end || at[0] != 0x45 || *(const __u16 *)(at + 6) & BE16(0x3fff))
			return 0;
		total = BE16(*(const __u16 *)(at + 2));
		if (total < 20 || total > left)
			return 0;
		packet->stated = total;
		packet->limit = offset + total;
		packet->dscp = at[1] >> 2;
		packet->ttl = at[8];
		packet->protocol = at[9];
		packet->source[0] = *(const __u32 *)(at + 12);
		packet->destination[0] = *(const __u32 *)(at + 16);
		return fast_transport(packet, at + 20, end, offset + 20, total - 20);
	}
	if (type == BE16(TYPE_IPV6)) {
		__u32 length;

		if (at + 40 > end || at[0] >> 4 != 6)
			return 0;
		length = BE16(*(const __u16 *)(at + 4));
		if (!length || length + 40 > left)
			return 0;
		packet->stated = length + 40;
		packet->limit = offset + 40 + length;
		packet->dscp = (at[0] & 0x0f) << 2 | at[1] >> 6;
		packet->protocol = at[6];
		packet->ttl = at[7];
		packet->flags = FLAG_V6;
		packet->source[0] = *(const __u64 *)(at + 8);
		packet->source[1] = *(const __u64 *)(at + 16);
		packet->destination[0] = *(const __u64 *)(at + 24);
		packet->destination[1] = *(const __u64 *)(at + 32);
		return fast_transport(packet, at + 40, end, offset + 40, length);
	}
	return 0;
}

#endif

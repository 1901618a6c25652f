//! Frames that a fuzzer makes of a few bytes each: sound ones between a few hosts, so that they meet in the same
//! flows, and damaged ones.

use super::Input;
use crate::craft::{Ip, Tcp, arp, frame, frame_of, length16};

/// A frame of one of twenty kinds.
pub(super) fn crafted(kind: u8, input: &mut Input<'_>) -> Vec<u8> {
    let who = input.byte();
    let vlans: &[u16] = [&[][..], &[10], &[20], &[10, 20]][usize::from(who >> 6)];
    let (source, destination) = (1 + (who & 3), 1 + (who >> 2 & 3));
    match kind {
        0..=6 => frame(source, destination, vlans, &tcp(source, destination, input)),
        7 | 8 => frame(source, destination, vlans, &udp(source, destination, input)),
        9 => frame(source, destination, vlans, &icmp(source, destination, input)),
        10 | 11 => frame(source, destination, vlans, &fragment(source, destination, input)),
        12 => arp(1 + input.byte() % 2, (source, [10, 0, 0, source]), (0, [10, 0, 0, destination])),
        13 => frame(source, destination, vlans, &dhcp(source, input)),
        14..=16 => frame(source, destination, vlans, &tunnelled(source, destination, input)),
        17 => frame(source, destination, vlans, &neighbour(source, input)),
        18 => frame_of(
            source,
            destination,
            vlans,
            [0x88, 0x47],
            &[&[0, 1, 1, 64][..], &udp(1, 2, input)].concat(),
        ),
        _ => {
            let protocol = input.byte();
            let length = usize::from(input.byte() % 32);
            frame(
                source,
                destination,
                vlans,
                &ends(source, destination, input, protocol).packet(input.bytes(length)),
            )
        }
    }
}

/// Cuts a frame, or writes over some of its bytes.
pub(super) fn damage(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    let how = input.byte();
    for _ in 0..how & 3 {
        let (at, value) = (input.byte(), input.byte());
        if let Some(byte) = bytes.get_mut(usize::from(at)) {
            *byte = value;
        }
    }
    if how & 0x80 != 0 {
        bytes.truncate(usize::from(how >> 2 & 0x1f) * 3);
    }
}

/// Inside, outside or IPv6 addresses of two hosts.
fn ends(source: u8, destination: u8, input: &mut Input<'_>, protocol: u8) -> Ip {
    let how = input.byte();
    let ip = match how & 3 {
        0 => Ip::v4([10, 0, 0, source], [10, 0, 0, destination], protocol),
        1 => Ip::v4([10, 0, 0, source], [198, 51, 100, destination], protocol),
        2 => Ip::v4([203, 0, 113, source], [10, 9, 0, destination], protocol),
        _ => Ip::v6(source.into(), destination.into(), protocol),
    };
    ip.ttl(if how & 4 == 0 { 64 } else { how })
}

fn ports(input: &mut Input<'_>) -> (u16, u16) {
    const PORTS: [u16; 8] = [80, 443, 40_000, 40_001, 53, 67, 22, 1];
    let which = input.byte();
    (PORTS[usize::from(which & 7)], PORTS[usize::from(which >> 3 & 7)])
}

fn segment(ip: &Ip, input: &mut Input<'_>) -> Vec<u8> {
    let (source, destination) = ports(input);
    let [flags, sequence, acknowledgement, payload] = input.array();
    // A few places of sequence space, with both ends of it among them.
    let place = |byte: u8| {
        u32::from(byte & 0x3f)
            .wrapping_mul(7)
            .wrapping_add([0, 1 << 31, u32::MAX - 100, 1][usize::from(byte >> 6)])
    };
    let data = [0x55; 48];
    ip.tcp(&Tcp {
        source,
        destination,
        sequence: place(sequence),
        acknowledgement: place(acknowledgement),
        flags,
        window: if payload & 0x40 == 0 { 1024 } else { 0 },
        urgent: u16::from(payload >> 7),
        options: &[],
        payload: &data[..usize::from(payload & 0x1f)],
    })
}

fn tcp(source: u8, destination: u8, input: &mut Input<'_>) -> Vec<u8> {
    let ip = ends(source, destination, input, 6);
    let segment = segment(&ip, input);
    ip.packet(&segment)
}

fn udp(source: u8, destination: u8, input: &mut Input<'_>) -> Vec<u8> {
    let ip = ends(source, destination, input, 17);
    let ports = ports(input);
    ip.packet(&ip.udp(ports.0, ports.1, b"data"))
}

fn icmp(source: u8, destination: u8, input: &mut Input<'_>) -> Vec<u8> {
    let kind = input.byte();
    let ip = ends(source, destination, input, if kind < 128 { 1 } else { 58 });
    let quoted = if kind == 3 { tcp(destination, source, input) } else { Vec::new() };
    ip.packet(&ip.icmp(kind, input.byte() & 3, [0, 1, 0, input.byte()], &quoted))
}

fn fragment(source: u8, destination: u8, input: &mut Input<'_>) -> Vec<u8> {
    let [how, length] = input.array();
    let (offset, more) = (u16::from(how >> 3 & 7) * 8, how & 1 != 0);
    let ip = ends(source, destination, input, if how & 2 == 0 { 17 } else { 6 });
    let ip = ip.fragment(u32::from(how >> 6), offset, more);
    let whole = if how & 2 == 0 { ip.udp(53, 40_000, &[7; 90]) } else { segment(&ip, input) };
    let from = usize::from(offset).min(whole.len());
    ip.packet(&whole[from..(from + usize::from(length % 64)).min(whole.len())])
}

fn dhcp(source: u8, input: &mut Input<'_>) -> Vec<u8> {
    let [operation, kind, address, options] = input.array();
    let mut message = vec![1 + operation % 2, 1, 6, 0, 0, 0, 0, address];
    message.resize(236, 0);
    message[16..20].copy_from_slice(&[10, 0, 0, address & 3]);
    message[28..34].copy_from_slice(&[2, 0, 0, 0, 0, source]);
    message.extend([99, 130, 83, 99, 53, 1, 1 + kind % 8, 50, 4, 10, 0, 0, address & 7, 12, 2, b'p', kind]);
    message.extend(input.bytes(usize::from(options % 32)));
    let (from, to) = if operation % 2 == 0 { (68, 67) } else { (67, 68) };
    let ip = Ip::v4([0, 0, 0, 0], [255, 255, 255, 255], 17);
    ip.packet(&ip.udp(from, to, &message))
}

fn neighbour(source: u8, input: &mut Input<'_>) -> Vec<u8> {
    let [kind, target, length] = input.array();
    let ip = Ip::v6(source.into(), 0xff, 58).ttl(255);
    let mut body = [&[0x20, 1, 0x0d, 0xb8][..], &[0; 11], &[target & 3]].concat();
    body.extend([1 + (kind & 1), 1, 2, 0, 0, 0, 0, source]);
    body.extend(input.bytes(usize::from(length % 40)));
    ip.packet(&ip.icmp(133 + kind % 5, 0, [0x60, 0, 0, 0], &body))
}

/// One to six tunnels around a segment or a datagram.
fn tunnelled(source: u8, destination: u8, input: &mut Input<'_>) -> Vec<u8> {
    let how = input.byte();
    let mut inner =
        if how & 1 == 0 { udp(source, destination, input) } else { tcp(source, destination, input) };
    for _ in 0..1 + (how >> 1) % 6 {
        let kind = input.byte();
        let v6 = inner.first().is_some_and(|first| first >> 4 == 6);
        let ether_type: [u8; 2] = if v6 { [0x86, 0xdd] } else { [8, 0] };
        let protocol = match kind % 4 {
            0 if v6 => 41,
            0 => 4,
            1 => 47,
            _ => 17,
        };
        let ip = Ip::v4([192, 0, 2, kind >> 4], [192, 0, 2, 99], protocol);
        let inside = frame(source, destination, &[], &inner);
        inner = match kind % 4 {
            0 => ip.packet(&inner),
            1 => ip.packet(&[&[0x20, 0][..], &ether_type, &[0, 0, 0, kind >> 2], &inner].concat()),
            2 => ip.packet(&ip.udp(40_000, 4789, &[&[8, 0, 0, 0, 0, 0, kind >> 2, 0][..], &inside].concat())),
            _ => {
                let header = [&[0x30, 0xff][..], &length16(inner.len()), &[0, 0, 0, kind >> 2]].concat();
                ip.packet(&ip.udp(2152, 2152, &[&header[..], &inner].concat()))
            }
        };
    }
    inner
}

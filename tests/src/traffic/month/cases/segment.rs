//! What goes wrong within one segment: two hosts that answer for one address, forged sources, questions that are no
//! use, servers and gateways that are not the segment's.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use anyhow::Result;

use super::{
    super::{
        super::{
            day::{HOUR, MINUTE},
            frame::{Body, Content, Frame, Packet},
            local::Dhcp4Client,
            random::Random,
            talk::{MILLI, SECOND},
            wire::Link,
        },
        Case, Month,
        calendar::{at, moment, worked_from},
        device::{Device, Lease, Place, Stay},
        ordinary::{any_place, common_stack},
        plan::own,
        speak::segment,
        stack::Stack,
        truth::IntruderTruth,
    },
    is_ipv6, two_stacks,
};

pub(super) fn fill(month: &mut Month) -> Result<()> {
    let mut random = month.random("segment");
    let random = &mut random;
    duplicates(month, random);
    probes(month, random);
    for number in 0..3 {
        forged(month, random, number);
    }
    rogue_dhcp(month, random);
    gateway(month, random)
}

/// Two hosts of one VLAN with one address, both awake for hours on three days.
fn duplicates(month: &mut Month, random: &mut Random) {
    for number in 0..12 {
        let (address, place) = month.own_address(random, is_ipv6(number));
        let (one, other) = two_stacks(random, address.is_ipv6());
        let day = worked_from(i64::from(random.octet(3, 20)));
        let mut macs = Vec::new();
        month.settle(one, (address, place, 0), |stay| macs.push(stay.mac));
        month.settle(other, (address, place, 0), |stay| {
            *stay = stay.clone().between(at(day, 12), at(day + 3, 22));
            macs.push(stay.mac);
        });
        let segment = segment(place, address);
        for day in (day..day + 3).map(worked_from) {
            let mut time = at(day, 13) + random.between(0, HOUR);
            let end = time + 5 * HOUR;
            while time < end {
                let mac = *random.pick(&macs);
                match address {
                    IpAddr::V4(address) => {
                        let asking = (place.site.inside_mac(), segment.gateway);
                        segment.arp(&mut month.wire, time, asking, address, Some(mac));
                    }
                    IpAddr::V6(address) => {
                        segment.neighbor_discovery(&mut month.wire, time, mac, address);
                    }
                }
                time += random.between(4 * MINUTE, 12 * MINUTE);
            }
        }
        let why = "two hosts on one VLAN, which answer for the address by turns";
        let case = Case::overlap("duplicate", "two-hosts", why);
        month.case(address, &[place], &Case { rules: &["address.duplicate"], ..case });
    }
}

/// Hosts that ask whether an address is free, in several spaces, and never use it.
fn probes(month: &mut Month, random: &mut Random) {
    for number in 0..16 {
        let (address, place) = month.own_address(random, is_ipv6(number));
        for place in [place, any_place(random)] {
            let mac = month.device(common_stack(random, false)).mac;
            let segment = segment(place, address);
            for time in
                [0, 1, 2].map(|try_| at(worked_from(6), 13) + try_ * SECOND + i64::from(number) * MINUTE)
            {
                match address {
                    IpAddr::V4(address) => segment.arp_probe(&mut month.wire, time, mac, address),
                    IpAddr::V6(address) => segment.duplicate_detection(&mut month.wire, time, mac, address),
                }
            }
        }
        month.must_not(address, "only asked for, by ARP probes or duplicate address detection");
    }
}

/// A station that forges private sources: one packet each, to the internet. A third of them are in use elsewhere.
fn forged(month: &mut Month, random: &mut Random, number: u32) {
    let place = any_place(random);
    let mac = if number == 0 {
        place.secretariat.router_mac(place.site)
    } else {
        month.device(Stack::named("linux 5")).mac
    };
    let start = at(worked_from(i64::from(random.octet(2, 20))), 14);
    for packet in 0..300_i64 {
        let source = if random.per_mille(330) {
            let ordinary = *random.pick(&month.ordinary);
            if ordinary.is_ipv6() { continue } else { ordinary }
        } else {
            let net = own(any_place(random).secretariat, false);
            month.fresh(random, net)
        };
        if month.truth.must_not.iter().any(|known| known.address == source) {
            continue;
        }
        let destination = IpAddr::V4(super::super::super::world::internet_address(random));
        let body = Body::Udp {
            source: random.client_port(),
            destination: 27_015,
            payload: Arc::from(&random.octets::<33>()[..]),
        };
        let identification = random.bits();
        let content = Content::Ip(Packet { source, destination, ttl: 61, dscp: 0, identification, body });
        let frame = Frame {
            source: mac,
            destination: place.site.inside_mac(),
            vlan: Some(place.secretariat.vlan(place.site)),
            content,
        };
        month.wire.put(Link::Inside(place.site), start + packet * 700 * MILLI, frame);
        month.must_not(source, "one forged packet of a station that makes up its sources");
    }
}

fn intruder(address: Ipv4Addr, device: &Device, place: Place, from: i64, until: i64) -> IntruderTruth {
    IntruderTruth {
        address: IpAddr::V4(address),
        mac: device.mac,
        secretariat: place.secretariat.id().to_owned(),
        site: place.site.name().to_owned(),
        from: from / SECOND,
        until: until / SECOND,
    }
}

/// A second DHCP server, such as a box from a shop, that names itself as gateway; some clients take its offer.
fn rogue_dhcp(month: &mut Month, random: &mut Random) {
    for _ in 0..5 {
        let (server, place) = month.own_address(random, false);
        let IpAddr::V4(address) = server else { continue };
        // Hosts that the segment's own server serves, so that it is known whatever the scale.
        for _ in 0..3 {
            let client = month.fresh(random, own(place.secretariat, false));
            let stack = common_stack(random, false);
            month.settle(stack, (client, place, 0), |stay| stay.lease = Lease::Kept);
        }
        let mut rogue = month.device(Stack::named("linux 2.6"));
        let start = at(worked_from(i64::from(random.octet(2, 20))), 13);
        let until = start + 8 * HOUR;
        let mut last = start;
        for _ in 0..10 {
            let IpAddr::V4(lease) = month.fresh(random, own(place.secretariat, false)) else { continue };
            let client = month.device(common_stack(random, false));
            let segment = segment(place, server);
            let offer = Dhcp4Client {
                mac: client.mac,
                hostname: &client.name,
                lease,
                server: address,
                server_mac: rogue.mac,
                gateway: address,
                vendor_class: client.stack.vendor_class,
            };
            let time = start + random.between(0, until - start);
            segment.dhcp4(&mut month.wire, random, time, &offer);
            last = last.max(time);
        }
        month.truth.rogue_dhcp.push(intruder(address, &rogue, place, start, last));
        let stay = Stay::new(server, place, rogue.mac, 0).between(start, until);
        rogue.stays.push(stay);
        month.devices.push(rogue);
        let case = Case::innocent("rogue-dhcp", "the address of a second DHCP server");
        month.case(server, &[place], &Case { rules: &["dhcp.rogue"], ..case });
    }
}

/// Another station answers for the gateway for an hour.
fn gateway(month: &mut Month, random: &mut Random) -> Result<()> {
    let mut done: Vec<Place> = Vec::new();
    while done.len() < 5 {
        let (victim, place) = month.own_address(random, false);
        let IpAddr::V4(address) = victim else { continue };
        if done.contains(&place) {
            continue;
        }
        done.push(place);
        month.settle(Stack::named("windows 10"), (victim, place, 0), |_| {});
        month.ordinary.push(victim);
        let mac = month.devices.last().map(|device| device.mac);
        let Some(mac) = mac else { anyhow::bail!("no host was made") };
        let other = month.device(Stack::named("linux 5"));
        let segment = segment(place, victim);
        let day = worked_from(i64::from(random.octet(2, 20)));
        let start = moment(random, day);
        segment.arp_announcement(&mut month.wire, start, other.mac, segment.gateway);
        let mut time = start;
        while time < start + HOUR {
            time += random.between(MINUTE, 3 * MINUTE);
            segment.arp(&mut month.wire, time, (mac, address), segment.gateway, Some(other.mac));
        }
        let until = time + MILLI;
        month.truth.gateway.push(intruder(segment.gateway, &other, place, start, until));
    }
    Ok(())
}

//! One host that looks like two: seen at both edges, moved, in two segments at once, with a new card; and addresses
//! that change hands as they should.

use anyhow::Result;
use onenet_core::net::MacAddress;

use super::{
    super::{
        super::random::Random,
        Case, Month,
        calendar::{at, worked_from},
        device::{Lease, Stay, Way},
        ordinary::{any_hops, common_stack},
        stack::Stack,
    },
    is_ipv6,
};

pub(super) fn fill(month: &mut Month) -> Result<()> {
    let mut random = month.random("one host");
    let random = &mut random;
    both_edges(month, random)?;
    moved(month, random)?;
    seen_twice(month, random)?;
    new_card(month, random);
    leases(month, random);
    sleepers(month, random);
    Ok(())
}

fn both_edges(month: &mut Month, random: &mut Random) -> Result<()> {
    for number in 0..21 {
        let (address, place) = month.own_address(random, is_ipv6(number));
        let hops = random.octet(1, 4);
        let other = hops + random.octet(0, 3);
        let begin = i64::from(random.octet(4, 16));
        let way = match number % 3 {
            0 => Way::Asymmetric(other),
            1 => Way::Failover(other, at(begin, 15), at(begin + 6, 14)),
            _ => Way::Split(other),
        };
        let stack = common_stack(random, address.is_ipv6());
        month.settle(stack, (address, place, hops), |stay| stay.way = way);
        let why = "one host whose packets pass both edges";
        // Where only answers come by the other edge, nothing of the address is in use there.
        let places = [place, if number % 3 == 0 { place } else { place.elsewhere() }];
        month.case(address, &places, &Case::innocent("both-edges", why));
    }
    Ok(())
}

fn moved(month: &mut Month, random: &mut Random) -> Result<()> {
    for number in 0..15 {
        let (address, places) = month.joint(random, is_ipv6(number), 2)?;
        let mut device = month.device(common_stack(random, address.is_ipv6()));
        let last = worked_from(i64::from(random.octet(5, 16)));
        let first = worked_from(last + i64::from(random.octet(1, 4)));
        // Either its card or its DHCP client shows that it is the same.
        let (hops, lease) = if number % 2 == 0 || address.is_ipv6() {
            ([0, 0], Lease::Static)
        } else {
            ([any_hops(random), any_hops(random)], Lease::Kept)
        };
        for (number, place) in places.iter().enumerate() {
            let stay = Stay::new(address, *place, device.mac, hops[number]).leased(lease);
            device.stays.push(match number {
                0 => Stay { until: at(last, 22), ..stay },
                _ => Stay { from: at(first, 0), ..stay },
            });
        }
        month.devices.push(device);
        let why = "one host that is handed over to another secretariat and keeps its address";
        month.case(address, &places, &Case::overlap("moved", "moved", why));
    }
    Ok(())
}

fn seen_twice(month: &mut Month, random: &mut Random) -> Result<()> {
    for number in 0..14 {
        let (address, mut places) = month.joint(random, is_ipv6(number), 2)?;
        // Two legs of one host, or one that a wrongly set trunk shows on two VLANs, are at one site.
        places[1].site = places[0].site;
        let mut device = month.device(common_stack(random, address.is_ipv6()));
        for place in &places {
            device.stays.push(Stay::new(address, *place, device.mac, 0));
        }
        month.devices.push(device);
        let why = "one host with one card, in two segments at once";
        month.case(address, &places, &Case::overlap("seen-twice", "seen-twice", why));
    }
    Ok(())
}

fn new_card(month: &mut Month, random: &mut Random) {
    for number in 0..12 {
        let (address, place) = month.own_address(random, is_ipv6(number));
        let mut device = month.device(common_stack(random, address.is_ipv6()));
        let first = worked_from(i64::from(random.octet(5, 20)));
        let [a, b, c]: [u8; 3] = random.octets();
        let card = MacAddress([0x68, 0x05, 0xca, a, b, c]);
        let lease = if number % 2 == 0 { Lease::Kept } else { Lease::Static };
        let stay = Stay::new(address, place, device.mac, 0).leased(lease);
        device.stays.push(Stay { until: at(first, 9), ..stay.clone() });
        device.stays.push(Stay { from: at(first, 9), mac: card, ..stay });
        month.devices.push(device);
        month.case(address, &[place], &Case::innocent("new-card", "one host that gets another network card"));
    }
}

/// DHCP gives an address to one after the other.
fn leases(month: &mut Month, random: &mut Random) {
    for number in 0..18 {
        let (address, place) = month.own_address(random, is_ipv6(number));
        let changes = [0, 8, 16, 24].map(|day| worked_from(day + i64::from(random.octet(0, 4))));
        for (turn, days) in changes.windows(2).enumerate() {
            let lease =
                if (number as usize + turn).is_multiple_of(2) { Lease::Released } else { Lease::Kept };
            // Who does not give it back was gone for days when the lease ended.
            let last = if lease == Lease::Kept { days[1] - 4 } else { days[1] - 1 };
            let stack = common_stack(random, address.is_ipv6());
            month.settle(stack, (address, place, 0), |stay| {
                *stay = stay.clone().between(at(days[0], 11), at(last, 23)).leased(lease);
            });
        }
        let why = "leased to one host after another by the segment's DHCP server";
        month.case(address, &[place], &Case::innocent("dhcp-churn", why));
    }
}

fn sleepers(month: &mut Month, random: &mut Random) {
    for number in 0..10 {
        let (address, place) = month.own_address(random, is_ipv6(number));
        let stack = Stack::one_of(random, &["windows 11", "macos", "linux 5"]);
        let begin = i64::from(random.octet(4, 12));
        month.settle(stack, (address, place, 0), |stay| {
            stay.silent = Some((at(begin, 0), at(begin + 11, 0)));
            stay.awake = 600;
        });
        month.case(address, &[place], &Case::innocent("sleeper", "a laptop that sleeps for days"));
    }
}

//! Addresses that several hosts have by design: virtual ones, anycast, address translation.

use std::net::IpAddr;

use onenet_core::{net::MacAddress, plan::AddressRole};

use super::{
    super::{
        super::random::Random,
        Case, Month,
        calendar::at,
        device::{Place, Stay},
        ordinary::{any_place, common_stack},
        stack::Stack,
    },
    is_ipv6,
};

pub(super) fn fill(month: &mut Month) {
    let mut random = month.random("shared");
    let random = &mut random;
    for number in 0..4 {
        let group = random.octet(1, 255);
        let virtual_mac = |prefix: [u8; 5]| {
            let [a, b, c, d, e] = prefix;
            Some(MacAddress([a, b, c, d, e, group]))
        };
        let vrrp = virtual_mac([0x00, 0x00, 0x5e, 0x00, 0x01]);
        let vrrp6 = virtual_mac([0x00, 0x00, 0x5e, 0x00, 0x02]);
        let hsrp = virtual_mac([0x00, 0x00, 0x0c, 0x07, 0xac]);
        let ipv6 = is_ipv6(number);
        let of_group = if ipv6 { vrrp6 } else { vrrp };
        pair(month, random, ipv6, (AddressRole::Vrrp, of_group), "VRRP with its group's MAC address");
        pair(month, random, false, (AddressRole::Hsrp, hsrp), "HSRP with its group's MAC address");
        pair(month, random, ipv6, (AddressRole::Carp, of_group), "CARP with its group's MAC address");
        pair(month, random, ipv6, (AddressRole::Vrrp, None), "VRRP whose master answers with its own card");
        pair(month, random, ipv6, (AddressRole::Vip, None), "a load balancer's address that fails over");
        anycast(month, random, number);
        translated(month, random, true);
        translated(month, random, false);
    }
}

fn role(month: &mut Month, address: IpAddr, place: Place, role: AddressRole) {
    month.roles.push((address, place.secretariat, role));
}

/// Two hosts that take turns.
fn pair(
    month: &mut Month,
    random: &mut Random,
    ipv6: bool,
    (kind, mac): (AddressRole, Option<MacAddress>),
    why: &str,
) {
    let (address, place) = month.own_address(random, ipv6);
    role(month, address, place, kind);
    let turns = [0, i64::from(random.octet(4, 9)), i64::from(random.octet(10, 16)), 30];
    let stack = Stack::one_of(random, &["linux 4.4", "freebsd", "linux 3"]);
    for first in [0, 1] {
        let mut device = month.device(stack);
        for turn in turns.windows(2).skip(first).step_by(2) {
            let stay = Stay::new(address, place, mac.unwrap_or(device.mac), 0);
            device.stays.push(stay.between(at(turn[0], 15), at(turn[1], 15)));
        }
        month.devices.push(device);
    }
    month.case(address, &[place], &Case::innocent(kind.as_str(), why));
}

/// One service in three places, in several spaces.
fn anycast(month: &mut Month, random: &mut Random, number: u32) {
    let (address, place) = month.own_address(random, is_ipv6(number));
    role(month, address, place, AddressRole::Anycast);
    let places = [place, place.elsewhere(), any_place(random)];
    let stack = Stack::named("linux 5");
    for place in places {
        let hops = random.octet(0, 3);
        month.settle(stack, (address, place, hops), |_| {});
    }
    let why = "an anycast service, reached in several segments";
    month.case(address, &places, &Case::innocent(AddressRole::Anycast.as_str(), why));
}

/// Several hosts behind one that translates their addresses.
fn translated(month: &mut Month, random: &mut Random, declared: bool) {
    let (address, place) = month.own_address(random, false);
    let count = if declared { 5 } else { 2 };
    let translator = month.device(Stack::named("linux 2.6")).mac;
    for _ in 0..count {
        let stack = common_stack(random, false);
        // Their packets come from the translator on the VLAN, one hop later than if they stood there.
        month.settle(stack, (address, place, 0), |stay| {
            stay.mac = translator;
            stay.translated = true;
        });
    }
    let case = if declared {
        role(month, address, place, AddressRole::Nat);
        Case::innocent("nat", "a declared address translation with many hosts behind it")
    } else {
        Case {
            // That two kinds of hosts speak is true; but what has the address is one.
            accepted: &["two-hosts", "unknown"],
            ..Case::innocent("nat-undeclared", "two kinds of hosts behind one that translates, undeclared")
        }
    };
    month.case(address, &[place], &case);
}

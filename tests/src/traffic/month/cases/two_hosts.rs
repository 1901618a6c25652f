//! Two or three hosts with one address: in several address spaces, at both sites of one, at once or one after the
//! other.

use anyhow::Result;

use super::{
    super::{
        super::random::Random,
        Case, Month,
        calendar::{at, worked_from},
        device::{Lease, Place},
        ordinary::{any_hops, any_place, common_stack},
        plan::UNCLAIMED,
        stack::{Clock, Stack},
        truth::UseTruth,
    },
    is_ipv6, two_stacks,
};

/// The verdict of all these but [`indistinct`].
const TWO: &str = "two-hosts";

pub(super) fn fill(month: &mut Month) -> Result<()> {
    let mut random = month.random("two hosts");
    let random = &mut random;
    different_stacks(month, random)?;
    same_stack(month, random)?;
    three_spaces(month, random)?;
    silent(month, random)?;
    replaced(month, random)?;
    indistinct(month, random)?;
    both_sites(month, random);
    undeclared_twins(month, random)
}

fn different_stacks(month: &mut Month, random: &mut Random) -> Result<()> {
    for number in 0..42 {
        let (address, places) = month.joint(random, is_ipv6(number), 2)?;
        let (one, other) = two_stacks(random, address.is_ipv6());
        month.settle(one, (address, places[0], any_hops(random)), |_| {});
        month.settle(other, (address, places[1], any_hops(random)), |_| {});
        let case = Case::overlap("two-hosts", TWO, "a host in each space, of different kinds");
        month.case(address, &places, &case);
    }
    Ok(())
}

/// Hosts of one kind, which something else tells apart: their cards, their clocks, their names.
fn same_stack(month: &mut Month, random: &mut Random) -> Result<()> {
    for number in 0..18 {
        let (address, places) = month.joint(random, is_ipv6(number), 2)?;
        let stack = common_stack(random, address.is_ipv6());
        for place in &places {
            month.settle(stack, (address, *place, 0), |_| {});
        }
        let why = "a host in each space, of one kind, each on its VLAN with its own card";
        month.case(address, &places, &Case::overlap("two-hosts-macs", TWO, why));
    }
    let counting = |stack: &&'static Stack| matches!(stack.clock, Clock::SinceBoot(_));
    for number in 0..12 {
        let (address, places) = month.joint(random, is_ipv6(number), 2)?;
        let stacks: Vec<_> = Stack::all(address.is_ipv6()).into_iter().filter(counting).collect();
        let (stack, hops) = (*random.pick(&stacks), random.octet(1, 4));
        for place in &places {
            month.settle(stack, (address, *place, hops), |stay| stay.visits = 4);
        }
        let why = "a host in each space, of one kind, behind routers; their clocks began at different times";
        month.case(address, &places, &Case::overlap("two-hosts-clocks", TWO, why));
    }
    for _ in 0..14 {
        let (address, places) = month.joint(random, false, 2)?;
        let (stack, hops) = (common_stack(random, false), random.octet(1, 4));
        for place in &places {
            month.settle(stack, (address, *place, hops), |stay| stay.lease = Lease::Kept);
        }
        let why = "a host in each space, of one kind, behind routers, with DHCP leases of different names";
        month.case(address, &places, &Case::overlap("two-hosts-names", TWO, why));
    }
    Ok(())
}

fn three_spaces(month: &mut Month, random: &mut Random) -> Result<()> {
    for number in 0..12 {
        let (address, places) = month.joint(random, is_ipv6(number), 3)?;
        let (one, other) = two_stacks(random, address.is_ipv6());
        for (place, stack) in places.iter().zip([one, other, one]) {
            month.settle(stack, (address, *place, any_hops(random)), |stay| stay.visits = 4);
        }
        let why = "a host in each of three spaces, two of them of one kind";
        month.case(address, &places, &Case::overlap("three-spaces", TWO, why));
    }
    Ok(())
}

fn silent(month: &mut Month, random: &mut Random) -> Result<()> {
    for number in 0..10 {
        let (address, places) = month.joint(random, is_ipv6(number), 2)?;
        let (one, other) = two_stacks(random, address.is_ipv6());
        let begin = i64::from(random.octet(5, 12));
        let silence = (at(begin, 0), at(begin + 10, 0));
        month.settle(one, (address, places[0], any_hops(random)), |stay| stay.silent = Some(silence));
        month.settle(other, (address, places[1], any_hops(random)), |_| {});
        let why = "a host in each space, of different kinds; one is silent for ten days";
        month.case(address, &places, &Case::overlap("two-hosts-silent", TWO, why));
    }
    Ok(())
}

fn replaced(month: &mut Month, random: &mut Random) -> Result<()> {
    for number in 0..14 {
        let (address, places) = month.joint(random, is_ipv6(number), 2)?;
        let (one, other) = two_stacks(random, address.is_ipv6());
        let last = worked_from(i64::from(random.octet(5, 14)));
        let first = worked_from(last + i64::from(random.octet(2, 8)));
        month.settle(one, (address, places[0], any_hops(random)), |stay| stay.until = at(last, 22));
        month.settle(other, (address, places[1], any_hops(random)), |stay| stay.from = at(first, 0));
        let why = "given up by a host of one space; days later a host of another takes it";
        month.case(address, &places, &Case::overlap("replaced", TWO, why));
    }
    Ok(())
}

fn indistinct(month: &mut Month, random: &mut Random) -> Result<()> {
    for number in 0..14 {
        let (address, places) = month.joint(random, is_ipv6(number), 2)?;
        let stack = Stack::one_of(random, &["windows 10", "windows 11"]);
        let hops = random.octet(1, 4);
        for place in &places {
            month.settle(stack, (address, *place, hops), |_| {});
        }
        let why =
            "a host in each space, of one kind without timestamps, equally far behind routers, nameless";
        let case = Case::overlap("indistinct", "unknown", why);
        month.case(address, &places, &Case { accepted: &[TWO], ..case });
    }
    Ok(())
}

fn both_sites(month: &mut Month, random: &mut Random) {
    for number in 0..14 {
        let (address, place) = month.own_address(random, is_ipv6(number));
        let places = [place, place.elsewhere()];
        let (one, other) = two_stacks(random, address.is_ipv6());
        if number % 2 == 0 {
            month.settle(one, (address, places[0], any_hops(random)), |_| {});
            month.settle(other, (address, places[1], any_hops(random)), |_| {});
        } else {
            month.settle(one, (address, places[0], 0), |_| {});
            month.settle(one, (address, places[1], 0), |_| {});
        }
        let why = "two hosts of one space, one at each site, of different kinds or each on its VLAN";
        let case = Case::overlap("two-hosts-sites", TWO, why);
        month.case(address, &places, &Case { rules: &["address.duplicate"], ..case });
    }
}

/// What every office has: a network that a box came with, and that nobody claims.
fn undeclared_twins(month: &mut Month, random: &mut Random) -> Result<()> {
    for number in 0..6 {
        let net = UNCLAIMED[if is_ipv6(number) { 4 } else { 2 }];
        let address = month.fresh(random, net.parse()?);
        let one = any_place(random);
        let mut other = any_place(random);
        while other.secretariat.address_space() == one.secretariat.address_space() {
            other = any_place(random);
        }
        let (stack, another) = two_stacks(random, address.is_ipv6());
        for (place, stack) in [(one, stack), (other, another)] {
            month.settle(stack, (address, place, any_hops(random)), |_| {});
            undeclared(month, address, place);
        }
        let why = "a host in each of two spaces, in a prefix that nobody claims";
        let case = Case::overlap("undeclared-twins", TWO, why);
        let rules = &["overlap.address", "address.undeclared"];
        month.case(address, &[one, other], &Case { rules, ..case });
    }
    Ok(())
}

/// Enters a use of an address that no claim covers.
pub(super) fn undeclared(month: &mut Month, address: std::net::IpAddr, place: Place) {
    month.truth.undeclared.push(UseTruth {
        address,
        secretariat: place.secretariat.id().to_owned(),
        site: place.site.name().to_owned(),
        owner: None,
    });
}

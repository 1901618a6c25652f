//! Use that the plan does not know: no claim, another's claim, another's whole prefix by a wrong route.

use std::net::IpAddr;

use anyhow::Result;
use ipnet::IpNet;

use super::{
    super::{
        super::{
            random::Random,
            world::{AF, EEA, EOHHS, EOPSS, EOTSS, MASSDOT, Secretariat},
        },
        Case, Month,
        device::Place,
        ordinary::{any_hops, any_place, any_site, common_stack},
        plan::{UNCLAIMED, own},
        truth::{RoutedTruth, UseTruth},
    },
    is_ipv6,
    two_hosts::undeclared,
};

pub(super) fn fill(month: &mut Month) -> Result<()> {
    let mut random = month.random("plan cases");
    for number in 0..20 {
        not_declared(month, &mut random, number)?;
        misplaced(month, &mut random, number);
    }
    routed(month, &mut random)
}

fn not_declared(month: &mut Month, random: &mut Random, number: u32) -> Result<()> {
    let net = if is_ipv6(number) { UNCLAIMED[4] } else { UNCLAIMED[(number % 4) as usize] };
    let address = month.fresh(random, net.parse()?);
    let place = any_place(random);
    let stack = common_stack(random, address.is_ipv6());
    month.settle(stack, (address, place, any_hops(random)), |_| {});
    undeclared(month, address, place);
    let case = Case::innocent("undeclared", "a host in a prefix that nobody claims");
    month.case(address, &[place], &Case { rules: &["address.undeclared"], ..case });
    Ok(())
}

fn misplaced(month: &mut Month, random: &mut Random, number: u32) {
    let (address, owner) = month.own_address(random, is_ipv6(number));
    let mut place = any_place(random);
    while place.secretariat.address_space() == owner.secretariat.address_space() {
        place = any_place(random);
    }
    let stack = common_stack(random, address.is_ipv6());
    month.settle(stack, (address, place, any_hops(random)), |_| {});
    month.truth.misplaced.push(UseTruth {
        address,
        secretariat: place.secretariat.id().to_owned(),
        site: place.site.name().to_owned(),
        owner: Some(owner.secretariat.id().to_owned()),
    });
    let case = Case::innocent("misplaced", "a host on one secretariat's segment with another's address");
    month.case(address, &[place], &Case { rules: &["address.misplaced"], ..case });
}

fn routed(month: &mut Month, random: &mut Random) -> Result<()> {
    let routes: [(IpNet, Secretariat, Secretariat); 5] = [
        ("10.40.200.0/24".parse()?, EOHHS, MASSDOT),
        ("10.30.201.0/24".parse()?, EEA, EOPSS),
        ("10.70.220.0/23".parse()?, EOPSS, AF),
        ("10.10.210.0/24".parse()?, AF, EOTSS),
        (subnet(own(MASSDOT, true))?, MASSDOT, EEA),
    ];
    for (prefix, owner, secretariat) in routes {
        let place = Place { secretariat, site: any_site(random) };
        let hops = random.octet(2, 5);
        let mut addresses: Vec<IpAddr> = Vec::new();
        for _ in 0..random.octet(9, 16) {
            let address = month.fresh(random, prefix);
            let stack = common_stack(random, address.is_ipv6());
            month.settle(stack, (address, place, hops), |_| {});
            addresses.push(address);
            let case = Case::innocent("routed", "one of a whole prefix that arrives by another's router");
            month.case(address, &[place], &Case { rules: &["overlap.routed"], ..case });
        }
        addresses.sort();
        month.truth.routed.push(RoutedTruth {
            prefix,
            owner: owner.id().to_owned(),
            secretariat: secretariat.id().to_owned(),
            site: place.site.name().to_owned(),
            addresses,
        });
    }
    Ok(())
}

/// A subnet of a /48 that no ordinary host is in.
fn subnet(net: IpNet) -> Result<IpNet> {
    let IpNet::V6(net) = net else { anyhow::bail!("{net} is not of IPv6") };
    let bits = u128::from(net.network()) | 0xf000 << 64;
    Ok(IpNet::new(IpAddr::V6(bits.into()), 64)?)
}

//! The cases: what happens to addresses, and the truth about it.

mod one_host;
mod plan_cases;
mod segment;
mod shared;
mod two_hosts;

use std::net::IpAddr;

use anyhow::Result;
use ipnet::IpNet;

use super::{
    super::{
        random::Random,
        world::{AF, EEA, EOE, EOHHS, EOPSS, MASSDOT, Secretariat},
    },
    Month,
    device::Place,
    ordinary::any_site,
    plan::own,
    stack::Stack,
};

/// Prefixes that several address spaces claim, and which.
const JOINT: [(&str, &[Secretariat]); 7] = [
    ("10.1.0.0/16", &[EOHHS, MASSDOT]),
    ("10.2.3.0/24", &[EOE, EEA]),
    ("10.2.64.0/20", &[EOE, AF]),
    ("172.20.0.0/16", &[EOPSS, EEA, AF]),
    ("192.168.10.0/24", &[EOE, EOHHS]),
    ("fd00:c0de:1::/48", &[EOHHS, MASSDOT, EOPSS]),
    ("fd00:c0de:2:3::/64", &[EOE, EEA]),
];

/// All cases.
pub(super) fn fill(month: &mut Month) -> Result<()> {
    two_hosts::fill(month)?;
    one_host::fill(month)?;
    shared::fill(month);
    plan_cases::fill(month)?;
    segment::fill(month)
}

impl Month {
    /// An address that `count` address spaces claim, and a place in each.
    fn joint(&mut self, random: &mut Random, ipv6: bool, count: usize) -> Result<(IpAddr, Vec<Place>)> {
        let fits =
            |(net, owners): &&(&str, &[Secretariat])| net.contains(':') == ipv6 && owners.len() >= count;
        let nets: Vec<_> = JOINT.iter().filter(fits).collect();
        let (net, owners) = **random.pick(&nets);
        let mut owners = owners.to_vec();
        while owners.len() > count {
            owners.remove(random.below(u32::try_from(owners.len())?) as usize);
        }
        let place = |secretariat| Place { secretariat, site: any_site(random) };
        let places = owners.into_iter().map(place).collect();
        Ok((self.fresh(random, net.parse()?), places))
    }

    /// An address of a secretariat's own prefix, and a place of it.
    fn own_address(&mut self, random: &mut Random, ipv6: bool) -> (IpAddr, Place) {
        let place = super::ordinary::any_place(random);
        let net: IpNet = own(place.secretariat, ipv6);
        (self.fresh(random, net), place)
    }
}

/// Two kinds of hosts.
fn two_stacks(random: &mut Random, ipv6: bool) -> (&'static Stack, &'static Stack) {
    let mut kinds = Stack::all(ipv6);
    let one = kinds.remove(random.below(u32::try_from(kinds.len()).unwrap_or(1)) as usize);
    (one, *random.pick(&kinds))
}

/// Every third address is of IPv6.
const fn is_ipv6(number: u32) -> bool {
    number % 3 == 2
}

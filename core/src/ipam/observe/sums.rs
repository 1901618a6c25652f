//! Sources that are too many to be told apart, by prefix: how many different ones, and the busiest. An address comes
//! here when the table is full and nobody has answered it; what is answered always has a place in the table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arrayvec::ArrayVec;

use super::key::Key;
use crate::{
    bounded::Bounded,
    distinct::{self, Distinct},
    record::{ObservationAggregate, TopAddress},
    time::Timestamp,
};

/// Prefixes, stations and segments that are told apart; what is beyond is added to one sum of its segment.
const MAX_SUMS: usize = 1_024;
const TOP: usize = 8;

/// Sums by prefix.
#[derive(Clone, Debug)]
pub(super) struct Sums(Bounded<Key, Sum>);

/// One sum, since it was last told.
#[derive(Clone, Debug)]
pub(super) struct Sum {
    pub(super) prefix_length: u8,
    pub(super) first_seen: Timestamp,
    pub(super) last_seen: Timestamp,
    pub(super) packets: u64,
    addresses: Distinct,
    top: ArrayVec<TopAddress, TOP>,
}

/// The prefix that addresses are summed by: /16 of IPv4, /48 of IPv6.
fn prefix_of(address: IpAddr) -> (IpAddr, u8) {
    match address {
        IpAddr::V4(v4) => (Ipv4Addr::from_bits(v4.to_bits() & 0xffff_0000).into(), 16),
        IpAddr::V6(v6) => (Ipv6Addr::from_bits(v6.to_bits() & (!0 << 80)).into(), 48),
    }
}

const fn everything(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

impl Sums {
    pub(super) fn new(seed: [u64; 4]) -> Self {
        Self(Bounded::new(MAX_SUMS + 64, seed))
    }

    /// Adds packets of an address.
    pub(super) fn add(&mut self, key: &Key, packets: u64, first: Timestamp, last: Timestamp) {
        let address = key.address();
        let (prefix, mut prefix_length) = prefix_of(address);
        let mut sum_key = key.with_address(prefix);
        if self.0.len() >= MAX_SUMS && self.0.peek(&sum_key).is_none() {
            sum_key = key.with_address(everything(address));
            prefix_length = 0;
        }
        let new = || Sum {
            prefix_length,
            first_seen: first,
            last_seen: last,
            packets: 0,
            addresses: Distinct::default(),
            top: ArrayVec::new(),
        };
        if let Some(sum) = self.0.get_or_insert_with(sum_key, new) {
            sum.first_seen = sum.first_seen.min(first);
            sum.last_seen = sum.last_seen.max(last);
            sum.packets = sum.packets.saturating_add(packets);
            sum.addresses.add(distinct::hash_of(address, 0));
            sum.rank(address, packets);
        }
    }

    /// Tells every sum that has something, and begins them anew.
    pub(super) fn tell(&mut self, mut tell: impl FnMut(&Key, &Sum, ObservationAggregate)) {
        while let Some((key, sum)) = self.0.pop_oldest() {
            let aggregate = ObservationAggregate {
                prefix_length: sum.prefix_length,
                addresses: sum.addresses.count(),
                top: sum.top.clone(),
            };
            tell(&key, &sum, aggregate);
        }
    }

    pub(super) fn clear(&mut self) {
        while self.0.pop_oldest().is_some() {}
    }
}

impl Sum {
    /// Space-Saving: a new address takes the place of the one with the fewest packets, and their count.
    fn rank(&mut self, address: IpAddr, packets: u64) {
        if let Some(held) = self.top.iter_mut().find(|held| held.address == address) {
            held.packets = held.packets.saturating_add(packets);
        } else if self.top.try_push(TopAddress { address, packets }).is_err()
            && let Some(least) = self.top.last_mut()
        {
            *least = TopAddress { address, packets: least.packets.saturating_add(packets) };
        }
        self.top.sort_by_key(|held| std::cmp::Reverse(held.packets));
    }
}

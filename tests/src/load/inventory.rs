//! A plan and a sheet of addresses at the size of a state government, and a capture in which each of the addresses is
//! in use. Addresses are numbered; a number and the number of all give one address, always the same.

use std::{
    collections::HashSet,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use anyhow::{Result, ensure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use onenet_core::net::MacAddress;

use crate::traffic::random::Random;

/// The secretariats, each an address space of its own.
pub const SECRETARIATS: [&str; 9] =
    ["anf", "eoe", "eea", "eohhs", "eohed", "eolwd", "eopss", "massdot", "eotss"];
/// Outer VLAN of the first secretariat's segment; the others follow.
const FIRST_VLAN: u16 = 101;
/// Of so many addresses one is in use in two address spaces.
const SHARED_EVERY: u32 = 200;
/// Of so many addresses of a secretariat one is IPv6.
const V6_EVERY: u32 = 5;
/// Most addresses that are told apart: the smallest block, of IPv4 at one secretariat, has a million.
pub const MAX_ADDRESSES: u32 = 8_000_000;

/// MAC address of the edge router.
pub const EDGE: MacAddress = MacAddress([2, 0xed, 0x6e, 0, 0, 1]);

/// One use of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Which secretariat uses it.
    pub owner: usize,
    /// The address.
    pub address: IpAddr,
}

impl Use {
    /// The VLAN of its segment.
    pub fn vlan(&self) -> u16 {
        vlan(self.owner)
    }

    /// MAC address of the router that its segment is behind.
    pub fn router(&self) -> MacAddress {
        MacAddress([2, 0x5e, 0, 0, 0, octet(self.owner)])
    }
}

fn vlan(owner: usize) -> u16 {
    FIRST_VLAN + u16::from(octet(owner))
}

fn octet(owner: usize) -> u8 {
    u8::try_from(owner).unwrap_or(u8::MAX)
}

/// How many of so many addresses are in use in two address spaces: the last of them.
pub const fn shared(addresses: u32) -> u32 {
    addresses / SHARED_EVERY
}

/// The use of address `number` of so many.
pub fn use_of(number: u32, addresses: u32) -> Use {
    let owners = u32::try_from(SECRETARIATS.len()).unwrap_or(1);
    let owner = (number % owners) as usize;
    let alone = addresses - shared(addresses);
    if let Some(of_shared) = number.checked_sub(alone) {
        let place = of_shared / owners;
        return Use { owner, address: Ipv4Addr::from_bits(block_shared(owner).to_bits() + place).into() };
    }
    let place = number / owners;
    let address = if place % V6_EVERY == V6_EVERY - 1 {
        let place = place / V6_EVERY;
        let [a, b, c, d] = place.wrapping_mul(0x9e37_79b1).to_be_bytes();
        let subnet = u16::try_from(place % 512).unwrap_or_default();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        Ipv6Addr::new(0xfd00, 0, 1 + u16::from(octet(owner)), subnet, 0, 0, high, low).into()
    } else {
        // An odd factor permutes the 20 bits of the block.
        let host = (place - place / V6_EVERY).wrapping_mul(0x0005_b3a5) & 0x000f_ffff;
        Ipv4Addr::from_bits(block(owner).network().to_bits() | host).into()
    };
    Use { owner, address }
}

/// The other use of an address that is in use twice.
pub fn other_use(one: Use) -> Use {
    // One of ten is used by somebody who does not claim it either.
    let last = match one.address {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(_) => 0,
    };
    let step = if last % 10 == 9 { 2 } else { 1 };
    Use { owner: (one.owner + step) % SECRETARIATS.len(), ..one }
}

/// The block of a secretariat: 10.16.0.0/12 and those behind it.
fn block(owner: usize) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(10, 16 + 16 * octet(owner), 0, 0), 12)
}

/// A block that a secretariat and the next one both claim.
fn block_shared(owner: usize) -> Ipv4Addr {
    Ipv4Addr::new(172, 16, 0, 0).to_bits().wrapping_add(u32::from(octet(owner)) << 16).into()
}

/// One claim of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The prefix.
    pub cidr: IpNet,
    /// Which secretariat's.
    pub owner: usize,
    /// Whether it only holds others.
    pub container: bool,
}

/// So many claims: of each secretariat a container of either family and wide claims in it, blocks that two claim alike, and then
/// narrower ones of many lengths, one of 32 of them within another secretariat's. Nobody claims the last /20 of a
/// secretariat's block.
pub fn claims(seed: u64, count: u32) -> Vec<Claim> {
    let mut random = Random::for_actor(seed, "claims");
    let mut claims: Vec<Claim> = Vec::new();
    for owner in 0..SECRETARIATS.len() {
        let v6 =
            Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0, 1 + u16::from(octet(owner)), 0, 0, 0, 0, 0), 48);
        let shared = Ipv4Net::new_assert(block_shared(owner), 16);
        let first = block(owner).network().to_bits();
        claims.push(Claim { cidr: block(owner).into(), owner, container: true });
        let wide = (0..15_u32)
            .map(|at| (at << 16, 16))
            .chain((0..4).map(|at| ((0xf << 16) | (0xf000 & !(0xffff >> at)), 17 + at)));
        let active = wide.filter_map(|(host, length)| {
            let length = u8::try_from(length).ok()?;
            Some(IpNet::V4(Ipv4Net::new(Ipv4Addr::from_bits(first | host), length).ok()?))
        });
        let active: Vec<IpNet> = active.chain([v6.into(), shared.into()]).collect();
        claims.extend(active.into_iter().map(|cidr| Claim { cidr, owner, container: false }));
        let next = (owner + 1) % SECRETARIATS.len();
        claims.push(Claim { cidr: shared.into(), owner: next, container: false });
    }
    let mut known: HashSet<(IpNet, usize)> = claims.iter().map(|claim| (claim.cidr, claim.owner)).collect();
    while claims.len() < count as usize {
        let home = random.below(9) as usize;
        let owner = if random.below(32) == 0 { (home + 1) % SECRETARIATS.len() } else { home };
        let cidr = if random.below(5) == 0 {
            let subnet = u16::try_from(random.below(1 << 16)).unwrap_or_default();
            let length = 52 + 4 * u8::try_from(random.below(4)).unwrap_or_default();
            let network = Ipv6Addr::new(0xfd00, 0, 1 + u16::from(octet(home)), subnet, 0, 0, 0, 0);
            IpNet::V6(Ipv6Net::new_assert(network, length).trunc())
        } else {
            let length = 18 + u8::try_from(random.below(11)).unwrap_or_default();
            let host = random.below(15 << 16);
            let network = Ipv4Addr::from_bits(block(home).network().to_bits() | host);
            IpNet::V4(Ipv4Net::new_assert(network, length).trunc())
        };
        if known.insert((cidr, owner)) {
            claims.push(Claim { cidr, owner, container: false });
        }
    }
    claims
}

/// The plan as people write it: secretariats, the claims, and at each site a segment of each secretariat.
pub fn plan(claims: &[Claim]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for id in SECRETARIATS {
        let _ = writeln!(text, "[[secretariat]]\nid = \"{id}\"\ncontact = \"ipam@{id}.example\"\n");
    }
    for site in ["boston", "lowell"] {
        for (owner, id) in SECRETARIATS.iter().enumerate() {
            let vlan = vlan(owner);
            let _ = writeln!(
                text,
                "[[segment]]\nid = \"{site}-{id}\"\nsecretariat = \"{id}\"\nsite = \"{site}\"\nvlan = {vlan}\n"
            );
        }
    }
    for Claim { cidr, owner, container } in claims {
        let status = if *container { "status = \"container\"\n" } else { "" };
        let id = SECRETARIATS[*owner];
        let _ = writeln!(text, "[[prefix]]\ncidr = \"{cidr}\"\nsecretariat = \"{id}\"\n{status}");
    }
    text
}

/// The claims as NetBox exports prefixes, each secretariat a VRF.
pub fn prefix_sheet(claims: &[Claim]) -> String {
    let mut text = "prefix,vrf,tenant,status,role,description\n".to_owned();
    for (number, Claim { cidr, owner, container }) in claims.iter().enumerate() {
        let (id, status) = (SECRETARIATS[*owner], if *container { "container" } else { "active" });
        let _ =
            writeln!(text, "{cidr},{id},{id},{status},,\"site {}, building {}\"", number % 351, number % 40);
    }
    text
}

/// So many addresses as NetBox exports IP addresses.
pub fn address_sheet(rows: u32) -> String {
    let mut text = "address,vrf,tenant,status,role,dns_name,description\n".to_owned();
    for number in 0..rows {
        let Use { owner, address } = use_of(number, rows);
        let (id, length) = (SECRETARIATS[owner], if address.is_ipv4() { 24 } else { 64 });
        let _ = writeln!(
            text,
            "{address}/{length},{id},{id},active,,h{number}.{id}.example,workstation {number}"
        );
    }
    text
}

/// Writes a plan with so many claims.
pub fn write_plan(path: &Path, seed: u64, prefixes: u32) -> Result<usize> {
    let claims = claims(seed, prefixes);
    std::fs::write(path, plan(&claims))?;
    Ok(claims.len())
}

/// Writes what an import reads into a folder: `prefixes.csv`, `addresses.csv`, and a plan of the secretariats alone.
pub fn write_sheets(folder: &Path, seed: u64, prefixes: u32, rows: u32) -> Result<(usize, u32)> {
    ensure!(rows <= MAX_ADDRESSES, "at most {MAX_ADDRESSES} rows");
    std::fs::create_dir_all(folder)?;
    let claims = claims(seed, prefixes);
    std::fs::write(folder.join("plan.toml"), plan(&[]))?;
    std::fs::write(folder.join("prefixes.csv"), prefix_sheet(&claims))?;
    std::fs::write(folder.join("addresses.csv"), address_sheet(rows))?;
    Ok((claims.len(), rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use onenet_core::{
        ipam::{AddressClass, Claims, Standing, classify},
        plan::{AddressPlan, PrefixStatus},
    };

    #[test]
    fn every_number_is_another_private_address() {
        for count in [1_000, 300_000] {
            let all: HashSet<IpAddr> = (0..count).map(|number| use_of(number, count).address).collect();
            assert_eq!(all.len(), count as usize);
            assert!(all.iter().all(|address| classify(*address).is_private()));
            let v6 = all.iter().filter(|address| address.is_ipv6()).count();
            assert!((v6 as f64 / f64::from(count) - 0.2).abs() < 0.01, "{v6}");
            assert!(all.iter().all(|address| classify(*address).class != AddressClass::Loopback));
        }
    }

    #[test]
    fn the_plan_has_so_many_claims_and_says_of_each_use_what_it_is_meant_to() {
        let claims = claims(1, 2_000);
        assert_eq!(claims.len(), 2_000);
        assert_eq!(claims, super::claims(1, 2_000));
        let plan: AddressPlan = toml::from_str(&plan(&claims)).expect("a plan");
        assert_eq!((plan.prefixes.len(), plan.secretariats.len(), plan.segments.len()), (2_000, 9, 18));
        let lengths: HashSet<u8> = plan.prefixes.iter().map(|prefix| prefix.cidr.prefix_len()).collect();
        assert!(lengths.len() > 12, "{lengths:?}");
        assert_eq!(plan.prefixes.iter().filter(|p| p.status == PrefixStatus::Container).count(), 9);
        let compiled = Claims::new(&plan);
        let stands = |one: Use| compiled.standing(one.address, SECRETARIATS[one.owner]);
        let count = 20_000;
        let alone = count - shared(count);
        let uses = || (0..alone).map(|number| use_of(number, count));
        let undeclared = uses().filter(|one| stands(*one) == Standing::Undeclared).count();
        let declared = uses().filter(|one| stands(*one) == Standing::Declared).count();
        assert_eq!(undeclared + declared, alone as usize);
        assert!(undeclared > 0 && undeclared < 100, "{undeclared}");
        let others = || (alone..count).map(|number| other_use(use_of(number, count)));
        let misplaced = others().filter(|one| stands(*one) != Standing::Declared).count();
        assert!(misplaced > 0 && misplaced * 5 < others().count(), "{misplaced}");
    }
}

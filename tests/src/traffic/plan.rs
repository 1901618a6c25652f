//! The address plan of the two edges and what their sensors need to know of their interfaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use ipnet::IpNet;
use onenet_core::{
    net::Name,
    plan::{
        AddressPlan, AddressRole, Exemption, InterfacePlan, PlannedAddress, Prefix, PrefixStatus,
        PublicPrefix, Role, Secretariat as Owner, Segment,
    },
    record::RuleId,
};

use super::{
    innocent::{ANYCAST, SCANNER_HOST},
    wire::Link,
    world::{EOE, EOHHS, EOLWD, EOTSS, MASSDOT, Secretariat, Site},
};

fn name(text: impl AsRef<str>) -> Name {
    Name::from(text.as_ref())
}

/// A secretariat as a plan has it.
pub(super) fn owner(secretariat: Secretariat) -> Owner {
    let own_space = secretariat.address_space() == secretariat.id();
    Owner {
        id: name(secretariat.id()),
        name: Some(name(secretariat.name())),
        contact: Some(name(format!("ipam@{}.commonwealth.example", secretariat.id()))),
        address_space: (!own_space).then(|| name(secretariat.address_space())),
    }
}

/// The plan as the programme knows it: old claims that overlap are still in it.
pub(super) fn address_plan() -> Result<AddressPlan> {
    let mut plan = AddressPlan::default();
    for secretariat in Secretariat::all() {
        let id = name(secretariat.id());
        plan.secretariats.push(owner(secretariat));
        let v4 = IpNet::new(IpAddr::V4(Ipv4Addr::new(10, secretariat.octet(), 0, 0)), 16)?;
        claim(&mut plan, v4, secretariat, "numbered from the programme's plan");
        claim(
            &mut plan,
            IpNet::new(IpAddr::V6(secretariat.ula(Site::Boston, 0)), 48)?,
            secretariat,
            "unique local",
        );
        for site in Site::ALL {
            plan.segments.push(segment(
                format!("{}-{id}", site.name()),
                secretariat,
                site,
                secretariat.vlan(site),
            ));
            let global = IpNet::new(IpAddr::V6(secretariat.global6(site, 0)), 64)?;
            plan.public.push(PublicPrefix { cidr: global, secretariat: Some(id.clone()) });
        }
    }
    for (cidr, secretariat, why) in [
        ("10.1.0.0/16", EOHHS, "hospital network, from before the programme"),
        ("10.1.0.0/16", MASSDOT, "district offices, from before the programme"),
        ("192.168.10.0/24", EOE, "school laboratory"),
        ("172.16.4.0/22", EOLWD, "career centres"),
    ] {
        claim(&mut plan, cidr.parse()?, secretariat, why);
        if let Some(prefix) = plan.prefixes.last_mut() {
            prefix.status = PrefixStatus::Deprecated;
        }
    }
    for site in Site::ALL {
        plan.segments.push(segment(format!("{}-dmz", site.name()), EOTSS, site, site.dmz_vlan()));
        plan.public.push(PublicPrefix { cidr: IpNet::new(IpAddr::V4(site.dmz(0)), 20)?, secretariat: None });
        plan.public.push(PublicPrefix {
            cidr: IpNet::new(IpAddr::V4(site.dmz(0)), 24)?,
            secretariat: Some(name(EOTSS.id())),
        });
    }
    plan.public.push(PublicPrefix {
        cidr: IpNet::new(IpAddr::V6(Ipv6Addr::new(0x2d10, 0x146, 0x243, 0, 0, 0, 0, 0)), 48)?,
        secretariat: None,
    });
    for rule in [RuleId::ScanHorizontal, RuleId::ScanVertical] {
        plan.exemptions.push(exemption(
            rule,
            SCANNER_HOST,
            "EOTSS vulnerability scanner, declared to the SOC",
        ));
    }
    plan.exemptions.push(exemption(RuleId::OverlapAddress, ANYCAST, "anycast address of the resolvers"));
    plan.addresses.push(PlannedAddress {
        address: IpAddr::V4(ANYCAST),
        secretariat: name(EOTSS.id()),
        agency: None,
        status: PrefixStatus::Active,
        role: Some(AddressRole::Anycast),
        description: Some(name("resolvers")),
    });
    plan.check()?;
    Ok(plan)
}

fn claim(plan: &mut AddressPlan, cidr: IpNet, secretariat: Secretariat, why: &str) {
    plan.prefixes.push(Prefix {
        cidr,
        secretariat: name(secretariat.id()),
        agency: None,
        status: PrefixStatus::Active,
        description: Some(name(why)),
    });
}

fn segment(id: String, secretariat: Secretariat, site: Site, vlan: u16) -> Segment {
    Segment {
        id: name(id),
        secretariat: name(secretariat.id()),
        site: name(site.name()),
        interface: None,
        vlan: Some(vlan),
        inner_vlan: None,
        mpls_label: None,
        tunnel_id: None,
        mac: None,
        gateways: Vec::new(),
        dhcp_servers: Vec::new(),
    }
}

fn exemption(rule: RuleId, source: Ipv4Addr, reason: &str) -> Exemption {
    Exemption {
        rule: Some(rule),
        source: Some(IpNet::from(IpAddr::V4(source))),
        destination: None,
        port: None,
        reason: name(reason),
    }
}

/// What the sensor of a link's site is told of it.
pub(super) fn interface_plan(link: Link) -> InterfacePlan {
    let site = link.site();
    let (role, router) = match link {
        Link::Inside(_) => (Role::Inside, site.inside_mac()),
        Link::Outside(_) => (Role::Outside, site.outside_mac()),
    };
    InterfacePlan { name: name(interface_name(link)), role, router_macs: vec![router] }
}

/// Name of a link's interface.
pub(super) const fn interface_name(link: Link) -> &'static str {
    match link {
        Link::Inside(_) => "inside",
        Link::Outside(_) => "outside",
    }
}

//! The address plan: secretariats, their prefixes (claims), segments, our public prefixes and exemptions, as
//! agents and the collector read it. What each packet's place in it is, `ipam::place` answers.

use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    net::{MacAddress, Name},
    record::{RuleId, named_enum},
};

/// The whole plan. Every list may be empty; the empty plan takes RFC 1918 and ULA (RFC 4193) as inside, in one
/// address space called `default`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AddressPlan {
    /// Who owns segments and prefixes.
    #[serde(rename = "secretariat", skip_serializing_if = "Vec::is_empty")]
    pub secretariats: Vec<Secretariat>,
    /// Who runs parts of a secretariat's network.
    #[serde(rename = "agency", skip_serializing_if = "Vec::is_empty")]
    pub agencies: Vec<Agency>,
    /// Which addresses each is meant to use.
    #[serde(rename = "prefix", skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<Prefix>,
    /// Single addresses that are claimed, with what they are for.
    #[serde(rename = "address", skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<PlannedAddress>,
    /// How each is attached at the sites.
    #[serde(rename = "segment", skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<Segment>,
    /// Global prefixes that are ours.
    #[serde(rename = "public", skip_serializing_if = "Vec::is_empty")]
    pub public: Vec<PublicPrefix>,
    /// What must not raise a finding.
    #[serde(rename = "exemption", skip_serializing_if = "Vec::is_empty")]
    pub exemptions: Vec<Exemption>,
}

/// One secretariat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secretariat {
    /// Short id, such as `eohhs`.
    pub id: Name,
    /// Full name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Whom to call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<Name>,
    /// Where its addresses are meant to be unique; its id unless stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_space: Option<Name>,
}

impl Secretariat {
    /// The address space its addresses live in.
    pub fn address_space(&self) -> &Name {
        self.address_space.as_ref().unwrap_or(&self.id)
    }
}

/// One agency under a secretariat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agency {
    /// Short id, such as `dph`; unique within its secretariat.
    pub id: Name,
    /// The secretariat.
    pub secretariat: Name,
    /// Full name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Who is responsible for its addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Name>,
    /// Whom to call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<Name>,
}

named_enum! {
    /// What a claimed address is for, where that matters. Several hosts have the address of all but the first three by
    /// design, and a NAT's stands for those behind it.
    AddressRole {
        /// Of a device itself, and of no link.
        Loopback = 1 "loopback",
        /// A further address of an interface.
        Secondary = 2 "secondary",
        /// Translates others (RFC 2663).
        Nat = 3 "nat",
        /// Of several hosts at once (RFC 4786).
        Anycast = 4 "anycast",
        /// Virtual, of whichever host serves it.
        Vip = 5 "vip",
        /// Of a VRRP group (RFC 9568).
        Vrrp = 6 "vrrp",
        /// Of an HSRP group (RFC 2281).
        Hsrp = 7 "hsrp",
        /// Of a GLBP group.
        Glbp = 8 "glbp",
        /// Of a CARP group.
        Carp = 9 "carp",
    }
}

impl AddressRole {
    /// Whether hosts other than one are expected behind the address: others in turn, several at once, or those that it
    /// translates.
    pub const fn is_shared(self) -> bool {
        !matches!(self, Self::Secondary)
    }
}

/// Addresses whose role says that several hosts may be behind them, for lookup.
#[derive(Clone, Debug, Default)]
pub struct SharedAddresses(HashMap<IpAddr, Vec<(Name, AddressRole)>>);

impl SharedAddresses {
    /// Whether the address is shared in an address space: by a claim there, or as anycast, which is so everywhere.
    pub fn has(&self, address: IpAddr, address_space: &str) -> bool {
        self.0.get(&address).is_some_and(|claims| {
            claims.iter().any(|(space, role)| **space == *address_space || *role == AddressRole::Anycast)
        })
    }
}

/// One claimed address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedAddress {
    /// The address.
    pub address: IpAddr,
    /// Whose.
    pub secretariat: Name,
    /// Which agency's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agency: Option<Name>,
    /// What for.
    #[serde(default)]
    pub status: PrefixStatus,
    /// Its role, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<AddressRole>,
    /// Host name or description, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Name>,
}

named_enum! {
    /// What a prefix is for.
    #[derive(Default)]
    PrefixStatus {
        /// In use.
        #[default]
        Active = 1 "active",
        /// Holds other prefixes; not in use itself.
        Container = 2 "container",
        /// Kept for later.
        Reserved = 3 "reserved",
        /// To be given up.
        Deprecated = 4 "deprecated",
    }
}

/// One claim: a prefix that a secretariat is meant to use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prefix {
    /// The prefix.
    pub cidr: IpNet,
    /// Whose.
    pub secretariat: Name,
    /// Which agency's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agency: Option<Name>,
    /// What for.
    #[serde(default)]
    pub status: PrefixStatus,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Name>,
}

/// One attachment of a secretariat at a site. A packet belongs to the segment with the most matching
/// conditions; each condition that is stated must hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// Name of the attachment, such as `boston-eohhs`.
    pub id: Name,
    /// Whose.
    pub secretariat: Name,
    /// Where.
    pub site: Name,
    /// Interface of the sensor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<Name>,
    /// Outer VLAN id, 1–4094.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Inner VLAN id (802.1ad), 1–4094.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner_vlan: Option<u16>,
    /// Outermost MPLS label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mpls_label: Option<u32>,
    /// VNI, GRE key or TEID of the tunnel around it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_id: Option<u32>,
    /// MAC address of the secretariat's router on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// Addresses of its gateways, whose MAC address is watched. Those that routers advertise need not be stated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<IpAddr>,
    /// Addresses of its DHCP servers; where there are none, those seen on its first day are taken for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dhcp_servers: Vec<IpAddr>,
}

/// A global prefix that is ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicPrefix {
    /// The prefix.
    pub cidr: IpNet,
    /// Whose, where it is one secretariat's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secretariat: Option<Name>,
}

/// What must not raise a finding: each condition that is stated must hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exemption {
    /// The rule; any rule where none is stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleId>,
    /// Source or originator, or the address of an overlap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpNet>,
    /// Target or responder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<IpNet>,
    /// Port of the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Why, for those who read the plan later.
    pub reason: Name,
}

/// What an exemption is asked about.
#[derive(Clone, Copy, Debug)]
pub struct ExemptionQuery {
    /// The rule that is about to raise.
    pub rule: RuleId,
    /// Source, or the overlapping address.
    pub source: Option<IpAddr>,
    /// Target.
    pub destination: Option<IpAddr>,
    /// Port of the target.
    pub port: Option<u16>,
}

impl Exemption {
    /// Whether this exemption covers the query.
    pub fn covers(&self, query: &ExemptionQuery) -> bool {
        let within =
            |net: Option<IpNet>, ip: Option<IpAddr>| net.is_none_or(|n| ip.is_some_and(|i| n.contains(&i)));
        self.rule.is_none_or(|rule| rule == query.rule)
            && within(self.source, query.source)
            && within(self.destination, query.destination)
            && self.port.is_none_or(|port| query.port == Some(port))
    }
}

/// The side of the edge that an interface is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Not stated: traffic of both sides may be on it.
    #[default]
    Unknown,
    /// Towards the secretariats.
    Inside,
    /// Towards the internet.
    Outside,
}

/// What is known about an interface beside its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterfacePlan {
    /// Name, as the source states it.
    pub name: Name,
    /// Which side of the edge.
    #[serde(default)]
    pub role: Role,
    /// MAC addresses of the edge router on this link. Packets from them come from the edge; packets to them go
    /// to it. On an inside interface their sources do not belong to the segment; on an outside interface they
    /// are leaving. Where none is stated it is learnt from traffic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub router_macs: Vec<MacAddress>,
}

/// What is wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Two entries of one kind with one id.
    #[error("{kind} {id:?} is stated twice")]
    Duplicate {
        /// `secretariat`, `agency` or `segment`.
        kind: &'static str,
        /// The id.
        id: Name,
    },
    /// A prefix, segment or public prefix names a secretariat that is not in the plan.
    #[error("{kind} {what:?} names the secretariat {secretariat:?}, which is not in the plan")]
    UnknownSecretariat {
        /// `agency`, `prefix`, `address`, `segment` or `public`.
        kind: &'static str,
        /// Its id or CIDR.
        what: String,
        /// The name that is not known.
        secretariat: Name,
    },
    /// A prefix or address names an agency that its secretariat does not have.
    #[error("{kind} {what:?} names the agency {agency:?}, which {secretariat} does not have in the plan")]
    UnknownAgency {
        /// `prefix` or `address`.
        kind: &'static str,
        /// Its CIDR or address.
        what: String,
        /// The secretariat.
        secretariat: Name,
        /// The name that is not known.
        agency: Name,
    },
    /// A number out of its range.
    #[error("segment {id:?}: {field} = {value}, expected {expected}")]
    OutOfRange {
        /// The segment.
        id: Name,
        /// The field.
        field: &'static str,
        /// What it says.
        value: u32,
        /// What it may say.
        expected: &'static str,
    },
    /// Two segments of one site with the same conditions.
    #[error("segments {first:?} and {second:?} have the same conditions, so no packet can tell them apart")]
    Indistinct {
        /// One.
        first: Name,
        /// The other.
        second: Name,
    },
}

impl AddressPlan {
    /// Checks what the file's grammar cannot: unique ids, known secretariats, ranges, distinct segments.
    pub fn check(&self) -> Result<(), PlanError> {
        let mut ids = std::collections::BTreeSet::new();
        for secretariat in &self.secretariats {
            if !ids.insert(secretariat.id.clone()) {
                return Err(PlanError::Duplicate { kind: "secretariat", id: secretariat.id.clone() });
            }
        }
        let known = |kind, what: String, secretariat: &Name| {
            let unknown = PlanError::UnknownSecretariat { kind, what, secretariat: secretariat.clone() };
            if ids.contains(secretariat) { Ok(()) } else { Err(unknown) }
        };
        let mut agencies = std::collections::BTreeSet::new();
        for agency in &self.agencies {
            known("agency", agency.id.to_string(), &agency.secretariat)?;
            if !agencies.insert((&agency.secretariat, &agency.id)) {
                return Err(PlanError::Duplicate { kind: "agency", id: agency.id.clone() });
            }
        }
        let has_agency = |kind, what: String, secretariat: &Name, agency: &Option<Name>| match agency {
            Some(agency) if !agencies.contains(&(secretariat, agency)) => Err(PlanError::UnknownAgency {
                kind,
                what,
                secretariat: secretariat.clone(),
                agency: agency.clone(),
            }),
            _ => Ok(()),
        };
        for prefix in &self.prefixes {
            known("prefix", prefix.cidr.to_string(), &prefix.secretariat)?;
            has_agency("prefix", prefix.cidr.to_string(), &prefix.secretariat, &prefix.agency)?;
        }
        for address in &self.addresses {
            known("address", address.address.to_string(), &address.secretariat)?;
            has_agency("address", address.address.to_string(), &address.secretariat, &address.agency)?;
        }
        for public in &self.public {
            if let Some(secretariat) = &public.secretariat {
                known("public", public.cidr.to_string(), secretariat)?;
            }
        }
        for (index, segment) in self.segments.iter().enumerate() {
            known("segment", segment.id.to_string(), &segment.secretariat)?;
            segment.check_ranges()?;
            for other in self.segments.iter().take(index) {
                if other.id == segment.id {
                    return Err(PlanError::Duplicate { kind: "segment", id: segment.id.clone() });
                }
                if other.site == segment.site && other.conditions() == segment.conditions() {
                    return Err(PlanError::Indistinct {
                        first: other.id.clone(),
                        second: segment.id.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    /// The segment with this id.
    pub fn segment(&self, id: &str) -> Option<&Segment> {
        self.segments.iter().find(|segment| &*segment.id == id)
    }

    /// The agency of a secretariat with this id.
    pub fn agency(&self, secretariat: &str, id: &str) -> Option<&Agency> {
        self.agencies.iter().find(|agency| &*agency.secretariat == secretariat && &*agency.id == id)
    }

    /// Addresses that several hosts may have.
    pub fn shared_addresses(&self) -> SharedAddresses {
        let mut shared: HashMap<IpAddr, Vec<(Name, AddressRole)>> = HashMap::new();
        for claim in &self.addresses {
            if let Some(role) = claim.role.filter(|role| role.is_shared())
                && let Some(owner) = self.secretariat(&claim.secretariat)
            {
                shared.entry(claim.address).or_default().push((owner.address_space().clone(), role));
            }
        }
        SharedAddresses(shared)
    }

    /// The secretariat with this id.
    pub fn secretariat(&self, id: &str) -> Option<&Secretariat> {
        self.secretariats.iter().find(|s| &*s.id == id)
    }
}

/// What a segment matches packets by.
type Conditions<'a> =
    (Option<&'a Name>, Option<u16>, Option<u16>, Option<u32>, Option<u32>, Option<MacAddress>);

impl Segment {
    fn conditions(&self) -> Conditions<'_> {
        (self.interface.as_ref(), self.vlan, self.inner_vlan, self.mpls_label, self.tunnel_id, self.mac)
    }

    fn check_ranges(&self) -> Result<(), PlanError> {
        let out_of_range = |field, value, expected| {
            Err(PlanError::OutOfRange { id: self.id.clone(), field, value, expected })
        };
        for (field, vlan) in [("vlan", self.vlan), ("inner_vlan", self.inner_vlan)] {
            if let Some(vlan) = vlan.filter(|v| !(1..=4094).contains(v)) {
                return out_of_range(field, u32::from(vlan), "a VLAN id from 1 to 4094");
            }
        }
        match self.mpls_label {
            Some(label) if label > 0xf_ffff => out_of_range("mpls_label", label, "a label from 0 to 1048575"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> AddressPlan {
        toml::from_str(text).expect("the plan parses")
    }

    const TWO: &str = "
        [[secretariat]]
        id = 'eohhs'
        contact = 'ipam@eohhs.example'
        [[secretariat]]
        id = 'massdot'
        address_space = 'transport'
    ";

    #[test]
    fn an_address_space_is_the_secretariat_unless_stated() {
        let plan = plan(TWO);
        assert_eq!(plan.check(), Ok(()));
        assert_eq!(&**plan.secretariats[0].address_space(), "eohhs");
        assert_eq!(&**plan.secretariats[1].address_space(), "transport");
    }

    #[test]
    fn a_plan_that_contradicts_itself_is_refused_with_the_place() {
        for (more, expected) in [
            ("[[secretariat]]\nid='eohhs'", "secretariat \"eohhs\" is stated twice"),
            (
                "[[prefix]]\ncidr='10.0.0.0/8'\nsecretariat='x'",
                "prefix \"10.0.0.0/8\" names the secretariat \"x\"",
            ),
            ("[[segment]]\nid='s'\nsite='boston'\nsecretariat='eohhs'\nvlan=4095", "vlan = 4095"),
            (
                "[[segment]]\nid='s'\nsite='boston'\nsecretariat='eohhs'\nvlan=7\n\
                 [[segment]]\nid='t'\nsite='boston'\nsecretariat='massdot'\nvlan=7",
                "have the same conditions",
            ),
        ] {
            let error = plan(&format!("{TWO}\n{more}")).check().expect_err(more).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn an_address_is_shared_by_its_role_in_its_own_space_and_anycast_in_all() {
        let claims = [
            ("10.0.0.1", "eohhs", "vip"),
            ("10.0.0.2", "massdot", "anycast"),
            ("10.0.0.3", "eohhs", "secondary"),
        ];
        let text = claims.map(|(address, owner, role)| {
            format!("[[address]]\naddress='{address}'\nsecretariat='{owner}'\nrole='{role}'\n")
        });
        let shared = plan(&format!("{TWO}\n{}", text.concat())).shared_addresses();
        let has = |address: &str, space| shared.has(address.parse().expect("an address"), space);
        assert!(has("10.0.0.1", "eohhs") && !has("10.0.0.1", "transport"));
        assert!(has("10.0.0.2", "eohhs") && has("10.0.0.2", "transport"));
        assert!(!has("10.0.0.3", "eohhs") && !has("10.0.0.4", "eohhs"));
    }

    #[test]
    fn an_exemption_covers_only_where_every_condition_holds() {
        let plan = plan(
            "[[exemption]]\nrule='scan.horizontal'\nsource='10.0.0.9/32'\nreason='vulnerability scanner'",
        );
        let query = |rule, source: &str| ExemptionQuery {
            rule,
            source: source.parse().ok(),
            destination: None,
            port: None,
        };
        assert!(plan.exemptions[0].covers(&query(RuleId::ScanHorizontal, "10.0.0.9")));
        assert!(!plan.exemptions[0].covers(&query(RuleId::ScanHorizontal, "10.0.0.8")));
        assert!(!plan.exemptions[0].covers(&query(RuleId::Beacon, "10.0.0.9")));
    }
}

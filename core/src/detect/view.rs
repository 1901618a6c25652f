//! How rules name addresses: a private address means something only with its address space.

use std::net::IpAddr;

use crate::{
    flow::Party,
    ipam::{Places, classify},
    net::Name,
};

/// Address space of a party, as part of a rule's key: 0 for addresses that are unique everywhere, and for those
/// that no plan places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Space(u16);

impl Space {
    pub(super) fn of(party: &Party, places: &Places) -> Self {
        Self::at(party.ip, party.secretariat, places)
    }

    /// The same for an address and its secretariat.
    pub(super) fn at(ip: IpAddr, secretariat: Option<u16>, places: &Places) -> Self {
        Self(if classify(ip).is_private() { places.space_of(secretariat) } else { 0 })
    }

    pub(super) const fn number(self) -> u16 {
        self.0
    }

    pub(super) fn name(self, places: &Places) -> Option<Name> {
        (self.0 != 0).then(|| places.space_name(self.0))
    }
}

/// An address with its space, as it stands in stable keys: `eohhs/10.1.1.1`, or the address alone.
pub(super) fn scoped(ip: IpAddr, space: Space, places: &Places) -> String {
    scoped_in(ip, space.name(places).as_ref())
}

/// The same where the name of the space is known already.
pub(super) fn scoped_in(ip: IpAddr, space: Option<&Name>) -> String {
    match space {
        Some(name) => format!("{name}/{ip}"),
        None => ip.to_string(),
    }
}

/// The same for a party.
pub(super) fn scoped_party(party: &Party, places: &Places) -> String {
    scoped(party.ip, Space::of(party, places), places)
}

/// Id of the secretariat of a party.
pub(super) fn secretariat_of(party: &Party, places: &Places) -> Option<Name> {
    party.secretariat.and_then(|secretariat| places.secretariat_name(secretariat)).cloned()
}

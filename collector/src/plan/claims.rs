//! The claims of a plan, people's and imported, by filters: as `plan show`, the API and the page list them.

use ipnet::IpNet;
use onenet_core::plan::{AddressPlan, PlannedAddress, Prefix, PrefixStatus};
use serde::Serialize;

use crate::search::Within;

/// What claims are to be like; a condition that is not stated holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClaimFilter {
    /// In this prefix, or holding it.
    pub(crate) within: Option<Within>,
    /// Of this secretariat.
    pub(crate) secretariat: Option<String>,
    /// In this address space.
    pub(crate) address_space: Option<String>,
    /// Of this status.
    pub(crate) status: Option<PrefixStatus>,
}

/// One claim as it is listed.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ListedClaim {
    pub(crate) claim: String,
    pub(crate) address_space: String,
    pub(crate) secretariat: String,
    pub(crate) agency: String,
    pub(crate) status: String,
    pub(crate) role: String,
    pub(crate) contact: String,
    pub(crate) description: String,
}

/// Rows that are passed over, and rows at most.
pub(crate) type Rows = (usize, usize);

impl ClaimFilter {
    fn takes(&self, plan: &AddressPlan, net: IpNet, secretariat: &str, status: PrefixStatus) -> bool {
        let in_space = |space: &str| {
            plan.secretariat(secretariat).is_some_and(|owner| **owner.address_space() == *space)
        };
        self.within.as_ref().is_none_or(|Within(within)| within.contains(&net) || net.contains(within))
            && self.secretariat.as_deref().is_none_or(|id| id == secretariat)
            && self.status.is_none_or(|wanted| wanted == status)
            && self.address_space.as_deref().is_none_or(in_space)
    }
}

/// Prefixes, by first address and then the wider first.
pub(crate) fn prefixes(plan: &AddressPlan, filter: &ClaimFilter, (skip, take): Rows) -> Vec<ListedClaim> {
    let wanted = |prefix: &&Prefix| filter.takes(plan, prefix.cidr, &prefix.secretariat, prefix.status);
    let mut prefixes: Vec<&Prefix> = plan.prefixes.iter().filter(wanted).collect();
    prefixes.sort_by_key(|prefix| (prefix.cidr.network(), prefix.cidr.prefix_len()));
    let listed = |prefix: &Prefix| {
        ListedClaim::new(plan, prefix.cidr.to_string(), &prefix.secretariat, prefix.agency.as_deref())
            .with(prefix.status, prefix.description.as_deref())
    };
    prefixes.into_iter().skip(skip).take(take).map(listed).collect()
}

/// Addresses, in their order.
pub(crate) fn addresses(plan: &AddressPlan, filter: &ClaimFilter, (skip, take): Rows) -> Vec<ListedClaim> {
    let wanted = |claim: &&PlannedAddress| {
        filter.takes(plan, IpNet::from(claim.address), &claim.secretariat, claim.status)
    };
    let mut addresses: Vec<&PlannedAddress> = plan.addresses.iter().filter(wanted).collect();
    addresses.sort_by_key(|address| address.address);
    let listed = |address: &PlannedAddress| ListedClaim {
        role: address.role.map_or_else(String::new, |role| role.to_string()),
        ..ListedClaim::new(plan, address.address.to_string(), &address.secretariat, address.agency.as_deref())
            .with(address.status, address.description.as_deref())
    };
    addresses.into_iter().skip(skip).take(take).map(listed).collect()
}

impl ListedClaim {
    fn new(plan: &AddressPlan, claim: String, secretariat: &str, agency: Option<&str>) -> Self {
        let owner = plan.secretariat(secretariat);
        let of_agency = agency.and_then(|agency| plan.agency(secretariat, agency)?.contact.as_ref());
        let contact = of_agency.or_else(|| owner?.contact.as_ref());
        Self {
            claim,
            address_space: owner.map_or_else(String::new, |owner| owner.address_space().to_string()),
            secretariat: secretariat.to_owned(),
            agency: agency.unwrap_or_default().to_owned(),
            status: String::new(),
            role: String::new(),
            contact: contact.map_or_else(String::new, ToString::to_string),
            description: String::new(),
        }
    }

    fn with(self, status: PrefixStatus, description: Option<&str>) -> Self {
        let description = description.unwrap_or_default().to_owned();
        Self { status: status.to_string(), description, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_filtered_by_each_condition_and_paged_in_their_order() {
        let plan: AddressPlan = toml::from_str(
            "[[secretariat]]\nid = 'eohhs'\naddress_space = 'health'\ncontact = 'a@b'\n[[secretariat]]\nid = 'massdot'\n\
             [[prefix]]\ncidr = '10.2.0.0/16'\nsecretariat = 'massdot'\nstatus = 'reserved'\n\
             [[prefix]]\ncidr = '10.1.0.0/16'\nsecretariat = 'eohhs'\n\
             [[prefix]]\ncidr = '10.1.2.0/24'\nsecretariat = 'massdot'\n\
             [[address]]\naddress = '10.1.2.9'\nsecretariat = 'eohhs'\nrole = 'vip'\n\
             [[address]]\naddress = '10.1.2.1'\nsecretariat = 'eohhs'\n",
        )
        .expect("a plan");
        let all = (0, usize::MAX);
        let claims = |filter: &ClaimFilter, rows| {
            prefixes(&plan, filter, rows).into_iter().map(|claim| claim.claim).collect::<Vec<_>>()
        };
        let any = ClaimFilter::default();
        assert_eq!(claims(&any, all), ["10.1.0.0/16", "10.1.2.0/24", "10.2.0.0/16"]);
        assert_eq!(claims(&any, (1, 1)), ["10.1.2.0/24"]);
        let within = |text: &str| Some(text.parse().expect("a prefix"));
        let filter = ClaimFilter { within: within("10.1.2.7"), ..ClaimFilter::default() };
        assert_eq!(claims(&filter, all), ["10.1.0.0/16", "10.1.2.0/24"]);
        let filter = ClaimFilter { secretariat: Some("massdot".into()), ..filter };
        assert_eq!(claims(&filter, all), ["10.1.2.0/24"]);
        let filter = ClaimFilter { address_space: Some("health".into()), ..ClaimFilter::default() };
        assert_eq!(claims(&filter, all), ["10.1.0.0/16"]);
        let filter = ClaimFilter { status: Some(PrefixStatus::Reserved), ..ClaimFilter::default() };
        assert_eq!(claims(&filter, all), ["10.2.0.0/16"]);
        let listed = addresses(&plan, &any, all);
        let told: Vec<_> = listed.iter().map(|a| (&*a.claim, &*a.role, &*a.contact)).collect();
        assert_eq!(told, [("10.1.2.1", "", "a@b"), ("10.1.2.9", "vip", "a@b")]);
        assert_eq!(addresses(&plan, &filter, all), []);
    }
}

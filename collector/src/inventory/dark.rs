//! Claims of the plan in which no address was in use of late: addresses that may be given back, or a sensor that does not
//! see them.

use std::sync::Arc;

use ipnet::IpNet;
use onenet_core::{net::Name, plan::PrefixStatus, time::Timestamp};
use onenet_proto::config::{ConfigError, read_plan};
use rusqlite::Connection;
use serde::Serialize;

use crate::{
    config::Config,
    correlate::{self, Judge},
    render::moment,
    store::{control_inventory, inventory_sweep},
};

/// One claim in which nothing was in use.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct DarkClaim {
    /// The prefix.
    pub(crate) cidr: IpNet,
    /// Where it is meant to be unique.
    pub(crate) address_space: Name,
    /// Whose.
    pub(crate) secretariat: Name,
    /// Whom to call.
    pub(crate) contact: Option<Name>,
    /// What for.
    pub(crate) status: PrefixStatus,
}

/// Which claims are asked for. What is not stated does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DarkFilter {
    /// The claim lies in this prefix, or holds it.
    pub(crate) within: Option<IpNet>,
    /// Its address space.
    pub(crate) address_space: Option<String>,
    /// Whose.
    pub(crate) secretariat: Option<String>,
}

/// Dark claims, and how far that can be told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Dark {
    /// The claims, in the order of the plan; none as long as nothing was observed for long enough.
    pub(crate) items: Vec<DarkClaim>,
    /// Days without a use.
    pub(crate) dark_days: u32,
    /// Since when anything was observed.
    pub(crate) observed_since: Option<Timestamp>,
    /// Whether that is long enough to tell.
    pub(crate) long_enough: bool,
}

impl Dark {
    /// What is to be said where nothing can be told yet.
    pub(crate) fn note(&self) -> Option<String> {
        let days = self.dark_days;
        match self.observed_since {
            _ if self.long_enough => None,
            Some(since) => Some(format!(
                "observed only since {}; a claim is dark after {days} days without a use",
                moment(since)
            )),
            None => {
                Some(format!("nothing was observed yet; a claim is dark after {days} days without a use"))
            }
        }
    }
}

/// The plan that the configuration names, ready to judge by.
pub(crate) fn judge(config: &Config) -> Result<Judge, ConfigError> {
    let (plan, _) = read_plan(&config.plan.file)?;
    Ok(Judge::new(Arc::new(plan), config.inventory.clone()))
}

/// The claims that are dark. Time is that of packets, so that a replay tells what the wire told; `now` counts only where
/// nothing was observed.
pub(crate) fn claims(
    connection: &Connection,
    judge: &Judge,
    filter: &DarkFilter,
    now: Timestamp,
) -> Result<Dark, rusqlite::Error> {
    let observed_since = inventory_sweep::last_sweep(connection)?.and_then(|sweep| sweep.began);
    let now = control_inventory::latest(connection)?.unwrap_or(now);
    let dark_from = now.plus(judge.config.dark().saturating_neg());
    let long_enough = observed_since.is_some_and(|since| since <= dark_from);
    let dark = if long_enough { correlate::dark_claims(connection, judge, now)? } else { Vec::new() };
    let is_asked_for = |claim: &&onenet_core::ipam::Claim| {
        let is_there = |within: IpNet| within.contains(&claim.cidr) || claim.cidr.contains(&within);
        let is = |wanted: &Option<String>, is: &Name| wanted.as_ref().is_none_or(|wanted| **wanted == **is);
        filter.within.is_none_or(is_there)
            && is(&filter.address_space, &claim.address_space)
            && is(&filter.secretariat, &claim.secretariat)
    };
    let item = |claim: &onenet_core::ipam::Claim| DarkClaim {
        cidr: claim.cidr,
        address_space: claim.address_space.clone(),
        secretariat: claim.secretariat.clone(),
        contact: judge.plan.secretariat(&claim.secretariat).and_then(|owner| owner.contact.clone()),
        status: claim.status,
    };
    Ok(Dark {
        items: dark.into_iter().filter(is_asked_for).map(item).collect(),
        dark_days: judge.config.dark_days,
        observed_since,
        long_enough,
    })
}

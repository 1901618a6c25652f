//! What the correlator judges by: the plan, compiled once, and the settings of the inventory.

use std::sync::Arc;

use onenet_core::{
    findings::Desk,
    ipam::{Claims, classify},
    net::Name,
    plan::{AddressPlan, ExemptionQuery},
    record::RuleId,
    time::Timestamp,
};

use crate::{
    ca::{hex, sha256},
    config::InventoryConfig,
    store::control_inventory::InventoryEntry,
};

/// The plan and the settings, ready to judge by.
#[derive(Debug)]
pub(crate) struct Judge {
    /// The plan.
    pub(crate) plan: Arc<AddressPlan>,
    /// Exemptions, shared addresses and contacts. What the collector finds belongs to no one site.
    pub(crate) desk: Desk,
    /// Who claims what.
    pub(crate) claims: Claims,
    /// The settings.
    pub(crate) config: InventoryConfig,
    /// What tells this plan and these settings from others.
    pub(crate) identity: String,
}

impl Judge {
    /// Compiles a plan.
    pub(crate) fn new(plan: Arc<AddressPlan>, config: InventoryConfig) -> Self {
        // A plan is plain data, which JSON can always hold.
        let text = serde_json::to_vec(&(&*plan, &config)).unwrap_or_default();
        let identity = hex(&sha256(&text));
        let (desk, claims) = (Desk::new(Name::from(""), Arc::clone(&plan)), Claims::new(&plan));
        Self { plan, desk, claims, config, identity }
    }

    /// Whether an entry can be one side of an overlap: a use of a private address that the plan places.
    pub(crate) fn may_overlap(entry: &InventoryEntry) -> bool {
        entry.in_use() && entry.secretariat.is_some() && classify(entry.address).is_private()
    }

    /// Whether the plan exempts an address from a rule.
    pub(crate) fn is_exempt(&self, rule: RuleId, address: std::net::IpAddr) -> bool {
        self.desk.is_exempt(&ExemptionQuery { rule, source: Some(address), destination: None, port: None })
    }

    /// The moment from which on a use counts.
    pub(crate) const fn horizon(&self, now: Timestamp) -> Timestamp {
        now.plus(self.config.window().saturating_neg())
    }
}

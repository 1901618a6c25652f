//! The address plan over the API: what the collector goes by, and the version of it that sensors are sent.

use std::sync::Arc;

use axum::{Json, Router, extract::State, http::Uri, routing::get};
use onenet_core::{
    net::Name,
    plan::{AddressPlan, Agency, Secretariat},
    time::Timestamp,
};
use serde::Serialize;
use tokio::sync::watch;

use super::{Answer, Page, Problem, Query};
use crate::{
    audit::Hex,
    config::InventoryConfig,
    plan::{
        check::{self, OverlappingClaims},
        claims::{self, ClaimFilter, ListedClaim, Rows},
    },
    store::{Store, StoreError, plans},
};

/// The plan as the collector goes by it, its store, and how long a use counts.
#[derive(Clone)]
pub(crate) struct Planned {
    pub(crate) store: Store,
    pub(crate) plan: watch::Receiver<Arc<AddressPlan>>,
    pub(crate) inventory: InventoryConfig,
}

impl Planned {
    /// The plan now.
    pub(crate) fn now(&self) -> Arc<AddressPlan> {
        Arc::clone(&self.plan.borrow())
    }

    /// Runs blocking work on the plan off the executor: it may have a million claims.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store, &AddressPlan) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let plan = self.now();
        self.store.call(move |store| work(store, &plan)).await
    }
}

/// The routes below `/api/v1/plan`.
pub(super) fn router(planned: Planned) -> Router {
    Router::new()
        .route("/plan", get(plan))
        .route("/plan/prefixes", get(prefixes))
        .route("/plan/addresses", get(addresses))
        .route("/plan/overlaps", get(overlaps))
        .with_state(planned)
}

/// A secretariat with its agencies and how much it claims.
#[derive(Debug, Serialize)]
pub(crate) struct SecretariatView {
    pub(crate) id: Name,
    pub(crate) name: Option<Name>,
    pub(crate) contact: Option<Name>,
    pub(crate) address_space: Name,
    pub(crate) agencies: Vec<AgencyView>,
    pub(crate) prefixes: usize,
    pub(crate) addresses: usize,
    pub(crate) segments: usize,
}

/// An agency with whom to call.
#[derive(Debug, Serialize)]
pub(crate) struct AgencyView {
    pub(crate) id: Name,
    name: Option<Name>,
    owner: Option<Name>,
    contact: Option<Name>,
}

/// The plan in short.
#[derive(Debug, Serialize)]
pub(crate) struct PlanView {
    /// The latest version that was issued; this and the next are none before the first.
    pub(crate) version: Option<u64>,
    pub(crate) time: Option<Timestamp>,
    pub(crate) sha256: Option<Hex>,
    pub(crate) bytes: Option<u64>,
    pub(crate) sent: Option<bool>,
    pub(crate) secretariats: Vec<SecretariatView>,
    pub(crate) prefixes: usize,
    pub(crate) addresses: usize,
    pub(crate) segments: usize,
    pub(crate) public: usize,
    pub(crate) exemptions: usize,
}

impl PlanView {
    pub(crate) fn read(store: &Store, plan: &AddressPlan) -> Result<Self, StoreError> {
        let latest = store.read(plans::latest)?;
        let latest = latest.as_ref();
        Ok(Self {
            version: latest.map(|latest| latest.version),
            time: latest.map(|latest| latest.time),
            sha256: latest.map(|latest| latest.sha256.clone()),
            bytes: latest.map(|latest| latest.bytes),
            sent: latest.map(|latest| latest.sent),
            secretariats: plan.secretariats.iter().map(|owner| SecretariatView::of(plan, owner)).collect(),
            prefixes: plan.prefixes.len(),
            addresses: plan.addresses.len(),
            segments: plan.segments.len(),
            public: plan.public.len(),
            exemptions: plan.exemptions.len(),
        })
    }
}

impl SecretariatView {
    fn of(plan: &AddressPlan, owner: &Secretariat) -> Self {
        let agency = |agency: &Agency| AgencyView {
            id: agency.id.clone(),
            name: agency.name.clone(),
            owner: agency.owner.clone(),
            contact: agency.contact.clone(),
        };
        let is_its = |secretariat: &Name| *secretariat == owner.id;
        Self {
            id: owner.id.clone(),
            name: owner.name.clone(),
            contact: owner.contact.clone(),
            address_space: owner.address_space().clone(),
            agencies: plan.agencies.iter().filter(|each| is_its(&each.secretariat)).map(agency).collect(),
            prefixes: plan.prefixes.iter().filter(|prefix| is_its(&prefix.secretariat)).count(),
            addresses: plan.addresses.iter().filter(|address| is_its(&address.secretariat)).count(),
            segments: plan.segments.iter().filter(|segment| is_its(&segment.secretariat)).count(),
        }
    }
}

async fn plan(State(planned): State<Planned>, uri: Uri) -> Answer<PlanView> {
    Query::of(&uri)?.finish()?;
    Ok(Json(planned.call(PlanView::read).await?))
}

/// Lists claims of one kind.
async fn listed(
    planned: &Planned,
    uri: &Uri,
    list: fn(&AddressPlan, &ClaimFilter, Rows) -> Vec<ListedClaim>,
) -> Answer<Page<ListedClaim>> {
    let mut query = Query::of(uri)?;
    let (filter, window) = (query.claims()?, query.window(100)?);
    query.finish()?;
    let items = planned.call(move |_, plan| Ok(list(plan, &filter, window.rows()))).await?;
    Ok(Json(Page::of(items, window)))
}

async fn prefixes(State(planned): State<Planned>, uri: Uri) -> Answer<Page<ListedClaim>> {
    listed(&planned, &uri, claims::prefixes).await
}

async fn addresses(State(planned): State<Planned>, uri: Uri) -> Answer<Page<ListedClaim>> {
    listed(&planned, &uri, claims::addresses).await
}

#[derive(Serialize)]
struct Overlaps {
    #[serde(flatten)]
    page: Page<OverlappingClaims>,
    /// Pairs that there are beyond those that are listed at most.
    unlisted: usize,
}

async fn overlaps(State(planned): State<Planned>, uri: Uri) -> Result<Json<Overlaps>, Problem> {
    let mut query = Query::of(&uri)?;
    let window = query.window(100)?;
    query.finish()?;
    let (pairs, unlisted) = planned.call(|_, plan| Ok(check::overlaps(plan))).await?;
    let (skip, take) = window.rows();
    let items = pairs.into_iter().skip(skip).take(take).collect();
    Ok(Json(Overlaps { page: Page::of(items, window), unlisted }))
}

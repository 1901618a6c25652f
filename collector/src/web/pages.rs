//! The pages: read, shape, render.

use askama::Template;
use axum::{
    extract::{Path, State},
    http::{StatusCode, Uri},
    response::{Html, IntoResponse, Response},
};
use onenet_core::record::{FindingId, RuleId};

use super::view::{
    ChangeRow, Choice, EventRow, FindingDetailView, FindingRow, FlowRow, GroundsView, OverlapRow, PageHead,
    Pages, SensorCard, number,
};
use crate::{
    api::{FindingDetail, Page, Problem, Query, SensorView, Window},
    correlate::State as FindingState,
    overlaps::{self as overlap_list, Grounds},
    sensors,
    store::{
        FlowQuery, Store, StoreError,
        control_findings::{self, FindingFilter},
        control_inventory, control_losses,
        control_overlaps::{self, OverlapFilter},
    },
};

/// Rows of each list on the overview.
const OVERVIEW_ROWS: u32 = 10;
/// Events of sensors that are shown, the latest first.
const EVENTS: usize = 100;
/// Rows of a list on its own page.
pub(super) const ROWS: u32 = 50;

/// A rendered page, or the page that says what went wrong.
pub(super) fn shown(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page cannot be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[derive(Template)]
#[template(path = "fault.html")]
struct Fault {
    page: PageHead,
    fault: String,
}

pub(super) fn fault(problem: &Problem) -> Response {
    let page = PageHead::new("", None);
    shown(problem.status(), &Fault { page, fault: problem.detail().to_owned() })
}

/// The status of a page whose form could or could not be read.
pub(super) fn status(fault: Option<&Problem>) -> StatusCode {
    fault.map_or(StatusCode::OK, Problem::status)
}

/// The answer to a path that leads nowhere.
pub(super) async fn nothing() -> Response {
    fault(&Problem::not_found("There is no such page."))
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    page: PageHead,
    open_findings: String,
    by_severity: Vec<(&'static str, String)>,
    overlapping: String,
    addresses: String,
    address_spaces: String,
    flows: String,
    packets: String,
    sensors: Vec<SensorCard>,
    findings: Vec<FindingRow>,
    overlaps: Vec<OverlapRow>,
}

impl Overview {
    fn read(store: &Store, refresh: Option<u32>) -> Result<Self, StoreError> {
        let open = FindingFilter { state: Some(FindingState::Open), ..FindingFilter::default() };
        let overlapping = OverlapFilter { state: Some(FindingState::Open), ..OverlapFilter::default() };
        let status = sensors::status(store)?;
        store.read(|connection| {
            let losses = control_losses::totals(connection)?;
            let counts = control_findings::count(connection, &open)?;
            let overlaps = control_overlaps::count(connection, &overlapping)?;
            let (addresses, address_spaces) = control_inventory::count(connection)?;
            let findings = control_findings::findings(connection, &open, OVERVIEW_ROWS, 0)?;
            let listed = overlap_list::overlaps(connection, &overlapping, OVERVIEW_ROWS, 0)?;
            let wire = |sensor: &sensors::SensorStatus| {
                sensor.ledger.packets.saturating_add(sensor.ledger.dropped_total())
            };
            let sum = |counts: &[(_, u64)]| counts.iter().map(|(_, count)| count).sum::<u64>();
            Ok(Self {
                page: PageHead::new("/", refresh),
                open_findings: number(sum(&counts)),
                by_severity: counts.iter().map(|(severity, n)| (severity.as_str(), number(*n))).collect(),
                overlapping: number(overlaps),
                addresses: number(addresses),
                address_spaces: number(address_spaces),
                flows: number(status.iter().map(|sensor| sensor.flows).sum()),
                packets: number(status.iter().map(wire).sum()),
                sensors: status
                    .iter()
                    .map(|sensor| SensorCard::new(&SensorView::new(sensor.clone(), &losses)))
                    .collect(),
                findings: findings.iter().map(FindingRow::new).collect(),
                overlaps: listed.iter().map(OverlapRow::new).collect(),
            })
        })
    }
}

/// Sensors with their account, and the worst of what is open.
pub(super) async fn overview(State(store): State<Store>, uri: Uri) -> Response {
    let refresh = Query::of(&uri).and_then(|mut query| query.take::<u32>("refresh"));
    let refresh = refresh.ok().flatten().map(|seconds| seconds.clamp(2, 3_600));
    match store.call(move |store| Overview::read(store, refresh)).await {
        Ok(page) => shown(StatusCode::OK, &page),
        Err(error) => fault(&error.into()),
    }
}

#[derive(Template)]
#[template(path = "sensors.html")]
struct Sensors {
    page: PageHead,
    sensors: Vec<SensorCard>,
    events: Vec<EventRow>,
}

/// Sensors with their account, and what happened to them.
pub(super) async fn sensors(State(store): State<Store>) -> Response {
    let read = |store: &Store| {
        let status = sensors::status(store)?;
        let losses = store.read(control_losses::totals)?;
        let events = store.events(None, EVENTS)?;
        let card = |sensor| SensorCard::new(&SensorView::new(sensor, &losses));
        Ok(Sensors {
            page: PageHead::new("/sensors", None),
            sensors: status.into_iter().map(card).collect(),
            events: events.iter().map(EventRow::new).collect(),
        })
    };
    match store.call(read).await {
        Ok(page) => shown(StatusCode::OK, &page),
        Err(error) => fault(&error.into()),
    }
}

/// The rows that a page's form asks for, and what is wrong with the form.
pub(super) fn form<F: Default>(
    uri: &Uri,
    read: impl FnOnce(&mut Query) -> Result<F, Problem>,
) -> (F, Window, Option<Problem>) {
    let filters = |uri| {
        let mut query = Query::of(uri)?;
        let asked = (read(&mut query)?, query.window(ROWS)?);
        query.finish()?;
        Ok(asked)
    };
    match filters(uri) {
        Ok((filter, window)) => (filter, window, None),
        Err(problem) => (F::default(), Window { limit: ROWS, offset: 0 }, Some(problem)),
    }
}

/// The value of a parameter as it was typed, to be shown in the form again.
pub(super) fn typed(uri: &Uri, name: &'static str) -> String {
    let value = Query::of(uri).and_then(|mut query| query.take::<String>(name));
    value.ok().flatten().unwrap_or_default()
}

/// The query string of a request without `limit` and `offset`, as it was sent, ending in `&` where not empty.
pub(super) fn filters(uri: &Uri) -> String {
    let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let kept = pairs.filter(|pair| !pair.starts_with("limit=") && !pair.starts_with("offset="));
    kept.flat_map(|pair| [pair, "&"]).collect()
}

#[derive(Template)]
#[template(path = "findings.html")]
struct Findings {
    page: PageHead,
    fault: Option<String>,
    states: Vec<Choice>,
    rules: Vec<Choice>,
    site: String,
    secretariat: String,
    findings: Vec<FindingRow>,
    pages: Pages,
}

/// Findings by state, rule, site and secretariat.
pub(super) async fn findings(State(store): State<Store>, uri: Uri) -> Response {
    let (filter, window, problem) = form(&uri, Query::findings);
    let (state, rule) = (filter.state, filter.rule);
    let read = move |store: &Store| {
        store.read(|connection| {
            control_findings::findings(connection, &filter, window.one_more(), window.offset)
        })
    };
    let found = match store.call(read).await {
        Ok(found) => Page::of(found, window),
        Err(error) => return fault(&error.into()),
    };
    let choice = |value, name, selected| Choice { value, name, selected };
    let states = [FindingState::Open, FindingState::Closed];
    let states = states.map(|each| choice(each.as_str(), each.as_str(), state == Some(each)));
    let rules = RuleId::ALL.iter().map(|each| choice(each.as_str(), each.as_str(), rule == Some(*each)));
    let rows: Vec<FindingRow> = found.items.iter().map(FindingRow::new).collect();
    let template = Findings {
        page: PageHead::new("/findings", None),
        fault: problem.as_ref().map(|problem| problem.detail().to_owned()),
        states: [choice("", "any", state.is_none())].into_iter().chain(states).collect(),
        rules: [choice("", "any", rule.is_none())].into_iter().chain(rules).collect(),
        site: typed(&uri, "site"),
        secretariat: typed(&uri, "secretariat"),
        pages: Pages::new("/findings", &filters(&uri), window, rows.len(), found.next_offset),
        findings: rows,
    };
    shown(status(problem.as_ref()), &template)
}

#[derive(Template)]
#[template(path = "finding.html")]
struct Finding {
    page: PageHead,
    f: FindingDetailView,
    grounds: GroundsView,
    changes: Vec<ChangeRow>,
}

/// One finding with its evidence and its life.
pub(super) async fn finding(State(store): State<Store>, Path(id): Path<String>) -> Response {
    let unknown = || Problem::not_found("There is no such finding.");
    let Ok(id) = id.parse::<FindingId>() else { return fault(&unknown()) };
    let read = move |store: &Store| {
        store.read(|connection| {
            let Some(detail) = FindingDetail::read(connection, id)? else { return Ok(None) };
            let grounds = Grounds::read(connection, &detail.finding)?;
            Ok(Some((detail, grounds)))
        })
    };
    match store.call(read).await {
        Ok(Some((detail, grounds))) => {
            let changes = detail.changes.iter().map(ChangeRow::new).collect();
            let f = FindingDetailView::new(&detail.finding);
            let grounds = GroundsView::new(&grounds);
            shown(StatusCode::OK, &Finding { page: PageHead::new("/findings", None), f, grounds, changes })
        }
        Ok(None) => fault(&unknown()),
        Err(error) => fault(&error.into()),
    }
}

/// The form of the flow search as it was typed.
struct FlowForm {
    address: String,
    port: String,
    protocol: String,
    from: String,
    to: String,
    sensor: String,
    limit: String,
}

#[derive(Template)]
#[template(path = "flows.html")]
struct Flows {
    page: PageHead,
    fault: Option<String>,
    form: FlowForm,
    rows: Vec<FlowRow>,
    note: String,
    next: Option<String>,
}

/// The flow search.
pub(super) async fn flows(State(store): State<Store>, uri: Uri) -> Response {
    let asked = Query::of(&uri).and_then(|mut query| {
        let search = query.flows()?;
        query.finish()?;
        Ok(search)
    });
    let (search, problem) = match asked {
        Ok(search) => (Some(search), None),
        Err(problem) => (None, Some(problem)),
    };
    let read = move |store: &Store| search.map(|search: FlowQuery| store.flows(&search)).transpose();
    let found = match store.call(read).await {
        Ok(found) => found.unwrap_or_default(),
        Err(error) => return fault(&error.into()),
    };
    let kept = filters(&uri);
    let others: String = kept.split_inclusive('&').filter(|pair| !pair.starts_with("after=")).collect();
    let limit = typed(&uri, "limit");
    let next = found.next.map(|next| {
        let limit = if limit.is_empty() { String::new() } else { format!("limit={}&", found.flows.len()) };
        format!("/flows?{others}{limit}after={next}")
    });
    let template = Flows {
        page: PageHead::new("/flows", None),
        fault: problem.as_ref().map(|problem| problem.detail().to_owned()),
        form: FlowForm {
            address: typed(&uri, "address"),
            port: typed(&uri, "port"),
            protocol: typed(&uri, "protocol"),
            from: typed(&uri, "from"),
            to: typed(&uri, "to"),
            sensor: typed(&uri, "sensor"),
            limit,
        },
        note: match found.flows.len() {
            0 => String::new(),
            1 => "1 flow record. Packets and bytes are originator / responder; bytes are of IP.".to_owned(),
            rows => {
                format!("{rows} flow records. Packets and bytes are originator / responder; bytes are of IP.")
            }
        },
        rows: found.flows.iter().map(FlowRow::new).collect(),
        next,
    };
    shown(status(problem.as_ref()), &template)
}

//! The query string of a request, read parameter by parameter. An empty parameter, as a form sends it, is not
//! stated; one that nobody asked for is an error, so that a misspelt filter cannot pass as "everything".

use std::{fmt::Display, str::FromStr};

use axum::{extract::Query as Pairs, http::Uri};
use onenet_core::{plan::PrefixStatus, record::FlowId, time::Timestamp};

use super::Problem;
use crate::{
    findings,
    inventory::{self, dark::DarkFilter},
    overlaps::{self, Layer, Layers},
    plan::claims::ClaimFilter,
    search::{Moment, Protocol, Within},
    store::{
        FlowCursor, FlowQuery,
        control_findings::FindingFilter,
        control_overlaps::OverlapFilter,
        inventory_list::{InventoryFilter, InventoryKey},
    },
};

/// Rows that a page may hold.
const MAX_LIMIT: u32 = 1_000;
/// Rows that may be passed over: what lies deeper is found by filters.
const MAX_OFFSET: u32 = 1_000_000;

/// The parameters of a request that are not read yet.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
    known: Vec<&'static str>,
}

/// Which rows of a result are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Rows at most.
    pub(crate) limit: u32,
    /// Rows passed over.
    pub(crate) offset: u32,
}

impl Window {
    /// The same of a list in memory: rows passed over, and one more than is shown.
    pub(crate) const fn rows(self) -> (usize, usize) {
        (self.offset as usize, self.one_more() as usize)
    }

    /// One row more than is shown, by which a next page is known to exist.
    pub(crate) const fn one_more(self) -> u32 {
        self.limit.saturating_add(1)
    }
}

impl Query {
    /// The parameters of a request.
    pub(crate) fn of(uri: &Uri) -> Result<Self, Problem> {
        let pairs: Pairs<Vec<(String, String)>> = Pairs::try_from_uri(uri)
            .map_err(|error| Problem::bad_request(format!("the query string cannot be read: {error}")))?;
        Ok(Self { pairs: pairs.0, known: Vec::new() })
    }

    /// Reads one parameter.
    pub(crate) fn take<T>(&mut self, name: &'static str) -> Result<Option<T>, Problem>
    where
        T: FromStr,
        T::Err: Display,
    {
        self.take_by(name, |text| text.parse().map_err(|error: T::Err| error.to_string()))
    }

    fn take_by<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Problem> {
        self.known.push(name);
        let Some(at) = self.pairs.iter().position(|(key, _)| key == name) else { return Ok(None) };
        let (_, text) = self.pairs.remove(at);
        match text.trim() {
            "" => Ok(None),
            text => read(text).map(Some).map_err(|error| Problem::bad_request(format!("{name}: {error}"))),
        }
    }

    /// The error for a parameter that nobody read.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        let Some((name, _)) = self.pairs.first() else { return Ok(()) };
        let problem = if self.known.contains(&name.as_str()) {
            format!("{name}: stated twice")
        } else if self.known.is_empty() {
            format!("{name}: unknown parameter; none is expected here")
        } else {
            format!("{name}: unknown parameter, expected one of {}", self.known.join(", "))
        };
        Err(Problem::bad_request(problem))
    }

    /// `limit` and `offset`.
    pub(crate) fn window(&mut self, default: u32) -> Result<Window, Problem> {
        let limit = self.take_by("limit", |text| within(text, 1, MAX_LIMIT))?.unwrap_or(default);
        let offset = self.take_by("offset", |text| within(text, 0, MAX_OFFSET))?.unwrap_or(0);
        Ok(Window { limit, offset })
    }

    /// The filters of findings.
    pub(crate) fn findings(&mut self) -> Result<FindingFilter, Problem> {
        Ok(FindingFilter {
            state: self.take("state")?,
            rule: self.take("rule")?,
            site: self.take("site")?,
            secretariat: self.take("secretariat")?,
            severity: self.take_by("severity", findings::severity)?,
        })
    }

    /// The filters of overlaps.
    pub(crate) fn overlaps(&mut self) -> Result<OverlapFilter, Problem> {
        let layers = self.take::<Layers>("layer")?.map(|layers| layers.0).unwrap_or_default();
        Ok(OverlapFilter {
            state: self.take("state")?,
            rules: layers.into_iter().map(Layer::rule).collect(),
            verdict: self.take_by("verdict", overlaps::verdict)?,
            within: self.take::<Within>("within")?.map(|within| within.0),
            secretariat: self.take("secretariat")?,
            address_space: self.take("address_space")?,
            site: self.take("site")?,
        })
    }

    /// The filters of the inventory. `now` is what `seen_within` counts from.
    pub(crate) fn inventory(&mut self, now: Timestamp) -> Result<InventoryFilter, Problem> {
        let since = self.take::<Moment>("since")?.map(|moment| moment.0);
        let days = self.take_by("seen_within", |text| within(text, 1, 36_500))?;
        if since.is_some() && days.is_some() {
            return Err(Problem::bad_request("seen_within: since is stated too, and says the same"));
        }
        Ok(InventoryFilter {
            within: self.take::<Within>("within")?.map(|within| within.0),
            address_space: self.take("address_space")?,
            secretariat: self.take("secretariat")?,
            site: self.take("site")?,
            segment: self.take("segment")?,
            strength: self.take_by("strength", inventory::strength)?,
            standing: self.take("standing")?,
            since: since.or_else(|| days.map(|days| inventory::days_before(now, days))),
            until: self.take::<Moment>("until")?.map(|moment| moment.0),
        })
    }

    /// The filters of dark claims.
    pub(crate) fn dark(&mut self) -> Result<DarkFilter, Problem> {
        Ok(DarkFilter {
            within: self.take::<Within>("within")?.map(|within| within.0),
            address_space: self.take("address_space")?,
            secretariat: self.take("secretariat")?,
        })
    }

    /// `limit` and `after` of the inventory.
    pub(crate) fn key(&mut self, default: u32) -> Result<(u32, Option<InventoryKey>), Problem> {
        let limit = self.take_by("limit", |text| within(text, 1, MAX_LIMIT))?.unwrap_or(default);
        Ok((limit, self.take("after")?))
    }

    /// The filters of the plan's claims.
    pub(crate) fn claims(&mut self) -> Result<ClaimFilter, Problem> {
        Ok(ClaimFilter {
            within: self.take("within")?,
            secretariat: self.take("secretariat")?,
            address_space: self.take("address_space")?,
            status: self.take_by("status", prefix_status)?,
        })
    }

    /// The filters of flows, with `limit` and `after`.
    pub(crate) fn flows(&mut self) -> Result<FlowQuery, Problem> {
        Ok(FlowQuery {
            from: self.take::<Moment>("from")?.map(|moment| moment.0),
            to: self.take::<Moment>("to")?.map(|moment| moment.0),
            address: self.take::<Within>("address")?.map(|within| within.0),
            peer: self.take::<Within>("peer")?.map(|within| within.0),
            port: self.take_by("port", |text| {
                text.parse().map_err(|_| format!("{text:?}, expected a port from 0 to 65535"))
            })?,
            protocol: self.take::<Protocol>("protocol")?.map(|protocol| protocol.0),
            sensor: self.take("sensor")?,
            site: self.take("site")?,
            secretariat: self.take("secretariat")?,
            flow_id: self.take::<FlowId>("flow_id")?,
            community_id: self.take("community_id")?,
            limit: self.take_by("limit", |text| within(text, 1, MAX_LIMIT))?.unwrap_or(100) as usize,
            after: self.take::<FlowCursor>("after")?,
        })
    }
}

fn within(text: &str, low: u32, high: u32) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (low..=high).contains(number));
    number.ok_or_else(|| format!("{text:?}, expected a number from {low} to {high}"))
}

fn prefix_status(text: &str) -> Result<PrefixStatus, String> {
    let known = PrefixStatus::ALL.iter().find(|status| status.as_str() == text).copied();
    let names = || PrefixStatus::ALL.iter().map(|status| status.as_str()).collect::<Vec<_>>().join(", ");
    known.ok_or_else(|| format!("{text:?}, expected one of {}", names()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &'static str) -> Query {
        Query::of(&Uri::from_static(text)).expect("the query reads")
    }

    #[test]
    fn an_empty_parameter_is_not_stated() {
        let mut query = query("/flows?address=&port=&limit=5");
        let search = query.flows().expect("it reads");
        assert_eq!((search.address, search.port, search.limit), (None, None, 5));
        assert_eq!(query.finish(), Ok(()));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_parameter() {
        for (text, expected) in [
            ("/?port=70000", "port: \"70000\", expected a port from 0 to 65535"),
            ("/?address=10.1", "address: \"10.1\", expected an address or a prefix"),
            ("/?limit=0", "limit: \"0\", expected a number from 1 to 1000"),
            ("/?from=soon", "from: \"soon\", expected a time in UTC"),
            ("/?after=x", "after: expected the `next`"),
        ] {
            let problem = query(text).flows().expect_err(text);
            assert!(problem.detail().starts_with(expected), "{}", problem.detail());
        }
        let mut misspelt = query("/?adress=10.1.1.1");
        misspelt.overlaps().expect("nothing is stated");
        let problem = misspelt.finish().expect_err("unknown");
        let expected = "adress: unknown parameter, expected one of layer, state, verdict, within, secretariat, \
                        address_space, site";
        assert_eq!(problem.detail(), expected);
        let mut twice = query("/?site=boston&site=lowell");
        twice.inventory(Timestamp(0)).expect("it reads");
        assert_eq!(twice.finish().expect_err("twice").detail(), "site: stated twice");
    }
}

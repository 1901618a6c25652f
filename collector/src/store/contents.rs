//! What the body of a batch holds as the store takes it: every record is checked, and of a flow only its row is kept. So a
//! batch that waits for its commit takes little more memory than its bytes, and who commits has only to write.

use bytes::Bytes;
use onenet_core::{
    net::Name,
    record::{FlowId, FlowRecord, FlowSide},
};
use onenet_proto::v1;
use prost::Message as _;

use super::{
    Records,
    flow_row::{Place, Places},
};

/// The row of one flow: where its record is in the body, and what it is searched by.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FlowRow {
    pub(super) place: Place,
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) protocol: u8,
    pub(super) originator: RowSide,
    pub(super) responder: RowSide,
    pub(super) flow_id: FlowId,
    pub(super) community_id: String,
    pub(super) site: Name,
}

/// One side of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RowSide {
    pub(super) ip: std::net::IpAddr,
    pub(super) port: u16,
    pub(super) secretariat: Option<Name>,
}

/// The records of one batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    pub(super) flows: Vec<FlowRow>,
    /// All but the flows.
    pub(super) others: Records,
}

/// The names of a batch, each held once: there are a few, and thousands of flows that carry them.
#[derive(Default)]
struct Names(Vec<Name>);

impl Names {
    fn same(&mut self, name: Name) -> Name {
        /// A batch of a sensor that makes names up is not searched through for each.
        const MOST: usize = 64;
        if let Some(known) = self.0.iter().find(|known| **known == name) {
            return Name::clone(known);
        }
        if self.0.len() < MOST {
            self.0.push(Name::clone(&name));
        }
        name
    }

    fn side(&mut self, side: FlowSide) -> RowSide {
        RowSide {
            ip: side.ip,
            port: side.port,
            secretariat: side.secretariat.map(|secretariat| self.same(secretariat)),
        }
    }
}

impl Contents {
    /// Checks the body of a batch, and that it holds as many records as the header states.
    pub(crate) fn of_batch(header: &v1::BatchHeader, body: &Bytes) -> Result<Self, String> {
        let contents = Self::check(body)?;
        let (held, stated) = (contents.count(), header.records as usize);
        if held != stated {
            return Err(format!("the header states {stated} records, the body holds {held}"));
        }
        Ok(contents)
    }

    /// Checks a body; the error says which record makes no sense, and why.
    pub fn check(body: &Bytes) -> Result<Self, String> {
        let others = Records::decode_without_flows(body.clone())?;
        let (mut names, mut flows) = (Names::default(), Vec::new());
        let mut places = Places::of(body);
        for place in &mut places {
            let flow = v1::Flow::decode(body.slice(place.at..place.at + place.size))
                .map_err(|error| format!("flow {}: it does not parse: {error}", flows.len()))?;
            let flow =
                FlowRecord::try_from(flow).map_err(|error| format!("flow {}: {error}", flows.len()))?;
            flows.push(FlowRow {
                place,
                start: flow.start.0,
                end: flow.end.0,
                protocol: flow.protocol,
                originator: names.side(flow.originator),
                responder: names.side(flow.responder),
                flow_id: flow.flow_id,
                community_id: flow.community_id,
                site: names.same(flow.site),
            });
        }
        if places.has_ended_early() {
            return Err(format!("the body does not parse behind flow {}", flows.len()));
        }
        Ok(Self { flows, others })
    }

    /// All but the flows.
    pub(crate) const fn others(&self) -> &Records {
        &self.others
    }

    /// Flows, observations and findings.
    pub fn count(&self) -> usize {
        self.flows.len() + self.others.count()
    }
}

#[cfg(test)]
mod tests {
    use onenet_proto::v1::{BatchBody, Loss};

    use super::*;
    use crate::testing::{body, flow, full_flow};

    #[test]
    fn what_is_checked_is_what_is_decoded() {
        let flows = [flow(1, 1_000), full_flow(9), flow(2, 70_000)];
        let mut body = body(&flows);
        body.losses = vec![Loss { count: 2, ..Loss::default() }];
        let bytes = Bytes::from(body.encode_to_vec());
        let contents = Contents::check(&bytes).expect("it makes sense");
        let records = Records::decode(bytes.clone()).expect("it makes sense");
        assert_eq!(contents.count(), records.count());
        assert_eq!(contents.others, Records { flows: Vec::new(), ..records });
        for (row, flow) in contents.flows.iter().zip(&flows) {
            let bytes = &bytes[row.place.at..row.place.at + row.place.size];
            assert_eq!(FlowRecord::try_from(v1::Flow::decode(bytes).expect("a flow")).as_ref(), Ok(flow));
            assert_eq!(
                (row.start, row.flow_id, row.originator.ip),
                (flow.start.0, flow.flow_id, flow.originator.ip)
            );
        }
    }

    #[test]
    fn a_body_that_decodes_nowhere_is_not_taken_and_one_flow_without_sides_is_named() {
        let bytes = body(&[flow(1, 1_000), flow(2, 2_000)]).encode_to_vec();
        for cut in 0..bytes.len() {
            let bytes = Bytes::copy_from_slice(&bytes[..cut]);
            let (checked, decoded) = (Contents::check(&bytes), Records::decode(bytes));
            assert_eq!(checked.is_ok(), decoded.is_ok(), "cut at {cut}: {checked:?}, {decoded:?}");
        }
        // Field 1 as a number, which a sound encoder never writes.
        let odd = [&bytes[..], &[0x08, 0x05]].concat();
        assert!(Contents::check(&odd.into()).is_err());
        let mut sideless = body(&[flow(1, 1_000)]);
        sideless.flows.push(v1::Flow { part: 3, flow_id: vec![0; 16].into(), ..v1::Flow::default() });
        let error = Contents::check(&Bytes::from(BatchBody::encode_to_vec(&sideless))).expect_err("no sides");
        assert!(error.starts_with("flow 1: "), "{error}");
    }
}

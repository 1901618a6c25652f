//! The rules apart from the sensor: what they are told is gathered and taken elsewhere, on another thread for
//! instance, in the same order. What comes out is what it would have been in one place.

use std::{fmt, sync::Arc};

use super::Sensor;
use crate::{
    detect::{DetectConfig, Detector},
    flow::{FlowContext, FlowEvent},
    ipam::Places,
    plan::AddressPlan,
    record::{FlowRecord, Observation, RecordSink},
    time::Timestamp,
};

/// What is gathered before it is handed over.
const ENOUGH: usize = 1024;

/// One thing that is told.
#[derive(Debug)]
enum Telling {
    Event(FlowEvent),
    Record,
    Observation,
    Time(Timestamp),
    Places(Box<Places>),
    Restart(Box<(Arc<AddressPlan>, DetectConfig)>),
    Finish,
}

/// What rules and receiver are to be told, in order.
#[derive(Debug, Default)]
pub struct Tellings {
    order: Vec<Telling>,
    flows: Vec<FlowContext>,
    records: Vec<FlowRecord>,
    /// How many of the records are to be told; the rest is there to be filled.
    used: usize,
    observations: Vec<Observation>,
}

impl Tellings {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Empties it; its memory stays.
    pub fn clear(&mut self) {
        self.order.clear();
        self.flows.clear();
        self.used = 0;
        self.observations.clear();
    }
}

/// Takes what was gathered, and gives something empty in its place.
pub type HandOver = Box<dyn FnMut(Tellings) -> Tellings + Send>;

/// What a sensor without rules keeps in their place.
pub(super) struct Outbox {
    told: Tellings,
    hand_over: HandOver,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.told.fmt(f)
    }
}

impl Outbox {
    fn put(&mut self, telling: Telling) {
        self.told.order.push(telling);
        if self.told.order.len() >= ENOUGH {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        if !self.told.is_empty() {
            self.told = (self.hand_over)(std::mem::take(&mut self.told));
        }
    }

    pub(super) fn event(&mut self, event: FlowEvent, flow: &FlowContext) {
        self.told.flows.push(flow.clone());
        self.put(Telling::Event(event));
    }

    /// Takes a record, and leaves one that was told before, whose texts need no new memory.
    pub(super) fn record(&mut self, record: &mut FlowRecord) {
        match self.told.records.get_mut(self.told.used) {
            Some(told_before) => std::mem::swap(told_before, record),
            None => self.told.records.push(record.clone()),
        }
        self.told.used += 1;
        self.put(Telling::Record);
    }

    pub(super) fn observation(&mut self, observation: &Observation) {
        self.told.observations.push(observation.clone());
        self.put(Telling::Observation);
    }

    pub(super) fn advance(&mut self, now: Timestamp) {
        self.put(Telling::Time(now));
    }

    pub(super) fn places(&mut self, places: &Places) {
        self.put(Telling::Places(Box::new(places.clone())));
    }

    pub(super) fn restart(&mut self, plan: &Arc<AddressPlan>, detect: &DetectConfig) {
        self.put(Telling::Restart(Box::new((plan.clone(), detect.clone()))));
    }

    pub(super) fn finish(&mut self) {
        self.put(Telling::Finish);
    }
}

/// Where the rules of a sensor are.
#[derive(Debug)]
pub(super) enum Judging {
    Here(Box<Detector>),
    Apart(Box<Outbox>),
}

/// The rules of a sensor, apart from it.
#[derive(Debug)]
pub struct Rules {
    detector: Box<Detector>,
    places: Places,
    finding_changes: u64,
}

impl Rules {
    /// Takes what the sensor told, and tells what comes of it.
    pub fn take(&mut self, told: &Tellings, sink: &mut dyn RecordSink) {
        let Tellings { order, flows, records, observations, .. } = told;
        let (mut flows, mut records, mut observations) = (flows.iter(), records.iter(), observations.iter());
        let Self { detector, places, finding_changes } = self;
        for telling in order {
            if let Telling::Record = telling {
                records.next().into_iter().for_each(|record| sink.flow(record));
                continue;
            }
            let observation = match telling {
                Telling::Observation => observations.next(),
                _ => None,
            };
            observation.into_iter().for_each(|observation| sink.observation(observation));
            let mut changes = |change: &_| {
                *finding_changes = finding_changes.saturating_add(1);
                sink.finding(change);
            };
            match telling {
                Telling::Record => {}
                Telling::Observation => {
                    observation.into_iter().for_each(|seen| detector.on_observation(seen, &mut changes));
                }
                Telling::Event(event) => {
                    flows
                        .next()
                        .into_iter()
                        .for_each(|flow| detector.on_flow(*event, flow, places, &mut changes));
                }
                Telling::Time(now) => detector.advance(*now, &mut changes),
                Telling::Places(changed) => places.clone_from(changed),
                Telling::Restart(next) => detector.restart(next.0.clone(), &next.1, &mut changes),
                Telling::Finish => detector.finish(&mut changes),
            }
        }
    }
}

impl Sensor {
    /// Gives the rules away: from now on, what they and the receiver of records are to be told goes to `hand_over`,
    /// once enough of it has gathered or [`Sensor::hand_over`] asks. None where the sensor does not have them.
    pub fn split_rules(&mut self, hand_over: HandOver) -> Option<Rules> {
        let outbox = Box::new(Outbox { told: Tellings::default(), hand_over });
        match std::mem::replace(&mut self.judging, Judging::Apart(outbox)) {
            Judging::Here(detector) => {
                Some(Rules { detector, places: self.places.clone(), finding_changes: 0 })
            }
            apart @ Judging::Apart(_) => {
                self.judging = apart;
                None
            }
        }
    }

    /// Hands over what has gathered to be told.
    pub fn hand_over(&mut self) {
        if let Judging::Apart(outbox) = &mut self.judging {
            outbox.hand_over();
        }
    }

    /// Takes the rules back, once they have taken everything that was told.
    pub fn join_rules(&mut self, rules: Rules) {
        let Rules { detector, finding_changes, .. } = rules;
        self.hand_over();
        self.ledger.finding_changes = self.ledger.finding_changes.saturating_add(finding_changes);
        self.judging = Judging::Here(detector);
    }
}

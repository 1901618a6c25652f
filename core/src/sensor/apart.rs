//! The rules apart from the sensor: what they are told is gathered and taken elsewhere, on another thread for
//! instance, in the same order. What comes out is what it would have been in one place.
//!
//! The observer goes with the rules where the flow table has nothing to ask it, which is where the plan has no
//! segments at this site.

use std::{fmt, mem, sync::Arc};

use super::{CountingSink, Sensor, together::Waiting};
use crate::{
    detect::{DetectConfig, Detector},
    flow::{FlowContext, FlowEvent, TOGETHER},
    ipam::{Ahead, ObservationSink, Observer, Places, Stated},
    plan::AddressPlan,
    record::{FlowRecord, Ledger, Observation, RecordSink},
    time::Timestamp,
};

/// What is gathered before it is handed over.
const ENOUGH: usize = 1024;

/// One thing that is told, or several events.
#[derive(Debug)]
enum Telling {
    /// This many events, to be told together.
    Events(usize),
    Record,
    Observation,
    Stated,
    Time(Timestamp),
    Places(Box<Places>),
    Restart(Box<Restart>),
    Finish,
}

/// What begins anew.
#[derive(Debug)]
struct Restart {
    plan: Arc<AddressPlan>,
    detect: DetectConfig,
    /// The observer, where it is to be with the rules.
    observer: Option<Observer>,
}

/// What observer, rules and receiver are to be told, in order.
#[derive(Debug, Default)]
pub struct Tellings {
    order: Vec<Telling>,
    /// Behind those that are to be told there are others, to be written over.
    events: Vec<(FlowEvent, FlowContext)>,
    #[expect(
        clippy::vec_box,
        reason = "the flow table fills each in its own place, and hands over the place"
    )]
    records: Vec<Box<FlowRecord>>,
    /// How many of the records are to be told; the rest is there to be filled.
    used: usize,
    observations: Vec<Observation>,
    stated: Vec<Stated>,
}

impl Tellings {
    /// How much is to be told.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let events = |telling: &Telling| if let Telling::Events(count) = telling { *count } else { 1 };
        self.order.iter().map(events).sum()
    }

    /// Empties it; its memory stays.
    fn clear(&mut self) {
        self.order.clear();
        self.used = 0;
        self.observations.clear();
        self.stated.clear();
    }
}

/// Takes what was gathered, and gives something empty in its place.
pub type HandOver = Box<dyn FnMut(Tellings) -> Tellings + Send>;

/// What a sensor without rules keeps in their place.
pub(super) struct Outbox {
    /// Its events are where events wait, until they are handed over.
    told: Tellings,
    hand_over: HandOver,
    /// Whether records go to the receiver here, and not with the rest.
    pub(super) keeps_records: bool,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.told.fmt(f)
    }
}

impl Outbox {
    fn put(&mut self, telling: Telling, later: &mut Waiting) {
        self.told.order.push(telling);
        self.pass_on(later);
    }

    /// Hands over what has gathered once it is enough: best when no event waits, which else must move.
    pub(super) fn pass_on(&mut self, later: &mut Waiting) {
        let held = self.told.order.len().saturating_add(later.told);
        if held >= ENOUGH && (later.is_empty() || held >= 2 * ENOUGH) {
            self.hand_over(later);
        }
    }

    /// Hands over what has gathered. Events that wait stay.
    fn hand_over(&mut self, later: &mut Waiting) {
        let Waiting { events, told, count, .. } = later;
        // While events are being told they are not there.
        if self.told.order.is_empty() || events.len() < *told + *count {
            return;
        }
        let next = &mut self.told.events;
        next.resize_with(next.len().max(*count), || (FlowEvent::Started, FlowContext::default()));
        next.iter_mut()
            .zip(events.iter_mut().skip(*told))
            .take(*count)
            .for_each(|(to, from)| mem::swap(to, from));
        mem::swap(next, events);
        *told = 0;
        self.told = (self.hand_over)(mem::take(&mut self.told));
    }

    /// The next of the events that wait is told.
    pub(super) fn event(&mut self) {
        match self.told.order.last_mut() {
            Some(Telling::Events(count)) => *count += 1,
            _ => self.told.order.push(Telling::Events(1)),
        }
    }

    /// Takes a record, and leaves one that was told before, whose texts need no new memory.
    pub(super) fn record(&mut self, record: &mut Box<FlowRecord>, later: &mut Waiting) {
        match self.told.records.get_mut(self.told.used) {
            Some(told_before) => mem::swap(told_before, record),
            None => self.told.records.push(record.clone()),
        }
        self.told.used += 1;
        self.put(Telling::Record, later);
    }

    pub(super) fn observation(&mut self, observation: &Observation, later: &mut Waiting) {
        self.told.observations.push(observation.clone());
        self.put(Telling::Observation, later);
    }

    pub(super) fn stated(&mut self, stated: impl IntoIterator<Item = Stated>, later: &mut Waiting) {
        for one in stated {
            self.told.stated.push(one);
            self.put(Telling::Stated, later);
        }
    }

    pub(super) fn advance(&mut self, now: Timestamp, later: &mut Waiting) {
        self.put(Telling::Time(now), later);
    }

    pub(super) fn places(&mut self, places: &Places, later: &mut Waiting) {
        self.put(Telling::Places(Box::new(places.clone())), later);
    }

    pub(super) fn restart(
        &mut self,
        plan: &Arc<AddressPlan>,
        detect: &DetectConfig,
        observer: Option<Observer>,
        later: &mut Waiting,
    ) {
        let restart = Restart { plan: plan.clone(), detect: detect.clone(), observer };
        self.put(Telling::Restart(Box::new(restart)), later);
    }

    pub(super) fn finish(&mut self, later: &mut Waiting) {
        self.put(Telling::Finish, later);
    }
}

/// Where the rules of a sensor are.
#[derive(Debug)]
pub(super) enum Judging {
    Here(Box<Detector>),
    Apart(Box<Outbox>),
}

/// The rules of a sensor, apart from it, with its observer where that can be.
#[derive(Debug)]
pub struct Rules {
    detector: Box<Detector>,
    observer: Option<Observer>,
    places: Places,
    /// Records that were told.
    ledger: Ledger,
}

impl Rules {
    /// Takes what the sensor told, tells what comes of it, and leaves nothing in it but memory.
    pub fn take(&mut self, told: &mut Tellings, sink: &mut dyn RecordSink) {
        let Tellings { order, events, records, used, observations, stated } = told;
        let mut records = records.iter().take(*used);
        let (mut observations, mut stated) = (observations.iter(), stated.drain(..));
        let mut events = events.as_slice();
        let Self { detector, observer, places, ledger } = self;
        let mut near = Near { detector, observer, places, out: CountingSink { sink, ledger } };
        for telling in order.drain(..) {
            match telling {
                Telling::Events(count) => {
                    let (some, rest) = events.split_at(count.min(events.len()));
                    near.on_events(some);
                    events = rest;
                }
                Telling::Record => records.next().into_iter().for_each(|record| near.out.flow(record)),
                Telling::Observation => {
                    observations.next().into_iter().for_each(|seen| near.on_observation(seen));
                }
                Telling::Stated => stated.next().into_iter().for_each(|one| {
                    near.observe(|observer, places, sink| observer.on_stated(one, places, sink));
                }),
                Telling::Time(now) => near.advance(now),
                Telling::Places(changed) => *near.places = *changed,
                Telling::Restart(next) => near.restart(*next),
                Telling::Finish => near.finish(),
            }
        }
        drop(stated);
        told.clear();
    }
}

/// Observer, rules and receiver.
struct Near<'a> {
    detector: &'a mut Detector,
    observer: &'a mut Option<Observer>,
    places: &'a mut Places,
    out: CountingSink<'a>,
}

impl Near<'_> {
    /// Lets the observer tell something, where it is here.
    fn observe(&mut self, tell: impl FnOnce(&mut Observer, &Places, &mut ObservationSink<'_>)) {
        let Self { detector, observer, places, out } = self;
        let Some(observer) = observer else { return };
        tell(observer, places, &mut |observation| {
            out.observation(observation);
            detector.on_observation(observation, &mut |change| out.finding(change));
        });
    }

    fn on_observation(&mut self, observation: &Observation) {
        self.out.observation(observation);
        self.detector.on_observation(observation, &mut |change| self.out.finding(change));
    }

    fn on_events(&mut self, events: &[(FlowEvent, FlowContext)]) {
        let mut ahead = Ahead::default();
        for some in events.chunks(TOGETHER) {
            if let Some(observer) = self.observer {
                observer.warm(some, self.places, &mut ahead);
            }
            self.detector.warm(some, self.places);
            for (at, (event, flow)) in some.iter().enumerate() {
                self.observe(|observer, places, sink| {
                    observer.on_event(*event, flow, (&ahead, at), places, sink);
                });
                self.detector.on_flow(*event, flow, self.places, &mut |change| self.out.finding(change));
            }
        }
    }

    fn advance(&mut self, now: Timestamp) {
        self.observe(|observer, places, sink| observer.advance(now, places, sink));
        self.detector.advance(now, &mut |change| self.out.finding(change));
    }

    fn restart(&mut self, next: Restart) {
        self.observe(|observer, places, sink| observer.finish(places, sink));
        *self.observer = next.observer;
        self.detector.restart(next.plan, &next.detect, &mut |change| self.out.finding(change));
    }

    fn finish(&mut self) {
        self.observe(|observer, places, sink| observer.finish(places, sink));
        self.detector.finish(&mut |change| self.out.finding(change));
    }
}

impl Sensor {
    /// Gives the rules away: from now on, what they and the receiver of records are to be told goes to `hand_over`,
    /// once enough of it has gathered or [`Sensor::hand_over`] asks. Records of flows stay if the sensor is to keep
    /// them: they go to the receiver that comes with the packets. None where the sensor does not have the rules.
    pub fn split_rules(&mut self, hand_over: HandOver, keeps_records: bool) -> Option<Rules> {
        let outbox = Box::new(Outbox { told: Tellings::default(), hand_over, keeps_records });
        match mem::replace(&mut self.judging, Judging::Apart(outbox)) {
            Judging::Here(detector) => {
                let observer = if self.places.has_segments() { None } else { self.observer.take() };
                Some(Rules { detector, observer, places: self.places.clone(), ledger: Ledger::default() })
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
            outbox.hand_over(&mut self.later);
        }
    }

    /// Takes the rules back, once they have taken everything that was told.
    pub fn join_rules(&mut self, rules: Rules) {
        let Rules { detector, observer, ledger: told, .. } = rules;
        self.hand_over();
        let ledger = &mut self.ledger;
        ledger.flow_records = ledger.flow_records.saturating_add(told.flow_records);
        ledger.observations = ledger.observations.saturating_add(told.observations);
        ledger.finding_changes = ledger.finding_changes.saturating_add(told.finding_changes);
        self.observer = observer.or_else(|| self.observer.take());
        self.judging = Judging::Here(detector);
    }
}

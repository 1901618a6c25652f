//! Events that wait to be told together: a few dozen of them look up what they need at the same time, so that they
//! wait for memory once and not one after the other. They are told in their order, before anything else that
//! observer and rules hear of or say, and at the latest an eighth of a second of packet time after the first.

use super::{Judging, Wiring};
use crate::{
    detect::Detector,
    flow::{FlowContext, FlowEvent},
    time::Timestamp,
};

/// Events that are told together.
const TOGETHER: usize = 32;

/// Events that wait.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Events, and behind those that wait others that are to be written over.
    events: Vec<(FlowEvent, FlowContext)>,
    count: usize,
    /// When they have waited for long enough.
    due: Timestamp,
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            events: vec![(FlowEvent::Started, FlowContext::default()); TOGETHER],
            count: 0,
            due: Timestamp(i64::MAX),
        }
    }
}

impl Waiting {
    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// The end of the eighth of a second that a moment is in.
const fn end_of_step(now: Timestamp) -> Timestamp {
    Timestamp((now.as_nanos() | ((1 << 27) - 1)).saturating_add(1))
}

impl Wiring<'_> {
    /// An event, to be told soon.
    pub(super) fn put(
        &mut self,
        event: FlowEvent,
        protocol: u8,
        now: Timestamp,
        write: impl FnOnce(&mut FlowContext),
    ) {
        if !Detector::hears(event, protocol) {
            return;
        }
        self.tick(now);
        if self.later.is_empty() {
            self.later.due = end_of_step(now);
        }
        let Some((told, flow)) = self.later.events.get_mut(self.later.count) else { return };
        *told = event;
        write(flow);
        self.later.count += 1;
        // What a station shows is asked for as soon as the next flow begins, where there is a plan.
        if self.later.count >= TOGETHER || self.places.has_plan() {
            self.settle();
        }
    }

    /// Packet time is this: tells what has waited for long enough.
    pub(super) fn tick(&mut self, now: Timestamp) {
        if now >= self.later.due {
            self.settle();
        }
    }

    /// Tells what waits.
    pub(super) fn settle(&mut self) {
        if self.later.is_empty() {
            return;
        }
        let events = std::mem::take(&mut self.later.events);
        let waiting = events.get(..self.later.count).unwrap_or(&events);
        self.observer.warm(waiting, self.places);
        if let Judging::Here(detector) = &self.judging {
            detector.warm(waiting, self.places);
        }
        for (event, flow) in waiting {
            self.tell_now(*event, flow);
        }
        self.later.events = events;
        self.later.count = 0;
        self.later.due = Timestamp(i64::MAX);
    }
}

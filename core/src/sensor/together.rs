//! Events that wait to be told together: a few dozen of them look up what they need at the same time, so that they
//! wait for memory once and not one after the other. They are told in their order, before anything else that
//! observer and rules hear of or say, and at the latest an eighth of a second of packet time after the first.

use super::{Judging, Wiring};
use crate::{
    detect::Detector,
    flow::{FlowContext, FlowEvent, TOGETHER},
    ipam::Ahead,
    time::Timestamp,
};

/// Events that wait.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Events: those that were told already and are to be handed over, those that wait, and others that are to be
    /// written over.
    pub(super) events: Vec<(FlowEvent, FlowContext)>,
    /// How many were told and are still here: none where the rules are here.
    pub(super) told: usize,
    pub(super) count: usize,
    /// When they have waited for long enough.
    due: Timestamp,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { events: Vec::new(), told: 0, count: 0, due: Timestamp(i64::MAX) }
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
        self.hold(event, write);
        // What a station shows is asked for as soon as the next flow begins, where there are segments.
        if self.later.count >= TOGETHER || self.places.has_segments() {
            self.settle();
        }
    }

    /// Adds an event to those that wait. It is written in place: where it goes to another thread it is not copied.
    pub(super) fn hold(&mut self, event: FlowEvent, write: impl FnOnce(&mut FlowContext)) {
        let Waiting { events, told, count, .. } = &mut *self.later;
        let at = *told + *count;
        if at >= events.len() {
            events.push((FlowEvent::Started, FlowContext::default()));
        }
        let Some((held, flow)) = events.get_mut(at) else { return };
        *held = event;
        write(flow);
        flow.stack = self.stack;
        *count += 1;
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
        let waiting = self.later.told..self.later.told + self.later.count;
        let waiting = events.get(waiting).unwrap_or_default();
        let mut ahead = Ahead::default();
        for some in waiting.chunks(TOGETHER) {
            if let Some(observer) = &self.observer {
                observer.warm(some, self.places, &mut ahead);
            }
            if let Judging::Here(detector) = &self.judging {
                detector.warm(some, self.places);
            }
            for (at, (event, flow)) in some.iter().enumerate() {
                self.tell_now(*event, flow, (&ahead, at));
            }
        }
        self.later.events = events;
        let count = std::mem::take(&mut self.later.count);
        self.later.due = Timestamp(i64::MAX);
        if let Judging::Apart(outbox) = &mut self.judging {
            self.later.told += count;
            outbox.pass_on(self.later);
        }
    }
}

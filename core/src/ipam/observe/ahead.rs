//! What the observer looks up for events that are told together, made once: first to be read ahead, so that it waits
//! for memory once, and then to look it up.

use arrayvec::ArrayVec;

use super::{Observer, key::Key, key_of, stations::Station};
use crate::{
    bounded::KeyHash,
    flow::{FlowContext, FlowEvent, Party, TOGETHER},
    ipam::Places,
};

/// What is looked up, each once, and by event where it stands.
#[derive(Clone, Debug, Default)]
pub struct Ahead {
    stations: ArrayVec<(Station, KeyHash), { 2 * TOGETHER }>,
    keys: ArrayVec<(Key, KeyHash), { 2 * TOGETHER }>,
    events: ArrayVec<[At; 2], TOGETHER>,
}

/// Where what is looked up for one side stands; behind the last where there is nothing.
#[derive(Clone, Copy, Debug)]
struct At {
    station: u8,
    key: u8,
}

const NONE: At = At { station: u8::MAX, key: u8::MAX };

/// What is looked up for one side of a flow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Looked<'a> {
    /// The station that its packets come from, if it sent any.
    pub(super) station: Option<&'a (Station, KeyHash)>,
    /// What its traffic would be evidence of.
    pub(super) key: Option<&'a (Key, KeyHash)>,
}

impl Ahead {
    /// What is looked up for an event, by its place among them: for originator and responder.
    pub(super) fn of(&self, event: usize) -> [Looked<'_>; 2] {
        let sides = self.events.get(event).copied().unwrap_or([NONE; 2]);
        sides.map(|At { station, key }| Looked {
            station: self.stations.get(usize::from(station)),
            key: self.keys.get(usize::from(key)),
        })
    }
}

impl Observer {
    /// Makes ready for events that are about to be told together: what they look up is read at once. Changes nothing.
    /// Of more than [`TOGETHER`] the first are taken.
    pub fn warm(&self, events: &[(FlowEvent, FlowContext)], places: &Places, ahead: &mut Ahead) {
        ahead.stations.clear();
        ahead.keys.clear();
        ahead.events.clear();
        if !self.enabled {
            return;
        }
        for (event, flow) in events.iter().take(TOGETHER) {
            self.look(*event, flow, places, ahead);
        }
        self.stations.warm(ahead.stations.iter().map(|(_, hash)| *hash));
        self.table.warm(ahead.keys.iter().map(|(_, hash)| *hash));
    }

    /// Adds what one event looks up.
    pub(super) fn look(&self, event: FlowEvent, flow: &FlowContext, places: &Places, ahead: &mut Ahead) {
        let sides = match event {
            FlowEvent::Started | FlowEvent::Answered => flow.by_originator.map(|by| (by, !by)),
            FlowEvent::Moved | FlowEvent::Collapsed | FlowEvent::Reported(_) => Some((true, true)),
            FlowEvent::Established | FlowEvent::Refused | FlowEvent::Unanswered => None,
        };
        let (first, second) = sides.unwrap_or((false, false));
        // A side that has just spoken is judged whatever it has sent by now.
        let counts = first && second;
        let mut side = |party: &Party, speaks: bool| {
            let (mut at, end) = (NONE, |length: usize| u8::try_from(length).unwrap_or(u8::MAX));
            if speaks
                && party.packets > 0
                && let Some(mac) = party.mac
            {
                let station = Station::new(flow.interface, flow.vlans.first().copied(), mac);
                at.station = end(ahead.stations.len());
                // There is room for both sides of each.
                let _ = ahead.stations.try_push((station, self.stations.hash_of(&station)));
            }
            if speaks
                && (!counts || party.packets_by_mac > 0)
                && let Some(key) = key_of(flow, party, places)
            {
                at.key = end(ahead.keys.len());
                let _ = ahead.keys.try_push((key, self.table.hash_of(&key)));
            }
            at
        };
        let sides = [side(&flow.originator, first), side(&flow.responder, second)];
        let _ = ahead.events.try_push(sides);
    }
}

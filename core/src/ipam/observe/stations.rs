//! Which side of an inside link a station is on. Packets that the edge router forwards towards a segment carry
//! sources that are not the segment's, so evidence by traffic counts only from stations of the segment's side.
//!
//! A station that sources addresses that are not ours towards ours is the edge router; one that sources ours
//! towards addresses that are not ours is on the segment's side. Traffic between two of ours says nothing. A
//! station that has shown both is taken as router: an observation less is better than a false overlap.

use crate::{
    bounded::{Bounded, KeyHash},
    decode::InterfaceIndex,
    net::MacAddress,
    record::Locality,
};

/// What a station has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing yet.
    #[default]
    Unknown,
    /// It forwards from the edge.
    Edge,
    /// It is on the segment's side.
    Segment,
}

/// A station on a link: interface, outer VLAN, MAC address. This is looked up for each flow, so it is two words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Station {
    /// MAC address and interface.
    port: u64,
    /// VLAN; the greatest number where there is none.
    vlan: u16,
}

impl Station {
    pub(crate) fn new(interface: InterfaceIndex, vlan: Option<u16>, mac: MacAddress) -> Self {
        let ([a, b, c, d, e, f], [g, h]) = (mac.0, interface.0.to_be_bytes());
        Self { port: u64::from_be_bytes([a, b, c, d, e, f, g, h]), vlan: vlan.unwrap_or(u16::MAX) }
    }
}

/// What every station has shown, as far as it is remembered.
#[derive(Clone, Debug)]
pub(crate) struct Stations(Bounded<Station, Standing>);

impl Stations {
    pub(crate) fn new(limit: usize, seed: [u64; 4]) -> Self {
        Self(Bounded::new(limit, seed))
    }

    pub(crate) fn standing(&self, station: &Station) -> Standing {
        self.0.peek(station).copied().unwrap_or_default()
    }

    /// The same where the hash is known.
    pub(crate) fn standing_hashed(&self, hash: KeyHash, station: &Station) -> Standing {
        self.0.peek_hashed(hash, station).copied().unwrap_or_default()
    }

    pub(crate) fn hash_of(&self, station: &Station) -> KeyHash {
        self.0.hash_of(station)
    }

    /// Makes ready for lookups of these.
    pub(crate) fn warm(&self, hashes: impl ExactSizeIterator<Item = KeyHash> + Clone) {
        self.0.warm(hashes, |station, _| station.port);
    }

    /// Learns from packets of a station with such a source to such a destination; what it has shown by then, where
    /// they say anything.
    pub(crate) fn learn(
        &mut self,
        hash: KeyHash,
        station: Station,
        source: Locality,
        destination: Locality,
    ) -> Option<Standing> {
        let shown = match (source, destination) {
            (Locality::Outside, Locality::Inside) => Standing::Edge,
            (Locality::Inside, Locality::Outside) => Standing::Segment,
            _ => return None,
        };
        let held = self.0.get_or_insert_hashed(hash, station, || shown)?;
        if *held != Standing::Edge {
            *held = shown;
        }
        Some(*held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_forwards_foreign_sources_is_the_edge_and_stays_it() {
        let mut stations = Stations::new(4, [0; 4]);
        let station = Station::new(InterfaceIndex(0), Some(7), MacAddress([2; 6]));
        let hash = stations.hash_of(&station);
        stations.learn(hash, station, Locality::Inside, Locality::Inside);
        assert_eq!(stations.standing(&station), Standing::Unknown);
        stations.learn(hash, station, Locality::Inside, Locality::Outside);
        assert_eq!(stations.standing(&station), Standing::Segment);
        stations.learn(hash, station, Locality::Outside, Locality::Inside);
        stations.learn(hash, station, Locality::Inside, Locality::Outside);
        assert_eq!(stations.standing(&station), Standing::Edge);
        for other in [
            Station::new(InterfaceIndex(0), Some(8), MacAddress([2; 6])),
            Station::new(InterfaceIndex(0), None, MacAddress([2; 6])),
            Station::new(InterfaceIndex(1), Some(7), MacAddress([2; 6])),
            Station::new(InterfaceIndex(0), Some(7), MacAddress([2, 2, 2, 2, 2, 3])),
        ] {
            assert_eq!(stations.standing(&other), Standing::Unknown);
        }
    }
}

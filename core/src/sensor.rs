//! The sensor: packets and time in, records out. It wires decode, flows, observations and rules together.

use std::{net::IpAddr, sync::Arc};

use arrayvec::ArrayVec;

use crate::{
    decode::{
        self, CapturedPacket, Content, Decoded, Inner, InterfaceIndex, IpPacket, Link, Unparsed,
        checksum::{self, Checksum},
    },
    detect::{DetectConfig, Detector, HealthReport},
    flow::{
        ChecksumMode, DeltaOrigin, FlowConfig, FlowDelta, FlowHandle, FlowPacket, FlowTable, Integrity,
        Offload, Origin, PacketPlace, TunnelFlows,
    },
    ipam::{Observer, Place, Places, Seen, classify},
    mirror::{MirrorPlan, Mirrored, Mirrors},
    net::Name,
    plan::{AddressPlan, InterfacePlan, PlanError},
    record::{DropStage, FlowId, Layer, Ledger, Reason, RecordSink, Tunnel},
    time::Timestamp,
};

mod apart;
mod batch;
mod together;
mod wiring;
mod witness;

use apart::Judging;
pub use apart::{HandOver, Rules, Tellings};
pub use batch::Batch;
use together::Waiting;
use wiring::{CountingSink, Wiring};
pub use witness::{Told, Witness};

/// Everything a sensor needs to know before its first packet.
#[derive(Clone, Debug)]
pub struct SensorConfig {
    /// Site, such as `boston`.
    pub site: Name,
    /// Name of the sensor.
    pub sensor: Name,
    /// The address plan.
    pub plan: Arc<AddressPlan>,
    /// Flow table.
    pub flow: FlowConfig,
    /// Rules.
    pub detect: DetectConfig,
    /// Key of every hash table, to be drawn at random by the caller, so that nobody outside can aim collisions.
    /// Records do not depend on it.
    pub hash_seed: [u64; 4],
}

/// The engine of one sensor.
#[derive(Debug)]
pub struct Sensor {
    site: Name,
    plan: Arc<AddressPlan>,
    interfaces: Vec<InterfacePlan>,
    /// Of so many flows of an interface one is metered, for those that were told.
    sampling: Vec<u32>,
    places: Places,
    flows: FlowTable,
    max_tunnel_depth: u8,
    tunnels: TunnelFlows,
    checksums: ChecksumMode,
    mirrors: Mirrors,
    /// Of the packet that is being taken.
    offload: Offload,
    /// None where it is with rules that are elsewhere.
    observer: Option<Observer>,
    judging: Judging,
    later: Waiting,
    hash_seed: [u64; 4],
    /// Plan and thresholds that were loaded and are not in effect yet.
    next: Option<Box<(Arc<AddressPlan>, DetectConfig)>>,
    ledger: Ledger,
}

impl Sensor {
    /// A sensor with no interfaces and no flows.
    pub fn new(config: SensorConfig) -> Result<Self, PlanError> {
        config.plan.check()?;
        let SensorConfig { site, sensor, plan, flow, detect, hash_seed } = config;
        Ok(Self {
            places: Places::new(&plan, &site, &[]),
            flows: FlowTable::new(&flow, site.clone(), &sensor, hash_seed),
            max_tunnel_depth: if flow.tunnels == TunnelFlows::Outer { 0 } else { flow.max_tunnel_depth },
            tunnels: flow.tunnels,
            checksums: flow.checksums,
            mirrors: Mirrors::default(),
            offload: Offload::default(),
            observer: Some(Observer::new(site.clone(), &detect.observe, hash_seed)),
            judging: Judging::Here(Box::new(Detector::new(site.clone(), plan.clone(), &detect, hash_seed))),
            later: Waiting::default(),
            interfaces: Vec::new(),
            sampling: Vec::new(),
            site,
            plan,
            hash_seed,
            next: None,
            ledger: Ledger::default(),
        })
    }

    /// Makes an interface known; packets name it by the index. The same name gives the same index again.
    pub fn add_interface(&mut self, interface: InterfacePlan) -> InterfaceIndex {
        let position = self.interfaces.iter().position(|known| known.name == interface.name);
        let index = position.unwrap_or_else(|| {
            self.interfaces.push(interface);
            self.places = Places::new(&self.plan, &self.site, &self.interfaces);
            self.tell_places();
            self.interfaces.len() - 1
        });
        InterfaceIndex(u16::try_from(index).unwrap_or(u16::MAX))
    }

    /// Tells that of mirrors' packets only a part comes as packets, and the rest as counts: gaps in their sequence numbers
    /// are no losses then, and none are told.
    pub fn set_mirrors_partial(&mut self) {
        self.mirrors.set_partial();
    }

    /// Tells that of so many flows of an interface only one is metered, for the records to say so.
    pub fn set_sampling(&mut self, interface: InterfaceIndex, one_in: u32) {
        let at = usize::from(interface.0);
        if at >= self.sampling.len() {
            self.sampling.resize(at + 1, 1);
        }
        if let Some(sampling) = self.sampling.get_mut(at) {
            *sampling = one_in.max(1);
        }
    }

    /// Names of the interfaces that are known, in the order of their indices.
    pub fn interface_names(&self) -> impl Iterator<Item = &Name> {
        self.interfaces.iter().map(|interface| &interface.name)
    }

    /// Makes a mirror known; its packets count as captured on this interface. Mirrors are asked in the order in
    /// which they were made known.
    pub fn add_mirror(&mut self, mirror: MirrorPlan, interface: InterfacePlan) -> InterfaceIndex {
        let index = self.add_interface(interface);
        self.mirrors.add(mirror, index);
        index
    }

    /// Takes one packet. Packet time moves on to the latest time seen and never back.
    pub fn handle_packet(&mut self, packet: &CapturedPacket<'_>, sink: &mut dyn RecordSink) {
        self.handle_witnessed(packet, sink, &mut ());
    }

    /// Takes one packet, and tells a witness what becomes of it.
    pub fn handle_witnessed<W: Witness>(
        &mut self,
        packet: &CapturedPacket<'_>,
        sink: &mut dyn RecordSink,
        witness: &mut W,
    ) {
        self.handle_any(packet, Offload::default(), sink, witness);
    }

    /// Takes one packet that stands for several on the wire: all of them are counted.
    pub fn handle_offloaded(
        &mut self,
        packet: &CapturedPacket<'_>,
        offload: Offload,
        sink: &mut dyn RecordSink,
    ) {
        self.handle_any(packet, offload, sink, &mut ());
    }

    fn handle_any<W: Witness>(
        &mut self,
        packet: &CapturedPacket<'_>,
        offload: Offload,
        sink: &mut dyn RecordSink,
        witness: &mut W,
    ) {
        self.ledger.packets = self.ledger.packets.saturating_add(1);
        self.ledger.wire_bytes = self.ledger.wire_bytes.saturating_add(packet.wire_length.into());
        self.offload = offload;
        self.advance(packet.time, sink);
        let decoded = if W::HEARS { decode::decode_traced(packet, witness) } else { decode::decode(packet) };
        match decoded {
            Err(unparsed) => self.count_unparsed(unparsed, witness),
            Ok(decoded) if self.mirrors.is_empty() => self.handle_parsed(packet, decoded, sink, witness),
            Ok(decoded) => self.handle_perhaps_mirrored(packet, decoded, sink, witness),
        }
    }

    /// Counts to the ledger the packets that were on the wire beside the captured one, once its headers are known.
    fn count_offload(&mut self, packet: &CapturedPacket<'_>, decoded: &Decoded<'_>) {
        if self.offload.packets() > 1 {
            let payload = match &decoded.content {
                Content::Ip(ip) => ip.payload_bytes,
                Content::Arp(_) => 0,
            };
            let more = self.offload.packets() - 1;
            let headers = self.offload.more_headers(packet.wire_length.saturating_sub(payload));
            self.ledger.packets = self.ledger.packets.saturating_add(more);
            self.ledger.parsed = self.ledger.parsed.saturating_add(more);
            self.ledger.wire_bytes = self.ledger.wire_bytes.saturating_add(headers);
        }
    }

    /// Takes what a kernel has counted of one flow. Time moves on to its first packet.
    pub fn handle_delta(&mut self, delta: &FlowDelta, sink: &mut dyn RecordSink) {
        let Some(first) = delta.first() else { return };
        let ledger = &mut self.ledger;
        let packets = delta.packets();
        ledger.packets = ledger.packets.saturating_add(packets);
        ledger.parsed = ledger.parsed.saturating_add(packets);
        ledger.wire_bytes = ledger.wire_bytes.saturating_add(delta.wire_bytes());
        if let Some(bytes) = delta.mirror_bytes {
            ledger.mirrored = ledger.mirrored.saturating_add(packets);
            ledger.mirror_bytes = ledger.mirror_bytes.saturating_add(bytes);
            ledger.wire_bytes = ledger.wire_bytes.saturating_add(bytes);
        }
        self.advance(first, sink);
        let links = [0, 1].map(|way| delta.link(way));
        let [one, other] = &links;
        let origins = [one, other].map(|link| DeltaOrigin {
            link,
            place: packet_place(self.places.locate(delta.interface, link, None)),
            leaving: self.places.leaving(delta.interface, link),
        });
        let (flows, mut wiring) = self.split(sink);
        flows.observe_delta(delta, origins, &mut wiring);
    }

    fn count_unparsed(&mut self, unparsed: Unparsed, witness: &mut impl Witness) {
        self.ledger.count_unparsed(unparsed.layer, unparsed.reason);
        witness.tell(Told::Unparsed(unparsed));
    }

    /// An error where the checksum of the IP header is wrong and counts.
    fn verify_header(&self, decoded: &Decoded<'_>) -> Result<(), Unparsed> {
        match &decoded.content {
            Content::Ip(ip) if self.checksums == ChecksumMode::Verify && checksum::is_header_wrong(ip) => {
                Err(Unparsed { layer: Layer::Network, reason: Reason::BadChecksum })
            }
            _ => Ok(()),
        }
    }

    /// Counts a packet whose headers were read, and takes it.
    fn handle_parsed<W: Witness>(
        &mut self,
        packet: &CapturedPacket<'_>,
        decoded: Decoded<'_>,
        sink: &mut dyn RecordSink,
        witness: &mut W,
    ) {
        if let Err(unparsed) = self.verify_header(&decoded) {
            self.count_unparsed(unparsed, witness);
            return;
        }
        self.ledger.parsed = self.ledger.parsed.saturating_add(1);
        self.count_offload(packet, &decoded);
        if matches!(decoded.content, Content::Arp(_)) {
            self.ledger.arp = self.ledger.arp.saturating_add(1);
        }
        self.handle_decoded(packet, decoded, sink, witness);
    }

    /// Takes a packet that may be a mirror's: then what is inside is taken in its place.
    fn handle_perhaps_mirrored<W: Witness>(
        &mut self,
        packet: &CapturedPacket<'_>,
        decoded: Decoded<'_>,
        sink: &mut dyn RecordSink,
        witness: &mut W,
    ) {
        let mirrored = match &decoded.content {
            Content::Ip(ip) => self.mirrors.strip(ip),
            Content::Arp(_) => Mirrored::No,
        };
        let (mirror, own_bytes) = match &mirrored {
            Mirrored::No => return self.handle_parsed(packet, decoded, sink, witness),
            Mirrored::Copy(mirror, inner) => (*mirror, packet.wire_length.saturating_sub(inner.wire_length)),
            Mirrored::Fragment(mirror) | Mirrored::Broken(mirror, _) => (*mirror, packet.wire_length),
        };
        self.ledger.mirrored = self.ledger.mirrored.saturating_add(1);
        self.ledger.mirror_bytes = self.ledger.mirror_bytes.saturating_add(own_bytes.into());
        self.ledger.set_dropped(DropStage::Mirror, self.mirrors.lost());
        let Some((interface, name)) = self.mirrors.interface(mirror) else { return };
        witness.tell(Told::Decoded(&decoded));
        match mirrored {
            Mirrored::No => {}
            Mirrored::Fragment(_) => {
                self.ledger.parsed = self.ledger.parsed.saturating_add(1);
                self.ledger.mirror_fragments = self.ledger.mirror_fragments.saturating_add(1);
                witness.tell(Told::MirrorFragment(name));
            }
            Mirrored::Broken(_, unparsed) => {
                self.ledger.count_unparsed(unparsed.layer, unparsed.reason);
                witness.tell(Told::MirrorBroken(name, unparsed));
            }
            Mirrored::Copy(_, inner) => {
                witness.tell(Told::Mirror(name, &inner));
                let copy = CapturedPacket { interface, wire_length: inner.wire_length, ..*packet };
                match decode::decode_inner_traced(&inner, witness) {
                    Err(unparsed) => self.count_unparsed(unparsed, witness),
                    Ok(decoded) => self.handle_parsed(&copy, decoded, sink, witness),
                }
            }
        }
    }

    /// Takes what a source says of itself.
    pub fn handle_health(&mut self, report: &HealthReport, sink: &mut dyn RecordSink) {
        let (_, mut wiring) = self.split(sink);
        wiring.health(report);
    }

    /// Moves packet time on without a packet, so that timeouts run on a quiet link.
    pub fn advance(&mut self, now: Timestamp, sink: &mut dyn RecordSink) {
        self.change_if_asked(sink);
        let (flows, mut wiring) = self.split(sink);
        wiring.tick(now);
        if flows.advance(now, &mut wiring) {
            wiring.advance(now);
            self.ledger.fragments_unassembled = self.flows.unassembled();
        }
    }

    /// Ends every flow and tells what is pending: the capture has ended. The sensor can go on afterwards.
    pub fn finish(&mut self, sink: &mut dyn RecordSink) {
        let (flows, mut wiring) = self.split(sink);
        flows.finish(&mut wiring);
        let now = flows.clock();
        wiring.advance(now);
        wiring.finish();
        self.ledger.fragments_unassembled = self.flows.unassembled();
    }

    /// Replaces plan and thresholds without losing a flow; what cannot change at run time stays. It takes effect
    /// with the next packet or the next step of time: what observer and rules have gathered under the old plan
    /// is told then.
    pub fn reload(&mut self, plan: Arc<AddressPlan>, detect: DetectConfig) -> Result<(), PlanError> {
        plan.check()?;
        self.next = Some(Box::new((plan, detect)));
        Ok(())
    }

    fn change_if_asked(&mut self, sink: &mut dyn RecordSink) {
        if let Some(next) = self.next.take() {
            let (plan, detect) = *next;
            self.change_plan(plan, &detect, sink);
        }
    }

    /// Changes to the plan that was loaded.
    #[cold]
    fn change_plan(&mut self, plan: Arc<AddressPlan>, detect: &DetectConfig, sink: &mut dyn RecordSink) {
        let places = Places::new(&plan, &self.site, &self.interfaces);
        let (seed, site, has_segments) = (self.hash_seed, self.site.clone(), places.has_segments());
        let (flows, mut wiring) = self.split(sink);
        let earlier = wiring.places;
        flows.renumber(
            &mut wiring,
            |scope| places.scope_from(earlier, scope),
            |space| places.space_from(earlier, space),
            |segment| places.segment_from(earlier, segment),
            |secretariat| places.secretariat_from(earlier, secretariat),
        );
        wiring.restart(&plan, detect, |observe| Observer::new(site.clone(), observe, seed), has_segments);
        self.places = places;
        self.plan = plan;
        self.tell_places();
    }

    fn tell_places(&mut self) {
        if let Judging::Apart(outbox) = &mut self.judging {
            outbox.places(&self.places, &mut self.later);
        }
    }

    /// Flows that are live.
    pub fn live_flows(&self) -> usize {
        self.flows.len()
    }

    /// The account so far.
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The account, for a source to enter what it dropped.
    pub const fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// The flow table, and everything around it.
    fn split<'a>(&'a mut self, sink: &'a mut dyn RecordSink) -> (&'a mut FlowTable, Wiring<'a>) {
        let out = CountingSink { sink, ledger: &mut self.ledger };
        let Self { flows, places, interfaces, sampling, observer, judging, later, .. } = self;
        (flows, Wiring { places, interfaces, sampling, observer, judging, later, out, stack: None })
    }

    /// Takes a decoded packet, and what is inside it as far as tunnels are opened.
    fn handle_decoded<W: Witness>(
        &mut self,
        packet: &CapturedPacket<'_>,
        decoded: Decoded<'_>,
        sink: &mut dyn RecordSink,
        witness: &mut W,
    ) {
        let leaving = self.places.leaving(packet.interface, &decoded.link);
        let place = self.places.locate(packet.interface, &decoded.link, None);
        let mut layer = Enclosed {
            time: packet.time,
            interface: packet.interface,
            wire_bytes: packet.wire_length,
            leaving,
            place,
            tunnel: None,
            parents: ArrayVec::new(),
        };
        let mut current = decoded;
        let mut outermost: Option<Link> = None;
        for depth in 0..=u8::MAX {
            witness.tell(Told::Decoded(&current));
            let ip = match &current.content {
                Content::Ip(ip) => ip,
                Content::Arp(arp) => {
                    witness.tell(Told::Arp);
                    if depth > 0 && self.tunnels == TunnelFlows::Inner {
                        self.ledger.arp = self.ledger.arp.saturating_add(1);
                    }
                    let seen = layer.seen(&current.link);
                    self.split(sink).1.arp(&seen, arp);
                    return;
                }
            };
            let integrity = integrity(self.checksums, ip);
            if integrity != Integrity::Sound {
                witness.tell(Told::WrongChecksum);
            }
            let opened = (integrity != Integrity::Rejected).then(|| self.open(ip, depth, witness)).flatten();
            if opened.is_some() && self.tunnels == TunnelFlows::Inner {
                witness.tell(Told::Carrier);
            } else if let Some(handle) = self.handle_ip(&layer, &current.link, ip, integrity, sink) {
                let (flows, wiring) = self.split(sink);
                if opened.is_some() {
                    // Those beyond the fourth are opened all the same, and not named.
                    let _ = layer.parents.try_push(flows.flow_id(handle));
                }
                if W::HEARS {
                    witness.tell(Told::Flow(&flows.peek(handle, &wiring)));
                }
            } else {
                witness.tell(Told::Waits);
            }
            let Some((inner, content)) = opened else { return };
            layer.tunnel = Some(inner.tunnel);
            layer.wire_bytes = inner.wire_length;
            let outermost = &*outermost.get_or_insert_with(|| current.link.clone());
            layer.place = self.places.locate(packet.interface, outermost, inner.tunnel.id);
            current = content;
        }
    }

    /// Opens the tunnel in a packet and decodes what is inside. None where there is no tunnel, or none that can
    /// be opened, which is counted.
    fn open<'a, W: Witness>(
        &mut self,
        ip: &IpPacket<'a>,
        depth: u8,
        witness: &mut W,
    ) -> Option<(Inner<'a>, Decoded<'a>)> {
        if depth >= self.max_tunnel_depth {
            if W::HEARS && matches!(decode::inner(ip), Ok(Some(_))) {
                witness.tell(Told::DepthReached(depth));
            }
            return None;
        }
        let opened = decode::inner(ip).and_then(|inner| {
            let Some(inner) = inner else { return Ok(None) };
            witness.tell(Told::Tunnel(&inner));
            let decoded = decode::decode_inner_traced(&inner, witness)?;
            self.verify_header(&decoded)?;
            Ok(Some((inner, decoded)))
        });
        opened.unwrap_or_else(|unparsed| {
            self.ledger.count_unopened(unparsed.layer, unparsed.reason);
            witness.tell(Told::Unopened(unparsed));
            None
        })
    }

    /// Counts an IP packet to its flow.
    fn handle_ip(
        &mut self,
        layer: &Enclosed,
        link: &Link,
        ip: &IpPacket<'_>,
        integrity: Integrity,
        sink: &mut dyn RecordSink,
    ) -> Option<FlowHandle> {
        let origin = Origin {
            interface: layer.interface,
            link,
            place: packet_place(layer.place),
            tunnel: layer.tunnel,
            parents: &layer.parents,
            leaving: layer.leaving,
        };
        let offload = self.offload;
        let packet =
            FlowPacket { time: layer.time, wire_bytes: layer.wire_bytes, ip, origin, integrity, offload };
        let (flows, mut wiring) = self.split(sink);
        wiring.stack = decode::stack::sample(ip).filter(|_| is_counted(ip.source));
        let handle = flows.observe(&packet, &mut wiring);
        if integrity != Integrity::Rejected {
            wiring.packet(&layer.seen(link), ip);
        }
        handle
    }
}

/// A packet at one depth of tunnels.
struct Enclosed {
    time: Timestamp,
    interface: InterfaceIndex,
    wire_bytes: u32,
    leaving: Option<bool>,
    place: Place,
    tunnel: Option<Tunnel>,
    parents: ArrayVec<FlowId, 4>,
}

impl Enclosed {
    fn seen<'a>(&self, link: &'a Link) -> Seen<'a> {
        Seen { now: self.time, interface: self.interface, link, place: self.place }
    }
}

/// Whether a host's stack is kept: that of a private address, which others may have too.
fn is_counted(source: IpAddr) -> bool {
    classify(source).is_private()
}

/// What the checksums of a packet make of it.
fn integrity(mode: ChecksumMode, ip: &IpPacket<'_>) -> Integrity {
    match mode {
        ChecksumMode::Skip => Integrity::Sound,
        _ if checksum::check(ip) == Checksum::Sound => Integrity::Sound,
        ChecksumMode::Ignore => Integrity::Flawed,
        ChecksumMode::Verify => Integrity::Rejected,
    }
}

fn packet_place(place: Place) -> PacketPlace {
    let Place { segment, secretariat, space, scope } = place;
    PacketPlace { scope, space, segment, secretariat }
}

#[cfg(test)]
mod tests;

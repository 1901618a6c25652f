//! A witness of one packet: hears how it was decoded and what it counted to, from the decoder and the flow table
//! themselves. Without one (`()`) nothing of it is left in the program.

use crate::{
    decode::{Decoded, Inner, Trace, Unparsed},
    record::FlowRecord,
};

/// What became of a packet, step by step.
#[derive(Clone, Copy, Debug)]
pub enum Told<'a> {
    /// Its headers were read, up to the transport header.
    Decoded(&'a Decoded<'a>),
    /// Parsing stopped; the packet is unparsed.
    Unparsed(Unparsed),
    /// It is a copy that this mirror sent, and what is told from here on is of the packet inside.
    Mirror(&'a str, &'a Inner<'a>),
    /// It is a later fragment of this mirror's packet, and counts to no flow.
    MirrorFragment(&'a str),
    /// It is this mirror's packet and cannot be opened; the packet is unparsed.
    MirrorBroken(&'a str, Unparsed),
    /// One of its checksums is wrong.
    WrongChecksum,
    /// It counted to this flow, whose record is as it stands now.
    Flow(&'a FlowRecord),
    /// It is a later fragment whose first one has not come; it counts when that comes, or without ports.
    Waits,
    /// It carries a tunnel, and by the settings only the flow inside is recorded.
    Carrier,
    /// It is ARP, and counts to no flow.
    Arp,
    /// It carries this tunnel; what is told from here on is of the packet inside.
    Tunnel(&'a Inner<'a>),
    /// It carries a tunnel that could not be opened.
    Unopened(Unparsed),
    /// Tunnels are opened no deeper than this, by the settings.
    DepthReached(u8),
}

/// Hears what becomes of a packet.
pub trait Witness: Trace {
    /// Whether anything is heard; what costs more than a call is not even made where not.
    const HEARS: bool;

    /// One step.
    fn tell(&mut self, told: Told<'_>);
}

impl Witness for () {
    const HEARS: bool = false;

    #[inline(always)]
    fn tell(&mut self, _: Told<'_>) {}
}

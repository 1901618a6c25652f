//! Bytes to headers. This module is the only user of etherparse; what it gives is defined in [`packet`].

mod arp;
mod capwap;
pub mod checksum;
mod crc32c;
mod cursor;
pub mod dhcp4;
pub mod dhcp6;
mod fast;
mod gre;
#[cfg(test)]
mod hostile;
mod ip;
mod l2tp;
mod link;
mod metadata;
pub mod ndp;
pub mod packet;
mod plain;
mod rare;
mod read;
mod shim;
pub(crate) mod stack;
#[cfg(test)]
mod testing;
mod trace;
mod transport;
mod tunnel;
mod udp_tunnel;
mod wan;
mod wireless;

pub(crate) use fast::read_usual;
pub use link::{decode, decode_inner, decode_inner_traced, decode_traced};
pub(crate) use plain::{Plain, PlainTransport};

pub use packet::{
    ArpOperation, ArpPacket, CapturedPacket, Content, Decoded, Fragment, Inner, InnerStart, InterfaceIndex,
    IpPacket, Link, LinkDirection, LinkType, TcpSegment, Transport, Unparsed,
};
pub use trace::Trace;
pub use tunnel::{MirrorOpened, inner, mirrored};
pub use udp_tunnel::is_mirror_port;

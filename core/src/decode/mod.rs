//! Bytes to headers. This module is the only user of etherparse; what it gives is defined in [`packet`].

pub mod dhcp4;
pub mod dhcp6;
pub mod ndp;
pub mod packet;
mod read;

pub use packet::{
    ArpOperation, ArpPacket, CapturedPacket, Content, Decoded, Fragment, InterfaceIndex, IpPacket, Link,
    LinkDirection, LinkType, TcpSegment, Transport, Unparsed,
};

//! Bytes to headers. This module is the only user of etherparse; what it gives is defined in [`packet`].

pub mod packet;

pub use packet::{
    ArpOperation, ArpPacket, CapturedPacket, Content, Decoded, Fragment, InterfaceIndex, IpPacket, Link,
    LinkDirection, LinkType, TcpSegment, Transport, Unparsed,
};

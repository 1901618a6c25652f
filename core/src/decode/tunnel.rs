//! Tunnels: what an IP packet carries that is itself a packet.

use super::packet::{Inner, IpPacket, Unparsed};

/// Opens one tunnel.
pub fn inner<'a>(packet: &IpPacket<'a>) -> Result<Option<Inner<'a>>, Unparsed> {
    let _ = packet;
    Ok(None)
}

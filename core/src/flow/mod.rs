//! Biflows: key, table, TCP state, Community ID, timers.
//!
//! [`FlowTable::observe`] takes one packet and finds its flow by one hash lookup. What each packet touches lies
//! together (`live`); what is needed only when something is told lies apart. Timers are re-armed lazily
//! (`wheel`), and no list is kept in order of activity, so a packet that only adds to counters writes to its own
//! flow and nowhere else.

mod aggregate;
mod attempt;
mod begin;
mod block;
mod chunks;
pub mod community_id;
mod compact;
mod config;
mod count;
mod delta;
pub mod direction;
mod ends;
pub mod event;
mod fragment;
mod half_open;
mod handshake;
mod history;
mod host;
pub mod icmp;
mod identity;
pub mod key;
mod lifetime;
mod live;
mod pass;
mod path;
mod pieces;
mod queue;
mod rare;
mod report;
mod sequence;
mod short;
mod slab;
mod table;
mod tcp;
mod transition;
mod wheel;

#[cfg(test)]
mod tests;

pub use config::{ChecksumMode, FlowConfig, FragmentMode, TunnelFlows};
pub(crate) use delta::DeltaOrigin;
pub use delta::{FlowDelta, WayDelta};
pub use event::{FlowContext, FlowEvent, Party};
pub use host::FlowHost;
pub use identity::FlowIdentity;
pub use live::{FlowPacket, Integrity, Offload, Origin, PacketPlace, SidePlace};
pub use pass::{Found, TOGETHER};
pub use table::{FlowAddress, FlowHandle, FlowTable};

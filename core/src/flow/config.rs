//! Settings of the flow table.

use serde::{Deserialize, Serialize};

/// What becomes of packets whose checksum is wrong. Checked are IPv4 header, TCP, UDP, ICMP and SCTP of packets
/// that were captured whole and are no fragments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChecksumMode {
    /// They are counted as any other, and counted as wrong beside that. Right where packets are captured on the
    /// host that sends them: its network card fills the checksums in behind the capture.
    #[default]
    Ignore,
    /// They count to nothing but the checksum counter, as a receiver would drop them; `c` in the history.
    Verify,
    /// Checksums are not looked at.
    Skip,
}

/// What a fragmented datagram counts as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FragmentMode {
    /// Each fragment is a packet, as on the wire.
    #[default]
    Counted,
    /// One packet, once all of its fragments were seen; else nothing.
    Reassembled,
}

/// Timeouts and limits of the flow table. Times are whole seconds of packet time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlowConfig {
    /// TCP connection without a packet: ended as idle.
    pub tcp_idle_seconds: u32,
    /// UDP flow without a packet.
    pub udp_idle_seconds: u32,
    /// ICMP flow without a packet.
    pub icmp_idle_seconds: u32,
    /// Flow of any other protocol without a packet.
    pub other_idle_seconds: u32,
    /// TCP attempt without an answer.
    pub attempt_seconds: u32,
    /// How long a closed or reset connection is kept for late packets.
    pub closing_seconds: u32,
    /// How long a flow goes on before a part of it is reported.
    pub active_seconds: u32,
    /// Live flows at most, attempts apart; beyond, unanswered flows give way first, then the least recently active.
    pub max_flows: u32,
    /// TCP attempts (a SYN and nothing since) at most; beyond, the oldest are added to aggregates.
    pub max_attempts: u32,
    /// Datagrams whose fragments are tracked at the same time.
    pub max_fragmented_datagrams: u32,
    /// Tunnels inside tunnels that are opened.
    pub max_tunnel_depth: u8,
    /// Which packet of a tunnel counts to a flow.
    pub tunnels: TunnelFlows,
    /// Seed of the Community ID; whoever joins records by it needs the same one.
    pub community_id_seed: u16,
    /// What becomes of packets whose checksum is wrong.
    pub checksums: ChecksumMode,
    /// What a fragmented datagram counts as.
    pub fragments: FragmentMode,
}

/// Which flows a packet in a tunnel counts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelFlows {
    /// The tunnel's flow and the one inside, which names it in `tunnel_parents`.
    #[default]
    Both,
    /// The innermost flow alone; there are no `tunnel_parents`. A packet whose tunnel cannot be opened counts to
    /// the flow of what could be.
    Inner,
    /// The tunnel's flow alone: no tunnel is opened.
    Outer,
}

impl Default for FlowConfig {
    /// Zeek's and YAF's defaults, see ARCHITECTURE.md.
    fn default() -> Self {
        Self {
            tcp_idle_seconds: 300,
            udp_idle_seconds: 60,
            icmp_idle_seconds: 60,
            other_idle_seconds: 60,
            attempt_seconds: 5,
            closing_seconds: 5,
            active_seconds: 1800,
            max_flows: 1_000_000,
            max_attempts: 262_144,
            max_fragmented_datagrams: 65_536,
            max_tunnel_depth: 3,
            tunnels: TunnelFlows::Both,
            community_id_seed: 0,
            checksums: ChecksumMode::Ignore,
            fragments: FragmentMode::Counted,
        }
    }
}

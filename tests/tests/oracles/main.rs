//! Real captures through the real program, held to what others say of them: independent decoders, Zeek, Arkime,
//! nDPI, arpwatch (`../shared/captures/EXPECTED.md` states what each counts). Each test prints its figures.

#![expect(clippy::expect_used, reason = "a test stops where it finds what it did not expect")]

mod addresses;
mod community_id;
mod cuts;
mod deltas;
mod flows;
mod kit;
mod ledger;
mod packets;
mod stations;
mod tunnels;
mod zeek;

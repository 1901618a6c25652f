//! Delivery under everything that goes wrong: programs killed, links that flap, full disks, acks that are lost, a
//! hostile sensor, clocks that are off. The real programs run, from outside; the oracle is always: what was made is what
//! is stored, each once, and what was signed away.
//!
//! Small sizes by default; `ONENET_SOAK=1` takes the full ones, `ONENET_SEED` another seed (docs/delivery-tests.md).

#![expect(clippy::expect_used, clippy::panic, reason = "a test stops where it finds what it did not expect")]

#[path = "../end_to_end/harness.rs"]
#[allow(dead_code, unreachable_pub, reason = "not every test target uses all of what they share")]
mod harness;

mod acks;
mod ahead;
mod clock;
mod disk;
mod hostile;
mod inside;
mod kill;
mod kit;
mod network;
mod oracle;
mod road;
mod several;
mod wire;

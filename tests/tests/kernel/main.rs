//! The meter in the kernel against core's decode: the same packets through both, and the same keys and counts. Runs the
//! real program by BPF_PROG_TEST_RUN, and on a veth pair in a network namespace of its own. Where the machine lets
//! nobody load programs the tests say so and pass.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops where it finds what it did not expect"
)]

mod captures;
mod firsts;
mod kit;
mod limits;
mod live;
mod mirrors;
mod vectors;

//! What an agent and a collector say to each other: messages, seals and conversions; how both read the files they
//! are configured by, and whose files they make.

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code; proto/onenet.proto documents each message"
)]
pub mod v1 {
    tonic::include_proto!("onenet.v1");
}

pub mod config;
pub mod convert;
pub mod cosign;
pub mod edge_plan;
pub mod owner;
pub mod seal;
pub mod statement;

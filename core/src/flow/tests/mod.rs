//! Tests of the flow table as a whole.

mod attempts;
mod connections;
mod deltas;
mod fragments;
mod kit;
mod model;
mod parts;
mod table;
mod tcp;

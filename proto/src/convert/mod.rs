//! Conversions between the engine's records and the messages on the wire. To the wire nothing can fail; from the
//! wire everything is checked, because a sensor's key proves who sealed a batch, not that its fields make sense.

mod finding;
mod flow;
mod ledger;
mod observation;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arrayvec::ArrayVec;
use bytes::Bytes;
use onenet_core::{
    net::{MacAddress, Name},
    record::FlowId,
};

/// A field of a message that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field {field}: expected {expected}")]
pub struct InvalidField {
    /// The field.
    pub field: &'static str,
    /// What it should hold.
    pub expected: &'static str,
}

const fn invalid(field: &'static str, expected: &'static str) -> InvalidField {
    InvalidField { field, expected }
}

fn ip_to_wire(ip: IpAddr) -> Bytes {
    match ip {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    }
}

fn optional_ip_to_wire(ip: Option<IpAddr>) -> Bytes {
    ip.map(ip_to_wire).unwrap_or_default()
}

fn ip_from_wire(field: &'static str, bytes: &[u8]) -> Result<IpAddr, InvalidField> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        Ok(Ipv4Addr::from(octets).into())
    } else if let Ok(octets) = <[u8; 16]>::try_from(bytes) {
        Ok(Ipv6Addr::from(octets).into())
    } else {
        Err(invalid(field, "an address of 4 or 16 bytes"))
    }
}

fn optional_ip_from_wire(field: &'static str, bytes: &[u8]) -> Result<Option<IpAddr>, InvalidField> {
    if bytes.is_empty() { Ok(None) } else { ip_from_wire(field, bytes).map(Some) }
}

fn mac_to_wire(mac: Option<MacAddress>) -> Bytes {
    mac.map(|mac| Bytes::copy_from_slice(&mac.0)).unwrap_or_default()
}

fn mac_from_wire(field: &'static str, bytes: &[u8]) -> Result<Option<MacAddress>, InvalidField> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let octets = <[u8; 6]>::try_from(bytes).map_err(|_| invalid(field, "a MAC address of 6 bytes"))?;
    Ok(Some(MacAddress(octets)))
}

fn flow_id_to_wire(id: FlowId) -> Bytes {
    Bytes::copy_from_slice(&id.0.to_be_bytes())
}

fn flow_id_from_wire(field: &'static str, bytes: &[u8]) -> Result<FlowId, InvalidField> {
    let octets = <[u8; 16]>::try_from(bytes).map_err(|_| invalid(field, "an identity of 16 bytes"))?;
    Ok(FlowId(u128::from_be_bytes(octets)))
}

fn name_to_wire(name: Option<&Name>) -> String {
    name.map(|name| name.to_string()).unwrap_or_default()
}

fn name_from_wire(name: &str) -> Option<Name> {
    if name.is_empty() { None } else { Some(name.into()) }
}

fn text_to_wire(text: Option<&String>) -> String {
    text.cloned().unwrap_or_default()
}

fn text_from_wire(text: String) -> Option<String> {
    if text.is_empty() { None } else { Some(text) }
}

/// A number that must fit a smaller type.
fn narrow<T: TryFrom<u32>>(field: &'static str, value: u32) -> Result<T, InvalidField> {
    T::try_from(value).map_err(|_| invalid(field, "a number within the field's range"))
}

/// A code that must be one of an enum's.
fn code<T>(field: &'static str, value: u32, from_code: fn(u8) -> Option<T>) -> Result<T, InvalidField> {
    u8::try_from(value).ok().and_then(from_code).ok_or_else(|| invalid(field, "a code that is known"))
}

/// A list that must not be longer than its limit.
fn bounded<T, I, const LIMIT: usize>(
    field: &'static str,
    items: impl IntoIterator<Item = I>,
    convert: impl Fn(I) -> Result<T, InvalidField>,
) -> Result<ArrayVec<T, LIMIT>, InvalidField> {
    let mut list = ArrayVec::new();
    for item in items {
        list.try_push(convert(item)?).map_err(|_| invalid(field, "a list within its limit"))?;
    }
    Ok(list)
}

#[cfg(test)]
mod tests;

//! `onenet-agent interfaces`: the network interfaces of this host, to name one in `[[source]]`.

use std::io::Write;

use pnet::datalink::{self, NetworkInterface};
use serde::Serialize;

/// One interface, as told.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    mac: Option<String>,
    addresses: Vec<String>,
    up: bool,
    loopback: bool,
}

impl From<NetworkInterface> for Listed {
    fn from(interface: NetworkInterface) -> Self {
        Self {
            up: interface.is_up(),
            loopback: interface.is_loopback(),
            mac: interface.mac.map(|mac| mac.to_string()),
            addresses: interface.ips.iter().map(ToString::to_string).collect(),
            name: interface.name,
        }
    }
}

/// Names of the interfaces of this host.
pub(crate) fn names() -> Vec<String> {
    datalink::interfaces().into_iter().map(|interface| interface.name).collect()
}

/// Lists the interfaces as a table, or as one JSON array.
pub(crate) fn list(json: bool, out: &mut dyn Write) -> Result<(), anyhow::Error> {
    let interfaces: Vec<Listed> = datalink::interfaces().into_iter().map(Listed::from).collect();
    if json {
        serde_json::to_writer_pretty(&mut *out, &interfaces)?;
        writeln!(out)?;
        return Ok(());
    }
    let width = interfaces.iter().map(|listed| listed.name.len()).max().unwrap_or(0).max("NAME".len());
    writeln!(out, "{:width$}  {:4}  {:17}  ADDRESSES", "NAME", "LINK", "MAC")?;
    for listed in &interfaces {
        let link = if listed.up { "up" } else { "down" };
        let mac = listed.mac.as_deref().unwrap_or("-");
        let addresses = if listed.addresses.is_empty() { "-".to_owned() } else { listed.addresses.join(" ") };
        writeln!(out, "{:width$}  {link:4}  {mac:17}  {addresses}", listed.name)?;
    }
    Ok(())
}

//! One HTTP GET on loopback: all that the demo needs of the collector's API.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Gets a path and parses the answer as JSON.
pub(crate) fn get_json(address: SocketAddr, path: &str) -> Result<Value> {
    let limit = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&address, limit)
        .with_context(|| format!("the collector's API does not answer at {address}"))?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(
        format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n\r\n").as_bytes(),
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").context("an answer without a header")?;
    let (header, body) = answer.split_at(end + 4);
    let header = String::from_utf8_lossy(header);
    let status = header.split_ascii_whitespace().nth(1).unwrap_or_default();
    if status != "200" {
        bail!("GET {path} answered {status}");
    }
    serde_json::from_slice(body).with_context(|| format!("GET {path} answered something that is not JSON"))
}

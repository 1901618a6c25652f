//! Loading the kernel program: its object, its configuration, the sizes of its maps.

use std::io;

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, MapError},
};

use crate::{
    error::EbpfError,
    layout::{Config, KeyV4, KeyV6, Value},
    options::Options,
};

/// For traffic control.
static TRAFFIC: &[u8] = aya::include_bytes_aligned!("../program/meter.bpf.o");
/// For XDP.
static XDP: &[u8] = aya::include_bytes_aligned!("../program/meter_xdp.bpf.o");

/// Kernel memory of an entry beside key and value.
const ENTRY: u64 = 48;

/// Makes the maps and readies the programs, which the kernel has not checked yet.
pub(crate) fn object(options: &Options, is_xdp: bool, has_link_header: bool) -> Result<Ebpf, EbpfError> {
    let config = options.config(has_link_header);
    let mut loader = EbpfLoader::new();
    loader
        .override_global::<&Config>("CONFIG", &config, true)
        .map_max_entries("V4_A", options.max_flows)
        .map_max_entries("V4_B", options.max_flows)
        .map_max_entries("V6_A", options.max_flows_v6)
        .map_max_entries("V6_B", options.max_flows_v6)
        .map_max_entries("SEEN", options.seen_cells())
        .map_max_entries("RING", Options::ring_bytes(options.ring_kib))
        .map_max_entries("URGENT", Options::ring_bytes(options.urgent_ring_kib));
    loader.load(if is_xdp { XDP } else { TRAFFIC }).map_err(|error| explain(options, error))
}

/// Takes a map out of the object.
pub(crate) fn map(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, EbpfError> {
    ebpf.take_map(name).ok_or(EbpfError::Object(name))
}

/// Takes a hash map out of the object.
pub(crate) fn hash(ebpf: &mut Ebpf, name: &'static str) -> Result<MapData, EbpfError> {
    match map(ebpf, name)? {
        Map::HashMap(data) => Ok(data),
        _ => Err(EbpfError::Object(name)),
    }
}

fn explain(options: &Options, error: aya::EbpfError) -> EbpfError {
    match error {
        aya::EbpfError::MapError(MapError::CreateError { name, io_error }) => {
            let bytes = bytes_of(options, &name);
            match io_error.raw_os_error() {
                Some(libc::ENOMEM | libc::E2BIG) => EbpfError::Memory { map: name, bytes, error: io_error },
                Some(libc::EPERM) => EbpfError::Refused { what: "a map", error: io_error },
                _ => EbpfError::Kernel { what: "making a kernel map", error: io_error },
            }
        }
        other => program_error(&other),
    }
}

/// What a map takes, about.
fn bytes_of(options: &Options, map: &str) -> u64 {
    let entries =
        |count: u32, key: usize| u64::from(count).saturating_mul(ENTRY + (key + size_of::<Value>()) as u64);
    match map {
        "V4_A" | "V4_B" => entries(options.max_flows, size_of::<KeyV4>()),
        "V6_A" | "V6_B" => entries(options.max_flows_v6, size_of::<KeyV6>()),
        "SEEN" => u64::from(options.seen_cells()).saturating_mul(8),
        "RING" => Options::ring_bytes(options.ring_kib).into(),
        _ => Options::ring_bytes(options.urgent_ring_kib).into(),
    }
}

/// Why a program did not load: the first line of each cause.
pub(crate) fn program_error(error: &(dyn std::error::Error + 'static)) -> EbpfError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>()
            && io.raw_os_error() == Some(libc::EPERM)
        {
            return EbpfError::Refused {
                what: "the program",
                error: io::Error::from_raw_os_error(libc::EPERM),
            };
        }
        let line = inner.to_string();
        let line = line.lines().next().unwrap_or_default();
        if !text.contains(line) {
            text = format!("{text}: {line}");
        }
        cause = inner.source();
    }
    // Of what the kernel's check says, the first line names the call, and the end says what was wrong.
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let tail = lines.len().saturating_sub(4).max(1);
    let said = lines.first().into_iter().chain(lines.get(tail..).unwrap_or_default());
    EbpfError::Load(said.copied().collect::<Vec<_>>().join(" / "))
}

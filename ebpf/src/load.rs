//! Loading the kernel program: its object, its configuration, the sizes of its maps.

use std::{fs, io};

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
    let available = fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(available);
    fits(needed(options), available)?;
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

/// What all maps take.
fn needed(options: &Options) -> u64 {
    let maps = ["V4_A", "V4_B", "V6_A", "V6_B", "SEEN", "RING", "URGENT"];
    maps.iter().map(|map| bytes_of(options, map)).fold(0, u64::saturating_add)
}

/// Bytes of MemAvailable.
fn available(meminfo: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    rest.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The kernel takes the memory of its maps before it asks whether there is enough, and then ends other processes: what
/// is more than half of what is available is refused here.
fn fits(needed: u64, available: Option<u64>) -> Result<(), EbpfError> {
    match available {
        Some(available) if needed > available / 2 => Err(EbpfError::Memory {
            map: "of flows and those beside it".to_owned(),
            bytes: needed,
            error: io::Error::new(
                io::ErrorKind::OutOfMemory,
                format!("more than half of the {available} bytes that are available"),
            ),
        }),
        _ => Ok(()),
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

#[cfg(test)]
mod tests {
    use onenet_core::decode::InterfaceIndex;

    use super::*;

    #[test]
    fn maps_that_would_take_most_of_the_memory_are_refused_before_they_are_made() {
        let meminfo = "MemTotal:       24684000 kB\nMemAvailable:    1000 kB\n";
        assert_eq!(available(meminfo), Some(1_024_000));
        assert_eq!(available("MemTotal: 1 kB"), None);
        let mut options = Options::new("eth0", InterfaceIndex(0));
        assert!((90_000_000..150_000_000).contains(&needed(&options)), "{}", needed(&options));
        assert!(fits(needed(&options), Some(1 << 30)).is_ok() && fits(u64::MAX, None).is_ok());
        options.max_flows = 1 << 26;
        let error = fits(needed(&options), Some(24 << 30)).expect_err("32 GiB of 24").to_string();
        assert!(error.contains("lower max_flows"), "{error}");
    }
}

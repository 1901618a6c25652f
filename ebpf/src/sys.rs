//! Calls of the kernel for which neither `std` nor `aya` has a word: batches, test runs, barriers, clocks, the type of a
//! link. All that is unsafe about them is here.
#![expect(unsafe_code, reason = "system calls")]

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use aya::Pod;

const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_MAP_LOOKUP_AND_DELETE_BATCH: libc::c_long = 25;

/// `union bpf_attr`, batch.
#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// `union bpf_attr`, test.
#[repr(C)]
#[derive(Default)]
struct TestAttr {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// What of `struct __sk_buff` a test run may set.
#[repr(C)]
struct SkBuff {
    untouched: [u32; 38],
    tstamp: u64,
    wire_len: u32,
    gso_segs: u32,
    sk: u64,
    gso_size: u32,
    padding: u32,
}

fn fd_number(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX)
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// For the kernel to read or write: the compiler is told that it may.
fn address<T>(of: *const T) -> u64 {
    of.expose_provenance() as u64
}

fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a whole attribute of the size told; what it points to is borrowed by the callers.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// One step through a hash map whose entries are taken out: how many were, and whether that was the end.
/// `position` is none before the first step.
pub(crate) fn take_batch<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    position: &mut Option<u32>,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<(usize, bool)> {
    let mut next = 0_u32;
    let given = position.unwrap_or_default();
    let mut attr = BatchAttr {
        in_batch: position.map_or(0, |_| address(&raw const given)),
        out_batch: address(&raw mut next),
        keys: address(keys.as_mut_ptr()),
        values: address(values.as_mut_ptr()),
        count: length(keys.len().min(values.len())),
        map_fd: fd_number(map),
        ..BatchAttr::default()
    };
    let result = bpf(BPF_MAP_LOOKUP_AND_DELETE_BATCH, &mut attr);
    // SAFETY: reads a number that the kernel may have written behind the compiler's back.
    *position = Some(unsafe { std::ptr::read_volatile(&raw const next) });
    let count = attr.count as usize;
    match result {
        Ok(_) => Ok((count, false)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok((count, true)),
        Err(error) => Err(error),
    }
}

/// What a test run is told beside the frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct TestContext {
    /// Segments of an offloaded packet; 0: not offloaded.
    pub segments: u32,
    /// Payload of each.
    pub segment_size: u32,
    /// Length on the wire; 0: that of the frame.
    pub wire_length: u32,
}

/// Runs a program of traffic control or XDP on a frame; gives its result and the ns that one run took.
pub(crate) fn test_run(
    program: BorrowedFd<'_>,
    frame: &[u8],
    context: Option<TestContext>,
    repeat: u32,
) -> io::Result<(u32, u32)> {
    let context = context.map(|context| SkBuff {
        untouched: [0; 38],
        tstamp: 0,
        wire_len: context.wire_length,
        gso_segs: context.segments,
        sk: 0,
        gso_size: context.segment_size,
        padding: 0,
    });
    let mut attr = TestAttr {
        prog_fd: fd_number(program),
        data_size_in: length(frame.len()),
        data_in: address(frame.as_ptr()),
        repeat,
        ctx_size_in: if context.is_some() { length(size_of::<SkBuff>()) } else { 0 },
        ctx_in: context.as_ref().map_or(0, |context| address(std::ptr::from_ref(context))),
        ..TestAttr::default()
    };
    bpf(BPF_PROG_TEST_RUN, &mut attr)?;
    Ok((attr.retval, attr.duration))
}

/// `union bpf_attr`, asking for the programs of a hook.
#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    padding: u32,
    more: [u64; 4],
}

/// Ids of the programs on a TCX hook of an interface. Unlike their names they are told without CAP_SYS_ADMIN.
pub(crate) fn tcx_programs(interface: &str, ingress: bool) -> io::Result<Vec<u32>> {
    const BPF_TCX_INGRESS: u32 = 46;
    const BPF_TCX_EGRESS: u32 = 47;
    /// The kernel takes no more on one hook.
    const MOST: usize = 64;
    let name = CString::new(interface).map_err(io::Error::other)?;
    // SAFETY: `name` ends with a zero and outlives the call.
    let target = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if target == 0 {
        return Err(io::Error::last_os_error());
    }
    let mut ids = [0_u32; MOST];
    let mut attr = QueryAttr {
        target,
        attach_type: if ingress { BPF_TCX_INGRESS } else { BPF_TCX_EGRESS },
        program_ids: address(ids.as_mut_ptr().cast_const()),
        count: length(MOST),
        ..QueryAttr::default()
    };
    bpf(BPF_PROG_QUERY, &mut attr)?;
    Ok(ids.into_iter().take(attr.count as usize).collect())
}

/// Waits until every program that ran before this call has ended. The call that is for this is refused on kernels with
/// CPUs that are not to be disturbed (nohz_full); there the change of a map of maps waits for the same.
pub(crate) fn barrier() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_long = 1;
    // SAFETY: takes no pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0_u32, 0) };
    if result < 0 { barrier_by_map() } else { Ok(()) }
}

/// `union bpf_attr`, making a map.
#[repr(C)]
#[derive(Default)]
struct MapAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
}

/// `union bpf_attr`, setting an entry.
#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn map(mut attr: MapAttr) -> io::Result<OwnedFd> {
    const BPF_MAP_CREATE: libc::c_long = 0;
    let fd = bpf(BPF_MAP_CREATE, &mut attr)?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: just made, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Setting an entry of a map of maps returns once no program can be in what was there before.
fn barrier_by_map() -> io::Result<()> {
    const ARRAY: u32 = 2;
    const ARRAY_OF_MAPS: u32 = 12;
    const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
    let array = MapAttr { map_type: ARRAY, key_size: 4, value_size: 4, max_entries: 1, ..MapAttr::default() };
    let inner = map(array)?;
    let inner_fd = fd_number(inner.as_fd());
    let outer = map(MapAttr {
        map_type: ARRAY_OF_MAPS,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        inner_map_fd: inner_fd,
        ..MapAttr::default()
    })?;
    let (key, value) = (0_u32, inner_fd);
    let mut attr = ElementAttr {
        map_fd: fd_number(outer.as_fd()),
        key: address(&raw const key),
        value: address(&raw const value),
        ..ElementAttr::default()
    };
    bpf(BPF_MAP_UPDATE_ELEM, &mut attr).map(|_| ())
}

fn clock(clock: libc::clockid_t) -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a whole timespec; a clock that is not there leaves it as it is.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

/// Monotonic time in ns, as the kernel program has it, and what must be added to it for ns since the epoch.
pub(crate) fn clocks() -> (i64, i64) {
    let before = clock(libc::CLOCK_MONOTONIC);
    let wall = clock(libc::CLOCK_REALTIME);
    let after = clock(libc::CLOCK_MONOTONIC);
    let middle = before.saturating_add(after.saturating_sub(before) / 2);
    (after, wall.saturating_sub(middle))
}

/// Link type of an interface: an ARPHRD number of Linux. By a socket and not by /sys, which can be that of another
/// network namespace.
pub(crate) fn link_type(interface: &str) -> io::Result<u16> {
    // SAFETY: takes no pointers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let name = CString::new(interface)?;
    // SAFETY: ifreq is whole numbers and pointers that may be null.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = name.as_bytes_with_nul();
    if name.len() > request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = from.cast_signed();
    }
    // SAFETY: `request` is a whole ifreq with a name that ends.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel filled in the address, whose family is the link type.
    Ok(unsafe { request.ifr_ifru.ifru_hwaddr.sa_family })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_is_no_barrier_a_map_of_maps_is_one() {
        match barrier_by_map() {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                eprintln!("SKIPPED: no maps here: {error}")
            }
            other => other.expect("a map of maps"),
        }
        barrier().expect("a barrier");
    }

    #[test]
    fn the_clocks_differ_by_what_is_told() {
        let (monotonic, offset) = clocks();
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let difference = i64::try_from(wall.as_nanos()).expect("before 2262") - (monotonic + offset);
        assert!(difference.abs() < 1_000_000_000, "{difference}");
    }
}

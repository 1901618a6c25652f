//! The readers against byte vectors of every format, cut at every byte, and mutated.

use std::{
    io::{Cursor, Write},
    path::PathBuf,
};

use onenet_core::{
    decode::{CapturedPacket, InterfaceIndex, LinkDirection},
    net::Name,
    time::Timestamp,
};
use proptest::prelude::*;

use super::{Capture, CaptureDrops, CaptureError, CaptureSet, Problem};

/// A packet as read: time, interface name, link type, way, wire length, data.
type Seen = (i64, Option<String>, u16, LinkDirection, u32, Vec<u8>);

fn read_all(bytes: &[u8]) -> (Vec<Seen>, Option<CaptureError>) {
    let mut capture = match Capture::from_reader("vector", Box::new(Cursor::new(bytes.to_vec()))) {
        Ok(capture) => capture,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let mut seen = Vec::new();
    loop {
        match capture.advance() {
            Ok(true) => {
                let packet = capture.packet().expect("a packet after advance");
                let name = capture.interfaces()[packet.interface].name.clone();
                seen.push((
                    packet.time.as_nanos(),
                    name,
                    packet.link_type.0,
                    packet.direction,
                    packet.wire_length,
                    packet.data.to_vec(),
                ));
            }
            Ok(false) => return (seen, None),
            Err(error) => {
                assert_eq!(capture.advance().ok(), Some(false), "nothing comes after an error");
                return (seen, Some(error));
            }
        }
    }
}

/// Writes numbers in one byte order.
struct Bytes {
    big: bool,
    bytes: Vec<u8>,
}

impl Bytes {
    fn new(big: bool) -> Self {
        Self { big, bytes: Vec::new() }
    }

    fn u16(mut self, number: u16) -> Self {
        self.bytes.extend(if self.big { number.to_be_bytes() } else { number.to_le_bytes() });
        self
    }

    fn u32(mut self, number: u32) -> Self {
        self.bytes.extend(if self.big { number.to_be_bytes() } else { number.to_le_bytes() });
        self
    }

    fn u64(mut self, number: u64) -> Self {
        self.bytes.extend(if self.big { number.to_be_bytes() } else { number.to_le_bytes() });
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    fn option(self, code: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len()).expect("a short option");
        let padding = vec![0; value.len().next_multiple_of(4) - value.len()];
        self.u16(code).u16(length).raw(value).raw(&padding)
    }

    fn block(self, kind: u32, body: &Bytes) -> Self {
        let length = u32::try_from(body.bytes.len() + 12).expect("a short block");
        self.u32(kind).u32(length).raw(&body.bytes).u32(length)
    }

    fn section(self) -> Self {
        let body = Bytes::new(self.big).u32(0x1a2b_3c4d).u16(1).u16(0).u64(u64::MAX);
        self.block(0x0a0d_0d0a, &body)
    }

    fn interface(self, link_type: u16, options: impl FnOnce(Bytes) -> Bytes) -> Self {
        let body = options(Bytes::new(self.big).u16(link_type).u16(0).u32(0));
        self.block(1, &body)
    }

    fn enhanced(self, interface: u32, units: u64, wire: u32, data: &[u8], flags: Option<u32>) -> Self {
        let padding = vec![0; data.len().next_multiple_of(4) - data.len()];
        let high = u32::try_from(units >> 32).expect("32 bits");
        let low = u32::try_from(units & 0xffff_ffff).expect("32 bits");
        let mut body = Bytes::new(self.big)
            .u32(interface)
            .u32(high)
            .u32(low)
            .u32(u32::try_from(data.len()).expect("a short packet"))
            .u32(wire)
            .raw(data)
            .raw(&padding);
        if let Some(flags) = flags {
            let value = Bytes::new(self.big).u32(flags);
            body = body.option(1, b"a comment").option(2, &value.bytes).u16(0).u16(0);
        }
        self.block(6, &body)
    }
}

/// A classic capture of two packets: 1.5 s with 5 bytes of 60, 2.25 s with 4 bytes.
fn classic(magic: u32, big: bool, modified: bool, fractions: [u32; 2]) -> Vec<u8> {
    let mut file = Bytes::new(big).u32(magic).u16(2).u16(4).u32(0).u32(0).u32(65_535).u32(0x1400_0001);
    let data: [&[u8]; 2] = [b"abcde", b"wxyz"];
    for (index, fraction) in fractions.into_iter().enumerate() {
        let captured = u32::try_from(data[index].len()).expect("a short packet");
        file = file.u32(1 + u32::from(index == 1)).u32(fraction).u32(captured).u32([60, 4][index]);
        if modified {
            file = file.u32(3).u16(0x0800).raw(&[[0, 4][index], 0]);
        }
        file = file.raw(data[index]);
    }
    file.bytes
}

#[test]
fn a_classic_capture_is_read_in_every_byte_order_and_resolution() {
    for big in [false, true] {
        for (magic, modified, fractions) in [
            (0xa1b2_c3d4, false, [500_000, 250_000]),
            (0xa1b2_3c4d, false, [500_000_000, 250_000_000]),
            (0xa1b2_cd34, true, [500_000, 250_000]),
        ] {
            let file = classic(magic, big, modified, fractions);
            let (seen, error) = read_all(&file);
            assert!(error.is_none(), "{error:?}");
            let ways = match modified {
                true => [LinkDirection::Received, LinkDirection::Sent],
                false => [LinkDirection::Unknown; 2],
            };
            // The link type is 1; the frame check sequence bits above it are not part of it.
            let expected: [Seen; 2] = [
                (1_500_000_000, None, 1, ways[0], 60, b"abcde".to_vec()),
                (2_250_000_000, None, 1, ways[1], 4, b"wxyz".to_vec()),
            ];
            assert_eq!(seen, expected, "{magic:#x} big {big}");
        }
    }
}

/// A capture in which everything is that the reader knows.
fn everything(big: bool) -> Vec<u8> {
    Bytes::new(big)
        .section()
        .interface(1, |options| options.option(2, b"eth0").option(9, &[9]).u16(0).u16(0))
        .interface(101, |options| options.option(9, &[0x80 | 10]))
        .block(0x0bad, &Bytes::new(big).raw(&[0xff; 100]))
        .enhanced(0, 5_000_000_000, 1500, b"abcde", Some(1))
        .block(3, &Bytes::new(big).u32(3).raw(b"xyz\0"))
        .enhanced(1, 1536, 4, b"wxyz", Some(2))
        .block(2, &Bytes::new(big).u16(1).u16(7).u32(0).u32(2048).u32(2).u32(2).raw(b"ab\0\0"))
        .block(5, &{
            let one = Bytes::new(big).u64(40);
            let two = Bytes::new(big).u64(2);
            Bytes::new(big).u32(0).u32(0).u32(0).option(5, &two.bytes).option(7, &one.bytes).u16(0).u16(0)
        })
        .bytes
}

#[test]
fn a_pcapng_capture_is_read_in_either_byte_order_and_over_sections() {
    let expected: [Seen; 4] = [
        (5_000_000_000, Some("eth0".into()), 1, LinkDirection::Received, 1500, b"abcde".to_vec()),
        (5_000_000_000, Some("eth0".into()), 1, LinkDirection::Unknown, 3, b"xyz".to_vec()),
        (1_500_000_000, Some("#1".into()), 101, LinkDirection::Sent, 4, b"wxyz".to_vec()),
        (2_000_000_000, Some("#1".into()), 101, LinkDirection::Unknown, 2, b"ab".to_vec()),
    ];
    for (first, second) in [(false, true), (true, false)] {
        let both = [everything(first), everything(second)].concat();
        let (seen, error) = read_all(&both);
        assert!(error.is_none(), "{error:?}");
        assert_eq!(seen, [expected.clone(), expected.clone()].concat());
    }
}

#[test]
fn what_a_pcapng_capture_lost_is_known_over_sections() {
    let both = [everything(false), everything(true)].concat();
    let mut capture = Capture::from_reader("vector", Box::new(Cursor::new(both))).expect("a capture");
    while capture.advance().expect("no error") {}
    assert_eq!(capture.drops(), CaptureDrops { interface: 4, kernel: 80 });
    assert_eq!((capture.irregular_blocks(), capture.interfaces().len()), (0, 2));
}

#[test]
fn an_offset_of_seconds_and_a_snap_length_count() {
    let file = Bytes::new(false)
        .section()
        .block(1, &Bytes::new(false).u16(1).u16(0).u32(2).option(14, &(-2_i64).to_le_bytes()))
        .enhanced(0, 3_000_000, 4, b"wxyz", None)
        .block(3, &Bytes::new(false).u32(60).raw(b"xy\0\0"));
    let (seen, error) = read_all(&file.bytes);
    assert!(error.is_none(), "{error:?}");
    assert_eq!((seen[0].0, &*seen[0].5), (1_000_000_000, &b"wxyz"[..]));
    assert_eq!((seen[1].0, seen[1].4, &*seen[1].5), (1_000_000_000, 60, &b"xy"[..]));
}

#[test]
fn a_block_that_contradicts_itself_is_counted_and_passed_over() {
    let good = Bytes::new(false).section().interface(1, |options| options);
    // Captured bytes beyond the block, an interface that was not described, no room for a header, and a
    // second length that differs from the first.
    let body = Bytes::new(false).u32(0).u32(0).u32(0).u32(400).u32(400).raw(b"abcd");
    let mut file = good.block(6, &body).enhanced(9, 0, 4, b"wxyz", None).block(6, &Bytes::new(false).u32(0));
    file = file.enhanced(0, 0, 4, b"last", None);
    let end = file.bytes.len();
    file.bytes[end - 4] ^= 0xff;
    let mut capture = Capture::from_reader("v", Box::new(Cursor::new(file.bytes))).expect("a capture");
    let mut data = Vec::new();
    while capture.advance().expect("no error") {
        data.push(capture.packet().expect("a packet").data.to_vec());
    }
    assert_eq!(data, [b"abcd".to_vec(), b"last".to_vec()]);
    assert_eq!(capture.irregular_blocks(), 3);
}

#[test]
fn a_capture_cut_at_any_byte_gives_the_packets_before_the_cut_and_says_where_it_ends() {
    for (whole, ends) in [
        (classic(0xa1b2_c3d4, false, false, [0, 0]), vec![24, 45, 65]),
        (classic(0xa1b2_cd34, true, true, [0, 0]), vec![24, 53, 81]),
        ([everything(true), everything(false)].concat(), Vec::new()),
    ] {
        let mut before = 0;
        for cut in 0..whole.len() {
            let (seen, error) = read_all(&whole[..cut]);
            assert!(seen.len() >= before, "fewer packets at {cut} bytes than at one byte less");
            before = seen.len();
            if !ends.is_empty() {
                assert_eq!(error.is_none(), ends.contains(&cut), "at {cut} bytes: {error:?}");
            }
            if let Some(error) = error {
                assert!(
                    matches!(
                        error.problem,
                        Problem::Truncated { .. } | Problem::Empty | Problem::NotACapture { .. }
                    ),
                    "at {cut} bytes: {error}"
                );
                assert!(error.offset.unwrap_or(0) <= cut as u64);
            }
        }
        let (seen, error) = read_all(&whole);
        assert!(error.is_none() && seen.len() >= before);
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

#[test]
fn a_gzip_capture_is_read_also_in_several_members_and_a_cut_one_up_to_the_cut() {
    let whole = classic(0xa1b2_c3d4, false, false, [0, 0]);
    let members = [gzip(&whole[..30]), gzip(&whole[30..])].concat();
    assert_eq!(read_all(&members).0.len(), 2);
    let cut = [gzip(&whole[..50]), gzip(&whole[50..])[..12].to_vec()].concat();
    let (seen, error) = read_all(&cut);
    assert_eq!(seen.len(), 1);
    let told = error.expect("the cut is told").to_string();
    assert!(told.starts_with("vector: broken at byte 45: the compressed data ends too early"), "{told}");
}

#[test]
fn what_is_not_a_capture_is_told_with_what_it_looks_like() {
    for (bytes, expected) in [
        (&b""[..], "vector: is empty, expected a pcap or pcapng capture"),
        (b"BZh91AY&SY", "begins with 42 5a 68 39 31 41 59 26 (bzip2; decompress it first), expected pcap"),
        (b"hello, world\n", "(text), expected pcap or pcapng"),
        (b"\x00\x01", "vector: is not a capture: it begins with 00 01, expected pcap or pcapng"),
        (
            b"\xd4\xc3\xb2\xa1\x02\x00",
            "broken at byte 0: the file ends after 6 of the 24 bytes of a file header",
        ),
    ] {
        let error = read_all(bytes).1.expect("an error").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_absurd_length_ends_the_capture_there() {
    let mut file = classic(0xa1b2_c3d4, false, false, [0, 0]);
    file[53..57].copy_from_slice(&u32::MAX.to_le_bytes());
    let (seen, error) = read_all(&file);
    assert_eq!(seen.len(), 1);
    assert_eq!(
        error.expect("an error").to_string(),
        "vector: broken at byte 45: a packet record states a length of 4294967295, expected at most 16777216"
    );
    for (length, expected) in
        [(8, "states a length of 8, expected at least 12"), (1 << 30, "at most 17825792")]
    {
        let file = Bytes::new(true).section().u32(6).u32(length).u32(0);
        let error = read_all(&file.bytes).1.expect("an error").to_string();
        assert!(error.contains("broken at byte 28") && error.contains(expected), "{error}");
    }
}

#[test]
fn interfaces_without_end_are_refused_and_repeated_ones_are_one() {
    let mut file = Bytes::new(false).section();
    for _ in 0..=super::pcapng::MAX_INTERFACES {
        file = file.interface(1, |options| options);
    }
    let error = read_all(&file.bytes).1.expect("an error").to_string();
    assert!(error.contains("more than 4096 interfaces"), "{error}");
}

proptest! {
    #[test]
    fn a_mutated_capture_never_panics_and_never_gives_more_bytes_than_it_has(
        pick in 0..4_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = match pick {
            0 => classic(0xa1b2_3c4d, true, false, [1, 2]),
            1 => classic(0xa1b2_cd34, false, true, [1, 2]),
            2 => [everything(false), everything(true)].concat(),
            _ => gzip(&everything(true)),
        };
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        let (seen, _) = read_all(&bytes);
        let given: usize = seen.iter().map(|packet| packet.5.len()).sum();
        // A mutated gzip stream can unpack to more than it was.
        prop_assert!(pick == 3 || given <= bytes.len());
    }
}

/// A capture file with packets at these seconds.
fn at_seconds(seconds: &[u32]) -> Vec<u8> {
    let mut file = Bytes::new(false).u32(0xa1b2_c3d4).u16(2).u16(4).u64(0).u32(65_535).u32(1);
    for &second in seconds {
        file = file.u32(second).u32(0).u32(1).u32(1).raw(b"x");
    }
    file.bytes
}

/// The second and the interface of each packet of the set.
fn drain(set: &mut CaptureSet) -> Vec<(i64, u16)> {
    let mut names: Vec<String> = Vec::new();
    let mut seen = Vec::new();
    while let Some(packet) = set.next(&mut |name| {
        let known = names.iter().position(|known| known == name).unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        });
        InterfaceIndex(u16::try_from(known).expect("few names"))
    }) {
        seen.push((packet.time.parts().0, packet.interface.0));
    }
    seen
}

#[test]
fn captures_interleave_by_packet_time_and_a_broken_one_does_not_stop_the_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("late.pcap"), at_seconds(&[30, 40])).expect("a file");
    std::fs::write(path("one.pcap.gz"), gzip(&at_seconds(&[1, 5, 9]))).expect("a file");
    let broken = at_seconds(&[2, 6]);
    std::fs::write(path("two.pcap"), &broken[..broken.len() - 1]).expect("a file");
    std::fs::write(path("empty.pcap"), at_seconds(&[])).expect("a file");
    let paths: Vec<_> =
        ["late.pcap", "one.pcap.gz", "none.pcap", "two.pcap", "empty.pcap"].iter().map(|n| path(n)).collect();
    let mut set = CaptureSet::open(&paths, None);
    assert_eq!(drain(&mut set), [(1, 0), (2, 1), (5, 0), (9, 0), (30, 2), (40, 2)]);
    let told: Vec<_> = set.reports().iter().map(|r| (r.packets, r.error.is_some())).collect();
    assert_eq!(told, [(2, false), (3, false), (0, true), (1, true), (0, false)]);
    assert_eq!(set.reports()[1].first, Some(Timestamp(1_000_000_000)));
    let (read, size) = set.progress();
    assert_eq!(Some(read), size, "every byte was read");
}

#[test]
fn more_captures_than_are_kept_open_come_in_order_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut paths = Vec::new();
    // The last files come first in time, and each ends before the next begins.
    for number in 0..100_u32 {
        let path = dir.path().join(format!("{number}.pcap"));
        std::fs::write(&path, at_seconds(&[5000 - 10 * number, 5005 - 10 * number])).expect("a file");
        paths.push(path);
    }
    let mut set = CaptureSet::open(&paths, Some(Name::from("edge")));
    assert_eq!(set.open_captures(), 64);
    assert!(set.next(&mut |_| InterfaceIndex(0)).is_some());
    assert_eq!(set.open_captures(), 65, "the others wait until their time has come");
    let seen = drain(&mut set);
    assert_eq!(seen.len(), 199);
    assert!(seen.is_sorted() && seen.iter().all(|(_, interface)| *interface == 0));
    assert!(set.reports().iter().all(|report| report.packets == 2 && report.error.is_none()));
}

/// What captures give, and what is told of them: read packet by packet, or as far as they follow one another in so
/// many at a time.
fn give(paths: &[PathBuf], several: Option<&[usize]>) -> (Vec<(u16, Seen)>, Vec<String>) {
    let mut set = CaptureSet::open(paths, None);
    let mut names: Vec<String> = Vec::new();
    let mut seen = Vec::new();
    let mut stops = several.unwrap_or_default().iter().cycle();
    loop {
        let mut take = |packet: &CapturedPacket<'_>| {
            let &CapturedPacket { time, interface, link_type, direction, wire_length, data } = packet;
            seen.push((
                interface.0,
                (time.as_nanos(), None, link_type.0, direction, wire_length, data.to_vec()),
            ));
        };
        if several.is_some() {
            let mut left = *stops.next().expect("a number");
            set.follow(|packet| {
                take(packet);
                left -= 1;
                left > 0
            });
        }
        let Some(packet) = set.next(&mut |name| {
            names.push(name.to_owned());
            InterfaceIndex(u16::try_from(names.len()).expect("few names"))
        }) else {
            break;
        };
        take(&packet);
    }
    let told = set.reports().iter().map(|report| format!("{report:?}")).chain(names).collect();
    (seen, told)
}

#[test]
fn packets_that_follow_are_handed_over_together() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("long.pcap");
    std::fs::write(&path, at_seconds(&(0..50_000).collect::<Vec<_>>())).expect("a file");
    let mut set = CaptureSet::open(&[path], None);
    assert_eq!(set.follow(|_| true), 0, "the interface is not known yet");
    assert!(set.next(&mut |_| InterfaceIndex(3)).is_some());
    assert!(set.follow(|packet| packet.interface == InterfaceIndex(3)) > 5_000);
    assert_eq!(set.follow(|_| true), 0, "the rest is not at hand");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn captures_read_the_same_in_runs_as_packet_by_packet(
        seconds in prop::collection::vec(prop::collection::vec(0_u32..20, 0..12), 1..4),
        kinds in prop::collection::vec(0..5_usize, 0..3),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        stops in prop::collection::vec(1..6_usize, 1..4),
    ) {
        let dir = tempfile::tempdir().expect("a directory");
        let mut files: Vec<Vec<u8>> = seconds.iter().map(|seconds| at_seconds(seconds)).collect();
        files.extend(kinds.iter().map(|kind| match kind {
            0 => classic(0xa1b2_3c4d, true, false, [1, 2]),
            1 => classic(0xa1b2_cd34, false, true, [1, 2]),
            2 => gzip(&everything(true)),
            3 => [everything(true), at_pcapng_seconds(&[1, 3, 2, 7])].concat(),
            _ => [everything(false), everything(false), at_pcapng_seconds(&[2, 9])].concat(),
        }));
        let last = files.last_mut().expect("one at least");
        for (at, value) in changes {
            let at = at.index(last.len());
            last[at] = value;
        }
        if cut.index(3) == 0 {
            last.truncate(cut.index(last.len()) + 1);
        }
        let paths: Vec<PathBuf> = (0..files.len()).map(|index| dir.path().join(format!("{index}"))).collect();
        for (path, file) in paths.iter().zip(&files) {
            std::fs::write(path, file).expect("a file");
        }
        prop_assert_eq!(give(&paths, Some(&stops)), give(&paths, None));
    }
}

/// Packets of two interfaces at these seconds.
fn at_pcapng_seconds(seconds: &[u64]) -> Vec<u8> {
    let file = Bytes::new(false)
        .section()
        .interface(1, |options| options.option(2, b"eth7"))
        .interface(1, |options| options.option(2, b"eth8"));
    let packet = |file: Bytes, second: &u64| {
        let interface = u32::from(second % 2 == 1);
        file.enhanced(interface, second * 1_000_000, 60, b"abcdefg", None)
    };
    seconds.iter().fold(file, packet).bytes
}

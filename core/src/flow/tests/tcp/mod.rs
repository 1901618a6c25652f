//! The kept state of a TCP connection against a model of it, and the short way of its segments against the long one.

mod model;
mod stream;

use proptest::prelude::*;

use self::model::Model;
use crate::{
    decode::TcpSegment,
    flow::{
        key::Side,
        tcp::{Outcome, Segment, TcpState},
    },
    time::Timestamp,
};

const ACK: u16 = TcpSegment::ACK;

/// Where a number of a segment is taken from.
#[derive(Clone, Copy, Debug)]
enum From {
    /// What comes next by the side's own count.
    Next,
    /// Beside that.
    Near(i32),
    /// Anything.
    Any(u32),
}

/// One segment before its numbers are known.
#[derive(Clone, Copy, Debug)]
struct Sketch {
    side: Side,
    flags: u16,
    sequence: From,
    acknowledgement: From,
    payload: u32,
    closed: bool,
    fragment: bool,
    wait: i64,
    rejected: bool,
    new_part: bool,
}

fn place() -> impl Strategy<Value = From> {
    prop_oneof![
        12 => Just(From::Next),
        3 => (-3_i32..4).prop_map(From::Near),
        2 => (-4000_i32..4000).prop_map(From::Near),
        1 => any::<i32>().prop_map(From::Near),
        1 => prop_oneof![Just(0), any::<u32>()].prop_map(From::Any),
    ]
}

fn flags() -> impl Strategy<Value = u16> {
    prop_oneof![
        20 => Just(ACK),
        3 => Just(TcpSegment::SYN),
        3 => Just(TcpSegment::SYN | ACK),
        3 => Just(TcpSegment::FIN | ACK),
        1 => Just(TcpSegment::FIN),
        1 => Just(TcpSegment::RST),
        1 => Just(TcpSegment::RST | ACK),
        2 => 0_u16..0x200,
    ]
}

prop_compose! {
    fn sketch()(
        side in 0_usize..2,
        flags in flags(),
        (sequence, acknowledgement) in (place(), place()),
        payload in prop_oneof![
            10 => Just(0_u32), 10 => 1_u32..1500, 2 => 0_u32..70_000, 1 => Just(1 << 30), 1 => any::<u32>()
        ],
        (closed, fragment, rejected, new_part) in (
            prop::bool::weighted(0.03), prop::bool::weighted(0.01), prop::bool::weighted(0.01),
            prop::bool::weighted(0.02),
        ),
        wait in prop_oneof![8 => 0_i64..1 << 31, 1 => 0_i64..1 << 40, 1 => any::<i64>()],
    ) -> Sketch {
        Sketch {
            side, flags, sequence, acknowledgement, payload, closed, fragment, wait, rejected, new_part,
        }
    }
}

/// Both ends as they would count, to make segments that mostly fit.
#[derive(Debug)]
struct Script {
    next: [u32; 2],
    clock: Timestamp,
    header: TcpSegment,
}

impl Script {
    fn new(next: [u32; 2]) -> Self {
        let header =
            TcpSegment { source: 1, destination: 2, sequence: 0, acknowledgement: 0, flags: 0, window: 0 };
        Self { next, clock: Timestamp(1 << 60), header }
    }

    fn segment(&mut self, sketch: &Sketch, originator: Side) -> Segment<'_> {
        let number = |from, next: u32| match from {
            From::Next => next,
            From::Near(by) => next.wrapping_add_signed(by),
            From::Any(number) => number,
        };
        let (me, peer) = (sketch.side, 1 - sketch.side);
        let has = |flag| sketch.flags & flag != 0;
        self.header.flags = sketch.flags;
        self.header.window = if sketch.closed { 0 } else { 500 };
        self.header.sequence = number(sketch.sequence, self.next[me]);
        self.header.acknowledgement = number(sketch.acknowledgement, self.next[peer]);
        if matches!(sketch.sequence, From::Next) || has(TcpSegment::SYN) {
            let control = u32::from(has(TcpSegment::SYN)) + u32::from(has(TcpSegment::FIN));
            self.next[me] = self.header.sequence.wrapping_add(sketch.payload).wrapping_add(control);
        }
        self.clock = self.clock.plus(sketch.wait);
        let Sketch { side, payload, fragment, .. } = *sketch;
        Segment { side, originator, header: &self.header, payload, time: self.clock, fragment }
    }
}

/// Everything that can be asked of a state.
macro_rules! answers {
    ($state:expr, $originator:expr, $header:expr, $history:expr) => {{
        let (state, originator) = (&$state, $originator);
        (
            [state.conn_state(0), state.conn_state(1)],
            [state.losses(0), state.losses(1)],
            state.round_trips(),
            (state.is_unanswered(originator), state.is_reuse(originator, $header), state.syn_seen()),
            $history,
        )
    }};
}

fn history(state: &TcpState) -> String {
    let mut text = String::new();
    state.history().write(&mut text);
    text
}

/// Takes a segment; and whether the short way will have it.
fn take(state: &mut TcpState, segment: &Segment<'_>) -> (bool, Outcome) {
    let &Segment { side, originator, payload, fragment, .. } = segment;
    let &TcpSegment { sequence, acknowledgement, flags, window, .. } = segment.header;
    let mut other = state.clone();
    let passes = !fragment && other.pass(side, originator, sequence, acknowledgement, flags, window, payload);
    (passes, state.update(segment))
}

/// Runs segments through model and state, by the short way where it will have them and by the long way, and compares
/// all there is after each. Gives how many took the short way.
fn compare(sketches: &[Sketch], start: [u32; 2]) -> Result<usize, TestCaseError> {
    let mut script = Script::new(start);
    let (mut model, mut long, mut short) = (Model::default(), TcpState::default(), TcpState::default());
    let (mut originator, mut passed, mut is_first) = (0, 0, true);
    if start[0] % 8 == 1 {
        model.note_flip();
        long.note_flip();
        short.note_flip();
    }
    for sketch in sketches {
        if sketch.new_part {
            model.begin_part();
            long.begin_part();
            short.begin_part();
        }
        if sketch.rejected {
            model.reject(sketch.side, originator);
            long.reject(sketch.side, originator);
            short.reject(sketch.side, originator);
            continue;
        }
        let segment = script.segment(sketch, originator);
        if is_first && !segment.fragment && segment.payload == 0 && segment.side == originator {
            let begun = TcpState::of_syn(originator, segment.header, segment.time);
            let mut other = TcpState::default();
            other.at_length(&segment);
            prop_assert_eq!(format!("{begun:?}"), format!("{other:?}"), "{:?}", segment);
        }
        is_first = false;
        let expected = model.update(&segment);
        prop_assert_eq!(long.at_length(&segment), expected, "{:?}", segment);
        let (by_short, outcome) = take(&mut short, &segment);
        prop_assert_eq!(outcome, expected, "{:?}", segment);
        passed += usize::from(by_short);
        prop_assert_eq!(format!("{long:?}"), format!("{short:?}"), "{:?}", segment);
        if expected.flip {
            originator = 1 - originator;
        }
        let letters = String::from_utf8(model.history.clone()).expect("letters");
        prop_assert_eq!(
            answers!(long, originator, segment.header, history(&long)),
            answers!(model, originator, segment.header, letters),
            "{:?}",
            segment
        );
    }
    Ok(passed)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_the_state_says_what_the_model_says(
        sketches in prop::collection::vec(sketch(), 1..60), start: [u32; 2],
    ) {
        compare(&sketches, start)?;
    }

    #[test]
    fn connections_that_begin_as_most_do_agree_too(
        sketches in prop::collection::vec(sketch(), 1..60), start: [u32; 2], numbers in 0_u32..3,
    ) {
        let begin = [(0, TcpSegment::SYN), (1, TcpSegment::SYN | ACK), (0, ACK), (0, ACK), (1, ACK), (1, ACK)];
        // Numbers that pass the end of 32 bits, once and again.
        let payload = [1, 300, 1 << 30][numbers as usize];
        let begin = begin
            .iter()
            .enumerate()
            .map(|(at, &(side, flags))| plain(side, flags, if at > 3 { payload } else { 0 }));
        compare(&begin.chain(sketches).collect::<Vec<_>>(), start)?;
    }
}

fn plain(side: Side, flags: u16, payload: u32) -> Sketch {
    Sketch {
        side,
        flags,
        sequence: From::Next,
        acknowledgement: From::Next,
        payload,
        closed: false,
        fragment: false,
        wait: 1,
        rejected: false,
        new_part: false,
    }
}

#[test]
fn data_that_was_acknowledged_before_it_came_agrees() {
    let early = |by| Sketch { acknowledgement: From::Near(by), ..plain(1, ACK, 0) };
    for (by, payload) in [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)] {
        let data = plain(0, ACK, payload);
        let sketches =
            [plain(0, ACK, 0), early(by), data, plain(1, ACK, 5), data, data, plain(1, ACK, 0), data];
        compare(&sketches, [9, 9]).expect("the same");
    }
}

#[test]
fn a_connection_in_order_goes_the_short_way_past_4_gigabytes() {
    let mut sketches =
        vec![plain(0, TcpSegment::SYN, 0), plain(1, TcpSegment::SYN | ACK, 0), plain(0, ACK, 0)];
    for _ in 0..40 {
        sketches.extend([plain(1, ACK, 1 << 28), plain(1, ACK, 1 << 28), plain(0, ACK, 0)]);
    }
    sketches.extend([
        plain(1, TcpSegment::FIN | ACK, 0),
        plain(0, ACK, 0),
        plain(0, TcpSegment::FIN | ACK, 0),
    ]);
    let passed = compare(&sketches, [7, u32::MAX - 9]).expect("the same");
    // All but what was named, the first data, and those around 4, 8, 12 and 16 gigabytes.
    assert!((100..120).contains(&passed), "{passed} of {}", sketches.len());
}

/// Numbers at the end of 48 bits, which no prefix of random segments reaches.
#[test]
fn numbers_that_end_at_48_bits_agree() {
    let mut sketches = vec![plain(0, TcpSegment::SYN, 0), plain(1, TcpSegment::SYN | ACK, 0)];
    sketches.extend((0..70_000).map(|_| plain(0, ACK, i32::MAX.cast_unsigned())));
    for flags in [ACK, TcpSegment::FIN | ACK, TcpSegment::RST, ACK] {
        let near = Sketch { sequence: From::Near(-5), ..plain(0, flags, 1 << 31) };
        sketches.extend([plain(0, flags, 1 << 31), plain(1, ACK, 1 << 31), near]);
    }
    compare(&sketches, [1, 2]).expect("the same");
}

//! Writes the pieces of a line one behind the other into a place of fixed size. A piece whose length is not known is
//! copied with a length that is, and the next piece goes over what was too much: copies of a known length are a
//! few instructions, others a call.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use onenet_core::{
    digits,
    net::{MacAddress, Name},
    record::FlowId,
    time::Timestamp,
};

use super::{
    general::needs_escapes,
    names::{Names, SHORT},
};

/// The place of a line. Records with names of usual length take a third of it.
pub(crate) const ROOM: usize = 4096;

/// Where the pen stands when the line cannot be written here: beyond any place.
const FAILED: usize = ROOM + 1;

/// A place, and how far it is filled.
pub(super) struct Pen<'a> {
    room: &'a mut [u8; ROOM],
    at: usize,
}

impl<'a> Pen<'a> {
    /// Goes on where another has left off.
    #[inline(always)]
    pub(super) const fn new(room: &'a mut [u8; ROOM], at: usize) -> Self {
        Self { room, at }
    }

    /// Where it stands.
    #[inline(always)]
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    /// The length of the line; none where it could not be written here.
    pub(super) fn length(&self) -> Option<usize> {
        (self.at <= ROOM).then_some(self.at)
    }

    /// Lets another write on, and goes on behind it.
    #[inline(always)]
    pub(super) fn lend(&mut self, write: impl FnOnce(&mut [u8; ROOM], usize) -> usize) {
        self.at = write(self.room, self.at);
    }

    /// Writes a piece.
    #[inline(always)]
    pub(super) fn put<const N: usize>(&mut self, piece: &[u8; N]) {
        self.put_part(piece, N);
    }

    /// Writes the beginning of a piece. What is behind it is written over by the next piece.
    #[inline(always)]
    pub(super) fn put_part<const N: usize>(&mut self, piece: &[u8; N], length: usize) {
        let fits = self.at <= ROOM.saturating_sub(N);
        let place = self.room.get_mut(self.at..).and_then(|rest| rest.first_chunk_mut());
        match place.filter(|_| fits) {
            Some(place) => {
                *place = *piece;
                self.at = self.at.wrapping_add(length);
            }
            None => self.at = FAILED,
        }
    }

    /// Writes a piece of any length.
    pub(super) fn put_slice(&mut self, piece: &[u8]) {
        match self.room.get_mut(self.at..).and_then(|rest| rest.get_mut(..piece.len())) {
            Some(place) => {
                place.copy_from_slice(piece);
                self.at = self.at.wrapping_add(piece.len());
            }
            None => self.at = FAILED,
        }
    }

    /// Writes a text without quotes.
    #[inline(always)]
    pub(super) fn text(&mut self, text: &str) {
        if needs_escapes(text) {
            self.at = FAILED;
        } else {
            self.put_slice(text.as_bytes());
        }
    }

    /// Writes a text that mostly has N bytes, without quotes.
    #[inline(always)]
    pub(super) fn text_of<const N: usize>(&mut self, text: &str) {
        match text.as_bytes().try_into() {
            Ok(piece) if text.len() == N && !has_escapes::<N>(piece) => self.put::<N>(piece),
            _ => self.text(text),
        }
    }

    /// Writes one of the names of an enum, without quotes.
    #[inline(always)]
    pub(super) fn word<const N: usize>(&mut self, words: &[Word<N>], index: usize) {
        match words.get(index) {
            Some(word) => self.put_part(&word.text, usize::from(word.length)),
            None => self.at = FAILED,
        }
    }

    /// Writes a number.
    #[inline(always)]
    pub(super) fn number(&mut self, value: u64) {
        if value < 10 {
            self.put(&[b'0' | value.to_le_bytes()[0]]);
        } else {
            self.lend(|room, at| number(room, at, value));
        }
    }

    /// Writes a number with a sign, or `null`.
    #[inline(always)]
    pub(super) fn optional(&mut self, value: Option<i64>) {
        let Some(value) = value else { return self.put(b"null") };
        if value < 0 {
            self.put(b"-");
        }
        self.number(value.unsigned_abs());
    }

    /// Writes numbers with commas between.
    #[inline(always)]
    pub(super) fn numbers(&mut self, values: impl Iterator<Item = u64>) {
        for (index, value) in values.enumerate() {
            if index > 0 {
                self.put(b",");
            }
            self.number(value);
        }
    }

    /// Writes a name in quotes.
    #[inline(always)]
    pub(super) fn name(&mut self, name: &Name, names: &mut Names) {
        match names.quoted(name) {
            Some(quoted) if quoted.length <= SHORT => self.put_part(&quoted.short, quoted.length),
            Some(quoted) => self.put_slice(&quoted.long),
            None => self.at = FAILED,
        }
    }

    /// Writes a name in quotes, or `null`.
    #[inline(always)]
    pub(super) fn optional_name(&mut self, name: Option<&Name>, names: &mut Names) {
        match name {
            Some(name) => self.name(name, names),
            None => self.put(b"null"),
        }
    }

    /// Writes an identity without quotes.
    #[inline(always)]
    pub(super) fn id(&mut self, id: FlowId) {
        self.put(&id.to_text());
    }

    /// Writes a MAC address in quotes, or `null`.
    #[inline(always)]
    pub(super) fn mac(&mut self, mac: Option<MacAddress>) {
        self.quoted(mac, |pen, mac| pen.put(&mac.to_text()));
    }

    /// Writes something in quotes, or `null`.
    #[inline(always)]
    pub(super) fn quoted<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            Some(value) => {
                self.put(b"\"");
                write(self, value);
                self.put(b"\"");
            }
            None => self.put(b"null"),
        }
    }

    /// Writes an address without quotes.
    #[inline(always)]
    pub(super) fn ip(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(v4) => self.v4(v4),
            IpAddr::V6(v6) => self.lend(|room, at| {
                let mut pen = Pen::new(room, at);
                pen.v6(v6);
                pen.at
            }),
        }
    }

    #[inline(always)]
    fn v4(&mut self, ip: Ipv4Addr) {
        for octet in ip.octets() {
            let length = 2 + usize::from(octet > 9) + usize::from(octet > 99);
            self.put_part(&OCTETS[usize::from(octet)], length);
        }
        // The last octet has no dot behind it.
        self.at = if self.at > ROOM { FAILED } else { self.at.wrapping_sub(1) };
    }

    /// As RFC 5952 says: lower case, and the longest run of zero groups (the first of several) left out.
    #[inline(never)]
    fn v6(&mut self, ip: Ipv6Addr) {
        if let Some(v4) = ip.to_ipv4_mapped() {
            self.put(b"::ffff:");
            return self.v4(v4);
        }
        let groups = ip.segments();
        let (mut longest, mut run) = (0..0, 0..0);
        for (index, &group) in groups.iter().enumerate() {
            run = if group != 0 { index + 1..index + 1 } else { run.start..index + 1 };
            if run.len() > longest.len() {
                longest = run.clone();
            }
        }
        if longest.len() < 2 {
            longest = 0..0;
        }
        for (index, &group) in groups.iter().enumerate() {
            if longest.contains(&index) {
                if index == longest.start {
                    self.put(b"::");
                }
                continue;
            }
            if index > 0 && index != longest.end {
                self.put(b":");
            }
            let skipped = (group.leading_zeros() / 4).min(3);
            let text = u64::from_le_bytes(digits::hex(u32::from(group) << 16)) >> (skipped * 8);
            self.put_part(&text.to_le_bytes(), 4 - skipped as usize);
        }
    }

    /// Writes a time without quotes.
    #[inline(always)]
    pub(super) fn time(&mut self, time: Timestamp) {
        self.put(&time.to_text());
    }
}

/// A number of two digits or more.
#[inline(never)]
fn number(room: &mut [u8; ROOM], at: usize, value: u64) -> usize {
    let mut pen = Pen::new(room, at);
    match u32::try_from(value) {
        Ok(value) if value < 100_000_000 => {
            let (digits, length) = digits::short(value);
            pen.put_part(&digits, length);
        }
        _ => pen.put_slice(itoa::Buffer::new().format(value).as_bytes()),
    }
    pen.at
}

/// Whether a text of known length has bytes that cannot stand in a JSON string.
fn has_escapes<const N: usize>(text: &[u8; N]) -> bool {
    text.iter().fold(false, |found, &byte| found | (byte < 0x20) | (byte == b'"') | (byte == b'\\'))
}

/// The digits of each octet, and a dot.
static OCTETS: [[u8; 4]; 256] = {
    let mut octets = [[0; 4]; 256];
    let mut octet = 0;
    while octet < 256 {
        let (digits, length) = digits::short(octet);
        octets[octet as usize] = [digits[0], digits[1], digits[2], 0];
        octets[octet as usize][length] = b'.';
        octet += 1;
    }
    octets
};

/// A name of an enum, with room for the longest.
#[derive(Clone, Copy)]
pub(super) struct Word<const N: usize> {
    text: [u8; N],
    length: u8,
}

impl<const N: usize> Word<N> {
    pub(super) const fn new(text: &str) -> Self {
        let mut word = Self { text: [0; N], length: text.len().to_le_bytes()[0] };
        let mut at = 0;
        while at < text.len() {
            word.text[at] = text.as_bytes()[at];
            at += 1;
        }
        word
    }
}

/// The names of an enum in a table, in order of its values.
macro_rules! words {
    ($kind:ident, $room:literal) => {{
        const COUNT: usize = <$kind>::ALL.len();
        let mut words = [Word::<$room>::new(""); COUNT];
        let mut at = 0;
        while at < COUNT {
            words[at] = Word::new(<$kind>::ALL[at].as_str());
            at += 1;
        }
        words
    }};
}
pub(super) use words;

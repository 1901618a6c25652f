//! What the first segment of a TCP connection says of the host that sent it: the signature of its stack in p0f's terms,
//! the clock behind its timestamps (RFC 7323), and how it counts IPv4's identification field.

use std::{fmt, str::FromStr};

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize, de, de::Visitor};

use super::named_enum;
use crate::time::Timestamp;

/// TCP options in one signature at most; further ones are left out, and told by [`Quirk::Bad`].
pub const MAX_OPTIONS: usize = 16;

named_enum! {
    /// A kind of TCP option (IANA tcp-parameters), by p0f's name.
    OptionKind {
        /// End of the list (0).
        End = 1 "eol",
        /// No operation (1).
        Nop = 2 "nop",
        /// Maximum segment size (2).
        Mss = 3 "mss",
        /// Window scale (3, RFC 7323).
        WindowScale = 4 "ws",
        /// Selective acknowledgement permitted (4, RFC 2018).
        SackPermitted = 5 "sok",
        /// Selective acknowledgement (5).
        Sack = 6 "sack",
        /// Timestamps (8, RFC 7323).
        Timestamps = 7 "ts",
        /// Any other.
        Other = 8 "?",
    }
}

named_enum! {
    /// A peculiarity of the segment, by p0f's name.
    Quirk {
        /// Do not fragment (IPv4).
        DontFragment = 0 "df",
        /// An identification although it must not be fragmented.
        IdWithDf = 1 "id+",
        /// No identification although it may be fragmented.
        NoId = 2 "id-",
        /// Explicit congestion notification (RFC 3168).
        Ecn = 3 "ecn",
        /// The own timestamp is zero.
        ZeroTimestamp = 4 "ts1-",
        /// The peer's timestamp is not zero, although none was heard.
        PeerTimestamp = 5 "ts2+",
        /// A window scale over 14.
        ExcessiveScale = 6 "exws",
        /// Options that cannot be read to their end.
        Bad = 7 "bad",
    }
}

/// The signature of a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StackSignature {
    /// IP version, 4 or 6.
    pub version: u8,
    /// Time to live it began with: the least of 32, 64, 128, 255 that is not below the one seen.
    pub initial_ttl: u8,
    /// Bytes of IP options.
    pub ip_options: u8,
    /// Window scale; 0 without the option.
    pub window_scale: u8,
    /// Maximum segment size; 0 without the option.
    pub mss: u16,
    /// Window.
    pub window: u16,
    /// Options in their order, four bits each, the first one lowest.
    layout: u64,
    /// Bit set of quirks.
    quirks: u8,
}

/// The time to live that a packet with this one most probably began with.
pub const fn initial_ttl(seen: u8) -> u8 {
    match seen {
        0..=32 => 32,
        33..=64 => 64,
        65..=128 => 128,
        _ => 255,
    }
}

impl StackSignature {
    /// A signature without options and quirks.
    pub const fn new(version: u8, initial_ttl: u8, window: u16) -> Self {
        Self { version, initial_ttl, ip_options: 0, window_scale: 0, mss: 0, window, layout: 0, quirks: 0 }
    }

    /// Adds an option behind the others; whether there was room.
    pub const fn push_option(&mut self, at: usize, kind: OptionKind) -> bool {
        if at >= MAX_OPTIONS {
            return false;
        }
        self.layout |= (kind.code() as u64) << (4 * at);
        true
    }

    /// The options in their order.
    pub fn options(&self) -> impl Iterator<Item = OptionKind> + use<> {
        let layout = self.layout;
        (0..MAX_OPTIONS).map_while(move |at| OptionKind::from_code((layout >> (4 * at) & 0xf) as u8))
    }

    /// Adds a quirk.
    pub const fn set(&mut self, quirk: Quirk) {
        self.quirks |= 1 << quirk.code();
    }

    /// Whether it has a quirk.
    pub const fn has(&self, quirk: Quirk) -> bool {
        self.quirks & 1 << quirk.code() != 0
    }

    /// What of it an operating system never changes by itself: the order of options, the window scale and whether
    /// packets may be fragmented. Window and segment size follow the path.
    pub const fn kernel(&self) -> (u8, u64, u8, bool) {
        (self.version, self.layout, self.window_scale, self.has(Quirk::DontFragment))
    }
}

/// `ver:ittl:olen:mss:wsize,scale:olayout:quirks:pclass`, as p0f 3 writes a signature.
impl fmt::Display for StackSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}:{}:{},{}:",
            self.version, self.initial_ttl, self.ip_options, self.mss, self.window, self.window_scale
        )?;
        for (at, option) in self.options().enumerate() {
            write!(f, "{}{option}", if at == 0 { "" } else { "," })?;
        }
        f.write_str(":")?;
        for (at, quirk) in Quirk::ALL.iter().filter(|quirk| self.has(**quirk)).enumerate() {
            write!(f, "{}{quirk}", if at == 0 { "" } else { "," })?;
        }
        f.write_str(":0")
    }
}

/// The text is no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no signature of a stack; expected ver:ittl:olen:mss:wsize,scale:olayout:quirks:0")]
pub struct InvalidSignature;

impl FromStr for StackSignature {
    type Err = InvalidSignature;

    fn from_str(text: &str) -> Result<Self, InvalidSignature> {
        let parts: ArrayVec<&str, 9> = text.split(':').take(9).collect();
        let [version, ttl, ip_options, mss, window, options, quirks, "0"] = parts[..] else {
            return Err(InvalidSignature);
        };
        let (window, scale) = window.split_once(',').ok_or(InvalidSignature)?;
        fn number<T: FromStr>(text: &str) -> Result<T, InvalidSignature> {
            text.parse().map_err(|_| InvalidSignature)
        }
        let mut signature = Self {
            ip_options: number(ip_options)?,
            window_scale: number(scale)?,
            mss: number(mss)?,
            ..Self::new(number(version)?, number(ttl)?, number(window)?)
        };
        let names = |list: &'_ str| {
            list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        for (at, name) in names(options).iter().enumerate() {
            let known = OptionKind::ALL.iter().find(|kind| kind.as_str() == name).ok_or(InvalidSignature)?;
            if !signature.push_option(at, *known) {
                return Err(InvalidSignature);
            }
        }
        for name in names(quirks) {
            signature.set(*Quirk::ALL.iter().find(|quirk| quirk.as_str() == name).ok_or(InvalidSignature)?);
        }
        Ok(signature)
    }
}

impl Serialize for StackSignature {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StackSignature {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = StackSignature;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the signature of a stack")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<StackSignature, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// A SYN of one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackSample {
    /// Its signature.
    pub signature: StackSignature,
    /// Its timestamp, where it has one.
    pub timestamp: Option<u32>,
    /// IPv4's identification; none for IPv6.
    pub ip_id: Option<u16>,
}

/// A signature, and how often it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenSignature {
    /// The signature.
    pub signature: StackSignature,
    /// Segments with it.
    pub segments: u32,
}

/// A clock that timestamps were taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpClock {
    /// Ticks a second.
    pub hertz: u32,
    /// When it would have stood at zero: the start of the host, where its stack adds nothing of its own.
    pub origin: Timestamp,
}

named_enum! {
    /// How a host fills in IPv4's identification, as far as its SYNs show.
    #[derive(Default)]
    IpIdBehaviour {
        /// Too few were seen, or they say nothing.
        #[default]
        Unknown = 0 "unknown",
        /// Always zero (RFC 6864 allows it with DF).
        Zero = 1 "zero",
        /// One counter for all it sends.
        Counter = 2 "counter",
        /// No order.
        Random = 3 "random",
    }
}

/// Signatures that one observation names at most.
pub const MAX_SIGNATURES: usize = 4;

/// What the SYNs of an address say of the host or hosts behind it. Counts are since the observation before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackEvidence {
    /// Signatures, the latest first.
    pub signatures: ArrayVec<SeenSignature, MAX_SIGNATURES>,
    /// SYNs with another signature than the one before them.
    pub changes: u32,
    /// The clock behind the timestamps, where they come from one.
    pub clock: Option<TcpClock>,
    /// SYNs whose timestamp cannot follow the one before: another host, or a stack that begins anew for each
    /// connection or peer, as Linux does since 4.10.
    pub timestamp_breaks: u32,
    /// How the identification is filled in.
    pub ip_id: IpIdBehaviour,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_written_as_p0f_writes_it_and_reads_back() {
        let mut signature =
            StackSignature { mss: 1460, window_scale: 7, ..StackSignature::new(4, 64, 64_240) };
        use OptionKind::{Mss, Nop, SackPermitted, Timestamps, WindowScale};
        for (at, kind) in [Mss, SackPermitted, Timestamps, Nop, WindowScale].into_iter().enumerate() {
            assert!(signature.push_option(at, kind));
        }
        signature.set(Quirk::DontFragment);
        signature.set(Quirk::IdWithDf);
        assert_eq!(signature.to_string(), "4:64:0:1460:64240,7:mss,sok,ts,nop,ws:df,id+:0");
        assert_eq!(signature.to_string().parse(), Ok(signature));
        let bare = StackSignature::new(6, 255, 4128);
        assert_eq!(bare.to_string(), "6:255:0:0:4128,0:::0");
        assert_eq!(bare.to_string().parse(), Ok(bare));
        let all = StackSignature { layout: 0x8888_8888_8888_8888, ..bare };
        assert_eq!(all.to_string().parse(), Ok(all));
        assert!(!{ bare }.push_option(MAX_OPTIONS, Nop));
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        for text in [
            "",
            "4:64:0:1460:64240,7:mss:df",
            "4:64:0:1460:64240:mss:df:0",
            "4:64:0:1460:64240,7:mss:df:1",
            "4:64:0:1460:64240,7:mss:df:0:0",
            "4:64:0:1460:64240,7:mess:df:0",
            "4:64:0:1460:64240,7:mss:dg:0",
            "4:64:0:1460:70000,7:mss:df:0",
            "4:64:0:1460:1,7:nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop::0",
        ] {
            assert_eq!(text.parse::<StackSignature>(), Err(InvalidSignature), "{text}");
        }
    }

    #[test]
    fn a_time_to_live_began_at_one_of_the_usual_ones() {
        for (seen, began) in
            [(1, 32), (32, 32), (33, 64), (63, 64), (64, 64), (65, 128), (129, 255), (255, 255)]
        {
            assert_eq!(initial_ttl(seen), began, "{seen}");
        }
    }
}

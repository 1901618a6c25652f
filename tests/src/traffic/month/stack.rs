//! How kinds of hosts speak TCP: what their first segments look like, how they count packets, ports and time. The
//! values are those that passive fingerprinting tools list, which is what real hosts of these kinds send.

use std::sync::Arc;

use super::super::random::Random;

/// A TCP option on a SYN, in the order of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opt {
    /// Maximum segment size.
    Mss,
    /// No operation.
    Nop,
    /// Window scale.
    Ws(u8),
    /// Selective acknowledgement permitted.
    Sack,
    /// Timestamps.
    Ts,
    /// End of options; zeros follow.
    Eol,
}

/// What the stack's timestamps count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    /// It sends none.
    None,
    /// Milliseconds from a random start of each connection.
    PerConnection,
    /// Milliseconds from a start that follows from the two addresses (Linux since 4.10).
    PerPair,
    /// Ticks a second since the host was started.
    SinceBoot(i64),
}

/// How IPv4 packets are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ids {
    /// All 0.
    Zero,
    /// Each random.
    Random,
    /// Counted in each connection from a random start.
    PerConnection,
    /// Counted for each destination.
    PerDestination,
    /// One counter of the host.
    Counter,
    /// One counter of the host, written in the wrong order.
    Swapped,
}

/// How a port is chosen for a connection: the range, and whether by chance or one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ports {
    /// By chance.
    Random(u16, u16),
    /// One after another.
    Counting(u16, u16),
}

/// One kind of host.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stack {
    /// Its name.
    pub(super) name: &'static str,
    /// What its DHCP client says of itself.
    pub(super) vendor_class: &'static str,
    /// First octets of its network cards.
    pub(super) oui: [u8; 3],
    /// Initial time to live.
    pub(super) ttl: u8,
    /// Window of its SYN.
    pub(super) window: u16,
    /// Window, not scaled, of later segments.
    pub(super) later_window: u16,
    /// Largest segment over IPv4.
    pub(super) mss: u16,
    /// Options of its SYN.
    pub(super) options: &'static [Opt],
    /// Its timestamps.
    pub(super) clock: Clock,
    /// Its packet numbers.
    pub(super) ids: Ids,
    /// Whether its packets may not be fragmented.
    pub(super) whole: bool,
    /// Its ports.
    pub(super) ports: Ports,
    /// Whether it speaks IPv6.
    pub(super) ipv6: bool,
    /// How many of a hundred hosts are of this kind.
    pub(super) share: u32,
}

use Opt::{Eol, Mss, Nop, Sack, Ts, Ws};

const PLAIN: Stack = Stack {
    name: "",
    vendor_class: "",
    oui: [0; 3],
    ttl: 64,
    window: 64_240,
    later_window: 501,
    mss: 1460,
    options: &[Mss, Sack, Ts, Nop, Ws(7)],
    clock: Clock::PerPair,
    ids: Ids::PerConnection,
    whole: true,
    ports: Ports::Random(32_768, 60_999),
    ipv6: true,
    share: 0,
};

const WINDOWS: Stack = Stack {
    vendor_class: "MSFT 5.0",
    ttl: 128,
    later_window: 1026,
    options: &[Mss, Nop, Ws(8), Nop, Nop, Sack],
    clock: Clock::None,
    ids: Ids::PerDestination,
    ports: Ports::Counting(49_152, 65_535),
    ..PLAIN
};

/// All kinds.
pub(super) const STACKS: [Stack; 14] = [
    Stack { name: "linux 5", vendor_class: "dhcpcd-8.1", oui: [0x00, 0x50, 0x56], share: 14, ..PLAIN },
    Stack {
        name: "linux 4.4",
        vendor_class: "udhcp 1.24",
        oui: [0x00, 0x16, 0x3e],
        window: 29_200,
        later_window: 229,
        clock: Clock::SinceBoot(250),
        share: 7,
        ..PLAIN
    },
    Stack {
        name: "linux 3",
        vendor_class: "dhclient",
        oui: [0x52, 0x54, 0x00],
        window: 14_600,
        later_window: 115,
        clock: Clock::SinceBoot(1000),
        share: 6,
        ..PLAIN
    },
    Stack {
        name: "linux 2.6",
        vendor_class: "udhcp 0.9",
        oui: [0x00, 0x0d, 0xb9],
        window: 5840,
        later_window: 92,
        options: &[Mss, Sack, Ts, Nop, Ws(6)],
        clock: Clock::SinceBoot(100),
        share: 4,
        ..PLAIN
    },
    Stack { name: "windows 10", oui: [0x8c, 0x16, 0x45], share: 26, ..WINDOWS },
    Stack { name: "windows 11", oui: [0xd8, 0xbb, 0xc1], window: 65_535, share: 12, ..WINDOWS },
    Stack {
        name: "windows 7",
        oui: [0x00, 0x21, 0xcc],
        window: 8192,
        later_window: 256,
        options: &[Mss, Nop, Ws(2), Nop, Nop, Sack],
        ids: Ids::Counter,
        share: 5,
        ..WINDOWS
    },
    Stack {
        name: "windows xp",
        oui: [0x00, 0x0f, 0x1f],
        window: 65_535,
        later_window: 65_535,
        options: &[Mss, Nop, Nop, Sack],
        ids: Ids::Counter,
        ports: Ports::Counting(1025, 5000),
        ipv6: false,
        share: 2,
        ..WINDOWS
    },
    Stack {
        name: "macos",
        oui: [0x3c, 0x22, 0xfb],
        window: 65_535,
        later_window: 2058,
        options: &[Mss, Nop, Ws(6), Nop, Nop, Ts, Sack, Eol],
        clock: Clock::PerConnection,
        ids: Ids::Zero,
        ports: Ports::Random(49_152, 65_535),
        share: 10,
        ..PLAIN
    },
    Stack {
        name: "freebsd",
        vendor_class: "dhclient freebsd",
        oui: [0x00, 0x25, 0x90],
        window: 65_535,
        later_window: 1035,
        options: &[Mss, Nop, Ws(6), Sack, Ts],
        clock: Clock::PerConnection,
        ids: Ids::Random,
        ports: Ports::Random(10_000, 65_535),
        share: 3,
        ..PLAIN
    },
    Stack {
        name: "cisco",
        oui: [0x00, 0x1e, 0xbd],
        ttl: 255,
        window: 4128,
        later_window: 4128,
        mss: 536,
        options: &[Mss],
        clock: Clock::None,
        ids: Ids::Random,
        whole: false,
        ports: Ports::Counting(11_000, 65_535),
        ipv6: false,
        share: 2,
        ..PLAIN
    },
    Stack {
        name: "printer",
        vendor_class: "Hewlett-Packard JetDirect",
        oui: [0x00, 0x17, 0xa4],
        ttl: 255,
        window: 11_680,
        later_window: 11_680,
        options: &[Mss],
        clock: Clock::None,
        ids: Ids::Counter,
        whole: false,
        ports: Ports::Counting(1024, 5000),
        ipv6: false,
        share: 3,
        ..PLAIN
    },
    Stack {
        name: "solaris 10",
        vendor_class: "SUNW.i86pc",
        oui: [0x00, 0x14, 0x4f],
        window: 49_640,
        later_window: 49_640,
        options: &[Nop, Ws(0), Nop, Nop, Ts, Nop, Nop, Sack, Mss],
        clock: Clock::SinceBoot(100),
        ids: Ids::Swapped,
        ports: Ports::Counting(32_768, 65_535),
        share: 2,
        ..PLAIN
    },
    Stack {
        name: "iot",
        vendor_class: "ESPRESSIF",
        oui: [0x24, 0x0a, 0xc4],
        ttl: 128,
        window: 5840,
        later_window: 5840,
        options: &[Mss],
        clock: Clock::None,
        ids: Ids::Counter,
        whole: false,
        ports: Ports::Counting(49_152, 65_535),
        ipv6: false,
        share: 4,
        ..PLAIN
    },
];

impl Stack {
    /// Of this name; the first where there is none.
    pub(super) fn named(name: &str) -> &'static Self {
        static ALL: [Stack; 14] = STACKS;
        ALL.iter().find(|stack| stack.name == name).unwrap_or(&ALL[0])
    }

    /// One of these names.
    pub(super) fn one_of(random: &mut Random, names: &[&str]) -> &'static Self {
        let name: &str = random.pick::<&str>(names);
        Self::named(name)
    }

    /// All kinds that speak this family.
    pub(super) fn all(ipv6: bool) -> Vec<&'static Self> {
        let kinds = STACKS.iter().filter(|stack| stack.ipv6 || !ipv6);
        kinds.map(|stack| Self::named(stack.name)).collect()
    }

    /// Whether it sends timestamps.
    pub(super) fn stamps(&self) -> bool {
        self.clock != Clock::None
    }

    /// The options of its SYN.
    pub(super) fn syn(&self, mss: u16, stamp: u32) -> Arc<[u8]> {
        encode(self.options, mss, (stamp, 0))
    }

    /// The options of an answer to its SYN: what it offered, as Linux orders it.
    pub(super) fn answer(&self, mss: u16, stamps: (u32, u32)) -> Arc<[u8]> {
        let scales = self.options.iter().any(|option| matches!(option, Ws(_)));
        let mut options = vec![Mss];
        match (self.options.contains(&Sack), self.stamps()) {
            (true, true) => options.extend([Sack, Ts]),
            (true, false) => options.extend([Nop, Nop, Sack]),
            (false, true) => options.extend([Nop, Nop, Ts]),
            (false, false) => {}
        }
        if scales {
            options.extend([Nop, Ws(7)]);
        }
        encode(&options, mss, stamps)
    }

    /// The options of all later segments of both sides.
    pub(super) fn later(&self, stamps: (u32, u32)) -> Arc<[u8]> {
        encode(if self.stamps() { &[Nop, Nop, Ts] } else { &[] }, 0, stamps)
    }
}

fn encode(options: &[Opt], mss: u16, (value, echo): (u32, u32)) -> Arc<[u8]> {
    let mut octets = Vec::with_capacity(40);
    for option in options {
        match option {
            Mss => octets.extend([&[2, 4][..], &mss.to_be_bytes()].concat()),
            Nop => octets.push(1),
            Ws(shift) => octets.extend([3, 3, *shift]),
            Sack => octets.extend([4, 2]),
            Ts => octets.extend([&[8, 10][..], &value.to_be_bytes(), &echo.to_be_bytes()].concat()),
            Eol => octets.push(0),
        }
    }
    octets.resize(octets.len().next_multiple_of(4), 0);
    octets.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_stand_as_the_stack_orders_them() {
        let linux = Stack::named("linux 5").syn(1460, 0x0102_0304);
        assert_eq!(*linux, [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7]);
        let macos = Stack::named("macos").syn(1460, 1);
        assert_eq!(*macos, [2, 4, 5, 0xb4, 1, 3, 3, 6, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 4, 2, 0, 0]);
        assert_eq!(*Stack::named("windows 10").syn(1460, 9), [2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2]);
        assert!(Stack::named("iot").later((1, 2)).is_empty());
    }

    #[test]
    fn no_two_kinds_show_the_same_and_shares_add_up() {
        for (number, one) in STACKS.iter().enumerate() {
            for other in STACKS.iter().skip(number + 1) {
                let look = |s: &'static Stack| (s.ttl, s.window, s.mss, s.options, s.whole);
                assert_ne!(look(Stack::named(one.name)), look(Stack::named(other.name)), "{}", one.name);
            }
            assert!(one.syn(1460, 0).len() <= 40, "{}", one.name);
        }
        assert_eq!(STACKS.iter().map(|stack| stack.share).sum::<u32>(), 100);
    }
}

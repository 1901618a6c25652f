//! What the kernel says of an interface, by rtnetlink (rtnetlink(7)): its own counters in 64 bits, its MTU, and whether it
//! is a card or made by software. Asked in the network namespace of this process, which /sys need not show.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt,
        socket, sockopt,
    },
    time::TimeVal,
};

/// NLM_F_REQUEST, RTM_NEWLINK, RTM_GETLINK, NLMSG_ERROR.
const REQUEST: u16 = 1;
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const ERROR: u16 = 2;
/// Attributes of a link (linux/if_link.h), and of IFLA_LINKINFO.
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const INFO_KIND: u16 = 1;
/// The upper bits of a type are flags.
const TYPE_MASK: u16 = 0x3fff;
/// Bytes of nlmsghdr and of ifinfomsg.
const HEADER: usize = 16;
/// Most bytes of an interface's name, with its terminating zero.
const NAME_BYTES: usize = 16;
/// Interfaces with many addresses or virtual functions have long answers; these are not asked for.
const ANSWER_BYTES: usize = 32 << 10;
/// How long an answer is waited for: it is made while the request is sent.
const PATIENCE: TimeVal = TimeVal::new(1, 0);
/// Answers to earlier requests that are passed over.
const STRAY_ANSWERS: usize = 16;

/// An interface's own counters, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InterfaceCounters {
    /// Packets received.
    pub(crate) rx_packets: u64,
    /// Packets sent.
    pub(crate) tx_packets: u64,
    /// Bytes received.
    pub(crate) rx_bytes: u64,
    /// Bytes sent.
    pub(crate) tx_bytes: u64,
    /// Packets received that the kernel or the card had no room for.
    pub(crate) rx_dropped: u64,
    /// Packets that could not be sent.
    pub(crate) tx_dropped: u64,
}

impl InterfaceCounters {
    /// Bytes either way, as the interface counts them.
    pub(crate) const fn bytes(&self) -> u64 {
        self.rx_bytes.saturating_add(self.tx_bytes)
    }
}

/// An interface as it is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkState {
    /// The kernel's number; another one under the same name is another interface.
    pub(crate) index: u32,
    /// Longest network packet in bytes.
    pub(crate) mtu: u32,
    /// Made by software (veth, bridge, tun, …): packets that are joined or to be divided it counts as one.
    pub(crate) is_virtual: bool,
    /// Its counters.
    pub(crate) counters: InterfaceCounters,
}

/// A socket to ask the kernel by.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens the socket.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            Some(SockProtocol::NetlinkRoute),
        )?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &PATIENCE)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Asks for an interface; none where there is none of this name.
    pub(crate) fn link(&mut self, name: &str) -> io::Result<Option<LinkState>> {
        self.sequence = self.sequence.wrapping_add(1);
        let Some(request) = request(name, self.sequence) else { return Ok(None) };
        sendto(self.socket.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut answer = vec![0; ANSWER_BYTES];
        for _ in 0..STRAY_ANSWERS {
            let length = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
            let message = answer.get(..length).unwrap_or_default();
            match read(message, self.sequence) {
                Answer::Link(state) => return Ok(Some(state)),
                Answer::NoSuch => return Ok(None),
                Answer::Failed(number) => return Err(io::Error::from_raw_os_error(number)),
                Answer::Stray => {}
            }
        }
        Err(io::Error::other("the kernel gives no answer that can be read"))
    }
}

/// A request for one link; none where no interface can have this name.
fn request(name: &str, sequence: u32) -> Option<Vec<u8>> {
    if name.is_empty() || name.len() >= NAME_BYTES || name.contains('\0') {
        return None;
    }
    let attribute = 4 + name.len() + 1;
    let length = HEADER * 2 + attribute.next_multiple_of(4);
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).ok()?.to_ne_bytes());
    bytes.extend(GET_LINK.to_ne_bytes());
    bytes.extend(REQUEST.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]); // port of the sender: the kernel knows it
    bytes.extend([0; HEADER]); // ifinfomsg: any family, any index
    bytes.extend(u16::try_from(attribute).ok()?.to_ne_bytes());
    bytes.extend(IFLA_IFNAME.to_ne_bytes());
    bytes.extend(name.as_bytes());
    bytes.resize(length, 0);
    Some(bytes)
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Link(LinkState),
    NoSuch,
    Failed(i32),
    /// To another question, or nothing that can be read.
    Stray,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

fn read(message: &[u8], sequence: u32) -> Answer {
    if u32_at(message, 8) != Some(sequence) {
        return Answer::Stray;
    }
    match u16_at(message, 4) {
        Some(ERROR) => {
            const ENODEV: i32 = 19;
            match u32_at(message, HEADER).map(|number| number.cast_signed().wrapping_neg()) {
                Some(ENODEV) => Answer::NoSuch,
                Some(number) => Answer::Failed(number),
                None => Answer::Stray,
            }
        }
        Some(NEW_LINK) => read_link(message).map_or(Answer::Stray, Answer::Link),
        _ => Answer::Stray,
    }
}

fn read_link(message: &[u8]) -> Option<LinkState> {
    let mut state = LinkState { index: u32_at(message, HEADER + 4)?, ..LinkState::default() };
    let mut counters = None;
    for (kind, value) in Attributes(message.get(HEADER * 2..)?) {
        match kind {
            IFLA_MTU => state.mtu = u32_at(value, 0)?,
            IFLA_LINKINFO => state.is_virtual = Attributes(value).any(|(kind, _)| kind == INFO_KIND),
            IFLA_STATS64 => counters = Some(read_counters(value)?),
            _ => {}
        }
    }
    state.counters = counters?;
    Some(state)
}

/// struct rtnl_link_stats64: packets, bytes, errors and drops of each way, in this order; later missed, which the
/// card had no room for.
fn read_counters(value: &[u8]) -> Option<InterfaceCounters> {
    const MISSED: usize = 15;
    let field = |number: usize| u64_at(value, number * 8);
    Some(InterfaceCounters {
        rx_packets: field(0)?,
        tx_packets: field(1)?,
        rx_bytes: field(2)?,
        tx_bytes: field(3)?,
        rx_dropped: field(6)?.saturating_add(field(MISSED).unwrap_or(0)),
        tx_dropped: field(7)?,
    })
}

/// Attributes one behind the other, each at a multiple of four bytes.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & TYPE_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_there_and_counts_what_is_sent() {
        let mut netlink = Netlink::open().unwrap();
        let before = netlink.link("lo").unwrap().expect("every namespace has it");
        assert!(before.index > 0 && before.mtu > 0, "{before:?}");
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        let after = netlink.link("lo").unwrap().expect("still there").counters;
        assert!(after.tx_packets > before.counters.tx_packets, "{before:?} {after:?}");
        assert!(after.bytes() > before.counters.bytes());
    }

    #[test]
    fn an_interface_that_is_not_there_is_none() {
        let mut netlink = Netlink::open().unwrap();
        for name in ["nowhere0", "", "a-name-longer-than-any-interface-can-have", "nul\0"] {
            assert_eq!(netlink.link(name).unwrap(), None, "{name:?}");
        }
    }

    #[test]
    fn an_answer_that_is_cut_or_foreign_is_no_answer() {
        let mut message = vec![0; HEADER * 2];
        message[4..6].copy_from_slice(&NEW_LINK.to_ne_bytes());
        message[8..12].copy_from_slice(&7_u32.to_ne_bytes());
        message[20..24].copy_from_slice(&3_u32.to_ne_bytes());
        let mut add = |kind: u16, value: &[u8]| {
            message.extend(u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
            message.extend(kind.to_ne_bytes());
            message.extend(value);
            message.resize(message.len().next_multiple_of(4), 0);
        };
        add(IFLA_IFNAME, b"tap0\0");
        add(IFLA_MTU, &1500_u32.to_ne_bytes());
        add(IFLA_LINKINFO | 0x8000, &[[9, 0, 1, 0], *b"veth", [0; 4]].concat());
        let stats: Vec<u8> = (1..=24_u64).flat_map(u64::to_ne_bytes).collect();
        add(IFLA_STATS64, &stats);
        let counters = InterfaceCounters {
            rx_packets: 1,
            tx_packets: 2,
            rx_bytes: 3,
            tx_bytes: 4,
            rx_dropped: 7 + 16,
            tx_dropped: 8,
        };
        let expected = LinkState { index: 3, mtu: 1500, is_virtual: true, counters };
        assert_eq!(read(&message, 7), Answer::Link(expected));
        assert_eq!(read(&message, 8), Answer::Stray);
        for length in 0..message.len() - 4 {
            assert_eq!(read(&message[..length], 7), Answer::Stray, "{length}");
        }
        let error = [&[0; 4][..], &ERROR.to_ne_bytes(), &[0; 2], &7_u32.to_ne_bytes(), &[0; 4]].concat();
        let answer = |number: i32| read(&[&error[..], &(-number).to_ne_bytes()].concat(), 7);
        assert_eq!((answer(19), answer(1)), (Answer::NoSuch, Answer::Failed(1)));
        assert_eq!(read(&error, 7), Answer::Stray);
    }
}

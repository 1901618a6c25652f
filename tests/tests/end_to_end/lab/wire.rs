//! A sender that knows to the packet what it sent: frames by AF_PACKET, 64 to a call, at a stated pace.

use std::{
    io::IoSlice,
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockType, bind, sendmmsg, setsockopt,
        socket, sockopt,
    },
};

/// Frames of one call.
const TOGETHER: usize = 64;

/// One end of a wire.
pub(super) struct Wire(OwnedFd);

impl Wire {
    /// Of this interface, in the namespace of this thread.
    pub(super) fn open(interface: &str) -> Self {
        let address = getifaddrs()
            .expect("interfaces")
            .filter(|found| found.interface_name == interface)
            .find_map(|found| found.address?.as_link_addr().copied())
            .unwrap_or_else(|| panic!("no interface {interface}"));
        let wire =
            socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None).expect("a packet socket");
        bind(wire.as_raw_fd(), &address).expect("it is bound to the wire");
        setsockopt(&wire, sockopt::SndBuf, &(4 << 20)).expect("a buffer");
        Self(wire)
    }

    /// Sends every frame, `pace` of them a second at most. Fails if one does not leave.
    pub(super) fn send(&self, frames: &[Vec<u8>], pace: u32) {
        let start = Instant::now();
        let mut sent = 0_usize;
        while sent < frames.len() {
            let some = &frames[sent..frames.len().min(sent + TOGETHER)];
            let slices: Vec<[IoSlice<'_>; 1]> = some.iter().map(|frame| [IoSlice::new(frame)]).collect();
            let mut headers = MultiHeaders::<LinkAddr>::preallocate(some.len(), None);
            let none = vec![None; some.len()];
            let gone = sendmmsg(self.0.as_raw_fd(), &mut headers, &slices, &none, [], MsgFlags::empty())
                .expect("the wire is up")
                .count();
            sent += gone;
            let due = Duration::from_secs_f64(sent as f64 / f64::from(pace));
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
    }
}

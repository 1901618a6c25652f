//! A sender that knows to the packet what it sent: frames by AF_PACKET, 64 to a call, at a stated pace.

use std::{
    io::IoSlice,
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
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
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
    interface: String,
}

impl Wire {
    /// Of this interface, in the network namespace of this thread.
    pub fn open(interface: &str) -> Result<Self> {
        let address = getifaddrs()?
            .filter(|found| found.interface_name == interface)
            .find_map(|found| found.address?.as_link_addr().copied())
            .with_context(|| format!("there is no interface {interface}"))?;
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None)
            .context("a packet socket needs CAP_NET_RAW")?;
        bind(socket.as_raw_fd(), &address)?;
        setsockopt(&socket, sockopt::SndBuf, &(4 << 20))?;
        Ok(Self { socket, interface: interface.to_owned() })
    }

    /// Sends every frame, at most `pace` of them a second; an error if one does not leave.
    pub fn send(&self, frames: &[Vec<u8>], pace: u32) -> Result<()> {
        let mut pacer = Pacer::new(pace);
        for some in frames.chunks(TOGETHER) {
            self.send_now(some)?;
            pacer.wait(some.len());
        }
        Ok(())
    }

    /// Sends every frame at once.
    pub fn send_now<F: AsRef<[u8]>>(&self, frames: &[F]) -> Result<()> {
        let mut rest = frames;
        while !rest.is_empty() {
            let some = rest.get(..TOGETHER).unwrap_or(rest);
            let slices: Vec<[IoSlice<'_>; 1]> =
                some.iter().map(|frame| [IoSlice::new(frame.as_ref())]).collect();
            let mut headers = MultiHeaders::<LinkAddr>::preallocate(some.len(), None);
            let none = vec![None; some.len()];
            let sent = sendmmsg(self.socket.as_raw_fd(), &mut headers, &slices, &none, [], MsgFlags::empty())
                .with_context(|| format!("sending on {}", self.interface))?
                .count();
            rest = rest.get(sent..).unwrap_or_default();
        }
        Ok(())
    }
}

/// Keeps a pace over all that is sent.
#[derive(Debug)]
pub struct Pacer {
    start: Instant,
    sent: u64,
    pace: u32,
}

impl Pacer {
    /// So many frames a second, from now on.
    pub fn new(pace: u32) -> Self {
        Self { start: Instant::now(), sent: 0, pace: pace.max(1) }
    }

    /// Waits after so many frames until it is time for the next.
    pub fn wait(&mut self, frames: usize) {
        self.sent = self.sent.saturating_add(frames as u64);
        let nanos = self.sent.saturating_mul(1_000_000_000) / u64::from(self.pace);
        std::thread::sleep(Duration::from_nanos(nanos).saturating_sub(self.start.elapsed()));
    }
}

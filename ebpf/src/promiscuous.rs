//! Frames for other stations: a card passes them on only while somebody asks for them. The kernel counts who asks, and
//! takes it back when the socket goes, so that nothing is left behind by a process that is killed.
#![expect(unsafe_code, reason = "the membership of a packet socket is set by a call that libc only declares")]

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// An interface that is promiscuous as long as this lives.
#[derive(Debug)]
pub struct Promiscuous(#[expect(dead_code, reason = "held, and closed at the end")] OwnedFd);

impl Promiscuous {
    /// Makes an interface promiscuous (packet(7), `PACKET_MR_PROMISC`). It needs `CAP_NET_RAW`.
    pub fn on(interface: &str) -> io::Result<Self> {
        let name = CString::new(interface)?;
        // SAFETY: `name` ends with a zero and lives until the call returns.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        let index =
            i32::try_from(index).ok().filter(|&index| index > 0).ok_or_else(io::Error::last_os_error)?;
        // Of protocol 0 nothing is received: the socket is there for the membership alone.
        // SAFETY: no pointers.
        let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let request = libc::packet_mreq {
            mr_ifindex: index,
            mr_type: u16::try_from(libc::PACKET_MR_PROMISC).unwrap_or_default(),
            mr_alen: 0,
            mr_address: [0; 8],
        };
        let length = libc::socklen_t::try_from(size_of_val(&request)).unwrap_or_default();
        // SAFETY: `request` is as long as `length` says and lives until the call returns.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_ADD_MEMBERSHIP,
                (&raw const request).cast(),
                length,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(socket)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        let error = Promiscuous::on("nowhere0").expect_err("no such interface");
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert!(Promiscuous::on("a\0b").is_err());
    }
}

//! The syslog sender: frames over one TCP connection, opened when there is something to send and opened again,
//! with a growing pause, when it breaks.
//!
//! TCP tells a sender when a connection has broken, not what the receiver has read. `send` therefore watches
//! the connection for a moment after the last frame and calls frames sent only where it has stayed whole; a
//! receiver that stops or restarts is noticed, and everything since the last success is sent again. Frames that
//! sit in the buffers of a receiver whose machine dies without a word can still be lost; who must exclude that
//! uses the file.

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a write may block on a receiver that does not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the connection is watched after the last frame.
const SETTLE: Duration = Duration::from_millis(50);

/// One receiver.
#[derive(Debug)]
pub(crate) struct SyslogSender {
    address: String,
    stream: Option<TcpStream>,
}

impl SyslogSender {
    /// A sender to `host:port`. Nothing is opened yet.
    pub(crate) const fn new(address: String) -> Self {
        Self { address, stream: None }
    }

    /// Sends frames. On an error the connection is given up and none of them counts as sent.
    pub(crate) fn send(&mut self, frames: &[Vec<u8>]) -> io::Result<()> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        // A receiver that has gone away since the last send has said so by now.
        watch(&mut stream, Duration::from_millis(1))?;
        stream.write_all(&frames.concat())?;
        stream.flush()?;
        watch(&mut stream, SETTLE)?;
        self.stream = Some(stream);
        Ok(())
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in self.address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Reads for `time`: a receiver of syslog says nothing, so what comes is the end or an error. What it might say
/// is thrown away.
fn watch(stream: &mut TcpStream, time: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(time))?;
    match stream.read(&mut [0; 512]) {
        Ok(0) => Err(io::Error::new(io::ErrorKind::ConnectionReset, "the receiver closed the connection")),
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{io::BufRead, net::TcpListener};

    use super::*;
    use crate::siem::rfc5424::frame;

    /// Reads one octet-counted frame as a receiver would.
    fn read_frame(reader: &mut impl BufRead) -> Option<String> {
        let mut length = Vec::new();
        reader.read_until(b' ', &mut length).expect("the connection reads");
        let length: usize = std::str::from_utf8(length.strip_suffix(b" ")?).ok()?.parse().ok()?;
        let mut message = vec![0; length];
        reader.read_exact(&mut message).expect("the frame is whole");
        Some(String::from_utf8(message).expect("UTF-8"))
    }

    #[test]
    fn frames_arrive_whole_over_one_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut sender = SyslogSender::new(listener.local_addr().expect("an address").to_string());
        sender.send(&[frame("one"), frame("two é")]).expect("it is sent");
        sender.send(&[frame("three")]).expect("it is sent");
        drop(sender);
        let (stream, _) = listener.accept().expect("a connection");
        let mut reader = io::BufReader::new(stream);
        let mut read = Vec::new();
        while let Some(message) = read_frame(&mut reader) {
            read.push(message);
        }
        assert_eq!(read, ["one", "two é", "three"]);
    }

    #[test]
    fn a_receiver_that_restarted_is_noticed_and_connected_to_again() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut sender = SyslogSender::new(address.to_string());
        sender.send(&[frame("one")]).expect("it is sent");
        drop(listener.accept().expect("a connection"));
        assert!(sender.send(&[frame("two")]).is_err(), "the connection is gone");
        sender.send(&[frame("two")]).expect("a new connection");
        let (stream, _) = listener.accept().expect("a connection");
        drop(sender);
        assert_eq!(read_frame(&mut io::BufReader::new(stream)).as_deref(), Some("two"));
        drop(listener);
    }

    #[test]
    fn nobody_listening_is_an_error_and_not_a_wait() {
        let address = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        let error = SyslogSender::new(address.to_string()).send(&[frame("one")]).expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}

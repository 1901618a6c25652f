//! The proxy. Four threads carry a connection: for each direction one that reads and one that writes when it is time.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Bytes that are read at one time.
const CHUNK: usize = 16 << 10;
/// Chunks of one direction that may be on the way.
const ON_THE_WAY: usize = 1024;
/// How soon a change of the link is heeded.
const LOOK: Duration = Duration::from_millis(2);

/// What the link is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// How long each byte is on the way.
    pub delay: Duration,
    /// Bytes a second and direction at most; none for as many as there are.
    pub bytes_per_second: Option<u64>,
    /// Nothing gets through, and nobody is told: connections stay open at both ends.
    pub silent: bool,
    /// New connections are closed at once.
    pub refusing: bool,
}

/// What the proxy has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections passed on.
    pub connections: u64,
    /// Connections cut.
    pub cuts: u64,
    /// Bytes passed on, both ways.
    pub bytes: u64,
}

struct Shared {
    target: SocketAddr,
    link: Mutex<Link>,
    open: Mutex<Vec<(TcpStream, TcpStream)>>,
    stopping: AtomicBool,
    connections: AtomicU64,
    cuts: AtomicU64,
    bytes: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A proxy before a server. It ends, with every connection, when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Proxy {
    /// Listens on a free port of loopback and passes connections on to `target`, over a good link for now.
    pub fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            link: Mutex::default(),
            open: Mutex::default(),
            stopping: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        let of_thread = Arc::clone(&shared);
        let accepting = std::thread::spawn(move || accept(&listener, &of_thread));
        Ok(Self { address, shared, accepting: Some(accepting) })
    }

    /// Where to connect to.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes the link be like this from now on, for open connections and new ones.
    pub fn set(&self, link: Link) {
        *lock(&self.shared.link) = link;
    }

    /// Cuts every connection; both ends are told.
    pub fn cut(&self) {
        let open = std::mem::take(&mut *lock(&self.shared.open));
        self.shared.cuts.fetch_add(open.len() as u64, Ordering::Relaxed);
        for (one, other) in open {
            // One end may be gone already.
            let _ = one.shutdown(Shutdown::Both);
            let _ = other.shutdown(Shutdown::Both);
        }
    }

    /// What it has seen so far.
    pub fn totals(&self) -> Totals {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            connections: of(&self.shared.connections),
            cuts: of(&self.shared.cuts),
            bytes: of(&self.shared.bytes),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.set(Link::default());
        self.cut();
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.stopping.load(Ordering::Relaxed) {
        let Ok((client, _)) = listener.accept() else {
            std::thread::sleep(LOOK);
            continue;
        };
        if lock(&shared.link).refusing {
            continue;
        }
        // A server that is down closes the client's connection, as the network would.
        let _ = pass_on(client, shared);
    }
}

fn pass_on(client: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    client.set_nonblocking(false)?;
    let server = TcpStream::connect_timeout(&shared.target, Duration::from_secs(2))?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_millis(50)))?;
    }
    let ways = [(client.try_clone()?, server.try_clone()?), (server.try_clone()?, client.try_clone()?)];
    {
        let mut open = lock(&shared.open);
        open.retain(|(one, _)| one.peer_addr().is_ok());
        open.push((client, server));
    }
    shared.connections.fetch_add(1, Ordering::Relaxed);
    for (from, to) in ways {
        let (sender, receiver) = sync_channel(ON_THE_WAY);
        let of_reader = Arc::clone(shared);
        let of_writer = Arc::clone(shared);
        std::thread::spawn(move || read(from, &of_reader, &sender));
        std::thread::spawn(move || write(to, &of_writer, &receiver));
    }
    Ok(())
}

/// Waits while the link is silent. What was sent meanwhile is held, as a sender's kernel would hold and repeat it.
fn wait_for_link(shared: &Shared) -> Link {
    loop {
        let link = *lock(&shared.link);
        if !link.silent || shared.stopping.load(Ordering::Relaxed) {
            return link;
        }
        std::thread::sleep(LOOK);
    }
}

fn read(mut from: TcpStream, shared: &Shared, way: &SyncSender<(Instant, Vec<u8>)>) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if shared.stopping.load(Ordering::Relaxed) {
                    break;
                }
                continue;
            }
            Err(_) => break,
        };
        let Some(bytes) = buffer.get(..length) else { break };
        if way.send((Instant::now(), bytes.to_vec())).is_err() {
            break;
        }
    }
    // A silent link does not tell of an end either.
    wait_for_link(shared);
}

fn write(mut to: TcpStream, shared: &Shared, way: &Receiver<(Instant, Vec<u8>)>) {
    while let Ok((read_at, bytes)) = way.recv() {
        let link = wait_for_link(shared);
        std::thread::sleep((read_at + link.delay).saturating_duration_since(Instant::now()));
        // It may have fallen silent meanwhile.
        wait_for_link(shared);
        if to.write_all(&bytes).is_err() {
            break;
        }
        shared.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if let Some(rate) = link.bytes_per_second {
            std::thread::sleep(Duration::from_secs_f64(bytes.len() as f64 / rate.max(1) as f64));
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets, and a client through the proxy.
    fn echo() -> (Proxy, TcpStream) {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let proxy = Proxy::start(server.local_addr().expect("an address")).expect("a proxy");
        std::thread::spawn(move || {
            for stream in server.incoming() {
                let Ok(mut stream) = stream else { return };
                std::thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(length @ 1..) = stream.read(&mut buffer) {
                        if stream.write_all(&buffer[..length]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        let client = TcpStream::connect(proxy.address()).expect("connected");
        client.set_read_timeout(Some(Duration::from_millis(400))).expect("a time-out");
        (proxy, client)
    }

    /// Sends these bytes and waits for them to come back.
    fn there_and_back(client: &mut TcpStream, bytes: &[u8]) -> io::Result<Duration> {
        let begun = Instant::now();
        client.write_all(bytes)?;
        let mut back = vec![0; bytes.len()];
        client.read_exact(&mut back)?;
        assert_eq!(back, bytes);
        Ok(begun.elapsed())
    }

    #[test]
    fn a_good_link_passes_every_byte_on_in_order() {
        let (proxy, mut client) = echo();
        let bytes: Vec<u8> = (0..=255).cycle().take(200_000).collect();
        for chunk in bytes.chunks(4000) {
            there_and_back(&mut client, chunk).expect("passed on");
        }
        // What was passed on is counted a moment after it arrives.
        for _ in 0..200 {
            if proxy.totals().bytes == 400_000 {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(proxy.totals(), Totals { connections: 1, cuts: 0, bytes: 400_000 });
    }

    #[test]
    fn a_cut_ends_the_connection_at_both_ends_and_the_next_one_works() {
        let (proxy, mut client) = echo();
        there_and_back(&mut client, b"before").expect("passed on");
        proxy.cut();
        assert!(there_and_back(&mut client, b"after").is_err());
        let mut again = TcpStream::connect(proxy.address()).expect("connected");
        there_and_back(&mut again, b"again").expect("passed on");
        assert_eq!((proxy.totals().connections, proxy.totals().cuts), (2, 1));
    }

    #[test]
    fn a_silent_link_tells_nobody_and_delivers_once_it_is_heard_again() {
        let (proxy, mut client) = echo();
        proxy.set(Link { silent: true, ..Link::default() });
        let error = there_and_back(&mut client, b"held").expect_err("silence");
        assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
        proxy.set(Link::default());
        let mut back = [0; 4];
        client.read_exact(&mut back).expect("delivered");
        assert_eq!(&back, b"held");
    }

    #[test]
    fn delay_and_rate_are_kept_and_a_refusing_link_takes_nobody() {
        let (proxy, mut client) = echo();
        proxy.set(Link { delay: Duration::from_millis(60), ..Link::default() });
        assert!(there_and_back(&mut client, b"slow").expect("passed on") >= Duration::from_millis(120));
        proxy.set(Link { bytes_per_second: Some(10_000), ..Link::default() });
        there_and_back(&mut client, &[1; 1000]).expect("passed on");
        let throttled = there_and_back(&mut client, b"after").expect("passed on");
        assert!(throttled >= Duration::from_millis(50), "{throttled:?}");
        proxy.set(Link { refusing: true, ..Link::default() });
        let mut refused = TcpStream::connect(proxy.address()).expect("the kernel connects");
        assert!(there_and_back(&mut refused, b"x").is_err());
    }
}

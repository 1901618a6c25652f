//! A road between two network namespaces that loses packets, delays them, lets none through, or none of one connection.
//! It carries Ethernet frames from the end of one pair of veth to the end of another, so that both hosts' TCP meets what
//! it would meet on a bad line. (The kernel's netem is a module that many machines do not have.)

use std::{
    collections::BTreeSet,
    fs::File,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns};
use pnet::datalink::{self, Channel, Config, DataLinkReceiver, DataLinkSender};

/// Names of the ends in the namespace `road`, and the addresses of the hosts behind them: the collector's and the
/// sensor's.
const ENDS: [(&str, [u8; 6]); 2] = [("c1", [2, 0, 0, 0, 0, 1]), ("e1", [2, 0, 0, 0, 0, 2])];

/// Namespaces and pairs of wires: the collector is at 198.18.0.1, the sensor in `edge`. Checksums are computed before a
/// frame leaves, because nobody computes them on the road.
pub(crate) const SET_UP: &str = "
    ip netns add edge
    ip netns add road
    ip link add c0 address 02:00:00:00:00:01 type veth peer name c1 netns road
    ip link add e0 address 02:00:00:00:00:02 netns edge type veth peer name e1 netns road
    ethtool -K c0 tx off >/dev/null
    ip netns exec edge ethtool -K e0 tx off >/dev/null
    ip addr add 198.18.0.1/24 dev c0 && ip link set c0 up
    ip -n edge link set lo up
    ip -n edge addr add 198.18.0.2/24 dev e0 && ip -n edge link set e0 up
    ip -n road link set c1 up && ip -n road link set e1 up";

/// Where the collector is.
pub(crate) const COLLECTOR: &str = "198.18.0.1";

/// What the road is like.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weather {
    /// Of a hundred frames so many are lost.
    pub(crate) loss: u8,
    /// How long each frame takes.
    pub(crate) delay: Duration,
    /// No frame gets through.
    pub(crate) closed: bool,
}

#[derive(Default)]
struct Shared {
    weather: Mutex<Weather>,
    /// Ports of the sensor that it has used, and those of which nothing gets through any more.
    used: Mutex<BTreeSet<u16>>,
    dead: Mutex<BTreeSet<u16>>,
    stopping: AtomicBool,
    carried: AtomicU64,
    lost: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The road, for as long as it lives.
pub(crate) struct Road {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Road {
    /// Opens it in good weather.
    pub(crate) fn open(seed: u64) -> Self {
        let shared = Arc::<Shared>::default();
        let of_thread = Arc::clone(&shared);
        let opening = std::thread::spawn(move || {
            let namespace = File::open(Path::new("/run/netns/road")).expect("the namespace is there");
            setns(&namespace, CloneFlags::CLONE_NEWNET).expect("the thread goes into the namespace");
            let [collector, sensor] = ENDS.map(|(name, _)| ends(name));
            let mut threads = Vec::new();
            for (number, ((_, host), from, to)) in
                [(ENDS[0], collector.1, sensor.0), (ENDS[1], sensor.1, collector.0)].into_iter().enumerate()
            {
                let (queue, waiting) = channel();
                let shared = Arc::clone(&of_thread);
                let chance = fastrand::Rng::with_seed(seed + number as u64);
                threads.push(std::thread::spawn(move || take(from, host, &shared, chance, &queue)));
                threads.push(std::thread::spawn(move || carry(to, &waiting)));
            }
            threads
        });
        Self { shared, threads: opening.join().expect("the road opens") }
    }

    /// Makes it like this from now on.
    pub(crate) fn set(&self, weather: Weather) {
        *lock(&self.shared.weather) = weather;
    }

    /// From now on nothing gets through of any connection that there is; neither end is told. New ones are let through.
    pub(crate) fn forget_connections(&self) {
        let used = lock(&self.shared.used).clone();
        lock(&self.shared.dead).extend(used);
    }

    /// Frames carried, and frames lost.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.shared.carried.load(Ordering::Relaxed), self.shared.lost.load(Ordering::Relaxed))
    }
}

impl Drop for Road {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

type Ends = (Box<dyn DataLinkSender>, Box<dyn DataLinkReceiver>);

fn ends(name: &str) -> Ends {
    let found = datalink::interfaces().into_iter().find(|interface| interface.name == name);
    let interface = found.unwrap_or_else(|| panic!("there is no interface {name}"));
    let config = Config { read_timeout: Some(Duration::from_millis(50)), ..Config::default() };
    match datalink::channel(&interface, config) {
        Ok(Channel::Ethernet(sender, receiver)) => (sender, receiver),
        Ok(_) => panic!("{name} is no Ethernet"),
        Err(error) => panic!("{name}: {error}"),
    }
}

/// Takes the frames that a host sends; those that are lost are lost here.
fn take(
    mut from: Box<dyn DataLinkReceiver>,
    host: [u8; 6],
    shared: &Shared,
    mut chance: fastrand::Rng,
    queue: &Sender<(Instant, Vec<u8>)>,
) {
    while !shared.stopping.load(Ordering::Relaxed) {
        let Ok(frame) = from.next() else { continue };
        // What we send ourselves is seen here as well.
        if frame.get(6..12) != Some(&host[..]) {
            continue;
        }
        let weather = lock(&shared.weather).clone();
        let port = sensor_port(frame, host == ENDS[1].1);
        if let Some(port) = port {
            lock(&shared.used).insert(port);
        }
        let dead = port.is_some_and(|port| lock(&shared.dead).contains(&port));
        if weather.closed || dead || chance.u8(0..100) < weather.loss {
            shared.lost.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        shared.carried.fetch_add(1, Ordering::Relaxed);
        if queue.send((Instant::now() + weather.delay, frame.to_vec())).is_err() {
            return;
        }
    }
}

/// Gives each frame to the other host when it is time.
fn carry(mut to: Box<dyn DataLinkSender>, waiting: &Receiver<(Instant, Vec<u8>)>) {
    while let Ok((at, frame)) = waiting.recv() {
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        // A frame that does not leave is lost, as on any road.
        let _ = to.send_to(&frame, None);
    }
}

/// The sensor's port of a frame of TCP over IPv4 without options, whichever way it goes.
fn sensor_port(frame: &[u8], by_sensor: bool) -> Option<u16> {
    let is_tcp = frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&6);
    let at = if by_sensor { 34 } else { 36 };
    let port = frame.get(at..at + 2).filter(|_| is_tcp)?;
    Some(u16::from_be_bytes(port.try_into().ok()?))
}

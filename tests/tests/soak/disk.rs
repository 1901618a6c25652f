//! A disk that fills: the spool is on a small file system of its own. An outage of the collector fills it, or something
//! else that takes all there is; then there is room again. The sensor is like an interface: it never waits, it sheds,
//! and what it shed it has to tell to the record.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::{
    harness::{Background, Lab, run, text},
    inside::{Own, inside},
    kit::{Case, Sensor, ms, seed, size, told, until},
    oracle,
};

/// Size of the file system, MiB. The spool may take more than that, so that it is the disk that ends.
const DISK: &str = "size=10m";
const TABLES: &str = "[batch]\nmax_records = 500\nmax_delay_ms = 50\n\n\
                      [spool]\nsegment_mib = 1\nmax_mib = 64\nfsync_ms = 20\n";
/// Flows a second: the disk is full within seconds.
const RATE: &str = "12000";
/// How long the disk is full, at least.
const FULL: Duration = Duration::from_millis(700);
/// What is promised: once there is room, what is made is delivered again within this time.
const PROMISED: Duration = Duration::from_secs(10);

#[test]
fn a_disk_that_fills_again_and_again_loses_nothing_unsaid_and_goes_on_soon() {
    inside("disk::on_a_small_disk", Own::Mounts, "mount -t tmpfs -o size=1m tmpfs /mnt && umount /mnt");
}

/// A small file system, for as long as this lives.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf) -> Self {
        fs::create_dir_all(&at).expect("a directory");
        let mounted = run(Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "tmpfs", text(&at)]));
        assert_eq!(mounted.code, Some(0), "{}", mounted.err);
        Self(at)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").args(["-l", text(&self.0)]));
    }
}

/// Something that takes all room there is, and all that becomes free, until it is dropped.
struct Filler {
    file: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Filler {
    fn start(file: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, path) = (Arc::clone(&stop), file.clone());
        let thread = std::thread::spawn(move || {
            let mut file = fs::File::create(path).expect("a file");
            while !stopped.load(Ordering::Relaxed) {
                if file.write_all(&[0; 4096]).is_err() {
                    std::thread::sleep(ms(1));
                }
            }
        });
        Self { file, stop, thread: Some(thread) }
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.file);
    }
}

/// Flows that the sensor says it has shed since it started.
fn shed(sensor: &Sensor) -> u64 {
    let status = sensor.status();
    let losses = status["losses"].as_array().into_iter().flatten();
    losses.filter(|loss| loss["what"] == "flow").filter_map(|loss| loss["count"].as_u64()).sum()
}

/// Waits until the sensor has shed more than it had.
fn full(sensor: &Sensor, feed: &mut Background, before: u64) {
    until("the disk to be full", || {
        assert_eq!(feed.ended(), None, "{}", feed.log());
        (shed(sensor) > before).then_some(())
    });
    std::thread::sleep(FULL);
}

#[test]
#[ignore = "runs in the namespace that a_disk_that_fills_again_and_again_loses_nothing_unsaid_and_goes_on_soon makes"]
fn on_a_small_disk() {
    let mut case = Case::begin("full disk", size(5, 50));
    let mut lab = Lab::new(None, "");
    lab.start();
    let sensor = Sensor::enrol(&lab, "boston-1", seed(), TABLES, None);
    let disk = Disk::mount(sensor.spool());
    let mut feed = sensor.start(&["--live", "--rate", RATE]);
    for round in 0..case.rounds {
        let before = shed(&sensor);
        let freed = if round % 2 == 0 {
            lab.collector.as_mut().expect("it runs").stop();
            full(&sensor, &mut feed, before);
            lab.launch();
            Instant::now()
        } else {
            let filler = Filler::start(disk.0.join("filler"));
            full(&sensor, &mut feed, before);
            drop(filler);
            Instant::now()
        };
        // What was made until now, and more, is stored or told.
        let made = sensor.made();
        until("delivery to go on", || told(&lab, &sensor).filter(|told| *told > made));
        case.resumed(freed.elapsed());
    }
    assert!(case.resume <= PROMISED, "it took {:?} to go on", case.resume);
    assert!(feed.stop().success(), "{}", feed.log());
    let status = sensor.status();
    assert_eq!(status["batches_acked"], status["batches_sealed"], "{status}");
    lab.collector.as_mut().expect("it runs").stop();
    let account = oracle::settle(&lab, &sensor, sensor.made());
    assert!(account.lost > 0 && account.unique > 0, "{account:?}");
    case.end(&account, "by an outage and by something else that takes the room, in turn");
}

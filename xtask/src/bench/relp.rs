//! The peer of `bench delivery`: rsyslog with a disk-assisted queue, RELP over TLS with certificates on both sides, and a
//! receiver that writes to the disk and syncs it. Its records are lines of as many bytes as a sealed flow takes.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::delivery::{LIMIT, Run, SITES, Usage, empty, loopback_bytes, start, stop, syncs};
use crate::{
    programs::{output, path},
    setup::{Need, Purpose},
};

/// What the peer needs.
pub(super) const NEEDS: [Need<'static>; 2] = [
    Need {
        purpose: Purpose::Tests,
        what: "rsyslog with RELP, which records of the same size are sent by",
        probe: "ls /usr/lib*/rsyslog/omrelp.so /usr/lib/*/rsyslog/omrelp.so 2>/dev/null | grep -q omrelp",
        debian: &["rsyslog", "rsyslog-relp", "rsyslog-gnutls"],
        fedora: &["rsyslog", "rsyslog-relp", "rsyslog-gnutls"],
    },
    Need {
        purpose: Purpose::Tests,
        what: "openssl, which makes the peer's certificates",
        probe: "command -v openssl",
        debian: &["openssl"],
        fedora: &["openssl"],
    },
];

const PORT: &str = "7845";
/// Bytes of a record with its line end: what a flow of `onenet-feed` takes in its batch.
const RECORD_BYTES: usize = 246;

/// One run; under strace the second number is fsyncs a second.
pub(super) fn run(folder: &Path, records: u64, counted: bool) -> Result<(Run, f64)> {
    empty(folder)?;
    certificates(folder)?;
    let daemon = Path::new("/usr/sbin/rsyslogd");
    let received = folder.join("received");
    let mut files = Vec::new();
    let mut daemon_of = |name: &str, config: &str| -> Result<_> {
        let file = folder.join(format!("{name}.conf"));
        fs::write(&file, config)?;
        let pid_file = folder.join(format!("{name}.pid"));
        let counts = folder.join(format!("{name}.syncs"));
        files.push(counts.clone());
        let arguments = ["-n", "-f", path(&file)?, "-i", path(&pid_file)?];
        Ok((start(name, daemon, &arguments, &counts, counted, folder)?, pid_file))
    };
    let (mut receiver, receiver_pid) = daemon_of("receiver", &receiver_config(folder)?)?;
    for site in SITES {
        fs::create_dir_all(folder.join(site))?;
        fs::write(folder.join(site).join("records"), lines(records)?)?;
    }
    // It tells nobody when it listens.
    std::thread::sleep(Duration::from_secs(1));
    receiver.must_live()?;
    let (before, began) = (loopback_bytes()?, Instant::now());
    let mut senders = Vec::new();
    for site in SITES {
        senders.push(daemon_of(site, &sender_config(folder, site)?)?);
    }
    let wanted = 2 * records * RECORD_BYTES as u64;
    while fs::metadata(&received).map_or(0, |file| file.len()) < wanted {
        for (sender, _) in &mut senders {
            sender.must_live()?;
        }
        ensure!(began.elapsed() < LIMIT, "rsyslog did not deliver within {} s", LIMIT.as_secs());
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut taken =
        Run { records: 2.0 * records as f64, wall: began.elapsed().as_secs_f64(), ..Run::default() };
    taken.wire = loopback_bytes()? - before;
    for (_, pid_file) in &senders {
        let usage = usage(pid_file)?;
        taken.senders += usage.cpu;
        taken.sender_peak = taken.sender_peak.max(usage.peak);
    }
    let usage = usage(&receiver_pid)?;
    (taken.receiver, taken.receiver_peak) = (usage.cpu, usage.peak);
    for (sender, _) in &mut senders {
        stop(sender, counted)?;
    }
    stop(&mut receiver, counted)?;
    let syncs = if counted { syncs(&files)? / taken.wall } else { 0.0 };
    Ok((taken, syncs))
}

/// What the daemon has used whose process id is in this file; under strace it is strace's child.
fn usage(pid_file: &PathBuf) -> Result<Usage> {
    let text = fs::read_to_string(pid_file).with_context(|| pid_file.display().to_string())?;
    Usage::of(text.trim().parse().with_context(|| format!("{}: expected a process id", pid_file.display()))?)
}

fn lines(records: u64) -> Result<String> {
    let mut text = String::new();
    for number in 0..records {
        writeln!(text, "{number:0>width$}", width = RECORD_BYTES - 1)?;
    }
    Ok(text)
}

/// A certificate authority and one certificate for both ends, which trust whatever it signed.
fn certificates(folder: &Path) -> Result<()> {
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (ca, ca_key, key, request, certificate) =
        (file("ca.pem"), file("ca.key"), file("end.key"), file("end.csr"), file("end.pem"));
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let of_ca = ["req", "-x509", "-days", "2", "-subj", "/CN=bench", "-keyout", &ca_key, "-out", &ca];
    output(Path::new("openssl"), &[&of_ca[..], &curve].concat())?;
    let of_end = ["req", "-subj", "/CN=127.0.0.1", "-keyout", &key, "-out", &request];
    output(Path::new("openssl"), &[&of_end[..], &curve].concat())?;
    let sign =
        ["x509", "-req", "-days", "2", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial"];
    output(Path::new("openssl"), &[&sign[..], &["-out", &certificate]].concat()).map(drop)
}

fn tls(folder: &Path) -> Result<String> {
    let folder = path(folder)?;
    Ok(format!(
        "tls=\"on\" tls.caCert=\"{folder}/ca.pem\" tls.myCert=\"{folder}/end.pem\" \
         tls.myPrivKey=\"{folder}/end.key\" tls.authMode=\"certvalid\""
    ))
}

fn receiver_config(folder: &Path) -> Result<String> {
    let (tls, folder) = (tls(folder)?, path(folder)?);
    Ok(format!(
        "global(workDirectory=\"{folder}\")\nmodule(load=\"imrelp\")\n\
         template(name=\"raw\" type=\"string\" string=\"%msg%\\n\")\n\
         input(type=\"imrelp\" port=\"{PORT}\" {tls} maxDataSize=\"16k\" ruleset=\"store\")\n\
         ruleset(name=\"store\" queue.type=\"fixedArray\" queue.size=\"200000\" queue.dequeueBatchSize=\"8192\") {{\n\
         action(type=\"omfile\" file=\"{folder}/received\" template=\"raw\" sync=\"on\" flushOnTXEnd=\"on\" \
         ioBufferSize=\"256k\")\n}}\n"
    ))
}

fn sender_config(folder: &Path, site: &str) -> Result<String> {
    let (tls, folder) = (tls(folder)?, path(folder)?);
    Ok(format!(
        "global(workDirectory=\"{folder}/{site}\")\nmodule(load=\"imfile\" mode=\"inotify\")\n\
         module(load=\"omrelp\")\n\
         template(name=\"wire\" type=\"string\" string=\"<134>1 2026-11-21T08:00:00Z {site} flow - - - %msg%\")\n\
         input(type=\"imfile\" file=\"{folder}/{site}/records\" tag=\"flow\" ruleset=\"ship\")\n\
         ruleset(name=\"ship\" queue.type=\"LinkedList\" queue.filename=\"queue\" queue.maxDiskSpace=\"4g\" \
         queue.size=\"100000\" queue.syncQueueFiles=\"on\" queue.checkpointInterval=\"1000\" \
         queue.saveOnShutdown=\"on\" queue.dequeueBatchSize=\"2048\") {{\n\
         action(type=\"omrelp\" target=\"127.0.0.1\" port=\"{PORT}\" {tls} template=\"wire\" windowSize=\"1024\" \
         action.resumeRetryCount=\"-1\")\n}}\n"
    ))
}

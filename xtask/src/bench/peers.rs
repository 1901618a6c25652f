//! The flow meters that ours is held against: where they come from, how they are run on a capture file, and what
//! they say they saw.

use std::{collections::HashMap, fs, path::Path};

use anyhow::{Context, Result};

use crate::setup::{Need, Purpose, try_install};

/// A program that reads a capture file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Peer {
    /// Its name in the table.
    pub(crate) name: &'static str,
    program: &'static str,
    debian: &'static str,
    fedora: &'static str,
    /// Whether a flood of five million flows is within its reach in two minutes and a few GiB.
    pub(crate) takes_floods: bool,
    /// Seconds that it sleeps before it reads.
    pub(crate) sleeps: f64,
}

const fn peer(name: &'static str, program: &'static str, debian: &'static str, fedora: &'static str) -> Peer {
    Peer { name, program, debian, fedora, takes_floods: false, sleeps: 0.0 }
}

/// All of them, the fastest first.
pub(crate) const PEERS: &[Peer] = &[
    peer("tcpdump -w /dev/null", "tcpdump", "tcpdump", "tcpdump"),
    Peer { takes_floods: true, ..peer("softflowd", "softflowd", "softflowd", "softflowd") },
    Peer { takes_floods: true, ..peer("nfpcapd", "nfpcapd", "nfdump", "nfdump") },
    peer("argus", "argus", "argus-server", "argus"),
    Peer { takes_floods: true, sleeps: 2.0, ..peer("pmacctd (memory)", "pmacctd", "pmacct", "pmacct") },
    peer("ndpiReader", "ndpiReader", "libndpi-bin", "ndpi"),
    peer("tshark", "tshark", "tshark", "wireshark-cli"),
];

/// Name of the peer that the targets are stated against.
pub(crate) const YARDSTICK: &str = "softflowd";

/// What a peer says it saw, where it says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) packets: Option<u64>,
    /// As it counts flows: some count each direction as one.
    pub(crate) flows: Option<u64>,
}

/// Installs what can be had; tells which are there. One that cannot be had is left out, and that is said.
pub(crate) fn install() -> Vec<Peer> {
    let mut present = Vec::new();
    for peer in PEERS {
        let probe = format!("PATH=$PATH:/usr/sbin:/sbin command -v {}", peer.program);
        let need = Need {
            purpose: Purpose::Tests,
            what: peer.program,
            probe: &probe,
            debian: &[peer.debian],
            fedora: &[peer.fedora],
        };
        match try_install(&need) {
            Ok(()) => present.push(*peer),
            Err(error) => crate::say(&format!("{} cannot be had and is LEFT OUT: {error:#}", peer.name)),
        }
    }
    present
}

impl Peer {
    /// Its version, as its package manager knows it.
    pub(crate) fn version(&self) -> Option<String> {
        let line = format!(
            "dpkg-query -W -f '${{Version}}' {} 2>/dev/null || rpm -q --qf '%{{VERSION}}' {}",
            self.debian, self.fedora
        );
        let output = std::process::Command::new("sh").args(["-c", &line]).output().ok()?;
        let version = String::from_utf8(output.stdout).ok()?;
        // Without the packager's own epoch and revision.
        let version = version.rsplit(':').next()?.split('-').next()?.to_owned();
        (output.status.success() && !version.is_empty()).then_some(version)
    }

    /// The command line for a capture of so many flows. `scratch` is an empty folder for what it writes.
    pub(crate) fn command(&self, capture: &Path, flows: u64, scratch: &Path) -> Result<Vec<String>> {
        let _ = fs::remove_dir_all(scratch);
        fs::create_dir_all(scratch)?;
        let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is not UTF-8");
        let (capture, in_scratch) = (text(capture)?, |name: &str| text(&scratch.join(name)));
        // Room for every flow, so that none makes it easy for itself by giving flows up.
        let room = (flows + flows / 5).to_string();
        let words: Vec<String> = match self.program {
            "tcpdump" => vec!["-r".into(), capture, "-w".into(), "/dev/null".into()],
            "softflowd" => {
                let (pid, room) = (in_scratch("pid")?, room);
                ["-d", "-6", "-T", "full", "-m", &room, "-c", "none", "-p", &pid, "-r", &capture]
                    .map(str::to_owned)
                    .to_vec()
            }
            "nfpcapd" => vec!["-r".into(), capture, "-w".into(), text(scratch)?],
            "argus" => vec!["-r".into(), capture, "-w".into(), in_scratch("argus.out")?],
            "pmacctd" => {
                let settings = format!(
                    "daemonize: false\npcap_savefile: {capture}\nplugins: memory\n\
                     aggregate: src_host, dst_host, src_port, dst_port, proto\n\
                     imt_path: {}\nimt_mem_pools_number: 0\nimt_buckets: {}\n\
                     plugin_buffer_size: 204800\nplugin_pipe_size: 20480000\n",
                    in_scratch("pipe")?,
                    (flows | 1).max(32_771)
                );
                let file = scratch.join("pmacctd.conf");
                fs::write(&file, settings)?;
                vec!["-f".into(), text(&file)?]
            }
            "ndpiReader" => vec!["-i".into(), capture],
            _ => ["-q", "-n", "-z", "conv,tcp", "-z", "conv,udp", "-r", &capture].map(str::to_owned).to_vec(),
        };
        let path = format!("PATH={}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        Ok([vec!["/usr/bin/env".to_owned(), path, self.program.to_owned()], words].concat())
    }

    /// What it said it saw.
    pub(crate) fn seen(&self, said: &str) -> Seen {
        let after = |label: &str| said.lines().filter_map(|line| number_after(line, label)).next_back();
        match self.program {
            "softflowd" => Seen { packets: after("Packets processed:"), flows: after("Flows expired:") },
            "nfpcapd" => {
                // One line for each file it wrote, and a total of the packets.
                let of_files = said.lines().filter(|line| line.starts_with("Ident:"));
                let flows = of_files.filter_map(|line| number_after(line, "Flows:")).sum();
                Seen { packets: after("Total: Processed:"), flows: Some(flows) }
            }
            "ndpiReader" => Seen { packets: after("IP packets:"), flows: after("Unique flows:") },
            _ => Seen::default(),
        }
    }
}

/// The whole number behind a label of a line.
fn number_after(line: &str, label: &str) -> Option<u64> {
    let (_, rest) = line.split_once(label)?;
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Versions of those that are there, by name.
pub(crate) fn versions(peers: &[Peer]) -> HashMap<&'static str, String> {
    peers.iter().filter_map(|peer| Some((peer.name, peer.version()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Peer {
        *PEERS.iter().find(|peer| peer.name == name).expect("a peer")
    }

    #[test]
    fn what_peers_say_is_understood() {
        let softflowd = "Packets processed: 149610\nFragments: 0\nFlows expired: 15716 (0 forced)\n";
        assert_eq!(named(YARDSTICK).seen(softflowd), Seen { packets: Some(149_610), flows: Some(15_716) });
        let nfpcapd = "Processed: 46399, skipped: 0\nIdent: 'none' Flows: 4086, Packets: 15064, Bytes: 1\n\
                       Ident: 'none' Flows: 21154, Packets: 134546, Bytes: 2\nTotal: Processed: 149610, skipped: 0\n";
        assert_eq!(named("nfpcapd").seen(nfpcapd), Seen { packets: Some(149_610), flows: Some(25_240) });
        let ndpi = "\tIP packets:            149610        of 149610 packets total\n\tUnique flows:          15625\n";
        assert_eq!(named("ndpiReader").seen(ndpi), Seen { packets: Some(149_610), flows: Some(15_625) });
        assert_eq!(named("argus").seen(softflowd), Seen::default());
    }
}

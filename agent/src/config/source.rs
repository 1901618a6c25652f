//! `[[source]]`: where packets come from.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use onenet_core::net::Name;
use onenet_proto::config::{ConfigError, Document};
use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};

use super::{
    live::{EbpfSource, Hook, PcapSource},
    sections::within,
};

/// One source of packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Capture files.
    PcapFile(PcapFileSource),
    /// A network interface, by libpcap.
    Pcap(PcapSource),
    /// A network interface, by eBPF.
    Ebpf(EbpfSource),
    /// `kind = "auto"`: by eBPF where this host permits it, else by libpcap.
    Auto {
        /// What is tried.
        ebpf: EbpfSource,
        /// What is taken else.
        pcap: PcapSource,
    },
}

impl Source {
    /// The interface; none of capture files.
    pub fn interface(&self) -> Option<&Name> {
        match self {
            Self::PcapFile(_) => None,
            Self::Pcap(PcapSource { interface, .. })
            | Self::Ebpf(EbpfSource { interface, .. })
            | Self::Auto { pcap: PcapSource { interface, .. }, .. } => Some(interface),
        }
    }
}

/// `kind = "pcap-file"`: capture files, read as one in the order of packet time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcapFileSource {
    /// Files and patterns, absolute. `*` and `?` stand for characters of the file name.
    pub paths: Vec<PathBuf>,
    /// Interface the packets count as captured on; else the name in the capture, or the file's name.
    pub interface: Option<Name>,
    /// How fast.
    pub pace: Pace,
}

/// How fast a capture file is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// As fast as possible.
    #[default]
    Fast,
    /// As it was captured.
    Captured,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Kind {
    #[serde(rename = "pcap-file")]
    PcapFile,
    #[serde(rename = "pcap")]
    Pcap,
    #[serde(rename = "ebpf")]
    Ebpf,
    #[serde(rename = "auto")]
    Auto,
}

/// One `[[source]]` as written: every key of every kind, so that errors keep their place in the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSource {
    kind: Kind,
    path: Option<Paths>,
    interface: Option<Name>,
    pace: Option<Pace>,
    #[serde(default, deserialize_with = "within_option::<_, 64, 262_144>")]
    pub(super) snap_length: Option<u32>,
    #[serde(default, deserialize_with = "within_option::<_, 1, 2047>")]
    pub(super) buffer_mib: Option<u32>,
    pub(super) promiscuous: Option<bool>,
    pub(super) filter: Option<String>,
    pub(super) immediate: Option<bool>,
    pub(super) hook: Option<Hook>,
    #[serde(default, deserialize_with = "within_option::<_, 1024, 4_194_304>")]
    pub(super) max_flows: Option<u32>,
    #[serde(default, deserialize_with = "within_option::<_, 1024, 4_194_304>")]
    pub(super) max_flows_v6: Option<u32>,
    #[serde(default, deserialize_with = "within_option::<_, 100, 2000>")]
    pub(super) interval_ms: Option<u32>,
    #[serde(default, deserialize_with = "within_option::<_, 0, 64>")]
    pub(super) first_packets: Option<u32>,
    #[serde(default, deserialize_with = "within_option::<_, 1, 256>")]
    pub(super) ring_mib: Option<u32>,
    #[serde(default, deserialize_with = "within_option::<_, 1, 65_536>")]
    pub(super) sample: Option<u32>,
}

/// Makes an error of a key and what is wrong with it.
pub(super) type Refuse<'a, E> = dyn Fn(&str, &str) -> E + 'a;

fn within_option<'de, D: Deserializer<'de>, const MIN: u32, const MAX: u32>(
    deserializer: D,
) -> Result<Option<u32>, D::Error> {
    within::<D, MIN, MAX>(deserializer).map(Some)
}

impl Kind {
    /// The keys that a source of this kind may have, beside `kind`.
    const fn keys(self) -> &'static [&'static str] {
        const EBPF: &[&str] = &[
            "interface",
            "hook",
            "max_flows",
            "max_flows_v6",
            "interval_ms",
            "first_packets",
            "snap_length",
            "ring_mib",
            "sample",
            "promiscuous",
        ];
        match self {
            Self::PcapFile => &["path", "interface", "pace"],
            Self::Pcap => &["interface", "snap_length", "buffer_mib", "promiscuous", "filter", "immediate"],
            Self::Ebpf => EBPF,
            Self::Auto => &[
                "interface",
                "hook",
                "max_flows",
                "max_flows_v6",
                "interval_ms",
                "first_packets",
                "ring_mib",
                "sample",
                "buffer_mib",
                "promiscuous",
                "immediate",
            ],
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::PcapFile => "pcap-file",
            Self::Pcap => "pcap",
            Self::Ebpf => "ebpf",
            Self::Auto => "auto",
        }
    }
}

impl RawSource {
    /// The keys that are stated.
    fn stated(&self) -> impl Iterator<Item = &'static str> {
        [
            ("path", self.path.is_some()),
            ("interface", self.interface.is_some()),
            ("pace", self.pace.is_some()),
            ("snap_length", self.snap_length.is_some()),
            ("buffer_mib", self.buffer_mib.is_some()),
            ("promiscuous", self.promiscuous.is_some()),
            ("filter", self.filter.is_some()),
            ("immediate", self.immediate.is_some()),
            ("hook", self.hook.is_some()),
            ("max_flows", self.max_flows.is_some()),
            ("max_flows_v6", self.max_flows_v6.is_some()),
            ("interval_ms", self.interval_ms.is_some()),
            ("first_packets", self.first_packets.is_some()),
            ("ring_mib", self.ring_mib.is_some()),
            ("sample", self.sample.is_some()),
        ]
        .into_iter()
        .filter_map(|(key, is_stated)| is_stated.then_some(key))
    }

    /// The source, once the keys fit its kind.
    pub(super) fn resolve(self, index: usize, document: &Document) -> Result<Source, ConfigError> {
        let number = index.to_string();
        let refuse = |key: &str, message: &str| document.error(&["source", &number, key], message);
        let keys = self.kind.keys();
        if let Some(key) = self.stated().find(|key| !keys.contains(key)) {
            let message =
                format!("is not a key of kind {:?}, expected {}", self.kind.as_str(), keys.join(", "));
            return Err(refuse(key, &message));
        }
        if self.interface.as_deref() == Some("") {
            return Err(refuse("interface", "is empty, expected the name of an interface"));
        }
        if self.kind == Kind::PcapFile {
            return self.resolve_files(document, &refuse);
        }
        let interface = self.interface.clone().ok_or_else(|| {
            refuse("interface", "is missing, expected one of those that `onenet-agent interfaces` lists")
        })?;
        match self.kind {
            Kind::Ebpf => Ok(Source::Ebpf(EbpfSource::resolve(&self, interface, &refuse)?)),
            Kind::Auto => Ok(Source::Auto {
                ebpf: EbpfSource::resolve(&self, interface.clone(), &refuse)?,
                pcap: PcapSource::resolve(&self, interface),
            }),
            _ => Ok(Source::Pcap(PcapSource::resolve(&self, interface))),
        }
    }

    fn resolve_files(
        self,
        document: &Document,
        refuse: &Refuse<'_, ConfigError>,
    ) -> Result<Source, ConfigError> {
        let paths = self.path.map(|paths| paths.0).unwrap_or_default();
        if paths.is_empty() || paths.iter().any(|path| path.as_os_str().is_empty()) {
            return Err(refuse("path", "is missing, expected a file, a pattern, or a list of them"));
        }
        let base = document.path().parent().unwrap_or(Path::new(""));
        Ok(Source::PcapFile(PcapFileSource {
            paths: paths.iter().map(|path| base.join(path)).collect(),
            interface: self.interface,
            pace: self.pace.unwrap_or_default(),
        }))
    }
}

impl PcapFileSource {
    /// The files, patterns resolved (each in order of name). A pattern that fits no file is an error; a file
    /// that is not there is told when it is opened.
    pub fn files(&self) -> Result<Vec<PathBuf>, std::io::Error> {
        let mut files = Vec::new();
        for path in &self.paths {
            let pattern = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
            if !pattern.contains(['*', '?']) {
                files.push(path.clone());
                continue;
            }
            let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let mut found = Vec::new();
            for entry in std::fs::read_dir(directory).map_err(|error| at(directory, &error))? {
                let entry = entry.map_err(|error| at(directory, &error))?;
                let fits = entry.file_name().to_str().is_some_and(|name| fits(pattern, name));
                if fits && entry.path().is_file() {
                    found.push(entry.path());
                }
            }
            if found.is_empty() {
                return Err(std::io::Error::new(
                    std::io::ErrorKind::NotFound,
                    format!("{}: no file fits this pattern", path.display()),
                ));
            }
            found.sort();
            files.append(&mut found);
        }
        Ok(files)
    }
}

fn at(path: &Path, error: &std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Whether a file name fits a pattern of `*`, `?` and characters. A leading dot must be written out.
fn fits(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where to go on after a mismatch: behind the last star, one more character taken by it.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p + 1, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match retry {
                Some((star, taken)) => {
                    (p, n) = (star, taken + 1);
                    retry = Some((star, n));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// One path or a list of them.
#[derive(Clone, Debug)]
struct Paths(Vec<PathBuf>);

impl<'de> Deserialize<'de> for Paths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PathsVisitor;

        impl<'de> Visitor<'de> for PathsVisitor {
            type Value = Paths;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path or a list of paths")
            }

            fn visit_str<E: de::Error>(self, path: &str) -> Result<Paths, E> {
                Ok(Paths(vec![PathBuf::from(path)]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Paths, A::Error> {
                let mut paths = Vec::new();
                while let Some(path) = items.next_element()? {
                    paths.push(path);
                }
                Ok(Paths(paths))
            }
        }

        deserializer.deserialize_any(PathsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_names_as_a_shell_would() {
        for (pattern, name, expected) in [
            ("*.pcap", "a.pcap", true),
            ("*.pcap", "a.pcapng", false),
            ("*", ".hidden", false),
            (".*", ".hidden", true),
            ("a?c*", "abcd", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("a*", "a", true),
            ("", "", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_gives_its_files_in_order_of_name_and_says_where_it_gives_none() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["b.pcap", "a.pcap", "c.txt"] {
            std::fs::write(dir.path().join(name), "").expect("a file");
        }
        let source = |pattern: &str| PcapFileSource {
            paths: vec![dir.path().join(pattern)],
            interface: None,
            pace: Pace::Fast,
        };
        let files = source("*.pcap").files().expect("files");
        assert_eq!(files, [dir.path().join("a.pcap"), dir.path().join("b.pcap")]);
        let error = source("*.gz").files().expect_err("no file").to_string();
        assert!(error.ends_with("*.gz: no file fits this pattern"), "{error}");
    }
}

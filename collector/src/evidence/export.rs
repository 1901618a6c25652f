//! The command `export`: writes a bundle that a third party verifies with `onenet-collector verify BUNDLE` and nothing
//! else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufWriter, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use onenet_core::{
    net::Name,
    record::{FindingId, FlowId},
    time::Timestamp,
};
use onenet_proto::{
    seal::{ChainHead, SigningKey},
    statement::{self, Domain},
    v1::Cosignature,
};
use prost::Message as _;

use super::{
    bundle::{self, Asked, BundleWriter, ChainEnd, Chains, Head, KeySince, Manifest, Record, SensorChain},
    check::Keys,
    stored::Scope,
};
use crate::{
    audit::{Hex, actor},
    cli::{self, CliError, Place},
    clock,
    correlate::Finding,
    search::Moment,
    store::{
        Records, SegmentNumber, Store,
        archive::{Archive, ArchiveSegment, BatchRow, QuarantineRow, Rowspan},
        control_findings,
    },
};

/// Arguments of `export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    place: Place,
    /// Export evidence: sealed batches, keys, cosignatures and audit trail, with a signed manifest.
    #[arg(long, required = true)]
    evidence: bool,
    /// The bundle to write, a tar; what exists is not overwritten.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Batches of this sensor alone.
    #[arg(long, value_name = "NAME")]
    sensor: Option<String>,
    /// What the collector received at this time (UTC) or later.
    #[arg(long, value_name = "TIME")]
    from: Option<Moment>,
    /// What the collector received before this time (UTC).
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// The batches that tell of this finding, and those with the flows and the address that it names.
    #[arg(long, value_name = "ID", conflicts_with_all = ["from", "until"])]
    finding: Option<FindingId>,
}

/// What a bundle is to hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Sensor and time.
    pub(crate) scope: Scope,
    /// The finding.
    pub(crate) finding: Option<FindingId>,
}

/// Runs the command.
pub(crate) fn run(args: &ExportArgs) -> Result<(), CliError> {
    let (config, store) = args.place.store()?;
    let file = args.to.as_path();
    if file.exists() {
        return Err(CliError::usage(anyhow::anyhow!("{}: exists and is not overwritten", file.display())));
    }
    super::command::known(&config.store.directory, args.sensor.as_deref())?;
    let scope = Scope {
        sensor: args.sensor.as_deref().map(Into::into),
        from: args.from.map(|moment| moment.0),
        to: args.until.map(|moment| moment.0),
    };
    let wanted = Wanted { scope, finding: args.finding };
    let manifest = export(&config.store.directory, store.cosigner().key(), &wanted, file, clock::now())?;
    record(&store, file, &manifest)?;
    cli::print(&format!(
        "{}: {} batches of {} sensors, {} in quarantine, {} entries of the audit trail\n",
        file.display(),
        manifest.batches(),
        manifest.ends.len(),
        manifest.quarantined,
        manifest.audit_entries
    ))
}

/// Enters the export into the audit trail.
fn record(store: &Store, file: &Path, manifest: &Manifest) -> Result<(), CliError> {
    let asked = serde_json::to_string(&manifest.asked).map_err(CliError::failure)?;
    let detail = format!("{} batches to {}; asked for {asked}", manifest.batches(), file.display());
    Ok(store.audit(clock::now(), "evidence-exported", detail)?)
}

/// Writes a bundle of what is in `directory`, whole or not at all.
pub(crate) fn export(
    directory: &Path,
    key: &SigningKey,
    wanted: &Wanted,
    file: &Path,
    now: Timestamp,
) -> anyhow::Result<Manifest> {
    let mut draft = file.as_os_str().to_owned();
    draft.push(".part");
    let draft = PathBuf::from(draft);
    let at = || draft.display().to_string();
    let open =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft).with_context(at)?;
    let written = write(directory, key, wanted, BufWriter::new(open), now).and_then(|(manifest, out)| {
        let out = out.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(at)?;
        out.sync_all().with_context(at)?;
        // A link, unlike a rename, replaces nothing.
        std::fs::hard_link(&draft, file).with_context(|| file.display().to_string())?;
        Ok(manifest)
    });
    let removed = std::fs::remove_file(&draft).with_context(at);
    let manifest = written?;
    removed?;
    Ok(manifest)
}

/// Which rows of each segment a finding needs.
type Rows = BTreeMap<SegmentNumber, BTreeSet<i64>>;

/// What is read.
struct Source<'a> {
    archive: &'a Archive,
    segments: Vec<ArchiveSegment>,
    scope: &'a Scope,
    rows: Option<Rows>,
    keys: Keys,
}

/// A member that is being filled.
#[derive(Default)]
struct Chunk {
    name: String,
    bytes: Vec<u8>,
}

impl Chunk {
    /// Makes room for one more record: writes what is there where the member is full or `ends` before this one, and
    /// names the member that the record begins.
    fn make_room<W: Write>(
        &mut self,
        out: &mut BundleWriter<W>,
        ends: bool,
        name: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        if ends || self.bytes.len() >= bundle::FULL {
            self.flush(out)?;
        }
        if self.bytes.is_empty() {
            self.name = name();
        }
        Ok(())
    }

    /// Writes it where there is something in it, and begins anew.
    fn flush<W: Write>(&mut self, out: &mut BundleWriter<W>) -> anyhow::Result<()> {
        if !self.bytes.is_empty() {
            out.put(&self.name, &self.bytes)?;
            self.bytes.clear();
        }
        Ok(())
    }
}

/// Writes every member; the manifest comes last, because it names the others.
fn write<W: Write>(
    directory: &Path,
    key: &SigningKey,
    wanted: &Wanted,
    out: W,
    now: Timestamp,
) -> anyhow::Result<(Manifest, W)> {
    let archive = Archive::open(directory)?;
    let numbers = archive.segments()?;
    let segments = numbers.iter().map(|&number| archive.segment(number)).collect::<Result<Vec<_>, _>>()?;
    let rows = wanted.finding.map(|id| rows_of(&archive, &segments, id)).transpose()?;
    let keys = archive.keys()?;
    let scope = &wanted.scope;
    let source = Source { archive: &archive, segments, scope, rows, keys };
    let mut out = BundleWriter::new(out);
    let sensors = source.sensors();
    let chains = serde_json::to_vec_pretty(&source.chains(&sensors)?)?;
    out.put(bundle::CHAINS, &chains)?;
    let mut ends = Vec::new();
    for sensor in &sensors {
        ends.push(source.put_batches(sensor, &mut out)?);
    }
    let quarantined = source.put_quarantine(&mut out)?;
    let audit_entries = source.put_audit(&mut out)?;
    let manifest = Manifest {
        format: bundle::FORMAT.to_owned(),
        version: bundle::VERSION,
        tool: format!("onenet-collector {}", env!("CARGO_PKG_VERSION")),
        made_at: now,
        made_by: actor(),
        asked: Asked {
            sensor: scope.sensor.as_deref().map(str::to_owned),
            from: scope.from,
            to: scope.to,
            finding: wanted.finding.map(|id| id.to_string()),
        },
        ends,
        quarantined,
        audit_entries,
        members: out.members.clone(),
    };
    let text = serde_json::to_vec_pretty(&manifest)?;
    let signature = statement::sign(key, &statement::digest(Domain::Manifest, &[&text]));
    out.put(bundle::MANIFEST, &text)?;
    out.put(bundle::SIGNATURE, &signature)?;
    Ok((manifest, out.finish()?))
}

impl Source<'_> {
    /// The sensors whose batches are wanted.
    fn sensors(&self) -> Vec<Name> {
        self.keys.sensors.keys().filter(|name| self.scope.wants(name)).cloned().collect()
    }

    /// The rows of a segment that are wanted, in the order of commits: all in the span, or of those the ones that the
    /// finding needs.
    fn is_wanted(&self, segment: SegmentNumber, row: i64) -> bool {
        self.rows.as_ref().is_none_or(|rows| rows.get(&segment).is_some_and(|rows| rows.contains(&row)))
    }

    fn span(&self, segment: &ArchiveSegment) -> anyhow::Result<Option<Rowspan>> {
        Ok(segment.span(self.scope.from, self.scope.to)?)
    }

    /// Hands every wanted batch of a sensor over, in the order of its chain.
    fn batches(
        &self,
        sensor: &str,
        mut each: impl FnMut(BatchRow) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        for segment in &self.segments {
            let Some(span) = self.span(segment)? else { continue };
            segment.batches::<anyhow::Error>(span, Some(sensor), |row| {
                let row = row.map_err(|problem| anyhow::anyhow!("{}: {problem}", segment.name))?;
                if self.is_wanted(segment.number, row.id) { each(row) } else { Ok(()) }
            })?;
        }
        Ok(())
    }

    /// The batch before the first one of a sensor that is wanted; none where nothing came before.
    fn before(&self, sensor: &str) -> anyhow::Result<Option<ChainHead>> {
        let mut before = self.archive.anchor(sensor)?.map(|anchor| anchor.head);
        for segment in &self.segments {
            let Some(span) = self.span(segment)? else {
                before = segment.head_before(sensor, i64::MAX)?.or(before);
                continue;
            };
            let rows = segment.rows_of_sensor(sensor, span)?;
            let first = rows.into_iter().find(|&row| self.is_wanted(segment.number, row));
            before = segment.head_before(sensor, first.unwrap_or(i64::MAX))?.or(before);
            if first.is_some() {
                break;
            }
        }
        Ok(before)
    }

    fn chains(&self, sensors: &[Name]) -> anyhow::Result<Chains> {
        let mut chains = Vec::new();
        for sensor in sensors {
            let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            anyhow::ensure!(sensor.chars().all(safe), "sensor {sensor:?}: a name that no bundle can hold");
            let keys = self.keys.sensors.get(sensor).into_iter().flatten();
            chains.push(SensorChain {
                sensor: sensor.to_string(),
                keys: keys.map(|key| KeySince { key: Hex(key.key.to_vec()), since: key.since }).collect(),
                before: self.before(sensor)?.as_ref().map(Head::from),
            });
        }
        Ok(Chains {
            format: bundle::FORMAT.to_owned(),
            version: bundle::VERSION,
            collector_key: Hex(self.keys.collector.clone()),
            former_collector_keys: self.keys.former.iter().cloned().map(Hex).collect(),
            selection: self.rows.is_some(),
            sensors: chains,
        })
    }

    fn put_batches<W: Write>(&self, sensor: &str, out: &mut BundleWriter<W>) -> anyhow::Result<ChainEnd> {
        let (mut chunk, mut batches, mut last) = (Chunk::default(), 0_u64, None::<Head>);
        self.batches(sensor, |row| {
            let other_epoch = last.as_ref().is_some_and(|last| last.epoch != row.epoch);
            chunk.make_room(out, other_epoch, || {
                format!("{}{sensor}/{}/{}.batches", bundle::BATCHES, row.epoch, row.sequence)
            })?;
            last = Some(Head { epoch: row.epoch, sequence: row.sequence, hash: Hex(row.hash.clone()) });
            batches = batches.saturating_add(1);
            let cosignature = row.cosignature.as_deref().map(Cosignature::decode).transpose()?;
            let record = Record {
                sealed: Some(row.sealed),
                received_at: row.received_at.0,
                cosignature,
                reason: String::new(),
            };
            Ok(record.encode_length_delimited(&mut chunk.bytes)?)
        })?;
        chunk.flush(out)?;
        let heads = self.segments.last().map(ArchiveSegment::heads).transpose()?.unwrap_or_default();
        let held = heads.into_iter().find(|head| *head.sensor == *sensor);
        Ok(ChainEnd {
            sensor: sensor.to_owned(),
            batches,
            last,
            held: held.as_ref().map(|held| Head::from(&held.head)),
            cosignature: held.and_then(|held| held.cosignature).map(|word| Hex(word.encode_to_vec())),
        })
    }

    /// The batches without a place in a chain. With a finding they are left out: it is told by what has one.
    fn put_quarantine<W: Write>(&self, out: &mut BundleWriter<W>) -> anyhow::Result<u64> {
        if self.rows.is_some() {
            return Ok(0);
        }
        let (mut chunk, mut count) = (Chunk::default(), 0_u64);
        let mut of = None::<Name>;
        self.archive.quarantine::<anyhow::Error>(|row: QuarantineRow| {
            if !(self.scope.wants(&row.sensor) && self.scope.covers(row.received_at)) {
                return Ok(());
            }
            count = count.saturating_add(1);
            let other_sensor = of.as_ref() != Some(&row.sensor);
            chunk.make_room(out, other_sensor, || {
                format!("{}{}/{count}.batches", bundle::QUARANTINE, row.sensor)
            })?;
            let (sealed, received_at) = (Some(row.sealed), row.received_at.0);
            let record = Record { sealed, received_at, cosignature: None, reason: row.reason };
            record.encode_length_delimited(&mut chunk.bytes)?;
            of = Some(row.sensor);
            Ok(())
        })?;
        chunk.flush(out)?;
        Ok(count)
    }

    /// The entries of the audit trail in the span: one piece, whatever the clock did between.
    fn put_audit<W: Write>(&self, out: &mut BundleWriter<W>) -> anyhow::Result<u64> {
        let (mut first, mut last) = (None::<u64>, 0_u64);
        self.archive.audit::<anyhow::Error>(|entry| {
            if self.scope.covers(entry.time) {
                first.get_or_insert(entry.sequence);
                last = entry.sequence;
            }
            Ok(())
        })?;
        let Some(first) = first else { return Ok(0) };
        let (mut chunk, mut count) = (Chunk::default(), 0_u64);
        self.archive.audit::<anyhow::Error>(|entry| {
            if !(first..=last).contains(&entry.sequence) {
                return Ok(());
            }
            chunk.make_room(out, false, || format!("{}{}.ndjson", bundle::AUDIT, entry.sequence))?;
            serde_json::to_writer(&mut chunk.bytes, &entry)?;
            chunk.bytes.push(b'\n');
            count = count.saturating_add(1);
            Ok(())
        })?;
        chunk.flush(out)?;
        Ok(count)
    }
}

/// The rows that a finding needs: those that tell of it, those with an observation of the address that it is about, and
/// those with the flows that it names.
fn rows_of(archive: &Archive, segments: &[ArchiveSegment], id: FindingId) -> anyhow::Result<Rows> {
    let finding: Option<Finding> = control_findings::finding(&archive.control, id)?;
    let finding = finding.ok_or_else(|| anyhow::anyhow!("no finding has the id {id}"))?;
    let mut flows: BTreeSet<FlowId> = finding.evidence.flow_ids.iter().copied().collect();
    let mut rows = Rows::new();
    for segment in segments {
        let wanted = rows.entry(segment.number).or_default();
        segment.batches::<anyhow::Error>(Rowspan::ALL, None, |row| {
            let Ok(row) = row else { return Ok(()) };
            let Ok(records) = Records::decode_without_flows(row.sealed.body) else { return Ok(()) };
            let told = records.findings.iter().filter(|change| change.finding_id == id);
            let mut tells = false;
            for change in told {
                tells = true;
                flows.extend(&change.evidence.flow_ids);
            }
            let address = finding.subject.address;
            let seen =
                |address| records.observations.iter().any(|observation| observation.address == address);
            if tells || address.is_some_and(seen) {
                wanted.insert(row.id);
            }
            Ok(())
        })?;
    }
    for segment in segments {
        let wanted = rows.entry(segment.number).or_default();
        for flow in &flows {
            wanted.extend(segment.batches_of_flow(&flow.0.to_be_bytes())?);
        }
    }
    Ok(rows)
}

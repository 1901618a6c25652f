//! `kind = "auto"`: by eBPF where this host permits it, and else by libpcap, which says why.

use std::time::Duration;

use onenet_core::{
    decode::InterfaceIndex,
    detect::HealthReport,
    mirror::MirrorPlan,
    record::{DropStage, RecordSink},
    sensor::Sensor,
    time::Timestamp,
};

use super::{
    ebpf::MeterSource,
    libpcap::{LibpcapError, LibpcapSource},
    live::Live,
};
use crate::{
    config::{EbpfSource, PcapSource},
    run::SourceView,
};

/// libpcap in the place of eBPF.
struct Fallback {
    by: LibpcapSource,
    reason: String,
}

/// Opens an interface as this host permits.
pub(crate) fn open(
    ebpf: &EbpfSource,
    mirrors: &[MirrorPlan],
    pcap: &PcapSource,
    among_others: bool,
) -> Result<Box<dyn Live>, LibpcapError> {
    let reason = match MeterSource::open(ebpf, mirrors) {
        Ok(source) => return Ok(Box::new(source)),
        Err(error) => error.reason(),
    };
    tracing::warn!("interface {}: read by libpcap, because eBPF is not to be had: {reason}", pcap.interface);
    Ok(Box::new(Fallback { by: LibpcapSource::open(pcap, among_others)?, reason }))
}

impl Live for Fallback {
    fn name(&self) -> &str {
        self.by.name()
    }

    fn read(
        &mut self,
        until: Timestamp,
        interface: InterfaceIndex,
        sensor: &mut Sensor,
        sink: &mut dyn RecordSink,
    ) -> bool {
        self.by.read(until, interface, sensor, sink)
    }

    fn waiting(&mut self) -> Option<Timestamp> {
        self.by.waiting()
    }

    fn quiet_until(&self) -> Timestamp {
        self.by.quiet_until()
    }

    fn cannot_wait(&self) -> Timestamp {
        self.by.cannot_wait()
    }

    fn look_after(&mut self, reopen_after: Duration) {
        self.by.look_after(reopen_after);
    }

    fn drops(&self, stage: DropStage) -> u64 {
        self.by.drops(stage)
    }

    fn health(&self) -> Vec<HealthReport> {
        self.by.health()
    }

    fn view(&self) -> SourceView {
        let view = self.by.view();
        let method = view.method.as_deref().unwrap_or("libpcap");
        SourceView {
            method: Some(format!("{method}, because eBPF is not to be had: {}", self.reason)),
            ..view
        }
    }

    fn close(&mut self) {
        self.by.close();
    }
}

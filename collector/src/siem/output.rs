//! Where a feed delivers: events in, lines or frames out.

use std::io;

use super::{
    config::{FileConfig, MessageText, SyslogConfig},
    ecs::{self, Detail},
    file::RotatingFile,
    flow_event::{self, FlowEvent},
    rfc5424::{Origin, frame},
    syslog::SyslogSender,
};
use crate::correlate::RecordedChange;

/// What a feed can be asked to deliver.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Events<'a> {
    /// Finding changes.
    Findings(&'a [RecordedChange]),
    /// Flow records.
    Flows(&'a [FlowEvent]),
}

/// One receiver.
#[derive(Debug)]
pub(crate) enum Output {
    /// A file of ECS documents.
    File(RotatingFile),
    /// A syslog receiver.
    Syslog(Syslog),
}

impl Output {
    /// The file of a configuration.
    pub(crate) fn file(config: &FileConfig) -> Self {
        Self::File(RotatingFile::new(config.path.clone(), config.max_bytes, config.keep))
    }

    /// The receiver of a configuration.
    pub(crate) fn syslog(config: &SyslogConfig) -> Self {
        Self::Syslog(Syslog {
            sender: SyslogSender::new(config.address.clone()),
            origin: Origin {
                facility: config.facility,
                hostname: config.hostname.clone().unwrap_or_else(machine_name),
                process_id: std::process::id(),
            },
            text: config.message,
            limit: config.max_message_bytes,
        })
    }

    /// Delivers events, all or none as far as the caller may rely on: on an error they are delivered again.
    pub(crate) fn deliver(&mut self, events: Events<'_>) -> io::Result<()> {
        match self {
            Self::File(file) => file.append(&documents(events)),
            Self::Syslog(syslog) => syslog.sender.send(&syslog.frames(events)),
        }
    }
}

/// ECS documents, one a line.
fn documents(events: Events<'_>) -> Vec<String> {
    match events {
        Events::Findings(changes) => {
            changes.iter().map(|change| ecs::finding_event(change, Detail::Full).to_string()).collect()
        }
        Events::Flows(flows) => {
            flows.iter().map(|flow| flow_event::flow_document(flow).to_string()).collect()
        }
    }
}

/// A syslog receiver and what its messages look like.
#[derive(Debug)]
pub(crate) struct Syslog {
    sender: SyslogSender,
    origin: Origin,
    text: MessageText,
    limit: usize,
}

impl Syslog {
    fn frames(&self, events: Events<'_>) -> Vec<Vec<u8>> {
        match events {
            Events::Findings(changes) => changes.iter().map(|change| self.finding(change)).collect(),
            Events::Flows(flows) => flows.iter().map(|flow| self.flow(flow)).collect(),
        }
    }

    fn finding(&self, change: &RecordedChange) -> Vec<u8> {
        let finding = &change.finding;
        let parameters = ecs::parameters(finding);
        let message = |text: &str| ecs::finding_message(finding, &parameters, text).format(&self.origin);
        let document = |detail| ecs::ascii_json(&ecs::finding_event(change, detail));
        self.fitting([Some(Detail::Full), Some(Detail::Brief), None], |detail| match detail {
            Some(detail) => message(&document(detail)),
            None => message(&finding.summary),
        })
    }

    fn flow(&self, flow: &FlowEvent) -> Vec<u8> {
        let parameters = flow_event::parameters(flow);
        let message =
            |text: &str| flow_event::flow_message(&flow.record, &parameters, text).format(&self.origin);
        self.fitting([Some(()), None], |detail| match detail {
            Some(()) => message(&ecs::ascii_json(&flow_event::flow_document(flow))),
            None => message(&flow_event::summary(&flow.record)),
        })
    }

    /// The first message that is short enough, or the last, which is the summary.
    fn fitting<T>(
        &self,
        forms: impl IntoIterator<Item = Option<T>>,
        message: impl Fn(Option<T>) -> String,
    ) -> Vec<u8> {
        let wanted = |form: &Option<T>| form.is_none() || self.text == MessageText::Json;
        let mut last = String::new();
        for form in forms.into_iter().filter(wanted) {
            last = message(form);
            if last.len() <= self.limit {
                break;
            }
        }
        frame(&last)
    }
}

/// The name of this machine; NILVALUE where it has none.
fn machine_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "-".to_owned() } else { name.to_owned() }
}

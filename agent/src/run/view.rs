//! What the threads of a run tell those who ask: the account, and how far each source has got.

use std::sync::{Mutex, MutexGuard, PoisonError};

use onenet_core::record::Ledger;
use serde::Serialize;

use crate::{plan::Held, source::counters::InterfaceView};

/// One source, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct SourceView {
    /// File or interface.
    pub(crate) name: String,
    /// How an interface is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) method: Option<String>,
    /// Packets read.
    pub(crate) packets: u64,
    /// Bytes read, for files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_read: Option<u64>,
    /// Bytes of the file, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<u64>,
    /// For interfaces, what they counted themselves beside what was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) account: Option<InterfaceView>,
    /// Time of the latest packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_packet: Option<String>,
    /// Where it broke, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// The engine and its sources.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// The account.
    pub(crate) ledger: Ledger,
    /// Flows that are live.
    pub(crate) live_flows: u64,
    /// Sources.
    pub(crate) sources: Vec<SourceView>,
    /// The plan that packets are judged by.
    pub(crate) plan: Held,
    /// Whether every source has ended.
    pub(crate) ended: bool,
    /// Whether records that an earlier run sealed are being passed over.
    pub(crate) catching_up: bool,
}

/// The view, shared.
#[derive(Debug, Default)]
pub(crate) struct SharedView(Mutex<View>);

impl SharedView {
    /// For reading or writing; to be held shortly.
    pub(crate) fn lock(&self) -> MutexGuard<'_, View> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Records that a program makes, in the place of packets: what follows is the same batcher, sealer, spool and shipper as
//! in every run. Load and fault tests of delivery come in here, because packets would measure the engine instead.

use std::{num::NonZeroU64, time::Duration};

use onenet_core::record::RecordSink;

use super::{pump::Pump, view::SourceView};

/// The longest sleep, so that a stop is heeded soon.
const NAP: Duration = Duration::from_millis(20);

/// What one call of a source gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// Records, or at least a step towards them.
    Records,
    /// Nothing for so long.
    Nothing(Duration),
    /// There will be no more.
    End,
}

/// Makes records.
pub trait RecordSource: Send {
    /// Puts the next few records into `sink`. It should return within milliseconds.
    fn make(&mut self, sink: &mut dyn RecordSink) -> Made;
}

/// A source of records, and what it is like.
pub struct Feed {
    /// The source.
    pub source: Box<dyn RecordSource>,
    /// Names the records where the source makes the same ones in every run, as a capture does: a run goes on behind
    /// what an earlier one sealed, and waits where the spool is full. None for a source that is like an interface: what
    /// there is no room for is shed.
    pub repeats: Option<NonZeroU64>,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").field("repeats", &self.repeats).finish_non_exhaustive()
    }
}

impl Pump {
    /// Takes what the source makes until its end, or until told to stop.
    pub(crate) fn run_feed(&mut self, mut source: Box<dyn RecordSource>) {
        let views = || vec![SourceView { name: "feed".to_owned(), ..SourceView::default() }];
        loop {
            if self.control.is_stopped() || self.batcher.is_closed() {
                break;
            }
            self.control.turn();
            match source.make(&mut self.batcher) {
                Made::Records => {}
                Made::Nothing(wait) => std::thread::sleep(wait.min(NAP)),
                Made::End => {
                    self.view.lock().ended = true;
                    break;
                }
            }
            self.batcher.cut_if_due();
            self.reload_if_asked();
            self.tell(views, false);
        }
        self.batcher.cut();
        self.tell(views, true);
    }
}

//! The progress bar of `read`: by bytes of the captures, on a terminal only.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::source::CaptureSet;

/// Packets between two looks at the position.
const STRIDE: u64 = 4096;

/// A bar, or nothing where there is no terminal.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    packets: u64,
}

impl Progress {
    /// A bar on standard error. `hidden` where records go to the same terminal, or silence was asked for.
    pub(crate) fn new(hidden: bool) -> Self {
        let bar = (!hidden && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { bar, packets: 0 }
    }

    /// Counts packets.
    pub(crate) fn packets(&mut self, count: u64, captures: &CaptureSet) {
        let before = self.packets;
        self.packets += count;
        if let Some(bar) = &self.bar
            && (before == 0 || before / STRIDE != self.packets / STRIDE)
        {
            let (read, size) = captures.progress();
            if before == 0 {
                let template = match size {
                    Some(_) => "{bar:40} {bytes}/{total_bytes}  {binary_bytes_per_sec}  {msg}  ETA {eta}",
                    None => "{spinner} {bytes}  {binary_bytes_per_sec}  {msg}",
                };
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style);
                }
                if let Some(size) = size {
                    bar.set_length(size);
                }
            }
            bar.set_position(read);
            bar.set_message(format!("{} packets", crate::summary::grouped(self.packets)));
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

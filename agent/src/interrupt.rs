//! Ctrl-C while `read` is at work: the first asks it to stop and tell what it has, the second ends it at once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::Context;

/// Whether somebody has asked to stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt {
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// Watches for SIGINT from now on.
    pub(crate) fn watch() -> Result<Self, anyhow::Error> {
        let interrupt = Self::default();
        let asked = Arc::clone(&interrupt.asked);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let runtime = runtime.context("cannot watch for signals")?;
        let mut signals = {
            let _guard = runtime.enter();
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
                .context("cannot watch for signals")?
        };
        std::thread::spawn(move || {
            runtime.block_on(async {
                signals.recv().await;
                asked.store(true, Ordering::Relaxed);
                signals.recv().await;
                // What a shell expects of a program that SIGINT ended.
                std::process::exit(130);
            });
        });
        Ok(interrupt)
    }

    /// Whether to stop.
    pub(crate) fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

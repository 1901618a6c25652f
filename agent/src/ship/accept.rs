//! An operator's acceptance of a collector that was set back: a file in the spool that names the cosigned head which
//! is given up, so that it covers this one case and no later one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use onenet_proto::{owner::as_owner_of, seal::ChainHead};

use crate::{keys::hex, spool::disk::replace_file};

/// Name of the file.
const FILE: &str = "accept-head";

/// Where an acceptance is found.
#[derive(Clone, Debug)]
pub(crate) struct Acceptance {
    path: PathBuf,
}

/// What stands in the file: one line.
fn line(cosigned: &ChainHead) -> String {
    format!("{} {} {}\n", cosigned.epoch, cosigned.sequence, hex(&cosigned.hash))
}

impl Acceptance {
    /// Of the spool in this directory.
    pub(crate) fn new(spool: &Path) -> Self {
        Self { path: spool.join(FILE) }
    }

    /// Whether there is one.
    pub(crate) fn is_there(&self) -> bool {
        self.path.exists()
    }

    /// Whether there is one for giving up this cosigned head. One for another head is of the past and is removed.
    pub(crate) fn covers(&self, cosigned: &ChainHead) -> bool {
        match fs::read_to_string(&self.path) {
            Ok(text) if text == line(cosigned) => true,
            Ok(_) => {
                tracing::warn!("an acceptance of another head than the cosigned one is dropped");
                self.remove();
                false
            }
            Err(_) => false,
        }
    }

    /// Enters an acceptance, durable on return. It is the spool's owner's, whoever enters it, so that the agent can read
    /// it.
    pub(crate) fn enter(&self, cosigned: &ChainHead) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or_else(|| Path::new("."));
        as_owner_of(directory, || replace_file(&self.path, line(cosigned).as_bytes()))
    }

    /// Removes it. One that stays covers no other head.
    pub(crate) fn remove(&self) {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %self.path.display(), "cannot be removed");
            }
            _ => {}
        }
    }
}

//! What can go wrong with the store, each with the file it is about.

use std::path::{Path, PathBuf};

/// Why the store cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or directory cannot be used.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// SQLite refuses.
    #[error("{}: {error}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// Why.
        error: rusqlite::Error,
    },
    /// Another collector runs on the same directory.
    #[error("{}: another collector is running on this store", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The file was made by another version.
    #[error(
        "{}: schema version {found}, expected {expected}{}",
        path.display(),
        if found < expected { "; the collector brings it up to date when it starts" } else { "" }
    )]
    Schema {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The version of this program.
        expected: i64,
    },
    /// The collector's own key does not parse.
    #[error("{}: not an Ed25519 key in PKCS #8 form; a new one would be taken for another collector", path.display())]
    BadKey {
        /// The file.
        path: PathBuf,
    },
    /// The collector's own key was there and is not.
    #[error(
        "{}: the collector's own key is lost, and the sensors trust no other: put it back from a copy, or make a new one \
         with `onenet-collector cosign-key renew` and let every sensor enrol anew",
        path.display()
    )]
    LostKey {
        /// The file.
        path: PathBuf,
    },
    /// No key can be made.
    #[error("the system's random source failed")]
    NoRandomness,
    /// What is stored makes no sense.
    #[error("{}: {problem}", path.display())]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The store's own thread has ended.
    #[error("the store is stopping")]
    Stopping,
}

impl StoreError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { path, error }
    }

    pub(crate) fn sqlite(path: &Path) -> impl FnOnce(rusqlite::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Sqlite { path, error }
    }

    /// Whether trying again later can help: the disk is full or another process holds the database.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Sqlite { error, .. } => matches!(
                error.sqlite_error_code(),
                Some(
                    rusqlite::ErrorCode::DiskFull
                        | rusqlite::ErrorCode::DatabaseBusy
                        | rusqlite::ErrorCode::DatabaseLocked
                        | rusqlite::ErrorCode::SystemIoFailure
                )
            ),
            Self::Io { .. } | Self::Stopping | Self::NoRandomness => true,
            Self::Locked { .. }
            | Self::BadKey { .. }
            | Self::LostKey { .. }
            | Self::Schema { .. }
            | Self::Corrupt { .. } => false,
        }
    }
}

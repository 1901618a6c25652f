//! The collector's own key: with it the collector gives its word for the heads that it holds and for its audit trail. It
//! lies beside the databases it speaks for, `cosign.key`, and is made with them. Sensors learn the public key when they
//! enrol and trust no other, so a key that is lost is never replaced unasked: that would stop every sensor. The control
//! database keeps each public key that there was, so that old words can be verified again.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use onenet_core::time::Timestamp;
use onenet_proto::{
    cosign::cosign,
    seal::{ChainHead, SigningKey},
    v1::Cosignature,
};
use rusqlite::{Connection, Transaction, params};

use super::{Heads, Store, StoreConfig, StoreError, control::Control, heads, private_draft, sync_directory};
use crate::clock;

const FILE: &str = "cosign.key";

/// The table of the keys that there were.
pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS cosign_keys (
    key BLOB PRIMARY KEY,                   -- Ed25519 public key, 32 bytes
    since INTEGER NOT NULL                  -- ns since the epoch
) STRICT, WITHOUT ROWID;
";

/// The key; it can sign.
#[derive(Debug)]
pub(crate) struct Cosigner(SigningKey);

/// A key that this store signs with, or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CosignKey {
    /// Ed25519 public key.
    pub(crate) key: [u8; 32],
    /// Collector time from which it was used.
    pub(crate) since: Timestamp,
}

impl Cosigner {
    /// Reads the key of the store in `directory`. Where there is none one is made, unless there was one before. Of two
    /// processes that make one at the same time, both use the one that came first.
    pub(super) fn load_or_create(directory: &Path, control: &Control) -> Result<Self, StoreError> {
        let path = directory.join(FILE);
        let known = control.read(known)?;
        let cosigner = loop {
            if let Some(cosigner) = Self::load(&path)? {
                break cosigner;
            }
            if !known.is_empty() {
                return Err(StoreError::LostKey { path });
            }
            create(directory, &path)?;
        };
        if !known.iter().any(|known| known.key == cosigner.public_key()) {
            control.transaction(|transaction| cosigner.enter(transaction))?;
        }
        Ok(cosigner)
    }

    fn load(path: &Path) -> Result<Option<Self>, StoreError> {
        match fs::read(path) {
            Ok(bytes) => {
                let key = SigningKey::from_pkcs8(&bytes);
                key.map(|key| Some(Self(key))).map_err(|_| StoreError::BadKey { path: path.to_owned() })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io(path)(error)),
        }
    }

    /// Notes the public key among those that there were.
    fn enter(&self, transaction: &Transaction<'_>) -> Result<(), rusqlite::Error> {
        transaction.execute(
            "INSERT OR IGNORE INTO cosign_keys VALUES (?, ?)",
            params![self.public_key(), clock::now().0],
        )?;
        Ok(())
    }

    /// The key itself, to sign statements.
    pub(crate) const fn key(&self) -> &SigningKey {
        &self.0
    }

    /// The 32 bytes of the public key.
    pub(crate) fn public_key(&self) -> &[u8] {
        self.0.public_key()
    }

    /// Gives the collector's word for a head. `time` is its clock, nanoseconds since the Unix epoch.
    pub(super) fn cosign(&self, sensor: &str, head: &ChainHead, time: i64) -> Cosignature {
        cosign(&self.0, sensor, head, time)
    }

    /// Signs for the heads that bear no word of this key: an earlier version committed them, or the key is new. So a
    /// sensor's first ack always carries the word of the key that it enrolled with.
    pub(super) fn sign_held(
        &self,
        connection: &mut Connection,
        held: &mut Heads,
        now: Timestamp,
    ) -> Result<(), rusqlite::Error> {
        let ours = |signed: &Cosignature| signed.key == self.public_key();
        let unsigned = held
            .iter_mut()
            .filter(|(_, held)| held.head.sequence > 0 && !held.cosignature.as_ref().is_some_and(ours));
        let unsigned: Vec<_> = unsigned.collect();
        if unsigned.is_empty() {
            return Ok(());
        }
        let transaction = connection.transaction()?;
        for (sensor, held) in unsigned {
            held.cosignature = Some(self.cosign(sensor, &held.head, now.0));
            heads::write(&transaction, sensor, held)?;
        }
        transaction.commit()
    }
}

/// The keys that there were, the oldest first.
fn known(connection: &Connection) -> Result<Vec<CosignKey>, rusqlite::Error> {
    let mut statement =
        connection.prepare_cached("SELECT key, since FROM cosign_keys ORDER BY since, key")?;
    let rows =
        statement.query_map([], |row| Ok(CosignKey { key: row.get(0)?, since: Timestamp(row.get(1)?) }))?;
    rows.collect()
}

/// Makes a key, whole or not at all, where there is none.
fn create(directory: &Path, path: &Path) -> Result<(), StoreError> {
    let draft = draft(directory)?;
    // A link, unlike a rename, does not replace what another process has made meanwhile.
    let linked = match fs::hard_link(&draft, path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    };
    let removed = fs::remove_file(&draft);
    linked.and(removed).map_err(StoreError::io(path))?;
    sync_directory(directory)
}

/// Writes a new key to a file beside the one that it is to become.
fn draft(directory: &Path) -> Result<PathBuf, StoreError> {
    let (_, bytes) = SigningKey::generate().map_err(|_| StoreError::NoRandomness)?;
    private_draft(directory, FILE, &bytes)
}

/// Makes a new key in place of the one that there is or was, and gives its public half. Every sensor has to enrol anew.
/// No collector may be running on the store.
pub(crate) fn renew(config: &StoreConfig) -> Result<Vec<u8>, StoreError> {
    super::make_directory(&config.directory)?;
    let _lock = super::writer::lock(&config.directory.join("lock"))?;
    let path = config.directory.join(FILE);
    fs::rename(draft(&config.directory)?, &path).map_err(StoreError::io(&path))?;
    sync_directory(&config.directory)?;
    let control = Control::open(&config.directory.join("control.db"))?;
    Ok(Cosigner::load_or_create(&config.directory, &control)?.public_key().to_vec())
}

impl Store {
    /// The collector's own key.
    pub(crate) fn cosigner(&self) -> &Cosigner {
        &self.inner.cosigner
    }

    /// The keys that this store signs with or did, the oldest first.
    pub(crate) fn cosign_keys(&self) -> Result<Vec<CosignKey>, StoreError> {
        self.read(known)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use onenet_proto::{cosign::verify_cosignature, owner::as_owner_of};

    use super::*;
    use crate::{
        store::{Incoming, Writer},
        testing::{Sensor, store_config},
    };

    struct Place {
        config: StoreConfig,
        directory: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            Self { config: store_config(&directory), directory }
        }

        fn key(&self) -> PathBuf {
            self.config.directory.join(FILE)
        }
    }

    fn commit(writer: &Writer, incoming: Incoming) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let verdict = runtime.block_on(async {
            writer.handle().submit(incoming).await.expect("the writer runs").await.expect("a verdict")
        });
        assert!(matches!(verdict, crate::store::Verdict::Stored(_)), "{verdict:?}");
    }

    #[test]
    fn the_key_is_made_once_kept_private_and_a_broken_one_is_not_replaced() {
        let place = Place::new();
        let first = Store::attach(&place.config).expect("it is made");
        let again = Store::attach(&place.config).expect("it is read");
        assert_eq!(first.cosigner().public_key(), again.cosigner().public_key());
        assert_eq!(first.cosign_keys().expect("readable").len(), 1);
        assert_eq!(fs::metadata(place.key()).expect("it is there").permissions().mode() & 0o777, 0o600);
        create(&place.config.directory, &place.key()).expect("another process made one");
        let still = Store::attach(&place.config).expect("it is read");
        assert_eq!(first.cosigner().public_key(), still.cosigner().public_key());
        let drafts = fs::read_dir(&place.config.directory).expect("readable").flatten();
        let drafts = drafts.filter(|entry| entry.file_name().to_string_lossy().starts_with("cosign.key."));
        assert_eq!(drafts.count(), 0);
        fs::write(place.key(), b"cut").expect("written");
        let error = Store::attach(&place.config).expect_err("no key");
        assert!(error.to_string().contains("cosign.key: not an Ed25519 key"), "{error}");
    }

    #[test]
    fn a_lost_key_is_not_replaced_unasked_and_all_that_there_were_are_known() {
        let place = Place::new();
        let first = Store::attach(&place.config).expect("it is made").cosigner().public_key().to_vec();
        fs::remove_file(place.key()).expect("it is lost");
        for _ in 0..2 {
            let error = Store::attach(&place.config).expect_err("the key is lost");
            assert!(error.to_string().contains("cosign.key: the collector's own key is lost"), "{error}");
            assert!(!place.key().exists());
        }
        let second = renew(&place.config).expect("a new one");
        assert_ne!(first, second);
        let store = Store::attach(&place.config).expect("it opens");
        assert_eq!(store.cosigner().public_key(), second);
        let known: Vec<_> =
            store.cosign_keys().expect("readable").into_iter().map(|known| known.key.to_vec()).collect();
        assert_eq!(known, [first, second]);
    }

    #[test]
    fn the_key_is_not_renewed_while_a_collector_runs() {
        let place = Place::new();
        let (store, writer) = Store::open(&place.config).expect("a new store");
        let error = renew(&place.config).expect_err("it runs");
        assert!(error.to_string().contains("another collector is running"), "{error}");
        writer.stop();
        let key = fs::read(place.key()).expect("readable");
        assert_eq!(SigningKey::from_pkcs8(&key).expect("a key").public_key(), store.cosigner().public_key());
    }

    #[test]
    fn what_root_makes_belongs_to_the_owner_of_the_directory() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let place = Place::new();
        super::super::make_directory(&place.config.directory).expect("made");
        std::os::unix::fs::chown(&place.config.directory, Some(12_345), Some(12_346)).expect("root may");
        let attached = as_owner_of(&place.config.directory, || Store::attach(&place.config));
        attached.expect("it is made").audit(Timestamp::default(), "tested", String::new()).expect("written");
        for made in fs::read_dir(&place.config.directory).expect("readable").flatten() {
            let file = made.metadata().expect("it is there");
            assert_eq!((file.uid(), file.gid()), (12_345, 12_346), "{}", made.path().display());
        }
        drop(place.directory);
    }

    #[test]
    fn after_a_start_every_head_bears_the_word_of_the_key_there_is() {
        let place = Place::new();
        let (store, writer) = Store::open(&place.config).expect("a new store");
        let mut sensor = Sensor::new("boston-1");
        sensor.enter(&store);
        let batch = sensor.batch(1);
        commit(&writer, sensor.incoming(&batch));
        writer.stop();
        drop(store);
        renew(&place.config).expect("a new one");
        for _ in 0..2 {
            let (store, writer) = Store::open(&place.config).expect("it opens");
            let (head, signed) = writer.handle().held("boston-1");
            assert_eq!(head, sensor.head());
            let signed = signed.expect("it is signed for");
            let checked = verify_cosignature(&signed, store.cosigner().public_key(), "boston-1", &head);
            assert_eq!(checked, Ok(()));
            let on_disk = store.heads().expect("readable");
            assert_eq!(on_disk.get("boston-1").and_then(|held| held.cosignature.clone()), Some(signed));
            writer.stop();
        }
    }
}

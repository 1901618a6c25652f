//! The collector's own key: with it the collector gives its word for the heads that it holds and for its audit trail. It
//! lies beside the databases it speaks for, `cosign.key`, and is made with them. Sensors learn the public key when they
//! enrol; a store whose key is lost gets another one, and every sensor notices.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use onenet_proto::{
    cosign::cosign,
    seal::{ChainHead, SigningKey},
    v1::Cosignature,
};

use super::{Store, StoreError, sync_directory};

const FILE: &str = "cosign.key";

/// The key; it can sign.
#[derive(Debug)]
pub(crate) struct Cosigner(SigningKey);

impl Cosigner {
    /// Reads the key of the store in `directory`, and makes one where there is none. Of two processes that make one at
    /// the same time, both use the one that came first.
    pub(super) fn load_or_create(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(FILE);
        loop {
            match fs::read(&path) {
                Ok(bytes) => {
                    let key = SigningKey::from_pkcs8(&bytes);
                    return key.map(Self).map_err(|_| StoreError::BadKey { path: path.clone() });
                }
                Err(error) if error.kind() == ErrorKind::NotFound => create(directory, &path)?,
                Err(error) => return Err(StoreError::io(&path)(error)),
            }
        }
    }

    /// The 32 bytes of the public key.
    pub(crate) fn public_key(&self) -> &[u8] {
        self.0.public_key()
    }

    /// Gives the collector's word for a head. `time` is its clock, nanoseconds since the Unix epoch.
    pub(super) fn cosign(&self, sensor: &str, head: &ChainHead, time: i64) -> Cosignature {
        cosign(&self.0, sensor, head, time)
    }
}

/// Makes a key, whole or not at all, where there is none.
fn create(directory: &Path, path: &Path) -> Result<(), StoreError> {
    let (_, bytes) = SigningKey::generate().map_err(|_| StoreError::NoRandomness)?;
    let draft = directory.join(format!("{FILE}.{}", std::process::id()));
    let written =
        fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft).and_then(
            |mut file| {
                file.write_all(&bytes)?;
                file.sync_all()
            },
        );
    // A link, unlike a rename, does not replace what another process has made meanwhile.
    let linked = written.and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    });
    let removed = fs::remove_file(&draft);
    linked.and(removed).map_err(StoreError::io(path))?;
    sync_directory(directory)
}

impl Store {
    /// The collector's own key.
    pub(crate) fn cosigner(&self) -> &Cosigner {
        &self.inner.cosigner
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_key_is_made_once_kept_private_and_a_broken_one_is_not_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = Cosigner::load_or_create(directory.path()).expect("it is made");
        let again = Cosigner::load_or_create(directory.path()).expect("it is read");
        assert_eq!(first.public_key(), again.public_key());
        let path = directory.path().join(FILE);
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).expect("readable").count(), 1);
        create(directory.path(), &path).expect("another process made one");
        let still = Cosigner::load_or_create(directory.path()).expect("it is read");
        assert_eq!(first.public_key(), still.public_key());
        fs::write(&path, b"cut").expect("written");
        let error = Cosigner::load_or_create(directory.path()).expect_err("no key");
        assert!(error.to_string().contains("cosign.key"), "{error}");
    }
}

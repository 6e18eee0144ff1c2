//! The one secret of a store, and what is derived from it for each domain.
//!
//! `DIR/keys` is text of three lines (`hawser-store-keys 1`, `store HEX`, `root HEX`), mode 0600,
//! written once, durable before the first segment exists. Its loss makes every block unfindable.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use hawser_api::BlockHash;

use crate::names::{BlockName, DomainId, StoreId};

/// What `DIR/keys` holds.
pub(crate) struct Keys {
    /// The store's id, which each of its segments repeats.
    pub(crate) store: StoreId,
    root: [u8; 32],
}

/// Why the keys could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// There are segments and no keys.
    #[error(
        "{path} is missing and the log is not empty: put the file back from a backup, without it no block can be found"
    )]
    Missing {
        /// Where they should be.
        path: PathBuf,
    },
    /// The file is not what this release writes.
    #[error("{path} is not a keys file of this release: put it back from a backup")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be read or written.
    #[error("{path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Keys {
    /// Reads the keys of the store in `dir`, or makes them when the store is `new`.
    pub(crate) fn open(dir: &Path, new: bool) -> Result<Keys, KeysError> {
        let path = dir.join("keys");
        let io_error = |source| KeysError::Io { path: path.clone(), source };
        match File::open(&path) {
            Ok(mut file) => {
                let mut text = String::new();
                file.read_to_string(&mut text).map_err(io_error)?;
                Keys::parse(&text).ok_or(KeysError::Malformed { path })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && new => {
                let keys = Keys { store: StoreId(rand::random()), root: rand::random() };
                keys.write(dir).map_err(io_error)?;
                Ok(keys)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(KeysError::Missing { path }),
            Err(source) => Err(io_error(source)),
        }
    }

    /// Writes the file into `dir`: whole or not at all, and durable on return.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        let (path, temporary) = (dir.join("keys"), dir.join("keys.new"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        writeln!(file, "hawser-store-keys 1\nstore {}\nroot {}", hex(&self.store.0), hex(&self.root))?;
        file.sync_all()?;
        crate::crash::point("keys-written");
        fs::rename(&temporary, &path)?;
        File::open(dir)?.sync_all()
    }

    /// The key of a domain.
    pub(crate) fn domain(&self, id: DomainId, name: &str) -> DomainKey {
        let mut material = Vec::with_capacity(36 + name.len());
        material.extend_from_slice(&self.root);
        material.extend_from_slice(&id.get().to_le_bytes());
        material.extend_from_slice(name.as_bytes());
        DomainKey {
            names: blake3::derive_key("hawser 2026 domain key", &material),
            veil: blake3::derive_key("hawser 2026 domain veil", &material),
        }
    }

    fn parse(text: &str) -> Option<Keys> {
        let mut lines = text.lines();
        if lines.next()? != "hawser-store-keys 1" {
            return None;
        }
        let store = StoreId(unhex(lines.next()?.strip_prefix("store ")?)?);
        let root = unhex(lines.next()?.strip_prefix("root ")?)?;
        lines.next().is_none().then_some(Keys { store, root })
    }
}

/// Gives blocks their names within one domain.
#[derive(Clone)]
pub(crate) struct DomainKey {
    names: [u8; 32],
    veil: [u8; 32],
}

impl DomainKey {
    /// The name of the block with this hash.
    pub(crate) fn name(&self, hash: &BlockHash) -> BlockName {
        BlockName::from_bytes(*blake3::keyed_hash(&self.names, hash.as_bytes()).as_bytes())
    }

    /// A hash as it may stand on disk within an entry: without the key it tells nothing of the content.
    pub(crate) fn veil(&self, hash: &BlockHash) -> [u8; 32] {
        self.rounds(*hash.as_bytes(), [0, 1, 2, 3])
    }

    /// The hash behind a [`DomainKey::veil`].
    pub(crate) fn unveil(&self, veiled: &[u8; 32]) -> BlockHash {
        let (left, right) = halves(veiled);
        let opened = self.rounds(join(right, left), [3, 2, 1, 0]);
        let (left, right) = halves(&opened);
        BlockHash::from_bytes(join(right, left))
    }

    /// Four rounds of a Feistel network over a keyed hash: a pseudorandom permutation of 32 bytes
    /// (Luby and Rackoff), so that equal hashes stay equal and nothing needs a nonce.
    fn rounds(&self, bytes: [u8; 32], order: [u8; 4]) -> [u8; 32] {
        let (mut left, mut right) = halves(&bytes);
        for round in order {
            let mut input = [0; 17];
            input[0] = round;
            input[1..].copy_from_slice(&right);
            let pad = blake3::keyed_hash(&self.veil, &input);
            let mixed = std::array::from_fn(|i| left[i] ^ pad.as_bytes()[i]);
            (left, right) = (right, mixed);
        }
        join(left, right)
    }
}

impl fmt::Debug for DomainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DomainKey(…)")
    }
}

fn halves(bytes: &[u8; 32]) -> ([u8; 16], [u8; 16]) {
    (std::array::from_fn(|i| bytes[i]), std::array::from_fn(|i| bytes[16 + i]))
}

fn join(left: [u8; 16], right: [u8; 16]) -> [u8; 32] {
    std::array::from_fn(|i| if i < 16 { left[i] } else { right[i - 16] })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_private_and_read_back_as_they_were_made() {
        let dir = tempfile::tempdir().unwrap();
        let made = Keys::open(dir.path(), true).unwrap();
        let read = Keys::open(dir.path(), false).unwrap();
        assert_eq!((made.store, made.root), (read.store, read.root));
        assert_eq!(fs::metadata(dir.path().join("keys")).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_log_without_its_keys_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Keys::open(dir.path(), false), Err(KeysError::Missing { .. })));
        fs::write(dir.path().join("keys"), "hawser-store-keys 1\nstore 00\nroot é\n").unwrap();
        assert!(matches!(Keys::open(dir.path(), true), Err(KeysError::Malformed { .. })));
    }

    #[test]
    fn a_veil_hides_a_hash_and_opens_again() {
        let keys = Keys { store: StoreId([1; 16]), root: [2; 32] };
        let (one, two) =
            (keys.domain(DomainId::new(1).unwrap(), "shop"), keys.domain(DomainId::new(2).unwrap(), "shop"));
        for content in [&b""[..], b"a", b"another"] {
            let hash = BlockHash::of(content);
            let veiled = one.veil(&hash);
            assert_eq!(one.unveil(&veiled), hash);
            assert_ne!(veiled, *hash.as_bytes());
            assert_ne!(veiled, two.veil(&hash), "domains do not know each other's veils");
            assert_ne!(one.name(&hash), two.name(&hash), "nor names");
        }
    }
}

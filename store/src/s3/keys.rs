//! Who may read through the S3 face: one secret a domain, written in a file or derived from a master.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Result, s3_error};

/// The secrets of the domains. Its `Debug` tells how many, never which.
pub struct Keys {
    by_domain: HashMap<String, SecretKey>,
    /// The secret of every domain that `by_domain` does not name: a store of one domain.
    fallback: Option<SecretKey>,
    /// What the secrets of all other domains are derived from: a store of a cluster.
    master: Option<[u8; 32]>,
}

/// What the master's key is drawn for; another release that derived otherwise would have another text.
const MASTER_CONTEXT: &str = "hawser-store 2026-11 secrets of the S3 face by domain";

/// A master shorter than this could be guessed.
const MASTER_LEN_MIN: usize = 32;

/// Why the file of S3 keys could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file could not be read.
    #[error("read the S3 keys in {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The master is too short to be a secret.
    #[error("{0} holds less than {MASTER_LEN_MIN} bytes: fill it with `openssl rand -hex 32`")]
    Master(PathBuf),
    /// A line is not `DOMAIN SECRET`.
    #[error("{path}, line {line}: write `DOMAIN SECRET`, one pair a line")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
}

impl Keys {
    /// Reads `DOMAIN SECRET` lines from `file`; `fallback` is the secret of a one-domain store
    /// (`HAWSER_S3_SECRET`). Empty lines and lines that begin with `#` are passed over.
    ///
    /// # Errors
    /// [`KeysError`]; its text holds no secret.
    pub fn load(file: Option<&Path>, fallback: Option<String>) -> Result<Keys, KeysError> {
        let mut by_domain = HashMap::new();
        if let Some(path) = file {
            let text =
                std::fs::read_to_string(path).map_err(|source| KeysError::Read { path: path.to_owned(), source })?;
            for (index, line) in text.lines().enumerate() {
                let line = line.trim();
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                let mut words = line.split_whitespace();
                match (words.next(), words.next(), words.next()) {
                    (Some(domain), Some(secret), None) => {
                        by_domain.insert(domain.to_owned(), SecretKey::from(secret));
                    }
                    _ => return Err(KeysError::Line { path: path.to_owned(), line: index + 1 }),
                }
            }
        }
        let fallback = fallback.filter(|secret| !secret.is_empty()).map(SecretKey::from);
        Ok(Keys { by_domain, fallback, master: None })
    }

    /// These keys, and one for every domain that has none, derived from the content of `file`.
    ///
    /// # Errors
    /// [`KeysError`]; its text holds no secret.
    pub fn with_master(self, file: &Path) -> Result<Keys, KeysError> {
        let content = std::fs::read(file).map_err(|source| KeysError::Read { path: file.to_owned(), source })?;
        let content = content.trim_ascii();
        if content.len() < MASTER_LEN_MIN {
            return Err(KeysError::Master(file.to_owned()));
        }
        Ok(Keys { master: Some(blake3::derive_key(MASTER_CONTEXT, content)), ..self })
    }

    /// Whether no request can ever be signed right.
    pub fn is_empty(&self) -> bool {
        self.by_domain.is_empty() && self.fallback.is_none() && self.master.is_none()
    }

    /// The secret of a domain; `None` where it has none.
    pub fn secret(&self, domain: &str) -> Option<SecretKey> {
        let derived = || {
            let hash = blake3::keyed_hash(self.master.as_ref()?, domain.as_bytes());
            Some(SecretKey::from(hash.to_hex().as_str()))
        };
        self.by_domain.get(domain).or(self.fallback.as_ref()).cloned().or_else(derived)
    }
}

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        self.secret(access_key).ok_or_else(|| {
            s3_error!(InvalidAccessKeyId, "the access key is the domain's name, and no secret is set for this one")
        })
    }
}

/// The service takes keys that others have too.
pub(super) struct Shared(pub(super) std::sync::Arc<Keys>);

#[async_trait::async_trait]
impl S3Auth for Shared {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        self.0.get_secret_key(access_key).await
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (fallback, master) = (self.fallback.is_some(), self.master.is_some());
        write!(f, "Keys({} domains, fallback {fallback}, master {master})", self.by_domain.len())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_line_that_is_no_pair_is_named_and_not_printed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys");
        std::fs::write(&file, "# people\nshop s3cr3t\n\nlonely-s3cr3t\n").unwrap();
        let text = Keys::load(Some(&file), None).unwrap_err().to_string();
        assert!(text.ends_with("line 4: write `DOMAIN SECRET`, one pair a line"), "{text}");
        assert!(!text.contains("s3cr3t"));
    }

    #[tokio::test]
    async fn a_domain_without_a_secret_cannot_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys");
        std::fs::write(&file, "shop s3cr3t\n").unwrap();
        let keys = Keys::load(Some(&file), None).unwrap();
        assert_eq!(keys.get_secret_key("shop").await.unwrap().expose(), "s3cr3t");
        assert!(keys.get_secret_key("else").await.is_err());
        assert!(!format!("{keys:?}").contains("s3cr3t"));
        assert!(Keys::load(None, Some("x".into())).unwrap().get_secret_key("any").await.is_ok());
    }

    #[test]
    fn each_domain_has_its_own_secret_of_a_master() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("master");
        std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
        let keys = || Keys::load(None, None).unwrap().with_master(&file);
        let of = |domain: &str| keys().unwrap().secret(domain).unwrap().expose().to_owned();
        assert_eq!(of("one").len(), 64);
        assert_eq!(of("one"), of("one"), "it is the same after a restart");
        assert_ne!(of("one"), of("two"));
        std::fs::write(&file, "short").unwrap();
        assert!(matches!(keys(), Err(KeysError::Master(_))));
    }
}

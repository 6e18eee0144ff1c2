//! Who may read through the S3 face: one secret a domain.

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
}

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
        Ok(Keys { by_domain, fallback: fallback.filter(|secret| !secret.is_empty()).map(SecretKey::from) })
    }

    /// Whether no request can ever be signed right.
    pub fn is_empty(&self) -> bool {
        self.by_domain.is_empty() && self.fallback.is_none()
    }
}

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        self.by_domain.get(access_key).or(self.fallback.as_ref()).cloned().ok_or_else(|| {
            s3_error!(InvalidAccessKeyId, "the access key is the domain's name, and no secret is set for this one")
        })
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} domains, fallback {})", self.by_domain.len(), self.fallback.is_some())
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
}

//! Who calls: a request's domain, from its token ([`crate::review`] in a cluster), or by its own word on a
//! loopback store.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::review::Reviewer;

/// Metadata in which a caller names its domain. With tokens it must agree with the token's.
pub const DOMAIN: &str = "hawser-domain";

/// Bytes of a domain's name at most: a Kubernetes namespace or its UID.
pub const DOMAIN_LEN_MAX: usize = 253;

/// How callers are told apart. Its `Debug` holds no token.
pub enum Auth {
    /// A token names its domain.
    Tokens(Tokens),
    /// Everyone on this machine is believed; only for a listener on loopback.
    Loopback,
    /// The API server of a cluster says whose a token is.
    Reviewed(Box<Reviewer>),
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The domain of its own.
    pub(crate) domain: String,
    /// Its namespace's name; empty where the domain has no other name.
    pub(crate) namespace: String,
    /// It is the operator, which reaches across domains.
    pub(crate) operator: bool,
}

/// Tokens by their BLAKE3 hash: looking one up compares hashes, so the time it takes tells nothing
/// about a token, and memory holds none.
pub struct Tokens {
    domains: HashMap<[u8; 32], String>,
}

/// Why the store does not know whom to believe.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The file of tokens could not be read.
    #[error("read the tokens in {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line is not `DOMAIN SECRET`.
    #[error("{path}, line {line}: write `DOMAIN SECRET`, one pair a line, the secret of 16 characters or more")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// Two domains share a secret.
    #[error("{path}, line {line}: this secret names another domain too: give each domain its own")]
    Shared {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// Callers from elsewhere could claim any domain.
    #[error("{listen} is reachable from other machines: give --tokens, or listen on 127.0.0.1")]
    Open {
        /// The address.
        listen: SocketAddr,
    },
}

impl Auth {
    /// Reads the tokens of `file`; without a file callers are believed, which only a loopback
    /// address may do.
    ///
    /// # Errors
    /// [`AuthError`]; its text holds no token.
    pub fn load(file: Option<&Path>, listen: SocketAddr) -> Result<Auth, AuthError> {
        match file {
            Some(path) => Tokens::load(path).map(Auth::Tokens),
            None if listen.ip().is_loopback() => Ok(Auth::Loopback),
            None => Err(AuthError::Open { listen }),
        }
    }

    /// The domain of a call.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` without a token that is known, `PERMISSION_DENIED` when the call names
    /// another domain than its token, `INVALID_ARGUMENT` when no usable domain is named,
    /// `UNAVAILABLE` when nobody could be asked about a token.
    pub async fn domain(&self, metadata: &MetadataMap) -> Result<String, Status> {
        let named = match metadata.get(DOMAIN).map(|value| value.to_str()) {
            None => None,
            Some(Ok(name)) if !name.is_empty() && name.len() <= DOMAIN_LEN_MAX => Some(name),
            Some(_) => return Err(Status::invalid_argument("hawser-domain must be 1 to 253 printable characters")),
        };
        match self {
            Auth::Loopback => named.map(str::to_owned).ok_or_else(|| {
                Status::invalid_argument("name the domain in the metadata hawser-domain: the binding's namespace")
            }),
            Auth::Reviewed(reviewer) => {
                let caller = reviewer.caller(token(metadata)?).await?;
                match named {
                    Some(named) if caller.operator => Ok(named.to_owned()),
                    Some(named) if named != caller.domain && named != caller.namespace => {
                        let of = caller.namespace;
                        Err(Status::permission_denied(format!("the token is of namespace {of}, not of {named}")))
                    }
                    _ => Ok(caller.domain),
                }
            }
            Auth::Tokens(tokens) => {
                let domain = tokens
                    .domain(token(metadata)?)
                    .ok_or_else(|| Status::unauthenticated("the token is not known to this store"))?;
                match named {
                    Some(named) if named != domain => {
                        Err(Status::permission_denied(format!("the token is for domain {domain}, not for {named}")))
                    }
                    _ => Ok(domain.to_owned()),
                }
            }
        }
    }
}

impl Auth {
    /// Makes sure that the operator calls.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for everybody else.
    pub(crate) async fn operator(&self, metadata: &MetadataMap) -> Result<(), Status> {
        match self {
            Auth::Loopback => Ok(()),
            Auth::Reviewed(reviewer) if reviewer.caller(token(metadata)?).await?.operator => Ok(()),
            Auth::Reviewed(_) => Err(Status::permission_denied("only the account of --operator-account may call this")),
            Auth::Tokens(_) => Err(Status::permission_denied(
                "this store has no operator: start it with --token-review and --operator-account",
            )),
        }
    }

    /// Whether an operator tells which bindings there are, and nobody else.
    pub(crate) fn has_operator(&self) -> bool {
        matches!(self, Auth::Reviewed(_))
    }

    /// Whether callers can be told apart now.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub(crate) fn ready(&self) -> Result<(), String> {
        match self {
            Auth::Tokens(_) | Auth::Loopback => Ok(()),
            Auth::Reviewed(reviewer) => reviewer.ready(),
        }
    }

    /// Finds out, before the first caller comes, whether callers can be told apart.
    pub(crate) async fn try_out(&self) {
        if let Auth::Reviewed(reviewer) = self {
            reviewer.try_out().await;
        }
    }
}

/// The token that a call shows.
fn token(metadata: &MetadataMap) -> Result<&str, Status> {
    let header = metadata.get("authorization").and_then(|value| value.to_str().ok());
    let token = header.and_then(|header| header.strip_prefix("Bearer ")).map(str::trim);
    token.ok_or_else(|| Status::unauthenticated("this store asks for a token: give --token-file"))
}

impl Tokens {
    fn load(path: &Path) -> Result<Tokens, AuthError> {
        let text = std::fs::read_to_string(path).map_err(|source| AuthError::Read { path: path.to_owned(), source })?;
        let mut domains: HashMap<[u8; 32], String> = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line_number = index + 1;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = line.split_whitespace();
            let (Some(domain), Some(secret), None) = (words.next(), words.next(), words.next()) else {
                return Err(AuthError::Line { path: path.to_owned(), line: line_number });
            };
            if secret.len() < 16 || domain.len() > DOMAIN_LEN_MAX {
                return Err(AuthError::Line { path: path.to_owned(), line: line_number });
            }
            let before = domains.insert(*blake3::hash(secret.as_bytes()).as_bytes(), domain.to_owned());
            if before.is_some_and(|before| before != domain) {
                return Err(AuthError::Shared { path: path.to_owned(), line: line_number });
            }
        }
        Ok(Tokens { domains })
    }

    fn domain(&self, token: &str) -> Option<&str> {
        self.domains.get(blake3::hash(token.as_bytes()).as_bytes()).map(String::as_str)
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Auth::Loopback => f.write_str("Auth::Loopback"),
            Auth::Tokens(tokens) => write!(f, "Auth::Tokens({})", tokens.domains.len()),
            Auth::Reviewed(reviewer) => write!(f, "Auth::{reviewer:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tonic::Code;

    use super::*;

    fn call(token: Option<&str>, domain: Option<&str>) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        if let Some(token) = token {
            metadata.insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        if let Some(domain) = domain {
            metadata.insert(DOMAIN, domain.parse().unwrap());
        }
        metadata
    }

    #[tokio::test]
    async fn a_token_is_the_only_way_into_its_domain() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens");
        std::fs::write(&file, "# pods\nshop 0123456789abcdef\nbank fedcba9876543210\n").unwrap();
        let auth = Auth::load(Some(&file), "0.0.0.0:7070".parse().unwrap()).unwrap();
        let rows = [
            ("its token", call(Some("0123456789abcdef"), None), Ok("shop")),
            ("and its domain", call(Some("0123456789abcdef"), Some("shop")), Ok("shop")),
            ("another domain", call(Some("0123456789abcdef"), Some("bank")), Err(Code::PermissionDenied)),
            ("no token", call(None, Some("shop")), Err(Code::Unauthenticated)),
            ("an unknown token", call(Some("0123456789abcdeX"), Some("shop")), Err(Code::Unauthenticated)),
        ];
        for (name, metadata, want) in rows {
            let got = auth.domain(&metadata).await;
            assert_eq!(got.as_deref().map_err(Status::code), want, "{name}");
            if let Err(status) = got {
                assert!(!status.message().contains("0123456789abcde"), "{name}");
            }
        }
        assert!(!format!("{auth:?}").contains("0123"));
    }

    #[tokio::test]
    async fn without_tokens_only_loopback_is_believed() {
        assert!(matches!(Auth::load(None, "0.0.0.0:7070".parse().unwrap()), Err(AuthError::Open { .. })));
        let auth = Auth::load(None, "127.0.0.1:7070".parse().unwrap()).unwrap();
        assert_eq!(auth.domain(&call(None, Some("shop"))).await.unwrap(), "shop");
        assert_eq!(auth.domain(&call(None, None)).await.unwrap_err().code(), Code::InvalidArgument);
    }

    #[test]
    fn a_bad_line_is_named_and_not_printed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens");
        for (text, line) in [("shop tooshort\n", 1), ("a 0123456789abcdef\nb 0123456789abcdef\n", 2), ("one\n", 1)] {
            std::fs::write(&file, text).unwrap();
            let error = Auth::load(Some(&file), "127.0.0.1:1".parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains(&format!("line {line}:")), "{error}");
            assert!(!error.contains("0123456789abcdef") && !error.contains("tooshort"), "{error}");
        }
    }
}

//! How every client reaches the store: one channel, with the caller's token and domain on each call.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

/// Bytes in flight on one stream: enough for 10 Gbit/s at 1 ms, and 500 sidecars stay under a gigabyte
/// at the store.
const WINDOW: u32 = 2 * 1024 * 1024;

/// Bytes in flight towards a client in all. More than a few streams' windows: a listing that is not being
/// read while bodies are (`replicate`, `diff`) must not take the room that they need to go on.
const CONNECTION_WINDOW: u32 = 8 * WINDOW;

/// A token file is read again after so long: Kubernetes renews projected tokens well before they end.
const TOKEN_AGE_MAX: Duration = Duration::from_secs(10);

/// Where the store is, and who calls it.
#[derive(Clone, Debug)]
pub struct Store {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub url: String,
    /// The caller's domain: without a cluster, the binding's namespace. Empty: the token's.
    pub domain: String,
    /// A file with the caller's token, where the store asks for one.
    pub token_file: Option<PathBuf>,
    /// A PEM file with the authority that signed the store's certificate, or a folder: then all files
    /// `store-ca.pem` in its subfolders, as a pod has them of each of its bindings.
    pub ca_file: Option<PathBuf>,
}

/// Why no call to the store can be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL cannot be used.
    #[error("--store {url}: write http://HOST:PORT or https://HOST:PORT")]
    Url {
        /// As given.
        url: String,
    },
    /// A file cannot be read.
    #[error("read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The certificate authority cannot be used.
    #[error("--store-ca {path} holds no usable certificate")]
    Ca {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
}

impl Store {
    /// A channel that connects when it is first used and again whenever it must, and the caller for
    /// each client made on it. Nothing is sent yet, so that a store that is away is no error here.
    ///
    /// # Errors
    /// [`ConnectError`] when the URL, the token file or the authority cannot be used.
    pub fn channel(&self) -> Result<(Channel, Caller), ConnectError> {
        let pem = self.ca_file.as_deref().map(authorities).transpose()?;
        self.channel_with(pem.as_deref())
    }

    /// The same, for one who has the authority in memory: `pem` takes the place of `ca_file`.
    ///
    /// # Errors
    /// As [`Store::channel`].
    pub fn channel_trusting(&self, pem: &[u8]) -> Result<(Channel, Caller), ConnectError> {
        self.channel_with(Some(pem))
    }

    fn channel_with(&self, ca: Option<&[u8]>) -> Result<(Channel, Caller), ConnectError> {
        let bad_url = || ConnectError::Url { url: self.url.clone() };
        let endpoint = Endpoint::from_shared(self.url.clone()).map_err(|_| bad_url())?;
        let scheme = endpoint.uri().scheme_str().map(str::to_owned);
        let mut endpoint = endpoint
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true);
        match (scheme.as_deref(), ca) {
            (Some("http"), _) => {}
            (Some("https"), Some(pem)) => {
                let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
                let path = self.ca_file.clone().unwrap_or_default();
                endpoint = endpoint.tls_config(tls).map_err(|source| ConnectError::Ca { path, source })?;
            }
            (Some("https"), None) => {
                endpoint = endpoint.tls_config(ClientTlsConfig::new()).map_err(|_| bad_url())?;
            }
            _ => return Err(bad_url()),
        }
        let caller = Caller::new(&self.domain, self.token_file.as_deref())?;
        Ok((endpoint.connect_lazy(), caller))
    }
}

/// Puts the token and the domain on each call. Its `Debug` holds no token.
#[derive(Clone)]
pub struct Caller {
    domain: Option<MetadataValue<Ascii>>,
    token: Option<Arc<Token>>,
}

struct Token {
    /// Where it comes from; none: it is shown as it is for as long as it lasts.
    file: Option<PathBuf>,
    read: Mutex<(Instant, MetadataValue<Ascii>)>,
}

impl Caller {
    fn new(domain: &str, token_file: Option<&Path>) -> Result<Caller, ConnectError> {
        let token = match token_file {
            None => None,
            Some(file) => {
                let value = bearer(file, &read(file)?)?;
                Some(Arc::new(Token { file: Some(file.to_owned()), read: Mutex::new((Instant::now(), value)) }))
            }
        };
        let named = !domain.is_empty(); // a token names its own
        Ok(Caller { domain: domain.parse().ok().filter(|_| named), token })
    }

    /// One who has its token in memory, which names its domain.
    ///
    /// # Errors
    /// [`ConnectError::File`] when it is no token.
    pub fn showing(token: &str) -> Result<Caller, ConnectError> {
        let value = bearer(Path::new("the token"), token.as_bytes())?;
        Ok(Caller {
            domain: None,
            token: Some(Arc::new(Token { file: None, read: Mutex::new((Instant::now(), value)) })),
        })
    }
}

impl Interceptor for Caller {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(domain) = &self.domain {
            request.metadata_mut().insert("hawser-domain", domain.clone());
        }
        if let Some(token) = &self.token {
            let mut read = token.read.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if let Some(file) = token.file.as_deref().filter(|_| read.0.elapsed() > TOKEN_AGE_MAX) {
                // A file that cannot be read just now leaves the last token in use.
                let value = self::read(file).and_then(|text| bearer(file, &text)).unwrap_or_else(|_| read.1.clone());
                *read = (Instant::now(), value);
            }
            request.metadata_mut().insert("authorization", read.1.clone());
        }
        Ok(request)
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Caller(domain {:?}, token {})", self.domain, self.token.is_some())
    }
}

fn bearer(file: &Path, text: &[u8]) -> Result<MetadataValue<Ascii>, ConnectError> {
    let text = String::from_utf8_lossy(text);
    let mut value: MetadataValue<Ascii> = format!("Bearer {}", text.trim()).parse().map_err(|_| {
        let source =
            std::io::Error::new(std::io::ErrorKind::InvalidData, "a token is one line of printable characters");
        ConnectError::File { path: file.to_owned(), source }
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn authorities(path: &Path) -> Result<Vec<u8>, ConnectError> {
    if !path.is_dir() {
        return read(path);
    }
    let folders = std::fs::read_dir(path).map_err(|source| ConnectError::File { path: path.to_owned(), source })?;
    let files = folders.flatten().map(|folder| folder.path().join("store-ca.pem"));
    let mut all = Vec::new();
    for file in files.filter(|file| file.is_file()) {
        all.extend(read(&file)?);
        all.push(b'\n');
    }
    if all.is_empty() { read(&path.join("store-ca.pem")) } else { Ok(all) }
}

fn read(path: &Path) -> Result<Vec<u8>, ConnectError> {
    std::fs::read(path).map_err(|source| ConnectError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_token_is_ever_printed() {
        let file = std::env::temp_dir().join(format!("hawser-token-{}", std::process::id()));
        std::fs::write(&file, "s3cr3t-token\n").unwrap();
        let mut caller = Caller::new("shop", Some(&file)).unwrap();
        let request = caller.call(Request::new(())).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(request.metadata().get("authorization").unwrap().to_str().unwrap(), "Bearer s3cr3t-token");
        assert!(!format!("{caller:?} {:?}", request.metadata()).contains("s3cr3t"));
    }

    #[tokio::test]
    async fn an_unusable_store_url_is_an_error_that_says_what_to_write() {
        for url in ["", "127.0.0.1:7070", "ftp://store:1", "http://"] {
            let store = Store { url: url.into(), domain: "shop".into(), token_file: None, ca_file: None };
            assert!(matches!(store.channel(), Err(ConnectError::Url { .. })), "{url:?}");
        }
        let store = Store { url: "http://127.0.0.1:1".into(), domain: "shop".into(), token_file: None, ca_file: None };
        assert!(store.channel().is_ok(), "a store that is away is no error yet");
    }
}

//! The certificate that the store shows, read again when its files change: in a cluster it lives for days and is
//! renewed on disk. A file that cannot be used leaves the old one in place and is told once.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::serve::ServeError;

/// How often the files are looked at: a renewed certificate has days left, a Secret's volume is a minute late.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A certificate with its key, and where they come from. Its `Debug` holds no key.
pub(crate) struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    shown: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Reads the certificate and its key.
    ///
    /// # Errors
    /// [`ServeError::Read`] or [`ServeError::Certificate`].
    pub(crate) fn load(cert: &Path, key: &Path) -> Result<Arc<Certificate>, ServeError> {
        let content = Content::read(cert, key)?;
        let shown = RwLock::new(Arc::new(content.parse(cert)?));
        Ok(Arc::new(Certificate { cert: cert.to_owned(), key: key.to_owned(), shown }))
    }

    /// What a listener needs that offers these protocols; new connections see a renewed certificate.
    ///
    /// # Errors
    /// [`ServeError::Certificate`].
    pub(crate) fn acceptor(self: &Arc<Self>, alpn: &[&[u8]]) -> Result<tokio_rustls::TlsAcceptor, ServeError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| bad(&self.cert, source))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(tokio_rustls::TlsAcceptor::from(Arc::new(config)))
    }

    /// Looks at the files for as long as the store serves.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut read = Content::read(&self.cert, &self.key).ok();
        let mut told = None;
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            let (this, before) = (Arc::clone(&self), read.clone());
            let looked = tokio::task::spawn_blocking(move || {
                let content = Content::read(&this.cert, &this.key)?;
                if before.as_ref() == Some(&content) {
                    return Ok(None);
                }
                let shown = content.parse(&this.cert)?;
                Ok(Some((content, shown)))
            });
            let Ok(looked) = looked.await else { return };
            match looked {
                Ok(None) => told = None,
                Ok(Some((content, shown))) => {
                    *self.shown.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(shown);
                    tracing::info!(file = %self.cert.display(), "the certificate was renewed");
                    (read, told) = (Some(content), None);
                }
                // While a Secret is replaced, certificate and key may be of two generations for a moment.
                Err(error) => {
                    let why = crate::admin::causes(&error as &ServeError);
                    if told.as_ref() != Some(&why) {
                        tracing::warn!(why, "the certificate on disk cannot be used; the one before is shown");
                        told = Some(why);
                    }
                }
            }
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.shown.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Certificate({})", self.cert.display())
    }
}

/// The two files.
#[derive(Clone, PartialEq)]
struct Content {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Content {
    fn read(cert: &Path, key: &Path) -> Result<Content, ServeError> {
        let read =
            |path: &Path| std::fs::read(path).map_err(|source| ServeError::Read { path: path.to_owned(), source });
        Ok(Content { cert: read(cert)?, key: read(key)? })
    }

    fn parse(&self, path: &Path) -> Result<CertifiedKey, ServeError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.cert).collect();
        let chain = chain.map_err(|source| bad(path, source))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|source| bad(path, source))?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        CertifiedKey::from_der(chain, key, &provider).map_err(|source| bad(path, source))
    }
}

fn bad(path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ServeError {
    ServeError::Certificate { path: path.to_owned(), source: source.into() }
}

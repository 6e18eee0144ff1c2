//! A store that serves: its listeners, its clock, and how it ends.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;

use crate::admin::over;
use crate::api_server::{ApiError, ApiServer};
use crate::auth::{Auth, AuthError};
use crate::catalog::Catalog;
use crate::certificate::Certificate;
use crate::config::Serve;
use crate::review::Reviewer;
use crate::service::Service;
use crate::session::TimeError;
use crate::store::OpenError;
use crate::{admin, incoming, s3};

/// HTTP/2 windows: a stream's keeps two gigabits busy over 8 ms, which is how long the other side may not run on a busy
/// machine. Who puts only what is wanted is bounded by [`crate::store::Options::room`] before; 500 sidecars that do not
/// would hold 2 GiB.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// A frame of a put is one piece of a block.
const FRAME_MAX: u32 = 1024 * 1024;

/// A peer that says nothing for so long is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Calls that are under way at the end get this long.
const GRACE: Duration = Duration::from_secs(10);

/// Why the store does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Who calls cannot be told.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The keys of the S3 face.
    #[error(transparent)]
    S3Keys(#[from] s3::keys::KeysError),
    /// Secrets would pass in the clear.
    #[error("{0} is reachable from other machines: give --tls-cert and --tls-key, or listen on 127.0.0.1")]
    Plain(SocketAddr),
    /// A listener.
    #[error("listen on {addr}")]
    Listen {
        /// Its address.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of the certificate.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificate or its key is not usable.
    #[error("{path} and its key are no certificate to serve with")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store did not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The index could not be read.
    #[error(transparent)]
    Time(#[from] TimeError),
    /// The API server cannot be asked.
    #[error(transparent)]
    ApiServer(#[from] ApiError),
    /// gRPC ended.
    #[error("serve gRPC")]
    Grpc(#[from] tonic::transport::Error),
    /// The folder's socket.
    #[error("listen on {path}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A store that is ready to serve: everything that can be wrong with its settings has been looked at.
pub struct Serving {
    catalog: Arc<Catalog>,
    service: Arc<Service>,
    grpc: TcpListener,
    s3: TcpListener,
    s3_service: s3s::service::S3Service,
    admin: TcpListener,
    tls: Option<Tls>,
}

struct Tls {
    certificate: Arc<Certificate>,
    grpc: tokio_rustls::TlsAcceptor,
    s3: tokio_rustls::TlsAcceptor,
}

impl Serving {
    /// Binds the listeners and opens the store.
    ///
    /// # Errors
    /// [`ServeError`], which says what to do.
    pub async fn prepare(config: &Serve) -> Result<Serving, ServeError> {
        let tls = match (&config.tls_cert, &config.tls_key) {
            (Some(cert), Some(key)) => Some(Tls::load(cert, key)?),
            _ => None,
        };
        let auth = match (&config.token_review, &config.operator_account) {
            (Some(audience), Some(operator)) => {
                let api = ApiServer::find(config.api_server.as_deref(), &config.api_account)?;
                Auth::Reviewed(Box::new(Reviewer::new(api, audience, operator.clone())))
            }
            _ => Auth::load(config.tokens.as_deref(), config.listen)?,
        };
        for addr in [config.listen, config.s3] {
            if tls.is_none() && !addr.ip().is_loopback() {
                return Err(ServeError::Plain(addr));
            }
        }
        let mut keys = s3::keys::Keys::load(config.s3_keys.as_deref(), std::env::var("HAWSER_S3_SECRET").ok())?;
        if let Some(master) = &config.s3_master {
            keys = keys.with_master(master)?;
        }
        let keys = Arc::new(keys);
        let (grpc, s3, admin) = (bind(config.listen).await?, bind(config.s3).await?, bind(config.admin).await?);
        let (dir, options) = (config.data.clone(), config.options());
        let opened = tokio::task::spawn_blocking(move || Catalog::open(&dir, options)).await;
        let catalog = Arc::new(opened.expect("opening the store does not panic")?);
        let service = Service::new(Arc::clone(&catalog), auth, Arc::clone(&keys), config.times())?;
        let s3_service = s3::service(Arc::clone(&catalog), keys);
        Ok(Serving { catalog, service, grpc, s3, s3_service, admin, tls })
    }

    /// The address of gRPC.
    pub fn grpc_addr(&self) -> io::Result<SocketAddr> {
        self.grpc.local_addr()
    }

    /// The address of the S3 face.
    pub fn s3_addr(&self) -> io::Result<SocketAddr> {
        self.s3.local_addr()
    }

    /// The address of health and metrics.
    pub fn admin_addr(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Serves until `end`, then lets the calls under way finish for a while, and closes the store.
    ///
    /// # Errors
    /// [`ServeError`] when a listener fails.
    pub async fn run(self, end: impl Future<Output = ()>) -> Result<(), ServeError> {
        let (ending, ended) = watch::channel(false);
        let Serving { catalog, service, grpc, s3, s3_service, admin, tls } = self;
        let watcher = tokio::spawn(Arc::clone(service.sessions()).watch());
        let health = tokio::spawn(admin::serve_http(Arc::clone(&catalog), Arc::clone(&service), admin, ended.clone()));
        let socket_path = catalog.store().dir().join("admin.sock");
        let socket =
            admin::listen(&socket_path).map_err(|source| ServeError::Socket { path: socket_path.clone(), source })?;
        let door = tokio::spawn(admin::serve_socket(Arc::clone(&catalog), socket, ended.clone()));
        let acceptor = tls.as_ref().map(|tls| tls.s3.clone());
        let face = tokio::spawn(serve_s3(s3_service, s3, acceptor, ended.clone()));
        let trying = tokio::spawn(Arc::clone(&service).try_out());
        let renewing = tls.as_ref().map(|tls| tokio::spawn(Arc::clone(&tls.certificate).watch()));

        let mut server = Server::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME_MAX)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .tcp_nodelay(true);
        let incoming = incoming::accept(grpc, tls.map(|tls| tls.grpc), ended.clone());
        let mut closing = ended.clone();
        let shutdown = async move { over(&mut closing).await };
        let serving = server.add_routes(service.routes()).serve_with_incoming_shutdown(incoming, shutdown);
        tokio::pin!(serving);
        let served = tokio::select! {
            served = &mut serving => served,
            () = end => {
                ending.send_replace(true);
                service.close();
                tokio::time::timeout(GRACE, &mut serving).await.unwrap_or(Ok(()))
            }
        };
        ending.send_replace(true);
        watcher.abort();
        for task in [health, door, face, trying].into_iter().chain(renewing) {
            task.abort();
        }
        let _ = std::fs::remove_file(&socket_path); // the next server makes it anew either way
        close(service, catalog).await;
        Ok(served?)
    }
}

/// Drops the store once nothing uses it: the log is sealed then. What still holds it after a second is
/// reading, and loses nothing with the process.
async fn close(service: Arc<Service>, catalog: Arc<Catalog>) {
    drop(service);
    for _ in 0..100 {
        if Arc::strong_count(&catalog) == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // It blocks until the log is done.
    let _ = tokio::task::spawn_blocking(move || drop(catalog)).await;
}

impl Tls {
    fn load(cert: &Path, key: &Path) -> Result<Tls, ServeError> {
        let certificate = Certificate::load(cert, key)?;
        let (grpc, s3) = (certificate.acceptor(&[b"h2"])?, certificate.acceptor(&[])?);
        Ok(Tls { certificate, grpc, s3 })
    }
}

async fn bind(addr: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(addr).await.map_err(|source| ServeError::Listen { addr, source })
}

async fn serve_s3(
    service: s3s::service::S3Service,
    listener: TcpListener,
    tls: Option<tokio_rustls::TlsAcceptor>,
    mut ended: watch::Receiver<bool>,
) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, mostly: others end, and room comes back.
                    tracing::warn!(%error, "the S3 face could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = over(&mut ended) => return,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        let (service, tls) = (service.clone(), tls.clone());
        connections.spawn(async move {
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            // A client that breaks its connection off is no news.
            match tls {
                Some(tls) => {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                }
                None => drop(builder.serve_connection(TokioIo::new(stream), service).await),
            }
        });
    }
}

//! HTTPS for the API server: a certificate of our own that renews itself, and connections with bounds.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::configuration::{PROTECT_PATH, WARN_PATH};
use super::review::{self, NoReview};
use super::{Ctx, Error};
use crate::authority::{Authority, Leaf};

/// Connections at once: a few API servers with a few each. Others wait for one to end.
const CONNECTIONS_MAX: usize = 256;
/// Bytes of a review: etcd takes objects of 1.5 MiB, and an update brings two.
const REVIEW_LEN_MAX: usize = 8 << 20;
/// How long a handshake, or a request's head, may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// How long new connections are still taken after we were told to end: API servers hear of it a moment later.
const LINGER: Duration = Duration::from_secs(3);
/// How long requests that are under way may take then.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How soon a certificate that could not be made is tried again.
const RETRY: Duration = Duration::from_secs(60);

/// The certificate in use, and what renews it for as long as it is awaited.
pub(super) fn tls(
    authority: Authority,
    names: Vec<String>,
) -> Result<(watch::Receiver<Arc<ServerConfig>>, impl Future<Output = ()>), Error> {
    let leaf = authority.leaf(&names)?;
    let mut renew_at = leaf.renew_at;
    let (to, tls) = watch::channel(config(&leaf)?);
    let renewing = async move {
        loop {
            tokio::time::sleep(until(renew_at)).await;
            match authority.leaf(&names).map_err(Error::from).and_then(|leaf| Ok((config(&leaf)?, leaf.renew_at))) {
                Ok((config, next)) => {
                    to.send_replace(config);
                    renew_at = next;
                }
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the webhook's certificate cannot be renewed: the one in use ends in days"
                    );
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    };
    Ok((tls, renewing))
}

fn until(moment: OffsetDateTime) -> Duration {
    #[expect(clippy::disallowed_methods, reason = "certificates are valid by wall time; nothing is ordered by it")]
    let now = OffsetDateTime::now_utc();
    Duration::try_from(moment - now).unwrap_or_default()
}

fn config(leaf: &Leaf) -> Result<Arc<ServerConfig>, Error> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(leaf.cert_pem.as_bytes()).collect();
    let chain = chain.map_err(|error| Error::Pem(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).map_err(|error| Error::Pem(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Answers until `stop` is true, and a little longer.
pub(super) async fn serve(
    listener: TcpListener,
    tls: watch::Receiver<Arc<ServerConfig>>,
    ctx: Arc<Ctx>,
    mut stop: watch::Receiver<bool>,
) {
    let mut open = JoinSet::new();
    let (close, closing) = watch::channel(false);
    let ending = async {
        let asked = stop.wait_for(|stop| *stop).await.is_ok();
        if !asked {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(LINGER).await;
    };
    tokio::pin!(ending);
    loop {
        tokio::select! {
            () = &mut ending => break,
            Some(_) = open.join_next() => {}
            taken = listener.accept(), if open.len() < CONNECTIONS_MAX => match taken {
                Ok((socket, _)) => {
                    let acceptor = TlsAcceptor::from(Arc::clone(&tls.borrow()));
                    open.spawn(connection(socket, acceptor, Arc::clone(&ctx), closing.clone()));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await, // no descriptors: others will be closed
            },
        }
    }
    drop(listener);
    close.send_replace(true);
    let _ = tokio::time::timeout(DRAIN_MAX, async { while open.join_next().await.is_some() {} }).await;
}

async fn connection(socket: TcpStream, acceptor: TlsAcceptor, ctx: Arc<Ctx>, mut closing: watch::Receiver<bool>) {
    let _ = socket.set_nodelay(true);
    // A probe that only connects, or a client that does not trust us: nothing to say.
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(socket)).await else { return };
    let service = service_fn(move |request| {
        let ctx = Arc::clone(&ctx);
        async move { Ok::<_, Infallible>(answer(request, &ctx).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let told = async {
        let _ = closing.wait_for(|closing| *closing).await;
    };
    tokio::select! {
        _ = connection.as_mut() => return,
        () = told => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

async fn answer(request: Request<Incoming>, ctx: &Ctx) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    if request.method() != Method::POST || ![PROTECT_PATH, WARN_PATH].contains(&path.as_str()) {
        return text(StatusCode::NOT_FOUND, format!("POST an AdmissionReview to {PROTECT_PATH} or {WARN_PATH}\n"));
    }
    let body = match Limited::new(request.into_body(), REVIEW_LEN_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return text(StatusCode::PAYLOAD_TOO_LARGE, format!("the review cannot be read: {error}\n")),
    };
    let answered: Result<Vec<u8>, NoReview> =
        if path == WARN_PATH { review::warn(&body, ctx) } else { review::protect(&body, ctx).await };
    match answered {
        Ok(answer) => {
            let mut response = Response::new(Full::new(Bytes::from(answer)));
            let json = header::HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
        Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}

//! How the store is looked after: health and metrics over HTTP, and the folder's own door, `admin.sock`,
//! through which `gc`, `scrub`, `stats` and `backup` reach the server that has the folder open.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

use crate::catalog::Catalog;
use crate::folder::{Folder, FolderError};
use crate::service::Service;
use crate::store::{OpenError, Options};

/// Segments less than this full of live blocks are swept.
const SWEEP_BELOW_PERCENT: u64 = 50;

/// A request on the socket is one short line.
const REQUEST_LEN_MAX: u64 = 64 * 1024;

/// Findings of a scrub that wait for their reader.
const LINES_MAX: usize = 64;

/// What can be asked of a store's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Work {
    /// Retention, then collection.
    Gc,
    /// Read everything.
    Scrub,
    /// Count.
    Stats,
    /// Copy.
    Backup {
        /// The target.
        to: PathBuf,
    },
}

/// What work says while it is done: lines of JSON, the last of them [`Line::Done`] or [`Line::Failed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    /// Something was found on the way.
    Found {
        /// It.
        what: serde_json::Value,
    },
    /// The work is done.
    Done {
        /// What came of it.
        result: serde_json::Value,
        /// Whether everything is as it should be.
        clean: bool,
    },
    /// The work stopped.
    Failed {
        /// Why.
        why: String,
    },
}

/// Why work on a folder could not be begun.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The store did not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The server that has the folder.
    #[error("talk to the server through {path}")]
    Socket {
        /// Its socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no store.
    #[error("{0} holds no store: give the folder that `hawser-store serve --data` was given")]
    Empty(PathBuf),
    /// The old index could not be deleted.
    #[error("delete {path}")]
    Index {
        /// The folder of the index.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Does work on the store in `dir`: through the server that has it, or by opening it. Blocks this thread.
///
/// # Errors
/// [`AdminError`] when it could not be begun; what happens later is told as a [`Line`].
pub fn run(dir: &Path, work: &Work, tell: &mut dyn FnMut(Line)) -> Result<(), AdminError> {
    let path = dir.join("admin.sock");
    let failed = |source| AdminError::Socket { path: path.clone(), source };
    match std::os::unix::net::UnixStream::connect(&path) {
        Ok(stream) => ask(stream, work, tell).map_err(failed),
        // Nobody answers: no server has it.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            if !dir.join("keys").exists() {
                return Err(AdminError::Empty(dir.to_owned()));
            }
            let catalog = Catalog::open(dir, Options::default())?;
            perform(&catalog, work, tell);
            Ok(())
        }
        Err(error) => Err(failed(error)),
    }
}

/// Derives the index of the store in `dir` from its log anew. Blocks this thread.
///
/// # Errors
/// [`AdminError`]: a server has the folder, or the disk said no.
pub fn rebuild_index(dir: &Path) -> Result<Line, AdminError> {
    if !dir.join("keys").exists() {
        return Err(AdminError::Empty(dir.to_owned()));
    }
    let folder = Folder::open(dir)?;
    let path = folder.index();
    match std::fs::remove_dir_all(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(AdminError::Index { path, source }),
    }
    drop(folder);
    let catalog = Catalog::open(dir, Options::default())?;
    let damage: Vec<String> = catalog.store().damage().iter().map(ToString::to_string).collect();
    let clean = damage.is_empty();
    let tick = *catalog.store().durable().borrow();
    Ok(Line::Done { result: serde_json::json!({ "tick": tick, "damage": damage }), clean })
}

/// Does the work and tells what comes of it.
fn perform(catalog: &Catalog, work: &Work, tell: &mut dyn FnMut(Line)) {
    let line = match work {
        Work::Gc => catalog.trim().map_err(|error| causes(&error)).and_then(|trimmed| {
            let collected = catalog.store().gc(SWEEP_BELOW_PERCENT).map_err(|error| causes(&error))?;
            let clean = collected.damaged == 0;
            Ok(done(&serde_json::json!({ "trimmed": trimmed, "collected": collected }), clean))
        }),
        Work::Scrub => {
            let found = catalog.store().scrub(&mut |finding| tell(Line::Found { what: json(&finding) }));
            found.map_err(|error| causes(&error)).and_then(|scrubbed| {
                let clean = scrubbed.is_clean();
                let gaps = if clean { 0 } else { catalog.damage_becomes_gaps().map_err(|error| causes(&error))? };
                Ok(done(&serde_json::json!({ "scrubbed": scrubbed, "gaps_opened": gaps }), clean))
            })
        }
        Work::Stats => catalog.stats().map(|stats| done(&stats, true)).map_err(|error| causes(&error)),
        Work::Backup { to } => {
            catalog.store().backup(to).map(|done_| done(&json(&done_), true)).map_err(|error| causes(&error))
        }
    };
    tell(line.unwrap_or_else(|why| Line::Failed { why }));
}

fn done(result: &serde_json::Value, clean: bool) -> Line {
    Line::Done { result: result.clone(), clean }
}

fn json(value: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// An error with its causes, on one line.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

fn ask(mut stream: std::os::unix::net::UnixStream, work: &Work, tell: &mut dyn FnMut(Line)) -> io::Result<()> {
    use std::io::{BufRead, Write};
    let mut request = serde_json::to_vec(work)?;
    request.push(b'\n');
    stream.write_all(&request)?;
    let mut ended = false;
    for line in std::io::BufReader::new(stream).lines() {
        let line: Line = serde_json::from_str(&line?)?;
        ended = matches!(line, Line::Done { .. } | Line::Failed { .. });
        tell(line);
    }
    if ended { Ok(()) } else { Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server ended before the work")) }
}

/// Makes the folder's door, for the owner alone.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Ok(()) => {} // left behind by a server that was killed: the folder's lock is ours
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves the folder's door, one caller after the other: maintenance is done one at a time anyway.
pub(crate) async fn serve_socket(catalog: Arc<Catalog>, listener: UnixListener, mut ended: watch::Receiver<bool>) {
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "admin.sock could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = over(&mut ended) => return,
        };
        if let Err(error) = serve_one(&catalog, stream).await {
            tracing::debug!(%error, "a caller of admin.sock went away");
        }
    }
}

async fn serve_one(catalog: &Arc<Catalog>, stream: UnixStream) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut request = String::new();
    let reader = tokio::io::AsyncReadExt::take(read, REQUEST_LEN_MAX);
    let line = tokio::time::timeout(Duration::from_secs(10), BufReader::new(reader).read_line(&mut request)).await;
    line.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let (lines, mut told) = mpsc::channel(LINES_MAX);
    match serde_json::from_str::<Work>(&request) {
        Ok(work) => {
            let catalog = Arc::clone(catalog);
            // A thread of its own: maintenance may not run on one of the runtime's.
            std::thread::Builder::new().name("maintenance".into()).spawn(move || {
                // A caller that does not read holds the work up; one that is gone does not.
                perform(&catalog, &work, &mut |line| drop(lines.blocking_send(line)));
            })?;
        }
        Err(error) => drop(lines.try_send(Line::Failed { why: error.to_string() })),
    }
    while let Some(line) = told.recv().await {
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        write.write_all(&bytes).await?;
    }
    write.shutdown().await
}

/// Serves `/livez`, `/readyz` and `/metrics`.
pub(crate) async fn serve_http(
    catalog: Arc<Catalog>,
    service: Arc<Service>,
    listener: TcpListener,
    mut ended: watch::Receiver<bool>,
) {
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the admin listener could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = over(&mut ended) => return,
        };
        let (catalog, service) = (Arc::clone(&catalog), Arc::clone(&service));
        tokio::spawn(async move {
            let answer = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                let (catalog, service) = (Arc::clone(&catalog), Arc::clone(&service));
                async move { Ok::<_, Infallible>(respond(&catalog, &service, &request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
            // A prober that breaks off is no news.
            let _ = tokio::time::timeout(Duration::from_secs(30), connection).await;
        });
    }
}

async fn respond<B>(catalog: &Arc<Catalog>, service: &Arc<Service>, request: &Request<B>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n".into());
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "ok\n".into()),
        "/readyz" => match catalog.store().ready().map_err(|why| why.to_string()).and_then(|()| service.ready()) {
            Ok(()) => text(StatusCode::OK, "ok\n".into()),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        "/metrics" => {
            let (catalog, service) = (Arc::clone(catalog), Arc::clone(service));
            match tokio::task::spawn_blocking(move || metrics(&catalog, &service)).await {
                Ok(Ok(body)) => text(StatusCode::OK, body),
                Ok(Err(why)) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")),
                Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "counting panicked\n".into()),
            }
        }
        _ => text(StatusCode::NOT_FOUND, "/livez, /readyz and /metrics are here\n".into()),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfDomain {
    domain: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfBinding {
    domain: String,
    binding: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    domain: String,
    binding: String,
    reason: String,
}

/// What the store holds, in Prometheus' text.
fn metrics(catalog: &Catalog, service: &Service) -> Result<String, String> {
    let mut registry = Registry::with_prefix("hawser_store");
    let stats = catalog.store().stats().map_err(|error| causes(&error))?;
    let number = |registry: &mut Registry, name: &str, help: &str, value: u64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    };
    number(&mut registry, "tick", "Entries committed since the store was made", stats.tick);
    number(&mut registry, "segments", "Segments of the log", stats.segments);
    number(&mut registry, "log_bytes", "Bytes of the log", stats.log_len);
    number(&mut registry, "index_bytes", "Bytes of the index", stats.index_len);
    number(&mut registry, "block_leases", "Blocks kept for those who offered or put them", stats.leases);
    number(&mut registry, "free_bytes", "Bytes free on the volume", stats.free_len.unwrap_or(0));
    number(&mut registry, "floor_bytes", "Bytes that are kept free", stats.floor_len.unwrap_or(0));
    number(&mut registry, "damaged_places", "Places of the log found damaged at open", stats.damaged);
    let ready = u64::from(catalog.store().ready().is_ok());
    number(&mut registry, "ready", "Whether content is taken", ready);

    let (blocks, unique, stored, logical) =
        (Family::default(), Family::default(), Family::default(), Family::default());
    registry.register("blocks", "Distinct blocks", blocks.clone());
    registry.register("unique_bytes", "Bytes of distinct blocks", unique.clone());
    registry.register("stored_bytes", "Bytes of blocks on disk", stored.clone());
    registry.register("logical_bytes", "Bytes that kept versions name", logical.clone());
    let (objects, object_bytes, sessions) = (Family::default(), Family::default(), Family::default());
    registry.register("objects", "Current objects of the provider in force", objects.clone());
    registry.register("object_bytes", "Bytes of current objects", object_bytes.clone());
    registry.register("sessions", "Sessions that live", sessions.clone());
    let (intents, gaps) = (Family::default(), Family::default());
    registry.register("open_intents", "Writes without an outcome yet", intents.clone());
    registry.register("open_gaps", "What the copy is known not to know", gaps.clone());
    let set = |gauge: &Gauge, value: u64| {
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    };
    for domain in catalog.store().domains() {
        let name = || OfDomain { domain: domain.name().to_owned() };
        let sums = domain.sums().map_err(|error| causes(&error))?;
        set(&of(&blocks, name()), sums.blocks);
        set(&of(&unique, name()), sums.raw_len);
        set(&of(&stored, name()), sums.stored_len);
        set(&of(&logical, name()), catalog.logical_bytes(domain.id()).map_err(|error| causes(&error))?);
        for status in catalog.status_of_bindings(domain.id(), "").map_err(|error| causes(&error))? {
            let name = || OfBinding { domain: domain.name().to_owned(), binding: status.binding.clone() };
            set(&of(&objects, name()), status.objects);
            set(&of(&object_bytes, name()), status.object_bytes);
            set(&of(&intents, name()), status.open_intents);
            set(&of(&sessions, name()), service.sessions().count(domain.id(), &status.binding));
            for (reason, count) in &status.open_gaps {
                let OfBinding { domain, binding } = name();
                set(&of(&gaps, OfReason { domain, binding, reason: reason.clone() }), *count);
            }
        }
    }
    let mut body = String::new();
    prometheus_client::encoding::text::encode(&mut body, &registry).map_err(|error| error.to_string())?;
    Ok(body)
}

fn of<L: Clone + std::hash::Hash + Eq>(family: &Family<L, Gauge>, labels: L) -> Gauge {
    family.get_or_create(&labels).clone()
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
}

/// Resolves once the store is about to close.
pub(crate) async fn over(ended: &mut watch::Receiver<bool>) {
    drop(ended.wait_for(|ending| *ending).await); // an error means that nobody is left to say so
}

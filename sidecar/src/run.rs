//! Puts a sidecar together and keeps it running: `run` for a pod or a machine, and what `exec` needs of it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::accept::{self, Way};
use crate::admin;
use crate::authority::{Authority, AuthorityError};
use crate::bindings::{self, BindingsError};
use crate::budget::Budget;
use crate::config::{Copying, Run};
use crate::connection::Ctx;
use crate::distrust::Distrust;
use crate::drain::{self, Begin};
use crate::lapse::Lapses;
use crate::metrics::Metrics;
use crate::observe;
use crate::ticks::Ticks;
use crate::tls::Tls;
use crate::trust::{self, TrustError};
use crate::upstream::Own;

/// How long what is captured may still go to the store when the process ends.
pub const FLUSH_MAX: Duration = Duration::from_secs(10);
/// How often clients that were passed through are looked at for the end of their time.
const EXPIRE_EVERY: Duration = Duration::from_secs(5);

/// Why a sidecar cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The manifest.
    #[error(transparent)]
    Bindings(#[from] BindingsError),
    /// Roots or bundles.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The CA.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// An address that cannot be listened on.
    #[error("{address}: cannot listen here: choose another address, or end what holds it")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The cryptographic library.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// The copy's side.
    #[error(transparent)]
    Copy(#[from] observe::StartError),
    /// Signals.
    #[error("signals cannot be waited for")]
    Signals(#[source] io::Error),
}

/// What to start; `run` and `exec` differ in nothing else.
pub struct Plan<'a> {
    /// What to copy, and where to.
    pub copying: &'a Copying,
    /// Where the bundles go.
    pub trust_dir: &'a Path,
    /// What outlives a restart.
    pub state_dir: Option<PathBuf>,
    /// Listeners.
    pub ways: Vec<(Way, SocketAddr)>,
    /// Where `/readyz` and its like are served.
    pub admin: Option<SocketAddr>,
    /// How long exchanges may go on at the end.
    pub grace: Duration,
}

/// A running sidecar.
pub struct Sidecar {
    /// Where it listens, in the order of the plan.
    pub listening: Vec<SocketAddr>,
    begin: Begin,
    serving: Vec<JoinHandle<()>>,
    around: Vec<JoinHandle<()>>,
    observers: Option<Arc<observe::Ctx>>,
}

/// `run`: until SIGTERM or SIGINT.
///
/// # Errors
/// [`StartError`].
pub async fn run(config: Run) -> Result<(), StartError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
    let ways = [(Way::Redirect, config.redirect), (Way::Proxy, config.proxy)];
    let sidecar = start(Plan {
        copying: &config.copying,
        trust_dir: &config.trust_dir,
        state_dir: config.state_dir.clone(),
        ways: ways.into_iter().filter_map(|(way, address)| Some((way, address?))).collect(),
        admin: config.admin,
        grace: config.drain_grace,
    })
    .await?;
    tracing::info!(listening = ?sidecar.listening, trust_dir = %config.trust_dir.display(), "ready");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("draining: no new connections, idle ones close, exchanges run until the grace ends");
    tokio::select! {
        () = sidecar.stop() => {}
        _ = terminate.recv() => tracing::warn!("told again to end: open connections are cut"),
        _ = interrupt.recv() => tracing::warn!("told again to end: open connections are cut"),
    }
    Ok(())
}

/// Starts everything. When it returns, the listeners take connections and the bundles are written; the store may be absent.
///
/// # Errors
/// [`StartError`].
pub async fn start(plan: Plan<'_>) -> Result<Sidecar, StartError> {
    let Copying { binding, upstream_ca, budget, no_capture, .. } = plan.copying;
    let metrics = Arc::new(Metrics::registered());
    let (bindings, follower) = bindings::open(binding, Arc::clone(&metrics))?;
    let authority = Authority::open(plan.state_dir.as_deref())?;
    let ours = authority.certificate().clone();
    let public = trust::system_roots();
    let named = match upstream_ca {
        Some(file) => trust::read(file)?,
        None => Vec::new(),
    };
    let ready = Arc::new(AtomicBool::new(false));
    let mut around = Vec::new();
    if let Some(address) = plan.admin {
        let listener = listen(address).await?;
        around.push(tokio::spawn(admin::serve(listener, Arc::clone(&metrics), Arc::clone(&ready))));
    }
    let mut listeners = Vec::new();
    for (way, address) in &plan.ways {
        listeners.push((*way, listen(*address).await?));
    }
    let listening: Vec<SocketAddr> = listeners.iter().filter_map(|(_, listener)| listener.local_addr().ok()).collect();
    write_bundles(plan.trust_dir.to_owned(), ours, [public.clone(), named.clone()].concat()).await?;

    let ticks = Arc::new(Ticks::default());
    let budget = Budget::new(*budget);
    let observers = match no_capture {
        true => None,
        false => Some(observe::start(plan.copying, plan.state_dir, &bindings, &ticks, &budget, &metrics)?),
    };
    let on_change = match &observers {
        Some(observers) => Arc::clone(observers).on_lapse(),
        None => Box::new(|_| {}),
    };
    let lapses = Lapses::new(Arc::clone(&ticks), Arc::clone(&metrics), on_change);
    if let Some(observers) = &observers {
        observers.lend(Arc::clone(&lapses));
    }
    let (begin, drain) = drain::new();
    let ctx = Arc::new(Ctx {
        bindings,
        tls: Tls::new(authority, public, named)?,
        distrust: Distrust::default(),
        lapses,
        ticks,
        capture: observers.clone().map(|observers| (budget, observers)),
        own: Own(listening.clone()),
        drain: drain.clone(),
        metrics,
    });
    around.push(tokio::spawn(follower.run()));
    around.push(tokio::spawn(expire(Arc::clone(&ctx))));
    let serve =
        |(way, listener)| tokio::spawn(accept::serve(listener, way, Arc::clone(&ctx), drain.clone(), plan.grace));
    let serving = listeners.into_iter().map(serve).collect();
    ready.store(true, Ordering::Release);
    Ok(Sidecar { listening, begin, serving, around, observers })
}

impl Sidecar {
    /// Ends it: connections first, then the copy has [`FLUSH_MAX`] to reach the store.
    pub async fn stop(self) {
        self.begin.begin();
        for serving in self.serving {
            let _ = serving.await; // a panic there was reported by its thread
        }
        if let Some(observers) = self.observers {
            observers.flush(FLUSH_MAX).await;
        }
        for task in self.around {
            task.abort();
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}

/// Encrypting a truststore takes a moment: off the threads that relay.
async fn write_bundles(
    folder: PathBuf,
    ours: CertificateDer<'static>,
    roots: Vec<CertificateDer<'static>>,
) -> Result<(), TrustError> {
    let written = tokio::task::spawn_blocking(move || trust::write(&folder, &ours, &roots)).await;
    written.expect("writing bundles does not panic")
}

async fn expire(ctx: Arc<Ctx>) {
    loop {
        tokio::time::sleep(EXPIRE_EVERY).await;
        ctx.distrust.expire(Instant::now());
    }
}

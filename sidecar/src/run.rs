//! Puts a sidecar together and keeps it running: `run` for a pod or a machine, and what `exec` needs of it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hawser_api::v1;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::accept::{self, Way};
use crate::admin;
use crate::authority::{Authority, AuthorityError};
use crate::bindings::{self, BindingsError, Follower};
use crate::budget::Budget;
use crate::config::{Child, Copying, Run};
use crate::connection::Ctx;
use crate::distrust::Distrust;
use crate::drain::{self, Begin, Drain};
use crate::lapse::Lapses;
use crate::metrics::Metrics;
use crate::observe;
use crate::pod::{self, Redirected};
use crate::splice::{self, Telling};
use crate::supervise::{self, Line, Word};
use crate::ticks::Ticks;
use crate::tls::Tls;
use crate::trust::{self, TrustError};
use crate::upstream::Own;

/// How long what is captured may still go to the store when the process ends.
pub const FLUSH_MAX: Duration = Duration::from_secs(10);
/// How often clients that were passed through are looked at for the end of their time.
const EXPIRE_EVERY: Duration = Duration::from_secs(5);
/// How soon an address that another process still has is tried again.
const LISTEN_AGAIN: Duration = Duration::from_millis(50);

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
    /// A child without its supervisor.
    #[error("--child is for `run --supervise` to set: the listener is not there")]
    Inherited(#[source] io::Error),
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
    /// What a pod has, and nobody else.
    pub in_pod: InPod,
}

/// What a sidecar in a pod was given by those who ran before it.
#[derive(Default)]
pub struct InPod {
    /// The redirect listener that the supervisor holds.
    pub held: Option<std::net::TcpListener>,
    /// Pass everything through.
    pub splice: bool,
    /// Children before this one that ended by themselves.
    pub crashes: u32,
    /// What `redirect` did.
    pub redirected: Option<Redirected>,
    /// The pod, for the store.
    pub pod: Option<v1::Pod>,
}

/// A running sidecar.
pub struct Sidecar {
    /// Where it listens, in the order of the plan.
    pub listening: Vec<SocketAddr>,
    begin: Begin,
    serving: Vec<JoinHandle<()>>,
    around: Vec<JoinHandle<()>>,
    observers: Option<Arc<observe::Ctx>>,
    telling: Option<Telling>,
}

/// `run`: until SIGTERM or SIGINT, or as its supervisor says.
///
/// # Errors
/// [`StartError`].
pub async fn run(config: Run) -> Result<(), StartError> {
    let (held, mut told) = match config.child {
        None => (None, Told::signals().map_err(StartError::Signals)?),
        Some(_) => {
            let (held, line) = supervise::inherited().map_err(StartError::Inherited)?;
            (Some(held), Told::Supervisor(line))
        }
    };
    let redirected = config.redirect_outcome.as_deref().map(Redirected::read);
    let ways = [(Way::Redirect, config.redirect), (Way::Proxy, config.proxy)];
    let splice = config.child == Some(Child::Splice);
    let sidecar = start(Plan {
        copying: &config.copying,
        trust_dir: &config.trust_dir,
        state_dir: config.state_dir.clone(),
        ways: ways.into_iter().filter_map(|(way, address)| Some((way, address?))).collect(),
        admin: config.admin,
        grace: config.drain_grace,
        in_pod: InPod {
            held,
            splice,
            crashes: config.crashes,
            redirected,
            pod: pod::describe(config.redirect_outcome.as_deref(), &config.copying.binding, |name| {
                std::env::var(name).ok()
            }),
        },
    })
    .await?;
    tracing::info!(listening = ?sidecar.listening, trust_dir = %config.trust_dir.display(), splice, "ready");
    let word = told.word().await;
    if word == Word::Gone {
        tracing::error!("the supervisor is gone, and with it the listener");
        return Ok(());
    }
    tracing::info!("draining: no new connections, idle ones close, exchanges run until the grace ends");
    let cut = async {
        while told.word().await == Word::Retire {} // it is retiring already
    };
    tokio::select! {
        () = sidecar.stop(word == Word::Retire) => {}
        () = cut => tracing::warn!("told again to end: open connections are cut"),
    }
    Ok(())
}

/// Who says when it ends.
enum Told {
    Signals { terminate: Signal, interrupt: Signal },
    Supervisor(Line),
}

impl Told {
    fn signals() -> io::Result<Told> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Told::Signals { terminate, interrupt })
    }

    async fn word(&mut self) -> Word {
        match self {
            Told::Supervisor(line) => line.word().await,
            Told::Signals { terminate, interrupt } => {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                Word::Drain
            }
        }
    }
}

/// Starts everything. When it returns, the listeners take connections and the bundles are written; the store may be absent.
///
/// # Errors
/// [`StartError`].
pub async fn start(mut plan: Plan<'_>) -> Result<Sidecar, StartError> {
    let metrics = Arc::new(Metrics::registered());
    metrics.crashes.set(plan.in_pod.crashes.into());
    metrics.splicing.set(plan.in_pod.splice.into());
    if let Some(redirected) = &plan.in_pod.redirected {
        metrics.led.set(redirected.refused.is_none().into());
        if let Some(refused) = &redirected.refused {
            tracing::error!(reason = refused.reason.as_str(), detail = refused.detail, "this pod is not protected");
        }
    }
    let ready = Arc::new(AtomicBool::new(false));
    let mut around = Vec::new();
    if let Some(address) = plan.admin {
        let served = (Arc::clone(&metrics), Arc::clone(&ready));
        around.push(match plan.in_pod.held {
            // The child before this one may still have the address: relaying does not wait for it.
            Some(_) => {
                tokio::spawn(async move { admin::serve(listen_at_last(address).await, served.0, served.1).await })
            }
            None => tokio::spawn(admin::serve(listen(address).await?, served.0, served.1)),
        });
    }
    let mut listeners = Vec::new();
    for (way, address) in &plan.ways {
        let listener = match plan.in_pod.held.take_if(|_| *way == Way::Redirect) {
            Some(held) => TcpListener::from_std(held).map_err(StartError::Inherited)?,
            None => listen(*address).await?,
        };
        listeners.push((*way, listener));
    }
    let listening: Vec<SocketAddr> = listeners.iter().filter_map(|(_, listener)| listener.local_addr().ok()).collect();
    let own = Own(listening.clone());
    let (begin, drain) = drain::new();
    let (ctx, observers, telling) = if plan.in_pod.splice {
        let telling = splice::tell(&plan, &metrics);
        (splice::ctx(&plan, own, drain.clone(), metrics)?, None, telling)
    } else {
        let (ctx, follower) = relaying(&plan, own, drain.clone(), metrics).await?;
        around.push(tokio::spawn(follower.run()));
        around.push(tokio::spawn(expire(Arc::clone(&ctx))));
        let warmed = Arc::clone(&ctx);
        around.push(tokio::task::spawn_blocking(move || warmed.tls.warm()));
        let observers = ctx.capture.as_ref().map(|(_, observers)| Arc::clone(observers));
        (ctx, observers, None)
    };
    let serve =
        |(way, listener)| tokio::spawn(accept::serve(listener, way, Arc::clone(&ctx), drain.clone(), plan.grace));
    let serving = listeners.into_iter().map(serve).collect();
    ready.store(true, Ordering::Release);
    Ok(Sidecar { listening, begin, serving, around, observers, telling })
}

/// What connections share, with its bundles written; the follower of the bindings is to be run.
async fn relaying(
    plan: &Plan<'_>,
    own: Own,
    drain: Drain,
    metrics: Arc<Metrics>,
) -> Result<(Arc<Ctx>, Follower), StartError> {
    let Copying { binding, upstream_ca, budget, no_capture, .. } = plan.copying;
    let (bindings, follower) = bindings::open(binding, Arc::clone(&metrics))?;
    let authority = Authority::open(plan.state_dir.as_deref())?;
    let public = trust::system_roots();
    let named = match upstream_ca {
        Some(file) => trust::read(file)?,
        None => Vec::new(),
    };
    let roots = [public.clone(), named.clone()].concat();
    write_bundles(plan.trust_dir.to_owned(), authority.certificate().clone(), roots).await?;

    let ticks = Arc::new(Ticks::default());
    let budget = Budget::new(*budget);
    let observers = match no_capture {
        true => None,
        false => {
            let (state, pod) = (plan.state_dir.clone(), plan.in_pod.pod.clone());
            Some(observe::start(plan.copying, state, &bindings, &ticks, &budget, &metrics, pod)?)
        }
    };
    let on_change = match &observers {
        Some(observers) => Arc::clone(observers).on_lapse(),
        None => Box::new(|_| {}),
    };
    let lapses = Lapses::new(Arc::clone(&ticks), Arc::clone(&metrics), on_change);
    if let Some(observers) = &observers {
        observers.lend(Arc::clone(&lapses));
    }
    let ctx = Ctx {
        bindings,
        tls: Tls::new(authority, public, named)?,
        distrust: Distrust::default(),
        lapses,
        ticks,
        capture: observers.map(|observers| (budget, observers)),
        own,
        drain,
        metrics,
    };
    Ok((Arc::new(ctx), follower))
}

impl Sidecar {
    /// Ends it: connections first, then the copy has [`FLUSH_MAX`] to reach the store. When it is `relieved`, the next
    /// one is there already and observes: its gaps end now, and its admin address is free at once.
    pub async fn stop(mut self, relieved: bool) {
        self.begin.begin();
        if relieved {
            self.around.drain(..).for_each(|task| task.abort());
            end_gaps(self.telling.take()).await;
        }
        for serving in self.serving {
            let _ = serving.await; // a panic there was reported by its thread
        }
        if let Some(observers) = self.observers {
            observers.flush(FLUSH_MAX).await;
        }
        end_gaps(self.telling).await;
        for task in self.around {
            task.abort();
        }
    }
}

async fn end_gaps(telling: Option<Telling>) {
    if let Some(telling) = telling {
        telling.end().flush(FLUSH_MAX).await;
    }
}

/// Listens as soon as it can be, for ever if need be.
async fn listen_at_last(address: SocketAddr) -> TcpListener {
    loop {
        match listen(address).await {
            Ok(listener) => return listener,
            Err(_) => tokio::time::sleep(LISTEN_AGAIN).await,
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = match TcpListener::bind(address).await {
        // Every address was meant, on a node without IPv6.
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await.map_err(|_| error)
        }
        bound => bound,
    };
    bound.map_err(|source| StartError::Listen { address, source })
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

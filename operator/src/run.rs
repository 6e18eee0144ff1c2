//! `run`: what every replica does (caches of bindings, the webhook, probes), and what the leader does besides.
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hawser_api::connect::{self, ConnectError};
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal as on};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin::{self, Admin};
use crate::at_store;
use crate::authority::{Authority, AuthorityError};
use crate::caches::{self, Caches, Due, Queue};
use crate::context::{self, Context};
use crate::flags;
use crate::metrics::Metrics;
use crate::webhook::{self, Webhook};
use crate::{controller, leader, store_tls};

/// After a failure to reach the API server at the start.
const PAUSE: Duration = Duration::from_secs(2);

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no API server to speak to.
    #[error("find the API server: run in a pod, or set KUBECONFIG")]
    Client(#[source] Box<dyn Error + Send + Sync>),
    /// The authority cannot be used.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] ConnectError),
    /// The admin address.
    #[error("--admin {address}: cannot listen here")]
    Admin {
        /// Which one.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The webhook.
    #[error(transparent)]
    Webhook(#[from] webhook::Error),
    /// Signals.
    #[error("wait for signals")]
    Signals(#[source] std::io::Error),
}

/// Runs until a signal asks for the end.
///
/// # Errors
/// [`RunError`] when it cannot begin, or the webhook ended.
pub async fn run(flags: &flags::Run) -> Result<(), RunError> {
    let listener =
        TcpListener::bind(flags.admin).await.map_err(|source| RunError::Admin { address: flags.admin, source })?;
    let client = Client::try_default().await.map_err(|error| RunError::Client(error.into()))?;
    let authority = opened(&client, &flags.namespace).await?;

    let mut registry = Registry::with_prefix("hawser_operator");
    let metrics = Metrics::registered(&mut registry);
    let (queue, mut tasks) = (Queue::default(), JoinSet::new());
    let bindings = caches::bindings(&client, queue.clone(), &mut tasks);
    let webhook = Webhook::new(
        flags.webhook.clone(),
        &flags.namespace,
        &flags.store,
        client.clone(),
        authority.clone(),
        bindings.clone(),
        &mut registry,
    );
    let store = at_store::Store::new(
        &connect::Store {
            url: flags.store.clone(),
            domain: String::new(),
            token_file: Some(flags.token_file.clone()),
            ca_file: None,
        },
        authority.ca_pem(),
    )?;
    let look = {
        let (metrics, bindings, store) = (metrics.clone(), bindings.clone(), store.clone());
        move || {
            let phase = |binding: &hawser_api::CloudBinding| {
                let phase = binding.status.as_ref().and_then(|status| status.phase);
                phase.map_or_else(|| "Pending".to_owned(), |phase| format!("{phase:?}"))
            };
            metrics.show_phases(bindings.state().iter().map(|binding| phase(binding)));
            metrics.store_connected.set(i64::from(store.is_synced()));
        }
    };
    let admin = Arc::new(Admin { registry, ready: AtomicBool::new(false), look: Box::new(look) });
    tasks.spawn(admin::serve(listener, Arc::clone(&admin)));
    let (stopper, stop) = watch::channel(false);
    let ended = signal()?;

    let pods = Arc::new(webhook.pods().clone());
    let hook = webhook.serve(stop.clone());
    admin.ready.store(true, Ordering::Relaxed);
    let term = async || {
        metrics.leader.set(1);
        let _down = OnDrop(|| {
            metrics.leader.set(0);
        });
        let mut tasks = JoinSet::new(); // they end with the term
        let due = queue.read();
        let store = store.clone();
        store.begin();
        let caches = Caches::watch(&client, bindings.clone(), &queue, &mut tasks);
        tasks.spawn(store.clone().watch(queue.clone()));
        let host = host(&flags.store);
        tasks.spawn(store_tls::keep(client.clone(), flags.namespace.clone(), host, authority.clone()));
        caches.filled().await;
        let ctx = Arc::new(Context {
            client: client.clone(),
            caches,
            store,
            store_url: flags.store.clone(),
            authority: authority.clone(),
            jobs: flags.jobs.clone(),
            pods: Arc::clone(&pods),
            reporter: context::reporter(&flags.identity),
            metrics: metrics.clone(),
            starting: tokio::sync::Mutex::new(()),
        });
        queue.put(Due::All).await;
        controller::run(ctx, due).await;
    };
    let leading = leader::run(&client, &flags.namespace, &flags.identity, stop, term);
    let stopping = async {
        ended.await;
        tracing::info!("a signal asks for the end");
        admin.ready.store(false, Ordering::Relaxed);
        let _ = stopper.send(true); // nobody listening is the end too
    };
    let ((), (), hook) = tokio::join!(stopping, leading, async {
        let end = hook.await;
        if let Err(error) = &end {
            tracing::error!(error = error as &dyn Error, "the webhook ended");
            admin.ready.store(false, Ordering::Relaxed);
        }
        end
    });
    hook?;
    Ok(())
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// The authority, as soon as the API server answers.
async fn opened(client: &Client, namespace: &str) -> Result<Authority, AuthorityError> {
    let mut told = false;
    loop {
        match Authority::open(client, namespace).await {
            Err(error @ AuthorityError::Secret { .. }) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(error = &error as &dyn Error, "waits for the API server");
                }
                tokio::time::sleep(PAUSE).await;
            }
            other => return other,
        }
    }
}

/// The host of a URL.
fn host(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', ':']).next().unwrap_or_default().to_owned()
}

/// Comes back when SIGTERM or ctrl-c asks for the end.
fn signal() -> Result<impl Future<Output = ()>, RunError> {
    let mut terminate = on(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = on(SignalKind::interrupt()).map_err(RunError::Signals)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

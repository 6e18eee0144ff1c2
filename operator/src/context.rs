//! What every reconcile works with. Nothing in it remembers a binding: caches mirror the cluster and the store.
use std::sync::Arc;

use kube::Client;
use kube::runtime::events::Reporter;

use crate::at_store::Store;
use crate::authority::Authority;
use crate::caches::Caches;
use crate::flags::Jobs;
use crate::metrics::Metrics;
use crate::pod;

/// Shared by all reconciles of one term as leader.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// What is known of the cluster.
    pub caches: Caches,
    /// The store.
    pub store: Store,
    /// Its URL, for Jobs.
    pub store_url: String,
    /// Who signed the store's certificate.
    pub authority: Authority,
    /// How Jobs run.
    pub jobs: Jobs,
    /// How pods are rendered, to tell which are stale.
    pub pods: Arc<pod::Settings>,
    /// Who writes the Events.
    pub reporter: Reporter,
    /// Counters.
    pub metrics: Metrics,
    /// Held while a Job is counted and made.
    pub starting: tokio::sync::Mutex<()>,
}

/// Who writes the Events.
pub fn reporter(identity: &str) -> Reporter {
    Reporter { controller: "hawser-operator".into(), instance: Some(identity.to_owned()) }
}

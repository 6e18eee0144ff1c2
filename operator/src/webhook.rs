//! The admission webhook: a pod that asks for protection gets it, or a reason why not. Read in this order:
//! [`configuration`] (what the API server asks us about), [`server`] (TLS, connections), [`review`] (one question, one
//! answer), [`cluster`] (what has to be known for it). What becomes of a pod is in [`crate::pod`]. May not enter here:
//! - anything that only the leader does: every replica answers, with or without the Lease;
//! - anything that a pod without our annotation would wait for: the API server never asks us about it.

use std::net::SocketAddr;
use std::sync::Arc;

use clap::Args;
use hawser_api::CloudBinding;
use kube::Client;
use kube::runtime::reflector::Store;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::authority::{Authority, AuthorityError};
use crate::pod;
use crate::pod::resources::{Amount, Resources};

mod cluster;
pub mod configuration;
mod metrics;
mod review;
mod server;

use cluster::Cluster;
use metrics::Metrics;

/// What the webhook needs of the command line.
#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// Where the webhook listens
    #[arg(long, value_name = "ADDR", default_value = "[::]:9443")]
    pub webhook_listen: SocketAddr,
    /// The Service by which the API server reaches it, in this namespace
    #[arg(long, value_name = "NAME", default_value = "hawser-webhook")]
    pub webhook_service: String,
    /// The ClusterRole of this release: what the webhook leaves in the cluster goes with it
    #[arg(long, value_name = "NAME", default_value = "hawser-operator")]
    pub cluster_role: String,
    /// The sidecar's image
    #[arg(long, value_name = "IMAGE")]
    pub sidecar_image: String,
    /// When the sidecar's image is pulled: Always, IfNotPresent or Never
    #[arg(long, value_name = "POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub sidecar_pull_policy: Option<String>,
    /// A Secret in the pods' namespaces that the sidecar's image is pulled with; may be repeated
    #[arg(long = "sidecar-pull-secret", value_name = "NAME")]
    pub sidecar_pull_secrets: Vec<String>,
    /// What a sidecar asks for
    #[arg(long, value_name = "cpu=N,memory=N", default_value = "cpu=50m,memory=96Mi")]
    pub sidecar_requests: Amount,
    /// What a sidecar may use at most; in a Guaranteed pod it asks for as much
    #[arg(long, value_name = "cpu=N,memory=N", default_value = "cpu=1,memory=256Mi")]
    pub sidecar_limits: Amount,
}

/// Why the webhook cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address.
    #[error("--webhook-listen {address}: cannot listen here")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// No certificate.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The certificate cannot be used.
    #[error("the webhook's certificate cannot be used")]
    Tls(#[from] rustls::Error),
    /// The certificate cannot be read.
    #[error("the webhook's certificate cannot be read: {0}")]
    Pem(String),
}

/// The webhook of one replica.
pub struct Webhook {
    settings: Settings,
    namespace: String,
    authority: Authority,
    client: Client,
    ctx: Arc<Ctx>,
}

/// What all reviews share.
struct Ctx {
    cluster: Cluster,
    pods: pod::Settings,
    metrics: Metrics,
}

impl Webhook {
    /// Puts it together; nothing is asked and nothing listens yet. `namespace` is our own, `store` the store's URL,
    /// `bindings` may lag: what it lacks is asked for.
    pub fn new(
        settings: Settings,
        namespace: &str,
        store: &str,
        client: Client,
        authority: Authority,
        bindings: Store<CloudBinding>,
        registry: &mut Registry,
    ) -> Webhook {
        let pods = pod::Settings {
            image: settings.sidecar_image.clone(),
            pull_policy: settings.sidecar_pull_policy.clone(),
            pull_secrets: settings.sidecar_pull_secrets.clone(),
            store: store.to_owned(),
            store_ca: authority.ca_pem().to_owned(),
            resources: Resources {
                requests: settings.sidecar_requests.clone(),
                limits: settings.sidecar_limits.clone(),
            },
        };
        let cluster = Cluster::new(client.clone(), bindings);
        let ctx = Arc::new(Ctx { cluster, pods, metrics: Metrics::registered(registry) });
        Webhook { settings, namespace: namespace.to_owned(), authority, client, ctx }
    }

    /// What all pods are rendered with.
    pub fn pods(&self) -> &pod::Settings {
        &self.ctx.pods
    }

    /// Listens, tells the API server of it, and answers until `stop` is true, and then a little longer.
    ///
    /// # Errors
    /// [`Error`] when it cannot begin.
    pub async fn serve(self, stop: watch::Receiver<bool>) -> Result<(), Error> {
        let address = self.settings.webhook_listen;
        let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
        self.serve_on(listener, stop).await
    }

    async fn serve_on(self, listener: TcpListener, stop: watch::Receiver<bool>) -> Result<(), Error> {
        let service = &self.settings.webhook_service;
        let names =
            [service.clone(), format!("{service}.{}", self.namespace), format!("{service}.{}.svc", self.namespace)];
        let (tls, renewing) = server::tls(self.authority.clone(), names.to_vec())?;
        let wanted = configuration::Wanted {
            namespace: self.namespace.clone(),
            service: service.clone(),
            ca_pem: self.authority.ca_pem().to_owned(),
            cluster_role: self.settings.cluster_role.clone(),
        };
        tokio::select! {
            () = server::serve(listener, tls, self.ctx, stop) => {}
            () = renewing => {}
            () = configuration::keep(self.client, wanted) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

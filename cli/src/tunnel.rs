//! The way to the store of a cluster: a port of this machine's loopback, each of whose connections the API server
//! forwards to the store's pod. What passes is TLS from end to end.

use hawser_api::connect::ConnectError;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::cluster::{Cluster, STORE_POD};
use crate::failure::Failure;

/// Where the store's gRPC answers in its pod.
const PORT: u16 = 7070;

/// An open way; it closes when it is dropped.
pub(crate) struct Tunnel {
    port: u16,
    task: JoinHandle<()>,
}

impl Tunnel {
    /// Opens the way, and tries it once: a right that is missing shows now.
    pub(crate) async fn open(cluster: &Cluster) -> Result<Tunnel, Failure> {
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.release);
        let tried = pods.portforward(STORE_POD, &[PORT]).await;
        match tried {
            Ok(forward) => forward.abort(),
            Err(error) if upgrade_refused(&error, 403) => {
                let (resource, namespace) = ("pods/portforward", cluster.release.clone());
                return Err(Failure::Right { verb: "create", resource, namespace });
            }
            Err(error) if upgrade_refused(&error, 404) => {
                return Err(Failure::NotFound(format!(
                    "there is no pod {}/{STORE_POD}: is Hawser installed in another namespace? (--hawser-namespace)",
                    cluster.release
                )));
            }
            Err(error) => return Err(Failure::Cluster(crate::failure::chain(&error))),
        }
        let bound = TcpListener::bind("127.0.0.1:0").await;
        let listening = bound.and_then(|listener| Ok((listener.local_addr()?.port(), listener)));
        let (port, listener) = listening
            .map_err(|source| Failure::Connect(Box::new(ConnectError::File { path: "127.0.0.1:0".into(), source })))?;
        let task = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let pods = pods.clone();
                tokio::spawn(async move {
                    // A connection that cannot be forwarded is closed; whoever speaks on it says so.
                    let Ok(mut forward) = pods.portforward(STORE_POD, &[PORT]).await else { return };
                    let Some(mut far) = forward.take_stream(PORT) else { return };
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Ok(Tunnel { port, task })
    }

    /// The port of this machine.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether the API server refused to upgrade the connection, with this status.
fn upgrade_refused(error: &kube::Error, status: u16) -> bool {
    match error {
        kube::Error::Api(answer) => answer.code == status,
        kube::Error::UpgradeConnection(kube::client::UpgradeConnectionError::ProtocolSwitch(answer)) => {
            answer.as_u16() == status
        }
        _ => false,
    }
}

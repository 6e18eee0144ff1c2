//! One operator reconciles: the one that holds the Lease `hawser-operator`. Whoever cannot renew it stops in time, also
//! while the API server is away and nobody can tell: the next one may begin then.
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use tokio::sync::watch;
use tokio::time::Instant;

/// The Lease.
pub const LEASE: &str = "hawser-operator";
/// How long the Lease holds after a renewal.
const DURATION_SECONDS: u64 = 10;
/// It is renewed so long before its end: every four seconds.
const GRACE_SECONDS: u64 = 6;
/// How often the holder looks whether its renewals arrive.
const LOOK: Duration = Duration::from_secs(2);
/// A holder that saw no renewal for so long stops. With one look's delay it is the Lease's duration.
const STOP_AFTER: Duration = Duration::from_secs(DURATION_SECONDS).saturating_sub(LOOK);
/// After a failure to reach the API server.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs `term` whenever this replica is the leader, and drops it when it is no longer, or when `stop` is true.
pub async fn run(
    client: &Client,
    namespace: &str,
    identity: &str,
    mut stop: watch::Receiver<bool>,
    mut term: impl AsyncFnMut(),
) {
    loop {
        let elected = tokio::select! {
            manager = elected(client, namespace, identity) => manager,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        tracing::info!(identity, "leads");
        tokio::select! {
            () = term() => {}
            () = lost(&elected) => tracing::warn!("another replica has the Lease: stops reconciling"),
            () = unrenewed(client, namespace, identity) => {
                tracing::warn!(seconds = DURATION_SECONDS, "the Lease could not be renewed in time: stops reconciling");
            }
            _ = stop.wait_for(|stop| *stop) => {
                // The next one need not wait for the end of it; that it cannot be given back costs these seconds.
                let _ = tokio::time::timeout(LOOK, elected.release()).await;
                return;
            }
        }
    }
}

/// Comes back as the leader.
async fn elected(client: &Client, namespace: &str, identity: &str) -> LeaseManager {
    let mut told = false;
    loop {
        let manager = LeaseManagerBuilder::new(client.clone(), LEASE)
            .with_namespace(namespace)
            .with_identity(identity)
            .with_duration(DURATION_SECONDS)
            .with_grace(GRACE_SECONDS)
            .build()
            .await;
        let error = match manager {
            Ok(manager) => match manager.changed().await {
                Ok(true) => return manager,
                Ok(false) => continue,
                Err(error) => error,
            },
            Err(error) => error,
        };
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(error = &error as &dyn std::error::Error, "the Lease cannot be read or taken");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Renews the Lease; comes back when somebody else has it.
async fn lost(manager: &LeaseManager) {
    loop {
        match manager.changed().await {
            Ok(true) => {}
            Ok(false) => return,
            Err(_) => tokio::time::sleep(PAUSE).await, // `unrenewed` knows when that becomes a loss
        }
    }
}

/// Comes back when no renewal of ours was seen for too long.
async fn unrenewed(client: &Client, namespace: &str, identity: &str) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let (mut seen, mut at) = (None, Instant::now());
    while at.elapsed() < STOP_AFTER {
        tokio::time::sleep(LOOK.min(STOP_AFTER.saturating_sub(at.elapsed()))).await;
        let asked = Instant::now();
        let Ok(Ok(lease)) = tokio::time::timeout(LOOK, leases.get(LEASE)).await else { continue };
        let spec = lease.spec.unwrap_or_default();
        if spec.holder_identity.as_deref() == Some(identity) && spec.renew_time != seen {
            (seen, at) = (spec.renew_time, asked);
        }
    }
}

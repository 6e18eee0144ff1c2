//! The lease that lets one migration of a binding run at a time. Who loses it stops at once: another may
//! be writing already.
use std::time::Duration;

use hawser_api::v1;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use super::{Store, refusal};
use crate::failure::Failure;

/// How long to wait for the lease of a run that was killed: it ends by itself.
const WAIT_MAX: Duration = Duration::from_secs(45);
const WAIT_STEP: Duration = Duration::from_millis(500);

/// For whom a lease is asked.
pub struct Fence {
    /// The binding.
    pub binding: String,
    /// Its UID; empty without a cluster.
    pub uid: String,
    /// The migration that this is a Job of; 0 for none.
    pub epoch: u64,
}

/// A held lease, renewed in the background until it is released or dropped.
pub struct Held {
    /// What every changing call shows.
    pub lease: v1::Lease,
    lost: watch::Receiver<Option<Lost>>,
    _renewing: JoinSet<()>, // ends with this
}

/// Takes the lease of `binding`, waiting for the one of a run that died.
///
/// # Errors
/// [`Failure::Fenced`] when another run keeps it.
pub async fn acquire(store: &Store, fence: Fence, waiting: impl Fn()) -> Result<Held, Failure> {
    let (holder, binding) = (format!("hawser-migrate {}", std::process::id()), &fence.binding);
    let deadline = Instant::now() + WAIT_MAX;
    let mut told = false;
    let lease = loop {
        let request = v1::AcquireLeaseRequest {
            binding: binding.clone(),
            holder: holder.clone(),
            binding_uid: fence.uid.clone(),
            migration_epoch: fence.epoch,
        };
        match store.migration.clone().acquire_lease(request).await {
            Ok(lease) => break lease.into_inner(),
            Err(status) if status.code() == Code::FailedPrecondition => {
                if Instant::now() >= deadline {
                    return Err(Failure::Fenced(format!("another migration of {binding} runs: {}", status.message())));
                }
                if !std::mem::replace(&mut told, true) {
                    waiting();
                }
                sleep(WAIT_STEP).await;
            }
            Err(status) if status.code() == Code::Aborted => {
                return Err(Failure::Fenced(format!("take the lease: {}", status.message())));
            }
            Err(status) => return Err(refusal("take the lease")(status)),
        }
    };
    let (lose, lost) = watch::channel(None);
    let mut renewing = JoinSet::new();
    renewing.spawn(renew(store.clone(), lease.clone(), lose));
    Ok(Held { lease, lost, _renewing: renewing })
}

/// Why a lease is held no more.
#[derive(Clone, Copy, Debug)]
enum Lost {
    /// The store says so.
    Taken,
    /// The store did not answer for as long as it lives.
    Ran,
}

impl Held {
    /// Comes back only when the lease is lost.
    pub async fn lost(&self) -> Failure {
        let mut lost = self.lost.clone();
        match lost.wait_for(Option::is_some).await.map(|lost| *lost) {
            Ok(Some(Lost::Ran)) => Failure::Away("the lease ran out, as the store does not answer".to_owned()),
            Ok(_) => Failure::Fenced("the lease was lost: another migration may run".to_owned()),
            Err(_) => std::future::pending().await, // released
        }
    }

    /// Gives the lease back, so that the next run need not wait for its end.
    pub async fn release(self, store: &Store) {
        let bound = Duration::from_secs(2);
        let _ = timeout(bound, store.migration.clone().release_lease(self.lease.clone())).await;
    }
}

/// Renews three times within the lease's life; a life without success loses it.
async fn renew(store: Store, lease: v1::Lease, lose: watch::Sender<Option<Lost>>) {
    let life = Duration::from_secs(u64::from(lease.seconds.max(1)));
    let mut end = Instant::now() + life;
    loop {
        sleep(life / 3).await;
        let asked = Instant::now();
        let left = end.saturating_duration_since(asked);
        match timeout(left, store.migration.clone().renew_lease(lease.clone())).await {
            Ok(Ok(_)) => end = asked + life,
            Ok(Err(status)) if matches!(status.code(), Code::FailedPrecondition | Code::Aborted) => {
                let _ = lose.send(Some(Lost::Taken));
                return;
            }
            Ok(Err(_)) if Instant::now() < end => {}
            Ok(Err(_)) | Err(_) => break,
        }
    }
    let _ = lose.send(Some(Lost::Ran));
}

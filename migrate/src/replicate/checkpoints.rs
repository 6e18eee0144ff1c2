//! Checkpoints: before a PUT or a Complete, the store durably knows what was about to arrive where. Those of
//! many small objects share one call and one sync.
use std::collections::HashMap;

use futures::TryStreamExt;
use hawser_api::ObjectKey;
use hawser_api::v1;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tonic::Status;

use crate::cloud::Place;
use crate::failure::Failure;
use crate::run::Run;
use crate::store::{Store, refusal};

/// Checkpoints in one call.
const CALL_MAX: usize = 256;

type Asked = (v1::Checkpoint, oneshot::Sender<Result<(), Status>>);

/// Writes checkpoints; whoever asks waits until they are durable.
pub struct Writer {
    queue: mpsc::Sender<Asked>,
    _writing: JoinSet<()>, // ends with this
}

impl Writer {
    /// Starts writing under `lease`.
    pub fn start(store: Store, lease: v1::Lease) -> Writer {
        let (queue, asked) = mpsc::channel(CALL_MAX);
        let mut writing = JoinSet::new();
        writing.spawn(write(store, lease, asked));
        Writer { queue, _writing: writing }
    }

    /// Writes one checkpoint, together with those that others ask for meanwhile.
    pub async fn put(&self, checkpoint: v1::Checkpoint) -> Result<(), Failure> {
        let gone = |_| Failure::failed("write a checkpoint: the writer is gone");
        let (done, durable) = oneshot::channel();
        self.queue.send((checkpoint, done)).await.map_err(|_| gone(()))?;
        durable.await.map_err(|_| gone(()))?.map_err(refusal("write a checkpoint"))
    }
}

/// While one call is under way the next one fills up.
async fn write(store: Store, lease: v1::Lease, mut asked: mpsc::Receiver<Asked>) {
    let mut batch: Vec<Asked> = Vec::with_capacity(CALL_MAX);
    while asked.recv_many(&mut batch, CALL_MAX).await > 0 {
        let (checkpoints, waiting): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        let request = v1::PutCheckpointsRequest { lease: Some(lease.clone()), checkpoints };
        let outcome = store.migration.clone().put_checkpoints(request).await;
        let outcome = outcome.map(|_| ());
        for done in waiting {
            let _ = done.send(outcome.clone()); // whoever asked may have been cancelled
        }
    }
}

/// The checkpoints that an earlier run left behind: at most as many as it had objects under way.
pub async fn left(run: &Run, lease: &v1::Lease, target: &str) -> Result<HashMap<Place, v1::Checkpoint>, Failure> {
    let doing = "list checkpoints";
    let request = v1::ListCheckpointsRequest { lease: Some(lease.clone()), target: target.to_owned() };
    let stream = run.store.migration.clone().list_checkpoints(request).await.map_err(refusal(doing))?.into_inner();
    stream
        .map_ok(|checkpoint| {
            let target = checkpoint.target.clone().unwrap_or_default();
            (Place { bucket: target.bucket, key: ObjectKey::from_bytes(target.key) }, checkpoint)
        })
        .try_collect()
        .await
        .map_err(refusal(doing))
}

//! Tells the store what arrived at the target, many at a time. Nobody waits for it but the end of a round:
//! what was sent and not told is found equal and adopted by the next run.
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hawser_api::v1;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tonic::Status;

use crate::failure::Failure;
use crate::store::{Store, refusal};

/// Objects in one call, and how long the first of them waits for more.
const CALL_MAX: usize = 256;
const GATHER: Duration = Duration::from_millis(50);

enum Told {
    Landed(Box<v1::LandedObject>),
    /// Answers when everything before it is durable.
    Flush(oneshot::Sender<()>),
}

/// Tells the store; after a failure every further telling fails.
pub struct Writer {
    queue: mpsc::Sender<Told>,
    failed: Arc<Mutex<Option<Status>>>,
    _writing: JoinSet<()>, // ends with this
}

impl Writer {
    /// Starts telling under `lease`.
    pub fn start(store: Store, lease: v1::Lease) -> Writer {
        let (queue, told) = mpsc::channel(CALL_MAX);
        let failed = Arc::new(Mutex::new(None));
        let mut writing = JoinSet::new();
        writing.spawn(write(store, lease, told, failed.clone()));
        Writer { queue, failed, _writing: writing }
    }

    /// Tells of one object, soon.
    pub async fn tell(&self, object: v1::LandedObject) -> Result<(), Failure> {
        self.queue.send(Told::Landed(Box::new(object))).await.map_err(|_| Failure::failed("tell what arrived"))?;
        self.check()
    }

    /// Waits until everything that was told is durable.
    pub async fn flush(&self) -> Result<(), Failure> {
        let (done, flushed) = oneshot::channel();
        let gone = || Failure::failed("tell what arrived: the writer is gone");
        self.queue.send(Told::Flush(done)).await.map_err(|_| gone())?;
        flushed.await.map_err(|_| gone())?;
        self.check()
    }

    fn check(&self) -> Result<(), Failure> {
        match &*self.failed.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(status) => Err(refusal("tell what arrived")(status.clone())),
            None => Ok(()),
        }
    }
}

async fn write(store: Store, lease: v1::Lease, mut told: mpsc::Receiver<Told>, failed: Arc<Mutex<Option<Status>>>) {
    while let Some(first) = told.recv().await {
        let mut objects = Vec::new();
        let mut flush = None;
        let mut next = Some(first);
        let gather = tokio::time::sleep(GATHER);
        tokio::pin!(gather);
        loop {
            match next {
                Some(Told::Landed(object)) => objects.push(*object),
                Some(Told::Flush(done)) => flush = Some(done),
                None => break,
            }
            if flush.is_some() || objects.len() == CALL_MAX {
                break;
            }
            next = tokio::select! {
                next = told.recv() => next,
                () = &mut gather => None,
            };
        }
        if !objects.is_empty() {
            let request = v1::LandedRequest { lease: Some(lease.clone()), objects };
            if let Err(status) = store.migration.clone().landed(request).await {
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
            }
        }
        if let Some(done) = flush {
            let _ = done.send(()); // whoever asked may have been cancelled
        }
    }
}

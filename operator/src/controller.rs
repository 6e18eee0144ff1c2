//! The leader's work: whatever becomes due is reconciled, a binding never twice at the same time, all of them by and by.
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt, stream};
use hawser_api::CloudBinding;
use kube::ResourceExt;
use kube::runtime::applier;
use kube::runtime::controller::{self, Action};
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc;

use crate::caches::Due;
use crate::context::Context;
use crate::reconcile::{self, Error};

/// Bindings reconciled at the same time.
const CONCURRENT: u16 = 16;
/// Changes of one binding within so long are looked at together.
const TOGETHER: Duration = Duration::from_millis(100);
/// After a reconcile that failed: little is asked of an API server that has trouble.
const AFTER_ERROR: Duration = Duration::from_secs(10);

/// Reconciles what is `due` until the queue ends.
pub async fn run(ctx: Arc<Context>, due: mpsc::Receiver<Due>) {
    let bindings = ctx.caches.bindings.clone();
    let config = controller::Config::default().concurrency(CONCURRENT).debounce(TOGETHER);
    let reconciled = applier(counted, on_error, Arc::clone(&ctx), bindings, queue(Arc::clone(&ctx), due), config);
    reconciled
        .for_each(async |result| {
            if let Err(controller::Error::ReconcilerFailed(error, binding)) = result {
                tracing::warn!(%binding, error = &error as &dyn std::error::Error, "a binding was not reconciled");
            }
        })
        .await;
}

/// References of what is due; on the way the store is told of bindings that are no more.
fn queue(
    ctx: Arc<Context>,
    due: mpsc::Receiver<Due>,
) -> impl Stream<Item = Result<ObjectRef<CloudBinding>, Infallible>> + Send + 'static {
    let due = stream::unfold(due, async |mut due| due.recv().await.map(|one| (one, due)));
    due.then(move |one| {
        let ctx = Arc::clone(&ctx);
        async move {
            let all = || ctx.caches.bindings.state();
            let found: Vec<ObjectRef<CloudBinding>> = match one {
                Due::One(one) => vec![one],
                Due::Namespace(namespace) => {
                    let here = all().into_iter().filter(|binding| binding.namespace().as_deref() == Some(&namespace));
                    here.map(|binding| ObjectRef::from_obj(&*binding)).collect()
                }
                Due::All => all().iter().map(|binding| ObjectRef::from_obj(&**binding)).collect(),
            };
            forget_gone(&ctx).await;
            stream::iter(found.into_iter().map(Ok))
        }
    })
    .flatten()
    .boxed()
}

/// Tells the store of bindings that are no more. Without a finalizer: what the store holds stays, so nothing waits for
/// it, and what was missed while nobody led is seen at the beginning of the next term.
async fn forget_gone(ctx: &Context) {
    let known = ctx.store.known();
    if known.is_empty() {
        return;
    }
    let bindings = ctx.caches.bindings.state();
    for name in known {
        if bindings.iter().any(|binding| binding.uid().as_ref() == Some(&name.binding_uid)) {
            continue;
        }
        let (namespace, binding) = (name.namespace.clone(), name.binding.clone());
        match ctx.store.forget(name).await {
            Ok(()) => tracing::info!(%namespace, %binding, "the store was told that the binding is gone"),
            Err(status) => {
                tracing::warn!(%namespace, %binding, code = ?status.code(), "the store was not told that the binding is gone");
                return; // the rest would have to wait for it too
            }
        }
    }
}

async fn reconcile(binding: Arc<CloudBinding>, ctx: Arc<Context>) -> Result<Action, Error> {
    let begun = Instant::now();
    let result = reconcile::reconcile(binding, Arc::clone(&ctx)).await;
    ctx.metrics.reconcile_seconds.observe(begun.elapsed().as_secs_f64());
    ctx.metrics.reconciled(result.is_ok());
    result
}

fn counted(
    binding: Arc<CloudBinding>,
    ctx: Arc<Context>,
) -> futures::future::BoxFuture<'static, Result<Action, Error>> {
    Box::pin(reconcile(binding, ctx))
}

fn on_error(_: Arc<CloudBinding>, _: &Error, _: Arc<Context>) -> Action {
    Action::requeue(AFTER_ERROR)
}

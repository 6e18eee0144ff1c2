//! What becomes of the copy of one bound connection: understood, cut, offered, told. May fail or lag: the relay
//! never knows. A bug of ours here costs a gap of the binding and nothing else.
//!
//! All of it runs on a thread of its own: hashing never keeps a relay from its sockets, and a busy relay never keeps
//! its own observer, which it wakes for every chunk, from running.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use hawser_api::v1;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::bindings::{Bindings, Bound};
use crate::budget::Budget;
use crate::config::Copying;
use crate::forward::{self, Authority};
use crate::journal::Journal;
use crate::lapse::{Change, InLapse, Lapse, Lapses, OnChange};
use crate::metrics::Metrics;
use crate::peek::{self, Host};
use crate::s3::Observer;
use crate::s3::address::Addressing;
use crate::session::{Place, Sessions};
use crate::tally::Tally;
use crate::tee::{Chunk, Copy, Seen, Side};
use crate::ticks::Ticks;

mod teller;

use teller::Teller;

/// How long chunks gather before they are looked at together. Woken for each of the 65 000 records of a GiB, this thread
/// would cost more than all that it does with them; and half a megabyte at 500 MB/s is little of the budget.
const GATHER: Duration = Duration::from_millis(1);

/// What all observers of this process share.
pub struct Ctx {
    sessions: Arc<Sessions>,
    budget: Arc<Budget>,
    tally: Arc<Tally>,
    lapses: OnceLock<Arc<Lapses>>,
    /// Observations and deliveries under way.
    work: watch::Sender<usize>,
    runtime: Handle,
    /// Whose handle that is, where it is ours.
    _thread: Option<Thread>,
}

/// The thread of all observers. What still runs on it when it is dropped is cut off.
struct Thread(Option<Runtime>);

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Why nothing can be observed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal.
    #[error("{}: the journal cannot be kept here: make the folder writable, or choose another --state-dir", .dir.display())]
    Journal {
        /// The folder.
        dir: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The thread.
    #[error("no thread can be started for the copy")]
    Thread(#[source] std::io::Error),
}

/// Begins the sessions with the store, which may be absent, and follows the bindings.
///
/// # Errors
/// [`StartError`].
pub fn start(
    copying: &Copying,
    state_dir: Option<PathBuf>,
    bindings: &Bindings,
    ticks: &Arc<Ticks>,
    budget: &Arc<Budget>,
    metrics: &Arc<Metrics>,
    pod: Option<v1::Pod>,
) -> Result<Arc<Ctx>, StartError> {
    let journal = match state_dir {
        Some(dir) => Journal::open(&dir).map_err(|source| StartError::Journal { dir, source })?,
        None => Journal::in_memory(),
    };
    let place = Place {
        url: copying.store.clone(),
        token_file: copying.token_file.clone(),
        ca_file: copying.store_ca.clone(),
        pod,
    };
    let tally = Arc::new(Tally::registered(metrics));
    let thread = Builder::new_multi_thread().worker_threads(1).thread_name("copy").enable_all().build();
    let thread = thread.map_err(StartError::Thread)?;
    let runtime = thread.handle().clone();
    let sessions = Sessions::new(
        place,
        Arc::new(journal),
        Arc::clone(budget),
        Arc::clone(ticks),
        Arc::clone(&tally),
        runtime.clone(),
    );
    sessions.bind(&bindings.table().bindings());
    runtime.spawn(follow(bindings.clone(), Arc::clone(&sessions)));
    Ok(Arc::new(Ctx { _thread: Some(Thread(Some(thread))), ..Ctx::on(runtime, sessions, Arc::clone(budget), tally) }))
}

/// Says hello for every edit of the bindings, until they are dropped with the process.
async fn follow(bindings: Bindings, sessions: Arc<Sessions>) {
    let mut tables = bindings.subscribe();
    while tables.changed().await.is_ok() {
        let table = Arc::clone(&tables.borrow_and_update());
        sessions.bind(&table.bindings());
    }
}

impl Ctx {
    /// Observers on this `runtime` that tell what they see through `sessions`.
    pub fn on(runtime: Handle, sessions: Arc<Sessions>, budget: Arc<Budget>, tally: Arc<Tally>) -> Ctx {
        let (lapses, work) = (OnceLock::new(), watch::Sender::default());
        Ctx { sessions, budget, tally, lapses, work, runtime, _thread: None }
    }

    /// Tells the store of every lapse: from the copy's thread, as telling may write to the journal, and the connection
    /// whose lapse it is has not passed its first byte yet.
    pub fn on_lapse(self: Arc<Self>) -> OnChange {
        let (sessions, work) = (Arc::clone(&self.sessions), self.work.clone());
        // Few: the first and the last connection in a lapse of a kind change it, others do not.
        #[expect(
            clippy::disallowed_methods,
            reason = "at most two for each kind of lapse of a binding are on their way"
        )]
        let (changes, mut changed) = mpsc::unbounded_channel::<(Change, Working)>();
        self.runtime.spawn(async move {
            while let Some((change, working)) = changed.recv().await {
                sessions.lapsed(&change);
                drop(working);
            }
        });
        Box::new(move |change| {
            let _ = changes.send((change, Working::on(&work))); // else the process ends
        })
    }

    /// The lapses that observers open when they no longer understand a connection.
    pub fn lend(&self, lapses: Arc<Lapses>) {
        let _ = self.lapses.set(lapses); // a second loan is the same
    }

    /// Waits, at most for `longest`, until every observation has ended and the store has receipted what was told.
    /// With the store away, the journal has it.
    pub async fn flush(&self, longest: Duration) {
        let deadline = Instant::now() + longest;
        let mut work = self.work.subscribe();
        let ended = tokio::time::timeout_at(deadline, work.wait_for(|count| *count == 0)).await.is_ok();
        let flushed = self.sessions.flush(deadline).await;
        if !ended || flushed.untold > 0 || flushed.kept > 0 {
            tracing::warn!(
                unfinished = *work.borrow(),
                untold = flushed.untold,
                kept = flushed.kept,
                "store: not everything that was captured got there in time; what is kept in --state-dir is told by the next process, the rest is found by hawser-migrate backfill"
            );
        }
    }

    fn lapse(&self, bound: &Bound, lapse: Lapse) -> Option<InLapse> {
        self.lapses.get().map(|lapses| lapses.open(bound, lapse))
    }

    /// Counts as work until the answer is dropped.
    fn work(&self) -> Working {
        Working::on(&self.work)
    }
}

struct Working(watch::Sender<usize>);

impl Working {
    fn on(work: &watch::Sender<usize>) -> Working {
        work.send_modify(|count| *count += 1);
        Working(work.clone())
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Takes the copy of one connection to its end.
pub async fn observe(copy: Copy, bound: Arc<Bound>, ctx: Arc<Ctx>) {
    spawn(copy, bound, ctx, |copy, bound, ctx| understand(copy, Vec::new(), bound, ctx).boxed()).await;
}

/// The same for a connection in the clear whose client had not said its host when it began: `perhaps` is all that it
/// may belong to.
pub async fn observe_undecided(copy: Copy, perhaps: Arc<Bound>, ctx: Arc<Ctx>) {
    spawn(copy, perhaps, ctx, |copy, perhaps, ctx| decide(copy, perhaps, ctx).boxed()).await;
}

async fn spawn(copy: Copy, bound: Arc<Bound>, ctx: Arc<Ctx>, understand: Understand) {
    let working = ctx.work();
    let runtime = ctx.runtime.clone();
    // It fails only when the process ends: a panic is caught where it can be told.
    let _ = runtime.spawn(take(copy, bound, ctx, working, understand)).await;
}

/// How a copy is understood: a parameter, so that a test can do it badly.
type Understand = for<'a> fn(&'a mut Copy, &'a Arc<Bound>, &'a Arc<Ctx>) -> BoxFuture<'a, ()>;

async fn take(mut copy: Copy, bound: Arc<Bound>, ctx: Arc<Ctx>, working: Working, understand: Understand) {
    let understood = AssertUnwindSafe(understand(&mut copy, &bound, &ctx)).catch_unwind().await;
    if understood.is_err() {
        // Writes that were under way became gaps as they were dropped; those that follow are nobody's.
        ctx.tally.panicked();
        tracing::error!(host = bound.host, "an observer panicked: the rest of its connection is not observed");
        let _lapse = ctx.lapse(&bound, Lapse::Unparsed);
        while copy.next().await.is_some() {}
        copy.relay_ended().await;
    }
    drop(working);
}

/// Waits for the first request's Host, and then understands the connection or lets it go. A host that is never named,
/// or not understood, may be any of them.
async fn decide(copy: &mut Copy, perhaps: &Arc<Bound>, ctx: &Arc<Ctx>) {
    let (mut held, mut head, mut len) = (Vec::new(), Vec::new(), 0);
    let host = loop {
        // Without a word on its end, the copy is lost.
        let Some(seen) = copy.next().await else { break Host::Unnamed };
        match &seen {
            Seen::End { side: Side::Client, .. } => return, // it asked for nothing whole
            Seen::Chunk(Chunk { side: Side::Client, bytes: Some((bytes, _)), .. }) => head.extend_from_slice(bytes),
            Seen::Chunk(Chunk { side: Side::Client, bytes: None, .. }) => break Host::Unnamed,
            Seen::Chunk(Chunk { side: Side::Cloud, .. }) | Seen::End { side: Side::Cloud, .. } => {}
        }
        if let Seen::Chunk(chunk) = &seen {
            len += chunk.len;
        }
        held.push(seen);
        match peek::http_host(&head) {
            Host::Unknown if len <= forward::HEAD_LEN_MAX => {}
            Host::Unknown => break Host::Unnamed,
            known => break known,
        }
    };
    match host {
        Host::Named(host) => {
            let host = Authority::parse(&host, Some(perhaps.port)).map(|authority| authority.host);
            if let Some(bound) = host.and_then(|host| perhaps.of_host(&host)) {
                understand(copy, held, &Arc::new(bound), ctx).await;
            }
        }
        Host::NotHttp => {}
        Host::Unnamed | Host::Unknown => {
            drop(held); // it gives its room back
            let _lapse = ctx.lapse(perhaps, Lapse::Unparsed);
            while copy.next().await.is_some() {}
            copy.relay_ended().await;
        }
    }
}

/// `held` was taken off the copy before.
async fn understand(copy: &mut Copy, held: Vec<Seen>, bound: &Arc<Bound>, ctx: &Arc<Ctx>) {
    let providers = bound.entries.iter().map(|entry| Arc::clone(&entry.provider)).collect();
    let mut observer = Observer::new(Addressing::new(providers, bound.port));
    let mut teller = Teller::new(bound, ctx);
    let mut events = Vec::new();
    for seen in held {
        observer.on(seen, &mut events);
    }
    teller.tell(events.drain(..));
    // The first chunk after a pause is looked at as it comes. While more are coming, they are looked at together.
    while let Some(first) = copy.next().await {
        let mut seen = Some(first);
        while let Some(next) = seen {
            observer.on(next, &mut events);
            teller.tell(events.drain(..));
            seen = copy.next().now_or_never().flatten();
            if seen.is_none() {
                if observer.is_at_rest() && teller.is_at_rest() {
                    copy.rest();
                }
                tokio::time::sleep(GATHER).await;
                seen = copy.next().now_or_never().flatten();
            }
        }
    }
    observer.close(&mut events);
    teller.tell(events.drain(..));
    // A copy that was lost on the way leaves a lapse behind, which lasts as long as bytes may pass.
    copy.relay_ended().await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Instant;

    use super::*;
    use crate::tee::{Side, bounded};

    fn bound() -> Arc<Bound> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("binding.yaml");
        let manifest = "apiVersion: hawser.dev/v1alpha1\nkind: CloudBinding\nmetadata: {name: photos, namespace: shop}\nspec:\n  provider: a\n  providers:\n  - {name: a, s3: {endpoint: \"http://cloud.test\"}}\n  buckets: [{name: photos}]\n";
        std::fs::write(&file, manifest).unwrap();
        let (bindings, _) = crate::bindings::open(&file, Arc::new(Metrics::registered())).unwrap();
        Arc::new(bindings.table().bound("cloud.test", 80).unwrap())
    }

    #[tokio::test]
    async fn a_bug_of_ours_is_a_lapse_of_the_binding_until_its_connection_ends() {
        let (ticks, budget, metrics) =
            (Arc::new(Ticks::default()), Budget::new(1 << 20), Arc::new(Metrics::registered()));
        let tally = Arc::new(Tally::registered(&metrics));
        // Nobody listens there: what is told stays with us.
        let place = Place { url: "http://127.0.0.1:1".into(), token_file: None, ca_file: None, pod: None };
        let journal = Arc::new(Journal::in_memory());
        let runtime = Handle::current();
        let (counts, stamps) = (Arc::clone(&tally), Arc::clone(&ticks));
        let sessions = Sessions::new(place, journal, Arc::clone(&budget), stamps, counts, runtime.clone());
        let ctx = Arc::new(Ctx::on(runtime, sessions, Arc::clone(&budget), tally));
        ctx.lend(Lapses::new(Arc::clone(&ticks), Arc::clone(&metrics), Box::new(|_| {})));
        let (mut live, copy) = bounded(Arc::clone(&budget));

        let broken: Understand = |copy, _, _| {
            async move {
                copy.next().await;
                panic!("a bug");
            }
            .boxed()
        };
        let taken = tokio::spawn(take(copy, bound(), Arc::clone(&ctx), ctx.work(), broken));
        live.saw(Side::Client, ticks.stamp(), b"PUT ");
        let shows = |line: &str| metrics.text().lines().any(|shown| shown == line);
        let lapse = |open: u8| format!("hawser_sidecar_lapses{{binding=\"shop/photos\",reason=\"unparsed\"}} {open}");
        let deadline = Instant::now() + Duration::from_secs(10);
        while !shows(&lapse(1)) {
            assert!(Instant::now() < deadline, "no lapse: {}", metrics.text());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert!(shows("hawser_sidecar_observer_panics_total 1"));
        live.saw(Side::Client, ticks.stamp(), b"/photos/a");
        drop(live);
        taken.await.unwrap();
        assert!(shows(&lapse(0)));
        assert_eq!((budget.used(), *ctx.work.borrow()), (0, 0));
    }
}

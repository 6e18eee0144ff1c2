//! What this process says to the store about one binding: announced, recorded, given up, seen; in order, numbered,
//! said again until it is receipted, kept in the journal while nobody listens or nobody answers.
//!
//! A session is one life of this process at one binding: bindings may belong to several domains, and numbers are
//! given within a domain. Telling never waits. May not enter here: content of the cloud's answers beyond what the
//! store records; anything of the live path.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hawser_api::binding::CloudBinding;
use hawser_api::connect::Store;
use hawser_api::v1::control_up::Message;
use hawser_api::v1::receipt;
use hawser_api::{GapReason, GapScope, Stamp, v1};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::budget::Budget;
use crate::gap;
use crate::journal::Journal;
use crate::lapse::{Change, Lapse};
use crate::offer::Offers;
use crate::tally::Tally;
use crate::ticks::Ticks;

mod queue;
mod stream;

use queue::{Queue, Verdict};

/// How to reach the store; the domain comes from each binding.
#[derive(Clone, Debug)]
pub struct Place {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub url: String,
    /// A file with the token, read again for every connection.
    pub token_file: Option<PathBuf>,
    /// A PEM file with the authority that signed the store's certificate.
    pub ca_file: Option<PathBuf>,
    /// In a pod: which one, and what of it is not protected.
    pub pod: Option<v1::Pod>,
}

/// The sessions of this process, one for each binding.
pub struct Sessions {
    place: Place,
    journal: Arc<Journal>,
    budget: Arc<Budget>,
    ticks: Arc<Ticks>,
    tally: Arc<Tally>,
    runtime: Handle,
    open: Mutex<Open>,
}

/// Sessions stay for the life of the process: connections that began under a binding keep it when it is edited
/// or taken away.
#[derive(Default)]
struct Open {
    sessions: BTreeMap<String, Arc<Session>>,
    tasks: JoinSet<()>,
}

/// What is left when a flush ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Outcomes that the store has not receipted.
    pub untold: usize,
    /// Entries in the journal.
    pub kept: usize,
}

impl Sessions {
    /// No session yet. Their work is done on `runtime`.
    pub fn new(
        place: Place,
        journal: Arc<Journal>,
        budget: Arc<Budget>,
        ticks: Arc<Ticks>,
        tally: Arc<Tally>,
        runtime: Handle,
    ) -> Arc<Sessions> {
        Arc::new(Sessions { place, journal, budget, ticks, tally, runtime, open: Mutex::default() })
    }

    /// Speaks for these bindings from now on: begins the sessions that there are not yet, so that ticks are heard
    /// before the first byte passes, and says hello again where a manifest changed.
    pub fn bind(&self, bindings: &[Arc<CloudBinding>]) {
        for binding in bindings {
            let session = self.of(binding);
            let hello = hello(binding, &session.id, &self.place);
            session.hello.send_if_modified(|old| std::mem::replace(old, hello.clone()) != hello);
        }
    }

    /// The session of `binding`, begun if there is none.
    pub fn of(&self, binding: &CloudBinding) -> Arc<Session> {
        let mut open = self.open();
        let name = full_name(binding);
        if let Some(session) = open.sessions.get(&name) {
            return Arc::clone(session);
        }
        let store = Store {
            url: self.place.url.clone(),
            domain: binding.domain().to_owned(),
            token_file: self.place.token_file.clone(),
            ca_file: self.place.ca_file.clone(),
        };
        let (offers, offering) = Offers::begin(store.clone(), Arc::clone(&self.budget), Arc::clone(&self.tally));
        let id = rand::random();
        let session = Arc::new(Session {
            id,
            queue: Mutex::new(Queue::new(id, name.clone(), Arc::clone(&self.journal))),
            name: name.clone(),
            journal: Arc::clone(&self.journal),
            hello: watch::Sender::new(hello(binding, &id, &self.place)),
            offers,
            to_tell: Notify::new(),
            told: Notify::new(),
            lapses: Mutex::default(),
            ticks: Arc::clone(&self.ticks),
            tally: Arc::clone(&self.tally),
        });
        open.tasks.spawn_on(offering, &self.runtime);
        open.tasks.spawn_on(stream::keep(store, Arc::clone(&session)), &self.runtime);
        open.sessions.insert(name, Arc::clone(&session));
        session
    }

    /// A binding as a whole is no longer observed, or is again.
    pub fn lapsed(&self, change: &Change) {
        let name = format!("{}/{}", change.binding.domain, change.binding.name);
        if let Some(session) = self.open().sessions.get(&name) {
            session.lapsed(change);
        }
    }

    /// Waits until the store has receipted everything that was told, or is away while the journal has it in a
    /// file; at most until `deadline`. What is then not receipted is in the journal.
    pub async fn flush(&self, deadline: Instant) -> Flushed {
        let sessions: Vec<_> = self.open().sessions.values().cloned().collect();
        for session in &sessions {
            loop {
                let told = session.told.notified();
                tokio::pin!(told);
                told.as_mut().enable(); // before the question: else what is told in between is missed
                if session.queue().is_settled() || tokio::time::timeout_at(deadline, told).await.is_err() {
                    break;
                }
            }
        }
        let mut untold = 0;
        for session in &sessions {
            let mut queue = session.queue();
            queue.keep_untold();
            untold += queue.awaited();
        }
        Flushed { untold, kept: self.journal.count() }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One life of this process at one binding.
pub struct Session {
    id: [u8; 16],
    name: String,
    queue: Mutex<Queue>,
    journal: Arc<Journal>,
    hello: watch::Sender<v1::Hello>,
    offers: Offers,
    /// Something was told.
    to_tell: Notify,
    /// Something was receipted, or the store went away.
    told: Notify,
    /// The lapses that are open, by the numbers under which the store knows them.
    lapses: Mutex<Lapses>,
    ticks: Arc<Ticks>,
    tally: Arc<Tally>,
}

#[derive(Debug, Default)]
struct Lapses {
    last: u64,
    open: HashMap<Lapse, (u64, Stamp)>,
}

impl Session {
    /// The way of this binding's blocks.
    pub fn offers(&self) -> &Offers {
        &self.offers
    }

    /// Announces a write that is on its way to the cloud. `lost` is told should the answer be dropped without a word.
    pub fn announce(self: &Arc<Self>, intent: v1::Intent, lost: v1::GapFound) -> Operation {
        let number = self.queue().announce(intent);
        self.to_tell.notify_one();
        Operation { session: Arc::clone(self), number, lost: Some(lost) }
    }

    /// Tells a gap that no announced operation ends with.
    pub fn gap(&self, gap: v1::GapFound) {
        self.tally.gap(GapReason::from_wire(&gap.reason));
        self.tell(Message::Gap(gap));
    }

    /// Mentions what the cloud showed; best effort.
    pub fn sighted(&self, sightings: v1::Sightings) {
        self.mention(Message::Sightings(sightings));
    }

    /// Mentions content that was read; best effort.
    pub fn read(&self, read: v1::ObservedRead) {
        self.mention(Message::Read(read));
    }

    fn lapsed(&self, change: &Change) {
        let mut lapses = self.lapses.lock().unwrap_or_else(PoisonError::into_inner);
        if change.began {
            lapses.last += 1;
            let lapse = lapses.last;
            lapses.open.insert(change.lapse, (lapse, change.stamp));
            self.tally.gap(reason_of(change.lapse));
            self.tell(lapse_opened(change.lapse, lapse, change.stamp));
        } else if let Some((lapse, _)) = lapses.open.remove(&change.lapse) {
            self.tell(Message::GapClose(v1::GapClose { lapse, end: Some(change.stamp.into()) }));
        }
    }

    /// Tells the lapses that last once more: a store that did not hear from this session for longer than
    /// its lease has ended them. One that has not takes the same lapse only once.
    fn lapses_told_again(&self) {
        let lapses = self.lapses.lock().unwrap_or_else(PoisonError::into_inner);
        for (&kind, &(lapse, begin)) in &lapses.open {
            self.tell(lapse_opened(kind, lapse, begin));
        }
    }

    fn tell(&self, message: Message) {
        self.queue().tell(message);
        self.tally.journal(self.journal.len());
        self.to_tell.notify_one();
    }

    fn mention(&self, message: Message) {
        if self.queue().mention(message) {
            self.to_tell.notify_one();
        }
    }

    fn receipted(&self, receipt: v1::Receipt) {
        let verdict = match receipt.verdict {
            Some(receipt::Verdict::Refused(refused)) => Verdict::Refused(refused.why),
            Some(receipt::Verdict::Missing(_)) => {
                self.tally.gap(GapReason::MissingBlocks); // the store has opened it
                Verdict::Taken
            }
            Some(receipt::Verdict::Accepted(_)) | None => Verdict::Taken,
        };
        let refused = self.queue().receipt(receipt.sequence, &verdict);
        if let (Some(message), Verdict::Refused(why)) = (refused, verdict) {
            self.refused(message, &why);
            self.queue().forget(receipt.sequence);
        }
        self.tally.journal(self.journal.len());
        self.told.notify_waiters();
    }

    /// A refused record is told as gaps, as the changes did happen; a refused gap has no further resort. Either way
    /// the operation ends, or its intent would stay open at the store for as long as this process lives.
    fn refused(&self, message: Message, why: &str) {
        self.tally.refused();
        tracing::warn!(binding = self.name, why, "store: a message was refused");
        let (mut operation, recorded) = match message {
            Message::Recorded(recorded) => (recorded.operation, recorded),
            Message::Gap(gap) => (gap.operation, v1::Recorded::default()),
            _ => return,
        };
        for object in recorded.writes.iter().filter_map(gap::changed) {
            self.gap(v1::GapFound {
                operation: std::mem::take(&mut operation), // it ends once
                scope: GapScope::Key.as_str().to_owned(),
                object: Some(object),
                reason: GapReason::Unsupported.as_str().to_owned(),
                detail: "the store refused the record".to_owned(),
                head: recorded.head,
                end: recorded.answer,
                ..v1::GapFound::default()
            });
        }
        if operation != 0 {
            self.tell(Message::Abandoned(v1::Abandoned { operation }));
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A write that was announced. It is over when its outcome is told.
#[must_use]
pub struct Operation {
    session: Arc<Session>,
    number: u64,
    lost: Option<v1::GapFound>,
}

impl Operation {
    /// Its keys are known, which its announcement did not name.
    pub fn specify(&self, intent: v1::Intent) {
        self.session.queue().specify(v1::Intent { operation: self.number, ..intent });
        self.session.to_tell.notify_one();
    }

    /// The cloud confirmed it, and everything that its record names is at the store.
    pub fn record(mut self, writes: Vec<v1::Write>, head: Stamp, answer: Stamp) {
        self.lost = None;
        self.session.tally.recorded();
        let (head, answer) = (Some(head.into()), Some(answer.into()));
        self.session.tell(Message::Recorded(v1::Recorded { operation: self.number, writes, head, answer }));
    }

    /// It changed no object.
    pub fn abandon(mut self) {
        self.lost = None;
        self.session.tell(Message::Abandoned(v1::Abandoned { operation: self.number }));
    }

    /// It may have changed something that is not known.
    pub fn lose(mut self, gap: v1::GapFound) {
        self.lost = None;
        self.session.gap(v1::GapFound { operation: self.number, ..gap });
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if let Some(gap) = self.lost.take() {
            let end = Some(self.session.ticks.stamp().into());
            self.session.gap(v1::GapFound { operation: self.number, end, ..gap });
        }
    }
}

fn reason_of(lapse: Lapse) -> GapReason {
    match lapse {
        Lapse::Distrust => GapReason::Distrust,
        Lapse::Http2 => GapReason::Http2,
        Lapse::Unparsed => GapReason::Unparsed,
        Lapse::Crashed => GapReason::RelayCrashed,
    }
}

fn lapse_opened(kind: Lapse, lapse: u64, begin: Stamp) -> Message {
    Message::GapOpen(v1::GapOpen {
        lapse,
        reason: reason_of(kind).as_str().to_owned(),
        begin: Some(begin.into()),
        ..v1::GapOpen::default()
    })
}

/// A binding's name as journal, metrics and people have it.
fn full_name(binding: &CloudBinding) -> String {
    format!("{}/{}", binding.domain(), binding.name())
}

fn hello(binding: &CloudBinding, session: &[u8; 16], place: &Place) -> v1::Hello {
    let client = concat!("hawser-sidecar/", env!("CARGO_PKG_VERSION"));
    v1::Hello {
        session: session.to_vec().into(),
        pod: place.pod.clone(),
        ..hawser_api::hello::hello(binding, v1::Role::Sidecar, client)
    }
}

/// How often a session says that it lives: three times within the lease at least, and within 5 s.
fn heartbeat(lease: Duration) -> Duration {
    (lease / 4).clamp(Duration::from_millis(100), Duration::from_secs(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_renewed_more_than_three_times_before_it_ends() {
        for (lease, every) in [(30, 5_000), (8, 2_000), (1, 250), (0, 100)] {
            assert_eq!(heartbeat(Duration::from_secs(lease)), Duration::from_millis(every), "{lease} s");
        }
    }
}

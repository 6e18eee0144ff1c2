//! Sessions and their leases, and the settling time: the only places of the store where time passes. It
//! runs on the monotonic clock and starts anew with the process; what it leads to becomes an entry, so that
//! the catalog itself knows no clock.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hawser_api::v1;

use crate::catalog::entry::{Fact, Lost, Settled, Trimmed};
use crate::catalog::{
    Catalog, FACTS, GAPS, IntentRow, ListError, Said, decode, intent_keys, intent_session, lapse_keys, lapse_session,
    unsettled_keys, unsettled_tick,
};
use crate::domain::{CommitError, Domain};
use crate::names::DomainId;

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// A session lives so long after its last message.
    pub lease: Duration,
    /// A write whose answer nobody saw may arrive for so long.
    pub settle: Duration,
}

impl Default for Times {
    fn default() -> Times {
        Times { lease: Duration::from_secs(30), settle: Duration::from_secs(60) }
    }
}

/// The sessions that live.
pub struct Sessions {
    catalog: Arc<Catalog>,
    times: Times,
    live: Mutex<HashMap<(DomainId, Bytes), Live>>,
}

struct Live {
    binding: String,
    heard: Instant,
    /// Whose sidecar it is, in a cluster.
    pod: Option<v1::Pod>,
    /// Operations that a reconnect did not announce: lost unless an outcome comes within a lease.
    doubtful: Option<(Instant, Vec<u64>)>,
}

/// What becomes of time could not be written down.
#[derive(Debug, thiserror::Error)]
pub enum TimeError {
    /// The index.
    #[error(transparent)]
    Index(#[from] crate::index::IndexError),
    /// The log.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The index, asked through the catalog.
    #[error(transparent)]
    List(#[from] ListError),
}

impl Sessions {
    /// Sessions that left something open when the store last ran; their leases start anew.
    ///
    /// # Errors
    /// [`TimeError`] when the index cannot be read.
    pub fn load(catalog: Arc<Catalog>, times: Times) -> Result<Sessions, TimeError> {
        let mut live = HashMap::new();
        for domain in catalog.store().domains() {
            let view = catalog.store().view();
            let keys = intent_keys(domain.id());
            for pair in view.scan(FACTS, &keys) {
                let (key, value) = pair?;
                let row: IntentRow = decode(FACTS, &value)?;
                let session = Bytes::copy_from_slice(intent_session(&key));
                live.insert((domain.id(), session), Live::new(row.binding));
            }
            let keys = lapse_keys(domain.id());
            for pair in view.scan(GAPS, &keys) {
                let session = Bytes::copy_from_slice(lapse_session(&pair?.0));
                live.entry((domain.id(), session)).or_insert_with(|| Live::new(String::new()));
            }
        }
        Ok(Sessions { catalog, times, live: Mutex::new(live) })
    }

    /// How long things take.
    pub fn times(&self) -> Times {
        self.times
    }

    /// A session said Hello. `announced` are its open operations: those that are open here and not among
    /// them, and whose outcome does not come within a lease, are lost.
    pub(crate) fn hello(
        &self,
        domain: DomainId,
        session: &Bytes,
        binding: &str,
        announced: &[u64],
    ) -> Result<(), TimeError> {
        let keys = crate::catalog::session_intent_keys(domain, session);
        let mut doubtful = Vec::new();
        for pair in self.catalog.store().view().scan(FACTS, &keys) {
            let row: IntentRow = decode(FACTS, &pair?.1)?;
            if !announced.contains(&row.intent.operation) {
                doubtful.push(row.intent.operation);
            }
        }
        let live = Live {
            binding: binding.to_owned(),
            heard: Instant::now(),
            pod: None,
            doubtful: (!doubtful.is_empty()).then(|| (Instant::now(), doubtful)),
        };
        self.lock().insert((domain, session.clone()), live);
        Ok(())
    }

    /// A session was heard of. One whose lease had run out while its stream lived is watched again: what it
    /// announces from now on can be lost too.
    pub(crate) fn heard(&self, domain: DomainId, session: &Bytes, binding: &str) {
        let mut live = self.lock();
        let live = live.entry((domain, session.clone())).or_insert_with(|| Live::new(binding.to_owned()));
        live.heard = Instant::now();
    }

    /// A session said whose sidecar it is, and how its pod is protected.
    pub(crate) fn of_pod(&self, domain: DomainId, session: &Bytes, pod: Option<v1::Pod>) {
        if let Some(live) = self.lock().get_mut(&(domain, session.clone())) {
            live.pod = pod;
        }
    }

    /// The pods of a binding whose sidecars have a session now, each once, by name.
    pub(crate) fn pods(&self, domain: DomainId, binding: &str) -> Vec<v1::Pod> {
        let live = self.lock();
        let sessions = live.iter().filter(|((of, _), live)| *of == domain && live.binding == binding);
        let mut pods: Vec<v1::Pod> = sessions.filter_map(|(_, live)| live.pod.clone()).collect();
        pods.sort_by(|a, b| (&a.name, &a.uid).cmp(&(&b.name, &b.uid)));
        pods.dedup_by(|a, b| a.uid == b.uid);
        pods
    }

    /// How many sessions of a binding live.
    pub(crate) fn count(&self, domain: DomainId, binding: &str) -> u64 {
        let live = self.lock();
        live.iter().filter(|((of, _), live)| *of == domain && live.binding == binding).count() as u64
    }

    /// Lets time pass until the store refuses work: ends leases, settles gaps.
    pub async fn watch(self: Arc<Self>) {
        let step =
            (self.times.lease.min(self.times.settle) / 8).clamp(Duration::from_millis(10), Duration::from_secs(1));
        let mut ticks = tokio::time::interval(step);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut settling: HashMap<DomainId, VecDeque<(Instant, u64)>> = HashMap::new();
        loop {
            ticks.tick().await;
            let passed = async {
                self.end_leases().await?;
                self.empty_buckets().await?;
                self.settle(&mut settling).await
            };
            match passed.await {
                Ok(()) => {}
                Err(TimeError::Commit(CommitError::Closed(_))) => return, // whoever commits next says so
                Err(error) => tracing::warn!(%error, "leases and settling wait"),
            }
        }
    }

    async fn end_leases(&self) -> Result<(), TimeError> {
        let (mut dead, mut doubtful) = (Vec::new(), Vec::new());
        for ((domain, session), live) in self.lock().iter_mut() {
            if live.heard.elapsed() > self.times.lease {
                dead.push((*domain, session.clone()));
            } else if let Some((_, operations)) = live.doubtful.take_if(|(since, _)| since.elapsed() > self.times.lease)
            {
                doubtful.push((*domain, session.clone(), operations));
            }
        }
        for (id, session, operations) in doubtful {
            let lost = Lost { session, operations, all: false };
            self.commit(id, Fact::Lost(lost)).await?;
        }
        for (id, session) in dead {
            if self.leaves_open(id, &session)? {
                tracing::info!("a session ended without telling the outcome of its writes: they are gaps now");
                self.commit(id, Fact::Lost(Lost { session: session.clone(), operations: Vec::new(), all: true }))
                    .await?;
            }
            let mut live = self.lock();
            let still_dead =
                live.get(&(id, session.clone())).is_some_and(|live| live.heard.elapsed() > self.times.lease);
            if still_dead {
                live.remove(&(id, session));
            }
        }
        Ok(())
    }

    /// Goes on with deleted buckets that were too large to be emptied by the entry that deleted them.
    async fn empty_buckets(&self) -> Result<(), TimeError> {
        for domain in self.catalog.store().domains() {
            loop {
                let emptied = crate::catalog::emptying(&self.catalog.store().view(), domain.id())?;
                if emptied.is_empty() {
                    break;
                }
                self.commit(domain.id(), Fact::Trimmed(Trimmed { emptied, ..Trimmed::default() })).await?;
            }
        }
        Ok(())
    }

    fn leaves_open(&self, domain: DomainId, session: &Bytes) -> Result<bool, TimeError> {
        let view = self.catalog.store().view();
        let intents = crate::catalog::session_intent_keys(domain, session);
        let lapses = crate::catalog::session_lapse_keys(domain, session);
        let intent = view.scan(FACTS, &intents).next().transpose()?;
        Ok(intent.is_some() || view.scan(GAPS, &lapses).next().transpose()?.is_some())
    }

    /// Says of gaps that are older than the settling time that they have settled.
    async fn settle(&self, settling: &mut HashMap<DomainId, VecDeque<(Instant, u64)>>) -> Result<(), TimeError> {
        for domain in self.catalog.store().domains() {
            let samples = settling.entry(domain.id()).or_default();
            let newest = {
                let view = self.catalog.store().view();
                let keys = unsettled_keys(domain.id());
                view.scan_back(GAPS, &keys).next().transpose()?.map(|(key, _)| unsettled_tick(&key))
            };
            if let Some(newest) = newest
                && samples.back().is_none_or(|(_, tick)| *tick < newest)
            {
                samples.push_back((Instant::now(), newest));
            }
            let mut through = None;
            while samples.front().is_some_and(|(since, _)| since.elapsed() >= self.times.settle) {
                through = samples.pop_front().map(|(_, tick)| tick);
            }
            if let Some(through_tick) = through {
                self.commit(domain.id(), Fact::Settled(Settled { through_tick })).await?;
            }
        }
        Ok(())
    }

    async fn commit(&self, domain: DomainId, fact: Fact) -> Result<(), TimeError> {
        let Some(domain) = self.domain(domain) else { return Ok(()) };
        self.catalog.commit(&domain, Said::by_store("", fact), &[]).await?;
        Ok(())
    }

    fn domain(&self, id: DomainId) -> Option<Domain> {
        self.catalog.store().domain_of(id)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(DomainId, Bytes), Live>> {
        // Each change under it is one insertion or one assignment.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn new(binding: String) -> Live {
        Live { binding, heard: Instant::now(), pod: None, doubtful: None }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::Options;

    #[test]
    fn a_session_whose_lease_ran_out_is_watched_again_once_it_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { floor: Some(0), ..Options::default() };
        let catalog = Arc::new(Catalog::open(dir.path(), options).unwrap());
        let domain = catalog.store().domain("shop").unwrap().id();
        let session = Bytes::from_static(&[1; 16]);
        let sessions = Sessions::load(catalog, Times { lease: Duration::ZERO, ..Times::default() }).unwrap();
        sessions.hello(domain, &session, "photos", &[]).unwrap();
        let ended = || futures::executor::block_on(sessions.end_leases()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while sessions.count(domain, "photos") > 0 && Instant::now() < deadline {
            ended();
        }
        assert_eq!(sessions.count(domain, "photos"), 0, "its lease ran out");
        sessions.heard(domain, &session, "photos");
        assert_eq!(sessions.count(domain, "photos"), 1, "its stream lives");
    }
}

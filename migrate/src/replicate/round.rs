//! One round: every key of the source that changed since a tick, each by one worker at a time.
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use futures::{Stream, StreamExt, TryStreamExt};
use hawser_api::ObjectKey;
use hawser_api::binding::Conflicts;
use hawser_api::v1;
use tokio::task::JoinSet;
use tracing::debug;

use super::carry::{Carry, End, Record, Seen, Step, Wanted};
use super::content::MEMORY_MAX;
use super::layout::Layout;
use super::standing::{self, Way};
use super::upload::Shipment;
use super::{Route, compare};
use crate::cloud::read::Head;
use crate::cloud::write::{Guard, Written};
use crate::cloud::{Fault, Place};
use crate::failure::Failure;
use crate::run::Run;
use crate::store::refusal;

/// Objects in preparation for each request under way: their content is read and their checkpoint is
/// written while others are sent. Of small ones as many as hide that writing, of larger ones as many as
/// memory has room for, where each holds as much as is read of it before it is sent.
const PREPARED_PER_SLOT: usize = 16;
const PREPARED_BYTES_PER_SLOT: u64 = 4 * 1024 * 1024;
/// So many objects in a row without any answer of the target end the run.
const UNANSWERED_MAX: u64 = 20;

/// What became of the objects so far.
#[derive(Default)]
pub struct Tally {
    /// Sent, or due in a dry run.
    pub sent: AtomicU64,
    /// Bytes sent, or due in a dry run.
    pub bytes_sent: AtomicU64,
    /// Recorded at the target before.
    pub there: AtomicU64,
    /// Found equal at the target and recorded now.
    pub adopted: AtomicU64,
    /// Deleted at the target.
    pub deleted: AtomicU64,
    /// Kept, as a pod's newer version is there.
    pub newer: AtomicU64,
    /// Kept foreign, as the binding says.
    pub kept: AtomicU64,
    /// Foreign and in the way.
    pub foreign: AtomicU64,
    /// Without known content.
    pub unknown: AtomicU64,
    /// Failed.
    pub failed: AtomicU64,
    unanswered: AtomicU64,
    rounds: AtomicU64,
}

/// How a round ended.
pub struct Round {
    /// Ask again after this tick.
    pub through: u64,
    /// Changes that were seen.
    pub seen: u64,
}

impl Tally {
    /// Whether everything so far arrived or need not.
    pub fn is_clean(&self) -> bool {
        self.failed.load(Ordering::Relaxed) == 0 && self.foreign.load(Ordering::Relaxed) == 0
    }
}

/// Carries every change after `after`.
pub async fn carry_all(route: &Arc<Route>, after: u64) -> Result<Round, Failure> {
    let mut changes = std::pin::pin!(changes(&route.run, &route.lease, &route.source, after).await?);
    let mut round = Round { through: after, seen: 0 };
    let mut workers: JoinSet<(Place, Result<(), Failure>)> = JoinSet::new();
    let mut under_way: HashMap<Place, u64> = HashMap::new();
    let mut prepared_bytes = 0;
    let mut next: Option<(Place, v1::ObjectEntry)> = None;
    let mut more = true;
    loop {
        if let Some((place, entry)) = next.take_if(|(place, _)| !under_way.contains_key(place)) {
            let bytes = entry.size.min(MEMORY_MAX);
            prepared_bytes += bytes;
            under_way.insert(place.clone(), bytes);
            let route = route.clone();
            workers.spawn(async move {
                let outcome = route.carry(&place, &entry).await;
                (place, outcome)
            });
        }
        let slots = route.run.limits.parallelism();
        let room = next.is_none()
            && workers.len() < slots * PREPARED_PER_SLOT
            && prepared_bytes < slots as u64 * PREPARED_BYTES_PER_SLOT;
        tokio::select! {
            Some(done) = workers.join_next(), if !workers.is_empty() => {
                let (place, outcome) = done.map_err(|error| Failure::because("carry an object", error))?;
                prepared_bytes -= under_way.remove(&place).unwrap_or_default();
                outcome?;
            }
            change = changes.next(), if more && room => match change.transpose()? {
                Some(v1::change::Change::Object(entry)) if route.carries(&entry) => {
                    round.seen += 1;
                    next = place_of(&route.run, &route.target.name, &entry).map(|place| (place, entry));
                }
                Some(v1::change::Change::Object(_)) => {}
                Some(v1::change::Change::ThroughTick(tick)) => round.through = tick,
                None => more = false,
            },
            else => break,
        }
    }
    if !route.run.dry_run {
        route.landing.flush().await?;
    }
    route.tally.rounds.fetch_add(1, Ordering::Relaxed);
    Ok(round)
}

/// What changed at `source` after the tick `after`, and last the tick after which to ask again.
pub async fn changes(
    run: &Run,
    lease: &v1::Lease,
    source: &str,
    after: u64,
) -> Result<impl Stream<Item = Result<v1::change::Change, Failure>> + use<>, Failure> {
    let doing = "ask what changed";
    let request = v1::ChangesRequest {
        lease: Some(lease.clone()),
        provider: source.to_owned(),
        after_tick: after,
        prefix: run.prefix.clone().into_bytes().into(),
    };
    let changes = run.store.migration.clone().changes(request).await.map_err(refusal(doing))?.into_inner();
    Ok(changes.map_err(refusal(doing)).try_filter_map(async |change| Ok(change.change)).boxed())
}

/// Where an object of the source goes at the provider of this name; `None` when its bucket is not bound any
/// more.
pub fn place_of(run: &Run, target: &str, entry: &v1::ObjectEntry) -> Option<Place> {
    let buckets = &run.binding.spec.buckets;
    let bound = buckets.iter().find(|bucket| bucket.is_every() || bucket.name == entry.bucket)?;
    let bucket = if bound.is_every() { &entry.bucket } else { bound.name_at(target) };
    let key = entry.object.as_ref().map(|object| object.key.clone()).unwrap_or_default();
    let place = Place { bucket: bucket.to_owned(), key: ObjectKey::from_bytes(key) };
    run.covers(&place.key).then_some(place)
}

/// What the store knows of a key at the provider `identity`, and of a version of it.
pub async fn known(
    run: &Run,
    identity: &str,
    place: &Place,
    etag: &str,
    version_id: &str,
) -> Result<v1::KnownReply, Failure> {
    let object = v1::ObjectRef {
        provider: identity.to_owned(),
        bucket: place.bucket.clone(),
        key: place.key.as_bytes().to_vec().into(),
    };
    let request = v1::KnownRequest { object: Some(object), etag: etag.to_owned(), version_id: version_id.to_owned() };
    Ok(run.store.migration.clone().known(request).await.map_err(refusal("ask what is known"))?.into_inner())
}

impl Route {
    /// Whether a change at the source is one to carry.
    fn carries(&self, entry: &v1::ObjectEntry) -> bool {
        self.way == Way::Forward || standing::speaks(entry)
    }

    /// Carries one object and counts how it ended. Only what ends the run is an error.
    async fn carry(&self, place: &Place, entry: &v1::ObjectEntry) -> Result<(), Failure> {
        let counts = &self.progress.counts;
        let deleted = entry.tombstone || entry.delete_marker;
        if !deleted {
            counts.objects_total.fetch_add(1, Ordering::Relaxed);
            counts.bytes_total.fetch_add(entry.size, Ordering::Relaxed);
        }
        let known = entry.content_known && entry.metadata.as_ref().is_some_and(|metadata| metadata.headers_known);
        // What is in doubt at a provider that is not in force may be older than what was carried of it.
        let in_doubt = self.way == Way::Over && !entry.gap.is_empty();
        let outcome = match (known || deleted) && !in_doubt {
            true => self.follow(place, entry, deleted).await?,
            false => {
                self.tally.unknown.fetch_add(1, Ordering::Relaxed);
                let why = if entry.gap.is_empty() { "the store has no bytes of it" } else { &entry.gap };
                self.progress.trouble("unknown", place, why);
                return Ok(());
            }
        };
        if !deleted {
            counts.objects_done.fetch_add(1, Ordering::Relaxed);
        }
        match outcome {
            Ok(end) => {
                self.tally.unanswered.store(0, Ordering::Relaxed);
                self.count_end(place, entry, end);
                Ok(())
            }
            Err(fault @ (Fault::Credentials { .. } | Fault::NoBucket)) => {
                Err(fault.failure(&self.target.name, &place.to_string()))
            }
            Err(fault) => {
                self.tally.failed.fetch_add(1, Ordering::Relaxed);
                counts.failed.fetch_add(1, Ordering::Relaxed);
                self.progress.trouble("failed", place, &fault.to_string());
                let unanswered = fault.is_unreachable()
                    && self.tally.unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= UNANSWERED_MAX;
                if unanswered { Err(fault.failure(&self.target.name, &place.to_string())) } else { Ok(()) }
            }
        }
    }

    /// Step after step, as [`Carry`] says.
    async fn follow(
        &self,
        place: &Place,
        entry: &v1::ObjectEntry,
        deleted: bool,
    ) -> Result<Result<End, Fault>, Failure> {
        let layout = Layout::plan(entry.size, &entry.parts);
        let guards = match layout {
            Layout::Single => self.ready.put,
            Layout::Parts(_) => self.ready.complete,
        };
        let wanted = if deleted { Wanted::Absence } else { Wanted::Object };
        let unfinished = self.left.lock().unwrap_or_else(PoisonError::into_inner).contains_key(place);
        let doubted = unfinished || self.doubt.load(Ordering::Relaxed);
        let record = self.record(place, entry).await?;
        // What is at the provider in force and not recorded is more likely a pod's newer one than anything else.
        let conflicts = if self.way == Way::Over { Conflicts::KeepTarget } else { self.run.conflicts };
        let mut carry = Carry::begin(wanted, record, guards, conflicts, doubted);
        if self.run.dry_run {
            return Ok(Ok(dry(wanted, &carry.step)));
        }
        let mut head = Head::default();
        let mut written = Written::default();
        loop {
            debug!(%place, step = ?carry.step, "carry");
            let seen = match &carry.step {
                Step::End(end) => {
                    self.landed(place, entry, *end, &head, written).await?;
                    return Ok(Ok(*end));
                }
                Step::Look => match self.target.head(place, None).await {
                    Ok(found) => {
                        head = found;
                        Seen::Head(Some(head.etag.clone()))
                    }
                    Err(Fault::NotFound) => Seen::Head(None),
                    Err(fault) => return Ok(Err(fault)),
                },
                Step::Compare { .. } => match self.is_equal(place, entry, &head).await {
                    Ok(equal) => Seen::Equal(equal),
                    Err(Fault::NotFound | Fault::Precondition) => Seen::Refused,
                    Err(fault) => return Ok(Err(fault)),
                },
                Step::Ask { .. } => match self.is_ours(place, entry, &head).await? {
                    Ok(ours) => Seen::Recorded(ours),
                    Err(Fault::NotFound | Fault::Precondition) => Seen::Refused,
                    Err(fault) => return Ok(Err(fault)),
                },
                Step::Send { when, guarded } => {
                    let shipment = Shipment { entry, place, layout: &layout };
                    match self.send(&shipment, when, *guarded).await? {
                        Ok(answer) => {
                            written = answer;
                            Seen::Written
                        }
                        Err(Fault::Precondition | Fault::NotFound) => Seen::Refused,
                        Err(Fault::Conflict { .. }) => Seen::Busy,
                        Err(fault) => return Ok(Err(fault)),
                    }
                }
                Step::Delete { etag, guarded } => {
                    let guard = if *guarded { Guard::Is(etag.clone()) } else { Guard::None };
                    match self.target.delete(place, &guard).await {
                        Ok(answer) => {
                            written = answer;
                            Seen::Written
                        }
                        Err(Fault::Precondition | Fault::NotFound) => Seen::Refused,
                        Err(Fault::Conflict { .. }) => Seen::Busy,
                        Err(fault) => return Ok(Err(fault)),
                    }
                }
            };
            carry = carry.on(seen);
        }
    }

    /// What the store recorded of the key at the target, as far as it matters.
    async fn record(&self, place: &Place, entry: &v1::ObjectEntry) -> Result<Record, Failure> {
        // After the first round even a fresh bucket has records of ours.
        if self.ready.fresh.contains(&place.bucket) && self.tally.rounds.load(Ordering::Relaxed) == 0 {
            return Ok(Record::Nothing);
        }
        let known = known(&self.run, &self.target.identity, place, "", "").await?;
        Ok(standing::record(self.way, entry, known))
    }

    async fn is_equal(&self, place: &Place, entry: &v1::ObjectEntry, head: &Head) -> Result<bool, Fault> {
        let meant = entry.metadata.clone().unwrap_or_default();
        if compare::metadata(&self.target, place, head, entry.size, &meant).await?.is_some() {
            return Ok(false);
        }
        let object = entry.object.clone().unwrap_or_default();
        compare::bytes(&self.target, place, head, &self.run.store, &object, entry.tick).await
    }

    /// Whether what is there was recorded once, or is what an earlier run was about to write.
    async fn is_ours(
        &self,
        place: &Place,
        entry: &v1::ObjectEntry,
        head: &Head,
    ) -> Result<Result<bool, Fault>, Failure> {
        let known = known(&self.run, &self.target.identity, place, &head.etag, &head.version_id).await?;
        let recorded = match self.way {
            Way::Forward => known.recorded,
            // Where pods write, what was recorded once may have come after all the same.
            Way::Over => match standing::record(self.way, entry, known) {
                Record::Older { etag } => etag == head.etag,
                Record::Nothing | Record::Same { .. } | Record::Gone | Record::Newer => false,
            },
        };
        if recorded {
            return Ok(Ok(true));
        }
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner).get(place).cloned();
        let Some(v1::Checkpoint { source: Some(source), source_tick, .. }) = left else { return Ok(Ok(false)) };
        Ok(compare::bytes(&self.target, place, head, &self.run.store, &source, source_tick).await)
    }

    /// Tells the store what is at the target now.
    async fn landed(
        &self,
        place: &Place,
        entry: &v1::ObjectEntry,
        end: End,
        head: &Head,
        written: Written,
    ) -> Result<(), Failure> {
        let (etag, version_id, last_modified) = match end {
            End::Adopted => (head.etag.clone(), head.version_id.clone(), head.last_modified.clone()),
            End::Sent | End::Deleted => (written.etag, written.version_id, String::new()),
            End::There | End::Nothing | End::Newer | End::Kept | End::Foreign | End::Restless => return Ok(()),
        };
        let landed = v1::LandedObject {
            source: entry.object.clone(),
            source_tick: entry.tick,
            target: Some(self.object_ref(place)),
            etag,
            version_id,
            deleted: end == End::Deleted,
            adopted: end == End::Adopted,
            last_modified,
        };
        self.landing.tell(landed).await
    }

    fn count_end(&self, place: &Place, entry: &v1::ObjectEntry, end: End) {
        let tally = &self.tally;
        let done = || self.progress.counts.bytes_done.fetch_add(entry.size, Ordering::Relaxed);
        match end {
            End::Sent if self.run.dry_run => {
                self.progress.item("send", place, entry.size);
                tally.bytes_sent.fetch_add(entry.size, Ordering::Relaxed);
            }
            End::Deleted if self.run.dry_run => self.progress.item("delete", place, 0),
            End::There | End::Adopted => {
                done();
            }
            End::Foreign => {
                self.progress.trouble("conflict", place, "a foreign object is there");
                self.progress.counts.conflicts.fetch_add(1, Ordering::Relaxed);
            }
            End::Restless => self.progress.trouble("failed", place, "it keeps changing at the target"),
            End::Sent | End::Deleted | End::Nothing | End::Newer | End::Kept => {}
        }
        let count = match end {
            End::Sent => &tally.sent,
            End::Adopted => &tally.adopted,
            End::There => &tally.there,
            End::Deleted => &tally.deleted,
            End::Newer => &tally.newer,
            End::Kept if self.way == Way::Over => &tally.newer,
            End::Kept => &tally.kept,
            End::Foreign => &tally.foreign,
            End::Restless => &tally.failed,
            End::Nothing => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a dry run says of the first step: a look would be taken, and most likely find what is recorded.
fn dry(wanted: Wanted, step: &Step) -> End {
    match (step, wanted) {
        (Step::End(end), _) => *end,
        (_, Wanted::Object) => End::Sent,
        (_, Wanted::Absence) => End::Deleted,
    }
}

//! The Migration service: backfill, what replicate asks and tells, and the provider in force. Whatever
//! changes something carries the binding's lease, of which there is one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use hawser_api::v1;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::reading::paged;
use super::{Held, Migrating, Service, blocking, commit_status, list_status};
use crate::catalog::entry::{BackfillBegun, BackfillEnded, Checkpointed, Fact, Leased};
use crate::catalog::{
    Answer, BackfillRow, BindingRow, CHANGED, Catalog, FACTS, FENCED, Later, Rows, Said, UNDER_WAY, backfill_key,
    compare, decode, lease_key, lease_keys,
};
use crate::domain::Domain;
use crate::index::IndexError;
use crate::names::DomainId;

/// Checkpoints in one call.
const CHECKPOINTS_MAX: usize = 256;

type Stream<T> = ReceiverStream<Result<T, Status>>;

/// A tick that a caller heard before it asked its cloud, as far as it can be believed. One of another life of the
/// store may have been given out again for something later: it orders after nothing.
fn heard(service: &Service, incarnation: u64, tick: u64) -> u64 {
    let mut stamp = Some(v1::Stamp { incarnation, tick, counter: 0 });
    super::believe(service, &mut stamp);
    stamp.map_or(0, |stamp| stamp.tick)
}

/// Leases that were held when the store last ran: they start anew.
pub(super) fn load(catalog: &Catalog) -> Result<HashMap<(DomainId, String), Held>, IndexError> {
    let mut leases = HashMap::new();
    for domain in catalog.store().domains() {
        let keys = lease_keys(domain.id());
        let view = catalog.store().view();
        for pair in view.scan(FACTS, &keys) {
            let (key, value) = pair?;
            let row: Leased = decode(FACTS, &value)?;
            let binding = String::from_utf8_lossy(key.get(5..).unwrap_or_default()).into_owned();
            if !row.released {
                let held = Held {
                    id: row.id,
                    epoch: row.epoch,
                    holder: row.holder,
                    binding_uid: row.binding_uid,
                    migration_epoch: row.migration_epoch,
                    heard: Instant::now(),
                };
                leases.insert((domain.id(), binding), held);
            }
        }
    }
    Ok(leases)
}

#[tonic::async_trait]
impl v1::migration_server::Migration for Migrating {
    type ListAbsentStream = Stream<v1::ObjectEntry>;
    type ChangesStream = Stream<v1::Change>;
    type ListCheckpointsStream = Stream<v1::Checkpoint>;

    async fn register(&self, request: Request<v1::Hello>) -> Result<Response<v1::Welcome>, Status> {
        let domain = self.0.domain(request.metadata()).await?;
        let mut hello = request.into_inner();
        hello.session = Bytes::new(); // a session lives on a stream
        self.0.welcome(&domain, &mut hello).await.map(Response::new)
    }

    async fn acquire_lease(&self, request: Request<v1::AcquireLeaseRequest>) -> Result<Response<v1::Lease>, Status> {
        let service = &self.0;
        let domain = service.domain(request.metadata()).await?;
        let request = request.into_inner();
        let _one_at_a_time = service.migrating.lock().await;
        let row = service.binding(&domain, &request.binding)?;
        stale(&row, &request)?;
        let key = (domain.id(), request.binding.clone());
        let lease = service.sessions.times().lease;
        if let Some(held) = service.lock_leases().get(&key).filter(|held| held.heard.elapsed() < lease) {
            let (holder, left) = (&held.holder, lease.saturating_sub(held.heard.elapsed()).as_secs() + 1);
            return Err(Status::failed_precondition(format!(
                "{holder} holds binding {}: wait until it is done, or {left} s if it is gone",
                request.binding
            )));
        }
        let before: Leased = {
            let view = service.catalog.store().view();
            let row = view.row(FACTS, &lease_key(domain.id(), &request.binding));
            row.map_err(|error| list_status(error.into()))?.unwrap_or_default()
        };
        let (id, epoch) = (rand::random_range(1..=u64::MAX), before.epoch + 1);
        let leased = Leased {
            id,
            epoch,
            holder: request.holder.clone(),
            released: false,
            binding_uid: request.binding_uid.clone(),
            migration_epoch: request.migration_epoch,
        };
        service.commit(&domain, &request.binding, Fact::Leased(leased)).await?;
        let held = Held {
            id,
            epoch,
            holder: request.holder,
            binding_uid: request.binding_uid,
            migration_epoch: request.migration_epoch,
            heard: Instant::now(),
        };
        service.lock_leases().insert(key, held);
        Ok(Response::new(service.lease(id, epoch, request.binding)))
    }

    async fn renew_lease(&self, request: Request<v1::Lease>) -> Result<Response<v1::Lease>, Status> {
        let domain = self.0.domain(request.metadata()).await?;
        let lease = request.into_inner();
        self.0.holds(&domain, Some(&lease))?;
        Ok(Response::new(self.0.lease(lease.id, lease.epoch, lease.binding)))
    }

    async fn release_lease(&self, request: Request<v1::Lease>) -> Result<Response<v1::Done>, Status> {
        let service = &self.0;
        let domain = service.domain(request.metadata()).await?;
        let lease = request.into_inner();
        let _one_at_a_time = service.migrating.lock().await;
        let binding = service.holds(&domain, Some(&lease))?;
        let leased = Leased { id: lease.id, epoch: lease.epoch, released: true, ..Leased::default() };
        service.commit(&domain, &binding, Fact::Leased(leased)).await?;
        service.lock_leases().remove(&(domain.id(), binding));
        Ok(Response::new(v1::Done {}))
    }

    async fn begin_backfill(
        &self,
        request: Request<v1::BeginBackfillRequest>,
    ) -> Result<Response<v1::BeginBackfillReply>, Status> {
        let service = &self.0;
        let domain = service.domain(request.metadata()).await?;
        let request = request.into_inner();
        let binding = service.holds(&domain, request.lease.as_ref())?;
        let row = service.binding(&domain, &binding)?;
        if !row.hello.providers.iter().any(|provider| provider.identity == request.provider) {
            return Err(Status::invalid_argument(format!("{} is no provider of binding {binding}", request.provider)));
        }
        // What the caller lists from now on, it lists after everything that is durable now.
        let begin_tick = service.durable_tick();
        let begun = BackfillBegun { provider: request.provider.clone(), prefix: request.prefix, begin_tick };
        let (_, answer) = service.commit(&domain, &binding, Fact::BackfillBegun(begun)).await?;
        let (catalog, id) = (Arc::clone(&service.catalog), domain.id());
        let recorded = blocking(move || catalog.buckets_at(id, &row, &request.provider)).await?;
        Ok(Response::new(v1::BeginBackfillReply { backfill: answer.id, begin_tick, recorded }))
    }

    async fn reconcile_page(
        &self,
        request: Request<v1::ReconcilePageRequest>,
    ) -> Result<Response<v1::ReconcilePageReply>, Status> {
        let service = &self.0;
        let domain = service.domain(request.metadata()).await?;
        let mut page = request.into_inner();
        let binding = service.holds(&domain, page.lease.as_ref())?;
        let backfill = service.backfill(&domain, page.backfill, &binding)?;
        page.begin_tick = heard(service, page.incarnation, page.begin_tick);
        page.objects.sort_by(|a, b| a.key.cmp(&b.key));
        let (catalog, id) = (Arc::clone(&service.catalog), domain.id());
        let compared = blocking(move || {
            let view = catalog.store().view();
            Ok(compare(&view, id, &backfill.begun.provider, &page, &backfill.begun.prefix)?)
        })
        .await?;
        let reply = v1::ReconcilePageReply {
            fetch: compared.fetch,
            confirmed: compared.entry.held_objects,
            confirmed_bytes: compared.entry.held_bytes,
        };
        service.commit(&domain, &binding, Fact::Reconciled(compared.entry)).await?;
        Ok(Response::new(reply))
    }

    async fn list_absent(
        &self,
        request: Request<v1::ListAbsentRequest>,
    ) -> Result<Response<Self::ListAbsentStream>, Status> {
        let service = &self.0;
        let domain = service.domain(request.metadata()).await?;
        let request = request.into_inner();
        let binding = service.holds(&domain, request.lease.as_ref())?;
        let backfill = service.backfill(&domain, request.backfill, &binding)?;
        let row = service.binding(&domain, &binding)?;
        let (catalog, id) = (Arc::clone(&service.catalog), domain.id());
        Ok(Response::new(paged(None, move |from| {
            let (entries, next) = catalog.absent(id, &row, &backfill.begun.provider, &request, from)?;
            Ok((entries, next.map(Some)))
        })))
    }

    async fn confirm_absent(
        &self,
        request: Request<v1::ConfirmAbsentRequest>,
    ) -> Result<Response<v1::ConfirmAbsentReply>, Status> {
        let service = &self.0;
        let domain = service.domain(request.metadata()).await?;
        let mut request = request.into_inner();
        let binding = service.holds(&domain, request.lease.as_ref())?;
        let backfill = service.backfill(&domain, request.backfill, &binding)?;
        let Some(object) = &request.object else { return Err(Status::invalid_argument("name the object")) };
        if object.provider != backfill.begun.provider {
            return Err(Status::invalid_argument("a listing speaks only of its own provider"));
        }
        request.begin_tick = heard(service, request.incarnation, request.begin_tick);
        let found = request.found;
        let (_, answer) = service.commit(&domain, &binding, Fact::Absent(request)).await?;
        let why = if found { "HEAD found it: an alias".into() } else { answer.refused };
        Ok(Response::new(v1::ConfirmAbsentReply { tombstoned: why.is_empty(), kept_because: why }))
    }

    async fn end_backfill(
        &self,
        request: Request<v1::EndBackfillRequest>,
    ) -> Result<Response<v1::EndBackfillReply>, Status> {
        let service = &self.0;
        let domain = service.domain(request.metadata()).await?;
        let request = request.into_inner();
        let binding = service.holds(&domain, request.lease.as_ref())?;
        let backfill = service.backfill(&domain, request.backfill, &binding)?;
        let complete = request.complete && request.failed == 0;
        let ended = BackfillEnded { backfill: request.backfill, complete };
        let (_, answer) = service.commit(&domain, &binding, Fact::BackfillEnded(ended)).await?;
        let (catalog, id, begun) = (Arc::clone(&service.catalog), domain.id(), backfill.begun);
        let (open, later) = blocking(move || {
            let open = catalog.open_gaps(id, &binding, &begun.provider)?;
            Ok((open.values().sum(), catalog.closable_later(id, &binding, &begun.provider, begun.begin_tick)?))
        })
        .await?;
        // One step of the watch on top: it looks that often.
        let settle = service.sessions.times().settle.as_millis().div_ceil(1000) + 1;
        let settling_seconds = match later {
            Later { settling: true, .. } => u64::try_from(settle).unwrap_or(u64::MAX),
            Later { at_once: true, .. } => 1,
            Later { .. } => 0,
        };
        Ok(Response::new(v1::EndBackfillReply { coverage: answer.coverage, gaps_open: open, settling_seconds }))
    }

    async fn changes(&self, request: Request<v1::ChangesRequest>) -> Result<Response<Self::ChangesStream>, Status> {
        let service = &self.0;
        let domain = service.domain(request.metadata()).await?;
        let request = request.into_inner();
        let binding = service.holds(&domain, request.lease.as_ref())?;
        let row = service.binding(&domain, &binding)?;
        let (catalog, id) = (Arc::clone(&service.catalog), domain.id());
        // The first page's tick counts: what changes while later pages are read may be told twice, never not.
        let mut through = None;
        Ok(Response::new(paged(None, move |from| {
            let page = catalog.changes(id, &row, &request, from)?;
            let through = *through.get_or_insert(page.through_tick);
            let mut changes: Vec<v1::Change> =
                page.entries.into_iter().map(|entry| change(v1::change::Change::Object(entry))).collect();
            if page.next.is_none() {
                changes.push(change(v1::change::Change::ThroughTick(through)));
            }
            Ok((changes, page.next.map(Some)))
        })))
    }

    async fn known(&self, request: Request<v1::KnownRequest>) -> Result<Response<v1::KnownReply>, Status> {
        let domain = self.0.domain(request.metadata()).await?;
        let catalog = Arc::clone(&self.0.catalog);
        let request = request.into_inner();
        blocking(move || catalog.known(domain.id(), &request)).await.map(Response::new)
    }

    async fn put_checkpoint(&self, request: Request<v1::Checkpoint>) -> Result<Response<v1::Done>, Status> {
        let domain = self.0.domain(request.metadata()).await?;
        let checkpoint = request.into_inner();
        let lease = checkpoint.lease.clone();
        self.0.put_checkpoints(&domain, lease, vec![checkpoint]).await
    }

    async fn put_checkpoints(&self, request: Request<v1::PutCheckpointsRequest>) -> Result<Response<v1::Done>, Status> {
        let domain = self.0.domain(request.metadata()).await?;
        let request = request.into_inner();
        self.0.put_checkpoints(&domain, request.lease, request.checkpoints).await
    }

    async fn list_checkpoints(
        &self,
        request: Request<v1::ListCheckpointsRequest>,
    ) -> Result<Response<Self::ListCheckpointsStream>, Status> {
        let service = &self.0;
        let domain = service.domain(request.metadata()).await?;
        let request = request.into_inner();
        let binding = service.holds(&domain, request.lease.as_ref())?;
        let (catalog, id) = (Arc::clone(&service.catalog), domain.id());
        Ok(Response::new(paged(None, move |from| {
            let (checkpoints, next) = catalog.checkpoints(id, &binding, &request.target, from)?;
            Ok((checkpoints, next.map(Some)))
        })))
    }

    async fn landed(&self, request: Request<v1::LandedRequest>) -> Result<Response<v1::LandedReply>, Status> {
        let service = &self.0;
        let domain = service.domain(request.metadata()).await?;
        let request = request.into_inner();
        let binding = service.holds(&domain, request.lease.as_ref())?;
        let (tick, answer) = service.commit(&domain, &binding, Fact::Landed(request)).await?;
        refusal(&answer)?;
        Ok(Response::new(v1::LandedReply { tick }))
    }

    async fn set_force(&self, request: Request<v1::SetForceRequest>) -> Result<Response<v1::SetForceReply>, Status> {
        let service = &self.0;
        let domain = service.domain(request.metadata()).await?;
        let request = request.into_inner();
        let _one_at_a_time = service.migrating.lock().await;
        let binding = service.holds(&domain, request.lease.as_ref())?;
        let row = service.binding(&domain, &binding)?;
        let (catalog, id, expected) = (Arc::clone(&service.catalog), domain.id(), request.expected.clone());
        let (asked, of) = (row.clone(), binding.clone());
        let (gaps, unconfirmed) =
            blocking(move || Ok((catalog.open_gaps(id, &of, &expected)?, catalog.unconfirmed(id, &asked, &expected)?)))
                .await?;
        let covered = row.coverage.contains_key(&request.expected);
        let why_not = if row.force != request.expected {
            format!("{} is in force, not {}", row.force, request.expected)
        } else if !row.hello.providers.iter().any(|provider| provider.identity == request.provider) {
            format!("{} is no provider of the binding", request.provider)
        } else if !gaps.is_empty() && !request.accept_gaps {
            let reasons: Vec<String> = gaps.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            format!(
                "gaps are open ({}): run a backfill, or set spec.migration.accept: [MissingObjects]",
                reasons.join(", ")
            )
        } else if !covered && !request.accept_gaps {
            format!(
                "no complete backfill of {} has ended: run one, or set spec.migration.accept: [MissingObjects]",
                request.expected
            )
        } else {
            let (_, answer) = service.commit(&domain, &binding, Fact::Forced(request)).await?;
            answer.refused
        };
        let behind = why_not == CHANGED || why_not == UNDER_WAY;
        Ok(Response::new(v1::SetForceReply { moved: why_not.is_empty(), why_not, unconfirmed, behind }))
    }

    async fn report_progress(&self, request: Request<v1::Progress>) -> Result<Response<v1::Done>, Status> {
        let domain = self.0.domain(request.metadata()).await?;
        let mut progress = request.into_inner();
        let binding = self.0.holds(&domain, progress.lease.as_ref())?;
        let held = progress.lease.take(); // nobody else may use it
        let leases = self.0.lock_leases();
        let ours = leases
            .get(&(domain.id(), binding.clone()))
            .filter(|held_now| held.is_some_and(|held| held.id == held_now.id));
        progress.migration_epoch = ours.map_or(0, |held| held.migration_epoch);
        drop(leases);
        self.0.lock_progress().insert((domain.id(), binding), progress);
        Ok(Response::new(v1::Done {}))
    }
}

impl Service {
    /// Makes sure that a lease is the binding's present one, and keeps it; gives the binding.
    fn holds(&self, domain: &Domain, lease: Option<&v1::Lease>) -> Result<String, Status> {
        let lease = lease.ok_or_else(|| Status::invalid_argument("this call needs the binding's lease"))?;
        let lost = || Status::failed_precondition(FENCED);
        let mut leases = self.lock_leases();
        let held = leases.get_mut(&(domain.id(), lease.binding.clone())).ok_or_else(lost)?;
        let ours = held.id == lease.id && held.epoch == lease.epoch;
        if !ours || held.heard.elapsed() >= self.sessions.times().lease {
            return Err(lost());
        }
        held.heard = Instant::now();
        Ok(lease.binding.clone())
    }

    fn lease(&self, id: u64, epoch: u64, binding: String) -> v1::Lease {
        let seconds = self.sessions.times().lease.as_millis().div_ceil(1000);
        v1::Lease { id, epoch, seconds: u32::try_from(seconds).unwrap_or(u32::MAX), binding }
    }

    fn binding(&self, domain: &Domain, binding: &str) -> Result<BindingRow, Status> {
        let row = self.catalog.binding(domain.id(), binding).map_err(list_status)?;
        row.ok_or_else(|| Status::not_found(format!("binding {binding} is not known: register it first")))
    }

    fn backfill(&self, domain: &Domain, id: u64, binding: &str) -> Result<BackfillRow, Status> {
        let view = self.catalog.store().view();
        let row: Option<BackfillRow> =
            view.row(FACTS, &backfill_key(domain.id(), id)).map_err(|error| list_status(error.into()))?;
        row.filter(|row| !row.ended && row.binding == binding)
            .ok_or_else(|| Status::failed_precondition(format!("backfill {id} is over or was never begun")))
    }

    async fn commit(&self, domain: &Domain, binding: &str, fact: Fact) -> Result<(u64, Answer), Status> {
        let said = Said::by_store(binding, fact);
        self.catalog.commit(domain, said, &[]).await.map_err(|error| commit_status(&error))
    }

    async fn put_checkpoints(
        &self,
        domain: &Domain,
        lease: Option<v1::Lease>,
        checkpoints: Vec<v1::Checkpoint>,
    ) -> Result<Response<v1::Done>, Status> {
        let binding = self.holds(domain, lease.as_ref())?;
        if checkpoints.len() > CHECKPOINTS_MAX {
            return Err(Status::invalid_argument(format!("at most {CHECKPOINTS_MAX} checkpoints in one call")));
        }
        self.commit(domain, &binding, Fact::Checkpointed(Checkpointed { checkpoints })).await?;
        Ok(Response::new(v1::Done {}))
    }
}

fn change(change: v1::change::Change) -> v1::Change {
    v1::Change { change: Some(change) }
}

/// Whether a Job is of another binding, or of another migration of it, than the store knows.
fn stale(row: &BindingRow, request: &v1::AcquireLeaseRequest) -> Result<(), Status> {
    let (uid, epoch) = (&request.binding_uid, request.migration_epoch);
    if !uid.is_empty() && !row.uid.is_empty() && (*uid != row.uid || row.forgotten) {
        return Err(Status::aborted(format!("binding {} is another one now: this Job is over", request.binding)));
    }
    if epoch != 0 && epoch != row.migration.epoch {
        let now = row.migration.epoch;
        return Err(Status::aborted(format!(
            "this Job is of migration {epoch}, and {now} is the present one: it is over"
        )));
    }
    Ok(())
}

fn refusal(answer: &Answer) -> Result<(), Status> {
    if answer.refused.is_empty() { Ok(()) } else { Err(Status::failed_precondition(answer.refused.clone())) }
}

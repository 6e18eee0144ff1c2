//! The Operator service: which bindings a cluster has, which migration of each is the present one, and one stream
//! of everything that the operator shows of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hawser_api::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Controlling, Service, blocking, commit_status, list_status};
use crate::catalog::entry::{Fact, Registered};
use crate::catalog::{BindingRow, Catalog, ListError, RAISED, Said, check_hello, now_unix};
use crate::domain::Domain;
use crate::names::DomainId;

/// How often a stream looks for what has changed: progress and pods arrive within it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Counting the bindings' objects and gaps again waits at least so long, and a twentieth of the time at most goes
/// into it: it reads the index.
const COUNT_EVERY: Duration = Duration::from_secs(2);
const COUNT_SHARE: u32 = 20;

/// Reports that wait for a slow operator; past it, it hears later, and of the newest state alone.
const REPORTS_AHEAD: usize = 64;

/// Pods that a report names; it counts the others.
const PODS_NAMED_MAX: usize = 100;

/// Longer names are none of Kubernetes.
const NAME_LEN_MAX: usize = 253;

#[tonic::async_trait]
impl v1::operator_server::Operator for Controlling {
    type WatchStream = ReceiverStream<Result<v1::WatchEvent, Status>>;

    async fn register_binding(
        &self,
        request: Request<v1::RegisterBindingRequest>,
    ) -> Result<Response<v1::BindingReport>, Status> {
        let service = &self.0;
        service.auth.operator(request.metadata()).await?;
        let request = request.into_inner();
        let name = named(request.name)?;
        let mut hello = request.binding.unwrap_or_default();
        hello.binding.clone_from(&name.binding);
        hello.namespace.clone_from(&name.namespace);
        (hello.session, hello.role, hello.client, hello.pod) = (Bytes::new(), 0, String::new(), None);
        hello.open_operations.clear();
        check_hello(&hello).map_err(Status::invalid_argument)?;
        let domain = service.domain_named(&name.domain)?;
        let _one_at_a_time = service.hello.lock().await;
        let known = service.catalog.binding(domain.id(), &name.binding).map_err(list_status)?;
        let same =
            known.as_ref().is_some_and(|row| row.hello == hello && row.uid == name.binding_uid && !row.forgotten);
        if !same {
            let registered = Registered { hello, uid: name.binding_uid.clone() };
            service.tell(&domain, &name.binding, Fact::Registered(registered)).await?;
            service.revoke(&domain, &name.binding, |held| {
                !held.binding_uid.is_empty() && held.binding_uid != name.binding_uid
            });
        }
        let row = service.registered(&domain, &name.binding)?;
        let catalog = Arc::clone(&service.catalog);
        let (id, binding) = (domain.id(), name.binding);
        let status = blocking(move || one_status(&catalog, id, &binding)).await?;
        Ok(Response::new(service.report(&domain, &row, status)))
    }

    async fn forget_binding(&self, request: Request<v1::ForgetBindingRequest>) -> Result<Response<v1::Done>, Status> {
        let service = &self.0;
        service.auth.operator(request.metadata()).await?;
        let name = named(request.into_inner().name)?;
        let domain = service.domain_named(&name.domain)?;
        let _one_at_a_time = service.hello.lock().await;
        let known = service.catalog.binding(domain.id(), &name.binding).map_err(list_status)?;
        if known.is_some_and(|row| row.uid == name.binding_uid && !row.forgotten) {
            service.tell(&domain, &name.binding.clone(), Fact::Forgotten(name.clone())).await?;
            service.revoke(&domain, &name.binding, |held| !held.binding_uid.is_empty());
        }
        Ok(Response::new(v1::Done {}))
    }

    async fn start_migration(
        &self,
        request: Request<v1::StartMigrationRequest>,
    ) -> Result<Response<v1::MigrationEpoch>, Status> {
        let service = &self.0;
        service.auth.operator(request.metadata()).await?;
        let request = request.into_inner();
        let name = named(request.name.clone())?;
        let domain = service.domain_named(&name.domain)?;
        let _one_at_a_time = service.migrating.lock().await;
        let row = service.registered(&domain, &name.binding)?;
        if row.uid != name.binding_uid {
            return Err(Status::aborted("another binding of this name has come: look at it again"));
        }
        let present = row.migration;
        let same =
            present.source == request.source && present.target == request.target && present.dry_run == request.dry_run;
        if present.epoch > 0 && same {
            return Ok(Response::new(present));
        }
        if present.epoch != request.expected {
            return Err(Status::aborted(RAISED));
        }
        if row.force != request.source {
            return Err(Status::failed_precondition(format!("{} is in force, not {}", row.force, request.source)));
        }
        if !row.hello.providers.iter().any(|provider| provider.identity == request.target) {
            return Err(Status::failed_precondition(format!("{} is no provider of the binding", request.target)));
        }
        service.tell(&domain, &name.binding, Fact::EpochRaised(request)).await?;
        let row = service.registered(&domain, &name.binding)?;
        let epoch = row.migration.epoch;
        service.revoke(&domain, &name.binding, |held| held.migration_epoch != 0 && held.migration_epoch < epoch);
        service.lock_progress().remove(&(domain.id(), name.binding));
        Ok(Response::new(row.migration))
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.0.auth.operator(request.metadata()).await?;
        let (events, down) = mpsc::channel(REPORTS_AHEAD);
        let service = Arc::clone(&self.0);
        // It ends with its reader or with the store.
        tokio::spawn(async move {
            let closed = service.closed();
            tokio::select! {
                () = watch(&service, &events) => {}
                () = closed => {}
                () = events.closed() => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(down)))
    }
}

/// What was last told of a binding.
struct Told {
    report: v1::BindingReport,
    /// The last tick of its domain when it was counted.
    touched: u64,
}

async fn watch(service: &Arc<Service>, events: &mpsc::Sender<Result<v1::WatchEvent, Status>>) {
    use v1::watch_event::Event;
    let mut told: HashMap<(DomainId, String), Told> = HashMap::new();
    let mut synced = false;
    let mut count_again = Instant::now();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let count = Instant::now() >= count_again;
        let (found, counting) = match look(service, &mut told, count).await {
            Ok(found) => found,
            Err(status) => return drop(events.send(Err(status)).await),
        };
        if count {
            count_again = Instant::now() + COUNT_EVERY.max(counting * COUNT_SHARE);
        }
        for report in found {
            if events.send(Ok(event(Event::Binding(report)))).await.is_err() {
                return;
            }
        }
        let first = !std::mem::replace(&mut synced, true);
        if first && events.send(Ok(event(Event::Synced(v1::Synced {})))).await.is_err() {
            return;
        }
    }
}

/// The reports that differ from what was told, and how long counting took. With `count`, bindings are counted
/// again in whose domain something was recorded; new ones always are.
async fn look(
    service: &Arc<Service>,
    told: &mut HashMap<(DomainId, String), Told>,
    count: bool,
) -> Result<(Vec<v1::BindingReport>, Duration), Status> {
    let (mut found, mut counting) = (Vec::new(), Duration::ZERO);
    for domain in service.catalog.store().domains() {
        let id = domain.id();
        for row in service.catalog.bindings(id).map_err(list_status)? {
            let key = (id, row.hello.binding.clone());
            if row.uid.is_empty() || (row.forgotten && !told.contains_key(&key)) {
                continue;
            }
            let now = service.catalog.touched(id);
            let before = told.get(&key);
            let (status, touched) = match before.filter(|told| !count || told.touched == now) {
                Some(told) => (told.report.status.clone(), told.touched),
                None => {
                    let began = Instant::now();
                    let (catalog, binding) = (Arc::clone(&service.catalog), key.1.clone());
                    let status = blocking(move || one_status(&catalog, id, &binding)).await?;
                    counting += began.elapsed();
                    (status, now)
                }
            };
            let mut report = service.report(&domain, &row, status);
            if row.forgotten {
                told.remove(&key);
                found.push(report);
                continue;
            }
            let clock = std::mem::take(&mut report.now_unix);
            if before.is_none_or(|told| told.report != report) {
                found.push(v1::BindingReport { now_unix: clock, ..report.clone() });
            }
            told.insert(key, Told { report, touched });
        }
    }
    Ok((found, counting))
}

fn one_status(catalog: &Catalog, domain: DomainId, binding: &str) -> Result<Option<v1::BindingStatus>, ListError> {
    Ok(catalog.status_of_bindings(domain, binding)?.pop())
}

fn event(event: v1::watch_event::Event) -> v1::WatchEvent {
    v1::WatchEvent { event: Some(event) }
}

/// A binding's full name, checked.
fn named(name: Option<v1::BindingName>) -> Result<v1::BindingName, Status> {
    let name = name.unwrap_or_default();
    for (what, text) in [
        ("domain", &name.domain),
        ("namespace", &name.namespace),
        ("binding", &name.binding),
        ("binding_uid", &name.binding_uid),
    ] {
        if text.is_empty() || text.len() > NAME_LEN_MAX {
            return Err(Status::invalid_argument(format!("{what} must have 1 to {NAME_LEN_MAX} characters")));
        }
    }
    Ok(name)
}

impl Service {
    fn report(&self, domain: &Domain, row: &BindingRow, status: Option<v1::BindingStatus>) -> v1::BindingReport {
        let binding = &row.hello.binding;
        let pods = self.sessions.pods(domain.id(), binding);
        let mut unprotected: Vec<v1::Pod> = pods.iter().filter(|pod| !pod.unprotected.is_empty()).cloned().collect();
        let unprotected_pods = unprotected.len() as u64;
        unprotected.truncate(PODS_NAMED_MAX);
        let status = status.map(|mut status| {
            status.sessions = self.sessions.count(domain.id(), binding);
            status.progress = self.lock_progress().get(&(domain.id(), binding.clone())).cloned();
            status
        });
        v1::BindingReport {
            name: Some(v1::BindingName {
                domain: domain.name().to_owned(),
                namespace: row.hello.namespace.clone(),
                binding: binding.clone(),
                binding_uid: row.uid.clone(),
            }),
            migration: Some(row.migration.clone()),
            status,
            now_unix: now_unix(),
            pods: pods.len() as u64,
            unprotected,
            unprotected_pods,
            forgotten: row.forgotten,
        }
    }

    /// A binding that the operator told.
    fn registered(&self, domain: &Domain, binding: &str) -> Result<BindingRow, Status> {
        let row = self.catalog.binding(domain.id(), binding).map_err(list_status)?;
        row.filter(|row| !row.uid.is_empty() && !row.forgotten)
            .ok_or_else(|| Status::not_found(format!("binding {binding} is not registered")))
    }

    async fn tell(&self, domain: &Domain, binding: &str, fact: Fact) -> Result<(), Status> {
        let said = Said::by_store(binding, fact);
        let (_, answer) = self.catalog.commit(domain, said, &[]).await.map_err(|error| commit_status(&error))?;
        match answer.refused.as_str() {
            "" => Ok(()),
            RAISED => Err(Status::aborted(RAISED)),
            why => Err(Status::failed_precondition(why)),
        }
    }

    /// Forgets a lease that the log took from its holder.
    fn revoke(&self, domain: &Domain, binding: &str, which: impl FnOnce(&super::Held) -> bool) {
        let key = (domain.id(), binding.to_owned());
        let mut leases = self.lock_leases();
        if leases.get(&key).is_some_and(which) {
            leases.remove(&key);
        }
    }
}

//! The store, as the operator speaks to it: what it is told of bindings, and what it tells of them.
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt;
use hawser_api::connect::{self, Caller, ConnectError};
use hawser_api::v1::operator_client::OperatorClient;
use hawser_api::v1::watch_event::Event;
use hawser_api::{CloudBinding, v1};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::caches::{Due, Queue};
use crate::outcome::{AGAIN, Outcome, SOON};

/// A call that takes longer has failed: nothing that the operator asks is much work.
const CALL: Duration = Duration::from_secs(20);
/// Between two tries to watch.
const PAUSE: Duration = Duration::from_secs(2);
/// Tries after which bindings say that the store is away.
const TRIES_UNTIL_SILENT: u64 = 5;

type Client = OperatorClient<InterceptedService<Channel, Caller>>;

/// The store. Clones share what it told.
#[derive(Clone)]
pub struct Store {
    client: Client,
    told: Arc<RwLock<Told>>,
}

#[derive(Default)]
struct Told {
    /// By domain and binding.
    reports: HashMap<(String, String), v1::BindingReport>,
    /// Whether the present stream has told every binding.
    synced: bool,
}

impl Store {
    /// The store at `at`, whose certificate `ca` signed. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn new(at: &connect::Store, ca: &str) -> Result<Store, ConnectError> {
        let (channel, caller) = at.channel_trusting(ca.as_bytes())?;
        let client = OperatorClient::with_interceptor(channel, caller);
        Ok(Store { client, told: Arc::default() })
    }

    /// What the store told of a binding last.
    pub fn report(&self, domain: &str, binding: &str) -> Option<v1::BindingReport> {
        let told = self.told.read().unwrap_or_else(PoisonError::into_inner);
        told.reports.get(&(domain.to_owned(), binding.to_owned())).cloned()
    }

    /// Whether the store has told everything that it knows, and goes on telling.
    pub fn is_synced(&self) -> bool {
        self.told.read().unwrap_or_else(PoisonError::into_inner).synced
    }

    /// Every binding that the store knows.
    pub fn known(&self) -> Vec<v1::BindingName> {
        let told = self.told.read().unwrap_or_else(PoisonError::into_inner);
        told.reports.values().filter_map(|report| report.name.clone()).collect()
    }

    fn keep(&self, report: v1::BindingReport) -> Option<v1::BindingName> {
        let name = report.name.clone()?;
        let mut told = self.told.write().unwrap_or_else(PoisonError::into_inner);
        let key = (name.domain.clone(), name.binding.clone());
        match report.forgotten {
            true => drop(told.reports.remove(&key)),
            false => drop(told.reports.insert(key, report)),
        }
        Some(name)
    }

    /// Forgets what it was told: a new term as leader believes nothing of an earlier one.
    pub fn begin(&self) {
        self.replace(Told::default());
    }

    fn replace(&self, told: Told) {
        *self.told.write().unwrap_or_else(PoisonError::into_inner) = told;
    }

    /// Listens to the store for ever; what it tells makes its binding due, and so does its silence.
    pub async fn watch(self, due: Queue) {
        let mut failures = 0_u64;
        loop {
            let ended = self.listen(&due).await;
            let was_synced = std::mem::take(&mut self.told.write().unwrap_or_else(PoisonError::into_inner).synced);
            failures = if was_synced { 0 } else { failures + 1 };
            // Told once a silence, which may last for hours; a restart of the store is over before the second try.
            if failures == TRIES_UNTIL_SILENT {
                if let Err(status) = ended {
                    tracing::warn!(code = ?status.code(), message = status.message(), "the store does not tell of its bindings");
                }
                due.put(Due::All).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn listen(&self, due: &Queue) -> Result<(), Status> {
        let mut events = self.client.clone().watch(v1::WatchRequest {}).await?.into_inner();
        let mut present = HashMap::new();
        let mut synced = false;
        while let Some(event) = events.next().await {
            match event?.event {
                Some(Event::Binding(report)) => {
                    let Some(name) = self.keep(report.clone()) else { continue };
                    if synced {
                        let one = ObjectRef::new(&name.binding).within(&name.namespace);
                        due.put(Due::One(one)).await;
                    } else {
                        present.insert((name.domain, name.binding), report);
                    }
                }
                Some(Event::Synced(_)) => {
                    self.replace(Told { reports: std::mem::take(&mut present), synced: true });
                    synced = true;
                    due.put(Due::All).await;
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Tells the store of a binding as it is now.
    ///
    /// # Errors
    /// What it means that the store did not take it.
    pub async fn register(&self, domain: &str, binding: &CloudBinding) -> Result<v1::BindingReport, Outcome> {
        let request = v1::RegisterBindingRequest { name: Some(name(domain, binding)), binding: Some(hello(binding)) };
        let report = call(self.client.clone().register_binding(request)).await.map_err(|status| refusal(&status))?;
        self.keep(report.clone());
        Ok(report)
    }

    /// Tells the store that a binding is no more. What the store holds stays.
    ///
    /// # Errors
    /// The store's answer.
    pub async fn forget(&self, name: v1::BindingName) -> Result<(), Status> {
        let key = (name.domain.clone(), name.binding.clone());
        call(self.client.clone().forget_binding(v1::ForgetBindingRequest { name: Some(name) })).await?;
        self.told.write().unwrap_or_else(PoisonError::into_inner).reports.remove(&key);
        Ok(())
    }

    /// Raises the binding's migration epoch; see the protocol.
    ///
    /// # Errors
    /// What it means that the store did not.
    pub async fn start_migration(
        &self,
        domain: &str,
        binding: &CloudBinding,
        wanted: &v1::MigrationEpoch,
    ) -> Result<v1::MigrationEpoch, Outcome> {
        let request = v1::StartMigrationRequest {
            name: Some(name(domain, binding)),
            expected: wanted.epoch,
            source: wanted.source.clone(),
            target: wanted.target.clone(),
            dry_run: wanted.dry_run,
        };
        call(self.client.clone().start_migration(request)).await.map_err(|status| refusal(&status))
    }
}

async fn call<T>(asked: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Status> {
    let late = |_| Status::deadline_exceeded("the store did not answer in time");
    tokio::time::timeout(CALL, asked).await.map_err(late)?.map(tonic::Response::into_inner)
}

/// What an answer other than yes means for the binding.
fn refusal(status: &Status) -> Outcome {
    let message = status.message();
    match status.code() {
        Code::FailedPrecondition if message.starts_with("Conflict") => {
            Outcome::stalled("Conflict", message, Duration::from_secs(60))
        }
        Code::FailedPrecondition | Code::InvalidArgument => {
            Outcome::stalled("RefusedByStore", format!("the store refuses the binding: {message}"), AGAIN)
        }
        Code::Aborted => {
            Outcome::waiting("Registering", "the store knows of a newer migration", Duration::from_secs(1))
        }
        Code::Unauthenticated | Code::PermissionDenied => Outcome::waiting(
            "StoreRefusesOperator",
            format!(
                "the store does not take the operator's token ({message}): give it --operator-account of this release"
            ),
            SOON,
        ),
        Code::ResourceExhausted => Outcome::waiting("StoreFull", format!("the store has no room: {message}"), SOON),
        _ => Outcome::waiting(
            "StoreUnreachable",
            "the store does not answer: sidecars keep what they see and deliver it later; look at StatefulSet hawser-store",
            SOON,
        ),
    }
}

/// Who a binding is to the store.
pub fn name(domain: &str, binding: &CloudBinding) -> v1::BindingName {
    v1::BindingName {
        domain: domain.to_owned(),
        namespace: binding.namespace().unwrap_or_default(),
        binding: binding.name_any(),
        binding_uid: binding.uid().unwrap_or_default(),
    }
}

/// What a binding says to the store.
fn hello(binding: &CloudBinding) -> v1::Hello {
    let spec = &binding.spec;
    let retention = spec.retention.clone();
    v1::Hello {
        binding: binding.name_any(),
        namespace: binding.namespace().unwrap_or_default(),
        providers: spec
            .providers
            .iter()
            .map(|provider| v1::Provider { name: provider.name.clone(), identity: provider.id().to_string() })
            .collect(),
        spec_provider: spec.provider.clone(),
        buckets: spec
            .buckets
            .iter()
            .map(|bucket| v1::Bucket {
                name: bucket.name.clone(),
                names: bucket.names.iter().map(|(at, name)| (at.clone(), name.clone())).collect(),
            })
            .collect(),
        block_size: u32::try_from(spec.block_size.bytes()).unwrap_or(u32::MAX),
        retention_versions: retention.as_ref().and_then(|keep| keep.versions).unwrap_or_default(),
        retention_days: retention.as_ref().and_then(|keep| keep.days).unwrap_or_default(),
        client: concat!("hawser-operator ", env!("CARGO_PKG_VERSION")).into(),
        ..v1::Hello::default()
    }
}

//! One binding, from what is known of it to what its status says. Each concern is a file; the order here is the order
//! of their needs: the store knows a binding before any sidecar does.
use std::sync::Arc;
use std::time::Duration;

use hawser_api::{CloudBinding, ProviderId, v1};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::context::Context;
use crate::migration::Wish;
use crate::outcome::{AGAIN, Outcome, SOON};
use crate::status::{Concerns, Report};
use crate::{account, backfill, config, conflict, ended, labels, migration, pods, schedule, status};

/// Nothing is asked of the API server then: only what no watch tells is looked at.
const IDLE: Duration = Duration::from_secs(3600);

/// Why a reconcile failed; what a concern found is no failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The status could not be written.
    #[error("write the status")]
    Status(#[from] kube::Error),
}

/// What is known of a binding before it is reconciled.
pub struct Seen {
    /// The UID of its namespace.
    pub domain: String,
    /// Its ConfigMap.
    pub config_map: Option<Arc<ConfigMap>>,
    /// The Jobs' account in its namespace.
    pub account: Option<Arc<ServiceAccount>>,
    /// Its CronJob.
    pub cron_job: Option<Arc<CronJob>>,
    /// Its Jobs.
    pub jobs: Vec<Arc<Job>>,
    /// The pods of Jobs in its namespace.
    pub job_pods: Vec<Arc<Pod>>,
}

impl Seen {
    /// `None` when the binding or its namespace is going: nothing new may be made then.
    fn of(binding: &CloudBinding, ctx: &Context) -> Option<Seen> {
        let (name, namespace) = (binding.name_any(), binding.namespace()?);
        let home = ctx.caches.namespaces.get(&ObjectRef::new(&namespace))?;
        if binding.metadata.deletion_timestamp.is_some() || home.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let domain = home.uid()?;
        Some(Seen {
            domain,
            config_map: ctx.caches.config_maps.get(&ObjectRef::new(&labels::config_map(binding)).within(&namespace)),
            account: ctx.caches.accounts.get(&ObjectRef::new(account::NAME).within(&namespace)),
            cron_job: ctx.caches.cron_jobs.get(&ObjectRef::new(&format!("hawser-{name}-reconcile")).within(&namespace)),
            jobs: of_binding(&ctx.caches.jobs, &namespace, &name),
            job_pods: of_binding(&ctx.caches.job_pods, &namespace, &name),
        })
    }
}

fn of_binding<K>(store: &Store<K>, namespace: &str, name: &str) -> Vec<Arc<K>>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    store.state_filter(|object| {
        object.meta().namespace.as_deref() == Some(namespace)
            && object.labels().get(labels::OWNER).is_some_and(|owner| owner == name)
    })
}

/// Brings everything of a binding into order, and writes how it stands: one patch, also when a concern failed.
///
/// # Errors
/// [`Error`] when the status could not be written.
pub async fn reconcile(binding: Arc<CloudBinding>, ctx: Arc<Context>) -> Result<Action, Error> {
    let Some(seen) = Seen::of(&binding, &ctx) else { return Ok(Action::await_change()) };
    let bindings = ctx.caches.bindings.state();
    let mut report = Report { store: None, pods: Default::default(), concerns: Concerns::default() };
    report.concerns.conflict = conflict::check(&binding, &bindings);
    if report.concerns.conflict == Outcome::Settled {
        concerns(&binding, &seen, &ctx, &mut report).await;
    }
    let annotated = ctx.caches.pods.state();
    report.pods = pods::count(&binding, &annotated, &bindings, report.store.as_ref(), &ctx.pods);
    let published = status::publish(&binding, &ctx, &report).await?;
    let idle = if binding.spec.providers.iter().any(|provider| provider.s3.ca.is_some()) { AGAIN } else { IDLE };
    let again = report.concerns.again_in().into_iter().chain(published.again_in).min().unwrap_or(idle);
    Ok(Action::requeue(again))
}

async fn concerns(binding: &CloudBinding, seen: &Seen, ctx: &Context, report: &mut Report) {
    let found = &mut report.concerns;
    let told = match registered(binding, seen, ctx).await {
        Ok(told) => Some(told),
        Err(outcome) => {
            found.register = outcome;
            ctx.store.report(&seen.domain, &binding.name_any())
        }
    };
    // Whom the store never heard of has no configuration yet: its sidecars would be turned away.
    let Some(mut told) = told else { return };
    found.config = config::reconcile(binding, seen.config_map.as_deref(), ctx).await;
    found.account = account::reconcile(binding, seen.account.as_deref(), ctx).await;
    let identity = told.status.as_ref().map(|status| status.provider_identity.clone()).unwrap_or_default();
    let id: Option<ProviderId> = identity.parse().ok();
    let in_force = id.and_then(|id| binding.provider_with_id(&id));
    let (Some(in_force), Some(wanted)) = (in_force, binding.wanted()) else {
        let message = format!("{identity} is in force and not in spec.providers: put it back");
        found.migration = Outcome::stalled("ProviderInForceMissing", message, AGAIN);
        report.store = Some(told);
        return;
    };
    let migrating = in_force.id() != wanted.id();
    if found.config == Outcome::Settled && found.account == Outcome::Settled && found.register == Outcome::Settled {
        let wish = Wish { binding, in_force, wanted };
        found.migration = migration::reconcile(&wish, seen, &mut told, ctx).await;
        if !migrating {
            let name = backfill::name(binding);
            let job = seen.jobs.iter().find(|job| job.name_any() == name).map(AsRef::as_ref);
            let state = ended::state(job, &seen.job_pods);
            found.backfill = backfill::reconcile(binding, &state, &told, in_force, ctx).await;
        }
        let covered = told.status.as_ref().and_then(|status| status.coverage.as_ref()).is_some_and(|one| one.known);
        let epoch = told.migration.as_ref().filter(|epoch| epoch.epoch > 0);
        let migrated = epoch.is_some_and(|epoch| epoch.source != epoch.target || epoch.epoch > 1);
        let how = (migrating || !covered, migrated);
        found.schedule = schedule::reconcile(binding, seen.cron_job.as_deref(), in_force, how, ctx).await;
    }
    report.store = Some(told);
}

/// What the store says of the binding. It is told again of one that changed, or that it does not know as it is.
async fn registered(binding: &CloudBinding, seen: &Seen, ctx: &Context) -> Result<v1::BindingReport, Outcome> {
    let known = ctx.store.report(&seen.domain, &binding.name_any());
    let status = binding.status.as_ref();
    let observed = status.and_then(|status| status.observed_generation) == binding.metadata.generation;
    let refused = status.is_some_and(|status| {
        status
            .conditions
            .iter()
            .any(|is| is.type_ == status::READY && is.status != "True" && is.reason != "Backfilling")
    });
    match known {
        Some(known)
            if observed
                && !refused
                && known.name.as_ref().map(|name| &name.binding_uid) == binding.metadata.uid.as_ref() =>
        {
            match ctx.store.is_synced() {
                true => Ok(known),
                false => Err(Outcome::waiting(
                    "StoreUnreachable",
                    "the store does not answer: sidecars keep what they see and deliver it later; look at StatefulSet hawser-store",
                    SOON,
                )),
            }
        }
        _ => ctx.store.register(&seen.domain, binding).await,
    }
}

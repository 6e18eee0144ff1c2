//! Begins and ends Jobs: never more at once in the cluster than allowed.
use std::time::Duration;

use hawser_api::CloudBinding;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::context::Context;
use crate::labels::FIELD_MANAGER;
use crate::outcome::{Outcome, SOON};

/// How long a Job that was just made may take to be seen; only then is the next one counted.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

/// Makes a Job, or says why it has to wait for others.
///
/// # Errors
/// What the API server says.
pub async fn job(ctx: &Context, job: &Job) -> Result<Option<Outcome>, kube::Error> {
    let _one_at_a_time = ctx.starting.lock().await; // or two would both be the last one allowed
    let name = job.name_any();
    let active = ctx.caches.jobs.state().iter().filter(|job| is_active(job)).count();
    if active >= ctx.jobs.jobs_max {
        let message = format!("Job {name} waits until one of the {active} that are running ends");
        return Ok(Some(Outcome::waiting("Queued", message, SOON)));
    }
    let api: Api<Job> = Api::namespaced(ctx.client.clone(), &job.namespace().unwrap_or_default());
    match api.create(&PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() }, job).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {} // not seen yet
        Err(error) => return Err(error),
    }
    let reference = ObjectRef::from_obj(job);
    let seen = async {
        while ctx.caches.jobs.get(&reference).is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // One that goes unseen is counted late, nothing worse.
    let _ = tokio::time::timeout(SEEN_WITHIN, seen).await;
    Ok(None)
}

/// Whether a Job takes one of the places. What a CronJob makes does not: it has a time of its own.
fn is_active(job: &Job) -> bool {
    let of_cron = job.owner_references().iter().any(|owner| owner.kind == "CronJob");
    let ended = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ended = ended.iter().any(|is| matches!(is.type_.as_str(), "Complete" | "Failed") && is.status == "True");
    let resting = job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true));
    !of_cron && !ended && !resting
}

/// Deletes a Job with its pods.
///
/// # Errors
/// What the API server says, except that there is none.
pub async fn delete(ctx: &Context, binding: &CloudBinding, name: &str) -> Result<(), kube::Error> {
    let api: Api<Job> = Api::namespaced(ctx.client.clone(), &binding.namespace().unwrap_or_default());
    match api.delete(name, &DeleteParams::background()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}

/// Lets a Job rest, or go on.
///
/// # Errors
/// What the API server says.
pub async fn suspend(ctx: &Context, binding: &CloudBinding, name: &str, suspend: bool) -> Result<(), kube::Error> {
    let api: Api<Job> = Api::namespaced(ctx.client.clone(), &binding.namespace().unwrap_or_default());
    let patch = json!({"spec": {"suspend": suspend}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop)
}

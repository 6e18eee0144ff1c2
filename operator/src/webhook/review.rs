//! One question of the API server, one answer.

use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use json_patch::Patch;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use serde_json::Value;

use super::Ctx;
use crate::pod::{self, BINDING, Denial};

/// What a person reads who annotates a pod that runs already.
const LATE: &str = "hawser.dev/binding was added to a pod that runs already, and nothing is added to running pods: \
                    annotate the pod template of its owner, or delete the pod and make it anew";

/// A question that is none.
#[derive(Debug, thiserror::Error)]
#[error("not an AdmissionReview of admission.k8s.io/v1 with a request: {0}")]
pub(super) struct NoReview(String);

/// The pod as it came, whole, and what the API server says beside it.
struct Question {
    request: AdmissionRequest<DynamicObject>,
    pod: Value,
}

/// Answers for a pod that is to be made: with a patch, or with a reason why not.
pub(super) async fn protect(body: &[u8], ctx: &Ctx) -> Result<Vec<u8>, NoReview> {
    let begun = Instant::now();
    let question = read(body)?;
    let mut response = AdmissionResponse::from(&question.request);
    let mut patch = None;
    match rendered(&question, ctx).await {
        Ok(protected) => {
            ctx.metrics.protected();
            patch = Some(json_patch::diff(&question.pod, &protected.pod));
            response.warnings = Some(protected.warnings).filter(|warnings| !warnings.is_empty());
        }
        Err(denial) => {
            ctx.metrics.denied(&denial);
            let (namespace, name) = (question.request.namespace.as_deref().unwrap_or_default(), &question.request.name);
            tracing::info!(namespace, name, reason = denial.reason(), "a pod was refused: {denial}");
            response = response.deny(denial.text());
        }
    }
    ctx.metrics.seconds.observe(begun.elapsed().as_secs_f64());
    written(response, patch)
}

/// Answers for a pod that is annotated too late: it runs on, and its owner hears why nothing happened.
pub(super) fn warn(body: &[u8], ctx: &Ctx) -> Result<Vec<u8>, NoReview> {
    let question = read(body)?;
    let mut response = AdmissionResponse::from(&question.request);
    response.warnings = Some(vec![LATE.to_owned()]);
    ctx.metrics.warned();
    written(response, None)
}

async fn rendered(question: &Question, ctx: &Ctx) -> Result<pod::Protected, Denial> {
    let named = question.pod["metadata"]["annotations"][BINDING].as_str().unwrap_or_default();
    let names = pod::names(named)?;
    // The pod itself may say nothing of its namespace yet.
    let namespace = question.request.namespace.as_deref().unwrap_or_default();
    let wish = ctx.cluster.wish(namespace, &names).await?;
    pod::protect(&question.pod, &wish, &ctx.pods)
}

fn read(body: &[u8]) -> Result<Question, NoReview> {
    let mut whole: Value = serde_json::from_slice(body).map_err(|error| NoReview(error.to_string()))?;
    let review: AdmissionReview<DynamicObject> =
        serde_json::from_value(whole.clone()).map_err(|error| NoReview(error.to_string()))?;
    if review.types.api_version != "admission.k8s.io/v1" {
        return Err(NoReview(review.types.api_version));
    }
    let request = review.try_into().map_err(|_| NoReview("no request".to_owned()))?;
    Ok(Question { request, pod: whole["request"]["object"].take() })
}

/// The patch goes in as Base64, the one form that the API promises to read.
fn written(response: AdmissionResponse, patch: Option<Patch>) -> Result<Vec<u8>, NoReview> {
    let unwritable = |error: serde_json::Error| NoReview(error.to_string());
    let mut review = serde_json::to_value(response.into_review()).map_err(unwritable)?;
    if let Some(patch) = patch {
        let patch = serde_json::to_vec(&patch).map_err(unwritable)?;
        review["response"]["patch"] = STANDARD.encode(patch).into();
        review["response"]["patchType"] = "JSONPatch".into();
    }
    serde_json::to_vec(&review).map_err(unwritable)
}

//! The bindings: what the operator says of each, and whether what they name is there.

use hawser_api::CloudBinding;
use hawser_api::binding::status::CloudBindingStatus;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Api;

use super::Line;
use crate::bindings::{condition, name};
use crate::cluster::Cluster;
use crate::units;

/// A comparison older than this is worth a look: the default schedule is once an hour.
const COVERAGE_OLD_SECONDS: i64 = 26 * 3600;

/// What concerns the whole namespace.
pub(super) async fn namespace(cluster: &Cluster, bindings: &[CloudBinding]) -> Vec<Line> {
    let mut lines = Vec::new();
    if bindings.is_empty() {
        lines.push(Line::look(
            "there is no CloudBinding",
            "make one: kubectl explain cloudbinding.spec; or name another namespace with -n",
        ));
    }
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    match api.get_opt(&cluster.namespace).await.map_err(cluster.denied("get", "namespaces", &cluster.namespace)) {
        Err(failure) => lines.push(Line::failed("Pod Security", &failure)),
        Ok(found) => {
            let labels = found.and_then(|namespace| namespace.metadata.labels).unwrap_or_default();
            let enforced = labels.get("pod-security.kubernetes.io/enforce").map_or("privileged", String::as_str);
            lines.push(pod_security(enforced, &cluster.namespace));
        }
    }
    lines
}

fn pod_security(enforced: &str, namespace: &str) -> Line {
    match enforced {
        "baseline" | "restricted" => Line::wrong(
            format!("Pod Security {enforced} is enforced, which forbids the rules of the redirect (NET_ADMIN)"),
            format!("kubectl label namespace {namespace} --overwrite pod-security.kubernetes.io/enforce=privileged"),
        ),
        _ => Line::fine(format!("Pod Security {enforced} allows the redirect")),
    }
}

/// One binding.
pub(super) async fn check(cluster: &Cluster, binding: &CloudBinding) -> Vec<Line> {
    let status = binding.status.clone().unwrap_or_default();
    let mut lines = said(binding, &status, units::now());
    let config = format!("hawser-{}", name(binding));
    let api: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    match api.get_opt(&config).await.map_err(cluster.denied("get", "configmaps", &cluster.namespace)) {
        Err(failure) => lines.push(Line::failed("configuration of its pods", &failure)),
        Ok(Some(_)) => lines.push(Line::fine(format!("ConfigMap {config} is there for its pods"))),
        Ok(None) => {
            lines.push(Line::wrong(format!("ConfigMap {config} is missing"), "the operator writes it: is it running?"))
        }
    }
    lines
}

/// What the status says, without asking further.
fn said(binding: &CloudBinding, status: &CloudBindingStatus, now: i64) -> Vec<Line> {
    let mut lines = Vec::new();
    if status.observed_generation.is_none() {
        return vec![Line::wrong("the operator has not seen it", "is the operator running? see above")];
    }
    if status.observed_generation != binding.metadata.generation {
        lines.push(Line::look("the operator has not seen the last edit yet", "look again in a moment"));
    }
    if let Some(stalled) = condition(status, "Stalled").filter(|condition| condition.status == "True") {
        lines.push(Line::wrong(format!("Stalled, {}", stalled.reason), stalled.message.clone()));
    }
    match (&status.provider, &binding.spec.provider) {
        (Some(force), wanted) if force == wanted => lines.push(Line::fine(format!("{force} is in force"))),
        (Some(force), wanted) => lines.push(Line::look(
            format!("{force} is in force, and {wanted} is wanted"),
            format!("follow it: kubectl hawser migrate {} --watch", name(binding)),
        )),
        (None, _) => lines.push(Line::wrong("no provider is in force yet", "the store knows it once it answers")),
    }
    match status.coverage.as_ref() {
        None => lines.push(Line::look(
            "the copy was never compared with the provider",
            "the Job hawser-NAME-backfill does: kubectl get jobs",
        )),
        Some(coverage) => {
            let of = |number: i64| u64::try_from(number).unwrap_or_default();
            let share = units::percent(of(coverage.held_objects), of(coverage.listed_objects));
            let at = coverage.as_of.as_ref().map_or(0, |at| at.0.as_second());
            let text = format!("coverage {share}, as of {}", units::ago(at, now));
            if now - at > COVERAGE_OLD_SECONDS {
                lines.push(Line::look(text, "the CronJob hawser-NAME-reconcile compares: kubectl get cronjobs,jobs"));
            } else if coverage.held_objects < coverage.listed_objects {
                lines.push(Line::look(text, "kubectl hawser gaps tells what is missing"));
            } else {
                lines.push(Line::fine(text));
            }
        }
    }
    if let Some(gaps) = status.open_gaps.as_ref().filter(|gaps| gaps.total > 0) {
        lines.push(Line::look(
            units::counted(u64::try_from(gaps.total).unwrap_or_default(), "gap is open", "gaps are open"),
            "kubectl hawser gaps tells each, and what closes it",
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Sign;
    use super::*;

    fn binding(status: serde_json::Value) -> CloudBinding {
        let manifest = serde_json::json!({
            "apiVersion": "hawser.dev/v1alpha1", "kind": "CloudBinding",
            "metadata": { "name": "photos", "namespace": "shop", "generation": 2 },
            "spec": {
                "provider": "aws",
                "providers": [{ "name": "aws", "s3": { "endpoint": "https://s3.eu-central-1.amazonaws.com" } }],
                "buckets": [{ "name": "photos" }],
            },
            "status": status,
        });
        serde_json::from_value(manifest).unwrap()
    }

    fn signs(status: serde_json::Value) -> Vec<Sign> {
        let binding = binding(status);
        said(&binding, &binding.status.clone().unwrap_or_default(), 1_795_521_600)
            .iter()
            .map(|line| line.sign)
            .collect()
    }

    #[test]
    fn a_status_is_read_for_what_is_to_be_done() {
        let covered = serde_json::json!({
            "listedObjects": 2, "listedBytes": 2, "heldObjects": 2, "heldBytes": 2, "asOf": "2026-11-24T11:00:00Z",
        });
        let all_well = serde_json::json!({ "observedGeneration": 2, "provider": "aws", "coverage": covered });
        assert_eq!(signs(all_well), [Sign::Fine, Sign::Fine]);
        assert_eq!(signs(serde_json::json!({})), [Sign::Wrong], "nobody has seen it");
        let stalled = serde_json::json!({
            "observedGeneration": 1, "provider": "other",
            "conditions": [{ "type": "Stalled", "status": "True", "reason": "BucketMissing", "message": "make it",
                "lastTransitionTime": "2026-11-24T11:00:00Z" }],
        });
        assert_eq!(signs(stalled), [Sign::Look, Sign::Wrong, Sign::Look, Sign::Look]);
    }

    #[test]
    fn pod_security_that_forbids_the_redirect_is_wrong() {
        assert_eq!(pod_security("restricted", "shop").sign, Sign::Wrong);
        assert!(pod_security("baseline", "shop").hint.contains("enforce=privileged"));
        assert_eq!(pod_security("privileged", "shop").sign, Sign::Fine);
    }
}

//! The pods of the namespace: who asks to be protected, and who is.

use std::collections::BTreeSet;

use hawser_api::CloudBinding;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

use super::Line;
use crate::bindings::name;
use crate::cluster::Cluster;
use crate::units;

const ASKS: &str = "hawser.dev/binding";
const PROTECTED: &str = "hawser.dev/protected";
const UNPROTECTED: &str = "hawser.dev/unprotected";
const SIDECAR: &str = "hawser-sidecar";

/// Pods that are told one by one; of more, only how many.
const PODS_TOLD_MAX: usize = 20;

pub(super) async fn check(cluster: &Cluster, bindings: &[CloudBinding]) -> Vec<Line> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let listed = api.list(&ListParams::default()).await;
    let pods = match listed.map_err(cluster.denied("list", "pods", &cluster.namespace)) {
        Ok(pods) => pods.items,
        Err(failure) => return vec![Line::failed("pods", &failure)],
    };
    let known: BTreeSet<&str> = bindings.iter().map(name).collect();
    let lines: Vec<Line> = pods.iter().filter(|pod| !is_over(pod)).filter_map(|pod| look(pod, &known)).collect();
    if lines.is_empty() {
        let hint = format!("annotate a pod template with {ASKS}: NAME, and let the pods be made anew");
        return vec![Line::look("no pod asks to be protected", hint)];
    }
    let (fine, others): (Vec<Line>, Vec<Line>) = lines.into_iter().partition(|line| line.sign == super::Sign::Fine);
    let mut told = Vec::new();
    if !fine.is_empty() {
        told.push(Line::fine(units::counted(fine.len() as u64, "pod is protected", "pods are protected")));
    }
    let more = others.len().saturating_sub(PODS_TOLD_MAX);
    told.extend(others.into_iter().take(PODS_TOLD_MAX));
    if more > 0 {
        told.push(Line::look(format!("and {more} more pods like these"), ""));
    }
    told
}

fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// What a pod's own state says; `None` of one that asks for nothing.
fn look(pod: &Pod, known: &BTreeSet<&str>) -> Option<Line> {
    let annotations = pod.metadata.annotations.as_ref()?;
    let asks = annotations.get(ASKS)?;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let strangers: Vec<&str> = asks.split(',').map(str::trim).filter(|asked| !known.contains(asked)).collect();
    if !strangers.is_empty() {
        return Some(Line::wrong(
            format!("{name} names {}, which is no CloudBinding here", strangers.join(", ")),
            format!("correct its annotation {ASKS}, or make the binding"),
        ));
    }
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    if labels.get(PROTECTED).is_none_or(|value| value != "true") {
        return Some(Line::wrong(
            format!("{name} is annotated and has no sidecar"),
            "an annotation protects pods that are made after it: restart what owns this one (kubectl rollout restart)",
        ));
    }
    if let Some(containers) = annotations.get(UNPROTECTED).filter(|containers| !containers.is_empty()) {
        return Some(Line::look(
            format!("{name}: not all of it is protected: {containers}"),
            "OwnRoots: the container sets its CA variables itself; take them out, or add Hawser's roots to them",
        ));
    }
    let states = pod.status.as_ref().and_then(|status| status.init_container_statuses.as_ref())?;
    let sidecar = states.iter().find(|state| state.name == SIDECAR);
    match sidecar {
        Some(sidecar) if sidecar.started == Some(true) && sidecar.restart_count == 0 => Some(Line::fine(name)),
        Some(sidecar) if sidecar.started == Some(true) => Some(Line::look(
            format!("{name}: its sidecar was restarted {} times", sidecar.restart_count),
            format!("kubectl logs {name} -c {SIDECAR} --previous"),
        )),
        _ => Some(Line::wrong(
            format!("{name}: its sidecar does not run"),
            format!("kubectl describe pod {name}; kubectl logs {name} -c {SIDECAR}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Sign;
    use super::*;

    fn pod(annotations: serde_json::Value, labels: serde_json::Value, started: bool) -> Pod {
        let sidecar = serde_json::json!({
            "name": SIDECAR, "started": started, "restartCount": 0, "ready": started, "image": "", "imageID": "",
        });
        let pod = serde_json::json!({
            "metadata": { "name": "web", "annotations": annotations, "labels": labels },
            "status": { "initContainerStatuses": [sidecar] },
        });
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn a_pod_that_asks_is_told_what_it_lacks() {
        let yes = || serde_json::json!({ PROTECTED: "true" });
        let asks = || serde_json::json!({ ASKS: "photos" });
        let rows = [
            ("asks for nothing", pod(serde_json::json!({ "x": "y" }), serde_json::json!({}), true), None),
            ("protected", pod(asks(), yes(), true), Some(Sign::Fine)),
            ("annotated too late", pod(asks(), serde_json::json!({}), true), Some(Sign::Wrong)),
            (
                "of a binding that is not there",
                pod(serde_json::json!({ ASKS: "photos,films" }), yes(), true),
                Some(Sign::Wrong),
            ),
            (
                "its own roots",
                pod(serde_json::json!({ ASKS: "photos", UNPROTECTED: "app=OwnRoots" }), yes(), true),
                Some(Sign::Look),
            ),
            ("its sidecar is not there", pod(asks(), yes(), false), Some(Sign::Wrong)),
        ];
        for (what, pod, wanted) in rows {
            assert_eq!(look(&pod, &BTreeSet::from(["photos"])).map(|line| line.sign), wanted, "{what}");
        }
    }
}

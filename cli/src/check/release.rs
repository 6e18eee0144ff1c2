//! Hawser itself: its resource, its operator, its webhook, its store.

use hawser_api::CloudBinding;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::Api;
use kube::api::ListParams;

use super::Line;
use crate::cluster::Cluster;

/// The oldest minor version with native sidecars that stay on.
const MINOR_MIN: u32 = 33;

pub(super) async fn check(cluster: &Cluster) -> Vec<Line> {
    vec![
        version(cluster).await,
        resource(cluster).await,
        operator(cluster).await,
        webhook(cluster).await,
        store(cluster).await,
    ]
}

async fn version(cluster: &Cluster) -> Line {
    match cluster.client.apiserver_version().await {
        Err(error) => Line::wrong(format!("the API server does not answer: {error}"), "is the kubeconfig right?"),
        Ok(version) => {
            let minor: u32 = version.minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or_default();
            let text = format!("Kubernetes {}", version.git_version);
            if version.major == "1" && minor < MINOR_MIN {
                Line::wrong(text, format!("Hawser needs 1.{MINOR_MIN} or newer, for native sidecars"))
            } else {
                Line::fine(text)
            }
        }
    }
}

async fn resource(cluster: &Cluster) -> Line {
    let api: Api<CloudBinding> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let listed = api.list(&ListParams::default().limit(1)).await;
    match listed.map_err(cluster.denied("list", "cloudbindings.hawser.dev", &cluster.namespace)) {
        Ok(_) => Line::fine("CloudBinding is installed"),
        Err(failure) => Line::failed("CloudBinding", &failure),
    }
}

async fn operator(cluster: &Cluster) -> Line {
    let (release, what) = (&cluster.release, "operator");
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), release);
    match api.get_opt("hawser-operator").await.map_err(cluster.denied("get", "deployments.apps", release)) {
        Err(failure) => Line::failed(what, &failure),
        Ok(None) => Line::wrong(
            format!("namespace {release} has no Deployment hawser-operator"),
            "install the chart there, or name another namespace with --hawser-namespace",
        ),
        Ok(Some(found)) => {
            let wanted = found.spec.and_then(|spec| spec.replicas).unwrap_or(1);
            let ready = found.status.and_then(|status| status.ready_replicas).unwrap_or_default();
            ready_of(what, ready, wanted, &format!("kubectl -n {release} logs deployment/hawser-operator"))
        }
    }
}

async fn store(cluster: &Cluster) -> Line {
    let (release, what) = (&cluster.release, "store");
    let api: Api<StatefulSet> = Api::namespaced(cluster.client.clone(), release);
    match api.get_opt("hawser-store").await.map_err(cluster.denied("get", "statefulsets.apps", release)) {
        Err(failure) => Line::failed(what, &failure),
        Ok(None) => Line::wrong(format!("namespace {release} has no StatefulSet hawser-store"), "install the chart"),
        Ok(Some(found)) => {
            let wanted = found.spec.and_then(|spec| spec.replicas).unwrap_or(1);
            let ready = found.status.and_then(|status| status.ready_replicas).unwrap_or_default();
            let hint = format!("kubectl -n {release} describe pod hawser-store-0 says why it is not ready");
            ready_of(what, ready, wanted, &hint)
        }
    }
}

/// How many replicas are ready, of how many; while none is, it does not work.
fn ready_of(what: &str, ready: i32, wanted: i32, hint: &str) -> Line {
    let text = format!("{what}: {ready} of {wanted} ready");
    match ready {
        0 => Line::wrong(text, hint),
        ready if ready < wanted => Line::look(text, hint),
        _ => Line::fine(text),
    }
}

async fn webhook(cluster: &Cluster) -> Line {
    let api: Api<MutatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let denied = cluster.denied("get", "mutatingwebhookconfigurations.admissionregistration.k8s.io", "(all)");
    match api.get_opt("hawser").await.map_err(denied) {
        Err(failure) => Line::failed("webhook", &failure),
        Ok(None) => Line::wrong(
            "there is no MutatingWebhookConfiguration hawser: annotated pods start without a sidecar",
            format!("the operator applies it: kubectl -n {} logs deployment/hawser-operator", cluster.release),
        ),
        Ok(Some(found)) => {
            let hooks = found.webhooks.unwrap_or_default();
            if hooks.iter().all(|hook| hook.client_config.ca_bundle.is_some()) && !hooks.is_empty() {
                Line::fine("webhook is registered")
            } else {
                Line::wrong("the webhook is registered without its authority", "restart the operator")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Sign;
    use super::*;

    #[test]
    fn some_replicas_are_worth_a_look_and_none_is_wrong() {
        for (ready, wanted, sign) in [(2, 2, Sign::Fine), (1, 2, Sign::Look), (0, 2, Sign::Wrong), (0, 0, Sign::Wrong)]
        {
            assert_eq!(ready_of("x", ready, wanted, "do").sign, sign, "{ready} of {wanted}");
        }
    }
}

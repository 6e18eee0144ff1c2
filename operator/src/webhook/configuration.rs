//! What the API server asks the webhook about: pods that are annotated, and no others.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::pod::BINDING;

/// The configuration's name.
pub const NAME: &str = "hawser";
/// The name that a person reads when the webhook is down and a pod has to wait.
pub const PROTECT: &str = "protect-annotated-pods.hawser.dev";
/// The name of the rule that only warns.
pub const WARN: &str = "warn-of-late-annotations.hawser.dev";
/// Where pods that are made are sent.
pub const PROTECT_PATH: &str = "/protect";
/// Where pods are sent that get the annotation too late.
pub const WARN_PATH: &str = "/warn";

/// Whose writes these are.
const MANAGER: &str = "hawser-operator";
/// How often the configuration is written again: somebody may have removed it, and no pod says so.
const AGAIN: Duration = Duration::from_secs(600);
/// How soon after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// What the configuration is made from.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Our own namespace; its pods are never held up by us.
    pub namespace: String,
    /// The Service in it.
    pub service: String,
    /// The authority of the webhook's certificate.
    pub ca_pem: String,
    /// The owner's name.
    pub cluster_role: String,
}

/// The object, owned by the release's ClusterRole: left behind, it would refuse pods for ever.
pub fn object(wanted: &Wanted, cluster_role_uid: &str) -> Value {
    let annotated = |of: &str| format!("has({of}.metadata.annotations) && '{BINDING}' in {of}.metadata.annotations");
    let hook = |name: &str, path: &str, operation: &str, policy: &str, conditions: Value| {
        json!({
            "name": name,
            "admissionReviewVersions": ["v1"],
            "clientConfig": {
                "caBundle": STANDARD.encode(&wanted.ca_pem),
                "service": {"name": wanted.service, "namespace": wanted.namespace, "path": path, "port": 443},
            },
            "failurePolicy": policy,
            "matchConditions": conditions,
            "matchPolicy": "Equivalent",
            "namespaceSelector": {"matchExpressions": [{
                "key": "kubernetes.io/metadata.name",
                "operator": "NotIn",
                "values": ["kube-system", wanted.namespace],
            }]},
            "reinvocationPolicy": if policy == "Fail" { "IfNeeded" } else { "Never" },
            "rules": [{
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "operations": [operation],
                "resources": ["pods"],
                "scope": "Namespaced",
            }],
            "sideEffects": "None",
            "timeoutSeconds": 5,
        })
    };
    let asks = json!([{"name": "asks-for-protection", "expression": annotated("object")}]);
    let asks_late = json!([
        {"name": "asks-for-protection", "expression": annotated("object")},
        {"name": "did-not-ask-before", "expression": format!("!({})", annotated("oldObject"))},
    ]);
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {
            "name": NAME,
            "labels": {"app.kubernetes.io/name": "hawser", "app.kubernetes.io/component": "webhook"},
            "ownerReferences": [{
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole",
                "name": wanted.cluster_role,
                "uid": cluster_role_uid,
            }],
        },
        "webhooks": [
            hook(PROTECT, PROTECT_PATH, "CREATE", "Fail", asks),
            hook(WARN, WARN_PATH, "UPDATE", "Ignore", asks_late),
        ],
    })
}

/// Writes the configuration now and from time to time, for ever.
pub(super) async fn keep(client: Client, wanted: Wanted) {
    let mut told = false;
    loop {
        let pause = match apply(&client, &wanted).await {
            Ok(()) => {
                told = false;
                AGAIN
            }
            Err(error) => {
                if !told {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the webhook's configuration cannot be written: annotated pods run unprotected until it can"
                    );
                }
                told = true;
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn apply(client: &Client, wanted: &Wanted) -> Result<(), kube::Error> {
    let owner = Api::<ClusterRole>::all(client.clone()).get(&wanted.cluster_role).await?;
    let object = object(wanted, &owner.metadata.uid.unwrap_or_default());
    let configurations = Api::<MutatingWebhookConfiguration>::all(client.clone());
    configurations.patch(NAME, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object)).await?;
    Ok(())
}

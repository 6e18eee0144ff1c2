//! What the operator may do in the API: these rules and no others. The chart reads them from files that a test holds
//! equal to this list; each rule is here because a line of this crate needs it.
use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::{authority, leader, store_tls, webhook};

/// In the whole cluster.
pub fn of_cluster() -> Vec<PolicyRule> {
    let read = ["list", "watch"];
    let own = ["list", "watch", "create", "patch"];
    vec![
        rule("hawser.dev", "cloudbindings", &["get", "list", "watch"], &[]),
        rule("hawser.dev", "cloudbindings/status", &["patch"], &[]),
        rule("batch", "jobs", &["list", "watch", "create", "patch", "delete"], &[]),
        rule("batch", "cronjobs", &own, &[]),
        rule("", "configmaps", &["get", "list", "watch", "create", "patch"], &[]),
        rule("", "serviceaccounts", &own, &[]),
        rule("", "pods", &read, &[]),
        rule("", "namespaces", &["get", "list", "watch"], &[]),
        rule("events.k8s.io", "events", &["create", "patch"], &[]),
        // Names cannot bound what is made.
        rule("admissionregistration.k8s.io", "mutatingwebhookconfigurations", &["create"], &[]),
        rule(
            "admissionregistration.k8s.io",
            "mutatingwebhookconfigurations",
            &["get", "patch"],
            &[webhook::configuration::NAME],
        ),
        // Owns that configuration, so that it goes with the release.
        rule("rbac.authorization.k8s.io", "clusterroles", &["get"], &["hawser-operator"]),
    ]
}

/// In its own namespace.
pub fn of_namespace() -> Vec<PolicyRule> {
    vec![
        rule("", "secrets", &["create"], &[]),
        rule("", "secrets", &["get", "patch"], &[authority::SECRET, store_tls::SECRET]),
        rule("coordination.k8s.io", "leases", &["create"], &[]),
        rule("coordination.k8s.io", "leases", &["get", "patch"], &[leader::LEASE]),
    ]
}

fn rule(group: &str, resource: &str, verbs: &[&str], names: &[&str]) -> PolicyRule {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(owned(&[group])),
        resources: Some(owned(&[resource])),
        resource_names: (!names.is_empty()).then(|| owned(names)),
        verbs: owned(verbs),
        non_resource_urls: None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;
    use crate::golden;

    #[test]
    fn the_chart_gives_these_rights_and_no_others() {
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/hawser/files");
        for (name, rules) in [("cluster", of_cluster()), ("namespace", of_namespace())] {
            let text = serde_saphyr::to_string(&rules).unwrap();
            golden::same(&files.join(format!("operator-{name}-rules.yaml")), &text);
        }
    }

    #[test]
    fn no_right_reaches_a_secret_of_another_namespace_or_everything() {
        for rule in of_cluster() {
            let resources = rule.resources.unwrap();
            assert!(!resources.iter().any(|name| name == "secrets" || name == "*"), "{resources:?}");
            assert!(!rule.verbs.iter().any(|verb| verb == "*"), "{resources:?}");
        }
    }
}

//! How many pods are annotated with a binding, and how they run.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hawser_api::CloudBinding;
use hawser_api::binding::status::PodsStatus;
use hawser_api::v1;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::PartialObjectMeta;

use crate::pod;

/// Counts the pods of `binding`. `pods` are the annotated ones that live, `bindings` those of the cluster.
pub fn count(
    binding: &CloudBinding,
    pods: &[Arc<PartialObjectMeta<Pod>>],
    bindings: &[Arc<CloudBinding>],
    report: Option<&v1::BindingReport>,
    settings: &pod::Settings,
) -> PodsStatus {
    let namespace = binding.namespace();
    let unprotected: BTreeSet<&str> =
        report.iter().flat_map(|report| &report.unprotected).map(|pod| pod.uid.as_str()).collect();
    let mut hashes: BTreeMap<Vec<String>, Option<String>> = BTreeMap::new();
    let mut counts = PodsStatus::default();
    for one in pods.iter().filter(|pod| pod.namespace() == namespace) {
        let annotations = one.annotations();
        let names = annotations.get(pod::BINDING).and_then(|text| pod::names(text).ok()).unwrap_or_default();
        if !names.contains(&binding.name_any()) {
            continue;
        }
        let uid = one.uid().unwrap_or_default();
        if annotations.contains_key(pod::UNPROTECTED) || unprotected.contains(uid.as_str()) {
            counts.unprotected += 1;
        } else {
            counts.protected += 1;
        }
        let today = hashes.entry(names).or_insert_with_key(|names| {
            let find = |name: &String| {
                let is = |other: &&Arc<CloudBinding>| other.namespace() == namespace && other.name_any() == *name;
                bindings.iter().find(is).map(|found| CloudBinding::clone(found))
            };
            let named: Option<Vec<CloudBinding>> = names.iter().map(find).collect();
            named.map(|named| pod::config_hash(&named, settings))
        });
        if today.as_ref() != annotations.get(pod::CONFIG_HASH) {
            counts.stale += 1;
        }
    }
    counts
}

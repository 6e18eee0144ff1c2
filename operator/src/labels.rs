//! The labels and names of what the operator makes.
use std::collections::BTreeMap;

use hawser_api::CloudBinding;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};

/// Who applies: the owner of the fields that the operator sets.
pub const FIELD_MANAGER: &str = "hawser-operator";
/// Selects what the operator made.
pub const SELECTOR: &str = "app.kubernetes.io/managed-by=hawser-operator";
/// The label with the binding's name, on its Jobs and their pods.
pub const OWNER: &str = "hawser.dev/owner";

/// The labels of everything that the operator makes.
pub fn ours() -> BTreeMap<String, String> {
    [("app.kubernetes.io/managed-by", "hawser-operator"), ("app.kubernetes.io/part-of", "hawser")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// The labels of what is made for one binding.
pub fn of(binding: &CloudBinding) -> BTreeMap<String, String> {
    let mut labels = ours();
    labels.insert(OWNER.to_owned(), binding.name_any());
    labels
}

/// The name of a binding's ConfigMap.
pub fn config_map(binding: &CloudBinding) -> String {
    format!("hawser-{}", binding.name_any())
}

/// Metadata of an object called `name` that goes when the binding goes.
pub fn owned(binding: &CloudBinding, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: binding.namespace(),
        labels: Some(of(binding)),
        owner_references: Some(vec![OwnerReference {
            api_version: CloudBinding::api_version(&()).into(),
            kind: CloudBinding::kind(&()).into(),
            name: binding.name_any(),
            uid: binding.uid().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: None,
        }]),
        ..ObjectMeta::default()
    }
}

//! Brings an object into the shape that it should have, by server-side apply and only where it differs: an idle
//! operator asks the API server for nothing.
use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::labels::FIELD_MANAGER;

/// The annotation with the hash of what was applied last: a field that is wanted no longer shows in it alone.
const APPLIED: &str = "hawser.dev/applied";

/// Applies `wanted` unless `present`, as it was last seen, has all of it.
///
/// # Errors
/// What the API server says.
pub async fn apply<K>(client: &Client, present: Option<&K>, mut wanted: K) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
{
    let hash =
        serde_json::to_vec(&wanted).map(|bytes| blake3::hash(&bytes).to_hex()).map_err(kube::Error::SerdeError)?;
    wanted.annotations_mut().insert(APPLIED.into(), hash[..16].to_owned());
    let whole = serde_json::to_value(&wanted).map_err(kube::Error::SerdeError)?;
    if let Some(present) = present
        && holds(&serde_json::to_value(present).map_err(kube::Error::SerdeError)?, &whole)
    {
        return Ok(());
    }
    let api: Api<K> = Api::namespaced(client.clone(), &wanted.namespace().unwrap_or_default());
    api.patch(&wanted.name_any(), &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&wanted)).await?;
    Ok(())
}

/// Whether `present` has everything that `wanted` says. What the API server adds to an object does not count.
fn holds(present: &Value, wanted: &Value) -> bool {
    match (present, wanted) {
        (Value::Object(present), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| match present.get(key) {
                Some(there) => holds(there, value),
                // A typed object as it was read has neither of the two; empty values are not kept by everyone.
                None => matches!(key.as_str(), "apiVersion" | "kind") || is_empty(value),
            })
        }
        (Value::Array(present), Value::Array(wanted)) => {
            present.len() == wanted.len() && present.iter().zip(wanted).all(|(there, value)| holds(there, value))
        }
        _ => present == wanted,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => value.is_null(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_applied_only_where_it_lacks_something_wanted() {
        let present =
            json!({"metadata": {"uid": "1", "labels": {"a": "b"}}, "spec": {"n": 1, "list": [{"x": 1, "d": 2}]}});
        for (trap, wanted, there) in [
            ("equal", json!({"spec": {"n": 1}}), true),
            ("defaults in a list", json!({"spec": {"list": [{"x": 1}]}}), true),
            ("longer list", json!({"spec": {"list": [{"x": 1}, {"x": 2}]}}), false),
            ("other value", json!({"spec": {"n": 2}}), false),
            ("new field", json!({"spec": {"m": 2}}), false),
            ("empty field", json!({"spec": {"m": {}}}), true),
            ("kind", json!({"kind": "Job"}), true),
            ("label", json!({"metadata": {"labels": {"a": "c"}}}), false),
        ] {
            assert_eq!(holds(&present, &wanted), there, "{trap}");
        }
    }
}

//! The ConfigMap `hawser-NAME`: what sidecars and Jobs are configured by.
use std::collections::BTreeMap;

use hawser_api::CloudBinding;
use hawser_api::binding::Provider;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::context::Context;
use crate::outcome::{AGAIN, Outcome};
use crate::{apply, labels};

/// The binding's manifest in the ConfigMap.
pub const BINDING: &str = "binding.yaml";
/// The authority of the store's certificate in it.
pub const STORE_CA: &str = "store-ca.pem";
/// The providers' own roots, all together; there only when one has some.
pub const UPSTREAM_CA: &str = "upstream-ca.pem";

/// Applies the ConfigMap.
pub async fn reconcile(binding: &CloudBinding, present: Option<&ConfigMap>, ctx: &Context) -> Outcome {
    let mut roots = BTreeMap::new();
    for provider in &binding.spec.providers {
        match roots_of(binding, provider, ctx).await {
            Ok(Some(pem)) => drop(roots.insert(provider.name.clone(), pem)),
            Ok(None) => {}
            Err(outcome) => return outcome,
        }
    }
    match apply::apply(&ctx.client, present, config_map(binding, ctx.authority.ca_pem(), &roots)).await {
        Ok(()) => Outcome::Settled,
        Err(error) => Outcome::of_api(&format!("apply ConfigMap {}", labels::config_map(binding)), &error),
    }
}

/// The manifest as sidecars and Jobs read it: who it is and what it says, nothing of how it stands.
pub fn manifest(binding: &CloudBinding) -> String {
    let whole = json!({
        "apiVersion": "hawser.dev/v1alpha1",
        "kind": "CloudBinding",
        "metadata": {
            "name": binding.name_any(),
            "namespace": binding.namespace(),
            "uid": binding.uid(),
        },
        "spec": binding.spec,
    });
    serde_saphyr::to_string(&whole).expect("JSON can be written as YAML")
}

/// The ConfigMap, with the roots of each provider that has its own.
fn config_map(binding: &CloudBinding, store_ca: &str, roots: &BTreeMap<String, String>) -> ConfigMap {
    let mut data =
        BTreeMap::from([(BINDING.to_owned(), manifest(binding)), (STORE_CA.to_owned(), store_ca.to_owned())]);
    for (provider, pem) in roots {
        data.insert(format!("upstream-{provider}.pem"), pem.clone());
        let all = data.entry(UPSTREAM_CA.to_owned()).or_default();
        all.push_str(pem.trim_end());
        all.push('\n');
    }
    ConfigMap { metadata: labels::owned(binding, labels::config_map(binding)), data: Some(data), ..Default::default() }
}

/// The roots that the binding names for a provider.
async fn roots_of(binding: &CloudBinding, provider: &Provider, ctx: &Context) -> Result<Option<String>, Outcome> {
    let Some(ca) = &provider.s3.ca else { return Ok(None) };
    let namespace = binding.namespace().unwrap_or_default();
    let (map, key) = (&ca.config_map_name, &ca.key);
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &namespace);
    let found = api
        .get_opt(map)
        .await
        .map_err(|error| Outcome::of_api(&format!("read ConfigMap {namespace}/{map}"), &error))?;
    let missing = |what: String| Outcome::stalled("RootsMissing", what, AGAIN.min(std::time::Duration::from_secs(60)));
    let Some(found) = found else {
        return Err(missing(format!(
            "ConfigMap {namespace}/{map}, which provider {} names in s3.ca, is not there: make it, or correct s3.ca",
            provider.name
        )));
    };
    let pem =
        found.data.and_then(|mut data| data.remove(key)).filter(|pem| pem.contains("-----BEGIN CERTIFICATE-----"));
    pem.map(Some).ok_or_else(|| {
        missing(format!(
            "ConfigMap {namespace}/{map} has no certificate in PEM under {key:?}, which provider {} names in s3.ca: add it, or correct s3.ca",
            provider.name
        ))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::golden;

    #[test]
    fn the_config_map_holds_the_manifest_and_every_root() {
        let roots = BTreeMap::from([("hetzner".to_owned(), "ROOT OF HETZNER\n".to_owned())]);
        golden::check("config-map", &config_map(&golden::binding(), "CA OF THE STORE\n", &roots));
    }

    #[test]
    fn the_manifest_reads_back_as_the_binding() {
        let binding = golden::binding();
        let read = hawser_api::binding::load::parse(&manifest(&binding)).unwrap();
        assert_eq!(read.spec, binding.spec);
        assert_eq!(
            (read.name_any(), read.namespace(), read.uid()),
            (binding.name_any(), binding.namespace(), binding.uid())
        );
    }
}

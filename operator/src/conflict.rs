//! Two bindings of a namespace with one bucket of one provider: the store could not tell whose a record is. The
//! older keeps it, the newer is stalled.
use std::sync::Arc;
use std::time::Duration;

use hawser_api::CloudBinding;
use hawser_api::binding::Provider;
use kube::ResourceExt;

use crate::outcome::Outcome;

/// How the binding stands beside the others of its namespace.
pub fn check(binding: &CloudBinding, others: &[Arc<CloudBinding>]) -> Outcome {
    let older = |other: &&Arc<CloudBinding>| {
        other.namespace() == binding.namespace() && other.uid() != binding.uid() && age(other) < age(binding)
    };
    let shared = others.iter().filter(older).find_map(|other| Some((other, shared(binding, other)?)));
    let Some((other, (provider, bucket))) = shared else { return Outcome::Settled };
    let message = format!(
        "CloudBinding {} is older and has bucket {bucket} at {} too: take it out of one of the two",
        other.name_any(),
        provider.s3.endpoint
    );
    Outcome::stalled("Conflict", message, Duration::from_secs(30))
}

fn age(binding: &CloudBinding) -> (Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>, String) {
    (binding.creation_timestamp(), binding.name_any())
}

/// A provider and what it calls a bucket that both bindings have.
fn shared<'a>(one: &'a CloudBinding, other: &CloudBinding) -> Option<(&'a Provider, String)> {
    one.spec.providers.iter().find_map(|provider| {
        let same = other.provider_with_id(&provider.id())?;
        let bucket = one.spec.buckets.iter().find(|mine| {
            other.spec.buckets.iter().any(|theirs| {
                mine.is_every() || theirs.is_every() || mine.name_at(&provider.name) == theirs.name_at(&same.name)
            })
        })?;
        Some((provider, bucket.name_at(&provider.name).to_owned()))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn binding(name: &str, created: &str, endpoint: &str, buckets: &str) -> Arc<CloudBinding> {
        let text = format!(
            r#"
apiVersion: hawser.dev/v1alpha1
kind: CloudBinding
metadata: {{name: {name}, namespace: shop, uid: {name}, creationTimestamp: "{created}"}}
spec:
  provider: a
  providers: [{{name: a, s3: {{endpoint: "{endpoint}"}}}}]
  buckets: {buckets}
"#
        );
        Arc::new(hawser_api::binding::load::parse(&text).unwrap())
    }

    #[test]
    fn the_newer_of_two_bindings_with_one_bucket_is_stalled() {
        let (one, two) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let (a, b) = ("https://a.test", "https://b.test");
        for (trap, created, endpoint, buckets, conflicts) in [
            ("same bucket", two, a, "[{name: x}]", true),
            ("same bucket, but older", "2025-01-01T00:00:00Z", a, "[{name: x}]", false),
            ("same second, later name", one, a, "[{name: x}]", true),
            ("other provider", two, b, "[{name: x}]", false),
            ("other bucket", two, a, "[{name: y}]", false),
            ("every bucket", two, a, "[{name: \"*\"}]", true),
            ("same name, other bucket there", two, a, "[{name: x, names: {a: y}}]", false),
            ("other name, same bucket there", two, a, "[{name: y, names: {a: x}}]", true),
        ] {
            let others = [binding("first", one, a, "[{name: x}]"), binding("second", created, endpoint, buckets)];
            let found = check(&others[1], &others);
            assert_eq!(matches!(found, Outcome::Stalled(_)), conflicts, "{trap}: {found:?}");
        }
    }
}

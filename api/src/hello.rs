//! What every client says of a binding when it first speaks to the store.

use crate::binding::CloudBinding;
use crate::v1;

/// The Hello of `binding` by a program in `role`; `client` is its name and version, for people. A session is
/// added by whoever has one.
pub fn hello(binding: &CloudBinding, role: v1::Role, client: &str) -> v1::Hello {
    let spec = &binding.spec;
    let retention = spec.retention.as_ref();
    let provider = |provider: &crate::binding::Provider| v1::Provider {
        name: provider.name.clone(),
        identity: provider.id().to_string(),
    };
    let bucket =
        |bucket: &crate::binding::Bucket| v1::Bucket { name: bucket.name.clone(), names: bucket.names.clone() };
    v1::Hello {
        binding: binding.name().to_owned(),
        namespace: binding.domain().to_owned(),
        providers: spec.providers.iter().map(provider).collect(),
        spec_provider: spec.provider.clone(),
        buckets: spec.buckets.iter().map(bucket).collect(),
        block_size: u32::try_from(spec.block_size.bytes()).unwrap_or(u32::MAX),
        retention_versions: retention.and_then(|retention| retention.versions).unwrap_or(0),
        retention_days: retention.and_then(|retention| retention.days).unwrap_or(0),
        role: role.into(),
        client: client.to_owned(),
        ..v1::Hello::default()
    }
}

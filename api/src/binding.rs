//! The CloudBinding: which buckets of which clouds are bound, and which of these clouds is wanted.
//!
//! One manifest configures every part, in a cluster and without one. [`load`] reads it, [`rules`] says what it must
//! keep to; a value of these types that came through [`load::load`] keeps to all of it.
#![allow(unreachable_pub, reason = "the schema's derive puts a copy of a public struct into a function")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::block::BlockSize;
use crate::provider::{Endpoint, ProviderId};
use crate::quantity::Rate;

mod block_size;
pub mod load;
pub mod rules;
pub mod status;

pub use load::{LoadError, load, load_all};
pub use status::CloudBindingStatus;

/// Binds pods to buckets of clouds: what they exchange with them is copied into the store, and moves to another
/// provider when `provider` changes.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "hawser.dev",
    version = "v1alpha1",
    kind = "CloudBinding",
    namespaced,
    shortname = "cb",
    category = "hawser",
    status = "CloudBindingStatus",
    derive = "PartialEq",
    doc = "Binds pods to buckets of clouds: what they exchange with them is copied into the store, and moves to another provider when spec.provider changes.",
    validation = rules::NAME_SHORT,
    validation = rules::IN_FORCE_KEPT,
    printcolumn(name = "Provider", type_ = "string", json_path = ".status.provider"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Coverage", type_ = "string", json_path = ".status.coverageSummary"),
    printcolumn(name = "Migrated", type_ = "string", json_path = ".status.migratedSummary"),
    printcolumn(name = "Pods", type_ = "string", json_path = ".status.podsSummary"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = rules::PROVIDER_NAMED,
    validation = rules::NAMES_OF_PROVIDERS,
    validation = rules::BUCKETS_APART
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CloudBindingSpec {
    /// The name of the provider that is wanted. Editing this one word starts a migration; the provider in force
    /// changes when the migration is verified.
    #[schemars(length(min = 1, max = 63))]
    pub provider: String,

    /// The clouds that these buckets live at, have lived at or shall live at. All of them are bound, always.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]), validation = rules::IDENTITIES_APART)]
    pub providers: Vec<Provider>,

    /// The buckets that are copied. A bucket that is taken out is no longer captured; what the store has of it stays.
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".into()]),
        validation = rules::STAR_ALONE,
        validation = rules::STAR_HAS_NO_NAMES
    )]
    pub buckets: Vec<Bucket>,

    /// The size of the blocks that content is cut into, a power of two. Cannot be changed later.
    #[serde(default, with = "block_size")]
    #[schemars(schema_with = "block_size::schema")]
    #[x_kube(validation = rules::BLOCK_SIZE_KEPT)]
    pub block_size: BlockSize,

    /// How the traffic of a pod reaches its sidecar.
    #[serde(default)]
    pub interception: Interception,

    /// Which versions the store lets go. Without it, it keeps every version that it recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,

    /// When the provider in force is compared with the store.
    #[serde(default)]
    pub reconcile: Reconcile,

    /// How a migration works.
    #[serde(default)]
    pub migration: Migration,
}

/// A cloud.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Provider {
    /// What this binding calls it. Variables with its credentials have the name in upper case, `-` as `_`.
    #[schemars(length(min = 1, max = 63), regex(pattern = rules::PROVIDER_NAME_PATTERN))]
    pub name: String,

    /// An S3 service.
    pub s3: S3,
}

/// An S3 service. Its endpoint says which one it is; everything else may change at any time.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3 {
    /// Where it answers: `https://HOST`, with `:PORT` where it is not the default one. `BUCKET.HOST` is bound with it,
    /// and so are the other names that AWS gives its own endpoints.
    pub endpoint: Endpoint,

    /// The region that requests are signed for. Without it, the one in an AWS endpoint's name, else `us-east-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = rules::REGION_PATTERN))]
    pub region: Option<String>,

    /// Where Hawser puts the bucket in its own requests. Those of pods are understood either way.
    #[serde(default)]
    pub addressing: Addressing,

    /// Where the keys are that Hawser's own requests are signed with. Without a cluster they come from the environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,

    /// Roots to trust at this endpoint besides the public ones; a change of them arrives within ten minutes. Without a
    /// cluster: `--upstream-ca`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<Ca>,
}

/// Where the bucket stands in a request.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addressing {
    /// In the host's name at AWS, in the path elsewhere.
    #[default]
    Auto,
    /// In the path.
    Path,
    /// In the host's name.
    VirtualHosted,
}

/// A Secret with the keys `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, and `AWS_SESSION_TOKEN` if need be.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Credentials {
    /// The Secret's name, in the binding's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
}

/// A key of a ConfigMap that holds certificates in PEM.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ca {
    /// The ConfigMap's name, in the binding's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub config_map_name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A bucket, under the name that the store has for it.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bucket {
    /// The store's name of it, for ever. `*` alone stands for every bucket that the pods use at these endpoints.
    #[schemars(length(min = 1, max = 63), regex(pattern = rules::BUCKET_PATTERN))]
    pub name: String,

    /// Whether Hawser may create it at a provider that lacks it.
    #[serde(default)]
    pub create: bool,

    /// What a provider calls it, where that differs: the provider's name, then the bucket's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "rules::bucket_names_schema")]
    pub names: BTreeMap<String, String>,
}

/// How the traffic of a pod reaches its sidecar.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interception {
    /// Packet rules in the pod's network namespace lead it there; nothing is set in the application.
    #[default]
    Redirect,
    /// The proxy variables of the environment lead it there. For one machine: some clients ignore them.
    Proxy,
}

/// Which versions the store lets go: those past either bound. The current version of a key always stays, and nothing
/// of a key goes while a gap of it is open.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retention {
    /// Versions of one key that are kept at most, the current one and deletions counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000), extend("format" = "int32"))]
    pub versions: Option<u32>,
    /// Days for which a version is kept after it was replaced or deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 36_500), extend("format" = "int32"))]
    pub days: Option<u32>,
}

/// When the provider in force is compared with the store: what the store lacks is fetched, and coverage is measured.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Reconcile {
    /// `@hourly`, `@daily`, `@weekly` or `@monthly`, at a minute of the binding's own, or five fields as cron has them,
    /// in UTC. Nothing is compared while a migration is under way.
    #[schemars(length(min = 1, max = 100), regex(pattern = rules::SCHEDULE_PATTERN))]
    pub schedule: String,
}

impl Default for Reconcile {
    fn default() -> Reconcile {
        Reconcile { schedule: "@hourly".to_owned() }
    }
}

/// How a migration works.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Migration {
    /// Objects, or parts of large ones, that are under way at the same time.
    #[schemars(range(min = 1, max = 256), extend("format" = "int32"))]
    pub parallelism: u32,
    /// Bytes per second that it may send, like `200Mi`. Without it, as many as the line carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Rate>,
    /// Stop after what is under way, and go on from there when it is false again.
    pub paused: bool,
    /// Say what a migration would do, and change nothing at either provider.
    pub dry_run: bool,
    /// Shortcomings under which the new provider may come into force all the same.
    #[schemars(length(max = 8))]
    pub accept: Vec<Acceptable>,
    /// What to do with an object at the new provider that Hawser did not put there and that differs.
    pub conflicts: Conflicts,
}

impl Default for Migration {
    fn default() -> Migration {
        Migration {
            parallelism: 16,
            bandwidth: None,
            paused: false,
            dry_run: false,
            accept: Vec::new(),
            conflicts: Conflicts::Stop,
        }
    }
}

/// A shortcoming that a person may accept.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptable {
    /// Objects that the store does not have or does not know for sure, and that therefore do not arrive.
    MissingObjects,
}

/// What to do with a foreign object at the new provider.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conflicts {
    /// Leave it, report it, and do not bring the provider into force.
    #[default]
    Stop,
    /// Leave it and take it for the current version.
    KeepTarget,
    /// Replace it.
    Overwrite,
}

impl CloudBinding {
    /// The binding's name; a loaded binding has one.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// The domain that its copy belongs to without a cluster: its namespace, `default` where none is written.
    pub fn domain(&self) -> &str {
        domain_of(&self.metadata)
    }

    /// The provider that the binding calls `name`.
    pub fn provider(&self, name: &str) -> Option<&Provider> {
        self.spec.providers.iter().find(|provider| provider.name == name)
    }

    /// The provider with this identity.
    pub fn provider_with_id(&self, id: &ProviderId) -> Option<&Provider> {
        self.spec.providers.iter().find(|provider| provider.id() == *id)
    }

    /// The provider that is wanted: the one that `spec.provider` names.
    pub fn wanted(&self) -> Option<&Provider> {
        self.provider(&self.spec.provider)
    }

    /// The store's name of what `provider` calls `bucket`; `None` when that bucket is not bound.
    pub fn store_bucket<'a>(&'a self, provider: &str, bucket: &'a str) -> Option<&'a str> {
        self.spec.buckets.iter().find_map(|bound| match bound.is_every() {
            true => Some(bucket),
            false => (bound.name_at(provider) == bucket).then_some(bound.name.as_str()),
        })
    }
}

fn domain_of(metadata: &ObjectMeta) -> &str {
    metadata.namespace.as_deref().unwrap_or("default")
}

impl Provider {
    /// What it is, whatever it is called here.
    pub fn id(&self) -> ProviderId {
        ProviderId::s3(self.s3.endpoint.clone())
    }

    /// The variable that holds `key` (like `AWS_ACCESS_KEY_ID`) for this provider alone: `HAWSER_MY_CLOUD_AWS_ACCESS_KEY_ID`.
    pub fn variable(&self, key: &str) -> String {
        format!("HAWSER_{}_{key}", self.name.to_ascii_uppercase().replace('-', "_"))
    }
}

impl S3 {
    /// The region to sign for.
    pub fn signing_region(&self) -> &str {
        let of_host = || crate::hosts::aws_region(self.endpoint.host());
        self.region.as_deref().or_else(of_host).unwrap_or("us-east-1")
    }

    /// Whether Hawser puts the bucket into the path.
    pub fn path_style(&self) -> bool {
        match self.addressing {
            Addressing::Auto => crate::hosts::aws_region(self.endpoint.host()).is_none(),
            Addressing::Path => true,
            Addressing::VirtualHosted => false,
        }
    }
}

impl Bucket {
    /// Whether it stands for every bucket at the bound endpoints.
    pub fn is_every(&self) -> bool {
        self.name == rules::EVERY_BUCKET
    }

    /// What `provider` calls it.
    pub fn name_at(&self, provider: &str) -> &str {
        self.names.get(provider).unwrap_or(&self.name)
    }
}

#[cfg(test)]
mod tests;

//! What was observed of a binding. The store knows it all: a status that was lost is written again from there.
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was observed of a binding.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CloudBindingStatus {
    /// The generation of the spec that all of this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: pods are copied, the store has what the bucket holds, and the provider that is wanted is in force.
    /// `Reconciling` and `Stalled` are there only while true: work is under way, or a person must decide.
    /// `MigrationComplete`: how the last migration stands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// What is going on, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The name of the provider in force, as the store has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub provider: Option<String>,
    /// The migration that is under way, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<MigrationStatus>,
    /// How much of what the provider holds the store holds too, by the last complete comparison.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<CoverageStatus>,
    /// The pods that are annotated with this binding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodsStatus>,
    /// What may have changed at the provider and is not known yet. `kubectl hawser gaps` lists each with its repair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_gaps: Option<OpenGaps>,
    /// Coverage, made for reading: `98 % 5m ago` stands for 98 % of the objects as of five minutes ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage_summary: Option<String>,
    /// The migration, made for reading: objects done of objects due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrated_summary: Option<String>,
    /// The pods, made for reading: protected ones of annotated ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods_summary: Option<String>,
    /// When this was last written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated: Option<Time>,
}

/// What is going on.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is not registered at the store yet, or a migration is looking at its target.
    Pending,
    /// The provider's objects are being compared with the store for the first time.
    Backfilling,
    /// The provider that is wanted is in force, and nothing is under way.
    InForce,
    /// Objects travel to the new provider.
    Replicating,
    /// What arrived at the new provider is compared with what was sent.
    Verifying,
    /// Writes of which nobody knows yet whether they happened are waited for.
    Settling,
    /// The migration is paused by `spec.migration.paused`.
    Paused,
    /// A person must decide: the condition `Stalled` says what.
    Stalled,
}

/// A migration.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MigrationStatus {
    /// Its number: grows with each migration of this binding. The Job has it in its name.
    pub epoch: i64,
    /// The provider that it leaves, by its name in the spec.
    pub source: String,
    /// The provider that it goes to, by its name in the spec.
    pub target: String,
    /// Whether it only says what it would do.
    #[serde(default)]
    pub dry_run: bool,
    /// What it is doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Objects, in numbers.
    #[serde(default)]
    pub objects: ObjectCounts,
    /// Content, in bytes.
    #[serde(default)]
    pub bytes: ByteCounts,
    /// Seconds that the last round of catching up took.
    #[serde(default)]
    pub lag_seconds: i64,
    /// Objects recorded since the last complete comparison with the source, which the migration could not confirm there.
    #[serde(default)]
    pub unconfirmed: i64,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Time>,
}

/// Objects of a migration.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ObjectCounts {
    /// Due, as far as is known.
    pub total: i64,
    /// Done, however: sent, there already, or deleted.
    pub done: i64,
    /// Compared with the source after they arrived.
    pub verified: i64,
    /// That failed and will be tried again.
    pub failed: i64,
    /// Foreign ones at the target, which `spec.migration.conflicts` decides about.
    pub conflicts: i64,
}

/// Content of a migration.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ByteCounts {
    /// Due, as far as is known.
    pub total: i64,
    /// Done.
    pub done: i64,
}

/// How much of what the provider holds the store holds too.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CoverageStatus {
    /// Objects that the provider listed.
    pub listed_objects: i64,
    /// Their bytes.
    pub listed_bytes: i64,
    /// Objects of them that the store holds.
    pub held_objects: i64,
    /// Their bytes.
    pub held_bytes: i64,
    /// When the comparison ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Time>,
}

/// Pods that are annotated with a binding.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PodsStatus {
    /// Whose traffic is copied.
    pub protected: i64,
    /// That run without being copied; `kubectl hawser check` says why.
    pub unprotected: i64,
    /// That were made from an earlier state of the binding or of Hawser: a restart brings them up to date.
    pub stale: i64,
}

/// What may have changed at the provider and is not known yet.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OpenGaps {
    /// How many there are.
    pub total: i64,
    /// How many there are of each reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_reason: BTreeMap<String, i64>,
}

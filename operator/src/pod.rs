//! What becomes of a pod that asks for protection: a pure function from the pod as it came to the pod as it runs.
//! Read in this order: [`shape`] (what cannot be protected, and why), [`strip`] (what an earlier rendering left),
//! [`inject`] (our containers), [`volumes`], [`trust`] (the application's own containers), [`resources`]. May not
//! enter here:
//! - a call to anybody: what has to be known is in [`Wish`] and [`Settings`];
//! - a typed pod that is written back: fields that this release does not know would be lost, so the pod stays JSON.

use std::collections::BTreeMap;

use hawser_api::CloudBinding;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

pub mod denial;
mod inject;
pub mod quantity;
pub mod resources;
mod shape;
mod strip;
mod trust;
mod volumes;

pub use denial::Denial;
use resources::Resources;

/// The annotation that asks for protection: names of bindings, comma-separated.
pub const BINDING: &str = "hawser.dev/binding";
/// The annotation that chooses the way in.
pub const INTERCEPTION: &str = "hawser.dev/interception";
/// The annotation that overrides the sidecar's requests and limits.
pub const RESOURCES: &str = "hawser.dev/resources";
/// The label of pods that have been rendered.
pub const PROTECTED: &str = "hawser.dev/protected";
/// The annotation with the hash of what a pod was rendered from.
pub const CONFIG_HASH: &str = "hawser.dev/config-hash";
/// The annotation with the bindings' manifests, which the sidecar reads until their ConfigMaps have arrived.
pub const CONFIGURATION: &str = "hawser.dev/configuration";
/// The annotation with the authority of the store's certificate, for the same time.
pub const STORE_CA: &str = "hawser.dev/store-ca";
/// The annotation that says which containers do not trust the sidecar: `CONTAINER=REASON`, comma-separated.
pub const UNPROTECTED: &str = "hawser.dev/unprotected";

/// The init container with the packet rules.
pub const REDIRECT_CONTAINER: &str = "hawser-redirect";
/// The native sidecar.
pub const SIDECAR_CONTAINER: &str = "hawser-sidecar";
/// The init container that leaves the bundles.
pub const TRUST_CONTAINER: &str = "hawser-trust";
const CONTAINERS: [&str; 3] = [REDIRECT_CONTAINER, SIDECAR_CONTAINER, TRUST_CONTAINER];

/// The user that the sidecar runs as. Not one that a mesh exempts too.
pub const SIDECAR_UID: i64 = 61337;
/// Where redirected connections are taken.
pub const REDIRECT_PORT: u16 = 15001;
/// Where the sidecar's probes and metrics are.
pub const ADMIN_PORT: u16 = 15090;

/// Bindings that one pod may name: a pod speaks to a handful of clouds, and the manifests have to fit an annotation.
pub const BINDINGS_MAX: usize = 8;

/// What is the same for all pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The sidecar's image.
    pub image: String,
    /// When it is pulled; the cluster's rule if not given.
    pub pull_policy: Option<String>,
    /// Secrets of the pod's namespace that it is pulled with.
    pub pull_secrets: Vec<String>,
    /// The store's URL.
    pub store: String,
    /// The authority of the store's certificate, in PEM.
    pub store_ca: String,
    /// What the sidecar may use.
    pub resources: Resources,
}

/// What one pod asks for, as far as the cluster knows it.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The pod's namespace; the pod itself may not say it yet.
    pub namespace: String,
    /// Its labels.
    pub namespace_labels: BTreeMap<String, String>,
    /// The bindings in the order of the annotation, each with its manifest as the sidecar reads it.
    pub bindings: Vec<(CloudBinding, String)>,
}

/// A pod that may run.
#[derive(Clone, Debug, PartialEq)]
pub struct Protected {
    /// The whole pod.
    pub pod: Value,
    /// What its owner should know, a sentence each.
    pub warnings: Vec<String>,
}

/// The names in a pod's annotation, each once.
///
/// # Errors
/// [`Denial::BadAnnotation`] when they are none, too many, or no names.
pub fn names(annotation: &str) -> Result<Vec<String>, Denial> {
    let bad = |why: &str| Denial::BadAnnotation { annotation: BINDING, why: why.to_owned() };
    let mut names: Vec<String> = Vec::new();
    for name in annotation.split(',').map(str::trim) {
        let letters = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.');
        if name.is_empty() || name.len() > 253 || !letters {
            return Err(bad("write the names of CloudBindings of this namespace, separated by commas"));
        }
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    if names.len() > BINDINGS_MAX {
        return Err(bad(&format!("name at most {BINDINGS_MAX} CloudBindings")));
    }
    Ok(names)
}

/// Renders `pod`, whether it was rendered before or not. Rendering what this gave gives the same again.
///
/// # Errors
/// [`Denial`]: the pod cannot be protected as it is.
pub fn protect(pod: &Value, wish: &Wish, settings: &Settings) -> Result<Protected, Denial> {
    let mut pod = pod.clone();
    strip::ours(&mut pod);
    let read: Pod =
        serde_json::from_value(pod.clone()).map_err(|error| Denial::Unreadable { why: error.to_string() })?;
    shape::check(&read, wish)?;
    let ours = resources::of(&read, &settings.resources)?;

    let untrusting = trust::prepare(&mut pod);
    volumes::add(&mut pod, wish);
    inject::add(&mut pod, settings, &ours);
    resources::raise(&mut pod, &ours);
    stamp(&mut pod, wish, settings, &untrusting);

    let warnings = untrusting.iter().map(ToString::to_string).collect();
    Ok(Protected { pod, warnings })
}

/// The hash of what a running pod cannot follow: a pod with another one is rendered differently when it is made anew.
///
/// What the sidecar reads again from the ConfigMap is left out: no edit of `spec.provider` makes a pod stale.
pub fn config_hash(bindings: &[CloudBinding], settings: &Settings) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |part: &str| {
        hasher.update(part.as_bytes());
        hasher.update(&[0]);
    };
    for binding in bindings {
        add(binding.name());
        for provider in &binding.spec.providers {
            add(&provider.name);
            add(&provider.s3.endpoint.port().to_string());
        }
    }
    add(&format!("{settings:?}"));
    hasher.finalize().to_hex()[..16].to_owned()
}

fn stamp(pod: &mut Value, wish: &Wish, settings: &Settings, untrusting: &[trust::Untrusting]) {
    let bindings: Vec<CloudBinding> = wish.bindings.iter().map(|(binding, _)| binding.clone()).collect();
    let manifests: Vec<&str> = wish.bindings.iter().map(|(_, manifest)| manifest.trim_end()).collect();
    let annotations = object(pod, &["metadata", "annotations"]);
    annotations.insert(CONFIG_HASH.into(), config_hash(&bindings, settings).into());
    annotations.insert(CONFIGURATION.into(), (manifests.join("\n---\n") + "\n").into());
    annotations.insert(STORE_CA.into(), settings.store_ca.clone().into());
    if !untrusting.is_empty() {
        let containers: Vec<String> =
            untrusting.iter().map(|found| format!("{}={}", found.container, trust::OWN_ROOTS)).collect();
        annotations.insert(UNPROTECTED.into(), containers.join(",").into());
    }
    object(pod, &["metadata", "labels"]).insert(PROTECTED.into(), "true".into());
}

/// The object at `path`, made where it is missing.
fn object<'a>(pod: &'a mut Value, path: &[&str]) -> &'a mut serde_json::Map<String, Value> {
    let mut at = pod;
    for part in path {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[*part];
    }
    if !at.is_object() {
        *at = json!({});
    }
    at.as_object_mut().expect("made an object above")
}

/// The list `name` of the pod's spec, made where it is missing.
fn list<'a>(pod: &'a mut Value, name: &str) -> &'a mut Vec<Value> {
    let list = object(pod, &["spec"]).entry(name).or_insert_with(|| json!([]));
    if !list.is_array() {
        *list = json!([]);
    }
    list.as_array_mut().expect("made a list above")
}

fn name(value: &Value) -> &str {
    value["name"].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests;

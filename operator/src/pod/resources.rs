//! What our containers may use, so that the pod keeps its class of service and its own bounds.

use std::collections::BTreeMap;
use std::str::FromStr;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use serde::Deserialize;
use serde_json::{Value, json};

use super::quantity::Quantity;
use super::{Denial, RESOURCES};

/// Cores and bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amount {
    /// Like `50m`.
    pub cpu: String,
    /// Like `96Mi`.
    pub memory: String,
}

/// What the sidecar asks for, and what it may use at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    /// What it asks for.
    pub requests: Amount,
    /// What it may use at most.
    pub limits: Amount,
}

/// The `resources` of our containers in one pod.
pub(super) struct Ours {
    pub(super) sidecar: Value,
    /// The init containers end before any other container begins: they need nothing that the sidecar does not need.
    pub(super) init: Value,
}

/// Memory that the sidecar cannot do with less than: 32 MiB of captured bytes, as much again for what they are
/// made into, and its two volumes.
const MEMORY_MIN: &str = "80Mi";

impl FromStr for Amount {
    type Err = String;

    /// Reads `cpu=50m,memory=96Mi`.
    fn from_str(text: &str) -> Result<Amount, String> {
        let mut amount = Amount { cpu: String::new(), memory: String::new() };
        for part in text.split(',') {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            value.parse::<Quantity>().map_err(|error| error.to_string())?;
            match name.trim() {
                "cpu" => amount.cpu = value.to_owned(),
                "memory" => amount.memory = value.to_owned(),
                other => return Err(format!("{other:?} is not cpu or memory")),
            }
        }
        if amount.cpu.is_empty() || amount.memory.is_empty() {
            return Err("write both, like cpu=50m,memory=96Mi".to_owned());
        }
        Ok(amount)
    }
}

impl Amount {
    fn json(&self) -> Value {
        json!({"cpu": self.cpu, "memory": self.memory})
    }
}

/// The annotation: a `resources` object as containers have it.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Override {
    #[serde(default)]
    requests: BTreeMap<String, String>,
    #[serde(default)]
    limits: BTreeMap<String, String>,
}

/// What our containers get in this pod. In a Guaranteed one they ask for all that they may use, so that it stays so.
pub(super) fn of(pod: &Pod, settings: &Resources) -> Result<Ours, Denial> {
    let mut resources = settings.clone();
    let annotations = pod.metadata.annotations.as_ref();
    if let Some(text) = annotations.and_then(|annotations| annotations.get(RESOURCES)) {
        change(&mut resources, text).map_err(|why| Denial::BadAnnotation { annotation: RESOURCES, why })?;
    }
    if is_guaranteed(pod) {
        resources.requests = resources.limits.clone();
    }
    let all = json!({"requests": resources.requests.json(), "limits": resources.limits.json()});
    Ok(Ours { sidecar: all.clone(), init: all })
}

fn change(resources: &mut Resources, text: &str) -> Result<(), String> {
    const FORM: &str = "write it like {\"requests\": {\"cpu\": \"100m\"}, \"limits\": {\"memory\": \"512Mi\"}}";
    let wanted: Override = serde_saphyr::from_str(text).map_err(|_| FORM.to_owned())?;
    for (amount, wanted) in [(&mut resources.requests, wanted.requests), (&mut resources.limits, wanted.limits)] {
        for (name, value) in wanted {
            value.parse::<Quantity>().map_err(|error| error.to_string())?;
            match name.as_str() {
                "cpu" => amount.cpu = value,
                "memory" => amount.memory = value,
                _ => return Err(FORM.to_owned()),
            }
        }
    }
    let read = |text: &str| text.parse::<Quantity>().map_err(|error| error.to_string());
    let (requests, limits) = (&resources.requests, &resources.limits);
    if read(&requests.cpu)? > read(&limits.cpu)? || read(&requests.memory)? > read(&limits.memory)? {
        return Err("its requests are above its limits: raise these too".to_owned());
    }
    if read(&limits.memory)? < read(MEMORY_MIN)? {
        return Err(format!("the sidecar needs a memory limit of {MEMORY_MIN} or more"));
    }
    Ok(())
}

fn is_guaranteed(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    if let Some(of_pod) = &spec.resources {
        return bounds_what_it_asks(Some(of_pod));
    }
    let mut all = spec.init_containers.iter().flatten().chain(&spec.containers);
    all.all(|container: &Container| bounds_what_it_asks(container.resources.as_ref()))
}

/// Whether cpu and memory are both limited, and asked for in just that amount; what is not asked for is asked for
/// as it is limited.
fn bounds_what_it_asks(resources: Option<&ResourceRequirements>) -> bool {
    ["cpu", "memory"].into_iter().all(|name| {
        let of = |list: Option<&BTreeMap<_, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>| {
            list.and_then(|list| list.get(name)?.0.parse::<Quantity>().ok())
        };
        let limit = of(resources.and_then(|all| all.limits.as_ref()));
        let request = of(resources.and_then(|all| all.requests.as_ref()));
        limit.is_some() && (request.is_none() || request == limit)
    })
}

/// A pod that bounds itself as a whole gets as much more as the sidecar may use.
pub(super) fn raise(pod: &mut Value, ours: &Ours) {
    change_pod(pod, &ours.sidecar, Quantity::plus);
}

/// Takes [`raise`] back.
pub(super) fn lower(pod: &mut Value, theirs: &Value) {
    change_pod(pod, theirs, Quantity::minus);
}

fn change_pod(pod: &mut Value, by: &Value, change: impl Fn(Quantity, Quantity) -> Quantity) {
    for list in ["requests", "limits"] {
        for name in ["cpu", "memory"] {
            let Some(amount) = pod.pointer_mut(&format!("/spec/resources/{list}/{name}")) else { continue };
            let (now, by) = (read(amount), read(&by[list][name]));
            if let (Some(now), Some(by)) = (now, by) {
                *amount = change(now, by).to_string().into();
            }
        }
    }
}

fn read(amount: &Value) -> Option<Quantity> {
    match amount {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

//! Takes off what an earlier rendering put on, so that a restored or copied pod, and one that another webhook has
//! changed since, is rendered from what is its own.

use hawser_api::variables::{ADDITIVE, JAVA, REPLACING};
use serde_json::Value;

use super::{CONFIG_HASH, CONFIGURATION, CONTAINERS, PROTECTED, SIDECAR_CONTAINER, STORE_CA, UNPROTECTED};
use super::{name, resources, trust, volumes};

pub(super) fn ours(pod: &mut Value) {
    lower(pod);
    for list in ["initContainers", "containers"] {
        let Some(containers) = pod["spec"].get_mut(list).and_then(Value::as_array_mut) else { continue };
        containers.retain(|container| !CONTAINERS.contains(&name(container)));
        for container in containers {
            of_container(container);
        }
    }
    if let Some(list) = pod["spec"].get_mut("volumes").and_then(Value::as_array_mut) {
        list.retain(|volume| !volumes::NAMES.contains(&name(volume)));
    }
    for (marks, ours) in
        [("annotations", &[CONFIG_HASH, CONFIGURATION, STORE_CA, UNPROTECTED][..]), ("labels", &[PROTECTED][..])]
    {
        if let Some(marks) = pod["metadata"].get_mut(marks).and_then(Value::as_object_mut) {
            marks.retain(|mark, _| !ours.contains(&mark.as_str()));
        }
    }
}

/// Pod-level resources were raised by what the sidecar has.
fn lower(pod: &mut Value) {
    let mut sidecar = pod["spec"]["initContainers"].as_array().into_iter().flatten();
    let theirs = sidecar.find(|container| name(container) == SIDECAR_CONTAINER).map(|it| it["resources"].clone());
    if let Some(theirs) = theirs {
        resources::lower(pod, &theirs);
    }
}

fn of_container(container: &mut Value) {
    if let Some(mounts) = container.get_mut("volumeMounts").and_then(Value::as_array_mut) {
        mounts.retain(|mount| !volumes::NAMES.contains(&name(mount)));
        if mounts.is_empty() {
            remove(container, "volumeMounts");
        }
    }
    let Some(variables) = container.get_mut("env").and_then(Value::as_array_mut) else { return };
    variables.retain_mut(|variable| {
        let value = variable["value"].as_str().unwrap_or_default();
        if name(variable) == JAVA {
            match trust::without_our_options(value) {
                Some("") => return false,
                Some(rest) => variable["value"] = rest.into(),
                None => {}
            }
            return true;
        }
        let is_kind = ADDITIVE.contains(&name(variable)) || REPLACING.contains(&name(variable));
        !(is_kind && value.starts_with(volumes::TRUST_DIR))
    });
    if variables.is_empty() {
        remove(container, "env");
    }
}

fn remove(container: &mut Value, field: &str) {
    if let Some(fields) = container.as_object_mut() {
        fields.remove(field);
    }
}

//! The application's own containers: they see the bundles, and their clients are told of them.
//!
//! All of a pod's own containers come after `hawser-trust`, its init containers included, so all of them get the
//! variables. A variable that a container sets itself stays as it is: it names roots that we cannot read, and an
//! application must not lose one. Its clients then do not trust the sidecar, which passes them through and says so.

use std::fmt;

use hawser_api::variables::{ADDITIVE, JAVA, JAVA_TRUSTSTORE, REPLACING, java_options};
use serde_json::{Value, json};

use super::name;
use super::volumes::{TRUST, TRUST_DIR};

/// The word for a container with certificates of its own.
pub(super) const OWN_ROOTS: &str = "OwnRoots";

/// A container whose clients, or some of them, do not trust the sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Untrusting {
    pub(super) container: String,
    variables: Vec<&'static str>,
}

impl fmt::Display for Untrusting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{OWN_ROOTS}: container {} sets {} itself, so clients that follow it are passed through and not copied: \
             take it away, if public roots are all that it needs",
            self.container,
            self.variables.join(" and ")
        )
    }
}

/// Gives every container of the pod the bundles; tells which of them have roots of their own.
pub(super) fn prepare(pod: &mut Value) -> Vec<Untrusting> {
    let mut untrusting = Vec::new();
    for list in ["initContainers", "containers"] {
        let Some(containers) = pod["spec"].get_mut(list).and_then(Value::as_array_mut) else { continue };
        for container in containers {
            let variables = set(container);
            push(container, "volumeMounts", json!({"name": TRUST, "mountPath": TRUST_DIR, "readOnly": true}));
            if !variables.is_empty() {
                untrusting.push(Untrusting { container: name(container).to_owned(), variables });
            }
        }
    }
    untrusting
}

/// Sets the variables; gives those that are the container's own.
fn set(container: &mut Value) -> Vec<&'static str> {
    let mut own = Vec::new();
    let added = ADDITIVE.map(|name| (name, "ca.pem")).into_iter();
    for (variable, file) in added.chain(REPLACING.map(|name| (name, "merged.pem"))) {
        if has(container, variable).is_some() {
            own.push(variable);
        } else {
            push(container, "env", json!({"name": variable, "value": format!("{TRUST_DIR}/{file}")}));
        }
    }
    match has(container, JAVA) {
        None => push(container, "env", json!({"name": JAVA, "value": our_options()})),
        Some(theirs) => match theirs["value"].as_str() {
            Some(value) if !value.contains(JAVA_TRUSTSTORE) => {
                theirs["value"] = [value, &our_options()].join(" ").trim_start().into();
            }
            // Not readable here (`valueFrom`), or a truststore of its own.
            _ => own.push(JAVA),
        },
    }
    own
}

fn our_options() -> String {
    java_options(&format!("{TRUST_DIR}/merged.p12"))
}

/// What stood in front of our options; `None` where they are not.
pub(super) fn without_our_options(value: &str) -> Option<&str> {
    value.strip_suffix(&our_options()).map(str::trim_end)
}

fn has<'a>(container: &'a mut Value, variable: &str) -> Option<&'a mut Value> {
    let variables = container.get_mut("env")?.as_array_mut()?;
    variables.iter_mut().find(|known| name(known) == variable)
}

fn push(container: &mut Value, field: &str, value: Value) {
    if let Some(list) = container.get_mut(field).and_then(Value::as_array_mut) {
        list.push(value);
    } else {
        container[field] = json!([value]);
    }
}

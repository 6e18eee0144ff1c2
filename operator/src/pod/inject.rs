//! Our three containers, in front of all others: rules, sidecar, bundles. The capability is the first one's alone.

use serde_json::{Value, json};

use super::resources::Ours;
use super::volumes::{CONFIG, CONFIG_DIR, STATE, STATE_DIR, TOKEN, TOKEN_DIR, TRUST, TRUST_DIR};
use super::{ADMIN_PORT, REDIRECT_CONTAINER, REDIRECT_PORT, SIDECAR_CONTAINER, SIDECAR_UID, Settings, TRUST_CONTAINER};
use super::{list, name};

/// Seconds in which the sidecar has to come up before the kubelet restarts it. It needs no store and no cloud for it.
const STARTUP_SECONDS_MAX: u32 = 60;

pub(super) fn add(pod: &mut Value, settings: &Settings, ours: &Ours) {
    let front = [redirect(settings, ours), sidecar(settings, ours), trust(settings, ours)];
    list(pod, "initContainers").splice(0..0, front);
    for secret in &settings.pull_secrets {
        let secrets = list(pod, "imagePullSecrets");
        if !secrets.iter().any(|known| name(known) == secret) {
            secrets.push(json!({"name": secret}));
        }
    }
}

fn redirect(settings: &Settings, ours: &Ours) -> Value {
    let outcome = outcome();
    let command = [
        "hawser-sidecar",
        "redirect",
        "--binding",
        CONFIG_DIR,
        "--uid",
        &SIDECAR_UID.to_string(),
        "--to",
        &REDIRECT_PORT.to_string(),
        "--outcome",
        &outcome,
    ];
    let mut container = container(REDIRECT_CONTAINER, &command, settings, &ours.init);
    container["securityContext"] = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
        "privileged": false,
        "readOnlyRootFilesystem": true,
        "runAsGroup": 0,
        "runAsNonRoot": false,
        "runAsUser": 0,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    container["volumeMounts"] = json!([mount(CONFIG, CONFIG_DIR, true), mount(TRUST, TRUST_DIR, false)]);
    container
}

fn sidecar(settings: &Settings, ours: &Ours) -> Value {
    let (redirect, admin) = (format!("[::]:{REDIRECT_PORT}"), format!("[::]:{ADMIN_PORT}"));
    let (token, outcome) = (format!("{TOKEN_DIR}/token"), outcome());
    let command = [
        "hawser-sidecar",
        "run",
        "--supervise",
        "--binding",
        CONFIG_DIR,
        "--store",
        &settings.store,
        "--store-ca",
        CONFIG_DIR,
        "--token-file",
        &token,
        "--trust-dir",
        TRUST_DIR,
        "--state-dir",
        STATE_DIR,
        "--redirect",
        &redirect,
        "--redirect-outcome",
        &outcome,
        "--admin",
        &admin,
    ];
    let mut container = container(SIDECAR_CONTAINER, &command, settings, &ours.sidecar);
    container["restartPolicy"] = "Always".into();
    let of_pod = |field: &str| json!({"fieldRef": {"apiVersion": "v1", "fieldPath": field}});
    container["env"] = json!([
        {"name": "POD_NAME", "valueFrom": of_pod("metadata.name")},
        {"name": "POD_UID", "valueFrom": of_pod("metadata.uid")},
    ]);
    container["ports"] = json!([{"name": "hawser-admin", "containerPort": ADMIN_PORT, "protocol": "TCP"}]);
    // It waits by itself, so that the first probe succeeds as soon as the sidecar is ready, and not a second later.
    let ready = ["hawser-sidecar", "ready", "--admin", &format!("127.0.0.1:{ADMIN_PORT}"), "--wait", "5s"];
    container["startupProbe"] = json!({
        "exec": {"command": ready},
        "periodSeconds": 1,
        "timeoutSeconds": 6,
        "successThreshold": 1,
        "failureThreshold": STARTUP_SECONDS_MAX / 6,
    });
    container["securityContext"] = unprivileged();
    container["volumeMounts"] = json!([
        mount(CONFIG, CONFIG_DIR, true),
        mount(TRUST, TRUST_DIR, false),
        mount(STATE, STATE_DIR, false),
        mount(TOKEN, TOKEN_DIR, true),
    ]);
    container
}

fn trust(settings: &Settings, ours: &Ours) -> Value {
    let command = ["hawser-sidecar", "trust", "--trust-dir", TRUST_DIR, "--available"];
    let mut container = container(TRUST_CONTAINER, &command, settings, &ours.init);
    container["securityContext"] = unprivileged();
    container["volumeMounts"] = json!([mount(TRUST, TRUST_DIR, false)]);
    container
}

fn container(name: &str, command: &[&str], settings: &Settings, resources: &Value) -> Value {
    let mut container = json!({
        "name": name,
        "image": settings.image,
        "command": command,
        "resources": resources,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    if let Some(policy) = &settings.pull_policy {
        container["imagePullPolicy"] = policy.clone().into();
    }
    container
}

/// What even the Pod Security level *restricted* admits.
fn unprivileged() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "privileged": false,
        "readOnlyRootFilesystem": true,
        "runAsGroup": SIDECAR_UID,
        "runAsNonRoot": true,
        "runAsUser": SIDECAR_UID,
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// What `redirect` did, for the sidecar to tell.
fn outcome() -> String {
    format!("{TRUST_DIR}/redirect.json")
}

fn mount(volume: &str, path: &str, read_only: bool) -> Value {
    let mut mount = json!({"name": volume, "mountPath": path});
    if read_only {
        mount["readOnly"] = true.into();
    }
    mount
}

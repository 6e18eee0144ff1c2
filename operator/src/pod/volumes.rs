//! The volumes that our containers need, and who sees them: state is the sidecar's alone.

use serde_json::{Value, json};

use super::{CONFIGURATION, STORE_CA, UNPROTECTED, Wish, list};

pub(super) const CONFIG: &str = "hawser-config";
pub(super) const TRUST: &str = "hawser-trust";
pub(super) const STATE: &str = "hawser-state";
pub(super) const TOKEN: &str = "hawser-token";
pub(super) const NAMES: [&str; 4] = [CONFIG, TRUST, STATE, TOKEN];

pub(super) const CONFIG_DIR: &str = "/etc/hawser";
pub(super) const TRUST_DIR: &str = "/run/hawser/trust";
pub(super) const STATE_DIR: &str = "/run/hawser/state";
pub(super) const TOKEN_DIR: &str = "/run/hawser/token";

/// Bundles of roots in three forms, each twice while one is replaced: some 300 KiB each.
const TRUST_SIZE: &str = "8Mi";
/// The CA's key and the journal, which keeps below 4 MiB.
const STATE_SIZE: &str = "8Mi";
/// The kubelet renews the token after four fifths of this.
const TOKEN_SECONDS: u32 = 3600;
/// Whom the token is for.
const AUDIENCE: &str = "hawser-store";

pub(super) fn add(pod: &mut Value, wish: &Wish) {
    let volumes = list(pod, "volumes");
    volumes.push(json!({"name": CONFIG, "projected": {"defaultMode": 0o444, "sources": config(wish)}}));
    volumes.push(json!({"name": TRUST, "emptyDir": {"medium": "Memory", "sizeLimit": TRUST_SIZE}}));
    volumes.push(json!({"name": STATE, "emptyDir": {"medium": "Memory", "sizeLimit": STATE_SIZE}}));
    let token = json!({"audience": AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token"});
    volumes
        .push(json!({"name": TOKEN, "projected": {"defaultMode": 0o444, "sources": [{"serviceAccountToken": token}]}}));
}

/// A folder for each binding's ConfigMap, and what was stamped on the pod until they are there: a pod that was
/// admitted never hangs for a file.
fn config(wish: &Wish) -> Vec<Value> {
    let mut sources: Vec<Value> = wish
        .bindings
        .iter()
        .map(|(binding, _)| {
            let roots = binding.spec.providers.iter().map(|provider| format!("upstream-{}.pem", provider.name));
            let files = ["binding.yaml".to_owned(), "store-ca.pem".to_owned()].into_iter().chain(roots);
            let items: Vec<Value> =
                files.map(|file| json!({"key": file, "path": format!("{}/{file}", binding.name())})).collect();
            let config = format!("hawser-{}", binding.name());
            json!({"configMap": {"name": config, "optional": true, "items": items}})
        })
        .collect();
    let stamped = |annotation: &str, file: &str| {
        json!({
            "path": format!("stamped/{file}"),
            "fieldRef": {"apiVersion": "v1", "fieldPath": format!("metadata.annotations['{annotation}']")},
        })
    };
    let items = [
        stamped(CONFIGURATION, "configuration.yaml"),
        stamped(STORE_CA, "store-ca.pem"),
        stamped(UNPROTECTED, "unprotected"),
    ];
    sources.push(json!({"downwardAPI": {"items": items}}));
    sources
}

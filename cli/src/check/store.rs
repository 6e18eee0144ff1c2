//! The store, asked with a token of the namespace: whether the whole way works that pods use.

use super::Line;
use crate::cluster::Cluster;
use crate::store::Store;
use crate::units;

pub(super) async fn check(cluster: &Cluster) -> Vec<Line> {
    let mut store = match Store::of_cluster(cluster).await {
        Ok(store) => store,
        Err(failure) => return vec![Line::failed("the store", &failure)],
    };
    let status = match store.status().await {
        Ok(status) => status,
        Err(failure) => return vec![Line::failed("the store", &failure)],
    };
    let mut lines = vec![Line::fine(format!(
        "it answers, and holds {} of this namespace in {}",
        units::bytes(status.logical_bytes),
        units::bytes(status.stored_bytes)
    ))];
    for binding in &status.bindings {
        let sessions = units::counted(binding.sessions, "sidecar is", "sidecars are");
        lines.push(Line::fine(format!("{}: {sessions} connected", binding.binding)));
    }
    lines
}

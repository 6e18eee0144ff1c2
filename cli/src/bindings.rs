//! What the CloudBindings themselves say: `hawser status` in a cluster, and `hawser migrate`. Needs no more rights
//! than to read them; the operator writes there what the store knows.

use std::io::IsTerminal;
use std::time::Duration;

use hawser_api::CloudBinding;
use hawser_api::binding::status::{CloudBindingStatus, MigrationStatus, Phase};
use indicatif::{ProgressBar, ProgressStyle};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};

use crate::Found;
use crate::args::{KubeArgs, MigrateArgs};
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::print::Out;
use crate::units;

/// How often a migration that is followed is looked at: the operator writes every five seconds.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// `hawser status` in a cluster.
pub(crate) async fn status(args: &KubeArgs, out: &mut Out) -> Result<Found, Failure> {
    let cluster = Cluster::connect(args).await?;
    let bindings = cluster.bindings().await?;
    if bindings.is_empty() && !out.json() {
        out.line(&format!("namespace {} has no CloudBinding", cluster.namespace))?;
    }
    for binding in &bindings {
        if out.json() {
            out.object(&json_of(binding))?;
            continue;
        }
        out.line(name(binding))?;
        for (what, text) in lines(binding, units::now()) {
            out.line(&format!("  {what:<11} {text}"))?;
        }
        out.line("")?;
    }
    out.flush()?;
    Ok(Found::Fine)
}

/// `hawser migrate`.
pub(crate) async fn migrate(args: &MigrateArgs, out: &mut Out) -> Result<Found, Failure> {
    let cluster = Cluster::connect(&args.kube).await?;
    let name = match &args.binding {
        Some(name) => name.clone(),
        None => only(&cluster).await?,
    };
    let mut shown = Shown::new(out.json());
    loop {
        let binding = cluster.binding(&name).await?;
        let stands = stands(&binding);
        if !args.watch {
            if out.json() {
                out.object(&json_of(&binding))?;
            } else {
                out.line(&sentence(&binding, &stands))?;
            }
            out.flush()?;
            return Ok(found(&stands));
        }
        shown.show(&binding, &stands, out)?;
        if !matches!(stands, Stands::Working) {
            shown.end();
            if !out.json() {
                out.line(&sentence(&binding, &stands))?;
            }
            out.flush()?;
            return Ok(found(&stands));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn only(cluster: &Cluster) -> Result<String, Failure> {
    let bindings = cluster.bindings().await?;
    match bindings.as_slice() {
        [one] => Ok(name(one).to_owned()),
        [] => Err(Failure::NotFound(format!("namespace {} has no CloudBinding", cluster.namespace))),
        many => {
            let names: Vec<&str> = many.iter().map(name).collect();
            Err(Failure::Usage(format!("say which binding: {}", names.join(", "))))
        }
    }
}

/// How a binding stands between its provider in force and the one that is wanted.
#[derive(Debug, PartialEq, Eq)]
enum Stands {
    /// The provider that is wanted is in force.
    InForce,
    /// A dry run has said what it would do.
    Tried,
    /// Work is under way.
    Working,
    /// It waits for a person: why, and what to do.
    Waiting(String),
}

/// The only place that says how a binding stands.
fn stands(binding: &CloudBinding) -> Stands {
    let (spec, status) = (&binding.spec, binding.status.clone().unwrap_or_default());
    // A status of an earlier edit says nothing of this one.
    if status.observed_generation != binding.metadata.generation {
        return Stands::Working;
    }
    if let Some(stalled) = condition(&status, "Stalled").filter(|condition| condition.status == "True") {
        return Stands::Waiting(format!("{}: {}", stalled.reason, stalled.message));
    }
    if status.phase == Some(Phase::Paused) {
        return Stands::Waiting("Paused: set spec.migration.paused to false to go on".into());
    }
    if status.provider.as_deref() == Some(&spec.provider) {
        return Stands::InForce;
    }
    match &status.migration {
        Some(migration) if migration.dry_run && migration.finished.is_some() => Stands::Tried,
        _ => Stands::Working,
    }
}

fn found(stands: &Stands) -> Found {
    match stands {
        Stands::InForce | Stands::Tried | Stands::Working => Found::Fine,
        Stands::Waiting(_) => Found::Wrong,
    }
}

fn sentence(binding: &CloudBinding, stands: &Stands) -> String {
    let status = binding.status.clone().unwrap_or_default();
    let (name, wanted) = (name(binding), &binding.spec.provider);
    let force = status.provider.as_deref().unwrap_or("no provider");
    match stands {
        Stands::InForce => match &status.migration {
            Some(migration) => format!("{name}: {wanted} is in force. {}", counts(migration)),
            None => format!("{name}: {wanted} is in force, and nothing is under way"),
        },
        Stands::Tried => {
            let counts = status.migration.as_ref().map(counts).unwrap_or_default();
            format!("{name}: a dry run from {force} to {wanted} is over. {counts}")
        }
        Stands::Working => {
            let phase = status.phase.map_or("Pending".into(), |phase| format!("{phase:?}"));
            let counts = status.migration.as_ref().map(counts).unwrap_or_default();
            format!("{name}: {force} is in force, {wanted} is wanted: {phase}. {counts}")
        }
        Stands::Waiting(why) => format!("{name}: {force} is in force, {wanted} is wanted: {why}"),
    }
}

fn counts(migration: &MigrationStatus) -> String {
    let MigrationStatus { source, target, objects, bytes, unconfirmed, .. } = migration;
    let number = |number: i64| u64::try_from(number).unwrap_or_default();
    let mut text = format!(
        "{source} → {target}: {} of {} objects, {} of {}",
        units::count(number(objects.done)),
        units::count(number(objects.total)),
        units::bytes(number(bytes.done)),
        units::bytes(number(bytes.total)),
    );
    for (count, what) in [
        (objects.verified, "verified"),
        (objects.failed, "failed"),
        (objects.conflicts, "in conflict"),
        (*unconfirmed, "unconfirmed at the source"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {} {what}", units::count(number(count))));
        }
    }
    text
}

fn lines(binding: &CloudBinding, now: i64) -> Vec<(&'static str, String)> {
    let status = binding.status.clone().unwrap_or_default();
    let number = |number: i64| u64::try_from(number).unwrap_or_default();
    let phase = status.phase.map_or("the operator has not seen it yet".into(), |phase| format!("{phase:?}"));
    let mut lines = vec![("phase", phase)];
    let wanted = &binding.spec.provider;
    lines.push(match status.provider.as_deref() {
        Some(force) if force == wanted => ("in force", force.to_owned()),
        Some(force) => ("in force", format!("{force}; {wanted} is wanted")),
        None => ("in force", format!("not yet; {wanted} is wanted")),
    });
    if let Some(coverage) = &status.coverage {
        let (held, listed) = (number(coverage.held_objects), number(coverage.listed_objects));
        let mut text =
            format!("{} of objects ({} of {})", units::percent(held, listed), units::count(held), units::count(listed));
        if let Some(at) = &coverage.as_of {
            text.push_str(&format!(", as of {}", units::ago(at.0.as_second(), now)));
        }
        lines.push(("coverage", text));
    }
    if let Some(gaps) = status.open_gaps.as_ref().filter(|gaps| gaps.total > 0) {
        let each: Vec<String> = gaps.by_reason.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        lines.push(("gaps", format!("{} open: {}; see kubectl hawser gaps", gaps.total, each.join(", "))));
    }
    if let Some(pods) = &status.pods {
        let text = format!("{} protected, {} unprotected, {} stale", pods.protected, pods.unprotected, pods.stale);
        lines.push(("pods", text));
    }
    if let Some(migration) = &status.migration {
        lines.push(("migration", counts(migration)));
    }
    for condition in &status.conditions {
        if condition.status == "True" && matches!(condition.type_.as_str(), "Stalled" | "Reconciling") {
            lines.push(("", format!("{}: {}: {}", condition.type_, condition.reason, condition.message)));
        }
    }
    lines
}

/// A condition by its type.
pub(crate) fn condition<'a>(status: &'a CloudBindingStatus, kind: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == kind)
}

/// A binding's name.
pub(crate) fn name(binding: &CloudBinding) -> &str {
    binding.metadata.name.as_deref().unwrap_or_default()
}

fn json_of(binding: &CloudBinding) -> Value {
    json!({
        "binding": name(binding),
        "namespace": binding.metadata.namespace,
        "wanted": binding.spec.provider,
        "status": binding.status,
    })
}

/// A migration as it is followed: a bar on a terminal, else a line when something has changed.
struct Shown {
    bar: Option<ProgressBar>,
    last: String,
}

impl Shown {
    fn new(json: bool) -> Shown {
        let bar = (!json && std::io::stderr().is_terminal()).then(|| ProgressBar::new(0));
        if let Some(bar) = &bar {
            if let Ok(style) = ProgressStyle::with_template("{msg} [{wide_bar}] {percent} % {elapsed}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Shown { bar, last: String::new() }
    }

    fn show(&mut self, binding: &CloudBinding, stands: &Stands, out: &mut Out) -> Result<(), Failure> {
        let text = sentence(binding, stands);
        if let Some(bar) = &self.bar {
            let migration = binding.status.as_ref().and_then(|status| status.migration.as_ref());
            let of = |number: i64| u64::try_from(number).unwrap_or_default();
            let (done, total) =
                migration.map_or((0, 0), |migration| (of(migration.bytes.done), of(migration.bytes.total)));
            bar.set_length(total.max(1));
            bar.set_position(done);
            bar.set_message(text.clone());
        } else if text != self.last {
            if out.json() {
                out.object(&json_of(binding))?;
            } else if *stands == Stands::Working {
                out.line(&text)?;
            }
            out.flush()?;
        }
        self.last = text;
        Ok(())
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn binding(status: Value) -> CloudBinding {
        let endpoint = |name: &str| json!({ "name": name, "s3": { "endpoint": format!("https://{name}.test") } });
        let manifest = json!({
            "apiVersion": "hawser.dev/v1alpha1", "kind": "CloudBinding",
            "metadata": { "name": "photos", "namespace": "shop", "generation": 2 },
            "spec": {
                "provider": "b", "providers": [endpoint("a"), endpoint("b")], "buckets": [{ "name": "photos" }],
            },
            "status": status,
        });
        serde_json::from_value(manifest).unwrap()
    }

    fn stalled(status: &str) -> Value {
        json!([{ "type": "Stalled", "status": status, "reason": "Conflicts", "message": "3 objects are foreign",
            "lastTransitionTime": "2026-11-24T11:00:00Z" }])
    }

    #[test]
    fn a_binding_stands_as_its_status_of_this_edit_says() {
        let migration =
            |finished: Value| json!({ "epoch": 1, "source": "a", "target": "b", "dryRun": true, "finished": finished });
        let rows = [
            ("nobody has seen the edit", json!({ "observedGeneration": 1, "provider": "b" }), Stands::Working),
            ("no status at all", json!({}), Stands::Working),
            ("in force", json!({ "observedGeneration": 2, "provider": "b" }), Stands::InForce),
            ("under way", json!({ "observedGeneration": 2, "provider": "a", "phase": "Replicating" }), Stands::Working),
            (
                "paused",
                json!({ "observedGeneration": 2, "provider": "a", "phase": "Paused" }),
                Stands::Waiting("Paused: set spec.migration.paused to false to go on".into()),
            ),
            (
                "stalled",
                json!({ "observedGeneration": 2, "provider": "a", "conditions": stalled("True") }),
                Stands::Waiting("Conflicts: 3 objects are foreign".into()),
            ),
            (
                "stalled no more",
                json!({ "observedGeneration": 2, "provider": "a", "conditions": stalled("False") }),
                Stands::Working,
            ),
            (
                "a dry run that is over",
                json!({ "observedGeneration": 2, "provider": "a", "migration": migration("2026-11-24T11:00:00Z".into()) }),
                Stands::Tried,
            ),
            (
                "a dry run under way",
                json!({ "observedGeneration": 2, "provider": "a", "migration": migration(Value::Null) }),
                Stands::Working,
            ),
        ];
        for (what, status, wanted) in rows {
            assert_eq!(stands(&binding(status)), wanted, "{what}");
        }
    }
}

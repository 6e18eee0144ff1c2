//! `hawser status`: everything about a binding at a glance.

use hawser_api::v1::{BindingStatus, Coverage, Progress, StatusReply};
use serde_json::{Value, json};

use crate::Found;
use crate::args::StatusArgs;
use crate::failure::Failure;
use crate::print::Out;
use crate::store::Store;
use crate::units;

pub(crate) async fn run(args: &StatusArgs, out: &mut Out) -> Result<Found, Failure> {
    let mut store = Store::at(&args.store).await?;
    let status = store.status().await?;
    show(&status, units::now(), out)?;
    out.flush()?;
    Ok(Found::Fine)
}

fn show(status: &StatusReply, now: i64, out: &mut Out) -> Result<(), Failure> {
    if out.json() {
        for binding in &status.bindings {
            out.object(&binding_json(binding))?;
        }
        return out.object(&domain_json(status));
    }
    if status.bindings.is_empty() {
        out.line("no binding yet: a sidecar or hawser-migrate brings it with its first Hello")?;
    }
    for binding in &status.bindings {
        out.line(&binding.binding)?;
        for (name, text) in binding_lines(binding, now) {
            out.line(&format!("  {name:<11} {text}"))?;
        }
        out.line("")?;
    }
    out.line("store")?;
    for (name, text) in domain_lines(status) {
        out.line(&format!("  {name:<11} {text}"))?;
    }
    Ok(())
}

fn binding_lines(binding: &BindingStatus, now: i64) -> Vec<(&'static str, String)> {
    let mut lines = vec![("in force", format!("{}, {}", binding.provider_in_force, binding.provider_identity))];
    let others: Vec<String> = binding
        .providers
        .iter()
        .filter(|provider| provider.name != binding.provider_in_force)
        .map(|provider| format!("{}, {}", provider.name, provider.identity))
        .collect();
    if !others.is_empty() {
        lines.push(("besides", others.join("; ")));
    }
    let buckets: Vec<&str> = binding.buckets.iter().map(|bucket| bucket.name.as_str()).collect();
    lines.push(("buckets", if buckets == ["*"] { "all".into() } else { buckets.join(", ") }));
    lines.push((
        "held",
        format!("{}, {}", units::counted(binding.objects, "object", "objects"), units::bytes(binding.object_bytes)),
    ));
    lines.push(("coverage", coverage(binding.coverage.as_ref(), binding.unconfirmed, now)));
    lines.push(("gaps", gaps(binding)));
    let sessions = units::counted(binding.sessions, "session", "sessions");
    lines.push((
        "traffic",
        format!("{sessions}, {} under way", units::counted(binding.open_intents, "write", "writes")),
    ));
    if let Some(progress) = binding.progress.as_ref().filter(|progress| !progress.phase.is_empty()) {
        lines.push(("migration", migration(progress, now)));
    }
    lines
}

fn coverage(coverage: Option<&Coverage>, unconfirmed: u64, now: i64) -> String {
    let Some(coverage) = coverage.filter(|coverage| coverage.known) else {
        return "not known yet: hawser-migrate backfill compares the copy with the provider".into();
    };
    let mut text = format!(
        "{} of objects ({} of {}), {} of bytes ({} of {}), as of {}",
        units::percent(coverage.held_objects, coverage.listed_objects),
        units::count(coverage.held_objects),
        units::count(coverage.listed_objects),
        units::percent(coverage.held_bytes, coverage.listed_bytes),
        units::bytes(coverage.held_bytes),
        units::bytes(coverage.listed_bytes),
        units::ago(coverage.finished_unix, now),
    );
    if unconfirmed > 0 {
        text.push_str(&format!("; {} recorded since it began", units::count(unconfirmed)));
    }
    text
}

fn gaps(binding: &BindingStatus) -> String {
    let mut by_reason: Vec<(&String, u64)> =
        binding.open_gaps.iter().filter(|(_, number)| **number > 0).map(|(reason, number)| (reason, *number)).collect();
    if by_reason.is_empty() {
        return "none open".into();
    }
    by_reason.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let all: u64 = by_reason.iter().map(|(_, number)| number).sum();
    let each: Vec<String> =
        by_reason.iter().map(|(reason, number)| format!("{reason} {}", units::count(*number))).collect();
    format!("{} open: {}; see hawser gaps", units::count(all), each.join(", "))
}

fn migration(progress: &Progress, now: i64) -> String {
    let route = if progress.target.is_empty() || progress.target == progress.source {
        progress.source.clone()
    } else {
        format!("{} → {}", progress.source, progress.target)
    };
    let mut text = format!(
        "{}, {route}: {} of {} objects ({}), {} of {}",
        progress.phase,
        units::count(progress.objects_done),
        units::count(progress.objects_total),
        units::percent(progress.objects_done, progress.objects_total),
        units::bytes(progress.bytes_done),
        units::bytes(progress.bytes_total),
    );
    for (number, what) in [
        (progress.objects_verified, "verified"),
        (progress.objects_failed, "failed"),
        (progress.conflicts, "in conflict"),
    ] {
        if number > 0 {
            text.push_str(&format!(", {} {what}", units::count(number)));
        }
    }
    match (progress.started_unix, progress.finished_unix) {
        (_, finished) if finished > 0 => text.push_str(&format!(", finished {}", units::ago(finished, now))),
        (started, _) if started > 0 => text.push_str(&format!(", started {}", units::ago(started, now))),
        _ => {}
    }
    text
}

fn domain_lines(status: &StatusReply) -> Vec<(&'static str, String)> {
    let StatusReply { logical_bytes, unique_bytes, stored_bytes, blocks, tick, .. } = status;
    vec![
        ("content", format!("{} in all kept versions", units::bytes(*logical_bytes))),
        (
            "distinct",
            format!(
                "{} in {}, {}",
                units::bytes(*unique_bytes),
                units::counted(*blocks, "block", "blocks"),
                saved(*logical_bytes, *unique_bytes, "deduplication")
            ),
        ),
        (
            "on disk",
            format!(
                "{}, {}",
                units::bytes(*stored_bytes),
                saved(*logical_bytes, *stored_bytes, "deduplication and compression")
            ),
        ),
        ("tick", tick.to_string()),
    ]
}

fn saved(before: u64, after: u64, by: &str) -> String {
    match before.checked_sub(after) {
        Some(less) if less > 0 => format!("{} saved by {by}", units::percent(less, before)),
        _ => format!("nothing saved by {by} yet"),
    }
}

fn binding_json(binding: &BindingStatus) -> Value {
    let providers: Vec<Value> = binding
        .providers
        .iter()
        .map(|provider| json!({"name": provider.name, "identity": provider.identity}))
        .collect();
    let buckets: Vec<Value> =
        binding.buckets.iter().map(|bucket| json!({"name": bucket.name, "names": bucket.names})).collect();
    let coverage = binding.coverage.as_ref().filter(|coverage| coverage.known).map(|coverage| {
        json!({
            "heldObjects": coverage.held_objects,
            "listedObjects": coverage.listed_objects,
            "heldBytes": coverage.held_bytes,
            "listedBytes": coverage.listed_bytes,
            "beginTick": coverage.begin_tick,
            "finished": units::timestamp(coverage.finished_unix),
        })
    });
    let migration = binding.progress.as_ref().filter(|progress| !progress.phase.is_empty()).map(|progress| {
        json!({
            "phase": progress.phase,
            "source": progress.source,
            "target": progress.target,
            "objectsTotal": progress.objects_total,
            "objectsDone": progress.objects_done,
            "objectsVerified": progress.objects_verified,
            "objectsFailed": progress.objects_failed,
            "bytesTotal": progress.bytes_total,
            "bytesDone": progress.bytes_done,
            "conflicts": progress.conflicts,
            "lagSeconds": progress.lag_seconds,
            "started": units::timestamp(progress.started_unix),
            "finished": units::timestamp(progress.finished_unix),
        })
    });
    json!({
        "binding": binding.binding,
        "providerInForce": binding.provider_in_force,
        "providerIdentity": binding.provider_identity,
        "providers": providers,
        "buckets": buckets,
        "objects": binding.objects,
        "objectBytes": binding.object_bytes,
        "coverage": coverage,
        "unconfirmed": binding.unconfirmed,
        "openGaps": binding.open_gaps,
        "openIntents": binding.open_intents,
        "sessions": binding.sessions,
        "migration": migration,
    })
}

fn domain_json(status: &StatusReply) -> Value {
    json!({"store": {
        "incarnation": status.incarnation,
        "tick": status.tick,
        "logicalBytes": status.logical_bytes,
        "uniqueBytes": status.unique_bytes,
        "storedBytes": status.stored_bytes,
        "blocks": status.blocks,
    }})
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hawser_api::v1::{Bucket, Provider};

    use super::*;
    use crate::print::tests::Shown;

    const NOW: i64 = 1_795_521_600;

    fn status() -> StatusReply {
        let provider = |name: &str| Provider { name: name.into(), identity: format!("s3+https://{name}.test") };
        StatusReply {
            incarnation: 2,
            tick: 4711,
            logical_bytes: 100 << 20,
            unique_bytes: 40 << 20,
            stored_bytes: 10 << 20,
            blocks: 320,
            bindings: vec![BindingStatus {
                binding: "photos".into(),
                provider_in_force: "aws".into(),
                provider_identity: "s3+https://aws.test".into(),
                providers: vec![provider("aws"), provider("hetzner")],
                buckets: vec![Bucket { name: "photos".into(), ..Bucket::default() }],
                objects: 1200,
                object_bytes: 64 << 20,
                coverage: Some(Coverage {
                    known: true,
                    listed_objects: 1201,
                    listed_bytes: 65 << 20,
                    held_objects: 1200,
                    held_bytes: 64 << 20,
                    begin_tick: 4000,
                    finished_unix: NOW - 180,
                }),
                open_gaps: [("Overflow".to_owned(), 2), ("Concurrent".to_owned(), 1), ("Damaged".to_owned(), 0)].into(),
                open_intents: 1,
                sessions: 4,
                progress: Some(Progress {
                    phase: "Replicating".into(),
                    source: "aws".into(),
                    target: "hetzner".into(),
                    objects_total: 1200,
                    objects_done: 300,
                    bytes_total: 64 << 20,
                    bytes_done: 16 << 20,
                    objects_failed: 1,
                    started_unix: NOW - 60,
                    ..Progress::default()
                }),
                unconfirmed: 7,
            }],
        }
    }

    #[test]
    fn a_binding_is_told_at_a_glance() {
        let shown = Shown::default();
        show(&status(), NOW, &mut shown.out(false)).unwrap();
        let wanted = "\
photos
  in force    aws, s3+https://aws.test
  besides     hetzner, s3+https://hetzner.test
  buckets     photos
  held        1 200 objects, 64.0 MiB
  coverage    99.9 % of objects (1 200 of 1 201), 98.4 % of bytes (64.0 MiB of 65.0 MiB), as of 3 min ago; 7 recorded since it began
  gaps        3 open: Overflow 2, Concurrent 1; see hawser gaps
  traffic     4 sessions, 1 write under way
  migration   Replicating, aws → hetzner: 300 of 1 200 objects (25.0 %), 16.0 MiB of 64.0 MiB, 1 failed, started 60 s ago

store
  content     100 MiB in all kept versions
  distinct    40.0 MiB in 320 blocks, 60.0 % saved by deduplication
  on disk     10.0 MiB, 90.0 % saved by deduplication and compression
  tick        4711
";
        assert_eq!(shown.text(), wanted);
    }

    #[test]
    fn json_is_one_object_a_line_and_the_store_the_last() {
        let shown = Shown::default();
        show(&status(), NOW, &mut shown.out(true)).unwrap();
        let lines: Vec<Value> = shown.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["coverage"]["heldObjects"], 1200);
        assert_eq!(lines[0]["openGaps"]["Overflow"], 2);
        assert_eq!(lines[1]["store"]["storedBytes"], 10 << 20);
    }
}

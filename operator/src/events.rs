//! Events: what a person who watches a binding wants to be told, when it happens.
use hawser_api::CloudBinding;
use hawser_api::binding::CloudBindingStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder};

use crate::context::Context;
use crate::status::{MIGRATION_COMPLETE, READY};

/// Longest note that the API server takes is 1 024 bytes.
const NOTE_LEN_MAX: usize = 1000;
/// Reasons of what is under way by itself and still wants somebody's eye.
const TROUBLES: [&str; 7] = [
    "JobRetrying",
    "StoreUnreachable",
    "StoreRefusesOperator",
    "StoreFull",
    "Unschedulable",
    "ApplyFailed",
    "Forbidden",
];

/// Tells what changed. An Event that cannot be written is no reason to do anything again.
pub async fn publish(binding: &CloudBinding, after: &CloudBindingStatus, ctx: &Context) {
    let reference = binding.object_ref(&());
    // A recorder that lives counts an Event up under its reason and keeps the first note: the name of a Job that is
    // long gone. Each of these is a change of state, so each is its own.
    let recorder = Recorder::new(ctx.client.clone(), ctx.reporter.clone());
    for event in between(binding.status.as_ref(), after) {
        if let Err(error) = recorder.publish(&event, &reference).await {
            tracing::warn!(reason = event.reason, error = &error as &dyn std::error::Error, "an Event was not written");
        }
    }
}

/// What happened between two states of a binding.
fn between(before: Option<&CloudBindingStatus>, after: &CloudBindingStatus) -> Vec<Event> {
    let of = |status: &CloudBindingStatus, type_: &str| status.conditions.iter().find(|is| is.type_ == type_).cloned();
    let was = |type_: &str| before.and_then(|before| of(before, type_));
    let changed = |type_: &str, now: &Condition| {
        was(type_).is_none_or(|was| was.status != now.status || was.reason != now.reason)
    };
    let mut events = Vec::new();
    if let Some(complete) = of(after, MIGRATION_COMPLETE)
        && complete.status == "True"
        && changed(MIGRATION_COMPLETE, &complete)
    {
        events.push(event(EventType::Normal, "MigrationComplete", &complete.message));
    }
    if let Some(ready) = of(after, READY)
        && changed(READY, &ready)
    {
        let stalled = after.conditions.iter().any(|is| is.type_ == "Stalled");
        let trouble = stalled || TROUBLES.contains(&ready.reason.as_str());
        let type_ = if trouble { EventType::Warning } else { EventType::Normal };
        events.push(event(type_, &ready.reason, &ready.message));
    }
    events
}

fn event(type_: EventType, reason: &str, message: &str) -> Event {
    let note = match message.char_indices().take_while(|(at, _)| *at < NOTE_LEN_MAX).last() {
        Some((at, letter)) => message[..at + letter.len_utf8()].to_owned(),
        None => String::new(),
    };
    Event { type_, reason: reason.into(), note: Some(note), action: "Reconcile".into(), secondary: None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn status(conditions: &[(&str, &str, &str)]) -> CloudBindingStatus {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(type_, status, reason)| {
                json!({"type": type_, "status": status, "reason": reason, "message": "what to do", "lastTransitionTime": "2026-01-01T00:00:00Z"})
            })
            .collect();
        serde_json::from_value(json!({"conditions": conditions})).unwrap()
    }

    #[test]
    fn a_change_is_told_once_and_loudly_where_a_person_is_needed() {
        let backfilling = status(&[("Ready", "False", "Backfilling"), ("Reconciling", "True", "Backfilling")]);
        let ready = status(&[("Ready", "True", "InForce")]);
        let stalled = status(&[("Ready", "False", "BucketMissing"), ("Stalled", "True", "BucketMissing")]);
        let away = status(&[("Ready", "False", "StoreUnreachable"), ("Reconciling", "True", "StoreUnreachable")]);
        let moved = status(&[("Ready", "True", "InForce"), ("MigrationComplete", "True", "InForce")]);
        for (trap, before, after, told) in [
            ("first", None, &backfilling, vec![("Normal", "Backfilling")]),
            ("nothing new", Some(&backfilling), &backfilling, vec![]),
            ("done", Some(&backfilling), &ready, vec![("Normal", "InForce")]),
            ("stalled", Some(&ready), &stalled, vec![("Warning", "BucketMissing")]),
            ("store away", Some(&ready), &away, vec![("Warning", "StoreUnreachable")]),
            ("migrated", Some(&stalled), &moved, vec![("Normal", "MigrationComplete"), ("Normal", "InForce")]),
        ] {
            let events = between(before, after);
            let said: Vec<_> =
                events.iter().map(|event| (format!("{:?}", event.type_), event.reason.as_str())).collect();
            let said: Vec<_> = said.iter().map(|(type_, reason)| (type_.as_str(), *reason)).collect();
            assert_eq!(said, told, "{trap}");
        }
        assert!(event(EventType::Normal, "x", &"→".repeat(900)).note.unwrap().len() <= 1024);
    }
}

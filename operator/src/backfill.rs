//! The first comparison of the provider with the store: the Job `hawser-NAME-backfill`, once at creation.
use hawser_api::CloudBinding;
use hawser_api::binding::Provider;
use hawser_api::v1;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::context::Context;
use crate::ended::{self, State};
use crate::job::{self, Keys, Work};
use crate::outcome::{AGAIN, Outcome, SOON};
use crate::start;

/// The Job's name.
pub fn name(binding: &CloudBinding) -> String {
    format!("hawser-{}-backfill", binding.name_any())
}

/// Makes the Job while the store knows of no complete comparison.
pub async fn reconcile(
    binding: &CloudBinding,
    state: &State,
    report: &v1::BindingReport,
    in_force: &Provider,
    ctx: &Context,
) -> Outcome {
    let name = name(binding);
    match next(binding, state, report, Timestamp::now()) {
        Next::Nothing(outcome) => outcome,
        Next::Create => {
            let job = backfill(binding, in_force, ctx);
            match start::job(ctx, &job).await {
                Ok(waits) => waits.unwrap_or_else(|| under_way(&name)),
                Err(error) => Outcome::of_api(&format!("create Job {name}"), &error),
            }
        }
        Next::Replace => match start::delete(ctx, binding, &name).await {
            Ok(()) => Outcome::waiting("Backfilling", format!("Job {name} is being made anew"), SOON),
            Err(error) => Outcome::of_api(&format!("delete Job {name}"), &error),
        },
    }
}

#[derive(Debug, PartialEq)]
enum Next {
    Nothing(Outcome),
    Create,
    /// Delete the Job that failed; its end makes the next one.
    Replace,
}

/// What is to be done. No I/O, no clock of its own.
fn next(binding: &CloudBinding, state: &State, report: &v1::BindingReport, now: Timestamp) -> Next {
    let status = report.status.as_ref();
    if status.and_then(|status| status.coverage.as_ref()).is_some_and(|coverage| coverage.known) {
        return Next::Nothing(Outcome::Settled);
    }
    let name = name(binding);
    match state {
        State::Absent => Next::Create,
        State::Running { held: Some(held) } => Next::Nothing(held.clone()),
        State::Running { held: None } | State::Suspended => Next::Nothing(under_way(&name)),
        State::Done { at } if ended::shows_no_more(*at, now) => Next::Replace,
        State::Done { .. } => Next::Nothing(Outcome::waiting("Backfilling", format!("Job {name} is done"), SOON)),
        State::Failed(ended) if ended.is_over(binding.metadata.generation.unwrap_or_default(), now) => Next::Replace,
        // What is not known yet is known after the next one: no person's turn.
        State::Failed(ended) if ended.exit == Some(4) => Next::Nothing(Outcome::waiting(
            "Backfilling",
            format!("Job {name} could not settle every object and is tried again: {}", ended.text),
            SOON,
        )),
        State::Failed(ended) => Next::Nothing(ended.outcome(&name)),
    }
}

fn under_way(job: &str) -> Outcome {
    Outcome::waiting("Backfilling", format!("Job {job} fetches what the store does not have yet"), AGAIN)
}

fn backfill(binding: &CloudBinding, in_force: &Provider, ctx: &Context) -> Job {
    let keys = vec![Keys { provider: in_force, optional: false }];
    let work = Work { commands: &["backfill"], flags: Vec::new(), keys };
    job::job(binding, name(binding), &work, &ctx.store_url, &ctx.jobs)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ended::Ended;
    use crate::golden;

    #[test]
    fn the_job_reads_the_provider_in_force() {
        let binding = golden::binding();
        let keys = vec![Keys { provider: binding.provider("aws").unwrap(), optional: false }];
        let work = Work { commands: &["backfill"], flags: Vec::new(), keys };
        let store = "https://hawser-store.hawser-system.svc:7070";
        golden::check("backfill", &job::job(&binding, name(&binding), &work, store, &golden::jobs()));
    }

    #[test]
    fn a_backfill_is_made_once_and_again_only_after_a_failure() {
        let binding = golden::binding();
        let known = |known| v1::BindingReport {
            status: Some(v1::BindingStatus {
                coverage: Some(v1::Coverage { known, ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        let failed = |exit, at: &str| {
            let at = Some(at.parse().unwrap());
            State::Failed(Ended { exit: Some(exit), text: "so".into(), at, generation: 2 })
        };
        let done = |at: &str| State::Done { at: Some(at.parse().unwrap()) };
        let reason = |next: Next| match next {
            Next::Nothing(outcome) => outcome.why().map_or("Settled", |why| why.reason),
            Next::Create => "create",
            Next::Replace => "replace",
        };
        for (trap, state, covered, wanted) in [
            ("new", State::Absent, false, "create"),
            ("long done and gone", State::Absent, true, "Settled"),
            ("under way", State::Running { held: None }, false, "Backfilling"),
            ("done, the store's word on its way", done("2026-01-01T00:59:50Z"), false, "Backfilling"),
            ("done, and the store lost it", done("2026-01-01T00:00:00Z"), false, "replace"),
            ("done", done("2026-01-01T00:00:00Z"), true, "Settled"),
            ("keys refused a minute ago", failed(5, "2026-01-01T00:59:00Z"), false, "CredentialsRejected"),
            ("keys refused an hour ago", failed(5, "2026-01-01T00:00:00Z"), false, "replace"),
            ("gaps left", failed(4, "2026-01-01T00:59:00Z"), false, "Backfilling"),
            ("gaps left, and complete since", failed(4, "2026-01-01T00:59:00Z"), true, "Settled"),
        ] {
            assert_eq!(reason(next(&binding, &state, &known(covered), now)), wanted, "{trap}");
        }
    }
}

//! The move to another provider, while the one that is wanted and the one in force differ: an epoch at the store, a Job
//! with its number. What is under way, what was given up and what failed is read from the two; [`next`] decides.
use hawser_api::binding::Provider;
use hawser_api::binding::status::{ByteCounts, MigrationStatus, ObjectCounts, Phase};
use hawser_api::{CloudBinding, ProviderId, v1};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::context::Context;
use crate::ended::{self, State};
use crate::job::{self, Keys, Work};
use crate::outcome::{AGAIN, Outcome, SOON};
use crate::reconcile::Seen;
use crate::start;

/// What the binding asks for, beside what there is.
pub struct Wish<'a> {
    /// The binding.
    pub binding: &'a CloudBinding,
    /// The provider in force, as the spec names it.
    pub in_force: &'a Provider,
    /// The one that is wanted.
    pub wanted: &'a Provider,
}

/// The name of the Job of one epoch.
pub fn name(binding: &CloudBinding, epoch: u64) -> String {
    format!("{}{epoch}", prefix(binding))
}

fn prefix(binding: &CloudBinding) -> String {
    format!("hawser-{}-migrate-", binding.name_any())
}

/// Brings the migration on its way, or to its end.
pub async fn reconcile(wish: &Wish<'_>, seen: &Seen, report: &mut v1::BindingReport, ctx: &Context) -> Outcome {
    let binding = wish.binding;
    let prefix = prefix(binding);
    let epoch = report.migration.clone().unwrap_or_default();
    let jobs: Vec<&Job> =
        seen.jobs.iter().map(AsRef::as_ref).filter(|job| job.name_any().starts_with(&prefix)).collect();
    let current = name(binding, epoch.epoch);
    // What an edit left behind: the store no longer listens to it, and it holds a place.
    for stale in jobs.iter().filter(|job| job.name_any() != current || is_given_up(wish, &epoch)) {
        let ended = matches!(ended::state(Some(stale), &seen.job_pods), State::Done { .. } | State::Failed(_));
        if !ended && let Err(error) = start::delete(ctx, binding, &stale.name_any()).await {
            return Outcome::of_api(&format!("delete Job {}", stale.name_any()), &error);
        }
    }
    let job = jobs.iter().find(|job| job.name_any() == current).copied();
    let state = ended::state(job, &seen.job_pods);
    match next(wish, &epoch, &state, Timestamp::now()) {
        Next::Nothing(outcome) => outcome,
        Next::Raise(wanted) => match ctx.store.start_migration(&seen.domain, binding, &wanted).await {
            Ok(raised) => {
                report.migration = Some(raised);
                Outcome::waiting(
                    "MigrationStarted",
                    "the store was told of the migration",
                    SOON.min(std::time::Duration::from_secs(1)),
                )
            }
            Err(outcome) => outcome,
        },
        Next::Create => {
            // A comparison that is under way has the lease that this needs, and begins with one of its own.
            if seen.jobs.iter().any(|job| job.name_any() == crate::backfill::name(binding)) {
                let backfill = crate::backfill::name(binding);
                if let Err(error) = start::delete(ctx, binding, &backfill).await {
                    return Outcome::of_api(&format!("delete Job {backfill}"), &error);
                }
            }
            let job = migrate(wish, epoch.epoch, &ctx.store_url, &ctx.jobs);
            match start::job(ctx, &job).await {
                Ok(waits) => waits.unwrap_or_else(|| under_way(wish, &current)),
                Err(error) => Outcome::of_api(&format!("create Job {current}"), &error),
            }
        }
        Next::Replace => match start::delete(ctx, binding, &current).await {
            Ok(()) => Outcome::waiting("Replicating", format!("Job {current} is being made anew"), SOON),
            Err(error) => Outcome::of_api(&format!("delete Job {current}"), &error),
        },
        Next::Suspend(suspend) => match start::suspend(ctx, binding, &current, suspend).await {
            Ok(()) if suspend => paused(),
            Ok(()) => Outcome::waiting("Replicating", format!("Job {current} goes on"), AGAIN),
            Err(error) => Outcome::of_api(&format!("suspend Job {current}"), &error),
        },
    }
}

#[derive(Debug, PartialEq)]
enum Next {
    Nothing(Outcome),
    /// Tell the store what is wanted; `epoch` is the one that is known.
    Raise(v1::MigrationEpoch),
    Create,
    /// Delete the Job that ended; its end makes the next one.
    Replace,
    Suspend(bool),
}

/// Whether the epoch is of a migration that nobody wants any more, and that is not over.
fn is_given_up(wish: &Wish<'_>, epoch: &v1::MigrationEpoch) -> bool {
    let in_force = wish.in_force.id().to_string();
    wish.in_force.id() == wish.wanted.id() && epoch.epoch > 0 && epoch.target != in_force
}

/// What is to be done. No I/O, no clock of its own.
fn next(wish: &Wish<'_>, epoch: &v1::MigrationEpoch, state: &State, now: Timestamp) -> Next {
    let migration = &wish.binding.spec.migration;
    let (source, target) = (wish.in_force.id().to_string(), wish.wanted.id().to_string());
    if source == target {
        return match is_given_up(wish, epoch) {
            true => Next::Raise(v1::MigrationEpoch { epoch: epoch.epoch, source, target, dry_run: false }),
            false => Next::Nothing(Outcome::Settled),
        };
    }
    let wanted = v1::MigrationEpoch { epoch: epoch.epoch, source, target, dry_run: migration.dry_run };
    if *epoch != wanted {
        return Next::Raise(wanted);
    }
    let job = name(wish.binding, epoch.epoch);
    let (from, to) = (&wish.in_force.name, &wish.wanted.name);
    match (state, migration.paused) {
        (State::Absent, true) | (State::Suspended, true) => Next::Nothing(paused()),
        (State::Running { .. }, true) => Next::Suspend(true),
        (State::Suspended, false) => Next::Suspend(false),
        (State::Absent, false) => Next::Create,
        (State::Running { held: Some(held) }, false) => Next::Nothing(held.clone()),
        (State::Running { held: None }, false) => Next::Nothing(under_way(wish, &job)),
        (State::Done { .. }, _) if migration.dry_run => Next::Nothing(Outcome::halted(
            "DryRunComplete",
            format!(
                "Job {job} found out what {from} → {to} would send, and changed nothing: status.migration has the \
                 numbers, its log the objects; set spec.migration.dryRun to false to migrate"
            ),
        )),
        (State::Done { at }, _) => match ended::shows_no_more(*at, now) {
            true => Next::Replace,
            false => Next::Nothing(Outcome::waiting("Replicating", format!("Job {job} is done"), SOON)),
        },
        (State::Failed(ended), _) if ended.is_over(wish.binding.metadata.generation.unwrap_or_default(), now) => {
            Next::Replace
        }
        (State::Failed(ended), _) => Next::Nothing(ended.outcome(&job)),
    }
}

fn under_way(wish: &Wish<'_>, job: &str) -> Outcome {
    let (from, to) = (&wish.in_force.name, &wish.wanted.name);
    match wish.binding.spec.migration.dry_run {
        true => Outcome::waiting("DryRunning", format!("Job {job} finds out what {from} → {to} would send"), AGAIN),
        false => Outcome::waiting("Replicating", format!("Job {job} brings what is at {from} to {to}"), AGAIN),
    }
}

fn paused() -> Outcome {
    Outcome::halted("Paused", "the migration rests: set spec.migration.paused to false to go on")
}

fn migrate(wish: &Wish<'_>, epoch: u64, store: &str, settings: &crate::flags::Jobs) -> Job {
    let keys = vec![Keys { provider: wish.in_force, optional: true }, Keys { provider: wish.wanted, optional: false }];
    let work = Work { commands: &["replicate"], flags: vec![format!("--epoch={epoch}")], keys };
    let mut job = job::job(wish.binding, name(wish.binding, epoch), &work, store, settings);
    if wish.binding.spec.migration.dry_run
        && let Some(spec) = &mut job.spec
    {
        spec.ttl_seconds_after_finished = None; // one that went away would be run again
    }
    job
}

/// The migration as the status shows it: from the store's last word of this epoch, else as it was shown before.
pub fn status(binding: &CloudBinding, report: &v1::BindingReport, outcome: &Outcome) -> Option<MigrationStatus> {
    let epoch = report.migration.as_ref().filter(|epoch| epoch.epoch > 0)?;
    let number = i64::try_from(epoch.epoch).unwrap_or(i64::MAX);
    let before = binding.status.as_ref().and_then(|status| status.migration.as_ref());
    let before = before.filter(|before| before.epoch == number);
    if epoch.source == epoch.target {
        return None; // given up
    }
    let called = |identity: &str| {
        let id: Option<ProviderId> = identity.parse().ok();
        let named = id.and_then(|id| binding.provider_with_id(&id)).map(|provider| provider.name.clone());
        named.unwrap_or_else(|| identity.to_owned())
    };
    let mut shown = before.cloned().unwrap_or_default();
    shown.epoch = number;
    (shown.source, shown.target) = (called(&epoch.source), called(&epoch.target));
    shown.dry_run = epoch.dry_run;
    let status = report.status.as_ref();
    let number = |of: u64| i64::try_from(of).unwrap_or(i64::MAX);
    let time = |unix: i64| (unix > 0).then(|| Timestamp::from_second(unix).ok().map(Time)).flatten();
    let progress = status.and_then(|status| status.progress.as_ref());
    if let Some(progress) = progress.filter(|progress| progress.migration_epoch == epoch.epoch) {
        shown.phase = phase(&progress.phase);
        shown.objects = ObjectCounts {
            total: number(progress.objects_total),
            done: number(progress.objects_done),
            verified: number(progress.objects_verified),
            failed: number(progress.objects_failed),
            conflicts: number(progress.conflicts),
        };
        shown.bytes = ByteCounts { total: number(progress.bytes_total), done: number(progress.bytes_done) };
        shown.lag_seconds = number(progress.lag_seconds);
        // A Job that was started again goes on with the migration that began earlier.
        shown.started = shown.started.or_else(|| time(progress.started_unix));
        shown.finished = time(progress.finished_unix).filter(|_| !matches!(outcome, Outcome::Waiting(_)));
    }
    let in_force = status.map(|status| status.provider_identity.as_str());
    match outcome {
        _ if in_force == Some(epoch.target.as_str()) => shown.phase = Some(Phase::InForce),
        Outcome::Stalled(_) => shown.phase = Some(Phase::Stalled),
        Outcome::Halted(why) if why.reason == "Paused" => shown.phase = Some(Phase::Paused),
        Outcome::Waiting(_) => {
            shown.unconfirmed = number(status.map(|status| status.unconfirmed).unwrap_or_default());
            shown.phase = shown.phase.or(Some(Phase::Pending));
        }
        Outcome::Settled | Outcome::Halted(_) => {}
    }
    Some(shown)
}

/// A phase as hawser-migrate calls it.
pub fn phase(word: &str) -> Option<Phase> {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ended::Ended;
    use crate::golden;

    fn wish<'a>(binding: &'a CloudBinding, wanted: &str) -> Wish<'a> {
        Wish { binding, in_force: binding.provider("aws").unwrap(), wanted: binding.provider(wanted).unwrap() }
    }

    #[test]
    fn the_job_has_the_keys_of_both_providers_and_the_epoch() {
        let binding = golden::binding();
        let store = "https://hawser-store.hawser-system.svc:7070";
        golden::check("migrate", &migrate(&wish(&binding, "hetzner"), 3, store, &golden::jobs()));
    }

    #[test]
    fn every_edit_and_every_end_has_its_next_step() {
        let (aws, hetzner) = ("s3+https://s3.eu-central-1.amazonaws.com", "s3+https://fsn1.your-objectstorage.com");
        let epoch = |epoch, source: &str, target: &str, dry_run| v1::MigrationEpoch {
            epoch,
            source: source.into(),
            target: target.into(),
            dry_run,
        };
        let (never, there) = (epoch(0, "", "", false), epoch(3, aws, hetzner, false));
        let (back, dry) = (epoch(4, hetzner, aws, false), epoch(3, aws, hetzner, true));
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        let (just, long_ago) = (at("2026-01-01T00:59:50Z"), at("2026-01-01T00:00:00Z"));
        let failed =
            |exit, at, generation| State::Failed(Ended { exit: Some(exit), text: "so".into(), at, generation });
        let running = || State::Running { held: None };
        let done = |at| State::Done { at };
        let said = |next: Next| match next {
            Next::Nothing(outcome) => outcome.why().map_or("Settled", |why| why.reason).to_owned(),
            Next::Raise(wanted) => format!("raise over {} to {}", wanted.epoch, wanted.target),
            Next::Create => "create".into(),
            Next::Replace => "replace".into(),
            Next::Suspend(suspend) => format!("suspend {suspend}"),
        };
        let raise = |over, to| format!("raise over {over} to {to}");
        for (trap, wanted, epoch, state, paused, dry_run, step) in [
            ("at rest", "aws", &never, State::Absent, false, false, "Settled".to_owned()),
            ("at rest after a migration", "aws", &back, done(None), false, false, "Settled".into()),
            ("the edit", "hetzner", &never, State::Absent, false, false, raise(0, hetzner)),
            ("the edit, after another migration", "hetzner", &back, done(None), false, false, raise(4, hetzner)),
            ("raised", "hetzner", &there, State::Absent, false, false, "create".into()),
            ("raised, paused", "hetzner", &there, State::Absent, true, false, "Paused".into()),
            ("under way", "hetzner", &there, running(), false, false, "Replicating".into()),
            ("edited back half-way", "aws", &there, running(), false, false, raise(3, aws)),
            ("dry run after all", "hetzner", &there, running(), false, true, raise(3, hetzner)),
            ("dry run done", "hetzner", &dry, done(just), false, true, "DryRunComplete".into()),
            ("in earnest after a dry run", "hetzner", &dry, done(just), false, false, raise(3, hetzner)),
            ("paused", "hetzner", &there, running(), true, false, "suspend true".into()),
            ("rests", "hetzner", &there, State::Suspended, true, false, "Paused".into()),
            ("goes on", "hetzner", &there, State::Suspended, false, false, "suspend false".into()),
            ("done, the store's word on its way", "hetzner", &there, done(just), false, false, "Replicating".into()),
            ("done, and not in force", "hetzner", &there, done(long_ago), false, false, "replace".into()),
            ("bucket missing", "hetzner", &there, failed(6, just, 2), false, false, "BucketMissing".into()),
            ("bucket missing, edited since", "hetzner", &there, failed(6, just, 1), false, false, "replace".into()),
            ("conflicts, long ago", "hetzner", &there, failed(3, long_ago, 2), false, false, "replace".into()),
        ] {
            let mut binding = golden::binding();
            (binding.spec.migration.paused, binding.spec.migration.dry_run) = (paused, dry_run);
            assert_eq!(said(next(&wish(&binding, wanted), epoch, &state, now)), step, "{trap}");
        }
    }
}

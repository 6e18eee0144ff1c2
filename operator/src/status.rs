//! How a binding stands: from what the concerns found to the status that people and kstatus read. One patch, and none
//! where nothing changed that is worth one.
use std::time::Duration;

use hawser_api::CloudBinding;
use hawser_api::binding::CloudBindingStatus;
use hawser_api::binding::status::{CoverageStatus, OpenGaps, Phase, PodsStatus};
use hawser_api::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::context::Context;
use crate::labels::FIELD_MANAGER;
use crate::outcome::{Outcome, Why};
use crate::{events, migration};

/// The condition that says whether all is as it should be.
pub const READY: &str = "Ready";
const RECONCILING: &str = "Reconciling";
const STALLED: &str = "Stalled";
/// The condition that says how the last migration stands.
pub const MIGRATION_COMPLETE: &str = "MigrationComplete";

/// Numbers that grow are written so often while a migration is under way …
const MIGRATING: Duration = Duration::from_secs(5);
/// … and so often otherwise, if one moved by a hundredth.
const RESTING: Duration = Duration::from_secs(60);

/// What each concern found. Those that were not reached have nothing to say.
pub struct Concerns {
    /// Another binding has a bucket of this one.
    pub conflict: Outcome,
    /// The store knows the binding.
    pub register: Outcome,
    /// The ConfigMap.
    pub config: Outcome,
    /// The Jobs' account.
    pub account: Outcome,
    /// The move to another provider.
    pub migration: Outcome,
    /// The first comparison.
    pub backfill: Outcome,
    /// The ones after it.
    pub schedule: Outcome,
}

impl Default for Concerns {
    fn default() -> Concerns {
        let settled = || Outcome::Settled;
        Concerns {
            conflict: settled(),
            register: settled(),
            config: settled(),
            account: settled(),
            migration: settled(),
            backfill: settled(),
            schedule: settled(),
        }
    }
}

impl Concerns {
    fn all(&self) -> [&Outcome; 7] {
        let Concerns { conflict, register, config, account, migration, backfill, schedule } = self;
        [conflict, register, config, account, migration, backfill, schedule]
    }

    /// When each wants to be looked at again.
    pub fn again_in(&self) -> Vec<Duration> {
        self.all().into_iter().filter_map(Outcome::why).map(|why| why.again_in).collect()
    }

    /// The first that a person must see to, else the first that rests, else the first that is under way.
    fn headline(&self) -> Option<(Kind, &Why)> {
        let first = |kind| self.all().into_iter().find_map(|outcome| Kind::of(outcome).filter(|(is, _)| *is == kind));
        first(Kind::Stalled).or_else(|| first(Kind::Halted)).or_else(|| first(Kind::Waiting))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Stalled,
    Halted,
    Waiting,
}

impl Kind {
    fn of(outcome: &Outcome) -> Option<(Kind, &Why)> {
        match outcome {
            Outcome::Settled => None,
            Outcome::Stalled(why) => Some((Kind::Stalled, why)),
            Outcome::Halted(why) => Some((Kind::Halted, why)),
            Outcome::Waiting(why) => Some((Kind::Waiting, why)),
        }
    }
}

/// All that was found of a binding.
pub struct Report {
    /// What the store says.
    pub store: Option<v1::BindingReport>,
    /// Its pods.
    pub pods: PodsStatus,
    /// What the concerns found.
    pub concerns: Concerns,
}

/// What became of a status.
pub struct Published {
    /// When numbers that were left out are due.
    pub again_in: Option<Duration>,
}

/// Writes the status where it changed, and an Event for what a person wants to know.
///
/// # Errors
/// What the API server says, except that the binding is gone.
pub async fn publish(binding: &CloudBinding, ctx: &Context, report: &Report) -> Result<Published, kube::Error> {
    let (before, now) = (binding.status.as_ref(), Timestamp::now());
    let after = status(binding, report, now);
    match worth_a_patch(before, &after, now) {
        Worth::Nothing => return Ok(Published { again_in: None }),
        Worth::Later(again_in) => return Ok(Published { again_in: Some(again_in) }),
        Worth::Now => {}
    }
    let api: Api<CloudBinding> = Api::namespaced(ctx.client.clone(), &binding.namespace().unwrap_or_default());
    // With the uid, so that a binding made anew under the name is not told of the old one's.
    let patch = json!({
        "apiVersion": "hawser.dev/v1alpha1", "kind": "CloudBinding",
        "metadata": {"uid": binding.uid()}, "status": after,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch_status(&binding.name_any(), &params, &Patch::Apply(&patch)).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {
            return Ok(Published { again_in: None });
        }
        Err(error) => return Err(error),
    }
    events::publish(binding, &after, ctx).await;
    Ok(Published { again_in: None })
}

/// The status. No I/O, no clock of its own.
fn status(binding: &CloudBinding, report: &Report, now: Timestamp) -> CloudBindingStatus {
    let before = binding.status.clone().unwrap_or_default();
    let told = report.store.as_ref().and_then(|report| report.status.as_ref());
    let (in_force, coverage, open_gaps) = match told {
        Some(told) => (
            Some(told.provider_in_force.clone()).filter(|name| !name.is_empty()),
            told.coverage.as_ref().filter(|coverage| coverage.known).map(covered),
            Some(gaps(told)),
        ),
        None => (before.provider.clone(), before.coverage.clone(), before.open_gaps.clone()),
    };
    let migration = match &report.store {
        Some(store) => migration::status(binding, store, &report.concerns.migration),
        None => before.migration.clone(),
    };
    let mut after = CloudBindingStatus {
        observed_generation: binding.metadata.generation,
        conditions: Vec::new(),
        phase: None,
        provider: in_force,
        coverage_summary: coverage.as_ref().map(coverage_summary),
        migrated_summary: migration.as_ref().map(|migration| {
            let objects = &migration.objects;
            format!("{}/{}", objects.done, objects.total)
        }),
        pods_summary: Some(format!("{}/{}", report.pods.protected, report.pods.protected + report.pods.unprotected)),
        migration,
        coverage,
        pods: Some(report.pods.clone()),
        open_gaps,
        updated: Some(Time(now)),
    };
    after.phase = Some(phase(report, &after, before.phase));
    after.conditions = conditions(binding, report, &after, &before.conditions, now);
    after
}

fn phase(report: &Report, after: &CloudBindingStatus, before: Option<Phase>) -> Phase {
    let concerns = &report.concerns;
    let progress = report.store.as_ref().and_then(|report| report.status.as_ref()?.progress.as_ref());
    let said = || progress.and_then(|progress| migration::phase(&progress.phase));
    match (concerns.headline(), &concerns.migration, &concerns.backfill) {
        (Some((Kind::Stalled, _)), ..) => Phase::Stalled,
        // The later concerns were not reached: what was under way still is.
        _ if [&concerns.register, &concerns.config, &concerns.account].iter().any(|one| **one != Outcome::Settled) => {
            before.filter(|is| *is != Phase::Stalled).unwrap_or(Phase::Pending)
        }
        (_, Outcome::Halted(why), _) if why.reason == "Paused" => Phase::Paused,
        (_, Outcome::Waiting(_), _) => {
            let shown = after.migration.as_ref().and_then(|migration| migration.phase);
            shown.filter(|phase| *phase != Phase::InForce).unwrap_or(Phase::Pending)
        }
        (_, _, Outcome::Waiting(_)) => said().filter(|phase| *phase == Phase::Settling).unwrap_or(Phase::Backfilling),
        _ => Phase::InForce,
    }
}

fn conditions(
    binding: &CloudBinding,
    report: &Report,
    after: &CloudBindingStatus,
    before: &[Condition],
    now: Timestamp,
) -> Vec<Condition> {
    let condition = |type_: &str, holds: bool, reason: &str, message: &str| {
        let status = if holds { "True" } else { "False" };
        let same = before.iter().find(|is| is.type_ == type_ && is.status == status);
        Condition {
            type_: type_.into(),
            status: status.into(),
            reason: reason.into(),
            message: message.into(),
            observed_generation: binding.metadata.generation,
            last_transition_time: same.map_or(Time(now), |same| same.last_transition_time.clone()),
        }
    };
    let mut all = Vec::new();
    match report.concerns.headline() {
        None => {
            let provider = after.provider.as_deref().unwrap_or(&binding.spec.provider);
            let message = format!("pods are copied, the store has what {provider} holds, and {provider} is in force");
            all.push(condition(READY, true, "InForce", &message));
        }
        Some((kind, why)) => {
            all.push(condition(READY, false, why.reason, &why.message));
            match kind {
                Kind::Stalled => all.push(condition(STALLED, true, why.reason, &why.message)),
                Kind::Waiting => all.push(condition(RECONCILING, true, why.reason, &why.message)),
                Kind::Halted => {}
            }
        }
    }
    if let Some(migration) = &after.migration {
        let (from, to) = (&migration.source, &migration.target);
        let why = report.concerns.migration.why().or(report.concerns.headline().map(|(_, why)| why));
        all.push(match (migration.phase, why) {
            (Some(Phase::InForce), _) => {
                condition(MIGRATION_COMPLETE, true, "InForce", &format!("{from} → {to}: {to} is verified and in force"))
            }
            (_, Some(why)) => condition(MIGRATION_COMPLETE, false, why.reason, &why.message),
            (_, None) => condition(MIGRATION_COMPLETE, false, "Waiting", &format!("{from} → {to} has not begun")),
        });
    }
    all
}

fn covered(coverage: &v1::Coverage) -> CoverageStatus {
    let number = |of: u64| i64::try_from(of).unwrap_or(i64::MAX);
    CoverageStatus {
        listed_objects: number(coverage.listed_objects),
        listed_bytes: number(coverage.listed_bytes),
        held_objects: number(coverage.held_objects),
        held_bytes: number(coverage.held_bytes),
        as_of: Timestamp::from_second(coverage.finished_unix).ok().map(Time),
    }
}

/// Never rounded up: 100 % is all of them.
fn coverage_summary(coverage: &CoverageStatus) -> String {
    let tenths = match coverage.listed_objects {
        ..=0 => 1000,
        listed => i64::try_from(i128::from(coverage.held_objects) * 1000 / i128::from(listed)).unwrap_or_default(),
    };
    let share = match tenths {
        1000.. => "100%".to_owned(),
        tenths => format!("{}.{}%", tenths / 10, tenths % 10),
    };
    match &coverage.as_of {
        Some(Time(at)) => format!("{share} ({})", at.strftime("%b %d %H:%MZ")),
        None => share,
    }
}

fn gaps(told: &v1::BindingStatus) -> OpenGaps {
    let number = |of: u64| i64::try_from(of).unwrap_or(i64::MAX);
    OpenGaps {
        total: number(told.open_gaps.values().sum()),
        by_reason: told.open_gaps.iter().map(|(reason, count)| (reason.clone(), number(*count))).collect(),
    }
}

#[derive(Debug, PartialEq)]
enum Worth {
    Now,
    Later(Duration),
    Nothing,
}

/// Whether a status is worth a patch: at once where something happened, now and then where numbers grew.
fn worth_a_patch(before: Option<&CloudBindingStatus>, after: &CloudBindingStatus, now: Timestamp) -> Worth {
    let Some(before) = before else { return Worth::Now };
    if happened(before) != happened(after) {
        return Worth::Now;
    }
    let (then, new) = (numbers(before), numbers(after));
    if then == new && before.coverage == after.coverage {
        return Worth::Nothing;
    }
    let migrating =
        matches!(after.phase, Some(Phase::Replicating | Phase::Verifying | Phase::Settling | Phase::Pending));
    let moved = then.len() != new.len()
        || then.iter().zip(&new).any(|(then, new)| then.abs_diff(*new) * 100 >= then.unsigned_abs());
    let pause = match (migrating, moved || before.coverage != after.coverage) {
        (true, _) => MIGRATING,
        (false, true) => RESTING,
        (false, false) => return Worth::Nothing,
    };
    let age = before.updated.as_ref().map_or(pause, |Time(at)| now.duration_since(*at).unsigned_abs());
    if age >= pause { Worth::Now } else { Worth::Later(pause - age) }
}

/// Everything but numbers that grow by themselves.
fn happened(status: &CloudBindingStatus) -> impl PartialEq + '_ {
    let conditions: Vec<_> = status
        .conditions
        .iter()
        .map(|is| (&is.type_, &is.status, &is.reason, &is.message, is.observed_generation))
        .collect();
    let migration =
        status.migration.as_ref().map(|is| (is.epoch, &is.source, &is.target, is.phase, is.finished.is_some()));
    (status.observed_generation, conditions, status.phase, &status.provider, &status.pods, migration)
}

fn numbers(status: &CloudBindingStatus) -> Vec<i64> {
    let gaps = status.open_gaps.iter().flat_map(|gaps| gaps.by_reason.values().copied());
    let migration = status.migration.iter().flat_map(|is| {
        let (objects, bytes) = (&is.objects, &is.bytes);
        [
            objects.total,
            objects.done,
            objects.verified,
            objects.failed,
            objects.conflicts,
            bytes.total,
            bytes.done,
            is.unconfirmed,
        ]
    });
    gaps.chain(migration).collect()
}

#[cfg(test)]
mod tests;

//! Bringing the target into force: only when the source has confirmed what the store holds, or does not
//! answer and nothing is in doubt.
use std::sync::atomic::Ordering;

use hawser_api::binding::Provider;
use hawser_api::v1;

use super::confirm_source;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::run::Run;
use crate::store::refusal;

/// What the source said.
#[derive(Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// Nothing will be switched, so it was not asked.
    NotAsked,
    /// A complete backfill just ended.
    BySource,
    /// It does not answer; an earlier backfill and no open gap stand for it.
    Before,
}

/// Confirms the copy by a backfill of the source, where it answers.
pub async fn confirm(
    run: &Run,
    lease: &v1::Lease,
    progress: &Progress,
    source: &Provider,
) -> Result<Confirmed, Failure> {
    let cloud = match run.cloud(source) {
        Ok(cloud) => cloud,
        Err(failure) => return unanswered(run, progress, source, &failure.to_string()).await,
    };
    if let Err(why) = answers(run, &cloud).await {
        return unanswered(run, progress, source, &why).await;
    }
    let outcome = confirm_source(run, lease, progress, cloud).await?;
    let counts = &progress.counts; // the bars begin anew with what is sent
    for count in [&counts.objects_total, &counts.objects_done, &counts.bytes_total, &counts.bytes_done] {
        count.store(0, Ordering::Relaxed);
    }
    let failed = outcome.failed();
    let doubt = failed > 0 || outcome.end.gaps_open > 0;
    if doubt && !run.accept_missing {
        return Err(match failed {
            0 => Failure::GapsLeft(gaps_open(outcome.end.gaps_open)),
            _ => Failure::failed(format!("{failed} objects of {} could not be read", source.name)),
        });
    }
    Ok(Confirmed::BySource)
}

/// Whether the source answers at all; a refusal is an answer.
async fn answers(run: &Run, cloud: &crate::cloud::Cloud) -> Result<(), String> {
    let asked = match run.binding.spec.buckets.iter().find(|bucket| !bucket.is_every()) {
        Some(bucket) => cloud.is_empty(bucket.name_at(&cloud.name)).await.map(|_| ()),
        None => cloud.buckets().await.map(|_| ()),
    };
    match asked {
        Err(fault) if fault.is_unreachable() => Err(fault.to_string()),
        _ => Ok(()),
    }
}

/// Without the source: allowed when an earlier complete backfill and the absence of gaps speak for the copy.
async fn unanswered(run: &Run, progress: &Progress, source: &Provider, why: &str) -> Result<Confirmed, Failure> {
    let request = v1::StatusRequest { binding: run.binding.name().to_owned() };
    let reply = run.store.catalog.clone().status(request).await.map_err(refusal("ask for status"))?.into_inner();
    let status = reply.bindings.into_iter().find(|status| status.binding == run.binding.name()).unwrap_or_default();
    let gaps: u64 = status.open_gaps.values().sum::<u64>() + status.open_intents;
    let covered = status.coverage.is_some_and(|coverage| coverage.known);
    progress.note(&format!("{} does not answer ({why}): its copy stands for it", source.name));
    match (run.accept_missing, covered, gaps) {
        (true, _, _) | (false, true, 0) => Ok(Confirmed::Before),
        (false, false, _) => Err(Failure::GapsLeft(format!(
            "{} does not answer and no backfill of it was ever complete: try again when it answers, or set \
             spec.migration.accept to [MissingObjects]",
            source.name
        ))),
        (false, true, gaps) => Err(Failure::GapsLeft(gaps_open(gaps))),
    }
}

fn gaps_open(gaps: u64) -> String {
    format!(
        "{gaps} gaps are open: see `hawser gaps`, run backfill again, or set spec.migration.accept to [MissingObjects]"
    )
}

/// Moves the provider in force; gives the number of unconfirmed objects.
pub async fn take(
    run: &Run,
    lease: &v1::Lease,
    source: &str,
    target: &str,
    confirmed: &Confirmed,
) -> Result<u64, Failure> {
    let request = v1::SetForceRequest {
        lease: Some(lease.clone()),
        binding: run.binding.name().to_owned(),
        expected: source.to_owned(),
        provider: target.to_owned(),
        accept_gaps: run.accept_missing,
    };
    let doing = "move the provider in force";
    let reply = run.store.migration.clone().set_force(request).await.map_err(refusal(doing))?.into_inner();
    if !reply.moved {
        return Err(Failure::GapsLeft(format!("{doing}: {}", reply.why_not)));
    }
    Ok(if *confirmed == Confirmed::BySource { 0 } else { reply.unconfirmed })
}

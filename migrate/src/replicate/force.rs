//! Bringing the target into force: only when the source has confirmed what the store holds, or does not
//! answer and nothing is in doubt; and only together with everything recorded at the source so far.
use std::sync::atomic::Ordering;
use std::time::Duration;

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

/// Attempts to bring the target into force before it is said that the applications write too fast.
const ATTEMPTS_MAX: u32 = 20;
/// The pause before a second attempt; before each further one it is so much longer. Together they outlast
/// the store's session lease (30 s), after which a write that nobody speaks of any more is a gap.
pub const PAUSE: Duration = Duration::from_millis(200);

/// The store's answer to one attempt.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// The target is in force.
    Moved {
        /// Objects that the source has not confirmed.
        unconfirmed: u64,
    },
    /// The source has, or may yet have, what is not at the target.
    Behind,
}

/// The target is in force.
#[derive(Debug, PartialEq, Eq)]
pub struct Moved {
    /// What was carried.
    pub through: u64,
    /// Objects that the source has not confirmed.
    pub unconfirmed: u64,
}

/// Tries with `take` until the target is in force; what came to the source before an attempt, `carry` brings
/// to the target before the next. `None` when carrying it met something that forbids the switch.
pub async fn insist(
    source: &str,
    mut through: u64,
    pause: Duration,
    mut take: impl AsyncFnMut(u64) -> Result<Taken, Failure>,
    mut carry: impl AsyncFnMut(u64) -> Result<Option<u64>, Failure>,
) -> Result<Option<Moved>, Failure> {
    for attempt in 1..=ATTEMPTS_MAX {
        if let Taken::Moved { unconfirmed } = take(through).await? {
            return Ok(Some(Moved { through, unconfirmed }));
        }
        tokio::time::sleep(pause * attempt).await;
        let Some(carried) = carry(through).await? else { return Ok(None) };
        through = carried;
    }
    Err(Failure::failed(format!(
        "applications still write to {source} faster than it can be switched, so it stays in force: let them rest \
         for a moment, or point them elsewhere, and start this command again; nothing is sent twice"
    )))
}

/// Moves the provider in force, if everything recorded at the source was carried by `through`.
pub async fn take(
    run: &Run,
    lease: &v1::Lease,
    source: &str,
    target: &str,
    confirmed: &Confirmed,
    through: u64,
) -> Result<Taken, Failure> {
    let request = v1::SetForceRequest {
        lease: Some(lease.clone()),
        binding: run.binding.name().to_owned(),
        expected: source.to_owned(),
        provider: target.to_owned(),
        accept_gaps: run.accept_missing,
        through_tick: through,
    };
    let doing = "move the provider in force";
    let reply = run.store.migration.clone().set_force(request).await.map_err(refusal(doing))?.into_inner();
    match (reply.moved, reply.behind) {
        (true, _) if *confirmed == Confirmed::BySource => Ok(Taken::Moved { unconfirmed: 0 }),
        (true, _) => Ok(Taken::Moved { unconfirmed: reply.unconfirmed }),
        (false, true) => Ok(Taken::Behind),
        (false, false) => Err(Failure::GapsLeft(format!("{doing}: {}", reply.why_not))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A source that is written to before each of so many attempts; gives how it ended and the rounds.
    async fn follow(writes: u64, forbids_at: Option<u64>) -> (Result<Option<Moved>, Failure>, u64) {
        let (mut written, mut rounds) = (0, 0);
        let take = async |through: u64| {
            written = (written + 1).min(writes);
            Ok(if through == written { Taken::Moved { unconfirmed: 0 } } else { Taken::Behind })
        };
        let carry = async |through: u64| {
            rounds += 1;
            Ok((forbids_at != Some(rounds)).then_some(through + 1))
        };
        let outcome = insist("garage", 0, Duration::ZERO, take, carry).await;
        (outcome, rounds)
    }

    #[tokio::test]
    async fn what_was_written_before_an_attempt_is_carried_before_the_next() {
        let moved = |through| Some(Moved { through, unconfirmed: 0 });
        let rows = [
            ("a quiet source", 0, None, moved(0), 0),
            ("three writes", 3, None, moved(3), 3),
            ("a conflict in the second round", 3, Some(2), None, 2),
        ];
        for (what, writes, forbids_at, wanted, rounds) in rows {
            let (outcome, carried) = follow(writes, forbids_at).await;
            assert_eq!((outcome.unwrap(), carried), (wanted, rounds), "{what}");
        }
    }

    #[tokio::test]
    async fn a_source_that_never_rests_stays_in_force() {
        let (outcome, rounds) = follow(u64::MAX, None).await;
        let failure = outcome.unwrap_err();
        assert_eq!((failure.exit(), rounds), (crate::failure::Exit::Failed, u64::from(ATTEMPTS_MAX)), "{failure}");
        assert!(failure.story().contains("still write to garage"), "{failure}");
    }
}

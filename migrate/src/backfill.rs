//! From a cloud into the store: lists the buckets, lets the store say what it lacks, fetches that, and
//! settles what the listing lacks. In the order of the work: [`listing`], [`fetch`], [`absent`].
//!
//! Whatever is asked of the cloud is stamped with the tick that was heard before, so that the store can
//! order what came back among the writes of pods.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hawser_api::v1;

use crate::cloud::{Cloud, Fault};
use crate::failure::{Exit, Failure};
use crate::progress::{Progress, Report};
use crate::run::Run;
use crate::store::blocks::Blocks;
use crate::store::session::Session;
use crate::store::{hello, refusal};

pub mod absent;
pub mod fetch;
pub mod listing;

/// Runs of one backfill while gaps may still settle.
const RUNS_MAX: u32 = 3;

/// What a backfill works with.
pub struct Backfill<'a> {
    run: &'a Run,
    progress: &'a Progress,
    lease: v1::Lease,
    cloud: Arc<Cloud>,
    session: Arc<Session>,
    blocks: Arc<Blocks>,
    id: u64,
    tally: Arc<Tally>,
}

/// What a backfill found.
#[derive(Default)]
pub struct Tally {
    listed: AtomicU64,
    confirmed: AtomicU64,
    fetched: AtomicU64,
    failed: AtomicU64,
    deleted: AtomicU64,
    aliases: AtomicU64,
}

/// How a backfill ended.
pub struct Outcome {
    /// What the store knows now.
    pub end: v1::EndBackfillReply,
    /// What was found on the way.
    pub tally: Arc<Tally>,
}

impl Outcome {
    /// Objects that could not be read.
    pub fn failed(&self) -> u64 {
        self.tally.failed.load(Ordering::Relaxed)
    }
}

/// The command.
pub async fn run(run: &Run, lease: &v1::Lease, progress: &Progress) -> Result<(Exit, Report), Failure> {
    let provider = run.source()?;
    let cloud = Arc::new(run.cloud(provider)?);
    let names = (provider.name.as_str(), "");
    let outcome = tokio::select! {
        outcome = settle(run, lease, progress, cloud) => outcome,
        () = progress.keep_showing(&run.store, Some(lease), names) => Err(Failure::Stopped),
    }?;
    progress.tell_end(&run.store, Some(lease), names).await;
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (tally, coverage) = (&outcome.tally, outcome.end.coverage.unwrap_or_default());
    let mut report = Report {
        command: "backfill",
        source: provider.name.clone(),
        counts: vec![
            ("objects listed", get(&tally.listed)),
            ("objects confirmed", get(&tally.confirmed)),
            ("objects fetched", get(&tally.fetched)),
            ("objects deleted", get(&tally.deleted)),
            ("objects failed", get(&tally.failed)),
            ("bytes fetched", get(&progress.counts.bytes_done)),
            ("gaps open", outcome.end.gaps_open),
        ],
        ..Report::default()
    };
    if coverage.known {
        report.notes.push(format!(
            "coverage: the store holds {} of {} objects, {} of {} bytes",
            coverage.held_objects, coverage.listed_objects, coverage.held_bytes, coverage.listed_bytes
        ));
    }
    if get(&tally.aliases) > 0 {
        let count = get(&tally.aliases);
        report
            .notes
            .push(format!("{count} recorded keys are aliases: {} finds them and lists them otherwise", provider.name));
    }
    let exit = match (get(&tally.failed), outcome.end.gaps_open) {
        (0, 0) => Exit::Done,
        (0, _) => Exit::GapsLeft,
        _ => Exit::Failed,
    };
    Ok((exit, report))
}

/// Backfills, and again after the settling time, while writes of unknown outcome may still come true.
pub async fn settle(run: &Run, lease: &v1::Lease, progress: &Progress, cloud: Arc<Cloud>) -> Result<Outcome, Failure> {
    let (session, _) = Session::open(&run.store, hello(&run.binding, *uuid::Uuid::new_v4().as_bytes())).await?;
    let session = Arc::new(session);
    let blocks = Arc::new(Blocks::open(&run.store).await?);
    let tally = Arc::new(Tally::default());
    let mut turn = 1;
    loop {
        progress.phase("Backfilling", &format!("comparing {} with the store", cloud.name));
        let end = once(run, lease, progress, &cloud, &session, &blocks, &tally).await?;
        if end.settling_seconds == 0 || end.gaps_open == 0 || turn == RUNS_MAX {
            return Ok(Outcome { end, tally });
        }
        turn += 1;
        progress.phase(
            "Settling",
            &format!(
                "{} gaps are open; a write of unknown outcome may still come true: waiting {} s",
                end.gaps_open, end.settling_seconds
            ),
        );
        tokio::time::sleep(Duration::from_secs(end.settling_seconds)).await;
        for count in [&tally.listed, &tally.confirmed] {
            count.store(0, Ordering::Relaxed);
        }
    }
}

/// One backfill, from its first page to its end.
async fn once(
    run: &Run,
    lease: &v1::Lease,
    progress: &Progress,
    cloud: &Arc<Cloud>,
    session: &Arc<Session>,
    blocks: &Arc<Blocks>,
    tally: &Arc<Tally>,
) -> Result<v1::EndBackfillReply, Failure> {
    let mut migration = run.store.migration.clone();
    let request = v1::BeginBackfillRequest {
        lease: Some(lease.clone()),
        provider: cloud.identity.clone(),
        prefix: run.prefix.clone().into_bytes().into(),
    };
    let begun = migration.begin_backfill(request).await.map_err(refusal("begin a backfill"))?.into_inner();
    let backfill = Backfill {
        run,
        progress,
        lease: lease.clone(),
        cloud: cloud.clone(),
        session: session.clone(),
        blocks: blocks.clone(),
        id: begun.backfill,
        tally: tally.clone(),
    };
    let failed_before = tally.failed.load(Ordering::Relaxed);
    let buckets = backfill.buckets().await?;
    for bucket in &buckets {
        // The reply counts under the store's names.
        let stored = run.binding.store_bucket(&cloud.name, bucket).unwrap_or(bucket);
        let recorded = begun.recorded.iter().find(|entry| entry.name == stored).map_or(0, |entry| entry.objects);
        backfill.list(bucket, recorded).await?;
        if !run.is_partial() {
            backfill.absent(bucket, recorded).await?;
        }
    }
    backfill.look_into_gaps().await?;
    let failed = tally.failed.load(Ordering::Relaxed) - failed_before;
    let request = v1::EndBackfillRequest {
        lease: Some(lease.clone()),
        backfill: begun.backfill,
        complete: !run.is_partial() && failed == 0,
        failed,
    };
    Ok(migration.end_backfill(request).await.map_err(refusal("end a backfill"))?.into_inner())
}

impl Backfill<'_> {
    /// The provider's names of the bound buckets; a `*` is all that it has.
    async fn buckets(&self) -> Result<Vec<String>, Failure> {
        let bound = &self.run.binding.spec.buckets;
        if !bound.iter().any(|bucket| bucket.is_every()) {
            return Ok(bound.iter().map(|bucket| bucket.name_at(&self.cloud.name).to_owned()).collect());
        }
        let refused = |fault: Fault| match fault {
            Fault::Denied { .. } => {
                Failure::ListingRefused(format!("provider {}: list buckets: {fault}", self.cloud.name))
            }
            fault => fault.failure(&self.cloud.name, "list buckets"),
        };
        self.cloud.buckets().await.map_err(refused)
    }
}

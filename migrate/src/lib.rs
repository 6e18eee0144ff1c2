//! Moves bound buckets between a cloud, the private store and another cloud. Read in this order:
//! [`flags`], [`run`] (what every command needs), then one of [`backfill`] (cloud → store), [`replicate`]
//! (store → cloud) and [`verify`]. [`cloud`] is every request to a provider, [`store`] every call to the
//! store. May not enter here:
//! - a write to a cloud without a checkpoint before it and a guard on it;
//! - a comparison of ETags of two clouds, or an order made of dates;
//! - a list of objects in memory: everything streams.
#![forbid(unsafe_code)]

pub mod backfill;
pub mod cloud;
pub mod failure;
pub mod flags;
pub mod limits;
pub mod progress;
pub mod replicate;
pub mod run;
pub mod store;
pub mod verify;

use std::sync::Arc;
use std::time::Duration;

use hawser_api::v1;

use failure::{Exit, Failure};
use flags::Command;
use progress::{Progress, Report};
use run::Run;
use store::lease;

/// How a command ends.
type Outcome = Result<(Exit, Report), Failure>;

/// Times that a command begins anew because the store went away, and how long it is waited for each time.
const RESTARTS_MAX: u32 = 10;
const AWAY_MAX: Duration = Duration::from_secs(60);

/// Does what the command line says and prints how it ended.
pub async fn run(command: &Command) -> Exit {
    let options = command.options();
    let progress = Arc::new(Progress::new(options.json));
    let outcome = work(command, &progress).await;
    progress.end(outcome, options.termination_log())
}

/// Works, and where the store goes away meanwhile, begins anew when it is back: every command goes on where
/// it was.
async fn work(command: &Command, progress: &Arc<Progress>) -> Outcome {
    let mut run = unless_stopped(Run::prepare(command.options(), Duration::ZERO)).await?;
    for _ in 0..RESTARTS_MAX {
        match once(command, progress, run).await {
            Err(Failure::Away(why)) => {
                let seconds = AWAY_MAX.as_secs();
                progress.note(&format!("{why}: waiting for it, {seconds} s at most, and going on from there"));
                run = unless_stopped(Run::prepare(command.options(), AWAY_MAX)).await?;
                progress.counts.reset();
            }
            outcome => return outcome,
        }
    }
    once(command, progress, run).await
}

async fn once(command: &Command, progress: &Arc<Progress>, run: Run) -> Outcome {
    let run = Arc::new(run);
    let _following = run.follow_binding(progress);
    match command {
        Command::Verify(_) if run.asks_for_source() => unless_stopped(verify::run(&run, progress, run.source()?)).await,
        Command::Verify(_) => unless_stopped(verify::run(&run, progress, run.target()?)).await,
        // What differs is what it would fetch.
        Command::Backfill(_) if run.dry_run => unless_stopped(verify::run(&run, progress, run.source()?)).await,
        Command::Backfill(_) => fenced(&run, progress, async |lease| backfill::run(&run, lease, progress).await).await,
        Command::Replicate(_) => {
            fenced(&run, progress, async |lease| replicate::run(&run, lease, progress).await).await
        }
    }
}

/// Works without a lease to give back, until a signal asks for the end.
async fn unless_stopped<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::select! {
        outcome = work => outcome,
        () = run::signal() => Err(Failure::Stopped),
    }
}

/// Works under the binding's lease and stops at once when it is lost: dropping `work` stops every request
/// that it has under way.
async fn fenced(run: &Run, progress: &Progress, work: impl AsyncFnOnce(&v1::Lease) -> Outcome) -> Outcome {
    let waiting = || progress.note("another migration of this binding holds the lease: waiting for its end");
    let held = unless_stopped(lease::acquire(&run.store, run.fence(), waiting)).await?;
    let outcome = tokio::select! {
        outcome = work(&held.lease) => outcome,
        failure = held.lost() => Err(failure),
        () = run::signal() => Err(Failure::Stopped),
    };
    if !matches!(outcome, Err(Failure::Fenced(_) | Failure::Away(_))) {
        held.release(&run.store).await;
    }
    outcome
}

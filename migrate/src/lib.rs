//! Moves bound buckets between a cloud, the private store and another cloud. Read in this order:
//! [`flags`], [`run`] (what every command needs), then one of [`backfill`] (cloud → store), [`replicate`]
//! (store → cloud) and [`verify`]. [`cloud`] is every request to a provider, [`store`] every call to the
//! store. May not enter here:
//! - a write to a cloud without a checkpoint before it and a guard on it;
//! - a comparison of ETags of two clouds, or an order made of dates;
//! - a list of objects in memory: everything streams.
#![forbid(unsafe_code)]

pub mod backfill;
pub mod bandwidth;
pub mod cloud;
pub mod failure;
pub mod flags;
pub mod progress;
pub mod replicate;
pub mod run;
pub mod store;
pub mod verify;

use std::sync::Arc;

use hawser_api::v1;

use failure::{Exit, Failure};
use flags::Command;
use progress::{Progress, Report};
use run::Run;
use store::lease;

/// How a command ends.
type Outcome = Result<(Exit, Report), Failure>;

/// Does what the command line says and prints how it ended.
pub async fn run(command: &Command) -> Exit {
    let progress = Arc::new(Progress::new(command.options().json));
    let outcome = work(command, &progress).await;
    progress.end(outcome)
}

async fn work(command: &Command, progress: &Arc<Progress>) -> Outcome {
    let run = Arc::new(Run::prepare(command.options()).await?);
    match command {
        Command::Verify(_) if run.asks_for_source() => unfenced(verify::run(&run, progress, run.source()?)).await,
        Command::Verify(_) => unfenced(verify::run(&run, progress, run.target()?)).await,
        // What differs is what it would fetch.
        Command::Backfill(_) if run.dry_run => unfenced(verify::run(&run, progress, run.source()?)).await,
        Command::Backfill(_) => fenced(&run, progress, async |lease| backfill::run(&run, lease, progress).await).await,
        Command::Replicate(_) => {
            fenced(&run, progress, async |lease| replicate::run(&run, lease, progress).await).await
        }
    }
}

/// Works without the lease: it changes nothing.
async fn unfenced(work: impl Future<Output = Outcome>) -> Outcome {
    tokio::select! {
        outcome = work => outcome,
        () = run::signal() => Err(Failure::Stopped),
    }
}

/// Works under the binding's lease and stops at once when it is lost: dropping `work` stops every request
/// that it has under way.
async fn fenced(run: &Run, progress: &Progress, work: impl AsyncFnOnce(&v1::Lease) -> Outcome) -> Outcome {
    let waiting = || progress.note("another migration of this binding holds the lease: waiting for its end");
    let held = lease::acquire(&run.store, run.binding.name(), waiting).await?;
    let outcome = tokio::select! {
        outcome = work(&held.lease) => outcome,
        failure = held.lost() => Err(failure),
        () = run::signal() => Err(Failure::Stopped),
    };
    if !matches!(outcome, Err(Failure::Fenced(_))) {
        held.release(&run.store).await;
    }
    outcome
}

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

use failure::{Exit, Failure};
use flags::Command;
use progress::{Progress, Report};
use run::Run;
use store::lease;

/// Does what the command line says and prints how it ended.
pub async fn run(command: &Command) -> Exit {
    let progress = Arc::new(Progress::new(command.options().json));
    let outcome = tokio::select! {
        outcome = work(command, &progress) => outcome,
        () = run::signal() => Err(Failure::Stopped),
    };
    progress.end(outcome)
}

async fn work(command: &Command, progress: &Arc<Progress>) -> Result<(Exit, Report), Failure> {
    let run = Arc::new(Run::prepare(command.options()).await?);
    if let Command::Verify(_) = command {
        return verify::run(&run, progress).await; // changes nothing, so it needs no lease
    }
    let waiting = || progress.note("another migration of this binding holds the lease: waiting for its end");
    let held = lease::acquire(&run.store, run.binding.name(), waiting).await?;
    let outcome = {
        let work = async {
            match command {
                Command::Backfill(_) => backfill::run(&run, &held.lease, progress).await,
                Command::Replicate(_) => replicate::run(&run, &held.lease, progress).await,
                Command::Verify(_) => verify::run(&run, progress).await,
            }
        };
        // Dropping `work` stops every request that it has under way.
        tokio::select! {
            outcome = work => outcome,
            failure = held.lost() => Err(failure),
            () = run::signal() => Err(Failure::Stopped),
        }
    };
    if !matches!(outcome, Err(Failure::Fenced(_))) {
        held.release(&run.store).await;
    }
    outcome
}

//! How a person looks at the copy. Every command asks the store and shows its answer, as text that is aligned for
//! reading or, with `--json`, as one object a line. Read [`args`] for what there is, [`store`] for how the store is
//! asked ([`cluster`] and [`tunnel`] in a cluster), and one file a command. May not enter here:
//! - anything that changes the store or a cloud: looking is safe, always;
//! - anything that a cloud is needed for: the copy can be read while it is away;
//! - a path on this machine made from an object's key, but through [`file_name`].
#![forbid(unsafe_code)]

use std::io;
use std::process::ExitCode;

pub mod address;
pub mod args;
mod bindings;
mod check;
mod cluster;
mod diff;
mod entry;
mod export;
mod failure;
mod file_name;
mod gaps;
mod get;
mod landing;
mod look;
mod ls;
pub mod moment;
mod print;
mod reasons;
mod s3_keys;
mod status;
mod store;
mod tunnel;
mod units;
mod versions;

use args::{Args, Command};
use failure::Failure;
use print::Out;

/// What a command found, for the caller's exit code.
enum Found {
    /// Nothing to complain of: 0.
    Fine,
    /// The two sides differ: 3.
    Differences,
    /// Something does not work, or waits for a person: 3.
    Wrong,
}

/// Runs one command to its exit code: 0, 1 failed, 2 usage, 3 differences or something wrong.
pub async fn run(args: Args) -> ExitCode {
    match dispatch(args.command).await {
        Ok(Found::Fine) => ExitCode::SUCCESS,
        Ok(Found::Differences | Found::Wrong) => ExitCode::from(3),
        // The reader of our output has seen enough (`hawser ls … | head`).
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("hawser: {}", failure::chain(&failure));
            ExitCode::from(failure.exit_code())
        }
    }
}

async fn dispatch(command: Command) -> Result<Found, Failure> {
    match command {
        Command::Status(args) if args.store.in_cluster() => {
            bindings::status(&args.store.kube, &mut Out::stdout(args.store.json)).await
        }
        Command::Status(args) => status::run(&args, &mut Out::stdout(args.store.json)).await,
        Command::Ls(args) => ls::run(&args, &mut Out::stdout(args.store.json)).await,
        Command::Get(args) => get::run(&args).await,
        Command::Gaps(args) => gaps::run(&args, &mut Out::stdout(args.store.json)).await,
        Command::Versions(args) => versions::run(&args, &mut Out::stdout(args.store.json)).await,
        Command::Diff(args) => diff::run(&args, &mut Out::stdout(args.store.json)).await,
        Command::Export(args) => export::run(&args, &mut Out::stdout(args.store.json)).await,
        Command::Reasons(args) => reasons::run(&mut Out::stdout(args.json)),
        Command::Check(args) => check::run(&args, &mut Out::stdout(args.json)).await,
        Command::Migrate(args) => bindings::migrate(&args, &mut Out::stdout(args.json)).await,
        Command::S3Keys(args) => s3_keys::run(&args, &mut Out::stdout(args.store.json)).await,
    }
}

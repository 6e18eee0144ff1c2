//! `hawser`, and `kubectl hawser` where it is installed as `kubectl-hawser`.

use std::process::ExitCode;

use clap::Parser;
use hawser::args::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("hawser: start: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(hawser::run(args))
}

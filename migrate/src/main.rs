//! `hawser-migrate`: see `--help`, or [`hawser_migrate`] for how it works.
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use hawser_migrate::flags::Flags;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let flags = Flags::parse(); // exits with 2 itself
    let quiet = EnvFilter::try_from_env("HAWSER_LOG").unwrap_or_else(|_| EnvFilter::new("off"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(quiet).with_ansi(colours).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("hawser-migrate: cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    ExitCode::from(runtime.block_on(hawser_migrate::run(&flags.command)) as u8)
}

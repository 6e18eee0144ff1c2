//! `hawser-sidecar`: reads the command line and hands it on.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use hawser_sidecar::config::{Cli, Command};
use hawser_sidecar::{env, exec, heap, ready, redirect, run, supervise, trust};
use tracing_subscriber::EnvFilter;

/// Threads that relay. More make more memory, and one connection never uses more than one.
const THREADS: usize = 2;

fn main() -> ExitCode {
    let command = Cli::parse().command;
    if matches!(command, Command::Run(_) | Command::Exec(_)) {
        heap::one();
    }
    let filter = EnvFilter::try_from_env("HAWSER_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    let done = match command {
        Command::Run(config) if config.supervise => {
            supervise::run(&config).map(|()| ExitCode::SUCCESS).map_err(|error| failed(&error, 1))
        }
        Command::Run(config) => {
            runtime().block_on(run::run(config)).map(|()| ExitCode::SUCCESS).map_err(|error| failed(&error, 1))
        }
        Command::Exec(config) => {
            runtime().block_on(exec::exec(config)).map(ExitCode::from).map_err(|error| failed(&error, error.code()))
        }
        Command::Env(config) => env::changes(&config.trust_dir, config.proxy, |name| std::env::var_os(name))
            .map(|changes| {
                let written = std::io::stdout().write_all(&env::for_shell(&changes));
                if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
            })
            .map_err(|error| failed(&error, 1)),
        Command::Redirect(config) => {
            redirect::apply(&config).map(|()| ExitCode::SUCCESS).map_err(|error| failed(&error, 1))
        }
        Command::Trust(config) => {
            trust::command(&config).map(|()| ExitCode::SUCCESS).map_err(|error| failed(&error, 1))
        }
        Command::Ready(config) => ready::wait(&config).map(|()| ExitCode::SUCCESS).map_err(|error| failed(&error, 1)),
    };
    done.unwrap_or_else(|code| code)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(8)
        .enable_all()
        .build()
        .expect("a process that may have threads can have a runtime")
}

/// Says what went wrong with all its causes, on one line.
fn failed(error: &dyn Error, code: u8) -> ExitCode {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    eprintln!("hawser-sidecar: {text}");
    ExitCode::from(code)
}

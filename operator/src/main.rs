//! `hawser-operator`: see `--help`, or [`hawser_operator`] for how it works.
use std::error::Error;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use hawser_operator::flags::{Command, Flags};
use hawser_operator::{crdgen, run};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse(); // exits with 2 itself
    let options = match flags.command {
        Command::Crdgen => {
            // A reader that has enough closes the pipe: no failure.
            let _ = std::io::stdout().write_all(crdgen::yaml().as_bytes());
            return ExitCode::SUCCESS;
        }
        Command::Run(options) => options,
    };
    let filter = EnvFilter::try_from_env("HAWSER_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    // kube takes the process's provider. A second one cannot be there yet.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match run::run(&options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut story = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                story = format!("{story}: {error}");
                cause = error.source();
            }
            eprintln!("hawser-operator: {story}");
            ExitCode::FAILURE
        }
    }
}

//! The command line.
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::webhook;

/// The controller of CloudBindings and the webhook that protects annotated pods.
#[derive(Debug, Parser)]
#[command(name = "hawser-operator", version)]
pub struct Flags {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the definition of the CloudBinding for `kubectl apply -f -`.
    Crdgen,
    /// Run in a cluster: reconcile CloudBindings and answer the API server's questions about pods.
    Run(Box<Run>),
}

/// The options of `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The namespace that the operator itself is in.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub namespace: String,
    /// What this replica is called in the Lease.
    #[arg(long, env = "POD_NAME", value_name = "NAME", default_value = "hawser-operator")]
    pub identity: String,
    /// The store, like https://hawser-store.hawser-system.svc:7070; Jobs and sidecars reach it under this name too.
    #[arg(long, value_name = "URL")]
    pub store: String,
    /// A file with the token that the store asks for.
    #[arg(long, value_name = "FILE", default_value = "/var/run/secrets/hawser/token")]
    pub token_file: PathBuf,
    /// Where /livez, /readyz and /metrics are.
    #[arg(long, value_name = "ADDR", default_value = "[::]:8080")]
    pub admin: SocketAddr,
    /// How Jobs run.
    #[command(flatten)]
    pub jobs: Jobs,
    /// How pods are protected.
    #[command(flatten)]
    pub webhook: webhook::Settings,
}

/// How Jobs run.
#[derive(Clone, Debug, Args)]
pub struct Jobs {
    /// The image of backfills and migrations.
    #[arg(long, value_name = "IMAGE")]
    pub migrate_image: String,
    /// When that image is pulled.
    #[arg(long, value_name = "POLICY", default_value = "IfNotPresent")]
    pub migrate_pull_policy: String,
    /// Secrets in the bindings' namespaces that it is pulled with.
    #[arg(long = "migrate-pull-secret", value_name = "NAME")]
    pub migrate_pull_secrets: Vec<String>,
    /// Backfills at creation and migrations that run in the cluster at the same time; the others wait as Queued.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub jobs_max: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Flags::command().debug_assert();
    }
}

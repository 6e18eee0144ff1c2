//! The command line. Every flag of `hawser-sidecar` is here, and nothing else reads one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Between a pod and its clouds: bytes pass unchanged, a copy goes to the private store.
#[derive(Debug, Parser)]
#[command(name = "hawser-sidecar", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Relay the connections of a pod or a machine and keep a copy of what bound hosts exchange
    Run(Run),
    /// Run one command behind a sidecar of its own, with everything set for it
    Exec(Exec),
    /// Print what a shell has to export so that its commands go through a running sidecar
    Env(Env),
    /// Install or remove the packet rules that lead a pod's connections to the sidecar (needs NET_ADMIN and nft)
    Redirect(Redirect),
    /// Merge root certificates and the sidecar's own into bundles
    Trust(Trust),
    /// Ask a running sidecar whether it is ready, and wait until it is
    Ready(Ready),
}

/// What to copy, and where to.
#[derive(Clone, Debug, Args)]
pub struct Copying {
    /// The CloudBinding manifest, or a folder of them: files, or a subfolder for each with its binding.yaml
    #[arg(long, value_name = "FILE|DIR")]
    pub binding: PathBuf,
    /// The private store, as http://HOST:PORT or https://HOST:PORT
    #[arg(long, value_name = "URL")]
    pub store: String,
    /// A file with the token that is shown to the store
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Root certificates that the store's own is verified with; of a folder every store-ca.pem in its subfolders
    #[arg(long, value_name = "FILE|DIR")]
    pub store_ca: Option<PathBuf>,
    /// Root certificates that the clouds' are verified with, beside the public ones and the binding's own
    #[arg(long, value_name = "FILE")]
    pub upstream_ca: Option<PathBuf>,
    /// Bytes of captured content that may be in flight; what goes beyond becomes a gap
    #[arg(long, value_name = "BYTES", default_value_t = 32 << 20)]
    pub budget: usize,
    /// Relay bound hosts, but copy nothing
    #[arg(long)]
    pub no_capture: bool,
}

/// `run`.
#[derive(Clone, Debug, Args)]
#[command(group(clap::ArgGroup::new("ways in").required(true).multiple(true).args(["redirect", "proxy"])))]
pub struct Run {
    /// What to copy, and where to.
    #[command(flatten)]
    pub copying: Copying,
    /// Where the bundles for the applications go: ca.pem, bundle.pem, truststore.p12
    #[arg(long, value_name = "DIR")]
    pub trust_dir: PathBuf,
    /// Where the CA's key and the journal outlive a restart of this process; only we may read it
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Take connections that packet rules lead here; their destination comes from the kernel
    #[arg(long, value_name = "ADDR")]
    pub redirect: Option<SocketAddr>,
    /// Be an HTTP proxy here
    #[arg(long, value_name = "ADDR")]
    pub proxy: Option<SocketAddr>,
    /// Serve /livez, /readyz and /metrics here
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<SocketAddr>,
    /// How long open exchanges may go on after SIGTERM
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = duration)]
    pub drain_grace: Duration,
    /// Hold the listener and leave the relaying to a child, which is started again within 100 ms when it ends; after
    /// three times in a minute everything is passed through unobserved for a while
    #[arg(long, requires = "redirect", conflicts_with = "proxy")]
    pub supervise: bool,
    /// What `redirect --outcome` wrote: whether connections are led here at all
    #[arg(long, value_name = "FILE")]
    pub redirect_outcome: Option<PathBuf>,
    /// Set for the child of `--supervise`: what it does with connections
    #[arg(long, hide = true, value_enum, conflicts_with = "supervise")]
    pub child: Option<Child>,
    /// Set for the child: how many there were before it that ended by themselves
    #[arg(long, hide = true, default_value_t = 0)]
    pub crashes: u32,
}

/// What the child of a supervisor does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Child {
    /// What a sidecar does.
    Relay,
    /// It passes all of them through, and says so.
    Splice,
}

/// `exec`.
#[derive(Clone, Debug, Args)]
pub struct Exec {
    /// What to copy, and where to.
    #[command(flatten)]
    pub copying: Copying,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<std::ffi::OsString>,
}

/// `env`.
#[derive(Clone, Debug, Args)]
pub struct Env {
    /// The running sidecar's --trust-dir
    #[arg(long, value_name = "DIR")]
    pub trust_dir: PathBuf,
    /// The running sidecar's --proxy
    #[arg(long, value_name = "ADDR")]
    pub proxy: SocketAddr,
}

/// `redirect`.
#[derive(Clone, Debug, Args)]
pub struct Redirect {
    /// Remove the rules instead
    #[arg(long)]
    pub remove: bool,
    /// The ports that are led to the sidecar: those of all named providers
    #[arg(long, value_name = "PORT,…", value_delimiter = ',', required_unless_present_any = ["remove", "binding"])]
    pub ports: Vec<u16>,
    /// The bindings whose providers' ports these are, as `run` takes them
    #[arg(long, value_name = "FILE|DIR", conflicts_with = "ports")]
    pub binding: Option<PathBuf>,
    /// Write what happened here for `run --redirect-outcome`, and end successfully all the same: a pod without rules
    /// runs, unprotected, and says so
    #[arg(long, value_name = "FILE", conflicts_with = "remove")]
    pub outcome: Option<PathBuf>,
    /// The user whose connections go out untouched: the sidecar itself
    #[arg(long, value_name = "UID", default_value_t = 61337)]
    pub uid: u32,
    /// The port that the sidecar takes redirected connections on
    #[arg(long, value_name = "PORT", default_value_t = 15001)]
    pub to: u16,
}

/// `trust`.
#[derive(Clone, Debug, Args)]
pub struct Trust {
    /// The sidecar's --trust-dir, with its ca.pem; merged.pem and merged.p12 are written beside it
    #[arg(long, value_name = "DIR")]
    pub trust_dir: PathBuf,
    /// A file of root certificates that the application trusts by itself; may be repeated
    #[arg(long = "roots", value_name = "FILE")]
    pub roots: Vec<PathBuf>,
    /// Where the merged bundle goes, with a .p12 beside it; --trust-dir/merged.pem if not given
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Leave a bundle in any case, of the roots alone where there is no ca.pem, and end successfully: its clients then
    /// reach their clouds, unprotected
    #[arg(long)]
    pub available: bool,
}

/// `ready`.
#[derive(Clone, Debug, Args)]
pub struct Ready {
    /// The running sidecar's --admin
    #[arg(long, value_name = "ADDR")]
    pub admin: SocketAddr,
    /// How long to wait for it
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration)]
    pub wait: Duration,
}

/// Reads `250ms`, `25s`, `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no time: write it like 250ms, 25s or 2m");
    let (number, unit) = text.split_at(text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| bad())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::{CommandFactory, Parser};

    use super::{Cli, Command, duration};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn everything_behind_the_dashes_belongs_to_the_command() {
        let line = ["x", "exec", "--binding", "b", "--store", "s", "--", "aws", "--binding", "its own"];
        let Command::Exec(exec) = Cli::parse_from(line).command else { panic!("exec") };
        assert_eq!(exec.command, ["aws", "--binding", "its own"]);
    }

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(duration("250ms").unwrap().as_millis(), 250);
        assert_eq!(duration("2m").unwrap().as_secs(), 120);
        for text in ["", "5", "s", "-1s", "1h"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }
}

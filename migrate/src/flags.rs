//! The command line.
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use hawser_api::quantity::Rate;

/// Moves bound buckets between a cloud, the private store and another cloud.
#[derive(Debug, Parser)]
#[command(name = "hawser-migrate", version, long_about = LONG, after_long_help = EXAMPLES)]
pub struct Flags {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const LONG: &str = "\
Moves bound buckets between a cloud, the private store and another cloud.

`backfill` compares a provider's listing with the store and fetches what the store lacks. `replicate` sends what \
the store holds to the provider that the binding names in spec.provider, verifies it there and brings that \
provider into force. It does so only when everything recorded at the old provider has been carried and no write \
to it is under way: where applications write without rest, the old provider stays in force and it ends with exit \
code 1, or with 3 for objects that came while it verified. What applications write to the old provider after the \
switch is recorded in the store; `backfill --from OLD` and then `replicate --from OLD` carry over what is newer \
there, and may be started as often as one likes. `verify` compares a provider with the store and changes nothing.

Keys of a provider come from HAWSER_<PROVIDER>_AWS_ACCESS_KEY_ID, …_AWS_SECRET_ACCESS_KEY and \
…_AWS_SESSION_TOKEN, where <PROVIDER> is its name in the binding in upper case with `-` as `_`; where there are \
none, from the plain AWS_… variables. They are never printed.

Every command can be killed at any moment and started again: it goes on where it was.";

const EXAMPLES: &str = "\
Examples:
  Fetch what the store does not have yet from the provider in force:
    hawser-migrate backfill --binding photos.yaml --store http://127.0.0.1:7070

  See what a migration would send, change nothing:
    hawser-migrate replicate --binding photos.yaml --store http://127.0.0.1:7070 --dry-run

  Move to the provider that spec.provider names, at most 200 MiB a second:
    hawser-migrate replicate --binding photos.yaml --store http://127.0.0.1:7070 --bandwidth 200Mi

  Copy ahead of the day of the move, and leave the provider in force as it is:
    hawser-migrate replicate --binding photos.yaml --store http://127.0.0.1:7070 --to hetzner --no-switch

  After the move, carry over what applications still wrote to or deleted at the old provider:
    hawser-migrate backfill --binding photos.yaml --store http://127.0.0.1:7070 --from aws
    hawser-migrate replicate --binding photos.yaml --store http://127.0.0.1:7070 --from aws

  Compare every byte at a provider with the store:
    hawser-migrate verify --binding photos.yaml --store http://127.0.0.1:7070 --to hetzner --deep

Exit codes:
  0  done
  1  failed; the same command may succeed when tried again
  2  the command line, the binding or the situation needs a decision
  3  differences, or foreign objects at the target
  4  gaps are left: it is not known whether the store has everything
  5  a provider refused the credentials
  6  a bucket is missing
  7  a listing was refused: empty, forbidden, or more than 20 % of the objects would be deleted
  8  another migration of this binding holds the lease, or has begun";

/// One of the three things that migrate does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fetch from a provider what the store does not have; the truth behind coverage.
    Backfill(Options),
    /// Send what the store holds to another provider, verify it, and bring that provider into force.
    Replicate(Options),
    /// Compare a provider with what the store recorded of it; changes nothing.
    Verify(Options),
}

impl Command {
    /// The options of whichever command it is.
    pub fn options(&self) -> &Options {
        match self {
            Command::Backfill(options) | Command::Replicate(options) | Command::Verify(options) => options,
        }
    }
}

/// What all commands understand.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The CloudBinding, a YAML file.
    #[arg(long, value_name = "FILE")]
    pub binding: PathBuf,
    /// The store, like http://127.0.0.1:7070.
    #[arg(long, value_name = "URL")]
    pub store: String,
    /// The provider to read [default: the one in force].
    #[arg(long, value_name = "NAME")]
    pub from: Option<String>,
    /// The provider to write or to verify [default: spec.provider].
    #[arg(long, value_name = "NAME")]
    pub to: Option<String>,
    /// Leave the provider in force as it is.
    #[arg(long)]
    pub no_switch: bool,
    /// Say what would be done, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Read and compare every byte instead of trusting ETags.
    #[arg(long)]
    pub deep: bool,
    /// Only keys that begin with this; such a run never switches and never counts as complete.
    #[arg(long, value_name = "P", default_value = "")]
    pub prefix: String,
    /// Bytes per second that may pass in all, like 200Mi [default: spec.migration.bandwidth, else no bound].
    #[arg(long, value_name = "RATE")]
    pub bandwidth: Option<Rate>,
    /// Objects or parts under way at the same time [default: spec.migration.parallelism, else 16].
    #[arg(long, value_name = "N")]
    pub parallelism: Option<NonZeroU32>,
    /// Write into a target that is not empty though its server does not honour conditional writes.
    #[arg(long)]
    pub unguarded: bool,
    /// Believe a listing that is empty or lacks more than 20 % of what the store holds.
    #[arg(long)]
    pub allow_deletes: bool,
    /// Roots to trust at the providers besides the system's, PEM.
    #[arg(long, value_name = "FILE")]
    pub upstream_ca: Option<PathBuf>,
    /// A file with the token that the store asks for.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The root of the store's certificate, PEM; needed for https.
    #[arg(long, value_name = "FILE")]
    pub store_ca: Option<PathBuf>,
    /// The epoch of the migration that this is a Job of: when another one has begun, it ends with 8.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub epoch: u64,
    /// Where to write the reason of the end, as one JSON object [default: /dev/termination-log, if it is there].
    #[arg(long, value_name = "FILE")]
    pub termination_log: Option<PathBuf>,
    /// One JSON object a line instead of text and progress bars.
    #[arg(long)]
    pub json: bool,
}

/// Where a container of Kubernetes leaves its last word.
const TERMINATION_LOG: &str = "/dev/termination-log";

impl Options {
    /// Where to write the reason of the end, if anywhere.
    pub fn termination_log(&self) -> Option<&Path> {
        let usual = Path::new(TERMINATION_LOG);
        self.termination_log.as_deref().or_else(|| usual.exists().then_some(usual))
    }
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

//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::api_server::ACCOUNT_DIR;
use crate::review::Account;
use crate::session::Times;
use crate::store::Options;

/// The private store of Hawser: keeps a deduplicated copy of what pods exchange with a cloud.
#[derive(Debug, Parser)]
#[command(name = "hawser-store", version, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  hawser-store serve --data ./store
      one machine: gRPC on 127.0.0.1:7070, S3 on :7071, metrics on :7072, callers believed on loopback
  hawser-store serve --data /data --listen 0.0.0.0:7070 --tokens /etc/hawser/tokens \\
      --tls-cert tls.crt --tls-key tls.key
      for others: a token names its domain
  hawser-store serve --data /data --listen 0.0.0.0:7070 --token-review hawser-store \\
      --operator-account hawser/hawser-operator --s3-master /keys/s3 --tls-cert tls.crt --tls-key tls.key
      in a cluster: the API server says whose a token is, the operator which bindings there are
  hawser-store stats --data ./store --json
      what it holds; talks to the server that has the folder, or opens it
  hawser-store backup --data ./store --to /mnt/backup
      a folder that is a store itself";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the copy: gRPC for sidecars, migrations and tools, a read-only S3 face, health and metrics.
    Serve(Box<Serve>),
    /// Read the whole log and report damage with the objects that it hurts.
    Scrub(Folder),
    /// Let go of what retention allows and free the room of blocks that nothing needs.
    Gc(Folder),
    /// Count what the store holds.
    Stats(Folder),
    /// Derive the index from the log anew. The server must be stopped.
    RebuildIndex(Folder),
    /// Copy what the target lacks of the store.
    Backup(Backup),
}

/// Where the store is.
#[derive(Debug, Args)]
pub struct Folder {
    /// The store's folder.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Print one JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// `backup`.
#[derive(Debug, Args)]
pub struct Backup {
    /// The store.
    #[command(flatten)]
    pub folder: Folder,
    /// The backup's folder: empty, or an earlier backup of this store.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
}

/// `serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// The store's folder; made where it is not there.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Where gRPC is served.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7070")]
    pub listen: SocketAddr,
    /// Where the read-only S3 face is served.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7071")]
    pub s3: SocketAddr,
    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7072")]
    pub admin: SocketAddr,
    /// A file of `DOMAIN SECRET` lines: who may call, and which domain is theirs. Without it, everyone on
    /// this machine is believed, and only loopback is served.
    #[arg(long, value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// In a cluster: callers show tokens of service accounts for this audience, which the API server reviews. The
    /// domain of an account is the UID of its namespace.
    #[arg(long, value_name = "AUDIENCE", conflicts_with = "tokens", requires = "operator_account")]
    pub token_review: Option<String>,
    /// The operator's account, as NAMESPACE/NAME: it tells which bindings there are, and reaches across domains.
    #[arg(long, value_name = "ACCOUNT", requires = "token_review", value_parser = Account::parse)]
    pub operator_account: Option<Account>,
    /// The API server, as https://HOST:PORT. Default: the one that the environment of a pod names.
    #[arg(long, value_name = "URL", requires = "token_review")]
    pub api_server: Option<String>,
    /// The folder with `token` and `ca.crt` of the store's own account at the API server.
    #[arg(long, value_name = "DIR", default_value = ACCOUNT_DIR)]
    pub api_account: PathBuf,
    /// A file of `DOMAIN SECRET` lines for the S3 face: the access key is the domain's name. A store of one
    /// domain may take the secret from HAWSER_S3_SECRET.
    #[arg(long, value_name = "FILE")]
    pub s3_keys: Option<PathBuf>,
    /// A file of 32 or more random bytes, from which the S3 secret of every domain that has no other is derived.
    #[arg(long, value_name = "FILE")]
    pub s3_master: Option<PathBuf>,
    /// A PEM file of the certificate and its chain, for gRPC and S3.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The PEM file of its key.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Space kept free on the volume, as 1Gi; below it, content is refused and reads go on. Default: 1Gi, or
    /// 1 % of the volume where that is more.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub free_floor: Option<u64>,
    /// How long a write whose answer nobody saw may still arrive at the cloud.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    pub settle: Duration,
    /// How long a session lives after its last message.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    pub session_lease: Duration,
}

impl Serve {
    /// What of this concerns the disk.
    pub fn options(&self) -> Options {
        Options { floor: self.free_floor, ..Options::default() }
    }

    /// What of this concerns time.
    pub fn times(&self) -> Times {
        Times { lease: self.session_lease, settle: self.settle }
    }
}

/// Reads a time: `60s`, `5m`, `500ms`, or a number of seconds.
fn time(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| TIME_FORM.to_owned())?;
    let time = match unit {
        "ms" => Duration::from_millis(number),
        "s" | "" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        _ => return Err(TIME_FORM.into()),
    };
    if time.is_zero() { Err("must be more than nothing".into()) } else { Ok(time) }
}

const TIME_FORM: &str = "write a time as 60s, 5m or 500ms";

fn size(text: &str) -> Result<u64, String> {
    if text == "0" {
        return Ok(0);
    }
    hawser_api::quantity::parse(text).map(u64::from).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn times_have_units() {
        for (text, wanted) in [("60s", Some(60_000)), ("2m", Some(120_000)), ("50ms", Some(50)), ("7", Some(7000))] {
            assert_eq!(time(text).ok().map(|time| time.as_millis()), wanted, "{text}");
        }
        for text in ["", "s", "1h", "-1s", "0s"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}

//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::address::{Address, KeyAddress};
use crate::moment::Moment;

const ABOUT: &str = "Look at the private copy of what your pods exchange with their cloud";
const LONG_ABOUT: &str = "Look at the private copy of what your pods exchange with their cloud.

Every command reads the store and changes nothing, neither there nor at a cloud; it works while the cloud is away. \
The S3 face of the store shows the same objects to every tool that speaks S3.";
const AFTER_HELP: &str = "Examples:
  hawser status  --domain shop                       coverage, savings, gaps, sessions, migration
  hawser ls      --domain shop                       the buckets
  hawser ls      --domain shop photos/2026/          the objects below a prefix
  hawser get     --domain shop photos/a.jpg -o a.jpg
  hawser gaps    --domain shop                       what the copy is known not to know, and what repairs it
  kubectl hawser check -n shop                       in a cluster: is everything in place, and if not, what to do
  kubectl hawser status -n shop                      the same commands, through the API server, with your rights

--store, --domain and --token-file can stand in HAWSER_STORE, HAWSER_DOMAIN and HAWSER_TOKEN_FILE.
Exit codes: 0 done, 1 failed, 2 usage, 3 differences (diff), something is wrong (check, migrate).";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "hawser", version, about = ABOUT, long_about = LONG_ABOUT, after_help = AFTER_HELP, max_term_width = 120)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Provider in force, coverage, savings, open gaps, sessions and migration of each binding
    #[command(after_help = STATUS_HELP)]
    Status(StatusArgs),
    /// List buckets, or the objects of one
    #[command(after_help = LS_HELP)]
    Ls(LsArgs),
    /// Read one object out of the copy
    #[command(after_help = GET_HELP)]
    Get(GetArgs),
    /// List what the copy is known not to know, with what repairs it
    #[command(after_help = GAPS_HELP)]
    Gaps(GapsArgs),
    /// List every kept version of one object, newest first
    #[command(after_help = VERSIONS_HELP)]
    Versions(VersionsArgs),
    /// Compare the records of two providers, or the copy with a folder
    #[command(after_help = DIFF_HELP)]
    Diff(DiffArgs),
    /// Write a bucket, or what is below a prefix, into a new folder
    #[command(after_help = EXPORT_HELP)]
    Export(ExportArgs),
    /// Print every reason that a gap can have, what it means and what closes it
    Reasons(ReasonsArgs),
    /// In a cluster: look at everything that protection needs, and say what to do about what is missing
    #[command(after_help = CHECK_HELP)]
    Check(CheckArgs),
    /// In a cluster: show how a binding's migration stands, and follow it
    #[command(after_help = MIGRATE_HELP)]
    Migrate(MigrateArgs),
    /// Print the key with which tools that speak S3 read the copy
    #[command(after_help = S3_KEYS_HELP)]
    S3Keys(S3KeysArgs),
}

const CHECK_HELP: &str = "Examples:
  kubectl hawser check -n shop                       what is installed, the bindings, their pods, the store
  kubectl hawser check -n shop --json | jq 'select(.sign==\"wrong\")'

Signs: ✓ as it should be, ! look at it, ✗ wrong, ? not known, as a right is missing. Exit code 3 when anything is wrong.";

const MIGRATE_HELP: &str = "Examples:
  kubectl edit cloudbinding photos -n shop           a migration begins with the one word spec.provider
  kubectl hawser migrate photos -n shop              how it stands
  kubectl hawser migrate photos -n shop --watch      follow it; exit code 0 when the provider is in force

Needs only the right to get and list cloudbindings.";

const S3_KEYS_HELP: &str = "Examples:
  kubectl hawser s3-keys -n shop
  eval \"$(kubectl hawser s3-keys -n shop)\"          sets AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";

const STATUS_HELP: &str = "Examples:
  hawser status --store http://127.0.0.1:7070 --domain shop
  hawser status --store https://store.example:7070 --store-ca ca.pem --token-file token --binding photos.yaml
  hawser status --domain shop --json | jq 'select(.binding) | .coverage'";

const LS_HELP: &str = "Examples:
  hawser ls --domain shop                            buckets
  hawser ls --domain shop photos                     every object of a bucket
  hawser ls --domain shop photos/2026/ --long        with version, tick and content type
  hawser ls --domain shop photos --versions          every kept version, deletions too
  hawser ls --domain shop photos --at 2026-11-24T12:00:00Z
  hawser ls --domain shop photos --at 2h             as it was two hours ago
  hawser ls --domain shop photos --provider hetzner  what is recorded of another provider";

const GET_HELP: &str = "Examples:
  hawser get --domain shop photos/a.jpg -o a.jpg     written beside it first, then renamed
  hawser get --domain shop photos/a.jpg | sha256sum
  hawser get --domain shop photos/a.jpg --at 3d -o a-three-days-ago.jpg
  hawser get --domain shop photos/a.jpg --version 3sL4kqtJlcpXroDTDmJ -o old.jpg";

const GAPS_HELP: &str = "Examples:
  hawser gaps --domain shop                          open ones, newest last, and what repairs each kind
  hawser gaps --domain shop --all                    closed ones too, with what closed them
  hawser gaps --domain shop --reason Overflow photos/2026/";

const VERSIONS_HELP: &str = "Examples:
  hawser versions --domain shop photos/a.jpg
  hawser versions --domain shop photos/a.jpg --json | jq -r .tick";

const DIFF_HELP: &str = "Examples:
  hawser diff --domain shop photos --provider aws --with hetzner
  hawser diff --domain shop photos/2026/ --folder ./2026

Lines: - only on the first side, + only on the second, ! content differs, ~ headers or tags differ,
? content of one side is not in the store. Content is the same when its blocks are; where blocks were cut
differently the bytes are compared. Exit code 3 when anything differs.";

const EXPORT_HELP: &str = "Examples:
  hawser export --domain shop photos --to ./photos
  hawser export --domain shop photos/2026/ --to ./2026 --at 2026-11-24

What follows the prefix's last slash becomes a path below the folder, and never leaves it. What cannot be a file's name is written with %: an empty
part is %, . and .. are %2E and %2E%2E, % is %25, and a name that is a folder and a file both has the folder with
a % at its end.";

/// Where the store is and who asks.
#[derive(Debug, clap::Args)]
pub struct StoreArgs {
    /// Where the store's gRPC answers; without a cluster http://127.0.0.1:7070
    #[arg(long, value_name = "URL", env = "HAWSER_STORE", help_heading = "Store")]
    pub store: Option<String>,
    /// The CloudBinding to look at; its namespace is the domain
    #[arg(long, value_name = "FILE", help_heading = "Store")]
    pub binding: Option<PathBuf>,
    /// The domain to look at: the bindings' namespace. A token names its own
    #[arg(long, value_name = "NAME", env = "HAWSER_DOMAIN", conflicts_with = "binding", help_heading = "Store")]
    pub domain: Option<String>,
    /// A file that holds the token to show
    #[arg(long, value_name = "FILE", env = "HAWSER_TOKEN_FILE", help_heading = "Store")]
    pub token_file: Option<PathBuf>,
    /// The certificate authority of an https store, in PEM
    #[arg(long, value_name = "FILE", env = "HAWSER_STORE_CA", help_heading = "Store")]
    pub store_ca: Option<PathBuf>,
    /// See [`KubeArgs`].
    #[command(flatten)]
    pub kube: KubeArgs,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
}

impl StoreArgs {
    /// Whether the store is that of a cluster, reached through its API server.
    pub(crate) fn in_cluster(&self) -> bool {
        self.store.is_none() && (self.kube.plugin || self.kube.namespace.is_some() || self.kube.context.is_some())
    }
}

/// Which cluster, and what of it. `kubectl hawser` always means one, `hawser` with one of the first two.
#[derive(Debug, clap::Args)]
pub struct KubeArgs {
    /// The namespace of the bindings [default: the context's]
    #[arg(short, long, value_name = "NAME", help_heading = "Cluster")]
    pub namespace: Option<String>,
    /// The context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    pub context: Option<String>,
    /// The kubeconfig [default: KUBECONFIG, ~/.kube/config]
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    pub kubeconfig: Option<PathBuf>,
    /// The namespace that Hawser is installed in
    #[arg(
        long,
        value_name = "NAME",
        env = "HAWSER_NAMESPACE",
        default_value = "hawser-system",
        help_heading = "Cluster"
    )]
    pub hawser_namespace: String,
    /// The service account of the bindings' namespace whose token is shown to the store
    #[arg(long, value_name = "NAME", default_value = "default", help_heading = "Cluster")]
    pub account: String,
    /// Called by kubectl.
    #[arg(skip = called_by_kubectl())]
    pub plugin: bool,
}

fn called_by_kubectl() -> bool {
    let program = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kubectl-"))
}

/// `hawser check`
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// See [`KubeArgs`].
    #[command(flatten)]
    pub kube: KubeArgs,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// `hawser migrate`
#[derive(Debug, clap::Args)]
pub struct MigrateArgs {
    /// The CloudBinding; without it, the namespace's only one
    #[arg(value_name = "BINDING")]
    pub binding: Option<String>,
    /// Follow it until it ends
    #[arg(short, long)]
    pub watch: bool,
    /// See [`KubeArgs`].
    #[command(flatten)]
    pub kube: KubeArgs,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// `hawser s3-keys`
#[derive(Debug, clap::Args)]
pub struct S3KeysArgs {
    /// See [`StoreArgs`].
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `hawser status`
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// See [`StoreArgs`].
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Which objects are meant, besides their address.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// Look at the records of this provider, by its name or identity, instead of the one in force
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
    /// As it was then: a tick, a time in UTC (2026-11-24, 2026-11-24T12:30:00Z), or how long ago (90s, 15m, 2h, 3d)
    #[arg(long, value_name = "TICK|TIME|AGO")]
    pub at: Option<Moment>,
}

/// `hawser ls`
#[derive(Debug, clap::Args)]
pub struct LsArgs {
    /// A bucket by the store's name, and what its keys begin with; without it, the buckets are listed
    #[arg(value_name = "BUCKET[/PREFIX]")]
    pub address: Option<Address>,
    /// Show ETag, version, tick and content type too
    #[arg(short, long, requires = "address")]
    pub long: bool,
    /// Show every kept version, and deletions
    #[arg(long, requires = "address", conflicts_with = "at")]
    pub versions: bool,
    /// Stop after so many lines
    #[arg(long, value_name = "COUNT", requires = "address")]
    pub limit: Option<u64>,
    /// See [`Which`].
    #[command(flatten)]
    pub which: Which,
    /// See [`StoreArgs`].
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `hawser get`
#[derive(Debug, clap::Args)]
pub struct GetArgs {
    /// The object: the bucket by the store's name, then the key as it is (nothing is decoded)
    #[arg(value_name = "BUCKET/KEY")]
    pub object: KeyAddress,
    /// Where to write it; without it, and with -, to standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The version with this id, as the cloud named it
    #[arg(long, value_name = "ID", conflicts_with = "at")]
    pub version: Option<String>,
    /// See [`Which`].
    #[command(flatten)]
    pub which: Which,
    /// See [`StoreArgs`].
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `hawser gaps`
#[derive(Debug, clap::Args)]
pub struct GapsArgs {
    /// Only gaps that concern this bucket or these keys; gaps of a whole binding always do
    #[arg(value_name = "BUCKET[/PREFIX]")]
    pub address: Option<Address>,
    /// Show closed ones too
    #[arg(long)]
    pub all: bool,
    /// Only gaps of this reason (see `hawser reasons`)
    #[arg(long, value_name = "REASON")]
    pub reason: Option<String>,
    /// See [`StoreArgs`].
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `hawser versions`
#[derive(Debug, clap::Args)]
pub struct VersionsArgs {
    /// The object
    #[arg(value_name = "BUCKET/KEY")]
    pub object: KeyAddress,
    /// Look at the records of this provider, by its name or identity, instead of the one in force
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
    /// See [`StoreArgs`].
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `hawser diff`
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// A bucket by the store's name, and what its keys begin with
    #[arg(value_name = "BUCKET[/PREFIX]")]
    pub address: Address,
    /// The second side: the records of this provider, by its name or identity
    #[arg(long, value_name = "NAME", required_unless_present = "folder", conflicts_with = "folder")]
    pub with: Option<String>,
    /// The second side: this folder, as `hawser export` writes it. Headers and tags are not compared
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
    /// See [`Which`]; of the first side.
    #[command(flatten)]
    pub which: Which,
    /// See [`StoreArgs`].
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `hawser export`
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// A bucket by the store's name, and what its keys begin with
    #[arg(value_name = "BUCKET[/PREFIX]")]
    pub address: Address,
    /// The folder to write into: a new one, or an empty one
    #[arg(long, value_name = "FOLDER")]
    pub to: PathBuf,
    /// See [`Which`].
    #[command(flatten)]
    pub which: Which,
    /// See [`StoreArgs`].
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `hawser reasons`
#[derive(Debug, clap::Args)]
pub struct ReasonsArgs {
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
}

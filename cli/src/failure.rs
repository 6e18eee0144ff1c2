//! Why a command failed, in words that say what to do.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use hawser_api::binding::LoadError;
use hawser_api::connect::ConnectError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The manifest cannot be used.
    #[error("--binding")]
    Binding(#[source] Box<LoadError>),
    /// The store, its token or its authority cannot be used as given.
    #[error(transparent)]
    Connect(Box<ConnectError>),
    /// Nobody answers, or not any more.
    #[error("no store answers at {url}: is hawser-store serve running there, and is --store right? ({cause})")]
    Away { url: String, cause: String },
    /// The store says no.
    #[error("the store refused: {0}")]
    Refused(String),
    /// The kubeconfig, or what it names, cannot be used.
    #[error("the cluster cannot be used: {0}: is the kubeconfig right? (--kubeconfig, --context)")]
    Kubeconfig(String),
    /// The API server did not answer as one does.
    #[error("ask the API server: {0}")]
    Cluster(String),
    /// The caller's account in the cluster lacks a right.
    #[error(
        "you may not {verb} {resource} in namespace {namespace}: ask for a Role with this verb (Role hawser-reader of the chart has those for the store)"
    )]
    Right { verb: &'static str, resource: &'static str, namespace: String },
    /// There is no such thing in the copy.
    #[error("{0}")]
    NotFound(String),
    /// The store sent something else than it announced.
    #[error("{what}: the store announced {announced} bytes and sent {sent}; see hawser-store scrub")]
    Short { what: String, announced: u64, sent: u64 },
    /// Some of many did not work; each was said already.
    #[error("{failed} of {all} {what}")]
    Some { failed: u64, all: u64, what: &'static str },
    /// Our own output could not be written.
    #[error("write the output")]
    Output(#[source] io::Error),
    /// A file or folder.
    #[error("{doing} {}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Failure {
    /// For `map_err` at a file's operation.
    pub(crate) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
        let path = path.to_owned();
        move |source| Failure::File { doing, path, source }
    }

    /// The exit code that says the same.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) | Failure::Binding(_) | Failure::Connect(_) | Failure::Kubeconfig(_) => 2,
            _ => 1,
        }
    }
}

/// An error with its causes, each said once.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

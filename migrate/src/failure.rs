//! Why a run ended without success, and what exit code that is. One variant for one exit code: whoever
//! starts a migration decides by it what to do next.
use std::error::Error;

/// The exit codes of `hawser-migrate`, a contract with whatever runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All is done.
    Done = 0,
    /// It failed and may succeed when tried again.
    Failed = 1,
    /// The command line, the binding or the situation asks for a person's decision.
    Usage = 2,
    /// Differences were found, or foreign objects stand in the way.
    Differences = 3,
    /// It is not known whether the store has everything.
    GapsLeft = 4,
    /// A provider refused the credentials.
    Credentials = 5,
    /// A bucket does not exist.
    BucketMissing = 6,
    /// A listing must not be believed: empty, forbidden, or it would delete too much.
    ListingRefused = 7,
    /// Another migration of this binding holds the lease.
    Fenced = 8,
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What was asked for cannot be done as asked.
    #[error("{0}")]
    Usage(String),
    /// A provider refused the credentials, or there are none.
    #[error("{0}")]
    Credentials(String),
    /// A bucket does not exist.
    #[error("{0}")]
    BucketMissing(String),
    /// A listing must not be believed.
    #[error("{0}")]
    ListingRefused(String),
    /// Another migration holds the lease, or it was lost.
    #[error("{0}")]
    Fenced(String),
    /// The new provider may not come into force, as gaps are left.
    #[error("{0}")]
    GapsLeft(String),
    /// A signal asked for the end; the same command goes on from here.
    #[error("stopped by a signal: the same command goes on from here")]
    Stopped,
    /// The store does not answer, or the connection to it broke.
    #[error("{0}")]
    Away(String),
    /// Something on the way failed; the same command may succeed.
    #[error("{what}")]
    Failed {
        /// What was being done, and to what.
        what: String,
        /// The cause.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
}

impl Failure {
    /// Something failed that may succeed when tried again.
    pub fn failed(what: impl Into<String>) -> Failure {
        Failure::Failed { what: what.into(), source: None }
    }

    /// The same, with its cause.
    pub fn because(what: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Failure {
        Failure::Failed { what: what.into(), source: Some(source.into()) }
    }

    /// The exit code that says it.
    pub fn exit(&self) -> Exit {
        match self {
            Failure::Usage(_) => Exit::Usage,
            Failure::Credentials(_) => Exit::Credentials,
            Failure::BucketMissing(_) => Exit::BucketMissing,
            Failure::ListingRefused(_) => Exit::ListingRefused,
            Failure::Fenced(_) => Exit::Fenced,
            Failure::GapsLeft(_) => Exit::GapsLeft,
            Failure::Stopped | Failure::Away(_) | Failure::Failed { .. } => Exit::Failed,
        }
    }

    /// The whole story in one line: the failure and its causes.
    pub fn story(&self) -> String {
        let mut story = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !story.contains(&text) {
                story = format!("{story}: {text}");
            }
            cause = error.source();
        }
        story
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_the_exit_code_of_the_contract() {
        let text = || String::from("x");
        for (failure, code) in [
            (Failure::failed("x"), 1),
            (Failure::Stopped, 1),
            (Failure::Away(text()), 1),
            (Failure::Usage(text()), 2),
            (Failure::GapsLeft(text()), 4),
            (Failure::Credentials(text()), 5),
            (Failure::BucketMissing(text()), 6),
            (Failure::ListingRefused(text()), 7),
            (Failure::Fenced(text()), 8),
        ] {
            assert_eq!(failure.exit() as u8, code, "{failure:?}");
        }
    }

    #[test]
    fn a_cause_is_told_once() {
        let failure = Failure::because("read b/k", std::io::Error::other("connection refused"));
        assert_eq!(failure.story(), "read b/k: connection refused");
    }
}

//! What a concern found: that all is as it should be, or what it waits for.
use std::time::Duration;

/// How one concern of a binding stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Settled,
    /// Under way, by itself.
    Waiting(Why),
    /// At rest by a person's wish, short of its goal.
    Halted(Why),
    /// A person must decide or repair something.
    Stalled(Why),
}

/// Why a concern is not settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// One word, for machines: the reason of conditions and Events.
    pub reason: &'static str,
    /// For people: what it is, and what to do. Holds no number that grows by itself: each change is a patch.
    pub message: String,
    /// When to look again, where no change tells.
    pub again_in: Duration,
}

/// What nothing tells of is looked at again after so long.
pub const AGAIN: Duration = Duration::from_secs(600);
/// After a failure that may pass by itself.
pub const SOON: Duration = Duration::from_secs(10);

impl Outcome {
    /// Under way.
    pub fn waiting(reason: &'static str, message: impl Into<String>, again_in: Duration) -> Outcome {
        Outcome::Waiting(Why { reason, message: message.into(), again_in })
    }

    /// At rest by a person's wish.
    pub fn halted(reason: &'static str, message: impl Into<String>) -> Outcome {
        Outcome::Halted(Why { reason, message: message.into(), again_in: AGAIN })
    }

    /// A person's turn.
    pub fn stalled(reason: &'static str, message: impl Into<String>, again_in: Duration) -> Outcome {
        Outcome::Stalled(Why { reason, message: message.into(), again_in })
    }

    /// What the API server's answer to `doing` something means: what it refuses as invalid stays refused.
    pub fn of_api(doing: &str, error: &kube::Error) -> Outcome {
        match error {
            kube::Error::Api(status) if status.code == 422 || status.code == 403 => {
                let (reason, text) = match status.code {
                    403 => ("Forbidden", &status.message),
                    _ => ("Refused", &status.message),
                };
                Outcome::stalled(reason, format!("{doing}: the API server refused: {text}"), AGAIN)
            }
            kube::Error::Api(status) => Outcome::waiting("ApplyFailed", format!("{doing}: {}", status.message), SOON),
            _ => Outcome::waiting("ApplyFailed", format!("{doing}: the API server does not answer"), SOON),
        }
    }

    /// Why it is not settled.
    pub fn why(&self) -> Option<&Why> {
        match self {
            Outcome::Settled => None,
            Outcome::Waiting(why) | Outcome::Halted(why) | Outcome::Stalled(why) => Some(why),
        }
    }
}

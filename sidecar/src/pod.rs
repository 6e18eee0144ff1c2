//! What a pod says of its own protection: what `redirect` left behind, and which containers do not trust the CA.
//! A file each: whoever writes it ran before this process, in a container of its own.

use std::fs;
use std::path::Path;

use hawser_api::v1;
use serde::{Deserialize, Serialize};

/// Where a folder of bindings has what was stamped on the pod.
pub const STAMPED_DIR: &str = "stamped";
/// `CONTAINER=REASON`, comma-separated: containers that do not trust the CA.
const UNPROTECTED_FILE: &str = "unprotected";

/// Why a pod, or a container of it, is not protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unprotected {
    /// The kernel or `nft` refused the packet rules.
    RulesRefused,
    /// The bindings could not be read, so nothing was known that rules could lead here.
    BindingsUnreadable,
    /// Nobody left word of the rules.
    RulesUnknown,
    /// The container names root certificates of its own.
    OwnRoots,
}

impl Unprotected {
    /// Its word for metrics and people.
    pub fn as_str(self) -> &'static str {
        match self {
            Unprotected::RulesRefused => "RulesRefused",
            Unprotected::BindingsUnreadable => "BindingsUnreadable",
            Unprotected::RulesUnknown => "RulesUnknown",
            Unprotected::OwnRoots => "OwnRoots",
        }
    }
}

/// What `redirect` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirected {
    /// The ports that are led to the sidecar.
    pub ports: Vec<u16>,
    /// Why none is.
    pub refused: Option<Refused>,
}

/// Why no connection is led to the sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// In one word.
    pub reason: Unprotected,
    /// In many.
    pub detail: String,
}

impl Redirected {
    /// What `redirect --outcome` wrote; a file that cannot be read says that nothing is known.
    pub fn read(file: &Path) -> Redirected {
        let read = fs::read(file).map_err(|error| error.to_string());
        let parsed = read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()));
        parsed.unwrap_or_else(|error| Redirected {
            ports: Vec::new(),
            refused: Some(Refused {
                reason: Unprotected::RulesUnknown,
                detail: format!("{}: {error}", file.display()),
            }),
        })
    }
}

/// This pod, for the store: who it is, and what of it is not protected. `None` outside of a pod.
pub fn describe(outcome: Option<&Path>, bindings: &Path, variable: impl Fn(&str) -> Option<String>) -> Option<v1::Pod> {
    let (name, uid) = (variable("POD_NAME")?, variable("POD_UID")?);
    let mut unprotected = Vec::new();
    if let Some(refused) = outcome.and_then(|file| Redirected::read(file).refused) {
        let reason = refused.reason.as_str().to_owned();
        unprotected.push(v1::Unprotected { reason, container: String::new(), detail: refused.detail });
    }
    let stamped = fs::read_to_string(bindings.join(STAMPED_DIR).join(UNPROTECTED_FILE)).unwrap_or_default();
    let containers = stamped.trim().split(',').filter_map(|entry| entry.split_once('='));
    unprotected.extend(containers.map(|(container, reason)| v1::Unprotected {
        reason: reason.to_owned(),
        container: container.to_owned(),
        detail: "the container sets variables for root certificates itself, which are left as they are".to_owned(),
    }));
    Some(v1::Pod { name, uid, unprotected })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Redirected, Refused, Unprotected, describe};

    #[test]
    fn a_pod_says_what_of_it_is_not_protected() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("stamped")).unwrap();
        let outcome = folder.path().join("redirect.json");
        let pod = |name: &str| Some(format!("its {name}"));
        let told = || {
            let told = describe(Some(&outcome), folder.path(), pod).unwrap().unprotected;
            told.into_iter().map(|it| (it.reason, it.container)).collect::<Vec<_>>()
        };
        let entry = |reason: &str, container: &str| (reason.to_owned(), container.to_owned());
        assert_eq!(told(), [entry("RulesUnknown", "")], "no word of the rules is no protection");
        let mut done = Redirected { ports: vec![443], refused: None };
        std::fs::write(&outcome, serde_json::to_vec(&done).unwrap()).unwrap();
        assert_eq!(told(), []);
        std::fs::write(folder.path().join("stamped/unprotected"), "app=OwnRoots,web=OwnRoots").unwrap();
        assert_eq!(told(), [entry("OwnRoots", "app"), entry("OwnRoots", "web")]);
        done.refused = Some(Refused { reason: Unprotected::RulesRefused, detail: "no nat".into() });
        std::fs::write(&outcome, serde_json::to_vec(&done).unwrap()).unwrap();
        assert_eq!(told()[0], entry("RulesRefused", ""));
        assert_eq!(describe(None, folder.path(), |_| None), None, "outside of a pod there is nobody to name");
    }
}

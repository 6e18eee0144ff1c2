//! `redirect`: the packet rules that lead a pod's connections to the sidecar, in one nftables table of our own.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::bindings::{self, BindingsError};
use crate::config::Redirect;
use crate::pod::{Redirected, Refused, Unprotected};

/// The table; it holds nothing else, so that it can be removed and made anew as a whole.
const TABLE: &str = "inet hawser";

/// Why the rules were not changed.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// The bindings whose ports are to be led.
    #[error(transparent)]
    Bindings(#[from] BindingsError),
    /// `nft` is not there.
    #[error("nft cannot be run: install the package nftables")]
    Missing(#[source] io::Error),
    /// It refused.
    #[error("nft refused the rules (it needs the capability NET_ADMIN, and a kernel with nf_tables and nat): {0}")]
    Refused(String),
    /// The word for the sidecar.
    #[error("{}: cannot be written", path.display())]
    Outcome {
        /// Where it should have gone.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Installs the rules, in place of those that are there, or removes them.
///
/// # Errors
/// [`RedirectError`]; the rules are then as they were before, as nft applies a file as a whole. With `--outcome` only
/// [`RedirectError::Outcome`]: everything else is written there.
pub fn apply(config: &Redirect) -> Result<(), RedirectError> {
    let done = install(config);
    let Some(path) = &config.outcome else { return done.map(|_| ()) };
    let outcome = match done {
        Ok(ports) => Redirected { ports, refused: None },
        Err(error) => {
            let reason = match error {
                RedirectError::Bindings(_) => Unprotected::BindingsUnreadable,
                _ => Unprotected::RulesRefused,
            };
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "no connection is led to the sidecar: this pod runs unprotected"
            );
            let detail = match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            };
            Redirected { ports: Vec::new(), refused: Some(Refused { reason, detail }) }
        }
    };
    let text = serde_json::to_vec(&outcome).map_err(io::Error::from);
    text.and_then(|text| std::fs::write(path, text))
        .map_err(|source| RedirectError::Outcome { path: path.clone(), source })
}

/// Gives the ports that are led.
fn install(config: &Redirect) -> Result<Vec<u16>, RedirectError> {
    let ports = match &config.binding {
        Some(path) => bindings::ports(path)?.into_iter().collect(),
        None => config.ports.clone(),
    };
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(RedirectError::Missing)?;
    if let Some(mut input) = child.stdin.take() {
        let _ = input.write_all(rules(config, &ports).as_bytes()); // if it does not read, it says why
    }
    let output = child.wait_with_output().map_err(RedirectError::Missing)?;
    if output.status.success() {
        Ok(ports)
    } else {
        Err(RedirectError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

/// The whole file. Adding before deleting makes deleting succeed where there is nothing yet.
fn rules(config: &Redirect, ports: &[u16]) -> String {
    let mut rules = format!("add table {TABLE}\ndelete table {TABLE}\n");
    if config.remove {
        return rules;
    }
    let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    for line in [
        format!("add table {TABLE}"),
        format!("add chain {TABLE} output {{ type nat hook output priority -100; policy accept; }}"),
        // The sidecar's own connections go out; metadata and credentials are never touched.
        format!("add rule {TABLE} output meta skuid {} accept", config.uid),
        format!("add rule {TABLE} output ip daddr 169.254.0.0/16 accept"),
        format!("add rule {TABLE} output ip6 daddr {{ fe80::/10, fd00:ec2::254 }} accept"),
        format!("add rule {TABLE} output tcp dport {{ {ports} }} redirect to :{}", config.to),
    ] {
        rules.push_str(&line);
        rules.push('\n');
    }
    rules
}

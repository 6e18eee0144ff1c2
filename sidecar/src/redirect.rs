//! `redirect`: the packet rules that lead a pod's connections to the sidecar, in one nftables table of our own.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use crate::config::Redirect;

/// The table; it holds nothing else, so that it can be removed and made anew as a whole.
const TABLE: &str = "inet hawser";

/// Why the rules were not changed.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// `nft` is not there.
    #[error("nft cannot be run: install the package nftables")]
    Missing(#[source] io::Error),
    /// It refused.
    #[error("nft refused the rules (it needs the capability NET_ADMIN, and a kernel with nf_tables and nat): {0}")]
    Refused(String),
}

/// Installs the rules, in place of those that are there, or removes them.
///
/// # Errors
/// [`RedirectError`]; the rules are then as they were before, as nft applies a file as a whole.
pub fn apply(config: &Redirect) -> Result<(), RedirectError> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(RedirectError::Missing)?;
    if let Some(mut input) = child.stdin.take() {
        let _ = input.write_all(rules(config).as_bytes()); // if it does not read, it says why
    }
    let output = child.wait_with_output().map_err(RedirectError::Missing)?;
    if output.status.success() {
        Ok(())
    } else {
        Err(RedirectError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

/// The whole file. Adding before deleting makes deleting succeed where there is nothing yet.
fn rules(config: &Redirect) -> String {
    let mut rules = format!("add table {TABLE}\ndelete table {TABLE}\n");
    if config.remove {
        return rules;
    }
    let ports = config.ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
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

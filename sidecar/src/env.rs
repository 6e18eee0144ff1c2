//! The variables that lead a command through the sidecar and make it trust the pod's CA.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hawser_api::variables::{ADDITIVE, JAVA, REPLACING, java_options};
use rustls::pki_types::CertificateDer;

use crate::trust::{self, BUNDLE_FILE, CA_FILE, TRUSTSTORE_FILE, TrustError};

/// Variables that say where the proxy is. Some clients follow only one of them.
const PROXY: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];
/// Variables that would lead past it.
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// One change of an environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Set to this.
    Set(&'static str, OsString),
    /// Taken out.
    Unset(&'static str),
}

/// What has to change in the environment `now` for a command to go through `proxy` and trust the bundles in `trust_dir`.
///
/// Where the environment names roots of its own, they are merged with ours into a file in `trust_dir`: nothing that was
/// trusted is lost, nothing but ours is added.
///
/// # Errors
/// [`TrustError`] when such a merge cannot be written. A named file that cannot be read counts as absent: its client
/// could not have used it either.
pub fn changes(
    trust_dir: &Path,
    proxy: SocketAddr,
    now: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<Change>, TrustError> {
    // The command may go to another folder.
    let trust_dir =
        &std::path::absolute(trust_dir).map_err(|source| TrustError::File { path: trust_dir.to_owned(), source })?;
    let ours = trust::read(&trust_dir.join(CA_FILE))?;
    let bundle = trust_dir.join(BUNDLE_FILE);
    let url = OsString::from(format!("http://{proxy}"));
    let mut changes: Vec<Change> = PROXY.into_iter().map(|name| Change::Set(name, url.clone())).collect();
    changes.extend(NO_PROXY.map(Change::Unset));
    for name in ADDITIVE {
        let file = merged(trust_dir, name, &ours, now(name))?.unwrap_or_else(|| trust_dir.join(CA_FILE));
        changes.push(Change::Set(name, file.into()));
    }
    for name in REPLACING {
        let file = merged(trust_dir, name, &ours, now(name))?.unwrap_or_else(|| bundle.clone());
        changes.push(Change::Set(name, file.into()));
    }
    changes.push(Change::Set(JAVA, java(trust_dir, proxy, now(JAVA).as_deref())));
    Ok(changes)
}

/// The merge of our CA with the file that the environment names, where it names a usable one that is not ours already.
fn merged(
    trust_dir: &Path,
    name: &str,
    ours: &[CertificateDer<'static>],
    named: Option<OsString>,
) -> Result<Option<PathBuf>, TrustError> {
    let Some(named) = named.filter(|named| !named.is_empty() && !Path::new(named).starts_with(trust_dir)) else {
        return Ok(None);
    };
    let Ok(theirs) = trust::read(Path::new(&named)) else { return Ok(None) };
    let Some(ours) = ours.first() else { return Ok(None) };
    let file = trust_dir.join(format!("merged-{}.pem", name.to_ascii_lowercase()));
    trust::write_merged(&file, ours, &theirs)?;
    Ok(Some(file))
}

/// Java reads no proxy and no bundle from other variables. What stands there already stays, and comes first.
fn java(trust_dir: &Path, proxy: SocketAddr, now: Option<&OsStr>) -> OsString {
    let mut options = now.map(OsStr::to_owned).unwrap_or_default();
    if !options.is_empty() {
        options.push(" ");
    }
    options.push(java_options(&trust_dir.join(TRUSTSTORE_FILE).to_string_lossy()));
    for scheme in ["https", "http"] {
        options.push(format!(" -D{scheme}.proxyHost={} -D{scheme}.proxyPort={}", proxy.ip(), proxy.port()));
    }
    options.push(" -Dhttp.nonProxyHosts=");
    options
}

/// `env`: the changes as lines for a POSIX shell.
pub fn for_shell(changes: &[Change]) -> Vec<u8> {
    let mut text = Vec::new();
    for change in changes {
        match change {
            Change::Set(name, value) => {
                text.extend_from_slice(format!("export {name}='").as_bytes());
                for part in value.as_bytes().split_inclusive(|byte| *byte == b'\'') {
                    match part.strip_suffix(b"'") {
                        Some(before) => {
                            text.extend_from_slice(before);
                            text.extend_from_slice(b"'\\''");
                        }
                        None => text.extend_from_slice(part),
                    }
                }
                text.extend_from_slice(b"'\n");
            }
            Change::Unset(name) => text.extend_from_slice(format!("unset {name}\n").as_bytes()),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashMap;
    use std::ffi::OsString;
    use std::path::Path;
    use std::process::Command;

    use super::{Change, changes, for_shell};
    use crate::authority::Authority;
    use crate::trust;

    fn certificate(authority: &Authority) -> rustls::pki_types::CertificateDer<'static> {
        authority.certificate().clone()
    }

    #[test]
    fn what_a_command_trusts_stays_trusted_and_ours_is_added() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, public, own) =
            (Authority::open(None).unwrap(), Authority::open(None).unwrap(), Authority::open(None).unwrap());
        trust::write(folder.path(), ours.certificate(), &[certificate(&public)]).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let file = elsewhere.path().join("own roots.pem");
        trust::write_merged(&file, own.certificate(), &[]).unwrap();
        let now: HashMap<&str, OsString> = HashMap::from([
            ("AWS_CA_BUNDLE", file.clone().into()),
            ("CURL_CA_BUNDLE", "/does/not/exist".into()),
            ("JAVA_TOOL_OPTIONS", "-Xmx1g".into()),
        ]);
        let changes = changes(folder.path(), "127.0.0.1:3128".parse().unwrap(), |name| now.get(name).cloned()).unwrap();
        let set = |wanted: &str| {
            let found = changes.iter().find_map(|change| match change {
                Change::Set(name, value) if *name == wanted => Some(value.clone()),
                _ => None,
            });
            found.unwrap()
        };
        let trusted = |name: &str| trust::read(Path::new(&set(name))).unwrap();
        assert_eq!(trusted("AWS_CA_BUNDLE"), [certificate(&own), certificate(&ours)]);
        assert_eq!(trusted("CURL_CA_BUNDLE"), [certificate(&public), certificate(&ours)]);
        assert_eq!(trusted("NODE_EXTRA_CA_CERTS"), [certificate(&ours)]);
        assert_eq!(set("https_proxy"), "http://127.0.0.1:3128");
        assert!(changes.contains(&Change::Unset("NO_PROXY")));
        let java = set("JAVA_TOOL_OPTIONS").into_string().unwrap();
        assert!(java.starts_with("-Xmx1g -Djavax.net.ssl.trustStore="), "{java}");
    }

    #[test]
    fn a_shell_reads_back_what_was_printed() {
        let value = OsString::from("it's \"$HOME\" `x`\n\\");
        let mut script = for_shell(&[Change::Set("A", value.clone()), Change::Unset("HOME")]);
        script.extend_from_slice(b"printf %s \"$A${HOME-none}\"");
        let printed =
            Command::new("sh").arg("-c").arg(OsString::from(String::from_utf8(script).unwrap())).output().unwrap();
        assert_eq!(printed.stdout, b"it's \"$HOME\" `x`\n\\none");
    }
}

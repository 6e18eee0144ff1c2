//! What the applications have to trust: bundles of root certificates, in the forms that clients read.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hawser_api::variables::TRUSTSTORE_PASSWORD;
use p12_keystore::{Certificate, KeyStore, KeyStoreEntry};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::config::Trust;

/// Our certificate alone: for variables that add to what a client trusts.
pub const CA_FILE: &str = "ca.pem";
/// All roots and ours: for variables that replace what a client trusts.
pub const BUNDLE_FILE: &str = "bundle.pem";
/// The same for Java.
pub const TRUSTSTORE_FILE: &str = "truststore.p12";
/// The bundle of `trust`: what an application trusts by itself, and ours.
pub const MERGED_FILE: &str = "merged.pem";
/// What derives keys from that password in vain; Java's own default is as low as may be.
const TRUSTSTORE_ITERATIONS: u32 = 2048;

/// Why bundles could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file or folder.
    #[error("{}: cannot be read or written", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file that should hold certificates.
    #[error("{}: holds no certificates in PEM form", path.display())]
    Empty {
        /// Which one.
        path: PathBuf,
    },
    /// The form that Java reads.
    #[error("a truststore for Java cannot be made of these certificates")]
    Truststore(#[from] p12_keystore::error::Error),
}

/// The machine's own roots, from where every client of it reads them (`SSL_CERT_FILE` and `SSL_CERT_DIR` included).
/// Empty with a warning when there are none.
pub fn system_roots() -> Vec<CertificateDer<'static>> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        tracing::warn!(errors = ?found.errors, "this machine has no root certificates: only those of the bindings and --upstream-ca are trusted");
    }
    found.certs
}

/// The certificates of a PEM file.
///
/// # Errors
/// [`TrustError::File`] and [`TrustError::Empty`].
pub fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let bytes = fs::read(path).map_err(|source| TrustError::File { path: path.to_owned(), source })?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok).collect();
    if certificates.is_empty() { Err(TrustError::Empty { path: path.to_owned() }) } else { Ok(certificates) }
}

/// Writes `ca.pem`, `bundle.pem` and `truststore.p12` into `folder`, each whole or not at all.
///
/// # Errors
/// [`TrustError::File`] and [`TrustError::Truststore`].
pub fn write(folder: &Path, ours: &CertificateDer<'_>, roots: &[CertificateDer<'_>]) -> Result<(), TrustError> {
    fs::create_dir_all(folder).map_err(|source| TrustError::File { path: folder.to_owned(), source })?;
    let merged = merge(roots, ours);
    let (bundle, ca) = (pem(&merged), pem(std::slice::from_ref(ours)));
    let is = |name: &str, text: &str| fs::read(folder.join(name)).is_ok_and(|old| old == text.as_bytes());
    if is(BUNDLE_FILE, &bundle) && is(CA_FILE, &ca) && folder.join(TRUSTSTORE_FILE).is_file() {
        return Ok(()); // as before a restart: encrypting the truststore again takes longer than all the rest
    }
    replace(&folder.join(BUNDLE_FILE), bundle.as_bytes())?;
    replace(&folder.join(TRUSTSTORE_FILE), &truststore(&merged)?)?;
    replace(&folder.join(CA_FILE), ca.as_bytes()) // last: who sees it sees all three
}

/// Writes a bundle of `roots` and `ours` to `path`, and the truststore of the same beside it.
///
/// # Errors
/// [`TrustError::File`] and [`TrustError::Truststore`].
pub fn write_merged(path: &Path, ours: &CertificateDer<'_>, roots: &[CertificateDer<'_>]) -> Result<(), TrustError> {
    write_bundle(path, &merge(roots, ours))
}

fn write_bundle(path: &Path, certificates: &[CertificateDer<'_>]) -> Result<(), TrustError> {
    replace(&path.with_extension("p12"), &truststore(certificates)?)?;
    replace(path, pem(certificates).as_bytes())
}

/// `trust`: merges what an application trusts by itself with the CA of a running sidecar.
///
/// # Errors
/// [`TrustError`]; none with `--available`, where a file that cannot be had is left out and said.
pub fn command(config: &Trust) -> Result<(), TrustError> {
    let available = |error: TrustError| {
        if !config.available {
            return Err(error);
        }
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the bundle is not whole: clients that miss the CA are passed through, unprotected"
        );
        Ok(Vec::new())
    };
    let ours = read(&config.trust_dir.join(CA_FILE)).or_else(available)?;
    let mut roots = Vec::new();
    for file in &config.roots {
        roots.extend(read(file).or_else(available)?);
    }
    if config.roots.is_empty() {
        roots = system_roots();
    }
    let merged = match ours.first() {
        Some(ours) => merge(&roots, ours),
        None => roots,
    };
    let out = config.out.clone().unwrap_or_else(|| config.trust_dir.join(MERGED_FILE));
    write_bundle(&out, &merged).or_else(|error| available(error).map(|_| ()))
}

/// Every one of `roots` once, then ours: nothing that was trusted is lost, and nothing but ours is added.
fn merge<'a>(roots: &[CertificateDer<'a>], ours: &CertificateDer<'a>) -> Vec<CertificateDer<'a>> {
    let mut merged: Vec<CertificateDer<'a>> = Vec::with_capacity(roots.len() + 1);
    for root in roots.iter().chain([ours]) {
        if !merged.contains(root) {
            merged.push(root.clone());
        }
    }
    merged
}

fn pem(certificates: &[CertificateDer<'_>]) -> String {
    let mut text = String::new();
    for certificate in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(certificate);
        for line in encoded.as_bytes().chunks(64) {
            text.extend(line.iter().map(|byte| char::from(*byte)));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

fn truststore(certificates: &[CertificateDer<'_>]) -> Result<Vec<u8>, TrustError> {
    let mut store = KeyStore::new();
    for (at, certificate) in certificates.iter().enumerate() {
        // A root that this reader does not understand is left out: Java would not understand it either.
        if let Ok(certificate) = Certificate::from_der(certificate) {
            store.add_entry(&format!("root-{at}"), KeyStoreEntry::Certificate(certificate));
        }
    }
    let writer = store.writer(TRUSTSTORE_PASSWORD);
    Ok(writer.encryption_iterations(TRUSTSTORE_ITERATIONS).mac_iterations(TRUSTSTORE_ITERATIONS).write()?)
}

/// Replaces a file at once, so that no reader sees half of it.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), TrustError> {
    let at = |source| TrustError::File { path: path.to_owned(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    let partial = path.with_file_name(name);
    let written =
        fs::File::create(&partial).and_then(|mut file| file.write_all(bytes)).and_then(|()| fs::rename(&partial, path));
    written.map_err(at)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hawser_api::variables::TRUSTSTORE_PASSWORD;

    use super::{BUNDLE_FILE, CA_FILE, MERGED_FILE, TRUSTSTORE_FILE, command, read, write, write_merged};
    use crate::authority::Authority;

    #[test]
    fn bundles_hold_every_root_once_and_ours() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, one, two) =
            (Authority::open(None).unwrap(), Authority::open(None).unwrap(), Authority::open(None).unwrap());
        let roots = [one.certificate().clone(), two.certificate().clone(), one.certificate().clone()];
        write(folder.path(), ours.certificate(), &roots).unwrap();
        assert_eq!(read(&folder.path().join(CA_FILE)).unwrap(), [ours.certificate().clone()]);
        let bundle = read(&folder.path().join(BUNDLE_FILE)).unwrap();
        assert_eq!(bundle, [one.certificate().clone(), two.certificate().clone(), ours.certificate().clone()]);
        let p12 = std::fs::read(folder.path().join(TRUSTSTORE_FILE)).unwrap();
        let policy = p12_keystore::Pkcs12ImportPolicy::Raw;
        assert_eq!(p12_keystore::KeyStore::from_pkcs12(&p12, TRUSTSTORE_PASSWORD, policy).unwrap().entries_len(), 3);
        let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 3, "nothing half-written stays behind: {names:?}");
    }

    #[test]
    fn bundles_that_are_there_are_not_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, root, other) =
            (Authority::open(None).unwrap(), Authority::open(None).unwrap(), Authority::open(None).unwrap());
        let written = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().modified().unwrap();
        write(folder.path(), ours.certificate(), &[root.certificate().clone()]).unwrap();
        let before = written(TRUSTSTORE_FILE);
        write(folder.path(), ours.certificate(), &[root.certificate().clone()]).unwrap();
        assert_eq!(written(TRUSTSTORE_FILE), before, "after a restart");
        write(folder.path(), ours.certificate(), &[other.certificate().clone()]).unwrap();
        assert_eq!(read(&folder.path().join(BUNDLE_FILE)).unwrap()[0], other.certificate().clone(), "other roots are");
    }

    #[test]
    fn an_available_bundle_is_there_without_the_authority_and_a_strict_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let root = Authority::open(None).unwrap();
        let roots = folder.path().join("roots.pem");
        write_merged(&roots, root.certificate(), &[]).unwrap();
        let mut config = crate::config::Trust {
            trust_dir: folder.path().to_owned(),
            roots: vec![roots, folder.path().join("missing.pem")],
            out: None,
            available: false,
        };
        assert!(command(&config).is_err());
        config.available = true;
        command(&config).unwrap();
        assert_eq!(read(&folder.path().join(MERGED_FILE)).unwrap(), [root.certificate().clone()]);
        let ours = Authority::open(None).unwrap();
        write(folder.path(), ours.certificate(), &[]).unwrap();
        command(&config).unwrap();
        let both = [root.certificate().clone(), ours.certificate().clone()];
        assert_eq!(read(&folder.path().join(MERGED_FILE)).unwrap(), both);
    }
}

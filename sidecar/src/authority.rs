//! The pod's own certificate authority, and the leaves that it signs: one per name asked for.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;

/// Leaves kept. A pod speaks to a handful of hosts; a bucket in the name makes a host of its own.
const LEAVES_MAX: u64 = 1024;
/// How long a leaf is used before another is made.
const LEAF_USE: Duration = Duration::from_secs(24 * 3600);
/// How long a leaf is valid: well beyond its use, for connections and clocks that lag behind.
const LEAF_VALIDITY: time::Duration = time::Duration::days(8);
/// How long the authority is valid: longer than any pod lives.
const CA_VALIDITY: time::Duration = time::Duration::days(3650);
/// What is made is valid a little earlier, for clocks that are behind ours.
const CLOCK_SLACK: time::Duration = time::Duration::days(1);

/// Where the key is kept in the state folder.
const KEY_FILE: &str = "ca-key.pem";
const CERTIFICATE_FILE: &str = "ca.pem";

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The state folder cannot be used.
    #[error("{}: the CA's key cannot be kept here: give --state-dir a folder that only this user can write", path.display())]
    State {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A certificate could not be made, or the kept one not be read.
    #[error(
        "the CA's certificate cannot be made or read; remove ca.pem and ca-key.pem from --state-dir to begin with a new one"
    )]
    Certificate(#[from] rcgen::Error),
}

/// Signs leaves with a key that no file outside the state folder ever holds.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    leaves: moka::sync::Cache<String, Arc<CertifiedKey>>,
}

impl Authority {
    /// The authority kept in `state`, or a new one, which is kept there if there is such a folder.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn open(state: Option<&Path>) -> Result<Authority, AuthorityError> {
        let Some(state) = state else {
            let (key, pem) = make()?;
            return Authority::of(key, &pem);
        };
        let (key_path, certificate_path) = (state.join(KEY_FILE), state.join(CERTIFICATE_FILE));
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| AuthorityError::State { path, source }
        };
        fs::create_dir_all(state).map_err(at(state))?;
        match (fs::read_to_string(&key_path), fs::read_to_string(&certificate_path)) {
            (Ok(key), Ok(pem)) => return Authority::of(KeyPair::from_pem(&key)?, &pem),
            (Err(error), _) | (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
            (Err(error), _) => return Err(at(&key_path)(error)),
            (_, Err(error)) => return Err(at(&certificate_path)(error)),
        }
        let (key, pem) = make()?;
        write_private(&certificate_path, pem.as_bytes()).map_err(at(&certificate_path))?;
        write_private(&key_path, key.serialize_pem().as_bytes()).map_err(at(&key_path))?;
        Authority::of(key, &pem)
    }

    fn of(key: KeyPair, pem: &str) -> Result<Authority, AuthorityError> {
        use rustls::pki_types::pem::PemObject;
        let certificate =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        let leaves = moka::sync::Cache::builder().max_capacity(LEAVES_MAX).time_to_live(LEAF_USE).build();
        Ok(Authority { issuer, certificate, leaves })
    }

    /// The authority's certificate, for those who are to trust it.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A leaf for `name`, a host name or an address, with a key of its own.
    ///
    /// # Errors
    /// [`AuthorityError::Certificate`] when `name` cannot stand in a certificate.
    pub fn leaf(&self, name: &str) -> Result<Arc<CertifiedKey>, AuthorityError> {
        if let Some(leaf) = self.leaves.get(name) {
            return Ok(leaf);
        }
        let leaf = Arc::new(self.mint(name)?);
        self.leaves.insert(name.to_owned(), Arc::clone(&leaf));
        Ok(leaf)
    }

    fn mint(&self, name: &str) -> Result<CertifiedKey, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut leaf = CertificateParams::default();
        leaf.subject_alt_names = vec![match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.try_into()?),
        }];
        leaf.distinguished_name = DistinguishedName::new();
        // Common names end at 64 characters (RFC 5280, ub-common-name); the alternative name is what counts.
        leaf.distinguished_name.push(DnType::CommonName, name.chars().take(64).collect::<String>());
        leaf.is_ca = IsCa::ExplicitNoCa; // writes the subject key identifier that strict verifiers ask for
        leaf.use_authority_key_identifier_extension = true;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        (leaf.not_before, leaf.not_after) = validity(LEAF_VALIDITY);
        let certificate = leaf.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = any_ecdsa_type(&key).map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
        Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
    }
}

fn make() -> Result<(KeyPair, String), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut ca = CertificateParams::default();
    ca.distinguished_name = DistinguishedName::new();
    ca.distinguished_name.push(DnType::OrganizationName, "Hawser");
    // Two authorities in one bundle must not have one name: some verifiers try only the first.
    ca.distinguished_name.push(DnType::CommonName, format!("Hawser pod CA {:08x}", rand::random::<u32>()));
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    (ca.not_before, ca.not_after) = validity(CA_VALIDITY);
    let pem = ca.self_signed(&key)?.pem();
    Ok((key, pem))
}

fn validity(length: time::Duration) -> (OffsetDateTime, OffsetDateTime) {
    #[expect(clippy::disallowed_methods, reason = "a certificate's validity is in wall time; it orders nothing")]
    let now = OffsetDateTime::now_utc();
    (now - CLOCK_SLACK, now + length)
}

/// Writes a file that only this user can read, whole or not at all.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::{ServerName, UnixTime};
    use rustls::{RootCertStore, crypto::aws_lc_rs::default_provider};

    use super::{Authority, KEY_FILE};

    #[test]
    fn a_leaf_is_valid_for_its_name_and_no_other() {
        let authority = Authority::open(None).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate().clone()).unwrap();
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider())).build().unwrap();
        let verify = |leaf: &str, name: &str| {
            let leaf = authority.leaf(leaf).unwrap();
            let name = ServerName::try_from(name.to_owned()).unwrap();
            verifier.verify_server_cert(&leaf.cert[0], &[], &name, &[], UnixTime::now()).is_ok()
        };
        for name in ["a.test", "10.0.0.1", "::1", &format!("{0}.{0}.{0}.test", "x".repeat(60))] {
            assert!(verify(name, name), "{name}");
        }
        assert!(!verify("a.test", "b.test"));
        assert!(authority.leaf("not a name\u{e4}").is_err());
    }

    #[test]
    fn a_leaf_is_made_once_and_has_its_own_key() {
        let authority = Authority::open(None).unwrap();
        let (one, again, other) =
            (authority.leaf("a").unwrap(), authority.leaf("a").unwrap(), authority.leaf("b").unwrap());
        assert!(Arc::ptr_eq(&one, &again));
        assert_ne!(one.key.public_key(), other.key.public_key());
    }

    #[test]
    fn the_authority_outlives_the_process_in_a_file_that_only_we_read() {
        let state = tempfile::tempdir().unwrap();
        let first = Authority::open(Some(state.path())).unwrap();
        let second = Authority::open(Some(state.path())).unwrap();
        assert_eq!(first.certificate(), second.certificate());
        let mode = std::fs::metadata(state.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = Authority::open(None).unwrap();
        assert_ne!(first.certificate(), other.certificate());
    }
}

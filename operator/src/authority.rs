//! The cluster's own certificate authority: ten years in the Secret `hawser-ca`, leaves of seven days. Sidecars, Jobs
//! and the API server trust it; nobody but the operator has its key.
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use time::{Duration, OffsetDateTime};

use crate::labels;

/// The Secret that keeps the authority.
pub const SECRET: &str = "hawser-ca";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

const CA_VALIDITY: Duration = Duration::days(3650);
const LEAF_VALIDITY: Duration = Duration::days(7);
/// A leaf is replaced when half of its time is over: three days are left for whatever is in the way.
const LEAF_USE: Duration = Duration::hours(84);
/// What is made is valid a little earlier, for clocks that are behind ours.
const CLOCK_SLACK: Duration = Duration::hours(1);

/// Why there is no authority or no leaf.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The Secret cannot be read or made.
    #[error("read or make Secret {namespace}/{SECRET}")]
    Secret {
        /// The operator's namespace.
        namespace: String,
        /// What the API server says.
        #[source]
        source: Box<kube::Error>,
    },
    /// What is in the Secret is no authority.
    #[error(
        "Secret {namespace}/{SECRET} holds no usable {CERTIFICATE} and {KEY}: delete it to begin with a new authority, then restart the annotated pods"
    )]
    Unusable {
        /// The operator's namespace.
        namespace: String,
    },
    /// A certificate could not be made.
    #[error("make a certificate")]
    Certificate(#[from] rcgen::Error),
}

/// Signs leaves. Clones share the key.
#[derive(Clone)]
pub struct Authority {
    signer: Arc<Signer>,
}

struct Signer {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate with its key, signed by the authority.
pub struct Leaf {
    /// The certificate.
    pub cert_pem: String,
    /// Its key.
    pub key_pem: String,
    /// When another is to be made.
    pub renew_at: OffsetDateTime,
}

impl Authority {
    /// The authority in the Secret, or a new one. Of two replicas that make one at the same time, the first wins.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub async fn open(client: &Client, namespace: &str) -> Result<Authority, AuthorityError> {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let failed = |source| AuthorityError::Secret { namespace: namespace.into(), source: Box::new(source) };
        if let Some(secret) = secrets.get_opt(SECRET).await.map_err(failed)? {
            return Authority::of(&secret, namespace);
        }
        match secrets.create(&PostParams::default(), &new_secret(namespace)?).await {
            Ok(secret) => Authority::of(&secret, namespace),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Authority::of(&secrets.get(SECRET).await.map_err(failed)?, namespace)
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn of(secret: &Secret, namespace: &str) -> Result<Authority, AuthorityError> {
        let unusable = || AuthorityError::Unusable { namespace: namespace.into() };
        let text = |key: &str| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(key)).ok_or_else(unusable)?;
            String::from_utf8(bytes.0.clone()).map_err(|_| unusable())
        };
        let (pem, key) = (text(CERTIFICATE)?, text(KEY)?);
        let key = KeyPair::from_pem(&key).map_err(|_| unusable())?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|_| unusable())?;
        Ok(Authority { signer: Arc::new(Signer { issuer, pem }) })
    }

    /// The authority's certificate, for those who are to trust it.
    pub fn ca_pem(&self) -> &str {
        &self.signer.pem
    }

    /// A leaf for these host names and addresses, with a key of its own.
    ///
    /// # Errors
    /// [`AuthorityError::Certificate`] when a name cannot stand in a certificate.
    pub fn leaf(&self, names: &[String]) -> Result<Leaf, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut leaf = CertificateParams::default();
        for name in names {
            leaf.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into()?),
            });
        }
        leaf.distinguished_name = DistinguishedName::new();
        // The alternative names are what counts; they may be longer than the 64 characters of a common one.
        leaf.distinguished_name.push(DnType::OrganizationName, "Hawser");
        leaf.is_ca = IsCa::ExplicitNoCa; // writes the subject key identifier that strict verifiers ask for
        leaf.use_authority_key_identifier_extension = true;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let now = now();
        (leaf.not_before, leaf.not_after) = (now - CLOCK_SLACK, now + LEAF_VALIDITY);
        let certificate = leaf.signed_by(&key, &self.signer.issuer)?;
        Ok(Leaf { cert_pem: certificate.pem(), key_pem: key.serialize_pem(), renew_at: now + LEAF_USE })
    }
}

fn new_secret(namespace: &str) -> Result<Secret, rcgen::Error> {
    let (certificate, key) = make()?;
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.into()),
            namespace: Some(namespace.into()),
            labels: Some(labels::ours()),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".into()),
        data: Some(
            [(CERTIFICATE, certificate), (KEY, key)]
                .map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes())))
                .into(),
        ),
        ..Secret::default()
    })
}

/// A new authority: its certificate and its key, in PEM.
fn make() -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut ca = CertificateParams::default();
    ca.distinguished_name = DistinguishedName::new();
    ca.distinguished_name.push(DnType::OrganizationName, "Hawser");
    // Two authorities in one bundle must not have one name: some verifiers try only the first.
    ca.distinguished_name.push(DnType::CommonName, format!("Hawser cluster CA {:08x}", rand::random::<u32>()));
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let now = now();
    (ca.not_before, ca.not_after) = (now - CLOCK_SLACK, now + CA_VALIDITY);
    Ok((ca.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// The time that certificates are made for.
pub fn now() -> OffsetDateTime {
    #[expect(clippy::disallowed_methods, reason = "a certificate's validity is in wall time; it orders nothing")]
    OffsetDateTime::now_utc()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::crypto::aws_lc_rs::default_provider;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

    use super::*;

    #[test]
    fn a_leaf_is_trusted_by_who_trusts_the_authority_of_the_secret_for_seven_days() {
        let authority = Authority::of(&new_secret("hawser-system").unwrap(), "hawser-system").unwrap();
        let names = ["hawser-store.hawser-system.svc".to_owned(), "127.0.0.1".to_owned()];
        let leaf = authority.leaf(&names).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.ca_pem().as_bytes()).unwrap()).unwrap();
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider())).build().unwrap();
        let certificate = CertificateDer::from_pem_slice(leaf.cert_pem.as_bytes()).unwrap();
        let says = |name: &str, after: Duration| {
            let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(
                (now() + after).unix_timestamp().try_into().unwrap(),
            ));
            let name = ServerName::try_from(name.to_owned()).unwrap();
            verifier.verify_server_cert(&certificate, &[], &name, &[], at).is_ok()
        };
        for name in &names {
            assert!(says(name, Duration::ZERO), "{name}");
            assert!(says(name, Duration::days(6)), "{name}");
            assert!(!says(name, Duration::days(8)), "{name}");
        }
        assert!(!says("hawser-store.other.svc", Duration::ZERO));
        assert!(leaf.renew_at < now() + Duration::days(4));
    }

    #[test]
    fn a_secret_that_holds_no_authority_says_what_to_do() {
        let error = Authority::of(&Secret::default(), "hawser-system").err().unwrap().to_string();
        assert!(error.contains("Secret hawser-system/hawser-ca") && error.contains("delete it"), "{error}");
    }
}

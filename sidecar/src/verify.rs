//! Whether a cloud's certificate is to be believed: as the web's rules say, and one more case that people rely on.
//!
//! A self-signed certificate, given as the root for its own server, is refused by those rules, because it is an
//! authority's. Who names exactly this certificate as trusted has decided; its name and its time still count.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

/// Verifies with public roots and those that somebody named.
#[derive(Debug)]
pub struct Verifier {
    web: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl Verifier {
    /// Trusts `public` and `named`. Roots that cannot be read are left out, as every client does.
    ///
    /// # Errors
    /// [`Error`] when there is no root at all.
    pub fn new(
        public: &[CertificateDer<'static>],
        named: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Verifier, Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(public.iter().chain(&named).cloned());
        let web = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(Verifier { web, named })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.web.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(Error::InvalidCertificate(CertificateError::Other(_))) if self.named.contains(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                verify_time(end_entity, now).map(|()| ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.web.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.web.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.web.supported_verify_schemes()
    }
}

fn verify_time(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let bad = |error: CertificateError| Error::InvalidCertificate(error);
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| bad(CertificateError::BadEncoding))?;
    let now = i64::try_from(now.as_secs()).ok().and_then(|now| ASN1Time::from_timestamp(now).ok());
    let now = now.ok_or(bad(CertificateError::Expired))?;
    let validity = certificate.validity();
    match (now < validity.not_before, now > validity.not_after) {
        (true, _) => Err(bad(CertificateError::NotValidYet)),
        (_, true) => Err(bad(CertificateError::Expired)),
        (false, false) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
    use rustls::client::danger::ServerCertVerifier;
    use rustls::crypto::aws_lc_rs::default_provider;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

    use super::Verifier;

    fn self_signed(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_self_signed_certificate_is_believed_only_where_it_is_named_for_its_name_and_in_its_time() {
        let good = self_signed(|_| {});
        let old = self_signed(|params| params.not_after = date_time_ymd(2020, 1, 1));
        let early = self_signed(|params| params.not_before = date_time_ymd(3000, 1, 1));
        let other = self_signed(|_| {});
        let rows = [
            ("named", &good, vec![good.clone()], "a.test", true),
            ("another name", &good, vec![good.clone()], "b.test", false),
            ("expired", &old, vec![old.clone()], "a.test", false),
            ("not valid yet", &early, vec![early.clone()], "a.test", false),
            ("not named", &good, vec![other.clone()], "a.test", false),
        ];
        for (trap, certificate, named, name, believed) in rows {
            let verifier = Verifier::new(std::slice::from_ref(&other), named, Arc::new(default_provider())).unwrap();
            let name = ServerName::try_from(name).unwrap();
            let verdict = verifier.verify_server_cert(certificate, &[], &name, &[], UnixTime::now());
            assert_eq!(verdict.is_ok(), believed, "{trap}: {verdict:?}");
        }
        let public = Verifier::new(std::slice::from_ref(&good), vec![other], Arc::new(default_provider())).unwrap();
        let name = ServerName::try_from("a.test").unwrap();
        assert!(
            public.verify_server_cert(&good, &[], &name, &[], UnixTime::now()).is_err(),
            "among public roots it is a root"
        );
    }
}

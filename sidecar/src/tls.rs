//! TLS on both sides of a bound connection: the cloud's first, so that the client is told what the cloud said.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ClientHello as Offered, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, ClientConfig, ServerConfig};

use crate::authority::{Authority, AuthorityError};
use crate::bindings::Bound;
use crate::leg::{Broken, Leg};
use crate::peek::ClientHello;
use crate::verify::Verifier;

/// Hosts whose sessions are kept for resumption.
const SESSIONS_MAX: usize = 256;
/// Sets of roots for which a configuration is kept; there is one for each set that bindings name.
const ROOT_SETS_MAX: usize = 64;
/// How long the cloud may take for its handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(60);

/// Why a connection could not be paired. The other side of it must not be told anything but its end.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The cloud's handshake failed, most often for its certificate.
    #[error("cloud: {0}")]
    Cloud(#[source] Broken),
    /// The client's handshake failed, most often because it does not trust our CA.
    #[error("pod: {0}")]
    Client(#[source] Broken),
    /// The host's name can stand in no certificate.
    #[error("{name}: not a name that TLS knows")]
    Name {
        /// What was asked for.
        name: String,
    },
    /// A leaf could not be made.
    #[error(transparent)]
    Leaf(#[from] AuthorityError),
}

/// Everything that handshakes need, shared by all connections.
pub struct Tls {
    authority: Authority,
    provider: Arc<CryptoProvider>,
    server: ServerConfig,
    public: Vec<CertificateDer<'static>>,
    named: Vec<CertificateDer<'static>>,
    clients: Mutex<HashMap<u64, ClientConfig>>,
}

/// Makes tickets once the first is asked for. The library's randomness takes a tenth of a second to begin, and a
/// connection that is passed through needs none: a relay that follows another must not wait for it.
#[derive(Debug, Default)]
struct Tickets(OnceLock<Option<Arc<dyn ProducesTickets>>>);

impl Tickets {
    fn made(&self) -> Option<&Arc<dyn ProducesTickets>> {
        self.0.get_or_init(|| aws_lc_rs::Ticketer::new().ok()).as_ref()
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.made().is_some_and(|tickets| tickets.enabled())
    }

    fn lifetime(&self) -> u32 {
        self.made().map_or(0, |tickets| tickets.lifetime())
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.made()?.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.made()?.decrypt(cipher)
    }
}

impl Tls {
    /// Signs with `authority`; verifies clouds with `public` roots and with those `named` by `--upstream-ca`.
    ///
    /// # Errors
    /// [`rustls::Error`] when the cryptographic library cannot work here.
    pub fn new(
        authority: Authority,
        public: Vec<CertificateDer<'static>>,
        named: Vec<CertificateDer<'static>>,
    ) -> Result<Tls, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(NoLeaf));
        server.ticketer = Arc::new(Tickets::default());
        server.send_tls13_tickets = 1; // each resumed session brings the next
        Ok(Tls { authority, provider, server, public, named, clients: Mutex::default() })
    }

    /// Begins what the first handshake would have to wait for. Takes a tenth of a second of a processor.
    pub fn warm(&self) {
        let _ = self.server.ticketer.enabled();
    }

    /// Who signs the leaves.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Speaks TLS on both legs, for `name` as the client asked for it. The client is answered only when the cloud's
    /// certificate is verified, and with the protocol that the cloud chose.
    ///
    /// # Errors
    /// [`PairError`]; the legs are to be closed then. The client's has been told of the cloud's failure.
    pub async fn pair(
        &self,
        client: &mut Leg,
        cloud: &mut Leg,
        hello: &ClientHello,
        name: &str,
        bound: &Bound,
    ) -> Result<(), PairError> {
        let server_name =
            ServerName::try_from(name.to_owned()).map_err(|_| PairError::Name { name: name.to_owned() })?;
        let config = self.client_config(bound, hello).map_err(|error| PairError::Cloud(error.into()))?;
        let agreed = tokio::time::timeout(HANDSHAKE_MAX, cloud.connect_tls(config, server_name)).await;
        if let Err(broken) = agreed.unwrap_or(Err(Broken::Closed)) {
            let alert = match &broken {
                Broken::Alert(alert) => Some(*alert),
                Broken::Tls(_) => Some(AlertDescription::HandshakeFailure),
                Broken::Socket(_) | Broken::Closed => None,
            };
            if let Some(alert) = alert {
                let _ = client.write_raw(&fatal(alert)).await;
            }
            return Err(PairError::Cloud(broken));
        }
        let leaf = self.authority.leaf(name)?;
        let mut config = self.server.clone();
        config.cert_resolver = Arc::new(OneLeaf(leaf));
        config.alpn_protocols = cloud.alpn().map(<[u8]>::to_vec).into_iter().collect();
        client.accept_tls(Arc::new(config)).await.map_err(PairError::Client)
    }

    /// How to speak to the cloud for this client: its protocols, its SNI or none, the roots of the bindings.
    fn client_config(&self, bound: &Bound, hello: &ClientHello) -> Result<Arc<ClientConfig>, rustls::Error> {
        let mut hasher = DefaultHasher::new();
        for entry in &bound.entries {
            entry.roots.hash(&mut hasher);
        }
        let set = hasher.finish();
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= ROOT_SETS_MAX && !clients.contains_key(&set) {
            clients.clear();
        }
        let base = match clients.entry(set) {
            std::collections::hash_map::Entry::Occupied(kept) => kept.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                let of_bindings = bound.entries.iter().flat_map(|entry| entry.roots.iter());
                let named = self.named.iter().chain(of_bindings).cloned().collect();
                let verifier = Verifier::new(&self.public, named, Arc::clone(&self.provider))?;
                let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
                    .with_safe_default_protocol_versions()?
                    .dangerous() // a name for every verifier that is not the library's: see `verify`
                    .with_custom_certificate_verifier(Arc::new(verifier))
                    .with_no_client_auth();
                config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
                place.insert(config)
            }
        };
        let mut config = base.clone();
        config.alpn_protocols = hello.alpn.clone();
        config.enable_sni = hello.sni.is_some();
        Ok(Arc::new(config))
    }
}

/// A fatal alert as it stands on the wire before any key is agreed on (RFC 8446 §6).
fn fatal(alert: AlertDescription) -> [u8; 7] {
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    [ALERT, 3, 3, 0, 2, FATAL, alert.into()]
}

/// The leaf of one connection.
#[derive(Debug)]
struct OneLeaf(Arc<CertifiedKey>);

impl ResolvesServerCert for OneLeaf {
    fn resolve(&self, _: Offered<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// In the place of a leaf until there is a connection.
#[derive(Debug)]
struct NoLeaf;

impl ResolvesServerCert for NoLeaf {
    fn resolve(&self, _: Offered<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

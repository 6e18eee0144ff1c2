//! One provider, spoken to as S3. Every request that migrate makes of a cloud is in this folder: what is
//! asked in [`listing`], [`read`] and [`write`], what can go wrong in [`fault`], who asks in [`credentials`].
//!
//! Keys are sent as they are: the SDK percent-encodes them without normalising slashes or dots, and a key
//! that is not UTF-8, which S3 cannot have, is refused here.
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use hawser_api::binding::Provider;
use hawser_api::provider::Scheme;

use crate::failure::Failure;

pub mod credentials;
pub mod fault;
pub mod headers;
pub mod listing;
pub mod read;
pub mod write;

pub use fault::Fault;

/// Attempts of one request, the first included; between them the SDK backs off exponentially.
const ATTEMPTS_MAX: u32 = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest that a small request may take; those with a body have their own bound.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);
/// A download without a byte for so long is broken off.
const STALL_GRACE: Duration = Duration::from_secs(30);
/// Slowest line that a body's time-out allows for.
const SLOWEST_BYTES_PER_SECOND: u64 = 16 * 1024;

/// One provider of the binding.
#[derive(Clone)]
pub struct Cloud {
    /// What the binding calls it.
    pub name: String,
    /// Its identity, under which the store keeps records of it.
    pub identity: String,
    client: Client,
    /// Whether requests go over TLS, so that a body need not be signed as well.
    tls: bool,
    region: String,
    attempt_timeout: Duration,
}

impl Cloud {
    /// A client for `provider`, trusting `roots` (PEM) besides the system's. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Failure::Credentials`] when the environment has no keys for it.
    pub fn new(provider: &Provider, roots: Option<&[u8]>) -> Result<Cloud, Failure> {
        Cloud::with_keys(provider, credentials::from_environment(provider)?, roots)
    }

    /// The same with these keys.
    ///
    /// # Errors
    /// When no TLS context can be made.
    pub fn with_keys(provider: &Provider, keys: Credentials, roots: Option<&[u8]>) -> Result<Cloud, Failure> {
        let mut store = tls::TrustStore::default();
        if let Some(pem) = roots {
            store.add_pem_certificate(pem);
        }
        let context = tls::TlsContext::builder()
            .with_trust_store(store)
            .build()
            .map_err(|error| Failure::because("make a TLS context", error))?;
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc))
            .tls_context(context)
            .pool_idle_timeout(Duration::from_secs(20))
            .build_https();
        let region = provider.s3.signing_region().to_owned();
        let config = Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .endpoint_url(provider.s3.endpoint.to_string())
            .region(Region::new(region.clone()))
            .credentials_provider(keys)
            .force_path_style(provider.s3.path_style())
            .disable_s3_express_session_auth(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenSupported)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .stalled_stream_protection(
                // Uploads may be held up on purpose, by --bandwidth; their time-out bounds them.
                StalledStreamProtectionConfig::enabled().upload_enabled(false).grace_period(STALL_GRACE).build(),
            )
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(CONNECT_TIMEOUT)
                    .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                    .build(),
            )
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(ATTEMPTS_MAX)
                    .with_initial_backoff(Duration::from_millis(200))
                    .with_max_backoff(Duration::from_secs(5)),
            )
            .build();
        Ok(Cloud {
            name: provider.name.clone(),
            identity: provider.id().to_string(),
            client: Client::from_conf(config),
            tls: provider.s3.endpoint.scheme() == Scheme::Https,
            region,
            attempt_timeout: ATTEMPT_TIMEOUT,
        })
    }

    /// The same, with an attempt bound that fits a body of `len` bytes.
    fn patience(&self, len: u64) -> Builder {
        let bound = self.attempt_timeout + Duration::from_secs(len / SLOWEST_BYTES_PER_SECOND);
        Builder::new().timeout_config(
            TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_attempt_timeout(bound).build(),
        )
    }
}

/// A place at a provider, for requests and messages: bucket and key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// What the provider calls the bucket.
    pub bucket: String,
    /// The key, as bytes.
    pub key: hawser_api::ObjectKey,
}

impl Place {
    /// The key as the SDK takes it.
    fn text(&self) -> Result<&str, Fault> {
        self.key.as_str().ok_or(Fault::KeyNotText)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.bucket, self.key)
    }
}

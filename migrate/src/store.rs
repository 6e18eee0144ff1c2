//! The private store, as migrate speaks to it: one connection, three services, and the binding that every
//! call is about.
use std::path::Path;
use std::time::Duration;

use hawser_api::v1;
use hawser_api::v1::capture_client::CaptureClient;
use hawser_api::v1::catalog_client::CatalogClient;
use hawser_api::v1::migration_client::MigrationClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use crate::failure::Failure;

pub mod blocks;
pub mod cut;
pub mod lease;
pub mod session;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Flow control: bodies of 16 objects come down one connection.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Largest message: a block of 8 MiB's inline quarter, a page of 1 000 keys of 1 KiB.
const MESSAGE_MAX: usize = 16 * 1024 * 1024;

/// Says in every call who is asking.
#[derive(Clone)]
pub struct Asking {
    name: &'static str,
    value: MetadataValue<Ascii>,
}

impl Interceptor for Asking {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(self.name, self.value.clone());
        Ok(request)
    }
}

type Line = InterceptedService<Channel, Asking>;

/// The connection to the store; clones share it.
#[derive(Clone)]
pub struct Store {
    /// Reading the copy.
    pub catalog: CatalogClient<Line>,
    /// Migration's calls.
    pub migration: MigrationClient<Line>,
    /// Control and blocks.
    pub capture: CaptureClient<Line>,
}

impl Store {
    /// Connects to the store at `url` for the domain.
    ///
    /// # Errors
    /// [`Failure::Usage`] for what is wrong with the flags, [`Failure::Failed`] when nobody answers.
    pub async fn connect(url: &str, domain: &str, token: Option<&Path>, ca: Option<&Path>) -> Result<Store, Failure> {
        let mut endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|error| Failure::Usage(format!("--store {url}: {error}: write it like http://127.0.0.1:7070")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(20));
        if url.starts_with("https:") {
            let Some(path) = ca else {
                return Err(Failure::Usage(format!("--store {url} needs --store-ca with the root of its certificate")));
            };
            let pem = read("--store-ca", path)?;
            endpoint = endpoint
                .tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
                .map_err(|error| Failure::Usage(format!("--store-ca {}: {error}", path.display())))?;
        }
        let asking = asking(domain, token)?;
        let channel =
            endpoint.connect().await.map_err(|error| Failure::because(format!("reach the store at {url}"), error))?;
        Ok(Store {
            catalog: CatalogClient::with_interceptor(channel.clone(), asking.clone())
                .max_decoding_message_size(MESSAGE_MAX),
            migration: MigrationClient::with_interceptor(channel.clone(), asking.clone())
                .max_decoding_message_size(MESSAGE_MAX)
                .max_encoding_message_size(MESSAGE_MAX),
            capture: CaptureClient::with_interceptor(channel, asking).max_encoding_message_size(MESSAGE_MAX),
        })
    }
}

fn asking(domain: &str, token: Option<&Path>) -> Result<Asking, Failure> {
    let (name, text) = match token {
        Some(path) => {
            let token = read("--token-file", path)?;
            ("authorization", format!("Bearer {}", String::from_utf8_lossy(&token).trim()))
        }
        None => ("hawser-domain", domain.to_owned()),
    };
    let mut value = MetadataValue::<Ascii>::try_from(text)
        .map_err(|_| Failure::Usage(format!("the {name} for the store has characters that a header cannot have")))?;
    value.set_sensitive(token.is_some());
    Ok(Asking { name, value })
}

/// A file that a flag names.
pub fn read(flag: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::Usage(format!("{flag} {}: {error}", path.display())))
}

/// The end of a run because the store said no, or did not answer, while `doing` something.
pub fn refusal(doing: &str) -> impl Fn(Status) -> Failure {
    move |status| match status.code() {
        Code::FailedPrecondition if status.message().contains("lease") => {
            Failure::Fenced(format!("{doing}: {}", status.message()))
        }
        Code::FailedPrecondition | Code::InvalidArgument | Code::Unauthenticated | Code::PermissionDenied => {
            Failure::Usage(format!("{doing}: the store refused: {}", status.message()))
        }
        _ => Failure::failed(format!("{doing}: the store: {:?}: {}", status.code(), status.message())),
    }
}

/// What migrate says of itself and of the binding when it first speaks to the store.
pub fn hello(binding: &hawser_api::binding::CloudBinding, session: [u8; 16]) -> v1::Hello {
    let spec = &binding.spec;
    v1::Hello {
        session: session.to_vec().into(),
        binding: binding.name().to_owned(),
        namespace: binding.domain().to_owned(),
        providers: spec
            .providers
            .iter()
            .map(|provider| v1::Provider { name: provider.name.clone(), identity: provider.id().to_string() })
            .collect(),
        spec_provider: spec.provider.clone(),
        buckets: spec
            .buckets
            .iter()
            .map(|bucket| v1::Bucket {
                name: bucket.name.clone(),
                names: bucket.names.iter().map(|(provider, name)| (provider.clone(), name.clone())).collect(),
            })
            .collect(),
        block_size: spec.block_size.bytes() as u32,
        retention_versions: spec.retention.as_ref().and_then(|retention| retention.versions).unwrap_or_default(),
        retention_days: spec.retention.as_ref().and_then(|retention| retention.days).unwrap_or_default(),
        role: v1::Role::Migrate.into(),
        open_operations: Vec::new(),
        client: concat!("hawser-migrate/", env!("CARGO_PKG_VERSION")).to_owned(),
        pod: None,
    }
}

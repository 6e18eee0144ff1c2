//! The private store, as migrate speaks to it: one connection, three services, and the binding that every
//! call is about.
use std::path::Path;
use std::time::Duration;

use hawser_api::connect::{self, Caller};
use hawser_api::v1;
use hawser_api::v1::capture_client::CaptureClient;
use hawser_api::v1::catalog_client::CatalogClient;
use hawser_api::v1::migration_client::MigrationClient;
use tokio::time::{Instant, sleep};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::failure::Failure;

pub mod blocks;
pub mod cut;
pub mod lease;
pub mod session;

/// Largest message: a block of 8 MiB's inline quarter, a page of 1 000 keys of 1 KiB.
const MESSAGE_MAX: usize = 16 * 1024 * 1024;

/// The pauses between asking a store that does not answer.
const ASK_AGAIN: Duration = Duration::from_millis(200);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(5);

type Line = InterceptedService<Channel, Caller>;

/// The connection to the store; clones share it. It connects again by itself.
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
    /// The store at `url`, for the domain; nothing is sent yet.
    ///
    /// # Errors
    /// [`Failure::Usage`] for what is wrong with the flags.
    pub fn at(url: &str, domain: &str, token: Option<&Path>, ca: Option<&Path>) -> Result<Store, Failure> {
        if url.starts_with("https:") && ca.is_none() {
            return Err(Failure::Usage(format!("--store {url} needs --store-ca with the root of its certificate")));
        }
        let place = connect::Store {
            url: url.to_owned(),
            domain: domain.to_owned(),
            token_file: token.map(Path::to_owned),
            ca_file: ca.map(Path::to_owned),
        };
        let (channel, caller) =
            place.channel().map_err(|error| Failure::Usage(Failure::because("reach the store", error).story()))?;
        Ok(Store {
            catalog: CatalogClient::with_interceptor(channel.clone(), caller.clone())
                .max_decoding_message_size(MESSAGE_MAX),
            migration: MigrationClient::with_interceptor(channel.clone(), caller.clone())
                .max_decoding_message_size(MESSAGE_MAX)
                .max_encoding_message_size(MESSAGE_MAX),
            capture: CaptureClient::with_interceptor(channel, caller).max_encoding_message_size(MESSAGE_MAX),
        })
    }

    /// Registers the binding, and hears who is in force; waits so long for a store that does not answer.
    ///
    /// # Errors
    /// What the store refuses, and [`Failure::Away`] when it never answered.
    pub async fn register(&self, hello: &v1::Hello, patience: Duration) -> Result<v1::Welcome, Failure> {
        let (since, mut pause) = (Instant::now(), ASK_AGAIN);
        loop {
            let asked = self.migration.clone().register(hello.clone()).await.map_err(refusal("register the binding"));
            match asked {
                Err(Failure::Away(_)) if since.elapsed() + pause < patience => {
                    sleep(pause).await;
                    pause = (pause * 2).min(ASK_AGAIN_MAX);
                }
                Err(failure) => return Err(failure),
                Ok(welcome) => return Ok(welcome.into_inner()),
            }
        }
    }
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
        Code::Aborted => Failure::Fenced(format!("{doing}: {}", status.message())),
        _ if is_away(&status) => Failure::Away(format!("{doing}: the store does not answer: {}", status.message())),
        _ => Failure::failed(format!("{doing}: the store: {:?}: {}", status.code(), status.message())),
    }
}

/// Whether the connection to the store broke, or there is none: what was asked may be asked again.
pub fn is_away(status: &Status) -> bool {
    let broken = std::error::Error::source(status).is_some(); // it did not come over the wire
    status.code() == Code::Unavailable
        || (broken && matches!(status.code(), Code::Unknown | Code::Cancelled | Code::Internal))
}

/// What migrate says of itself and of the binding when it speaks to the store in a session.
pub fn hello(binding: &hawser_api::CloudBinding, session: [u8; 16]) -> v1::Hello {
    let client = concat!("hawser-migrate/", env!("CARGO_PKG_VERSION"));
    v1::Hello { session: session.to_vec().into(), ..hawser_api::hello::hello(binding, v1::Role::Migrate, client) }
}

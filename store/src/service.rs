//! The store's gRPC services, over the catalog's functions. [`control`] is the ordered stream of a session,
//! [`blocks`] the offers and puts beside it, [`reading`] the Catalog service, [`migration`] the Migration
//! service, [`operator`] the Operator service. Each call's domain comes from [`crate::auth`] and from nowhere else.

mod assemble;
mod blocks;
mod control;
mod hello;
mod inflow;
mod migration;
mod operator;
mod prepare;
mod reading;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use hawser_api::v1;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::auth::Auth;
use crate::catalog::{Catalog, ListError};
use crate::domain::{CommitError, Domain};
use crate::names::DomainId;
use crate::s3::keys::Keys;
use crate::session::{Sessions, TimeError, Times};

/// Bytes of one message at most: hashes of a part of 5 GiB in blocks of 16 KiB are 10 MiB.
const MESSAGE_LEN_MAX: usize = 12 * 1024 * 1024;

/// What all services share.
pub struct Service {
    catalog: Arc<Catalog>,
    auth: Auth,
    /// Of the S3 face: a caller may ask for its own.
    keys: Arc<Keys>,
    sessions: Arc<Sessions>,
    /// Hellos of one store come one after the other: each is compared with the bindings before it.
    hello: tokio::sync::Mutex<()>,
    /// Leases of migrations, on monotonic time.
    leases: Mutex<HashMap<(DomainId, String), Held>>,
    /// One change of a lease or of the provider in force at a time.
    migrating: tokio::sync::Mutex<()>,
    progress: Mutex<HashMap<(DomainId, String), v1::Progress>>,
    partial: Mutex<assemble::Partial>,
    inflow: inflow::Inflow,
    closing: tokio::sync::watch::Sender<bool>,
}

/// A migration's lease.
struct Held {
    id: u64,
    epoch: u64,
    holder: String,
    /// Of a Job in a cluster: see `AcquireLeaseRequest`.
    binding_uid: String,
    migration_epoch: u64,
    heard: Instant,
}

/// The services of one store, ready to be served.
pub type Routes = tonic::service::Routes;

impl Service {
    /// The services over an open catalog.
    ///
    /// # Errors
    /// [`TimeError`] when the index cannot be read.
    pub fn new(catalog: Arc<Catalog>, auth: Auth, keys: Arc<Keys>, times: Times) -> Result<Arc<Service>, TimeError> {
        let sessions = Arc::new(Sessions::load(Arc::clone(&catalog), times)?);
        let leases = Mutex::new(migration::load(&catalog)?);
        Ok(Arc::new(Service {
            catalog,
            auth,
            keys,
            sessions,
            hello: tokio::sync::Mutex::default(),
            leases,
            migrating: tokio::sync::Mutex::default(),
            progress: Mutex::default(),
            partial: Mutex::default(),
            inflow: inflow::Inflow::default(),
            closing: tokio::sync::watch::Sender::new(false),
        }))
    }

    /// The sessions, whose [`Sessions::watch`] somebody must run.
    pub fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    /// Ends the streams of sessions once what they have said is answered: their peers come back elsewhere,
    /// or later.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Resolves once the store closes.
    fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut closing = self.closing.subscribe();
        async move { drop(closing.wait_for(|closing| *closing).await) }
    }

    /// The routes of the services.
    pub fn routes(self: &Arc<Self>) -> Routes {
        let capture = v1::capture_server::CaptureServer::new(Capture(Arc::clone(self)));
        let catalog = v1::catalog_server::CatalogServer::new(Reading(Arc::clone(self)));
        let migration = v1::migration_server::MigrationServer::new(Migrating(Arc::clone(self)));
        let operator = v1::operator_server::OperatorServer::new(Controlling(Arc::clone(self)));
        tonic::service::Routes::new(capture.max_decoding_message_size(MESSAGE_LEN_MAX))
            .add_service(catalog.max_decoding_message_size(MESSAGE_LEN_MAX))
            .add_service(migration.max_decoding_message_size(MESSAGE_LEN_MAX))
            .add_service(operator)
    }

    async fn domain(&self, metadata: &MetadataMap) -> Result<Domain, Status> {
        let name = self.auth.domain(metadata).await?;
        self.domain_named(&name)
    }

    fn domain_named(&self, name: &str) -> Result<Domain, Status> {
        self.catalog.store().domain(name).map_err(|error| Status::unavailable(error.to_string()))
    }

    /// Whether calls can be answered.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub fn ready(&self) -> Result<(), String> {
        self.auth.ready()
    }

    /// Finds out whether callers can be told apart; what it finds is [`Service::ready`]'s answer.
    pub async fn try_out(self: Arc<Self>) {
        self.auth.try_out().await;
    }

    fn durable_tick(&self) -> u64 {
        *self.catalog.store().durable().borrow()
    }

    fn lock_leases(&self) -> MutexGuard<'_, HashMap<(DomainId, String), Held>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_progress(&self) -> MutexGuard<'_, HashMap<(DomainId, String), v1::Progress>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a stamp what the log may believe of it.
fn believe(service: &Service, stamp: &mut Option<v1::Stamp>) {
    crate::catalog::entry::believe(stamp, service.catalog.store().incarnation(), service.durable_tick());
}

/// The Capture service.
pub(crate) struct Capture(Arc<Service>);
/// The Catalog service.
pub(crate) struct Reading(Arc<Service>);
/// The Migration service.
pub(crate) struct Migrating(Arc<Service>);
/// The Operator service.
pub(crate) struct Controlling(Arc<Service>);

/// Runs what blocks its thread on one that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ListError> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(list_status),
        Err(_) => Err(Status::internal("a reader of the index panicked")),
    }
}

fn list_status(error: ListError) -> Status {
    let code = match &error {
        ListError::NotFound => Code::NotFound,
        ListError::Ambiguous(_) => Code::InvalidArgument,
        ListError::ContentUnknown => Code::FailedPrecondition,
        ListError::Range { .. } => Code::OutOfRange,
        ListError::Index(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}

fn commit_status(error: &CommitError) -> Status {
    let code = match error {
        CommitError::Missing(_) => Code::FailedPrecondition,
        CommitError::Length(_) => Code::InvalidArgument,
        CommitError::Full(_) => Code::ResourceExhausted,
        CommitError::Closed(_) => Code::Unavailable,
        CommitError::Read(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}

/// A session's id as it came, checked.
fn session_id(bytes: &Bytes) -> Result<Bytes, Status> {
    if bytes.len() == 16 { Ok(bytes.clone()) } else { Err(Status::invalid_argument("a session's id has 16 bytes")) }
}

//! An open store: what the service, the S3 face and the commands hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, RwLock, Semaphore, oneshot, watch};

use crate::domain::Domain;
use crate::folder::{Folder, FolderError};
use crate::index::{Index, Location};
use crate::keys::{Keys, KeysError};
use crate::leases::Leases;
use crate::log::{Closed, Item, Log, Parts};
use crate::names::{BlockKey, DomainId};
use crate::prepare::Pool;
use crate::recover::{self, RecoverError};
use crate::replay::{Damage, Replay};
use crate::segment::DOMAIN_NAME_MAX;
use crate::segments::{self, ReadError, Segments};
use crate::space::{Full, Probe, Space, Volume};
use crate::view::View;

/// What may be set of a store.
#[derive(Clone)]
pub struct Options {
    /// Bytes of a segment at most: 256 MiB are deleted in one go and copied in a second.
    pub segment_len: u64,
    /// Bytes kept free on the volume; `None`: 1 GiB, or 1 % of the volume where that is more.
    pub floor: Option<u64>,
    /// Bytes of blocks on their way to the log at once; past it, nothing is wanted.
    pub room: usize,
    /// Threads that hash and compress.
    pub hashers: usize,
    /// How long a block that was offered or put is kept without a record.
    pub lease: Duration,
    /// Asks for free space; `None`: the operating system.
    pub probe: Option<Probe>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_len: 256 * 1024 * 1024,
            floor: None,
            room: 64 * 1024 * 1024,
            hashers: std::thread::available_parallelism().map_or(2, |threads| threads.get().min(4)),
            lease: Duration::from_secs(3600),
            probe: None,
        }
    }
}

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The log or the index.
    #[error("open the store in {dir}")]
    Log {
        /// The folder.
        dir: PathBuf,
        /// What happened.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// An open store. Clones are the same store; it is closed when the last of them, and of the domains
/// that it gave out, is dropped: what was pushed is then durable and the log sealed.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Pool, // first to go: its jobs use the rest
    core: Arc<Core>,
}

/// What the jobs of the pool need too.
pub(crate) struct Core {
    pub(crate) log: Log, // before the index: it applies to it until its end
    pub(crate) index: Arc<Index>,
    pub(crate) segments: Arc<Segments>,
    pub(crate) leases: Leases,
    pub(crate) space: Space,
    /// Shared by commits until they are applied; the sweep takes it alone where it decides.
    pub(crate) gate: Arc<RwLock<()>>,
    pub(crate) keys: Keys,
    pub(crate) catalog: Arc<dyn Replay>,
    pub(crate) segment_len: u64,
    room: Arc<Semaphore>,
    room_len: usize,
    domains: Mutex<Domains>,
    /// One collection, scrub or backup at a time.
    maintenance: Mutex<()>,
    incarnation: u64,
    damage: Vec<Damage>,
    folder: Folder, // last: it holds the lock
}

#[derive(Default)]
struct Domains {
    by_name: BTreeMap<String, DomainId>,
    by_id: BTreeMap<DomainId, String>,
}

/// The store cannot give out a domain.
#[derive(Debug, thiserror::Error)]
pub enum DomainError {
    /// The name is empty or longer than 255 bytes.
    #[error("a domain's name has 1 to {DOMAIN_NAME_MAX} bytes, {0:?} has not")]
    Name(String),
    /// The log takes nothing more.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// Room for bytes on their way to the log, given back when it is dropped.
#[derive(Debug)]
pub struct Room {
    permit: OwnedSemaphorePermit,
}

impl Room {
    /// Takes room for `len` bytes out of this; all of it when it has less.
    pub fn split(&mut self, len: usize) -> Room {
        let len = len.min(self.permit.num_permits());
        let permit = self.permit.split(len).expect("no more than there is");
        Room { permit }
    }

    /// Bytes that there is room for.
    pub fn len(&self) -> usize {
        self.permit.num_permits()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Store {
    /// Opens the store in `dir`, or makes a new one where nothing is. What a crash left behind is put in
    /// order first; the index is rebuilt when it must be, which reads the whole log. Blocks this thread.
    ///
    /// # Errors
    /// [`OpenError`] when the folder is in use, its keys are missing, or the disk says no. Damage is no
    /// error: [`Store::damage`].
    pub fn open(dir: &Path, options: Options, catalog: Arc<dyn Replay>) -> Result<Store, OpenError> {
        let folder = Folder::open(dir)?;
        let path = dir.to_owned();
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| OpenError::Log { dir: path.clone(), source };
        let new = segments::numbers(&folder.log()).map_err(|error| failed(error.into()))?.is_empty();
        let keys = Keys::open(dir, new)?;
        let recovered = recover::recover(&folder.log(), &folder.index(), keys.store, &catalog);
        let recovered = recovered.map_err(|error: RecoverError| failed(error.into()))?;
        let mut domains = Domains::default();
        for (id, name) in recovered.index.domains().map_err(|error| failed(error.into()))? {
            domains.by_name.insert(name.clone(), id);
            domains.by_id.insert(id, name);
        }
        let (segments, index) = (recovered.segments, recovered.index);
        let log = Log::open(Parts {
            segments: Arc::clone(&segments),
            index: Arc::clone(&index),
            catalog: Arc::clone(&catalog),
            segment_len: options.segment_len,
            next_segment: recovered.next_segment,
            next_tick: recovered.next_tick,
        });
        let core = Core {
            log: log.map_err(|error| failed(error.into()))?,
            index,
            segments,
            leases: Leases::new(options.lease),
            space: Space::new(folder.dir(), options.floor, options.probe),
            gate: Arc::default(),
            keys,
            catalog,
            segment_len: options.segment_len,
            room: Arc::new(Semaphore::new(options.room)),
            room_len: options.room,
            domains: Mutex::new(domains),
            maintenance: Mutex::new(()),
            incarnation: rand::random_range(1..=u64::MAX),
            damage: recovered.damage,
            folder,
        };
        let pool = Pool::new(options.hashers).map_err(|error| failed(error.into()))?;
        Ok(Store { inner: Arc::new(Inner { pool, core: Arc::new(core) }) })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        self.core().folder.dir()
    }

    /// The random number of this life of the store; never 0.
    pub fn incarnation(&self) -> u64 {
        self.core().incarnation
    }

    /// The highest tick that is durable and applied, and word of each higher one.
    pub fn durable(&self) -> watch::Receiver<u64> {
        self.core().log.durable()
    }

    /// The domain of this name; numbered at its first use.
    ///
    /// # Errors
    /// [`DomainError`] for an impossible name, or when the log is closed.
    pub fn domain(&self, name: &str) -> Result<Domain, DomainError> {
        let mut domains = self.lock_domains();
        if let Some(id) = domains.by_name.get(name) {
            return Ok(Domain::new(self, *id, name));
        }
        if name.is_empty() || name.len() > DOMAIN_NAME_MAX {
            return Err(DomainError::Name(name.to_owned()));
        }
        let last = domains.by_id.last_key_value().map_or(0, |(id, _)| id.get());
        let id = DomainId::new(last + 1).expect("a number after another is not 0");
        // Pushed under the lock: nothing of the domain gets into the log before its name.
        self.core().log.push(Item::Domain { id, name: name.to_owned() })?;
        domains.by_name.insert(name.to_owned(), id);
        domains.by_id.insert(id, name.to_owned());
        drop(domains);
        Ok(Domain::new(self, id, name))
    }

    /// The domain of this name, if it was ever used.
    pub fn existing_domain(&self, name: &str) -> Option<Domain> {
        let id = self.lock_domains().by_name.get(name).copied()?;
        Some(Domain::new(self, id, name))
    }

    /// The domain of this id.
    pub fn domain_of(&self, id: DomainId) -> Option<Domain> {
        let name = self.lock_domains().by_id.get(&id).cloned()?;
        Some(Domain::new(self, id, &name))
    }

    /// All domains that were ever used.
    pub fn domains(&self) -> Vec<Domain> {
        let names = self.lock_domains().by_id.clone();
        names.into_iter().map(|(id, name)| Domain::new(self, id, &name)).collect()
    }

    /// The state as of now.
    pub fn view(&self) -> View<'_> {
        View::new(self)
    }

    /// Room for `len` bytes of blocks, if there is so much now. What is asked for is at most
    /// [`Options::room`], however large `len` is.
    pub fn try_room(&self, len: usize) -> Option<Room> {
        let permit = Arc::clone(&self.core().room).try_acquire_many_owned(self.at_most(len)).ok()?;
        Some(Room { permit })
    }

    /// Room for `len` bytes of blocks, as soon as there is so much.
    pub async fn room(&self, len: usize) -> Room {
        let permit = Arc::clone(&self.core().room).acquire_many_owned(self.at_most(len)).await;
        Room { permit: permit.expect("the semaphore is never closed") }
    }

    /// Whether the store takes new content, and if not, why.
    ///
    /// # Errors
    /// [`Unready`], to be shown to people.
    pub fn ready(&self) -> Result<(), Unready> {
        self.core().log.health()?;
        Ok(self.core().space.for_content()?)
    }

    /// The volume's room, and the floor.
    pub fn volume(&self) -> Option<(Volume, u64)> {
        self.core().space.now()
    }

    /// The damage that was met when the store was opened.
    pub fn damage(&self) -> &[Damage] {
        &self.core().damage
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.inner.core
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    pub(crate) fn index(&self) -> &Index {
        &self.core().index
    }

    /// Keeps other maintenance out.
    pub(crate) fn maintenance(&self) -> MutexGuard<'_, ()> {
        self.core().maintenance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the segment being written, durably. Blocks this thread.
    pub(crate) fn seal(&self) -> Result<(), Closed> {
        let (done, wait) = oneshot::channel();
        self.core().log.push(Item::Seal { done })?;
        wait.blocking_recv().map_err(|_| self.core().log.closed())
    }

    fn at_most(&self, len: usize) -> u32 {
        u32::try_from(len.min(self.core().room_len)).unwrap_or(u32::MAX)
    }

    fn lock_domains(&self) -> MutexGuard<'_, Domains> {
        // A panic while it was held leaves a name without an id at worst: it is numbered again.
        self.core().domains.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why the store takes nothing new.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unready {
    /// There is no room.
    #[error(transparent)]
    Full(#[from] Full),
    /// The log is closed.
    #[error(transparent)]
    Closed(#[from] Closed),
}

impl Core {
    /// Where a block is, durable or not yet.
    pub(crate) fn find(&self, key: &BlockKey) -> Result<Option<Location>, ReadError> {
        // Pending first: a block leaves it only once it is in the index.
        if let Some(location) = self.log.pending(key) {
            return Ok(Some(location));
        }
        Ok(self.index.location(key)?.filter(|location| self.is_there(location)))
    }

    /// A location in a segment that was deleted is none: the index forgets it in its own time.
    pub(crate) fn is_there(&self, location: &Location) -> bool {
        self.segments.get(location.place.segment).is_some()
    }
}

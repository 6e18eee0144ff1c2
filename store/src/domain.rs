//! One domain of the store: its blocks, and committing its entries. No call takes a hash without one.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use hawser_api::BlockHash;
use tokio::sync::oneshot;

use crate::index::Index;
use crate::keys::DomainKey;
use crate::log::{Closed, Committed, Item, NewEntry};
use crate::names::{BlockKey, DomainId};
use crate::prepare::{self, Packed};
use crate::segment::{BLOCK_LEN_MAX, ENTRY_LEN_MAX, Subject};
use crate::segments::ReadError;
use crate::space::{Full, SMALL_ENTRY_LEN};
use crate::store::{Core, Room, Store};

/// Blocks looked up at once: enough to share the index's reads, few enough to stay in the cache.
const LOOKUP_BLOCKS: usize = 512;

/// A domain of an open store. Clones are the same domain.
#[derive(Clone)]
pub struct Domain {
    store: Store,
    id: DomainId,
    name: Arc<str>,
    key: DomainKey,
}

/// Why a block was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The content is not what the caller said.
    #[error("the content of block {claimed} has the hash {found}")]
    Hash {
        /// What the caller said.
        claimed: BlockHash,
        /// What it is.
        found: BlockHash,
    },
    /// Longer than any block, or empty.
    #[error("a block has 1 to {BLOCK_LEN_MAX} bytes, not {0}")]
    Length(usize),
    /// There is no room on the volume.
    #[error(transparent)]
    Full(#[from] Full),
    /// The log is closed.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The index could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why an entry was not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Blocks that it needs are not there. Nothing was committed.
    #[error("{} blocks of the entry are not in the store", .0.len())]
    Missing(Vec<BlockHash>),
    /// It is too long.
    #[error("an entry has at most {ENTRY_LEN_MAX} bytes, not {0}")]
    Length(usize),
    /// There is no room on the volume.
    #[error(transparent)]
    Full(#[from] Full),
    /// The log is closed. The entry may be there when the store is opened again.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The index could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// A piece of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The block.
    pub hash: BlockHash,
    /// The bytes of it.
    pub range: Range<usize>,
}

impl Domain {
    pub(crate) fn new(store: &Store, id: DomainId, name: &str) -> Domain {
        let key = store.core().keys.domain(id, name);
        Domain { store: store.clone(), id, name: name.into(), key }
    }

    /// Its id.
    pub fn id(&self) -> DomainId {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A hash as it may stand in an entry or a family: without the store's keys it tells nothing.
    pub fn veil(&self, hash: &BlockHash) -> [u8; 32] {
        self.key.veil(hash)
    }

    /// The hash behind a [`Domain::veil`].
    pub fn unveil(&self, veiled: &[u8; 32]) -> BlockHash {
        self.key.unveil(veiled)
    }

    /// For each hash, whether its block is in this domain, durably. All of them are leased, the absent
    /// ones as well, as they will be put next. Short, and may read the disk.
    ///
    /// # Errors
    /// [`ReadError::Index`].
    pub fn have(&self, hashes: &[BlockHash]) -> Result<Vec<bool>, ReadError> {
        let core = self.core();
        let keys = self.keys(hashes);
        core.leases.lease(keys.iter().map(|key| key.name)); // before the question: see `leases`
        let mut have = Vec::with_capacity(keys.len());
        for keys in keys.chunks(LOOKUP_BLOCKS) {
            let locations = core.index.locations(keys)?;
            have.extend(locations.iter().map(|found| found.as_ref().is_some_and(|found| core.is_there(found))));
        }
        Ok(have)
    }

    /// Takes a block; returns when it is written, which is not durable yet and promises nothing. `room` is
    /// held until then. A caller that stops waiting leaves the block to be written or not.
    ///
    /// # Errors
    /// [`PutError`]: the block was not taken.
    pub async fn put(&self, claimed: BlockHash, content: Bytes, room: Room) -> Result<(), PutError> {
        if content.is_empty() || content.len() > BLOCK_LEN_MAX {
            return Err(PutError::Length(content.len()));
        }
        self.core().log.health()?;
        self.core().space.for_content()?;
        let (done, wait) = oneshot::channel();
        let (core, id, key) = (Arc::clone(self.core()), self.id, self.key.clone());
        self.store.pool().submit(move || {
            let answer = |taken| drop((done.send(taken), room)); // the caller may have gone
            let found = BlockHash::of(&content);
            if found != claimed {
                return answer(Err(PutError::Hash { claimed, found }));
            }
            let key = BlockKey { domain: id, name: key.name(&claimed) };
            core.leases.lease([key.name]);
            match core.find(&key) {
                Ok(Some(_)) => return answer(Ok(())),
                Ok(None) => {}
                Err(error) => return answer(Err(error.into())),
            }
            let packed = Packed::block(content);
            let written = Box::new(move || answer(Ok(())));
            // A closed log drops the receipt, which is what the caller then sees.
            let _ = core.log.push(Item::Block { key, packed, moved: false, written });
        });
        wait.await.unwrap_or_else(|_| Err(self.core().log.closed().into()))
    }

    /// The content of a block, compared with its hash. Blocks this thread.
    ///
    /// # Errors
    /// [`ReadError::Unknown`] when the domain has no such block; what is wrong with the disk otherwise.
    pub fn read(&self, hash: &BlockHash) -> Result<Bytes, ReadError> {
        let core = self.core();
        let key = self.key_of(hash);
        loop {
            let location = core.find(&key)?.ok_or(ReadError::Unknown { hash: *hash })?;
            let place = location.place;
            let (record, payload) = match core.segments.read(place, location.stored_len) {
                // The sweep moved the block and deleted its segment between the two lines.
                Err(ReadError::Missing { .. }) if core.find(&key)?.is_none_or(|now| now.place != place) => continue,
                read => read?,
            };
            let ours = record.domain == Some(self.id) && record.subject == Subject::Block { name: key.name };
            if !ours {
                return Err(ReadError::Damaged { place, what: "another record stands there" });
            }
            let content = prepare::unpack(record.packing, record.raw_len, payload);
            return content
                .filter(|content| BlockHash::of(content) == *hash)
                .ok_or(ReadError::Damaged { place, what: "the content does not have its hash" });
        }
    }

    /// Pieces of blocks, in the order asked for; a piece that reaches past its block ends with it. A
    /// block that several pieces in a row are of is read once. Blocks this thread.
    ///
    /// # Errors
    /// As [`Domain::read`], of the first piece that fails.
    pub fn read_pieces(&self, pieces: &[Piece]) -> Result<Vec<Bytes>, ReadError> {
        let mut last: Option<(BlockHash, Bytes)> = None;
        let mut read = Vec::with_capacity(pieces.len());
        for Piece { hash, range } in pieces {
            let content = match &last {
                Some((same, content)) if same == hash => content.clone(),
                _ => self.read(hash)?,
            };
            let end = range.end.min(content.len());
            read.push(content.slice(range.start.min(end)..end));
            last = Some((*hash, content));
        }
        Ok(read)
    }

    /// Commits an entry that needs `blocks`: returns when it is durable and applied, with its tick and the
    /// catalog's answer. A caller that stops waiting leaves it to be committed or not.
    ///
    /// # Errors
    /// [`CommitError::Missing`] when a block is not in the domain: put it, and commit again. After
    /// [`CommitError::Closed`] the entry may stand all the same.
    pub async fn commit(&self, entry: Bytes, blocks: &[BlockHash]) -> Result<Committed, CommitError> {
        if entry.len() > ENTRY_LEN_MAX {
            return Err(CommitError::Length(entry.len()));
        }
        let core = self.core();
        core.space.for_entry(entry.len())?;
        // Until the entry is applied the sweep decides nothing, and what it decides later sees the marks.
        let gate = Arc::clone(&core.gate).read_owned().await;
        let keys = self.keys(blocks);
        core.leases.keep(keys.iter().map(|key| key.name)); // before the question: see `leases`
        let mut missing = Vec::new();
        for (keys, hashes) in keys.chunks(LOOKUP_BLOCKS).zip(blocks.chunks(LOOKUP_BLOCKS)) {
            let found = self.find_all(keys)?;
            missing.extend(hashes.iter().zip(found).filter(|(_, found)| !found).map(|(hash, _)| *hash));
        }
        if !missing.is_empty() {
            return Err(CommitError::Missing(missing));
        }
        let (done, wait) = oneshot::channel();
        let packed = self.pack(entry.clone()).await;
        core.log.push(Item::Entry(NewEntry { domain: self.id, content: entry, packed, gate, done }))?;
        wait.await.map_err(|_| core.log.closed().into())
    }

    /// Packs an entry; a large one, which takes milliseconds, on the threads that are there for it.
    async fn pack(&self, entry: Bytes) -> Packed {
        if entry.len() <= SMALL_ENTRY_LEN {
            return Packed::entry(entry);
        }
        let (done, wait) = oneshot::channel();
        let job = entry.clone();
        self.store.pool().submit(move || drop(done.send(Packed::entry(job)))); // the caller may have gone
        wait.await.unwrap_or_else(|_| Packed::plain(entry))
    }

    fn find_all(&self, keys: &[BlockKey]) -> Result<Vec<bool>, ReadError> {
        let core = self.core();
        let mut found: Vec<bool> = keys.iter().map(|key| core.log.pending(key).is_some()).collect();
        let rest: Vec<usize> = (0..keys.len()).filter(|i| !found[*i]).collect();
        let asked: Vec<BlockKey> = rest.iter().map(|i| keys[*i]).collect();
        for (i, location) in rest.into_iter().zip(core.index.locations(&asked)?) {
            found[i] = location.is_some_and(|location| core.is_there(&location));
        }
        Ok(found)
    }

    fn keys(&self, hashes: &[BlockHash]) -> Vec<BlockKey> {
        hashes.iter().map(|hash| self.key_of(hash)).collect()
    }

    pub(crate) fn key_of(&self, hash: &BlockHash) -> BlockKey {
        BlockKey { domain: self.id, name: self.key.name(hash) }
    }

    pub(crate) fn index(&self) -> &Index {
        self.store.index()
    }

    fn core(&self) -> &Arc<Core> {
        self.store.core()
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Domain").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

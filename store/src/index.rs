//! The derived index: where blocks are and what the entries of the log mean, in RocksDB, which nothing
//! else links. It is written without a log of its own and without sync: the log of the store is its log,
//! and the watermark says up to where the index has read it. May not enter here:
//! - anything that the log may still lose: what is applied has been synced;
//! - a fact that the log does not have: the index is deleted and rebuilt at any time.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, IteratorMode, Options,
    ReadOptions, WriteBatch,
};

use crate::names::{BlockKey, DomainId, Place, StoreId};
use crate::segment::Packing;
use crate::stats::Sums;

/// Bytes of blocks of the index kept in memory: with 10 filter bits for each of 100 million blocks
/// (12 TiB of 128 KiB blocks) the filters alone would be 120 MiB, so that they are read as needed.
const CACHE_LEN: usize = 64 * 1024 * 1024;

/// Bytes of unflushed index, over all families: about 300 000 new blocks or 40 GiB of content, which is
/// also what may have to be read again after a crash.
const WRITE_BUFFERS_LEN: usize = 32 * 1024 * 1024;

/// The layout of the families below. Not a released format: another number means a rebuild.
const FORMAT: u32 = 1;

/// Store id, formats, watermark, applied tick.
const META: Family = Family("meta");
/// Block key → where it is.
const BLOCKS: Family = Family("blocks");
/// Domain id → name.
const DOMAINS: Family = Family("domains");
/// Tick → where its entry is.
const ENTRIES: Family = Family("entries");
/// Segment number → nothing: those that the sweep retired.
const RETIRED: Family = Family("retired");
/// Domain id → how many blocks of how many bytes.
const SUMS: Family = Family("sums");
const OWN: [Family; 6] = [META, BLOCKS, DOMAINS, ENTRIES, RETIRED, SUMS];

const WATERMARK: &[u8] = b"watermark";
const APPLIED: &[u8] = b"applied";
const IDENTITY: &[u8] = b"identity";

/// A family of keys. Names beginning with a letter that the index itself does not use are the catalog's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Family(pub &'static str);

/// Why the index did not answer.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// RocksDB said no.
    #[error("the index failed: stop the store and run `hawser-store rebuild-index`")]
    Engine(#[from] rocksdb::Error),
    /// A value is not what this release writes there.
    #[error("the index holds a malformed value in {family}: stop the store and run `hawser-store rebuild-index`")]
    Malformed {
        /// Where.
        family: &'static str,
    },
}

/// Where a block is, as the index remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// Where its record begins.
    pub(crate) place: Place,
    /// Bytes of payload.
    pub(crate) stored_len: u32,
    /// Bytes of content.
    pub(crate) raw_len: u32,
    /// How the payload stands for the content.
    pub(crate) packing: Packing,
}

impl Location {
    const LEN: usize = Place::LEN + 9;

    fn encode(&self) -> [u8; Location::LEN] {
        let mut bytes = [0; Location::LEN];
        bytes[..16].copy_from_slice(&self.place.encode());
        bytes[16..20].copy_from_slice(&self.stored_len.to_be_bytes());
        bytes[20..24].copy_from_slice(&self.raw_len.to_be_bytes());
        bytes[24] = match self.packing {
            Packing::Plain => 0,
            Packing::Zstd => 1,
            Packing::Zeros => 2,
        };
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Location, IndexError> {
        let malformed = IndexError::Malformed { family: BLOCKS.0 };
        let bytes: &[u8; Location::LEN] = bytes.try_into().map_err(|_| malformed)?;
        let malformed = || IndexError::Malformed { family: BLOCKS.0 };
        let number = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Ok(Location {
            place: Place::decode(&bytes[..16]).ok_or_else(malformed)?,
            stored_len: number(16),
            raw_len: number(20),
            packing: match bytes[24] {
                0 => Packing::Plain,
                1 => Packing::Zstd,
                2 => Packing::Zeros,
                _ => return Err(malformed()),
            },
        })
    }
}

/// A range of keys in one family, in their byte order.
#[derive(Clone, Debug)]
pub struct Keys {
    from: Vec<u8>,
    to: Option<Vec<u8>>, // the first key behind the range; none: to the end
}

impl Keys {
    /// Every key.
    pub fn all() -> Keys {
        Keys { from: Vec::new(), to: None }
    }

    /// Keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Keys {
        let mut to = prefix.to_vec();
        while to.last() == Some(&0xff) {
            to.pop();
        }
        if let Some(last) = to.last_mut() {
            *last += 1;
        }
        Keys { from: prefix.to_vec(), to: (!to.is_empty()).then_some(to) }
    }

    /// Of these keys, those not below `key`.
    pub fn starting_at(mut self, key: &[u8]) -> Keys {
        self.from = self.from.max(key.to_vec());
        self
    }

    /// Of these keys, those above `key`.
    pub fn after(self, key: &[u8]) -> Keys {
        let mut from = key.to_vec();
        from.push(0);
        self.starting_at(&from)
    }

    /// Of these keys, those below `key`.
    pub fn below(mut self, key: &[u8]) -> Keys {
        let key = key.to_vec();
        self.to = Some(self.to.map_or(key.clone(), |to| to.min(key)));
        self
    }

    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(self.from.clone());
        if let Some(to) = &self.to {
            options.set_iterate_upper_bound(to.clone());
        }
        options
    }

    fn is_empty(&self) -> bool {
        self.to.as_ref().is_some_and(|to| *to <= self.from)
    }
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// An open index.
pub(crate) struct Index {
    db: DB,
    families: Vec<Family>,
}

impl Index {
    /// Opens the index in `dir`, or makes an empty one.
    pub(crate) fn open(dir: &Path, catalog: &[Family]) -> Result<Index, IndexError> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_atomic_flush(true); // without a log of its own: all families at one watermark
        options.set_db_write_buffer_size(WRITE_BUFFERS_LEN);
        options.set_max_open_files(256);
        options.set_max_background_jobs(2);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(1024 * 1024);
        let cache = Cache::new_lru_cache(CACHE_LEN);
        let families: Vec<Family> = OWN.iter().chain(catalog).copied().collect();
        let descriptors = families.iter().map(|family| {
            let mut table = BlockBasedOptions::default();
            table.set_block_cache(&cache);
            table.set_cache_index_and_filter_blocks(true);
            table.set_pin_l0_filter_and_index_blocks_in_cache(true);
            table.set_bloom_filter(10.0, false);
            table.set_block_size(8 * 1024);
            let mut options = Options::default();
            options.set_block_based_table_factory(&table);
            options.set_write_buffer_size(WRITE_BUFFERS_LEN / 2);
            // Names of blocks are as good as random; the catalog's values are not.
            let random = *family == BLOCKS;
            options.set_compression_type(if random { DBCompressionType::None } else { DBCompressionType::Zstd });
            ColumnFamilyDescriptor::new(family.0, options)
        });
        let db = DB::open_cf_descriptors(&options, dir, descriptors)?;
        Ok(Index { db, families })
    }

    /// Whether this is the index of `store` under this release and this `schema` of the catalog.
    pub(crate) fn is_of(&self, store: StoreId, schema: u32) -> Result<bool, IndexError> {
        Ok(self.get(META, IDENTITY)?.is_some_and(|identity| identity == self.identity(store, schema)))
    }

    /// Writes down whose index this is; at the end of a rebuild, so that half of one is never used.
    pub(crate) fn claim(&self, store: StoreId, schema: u32) -> Result<(), IndexError> {
        let mut batch = self.batch();
        batch.put(META, IDENTITY, &self.identity(store, schema));
        self.write(batch)?;
        self.flush()
    }

    fn identity(&self, store: StoreId, schema: u32) -> Vec<u8> {
        let mut identity = [&store.0[..], &FORMAT.to_be_bytes(), &schema.to_be_bytes()].concat();
        for family in &self.families {
            identity.extend_from_slice(family.0.as_bytes());
            identity.push(0);
        }
        identity
    }

    /// Up to where the index has read the log; `None` while it has read nothing.
    pub(crate) fn watermark(&self) -> Result<Option<Place>, IndexError> {
        match self.get(META, WATERMARK)? {
            None => Ok(None),
            Some(bytes) => Place::decode(&bytes).map(Some).ok_or(IndexError::Malformed { family: META.0 }),
        }
    }

    /// The tick of the last entry applied; 0 before the first.
    pub(crate) fn applied(&self) -> Result<u64, IndexError> {
        self.get(META, APPLIED)?.map_or(Ok(0), |bytes| number(META, &bytes))
    }

    /// Where a block is.
    pub(crate) fn location(&self, key: &BlockKey) -> Result<Option<Location>, IndexError> {
        let value = self.db.get_pinned_cf(self.handle(BLOCKS), key.encode())?;
        value.map(|value| Location::decode(&value)).transpose()
    }

    /// Where each of many blocks is.
    pub(crate) fn locations(&self, keys: &[BlockKey]) -> Result<Vec<Option<Location>>, IndexError> {
        let keys: Vec<[u8; BlockKey::LEN]> = keys.iter().map(BlockKey::encode).collect();
        let values = self.db.batched_multi_get_cf(self.handle(BLOCKS), &keys, false);
        values.into_iter().map(|value| value?.map(|value| Location::decode(&value)).transpose()).collect()
    }

    /// How many blocks a domain has, and of how many bytes.
    pub(crate) fn sums(&self, domain: DomainId) -> Result<Sums, IndexError> {
        self.get(SUMS, &domain.get().to_be_bytes())?.map_or(Ok(Sums::default()), |bytes| decode_sums(&bytes))
    }

    /// How many blocks there are.
    pub(crate) fn block_count(&self) -> Result<u64, IndexError> {
        let sums = self.scan(SUMS, &Keys::all());
        sums.map(|pair| pair.and_then(|(_, sums)| decode_sums(&sums)).map(|sums| sums.blocks)).sum()
    }

    /// All domains, by id.
    pub(crate) fn domains(&self) -> Result<Vec<(DomainId, String)>, IndexError> {
        let malformed = || IndexError::Malformed { family: DOMAINS.0 };
        let mut domains = Vec::new();
        for pair in self.scan(DOMAINS, &Keys::all()) {
            let (id, name) = pair?;
            let id = <[u8; 4]>::try_from(id).ok().and_then(|id| DomainId::new(u32::from_be_bytes(id)));
            domains.push((id.ok_or_else(malformed)?, String::from_utf8(name).map_err(|_| malformed())?));
        }
        Ok(domains)
    }

    /// The numbers of retired segments.
    pub(crate) fn retired(&self) -> Result<Vec<u64>, IndexError> {
        self.scan(RETIRED, &Keys::all()).map(|pair| number(RETIRED, &pair?.0)).collect()
    }

    /// Ticks in order, where their entries are, and how long their payloads.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Result<(u64, Place, u32), IndexError>> + use<'_> {
        self.scan(ENTRIES, &Keys::all()).map(|pair| {
            let (tick, value) = pair?;
            let malformed = || IndexError::Malformed { family: ENTRIES.0 };
            let (place, stored) = value.split_at_checked(Place::LEN).ok_or_else(malformed)?;
            let stored = <[u8; 4]>::try_from(stored).map_err(|_| malformed())?;
            let place = Place::decode(place).ok_or_else(malformed)?;
            Ok((number(ENTRIES, &tick)?, place, u32::from_be_bytes(stored)))
        })
    }

    /// All blocks and where they are.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = Result<(BlockKey, Location), IndexError>> + use<'_> {
        let mut options = Keys::all().options();
        options.fill_cache(false); // once over everything: it would push out what is in use
        options.set_readahead_size(1024 * 1024);
        let pairs = self.db.iterator_cf_opt(self.handle(BLOCKS), options, IteratorMode::Start);
        pairs.map(|pair| {
            let (key, value) = pair?;
            let key = BlockKey::decode(&key).ok_or(IndexError::Malformed { family: BLOCKS.0 })?;
            Ok((key, Location::decode(&value)?))
        })
    }

    /// The state as it is now, whatever is written later.
    pub(crate) fn snapshot(&self) -> Snapshot<'_> {
        Snapshot { index: self, snapshot: self.db.snapshot() }
    }

    /// An empty batch.
    pub(crate) fn batch(&self) -> Batch<'_> {
        Batch { index: self, changes: BTreeMap::new() }
    }

    /// Writes a batch: all of it or nothing.
    pub(crate) fn write(&self, batch: Batch<'_>) -> Result<(), IndexError> {
        let mut writes = WriteBatch::default();
        for (family, changes) in batch.changes {
            let handle = self.handle(family);
            for (key, value) in changes {
                match value {
                    Some(value) => writes.put_cf(handle, key, value),
                    None => writes.delete_cf(handle, key),
                }
            }
        }
        Ok(self.db.write_without_wal(writes)?)
    }

    /// Makes everything written so far survive a crash.
    pub(crate) fn flush(&self) -> Result<(), IndexError> {
        let handles: Vec<&ColumnFamily> = self.families.iter().map(|family| self.handle(*family)).collect();
        let mut options = rocksdb::FlushOptions::default();
        options.set_wait(true);
        Ok(self.db.flush_cfs_opt(&handles, &options)?)
    }

    /// Bytes of the index's files.
    pub(crate) fn disk_len(&self) -> Result<u64, IndexError> {
        let mut len = 0;
        for family in &self.families {
            let handle = self.handle(*family);
            len += self.db.property_int_value_cf(handle, "rocksdb.total-sst-files-size")?.unwrap_or(0);
        }
        Ok(len)
    }

    /// Everything in it, to compare two of them.
    #[cfg(test)]
    pub(crate) fn dump(&self) -> Vec<(&'static str, Vec<Pair>)> {
        let pairs =
            |family: &Family| self.scan(*family, &Keys::all()).map(|pair| pair.expect("a whole index")).collect();
        self.families.iter().map(|family| (family.0, pairs(family))).collect()
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.db.get_cf(self.handle(family), key)?)
    }

    fn scan(&self, family: Family, keys: &Keys) -> impl Iterator<Item = Result<Pair, IndexError>> + use<'_> {
        // RocksDB takes a lower bound above the upper one for a broken program.
        let pairs = (!keys.is_empty())
            .then(|| self.db.iterator_cf_opt(self.handle(family), keys.options(), IteratorMode::Start));
        pairs.into_iter().flatten().map(owned)
    }

    fn handle(&self, family: Family) -> &ColumnFamily {
        self.db.cf_handle(family.0).expect("a family is declared by the catalog before it is used")
    }
}

/// The index as it was at one moment.
pub(crate) struct Snapshot<'a> {
    index: &'a Index,
    snapshot: rocksdb::Snapshot<'a>,
}

impl<'a> Snapshot<'a> {
    pub(crate) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.snapshot.get_cf(self.index.handle(family), key)?)
    }

    pub(crate) fn applied(&self) -> Result<u64, IndexError> {
        self.get(META, APPLIED)?.map_or(Ok(0), |bytes| number(META, &bytes))
    }

    pub(crate) fn scan(
        &self,
        family: Family,
        keys: &Keys,
    ) -> impl Iterator<Item = Result<Pair, IndexError>> + use<'_, 'a> {
        self.scan_from(family, keys, IteratorMode::Start)
    }

    pub(crate) fn scan_back(
        &self,
        family: Family,
        keys: &Keys,
    ) -> impl Iterator<Item = Result<Pair, IndexError>> + use<'_, 'a> {
        self.scan_from(family, keys, IteratorMode::End)
    }

    fn scan_from(
        &self,
        family: Family,
        keys: &Keys,
        mode: IteratorMode<'_>,
    ) -> impl Iterator<Item = Result<Pair, IndexError>> + use<'_, 'a> {
        let pairs =
            (!keys.is_empty()).then(|| self.snapshot.iterator_cf_opt(self.index.handle(family), keys.options(), mode));
        pairs.into_iter().flatten().map(owned)
    }
}

/// Changes to the index that become visible together. Reads see the changes made so far.
pub struct Batch<'a> {
    index: &'a Index,
    changes: BTreeMap<Family, BTreeMap<Vec<u8>, Option<Vec<u8>>>>,
}

impl<'a> Batch<'a> {
    /// The value of a key.
    ///
    /// # Errors
    /// [`IndexError`] when the index cannot be read: pass it on.
    pub fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        match self.changes.get(&family).and_then(|changes| changes.get(key)) {
            Some(changed) => Ok(changed.clone()),
            None => self.index.get(family, key),
        }
    }

    /// Sets a key.
    pub fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        self.changes.entry(family).or_default().insert(key.to_vec(), Some(value.to_vec()));
    }

    /// Removes a key, if it is there.
    pub fn delete(&mut self, family: Family, key: &[u8]) {
        self.changes.entry(family).or_default().insert(key.to_vec(), None);
    }

    /// How many changes there are.
    pub(crate) fn len(&self) -> usize {
        self.changes.values().map(BTreeMap::len).sum()
    }

    /// Keys and values in order.
    pub fn scan(&self, family: Family, keys: &Keys) -> impl Iterator<Item = Result<Pair, IndexError>> + use<'_, 'a> {
        let changed = (!keys.is_empty())
            .then(|| {
                let to = keys.to.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
                let changes = self.changes.get(&family)?;
                Some(changes.range::<Vec<u8>, _>((Bound::Included(&keys.from), to)))
            })
            .flatten();
        let mut changed = changed.into_iter().flatten().peekable();
        let mut stored = self.index.scan(family, keys).peekable();
        std::iter::from_fn(move || {
            loop {
                let Some((key, _)) = changed.peek() else { return stored.next() };
                match stored.peek() {
                    Some(Err(_)) => return stored.next(),
                    Some(Ok((other, _))) if other < *key => return stored.next(),
                    Some(Ok((other, _))) if other == *key => drop(stored.next()), // changed since
                    _ => {}
                }
                if let Some((key, Some(value))) = changed.next() {
                    return Some(Ok((key.clone(), value.clone())));
                }
            }
        })
    }

    pub(crate) fn put_block(&mut self, key: &BlockKey, location: &Location) -> Result<(), IndexError> {
        self.forget(key)?;
        self.put(BLOCKS, &key.encode(), &location.encode());
        let mut sums = self.sums(key.domain)?;
        sums.blocks += 1;
        sums.raw_len += u64::from(location.raw_len);
        sums.stored_len += u64::from(location.stored_len);
        self.put_sums(key.domain, sums);
        Ok(())
    }

    pub(crate) fn delete_block(&mut self, key: &BlockKey) -> Result<(), IndexError> {
        self.forget(key)?;
        self.delete(BLOCKS, &key.encode());
        Ok(())
    }

    /// Takes a block out of its domain's sums, if it is in them.
    fn forget(&mut self, key: &BlockKey) -> Result<(), IndexError> {
        let Some(old) = self.get(BLOCKS, &key.encode())? else { return Ok(()) };
        let old = Location::decode(&old)?;
        let mut sums = self.sums(key.domain)?;
        sums.blocks = sums.blocks.saturating_sub(1);
        sums.raw_len = sums.raw_len.saturating_sub(u64::from(old.raw_len));
        sums.stored_len = sums.stored_len.saturating_sub(u64::from(old.stored_len));
        self.put_sums(key.domain, sums);
        Ok(())
    }

    fn sums(&self, domain: DomainId) -> Result<Sums, IndexError> {
        self.get(SUMS, &domain.get().to_be_bytes())?.map_or(Ok(Sums::default()), |bytes| decode_sums(&bytes))
    }

    fn put_sums(&mut self, domain: DomainId, sums: Sums) {
        let value = [sums.blocks, sums.raw_len, sums.stored_len].map(u64::to_be_bytes).concat();
        self.put(SUMS, &domain.get().to_be_bytes(), &value);
    }

    pub(crate) fn put_domain(&mut self, id: DomainId, name: &str) {
        self.put(DOMAINS, &id.get().to_be_bytes(), name.as_bytes());
    }

    pub(crate) fn put_entry(&mut self, tick: u64, place: Place, stored_len: u32) {
        self.put(ENTRIES, &tick.to_be_bytes(), &[&place.encode()[..], &stored_len.to_be_bytes()].concat());
    }

    pub(crate) fn put_retired(&mut self, segment: u64) {
        self.put(RETIRED, &segment.to_be_bytes(), &[]);
    }

    pub(crate) fn set_watermark(&mut self, place: Place) {
        self.put(META, WATERMARK, &place.encode());
    }

    pub(crate) fn set_applied(&mut self, tick: u64) {
        self.put(META, APPLIED, &tick.to_be_bytes());
    }
}

fn decode_sums(bytes: &[u8]) -> Result<Sums, IndexError> {
    let (numbers, rest) = bytes.as_chunks::<8>();
    match (numbers, rest) {
        ([blocks, raw_len, stored_len], []) => Ok(Sums {
            blocks: u64::from_be_bytes(*blocks),
            raw_len: u64::from_be_bytes(*raw_len),
            stored_len: u64::from_be_bytes(*stored_len),
        }),
        _ => Err(IndexError::Malformed { family: SUMS.0 }),
    }
}

fn owned<B: Into<Vec<u8>>>(pair: Result<(B, B), rocksdb::Error>) -> Result<Pair, IndexError> {
    let (key, value) = pair?;
    Ok((key.into(), value.into()))
}

fn number(family: Family, bytes: &[u8]) -> Result<u64, IndexError> {
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| IndexError::Malformed { family: family.0 })
}

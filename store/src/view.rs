//! The state of the store at one moment, for reading.

use bytes::Bytes;
use hawser_api::BlockHash;

use crate::domain::Domain;
use crate::index::{Family, IndexError, Keys, Pair, Snapshot};
use crate::names::DomainId;
use crate::segments::ReadError;
use crate::store::Store;

/// The families of the catalog as they were when it was made. Reads of it block; make it, use it and let
/// it go on a thread that may wait, as RocksDB keeps what it shows.
pub struct View<'a> {
    store: &'a Store,
    snapshot: Snapshot<'a>,
}

impl<'a> View<'a> {
    pub(crate) fn new(store: &'a Store) -> View<'a> {
        View { store, snapshot: store.index().snapshot() }
    }

    /// The tick of the last entry that this shows.
    ///
    /// # Errors
    /// [`IndexError`] when the index cannot be read.
    pub fn tick(&self) -> Result<u64, IndexError> {
        self.snapshot.applied()
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`IndexError`] when the index cannot be read.
    pub fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.snapshot.get(family, key)
    }

    /// Keys and values in order.
    pub fn scan(&self, family: Family, keys: &Keys) -> impl Iterator<Item = Result<Pair, IndexError>> + use<'_, 'a> {
        self.snapshot.scan(family, keys)
    }

    /// Keys and values from the last to the first.
    pub fn scan_back(
        &self,
        family: Family,
        keys: &Keys,
    ) -> impl Iterator<Item = Result<Pair, IndexError>> + use<'_, 'a> {
        self.snapshot.scan_back(family, keys)
    }

    /// The domain of this id.
    pub fn domain(&self, id: DomainId) -> Option<Domain> {
        self.store.domain_of(id)
    }

    /// The content of a block, as it is now.
    ///
    /// # Errors
    /// As [`Domain::read`].
    pub fn block(&self, domain: DomainId, hash: &BlockHash) -> Result<Bytes, ReadError> {
        match self.domain(domain) {
            Some(domain) => domain.read(hash),
            None => Err(ReadError::Unknown { hash: *hash }),
        }
    }
}

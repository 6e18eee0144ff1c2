//! The store's own names: of itself, of domains, of blocks within a domain, of places in the log.

use std::fmt;
use std::num::NonZeroU32;

/// One store, drawn when its folder is made: a segment of another store is never taken for its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreId(pub [u8; 16]);

/// A domain, as the log and the index call it: numbered from 1 in the order of their first use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(NonZeroU32);

impl DomainId {
    /// The domain of this number; `None` for 0.
    pub fn new(number: u32) -> Option<DomainId> {
        NonZeroU32::new(number).map(DomainId)
    }

    /// Its number.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for DomainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A block's name on disk: the hash of its content, keyed with its domain's key. Equal content has
/// different names in different domains.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockName([u8; 32]);

impl BlockName {
    /// A name of these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> BlockName {
        BlockName(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for BlockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockName({self})")
    }
}

/// A block of a domain: what the block index is keyed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BlockKey {
    /// Whose it is.
    pub(crate) domain: DomainId,
    /// Its name there.
    pub(crate) name: BlockName,
}

impl BlockKey {
    /// Bytes of an index key.
    pub(crate) const LEN: usize = 36;

    /// The index key: domains apart, names within.
    pub(crate) fn encode(&self) -> [u8; BlockKey::LEN] {
        let mut key = [0; BlockKey::LEN];
        key[..4].copy_from_slice(&self.domain.get().to_be_bytes());
        key[4..].copy_from_slice(self.name.as_bytes());
        key
    }

    /// Reads an index key; `None` when it is none.
    pub(crate) fn decode(key: &[u8]) -> Option<BlockKey> {
        let (domain, name) = key.split_first_chunk::<4>()?;
        let domain = DomainId::new(u32::from_be_bytes(*domain))?;
        Some(BlockKey { domain, name: BlockName(name.try_into().ok()?) })
    }
}

/// Where a record begins in the log. Ordered as the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The segment's number.
    pub segment: u64,
    /// Bytes from the segment's beginning.
    pub offset: u64,
}

impl Place {
    /// Bytes of a place in the index.
    pub const LEN: usize = 16;

    /// For the index.
    pub fn encode(&self) -> [u8; Place::LEN] {
        let mut bytes = [0; Place::LEN];
        bytes[..8].copy_from_slice(&self.segment.to_be_bytes());
        bytes[8..].copy_from_slice(&self.offset.to_be_bytes());
        bytes
    }

    /// Reads a place; `None` when it is none.
    pub fn decode(bytes: &[u8]) -> Option<Place> {
        let (segment, offset) = bytes.split_first_chunk::<8>()?;
        Some(Place { segment: u64::from_be_bytes(*segment), offset: u64::from_be_bytes(offset.try_into().ok()?) })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} at {}", self.segment, self.offset)
    }
}

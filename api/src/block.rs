//! Blocks: consecutive, fixed-size pieces of an object's content, named by their BLAKE3 hash.

use std::fmt;

/// Hashes in one offer: 256 blocks of the default 128 KiB are 32 MiB, a pod's whole budget of
/// captured bytes, and 256 × 32 B = 8 KiB fits one HTTP/2 frame (16 KiB, RFC 9113 §4.2).
pub const OFFER_BLOCKS_MAX: usize = 256;
const _: () = assert!(OFFER_BLOCKS_MAX * BlockHash::LEN <= 16 * 1024);

/// Bytes of content in one frame of a put.
pub const PUT_FRAME_MAX: usize = 1024 * 1024;

/// Hashes in one page of a long hash list: 4 096 × 32 B = 128 KiB, a default block; a 5 TiB object
/// of 128 KiB blocks has 10 240 pages, whose own hashes (320 KiB) fit one message.
pub const PAGE_HASHES: usize = 4096;

/// The BLAKE3 hash of a block's content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockHash([u8; 32]);

impl BlockHash {
    /// Bytes of a hash.
    pub const LEN: usize = 32;

    /// Hashes `content`.
    pub fn of(content: &[u8]) -> BlockHash {
        BlockHash(*blake3::hash(content).as_bytes())
    }

    /// A hash of these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> BlockHash {
        BlockHash(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads a concatenation of hashes; `None` when its length is no multiple of 32.
    pub fn list(bytes: &[u8]) -> Option<Vec<BlockHash>> {
        let (hashes, rest) = bytes.as_chunks::<32>();
        rest.is_empty().then(|| hashes.iter().copied().map(BlockHash).collect())
    }
}

impl From<blake3::Hash> for BlockHash {
    fn from(hash: blake3::Hash) -> BlockHash {
        BlockHash(*hash.as_bytes())
    }
}

impl fmt::Display for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockHash({self})")
    }
}

/// The size of a binding's blocks: a power of two from 16 KiB to 8 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockSize(u32);

impl BlockSize {
    /// 128 KiB.
    pub const DEFAULT: BlockSize = BlockSize(128 * 1024);
    /// 16 KiB.
    pub const MIN: BlockSize = BlockSize(16 * 1024);
    /// 8 MiB.
    pub const MAX: BlockSize = BlockSize(8 * 1024 * 1024);

    /// A block size of `bytes`; `None` unless it is a power of two in bounds.
    pub fn new(bytes: u32) -> Option<BlockSize> {
        (bytes.is_power_of_two() && (BlockSize::MIN.0..=BlockSize::MAX.0).contains(&bytes)).then_some(BlockSize(bytes))
    }

    /// Bytes of a whole block.
    pub fn bytes(self) -> usize {
        self.0 as usize
    }

    /// Objects shorter than this travel inside their record: a quarter block.
    pub fn inline_below(self) -> usize {
        self.bytes() / 4
    }

    /// How many blocks content of `len` bytes has; none when it is empty.
    pub fn count(self, len: u64) -> u64 {
        len.div_ceil(u64::from(self.0))
    }
}

impl Default for BlockSize {
    fn default() -> BlockSize {
        BlockSize::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_size_is_a_power_of_two_in_bounds() {
        for (bytes, ok) in [
            (16 * 1024, true),
            (8 << 20, true),
            (128 << 10, true),
            (8 << 10, false),
            (16 << 20, false),
            (100_000, false),
            (0, false),
        ] {
            assert_eq!(BlockSize::new(bytes).is_some(), ok, "{bytes}");
        }
    }

    #[test]
    fn a_hash_list_of_a_broken_length_is_refused() {
        assert_eq!(BlockHash::list(&[0; 64]).map(|list| list.len()), Some(2));
        assert_eq!(BlockHash::list(&[0; 63]), None);
    }
}

//! Objects that are read in ranges: blocks are collected until every one is there. Best effort and in
//! memory only: what is dropped is read again some day, by a pod or by a backfill.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hawser_api::{BlockSize, v1};

use crate::names::DomainId;

/// Bytes of hashes held for unfinished objects: 16 GiB of content in default blocks.
const HASHES_LEN_MAX: usize = 4 * 1024 * 1024;

/// An object that nobody went on with is forgotten, as the store's leases of its blocks end then.
const IDLE: Duration = Duration::from_secs(3600);

/// Objects of which a part has been read.
#[derive(Default)]
pub(super) struct Partial {
    objects: HashMap<Version, Blocks>,
    hashes_len: usize,
}

/// What may be put together: never content of two ETags.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Version {
    domain: DomainId,
    provider: String,
    bucket: String,
    key: Bytes,
    etag: String,
    version_id: String,
    last_modified: String,
    length: u64,
    block_size: u32,
}

struct Blocks {
    hashes: Vec<Option<[u8; 32]>>,
    lacking: usize,
    touched: Instant,
}

impl Partial {
    /// Adds the blocks of a range (veiled hashes); gives the whole run once every block is there.
    pub(super) fn add(&mut self, domain: DomainId, read: &v1::ObservedRead, run: &v1::Run) -> Option<v1::Run> {
        let size = BlockSize::new(run.block_size)?;
        let object = read.object.clone().unwrap_or_default();
        let aligned = read.offset.is_multiple_of(size.bytes() as u64);
        let end = read.offset.checked_add(run.length).filter(|end| *end <= read.total_length)?;
        if run.paged || !aligned {
            return None;
        }
        let version = Version {
            domain,
            provider: object.provider,
            bucket: object.bucket,
            key: object.key,
            etag: read.etag.clone(),
            version_id: read.version_id.clone(),
            last_modified: read.last_modified.clone(),
            length: read.total_length,
            block_size: run.block_size,
        };
        let count = usize::try_from(size.count(read.total_length)).ok()?;
        self.make_room(&version, count * 32)?;
        let blocks = self.objects.entry(version.clone()).or_insert_with(|| {
            self.hashes_len += count * 32;
            Blocks { hashes: vec![None; count], lacking: count, touched: Instant::now() }
        });
        blocks.touched = Instant::now();
        let first = usize::try_from(read.offset / size.bytes() as u64).ok()?;
        let (hashes, _) = run.hashes.as_chunks::<32>();
        // A range's last block counts only where it is whole, or the object's last.
        let whole = if end == read.total_length { hashes.len() } else { (run.length / size.bytes() as u64) as usize };
        for (at, hash) in hashes.iter().take(whole).enumerate() {
            let Some(slot) = blocks.hashes.get_mut(first + at) else { break };
            if slot.is_none() {
                blocks.lacking -= 1;
            }
            *slot = Some(*hash);
        }
        if blocks.lacking > 0 {
            return None;
        }
        let whole = self.objects.remove(&version)?;
        self.hashes_len -= count * 32;
        let hashes: Vec<u8> = whole.hashes.into_iter().flatten().flatten().collect();
        Some(v1::Run { length: read.total_length, block_size: run.block_size, hashes: hashes.into(), paged: false })
    }

    /// Lets the oldest go until there is room for `len` more bytes of hashes; `None` when there never is.
    fn make_room(&mut self, version: &Version, len: usize) -> Option<()> {
        if self.objects.contains_key(version) {
            return Some(());
        }
        self.objects.retain(|_, blocks| {
            let keep = blocks.touched.elapsed() < IDLE;
            if !keep {
                self.hashes_len -= blocks.hashes.len() * 32;
            }
            keep
        });
        while self.hashes_len + len > HASHES_LEN_MAX {
            let oldest = self.objects.iter().min_by_key(|(_, blocks)| blocks.touched)?.0.clone();
            let gone = self.objects.remove(&oldest)?;
            self.hashes_len -= gone.hashes.len() * 32;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SIZE: u64 = 16 * 1024;

    fn read(offset: u64, etag: &str) -> v1::ObservedRead {
        v1::ObservedRead { offset, etag: etag.into(), total_length: 2 * SIZE + 10, ..v1::ObservedRead::default() }
    }
    fn run(length: u64, fill: u8) -> v1::Run {
        let count = length.div_ceil(SIZE) as usize;
        v1::Run { length, block_size: SIZE as u32, hashes: vec![fill; count * 32].into(), paged: false }
    }

    #[test]
    fn an_object_is_whole_when_every_block_of_one_etag_is_there() {
        let (mut partial, domain) = (Partial::default(), DomainId::new(1).unwrap());
        assert_eq!(partial.add(domain, &read(2 * SIZE, "e"), &run(10, 3)), None);
        assert_eq!(partial.add(domain, &read(0, "other"), &run(2 * SIZE, 9)), None);
        assert_eq!(partial.add(domain, &read(0, "e"), &run(SIZE + 5, 1)), None, "a torn tail does not count");
        let whole = partial.add(domain, &read(SIZE, "e"), &run(SIZE, 2)).unwrap();
        assert_eq!(whole.hashes, [[1; 32], [2; 32], [3; 32]].concat());
        assert_eq!(whole.length, 2 * SIZE + 10);
        assert_eq!(partial.objects.len(), 1, "the other ETag waits on");
    }

    #[test]
    fn unfinished_objects_stay_within_their_bound() {
        let (mut partial, domain) = (Partial::default(), DomainId::new(1).unwrap());
        for key in 0..200_u32 {
            let mut read = read(0, "e");
            read.object = Some(v1::ObjectRef { key: key.to_string().into(), ..v1::ObjectRef::default() });
            read.total_length = 4096 * SIZE;
            partial.add(domain, &read, &run(SIZE, 1));
            assert!(partial.hashes_len <= HASHES_LEN_MAX);
        }
        let mut huge = read(0, "e");
        huge.total_length = u64::from(u32::MAX) * SIZE;
        assert_eq!(partial.add(domain, &huge, &run(SIZE, 1)), None);
        assert!(partial.objects.len() <= 32);
    }
}

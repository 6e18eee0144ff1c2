//! The least catalog that a store needs: keys that name blocks. An entry sets a key or lets it go.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hawser_api::BlockHash;
use hawser_store::{Batch, Entry, Family, IndexError, Keys, Live, Options, ReadError, Replay, Store, View};

/// Key → numbers of its blocks.
const KEYS: Family = Family("ledger-keys");
/// Tick → length of the entry: anything that depends on the order shows.
const HISTORY: Family = Family("ledger-history");

/// A key whose entry this catalog panics of.
pub(crate) const POISON: u64 = u64::MAX;

pub(crate) struct Ledger;

impl Replay for Ledger {
    fn schema(&self) -> u32 {
        1
    }

    fn families(&self) -> &'static [Family] {
        &[KEYS, HISTORY]
    }

    fn apply(&self, entry: Entry<'_>, batch: &mut Batch<'_>) -> Result<Vec<u8>, IndexError> {
        let (key, rest) = entry.bytes.split_first_chunk::<8>().unwrap();
        assert_ne!(*key, POISON.to_be_bytes(), "asked to");
        let last = batch.scan(HISTORY, &Keys::all()).last().transpose()?;
        let sum = last.map_or(0, |(_, sum)| u64::from_be_bytes(sum.try_into().unwrap()));
        let sum = sum.wrapping_mul(31).wrapping_add(entry.bytes.len() as u64).wrapping_add(entry.tick);
        batch.put(HISTORY, b"sum", &sum.to_be_bytes());
        if rest.is_empty() {
            batch.delete(KEYS, key)
        } else {
            batch.put(KEYS, key, rest)
        }
        Ok(sum.to_be_bytes().to_vec())
    }

    fn live(&self, view: &View<'_>, each: &mut dyn FnMut(Live<'_>) -> Result<(), ReadError>) -> Result<(), ReadError> {
        for domain in 1..=3 {
            let Some(domain) = hawser_store::DomainId::new(domain).filter(|id| view.domain(*id).is_some()) else {
                continue;
            };
            for pair in view.scan(KEYS, &Keys::all()) {
                let (key, numbers) = pair?;
                let blocks: Vec<BlockHash> =
                    numbers_of(&numbers).into_iter().map(|n| BlockHash::of(&block(n))).collect();
                let key = u64::from_be_bytes(key.try_into().unwrap());
                if domain.get() == 1 {
                    each(Live { domain, blocks: &blocks, object: &format_args!("key {key}") })?;
                }
            }
        }
        Ok(())
    }
}

impl Ledger {
    /// Every key and the numbers of its blocks.
    pub(crate) fn all(store: &Store) -> BTreeMap<u64, Vec<u64>> {
        let view = store.view();
        let pairs = view.scan(KEYS, &Keys::all()).map(|pair| pair.unwrap());
        pairs.map(|(key, numbers)| (u64::from_be_bytes(key.try_into().unwrap()), numbers_of(&numbers))).collect()
    }
}

/// An entry that sets a key, or lets it go.
pub(crate) fn entry(key: u64, blocks: Option<&[u64]>) -> Bytes {
    let numbers = blocks.unwrap_or(&[]).iter().flat_map(|number| number.to_be_bytes());
    key.to_be_bytes().into_iter().chain(numbers).collect()
}

/// The content of block `number`: 1 to 5 KiB; most are noise, some are text, some zeros.
pub(crate) fn block(number: u64) -> Bytes {
    let len = 1024 + (number as usize * 37) % 4096;
    match number % 10 {
        8 => format!("line of block {number}\n").repeat(len / 20).into_bytes().into(),
        9 => vec![0; len].into(),
        _ => {
            let mut bytes = vec![0; len];
            blake3::Hasher::new().update(&number.to_be_bytes()).finalize_xof().fill(&mut bytes);
            bytes.into()
        }
    }
}

pub(crate) fn open(dir: &Path, options: Options) -> Store {
    Store::open(dir, options, Arc::new(Ledger)).unwrap()
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn numbers_of(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks::<8>().0.iter().map(|number| u64::from_be_bytes(*number)).collect()
}

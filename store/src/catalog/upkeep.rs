//! What is done to the catalog from time to time: retention, and gaps for what turned out to be damaged.
//! These block their thread, which must not be one of an async runtime.

use std::collections::BTreeMap;

use hawser_api::BlockHash;

use super::entry::{Damaged, Fact, Trimmed, TrimmedVersion};
use super::list::ListError;
use super::rows::{MANIFESTS, ManifestRow, decode, take_text, tick_of};
use super::{Catalog, Said, now_unix, retention};
use crate::domain::{CommitError, Domain};
use crate::index::{IndexError, Keys};
use crate::names::DomainId;
use crate::segments::ReadError;

/// Why upkeep stopped. What was done before stays done.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The log.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// What a domain uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Bytes of distinct blocks.
    pub unique_bytes: u64,
    /// Bytes of them on disk.
    pub stored_bytes: u64,
    /// How many.
    pub blocks: u64,
}

impl Catalog {
    /// What a domain uses of the disk.
    ///
    /// # Errors
    /// [`ListError::Index`].
    pub(crate) fn usage(&self, domain: DomainId) -> Result<Usage, ListError> {
        let Some(domain) = self.store().domain_of(domain) else { return Ok(Usage::default()) };
        let sums = domain.sums()?;
        Ok(Usage { unique_bytes: sums.raw_len, stored_bytes: sums.stored_len, blocks: sums.blocks })
    }

    /// Lets versions and uploads go that retention allows to; gives how many.
    ///
    /// # Errors
    /// [`UpkeepError`].
    pub fn trim(&self) -> Result<u64, UpkeepError> {
        let mut trimmed = 0;
        for domain in self.store().domains() {
            loop {
                let due = retention::due(&self.store().view(), domain.id(), now_unix())?;
                let count = due.count();
                if count == 0 {
                    break;
                }
                trimmed += count as u64;
                self.commit_here(&domain, "", Fact::Trimmed(Trimmed { ..due }))?;
            }
        }
        Ok(trimmed)
    }

    /// Reads every kept version, and opens a gap for each whose blocks are not what they were; gives how
    /// many. Only for a store in which a scrub has found damage: it reads everything.
    ///
    /// # Errors
    /// [`UpkeepError`].
    pub fn damage_becomes_gaps(&self) -> Result<u64, UpkeepError> {
        let mut hurt: BTreeMap<DomainId, Vec<TrimmedVersion>> = BTreeMap::new();
        let view = self.store().view();
        for pair in view.scan(MANIFESTS, &Keys::all()) {
            let (key, value) = pair?;
            let malformed = || IndexError::Malformed { family: MANIFESTS.0 };
            let (id, rest) = key.split_first_chunk::<4>().ok_or_else(malformed)?;
            let id = DomainId::new(u32::from_be_bytes(*id)).ok_or_else(malformed)?;
            let domain = self.store().domain_of(id).ok_or_else(malformed)?;
            let row: ManifestRow = decode(MANIFESTS, &value)?;
            if !whole(&domain, &row) {
                let object = object_of(rest).ok_or_else(malformed)?;
                hurt.entry(id).or_default().push(TrimmedVersion { object, tick: tick_of(&key) });
            }
        }
        drop(view);
        let mut count = 0;
        for (id, versions) in hurt {
            let Some(domain) = self.store().domain_of(id) else { continue };
            count += versions.len() as u64;
            for versions in versions.chunks(retention::TRIMMED_MAX) {
                for (binding, versions) in self.by_binding(id, versions)? {
                    self.commit_here(&domain, &binding, Fact::Damaged(Damaged { versions }))?;
                }
            }
        }
        Ok(count)
    }

    /// What the store holds, with what the catalog adds.
    ///
    /// # Errors
    /// [`UpkeepError::Index`].
    pub fn stats(&self) -> Result<serde_json::Value, UpkeepError> {
        let mut stats = serde_json::to_value(self.store().stats()?).unwrap_or_default();
        let mut logical = serde_json::Map::new();
        for domain in self.store().domains() {
            let totals = self.logical_bytes(domain.id()).map_err(|error| match error {
                ListError::Index(error) => UpkeepError::Index(error),
                _ => UpkeepError::Index(IndexError::Malformed { family: super::FACTS.0 }),
            })?;
            logical.insert(domain.name().to_owned(), totals.into());
        }
        if let Some(stats) = stats.as_object_mut() {
            stats.insert("logical_len".into(), logical.into());
        }
        Ok(stats)
    }

    fn by_binding(
        &self,
        domain: DomainId,
        versions: &[TrimmedVersion],
    ) -> Result<BTreeMap<String, Vec<TrimmedVersion>>, IndexError> {
        let bindings = super::bindings::all(&self.store().view(), domain)?;
        let mut by_binding: BTreeMap<String, Vec<TrimmedVersion>> = BTreeMap::new();
        for version in versions {
            let owner = bindings.iter().find(|row| {
                let object = &version.object;
                super::store_bucket(&row.hello, &object.provider, &object.bucket).is_some()
            });
            let name = owner.map(|row| row.hello.binding.clone()).unwrap_or_default();
            by_binding.entry(name).or_default().push(version.clone());
        }
        Ok(by_binding)
    }

    fn commit_here(&self, domain: &Domain, binding: &str, fact: Fact) -> Result<(), CommitError> {
        futures::executor::block_on(self.commit(domain, Said::by_store(binding, fact), &[])).map(drop)
    }
}

/// Whether every block of a version can be read.
fn whole(domain: &Domain, row: &ManifestRow) -> bool {
    let broken = |hash: &BlockHash| {
        matches!(
            domain.read(hash),
            Err(ReadError::Unknown { .. } | ReadError::Missing { .. } | ReadError::Damaged { .. })
        )
    };
    row.extents.iter().all(|extent| {
        let (hashes, _) = extent.hashes.as_chunks::<32>();
        let hashes: Vec<BlockHash> = hashes.iter().map(|hash| domain.unveil(hash)).collect();
        if !extent.paged {
            return !hashes.iter().any(broken);
        }
        hashes.iter().all(|page| {
            let listed = domain.read(page).map(|content| BlockHash::list(&content).unwrap_or_default());
            listed.is_ok_and(|blocks| !blocks.iter().any(broken))
        })
    })
}

fn object_of(key: &[u8]) -> Option<hawser_api::v1::ObjectRef> {
    let (provider, rest) = take_text(key)?;
    let (bucket, rest) = take_text(rest)?;
    let (key, _) = take_text(rest)?;
    Some(hawser_api::v1::ObjectRef {
        provider: String::from_utf8(provider).ok()?,
        bucket: String::from_utf8(bucket).ok()?,
        key: key.into(),
    })
}

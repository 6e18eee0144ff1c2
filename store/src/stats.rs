//! How much there is.

use serde::Serialize;

use crate::domain::Domain;
use crate::index::IndexError;
use crate::store::Store;

/// Blocks of one domain, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// How many.
    pub blocks: u64,
    /// Bytes of their content.
    pub raw_len: u64,
    /// Bytes of their payloads on disk.
    pub stored_len: u64,
}

/// One domain's share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DomainStats {
    /// Its name.
    pub domain: String,
    /// Its blocks.
    #[serde(flatten)]
    pub sums: Sums,
}

/// What the store holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// The last tick applied: how many entries there ever were.
    pub tick: u64,
    /// Segments.
    pub segments: u64,
    /// Bytes of the segments.
    pub log_len: u64,
    /// Bytes of the index.
    pub index_len: u64,
    /// Blocks that are kept for those who offered or put them.
    pub leases: u64,
    /// Bytes free on the volume; absent when it does not tell.
    pub free_len: Option<u64>,
    /// Bytes that are kept free.
    pub floor_len: Option<u64>,
    /// Places found damaged at open.
    pub damaged: u64,
    /// Each domain's share.
    pub domains: Vec<DomainStats>,
}

impl Store {
    /// Counts; cheap enough for every scrape.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn stats(&self) -> Result<Stats, IndexError> {
        let core = self.core();
        let segments = core.segments.all();
        let domains = self.domains().into_iter();
        let domains = domains.map(|domain| Ok(DomainStats { sums: domain.sums()?, domain: domain.name().to_owned() }));
        let volume = self.volume();
        Ok(Stats {
            tick: core.index.applied()?,
            segments: segments.len() as u64,
            log_len: segments.iter().map(|(_, known)| known.len).sum(),
            index_len: core.index.disk_len()?,
            leases: core.leases.count() as u64,
            free_len: volume.map(|(volume, _)| volume.free),
            floor_len: volume.map(|(_, floor)| floor),
            damaged: self.damage().len() as u64,
            domains: domains.collect::<Result<_, IndexError>>()?,
        })
    }
}

impl Domain {
    /// The domain's durable blocks.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn sums(&self) -> Result<Sums, IndexError> {
        self.index().sums(self.id())
    }
}

//! From the log to the index: what the catalog must say of its entries, and reading the log again.

use std::fmt;
use std::sync::Arc;

use crate::index::{Batch, Family, Index, IndexError, Location};
use crate::names::{BlockKey, DomainId, Place, StoreId};
use crate::prepare;
use crate::scan::Found;
use crate::segment::{Record, Subject};
use crate::segments::{ReadError, Segments};
use crate::view::View;

/// What gives entries their meaning. The store keeps the bytes and their order; the catalog reads them.
pub trait Replay: Send + Sync + 'static {
    /// Grows by one with each release whose [`Replay::apply`] gives other values for the same entries:
    /// the index of another schema is rebuilt at open.
    fn schema(&self) -> u32;

    /// The families that `apply` writes. Their names differ from the index's own: `meta`, `blocks`,
    /// `domains`, `entries`, `retired`.
    fn families(&self) -> &'static [Family];

    /// Applies one entry. Called once for each tick, in order, after the entry is durable, and again
    /// in the same order when the index is rebuilt: a function of the state in `batch` and of the entry,
    /// and of nothing else. The answer goes to whoever committed the entry, and nowhere at a replay.
    ///
    /// # Errors
    /// What `batch` answered. The store then refuses work until it is opened again; an entry that
    /// cannot be understood is no error but has no effect.
    fn apply(&self, entry: Entry<'_>, batch: &mut Batch<'_>) -> Result<Vec<u8>, IndexError>;

    /// Shows `each` every block that something kept names, with what names it.
    ///
    /// # Errors
    /// What `view` answered: nothing is then swept.
    fn live(&self, view: &View<'_>, each: &mut dyn FnMut(Live<'_>) -> Result<(), ReadError>) -> Result<(), ReadError>;
}

/// An entry of the log.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its number.
    pub tick: u64,
    /// Whose it is.
    pub domain: DomainId,
    /// What was committed.
    pub bytes: &'a [u8],
}

/// Blocks that are needed, and what needs them.
pub struct Live<'a> {
    /// The domain.
    pub domain: DomainId,
    /// The blocks.
    pub blocks: &'a [hawser_api::BlockHash],
    /// What needs them, for reports of damage; formatted only then.
    pub object: &'a dyn fmt::Display,
}

/// Damage that was met while the log was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The header of a segment is not what was written. Its records may be whole.
    Header {
        /// The segment.
        segment: u64,
    },
    /// Bytes that are no record.
    Bytes {
        /// Where they begin.
        place: Place,
        /// How many.
        len: u64,
    },
    /// A segment that was never retired is not there.
    Segment {
        /// Its number.
        segment: u64,
    },
    /// Entries that are in no segment.
    Entries {
        /// The first tick that is missing.
        first: u64,
        /// The last.
        last: u64,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Header { segment } => write!(f, "the header of segment {segment} is damaged"),
            Damage::Bytes { place, len } => write!(f, "{len} bytes of {place} are damaged"),
            Damage::Segment { segment } => write!(f, "segment {segment} is missing"),
            Damage::Entries { first, last } if first == last => write!(f, "entry {first} is lost"),
            Damage::Entries { first, last } => write!(f, "entries {first} to {last} are lost"),
        }
    }
}

/// Why the log could not be read into the index.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("read the log")]
    Io(#[from] std::io::Error),
    /// An entry does not follow the one before: only a rebuild finds the order.
    #[error("entry {found} follows entry {applied}")]
    Order { applied: u64, found: u64 },
}

impl From<IndexError> for ReplayError {
    fn from(error: IndexError) -> ReplayError {
        ReplayError::Read(error.into())
    }
}

/// Reads what the log has behind `from` into the index.
pub(crate) fn catch_up(
    segments: &Segments,
    index: &Index,
    catalog: &Arc<dyn Replay>,
    from: Place,
) -> Result<Vec<Damage>, ReplayError> {
    let mut damage = Vec::new();
    let mut applied = index.applied()?;
    for (number, _) in segments.all().into_iter().filter(|(number, _)| *number >= from.segment) {
        let offset = if number == from.segment { from.offset } else { 0 };
        let mut scan = segments.scan(Place { segment: number, offset })?;
        let mut batch = index.batch();
        while let Some(found) = scan.next()? {
            let (place, record, payload) = match found {
                Found::Whole { offset, record, payload } => (Place { segment: number, offset }, record, payload),
                Found::Damaged { offset, len } => {
                    damage.push(Damage::Bytes { place: Place { segment: number, offset }, len });
                    continue;
                }
            };
            put(&mut batch, place, &record, &payload)?;
            if let (Subject::Entry { tick, .. }, Some(domain)) = (record.subject, record.domain) {
                let next = tick == applied + 1 && !record.moved;
                if !next && tick > applied {
                    return Err(ReplayError::Order { applied, found: tick });
                }
                if next {
                    let content = prepare::unpack(record.packing, record.raw_len, payload);
                    let bytes = content.ok_or(ReadError::Damaged { place, what: "does not unpack" })?;
                    catalog.apply(Entry { tick, domain, bytes: &bytes }, &mut batch)?;
                    applied = tick;
                    batch.set_applied(tick);
                }
            }
            batch.set_watermark(Place { segment: number, offset: place.offset + record.len() });
            if batch.len() >= 1024 || matches!(record.subject, Subject::Entry { .. }) {
                index.write(std::mem::replace(&mut batch, index.batch()))?;
            }
        }
        index.write(batch)?;
    }
    Ok(damage)
}

/// Reads the whole log into an empty index.
pub(crate) fn rebuild(
    segments: &Segments,
    index: &Index,
    catalog: &Arc<dyn Replay>,
    store: StoreId,
) -> Result<Vec<Damage>, ReplayError> {
    let mut damage = Vec::new();
    for (number, _) in segments.all() {
        let mut scan = segments.scan(Place { segment: number, offset: 0 })?;
        let mut batch = index.batch();
        while let Some(found) = scan.next()? {
            match found {
                Found::Whole { offset, record, payload } => {
                    put(&mut batch, Place { segment: number, offset }, &record, &payload)?;
                    batch.set_watermark(Place { segment: number, offset: offset + record.len() });
                }
                Found::Damaged { offset, len } => {
                    damage.push(Damage::Bytes { place: Place { segment: number, offset }, len });
                }
            }
            if batch.len() >= 1024 {
                index.write(std::mem::replace(&mut batch, index.batch()))?;
            }
        }
        index.write(batch)?;
    }
    let mut applied = 0;
    for entry in index.entries() {
        let (tick, place, stored_len) = entry?;
        if tick > applied + 1 {
            damage.push(Damage::Entries { first: applied + 1, last: tick - 1 });
        }
        applied = tick;
        let (record, payload) = segments.read(place, stored_len)?;
        let Some(domain) = record.domain else { continue };
        let content = prepare::unpack(record.packing, record.raw_len, payload);
        let bytes = content.ok_or(ReadError::Damaged { place, what: "does not unpack" })?;
        let mut batch = index.batch();
        catalog.apply(Entry { tick, domain, bytes: &bytes }, &mut batch)?;
        batch.set_applied(tick);
        index.write(batch)?;
    }
    index.claim(store, catalog.schema())?;
    Ok(damage)
}

/// What a record says without the catalog: where things are.
pub(crate) fn put(batch: &mut Batch<'_>, place: Place, record: &Record, payload: &[u8]) -> Result<(), IndexError> {
    match (record.subject, record.domain) {
        (Subject::Block { name }, Some(domain)) => {
            let (stored_len, raw_len, packing) = (record.stored_len, record.raw_len, record.packing);
            batch.put_block(&BlockKey { domain, name }, &Location { place, stored_len, raw_len, packing })?;
        }
        (Subject::Entry { tick, .. }, Some(_)) => batch.put_entry(tick, place, record.stored_len),
        (Subject::Domain, Some(domain)) => batch.put_domain(domain, &String::from_utf8_lossy(payload)),
        (Subject::Retire { segment }, None) => batch.put_retired(segment),
        (Subject::Seal { .. }, None) => {}
        // `Record::decode` refuses a domain where none belongs and the other way round.
        (Subject::Block { .. } | Subject::Entry { .. } | Subject::Domain, None) => {}
        (Subject::Retire { .. } | Subject::Seal { .. }, Some(_)) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;

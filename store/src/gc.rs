//! Collection: mark what is live, sweep the segments that are mostly dead. See `docs/format.md`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::crash;
use crate::domain::Domain;
use crate::index::IndexError;
use crate::log::{Closed, Item};
use crate::names::{BlockKey, DomainId, Place};
use crate::prepare::Packed;
use crate::replay::Live;
use crate::scan::Found;
use crate::segment::{PayloadSum, Subject};
use crate::segments::ReadError;
use crate::store::Store;

/// Segments of which less than this is live are swept: at half, a byte freed costs at most a byte copied.
pub const FILL_PERCENT: u64 = 50;

/// Bytes copied before the sweep waits for them to be durable: its memory, and what it may lose to a crash.
const COPY_LEN: usize = 32 * 1024 * 1024;

/// Blocks whose fate is decided at once, while commits wait.
const DECIDE_BLOCKS: usize = 1024;

/// What a collection did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// Blocks that something needs, or may need soon.
    pub live_blocks: u64,
    /// Blocks that nothing needs; those in segments that are mostly live stay for now.
    pub dead_blocks: u64,
    /// Segments looked at.
    pub segments: u64,
    /// Segments deleted.
    pub retired: u64,
    /// Segments that would have been swept and are damaged: `scrub` tells more.
    pub damaged: u64,
    /// Bytes copied to the end of the log.
    pub moved_len: u64,
    /// Bytes of the segments deleted.
    pub freed_len: u64,
}

/// Why a collection stopped. Nothing is lost; the next one begins anew.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// What is live could not be told, or a segment not be read.
    #[error("nothing more is swept")]
    Read(#[from] ReadError),
    /// The log is closed.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// A file could not be read or deleted.
    #[error("sweep segment {segment}")]
    Io {
        /// The segment.
        segment: u64,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl From<IndexError> for GcError {
    fn from(error: IndexError) -> GcError {
        GcError::Read(error.into())
    }
}

impl Store {
    /// Frees the room of blocks that nothing needs, of segments less than `fill_percent` of which is live.
    /// Blocks this thread, which must not be one of an async runtime; commits go on.
    ///
    /// # Errors
    /// [`GcError`]; what was not swept is swept the next time.
    pub fn gc(&self, fill_percent: u64) -> Result<Collected, GcError> {
        let _alone = self.maintenance();
        let core = self.core();
        core.log.barrier()?; // blocks of the segments that are sealed now are in the index
        let sealed: BTreeMap<u64, u64> = core
            .segments
            .all()
            .into_iter()
            .filter(|(_, known)| known.sealed)
            .map(|(n, known)| (n, known.len))
            .collect();
        {
            // Commits under way are applied before this is ours, so that the view below shows them; those
            // that begin later are kept by their own touch.
            let _gate = core.gate.blocking_write();
            core.leases.begin_mark(core.index.block_count()?);
        }
        let _mark = Mark(self);
        self.mark()?;
        let (mut collected, live) = self.count(&sealed)?;
        let chosen = choose(&sealed, &live, core.segment_len, fill_percent);
        for segment in chosen {
            match self.sweep(segment)? {
                Some(moved) => {
                    collected.retired += 1;
                    collected.moved_len += moved;
                    collected.freed_len += sealed.get(&segment).copied().unwrap_or(0);
                }
                None => collected.damaged += 1,
            }
        }
        Ok(collected)
    }

    /// Marks every block that the catalog calls live.
    fn mark(&self) -> Result<(), GcError> {
        let view = self.view();
        let mut domains: BTreeMap<DomainId, Domain> = BTreeMap::new();
        let mut each = |live: Live<'_>| {
            let known = domains.get(&live.domain).cloned().or_else(|| self.domain_of(live.domain));
            // An entry of a domain stands behind the domain's own record in the log.
            let Some(domain) = known else { return Ok(()) };
            self.core().leases.keep(live.blocks.iter().map(|hash| domain.key_of(hash).name));
            domains.entry(live.domain).or_insert(domain);
            Ok(())
        };
        Ok(self.core().catalog.live(&view, &mut each)?)
    }

    /// How many blocks are live and dead, and how many bytes of each sealed segment are live.
    fn count(&self, sealed: &BTreeMap<u64, u64>) -> Result<(Collected, BTreeMap<u64, u64>), GcError> {
        let core = self.core();
        let mut collected = Collected { segments: sealed.len() as u64, ..Collected::default() };
        let mut live: BTreeMap<u64, u64> = BTreeMap::new();
        let record_len = |stored_len: u32| u64::from(stored_len) + crate::segment::RECORD_HEADER_LEN as u64;
        for block in core.index.blocks() {
            let (key, location) = block?;
            if core.leases.is_kept(&key.name) {
                collected.live_blocks += 1;
                *live.entry(location.place.segment).or_default() += record_len(location.stored_len);
            } else {
                collected.dead_blocks += 1;
            }
        }
        for entry in core.index.entries() {
            let (_, place, stored_len) = entry?;
            *live.entry(place.segment).or_default() += record_len(stored_len);
        }
        Ok((collected, live))
    }

    /// Copies what is live in a segment to the end of the log, retires it and deletes it. Answers how many
    /// bytes were copied; `None` when the segment is damaged, and then it stays.
    fn sweep(&self, segment: u64) -> Result<Option<u64>, GcError> {
        let core = self.core();
        let io_error = |source| GcError::Io { segment, source };
        let mut moved = 0;
        let mut copied = 0;
        let mut undecided = Vec::new();
        let mut scan = core.segments.scan(Place { segment, offset: 0 })?;
        while let Some(found) = scan.next().map_err(io_error)? {
            let Found::Whole { offset, record, payload } = found else { return Ok(None) };
            let place = Place { segment, offset };
            let packed =
                Packed { packing: record.packing, sum: PayloadSum::of(&payload), payload, raw_len: record.raw_len };
            let kept = match (record.subject, record.domain) {
                (Subject::Block { name }, Some(domain)) => {
                    undecided.push((BlockKey { domain, name }, place, packed));
                    None
                }
                (Subject::Entry { tick, .. }, Some(domain)) => Some(Item::MovedEntry { tick, domain, packed }),
                (Subject::Domain, Some(id)) => {
                    let name = String::from_utf8_lossy(&packed.payload).into_owned();
                    Some(Item::Domain { id, name })
                }
                (Subject::Retire { segment }, _) => {
                    let (done, _) = tokio::sync::oneshot::channel(); // the barrier below waits for it
                    Some(Item::Retire { segment, done })
                }
                (Subject::Block { .. } | Subject::Entry { .. } | Subject::Domain | Subject::Seal { .. }, _) => None,
            };
            if let Some(item) = kept {
                copied += record.len() as usize;
                core.log.push(item)?;
            }
            copied += undecided_len(&undecided);
            if undecided.len() >= DECIDE_BLOCKS || copied >= COPY_LEN {
                moved += self.decide(std::mem::take(&mut undecided))?;
                core.log.barrier()?;
                copied = 0;
            }
        }
        moved += self.decide(undecided)?;
        core.log.barrier()?;
        crash::point("sweep-moved");
        core.index.flush()?; // or a watermark inside this segment would replay moved entries too late
        crash::point("sweep-flushed");
        let (done, wait) = tokio::sync::oneshot::channel();
        core.log.push(Item::Retire { segment, done })?;
        wait.blocking_recv().map_err(|_| core.log.closed())?;
        crash::point("sweep-retired");
        core.segments.delete(segment).map_err(io_error)?;
        Ok(Some(moved))
    }

    /// Lets the dead of these blocks go and copies the others.
    fn decide(&self, blocks: Vec<(BlockKey, Place, Packed)>) -> Result<u64, GcError> {
        let core = self.core();
        let keys: Vec<BlockKey> = blocks.iter().map(|(key, ..)| *key).collect();
        // A block that the index has elsewhere, or no more, needs nothing from here.
        let here: BTreeMap<BlockKey, Packed> = blocks
            .into_iter()
            .zip(core.index.locations(&keys)?)
            .filter(|((_, place, _), location)| location.is_some_and(|location| location.place == *place))
            .map(|((key, _, packed), _)| (key, packed))
            .collect();
        let dead: Vec<BlockKey> = {
            let _gate = core.gate.blocking_write();
            core.leases.sweep(here.keys().copied().collect(), |dead| {
                let mut batch = core.index.batch();
                dead.iter().try_for_each(|key| batch.delete_block(key))?;
                core.index.write(batch)?;
                Ok::<_, IndexError>(dead)
            })?
        };
        crash::point("sweep-forgot");
        let mut moved = 0;
        for (key, packed) in here.into_iter().filter(|(key, _)| dead.binary_search(key).is_err()) {
            moved += packed.payload.len() as u64 + crate::segment::RECORD_HEADER_LEN as u64;
            core.log.push(Item::Block { key, packed, moved: true, written: Box::new(|| {}) })?;
        }
        Ok(moved)
    }
}

/// Ends the mark, however the collection ends.
struct Mark<'a>(&'a Store);

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        self.0.core().leases.end_mark();
    }
}

/// The segments that are worth sweeping: mostly dead, or small and not alone in it.
fn choose(sealed: &BTreeMap<u64, u64>, live: &BTreeMap<u64, u64>, segment_len: u64, fill_percent: u64) -> Vec<u64> {
    let live = |number: &u64| live.get(number).copied().unwrap_or(0);
    let (dead, rest): (Vec<_>, Vec<_>) =
        sealed.iter().partition(|(number, len)| live(number) * 100 < **len * fill_percent.min(100));
    let small: Vec<u64> = rest
        .into_iter()
        .filter(|(_, len)| **len * 100 < segment_len * fill_percent.min(100))
        .map(|(n, _)| *n)
        .collect();
    let mut chosen: Vec<u64> = dead.into_iter().map(|(number, _)| *number).collect();
    if small.len() > 1 {
        chosen.extend(small);
    }
    chosen.sort_unstable();
    chosen
}

fn undecided_len(blocks: &[(BlockKey, Place, Packed)]) -> usize {
    blocks.last().map_or(0, |(_, _, packed)| packed.payload.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mostly_dead_segments_are_chosen_and_small_ones_when_there_are_two() {
        let rows = [
            ("full", vec![(1, 1000, 1000)], vec![]),
            ("half live", vec![(1, 1000, 500)], vec![]),
            ("less than half live", vec![(1, 1000, 499)], vec![1]),
            ("all dead", vec![(1, 1000, 0)], vec![1]),
            ("one small", vec![(1, 100, 100)], vec![]),
            ("two small", vec![(1, 100, 100), (2, 1000, 900), (3, 100, 90)], vec![1, 3]),
        ];
        for (kind, segments, chosen) in rows {
            let sealed = segments.iter().map(|(number, len, _)| (*number, *len)).collect();
            let live = segments.iter().map(|(number, _, live)| (*number, *live)).collect();
            assert_eq!(choose(&sealed, &live, 1000, 50), chosen, "{kind}");
        }
    }
}

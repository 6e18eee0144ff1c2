//! From a folder, whatever its last process left in it, to a log that ends cleanly and an index that has
//! read all of it.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::crash;
use crate::index::{Index, IndexError};
use crate::log::own_record;
use crate::names::{Place, StoreId};
use crate::replay::{self, Damage, Replay, ReplayError};
use crate::scan::Found;
use crate::segment::{PayloadSum, RECORD_HEADER_LEN, Record, SEGMENT_HEADER_LEN, Subject};
use crate::segments::{self, Known, Segments, SegmentsError};

/// A log that ends cleanly, and what belongs to it.
pub(crate) struct Recovered {
    pub(crate) segments: Arc<Segments>,
    pub(crate) index: Arc<Index>,
    pub(crate) damage: Vec<Damage>,
    pub(crate) next_segment: u64,
    pub(crate) next_tick: u64,
}

/// Why a folder could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoverError {
    #[error(transparent)]
    Segments(#[from] SegmentsError),
    #[error("read the log")]
    Log(#[from] io::Error),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("read the log into the index")]
    Replay(#[from] ReplayError),
}

/// Makes the log in `log` end cleanly and the index in `index` tell the truth about it.
pub(crate) fn recover(
    log: &Path,
    index_dir: &Path,
    store: StoreId,
    catalog: &Arc<dyn Replay>,
) -> Result<Recovered, RecoverError> {
    let (segments, headers) = Segments::open(log, store)?;
    let mut damage: Vec<Damage> = headers.iter().map(|segment| Damage::Header { segment: *segment }).collect();
    let usable = usable_index(index_dir, store, catalog, &segments);
    let watermark = usable.as_ref().map(|(_, watermark)| *watermark);
    let last = segments.all().last().map(|(number, known)| (*number, *known));
    let sealed_tick = match last {
        // A writer syncs a header before anything else: without it this is no tail but damage, or not ours.
        Some((number, known)) if !headers.contains(&number) => {
            end_cleanly(&segments, number, known, watermark, &mut damage)?
        }
        Some(_) | None => 1,
    };
    let index = match usable {
        Some((index, watermark)) => match replay::catch_up(&segments, &index, catalog, watermark) {
            Ok(met) => {
                damage.extend(met.into_iter().filter(|met| !damage.contains(met)).collect::<Vec<_>>());
                Some(index)
            }
            Err(error) => {
                tracing::warn!(%error, "the index does not follow the log: it is rebuilt");
                None
            }
        },
        None => None,
    };
    let index = match index {
        Some(index) => index,
        None => {
            let (index, met) = rebuild(index_dir, store, catalog, &segments)?;
            damage.extend(met.into_iter().filter(|met| !damage.contains(met)).collect::<Vec<_>>());
            index
        }
    };
    delete_retired(&segments, &index, &mut damage)?;
    let next_segment = segments.all().last().map_or(0, |(number, _)| *number).max(last_retired(&index)?) + 1;
    let next_tick = (index.applied()? + 1).max(sealed_tick);
    for damage in &damage {
        tracing::error!("{damage}: run `hawser-store scrub` to see which objects it hurts");
    }
    Ok(Recovered { segments: Arc::new(segments), index: Arc::new(index), damage, next_segment, next_tick })
}

/// The index and up to where it has read, if it is of this log.
fn usable_index(dir: &Path, store: StoreId, catalog: &Arc<dyn Replay>, segments: &Segments) -> Option<(Index, Place)> {
    if !dir.exists() {
        return None;
    }
    let look = || {
        let index = Index::open(dir, catalog.families())?;
        let ours = index.is_of(store, catalog.schema())?;
        let watermark = index.watermark()?.unwrap_or(Place { segment: 0, offset: 0 });
        Ok::<_, IndexError>((index, ours, watermark))
    };
    match look() {
        Ok((index, true, watermark)) => {
            let known = segments.get(watermark.segment).is_some_and(|known| watermark.offset <= known.len);
            let all = segments.all();
            // A watermark within a segment that the sweep has deleted since: what follows is in later ones.
            let passed = all.last().is_some_and(|(number, _)| *number > watermark.segment);
            let nothing = watermark.segment == 0;
            if known || nothing || passed && segments.get(watermark.segment).is_none() {
                return Some((index, watermark));
            }
            tracing::warn!("the index has read further than the log goes: it is rebuilt");
            None
        }
        Ok((_, false, _)) => {
            tracing::info!("the index is of another release: it is rebuilt");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "the index does not open: it is rebuilt");
            None
        }
    }
}

fn rebuild(
    dir: &Path,
    store: StoreId,
    catalog: &Arc<dyn Replay>,
    segments: &Segments,
) -> Result<(Index, Vec<Damage>), RecoverError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let index = Index::open(dir, catalog.families())?;
    crash::point("rebuild-begun");
    let damage = replay::rebuild(segments, &index, catalog, store)?;
    Ok((index, damage))
}

/// Cuts what the last writer left half done at the end of the log and seals it. Answers the tick that
/// follows, as far as the last segment knows.
fn end_cleanly(
    segments: &Segments,
    number: u64,
    known: Known,
    durable: Option<Place>,
    damage: &mut Vec<Damage>,
) -> io::Result<u64> {
    let path = segments.path(number);
    let file = Arc::new(File::options().read(true).write(true).open(&path)?);
    if let Some(next_tick) = seal_of(segments, number, known.len, &file)? {
        return Ok(next_tick);
    }
    let mut tail = Tail::new(number, durable);
    let mut scan = segments.scan(Place { segment: number, offset: 0 }).map_err(io::Error::other)?;
    while let Some(found) = scan.next()? {
        tail.see(found);
    }
    if tail.end < known.len {
        tracing::warn!(segment = number, bytes = known.len - tail.end, "what was not acknowledged is cut off the log");
        file.set_len(tail.end)?;
        file.sync_all()?;
    }
    crash::point("tail-cut");
    damage.extend(tail.damage);
    let first_tick = segments::read_header(&path)?.map_or(1, |header| header.first_tick);
    let next_tick = tail.last_tick.map_or(first_tick, |tick| tick + 1);
    let seal = own_record(None, Subject::Seal { records: tail.records, next_tick, len: tail.end }, 0);
    let place = Place { segment: number, offset: tail.end };
    file.write_all_at(&seal.encode(PayloadSum::of(&[]), &segments.seat(place)), tail.end)?;
    file.sync_all()?;
    crash::point("tail-sealed");
    segments.set(number, Known { len: tail.end + seal.len(), sealed: true });
    Ok(next_tick)
}

/// The next tick as the seal says; `None` when the segment has no seal.
fn seal_of(segments: &Segments, number: u64, len: u64, file: &File) -> io::Result<Option<u64>> {
    let Some(offset) = len.checked_sub(RECORD_HEADER_LEN as u64).filter(|at| *at >= SEGMENT_HEADER_LEN as u64) else {
        return Ok(None);
    };
    let mut header = [0; RECORD_HEADER_LEN];
    file.read_exact_at(&mut header, offset)?;
    let whole = segments.seat(Place { segment: number, offset }).is_whole(&header, &[]);
    match Record::decode(&header) {
        Ok(Record { subject: Subject::Seal { next_tick, .. }, .. }) if whole => Ok(Some(next_tick)),
        _ => Ok(None),
    }
}

/// The rule of the tail: where it ends, and what before its end is damage.
struct Tail {
    segment: u64,
    /// Up to here the index has read: it was durable.
    durable: u64,
    /// Behind the last record that is kept.
    end: u64,
    records: u64,
    last_tick: Option<u64>,
    damage: Vec<Damage>,
    /// From the first bytes that may be torn on: those and everything behind them, undecided.
    undecided: VecDeque<Seen>,
}

/// A stretch of the tail.
struct Seen {
    offset: u64,
    len: u64,
    whole: bool,
    /// Of an entry that was written here, not moved here.
    tick: Option<u64>,
}

impl Tail {
    fn new(segment: u64, durable: Option<Place>) -> Tail {
        let durable = durable.filter(|place| place.segment == segment).map_or(0, |place| place.offset);
        let end = SEGMENT_HEADER_LEN as u64;
        Tail { segment, durable, end, records: 0, last_tick: None, damage: Vec::new(), undecided: VecDeque::new() }
    }

    fn see(&mut self, found: Found) {
        let seen = match found {
            Found::Damaged { offset, len } => Seen { offset, len, whole: false, tick: None },
            Found::Whole { offset, record, .. } => {
                let mut tick = None;
                if let Subject::Entry { tick: its, durable } = record.subject
                    && !record.moved
                {
                    tick = Some(its);
                    self.durable = self.durable.max(durable);
                }
                Seen { offset, len: record.len(), whole: true, tick }
            }
        };
        self.undecided.push_back(seen);
        self.decide();
    }

    /// Takes into the log whatever is whole with nothing torn before it. What is not whole and was
    /// durable once is not torn but damaged, and stands in nobody's way.
    fn decide(&mut self) {
        while let Some(seen) = self.undecided.front()
            && (seen.whole || seen.offset < self.durable)
        {
            if seen.whole {
                self.records += 1;
                self.last_tick = seen.tick.or(self.last_tick);
            } else {
                let place = Place { segment: self.segment, offset: seen.offset };
                self.damage.push(Damage::Bytes { place, len: seen.len });
            }
            self.end = seen.offset + seen.len;
            self.undecided.pop_front();
        }
    }
}

/// Deletes the files of segments that are retired, and says which are missing though they never were.
fn delete_retired(segments: &Segments, index: &Index, damage: &mut Vec<Damage>) -> Result<(), RecoverError> {
    let retired = index.retired()?;
    for number in &retired {
        if segments.get(*number).is_some() {
            tracing::info!(segment = number, "a retired segment is deleted");
            segments.delete(*number)?;
        }
    }
    let highest = segments.all().last().map_or(0, |(number, _)| *number);
    for number in 1..highest {
        if segments.get(number).is_none() && !retired.contains(&number) {
            damage.push(Damage::Segment { segment: number });
        }
    }
    Ok(())
}

fn last_retired(index: &Index) -> Result<u64, IndexError> {
    Ok(index.retired()?.last().copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;

    use super::*;
    use crate::names::{BlockName, DomainId};
    use crate::segment::Packing;

    fn block(offset: u64) -> Found {
        let subject = Subject::Block { name: BlockName::from_bytes([1; 32]) };
        whole(offset, subject)
    }

    fn entry(offset: u64, tick: u64, durable: u64) -> Found {
        whole(offset, Subject::Entry { tick, durable })
    }

    fn whole(offset: u64, subject: Subject) -> Found {
        let (packing, moved) = (Packing::Plain, false);
        let record = Record { domain: DomainId::new(1), subject, packing, moved, raw_len: 20, stored_len: 20 };
        Found::Whole { offset, record, payload: Bytes::new() }
    }

    fn bad(offset: u64) -> Found {
        Found::Damaged { offset, len: 100 }
    }

    #[test]
    fn only_what_was_never_durable_is_cut() {
        // Every record is of 100 bytes.
        let rows = [
            ("nothing", None, vec![], 64, None, 0),
            ("all whole", None, vec![block(64), entry(164, 1, 0)], 264, Some(1), 0),
            ("torn end", None, vec![block(64), entry(164, 1, 0), bad(264)], 264, Some(1), 0),
            ("torn middle", None, vec![block(64), bad(164), entry(264, 1, 64)], 164, None, 0),
            ("an entry knows it was durable", None, vec![bad(64), block(164), entry(264, 2, 264)], 364, Some(2), 1),
            ("the index knows it", Some(200), vec![bad(64), entry(164, 1, 0)], 264, Some(1), 1),
            (
                "one durable, one torn",
                None,
                vec![bad(64), entry(164, 1, 164), bad(264), entry(364, 2, 164)],
                264,
                Some(1),
                1,
            ),
            ("two of one group", Some(300), vec![bad(64), bad(164), entry(264, 3, 0)], 364, Some(3), 2),
            (
                "durable and torn before one entry",
                None,
                vec![bad(64), block(164), bad(264), entry(364, 2, 164)],
                264,
                None,
                1,
            ),
        ];
        for (trap, durable, found, end, last_tick, damage) in rows {
            let durable = durable.map(|offset| Place { segment: 9, offset });
            let mut tail = Tail::new(9, durable);
            found.into_iter().for_each(|found| tail.see(found));
            assert_eq!((tail.end, tail.last_tick, tail.damage.len()), (end, last_tick, damage), "{trap}");
        }
    }
}

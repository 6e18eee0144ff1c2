//! The floor of free space, below which the store takes no new content.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, io};

/// How old an answer about free space may be: 200 ms of writing at 1 GiB/s are a fifth of the floor.
const ANSWER_AGE_MAX: Duration = Duration::from_millis(200);

/// Entries of no more than this are taken down to half the floor: deletes, gaps, the end of an intent.
pub(crate) const SMALL_ENTRY_LEN: usize = 64 * 1024;

/// What a volume has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Bytes that may still be written.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Asks a volume how much room it has.
pub type Probe = Arc<dyn Fn() -> io::Result<Volume> + Send + Sync>;

/// The room that is left on the volume of the store.
pub(crate) struct Space {
    probe: Probe,
    floor: Option<u64>,
    last: Mutex<Option<(Instant, Volume)>>,
}

/// There is no room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the volume has {free} bytes free and {floor} are kept: make room, nothing else is needed")]
pub struct Full {
    /// Bytes free.
    pub free: u64,
    /// The floor.
    pub floor: u64,
}

impl Space {
    /// Of the volume of `dir`, with this floor, or 1 GiB or 1 % of the volume, where that is more.
    pub(crate) fn new(dir: &Path, floor: Option<u64>, probe: Option<Probe>) -> Space {
        Space { probe: probe.unwrap_or_else(|| statvfs(dir.to_owned())), floor, last: Mutex::new(None) }
    }

    /// Whether content may be taken.
    pub(crate) fn for_content(&self) -> Result<(), Full> {
        self.above(1)
    }

    /// Whether an entry of `len` bytes may be taken.
    pub(crate) fn for_entry(&self, len: usize) -> Result<(), Full> {
        self.above(if len <= SMALL_ENTRY_LEN { 2 } else { 1 })
    }

    /// The volume, as of a moment ago, and the floor.
    pub(crate) fn now(&self) -> Option<(Volume, u64)> {
        let volume = self.volume()?;
        Some((volume, self.floor_of(volume)))
    }

    fn above(&self, part_of_floor: u64) -> Result<(), Full> {
        // A volume that does not answer refuses the write itself if it must.
        let Some((volume, floor)) = self.now() else { return Ok(()) };
        if volume.free >= floor / part_of_floor { Ok(()) } else { Err(Full { free: volume.free, floor }) }
    }

    fn floor_of(&self, volume: Volume) -> u64 {
        self.floor.unwrap_or_else(|| (1 << 30).max(volume.total / 100))
    }

    fn volume(&self) -> Option<Volume> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((asked, volume)) = *last
            && asked.elapsed() < ANSWER_AGE_MAX
        {
            return Some(volume);
        }
        match (self.probe)() {
            Ok(volume) => {
                *last = Some((Instant::now(), volume));
                Some(volume)
            }
            Err(error) => {
                tracing::warn!(%error, "the volume does not tell its free space");
                None
            }
        }
    }
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Space").field("floor", &self.floor).finish_non_exhaustive()
    }
}

fn statvfs(dir: PathBuf) -> Probe {
    Arc::new(move || {
        let volume = rustix::fs::statvfs(&dir)?;
        let bytes = |blocks: u64| blocks.saturating_mul(volume.f_frsize);
        Ok(Volume { free: bytes(volume.f_bavail), total: bytes(volume.f_blocks) })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn small_entries_go_on_where_content_is_refused() {
        let rows = [
            // free, content, large entry, small entry
            (2 << 30, true, true, true),
            (1 << 30, true, true, true),
            ((1 << 30) - 1, false, false, true),
            (1 << 29, false, false, true),
            ((1 << 29) - 1, false, false, false),
        ];
        for (free, content, large, small) in rows {
            let probe: Probe = Arc::new(move || Ok(Volume { free, total: 10 << 30 }));
            let space = Space::new(Path::new("/"), None, Some(probe));
            assert_eq!(space.for_content().is_ok(), content, "content with {free} free");
            assert_eq!(space.for_entry(SMALL_ENTRY_LEN + 1).is_ok(), large, "large entry with {free} free");
            assert_eq!(space.for_entry(100).is_ok(), small, "small entry with {free} free");
        }
    }

    #[test]
    fn the_floor_grows_with_the_volume_unless_it_is_set() {
        let probe: Probe = Arc::new(|| Ok(Volume { free: 5 << 30, total: 1000 << 30 }));
        let space = Space::new(Path::new("/"), None, Some(Arc::clone(&probe)));
        assert_eq!(space.for_content(), Err(Full { free: 5 << 30, floor: 10 << 30 }));
        assert!(Space::new(Path::new("/"), Some(1), Some(probe)).for_content().is_ok());
        assert!(Space::new(Path::new("/"), Some(0), None).now().unwrap().0.total > 0);
    }
}

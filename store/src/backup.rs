//! A consistent copy of a running store, in a folder that is itself a store.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::crash;
use crate::folder;
use crate::log::Closed;
use crate::segments;
use crate::store::Store;

/// What a backup did. `backup.json` of the target holds the last one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedUp {
    /// Every entry up to this tick is in the backup.
    pub tick: u64,
    /// Segments in the backup.
    pub segments: Vec<u64>,
    /// Segments copied this time.
    pub copied: u64,
    /// Bytes copied this time.
    pub copied_len: u64,
    /// Segments deleted from the target, which the store had retired.
    pub deleted: u64,
}

/// Why a backup stopped. What the target held before is all still there.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The target holds another store's segments.
    #[error("{dir} holds segments of another store: choose an empty folder")]
    Foreign {
        /// The target.
        dir: PathBuf,
    },
    /// The log is closed.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// A file could not be read or written.
    #[error("copy to {path}")]
    Io {
        /// The target.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Store {
    /// Copies into `to` what it lacks of this store, up to now. Blocks this thread, which must not be one of
    /// an async runtime; commits go on.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn backup(&self, to: &Path) -> Result<BackedUp, BackupError> {
        let _alone = self.maintenance(); // no segment is retired meanwhile
        let log = to.join("log");
        let io_error = |path: &Path| {
            let path = path.to_owned();
            move |source| BackupError::Io { path, source }
        };
        fs::create_dir_all(&log).map_err(io_error(&log))?;
        let core = self.core();
        let old = segments::numbers(&log).map_err(io_error(&log))?;
        for number in &old {
            let path = log.join(segments::file_name(*number));
            let header = segments::read_header(&path).map_err(io_error(&path))?;
            if !header.is_ok_and(|header| header.store == core.keys.store) {
                return Err(BackupError::Foreign { dir: to.to_owned() });
            }
        }
        let tick = *self.durable().borrow();
        self.seal()?;
        let sealed: Vec<_> = core.segments.all().into_iter().filter(|(_, known)| known.sealed).collect();
        let numbers: Vec<u64> = sealed.iter().map(|(number, _)| *number).collect();
        let mut done = BackedUp { tick, segments: numbers.clone(), copied: 0, copied_len: 0, deleted: 0 };
        core.keys.write(to).map_err(io_error(&to.join("keys")))?;
        for (number, known) in sealed {
            let path = log.join(segments::file_name(number));
            if fs::metadata(&path).is_ok_and(|there| there.len() == known.len) {
                continue;
            }
            copy(&core.segments.path(number), &path).map_err(io_error(&path))?;
            crash::point("backup-copied");
            done.copied += 1;
            done.copied_len += known.len;
        }
        folder::sync(&log).map_err(io_error(&log))?;
        done.deleted = old.iter().filter(|number| !numbers.contains(number)).count() as u64;
        let note = to.join("backup.json");
        let text = serde_json::to_string(&done).expect("numbers are JSON");
        write(&note, &text).map_err(io_error(&note))?;
        for number in old.iter().filter(|number| !numbers.contains(number)) {
            let path = log.join(segments::file_name(*number));
            fs::remove_file(&path).map_err(io_error(&path))?;
        }
        // An index that the backup was opened with is older than its log now; it catches up or is rebuilt.
        folder::sync(&log).map_err(io_error(&log))?;
        Ok(done)
    }
}

/// Copies a file: whole under its name, or not there.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let temporary = to.with_extension("new");
    fs::copy(from, &temporary)?;
    File::open(&temporary)?.sync_all()?;
    fs::rename(&temporary, to)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    fs::write(&temporary, text)?;
    File::open(&temporary)?.sync_all()?;
    fs::rename(&temporary, path)?;
    folder::sync(path.parent().unwrap_or(Path::new(".")))
}

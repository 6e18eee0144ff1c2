//! The folder of a store: its paths, and the lock that keeps a second process out.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// A folder that this process, and no other, has open.
pub(crate) struct Folder {
    dir: PathBuf,
    _lock: File, // the lock goes with the descriptor, however the process ends
}

/// Why a folder could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process has it.
    #[error("{dir} is in use by another process: stop it, or talk to it through {dir}/admin.sock")]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// The file system refused.
    #[error("{path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Folder {
    /// Makes the folder where it is not there, and takes its lock.
    pub(crate) fn open(dir: &Path) -> Result<Folder, FolderError> {
        let io_error = |path: PathBuf| move |source| FolderError::Io { path, source };
        fs::create_dir_all(dir.join("log")).map_err(io_error(dir.join("log")))?;
        let path = dir.join("lock");
        let lock =
            File::options().create(true).truncate(false).write(true).open(&path).map_err(io_error(path.clone()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FolderError::InUse { dir: dir.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(FolderError::Io { path, source }),
        }
        sync(dir).map_err(io_error(dir.to_owned()))?;
        Ok(Folder { dir: dir.to_owned(), _lock: lock })
    }

    /// The folder itself.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the segments are.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Where the index is.
    pub(crate) fn index(&self) -> PathBuf {
        self.dir.join("index")
    }
}

/// Makes the names in `dir` durable.
pub(crate) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_folder_is_opened_once_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::open(dir.path()).unwrap();
        assert!(matches!(Folder::open(dir.path()), Err(FolderError::InUse { .. })));
        drop(first);
        Folder::open(dir.path()).unwrap();
    }
}

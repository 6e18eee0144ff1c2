//! A file that is there whole or not at all: written under another name beside its place, then renamed.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// A file on its way. Dropped before [`Landing::land`], it leaves nothing.
pub(crate) struct Landing {
    file: File,
    written: PathBuf,
    place: PathBuf,
    landed: bool,
}

impl Landing {
    /// Begins a file that will be at `place`.
    pub(crate) fn begin(place: &Path) -> Result<Landing, Failure> {
        let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let written = folder.join(format!(".hawser-{}", uuid::Uuid::new_v4().simple()));
        let file =
            OpenOptions::new().write(true).create_new(true).open(&written).map_err(Failure::file("write", &written))?;
        Ok(Landing { file, written, place: place.to_owned(), landed: false })
    }

    /// Adds bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(Failure::file("write", &self.place))
    }

    /// Gives the file its name, once its bytes are on the disk; replaces a file that has it.
    pub(crate) fn land(mut self) -> Result<(), Failure> {
        self.file.sync_all().map_err(Failure::file("write", &self.place))?;
        fs::rename(&self.written, &self.place).map_err(Failure::file("write", &self.place))?;
        self.landed = true;
        Ok(())
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if !self.landed {
            let _ = fs::remove_file(&self.written); // a name nobody knows; there is no one to tell
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a");
        fs::write(&place, "before").unwrap();
        let mut landing = Landing::begin(&place).unwrap();
        landing.write(b"half").unwrap();
        drop(landing);
        assert_eq!(fs::read(&place).unwrap(), b"before");
        let mut landing = Landing::begin(&place).unwrap();
        landing.write(b"whole").unwrap();
        landing.land().unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"whole");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

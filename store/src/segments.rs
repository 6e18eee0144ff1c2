//! The segment files of a store: which there are, and reading records out of them by place.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;

use crate::crash;
use crate::folder;
use crate::names::{Place, StoreId};
use crate::scan::Scan;
use crate::segment::{BadBytes, RECORD_HEADER_LEN, Record, SEGMENT_HEADER_LEN, Seat, SegmentHeader};

/// Descriptors kept open for reading: a TiB of segments is 4 096 files, and a process may often have
/// no more than 1 024. At the bound the one longest unused is closed.
const OPEN_FILES_MAX: usize = 256;

/// The segments in `DIR/log`.
pub(crate) struct Segments {
    log: PathBuf,
    store: StoreId,
    known: RwLock<BTreeMap<u64, Known>>,
    open: Mutex<OpenFiles>,
}

/// What is known of one segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// Bytes of the file, header and seal included; for the one being written, those written.
    pub(crate) len: u64,
    /// Nothing is written to it any more.
    pub(crate) sealed: bool,
}

#[derive(Default)]
struct OpenFiles {
    files: HashMap<u64, (Arc<File>, u64)>,
    uses: u64,
}

/// Why a record could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The domain has no such block.
    #[error("the domain has no block {hash}")]
    Unknown {
        /// The hash that was asked for.
        hash: hawser_api::BlockHash,
    },
    /// The segment that should hold it is not there.
    #[error("segment {segment} is not in {log}: put the file back, or run `hawser-store scrub` to see what it held")]
    Missing {
        /// Its number.
        segment: u64,
        /// The folder of segments.
        log: PathBuf,
    },
    /// What is there is not what was written.
    #[error("{place} is damaged ({what}): run `hawser-store scrub` to see which objects it hurts")]
    Damaged {
        /// Where.
        place: Place,
        /// How it shows.
        what: &'static str,
    },
    /// The file could not be read.
    #[error("read {place}")]
    Io {
        /// Where.
        place: Place,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The index could not be read.
    #[error(transparent)]
    Index(#[from] crate::index::IndexError),
}

/// Why the segments could not be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SegmentsError {
    /// A later release wrote one: nothing is touched.
    #[error(
        "{path} has format version {version}, which this release does not know: open the store with the release that wrote it"
    )]
    Version { path: PathBuf, version: u16 },
    #[error("read the log")]
    Io(#[from] io::Error),
}

impl Segments {
    /// The segments in `log`, which must exist. A highest file without a whole header was being made
    /// when its writer died and is removed; any other file whose header is not whole, or is another
    /// store's, is damage, and its number is in the answer.
    pub(crate) fn open(log: &Path, store: StoreId) -> Result<(Segments, Vec<u64>), SegmentsError> {
        let mut found = numbers(log)?;
        let mut known = BTreeMap::new();
        let mut damaged = Vec::new();
        if let Some(&highest) = found.last() {
            let path = log.join(file_name(highest));
            let born = fs::metadata(&path)?.len() <= SEGMENT_HEADER_LEN as u64;
            if born && read_header(&path)?.is_err() {
                fs::remove_file(&path)?;
                folder::sync(log)?;
                found.pop();
            }
        }
        for number in found {
            let path = log.join(file_name(number));
            match read_header(&path)? {
                Ok(header) if header.store == store && header.number == number => {}
                Err(BadBytes::Version(version)) => return Err(SegmentsError::Version { path, version }),
                Ok(_) | Err(_) => damaged.push(number),
            }
            let len = fs::metadata(&path)?.len();
            known.insert(number, Known { len, sealed: true });
        }
        let open = Mutex::default();
        Ok((Segments { log: log.to_owned(), store, known: RwLock::new(known), open }, damaged))
    }

    /// Makes segment `number`: durable in its folder, with its header, before this returns.
    pub(crate) fn create(&self, number: u64, first_tick: u64) -> io::Result<Arc<File>> {
        let path = self.path(number);
        let mut file = File::options().create_new(true).read(true).write(true).open(&path)?;
        crash::point("segment-created");
        file.write_all(&SegmentHeader { store: self.store, number, first_tick }.encode())?;
        file.sync_all()?;
        folder::sync(&self.log)?;
        crash::point("segment-begun");
        let file = Arc::new(file);
        self.write_known().insert(number, Known { len: SEGMENT_HEADER_LEN as u64, sealed: false });
        self.keep_open(number, &file);
        Ok(file)
    }

    /// Says how long a segment is now.
    pub(crate) fn set(&self, number: u64, known: Known) {
        self.write_known().insert(number, known);
    }

    /// Deletes a segment that has been retired. Readers that have it open read on.
    pub(crate) fn delete(&self, number: u64) -> io::Result<()> {
        self.write_known().remove(&number);
        self.lock_open().files.remove(&number);
        match fs::remove_file(self.path(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        crash::point("segment-deleted");
        folder::sync(&self.log)
    }

    /// All segments, in order.
    pub(crate) fn all(&self) -> Vec<(u64, Known)> {
        self.read_known().iter().map(|(number, known)| (*number, *known)).collect()
    }

    /// What is known of one segment; `None` when it is not there.
    pub(crate) fn get(&self, number: u64) -> Option<Known> {
        self.read_known().get(&number).copied()
    }

    /// The path of a segment's file.
    pub(crate) fn path(&self, number: u64) -> PathBuf {
        self.log.join(file_name(number))
    }

    /// A segment's file, open for reading.
    pub(crate) fn file(&self, number: u64) -> Result<Arc<File>, ReadError> {
        {
            let mut open = self.lock_open();
            open.uses += 1;
            let uses = open.uses;
            if let Some((file, used)) = open.files.get_mut(&number) {
                *used = uses;
                return Ok(Arc::clone(file));
            }
        }
        match File::open(self.path(number)) {
            Ok(file) => {
                let file = Arc::new(file);
                self.keep_open(number, &file);
                Ok(file)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(ReadError::Missing { segment: number, log: self.log.clone() })
            }
            Err(source) => Err(ReadError::Io { place: Place { segment: number, offset: 0 }, source }),
        }
    }

    /// The record at `place`, whose payload has `stored_len` bytes as the index remembers; its checksum
    /// is compared.
    pub(crate) fn read(&self, place: Place, stored_len: u32) -> Result<(Record, Bytes), ReadError> {
        let file = self.file(place.segment)?;
        let mut bytes = vec![0; RECORD_HEADER_LEN + stored_len as usize];
        file.read_exact_at(&mut bytes, place.offset).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => ReadError::Damaged { place, what: "the segment ends before it" },
            _ => ReadError::Io { place, source },
        })?;
        let bytes = Bytes::from(bytes);
        let payload = bytes.slice(RECORD_HEADER_LEN..);
        let Some(header) = bytes.first_chunk() else {
            return Err(ReadError::Damaged { place, what: "no header" });
        };
        let record = Record::decode(header).map_err(|_| ReadError::Damaged { place, what: "no header there" })?;
        if record.stored_len != stored_len || !self.seat(place).is_whole(header, &payload) {
            return Err(ReadError::Damaged { place, what: "checksum differs" });
        }
        Ok((record, payload))
    }

    /// The records of a segment from `place` on.
    pub(crate) fn scan(&self, place: Place) -> Result<Scan, ReadError> {
        let file = self.file(place.segment)?;
        Scan::new(file, self.store, place.segment, place.offset).map_err(|source| ReadError::Io { place, source })
    }

    /// What the checksum of a record at `place` is bound to.
    pub(crate) fn seat(&self, place: Place) -> Seat {
        Seat { store: self.store, place }
    }

    fn keep_open(&self, number: u64, file: &Arc<File>) {
        let mut open = self.lock_open();
        open.uses += 1;
        let uses = open.uses;
        open.files.insert(number, (Arc::clone(file), uses));
        if open.files.len() > OPEN_FILES_MAX
            && let Some(oldest) = open.files.iter().min_by_key(|(_, (_, used))| *used).map(|(number, _)| *number)
        {
            open.files.remove(&oldest);
        }
    }

    // A panic elsewhere leaves these maps whole: each change is one insert or remove.
    fn read_known(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<u64, Known>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_known(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<u64, Known>> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_open(&self) -> std::sync::MutexGuard<'_, OpenFiles> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The header of the segment file at `path`.
pub(crate) fn read_header(path: &Path) -> io::Result<Result<SegmentHeader, BadBytes>> {
    let mut bytes = [0; SEGMENT_HEADER_LEN];
    match File::open(path)?.read_exact_at(&mut bytes, 0) {
        Ok(()) => Ok(SegmentHeader::decode(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Err(BadBytes::Magic)),
        Err(error) => Err(error),
    }
}

/// The numbers of the segment files in `log`, in order.
pub(crate) fn numbers(log: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(log)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".seg")).and_then(|number| number.parse().ok());
        if let Some(number) = number
            && *file_name(number) == *name
        {
            found.push(number);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The name of a segment's file.
pub(crate) fn file_name(number: u64) -> String {
    format!("{number:010}.seg")
}

//! Reading a segment from one end to the other, past damage.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::names::{Place, StoreId};
use crate::segment::{RECORD_HEADER_LEN, RECORD_START, Record, SEGMENT_HEADER_LEN, Seat, Subject};

/// Bytes read at once: whole small records come in one call, and a block of 8 MiB in a few.
const READ_LEN: usize = 1024 * 1024;

/// The records of one segment file, in order, up to its seal.
pub(crate) struct Scan {
    file: Arc<File>,
    store: StoreId,
    segment: u64,
    at: u64,
    end: u64,
    buffer: BytesMut, // begins at `at`
    sealed: bool,
}

/// What stands at a place.
#[derive(Debug)]
pub(crate) enum Found {
    /// A record whose checksum is right.
    Whole {
        /// Where it begins.
        offset: u64,
        /// Its header.
        record: Record,
        /// Its payload.
        payload: Bytes,
    },
    /// Bytes that are no record, up to the next one that is, or to the end.
    Damaged {
        /// Where they begin.
        offset: u64,
        /// How many.
        len: u64,
    },
}

impl Scan {
    /// Segment `segment` from `offset`, where a record begins.
    pub(crate) fn new(file: Arc<File>, store: StoreId, segment: u64, offset: u64) -> io::Result<Scan> {
        let end = file.metadata()?.len();
        let at = offset.max(SEGMENT_HEADER_LEN as u64);
        Ok(Scan { file, store, segment, at, end, buffer: BytesMut::new(), sealed: false })
    }

    /// What stands next; `None` at the end. The seal is answered like any record and is the last.
    pub(crate) fn next(&mut self) -> io::Result<Option<Found>> {
        if self.at >= self.end {
            return Ok(None);
        }
        if self.sealed {
            let rest = self.end - self.at;
            return Ok(Some(self.damaged(rest))); // nothing may follow a seal
        }
        if let Some(record) = self.record_at(0)? {
            let offset = self.at;
            let mut bytes = self.take(record.len() as usize);
            let payload = bytes.split_off(RECORD_HEADER_LEN);
            self.sealed = matches!(record.subject, Subject::Seal { .. });
            return Ok(Some(Found::Whole { offset, record, payload }));
        }
        let len = self.damage_len()?;
        Ok(Some(self.damaged(len)))
    }

    /// The whole record that begins `ahead` bytes from here, if one does.
    fn record_at(&mut self, ahead: usize) -> io::Result<Option<Record>> {
        if !self.fill(ahead + RECORD_HEADER_LEN)? {
            return Ok(None);
        }
        let Some(Ok(record)) = self.buffer[ahead..].first_chunk().map(Record::decode) else { return Ok(None) };
        if !self.fill(ahead + record.len() as usize)? {
            return Ok(None);
        }
        let (header, rest) = self.buffer[ahead..].split_at(RECORD_HEADER_LEN);
        let place = Place { segment: self.segment, offset: self.at + ahead as u64 };
        let seat = Seat { store: self.store, place };
        let whole =
            header.first_chunk().is_some_and(|header| seat.is_whole(header, &rest[..record.stored_len as usize]));
        Ok(whole.then_some(record))
    }

    /// How many bytes from here are no record.
    fn damage_len(&mut self) -> io::Result<u64> {
        let mut skipped = 0u64; // bytes searched and let go of
        let from = self.at;
        let mut ahead = 1;
        loop {
            if !self.fill(ahead + RECORD_START.len())? {
                let len = self.end - from;
                self.at = from;
                self.buffer.clear();
                return Ok(len);
            }
            let start = self.buffer[ahead..].windows(RECORD_START.len()).position(|bytes| bytes == RECORD_START);
            match start {
                Some(start) => {
                    ahead += start;
                    if self.record_at(ahead)?.is_some() {
                        let len = skipped + ahead as u64;
                        self.at = from;
                        self.buffer.clear(); // rare: read again
                        return Ok(len);
                    }
                    ahead += 1;
                }
                None => {
                    let searched = self.buffer.len() - (RECORD_START.len() - 1);
                    self.take(searched);
                    skipped += searched as u64;
                    ahead = 0;
                }
            }
        }
    }

    fn damaged(&mut self, len: u64) -> Found {
        let offset = self.at;
        self.at += len;
        self.buffer.clear();
        Found::Damaged { offset, len }
    }

    fn take(&mut self, len: usize) -> Bytes {
        self.at += len as u64;
        self.buffer.split_to(len).freeze()
    }

    /// Has at least `len` bytes in the buffer; false when the file has not so many.
    fn fill(&mut self, len: usize) -> io::Result<bool> {
        if self.buffer.len() >= len {
            return Ok(true);
        }
        if self.at + len as u64 > self.end {
            return Ok(false);
        }
        let have = self.buffer.len();
        let left = self.end - self.at;
        let want = len.max(READ_LEN).min(usize::try_from(left).unwrap_or(usize::MAX));
        self.buffer.resize(want, 0);
        let read = self.file.read_exact_at(&mut self.buffer[have..], self.at + have as u64);
        match read {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.buffer.truncate(have); // cut behind our back: as if it had ended here
                self.end = self.at + have as u64;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::names::{BlockName, DomainId};
    use crate::segment::{Packing, PayloadSum};

    const STORE: StoreId = StoreId([9; 16]);

    /// A record for `at` bytes behind the segment's header.
    fn record(at: usize, seed: u8, len: usize) -> Vec<u8> {
        let place = Place { segment: 5, offset: (SEGMENT_HEADER_LEN + at) as u64 };
        let payload: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
        let header = Record {
            domain: DomainId::new(1),
            subject: Subject::Block { name: BlockName::from_bytes([seed; 32]) },
            packing: Packing::Plain,
            moved: false,
            raw_len: len as u32,
            stored_len: len as u32,
        }
        .encode(PayloadSum::of(&payload), &Seat { store: STORE, place });
        [&header[..], &payload].concat()
    }

    fn scan(bytes: &[u8]) -> Vec<Found> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[0; SEGMENT_HEADER_LEN]).unwrap();
        file.write_all(bytes).unwrap();
        let mut scan = Scan::new(Arc::new(file), STORE, 5, 0).unwrap();
        let mut all = Vec::new();
        while let Some(found) = scan.next().unwrap() {
            all.push(found);
        }
        all
    }

    fn whole_names(found: &[Found]) -> Vec<u8> {
        let name = |found: &Found| match found {
            Found::Whole { record: Record { subject: Subject::Block { name }, .. }, .. } => Some(name.as_bytes()[0]),
            _ => None,
        };
        found.iter().filter_map(name).collect()
    }

    #[test]
    fn records_behind_damage_are_found_again() {
        let mut bytes = Vec::new();
        for seed in 1..=4 {
            bytes.extend(record(bytes.len(), seed, 3000));
        }
        let second = bytes.len() / 4;
        bytes[second + 100] ^= 1; // in the second's payload
        let found = scan(&bytes);
        assert_eq!(whole_names(&found), [1, 3, 4]);
        let (offset, len) = ((SEGMENT_HEADER_LEN + second) as u64, second as u64);
        assert!(matches!(found[1], Found::Damaged { offset: o, len: l } if (o, l) == (offset, len)));
        bytes[second + 16] ^= 0x40; // its length as well
        assert_eq!(whole_names(&scan(&bytes)), [1, 3, 4]);
    }

    #[test]
    fn damage_longer_than_a_read_is_passed() {
        let mut bytes = record(0, 1, 10);
        bytes.extend(vec![0x5a; 3 * READ_LEN + 17]);
        bytes.extend(record(bytes.len(), 2, 10));
        assert_eq!(whole_names(&scan(&bytes)), [1, 2]);
    }

    #[test]
    fn a_record_within_a_damaged_block_is_no_record() {
        let mut bytes = record(0, 1, 10);
        bytes[20] ^= 1; // the outer block's header
        bytes.extend(record(0, 2, 10)); // content that is a record of another place
        bytes.extend(record(bytes.len(), 3, 10));
        assert_eq!(whole_names(&scan(&bytes)), [3]);
    }

    #[derive(Clone, Debug)]
    enum Part {
        Record(u8, usize),
        Noise(Vec<u8>),
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_byte_of_any_file_is_accounted_for(
            parts in proptest::collection::vec(prop_oneof![
                (any::<u8>(), 1usize..300).prop_map(|(seed, len)| Part::Record(seed, len)),
                proptest::collection::vec(any::<u8>(), 1..100).prop_map(Part::Noise),
                Just(Part::Noise(RECORD_START.to_vec())),
            ], 0..12),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = Vec::new();
            for part in parts {
                match part {
                    Part::Record(seed, len) => bytes.extend(record(bytes.len(), seed, len)),
                    Part::Noise(noise) => bytes.extend(noise),
                }
            }
            let bytes = &bytes[..cut.index(bytes.len() + 1)];
            let mut at = SEGMENT_HEADER_LEN as u64;
            for found in scan(bytes) {
                let (offset, len) = match found {
                    Found::Whole { offset, record, .. } => (offset, record.len()),
                    Found::Damaged { offset, len } => (offset, len),
                };
                prop_assert_eq!(offset, at);
                prop_assert!(len > 0);
                at += len;
            }
            prop_assert_eq!(at, (SEGMENT_HEADER_LEN + bytes.len()) as u64);
        }
    }
}

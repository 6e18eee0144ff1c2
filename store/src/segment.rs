//! The bytes of a segment: encode and decode side by side. `docs/format.md` has the same tables.
//!
//! Segment header, 64 bytes:
//! ```text
//!  0  8 magic   8 2 version  10 2 reserved  12 4 crc  16 16 store id  32 8 number  40 8 first tick  48 16 reserved
//! ```
//! Record header, 80 bytes, then `stored` bytes of payload:
//! ```text
//!  0  3 magic   3 1 version   4 1 kind   5 1 flags   6 2 key id   8 4 domain  12 4 crc
//! 16  4 raw    20 4 stored   24 24 nonce            48 32 subject, by kind
//! ```
//! Little-endian; what is reserved is zero, and refused when it is not. A released version is frozen.
//!
//! A record's checksum is over its payload, its header, and the seat that it was written to: bytes of a
//! record that are the *content* of a block (a tenant may store a segment file) never pass for a record.

use std::fmt;

use crate::names::{BlockName, DomainId, Place, StoreId};

/// Bytes of a segment's header.
pub const SEGMENT_HEADER_LEN: usize = 64;
/// Bytes of a record's header.
pub const RECORD_HEADER_LEN: usize = 80;
/// The only version there is.
pub const VERSION: u8 = 1;
/// Content of one block: the largest block size that a binding may have.
pub const BLOCK_LEN_MAX: usize = 8 * 1024 * 1024;
/// One entry of the catalog: the largest inline content (a quarter of 8 MiB) with ample room for a record around it.
pub const ENTRY_LEN_MAX: usize = 16 * 1024 * 1024;
/// The name of a domain: a namespace has at most 63 bytes.
pub const DOMAIN_NAME_MAX: usize = 255;

const SEGMENT_MAGIC: &[u8; 8] = b"hawserSG";
const RECORD_MAGIC: &[u8; 3] = b"hwr";
/// What a record begins with: magic and version. [`crate::scan`] looks for it behind damage.
pub(crate) const RECORD_START: [u8; 4] = [RECORD_MAGIC[0], RECORD_MAGIC[1], RECORD_MAGIC[2], VERSION];

const SEGMENT_CRC: usize = 12;
const RECORD_CRC: usize = 12;
const SUBJECT: usize = 48;
const _: () = assert!(SEGMENT_HEADER_LEN == 48 + 16);
const _: () = assert!(RECORD_HEADER_LEN == SUBJECT + 32);
const _: () = assert!(BLOCK_LEN_MAX <= ENTRY_LEN_MAX && ENTRY_LEN_MAX < u32::MAX as usize);

const FLAG_ZSTD: u8 = 1;
const FLAG_ZEROS: u8 = 2;
const FLAG_MOVED: u8 = 4;

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The store that it belongs to.
    pub store: StoreId,
    /// From 1, growing by one, never used twice.
    pub number: u64,
    /// The tick that the first entry in it gets.
    pub first_tick: u64,
}

impl SegmentHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_LEN] {
        let mut bytes = [0; SEGMENT_HEADER_LEN];
        bytes[0..8].copy_from_slice(SEGMENT_MAGIC);
        bytes[8..10].copy_from_slice(&u16::from(VERSION).to_le_bytes());
        bytes[16..32].copy_from_slice(&self.store.0);
        bytes[32..40].copy_from_slice(&self.number.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.first_tick.to_le_bytes());
        let crc = segment_sum(&bytes);
        bytes[SEGMENT_CRC..SEGMENT_CRC + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`BadBytes`] when these bytes are not a whole header of a version that is known.
    pub fn decode(bytes: &[u8; SEGMENT_HEADER_LEN]) -> Result<SegmentHeader, BadBytes> {
        if &bytes[0..8] != SEGMENT_MAGIC {
            return Err(BadBytes::Magic);
        }
        let version = u16::from_le_bytes(array(bytes, 8));
        if version != u16::from(VERSION) {
            return Err(BadBytes::Version(version));
        }
        if u32::from_le_bytes(array(bytes, SEGMENT_CRC)) != segment_sum(bytes) {
            return Err(BadBytes::Checksum);
        }
        if bytes[10..12] != [0; 2] || bytes[48..] != [0; 16] {
            return Err(BadBytes::Reserved);
        }
        Ok(SegmentHeader {
            store: StoreId(array(bytes, 16)),
            number: u64::from_le_bytes(array(bytes, 32)),
            first_tick: u64::from_le_bytes(array(bytes, 40)),
        })
    }
}

/// How the payload of a record stands for its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// As it is.
    Plain,
    /// Compressed with zstd.
    Zstd,
    /// A block of nothing but zeros; there is no payload.
    Zeros,
}

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The content of one block.
    Block {
        /// The keyed hash of the content.
        name: BlockName,
    },
    /// One entry of the catalog.
    Entry {
        /// Its number.
        tick: u64,
        /// The offset in this segment that was known durable when it was written; 0: none.
        durable: u64,
    },
    /// The payload is the name of the domain whose id the header has.
    Domain,
    /// A segment is about to be deleted: nothing of it is needed any more.
    Retire {
        /// Its number.
        segment: u64,
    },
    /// Nothing follows in this segment.
    Seal {
        /// Records before this one.
        records: u64,
        /// The tick that the next entry gets.
        next_tick: u64,
        /// Bytes before this record.
        len: u64,
    },
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose it is; none for what belongs to the log itself.
    pub domain: Option<DomainId>,
    /// What it is about.
    pub subject: Subject,
    /// How its payload stands for the content.
    pub packing: Packing,
    /// The sweep copied it here from a segment that it retires.
    pub moved: bool,
    /// Bytes of the content.
    pub raw_len: u32,
    /// Bytes of payload.
    pub stored_len: u32,
}

impl Record {
    /// The header's bytes for a record at `seat`, whose payload has the sum `payload`.
    pub fn encode(&self, payload: PayloadSum, seat: &Seat) -> [u8; RECORD_HEADER_LEN] {
        debug_assert_eq!(payload.len, self.stored_len, "a header is of its own payload");
        let mut bytes = [0; RECORD_HEADER_LEN];
        bytes[0..4].copy_from_slice(&RECORD_START);
        bytes[4] = match self.subject {
            Subject::Block { .. } => 1,
            Subject::Entry { .. } => 2,
            Subject::Domain => 3,
            Subject::Retire { .. } => 4,
            Subject::Seal { .. } => 5,
        };
        bytes[5] = match self.packing {
            Packing::Plain => 0,
            Packing::Zstd => FLAG_ZSTD,
            Packing::Zeros => FLAG_ZEROS,
        } | if self.moved { FLAG_MOVED } else { 0 };
        bytes[8..12].copy_from_slice(&self.domain.map_or(0, DomainId::get).to_le_bytes());
        bytes[16..20].copy_from_slice(&self.raw_len.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.stored_len.to_le_bytes());
        let subject = &mut bytes[SUBJECT..];
        match self.subject {
            Subject::Block { name } => subject.copy_from_slice(name.as_bytes()),
            Subject::Entry { tick, durable } => {
                subject[0..8].copy_from_slice(&tick.to_le_bytes());
                subject[8..16].copy_from_slice(&durable.to_le_bytes());
            }
            Subject::Domain => {}
            Subject::Retire { segment } => subject[0..8].copy_from_slice(&segment.to_le_bytes()),
            Subject::Seal { records, next_tick, len } => {
                subject[0..8].copy_from_slice(&records.to_le_bytes());
                subject[8..16].copy_from_slice(&next_tick.to_le_bytes());
                subject[16..24].copy_from_slice(&len.to_le_bytes());
            }
        }
        let crc = seat.sum(payload, &bytes);
        bytes[RECORD_CRC..RECORD_CRC + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header. The checksum is over the payload too: [`Seat::is_whole`] compares it.
    ///
    /// # Errors
    /// [`BadBytes`] when no writer of this version can have written these bytes.
    pub fn decode(bytes: &[u8; RECORD_HEADER_LEN]) -> Result<Record, BadBytes> {
        if &bytes[0..3] != RECORD_MAGIC {
            return Err(BadBytes::Magic);
        }
        if bytes[3] != VERSION {
            return Err(BadBytes::Version(u16::from(bytes[3])));
        }
        let flags = bytes[5];
        let packing = match flags & !FLAG_MOVED {
            0 => Packing::Plain,
            FLAG_ZSTD => Packing::Zstd,
            FLAG_ZEROS => Packing::Zeros,
            _ => return Err(BadBytes::Reserved),
        };
        if bytes[6..8] != [0; 2] || bytes[24..48] != [0; 24] {
            return Err(BadBytes::Reserved);
        }
        let subject = &bytes[SUBJECT..];
        let (subject, used) = match bytes[4] {
            1 => (Subject::Block { name: BlockName::from_bytes(array(subject, 0)) }, 32),
            2 => {
                let tick = u64::from_le_bytes(array(subject, 0));
                (Subject::Entry { tick, durable: u64::from_le_bytes(array(subject, 8)) }, 16)
            }
            3 => (Subject::Domain, 0),
            4 => (Subject::Retire { segment: u64::from_le_bytes(array(subject, 0)) }, 8),
            5 => {
                let seal = Subject::Seal {
                    records: u64::from_le_bytes(array(subject, 0)),
                    next_tick: u64::from_le_bytes(array(subject, 8)),
                    len: u64::from_le_bytes(array(subject, 16)),
                };
                (seal, 24)
            }
            kind => return Err(BadBytes::Kind(kind)),
        };
        if bytes[SUBJECT + used..].iter().any(|byte| *byte != 0) {
            return Err(BadBytes::Reserved);
        }
        let record = Record {
            domain: DomainId::new(u32::from_le_bytes(array(bytes, 8))),
            subject,
            packing,
            moved: flags & FLAG_MOVED != 0,
            raw_len: u32::from_le_bytes(array(bytes, 16)),
            stored_len: u32::from_le_bytes(array(bytes, 20)),
        };
        if record.is_possible() { Ok(record) } else { Err(BadBytes::Length) }
    }

    /// Bytes of header and payload.
    #[allow(clippy::len_without_is_empty, reason = "a record always has its header")]
    pub fn len(&self) -> u64 {
        RECORD_HEADER_LEN as u64 + u64::from(self.stored_len)
    }

    /// Whether lengths, domain and packing fit the kind.
    fn is_possible(&self) -> bool {
        let (raw, stored) = (self.raw_len as usize, self.stored_len as usize);
        let lengths = match self.packing {
            Packing::Plain => stored == raw,
            Packing::Zstd => stored < raw && stored > 0,
            Packing::Zeros => stored == 0 && raw > 0,
        };
        let kind = match self.subject {
            Subject::Block { .. } => raw > 0 && raw <= BLOCK_LEN_MAX && self.domain.is_some(),
            Subject::Entry { .. } => raw <= ENTRY_LEN_MAX && self.domain.is_some() && self.packing != Packing::Zeros,
            Subject::Domain => {
                raw > 0 && raw <= DOMAIN_NAME_MAX && self.domain.is_some() && self.packing == Packing::Plain
            }
            Subject::Retire { .. } | Subject::Seal { .. } => {
                raw == 0 && self.domain.is_none() && self.packing == Packing::Plain
            }
        };
        lengths && kind
    }
}

/// The checksum of a payload, computed wherever there is time, long before the record has its seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadSum {
    crc: u32,
    len: u32,
}

impl PayloadSum {
    /// The sum of `payload`, which is no longer than [`ENTRY_LEN_MAX`].
    pub fn of(payload: &[u8]) -> PayloadSum {
        PayloadSum { crc: crc32c::crc32c(payload), len: payload.len() as u32 }
    }
}

/// Where a record stands: it is whole only there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The store.
    pub store: StoreId,
    /// Segment and offset.
    pub place: Place,
}

impl Seat {
    /// Whether `header` and `payload` are what was written to this seat.
    pub fn is_whole(&self, header: &[u8; RECORD_HEADER_LEN], payload: &[u8]) -> bool {
        u32::from_le_bytes(array(header, RECORD_CRC)) == self.sum(PayloadSum::of(payload), header)
    }

    fn sum(&self, payload: PayloadSum, header: &[u8; RECORD_HEADER_LEN]) -> u32 {
        let crc = crc32c::crc32c_append(payload.crc, &header[..RECORD_CRC]);
        let crc = crc32c::crc32c_append(crc, &header[RECORD_CRC + 4..]);
        let crc = crc32c::crc32c_append(crc, &self.store.0);
        let crc = crc32c::crc32c_append(crc, &self.place.segment.to_le_bytes());
        crc32c::crc32c_append(crc, &self.place.offset.to_le_bytes())
    }
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBytes {
    /// They do not begin as one does.
    #[error("no header begins here")]
    Magic,
    /// A later release wrote them.
    #[error("format version {0} is not known to this release: open the store with the release that wrote it")]
    Version(u16),
    /// They are not what was written.
    #[error("checksum differs")]
    Checksum,
    /// A kind of record that this version has not.
    #[error("record kind {0} is not known")]
    Kind(u8),
    /// Something is set that this version leaves zero.
    #[error("a reserved field is not zero")]
    Reserved,
    /// A length that no writer writes.
    #[error("lengths, domain and packing do not fit the kind")]
    Length,
}

fn segment_sum(header: &[u8; SEGMENT_HEADER_LEN]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..SEGMENT_CRC]), &header[SEGMENT_CRC + 4..])
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Block { name } => write!(f, "block {name}"),
            Subject::Entry { tick, .. } => write!(f, "entry {tick}"),
            Subject::Domain => write!(f, "domain"),
            Subject::Retire { segment } => write!(f, "retire {segment}"),
            Subject::Seal { .. } => write!(f, "seal"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const SEAT: Seat = Seat { store: StoreId([7; 16]), place: Place { segment: 3, offset: 64 } };

    fn records() -> impl Strategy<Value = (Record, Vec<u8>)> {
        let payload = proptest::collection::vec(any::<u8>(), 1..200);
        (0u8..5, any::<[u8; 32]>(), any::<[u64; 3]>(), 1u32.., any::<bool>(), 0u8..3, payload).prop_map(
            |(kind, name, numbers, domain, moved, packing, payload)| {
                let (subject, own, payload) = match kind {
                    0 => (Subject::Block { name: BlockName::from_bytes(name) }, false, payload),
                    1 => (Subject::Entry { tick: numbers[0], durable: numbers[1] }, false, payload),
                    2 => (Subject::Domain, false, payload),
                    3 => (Subject::Retire { segment: numbers[0] }, true, Vec::new()),
                    _ => (
                        Subject::Seal { records: numbers[0], next_tick: numbers[1], len: numbers[2] },
                        true,
                        Vec::new(),
                    ),
                };
                let packing = match (packing, kind) {
                    (1, 0 | 1) => Packing::Zstd,
                    (2, 0) => Packing::Zeros,
                    _ => Packing::Plain,
                };
                let payload = if packing == Packing::Zeros { Vec::new() } else { payload };
                let stored_len = payload.len() as u32;
                let raw_len = stored_len + if packing == Packing::Plain { 0 } else { 7 };
                let domain = if own { None } else { DomainId::new(domain) };
                (Record { domain, subject, packing, moved, raw_len, stored_len }, payload)
            },
        )
    }

    proptest! {
        #[test]
        fn a_record_reads_back_as_it_was_written((record, payload) in records()) {
            let header = record.encode(PayloadSum::of(&payload), &SEAT);
            prop_assert!(SEAT.is_whole(&header, &payload));
            prop_assert_eq!(Record::decode(&header), Ok(record));
            let elsewhere = Seat { place: Place { offset: 65, ..SEAT.place }, ..SEAT };
            prop_assert!(!elsewhere.is_whole(&header, &payload), "a record is whole in its own seat only");
        }

        #[test]
        fn one_changed_bit_is_seen((record, payload) in records(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = record.encode(PayloadSum::of(&payload), &SEAT).to_vec();
            bytes.extend(&payload);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let header: [u8; RECORD_HEADER_LEN] = bytes[..RECORD_HEADER_LEN].try_into().unwrap();
            prop_assert!(!SEAT.is_whole(&header, &bytes[RECORD_HEADER_LEN..]));
        }

        #[test]
        fn garbage_is_refused_without_a_panic(bytes in any::<[[u8; 16]; 5]>(), plausible in any::<bool>()) {
            let mut header: [u8; RECORD_HEADER_LEN] = bytes.concat().try_into().unwrap();
            if plausible {
                header[0..4].copy_from_slice(&RECORD_START);
                header[4] %= 7;
                header[5] %= 8;
                header[6..8].fill(0);
                header[24..48].fill(0);
            }
            if let Ok(record) = Record::decode(&header) {
                prop_assert!(record.stored_len as usize <= ENTRY_LEN_MAX);
            }
        }

        #[test]
        fn a_segment_header_reads_back(store in any::<[u8; 16]>(), number in any::<u64>(), first_tick in any::<u64>()) {
            let header = SegmentHeader { store: StoreId(store), number, first_tick };
            prop_assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        }
    }
}

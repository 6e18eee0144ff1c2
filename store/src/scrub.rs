//! Reading everything back: every record's checksum, every block's hash, every block that something needs.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::domain::Domain;
use crate::gc::GcError;
use crate::index::Location;
use crate::names::{BlockKey, DomainId, Place};
use crate::prepare;
use crate::replay::{Damage, Live};
use crate::scan::Found;
use crate::segment::{RECORD_HEADER_LEN, Record, Subject};
use crate::store::Store;

/// Something that a scrub has to tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// Bytes of the log are not what was written.
    Damage {
        /// Where, and how many.
        what: String,
    },
    /// Something that is kept needs blocks that cannot be read.
    Hurt {
        /// Whose it is.
        domain: String,
        /// What it is.
        object: String,
        /// How many of its blocks are damaged or missing.
        blocks: u64,
    },
    /// What is kept could not be told to its end.
    Unknown {
        /// Why.
        why: String,
    },
}

/// What a scrub has read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Scrubbed {
    /// Segments read.
    pub segments: u64,
    /// Records that are whole.
    pub records: u64,
    /// Of these, blocks whose content has its hash.
    pub blocks: u64,
    /// Of these, entries.
    pub entries: u64,
    /// Bytes read.
    pub len: u64,
    /// Places that are damaged.
    pub damaged: u64,
    /// Kept things that are hurt.
    pub hurt: u64,
}

impl Scrubbed {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.damaged == 0 && self.hurt == 0
    }
}

impl Store {
    /// Reads the whole log, and tells `tell` what is wrong. Blocks this thread, which must not be one of an
    /// async runtime.
    ///
    /// # Errors
    /// [`GcError`] when the disk or the log fails the scrub itself.
    pub fn scrub(&self, tell: &mut dyn FnMut(Finding)) -> Result<Scrubbed, GcError> {
        let _alone = self.maintenance();
        self.seal()?; // what is written from here on is not read
        let core = self.core();
        let mut scrubbed = Scrubbed::default();
        let mut bad = Bad::default();
        for damage in self.damage() {
            if !matches!(damage, Damage::Bytes { .. }) {
                scrubbed.damaged += 1;
                tell(Finding::Damage { what: damage.to_string() });
            }
        }
        let mut domains = Domains { store: self, known: BTreeMap::new() };
        for (segment, known) in core.segments.all().into_iter().filter(|(_, known)| known.sealed) {
            scrubbed.segments += 1;
            scrubbed.len += known.len;
            let io_error = |source| GcError::Io { segment, source };
            let mut scan = core.segments.scan(Place { segment, offset: 0 })?;
            let mut sealed = false;
            while let Some(found) = scan.next().map_err(io_error)? {
                let (offset, len, whole) = match found {
                    Found::Damaged { offset, len } => (offset, len, false),
                    Found::Whole { offset, record, payload } => {
                        sealed = matches!(record.subject, Subject::Seal { .. });
                        (offset, record.len(), scrubbed.see(&record, payload, &mut domains))
                    }
                };
                if !whole {
                    scrubbed.damaged += 1;
                    let place = Place { segment, offset };
                    tell(Finding::Damage { what: Damage::Bytes { place, len }.to_string() });
                    bad.ranges.entry(segment).or_default().push((offset, offset + len));
                }
            }
            if !sealed {
                scrubbed.damaged += 1;
                tell(Finding::Damage { what: format!("segment {segment} ends without its seal") });
            }
        }
        for block in core.index.blocks() {
            let (key, location) = block?;
            if !core.is_there(&location) || bad.holds(&location) {
                bad.blocks.insert(key);
            }
        }
        self.find_hurt(&bad, &mut domains, &mut scrubbed, tell)?;
        Ok(scrubbed)
    }

    /// Tells which kept things need blocks that cannot be read.
    fn find_hurt(
        &self,
        bad: &Bad,
        domains: &mut Domains<'_>,
        scrubbed: &mut Scrubbed,
        tell: &mut dyn FnMut(Finding),
    ) -> Result<(), GcError> {
        let core = self.core();
        let view = self.view();
        let shown = core.catalog.live(&view, &mut |live: Live<'_>| {
            let Some(domain) = domains.get(live.domain) else { return Ok(()) };
            let mut blocks = 0;
            for hash in live.blocks {
                let key = domain.key_of(hash);
                let gone = bad.blocks.contains(&key) || core.find(&key)?.is_none();
                blocks += u64::from(gone);
            }
            if blocks > 0 {
                scrubbed.hurt += 1;
                tell(Finding::Hurt { domain: domain.name().to_owned(), object: live.object.to_string(), blocks });
            }
            Ok(())
        });
        if let Err(error) = shown {
            scrubbed.hurt += 1;
            tell(Finding::Unknown { why: error.to_string() });
        }
        Ok(())
    }
}

impl Scrubbed {
    /// Counts a record whose checksum is right; false when it is not what it claims all the same.
    fn see(&mut self, record: &Record, payload: bytes::Bytes, domains: &mut Domains<'_>) -> bool {
        self.records += 1;
        let content = |payload| prepare::unpack(record.packing, record.raw_len, payload);
        match (record.subject, record.domain) {
            (Subject::Block { name }, Some(domain)) => {
                let Some(content) = content(payload) else { return false };
                let hash = hawser_api::BlockHash::of(&content);
                let ours = domains.get(domain).is_some_and(|domain| domain.key_of(&hash).name == name);
                self.blocks += u64::from(ours);
                ours
            }
            (Subject::Entry { .. }, _) => {
                self.entries += 1;
                content(payload).is_some()
            }
            (Subject::Block { .. } | Subject::Domain | Subject::Retire { .. } | Subject::Seal { .. }, _) => true,
        }
    }
}

/// What cannot be read.
#[derive(Default)]
struct Bad {
    ranges: BTreeMap<u64, Vec<(u64, u64)>>,
    blocks: BTreeSet<BlockKey>,
}

impl Bad {
    fn holds(&self, location: &Location) -> bool {
        let begin = location.place.offset;
        let end = begin + RECORD_HEADER_LEN as u64 + u64::from(location.stored_len);
        let ranges = self.ranges.get(&location.place.segment);
        ranges.is_some_and(|ranges| ranges.iter().any(|(from, to)| begin < *to && *from < end))
    }
}

/// Domains by id: their keys are derived once.
struct Domains<'a> {
    store: &'a Store,
    known: BTreeMap<DomainId, Option<Domain>>,
}

impl Domains<'_> {
    fn get(&mut self, id: DomainId) -> Option<Domain> {
        self.known.entry(id).or_insert_with(|| self.store.domain_of(id)).clone()
    }
}

//! The rows of the index that the catalog owns: their families, keys and values, and nothing that decides.
//! A row is a function of the log's entries alone. Keys begin with the domain; texts within them are
//! terminated, so that rows of one thing stand together and keys stand in their own byte order.

use bytes::Bytes;
use hawser_api::v1;
use prost::Message;

use crate::index::{Batch, Family, IndexError, Keys, Pair};
use crate::names::DomainId;
use crate::order::Span;
use crate::view::View;

/// The layout of all rows below; another number rebuilds the index.
pub(crate) const SCHEMA: u32 = 1;

/// Key of an object → [`KeyRow`].
pub(crate) const KEYS: Family = Family("catalog-keys");
/// Key of an object, newest tick first → [`VersionRow`].
pub(crate) const VERSIONS: Family = Family("catalog-versions");
/// The same → [`ManifestRow`].
pub(crate) const MANIFESTS: Family = Family("catalog-manifests");
/// Key of an object, newest tick first → the tick of the version served from then on; 0 for none.
pub(crate) const HISTORY: Family = Family("catalog-history");
/// Provider, tick, bucket, key → nothing: each key once, at its last change.
pub(crate) const CHANGES: Family = Family("catalog-changes");
/// Gaps, by a letter: rows by id, and what finds them.
pub(crate) const GAPS: Family = Family("catalog-gaps");
/// Multipart uploads, their parts and open intents.
pub(crate) const UPLOADS: Family = Family("catalog-uploads");
/// Bindings, sessions, intents, buckets, backfills, checkpoints, leases, counts: by a letter.
pub(crate) const FACTS: Family = Family("catalog-facts");

/// All of them, for the index to declare.
pub(crate) const FAMILIES: [Family; 8] = [KEYS, VERSIONS, MANIFESTS, HISTORY, CHANGES, GAPS, UPLOADS, FACTS];

/// Reads rows, as they are now or with the changes of an entry that is being applied.
pub(crate) trait Rows {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError>;
    fn scan<'a>(&'a self, family: Family, keys: &'a Keys) -> Box<dyn Iterator<Item = Result<Pair, IndexError>> + 'a>;

    /// One row.
    fn row<R: Message + Default>(&self, family: Family, key: &[u8]) -> Result<Option<R>, IndexError>
    where
        Self: Sized,
    {
        self.get(family, key)?.map(|value| decode(family, &value)).transpose()
    }
}

impl Rows for Batch<'_> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Batch::get(self, family, key)
    }
    fn scan<'a>(&'a self, family: Family, keys: &'a Keys) -> Box<dyn Iterator<Item = Result<Pair, IndexError>> + 'a> {
        Box::new(Batch::scan(self, family, keys))
    }
}

impl Rows for View<'_> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        View::get(self, family, key)
    }
    fn scan<'a>(&'a self, family: Family, keys: &'a Keys) -> Box<dyn Iterator<Item = Result<Pair, IndexError>> + 'a> {
        Box::new(View::scan(self, family, keys))
    }
}

/// Reads a value of `family`.
pub(crate) fn decode<R: Message + Default>(family: Family, value: &[u8]) -> Result<R, IndexError> {
    R::decode(value).map_err(|_| IndexError::Malformed { family: family.0 })
}

/// Where an object is: its domain, provider, bucket as the provider calls it, and key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Address {
    pub(crate) domain: DomainId,
    pub(crate) provider: String,
    pub(crate) bucket: String,
    pub(crate) key: Bytes,
}

impl Address {
    pub(crate) fn of(domain: DomainId, object: &v1::ObjectRef) -> Address {
        Address { domain, provider: object.provider.clone(), bucket: object.bucket.clone(), key: object.key.clone() }
    }

    pub(crate) fn object(&self) -> v1::ObjectRef {
        v1::ObjectRef { provider: self.provider.clone(), bucket: self.bucket.clone(), key: self.key.clone() }
    }

    /// Of [`KEYS`].
    pub(crate) fn head(&self) -> Vec<u8> {
        let mut key = bucket(self.domain, &self.provider, &self.bucket).0;
        key.extend_from_slice(&self.key);
        key
    }

    /// What the rows of this key in [`VERSIONS`], [`MANIFESTS`], [`HISTORY`] begin with.
    pub(crate) fn stem(&self) -> KeyBytes {
        bucket(self.domain, &self.provider, &self.bucket).text(&self.key)
    }

    /// Of [`VERSIONS`], [`MANIFESTS`] and [`HISTORY`].
    pub(crate) fn at(&self, tick: u64) -> Vec<u8> {
        self.stem().number(!tick).0
    }

    /// Of [`CHANGES`].
    pub(crate) fn changed(&self, tick: u64) -> Vec<u8> {
        let mut key = changes(self.domain, &self.provider).number(tick).text(self.bucket.as_bytes()).0;
        key.extend_from_slice(&self.key);
        key
    }
}

/// The tick at the end of a key of [`VERSIONS`], [`MANIFESTS`] or [`HISTORY`].
pub(crate) fn tick_of(key: &[u8]) -> u64 {
    key.last_chunk::<8>().map_or(0, |tick| !u64::from_be_bytes(*tick))
}

/// What rows of one bucket begin with.
pub(crate) fn bucket(domain: DomainId, provider: &str, bucket: &str) -> KeyBytes {
    KeyBytes::of(domain).text(provider.as_bytes()).text(bucket.as_bytes())
}

/// What rows of one provider in [`CHANGES`] begin with.
pub(crate) fn changes(domain: DomainId, provider: &str) -> KeyBytes {
    KeyBytes::of(domain).text(provider.as_bytes())
}

/// A key under construction.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyBytes(pub(crate) Vec<u8>);

impl KeyBytes {
    pub(crate) fn of(domain: DomainId) -> KeyBytes {
        KeyBytes(domain.get().to_be_bytes().to_vec())
    }

    pub(crate) fn letter(letter: u8, domain: DomainId) -> KeyBytes {
        let mut key = vec![letter];
        key.extend_from_slice(&domain.get().to_be_bytes());
        KeyBytes(key)
    }

    /// A text and its end: a zero within is followed by 0xFF, the end is two zeros, so that order is kept.
    pub(crate) fn text(mut self, text: &[u8]) -> KeyBytes {
        for &byte in text {
            self.0.push(byte);
            if byte == 0 {
                self.0.push(0xff);
            }
        }
        self.0.extend_from_slice(&[0, 0]);
        self
    }

    pub(crate) fn number(mut self, number: u64) -> KeyBytes {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> KeyBytes {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn keys(&self) -> Keys {
        Keys::prefix(&self.0)
    }
}

/// Takes a text off the front of a key; `None` when it has no end.
pub(crate) fn take_text(key: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut text = Vec::new();
    let mut at = 0;
    loop {
        match (key.get(at)?, key.get(at + 1)) {
            (0, Some(0)) => return Some((text, &key[at + 2..])),
            (0, _) => {
                text.push(0);
                at += 2;
            }
            (byte, _) => {
                text.push(*byte);
                at += 1;
            }
        }
    }
}

/// What is known of one key now.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeyRow {
    /// Ticks of the versions that may be current at the cloud, oldest first; more than one that differ are a
    /// gap `Concurrent`.
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) candidates: Vec<u64>,
    /// The version that is shown; 0 for none.
    #[prost(uint64, tag = "2")]
    pub(crate) served: u64,
    /// Where it stands in [`CHANGES`]; 0 for nowhere.
    #[prost(uint64, tag = "3")]
    pub(crate) changed: u64,
    /// The open gap `Concurrent`; 0 for none.
    #[prost(uint64, tag = "4")]
    pub(crate) concurrent: u64,
    /// Open gaps of this key, the one above among them.
    #[prost(uint32, tag = "5")]
    pub(crate) gaps: u32,
    /// A provider's listing lacked it and HEAD found it: the service shows another key's object under it.
    #[prost(bool, tag = "6")]
    pub(crate) alias: bool,
    /// Whether an object is served: the rest of what listings need to know without reading the version.
    #[prost(bool, tag = "7")]
    pub(crate) present: bool,
}

/// What a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Kind {
    Object = 0,
    /// The key was gone.
    Tombstone = 1,
    /// The cloud's delete marker.
    Marker = 2,
}

/// How a version became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Origin {
    Written = 0,
    Read = 1,
    /// A migration wrote it.
    Landed = 2,
    /// Absence that a HEAD or a listing showed.
    Sighted = 3,
}

/// One version of one key.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct VersionRow {
    /// Its name within the key; set when it is read.
    #[prost(uint64, tag = "1")]
    pub(crate) tick: u64,
    #[prost(message, required, tag = "2")]
    pub(crate) span: Span,
    #[prost(enumeration = "Kind", tag = "3")]
    pub(crate) kind: i32,
    #[prost(enumeration = "Origin", tag = "4")]
    pub(crate) origin: i32,
    #[prost(string, tag = "5")]
    pub(crate) etag: String,
    #[prost(string, tag = "6")]
    pub(crate) version_id: String,
    #[prost(uint64, tag = "7")]
    pub(crate) size: u64,
    /// Over length and veiled hashes; empty when the content is not known.
    #[prost(bytes = "bytes", tag = "8")]
    pub(crate) content: Bytes,
    #[prost(message, required, tag = "9")]
    pub(crate) metadata: v1::Metadata,
    #[prost(int64, tag = "10")]
    pub(crate) recorded_unix: i64,
    #[prost(string, tag = "11")]
    pub(crate) last_modified: String,
    /// The cloud removed this very version.
    #[prost(bool, tag = "12")]
    pub(crate) gone: bool,
    /// Stored bytes of it are damaged.
    #[prost(bool, tag = "13")]
    pub(crate) damaged: bool,
    /// The tick that was heard before the write began that made it, 0 where none is known. It stays when a
    /// sighting makes `span` younger, and so orders versions of two providers.
    #[prost(uint64, tag = "14")]
    pub(crate) begun: u64,
    /// Of a landed one: which write is behind it.
    #[prost(message, optional, tag = "15")]
    pub(crate) landed: Option<LandedFrom>,
}

/// The write behind a version that a migration carried.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct LandedFrom {
    /// Where it was written, which may be more than one migration ago.
    #[prost(string, tag = "1")]
    pub(crate) provider: String,
    /// When it was over.
    #[prost(uint64, tag = "2")]
    pub(crate) over: u64,
    /// The tick of the record that was carried.
    #[prost(uint64, tag = "3")]
    pub(crate) tick: u64,
}

impl VersionRow {
    pub(crate) fn is_present(&self) -> bool {
        self.kind() == Kind::Object && !self.gone
    }
    pub(crate) fn content_known(&self) -> bool {
        !self.content.is_empty() && !self.damaged
    }
}

/// Where the bytes of a version are.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ManifestRow {
    #[prost(message, repeated, tag = "1")]
    pub(crate) extents: Vec<Extent>,
}

/// A run of blocks; one part of a multipart upload is one or more of them.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Extent {
    #[prost(uint64, tag = "1")]
    pub(crate) length: u64,
    #[prost(uint32, tag = "2")]
    pub(crate) block_size: u32,
    /// Veiled, 32 bytes each: of the blocks or, `paged`, of pages of veiled hashes.
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) hashes: Bytes,
    #[prost(bool, tag = "4")]
    pub(crate) paged: bool,
    /// 0 for content that was not sent in parts.
    #[prost(uint32, tag = "5")]
    pub(crate) part_number: u32,
    #[prost(string, tag = "6")]
    pub(crate) part_etag: String,
}

/// An open or closed gap.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct GapRow {
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
    #[prost(string, tag = "2")]
    pub(crate) binding: String,
    /// [`hawser_api::GapScope`].
    #[prost(string, tag = "3")]
    pub(crate) scope: String,
    #[prost(message, required, tag = "4")]
    pub(crate) object: v1::ObjectRef,
    #[prost(string, tag = "5")]
    pub(crate) version_id: String,
    #[prost(string, tag = "6")]
    pub(crate) etag: String,
    /// [`hawser_api::GapReason`].
    #[prost(string, tag = "7")]
    pub(crate) reason: String,
    #[prost(string, tag = "8")]
    pub(crate) detail: String,
    /// Its end has tick 0 while it lasts.
    #[prost(message, required, tag = "9")]
    pub(crate) span: Span,
    /// From this tick on nothing of it can be on its way any more; 0: not yet, or not asked of this reason.
    #[prost(uint64, tag = "10")]
    pub(crate) settled: u64,
    #[prost(int64, tag = "11")]
    pub(crate) opened_unix: i64,
    #[prost(string, tag = "12")]
    pub(crate) closed_by: String,
    #[prost(uint64, tag = "13")]
    pub(crate) closed_tick: u64,
    /// The operation that left it, whose own record closes it.
    #[prost(bytes = "bytes", tag = "14")]
    pub(crate) session: Bytes,
    #[prost(uint64, tag = "15")]
    pub(crate) operation: u64,
    /// The absence of the key was seen, not another version (`UnseenVersion`).
    #[prost(bool, tag = "16")]
    pub(crate) saw_absence: bool,
    /// What it puts in doubt may have changed under an ETag that stayed the same: a sighting says nothing of
    /// it, nor does a read that shows no tags.
    #[prost(bool, tag = "17")]
    pub(crate) of_metadata: bool,
    /// For people, and to be forgotten some time after.
    #[prost(int64, tag = "18")]
    pub(crate) closed_unix: i64,
}

/// Versions of one key that the cloud removed before their records came, the latest last.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RemovedRow {
    #[prost(message, repeated, tag = "1")]
    pub(crate) versions: Vec<RemovedVersion>,
}
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RemovedVersion {
    #[prost(string, tag = "1")]
    pub(crate) version_id: String,
}

/// A multipart upload.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct UploadRow {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
    #[prost(message, required, tag = "2")]
    pub(crate) metadata: v1::Metadata,
    /// Of the last part, for its expiry; 0 once it was aborted.
    #[prost(int64, tag = "3")]
    pub(crate) touched_unix: i64,
    /// A Complete that waits for parts whose records have not come yet.
    #[prost(message, optional, tag = "4")]
    pub(crate) waiting: Option<WaitingComplete>,
}
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WaitingComplete {
    #[prost(message, required, tag = "1")]
    pub(crate) complete: v1::CompleteUpload,
    #[prost(message, required, tag = "2")]
    pub(crate) span: Span,
    /// The gap that stands for it.
    #[prost(uint64, tag = "3")]
    pub(crate) gap: u64,
}
/// One part under one ETag.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PartRow {
    #[prost(message, repeated, tag = "1")]
    pub(crate) extents: Vec<Extent>,
    #[prost(uint64, tag = "2")]
    pub(crate) length: u64,
}

/// An announced write without an outcome.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct IntentRow {
    #[prost(message, required, tag = "1")]
    pub(crate) intent: v1::Intent,
    #[prost(string, tag = "2")]
    pub(crate) binding: String,
}

/// One session.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SessionRow {
    #[prost(uint64, tag = "1")]
    pub(crate) last_sequence: u64,
    /// Every number up to this one was applied, or never had an entry.
    #[prost(uint64, tag = "4")]
    pub(crate) floor: u64,
    /// Numbers above it that were applied: commits under way at once may change places.
    #[prost(uint64, repeated, tag = "5")]
    pub(crate) recent: Vec<u64>,
    #[prost(string, tag = "2")]
    pub(crate) binding: String,
    #[prost(int64, tag = "3")]
    pub(crate) touched_unix: i64,
}

/// One binding.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct BindingRow {
    /// As it was last told, without its session.
    #[prost(message, required, tag = "1")]
    pub(crate) hello: v1::Hello,
    /// The identity of the provider in force.
    #[prost(string, tag = "2")]
    pub(crate) force: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) history: Vec<ForceRow>,
    /// By provider identity.
    #[prost(btree_map = "string, message", tag = "4")]
    pub(crate) coverage: std::collections::BTreeMap<String, v1::Coverage>,
    #[prost(int64, tag = "5")]
    pub(crate) created_unix: i64,
    /// Of a cluster's binding: `metadata.uid`, as the operator told it last.
    #[prost(string, tag = "10")]
    pub(crate) uid: String,
    #[prost(message, required, tag = "11")]
    pub(crate) migration: v1::MigrationEpoch,
    /// The operator says that the binding is no more.
    #[prost(bool, tag = "12")]
    pub(crate) forgotten: bool,
}
/// A provider came into force.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ForceRow {
    #[prost(string, tag = "1")]
    pub(crate) provider: String,
    #[prost(uint64, tag = "2")]
    pub(crate) tick: u64,
    #[prost(int64, tag = "3")]
    pub(crate) at_unix: i64,
    /// What was recorded at the provider before it up to this tick had been carried; 0: nobody said.
    #[prost(uint64, tag = "4")]
    pub(crate) through: u64,
}

/// One bucket at one provider.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct BucketRow {
    #[prost(uint64, tag = "1")]
    pub(crate) objects: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) bytes: u64,
    /// Open gaps of keys that fold when they are too many.
    #[prost(uint64, tag = "3")]
    pub(crate) open_gaps: u64,
    #[prost(int64, tag = "4")]
    pub(crate) created_unix: i64,
    /// The tick at which its present incarnation began.
    #[prost(uint64, tag = "5")]
    pub(crate) begun: u64,
    /// The tick at which it ended; 0 while it is open.
    #[prost(uint64, tag = "6")]
    pub(crate) ended: u64,
}

/// A deleted bucket whose keys are not all tombstoned yet.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct EmptyingRow {
    /// Of the delete.
    #[prost(message, required, tag = "1")]
    pub(crate) span: Span,
    /// Its tick: what is shown from later ones is of the bucket's next incarnation.
    #[prost(uint64, tag = "2")]
    pub(crate) tick: u64,
    /// Keys up to this one are done.
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) after: Bytes,
}

/// One backfill.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct BackfillRow {
    #[prost(string, tag = "1")]
    pub(crate) binding: String,
    #[prost(message, required, tag = "2")]
    pub(crate) begun: super::entry::BackfillBegun,
    #[prost(message, required, tag = "3")]
    pub(crate) coverage: v1::Coverage,
    #[prost(bool, tag = "4")]
    pub(crate) ended: bool,
}

/// Counts of a domain.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TotalsRow {
    /// Bytes of content that kept versions name.
    #[prost(uint64, tag = "1")]
    pub(crate) logical_bytes: u64,
    /// The last gap's id.
    #[prost(uint64, tag = "2")]
    pub(crate) last_gap: u64,
}

/// A checkpoint and when it was written.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CheckpointRow {
    #[prost(message, required, tag = "1")]
    pub(crate) checkpoint: v1::Checkpoint,
    #[prost(uint64, tag = "2")]
    pub(crate) tick: u64,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn texts_within_keys_keep_their_order_and_come_back() {
        let mut texts: Vec<&[u8]> = vec![b"", b"a", b"a\0", b"a\0b", b"a\0\0", b"ab", b"b", b"\0", b"\xff"];
        texts.sort();
        let keys: Vec<Vec<u8>> = texts.iter().map(|text| KeyBytes::default().text(text).number(7).0).collect();
        assert!(keys.is_sorted());
        for (text, key) in texts.iter().zip(&keys) {
            let (back, rest) = take_text(key).unwrap();
            assert_eq!((&back[..], rest.len()), (*text, 8));
        }
    }

    #[test]
    fn no_key_of_an_object_is_the_beginning_of_anothers_rows() {
        let at = |key: &'static [u8]| Address {
            domain: DomainId::new(1).unwrap(),
            provider: "p".into(),
            bucket: "b".into(),
            key: Bytes::from_static(key),
        };
        assert!(!at(b"a\0").stem().0.starts_with(&at(b"a").stem().0));
        assert!(at(b"a").at(7) < at(b"a").at(6), "newest first");
        assert_eq!(tick_of(&at(b"a").at(7)), 7);
    }
}

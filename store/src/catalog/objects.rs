//! What is known of one key: its versions, which of them may be current, and which is shown. May not
//! enter here: anything that makes a version current without asking [`crate::order`].

use bytes::Bytes;
use hawser_api::{GapReason, GapScope, v1};

use super::apply::Apply;
use super::entry::EmptiedBucket;
use super::rows::{
    Address, BucketRow, CHANGES, EmptyingRow, Extent, FACTS, GapRow, HISTORY, KEYS, KeyBytes, KeyRow, Kind, MANIFESTS,
    ManifestRow, Origin, RemovedRow, RemovedVersion, Rows, TotalsRow, VERSIONS, VersionRow, bucket, decode, take_text,
    tick_of,
};
use crate::index::IndexError;
use crate::order::{self, Span};

/// Versions of a key that a new write is compared with, newest first: ordinary traffic overlaps with a few.
/// An older version that would have beaten it is not seen, and the write stands as one more candidate: a
/// gap too many.
const PAST_MAX: usize = 64;

/// Removed versions of a key that are remembered in case their records are still to come: more than a key
/// has writes on their way.
const REMOVED_MAX: usize = 64;

/// Keys of a deleted bucket in one entry: some 10 MB of rows.
pub(crate) const EMPTIED_MAX: usize = 10_000;

/// Deleted buckets that are emptied at once.
const EMPTYING_MAX: usize = 4;

/// What S3 calls the version that a bucket without versioning keeps.
const NULL_VERSION: &str = "null";

/// A version that is not yet written down.
pub(crate) struct NewVersion {
    pub(crate) row: VersionRow,
    pub(crate) extents: Vec<Extent>,
}

impl Apply<'_, '_> {
    pub(crate) fn put_object(&mut self, put: v1::PutObject, span: &Span) -> Result<(), IndexError> {
        let Some(object) = put.object else { return Ok(()) };
        let extents = extents_of(put.body.as_ref());
        let mut new = self.version(Kind::Object, span, put.metadata.unwrap_or_default(), extents);
        (new.row.etag, new.row.version_id) = (put.etag, put.version_id);
        self.place(&Address::of(self.domain, &object), new)
    }

    pub(crate) fn delete_object(&mut self, delete: v1::DeleteObject, span: &Span) -> Result<(), IndexError> {
        let Some(object) = delete.object else { return Ok(()) };
        let at = Address::of(self.domain, &object);
        if !delete.version_id.is_empty() {
            return self.remove_version(&at, &delete.version_id, span);
        }
        let kind = if delete.delete_marker { Kind::Marker } else { Kind::Tombstone };
        let mut new = self.version(kind, span, v1::Metadata::default(), Vec::new());
        new.row.version_id = delete.marker_version_id;
        self.place(&at, new)
    }

    pub(crate) fn set_tags(&mut self, set: v1::SetTags, span: &Span) -> Result<(), IndexError> {
        self.change_metadata(set.object, &set.version_id, span, |metadata| {
            metadata.tags.clone_from(&set.tags);
            metadata.tags_known = true;
        })
    }

    pub(crate) fn set_acl(&mut self, set: v1::SetAcl, span: &Span) -> Result<(), IndexError> {
        self.change_metadata(set.object, &set.version_id, span, |metadata| metadata.acl.clone_from(&set.acl))
    }

    /// A version of `kind` that `span`'s operation made.
    pub(crate) fn version(&self, kind: Kind, span: &Span, metadata: v1::Metadata, extents: Vec<Extent>) -> NewVersion {
        let size = extents.iter().map(|extent| extent.length).sum();
        let content = if kind == Kind::Object { content(&extents) } else { Bytes::new() };
        let row = VersionRow {
            tick: self.tick,
            span: span.clone(),
            kind: kind.into(),
            origin: Origin::Written.into(),
            size,
            content,
            metadata,
            recorded_unix: self.unix,
            begun: span.begin.tick,
            ..VersionRow::default()
        };
        NewVersion { row, extents }
    }

    /// Takes a confirmed write of a key into account: the version, the candidates, the gaps that it closes.
    pub(crate) fn place(&mut self, at: &Address, new: NewVersion) -> Result<(), IndexError> {
        if self.was_removed(at, &new.row.version_id)? {
            return Ok(()); // what was current without it still is
        }
        let mut head = self.head(at)?;
        let candidates = self.candidates(at, &head)?;
        let spans: Vec<&Span> = candidates.iter().map(|row| &row.span).collect();
        let past: Vec<Span> = self.past(at, &head)?;
        let placing = order::place(&new.row.span, &spans, past.iter());
        head.candidates = kept(&head.candidates, &placing.beaten);
        if placing.stands {
            head.candidates.push(new.row.tick);
        }
        let row = new.row.clone();
        self.put_version(at, new)?;
        self.serve(at, head, "record")?;
        self.close_gaps_by_write(at, &row)
    }

    /// Makes `version` the only candidate: something that began after all others were over saw it.
    pub(crate) fn decide(&mut self, at: &Address, tick: u64, how: &str) -> Result<(), IndexError> {
        let mut head = self.head(at)?;
        head.candidates = vec![tick];
        self.serve(at, head, how)
    }

    /// Shows what the candidates allow, and opens or closes the gap `Concurrent`.
    pub(crate) fn serve(&mut self, at: &Address, mut head: KeyRow, how: &str) -> Result<(), IndexError> {
        let candidates = self.candidates(at, &head)?;
        let agree = candidates.windows(2).all(|pair| same(&pair[0], &pair[1]));
        let before = head.served;
        let was_alias = std::mem::take(&mut head.alias); // and so not counted
        if agree {
            head.served = head.candidates.iter().copied().max().unwrap_or(0);
        } else {
            head.served = self.base(at, &candidates)?;
        }
        let served = self.served(at, &head)?;
        head.present = served.as_ref().is_some_and(VersionRow::is_present);
        if head.served != before || was_alias {
            let old = if before == 0 || was_alias { None } else { self.version_row(at, before)? };
            self.count(at, old.as_ref(), served.as_ref())?;
        }
        if head.served != before {
            self.batch.put(HISTORY, &at.at(self.tick), &head.served.to_be_bytes());
        }
        let (open, close) = (!agree && head.concurrent == 0, agree && head.concurrent != 0);
        let concurrent = head.concurrent;
        self.touch(at, &mut head);
        self.put(KEYS, &at.head(), &head);
        if open {
            let begin = candidates.iter().map(|row| &row.span.begin).min_by_key(|mark| mark.tick).cloned();
            let end = order::Mark { tick: self.tick, ..order::Mark::default() };
            let id = self.open_gap(GapRow {
                scope: GapScope::Key.as_str().into(),
                object: at.object(),
                reason: GapReason::Concurrent.as_str().into(),
                span: Span { begin: begin.unwrap_or_default(), end },
                ..GapRow::default()
            })?;
            let mut head = self.head(at)?;
            head.concurrent = id;
            self.put(KEYS, &at.head(), &head);
        }
        if close {
            self.close_gap(concurrent, how)?;
            let mut head = self.head(at)?;
            head.concurrent = 0;
            self.put(KEYS, &at.head(), &head);
        }
        Ok(())
    }

    /// The newest version shown so far that was over before each of the candidates began; 0 for none.
    fn base(&self, at: &Address, candidates: &[VersionRow]) -> Result<u64, IndexError> {
        for pair in self.batch.scan(HISTORY, &at.stem().keys()).take(PAST_MAX) {
            let tick = number(&pair?.1);
            if tick == 0 {
                continue;
            }
            let Some(row) = self.version_row(at, tick)?.filter(|row| !row.gone) else { continue };
            if candidates.iter().all(|candidate| order::precedes(&row.span, &candidate.span)) {
                return Ok(tick);
            }
        }
        Ok(0)
    }

    /// The spans of versions that are candidates no more.
    fn past(&self, at: &Address, head: &KeyRow) -> Result<Vec<Span>, IndexError> {
        let mut spans = Vec::new();
        for pair in self.batch.scan(VERSIONS, &at.stem().keys()).take(PAST_MAX) {
            let (key, value) = pair?;
            if !head.candidates.contains(&tick_of(&key)) {
                spans.push(decode::<VersionRow>(VERSIONS, &value)?.span);
            }
        }
        Ok(spans)
    }

    /// Applies a change of metadata alone to the version that it met.
    fn change_metadata(
        &mut self,
        object: Option<v1::ObjectRef>,
        version_id: &str,
        span: &Span,
        change: impl Fn(&mut v1::Metadata),
    ) -> Result<(), IndexError> {
        let Some(object) = object else { return Ok(()) };
        let at = Address::of(self.domain, &object);
        let mut head = self.head(&at)?;
        let candidates = self.candidates(&at, &head)?;
        if !version_id.is_empty() && !candidates.iter().any(|row| row.version_id == version_id) {
            // A version that is not current: nothing orders within it but what its bucket keeps.
            let Some(mut row) = self.version_of_id(&at, version_id)? else {
                return self.metadata_in_doubt(&at, "metadata of a version that is not recorded", span);
            };
            change(&mut row.metadata);
            self.put(VERSIONS, &at.at(row.tick), &row);
            return Ok(());
        }
        if candidates.iter().any(|row| order::precedes(span, &row.span)) {
            return Ok(()); // overwritten since, with the object that it changed
        }
        // The record of the write that made what was changed may come after this one.
        if version_id.is_empty() && self.version_on_its_way(&at)? {
            return self.metadata_in_doubt(&at, "metadata of a write whose record had not come", span);
        }
        let base = match &candidates[..] {
            [base] => base,
            // A backfill that read the object before this change may still tell it.
            [] => return self.metadata_in_doubt(&at, "metadata of an object that is not recorded", span),
            _ => return self.metadata_in_doubt(&at, "metadata of one of several versions", span),
        };
        if base.kind() != Kind::Object {
            // Something was there to be changed: after the object had gone, or else nobody knows.
            if order::precedes(&base.span, span) {
                let gap = self.key_gap(&at, GapReason::UnseenVersion, "metadata changed of what was gone", span);
                return self.open_gap(gap).map(drop);
            }
            return self.metadata_in_doubt(&at, "metadata of what was there before it was gone, or after", span);
        }
        let extents = self.manifest(&at, base.tick)?;
        let mut row = base.clone();
        change(&mut row.metadata);
        row.tick = self.tick;
        row.recorded_unix = self.unix;
        if row.origin() == Origin::Landed {
            // A pod has changed what a migration wrote.
            (row.origin, row.landed) = (Origin::Written.into(), None);
        }
        // It overrides what its base overrides, no more: a write before this change and after the base
        // would have been changed too.
        row.span = Span { begin: base.span.begin.clone(), end: span.end.clone() };
        let ordered = order::precedes(&base.span, span);
        let base_tick = base.tick;
        if ordered {
            head.candidates.retain(|tick| *tick != base_tick);
        }
        head.candidates.push(self.tick);
        self.put_version(&at, NewVersion { row, extents })?;
        self.serve(&at, head, "record")
    }

    /// A change of metadata that cannot be put on the version that it met.
    fn metadata_in_doubt(&mut self, at: &Address, detail: &str, span: &Span) -> Result<(), IndexError> {
        let mut gap = self.key_gap(at, GapReason::UnknownSource, detail, span);
        gap.of_metadata = true;
        self.open_gap(gap).map(drop)
    }

    /// The cloud removed one version for good.
    fn remove_version(&mut self, at: &Address, version_id: &str, span: &Span) -> Result<(), IndexError> {
        let Some(mut removed) = self.version_of_id(at, version_id)? else {
            return self.removed_early(at, version_id, span);
        };
        let mut head = self.head(at)?;
        let was_candidate = head.candidates.contains(&removed.tick);
        let was_served = head.served == removed.tick;
        head.candidates.retain(|tick| *tick != removed.tick);
        if was_served {
            let counted = (!head.alias).then_some(&removed);
            self.count(at, counted, None)?;
            self.batch.put(HISTORY, &at.at(self.tick), &0_u64.to_be_bytes());
            head.served = 0;
        }
        removed.gone = true;
        self.put(VERSIONS, &at.at(removed.tick), &removed);
        if !was_candidate || !head.candidates.is_empty() {
            return self.serve(at, head, "record");
        }
        // What was current is gone: the version before it is current again.
        let previous = self.previous(at, removed.tick)?;
        let known = previous.is_some();
        let new = match previous {
            Some(mut row) => {
                let extents = self.manifest(at, row.tick)?;
                let mut old = row.clone();
                old.gone = true; // it lives on under this tick
                self.put(VERSIONS, &at.at(old.tick), &old);
                (row.tick, row.span, row.recorded_unix) = (self.tick, span.clone(), self.unix);
                // A pod made it current again.
                (row.begun, row.origin, row.landed) = (span.begin.tick, Origin::Written.into(), None);
                NewVersion { row, extents }
            }
            None => self.version(Kind::Tombstone, span, v1::Metadata::default(), Vec::new()),
        };
        head.candidates.push(self.tick);
        self.put_version(at, new)?;
        self.serve(at, head, "record")?;
        if !known && removed.kind() != Kind::Tombstone && !removed.version_id.is_empty() {
            let detail = "the version before the removed one was never recorded";
            let gap = self.key_gap(at, GapReason::UnseenVersion, detail, span);
            self.open_gap(gap)?;
        }
        Ok(())
    }

    /// A version was removed that is not recorded, or not yet: its record must not bring it back.
    fn removed_early(&mut self, at: &Address, version_id: &str, span: &Span) -> Result<(), IndexError> {
        if version_id == NULL_VERSION {
            // The next write without versioning has the same id.
            if self.version_on_its_way(at)? {
                let gap = self.key_gap(at, GapReason::UnseenVersion, "the null version was removed", span);
                self.open_gap(gap)?;
            }
            return Ok(());
        }
        let key = removed_key(at);
        let mut row: RemovedRow = self.batch.row(FACTS, &key)?.unwrap_or_default();
        row.versions.push(RemovedVersion { version_id: version_id.into() });
        if row.versions.len() > REMOVED_MAX {
            row.versions.remove(0);
        }
        self.put(FACTS, &key, &row);
        Ok(())
    }

    fn was_removed(&self, at: &Address, version_id: &str) -> Result<bool, IndexError> {
        if version_id.is_empty() {
            return Ok(false);
        }
        let row: RemovedRow = self.batch.row(FACTS, &removed_key(at))?.unwrap_or_default();
        Ok(row.versions.iter().any(|removed| removed.version_id == version_id))
    }

    /// The version that was current before `tick` and that the cloud still keeps.
    fn previous(&self, at: &Address, tick: u64) -> Result<Option<VersionRow>, IndexError> {
        for pair in self.batch.scan(VERSIONS, &at.stem().keys()) {
            let row: VersionRow = decode(VERSIONS, &pair?.1)?;
            if row.tick < tick && !row.gone && !row.version_id.is_empty() && row.kind() != Kind::Tombstone {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    pub(crate) fn bucket_change(&mut self, change: v1::BucketChange, span: &Span) -> Result<(), IndexError> {
        let key = bucket_key(self.domain, &change.provider, &change.bucket);
        let mut row: BucketRow = self.batch.row(FACTS, &key)?.unwrap_or_default();
        let open = row.begun != 0 && row.ended == 0;
        if !change.deleted {
            if !open {
                (row.begun, row.ended, row.created_unix) = (self.tick, 0, self.unix);
                self.put(FACTS, &key, &row);
            }
            return Ok(());
        }
        row.ended = self.tick;
        row.begun = row.begun.max(1);
        self.put(FACTS, &key, &row);
        // A bucket is deleted only when it is empty: what the copy still shows went unseen.
        let emptying = EmptyingRow { span: span.clone(), tick: self.tick, after: Bytes::new() };
        self.put(FACTS, &emptying_key(self.domain, &change.provider, &change.bucket), &emptying);
        self.empty(&change.provider, &change.bucket)
    }

    /// Tombstones the next keys of a deleted bucket: so many that one entry stays small, whatever the bucket held.
    /// What is not done yet is not shown either ([`emptied_at`]).
    pub(crate) fn empty(&mut self, provider: &str, name: &str) -> Result<(), IndexError> {
        let pending = emptying_key(self.domain, provider, name);
        let Some(mut row) = self.batch.row::<EmptyingRow>(FACTS, &pending)? else { return Ok(()) };
        let stem = bucket(self.domain, provider, name);
        let keys = stem.keys();
        let keys = if row.after.is_empty() { keys } else { keys.after(&stem.clone().bytes(&row.after).0) };
        let (mut shown, mut seen, mut last) = (Vec::new(), 0, None);
        for pair in self.batch.scan(KEYS, &keys).take(EMPTIED_MAX) {
            let (key, value) = pair?;
            let key = Bytes::copy_from_slice(&key[stem.0.len()..]);
            let head: KeyRow = decode(KEYS, &value)?;
            if head.present && head.served <= row.tick {
                shown.push(key.clone());
            }
            (seen, last) = (seen + 1, Some(key));
        }
        let done = seen < EMPTIED_MAX;
        for key in shown {
            let at = Address { domain: self.domain, provider: provider.into(), bucket: name.into(), key };
            let new = self.version(Kind::Tombstone, &row.span, v1::Metadata::default(), Vec::new());
            self.place(&at, new)?;
        }
        match last.filter(|_| !done) {
            Some(last) => {
                row.after = last;
                self.put(FACTS, &pending, &row);
            }
            None => self.batch.delete(FACTS, &pending),
        }
        Ok(())
    }

    pub(crate) fn head(&self, at: &Address) -> Result<KeyRow, IndexError> {
        Ok(self.batch.row(KEYS, &at.head())?.unwrap_or_default())
    }

    pub(crate) fn candidates(&self, at: &Address, head: &KeyRow) -> Result<Vec<VersionRow>, IndexError> {
        let rows = head.candidates.iter().map(|tick| self.version_row(at, *tick));
        rows.filter_map(Result::transpose).collect()
    }

    pub(crate) fn served(&self, at: &Address, head: &KeyRow) -> Result<Option<VersionRow>, IndexError> {
        if head.served == 0 { Ok(None) } else { self.version_row(at, head.served) }
    }

    pub(crate) fn version_row(&self, at: &Address, tick: u64) -> Result<Option<VersionRow>, IndexError> {
        self.batch.row(VERSIONS, &at.at(tick))
    }

    /// Versions of a key, newest first.
    pub(crate) fn versions(&self, at: &Address) -> Result<Vec<VersionRow>, IndexError> {
        let keys = at.stem().keys();
        let rows = self.batch.scan(VERSIONS, &keys).take(PAST_MAX);
        rows.map(|pair| decode(VERSIONS, &pair?.1)).collect()
    }

    fn version_of_id(&self, at: &Address, version_id: &str) -> Result<Option<VersionRow>, IndexError> {
        for pair in self.batch.scan(VERSIONS, &at.stem().keys()) {
            let row: VersionRow = decode(VERSIONS, &pair?.1)?;
            if row.version_id == version_id && !row.gone {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    pub(crate) fn manifest(&self, at: &Address, tick: u64) -> Result<Vec<Extent>, IndexError> {
        Ok(self.batch.row::<ManifestRow>(MANIFESTS, &at.at(tick))?.unwrap_or_default().extents)
    }

    pub(crate) fn put_version(&mut self, at: &Address, new: NewVersion) -> Result<(), IndexError> {
        let key = at.at(new.row.tick);
        let mut totals: TotalsRow = self.batch.row(FACTS, &totals_key(self.domain))?.unwrap_or_default();
        totals.logical_bytes += new.row.size;
        self.put(FACTS, &totals_key(self.domain), &totals);
        self.put(VERSIONS, &key, &new.row);
        if !new.extents.is_empty() {
            self.put(MANIFESTS, &key, &ManifestRow { extents: new.extents });
        }
        Ok(())
    }

    /// Moves a key to the end of its provider's changes.
    pub(crate) fn touch(&mut self, at: &Address, head: &mut KeyRow) {
        if head.changed != 0 {
            self.batch.delete(CHANGES, &at.changed(head.changed));
        }
        head.changed = self.tick;
        self.batch.put(CHANGES, &at.changed(self.tick), &[]);
    }

    /// Keeps the bucket's counts right when what is shown under a key changes.
    pub(crate) fn count(
        &mut self,
        at: &Address,
        old: Option<&VersionRow>,
        new: Option<&VersionRow>,
    ) -> Result<(), IndexError> {
        let key = bucket_key(at.domain, &at.provider, &at.bucket);
        let mut row: BucketRow = self.batch.row(FACTS, &key)?.unwrap_or_default();
        if row.begun == 0 {
            (row.begun, row.created_unix) = (self.tick, self.unix);
        }
        if let Some(old) = old.filter(|old| old.is_present()) {
            row.objects = row.objects.saturating_sub(1);
            row.bytes = row.bytes.saturating_sub(old.size);
        }
        if let Some(new) = new.filter(|new| new.is_present()) {
            row.objects += 1;
            row.bytes += new.size;
        }
        self.put(FACTS, &key, &row);
        Ok(())
    }
}

/// Whether two versions are one: equal content and metadata, or both absent.
pub(crate) fn same(a: &VersionRow, b: &VersionRow) -> bool {
    if a.kind() != Kind::Object || b.kind() != Kind::Object {
        return a.kind() != Kind::Object && b.kind() != Kind::Object;
    }
    let content = if a.content.is_empty() || b.content.is_empty() {
        a.etag == b.etag && a.size == b.size && !a.etag.is_empty()
    } else {
        a.content == b.content
    };
    let read = a.origin() == Origin::Read || b.origin() == Origin::Read;
    content && same_metadata(&a.metadata, &b.metadata, read)
}

/// Whether an application would call the metadata equal. `read`: one of them comes from an answer of the
/// cloud, which shows defaults that the request did not name.
pub(crate) fn same_metadata(a: &v1::Metadata, b: &v1::Metadata, read: bool) -> bool {
    if !a.headers_known || !b.headers_known {
        return true;
    }
    let of = |metadata: &v1::Metadata, name: &str| -> Option<Bytes> {
        metadata.headers.iter().find(|header| header.name == name).map(|header| header.value.clone())
    };
    let named = |metadata: &v1::Metadata| -> Vec<String> {
        metadata.headers.iter().filter(|header| counts(&header.name)).map(|header| header.name.clone()).collect()
    };
    let mut names = named(a);
    names.extend(named(b));
    let headers = names.iter().all(|name| match (of(a, name), of(b, name)) {
        (Some(one), Some(other)) => one == other,
        (None, None) => true,
        // Clouds add a type of their own, and a class that nobody asked for.
        _ => read && matches!(name.as_str(), "content-type" | "x-amz-storage-class"),
    });
    // A write that names no tags sets none; an answer that names none says nothing of them.
    headers
        && (a.tags == b.tags || (read && !(a.tags_known && b.tags_known)))
        && (a.acl == b.acl || (read && (a.acl.is_empty() || b.acl.is_empty())))
}

/// Headers that an application set, as opposed to what the service says of itself.
fn counts(name: &str) -> bool {
    matches!(
        name,
        "content-type"
            | "content-encoding"
            | "content-language"
            | "content-disposition"
            | "cache-control"
            | "expires"
            | "x-amz-storage-class"
            | "x-amz-website-redirect-location"
    ) || name.starts_with("x-amz-meta-")
}

/// A name of content within a domain: over its length and its veiled hashes.
pub(crate) fn content(extents: &[Extent]) -> Bytes {
    let mut hasher = blake3::Hasher::new();
    let length: u64 = extents.iter().map(|extent| extent.length).sum();
    hasher.update(&length.to_le_bytes());
    for extent in extents {
        hasher.update(&extent.hashes);
    }
    Bytes::copy_from_slice(hasher.finalize().as_bytes())
}

/// The blocks of a body in an entry; inline content has become a block before.
pub(crate) fn extents_of(body: Option<&v1::Body>) -> Vec<Extent> {
    match body.and_then(|body| body.content.as_ref()) {
        Some(v1::body::Content::Run(run)) if run.length > 0 => vec![Extent {
            length: run.length,
            block_size: run.block_size,
            hashes: run.hashes.clone(),
            paged: run.paged,
            ..Extent::default()
        }],
        _ => Vec::new(),
    }
}

/// The tick up to which nothing of a bucket is shown, as it was deleted and is not all tombstoned yet; 0 for others.
pub(crate) fn emptied_at(
    rows: &impl Rows,
    domain: crate::names::DomainId,
    provider: &str,
    bucket: &str,
) -> Result<u64, IndexError> {
    Ok(rows.row::<EmptyingRow>(FACTS, &emptying_key(domain, provider, bucket))?.map_or(0, |row| row.tick))
}

/// Deleted buckets of a domain that are not all tombstoned yet, a few of them.
pub(crate) fn emptying(rows: &impl Rows, domain: crate::names::DomainId) -> Result<Vec<EmptiedBucket>, IndexError> {
    let (stem, mut pending) = (KeyBytes::letter(b'E', domain), Vec::new());
    for pair in rows.scan(FACTS, &stem.keys()).take(EMPTYING_MAX) {
        let (key, _) = pair?;
        let Some((provider, rest)) = take_text(&key[stem.0.len()..]) else { continue };
        let Some((bucket, _)) = take_text(rest) else { continue };
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        pending.push(EmptiedBucket { provider: text(provider), bucket: text(bucket) });
    }
    Ok(pending)
}

fn emptying_key(domain: crate::names::DomainId, provider: &str, bucket: &str) -> Vec<u8> {
    KeyBytes::letter(b'E', domain).text(provider.as_bytes()).text(bucket.as_bytes()).0
}

pub(crate) fn bucket_key(domain: crate::names::DomainId, provider: &str, bucket: &str) -> Vec<u8> {
    KeyBytes::letter(b'N', domain).text(provider.as_bytes()).text(bucket.as_bytes()).0
}

fn removed_key(at: &Address) -> Vec<u8> {
    KeyBytes::letter(b'R', at.domain).bytes(&at.stem().0).0
}

pub(crate) fn totals_key(domain: crate::names::DomainId) -> Vec<u8> {
    KeyBytes::letter(b'D', domain).0
}

pub(crate) fn number(value: &[u8]) -> u64 {
    value.try_into().map_or(0, u64::from_be_bytes)
}

fn kept(candidates: &[u64], beaten: &[usize]) -> Vec<u64> {
    let kept = candidates.iter().enumerate().filter(|(at, _)| !beaten.contains(at));
    kept.map(|(_, tick)| *tick).collect()
}

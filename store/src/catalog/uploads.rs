//! Multipart uploads: parts by number and ETag until a Complete lists them, copies of other objects'
//! content, and what becomes of either when something is not known.

use hawser_api::{GapReason, v1};

use super::apply::Apply;
use super::objects::extents_of;
use super::rows::{
    Address, KEYS, KeyBytes, KeyRow, Kind, PartRow, Rows, UPLOADS, UploadRow, VERSIONS, VersionRow, WaitingComplete,
    bucket, decode,
};
use crate::index::{IndexError, Keys};
use crate::names::DomainId;
use crate::order::{self, Span};

/// Versions of a copy's source that are looked at, newest first: an older one is a gap `UnknownSource`.
const SOURCE_VERSIONS_MAX: usize = 256;

impl Apply<'_, '_> {
    pub(crate) fn create_upload(&mut self, create: v1::CreateUpload) -> Result<(), IndexError> {
        let Some(object) = create.object else { return Ok(()) };
        let row = UploadRow {
            key: object.key.clone(),
            metadata: create.metadata.unwrap_or_default(),
            touched_unix: self.unix,
            ..UploadRow::default()
        };
        let key = upload_key(self.domain, &object, &create.upload_id);
        self.put(UPLOADS, &key, &row);
        Ok(())
    }

    pub(crate) fn upload_part(&mut self, part: v1::UploadPart) -> Result<(), IndexError> {
        let Some(object) = part.object else { return Ok(()) };
        let row = PartRow { extents: extents_of(part.body.as_ref()), length: 0 };
        self.put_part(&object, &part.upload_id, part.part_number, &part.etag, row)
    }

    /// A whole object becomes a part. (Ranges are cut anew before they come here, and are ordinary parts.)
    pub(crate) fn upload_part_copy(&mut self, part: v1::UploadPartCopy, span: &Span) -> Result<(), IndexError> {
        let Some(object) = part.object else { return Ok(()) };
        let source = part.source.unwrap_or_default();
        // Without its content the part is not known: the Complete that lists it makes the gap.
        let Some((at, row)) = copied(&*self.batch, self.domain, &source, span, &part.etag)? else { return Ok(()) };
        if part.ranged {
            return Ok(());
        }
        let row = PartRow { extents: self.manifest(&at, row.tick)?, length: 0 };
        self.put_part(&object, &part.upload_id, part.part_number, &part.etag, row)
    }

    fn put_part(
        &mut self,
        object: &v1::ObjectRef,
        upload_id: &str,
        number: u32,
        etag: &str,
        mut row: PartRow,
    ) -> Result<(), IndexError> {
        row.length = row.extents.iter().map(|extent| extent.length).sum();
        for extent in &mut row.extents {
            (extent.part_number, extent.part_etag) = (number, etag.into());
        }
        self.put(UPLOADS, &part_key(self.domain, object, upload_id, number, etag), &row);
        let key = upload_key(self.domain, object, upload_id);
        if let Some(mut upload) = self.batch.row::<UploadRow>(UPLOADS, &key)? {
            upload.touched_unix = self.unix;
            self.put(UPLOADS, &key, &upload);
            self.resume_complete(object, upload_id)?;
        }
        Ok(())
    }

    pub(crate) fn complete_upload(
        &mut self,
        complete: v1::CompleteUpload,
        span: &Span,
        operation: u64,
    ) -> Result<(), IndexError> {
        let Some(object) = complete.object.clone() else { return Ok(()) };
        let at = Address::of(self.domain, &object);
        let key = upload_key(self.domain, &object, &complete.upload_id);
        let Some(mut upload) = self.batch.row::<UploadRow>(UPLOADS, &key)? else {
            let gap = self.key_gap(&at, GapReason::UnknownUpload, "", span);
            return self.gap_of_version(gap, &complete.etag, &complete.version_id, operation);
        };
        let missing = self.missing_parts(&object, &complete)?;
        if missing.is_empty() {
            return self.finish_complete(&at, &upload, &complete, span);
        }
        // Parts whose sidecar has not told them yet may still come. Until then the key is in doubt: the
        // cloud has the new object already.
        let gap = self.unknown_part(&at, &complete, span, &missing)?;
        upload.waiting = Some(WaitingComplete { complete, span: span.clone(), gap });
        self.put(UPLOADS, &key, &upload);
        Ok(())
    }

    /// A part came: a Complete that waits may go on.
    fn resume_complete(&mut self, object: &v1::ObjectRef, upload_id: &str) -> Result<(), IndexError> {
        let key = upload_key(self.domain, object, upload_id);
        let Some(mut upload) = self.batch.row::<UploadRow>(UPLOADS, &key)? else { return Ok(()) };
        let Some(waiting) = upload.waiting.take() else { return Ok(()) };
        if !self.missing_parts(object, &waiting.complete)?.is_empty() {
            return Ok(());
        }
        let at = Address::of(self.domain, &v1::ObjectRef { key: upload.key.clone(), ..object.clone() });
        self.put(UPLOADS, &key, &upload);
        self.finish_complete(&at, &upload, &waiting.complete, &waiting.span)?;
        self.close_gap(waiting.gap, "record")
    }

    fn finish_complete(
        &mut self,
        at: &Address,
        upload: &UploadRow,
        complete: &v1::CompleteUpload,
        span: &Span,
    ) -> Result<(), IndexError> {
        let mut extents = Vec::new();
        for part in &complete.parts {
            let key = part_key(self.domain, &at.object(), &complete.upload_id, part.part_number, &part.etag);
            extents.extend(self.batch.row::<PartRow>(UPLOADS, &key)?.unwrap_or_default().extents);
        }
        let metadata = merged(&upload.metadata, complete.metadata.as_ref());
        let mut new = self.version(Kind::Object, span, metadata, extents);
        (new.row.etag, new.row.version_id) = (complete.etag.clone(), complete.version_id.clone());
        new.row.span.end.tick = self.tick;
        self.place(at, new)
    }

    fn missing_parts(&self, object: &v1::ObjectRef, complete: &v1::CompleteUpload) -> Result<Vec<u32>, IndexError> {
        let mut missing = Vec::new();
        for part in &complete.parts {
            let key = part_key(self.domain, object, &complete.upload_id, part.part_number, &part.etag);
            if self.batch.get(UPLOADS, &key)?.is_none() {
                missing.push(part.part_number);
            }
        }
        Ok(missing)
    }

    fn unknown_part(
        &mut self,
        at: &Address,
        complete: &v1::CompleteUpload,
        span: &Span,
        missing: &[u32],
    ) -> Result<u64, IndexError> {
        let first = missing.first().copied().unwrap_or_default();
        let detail = format!("{} of {} parts, the first of them {first}", missing.len(), complete.parts.len());
        let mut gap = self.key_gap(at, GapReason::UnknownPart, &detail, span);
        gap.span.end.tick = self.tick;
        (gap.etag, gap.version_id) = (complete.etag.clone(), complete.version_id.clone());
        self.open_gap(gap)
    }

    pub(crate) fn abort_upload(&mut self, abort: v1::AbortUpload) -> Result<(), IndexError> {
        let Some(object) = abort.object else { return Ok(()) };
        let key = upload_key(self.domain, &object, &abort.upload_id);
        if let Some(mut upload) = self.batch.row::<UploadRow>(UPLOADS, &key)? {
            // A Complete that won against it may still be told: its parts stay until the next collection.
            upload.touched_unix = 0;
            self.put(UPLOADS, &key, &upload);
        }
        Ok(())
    }

    pub(crate) fn copy_object(&mut self, copy: v1::CopyObject, span: &Span, operation: u64) -> Result<(), IndexError> {
        let Some(object) = copy.object else { return Ok(()) };
        let at = Address::of(self.domain, &object);
        let source = copy.source.unwrap_or_default();
        let Some((from, row)) = copied(&*self.batch, self.domain, &source, span, &copy.etag)? else {
            let mut gap = self.key_gap(&at, GapReason::UnknownSource, "", span);
            gap.of_metadata = true;
            return self.gap_of_version(gap, &copy.etag, &copy.version_id, operation);
        };
        let extents = self.manifest(&from, row.tick)?;
        let given = copy.metadata.unwrap_or_default();
        let mut metadata = if copy.replace_metadata { given.clone() } else { merged(&row.metadata, Some(&given)) };
        if copy.replace_tags {
            (metadata.tags, metadata.tags_known) = (given.tags, true);
        } else {
            (metadata.tags, metadata.tags_known) = (row.metadata.tags.clone(), row.metadata.tags_known);
        }
        metadata.acl = given.acl; // a copy never takes the source's along
        metadata.headers_known = copy.replace_metadata || row.metadata.headers_known;
        let mut new = self.version(Kind::Object, span, metadata, extents);
        (new.row.etag, new.row.version_id) = (copy.etag, copy.version_id);
        self.place(&at, new)
    }

    /// A change that is certain while its content is not known.
    pub(crate) fn gap_of_version(
        &mut self,
        mut gap: super::rows::GapRow,
        etag: &str,
        version_id: &str,
        operation: u64,
    ) -> Result<(), IndexError> {
        (gap.etag, gap.version_id) = (etag.into(), version_id.into());
        if operation != 0 {
            self.close_gap_of(operation, "record")?;
        }
        self.open_gap(gap)?;
        Ok(())
    }

    /// A Complete that still waited for a part leaves its gap behind.
    pub(crate) fn forget_upload(&mut self, object: &v1::ObjectRef, upload_id: &str) -> Result<(), IndexError> {
        let stem = stem(b'p', self.domain, object, upload_id);
        let keys: Vec<_> = self.batch.scan(UPLOADS, &stem.keys()).collect::<Result<_, _>>()?;
        for (key, _) in keys {
            self.batch.delete(UPLOADS, &key);
        }
        self.batch.delete(UPLOADS, &upload_key(self.domain, object, upload_id));
        Ok(())
    }
}

/// The version that a copy took its content from: the one that the answer named, or the only one that was
/// current all the while, or the one that gives the copy's ETag.
pub(crate) fn copied(
    rows: &impl Rows,
    domain: DomainId,
    source: &v1::CopySource,
    span: &Span,
    etag: &str,
) -> Result<Option<(Address, VersionRow)>, IndexError> {
    let Some(object) = &source.object else { return Ok(None) };
    let at = Address::of(domain, object);
    let mut versions: Vec<VersionRow> = Vec::new();
    for pair in rows.scan(VERSIONS, &at.stem().keys()).take(SOURCE_VERSIONS_MAX) {
        let row: VersionRow = decode(VERSIONS, &pair?.1)?;
        if row.kind() == Kind::Object && row.content_known() {
            versions.push(row);
        }
    }
    if !source.version_id.is_empty() {
        let named = versions.into_iter().find(|row| row.version_id == source.version_id);
        return Ok(named.map(|row| (at, row)));
    }
    let head: KeyRow = rows.row(KEYS, &at.head())?.unwrap_or_default();
    let certain = head.gaps == 0 && head.candidates.len() == 1 && !super::intents::has_intent(rows, &at)?;
    let served = versions.iter().find(|row| row.tick == head.served && !row.gone);
    if let Some(row) = served
        && certain
        && order::precedes(&row.span, span)
        && !(plain_md5(etag) && plain_md5(&row.etag) && etag != row.etag)
    {
        return Ok(Some((at, row.clone())));
    }
    // A plain MD5 names content: where the copy's is that of one recorded version (or of equal ones), it
    // does not matter when it was current. Metadata that differs does.
    let mut equal = versions.iter().filter(|row| plain_md5(etag) && row.etag == etag);
    let Some(first) = equal.next() else { return Ok(None) };
    let one = equal.all(|row| super::objects::same(row, first));
    Ok(one.then(|| (at, first.clone())))
}

/// `base` with what `added` says over it.
pub(crate) fn merged(base: &v1::Metadata, added: Option<&v1::Metadata>) -> v1::Metadata {
    let mut metadata = base.clone();
    let Some(added) = added else { return metadata };
    for header in &added.headers {
        metadata.headers.retain(|other| other.name != header.name);
        metadata.headers.push(header.clone());
    }
    if added.tags_known {
        metadata.tags.clone_from(&added.tags);
        metadata.tags_known = true;
    }
    if !added.acl.is_empty() {
        metadata.acl.clone_from(&added.acl);
    }
    metadata
}

/// Whether an ETag has the form of an MD5 of content: 32 hexadecimal digits and no count of parts.
fn plain_md5(etag: &str) -> bool {
    etag.len() == 32 && etag.bytes().all(|byte| byte.is_ascii_hexdigit())
}

pub(crate) fn stem(letter: u8, domain: DomainId, object: &v1::ObjectRef, upload_id: &str) -> KeyBytes {
    let stem = bucket(domain, &object.provider, &object.bucket).text(upload_id.as_bytes());
    KeyBytes(vec![letter]).bytes(&stem.0)
}

pub(crate) fn upload_key(domain: DomainId, object: &v1::ObjectRef, upload_id: &str) -> Vec<u8> {
    stem(b'u', domain, object, upload_id).0
}

/// Uploads of a domain.
pub(crate) fn upload_keys(domain: DomainId) -> Keys {
    KeyBytes::letter(b'u', domain).keys()
}

/// Parts of a domain's uploads.
pub(crate) fn part_keys(domain: DomainId) -> Keys {
    KeyBytes::letter(b'p', domain).keys()
}

fn part_key(domain: DomainId, object: &v1::ObjectRef, upload_id: &str, number: u32, etag: &str) -> Vec<u8> {
    stem(b'p', domain, object, upload_id).bytes(&number.to_be_bytes()).bytes(etag.as_bytes()).0
}

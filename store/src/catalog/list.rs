//! Reading the catalog: buckets, objects in key order, versions, as of now or of a tick. Every function
//! blocks its thread for as long as the index takes, and gives a bounded page.

use bytes::Bytes;
use hawser_api::v1;

use super::rows::{
    Address, BindingRow, BucketRow, GAPS, HISTORY, KEYS, KeyBytes, KeyRow, Kind, MANIFESTS, ManifestRow, Origin, Rows,
    VERSIONS, VersionRow, bucket, decode, tick_of,
};
use super::{Catalog, bindings, gaps, objects};
use crate::index::{IndexError, Keys};
use crate::names::DomainId;
use crate::view::View;

/// Entries in one page at most.
pub(crate) const PAGE_MAX: usize = 1000;

/// Why a question about the copy has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The object, version, bucket or binding is not known.
    #[error("not found")]
    NotFound,
    /// The bucket is in several bindings.
    #[error("bucket {0} is in several bindings: name one")]
    Ambiguous(String),
    /// The version is known and its content is not.
    #[error("the content of this version was never seen: run a backfill")]
    ContentUnknown,
    /// The range begins behind the end.
    #[error("the object has {size} bytes")]
    Range {
        /// Bytes of the object.
        size: u64,
    },
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// A bucket of a binding at one provider.
pub(crate) struct Found {
    pub(crate) domain: DomainId,
    pub(crate) binding: BindingRow,
    pub(crate) identity: String,
    /// As the provider calls it.
    pub(crate) bucket: String,
}

impl Catalog {
    /// The buckets of a domain under the store's names.
    ///
    /// # Errors
    /// [`ListError::Index`].
    pub fn list_buckets(&self, domain: &str, binding: &str) -> Result<Vec<v1::BucketEntry>, ListError> {
        let Some(domain) = self.store().existing_domain(domain).map(|domain| domain.id()) else {
            return Ok(Vec::new());
        };
        let view = self.store().view();
        let mut buckets = Vec::new();
        for row in bindings::all(&view, domain)? {
            if !binding.is_empty() && row.hello.binding != binding {
                continue;
            }
            buckets.extend(buckets_of(&view, domain, &row, &row.force)?);
        }
        buckets.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(buckets)
    }

    /// Objects of a bucket in key order, after `start_after`; at most the page's bound, fewer only at the end.
    ///
    /// # Errors
    /// [`ListError`].
    pub fn list_objects(
        &self,
        domain: &str,
        request: &v1::ListObjectsRequest,
    ) -> Result<Vec<v1::ObjectEntry>, ListError> {
        let view = self.store().view();
        let found = self.bucket(&view, domain, request)?;
        let limit = page_limit(request.limit);
        let emptied = objects::emptied_at(&view, found.domain, &found.identity, &found.bucket)?;
        let mut entries = Vec::new();
        for pair in view.scan(KEYS, &found.keys(request)) {
            if entries.len() >= limit {
                break;
            }
            let (key, value) = pair?;
            let head: KeyRow = decode(KEYS, &value)?;
            let at = found.at(&key);
            let tick = match request.at_tick {
                0 if !head.present => continue,
                0 => head.served,
                _ if head.alias => continue, // another key's object
                tick => served_at(&view, &at, tick)?,
            };
            let was_emptied = tick <= emptied && (request.at_tick == 0 || request.at_tick >= emptied);
            let Some(row) = version(&view, &at, tick)?.filter(|_| !was_emptied) else { continue };
            if row.kind() == Kind::Object {
                entries.push(found.entry(&view, &at, &head, row, tick == head.served)?);
            }
        }
        Ok(entries)
    }

    /// Every kept version, keys in order, newest first within a key; whole keys, until a page is full.
    ///
    /// # Errors
    /// [`ListError`].
    pub fn list_versions(
        &self,
        domain: &str,
        request: &v1::ListObjectsRequest,
    ) -> Result<Vec<v1::ObjectEntry>, ListError> {
        let view = self.store().view();
        let found = self.bucket(&view, domain, request)?;
        let limit = page_limit(request.limit);
        let mut entries = Vec::new();
        for pair in view.scan(KEYS, &found.keys(request)) {
            if entries.len() >= limit {
                break;
            }
            let (key, value) = pair?;
            let head: KeyRow = decode(KEYS, &value)?;
            let at = found.at(&key);
            for pair in view.scan(VERSIONS, &at.stem().keys()) {
                let (key, value) = pair?;
                let mut row: VersionRow = decode(VERSIONS, &value)?;
                row.tick = tick_of(&key);
                let newer = request.at_tick != 0 && row.tick > request.at_tick;
                if !row.gone && !newer {
                    let current = row.tick == head.served;
                    entries.push(found.entry(&view, &at, &head, row, current)?);
                }
            }
        }
        Ok(entries)
    }

    /// One object: its current version, a named one, or the one of a tick; with its parts.
    ///
    /// # Errors
    /// [`ListError::NotFound`] when there is none. Then [`Catalog::gap`] says whether that is certain.
    pub fn get_object(&self, domain: &str, request: &v1::GetObjectRequest) -> Result<v1::ObjectEntry, ListError> {
        let view = self.store().view();
        let (found, at) = self.object(&view, domain, request)?;
        let head: KeyRow = view.row(KEYS, &at.head())?.ok_or(ListError::NotFound)?;
        let row = if request.tick != 0 {
            version(&view, &at, request.tick)?
        } else if request.version_id.is_empty() {
            let emptied = objects::emptied_at(&view, at.domain, &at.provider, &at.bucket)?;
            if head.present && head.served > emptied { version(&view, &at, head.served)? } else { None }
        } else {
            named_version(&view, &at, &request.version_id)?
        };
        let row = row.filter(|row| !row.gone).ok_or(ListError::NotFound)?;
        let current = row.tick == head.served;
        let tick = row.tick;
        let mut entry = found.entry(&view, &at, &head, row, current)?;
        entry.parts = parts(&view, &at, tick)?;
        Ok(entry)
    }

    /// Why what is known of a key is in doubt; `None` when it is not.
    ///
    /// # Errors
    /// [`ListError`].
    pub fn gap(&self, domain: &str, request: &v1::GetObjectRequest) -> Result<Option<String>, ListError> {
        let view = self.store().view();
        let (_, at) = self.object(&view, domain, request)?;
        let head: KeyRow = view.row(KEYS, &at.head())?.unwrap_or_default();
        Ok(gap_of(&view, &at, &head)?.filter(|reason| !reason.is_empty()))
    }

    /// Whether a version was ever recorded for a key, and what is current there.
    ///
    /// # Errors
    /// [`ListError`].
    pub(crate) fn known(&self, domain: DomainId, request: &v1::KnownRequest) -> Result<v1::KnownReply, ListError> {
        let object = request.object.clone().unwrap_or_default();
        let at = Address::of(domain, &object);
        let view = self.store().view();
        let Some(head) = view.row::<KeyRow>(KEYS, &at.head())? else { return Ok(v1::KnownReply::default()) };
        let found = Found {
            domain,
            binding: BindingRow::default(),
            identity: object.provider.clone(),
            bucket: object.bucket.clone(),
        };
        let mut reply = v1::KnownReply::default();
        for pair in view.scan(VERSIONS, &at.stem().keys()) {
            let row: VersionRow = decode(VERSIONS, &pair?.1)?;
            let id = request.version_id.is_empty() || row.version_id.is_empty() || row.version_id == request.version_id;
            reply.recorded |= row.etag == request.etag && id && row.kind() == Kind::Object;
        }
        if let Some(row) = version(&view, &at, head.served)? {
            reply.ours = row.origin() == super::rows::Origin::Landed;
            let mut entry = found.entry(&view, &at, &head, row, true)?;
            entry.parts = parts(&view, &at, head.served)?;
            reply.current = Some(entry);
        }
        Ok(reply)
    }

    /// Gaps of a binding, or of all, the open ones or every one, from the oldest.
    ///
    /// # Errors
    /// [`ListError::Index`].
    pub fn list_gaps(
        &self,
        domain: &str,
        request: &v1::ListGapsRequest,
        after: u64,
    ) -> Result<Vec<v1::GapEntry>, ListError> {
        let Some(domain) = self.store().existing_domain(domain).map(|domain| domain.id()) else {
            return Ok(Vec::new());
        };
        let view = self.store().view();
        let stem = KeyBytes::letter(b'g', domain);
        let mut entries = Vec::new();
        if request.closed {
            let keys = stem.keys().after(&stem.clone().number(after).0);
            for pair in view.scan(GAPS, &keys) {
                let row: super::rows::GapRow = decode(GAPS, &pair?.1)?;
                if request.binding.is_empty() || row.binding == request.binding {
                    entries.push(gap_entry(row));
                }
                if entries.len() >= PAGE_MAX {
                    break;
                }
            }
        } else {
            let mut open = super::backfill::open(&view, domain, &request.binding)?;
            open.sort_by_key(|row| row.id);
            entries.extend(open.into_iter().filter(|row| row.id > after).take(PAGE_MAX).map(gap_entry));
        }
        Ok(entries)
    }

    /// Finds a bucket by the store's name of it.
    fn bucket(&self, view: &View<'_>, domain: &str, request: &v1::ListObjectsRequest) -> Result<Found, ListError> {
        let domain = self.store().existing_domain(domain).ok_or(ListError::NotFound)?.id();
        find(view, domain, &request.binding, &request.provider, &request.bucket)
    }

    fn object(
        &self,
        view: &View<'_>,
        domain: &str,
        request: &v1::GetObjectRequest,
    ) -> Result<(Found, Address), ListError> {
        let domain = self.store().existing_domain(domain).ok_or(ListError::NotFound)?.id();
        let object = request.object.clone().unwrap_or_default();
        if request.store_bucket.is_empty() && !object.provider.is_empty() {
            let mut found = Found {
                domain,
                binding: BindingRow::default(),
                identity: object.provider.clone(),
                bucket: object.bucket.clone(),
            };
            for row in bindings::all(view, domain)? {
                if bindings::store_bucket(&row.hello, &object.provider, &object.bucket).is_some() {
                    found.identity.clone_from(&object.provider);
                    found.binding = row;
                    break;
                }
            }
            return Ok((found, Address::of(domain, &object)));
        }
        let name = if request.store_bucket.is_empty() { &object.bucket } else { &request.store_bucket };
        let found = find(view, domain, &request.binding, &object.provider, name)?;
        let at = Address { domain, provider: found.identity.clone(), bucket: found.bucket.clone(), key: object.key };
        Ok((found, at))
    }
}

impl Found {
    fn keys(&self, request: &v1::ListObjectsRequest) -> Keys {
        let stem = bucket(self.domain, &self.identity, &self.bucket);
        let keys = stem.clone().bytes(&request.prefix).keys();
        if request.start_after.is_empty() { keys } else { keys.after(&stem.bytes(&request.start_after).0) }
    }

    fn at(&self, head: &[u8]) -> Address {
        let stem = bucket(self.domain, &self.identity, &self.bucket).0.len();
        Address {
            domain: self.domain,
            provider: self.identity.clone(),
            bucket: self.bucket.clone(),
            key: Bytes::copy_from_slice(&head[stem..]),
        }
    }

    pub(crate) fn entry(
        &self,
        view: &View<'_>,
        at: &Address,
        head: &KeyRow,
        row: VersionRow,
        current: bool,
    ) -> Result<v1::ObjectEntry, IndexError> {
        let store_name = bindings::store_bucket(&self.binding.hello, &self.identity, &self.bucket);
        let observed = row.origin() == Origin::Written;
        let (written_at, over_tick, landed_from) = match &row.landed {
            Some(behind) => (behind.provider.clone(), behind.over, behind.tick),
            None => (self.identity.clone(), row.span.end.tick, 0),
        };
        Ok(v1::ObjectEntry {
            begun_tick: row.begun,
            over_tick,
            written_at,
            landed_from,
            observed,
            object: Some(at.object()),
            bucket: store_name.unwrap_or_else(|| self.bucket.clone()),
            size: row.size,
            tombstone: row.kind() == Kind::Tombstone,
            delete_marker: row.kind() == Kind::Marker,
            content_known: row.content_known(),
            content: row.content,
            etag: row.etag,
            version_id: row.version_id,
            tick: row.tick,
            recorded_unix: row.recorded_unix,
            metadata: Some(row.metadata),
            parts: Vec::new(),
            current,
            gap: gap_of(view, at, head)?.unwrap_or_default(),
            last_modified: row.last_modified,
        })
    }
}

/// Finds the binding, provider and provider's name of a bucket of the store.
pub(crate) fn find(
    view: &View<'_>,
    domain: DomainId,
    binding: &str,
    provider: &str,
    name: &str,
) -> Result<Found, ListError> {
    let mut found: Option<(bool, Found)> = None;
    for row in bindings::all(view, domain)? {
        if !binding.is_empty() && row.hello.binding != binding {
            continue;
        }
        let named = bindings::identity(&row.hello, provider).map(str::to_owned);
        let known = bindings::provider_name(&row.hello, provider).map(|_| provider.to_owned());
        let identity = if provider.is_empty() { Some(row.force.clone()) } else { named.or(known) };
        let Some(identity) = identity else { continue };
        let Some(bucket) = bindings::provider_bucket(&row.hello, &identity, name) else { continue };
        let explicit = row.hello.buckets.iter().any(|bucket| bucket.name == name);
        if !explicit {
            // `*` has the buckets that something is known of.
            let key = objects::bucket_key(domain, &identity, &bucket);
            if view.row::<BucketRow>(super::rows::FACTS, &key)?.is_none() {
                continue;
            }
        }
        let this = Found { domain, binding: row, identity, bucket };
        match &found {
            Some((true, _)) if !explicit => {}
            Some((had, _)) if *had == explicit => return Err(ListError::Ambiguous(name.into())),
            _ => found = Some((explicit, this)),
        }
    }
    found.map(|(_, found)| found).ok_or(ListError::NotFound)
}

/// Buckets of one binding at a provider, under the store's names.
pub(crate) fn buckets_of(
    view: &View<'_>,
    domain: DomainId,
    row: &BindingRow,
    identity: &str,
) -> Result<Vec<v1::BucketEntry>, IndexError> {
    let mut buckets: Vec<v1::BucketEntry> = Vec::new();
    for (name, bucket) in bindings::buckets_at(view, domain, &row.hello, identity)? {
        let emptying = objects::emptied_at(view, domain, identity, &name)? != 0;
        let gone = bucket.ended != 0 && (bucket.objects == 0 || emptying);
        if let Some(name) = bindings::store_bucket(&row.hello, identity, &name).filter(|_| !gone) {
            buckets.push(v1::BucketEntry {
                name,
                binding: row.hello.binding.clone(),
                objects: bucket.objects,
                bytes: bucket.bytes,
                created_unix: bucket.created_unix,
            });
        }
    }
    for named in row.hello.buckets.iter().filter(|named| named.name != "*") {
        if !buckets.iter().any(|bucket| bucket.name == named.name) {
            buckets.push(v1::BucketEntry {
                name: named.name.clone(),
                binding: row.hello.binding.clone(),
                created_unix: row.created_unix,
                ..v1::BucketEntry::default()
            });
        }
    }
    Ok(buckets)
}

/// The version that was shown at a tick; 0 for none.
fn served_at(view: &View<'_>, at: &Address, tick: u64) -> Result<u64, IndexError> {
    let keys = at.stem().keys().starting_at(&at.at(tick));
    let first = view.scan(HISTORY, &keys).next().transpose()?;
    Ok(first.map_or(0, |(_, value)| objects::number(&value)))
}

pub(crate) fn version(view: &View<'_>, at: &Address, tick: u64) -> Result<Option<VersionRow>, IndexError> {
    if tick == 0 {
        return Ok(None);
    }
    let row: Option<VersionRow> = view.row(VERSIONS, &at.at(tick))?;
    Ok(row.map(|row| VersionRow { tick, ..row }))
}

fn named_version(view: &View<'_>, at: &Address, version_id: &str) -> Result<Option<VersionRow>, IndexError> {
    for pair in view.scan(VERSIONS, &at.stem().keys()) {
        let (key, value) = pair?;
        let row: VersionRow = decode(VERSIONS, &value)?;
        if row.version_id == version_id && !row.gone {
            return Ok(Some(VersionRow { tick: tick_of(&key), ..row }));
        }
    }
    Ok(None)
}

/// The parts that a version was sent in; none for one that was not.
pub(crate) fn parts(view: &View<'_>, at: &Address, tick: u64) -> Result<Vec<v1::PartLayout>, IndexError> {
    let manifest: ManifestRow = view.row(MANIFESTS, &at.at(tick))?.unwrap_or_default();
    let mut parts: Vec<v1::PartLayout> = Vec::new();
    for extent in manifest.extents.into_iter().filter(|extent| extent.part_number != 0) {
        match parts.last_mut() {
            Some(part) if part.part_number == extent.part_number => part.length += extent.length,
            _ => parts.push(v1::PartLayout {
                part_number: extent.part_number,
                length: extent.length,
                etag: extent.part_etag,
            }),
        }
    }
    Ok(parts)
}

/// The reason of an open gap of a key.
fn gap_of(view: &View<'_>, at: &Address, head: &KeyRow) -> Result<Option<String>, IndexError> {
    if head.gaps == 0 {
        return Ok(None);
    }
    if head.concurrent != 0 {
        return Ok(Some(hawser_api::GapReason::Concurrent.as_str().into()));
    }
    let stem = KeyBytes::letter(b'k', at.domain).bytes(&at.stem().0);
    let Some(pair) = view.scan(GAPS, &stem.keys()).next() else { return Ok(None) };
    let id = pair?.0.last_chunk::<8>().map_or(0, |id| u64::from_be_bytes(*id));
    let row: Option<super::rows::GapRow> = view.row(GAPS, &gaps::gap_key(at.domain, id))?;
    Ok(row.map(|row| row.reason))
}

fn gap_entry(row: super::rows::GapRow) -> v1::GapEntry {
    v1::GapEntry {
        id: row.id,
        binding: row.binding,
        scope: row.scope,
        object: Some(row.object),
        version_id: row.version_id,
        etag: row.etag,
        reason: row.reason,
        detail: row.detail,
        begin_tick: row.span.begin.tick,
        end_tick: row.span.end.tick,
        opened_unix: row.opened_unix,
        closed: !row.closed_by.is_empty(),
        closed_by: row.closed_by,
    }
}

fn page_limit(limit: u64) -> usize {
    match usize::try_from(limit).unwrap_or(PAGE_MAX) {
        0 => PAGE_MAX,
        limit => limit.min(PAGE_MAX + 1),
    }
}

//! What may go: versions past the binding's retention, and uploads that nobody touched for a week. Decided
//! here, committed as an entry, so that a rebuilt index forgets the same.

use hawser_api::v1;

use super::apply::Apply;
use super::bindings;
use super::entry::{Trimmed, TrimmedUpload, TrimmedVersion};
use super::objects::totals_key;
use super::rows::{
    Address, FACTS, KEYS, KeyRow, MANIFESTS, Rows, TotalsRow, UPLOADS, UploadRow, VERSIONS, VersionRow, bucket, decode,
    take_text,
};
use super::uploads;
use crate::index::IndexError;
use crate::names::DomainId;

/// Seconds that an upload outlives its last part, as at S3 where nothing else is set.
pub(crate) const UPLOAD_SECONDS: i64 = 7 * 24 * 3600;

/// Versions and uploads in one entry.
pub(crate) const TRIMMED_MAX: usize = 2_000;

impl Apply<'_, '_> {
    pub(crate) fn trimmed(&mut self, trimmed: Trimmed) -> Result<(), IndexError> {
        for version in trimmed.versions {
            let at = Address::of(self.domain, &version.object);
            let head = self.head(&at)?;
            // What is shown, or may be current, stays whatever the entry says.
            if head.served == version.tick || head.candidates.contains(&version.tick) {
                continue;
            }
            let Some(row) = self.version_row(&at, version.tick)? else { continue };
            let mut totals: TotalsRow = self.batch.row(FACTS, &totals_key(self.domain))?.unwrap_or_default();
            totals.logical_bytes = totals.logical_bytes.saturating_sub(row.size);
            self.put(FACTS, &totals_key(self.domain), &totals);
            self.batch.delete(VERSIONS, &at.at(row.tick));
            self.batch.delete(MANIFESTS, &at.at(row.tick));
        }
        for upload in trimmed.uploads {
            let object = v1::ObjectRef { provider: upload.provider, bucket: upload.bucket, ..v1::ObjectRef::default() };
            self.forget_upload(&object, &upload.upload_id)?;
        }
        Ok(())
    }
}

/// What of a domain may go at `now`, at most [`TRIMMED_MAX`] of it.
pub(crate) fn due(rows: &impl Rows, domain: DomainId, now: i64) -> Result<Trimmed, IndexError> {
    let mut trimmed = Trimmed::default();
    for binding in bindings::all(rows, domain)? {
        let (versions, days) = (binding.hello.retention_versions, binding.hello.retention_days);
        if versions == 0 && days == 0 {
            continue;
        }
        for provider in &binding.hello.providers {
            for (name, _) in bindings::buckets_at(rows, domain, &binding.hello, &provider.identity)? {
                let place = Place { domain, provider: &provider.identity, bucket: &name };
                place.due(rows, versions, i64::from(days), now, &mut trimmed)?;
                if trimmed.versions.len() >= TRIMMED_MAX {
                    return Ok(trimmed);
                }
            }
        }
    }
    let keys = uploads::upload_keys(domain);
    for pair in rows.scan(UPLOADS, &keys) {
        let (key, value) = pair?;
        let row: UploadRow = decode(UPLOADS, &value)?;
        if now - row.touched_unix < UPLOAD_SECONDS {
            continue;
        }
        let Some(upload) = upload_of(&key[5..]) else { continue };
        trimmed.uploads.push(upload);
        if trimmed.uploads.len() >= TRIMMED_MAX {
            break;
        }
    }
    Ok(trimmed)
}

struct Place<'a> {
    domain: DomainId,
    provider: &'a str,
    bucket: &'a str,
}

impl Place<'_> {
    fn due(
        &self,
        rows: &impl Rows,
        versions: u32,
        days: i64,
        now: i64,
        trimmed: &mut Trimmed,
    ) -> Result<(), IndexError> {
        let stem = bucket(self.domain, self.provider, self.bucket);
        let (keys, mut last, mut kept) = (stem.keys(), Vec::new(), 0_u32);
        let mut newer_unix = now;
        for pair in rows.scan(VERSIONS, &keys) {
            let (key, value) = pair?;
            let row: VersionRow = decode(VERSIONS, &value)?;
            let Some((object, _)) = take_text(&key[stem.0.len()..]) else { continue };
            if object != last {
                (last, kept, newer_unix) = (object.clone(), 0, now);
            }
            kept += 1;
            // A version's age counts from when a newer one took its place.
            let too_many = versions != 0 && kept > versions;
            let too_old = days != 0 && kept > 1 && now - newer_unix > days * 24 * 3600;
            newer_unix = row.recorded_unix;
            if !(too_many || too_old) {
                continue;
            }
            let at = Address {
                domain: self.domain,
                provider: self.provider.into(),
                bucket: self.bucket.into(),
                key: object.into(),
            };
            let head: KeyRow = rows.row(KEYS, &at.head())?.unwrap_or_default();
            // In doubt, nothing of the key goes: an older version may turn out to be the one that counts.
            if head.served == row.tick || head.candidates.contains(&row.tick) || head.gaps > 0 {
                continue;
            }
            trimmed.versions.push(TrimmedVersion { object: at.object(), tick: row.tick });
            if trimmed.versions.len() >= TRIMMED_MAX {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn upload_of(key: &[u8]) -> Option<TrimmedUpload> {
    let (provider, rest) = take_text(key)?;
    let (bucket, rest) = take_text(rest)?;
    let (upload_id, _) = take_text(rest)?;
    Some(TrimmedUpload {
        provider: String::from_utf8(provider).ok()?,
        bucket: String::from_utf8(bucket).ok()?,
        upload_id: String::from_utf8(upload_id).ok()?,
    })
}

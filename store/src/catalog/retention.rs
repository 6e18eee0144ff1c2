//! What may go: versions past the binding's retention with their place in history, uploads that nobody touched for
//! a week, and what is kept for people alone or was kept for somebody who does not come back. Decided here, committed
//! as an entry, so that a rebuilt index forgets the same. What orders a write stays: its key's candidates and what is
//! shown, open gaps, open intents and lapses of whatever age.

use std::collections::BTreeSet;

use bytes::Bytes;
use hawser_api::v1;

use super::apply::Apply;
use super::bindings;
use super::entry::{Trimmed, TrimmedUpload, TrimmedVersion};
use super::objects::totals_key;
use super::rows::{
    Address, BackfillRow, FACTS, GAPS, GapRow, HISTORY, KEYS, KeyBytes, KeyRow, MANIFESTS, Rows, SessionRow, TotalsRow,
    UPLOADS, UploadRow, VERSIONS, VersionRow, bucket, decode, take_text,
};
use super::{backfill, gaps, intents, uploads};
use crate::index::IndexError;
use crate::names::DomainId;

/// Seconds that an upload outlives its last part, as at S3 where nothing else is set.
pub(crate) const UPLOAD_SECONDS: i64 = 7 * 24 * 3600;

/// Seconds that closed gaps and ended backfills are kept for people, and sessions for what their pod's journal may
/// still tell under their name: it comes with the first word of the pod's next process.
pub(crate) const PAST_SECONDS: i64 = 30 * 24 * 3600;

/// Things of one kind in one entry.
pub(crate) const TRIMMED_MAX: usize = 2_000;

impl Apply<'_, '_> {
    pub(crate) fn trimmed(&mut self, trimmed: Trimmed) -> Result<(), IndexError> {
        let mut touched = BTreeSet::new();
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
            touched.insert(at);
        }
        for at in touched {
            self.forget_history(&at)?;
        }
        for upload in trimmed.uploads {
            let object = v1::ObjectRef { provider: upload.provider, bucket: upload.bucket, ..v1::ObjectRef::default() };
            self.forget_upload(&object, &upload.upload_id)?;
        }
        for id in trimmed.gaps {
            if self.gap(id)?.is_some_and(|row| !row.closed_by.is_empty()) {
                self.batch.delete(GAPS, &gaps::gap_key(self.domain, id));
            }
        }
        for session in trimmed.sessions {
            self.batch.delete(FACTS, &super::session_key(self.domain, &session));
        }
        for id in trimmed.backfills {
            self.forget_backfill(id)?;
        }
        for bucket in trimmed.emptied {
            self.empty(&bucket.provider, &bucket.bucket)?;
        }
        Ok(())
    }

    /// Takes from the far end of a key's history what led to versions that are no more. Within it nothing goes: as of
    /// a time between, an older version would seem to have been shown.
    fn forget_history(&mut self, at: &Address) -> Result<(), IndexError> {
        let rows: Vec<_> = self.batch.scan(HISTORY, &at.stem().keys()).collect::<Result<_, _>>()?;
        let Some((_, older)) = rows.split_first() else { return Ok(()) }; // what is shown now stays
        for (key, value) in older.iter().rev() {
            let tick = super::objects::number(value);
            if tick != 0 && self.version_row(at, tick)?.is_some() {
                break;
            }
            self.batch.delete(HISTORY, key);
        }
        Ok(())
    }

    fn forget_backfill(&mut self, id: u64) -> Result<(), IndexError> {
        self.batch.delete(FACTS, &backfill::backfill_key(self.domain, id));
        let stem = KeyBytes::letter(b'A', self.domain).number(id);
        let keys: Vec<_> = self.batch.scan(FACTS, &stem.keys()).collect::<Result<_, _>>()?;
        for (key, _) in keys {
            self.batch.delete(FACTS, &key);
        }
        Ok(())
    }
}

impl Trimmed {
    /// How much it lets go.
    pub(crate) fn count(&self) -> usize {
        let Trimmed { versions, uploads, gaps, sessions, backfills, emptied } = self;
        versions.len() + uploads.len() + gaps.len() + sessions.len() + backfills.len() + emptied.len()
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
    past(rows, domain, now, &mut trimmed)?;
    Ok(trimmed)
}

/// What is kept for a time after it was over.
fn past(rows: &impl Rows, domain: DomainId, now: i64, trimmed: &mut Trimmed) -> Result<(), IndexError> {
    let is_past = |unix: i64| now - unix > PAST_SECONDS;
    for pair in rows.scan(GAPS, &KeyBytes::letter(b'g', domain).keys()) {
        let row: GapRow = decode(GAPS, &pair?.1)?;
        if !row.closed_by.is_empty() && is_past(row.closed_unix.max(row.opened_unix)) {
            trimmed.gaps.push(row.id);
            if trimmed.gaps.len() >= TRIMMED_MAX {
                break;
            }
        }
    }
    let stem = KeyBytes::letter(b'S', domain);
    for pair in rows.scan(FACTS, &stem.keys()) {
        let (key, value) = pair?;
        let session = &key[stem.0.len()..];
        if !is_past(decode::<SessionRow>(FACTS, &value)?.touched_unix) {
            continue;
        }
        let intent = rows.scan(FACTS, &intents::session_intent_keys(domain, session)).next().transpose()?;
        let lapse = rows.scan(GAPS, &gaps::session_lapse_keys(domain, session)).next().transpose()?;
        if intent.is_none() && lapse.is_none() {
            trimmed.sessions.push(Bytes::copy_from_slice(session));
            if trimmed.sessions.len() >= TRIMMED_MAX {
                break;
            }
        }
    }
    // One backfill of a binding runs at a time: one that never ended is over when a later one has.
    let mut over: BTreeSet<String> = BTreeSet::new();
    let stem = KeyBytes::letter(b'F', domain);
    let all: Vec<_> = rows.scan(FACTS, &stem.keys()).collect::<Result<_, _>>()?;
    for (key, value) in all.into_iter().rev() {
        let row: BackfillRow = decode(FACTS, &value)?;
        let ended = row.ended && is_past(row.coverage.finished_unix);
        if (ended || (!row.ended && over.contains(&row.binding))) && trimmed.backfills.len() < TRIMMED_MAX {
            trimmed.backfills.push(key.last_chunk::<8>().map_or(0, |id| u64::from_be_bytes(*id)));
        }
        if ended {
            over.insert(row.binding);
        }
    }
    Ok(())
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

//! Backfill: a provider's listing compared with the catalog, page by page, and what a complete one closes.

use bytes::Bytes;
use hawser_api::{GapReason, GapScope, v1};

use super::apply::Apply;
use super::entry::{BackfillBegun, BackfillEnded, Reconciled};
use super::objects::NewVersion;
use super::reads::{Seen, Verdict};
use super::rows::{
    Address, BackfillRow, BindingRow, FACTS, GapRow, KEYS, KeyBytes, KeyRow, Kind, Origin, Rows, VERSIONS, VersionRow,
    bucket, decode,
};
use super::{gaps, intents};
use crate::index::IndexError;
use crate::names::DomainId;
use crate::order::{self, Mark, Span};

impl Apply<'_, '_> {
    pub(crate) fn backfill_begun(&mut self, begun: BackfillBegun) -> Result<(), IndexError> {
        let coverage = v1::Coverage { known: true, begin_tick: begun.begin_tick, ..v1::Coverage::default() };
        let row = BackfillRow { binding: self.binding.clone(), begun, coverage, ended: false };
        self.put(FACTS, &backfill_key(self.domain, self.tick), &row);
        self.answer.id = self.tick;
        Ok(())
    }

    /// Takes a page into account: what it confirms is a sighting, what it lacks is noted, what it shows
    /// differently is a gap until it has been fetched.
    pub(crate) fn reconciled(&mut self, page: Reconciled) -> Result<(), IndexError> {
        let key = backfill_key(self.domain, page.backfill);
        let Some(mut row) = self.batch.row::<BackfillRow>(FACTS, &key)? else { return Ok(()) };
        row.coverage.listed_objects += page.listed_objects;
        row.coverage.listed_bytes += page.listed_bytes;
        row.coverage.held_objects += page.held_objects;
        row.coverage.held_bytes += page.held_bytes;
        self.put(FACTS, &key, &row);
        let provider = row.begun.provider;
        let object =
            |key: &Bytes| v1::ObjectRef { provider: provider.clone(), bucket: page.bucket.clone(), key: key.clone() };
        for key in &page.absent {
            let absent = absent_stem(self.domain, page.backfill, &page.bucket).bytes(key).0;
            self.batch.put(FACTS, &absent, &[]);
        }
        let span = sighting_span(page.begin_tick, self.tick);
        for listed in &page.differing {
            let at = Address::of(self.domain, &object(&listed.key));
            let head = self.head(&at)?;
            let candidates = self.candidates(&at, &head)?;
            let over = candidates.iter().all(|row| order::precedes(&row.span, &span));
            if !over || candidates.is_empty() || head.gaps > 0 || self.has_intent(&at)? {
                continue; // a write is on its way or after the page, or the key is in doubt already
            }
            let mut gap = self.key_gap(&at, GapReason::UnseenVersion, "the listing", &span);
            (gap.etag, gap.version_id) = (listed.etag.clone(), listed.version_id.clone());
            self.open_gap(gap)?;
        }
        Ok(())
    }

    /// What HEAD said of a key that the listing lacked.
    pub(crate) fn absent(&mut self, absent: v1::ConfirmAbsentRequest) -> Result<(), IndexError> {
        let Some(object) = &absent.object else { return Ok(()) };
        let at = Address::of(self.domain, object);
        let span = sighting_span(absent.begin_tick, self.tick);
        let key = absent_stem(self.domain, absent.backfill, &at.bucket).bytes(&at.key).0;
        self.batch.delete(FACTS, &key);
        if absent.found {
            let mut head = self.head(&at)?;
            if head.present {
                // Another key's object answers under this name: not an object of its own.
                let served = self.served(&at, &head)?;
                self.count(&at, served.as_ref(), None)?;
                (head.alias, head.present) = (true, false);
                self.put(KEYS, &at.head(), &head);
            }
            return Ok(());
        }
        if let Some(why) = kept_because(&*self.batch, &at, absent.begin_tick)? {
            // A gap that a 404 settles is settled by it; anything else holds the tombstone up.
            let seen = Seen { absent: true, etag: "", version_id: "", listing: false, metadata: None };
            if let Verdict::Decides { tick, gaps } = self.verdict(&at, &seen, &span)? {
                return self.decided(&at, tick, gaps, &span);
            }
            self.answer.refused = why;
            return Ok(());
        }
        let mut new: NewVersion = self.version(Kind::Tombstone, &span, v1::Metadata::default(), Vec::new());
        (new.row.origin, new.row.begun) = (Origin::Sighted.into(), 0);
        self.put_version(&at, new)?;
        self.decide(&at, self.tick, "backfill")
    }

    /// A fetch that was asked for is there.
    pub(crate) fn held_by_backfill(&mut self, backfill: u64, bytes: u64) -> Result<(), IndexError> {
        let key = backfill_key(self.domain, backfill);
        if backfill != 0
            && let Some(mut row) = self.batch.row::<BackfillRow>(FACTS, &key)?.filter(|row| !row.ended)
        {
            row.coverage.held_objects += 1;
            row.coverage.held_bytes += bytes;
            self.put(FACTS, &key, &row);
        }
        Ok(())
    }

    pub(crate) fn backfill_ended(&mut self, ended: BackfillEnded) -> Result<(), IndexError> {
        let key = backfill_key(self.domain, ended.backfill);
        let Some(mut row) = self.batch.row::<BackfillRow>(FACTS, &key)?.filter(|row| !row.ended) else {
            self.answer.refused = "the backfill is not known".into();
            return Ok(());
        };
        row.ended = true;
        row.coverage.finished_unix = self.unix;
        self.put(FACTS, &key, &row);
        let stem = KeyBytes::letter(b'A', self.domain).number(ended.backfill);
        let keys: Vec<_> = self.batch.scan(FACTS, &stem.keys()).collect::<Result<_, _>>()?;
        for (key, _) in keys {
            self.batch.delete(FACTS, &key);
        }
        self.answer.coverage = Some(row.coverage);
        if !ended.complete || !row.begun.prefix.is_empty() {
            return Ok(());
        }
        let binding_key = super::bindings::binding_key(self.domain, &row.binding);
        if let Some(mut binding) = self.batch.row::<BindingRow>(FACTS, &binding_key)? {
            binding.coverage.insert(row.begun.provider.clone(), row.coverage);
            self.put(FACTS, &binding_key, &binding);
        }
        for gap in open(&*self.batch, self.domain, &row.binding)? {
            if closed_by_backfill(&gap, &row.begun) && !self.lacks_metadata(&gap)? {
                self.close_gap(gap.id, "backfill")?;
            }
        }
        Ok(())
    }

    /// Whether a gap is of metadata of an object that is there: the reading of it that showed its tags would
    /// have closed it.
    fn lacks_metadata(&self, gap: &GapRow) -> Result<bool, IndexError> {
        let of_one = gap.of_metadata && gaps::of_key(gap);
        Ok(of_one && self.head(&Address::of(self.domain, &gap.object))?.present)
    }
}

/// Whether a complete backfill closes a gap: it began after the gap was over, and nothing of it can arrive
/// any more. Which of several writes won, and content that only the client can read, it does not tell.
pub(crate) fn closed_by_backfill(gap: &GapRow, begun: &BackfillBegun) -> bool {
    let reason = GapReason::from_wire(&gap.reason);
    let of_provider = gap.object.provider.is_empty() || gap.object.provider == begun.provider;
    let over = gap.span.end.tick != 0 && gap.span.end.tick <= begun.begin_tick;
    let settled = !gaps::settles(gap) || (gap.settled != 0 && gap.settled <= begun.begin_tick);
    let tells = !matches!(reason, GapReason::Concurrent | GapReason::SseC | GapReason::Damaged);
    of_provider && over && settled && (tells || gap.scope == GapScope::Bucket.as_str())
}

/// Why a key that a listing lacks must not be tombstoned.
pub(crate) fn kept_because(rows: &impl Rows, at: &Address, begin_tick: u64) -> Result<Option<String>, IndexError> {
    let head: KeyRow = rows.row(KEYS, &at.head())?.unwrap_or_default();
    if head.gaps > 0 {
        return Ok(Some("a gap of the key is open".into()));
    }
    if intents::has_intent(rows, at)? {
        return Ok(Some("a write of the key is on its way".into()));
    }
    for tick in &head.candidates {
        let row: VersionRow = rows.row(VERSIONS, &at.at(*tick))?.unwrap_or_default();
        if row.span.end.tick > begin_tick {
            return Ok(Some("a newer record".into()));
        }
    }
    Ok(None)
}

/// A page compared with the catalog.
#[derive(Default)]
pub(crate) struct Compared {
    pub(crate) fetch: Vec<Bytes>,
    pub(crate) entry: Reconciled,
}

/// Compares a page of `provider`'s listing with what is known: pure reading.
pub(crate) fn compare(
    rows: &impl Rows,
    domain: DomainId,
    provider: &str,
    page: &v1::ReconcilePageRequest,
    prefix: &[u8],
) -> Result<Compared, IndexError> {
    let fetch_all = page.fetch_all || closes_more_than_keys(rows, domain, page)?;
    let mut compared = Compared::default();
    let entry = &mut compared.entry;
    (entry.backfill, entry.bucket, entry.begin_tick) = (page.backfill, page.bucket.clone(), page.begin_tick);
    let at = |key: &Bytes| Address { domain, provider: provider.into(), bucket: page.bucket.clone(), key: key.clone() };
    for listed in &page.objects {
        entry.listed_objects += 1;
        entry.listed_bytes += listed.size;
        let at = at(&listed.key);
        let head: KeyRow = rows.row(KEYS, &at.head())?.unwrap_or_default();
        let served = match head.served {
            0 => None,
            tick => rows.row::<VersionRow>(VERSIONS, &at.at(tick))?,
        };
        let matches = served.as_ref().is_some_and(|row| {
            let version =
                listed.version_id.is_empty() || row.version_id.is_empty() || row.version_id == listed.version_id;
            row.is_present() && row.etag == listed.etag && row.size == listed.size && version && row.content_known()
        });
        if matches && head.gaps == 0 && !head.alias && !fetch_all {
            entry.held_objects += 1;
            entry.held_bytes += listed.size;
            continue;
        }
        compared.fetch.push(listed.key.clone());
        if !matches && served.is_some() {
            entry.differing.push(listed.clone());
        }
    }
    // What is held as current between the page's ends and not listed.
    let stem = bucket(domain, provider, &page.bucket);
    let mut keys = stem.keys();
    if !page.after.is_empty() {
        keys = keys.after(&stem.clone().bytes(&page.after).0);
    }
    let to_end = page.last && page.through.is_empty();
    if !to_end {
        let mut through = stem.clone().bytes(&page.through).0;
        through.push(0);
        keys = keys.below(&through);
    }
    let mut listed = page.objects.iter().map(|object| &object.key[..]).peekable();
    for pair in rows.scan(KEYS, &keys) {
        let (key, value) = pair?;
        let key = &key[stem.0.len()..];
        while listed.peek().is_some_and(|listed| *listed < key) {
            listed.next();
        }
        if listed.peek() == Some(&key) || !key.starts_with(prefix) {
            continue;
        }
        if decode::<KeyRow>(KEYS, &value)?.present {
            compared.entry.absent.push(Bytes::copy_from_slice(key));
        }
    }
    Ok(compared)
}

/// Whether the backfill, if it ends complete, closes a gap under which anything in the page's bucket may have
/// changed: a listing shows no metadata, so that all of it has to be read.
fn closes_more_than_keys(
    rows: &impl Rows,
    domain: DomainId,
    page: &v1::ReconcilePageRequest,
) -> Result<bool, IndexError> {
    let row: Option<BackfillRow> = rows.row(FACTS, &backfill_key(domain, page.backfill))?;
    let Some(row) = row.filter(|row| row.begun.prefix.is_empty()) else { return Ok(false) };
    let wide = |gap: &GapRow| {
        let here = gap.object.bucket.is_empty() || gap.object.bucket == page.bucket;
        here && !gaps::of_key(gap) && closed_by_backfill(gap, &row.begun)
    };
    Ok(open(rows, domain, &row.binding)?.iter().any(wide))
}

/// Open gaps of a binding; of all bindings when `binding` is empty.
pub(crate) fn open(rows: &impl Rows, domain: DomainId, binding: &str) -> Result<Vec<GapRow>, IndexError> {
    let keys =
        if binding.is_empty() { KeyBytes::letter(b'o', domain).keys() } else { gaps::open_keys(domain, binding) };
    let mut open = Vec::new();
    for pair in rows.scan(super::rows::GAPS, &keys) {
        let id = pair?.0.last_chunk::<8>().map_or(0, |id| u64::from_be_bytes(*id));
        open.extend(rows.row::<GapRow>(super::rows::GAPS, &gaps::gap_key(domain, id))?);
    }
    Ok(open)
}

/// A reading of the store's own calls: begun after `begin_tick` was heard, over by now.
fn sighting_span(begin_tick: u64, tick: u64) -> Span {
    Span { begin: Mark { tick: begin_tick, ..Mark::default() }, end: Mark { tick, ..Mark::default() } }
}

pub(crate) fn backfill_key(domain: DomainId, id: u64) -> Vec<u8> {
    KeyBytes::letter(b'F', domain).number(id).0
}

/// Keys of a bucket that a backfill's listing lacked.
pub(crate) fn absent_stem(domain: DomainId, backfill: u64, bucket: &str) -> KeyBytes {
    KeyBytes::letter(b'A', domain).number(backfill).text(bucket.as_bytes())
}

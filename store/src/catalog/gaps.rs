//! Gaps: opened where something may have changed unseen, closed by what their reason allows
//! ([`GapReason::closed_by_later_write`], [`GapReason::closed_by_sighting`], the operation's own record, a
//! complete backfill), folded where there are too many.

use hawser_api::gap::ClosedBySighting;
use hawser_api::{GapReason, GapScope, change, v1};

use super::apply::Apply;
use super::entry::span;
use super::objects::{bucket_key, totals_key};
use super::rows::{Address, BucketRow, FACTS, GAPS, GapRow, KEYS, KeyBytes, Kind, Rows, TotalsRow, VersionRow, bucket};
use crate::index::{IndexError, Keys};
use crate::names::DomainId;
use crate::order::{self, Mark, Span};

/// Open gaps of keys in one bucket before they are folded into one of the bucket.
pub(crate) const BUCKET_GAPS_MAX: u64 = 10_000;

impl Apply<'_, '_> {
    /// An observer found a gap.
    pub(crate) fn gap_found(&mut self, found: v1::GapFound) -> Result<(), IndexError> {
        self.end_intent(found.operation)?;
        let object = found.object.unwrap_or_default();
        let scope = found.scope.parse().unwrap_or(GapScope::Binding);
        let row = GapRow {
            scope: scope.as_str().into(),
            object,
            version_id: found.version_id,
            etag: found.etag,
            reason: GapReason::from_wire(&found.reason).as_str().into(),
            of_metadata: change::may_keep_the_etag(&found.detail),
            detail: found.detail,
            span: span(&self.session, found.head.as_ref(), found.end.as_ref(), self.tick),
            session: if found.operation == 0 { Default::default() } else { self.session.clone() },
            operation: found.operation,
            ..GapRow::default()
        };
        self.close_gap_of(found.operation, "outcome")?; // its intent was given up too early
        self.open_gap(row)?;
        Ok(())
    }

    /// A lapse of the whole binding begins; one that lasts already may be told again.
    pub(crate) fn lapse_began(&mut self, open: v1::GapOpen) -> Result<(), IndexError> {
        let key = lapse_key(self.domain, &self.session, open.lapse);
        if self.batch.get(GAPS, &key)?.is_some() {
            return Ok(());
        }
        let mut span = span(&self.session, open.begin.as_ref(), None, 0);
        span.end = Mark::default();
        let row = GapRow {
            scope: GapScope::Binding.as_str().into(),
            object: v1::ObjectRef { provider: open.provider, ..v1::ObjectRef::default() },
            reason: GapReason::from_wire(&open.reason).as_str().into(),
            detail: open.detail,
            span,
            session: self.session.clone(),
            ..GapRow::default()
        };
        let id = self.open_gap(row)?;
        self.batch.put(GAPS, &key, &id.to_be_bytes());
        Ok(())
    }

    pub(crate) fn lapse_ended(&mut self, lapse: u64, end: Option<&v1::Stamp>) -> Result<(), IndexError> {
        let key = lapse_key(self.domain, &self.session, lapse);
        let Some(id) = self.batch.get(GAPS, &key)? else { return Ok(()) };
        self.batch.delete(GAPS, &key);
        let Some(mut row) = self.gap(super::objects::number(&id))? else { return Ok(()) };
        let counter = end.map_or(0, |end| end.counter);
        row.span.end = Mark { tick: self.tick, session: self.session.clone(), counter };
        self.put(GAPS, &gap_key(self.domain, row.id), &row);
        self.await_settling(&row);
        Ok(())
    }

    pub(crate) fn key_gap(&self, at: &Address, reason: GapReason, detail: &str, span: &Span) -> GapRow {
        GapRow {
            scope: GapScope::Key.as_str().into(),
            object: at.object(),
            reason: reason.as_str().into(),
            detail: detail.into(),
            span: span.clone(),
            ..GapRow::default()
        }
    }

    /// Writes a gap down and gives its id.
    pub(crate) fn open_gap(&mut self, mut row: GapRow) -> Result<u64, IndexError> {
        let mut totals: TotalsRow = self.batch.row(FACTS, &totals_key(self.domain))?.unwrap_or_default();
        totals.last_gap += 1;
        self.put(FACTS, &totals_key(self.domain), &totals);
        row.id = totals.last_gap;
        row.opened_unix = self.unix;
        row.binding.clone_from(&self.binding);
        self.put(GAPS, &gap_key(self.domain, row.id), &row);
        self.batch.put(GAPS, &open_key(self.domain, &row.binding, row.id), &[]);
        if row.operation != 0 {
            let key = operation_key(self.domain, &row.session, row.operation).number(row.id).0;
            self.batch.put(GAPS, &key, &[]);
        }
        if row.span.end.tick != 0 {
            self.await_settling(&row);
        }
        if of_key(&row) {
            let at = Address::of(self.domain, &row.object);
            self.batch.put(GAPS, &at_key(&at, row.id), &[]);
            let mut head = self.head(&at)?;
            head.gaps += 1;
            self.touch(&at, &mut head);
            self.put(KEYS, &at.head(), &head);
            let key = bucket_key(self.domain, &at.provider, &at.bucket);
            let mut bucket: BucketRow = self.batch.row(FACTS, &key)?.unwrap_or_default();
            bucket.open_gaps += u64::from(folds(&row));
            self.put(FACTS, &key, &bucket);
            if bucket.open_gaps > BUCKET_GAPS_MAX {
                self.fold(&at)?;
            }
        }
        Ok(row.id)
    }

    pub(crate) fn close_gap(&mut self, id: u64, how: &str) -> Result<(), IndexError> {
        let Some(mut row) = self.gap(id)?.filter(|row| row.closed_by.is_empty()) else { return Ok(()) };
        row.closed_by = how.into();
        (row.closed_tick, row.closed_unix) = (self.tick, self.unix);
        self.put(GAPS, &gap_key(self.domain, id), &row);
        self.batch.delete(GAPS, &open_key(self.domain, &row.binding, id));
        self.batch.delete(GAPS, &unsettled_key(self.domain, row.span.end.tick, id));
        if row.operation != 0 {
            self.batch.delete(GAPS, &operation_key(self.domain, &row.session, row.operation).number(id).0);
        }
        if of_key(&row) {
            let at = Address::of(self.domain, &row.object);
            self.batch.delete(GAPS, &at_key(&at, id));
            let mut head = self.head(&at)?;
            head.gaps = head.gaps.saturating_sub(1);
            if head.concurrent == id {
                head.concurrent = 0;
            }
            self.touch(&at, &mut head);
            self.put(KEYS, &at.head(), &head);
            let key = bucket_key(self.domain, &at.provider, &at.bucket);
            let mut bucket: BucketRow = self.batch.row(FACTS, &key)?.unwrap_or_default();
            bucket.open_gaps = bucket.open_gaps.saturating_sub(u64::from(folds(&row)));
            self.put(FACTS, &key, &bucket);
        }
        Ok(())
    }

    /// A recorded write of a key closes what was lost before it began, and what was its own.
    pub(crate) fn close_gaps_by_write(&mut self, at: &Address, row: &VersionRow) -> Result<(), IndexError> {
        for gap in self.gaps_at(at)? {
            let reason = GapReason::from_wire(&gap.reason);
            if reason == GapReason::Concurrent {
                continue; // closes with its candidates
            }
            // What was lost of metadata goes with the object, once it can overtake the write no more.
            let settled = gap.of_metadata && gap.settled != 0 && gap.settled <= row.span.begin.tick;
            let later = settled || (reason.closed_by_later_write() && order::precedes(&gap.span, &row.span));
            let seen = match row.kind() {
                Kind::Object => !gap.saw_absence && !gap.etag.is_empty() && gap.etag == row.etag,
                Kind::Tombstone | Kind::Marker => gap.saw_absence,
            };
            let own = reason == GapReason::UnseenVersion && seen;
            if later || own {
                self.close_gap(gap.id, "record")?;
            }
        }
        Ok(())
    }

    /// The outcome of an operation is known after all.
    pub(crate) fn close_gap_of(&mut self, operation: u64, how: &str) -> Result<(), IndexError> {
        if operation == 0 {
            return Ok(());
        }
        let stem = operation_key(self.domain, &self.session, operation);
        let keys: Vec<_> = self.batch.scan(GAPS, &stem.keys()).collect::<Result<_, _>>()?;
        for (key, _) in keys {
            self.close_gap(key.last_chunk::<8>().map_or(0, |id| u64::from_be_bytes(*id)), how)?;
        }
        Ok(())
    }

    /// Whether a sighting with this span may close a gap of a key.
    pub(crate) fn closable(&self, gap: &GapRow, sighting: &Span, listing: bool) -> bool {
        match GapReason::from_wire(&gap.reason).closed_by_sighting() {
            ClosedBySighting::BegunAfter => order::precedes(&gap.span, sighting),
            ClosedBySighting::Settled => !listing && gap.settled != 0 && gap.settled <= sighting.begin.tick,
            ClosedBySighting::Never => false,
        }
    }

    /// Open gaps of a key.
    pub(crate) fn gaps_at(&self, at: &Address) -> Result<Vec<GapRow>, IndexError> {
        let stem = KeyBytes::letter(b'k', at.domain).bytes(&at.stem().0);
        let mut gaps = Vec::new();
        for pair in self.batch.scan(GAPS, &stem.keys()) {
            let id = pair?.0.last_chunk::<8>().map_or(0, |id| u64::from_be_bytes(*id));
            gaps.extend(self.gap(id)?);
        }
        Ok(gaps)
    }

    pub(crate) fn gap(&self, id: u64) -> Result<Option<GapRow>, IndexError> {
        self.batch.row(GAPS, &gap_key(self.domain, id))
    }

    /// The settling time of gaps that ended up to `through` is over.
    pub(crate) fn settled(&mut self, through: u64) -> Result<(), IndexError> {
        let stem = KeyBytes::letter(b's', self.domain);
        let end = stem.clone().number(through.saturating_add(1)).0;
        let keys: Vec<_> = self.batch.scan(GAPS, &stem.keys().below(&end)).collect::<Result<_, _>>()?;
        for (key, _) in keys {
            self.batch.delete(GAPS, &key);
            let id = key.last_chunk::<8>().map_or(0, |id| u64::from_be_bytes(*id));
            if let Some(mut row) = self.gap(id)? {
                row.settled = self.tick;
                self.put(GAPS, &gap_key(self.domain, id), &row);
            }
        }
        Ok(())
    }

    fn await_settling(&mut self, row: &GapRow) {
        if settles(row) {
            self.batch.put(GAPS, &unsettled_key(self.domain, row.span.end.tick, row.id), &[]);
        }
    }

    /// Too many gaps of keys of a bucket become one of the bucket.
    fn fold(&mut self, at: &Address) -> Result<(), IndexError> {
        let stem = KeyBytes::letter(b'k', self.domain).bytes(&bucket(self.domain, &at.provider, &at.bucket).0);
        let keys: Vec<_> = self.batch.scan(GAPS, &stem.keys()).collect::<Result<_, _>>()?;
        let (mut begin, mut folded) = (None::<Mark>, 0_u64);
        for (key, _) in keys {
            let id = key.last_chunk::<8>().map_or(0, |id| u64::from_be_bytes(*id));
            let Some(gap) = self.gap(id)? else { continue };
            if !folds(&gap) {
                continue;
            }
            if begin.as_ref().is_none_or(|begin| gap.span.begin.tick < begin.tick) {
                begin = Some(gap.span.begin.clone());
            }
            folded += 1;
            self.close_gap(id, "folded")?;
        }
        let object = v1::ObjectRef { key: Default::default(), ..at.object() };
        let row = GapRow {
            scope: GapScope::Bucket.as_str().into(),
            object,
            reason: GapReason::Folded.as_str().into(),
            detail: format!("{folded} gaps of keys"),
            span: Span { begin: begin.unwrap_or_default(), end: Mark { tick: self.tick, ..Mark::default() } },
            ..GapRow::default()
        };
        self.open_gap(row)?;
        Ok(())
    }
}

/// Whether a gap's operation may still reach the cloud for a while after the gap's end.
pub(crate) fn settles(row: &GapRow) -> bool {
    let reason = GapReason::from_wire(&row.reason);
    !reason.closed_by_later_write() && reason != GapReason::Other
}

/// Whether a gap counts among those that are too many. Which of several versions is current is said by a gap
/// of its own as long as it is open; there are no more of these than keys.
fn folds(row: &GapRow) -> bool {
    row.reason != GapReason::Concurrent.as_str()
}

/// Whether a gap is of a key that is named.
pub(crate) fn of_key(row: &GapRow) -> bool {
    let of_key = row.scope == GapScope::Key.as_str() || row.scope == GapScope::Version.as_str();
    of_key && !row.object.key.is_empty()
}

pub(crate) fn gap_key(domain: DomainId, id: u64) -> Vec<u8> {
    KeyBytes::letter(b'g', domain).number(id).0
}

/// Open gaps of a binding.
pub(crate) fn open_keys(domain: DomainId, binding: &str) -> Keys {
    KeyBytes::letter(b'o', domain).text(binding.as_bytes()).keys()
}

fn open_key(domain: DomainId, binding: &str, id: u64) -> Vec<u8> {
    KeyBytes::letter(b'o', domain).text(binding.as_bytes()).number(id).0
}

/// Gaps of a domain whose settling time runs, by their end's tick.
pub(crate) fn unsettled_keys(domain: DomainId) -> Keys {
    KeyBytes::letter(b's', domain).keys()
}

/// The end's tick within a key of [`unsettled_keys`].
pub(crate) fn unsettled_tick(key: &[u8]) -> u64 {
    key.get(5..13).and_then(|tick| tick.try_into().ok()).map_or(0, u64::from_be_bytes)
}

fn unsettled_key(domain: DomainId, end: u64, id: u64) -> Vec<u8> {
    KeyBytes::letter(b's', domain).number(end).number(id).0
}

fn operation_key(domain: DomainId, session: &[u8], operation: u64) -> KeyBytes {
    KeyBytes::letter(b'p', domain).bytes(session).number(operation)
}

fn lapse_key(domain: DomainId, session: &[u8], lapse: u64) -> Vec<u8> {
    KeyBytes::letter(b'l', domain).bytes(session).number(lapse).0
}

/// Lapses of one session that last.
pub(crate) fn session_lapse_keys(domain: DomainId, session: &[u8]) -> Keys {
    KeyBytes::letter(b'l', domain).bytes(session).keys()
}

/// Lapses of a domain that last.
pub(crate) fn lapse_keys(domain: DomainId) -> Keys {
    KeyBytes::letter(b'l', domain).keys()
}

/// The session within a key of [`lapse_keys`].
pub(crate) fn lapse_session(key: &[u8]) -> &[u8] {
    super::intents::intent_session(key)
}

pub(crate) fn at_key(at: &Address, id: u64) -> Vec<u8> {
    KeyBytes::letter(b'k', at.domain).bytes(&at.stem().0).number(id).0
}

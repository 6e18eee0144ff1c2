//! The copy in numbers, for people and for the operator.

use std::collections::BTreeMap;

use hawser_api::v1;

use super::entry::BackfillBegun;
use super::intents::intent_keys;
use super::list::ListError;
use super::rows::{BindingRow, FACTS, GapRow, IntentRow, Rows, TotalsRow, decode};
use super::{Catalog, backfill, bindings, objects};
use crate::names::DomainId;
use crate::view::View;

/// Objects that are counted as unconfirmed before counting stops: the number is for people.
const UNCONFIRMED_MAX: u64 = 1_000_000;

impl Catalog {
    /// Every binding of a domain, or one.
    ///
    /// # Errors
    /// [`ListError::Index`].
    pub(crate) fn status_of_bindings(
        &self,
        domain: DomainId,
        binding: &str,
    ) -> Result<Vec<v1::BindingStatus>, ListError> {
        let view = self.store().view();
        let mut statuses = Vec::new();
        for row in bindings::all(&view, domain)? {
            if binding.is_empty() || row.hello.binding == binding {
                statuses.push(status(&view, domain, row)?);
            }
        }
        Ok(statuses)
    }

    /// Bytes of content that the kept versions of a domain name.
    ///
    /// # Errors
    /// [`ListError::Index`].
    pub(crate) fn logical_bytes(&self, domain: DomainId) -> Result<u64, ListError> {
        let totals: Option<TotalsRow> = self.store().view().row(FACTS, &objects::totals_key(domain))?;
        Ok(totals.unwrap_or_default().logical_bytes)
    }

    /// Buckets of a binding at one of its providers, under the store's names.
    ///
    /// # Errors
    /// [`ListError::Index`].
    pub(crate) fn buckets_at(
        &self,
        domain: DomainId,
        row: &BindingRow,
        identity: &str,
    ) -> Result<Vec<v1::BucketEntry>, ListError> {
        Ok(super::list::buckets_of(&self.store().view(), domain, row, identity)?)
    }

    /// One binding as it was told.
    ///
    /// # Errors
    /// [`ListError::Index`].
    pub(crate) fn binding(&self, domain: DomainId, binding: &str) -> Result<Option<BindingRow>, ListError> {
        Ok(bindings::one(&self.store().view(), domain, binding)?)
    }

    /// Every binding of a domain as it was told.
    ///
    /// # Errors
    /// [`ListError::Index`].
    pub(crate) fn bindings(&self, domain: DomainId) -> Result<Vec<BindingRow>, ListError> {
        Ok(bindings::all(&self.store().view(), domain)?)
    }

    /// Objects of a binding's provider that no complete backfill has confirmed since they were recorded.
    ///
    /// # Errors
    /// [`ListError::Index`].
    pub(crate) fn unconfirmed(&self, domain: DomainId, row: &BindingRow, identity: &str) -> Result<u64, ListError> {
        let view = self.store().view();
        let Some(coverage) = row.coverage.get(identity) else {
            let buckets = bindings::buckets_at(&view, domain, &row.hello, identity)?;
            return Ok(buckets.iter().map(|(_, bucket)| bucket.objects).sum());
        };
        Ok(bindings::unconfirmed(&view, domain, &row.hello, identity, coverage.begin_tick, UNCONFIRMED_MAX)?)
    }

    /// Open gaps of a binding that a switch away from `identity` has to ask about, by reason.
    ///
    /// # Errors
    /// [`ListError::Index`].
    pub(crate) fn open_gaps(
        &self,
        domain: DomainId,
        binding: &str,
        identity: &str,
    ) -> Result<BTreeMap<String, u64>, ListError> {
        let mut reasons = BTreeMap::new();
        for gap in backfill::open(&self.store().view(), domain, binding)? {
            if gap.object.provider.is_empty() || gap.object.provider == identity {
                *reasons.entry(gap.reason).or_default() += 1;
            }
        }
        Ok(reasons)
    }

    /// Whether another complete backfill after `begin_tick` closes more: those that only have to settle first,
    /// and those that can be closed at once.
    ///
    /// # Errors
    /// [`ListError::Index`].
    pub(crate) fn closable_later(
        &self,
        domain: DomainId,
        binding: &str,
        identity: &str,
        begin_tick: u64,
    ) -> Result<Later, ListError> {
        let mut later = Later::default();
        for gap in backfill::open(&self.store().view(), domain, binding)? {
            let settles = super::gaps::settles(&gap) && gap.settled == 0;
            let now = BackfillBegun { provider: identity.into(), begin_tick: u64::MAX, ..BackfillBegun::default() };
            let before = BackfillBegun { begin_tick, ..now.clone() };
            let over = gap.span.end.tick != 0;
            // A fetch after it decides between its candidates.
            let concurrent = gap.reason == hawser_api::GapReason::Concurrent.as_str();
            later.at_once |= concurrent && gap.span.end.tick > begin_tick;
            let in_time = GapRow { settled: if settles { 1 } else { gap.settled }, ..gap };
            if over && backfill::closed_by_backfill(&in_time, &now) {
                later.settling |= settles;
                later.at_once |= !settles && !backfill::closed_by_backfill(&in_time, &before);
            }
        }
        Ok(later)
    }
}

/// What another backfill would find to close.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Later {
    /// Gaps that have to settle first.
    pub(crate) settling: bool,
    /// Gaps that it would close now.
    pub(crate) at_once: bool,
}

fn status(view: &View<'_>, domain: DomainId, row: BindingRow) -> Result<v1::BindingStatus, ListError> {
    let hello = &row.hello;
    let (mut object_count, mut object_bytes) = (0, 0);
    for (_, bucket) in bindings::buckets_at(view, domain, hello, &row.force)? {
        object_count += bucket.objects;
        object_bytes += bucket.bytes;
    }
    let mut gaps = BTreeMap::new();
    for gap in backfill::open(view, domain, &hello.binding)? {
        *gaps.entry(gap.reason).or_default() += 1;
    }
    let mut intents = 0;
    let keys = intent_keys(domain);
    for pair in view.scan(FACTS, &keys) {
        intents += u64::from(decode::<IntentRow>(FACTS, &pair?.1)?.binding == hello.binding);
    }
    let coverage = row.coverage.get(&row.force).copied();
    let unconfirmed = match &coverage {
        // Counting one by one is for what came since; before the first backfill it is everything.
        None => object_count,
        Some(coverage) => bindings::unconfirmed(view, domain, hello, &row.force, coverage.begin_tick, UNCONFIRMED_MAX)?,
    };
    Ok(v1::BindingStatus {
        binding: hello.binding.clone(),
        provider_in_force: bindings::provider_name(hello, &row.force).unwrap_or_default().to_owned(),
        provider_identity: row.force.clone(),
        providers: hello.providers.clone(),
        buckets: hello.buckets.clone(),
        objects: object_count,
        object_bytes,
        coverage,
        open_gaps: gaps,
        open_intents: intents,
        sessions: 0,
        progress: None,
        unconfirmed,
    })
}

//! What changed at a provider after a tick: each key once, at its last change.

use bytes::Bytes;
use hawser_api::v1;

use super::list::{ListError, PAGE_MAX, parts, version};
use super::rows::{Address, BindingRow, CHANGES, FACTS, KEYS, KeyRow, Rows, changes, take_text};
use super::rows::{CheckpointRow, decode};
use super::{Catalog, bindings, landed};
use crate::names::DomainId;

/// A page of changes.
#[derive(Default)]
pub(crate) struct Page {
    pub(crate) entries: Vec<v1::ObjectEntry>,
    /// Where the next page begins; `None` when this was the last.
    pub(crate) next: Option<Vec<u8>>,
    /// Every change up to this tick has been told, once the last page was.
    pub(crate) through_tick: u64,
}

impl Catalog {
    /// Current versions that changed after a tick, in the order of their changes; tombstones among them
    /// unless everything is asked for.
    ///
    /// # Errors
    /// [`ListError`].
    pub(crate) fn changes(
        &self,
        domain: DomainId,
        binding: &BindingRow,
        request: &v1::ChangesRequest,
        from: Option<Vec<u8>>,
    ) -> Result<Page, ListError> {
        let view = self.store().view();
        let mut page = Page { through_tick: view.tick()?, ..Page::default() };
        let stem = changes(domain, &request.provider);
        let keys = stem.keys();
        let keys = match &from {
            Some(from) => keys.after(from),
            None => keys.starting_at(&stem.clone().number(request.after_tick.saturating_add(1)).0),
        };
        let mut seen = 0;
        for pair in view.scan(CHANGES, &keys) {
            let (row_key, _) = pair?;
            seen += 1;
            if seen > PAGE_MAX {
                break;
            }
            page.next = Some(row_key.clone());
            let Some((name, key)) = row_key.get(stem.0.len() + 8..).and_then(take_text) else { continue };
            let bucket = String::from_utf8_lossy(&name).into_owned();
            let ours = bindings::store_bucket(&binding.hello, &request.provider, &bucket).is_some();
            if !ours || !key.starts_with(&request.prefix) {
                continue;
            }
            let at = Address { domain, provider: request.provider.clone(), bucket, key: Bytes::copy_from_slice(key) };
            let head: KeyRow = view.row(KEYS, &at.head())?.unwrap_or_default();
            if head.alias {
                continue; // another key's object
            }
            let Some(row) = version(&view, &at, head.served)? else { continue };
            if request.after_tick == 0 && !row.is_present() && head.gaps == 0 {
                continue;
            }
            let found = super::list::Found {
                domain,
                binding: binding.clone(),
                identity: request.provider.clone(),
                bucket: at.bucket.clone(),
            };
            let mut entry = found.entry(&view, &at, &head, row, true)?;
            entry.parts = parts(&view, &at, head.served)?;
            page.entries.push(entry);
        }
        if seen <= PAGE_MAX {
            page.next = None;
        }
        Ok(page)
    }

    /// Checkpoints of a binding towards a target, a page of them after `from`.
    ///
    /// # Errors
    /// [`ListError::Index`].
    pub(crate) fn checkpoints(
        &self,
        domain: DomainId,
        binding: &str,
        target: &str,
        from: Option<Vec<u8>>,
    ) -> Result<(Vec<v1::Checkpoint>, Option<Vec<u8>>), ListError> {
        let view = self.store().view();
        let keys = landed::checkpoint_keys(domain, binding, target);
        let keys = match &from {
            Some(from) => keys.after(from),
            None => keys,
        };
        let (mut checkpoints, mut next) = (Vec::new(), None);
        for pair in view.scan(FACTS, &keys).take(PAGE_MAX) {
            let (key, value) = pair?;
            checkpoints.push(decode::<CheckpointRow>(FACTS, &value)?.checkpoint);
            next = Some(key);
        }
        Ok((checkpoints, next))
    }

    /// One page of the keys that a backfill's listing of a bucket lacked, after `from`.
    ///
    /// # Errors
    /// [`ListError::Index`].
    pub(crate) fn absent(
        &self,
        domain: DomainId,
        binding: &BindingRow,
        provider: &str,
        request: &v1::ListAbsentRequest,
        from: Option<Vec<u8>>,
    ) -> Result<(Vec<v1::ObjectEntry>, Option<Vec<u8>>), ListError> {
        let view = self.store().view();
        let stem = super::absent_stem(domain, request.backfill, &request.bucket);
        let keys = match &from {
            Some(from) => stem.keys().after(from),
            None => stem.keys(),
        };
        let (mut entries, mut next) = (Vec::new(), None);
        for pair in view.scan(FACTS, &keys).take(PAGE_MAX) {
            let (row_key, _) = pair?;
            let at = Address {
                domain,
                provider: provider.into(),
                bucket: request.bucket.clone(),
                key: Bytes::copy_from_slice(&row_key[stem.0.len()..]),
            };
            next = Some(row_key);
            let head: KeyRow = view.row(KEYS, &at.head())?.unwrap_or_default();
            let Some(row) = version(&view, &at, head.served)?.filter(|_| head.present) else { continue };
            let found = super::list::Found {
                domain,
                binding: binding.clone(),
                identity: provider.into(),
                bucket: at.bucket.clone(),
            };
            entries.push(found.entry(&view, &at, &head, row, true)?);
        }
        Ok((entries, next))
    }
}

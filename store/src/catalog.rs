//! What the copy knows: objects and their versions, what is in doubt, whose buckets are whose. A pure
//! function of the log's entries in their order ([`entry`], [`apply`]); what a caller is told has been
//! durable and applied before. Rules of order are in [`crate::order`]. May not enter here:
//! - a decision that depends on a clock, on arrival, or on memory: replaying the log must give it again;
//! - a hash of a block in the clear: entries and rows hold them veiled.

mod apply;
mod backfill;
mod bindings;
mod body;
mod changes;
pub(crate) mod entry;
mod gaps;
mod intents;
mod landed;
mod list;
#[cfg(test)]
mod model;
mod objects;
mod reads;
mod registered;
mod retention;
mod rows;
mod status;
#[cfg(test)]
mod tests;
mod upkeep;
mod uploads;

pub(crate) use apply::session_key;
pub(crate) use apply::{Answer, IN_FLIGHT_MAX};
pub(crate) use backfill::{absent_stem, backfill_key, compare};
pub(crate) use bindings::{
    CHANGED, FENCED, UNDER_WAY, check as check_hello, conflict, former, lease_key, lease_keys, provider_name,
    store_bucket, unchanged,
};
pub use body::BodyReader;
pub(crate) use gaps::{lapse_keys, lapse_session, session_lapse_keys, unsettled_keys, unsettled_tick};
pub(crate) use intents::{intent_keys, intent_session, session_intent_keys};
pub use list::ListError;
pub(crate) use list::PAGE_MAX;
pub(crate) use objects::emptying;
pub(crate) use reads::is_news;
pub(crate) use registered::RAISED;
pub(crate) use rows::{
    Address, BackfillRow, BindingRow, FACTS, GAPS, IntentRow, MANIFESTS, ManifestRow, Rows, SessionRow, decode,
};
pub(crate) use status::Later;
pub use upkeep::{UpkeepError, Usage};
pub(crate) use uploads::copied;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hawser_api::BlockHash;
use prost::Message;

use self::entry::{ENTRY_VERSION, Entry, Fact};
use self::rows::{Extent, PartRow, UPLOADS};
use crate::domain::{CommitError, Domain};
use crate::index::{Batch, Family, IndexError, Keys};
use crate::names::DomainId;
use crate::replay::{Entry as LogEntry, Live, Replay};
use crate::segments::ReadError;
use crate::store::{OpenError, Options, Store};
use crate::view::View;

/// The catalog of an open store.
pub struct Catalog {
    store: Store,
    /// The last tick of each domain in this life of the store: whether there is anything new to count.
    touched: Mutex<HashMap<DomainId, u64>>,
}

impl Catalog {
    /// Opens the store in `dir` with its catalog. Blocks this thread.
    ///
    /// # Errors
    /// [`OpenError`]: the store did not open.
    pub fn open(dir: &Path, options: Options) -> Result<Catalog, OpenError> {
        Store::open(dir, options, Arc::new(Rules)).map(Catalog::of)
    }

    /// The catalog of a store that is open.
    pub fn of(store: Store) -> Catalog {
        Catalog { store, touched: Mutex::default() }
    }

    /// The store below.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Commits what `said` says; returns when it is durable and applied.
    pub(crate) async fn commit(
        &self,
        domain: &Domain,
        said: Said,
        blocks: &[BlockHash],
    ) -> Result<(u64, Answer), CommitError> {
        let entry = Entry {
            version: ENTRY_VERSION,
            recorded_unix: now_unix(),
            binding: said.binding,
            session: said.session,
            sequence: said.sequence,
            fact: Some(said.fact),
        };
        let committed = domain.commit(entry.encode_to_vec().into(), blocks).await?;
        self.lock_touched().insert(domain.id(), committed.tick);
        let answer = Answer::decode(&*committed.answer).unwrap_or_default();
        Ok((committed.tick, answer))
    }

    /// The tick of a domain's last entry in this life of the store; 0 when there was none.
    pub(crate) fn touched(&self, domain: DomainId) -> u64 {
        self.lock_touched().get(&domain).copied().unwrap_or_default()
    }

    fn lock_touched(&self) -> MutexGuard<'_, HashMap<DomainId, u64>> {
        // Each change under it is one insertion.
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fact and who says it.
pub(crate) struct Said {
    pub(crate) binding: String,
    pub(crate) session: Bytes,
    pub(crate) sequence: u64,
    pub(crate) fact: Fact,
}

impl Said {
    /// By the store itself, of a binding.
    pub(crate) fn by_store(binding: &str, fact: Fact) -> Said {
        Said { binding: binding.into(), session: Bytes::new(), sequence: 0, fact }
    }
}

/// Wall time, for people: nothing is ordered by it.
#[expect(clippy::disallowed_methods, reason = "shown to people, and compared with a retention of days")]
pub(crate) fn now_unix() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// Gives the log's entries their meaning.
pub struct Rules;

impl Replay for Rules {
    fn schema(&self) -> u32 {
        rows::SCHEMA
    }

    fn families(&self) -> &'static [Family] {
        &rows::FAMILIES
    }

    fn apply(&self, entry: LogEntry<'_>, batch: &mut Batch<'_>) -> Result<Vec<u8>, IndexError> {
        apply::apply(batch, entry.domain, entry.tick, entry.bytes).map(|answer| answer.encode_to_vec())
    }

    fn live(&self, view: &View<'_>, each: &mut dyn FnMut(Live<'_>) -> Result<(), ReadError>) -> Result<(), ReadError> {
        for pair in view.scan(MANIFESTS, &Keys::all()) {
            let (key, value) = pair?;
            let row: ManifestRow = rows::decode(MANIFESTS, &value)?;
            show(view, &Owner { kind: "object", key: &key }, &key[..], &row.extents, each)?;
        }
        for domain in view_domains(view)? {
            let keys = uploads::part_keys(domain);
            for pair in view.scan(UPLOADS, &keys) {
                let (key, value) = pair?;
                let row: PartRow = rows::decode(UPLOADS, &value)?;
                show(view, &Owner { kind: "part of upload", key: &key[1..] }, &key[1..], &row.extents, each)?;
            }
        }
        Ok(())
    }
}

/// Every domain that has rows.
fn view_domains(view: &View<'_>) -> Result<Vec<crate::names::DomainId>, ReadError> {
    let mut domains = Vec::new();
    let mut next = 1_u32;
    // Ids are given out in order, so that the first unknown one is the end.
    while let Some(id) = crate::names::DomainId::new(next).filter(|id| view.domain(*id).is_some()) {
        domains.push(id);
        next += 1;
    }
    Ok(domains)
}

/// Shows the blocks of extents whose rows begin with the domain in `key`.
fn show(
    view: &View<'_>,
    object: &Owner<'_>,
    key: &[u8],
    extents: &[Extent],
    each: &mut dyn FnMut(Live<'_>) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let id = key.first_chunk::<4>().and_then(|id| crate::names::DomainId::new(u32::from_be_bytes(*id)));
    let Some((id, domain)) = id.and_then(|id| Some((id, view.domain(id)?))) else {
        return Err(IndexError::Malformed { family: MANIFESTS.0 }.into());
    };
    for extent in extents {
        let (hashes, _) = extent.hashes.as_chunks::<32>();
        let blocks: Vec<BlockHash> = hashes.iter().map(|hash| domain.unveil(hash)).collect();
        each(Live { domain: id, blocks: &blocks, object })?;
        if extent.paged {
            for page in &blocks {
                // A page that is gone takes nothing else with it: scrub reports it by the line above.
                let Ok(content) = view.block(id, page) else { continue };
                let blocks = BlockHash::list(&content).unwrap_or_default();
                each(Live { domain: id, blocks: &blocks, object })?;
            }
        }
    }
    Ok(())
}

/// What needs a block, for reports: read out of its row's key.
struct Owner<'a> {
    kind: &'static str,
    key: &'a [u8],
}

impl fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.key.get(4..).unwrap_or_default();
        write!(f, "{}", self.kind)?;
        for separator in [" ", " ", "/"] {
            let Some((text, after)) = rows::take_text(rest) else { return Ok(()) };
            write!(f, "{separator}{}", hawser_api::ObjectKey::from_bytes(text))?;
            rest = after;
        }
        Ok(())
    }
}

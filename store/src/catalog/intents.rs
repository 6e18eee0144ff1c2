//! Intents: writes that were announced and have no outcome yet. What becomes of them when nobody will tell it
//! is a gap.

use hawser_api::{GapReason, GapScope, change, v1};

use super::apply::Apply;
use super::entry::{Lost, span};
use super::rows::{Address, FACTS, GAPS, GapRow, IntentRow, KeyBytes, Rows, decode};
use crate::index::{IndexError, Keys};
use crate::names::DomainId;

impl Apply<'_, '_> {
    /// A write was announced.
    pub(crate) fn intent(&mut self, intent: v1::Intent) -> Result<(), IndexError> {
        let object = intent.object.clone().unwrap_or_default();
        let operation = intent.operation;
        for key in keys_of(&intent) {
            let at = Address::of(self.domain, &v1::ObjectRef { key, ..object.clone() });
            self.batch.put(FACTS, &intent_at_key(&at, &self.session, operation), &[]);
        }
        let row = IntentRow { intent, binding: self.binding.clone() };
        self.put(FACTS, &intent_key(self.domain, &self.session, operation), &row);
        Ok(())
    }

    /// An announced write has an outcome.
    pub(crate) fn end_intent(&mut self, operation: u64) -> Result<(), IndexError> {
        if operation != 0 {
            self.take_intent(operation)?;
        }
        Ok(())
    }

    fn take_intent(&mut self, operation: u64) -> Result<Option<IntentRow>, IndexError> {
        let key = intent_key(self.domain, &self.session, operation);
        let Some(row) = self.batch.row::<IntentRow>(FACTS, &key)? else { return Ok(None) };
        self.batch.delete(FACTS, &key);
        let object = row.intent.object.clone().unwrap_or_default();
        for key in keys_of(&row.intent) {
            let at = Address::of(self.domain, &v1::ObjectRef { key, ..object.clone() });
            self.batch.delete(FACTS, &intent_at_key(&at, &self.session, operation));
        }
        Ok(Some(row))
    }

    /// A session, or some of its operations, will not be heard of again: each becomes a gap.
    pub(crate) fn lost(&mut self, lost: Lost) -> Result<(), IndexError> {
        let teller = std::mem::replace(&mut self.session, lost.session.clone());
        let mut operations = lost.operations;
        if lost.all {
            let stem = KeyBytes::letter(b'I', self.domain).bytes(&self.session);
            for pair in self.batch.scan(FACTS, &stem.keys()) {
                let (_, value) = pair?;
                operations.push(decode::<IntentRow>(FACTS, &value)?.intent.operation);
            }
            self.lapses_ended()?;
        }
        for operation in operations {
            let Some(row) = self.take_intent(operation)? else { continue };
            let binding = std::mem::replace(&mut self.binding, row.binding.clone());
            self.lost_intent(&row.intent)?;
            self.binding = binding;
        }
        self.session = teller;
        Ok(())
    }

    fn lost_intent(&mut self, intent: &v1::Intent) -> Result<(), IndexError> {
        // A part alone changes no object; whoever completes without it makes the gap.
        if intent.part_number != 0 || change::changes_no_object(&intent.kind) {
            return Ok(());
        }
        let object = intent.object.clone().unwrap_or_default();
        let keys = keys_of(intent);
        let mut span = span(&self.session, intent.head.as_ref(), None, self.tick);
        span.end.counter = 0; // nobody saw the end
        let scope = if keys.is_empty() { GapScope::Bucket } else { GapScope::Key };
        let objects: Vec<v1::ObjectRef> = match scope {
            GapScope::Key => keys.into_iter().map(|key| v1::ObjectRef { key, ..object.clone() }).collect(),
            _ => vec![object],
        };
        for object in objects {
            let row = GapRow {
                scope: scope.as_str().into(),
                object,
                reason: GapReason::IntentLost.as_str().into(),
                detail: intent.kind.clone(),
                of_metadata: change::may_keep_the_etag(&intent.kind),
                span: span.clone(),
                session: self.session.clone(),
                operation: intent.operation,
                ..GapRow::default()
            };
            self.open_gap(row)?;
        }
        Ok(())
    }

    /// Lapses of a dead session end with it.
    fn lapses_ended(&mut self) -> Result<(), IndexError> {
        let stem = KeyBytes::letter(b'l', self.domain).bytes(&self.session);
        let keys: Vec<_> = self.batch.scan(GAPS, &stem.keys()).collect::<Result<_, _>>()?;
        for (key, _) in keys {
            let lapse = key.last_chunk::<8>().map_or(0, |lapse| u64::from_be_bytes(*lapse));
            self.lapse_ended(lapse, None)?;
        }
        Ok(())
    }

    /// Whether this key may have a current version whose record has not come: a write that makes one is on
    /// its way, or a Complete waits for a part.
    pub(crate) fn version_on_its_way(&self, at: &Address) -> Result<bool, IndexError> {
        let stem = intents_at(at);
        for pair in self.batch.scan(FACTS, &stem.keys()) {
            let (key, _) = pair?;
            let whose = KeyBytes::letter(b'I', at.domain).bytes(&key[stem.0.len()..]).0;
            let row: IntentRow = self.batch.row(FACTS, &whose)?.unwrap_or_default();
            if row.intent.part_number == 0 && !change::keeps_content(&row.intent.kind) {
                return Ok(true);
            }
        }
        Ok(self.gaps_at(at)?.iter().any(|gap| gap.reason == GapReason::UnknownPart.as_str()))
    }

    /// Whether a write of this key is on its way.
    pub(crate) fn has_intent(&self, at: &Address) -> Result<bool, IndexError> {
        has_intent(&*self.batch, at)
    }
}

/// Whether a write of this key is on its way.
pub(crate) fn has_intent(rows: &impl Rows, at: &Address) -> Result<bool, IndexError> {
    Ok(rows.scan(FACTS, &intents_at(at).keys()).next().transpose()?.is_some())
}

fn keys_of(intent: &v1::Intent) -> Vec<bytes::Bytes> {
    if !intent.keys.is_empty() {
        return intent.keys.clone();
    }
    let key = intent.object.as_ref().map(|object| object.key.clone()).unwrap_or_default();
    if key.is_empty() { Vec::new() } else { vec![key] }
}

fn intent_key(domain: DomainId, session: &[u8], operation: u64) -> Vec<u8> {
    KeyBytes::letter(b'I', domain).bytes(session).number(operation).0
}

/// Open intents of a domain.
pub(crate) fn intent_keys(domain: DomainId) -> Keys {
    KeyBytes::letter(b'I', domain).keys()
}

/// The session within a key of [`intent_keys`].
pub(crate) fn intent_session(key: &[u8]) -> &[u8] {
    key.get(5..key.len().saturating_sub(8)).unwrap_or_default()
}

/// Open intents of one session.
pub(crate) fn session_intent_keys(domain: DomainId, session: &[u8]) -> Keys {
    KeyBytes::letter(b'I', domain).bytes(session).keys()
}

/// What the keys of a key's open intents begin with; session and operation follow.
fn intents_at(at: &Address) -> KeyBytes {
    KeyBytes::letter(b'i', at.domain).bytes(&at.stem().0)
}

fn intent_at_key(at: &Address, session: &[u8], operation: u64) -> Vec<u8> {
    intents_at(at).bytes(session).number(operation).0
}

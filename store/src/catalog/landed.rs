//! What a migration wrote to its target: checkpoints before, records after.

use hawser_api::v1;

use super::apply::Apply;
use super::entry::Checkpointed;
use super::objects::{NewVersion, same};
use super::rows::{Address, CheckpointRow, FACTS, KeyBytes, Kind, LandedFrom, Origin, Rows, VersionRow};
use crate::index::{IndexError, Keys};
use crate::names::DomainId;
use crate::order::{Mark, Span};

impl Apply<'_, '_> {
    pub(crate) fn checkpointed(&mut self, checkpointed: Checkpointed) -> Result<(), IndexError> {
        for mut checkpoint in checkpointed.checkpoints {
            checkpoint.lease = None; // whoever holds the binding reads it
            let Some(target) = &checkpoint.target else { continue };
            let key = checkpoint_key(&self.binding, &Address::of(self.domain, target));
            // An upload that is taken up again began when its first checkpoint was written.
            let tick = match self.batch.row::<CheckpointRow>(FACTS, &key)? {
                Some(before) if !before.checkpoint.upload_id.is_empty() && same_upload(&before, &checkpoint) => {
                    before.tick
                }
                _ => self.tick,
            };
            self.put(FACTS, &key, &CheckpointRow { checkpoint, tick });
        }
        Ok(())
    }

    /// Objects arrived at the target, or were deleted there: records under the target's provider.
    pub(crate) fn landed(&mut self, landed: v1::LandedRequest) -> Result<(), IndexError> {
        if !self.holds(landed.lease.as_ref())? {
            self.answer.refused = super::bindings::FENCED.into();
            return Ok(());
        }
        for object in landed.objects {
            let (Some(source), Some(target)) = (&object.source, &object.target) else { continue };
            let (from, to) = (Address::of(self.domain, source), Address::of(self.domain, target));
            let key = checkpoint_key(&self.binding, &to);
            let checkpoint: Option<CheckpointRow> = self.batch.row(FACTS, &key)?;
            self.batch.delete(FACTS, &key);
            // The write began after the source's record was read and after its checkpoint was durable.
            let begin = checkpoint.map_or(0, |row| row.tick).max(object.source_tick);
            let span = Span {
                begin: Mark { tick: begin, ..Mark::default() },
                end: Mark { tick: self.tick, ..Mark::default() },
            };
            let source = self.version_row(&from, object.source_tick)?;
            let behind = source.as_ref().map(|row| behind(&from, row, object.source_tick));
            let mut new = if object.deleted {
                self.version(Kind::Tombstone, &span, v1::Metadata::default(), Vec::new())
            } else {
                let Some(row) = source else {
                    self.answer.refused = "a landed object's source is not known".into();
                    continue;
                };
                let extents = self.manifest(&from, row.tick)?;
                let mut new = self.version(Kind::Object, &span, row.metadata, extents);
                (new.row.etag, new.row.version_id) = (object.etag.clone(), object.version_id.clone());
                new.row.last_modified.clone_from(&object.last_modified);
                (new.row.content, new.row.size) = (row.content, row.size);
                new
            };
            new.row.landed = behind;
            self.land(&to, new, object.adopted)?;
        }
        Ok(())
    }

    fn land(&mut self, to: &Address, mut new: NewVersion, adopted: bool) -> Result<(), IndexError> {
        new.row.origin = Origin::Landed.into();
        let head = self.head(to)?;
        if adopted
            && let Some(served) = self.served(to, &head)?
            && served.etag == new.row.etag
            && same(&served, &new.row)
        {
            return Ok(()); // it was there, and known
        }
        self.place(to, new)
    }
}

/// The write behind a record that was carried; a record that was itself carried passes on what is behind it.
fn behind(at: &Address, row: &VersionRow, tick: u64) -> LandedFrom {
    match &row.landed {
        Some(before) => LandedFrom { tick, ..before.clone() },
        None => LandedFrom { provider: at.provider.clone(), over: row.span.end.tick, tick },
    }
}

fn same_upload(before: &CheckpointRow, now: &v1::Checkpoint) -> bool {
    before.checkpoint.upload_id == now.upload_id && before.checkpoint.content == now.content
}

fn checkpoint_key(binding: &str, target: &Address) -> Vec<u8> {
    let key = KeyBytes::letter(b'T', target.domain).text(binding.as_bytes()).text(target.provider.as_bytes());
    key.text(target.bucket.as_bytes()).bytes(&target.key).0
}

/// Checkpoints of a binding towards one target.
pub(crate) fn checkpoint_keys(domain: DomainId, binding: &str, provider: &str) -> Keys {
    KeyBytes::letter(b'T', domain).text(binding.as_bytes()).text(provider.as_bytes()).keys()
}

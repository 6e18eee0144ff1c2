//! From an entry to rows: the one place where the catalog's state changes. A pure function of the rows so
//! far and the entry; what an entry asks for and the rules refuse has no effect.

use bytes::Bytes;
use hawser_api::v1;
use prost::Message;

use super::entry::{ENTRY_VERSION, Entry, Fact, span};
use super::rows::{FACTS, KeyBytes, Rows, SessionRow};
use crate::index::{Batch, Family, IndexError};
use crate::names::DomainId;

/// Commits of one session under way at once, so that a second's worth of small records shares a sync.
pub(crate) const IN_FLIGHT_MAX: usize = 64;

/// What applying an entry says to whoever committed it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Answer {
    /// It had no effect, and why.
    #[prost(string, tag = "1")]
    pub(crate) refused: String,
    /// The number that it was given: of a backfill.
    #[prost(uint64, tag = "2")]
    pub(crate) id: u64,
    #[prost(message, optional, tag = "3")]
    pub(crate) coverage: Option<v1::Coverage>,
    /// It was applied before, under its sequence.
    #[prost(bool, tag = "4")]
    pub(crate) repeated: bool,
}

/// One entry being applied.
pub(crate) struct Apply<'b, 'i> {
    pub(crate) batch: &'b mut Batch<'i>,
    pub(crate) domain: DomainId,
    pub(crate) tick: u64,
    pub(crate) unix: i64,
    pub(crate) binding: String,
    pub(crate) session: Bytes,
    pub(crate) answer: Answer,
}

/// Applies the entry that `bytes` say.
///
/// # Errors
/// What the index answered. Bytes that are no entry of this release have no effect.
pub(crate) fn apply(batch: &mut Batch<'_>, domain: DomainId, tick: u64, bytes: &[u8]) -> Result<Answer, IndexError> {
    let Ok(entry) = Entry::decode(bytes) else {
        return Ok(Answer { refused: "the entry cannot be read".into(), ..Answer::default() });
    };
    if entry.version > ENTRY_VERSION {
        return Ok(Answer { refused: "the entry is of a newer release".into(), ..Answer::default() });
    }
    let mut apply = Apply {
        batch,
        domain,
        tick,
        unix: entry.recorded_unix,
        binding: entry.binding,
        session: entry.session,
        answer: Answer::default(),
    };
    if apply.is_new(entry.sequence)?
        && let Some(fact) = entry.fact
    {
        apply.fact(fact)?;
    }
    Ok(apply.answer)
}

impl Apply<'_, '_> {
    fn fact(&mut self, fact: Fact) -> Result<(), IndexError> {
        match fact {
            Fact::Bound(hello) => self.bound(hello),
            Fact::Intent(intent) => self.intent(intent),
            Fact::Recorded(recorded) => self.recorded(recorded),
            Fact::Abandoned(abandoned) => self.end_intent(abandoned.operation),
            Fact::Gap(gap) => self.gap_found(gap),
            Fact::GapOpen(gap) => self.lapse_began(gap),
            Fact::GapClose(gap) => self.lapse_ended(gap.lapse, gap.end.as_ref()),
            Fact::Sightings(sightings) => self.sightings(sightings),
            Fact::Read(read) => self.read(read),
            Fact::Journalled(journalled) => self.journalled(journalled),
            Fact::Lost(lost) => self.lost(lost),
            Fact::Settled(settled) => self.settled(settled.through_tick),
            Fact::Leased(leased) => self.leased(leased),
            Fact::BackfillBegun(begun) => self.backfill_begun(begun),
            Fact::Reconciled(page) => self.reconciled(page),
            Fact::Absent(absent) => self.absent(absent),
            Fact::BackfillEnded(ended) => self.backfill_ended(ended),
            Fact::Checkpointed(checkpointed) => self.checkpointed(checkpointed),
            Fact::Landed(landed) => self.landed(landed),
            Fact::Forced(forced) => self.forced(forced),
            Fact::Trimmed(trimmed) => self.trimmed(trimmed),
            Fact::Damaged(damaged) => self.damaged(damaged),
            Fact::Registered(registered) => self.registered(registered),
            Fact::Forgotten(name) => self.forgotten(&name.binding_uid),
            Fact::EpochRaised(asked) => self.epoch_raised(&asked),
        }
    }

    /// Notes the sequence of the session; false when it was applied before.
    pub(crate) fn is_new(&mut self, sequence: u64) -> Result<bool, IndexError> {
        if self.session.is_empty() || sequence == 0 {
            return Ok(true);
        }
        let key = session_key(self.domain, &self.session);
        let mut row: SessionRow = self.batch.row(FACTS, &key)?.unwrap_or_default();
        if sequence <= row.floor || row.recent.contains(&sequence) {
            self.answer.repeated = true;
            return Ok(false);
        }
        row.last_sequence = row.last_sequence.max(sequence);
        row.recent.push(sequence);
        if row.recent.len() > IN_FLIGHT_MAX {
            row.recent.sort_unstable();
            row.floor = row.recent.remove(0);
        }
        row.binding.clone_from(&self.binding);
        row.touched_unix = self.unix;
        self.put(FACTS, &key, &row);
        Ok(true)
    }

    /// A write was confirmed: each of its changes, and the end of its intent.
    fn recorded(&mut self, recorded: v1::Recorded) -> Result<(), IndexError> {
        let span = span(&self.session, recorded.head.as_ref(), recorded.answer.as_ref(), self.tick);
        // The intent first: a change of metadata asks which writes are still on their way, and its own is not one.
        self.end_intent(recorded.operation)?;
        for write in recorded.writes {
            let Some(change) = write.change else { continue };
            self.write(change, &span, recorded.operation)?;
        }
        self.close_gap_of(recorded.operation, "record")
    }

    fn write(
        &mut self,
        change: v1::write::Change,
        span: &crate::order::Span,
        operation: u64,
    ) -> Result<(), IndexError> {
        use v1::write::Change;
        match change {
            Change::Put(put) => self.put_object(put, span),
            Change::CreateUpload(create) => self.create_upload(create),
            Change::Part(part) => self.upload_part(part),
            Change::PartCopy(part) => self.upload_part_copy(part, span),
            Change::Complete(complete) => self.complete_upload(complete, span, operation),
            Change::Abort(abort) => self.abort_upload(abort),
            Change::Copy(copy) => self.copy_object(copy, span, operation),
            Change::Delete(delete) => self.delete_object(delete, span),
            Change::SetTags(set) => self.set_tags(set, span),
            Change::SetAcl(set) => self.set_acl(set, span),
            Change::Bucket(bucket) => self.bucket_change(bucket, span),
        }
    }

    /// An outcome out of a pod's journal, told under the session that saw it.
    fn journalled(&mut self, journalled: v1::Journalled) -> Result<(), IndexError> {
        let teller = std::mem::replace(&mut self.session, journalled.session.clone());
        if self.is_new(journalled.old_sequence)? {
            match journalled.outcome {
                Some(v1::journalled::Outcome::Gap(gap)) => self.gap_found(gap)?,
                Some(v1::journalled::Outcome::Recorded(recorded)) => self.recorded(recorded)?,
                None => {}
            }
        }
        self.session = teller;
        Ok(())
    }

    pub(crate) fn put(&mut self, family: Family, key: &[u8], row: &impl Message) {
        self.batch.put(family, key, &row.encode_to_vec());
    }
}

pub(crate) fn session_key(domain: DomainId, session: &[u8]) -> Vec<u8> {
    KeyBytes::letter(b'S', domain).bytes(session).0
}

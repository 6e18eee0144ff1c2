//! What cannot be recorded, as the store is told of it. A gap names a place, a reason and stamps; it holds no
//! content, no header and no query, so nothing secret can be in it.

use hawser_api::v1::control_up::Message;
use hawser_api::v1::journalled::Outcome;
use hawser_api::v1::write::Change;
use hawser_api::{GapReason, GapScope, Stamp, v1};

use crate::operation::{ETag, Place, VersionId};

/// A change that may have happened and is not known.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The provider's identity.
    pub provider: &'a str,
    /// What is in doubt.
    pub place: &'a Place,
    /// Why.
    pub reason: GapReason,
    /// The content's name, when the cloud told it all the same.
    pub etag: Option<&'a ETag>,
    /// The version, when the cloud told it all the same.
    pub version: Option<&'a VersionId>,
    /// For people: what kind of write it was.
    pub detail: &'a str,
    /// The stamp of the request's head.
    pub begin: Stamp,
    /// The stamp of the final answer, or of the moment when it was given up.
    pub end: Stamp,
}

impl Found<'_> {
    /// The message, which ends the intent of `operation`; 0 when none was announced.
    pub fn message(&self, operation: u64) -> v1::GapFound {
        let of_place = match self.place {
            Place::Version(_, version) => Some(version),
            _ => None,
        };
        v1::GapFound {
            operation,
            scope: self.place.scope().as_str().to_owned(),
            object: place_ref(self.provider, self.place),
            version_id: self.version.or(of_place).map(|version| version.0.clone()).unwrap_or_default(),
            etag: self.etag.map(|etag| etag.0.clone()).unwrap_or_default(),
            reason: self.reason.as_str().to_owned(),
            detail: self.detail.to_owned(),
            head: Some(self.begin.into()),
            end: Some(self.end.into()),
        }
    }
}

/// A place as the wire names it: without a key where it is a bucket, without a bucket where nobody knows it.
pub fn place_ref(provider: &str, place: &Place) -> Option<v1::ObjectRef> {
    Some(v1::ObjectRef {
        provider: provider.to_owned(),
        bucket: place.bucket().unwrap_or_default().to_owned(),
        key: place.object().map(|object| object.key.as_bytes().to_vec()).unwrap_or_default().into(),
    })
}

/// What is kept of `message` when the store is away: an outcome without content, in which a put, a complete or
/// a copy is a gap of its key. `None` for what need not be kept: an intent that has no outcome becomes a gap by
/// itself, and a part that is not told is found missing by its Complete.
pub fn kept_form(message: &Message) -> Option<Outcome> {
    match message {
        Message::Gap(gap) => Some(Outcome::Gap(gap.clone())),
        Message::Recorded(recorded) => kept_form_of_record(recorded),
        Message::GapOpen(lapse) => Some(Outcome::Gap(v1::GapFound {
            scope: GapScope::Binding.as_str().to_owned(),
            object: Some(v1::ObjectRef { provider: lapse.provider.clone(), ..v1::ObjectRef::default() }),
            reason: lapse.reason.clone(),
            detail: lapse.detail.clone(),
            head: lapse.begin,
            end: lapse.begin,
            ..v1::GapFound::default()
        })),
        _ => None,
    }
}

fn kept_form_of_record(recorded: &v1::Recorded) -> Option<Outcome> {
    let lost = |object: &Option<v1::ObjectRef>, etag: &str, version_id: &str| {
        Outcome::Gap(v1::GapFound {
            operation: recorded.operation,
            scope: GapScope::Key.as_str().to_owned(),
            object: object.clone(),
            version_id: version_id.to_owned(),
            etag: etag.to_owned(),
            reason: GapReason::StoreAway.as_str().to_owned(),
            detail: String::new(),
            head: recorded.head,
            end: recorded.answer,
        })
    };
    match recorded.writes.first()?.change.as_ref()? {
        Change::Put(put) => Some(lost(&put.object, &put.etag, &put.version_id)),
        Change::Complete(done) => Some(lost(&done.object, &done.etag, &done.version_id)),
        Change::Copy(copy) => Some(lost(&copy.object, &copy.etag, &copy.version_id)),
        Change::Part(_) | Change::PartCopy(_) => None,
        Change::CreateUpload(_)
        | Change::Abort(_)
        | Change::Delete(_)
        | Change::SetTags(_)
        | Change::SetAcl(_)
        | Change::Bucket(_) => Some(Outcome::Recorded(recorded.clone())),
    }
}

/// An outcome from the journal as the session that saw it tells it itself, while it lives.
pub fn told_again(outcome: Outcome) -> Message {
    match outcome {
        Outcome::Gap(gap) => Message::Gap(gap),
        Outcome::Recorded(recorded) => Message::Recorded(recorded),
    }
}

/// Provider and bucket that an outcome speaks of; the bucket is empty where it speaks of the whole binding.
pub fn place_of(outcome: &Outcome) -> Option<v1::ObjectRef> {
    match outcome {
        Outcome::Gap(gap) => gap.object.clone(),
        Outcome::Recorded(recorded) => object_of(recorded.writes.first()?),
    }
}

/// The object that a write changed; `None` for what changes none before an upload is completed.
pub fn changed(write: &v1::Write) -> Option<v1::ObjectRef> {
    match write.change.as_ref()? {
        Change::CreateUpload(_) | Change::Part(_) | Change::PartCopy(_) | Change::Abort(_) => None,
        _ => object_of(write),
    }
}

fn object_of(write: &v1::Write) -> Option<v1::ObjectRef> {
    match write.change.as_ref()? {
        Change::Put(write) => write.object.clone(),
        Change::CreateUpload(write) => write.object.clone(),
        Change::Part(write) => write.object.clone(),
        Change::PartCopy(write) => write.object.clone(),
        Change::Complete(write) => write.object.clone(),
        Change::Abort(write) => write.object.clone(),
        Change::Copy(write) => write.object.clone(),
        Change::Delete(write) => write.object.clone(),
        Change::SetTags(write) => write.object.clone(),
        Change::SetAcl(write) => write.object.clone(),
        Change::Bucket(write) => Some(v1::ObjectRef {
            provider: write.provider.clone(),
            bucket: write.bucket.clone(),
            ..v1::ObjectRef::default()
        }),
    }
}

/// One gap instead of all these outcomes, from the earliest beginning to the latest end: of their bucket when
/// they have one in common, else of the binding.
pub fn of_full_journal<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> v1::GapFound {
    let mut folded = v1::GapFound {
        scope: GapScope::Bucket.as_str().to_owned(),
        reason: GapReason::JournalFull.as_str().to_owned(),
        ..v1::GapFound::default()
    };
    for outcome in outcomes {
        let mut place = place_of(outcome).unwrap_or_default();
        place.key = Default::default();
        let of_binding = matches!(outcome, Outcome::Gap(gap) if gap.scope == GapScope::Binding.as_str());
        let common = folded.object.get_or_insert_with(|| place.clone());
        if of_binding || *common != place {
            folded.scope = GapScope::Binding.as_str().to_owned();
            if common.provider != place.provider {
                common.provider.clear();
            }
            common.bucket.clear();
        }
        let (head, end) = match outcome {
            Outcome::Gap(gap) => (gap.head, gap.end),
            Outcome::Recorded(recorded) => (recorded.head, recorded.answer),
        };
        folded.head = [folded.head, head].into_iter().flatten().min_by_key(|stamp| stamp.counter);
        folded.end = [folded.end, end].into_iter().flatten().max_by_key(|stamp| stamp.counter);
    }
    folded
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn recorded(change: Change) -> Message {
        Message::Recorded(v1::Recorded {
            operation: 3,
            writes: vec![v1::Write { change: Some(change) }],
            head: Some(v1::Stamp { counter: 1, ..v1::Stamp::default() }),
            answer: Some(v1::Stamp { counter: 9, ..v1::Stamp::default() }),
        })
    }

    fn object() -> Option<v1::ObjectRef> {
        Some(v1::ObjectRef { provider: "p".into(), bucket: "b".into(), key: b"k".to_vec().into() })
    }

    #[test]
    fn content_becomes_a_gap_of_its_key_and_a_delete_stays_a_delete() {
        let put = v1::PutObject { object: object(), etag: "e".into(), version_id: "v".into(), ..Default::default() };
        let Some(Outcome::Gap(gap)) = kept_form(&recorded(Change::Put(put))) else { panic!("a gap") };
        assert_eq!((gap.etag.as_str(), gap.version_id.as_str(), gap.reason.as_str()), ("e", "v", "StoreAway"));
        assert_eq!((gap.operation, gap.scope.as_str()), (3, "Key"));
        assert_eq!((gap.head.unwrap().counter, gap.end.unwrap().counter), (1, 9));
        let delete = Change::Delete(v1::DeleteObject { object: object(), ..Default::default() });
        assert!(matches!(kept_form(&recorded(delete)), Some(Outcome::Recorded(_))));
    }

    #[test]
    fn intents_parts_and_sightings_are_not_kept() {
        assert_eq!(kept_form(&Message::Intent(v1::Intent::default())), None);
        assert_eq!(kept_form(&Message::Sightings(v1::Sightings::default())), None);
        assert_eq!(kept_form(&recorded(Change::Part(v1::UploadPart::default()))), None);
    }

    #[test]
    fn gaps_of_several_buckets_fold_into_one_of_the_binding() {
        let gap = |bucket: &str, counter| {
            Outcome::Gap(v1::GapFound {
                scope: "Key".into(),
                object: Some(v1::ObjectRef { provider: "p".into(), bucket: bucket.into(), key: b"k".to_vec().into() }),
                head: Some(v1::Stamp { counter, ..Default::default() }),
                end: Some(v1::Stamp { counter: counter + 1, ..Default::default() }),
                ..Default::default()
            })
        };
        let one = of_full_journal([gap("b", 5), gap("b", 2)].iter());
        assert_eq!((one.scope.as_str(), one.object.as_ref().unwrap().bucket.as_str()), ("Bucket", "b"));
        assert_eq!((one.head.unwrap().counter, one.end.unwrap().counter), (2, 6));
        let two = of_full_journal([gap("b", 5), gap("c", 2)].iter());
        assert_eq!((two.scope.as_str(), two.object.unwrap().provider.as_str()), ("Binding", "p"));
    }
}

//! The rules of the catalog, one table each, applied as the log applies them.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use hawser_api::v1::write::Change;
use hawser_api::{GapReason, change, v1};
use prost::Message;

use super::apply::{Answer, apply};
use super::entry::{BackfillBegun, BackfillEnded, ENTRY_VERSION, Entry, Fact, Lost, Reconciled, Settled, Trimmed};
use super::rows::{
    Address, BucketRow, FACTS, FAMILIES, GAPS, HISTORY, KEYS, KeyBytes, KeyRow, Rows, VERSIONS, VersionRow, decode,
};
use super::{backfill, bindings, gaps, objects, retention};
use crate::index::{Batch, Index};
use crate::names::DomainId;

const PROVIDER: &str = "s3+https://a.test";

/// A log of one domain and one binding, told by one sidecar that hears every tick at once.
struct Told<'b, 'i> {
    batch: &'b mut Batch<'i>,
    tick: u64,
    counter: u64,
    unix: i64,
    session: u8,
}

fn told(test: impl FnOnce(&mut Told<'_, '_>)) {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), &FAMILIES).unwrap();
    let mut batch = index.batch();
    let mut told = Told { batch: &mut batch, tick: 0, counter: 0, unix: 1_000, session: 1 };
    told.commit(Fact::Bound(v1::Hello {
        binding: "b".into(),
        providers: vec![v1::Provider { name: "a".into(), identity: PROVIDER.into() }],
        spec_provider: "a".into(),
        buckets: vec![v1::Bucket { name: "*".into(), ..v1::Bucket::default() }],
        block_size: 16384,
        retention_versions: 2,
        ..v1::Hello::default()
    }));
    test(&mut told);
}

fn domain() -> DomainId {
    DomainId::new(1).unwrap()
}

fn object(key: &str) -> v1::ObjectRef {
    v1::ObjectRef { provider: PROVIDER.into(), bucket: "photos".into(), key: Bytes::copy_from_slice(key.as_bytes()) }
}

fn at(key: &str) -> Address {
    Address::of(domain(), &object(key))
}

fn body(fill: u8) -> v1::Body {
    let run = v1::Run { length: 10, block_size: 16384, hashes: vec![fill; 32].into(), paged: false };
    v1::Body { content: Some(v1::body::Content::Run(run)) }
}

fn put(key: &str, etag: &str, version_id: &str) -> Change {
    Change::Put(v1::PutObject {
        object: Some(object(key)),
        body: Some(body(etag.as_bytes()[etag.len() - 1])),
        metadata: Some(v1::Metadata { headers_known: true, ..v1::Metadata::default() }),
        etag: etag.into(),
        version_id: version_id.into(),
    })
}

fn metadata(headers: &[(&str, &str)]) -> v1::Metadata {
    let header = |(name, value): &(&str, &str)| v1::Header {
        name: (*name).to_owned(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    };
    v1::Metadata { headers: headers.iter().map(header).collect(), headers_known: true, ..v1::Metadata::default() }
}

fn delete(key: &str, version_id: &str) -> Change {
    let object = Some(object(key));
    Change::Delete(v1::DeleteObject { object, version_id: version_id.into(), ..v1::DeleteObject::default() })
}

impl Told<'_, '_> {
    fn entry(&mut self, sequence: u64, fact: Fact) -> Answer {
        self.tick += 1;
        let entry = Entry {
            version: ENTRY_VERSION,
            recorded_unix: self.unix,
            binding: "b".into(),
            session: vec![self.session; 16].into(),
            sequence,
            fact: Some(fact),
        };
        apply(self.batch, domain(), self.tick, &entry.encode_to_vec()).unwrap()
    }

    fn commit(&mut self, fact: Fact) -> Answer {
        self.entry(0, fact)
    }

    fn stamp(&mut self) -> Option<v1::Stamp> {
        self.counter += 1;
        Some(v1::Stamp { incarnation: 0, tick: self.tick, counter: self.counter })
    }

    fn write(&mut self, change: Change) {
        let (head, answer) = (self.stamp(), self.stamp());
        self.record(0, change, head, answer);
    }

    fn record(&mut self, operation: u64, change: Change, head: Option<v1::Stamp>, answer: Option<v1::Stamp>) {
        let writes = vec![v1::Write { change: Some(change) }];
        self.commit(Fact::Recorded(v1::Recorded { operation, writes, head, answer }));
    }

    fn gap(&mut self, key: &str, reason: GapReason) {
        self.gap_of(key, reason, "");
    }

    fn gap_of(&mut self, key: &str, reason: GapReason, detail: &str) {
        let (head, end) = (self.stamp(), self.stamp());
        self.commit(Fact::Gap(v1::GapFound {
            scope: if key.is_empty() { "Bucket" } else { "Key" }.into(),
            object: Some(object(key)),
            reason: reason.as_str().into(),
            detail: detail.into(),
            head,
            end,
            ..v1::GapFound::default()
        }));
    }

    fn intent(&mut self, operation: u64, key: &str) -> Option<v1::Stamp> {
        let head = self.stamp();
        let object = Some(object(key));
        self.commit(Fact::Intent(v1::Intent { operation, object, kind: "put".into(), head, ..v1::Intent::default() }));
        head
    }

    /// A HEAD whose answer shows an object without headers of its own and without tags.
    fn head(&mut self, key: &str, etag: &str) {
        self.head_of(key, etag, Some(metadata(&[])), 0);
    }

    fn head_of(&mut self, key: &str, etag: &str, metadata: Option<v1::Metadata>, tag_count: u64) {
        let (head, answer) = (self.stamp(), self.stamp());
        let sighting = v1::Sighting {
            object: Some(object(key)),
            absent: etag.is_empty(),
            etag: etag.into(),
            metadata,
            tag_count,
            ..v1::Sighting::default()
        };
        self.commit(Fact::Sightings(v1::Sightings { head, answer, listing: false, objects: vec![sighting] }));
    }

    fn read(&mut self, key: &str, etag: &str) {
        self.read_by(0, key, etag, None);
    }

    /// A read, by a backfill where it has a number, that shows this tag where it shows tags.
    fn read_by(&mut self, backfill: u64, key: &str, etag: &str, tag: Option<&str>) {
        let tags = tag.map(|tag| [("t".to_owned(), tag.to_owned())].into_iter().collect());
        let (head, answer) = (self.stamp(), self.stamp());
        self.commit(Fact::Read(v1::ObservedRead {
            head,
            answer,
            object: Some(object(key)),
            etag: etag.into(),
            total_length: 10,
            body: Some(body(etag.as_bytes()[etag.len() - 1])),
            metadata: Some(v1::Metadata {
                headers_known: true,
                tags_known: tags.is_some(),
                tags: tags.unwrap_or_default(),
                ..v1::Metadata::default()
            }),
            backfill,
            ..v1::ObservedRead::default()
        }));
    }

    fn settle(&mut self) {
        let through_tick = self.tick;
        self.commit(Fact::Settled(Settled { through_tick }));
    }

    /// The ETag that is shown; empty for nothing.
    fn shown(&self, key: &str) -> String {
        let head: KeyRow = self.batch.row(KEYS, &at(key).head()).unwrap().unwrap_or_default();
        let row: Option<VersionRow> = self.batch.row(VERSIONS, &at(key).at(head.served)).unwrap();
        row.filter(VersionRow::is_present).map(|row| row.etag).unwrap_or_default()
    }

    /// The tag of what is shown.
    fn tag_shown(&self, key: &str) -> Option<String> {
        let head: KeyRow = self.batch.row(KEYS, &at(key).head()).unwrap().unwrap();
        let row: VersionRow = self.batch.row(VERSIONS, &at(key).at(head.served)).unwrap().unwrap();
        row.metadata.tags.get("t").cloned()
    }

    fn gaps(&self) -> Vec<String> {
        let mut open = backfill::open(&*self.batch, domain(), "b").unwrap();
        open.sort_by_key(|gap| gap.id);
        open.into_iter().map(|gap| gap.reason).collect()
    }

    fn bucket(&self) -> BucketRow {
        self.batch.row(FACTS, &objects::bucket_key(domain(), PROVIDER, "photos")).unwrap().unwrap_or_default()
    }
}

#[test]
fn each_reason_is_closed_by_what_the_page_on_gaps_says_and_by_nothing_else() {
    for reason in GapReason::ALL {
        if matches!(reason, GapReason::Concurrent) {
            continue; // closes with its candidates: the model has it
        }
        let closed = |by: fn(&mut Told<'_, '_>)| {
            let mut gaps = Vec::new();
            told(|told| {
                told.write(put("k", "e1", ""));
                told.gap("k", reason);
                by(told);
                gaps = told.gaps();
            });
            gaps.is_empty()
        };
        let settled = matches!(reason.closed_by_sighting(), hawser_api::gap::ClosedBySighting::Settled);
        let sighted = matches!(reason.closed_by_sighting(), hawser_api::gap::ClosedBySighting::BegunAfter);
        let rows: [(&str, bool, bool); 6] = [
            ("a later write", closed(|told| told.write(put("k", "e2", ""))), reason.closed_by_later_write()),
            ("a HEAD at once", closed(|told| told.head("k", "e1")), sighted),
            (
                "a HEAD once it has settled",
                closed(|told| {
                    told.settle();
                    told.head("k", "e1");
                }),
                sighted || settled,
            ),
            (
                "a 404 once it has settled",
                closed(|told| {
                    told.settle();
                    told.head("k", "");
                }),
                sighted || settled,
            ),
            ("a HEAD of something else", closed(|told| told.head("k", "other")), false),
            ("a settling time alone", closed(|told| told.settle()), false),
        ];
        for (by, is_closed, wanted) in rows {
            assert_eq!(is_closed, wanted, "{reason} by {by}");
        }
    }
}

#[test]
fn an_etag_closes_no_gap_of_metadata() {
    type Closer = Box<dyn Fn(&mut Told<'_, '_>)>;
    let closers: [(&str, Closer, bool, Option<&str>); 7] = [
        ("a HEAD", Box::new(|told| told.head("k", "e1")), false, None),
        ("an application's read", Box::new(|told| told.read("k", "e1")), false, None),
        ("an application's read with tags", Box::new(|told| told.read_by(0, "k", "e1", Some("1"))), false, None),
        ("a backfill that may not read tags", Box::new(|told| told.read_by(9, "k", "e1", None)), false, None),
        ("a backfill that reads tags", Box::new(|told| told.read_by(9, "k", "e1", Some("1"))), true, Some("1")),
        ("a later write", Box::new(|told| told.write(put("k", "e2", ""))), true, None),
        ("the object's end", Box::new(|told| told.head("k", "")), true, None),
    ];
    for kind in [change::TAGS, change::ACL, change::COPY, change::NOT_CAPTURED] {
        for reason in [GapReason::OutcomeUnknown, GapReason::Unsupported, GapReason::Malformed, GapReason::TooLarge] {
            for (by, close, closed, tag) in &closers {
                told(|told| {
                    told.write(put("k", "e1", ""));
                    told.gap_of("k", reason, kind);
                    told.settle();
                    close(told);
                    assert_eq!(told.gaps().is_empty(), *closed, "{reason} of {kind} by {by}");
                    assert_eq!(told.tag_shown("k").as_deref(), *tag, "{reason} of {kind} by {by}");
                });
            }
        }
    }
    told(|told| {
        told.write(put("k", "e1", ""));
        told.gap_of("k", GapReason::Unsupported, change::TAGS);
        told.gap_of("gone", GapReason::Unsupported, change::TAGS);
        let begun = BackfillBegun { provider: PROVIDER.into(), begin_tick: told.tick, ..BackfillBegun::default() };
        let backfill = told.commit(Fact::BackfillBegun(begun)).id;
        told.commit(Fact::BackfillEnded(BackfillEnded { backfill, complete: true }));
        assert_eq!(told.gaps().len(), 1, "what is there has to be read");
    });
}

#[test]
fn a_lost_put_of_the_same_bytes_hides_behind_no_etag() {
    let shown = |headers: &[(&str, &str)]| Some(metadata(headers));
    let rows = [
        ("its metadata are shown as they were", shown(&[("x-amz-meta-a", "1")]), 0, true),
        ("with what a cloud adds", shown(&[("x-amz-meta-a", "1"), ("content-type", "binary/octet-stream")]), 0, true),
        ("other metadata", shown(&[("x-amz-meta-a", "2")]), 0, false),
        ("a type that no cloud adds", shown(&[("x-amz-meta-a", "1"), ("content-type", "text/html")]), 0, false),
        ("tags", shown(&[("x-amz-meta-a", "1")]), 1, false),
        ("nothing of its metadata", None, 0, false),
    ];
    for (case, shown, tag_count, closed) in rows {
        for reason in [GapReason::OutcomeUnknown, GapReason::IntentLost, GapReason::Overflow] {
            told(|told| {
                let Change::Put(written) = put("k", "e1", "") else { panic!("a put") };
                told.write(Change::Put(v1::PutObject {
                    metadata: Some(metadata(&[("x-amz-meta-a", "1")])),
                    ..written
                }));
                told.gap_of("k", reason, "put");
                told.settle();
                told.head_of("k", "e1", shown.clone(), tag_count);
                assert_eq!(told.gaps().is_empty(), closed, "{reason}: the answer shows {case}");
            });
        }
    }
    told(|told| {
        told.write(put("k", "e1", ""));
        let (head, end) = (told.stamp(), told.stamp());
        told.commit(Fact::Gap(v1::GapFound {
            scope: "Key".into(),
            object: Some(object("k")),
            reason: GapReason::StoreAway.as_str().into(),
            etag: "e2".into(),
            head,
            end,
            ..v1::GapFound::default()
        }));
        told.head_of("k", "e1", None, 0);
        assert!(told.gaps().is_empty(), "what was lost had other bytes, and is not there");
    });
}

#[test]
fn a_lost_intent_is_closed_by_its_own_outcome_however_late() {
    told(|told| {
        let head = told.intent(3, "k");
        let session = vec![told.session; 16].into();
        told.commit(Fact::Lost(Lost { session, operations: Vec::new(), all: true }));
        assert_eq!(told.gaps(), ["IntentLost"]);
        // Another life of the sidecar tells what the journal has of the first.
        let old = vec![told.session; 16];
        told.session = 2;
        let recorded = v1::Recorded {
            operation: 3,
            writes: vec![v1::Write { change: Some(delete("k", "")) }],
            head,
            answer: head.map(|head| v1::Stamp { counter: head.counter + 1, ..head }),
        };
        let journalled = v1::Journalled {
            session: old.into(),
            old_sequence: 9,
            outcome: Some(v1::journalled::Outcome::Recorded(recorded)),
        };
        told.entry(1, Fact::Journalled(journalled.clone()));
        assert!(told.gaps().is_empty());
        // Told again, it changes nothing: not even after a later write.
        told.write(put("k", "e1", ""));
        assert!(told.entry(1, Fact::Journalled(journalled.clone())).repeated);
        assert!(told.entry(2, Fact::Journalled(journalled)).repeated);
        assert_eq!(told.shown("k"), "e1");
    });
}

#[test]
fn a_lost_intent_that_changes_no_object_is_no_gap() {
    for (kind, open) in [("put", 1), (change::TAGS, 1), ("delete", 1), (change::CREATE_UPLOAD, 0), (change::ABORT, 0)] {
        told(|told| {
            let object = Some(object("k"));
            let intent = v1::Intent { operation: 3, object, kind: kind.into(), ..v1::Intent::default() };
            told.commit(Fact::Intent(intent));
            let session = vec![told.session; 16].into();
            told.commit(Fact::Lost(Lost { session, operations: Vec::new(), all: true }));
            assert_eq!(told.gaps().len(), open, "{kind}");
        });
    }
}

#[test]
fn a_message_is_applied_once_even_when_neighbours_change_places() {
    told(|told| {
        for (sequence, repeated) in [(1, false), (3, false), (2, false), (2, true), (3, true), (200, false), (4, false)]
        {
            let abandoned = Fact::Abandoned(v1::Abandoned { operation: 99 });
            assert_eq!(told.entry(sequence, abandoned).repeated, repeated, "{sequence}");
        }
        for sequence in 300..400 {
            told.entry(sequence, Fact::Abandoned(v1::Abandoned { operation: 99 }));
        }
        assert!(told.entry(5, Fact::Abandoned(v1::Abandoned { operation: 99 })).repeated, "long past");
    });
}

#[test]
fn removing_the_current_version_brings_the_one_before_back() {
    told(|told| {
        told.write(put("k", "e1", "v1"));
        told.write(put("k", "e2", "v2"));
        assert_eq!((told.bucket().objects, told.bucket().bytes), (1, 10));
        told.write(delete("k", "v2"));
        assert_eq!((told.shown("k"), told.bucket().objects), ("e1".into(), 1));
        told.write(delete("k", "v1"));
        assert_eq!((told.shown("k"), told.bucket().objects), (String::new(), 0));
        assert_eq!(told.gaps(), ["UnseenVersion"], "versions before the first recorded one are not known");
        told.head("k", "");
        assert!(told.gaps().is_empty());
    });
    told(|told| {
        told.write(put("k", "e1", "v1"));
        told.write(put("k", "e2", "v2"));
        told.write(delete("k", "v1"));
        assert_eq!(told.shown("k"), "e2", "a version that is not current");
        let marker = v1::DeleteObject {
            object: Some(object("k")),
            delete_marker: true,
            marker_version_id: "m".into(),
            ..v1::DeleteObject::default()
        };
        told.write(Change::Delete(marker));
        assert_eq!(told.shown("k"), "");
        told.write(delete("k", "m"));
        assert_eq!(told.shown("k"), "e2", "its marker went");
        assert!(told.gaps().is_empty());
    });
}

#[test]
fn a_version_that_was_removed_before_its_record_came_stays_gone() {
    for (before, shown) in [("e1", "e1"), ("", "")] {
        told(|told| {
            if !before.is_empty() {
                told.write(put("k", before, "v1"));
            }
            let (head, answer) = (told.intent(3, "k"), told.stamp());
            told.write(delete("k", "v2"));
            told.record(3, put("k", "e2", "v2"), head, answer);
            assert_eq!((told.shown("k"), told.gaps().len()), (shown.into(), 0));
            told.write(put("k", "e3", "v3"));
            assert_eq!((told.shown("k"), told.gaps().len()), ("e3".into(), 0), "another version");
        });
    }
    told(|told| {
        let (head, answer) = (told.intent(3, "k"), told.stamp());
        told.write(delete("k", "null"));
        assert_eq!(told.gaps(), ["UnseenVersion"]);
        told.record(3, put("k", "e2", "null"), head, answer);
        assert_eq!((told.shown("k"), told.gaps().len()), ("e2".into(), 1), "in doubt until the cloud says");
        told.head("k", "");
        assert_eq!((told.shown("k"), told.gaps().len()), (String::new(), 0));
    });
}

#[test]
fn a_copy_takes_a_source_that_is_certain_or_leaves_a_gap() {
    let copy = |etag: &str, version_id: &str| {
        Change::Copy(v1::CopyObject {
            object: Some(object("to")),
            source: Some(v1::CopySource { object: Some(object("from")), version_id: version_id.into() }),
            etag: etag.into(),
            ..v1::CopyObject::default()
        })
    };
    let md5 = |digit: char| digit.to_string().repeat(32);
    type Before = Box<dyn Fn(&mut Told<'_, '_>)>;
    let rows: Vec<(&str, Before, bool)> = vec![
        ("the only version", Box::new(|told| told.write(put("from", "e1", ""))), true),
        ("an unknown source", Box::new(|_| {}), false),
        (
            "a source in doubt",
            Box::new(|told| {
                told.write(put("from", "e1", ""));
                told.gap("from", GapReason::Overflow);
            }),
            false,
        ),
        (
            "a write of the source on its way",
            Box::new(|told| {
                told.write(put("from", "e1", ""));
                told.intent(1, "from");
            }),
            false,
        ),
    ];
    for (case, before, known) in rows {
        told(|told| {
            before(told);
            let gaps = told.gaps().len();
            told.write(copy("e9", ""));
            assert_eq!(told.shown("to"), if known { "e9" } else { "" }, "{case}");
            assert_eq!(told.gaps().len() - gaps, usize::from(!known), "{case}");
        });
    }
    told(|told| {
        told.write(put("from", "e1", "v1"));
        told.write(put("from", "e2", "v2"));
        told.write(copy("e9", "v1"));
        assert_eq!(told.shown("to"), "e9", "the named version");
        told.write(copy("e10", "v3"));
        assert_eq!(told.gaps(), ["UnknownSource"], "a version that is not known");
    });
    told(|told| {
        told.write(put("from", &md5('a'), ""));
        told.write(put("from", &md5('b'), ""));
        told.intent(1, "from");
        told.write(copy(&md5('a'), ""));
        assert_eq!(told.shown("to"), md5('a'), "its MD5 names the content");
        told.write(copy(&md5('c'), ""));
        assert_eq!(told.gaps(), ["UnknownSource"], "and says when it is another");
    });
}

fn tag_version(value: &str, version_id: &str) -> Change {
    let tags = [("t".to_owned(), value.to_owned())].into_iter().collect();
    Change::SetTags(v1::SetTags { object: Some(object("k")), version_id: version_id.into(), tags })
}

fn tag(value: &str) -> Change {
    tag_version(value, "")
}

#[test]
fn tags_that_overtake_the_record_of_their_object_are_in_doubt() {
    type Before = Box<dyn Fn(&mut Told<'_, '_>)>;
    let rows: Vec<(&str, Before, &str, &[&str])> = vec![
        ("nothing is on its way", Box::new(|told| told.write(put("k", "e1", ""))), "", &[]),
        ("a first PUT", Box::new(|told| _ = told.intent(3, "k")), "", &["UnknownSource"]),
        (
            "a second PUT",
            Box::new(|told| {
                told.write(put("k", "e1", ""));
                told.intent(3, "k");
            }),
            "",
            &["UnknownSource"],
        ),
        (
            "other tags",
            Box::new(|told| {
                told.write(put("k", "e1", ""));
                let object = Some(object("k"));
                let kind = change::TAGS.into();
                told.commit(Fact::Intent(v1::Intent { operation: 3, object, kind, ..v1::Intent::default() }));
            }),
            "",
            &[],
        ),
        (
            "a Complete that waits",
            Box::new(|told| {
                told.write(put("k", "e1", ""));
                let create = v1::CreateUpload { object: Some(object("k")), upload_id: "u".into(), metadata: None };
                told.write(Change::CreateUpload(create));
                told.write(Change::Complete(v1::CompleteUpload {
                    object: Some(object("k")),
                    upload_id: "u".into(),
                    parts: vec![v1::CompletedPart { part_number: 1, etag: "p".into() }],
                    ..v1::CompleteUpload::default()
                }));
            }),
            "",
            &["UnknownPart", "UnknownSource"],
        ),
        ("a key that is not recorded", Box::new(|_| {}), "", &["UnknownSource"]),
        ("a named version", Box::new(|told| told.write(put("k", "e1", "v1"))), "v1", &[]),
        (
            "a named version that is not recorded",
            Box::new(|told| told.write(put("k", "e1", "v1"))),
            "v2",
            &["UnknownSource"],
        ),
        (
            "an object that had gone",
            Box::new(|told| {
                told.write(put("k", "e1", ""));
                told.write(delete("k", ""));
            }),
            "",
            &["UnseenVersion"],
        ),
    ];
    for (case, before, version_id, wanted) in rows {
        told(|told| {
            before(told);
            told.write(tag_version("1", version_id));
            assert_eq!(told.gaps(), wanted, "{case}");
        });
    }
}

#[test]
fn tags_that_overlap_a_write_are_in_doubt() {
    told(|told| {
        told.write(put("k", "e1", ""));
        told.write(tag("1"));
        assert_eq!((told.tag_shown("k").as_deref(), told.gaps().len()), (Some("1"), 0));
        told.write(tag("2"));
        assert_eq!((told.tag_shown("k").as_deref(), told.gaps().len()), (Some("2"), 0));
    });
    told(|told| {
        let head = told.stamp();
        told.write(put("k", "e1", "")); // began after the tags' head and ended before their answer
        let answer = told.stamp();
        told.record(0, tag("1"), head, answer);
        assert_eq!(told.gaps(), ["Concurrent"]);
        told.head("k", "e1");
        assert_eq!(told.gaps(), ["Concurrent"], "an ETag says nothing of tags");
        told.write(put("k", "e2", ""));
        assert!(told.gaps().is_empty());
    });
}

#[test]
fn a_write_that_comes_late_does_not_slip_under_tags_that_were_set_on_it() {
    told(|told| {
        told.write(put("k", "e1", ""));
        let (head, answer) = (told.stamp(), told.stamp());
        told.write(tag("1"));
        // This PUT was answered before the tags were set, and its record comes now: the tags were set on it.
        told.record(0, put("k", "e2", ""), head, answer);
        assert_eq!(told.gaps(), ["Concurrent"]);
    });
}

#[test]
fn a_read_makes_content_known_and_settles_what_is_in_doubt() {
    told(|told| {
        told.read("new", "e1");
        assert_eq!(told.shown("new"), "e1", "an unknown key");
        told.write(put("k", "e1", ""));
        told.gap("k", GapReason::Overflow);
        told.read("k", "e2");
        assert_eq!((told.shown("k"), told.gaps().len()), ("e2".into(), 0), "the version that was lost");
        let head = told.intent(1, "k");
        told.read("k", "e3");
        assert_eq!(told.shown("k"), "e2", "a write overlaps it");
        let answer = told.stamp();
        told.record(1, put("k", "e3", ""), head, answer);
        assert_eq!((told.shown("k"), told.gaps().len()), ("e3".into(), 0));
    });
    told(|told| {
        told.write(put("k", "e1", ""));
        told.head("k", "e2");
        assert_eq!((told.shown("k"), told.gaps()), ("e1".into(), vec!["UnseenVersion".to_owned()]));
        told.read("k", "e2");
        assert_eq!((told.shown("k"), told.gaps().len()), ("e2".into(), 0));
        told.head("k", "e1");
        told.head("k", "e1");
        assert_eq!((told.shown("k"), told.gaps().len()), ("e1".into(), 0), "an older version is current again");
    });
}

#[test]
fn a_backfill_tombstones_what_is_gone_and_nothing_newer() {
    told(|told| {
        told.write(put("gone", "e1", ""));
        told.write(put("busy", "e1", ""));
        told.write(put("alias", "e1", ""));
        let begin_tick = told.tick;
        let begun = BackfillBegun { provider: PROVIDER.into(), begin_tick, ..BackfillBegun::default() };
        let backfill = told.commit(Fact::BackfillBegun(begun)).id;
        told.write(put("newer", "e1", ""));
        told.intent(1, "busy");
        let page = v1::ReconcilePageRequest {
            backfill,
            bucket: "photos".into(),
            last: true,
            begin_tick,
            ..Default::default()
        };
        let compared = backfill::compare(&*told.batch, domain(), PROVIDER, &page, b"").unwrap();
        assert_eq!(compared.entry.absent, ["alias", "busy", "gone", "newer"]);
        told.commit(Fact::Reconciled(Reconciled { ..compared.entry }));
        let confirm = |told: &mut Told<'_, '_>, key: &str, found: bool| {
            let object = Some(object(key));
            let absent = v1::ConfirmAbsentRequest { backfill, object, found, begin_tick, ..Default::default() };
            told.commit(Fact::Absent(absent)).refused
        };
        assert_eq!(confirm(told, "gone", false), "");
        assert_eq!(confirm(told, "busy", false), "a write of the key is on its way");
        assert_eq!(confirm(told, "newer", false), "a newer record");
        assert_eq!(confirm(told, "alias", true), "");
        assert_eq!([told.shown("gone"), told.shown("busy"), told.shown("newer")], ["", "e1", "e1"]);
        assert_eq!(told.bucket().objects, 2, "an alias is no object of its own");
        told.commit(Fact::BackfillEnded(BackfillEnded { backfill, complete: true }));
        let row = bindings::one(&*told.batch, domain(), "b").unwrap().unwrap();
        assert_eq!(row.coverage[PROVIDER].begin_tick, begin_tick);
        let count = bindings::unconfirmed(&*told.batch, domain(), &row.hello, PROVIDER, begin_tick, 10).unwrap();
        assert_eq!(count, 1, "recorded since it began");
        told.write(put("alias", "e2", ""));
        assert_eq!((told.bucket().objects, told.bucket().bytes), (3, 30), "written again, it is");
    });
}

#[test]
fn a_backfill_reads_everything_under_a_gap_that_it_will_close() {
    let rows: [(&str, &str, bool, &[u8], bool); 4] = [
        ("a gap of the bucket", "photos", true, b"", true),
        ("a gap of another bucket", "other", true, b"", false),
        ("a gap that has not settled", "photos", false, b"", false),
        ("a backfill of a prefix", "photos", true, b"k", false),
    ];
    for (case, bucket, settled, prefix, fetched) in rows {
        told(|told| {
            told.write(put("k", "e1", ""));
            let (head, end) = (told.stamp(), told.stamp());
            told.commit(Fact::Gap(v1::GapFound {
                scope: "Bucket".into(),
                object: Some(v1::ObjectRef { bucket: bucket.into(), ..object("") }),
                reason: GapReason::JournalFull.as_str().into(),
                head,
                end,
                ..v1::GapFound::default()
            }));
            if settled {
                told.settle();
            }
            let (begin_tick, prefix) = (told.tick, Bytes::from_static(prefix));
            let begun = BackfillBegun { provider: PROVIDER.into(), prefix: prefix.clone(), begin_tick };
            let backfill = told.commit(Fact::BackfillBegun(begun)).id;
            let listed = v1::ListedObject { key: object("k").key, etag: "e1".into(), size: 10, ..Default::default() };
            let page = v1::ReconcilePageRequest {
                backfill,
                bucket: "photos".into(),
                objects: vec![listed],
                last: true,
                begin_tick,
                ..Default::default()
            };
            let compared = backfill::compare(&*told.batch, domain(), PROVIDER, &page, &prefix).unwrap();
            assert_eq!(!compared.fetch.is_empty(), fetched, "{case}");
            // What changed under it comes with the reading, whatever its ETag.
            if fetched {
                told.read_by(backfill, "k", "e1", Some("1"));
                told.commit(Fact::BackfillEnded(BackfillEnded { backfill, complete: true }));
                assert_eq!((told.tag_shown("k").as_deref(), told.gaps().len()), (Some("1"), 0), "{case}");
            }
        });
    }
}

#[test]
fn a_complete_backfill_closes_only_what_was_over_before_it() {
    for (case, reason, before, settled, closed) in [
        ("a lapse", GapReason::Unparsed, true, true, true),
        ("a lapse that has not settled", GapReason::Unparsed, true, false, false),
        ("a gap after its beginning", GapReason::Overflow, false, true, false),
        ("a gap of a newer release", GapReason::Other, true, true, true),
    ] {
        told(|told| {
            if before {
                told.gap("", reason);
            }
            if settled {
                told.settle();
            }
            let begun = BackfillBegun { provider: PROVIDER.into(), begin_tick: told.tick, ..BackfillBegun::default() };
            let backfill = told.commit(Fact::BackfillBegun(begun)).id;
            if !before {
                told.gap("", reason);
            }
            told.commit(Fact::BackfillEnded(BackfillEnded { backfill, complete: true }));
            assert_eq!(told.gaps().is_empty(), closed, "{case}");
        });
    }
}

#[test]
fn a_lapse_that_is_told_again_stays_one_gap() {
    told(|told| {
        let begin = told.stamp();
        let open = v1::GapOpen { lapse: 4, reason: GapReason::Http2.as_str().into(), begin, ..v1::GapOpen::default() };
        told.commit(Fact::GapOpen(open.clone()));
        told.commit(Fact::GapOpen(open.clone()));
        assert_eq!(told.gaps(), ["Http2"]);
        let end = told.stamp();
        told.commit(Fact::GapClose(v1::GapClose { lapse: 4, end }));
        let ended = |gap: &super::rows::GapRow| gap.span.end.tick != 0;
        assert!(backfill::open(&*told.batch, domain(), "b").unwrap().iter().all(ended));
        // After its session was given up for dead, it begins again.
        told.commit(Fact::GapOpen(open));
        assert_eq!(told.gaps(), ["Http2", "Http2"]);
    });
}

#[test]
fn too_many_gaps_of_a_bucket_become_one() {
    told(|told| {
        for number in 0..=gaps::BUCKET_GAPS_MAX {
            told.gap(&format!("k{number}"), GapReason::Overflow);
        }
        assert_eq!(told.gaps(), ["Folded"]);
        assert_eq!(told.bucket().open_gaps, 0);
        told.write(put("k1", "e1", ""));
        assert_eq!(told.gaps(), ["Folded"], "only a backfill closes it");
    });
}

#[test]
fn gaps_that_never_fold_make_no_others_fold() {
    told(|told| {
        for number in 0..=gaps::BUCKET_GAPS_MAX {
            told.gap(&format!("k{number}"), GapReason::Concurrent);
        }
        told.gap("k", GapReason::Overflow);
        let open = told.gaps();
        assert_eq!(open.len() as u64, gaps::BUCKET_GAPS_MAX + 2);
        assert_eq!((open.last().map(String::as_str), told.bucket().open_gaps), (Some("Overflow"), 1));
    });
}

#[test]
fn retention_lets_old_versions_go_and_keeps_what_is_shown_or_in_doubt() {
    told(|told| {
        for number in 1..=4 {
            told.write(put("k", &format!("e{number}"), ""));
            told.write(put("doubted", &format!("e{number}"), ""));
        }
        told.gap("doubted", GapReason::Overflow);
        let due = retention::due(&*told.batch, domain(), told.unix).unwrap();
        assert_eq!(due.versions.len(), 2, "{due:?}");
        assert!(due.versions.iter().all(|version| version.object == object("k")));
        told.commit(Fact::Trimmed(Trimmed { ..due }));
        let left: Vec<String> = told
            .batch
            .scan(VERSIONS, &at("k").stem().keys())
            .map(|pair| decode::<VersionRow>(VERSIONS, &pair.unwrap().1).unwrap().etag)
            .collect();
        assert_eq!(left, ["e4", "e3"]);
        assert!(retention::due(&*told.batch, domain(), told.unix).unwrap().versions.is_empty());
    });
}

#[test]
fn what_is_past_is_forgotten_and_what_orders_writes_is_not() {
    let count = |told: &Told<'_, '_>, family, stem: KeyBytes| told.batch.scan(family, &stem.keys()).count();
    told(|told| {
        for number in 1..=5 {
            told.write(put("k", &format!("e{number}"), ""));
        }
        told.write(delete("k", ""));
        told.gap("closed", GapReason::Overflow);
        told.write(put("closed", "e1", ""));
        told.entry(1, Fact::Abandoned(v1::Abandoned { operation: 0 }));
        told.session = 2;
        let head = told.stamp();
        let intent = v1::Intent { operation: 1, object: Some(object("k")), head, ..v1::Intent::default() };
        told.entry(1, Fact::Intent(intent));
        told.session = 1;
        for complete in [false, true] {
            let begun = BackfillBegun { provider: PROVIDER.into(), begin_tick: told.tick, ..BackfillBegun::default() };
            let backfill = told.commit(Fact::BackfillBegun(begun)).id;
            if complete {
                told.commit(Fact::BackfillEnded(BackfillEnded { backfill, complete }));
            }
        }
        told.gap("open", GapReason::Overflow);
        let due = retention::due(&*told.batch, domain(), told.unix + retention::PAST_SECONDS).unwrap();
        assert_eq!((due.versions.len(), due.count()), (4, 4), "not yet: {due:?}");
        let due = retention::due(&*told.batch, domain(), told.unix + retention::PAST_SECONDS + 1).unwrap();
        assert_eq!((due.gaps.len(), due.sessions.len(), due.backfills.len()), (1, 1, 2), "{due:?}");
        told.commit(Fact::Trimmed(due));
        assert_eq!(count(told, GAPS, KeyBytes::letter(b'g', domain())), 1, "the open gap stays");
        assert_eq!(count(told, FACTS, KeyBytes::letter(b'S', domain())), 1, "so does a session with an open intent");
        assert_eq!(count(told, FACTS, KeyBytes::letter(b'F', domain())), 0);
        assert_eq!(count(told, HISTORY, at("k").stem()), 2, "as many as versions are left");
        assert_eq!((told.shown("k"), told.gaps()), (String::new(), vec!["Overflow".to_owned()]));
    });
}

#[test]
fn an_upload_outlives_its_last_part_by_a_week() {
    told(|told| {
        let create = v1::CreateUpload { object: Some(object("k")), upload_id: "u".into(), metadata: None };
        told.write(Change::CreateUpload(create));
        let part = |number| {
            Change::Part(v1::UploadPart {
                object: Some(object("k")),
                upload_id: "u".into(),
                part_number: number,
                body: Some(body(7)),
                etag: "p".into(),
            })
        };
        told.write(part(1));
        let now = told.unix + retention::UPLOAD_SECONDS;
        assert!(retention::due(&*told.batch, domain(), now - 1).unwrap().uploads.is_empty());
        let due = retention::due(&*told.batch, domain(), now).unwrap();
        assert_eq!(due.uploads.len(), 1);
        told.commit(Fact::Trimmed(due));
        told.write(Change::Complete(v1::CompleteUpload {
            object: Some(object("k")),
            upload_id: "u".into(),
            parts: vec![v1::CompletedPart { part_number: 1, etag: "p".into() }],
            etag: "e".into(),
            ..v1::CompleteUpload::default()
        }));
        assert_eq!(told.gaps(), ["UnknownUpload"]);
    });
}

#[test]
fn a_complete_without_a_part_is_a_gap_until_the_part_comes() {
    told(|told| {
        let create = v1::CreateUpload { object: Some(object("k")), upload_id: "u".into(), metadata: None };
        told.write(Change::CreateUpload(create));
        told.write(Change::Complete(v1::CompleteUpload {
            object: Some(object("k")),
            upload_id: "u".into(),
            parts: vec![v1::CompletedPart { part_number: 1, etag: "p".into() }],
            etag: "e".into(),
            ..v1::CompleteUpload::default()
        }));
        assert_eq!((told.shown("k"), told.gaps()), (String::new(), vec!["UnknownPart".to_owned()]));
        told.write(Change::Part(v1::UploadPart {
            object: Some(object("k")),
            upload_id: "u".into(),
            part_number: 1,
            body: Some(body(7)),
            etag: "p".into(),
        }));
        assert_eq!((told.shown("k"), told.gaps().len()), ("e".into(), 0));
    });
}

#[test]
fn while_a_complete_waits_for_a_part_the_version_before_it_is_in_doubt() {
    for part_is_told in [true, false] {
        told(|told| {
            told.write(put("k", "e1", ""));
            let create = v1::CreateUpload { object: Some(object("k")), upload_id: "u".into(), metadata: None };
            told.write(Change::CreateUpload(create));
            let part_head = told.stamp();
            told.commit(Fact::Intent(v1::Intent {
                operation: 7,
                object: Some(object("k")),
                kind: "part".into(),
                head: part_head,
                upload_id: "u".into(),
                part_number: 1,
                ..v1::Intent::default()
            }));
            let part_answer = told.stamp();
            told.write(Change::Complete(v1::CompleteUpload {
                object: Some(object("k")),
                upload_id: "u".into(),
                parts: vec![v1::CompletedPart { part_number: 1, etag: "p".into() }],
                etag: "e9".into(),
                ..v1::CompleteUpload::default()
            }));
            assert_eq!((told.shown("k"), told.gaps()), ("e1".into(), vec!["UnknownPart".to_owned()]));
            told.write(Change::Copy(v1::CopyObject {
                object: Some(object("to")),
                source: Some(v1::CopySource { object: Some(object("k")), version_id: String::new() }),
                etag: "e9".into(),
                ..v1::CopyObject::default()
            }));
            assert_eq!(told.shown("to"), "", "no copy takes the old content");
            if part_is_told {
                let part = Change::Part(v1::UploadPart {
                    object: Some(object("k")),
                    upload_id: "u".into(),
                    part_number: 1,
                    body: Some(body(7)),
                    etag: "p".into(),
                });
                told.record(7, part, part_head, part_answer);
                assert_eq!((told.shown("k"), told.gaps()), ("e9".into(), vec!["UnknownSource".to_owned()]));
            } else {
                let now = told.unix + retention::UPLOAD_SECONDS;
                let due = retention::due(&*told.batch, domain(), now).unwrap();
                told.commit(Fact::Trimmed(due));
                assert_eq!(told.gaps(), ["UnknownPart", "UnknownSource"], "forgotten, and said so");
            }
        });
    }
}

#[test]
fn a_deleted_bucket_shows_nothing_and_a_new_one_begins_empty() {
    told(|told| {
        let bucket =
            |deleted| Change::Bucket(v1::BucketChange { provider: PROVIDER.into(), bucket: "photos".into(), deleted });
        told.write(bucket(false));
        let begun = told.bucket().begun;
        told.write(bucket(false));
        assert_eq!(told.bucket().begun, begun, "a repeated success begins nothing");
        told.write(put("k", "e1", ""));
        told.write(bucket(true));
        assert_eq!((told.shown("k"), told.bucket().objects), (String::new(), 0));
        told.write(bucket(false));
        assert!(told.bucket().begun > begun && told.bucket().ended == 0);
    });
}

#[test]
fn a_large_bucket_is_emptied_entry_by_entry_and_what_is_written_meanwhile_stays() {
    told(|told| {
        let bucket =
            |deleted| Change::Bucket(v1::BucketChange { provider: PROVIDER.into(), bucket: "photos".into(), deleted });
        let count = objects::EMPTIED_MAX as u64 + 10;
        for number in 0..count {
            told.write(put(&format!("k{number:06}"), "e1", ""));
        }
        told.write(bucket(true));
        let deleted = told.tick;
        assert_eq!(told.bucket().objects, 10, "one entry does not touch more");
        let emptied = objects::emptied_at(&*told.batch, domain(), PROVIDER, "photos").unwrap();
        assert_eq!(emptied, deleted, "up to here nothing is shown");
        told.write(bucket(false));
        let last = format!("k{:06}", count - 1);
        told.write(put(&last, "e2", ""));
        let mut entries = 0;
        loop {
            let emptied = objects::emptying(&*told.batch, domain()).unwrap();
            if emptied.is_empty() {
                break;
            }
            told.commit(Fact::Trimmed(Trimmed { emptied, ..Trimmed::default() }));
            entries += 1;
            assert!(entries < 5, "it ends");
        }
        assert_eq!((told.bucket().objects, told.shown(&last)), (1, "e2".into()));
        assert_eq!(told.shown(&format!("k{:06}", count - 2)), "");
        assert_eq!(objects::emptied_at(&*told.batch, domain(), PROVIDER, "photos").unwrap(), 0);
    });
}

//! The order of writes, in every interleaving of small cases, against a cloud that knows the truth: what the
//! catalog shows without a gap is what the cloud has. Writers of content and of tags, removed versions, multipart
//! uploads, sightings, lost answers, lapses and a restart of the store take their steps one at a time; each possible
//! sequence is run from the beginning.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use hawser_api::v1;
use hawser_api::v1::write::Change;
use prost::Message;

use super::apply::apply;
use super::entry::{BackfillBegun, BackfillEnded, ENTRY_VERSION, Entry, Fact, Settled};
use super::rows::{Address, FAMILIES, KEYS, KeyRow, Kind, Rows, VERSIONS, VersionRow};
use crate::index::{Batch, Index};
use crate::names::DomainId;

/// Something that happens in steps of its own order.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Actor {
    /// A PUT (its ETag is its place among the actors) or DELETE: head, effect, answer, record.
    Write { sidecar: usize, delete: bool },
    /// A PUT whose answer nobody saw: head, gap; its effect comes at any time before it has settled, or
    /// (`never`) not at all.
    Lost { sidecar: usize },
    /// The effect of the lost write, where it comes: what the cloud then has, [`LOST`] or the content of a
    /// writer whose PUT it repeats.
    LateEffect { content: usize },
    /// The store says that the lost write has settled.
    Settles,
    /// Tags of what is there: head, effect, answer, record. Where nothing is there the cloud refuses it.
    Tags { sidecar: usize },
    /// The version that this writer made is removed: head, effect, answer, record. It makes the bucket versioned.
    Remove { sidecar: usize, of: usize },
    /// The only part of an upload: head, answer, record. Whoever completes it has seen the answer.
    Part { sidecar: usize },
    /// The upload is completed: head, effect, answer, record.
    Complete { sidecar: usize },
    /// Bytes pass that nobody looks at, and change the key: it begins, changes, ends.
    Lapse { sidecar: usize },
    /// A HEAD: head, look, answer and report.
    Head { sidecar: usize },
    /// A page of a listing, likewise.
    List { sidecar: usize },
    /// The store is opened again: ticks that were heard count for nothing.
    Restart,
    /// The same, from a backup that is [`AHEAD`] ticks old: numbers that were heard are given out again.
    Restore,
}

/// How far the store had come that is replaced by its backup.
const AHEAD: u64 = 100;

impl Actor {
    /// Whether a HEAD at the end would not tell everything that it did: a backfill does.
    fn is_more_than_content(&self) -> bool {
        matches!(
            self,
            Actor::Tags { .. }
                | Actor::Remove { .. }
                | Actor::Part { .. }
                | Actor::Complete { .. }
                | Actor::Lapse { .. }
        )
    }

    fn steps(self) -> usize {
        match self {
            Actor::Write { .. } | Actor::Tags { .. } | Actor::Remove { .. } | Actor::Complete { .. } => 4,
            Actor::Head { .. } | Actor::List { .. } | Actor::Part { .. } | Actor::Lapse { .. } => 3,
            Actor::Lost { .. } => 2,
            Actor::LateEffect { .. } | Actor::Settles | Actor::Restart | Actor::Restore => 1,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    head: v1::Stamp,
    answer: v1::Stamp,
    /// What a sighting saw: 0 is absence.
    saw: usize,
    /// And with which tags; of a write of tags, whether it was done.
    tags: usize,
}

struct World<'b, 'i> {
    batch: &'b mut Batch<'i>,
    at: Address,
    /// The writer whose content the cloud has, counted from 1; 0: the key is absent.
    cloud: usize,
    /// Whose tags it has; 0: none.
    tags: usize,
    /// What a versioned bucket keeps under the key, the current version last: writers, 0 for a marker.
    kept: Option<Vec<usize>>,
    tick: u64,
    incarnation: u64,
    counters: [u64; 3],
    /// Sidecars that hear no tick.
    deaf: bool,
    lost: Option<usize>,
    settled: bool,
}

impl World<'_, '_> {
    fn stamp(&mut self, sidecar: usize) -> v1::Stamp {
        self.counters[sidecar] += 1;
        let tick = if self.deaf { 0 } else { self.tick };
        v1::Stamp { incarnation: self.incarnation, tick, counter: self.counters[sidecar] }
    }

    fn commit(&mut self, sidecar: usize, mut fact: Fact) {
        let believe = |stamp: &mut Option<v1::Stamp>| super::entry::believe(stamp, self.incarnation, self.tick);
        match &mut fact {
            Fact::Recorded(recorded) => (believe(&mut recorded.head), believe(&mut recorded.answer)),
            Fact::Gap(gap) => (believe(&mut gap.head), believe(&mut gap.end)),
            Fact::Sightings(sightings) => (believe(&mut sightings.head), believe(&mut sightings.answer)),
            _ => ((), ()),
        };
        self.tick += 1;
        let entry = Entry {
            version: ENTRY_VERSION,
            binding: "b".into(),
            session: Bytes::from(vec![sidecar as u8 + 1; 16]),
            fact: Some(fact),
            ..Entry::default()
        };
        apply(self.batch, self.at.domain, self.tick, &entry.encode_to_vec()).unwrap();
    }

    fn record(&mut self, sidecar: usize, progress: Progress, change: Change) {
        let recorded = v1::Recorded {
            operation: 0,
            writes: vec![v1::Write { change: Some(change) }],
            head: Some(progress.head),
            answer: Some(progress.answer),
        };
        self.commit(sidecar, Fact::Recorded(recorded));
    }

    /// The cloud takes a write of `content`, 0 for a delete.
    fn take(&mut self, content: usize) {
        (self.cloud, self.tags) = (content, 0);
        if let Some(kept) = &mut self.kept {
            kept.push(content);
        }
    }

    fn step(&mut self, number: usize, actor: Actor, step: usize, progress: &mut Progress) {
        match (actor, step) {
            (
                Actor::Write { sidecar, .. }
                | Actor::Tags { sidecar }
                | Actor::Remove { sidecar, .. }
                | Actor::Part { sidecar }
                | Actor::Complete { sidecar }
                | Actor::Lost { sidecar }
                | Actor::Head { sidecar }
                | Actor::List { sidecar },
                0,
            ) => progress.head = self.stamp(sidecar),
            (Actor::Write { delete, .. }, 1) => self.take(if delete { 0 } else { number + 1 }),
            (Actor::Complete { .. }, 1) => self.take(number + 1),
            (Actor::Tags { .. }, 1) => {
                progress.tags = usize::from(self.cloud != 0);
                if self.cloud != 0 {
                    self.tags = number + 1;
                }
            }
            (Actor::Remove { of, .. }, 1) => {
                let kept = self.kept.as_mut().expect("its bucket keeps versions");
                kept.retain(|writer| *writer != of + 1);
                self.cloud = kept.last().copied().unwrap_or(0);
            }
            (
                Actor::Write { sidecar, .. }
                | Actor::Tags { sidecar }
                | Actor::Remove { sidecar, .. }
                | Actor::Complete { sidecar },
                2,
            )
            | (Actor::Part { sidecar }, 1) => progress.answer = self.stamp(sidecar),
            (Actor::Write { sidecar, delete }, _) => {
                let object = Some(self.at.object());
                let version_id = if self.kept.is_some() { etag(number + 1) } else { String::new() };
                let change = if delete {
                    let marker = (self.kept.is_some(), version_id);
                    Change::Delete(v1::DeleteObject {
                        object,
                        delete_marker: marker.0,
                        marker_version_id: marker.1,
                        ..v1::DeleteObject::default()
                    })
                } else {
                    Change::Put(v1::PutObject { version_id, ..put(object, number + 1) })
                };
                self.record(sidecar, *progress, change);
            }
            (Actor::Tags { sidecar }, _) => {
                let tags = [("t".to_owned(), (number + 1).to_string())].into_iter().collect();
                let change =
                    Change::SetTags(v1::SetTags { object: Some(self.at.object()), version_id: String::new(), tags });
                if progress.tags == 1 {
                    self.record(sidecar, *progress, change);
                }
            }
            (Actor::Remove { sidecar, of }, _) => {
                let (object, version_id) = (Some(self.at.object()), etag(of + 1));
                let delete = v1::DeleteObject { object, version_id, ..v1::DeleteObject::default() };
                self.record(sidecar, *progress, Change::Delete(delete));
            }
            (Actor::Part { sidecar }, _) => {
                let body = put(None, LOST).body;
                let (object, upload_id, etag) = (Some(self.at.object()), "u".into(), "p".into());
                let part = v1::UploadPart { object, upload_id, part_number: 1, body, etag };
                self.record(sidecar, *progress, Change::Part(part));
            }
            (Actor::Complete { sidecar }, _) => {
                let complete = v1::CompleteUpload {
                    object: Some(self.at.object()),
                    upload_id: "u".into(),
                    parts: vec![v1::CompletedPart { part_number: 1, etag: "p".into() }],
                    etag: etag(number + 1),
                    ..v1::CompleteUpload::default()
                };
                self.record(sidecar, *progress, Change::Complete(complete));
            }
            (Actor::Lapse { sidecar }, 0) => {
                let begin = Some(self.stamp(sidecar));
                let open = v1::GapOpen { lapse: 1, reason: "Http2".into(), begin, ..v1::GapOpen::default() };
                self.commit(sidecar, Fact::GapOpen(open));
            }
            (Actor::Lapse { .. }, 1) => self.take(LOST),
            (Actor::Lapse { sidecar }, _) => {
                let end = Some(self.stamp(sidecar));
                self.commit(sidecar, Fact::GapClose(v1::GapClose { lapse: 1, end }));
            }
            (Actor::Lost { sidecar }, _) => {
                let end = self.stamp(sidecar);
                let gap = v1::GapFound {
                    scope: "Key".into(),
                    object: Some(self.at.object()),
                    reason: "OutcomeUnknown".into(),
                    head: Some(progress.head),
                    end: Some(end),
                    ..v1::GapFound::default()
                };
                self.commit(sidecar, Fact::Gap(gap));
                self.lost = Some(number);
            }
            (Actor::LateEffect { content }, _) => self.cloud = content,
            (Actor::Settles, _) => {
                self.commit(2, Fact::Settled(Settled { through_tick: self.tick }));
                self.settled = true;
            }
            (Actor::Head { .. } | Actor::List { .. }, 1) => (progress.saw, progress.tags) = (self.cloud, self.tags),
            (Actor::Head { sidecar } | Actor::List { sidecar }, _) => {
                progress.answer = self.stamp(sidecar);
                self.sight(sidecar, *progress, matches!(actor, Actor::List { .. }));
            }
            (Actor::Restart, _) => self.incarnation += 1,
            (Actor::Restore, _) => (self.incarnation, self.tick) = (self.incarnation + 1, 0),
        }
    }

    fn sight(&mut self, sidecar: usize, progress: Progress, listing: bool) {
        if listing && progress.saw == 0 {
            return; // a listing says nothing of what it does not list
        }
        let sighting = v1::Sighting {
            object: Some(self.at.object()),
            absent: progress.saw == 0,
            etag: if progress.saw == 0 { String::new() } else { etag(progress.saw) },
            metadata: (!listing).then(|| v1::Metadata { headers_known: true, ..v1::Metadata::default() }),
            tag_count: u64::from(progress.tags != 0),
            ..v1::Sighting::default()
        };
        let sightings = v1::Sightings {
            head: Some(progress.head),
            answer: Some(progress.answer),
            listing,
            objects: vec![sighting],
        };
        self.commit(sidecar, Fact::Sightings(sightings));
    }

    /// A complete backfill, once everything has settled: it reads what the cloud has, or finds nothing.
    fn backfill(&mut self) {
        self.commit(2, Fact::Settled(Settled { through_tick: self.tick }));
        let (provider, begin_tick) = (self.at.provider.clone(), self.tick);
        let begun = BackfillBegun { provider, begin_tick, ..BackfillBegun::default() };
        self.commit(2, Fact::BackfillBegun(begun));
        let (backfill, object) = (self.tick, Some(self.at.object()));
        if self.cloud == 0 {
            let absent = v1::ConfirmAbsentRequest { backfill, object, begin_tick, ..Default::default() };
            self.commit(2, Fact::Absent(absent));
        } else {
            let (head, answer) = (Some(self.stamp(2)), Some(self.stamp(2)));
            let put = put(object, self.cloud);
            let tags = match self.tags {
                0 => Default::default(),
                tags => [("t".to_owned(), tags.to_string())].into_iter().collect(),
            };
            let metadata = Some(v1::Metadata { tags, tags_known: true, ..put.metadata.unwrap() });
            let (object, etag, body) = (put.object, put.etag, put.body);
            let read = v1::ObservedRead {
                head,
                answer,
                object,
                etag,
                body,
                metadata,
                total_length: 1,
                backfill,
                ..Default::default()
            };
            self.commit(2, Fact::Read(read));
        }
        self.commit(2, Fact::BackfillEnded(BackfillEnded { backfill, complete: true }));
    }

    /// What the catalog shows: the ETag, empty for absence, and the tags; and whether it is in doubt.
    fn shown_with_tags(&self) -> (String, String, bool) {
        let (etag, doubt) = self.shown();
        let head: KeyRow = self.batch.row(KEYS, &self.at.head()).unwrap().unwrap_or_default();
        let row: VersionRow = self.batch.row(VERSIONS, &self.at.at(head.served)).unwrap().unwrap_or_default();
        let tags = row.metadata.tags.get("t").cloned().unwrap_or_default();
        let of_binding = super::backfill::open(&*self.batch, self.at.domain, "b").unwrap();
        let of_binding = of_binding.iter().any(|gap| gap.scope == "Binding");
        (if row.is_present() { etag } else { String::new() }, tags, doubt || of_binding)
    }

    /// What the catalog shows: the writer, 0 for absence, and whether it is in doubt.
    fn shown(&self) -> (String, bool) {
        let head: KeyRow = self.batch.row(KEYS, &self.at.head()).unwrap().unwrap_or_default();
        let row: Option<VersionRow> = match head.served {
            0 => None,
            tick => self.batch.row(VERSIONS, &self.at.at(tick)).unwrap(),
        };
        let shown = row.filter(|row| row.kind() == Kind::Object).map(|row| row.etag).unwrap_or_default();
        (shown, head.gaps > 0)
    }
}

/// What the cloud has once the lost write arrived: nobody recorded it.
const LOST: usize = 99;

fn etag(writer: usize) -> String {
    format!("etag-{writer}")
}

fn put(object: Option<v1::ObjectRef>, writer: usize) -> v1::PutObject {
    let run = v1::Run { length: 1, block_size: 16384, hashes: vec![writer as u8; 32].into(), paged: false };
    v1::PutObject {
        object,
        body: Some(v1::Body { content: Some(v1::body::Content::Run(run)) }),
        metadata: Some(v1::Metadata { headers_known: true, ..v1::Metadata::default() }),
        etag: etag(writer),
        version_id: String::new(),
    }
}

/// Runs every interleaving of the actors' steps; gives how many there were and how many ended in doubt.
fn every_interleaving(actors: &[Actor], deaf: bool) -> (usize, usize) {
    every_interleaving_after(0, actors, deaf)
}

/// The same, with the first actors `done` before the others begin.
fn every_interleaving_after(done: usize, actors: &[Actor], deaf: bool) -> (usize, usize) {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), &FAMILIES).unwrap();
    let mut batch = index.batch();
    let (mut runs, mut in_doubt) = (0, 0);
    let fixed: usize = actors[..done].iter().map(|actor| actor.steps()).sum();
    let mut order: Vec<usize> =
        actors.iter().enumerate().flat_map(|(number, actor)| vec![number; actor.steps()]).collect();
    loop {
        if possible(actors, &order) {
            runs += 1;
            if runs % 2000 == 0 {
                batch = index.batch(); // its keys are not needed any more
            }
            in_doubt += usize::from(run(&mut batch, actors, &order, runs, deaf));
        }
        if !next_permutation(&mut order[fixed..]) {
            return (runs, in_doubt);
        }
    }
}

/// A lost write arrives after its head and before it has settled, and settles after its gap.
fn possible(actors: &[Actor], order: &[usize]) -> bool {
    let place = |wanted: fn(&Actor) -> bool, nth: usize| {
        let number = actors.iter().position(wanted)?;
        order.iter().enumerate().filter(|(_, at)| **at == number).nth(nth).map(|(place, _)| place)
    };
    let head = place(|actor| matches!(actor, Actor::Lost { .. }), 0);
    let gap = place(|actor| matches!(actor, Actor::Lost { .. }), 1);
    let effect = place(|actor| matches!(actor, Actor::LateEffect { .. }), 0);
    let settles = place(|actor| *actor == Actor::Settles, 0);
    let follows = |later: Option<usize>, earlier: Option<usize>| match (later, earlier) {
        (Some(later), Some(earlier)) => later > earlier,
        _ => true,
    };
    // What was committed after the backup is gone with the store: the case is about what had not been told.
    let restore = place(|actor| *actor == Actor::Restore, 0);
    let told =
        actors.iter().enumerate().filter(|(_, actor)| matches!(actor, Actor::Write { .. })).map(|(number, _)| {
            order.iter().enumerate().filter(|(_, at)| **at == number).nth(3).map(|(place, _)| place)
        });
    let told_later = told.into_iter().all(|told| follows(told, restore));
    // A client completes what it has an answer for.
    let part = place(|actor| matches!(actor, Actor::Part { .. }), 1);
    let complete = place(|actor| matches!(actor, Actor::Complete { .. }), 0);
    // It names a version that it was told of.
    let made = actors.iter().find_map(|actor| match actor {
        Actor::Remove { of, .. } => order.iter().enumerate().filter(|(_, at)| *at == of).nth(2).map(|(place, _)| place),
        _ => None,
    });
    let removes = place(|actor| matches!(actor, Actor::Remove { .. }), 0);
    let known = follows(complete, part) && follows(removes, made);
    follows(effect, head) && follows(settles, gap) && follows(settles, effect) && told_later && known
}

/// Runs one sequence; true when it ends with an open gap.
fn run(batch: &mut Batch<'_>, actors: &[Actor], order: &[usize], run: usize, deaf: bool) -> bool {
    let at = Address {
        domain: DomainId::new(1).unwrap(),
        provider: "p".into(),
        bucket: "b".into(),
        key: run.to_string().into(),
    };
    let mut world = World {
        batch,
        at,
        cloud: 0,
        tags: 0,
        kept: actors.iter().any(|actor| matches!(actor, Actor::Remove { .. })).then(Vec::new),
        tick: if actors.contains(&Actor::Restore) { AHEAD } else { 0 },
        incarnation: 7,
        counters: [0; 3],
        deaf,
        lost: None,
        settled: false,
    };
    if actors.iter().any(|actor| matches!(actor, Actor::Complete { .. })) {
        let create = v1::CreateUpload { object: Some(world.at.object()), upload_id: "u".into(), metadata: None };
        world.record(2, Progress::default(), Change::CreateUpload(create));
    }
    let mut progress = vec![(0, Progress::default()); actors.len()];
    for &number in order {
        let (step, progress) = &mut progress[number];
        world.step(number, actors[number], *step, progress);
        *step += 1;
    }
    let has = if world.cloud == 0 { String::new() } else { etag(world.cloud) };
    let has_tags = if world.cloud == 0 || world.tags == 0 { String::new() } else { world.tags.to_string() };
    if actors.iter().any(Actor::is_more_than_content) {
        let (shown, tags, doubt) = world.shown_with_tags();
        let same = (&shown, &tags) == (&has, &has_tags);
        assert!(
            doubt || same,
            "the cloud has {has:?} {has_tags:?}, the catalog {shown:?} {tags:?}\n{actors:?}\n{order:?}"
        );
        world.deaf = false;
        world.backfill();
        let shown = world.shown_with_tags();
        assert_eq!(shown, (has, has_tags, false), "after a backfill\n{actors:?}\n{order:?}");
        return doubt;
    }
    let (shown, doubt) = world.shown();
    assert!(doubt || shown == has, "the cloud has {has:?}, the catalog says {shown:?}\n{actors:?}\n{order:?}");

    // A HEAD by a sidecar that has heard everything, after everything has settled, decides: unless the cloud
    // has what nobody recorded.
    world.deaf = false;
    world.commit(2, Fact::Settled(Settled { through_tick: u64::MAX - 1 }));
    let head = world.stamp(2);
    let progress = Progress { head, answer: world.stamp(2), saw: world.cloud, tags: 0 };
    world.sight(2, progress, false);
    let (shown, still) = world.shown();
    if world.cloud == LOST {
        assert!(still, "what nobody recorded must stay a gap\n{actors:?}\n{order:?}");
    } else {
        assert_eq!((shown, still), (has, false), "after a HEAD\n{actors:?}\n{order:?}");
    }
    doubt
}

/// The next sequence in lexical order.
fn next_permutation(order: &mut [usize]) -> bool {
    let Some(pivot) = (1..order.len()).rev().find(|at| order[at - 1] < order[*at]) else { return false };
    let swap = (pivot..order.len()).rev().find(|at| order[*at] > order[pivot - 1]).unwrap();
    order.swap(pivot - 1, swap);
    order[pivot..].reverse();
    true
}

const fn write(sidecar: usize) -> Actor {
    Actor::Write { sidecar, delete: false }
}

#[test]
fn two_writers_and_a_sighting_never_make_the_copy_lie() {
    let delete = Actor::Write { sidecar: 1, delete: true };
    for (case, actors) in [
        ("two sidecars", [write(0), write(1), Actor::Head { sidecar: 2 }]),
        ("one sidecar", [write(0), write(0), Actor::Head { sidecar: 0 }]),
        ("a delete", [write(0), delete, Actor::Head { sidecar: 0 }]),
        ("a listing", [write(0), write(1), Actor::List { sidecar: 1 }]),
    ] {
        let (runs, in_doubt) = every_interleaving(&actors, false);
        assert_eq!(runs, 11_550, "{case}");
        assert!(in_doubt > 0 && in_doubt < runs, "{case}: {in_doubt} of {runs} in doubt");
    }
}

#[test]
fn writers_that_hear_no_tick_are_ordered_by_nothing_but_their_own_count() {
    let (runs, in_doubt) = every_interleaving(&[write(0), write(1)], true);
    assert_eq!((runs, in_doubt), (70, 70));
    let (runs, in_doubt) = every_interleaving(&[write(0), write(0)], true);
    assert!(in_doubt > 0 && in_doubt < runs);
}

#[test]
fn three_writers_over_two_sidecars_never_make_the_copy_lie() {
    let (runs, in_doubt) = every_interleaving(&[write(0), write(1), write(0)], false);
    assert_eq!(runs, 34_650);
    assert!(in_doubt > 0 && in_doubt < runs);
}

#[test]
fn a_lost_answer_is_a_gap_until_a_head_after_it_has_settled() {
    let (lost, arrives) = (Actor::Lost { sidecar: 0 }, Actor::LateEffect { content: LOST });
    for (case, actors) in [
        ("it arrives", vec![write(1), lost, arrives, Actor::Settles, Actor::Head { sidecar: 2 }]),
        ("it never arrives", vec![write(1), lost, Actor::Settles, Actor::Head { sidecar: 1 }]),
        ("a later write of the same sidecar", vec![write(0), lost, arrives, Actor::Settles]),
    ] {
        let (runs, in_doubt) = every_interleaving(&actors, false);
        assert!(runs > 100 && in_doubt > 0, "{case}: {in_doubt} of {runs}");
    }
}

#[test]
fn a_repeated_put_that_arrives_late_does_not_hide_behind_its_first_attempt() {
    // The first writer's PUT is repeated and lost; it puts the first content over a write in between, and a
    // HEAD sees it before that write is recorded.
    let again = Actor::LateEffect { content: 1 };
    let actors = [write(0), Actor::Lost { sidecar: 0 }, again, Actor::Settles, Actor::Head { sidecar: 2 }, write(1)];
    let (runs, in_doubt) = every_interleaving_after(1, &actors, false);
    assert!(runs > 5_000 && in_doubt > 0, "{in_doubt} of {runs}");
}

#[test]
fn tags_that_are_written_among_writes_are_the_clouds_or_in_doubt() {
    for (case, actors) in [
        ("one sidecar", vec![write(0), Actor::Tags { sidecar: 0 }, write(0)]),
        ("two sidecars", vec![write(0), Actor::Tags { sidecar: 1 }]),
        ("of what is deleted", vec![write(0), Actor::Tags { sidecar: 1 }, Actor::Write { sidecar: 0, delete: true }]),
    ] {
        let (runs, in_doubt) = every_interleaving(&actors, false);
        assert!(in_doubt > 0 && in_doubt < runs, "{case}: {in_doubt} of {runs}");
    }
}

#[test]
fn a_removed_version_uncovers_the_one_before_it_or_leaves_doubt() {
    for (case, sidecar) in [("one sidecar", 0), ("two sidecars", 1)] {
        let (runs, in_doubt) = every_interleaving(&[write(0), write(0), Actor::Remove { sidecar, of: 1 }], false);
        assert!(runs > 1_000 && in_doubt < runs, "{case}: {in_doubt} of {runs}");
    }
}

#[test]
fn an_upload_is_its_parts_in_whatever_order_their_records_come() {
    let (part, complete) = (Actor::Part { sidecar: 0 }, Actor::Complete { sidecar: 1 });
    let (runs, in_doubt) = every_interleaving(&[part, complete, write(0)], false);
    assert!(runs > 1_000 && in_doubt > 0 && in_doubt < runs, "{in_doubt} of {runs}");
}

#[test]
fn what_changes_during_a_lapse_is_in_doubt_until_a_backfill_has_read_it() {
    let (runs, in_doubt) =
        every_interleaving(&[write(0), Actor::Lapse { sidecar: 1 }, Actor::Head { sidecar: 2 }], false);
    assert_eq!((runs, in_doubt), (4_200, 4_200), "nobody knows what passed");
}

#[test]
fn ticks_of_another_life_of_the_store_order_nothing() {
    let (runs, in_doubt) =
        every_interleaving(&[write(0), write(1), Actor::Restart, Actor::Head { sidecar: 2 }][..3], false);
    assert_eq!(runs, 630);
    assert!(in_doubt > 0 && in_doubt < runs);
    let (runs, in_doubt) = every_interleaving(&[write(0), write(1), Actor::Restore], false);
    assert!(runs > 100 && in_doubt > 0, "{in_doubt} of {runs}");
}

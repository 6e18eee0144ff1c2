#![allow(clippy::unwrap_used)]

use hawser_api::{GapReason, GapScope};
use proptest::prelude::*;

use super::*;

const BINDING: &str = "shop/photos";

fn key(session: u8, sequence: u64) -> Key {
    Key { session: [session; 16], sequence }
}

fn lost(bucket: &str, object: &str, counter: u64) -> Entry {
    let gap = v1::GapFound {
        scope: GapScope::Key.as_str().into(),
        object: Some(v1::ObjectRef {
            provider: "s3+http://a.test".into(),
            bucket: bucket.into(),
            key: object.as_bytes().to_vec().into(),
        }),
        etag: "e".into(),
        reason: GapReason::StoreAway.as_str().into(),
        head: Some(v1::Stamp { counter, ..v1::Stamp::default() }),
        end: Some(v1::Stamp { counter: counter + 1, ..v1::Stamp::default() }),
        ..v1::GapFound::default()
    };
    Entry { binding: BINDING.into(), outcome: Outcome::Gap(gap) }
}

fn all(journal: &Journal) -> Vec<(Key, Outcome)> {
    journal.left_by_others(BINDING, &[0; 16], usize::MAX, |_| false)
}

#[test]
fn what_was_kept_and_not_done_is_there_in_the_next_life() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    for n in 1..=3 {
        assert_eq!(journal.keep(key(7, n), lost("b", &format!("k{n}"), n)), Kept::Whole);
    }
    journal.done(&key(7, 2));
    drop(journal);
    let journal = Journal::open(dir.path()).unwrap();
    let left = all(&journal);
    assert_eq!(left.iter().map(|(key, _)| key.sequence).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(left[1].1, lost("b", "k3", 3).outcome);
    assert!(journal.left_by_others(BINDING, &[7; 16], 9, |_| false).is_empty(), "not another session's");
    assert!(journal.left_by_others("shop/other", &[0; 16], 9, |_| false).is_empty());
    journal.done(&key(7, 1));
    journal.done(&key(7, 3));
    drop(journal);
    let journal = Journal::open(dir.path()).unwrap();
    assert!(journal.is_empty() && all(&journal).is_empty(), "what was done does not come again");
}

#[test]
fn a_journal_that_got_empty_is_small_again() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let long = "k".repeat(1000);
    for n in 1..=100 {
        journal.keep(key(7, n), lost("b", &long, n));
    }
    for n in 1..=100 {
        journal.done(&key(7, n));
    }
    assert_eq!(std::fs::metadata(dir.path().join("journal")).unwrap().len(), 8, "its header alone");
}

#[test]
fn a_full_journal_becomes_one_gap_of_the_bucket_and_never_outgrows_its_bound() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    journal.keep(key(7, 1), lost("other", "k", 1));
    let long = "k".repeat(1000);
    let mut folded = None;
    for n in 2..10_000 {
        if let Kept::Folded(gone) = journal.keep(key(7, n), lost("b", &long, n)) {
            assert_eq!(gone.len() as u64, n - 2, "every entry of the bucket");
            folded = Some(n);
            break;
        }
        let on_disk: u64 = std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
        assert!(on_disk as usize <= JOURNAL_LEN_MAX);
    }
    let n = folded.expect("it gets full");
    let left = all(&journal);
    assert_eq!(left.len(), 2, "the other bucket's entry stays");
    let Outcome::Gap(gap) = &left[1].1 else { panic!("a gap") };
    assert_eq!((gap.scope.as_str(), gap.reason.as_str()), ("Bucket", "JournalFull"));
    assert_eq!(gap.object.as_ref().unwrap().bucket, "b");
    assert_eq!((gap.head.unwrap().counter, gap.end.unwrap().counter), (2, n + 1), "from the first to the last");
}

#[test]
fn many_full_buckets_become_one_gap_of_the_binding() {
    let journal = Journal::in_memory();
    let bucket = |n: u64| format!("{n}{}", "b".repeat(50_000));
    for session in [7, 8] {
        for n in 1..200 {
            journal.keep(key(session, n), lost(&bucket(n), "k", n));
            assert!(journal.len() <= LIVE_LEN_MAX);
        }
    }
    let of_binding = |(key, outcome): &(Key, Outcome)| match outcome {
        Outcome::Gap(gap) if gap.scope == "Binding" => Some((key.session[0], gap.head.unwrap().counter)),
        _ => None,
    };
    let folded: Vec<_> = all(&journal).iter().filter_map(of_binding).collect();
    assert!(folded.contains(&(7, 1)) && folded.contains(&(8, 1)), "one for each life, from its first on: {folded:?}");
}

#[test]
fn a_journal_that_is_worked_for_long_stays_within_its_bound() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let long = "k".repeat(1000);
    journal.keep(key(7, 1), lost("b", "stays", 1));
    for n in 2..6000 {
        journal.keep(key(7, n), lost("b", &long, n));
        journal.done(&key(7, n));
    }
    assert!(std::fs::metadata(dir.path().join("journal")).unwrap().len() as usize <= FILE_LEN_MAX);
    drop(journal);
    assert_eq!(all(&Journal::open(dir.path()).unwrap()).len(), 1);
}

fn written(count: u64) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    for n in 1..=count {
        journal.keep(key(7, n), lost("b", &format!("k{n}"), n));
    }
    std::fs::read(dir.path().join("journal")).unwrap()
}

fn reopened(bytes: &[u8]) -> Journal {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("journal"), bytes).unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let before = all(&journal);
    journal.keep(key(9, 99), lost("b", "after", 99));
    drop(journal);
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!(all(&journal).len(), before.len() + 1, "it can be written on");
    journal.done(&key(9, 99));
    journal
}

#[test]
fn cut_anywhere_the_whole_lines_before_the_cut_remain() {
    let bytes = written(3);
    let line = (bytes.len() - 8) / 3;
    for cut in 0..=bytes.len() {
        let whole = cut.saturating_sub(8) / line;
        assert_eq!(all(&reopened(&bytes[..cut])).len(), whole, "cut at {cut}");
    }
}

proptest! {
    #[test]
    fn garbage_is_never_taken_for_an_entry(at in 0usize..400, garbage in prop::collection::vec(any::<u8>(), 1..300)) {
        let mut bytes = written(3);
        let at = at.min(bytes.len());
        bytes.splice(at..bytes.len().min(at + garbage.len()), garbage);
        let known: Vec<_> = (1..=3).map(|n| lost("b", &format!("k{n}"), n).outcome).collect();
        for (_, outcome) in all(&reopened(&bytes)) {
            prop_assert!(known.contains(&outcome));
        }
    }
}

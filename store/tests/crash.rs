//! Damage: the process is killed at each named place and at random moments; what was acknowledged is
//! there when the store is opened again, and nothing is there half. The child is this test binary itself.
#![allow(clippy::unwrap_used)]

mod ledger;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hawser_api::BlockHash;
use hawser_store::{CommitError, Options, Store};
use ledger::{Ledger, block, entry, open, runtime};

const DIR: &str = "HAWSER_TEST_DIR";
const SEED: &str = "HAWSER_TEST_SEED";
const CRASH_AT: &str = "HAWSER_CRASH_AT";

/// Small segments and blocks, so that every place is passed within a few hundred commits.
fn options() -> Options {
    Options { segment_len: 256 * 1024, floor: Some(0), lease: Duration::ZERO, ..Options::default() }
}

/// What the child does: commits entries of three blocks each, prints `acked KEY BLOCK BLOCK BLOCK` once each
/// is acknowledged, lets every other key go again (`gone KEY`), and collects now and then. In the
/// test's own run it does nothing.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    let store = open(Path::new(&dir), options());
    let domain = store.domain("shop").unwrap();
    let runtime = runtime();
    println!("open");
    for round in 0..400u64 {
        let numbers = [0, 1, 2].map(|i| seed * 10_000 + round * 3 + i);
        runtime.block_on(async {
            for number in numbers {
                let content = block(number);
                let room = store.room(content.len()).await;
                domain.put(BlockHash::of(&content), content, room).await.unwrap();
            }
            let hashes = numbers.map(|number| BlockHash::of(&block(number)));
            let key = seed * 1000 + round;
            match domain.commit(entry(key, Some(&numbers)), &hashes).await {
                // Swept between put and commit, as leases last no time here: never acknowledged.
                Err(CommitError::Missing(_)) => return,
                result => drop(result.unwrap()),
            }
            println!("acked {key} {} {} {}", numbers[0], numbers[1], numbers[2]);
            if round % 4 != 0 {
                println!("going {key}");
                domain.commit(entry(key, None), &[]).await.unwrap();
                println!("gone {key}");
            }
        });
        if round % 50 == 49 {
            store.gc(50).unwrap();
        }
    }
    println!("end");
    drop(domain);
    drop(store);
    println!("closed");
}

/// What the child said it had been promised.
#[derive(Default)]
struct Promises {
    kept: BTreeMap<u64, Vec<u64>>,
    /// Removal was asked for and not acknowledged: may be there or not.
    doubtful: BTreeMap<u64, Vec<u64>>,
    gone: Vec<u64>,
    closed: bool,
}

impl Promises {
    fn hear(&mut self, line: &str) {
        let mut words = line.split(' ');
        let word = words.next().unwrap_or_default().to_owned();
        let numbers: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
        match (word.as_str(), &numbers[..]) {
            ("acked", [key, blocks @ ..]) if blocks.len() == 3 => drop(self.kept.insert(*key, blocks.to_vec())),
            ("going", [key]) => {
                let blocks = self.kept.remove(key).unwrap();
                self.doubtful.insert(*key, blocks);
            }
            ("gone", [key]) => {
                self.doubtful.remove(key);
                self.gone.push(*key);
            }
            ("closed", []) => self.closed = true,
            _ => {}
        }
    }

    /// Opens the store and compares it with what was promised.
    fn check(&self, dir: &Path, story: &str) {
        let store = open(dir, options());
        assert_eq!(store.damage(), [], "{story}");
        let domain = store.domain("shop").unwrap();
        let there = Ledger::all(&store);
        for (key, blocks) in &self.kept {
            assert_eq!(there.get(key), Some(blocks), "{story}: acknowledged {key}");
        }
        for key in &self.gone {
            assert!(!there.contains_key(key), "{story}: {key} was let go");
        }
        // Whatever is there, acknowledged or not, is there whole.
        for (key, blocks) in &there {
            for number in blocks {
                let content = block(*number);
                let read = domain.read(&BlockHash::of(&content));
                assert_eq!(read.unwrap_or_else(|error| panic!("{story}: {key}: {error}")), content, "{story}");
            }
        }
        let scrubbed = store.scrub(&mut |finding| panic!("{story}: {finding:?}")).unwrap();
        assert!(scrubbed.is_clean(), "{story}");
    }
}

fn start(dir: &Path, seed: u64, crash_at: Option<&str>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(DIR, dir).env(SEED, seed.to_string());
    command.env_remove(CRASH_AT);
    if let Some(at) = crash_at {
        command.env(CRASH_AT, at);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Hears the child to its end; kills it after so many lines, if it is to be killed.
fn hear(mut child: Child, promises: &mut Promises, kill_after: Option<usize>) -> bool {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for (count, line) in lines.map_while(Result::ok).enumerate() {
        promises.hear(&line);
        if kill_after == Some(count) {
            child.kill().unwrap(); // and hear what it had said before
        }
    }
    child.wait().unwrap().success()
}

const PLACES: [&str; 22] = [
    "keys-written",
    "segment-created",
    "segment-begun",
    "segment-begun:7",
    "records-written",
    "records-written:200",
    "before-sync",
    "before-sync:100",
    "after-sync",
    "after-sync:100",
    "entry-applied",
    "entry-applied:77",
    "group-applied:50",
    "seal-written",
    "seal-written:5",
    "rebuild-begun",
    "sweep-forgot",
    "sweep-moved:2",
    "sweep-flushed:2",
    "sweep-retired",
    "sweep-retired:3",
    "segment-deleted:2",
];

#[test]
fn at_each_named_place_a_crash_loses_nothing_that_was_acknowledged() {
    for place in PLACES {
        let dir = tempfile::tempdir().unwrap();
        let mut promises = Promises::default();
        let ended_well = hear(start(dir.path(), 1, Some(place)), &mut promises, None);
        assert!(!ended_well, "{place}: the child passed it");
        promises.check(dir.path(), place);
        // And again on what is left, without a crash.
        assert!(hear(start(dir.path(), 2, None), &mut promises, None), "{place}: the next life");
        assert!(promises.closed);
        promises.check(dir.path(), place);
    }
}

#[test]
fn a_crash_while_recovering_from_a_crash_loses_nothing() {
    for place in ["tail-cut", "tail-sealed", "rebuild-begun"] {
        let dir = tempfile::tempdir().unwrap();
        let mut promises = Promises::default();
        hear(start(dir.path(), 1, Some("after-sync:90")), &mut promises, None);
        if place == "rebuild-begun" {
            fs::remove_dir_all(dir.path().join("index")).unwrap();
        }
        assert!(!hear(start(dir.path(), 2, Some(place)), &mut promises, None), "{place} was passed");
        promises.check(dir.path(), place);
    }
}

#[test]
fn killed_at_random_moments_again_and_again_it_keeps_what_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut promises = Promises::default();
    for life in 0..12u64 {
        let after = (life as usize * 97 + 13) % 700;
        hear(start(dir.path(), 10 + life, None), &mut promises, Some(after));
        if life % 4 == 3 {
            fs::remove_dir_all(dir.path().join("index")).unwrap(); // the log alone is enough
        }
        promises.check(dir.path(), &format!("life {life}, killed after {after} lines"));
    }
    assert!(promises.kept.len() > 50, "{} keys were kept", promises.kept.len());
}

/// A loss of power may leave any prefix of what was not synced, and garbage behind it.
#[test]
fn wherever_the_unsynced_end_is_torn_the_rest_stands() {
    let dir = tempfile::tempdir().unwrap();
    let mut promises = Promises::default();
    hear(start(dir.path(), 1, Some("before-sync:9")), &mut promises, None);
    let mut segments: Vec<_> =
        fs::read_dir(dir.path().join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    let tail = segments.last().unwrap();
    let bytes = fs::read(tail).unwrap();
    let durable = durable_len(dir.path(), tail, &promises);
    let begun = Instant::now();
    for (count, cut) in (durable..bytes.len()).step_by(((bytes.len() - durable) / 40).max(1)).enumerate() {
        // Cut, cut with garbage behind, and one sector lost while what follows it arrived.
        let mut hole = bytes.clone();
        let sector = cut..bytes.len().min(cut + 512);
        hole[sector].fill(0);
        let torn = [bytes[..cut].to_vec(), [&bytes[..cut], &[0xa5; 300]].concat(), hole];
        for (torn, how) in torn.iter().zip(["cut", "garbage", "hole"]) {
            let copy = tempfile::tempdir().unwrap();
            fs::create_dir(copy.path().join("log")).unwrap();
            fs::copy(dir.path().join("keys"), copy.path().join("keys")).unwrap();
            for segment in &segments {
                fs::copy(segment, copy.path().join("log").join(segment.file_name().unwrap())).unwrap();
            }
            fs::write(copy.path().join("log").join(tail.file_name().unwrap()), torn).unwrap();
            promises.check(copy.path(), &format!("{how} at {cut}"));
        }
        assert!(count < 200 && begun.elapsed() < Duration::from_secs(300));
    }
}

/// How long the tail must be for every promise to be in it: found by opening ever shorter copies would be
/// circular, so it is read from the log: behind the last acknowledged entry.
fn durable_len(dir: &Path, tail: &Path, promises: &Promises) -> usize {
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("log")).unwrap();
    fs::copy(dir.join("keys"), copy.path().join("keys")).unwrap();
    let bytes = fs::read(tail).unwrap();
    let last = promises.kept.len() + promises.gone.len() * 2 + promises.doubtful.len();
    let mut entries = 0;
    let mut at = hawser_store::segment::SEGMENT_HEADER_LEN;
    while entries < last {
        let header = bytes[at..].first_chunk().unwrap();
        let record = hawser_store::segment::Record::decode(header).unwrap();
        if matches!(record.subject, hawser_store::segment::Subject::Entry { .. }) {
            entries += 1;
        }
        at += record.len() as usize;
    }
    at
}

#[test]
fn damage_in_a_sealed_segment_is_reported_with_what_it_hurts_and_never_cut() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime();
    {
        let store = open(dir.path(), options());
        let domain = store.domain("shop").unwrap();
        for key in 0..4u64 {
            let content = block(key);
            let hash = BlockHash::of(&content);
            runtime.block_on(async {
                let room = store.room(content.len()).await;
                domain.put(hash, content, room).await.unwrap();
                domain.commit(entry(key, Some(&[key])), &[hash]).await.unwrap();
            });
        }
    }
    let path = dir.path().join("log/0000000001.seg");
    let mut bytes = fs::read(&path).unwrap();
    let content = block(1);
    let at = bytes.windows(64).position(|window| window == &content[100..164]).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    for rebuild in [false, true] {
        if rebuild {
            fs::remove_dir_all(dir.path().join("index")).unwrap();
        }
        let store = open(dir.path(), options());
        assert_eq!(store.damage().len(), usize::from(rebuild), "only a rebuild reads everything");
        let mut findings = Vec::new();
        let scrubbed = store.scrub(&mut |finding| findings.push(serde_json::to_string(&finding).unwrap())).unwrap();
        assert_eq!((scrubbed.damaged, scrubbed.hurt), (1, 1), "{findings:?}");
        assert!(findings.iter().any(|finding| finding.contains(r#""object":"key 1""#)), "{findings:?}");
        let domain = store.domain("shop").unwrap();
        assert!(domain.read(&BlockHash::of(&content)).is_err());
        assert_eq!(domain.read(&BlockHash::of(&block(2))).unwrap(), block(2));
        assert_eq!(fs::metadata(&path).unwrap().len(), bytes.len() as u64);
        let wanted =
            runtime.block_on(domain.commit(entry(9, Some(&[77])), &[BlockHash::of(&Bytes::from_static(b"?"))]));
        assert!(matches!(wanted, Err(CommitError::Missing(missing)) if missing.len() == 1));
    }
}

#[test]
fn what_is_open_is_not_opened_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), options());
    assert!(Store::open(dir.path(), options(), std::sync::Arc::new(Ledger)).is_err());
    drop(store);
    open(dir.path(), options());
}

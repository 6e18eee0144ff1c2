//! Keeping a store well while it is used: collection, scrub, backup, a full volume, a broken disk, and the
//! bytes of the format's first version.
#![allow(clippy::unwrap_used)]

mod ledger;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hawser_api::BlockHash;
use hawser_store::{CommitError, Domain, Options, Piece, Probe, PutError, ReadError, Store, Volume};
use ledger::{Ledger, POISON, block, entry, open, runtime};

fn options() -> Options {
    Options { segment_len: 128 * 1024, floor: Some(0), lease: Duration::ZERO, ..Options::default() }
}

async fn put(store: &Store, domain: &Domain, number: u64) -> BlockHash {
    let content = block(number);
    let hash = BlockHash::of(&content);
    let room = store.room(content.len()).await;
    domain.put(hash, content, room).await.unwrap();
    hash
}

async fn keep(store: &Store, domain: &Domain, key: u64, numbers: &[u64]) {
    let mut hashes = Vec::new();
    for number in numbers {
        hashes.push(put(store, domain, *number).await);
    }
    domain.commit(entry(key, Some(numbers)), &hashes).await.unwrap();
}

fn check(store: &Store, domain: &Domain, story: &str) {
    for (key, numbers) in Ledger::all(store) {
        for number in numbers {
            let content = domain.read(&BlockHash::of(&block(number)));
            assert_eq!(content.unwrap_or_else(|error| panic!("{story}: {key}: {error}")), block(number), "{story}");
        }
    }
    let scrubbed = store.scrub(&mut |finding| panic!("{story}: {finding:?}")).unwrap();
    assert!(scrubbed.is_clean() && scrubbed.records > 0, "{story}");
}

#[test]
fn blocks_are_had_once_they_are_durable_and_by_their_own_domain_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), options());
    let (shop, bank) = (store.domain("shop").unwrap(), store.domain("bank").unwrap());
    runtime().block_on(async {
        let hash = put(&store, &shop, 1).await;
        assert_eq!(shop.have(&[hash]).unwrap(), [false], "written is not durable");
        assert_eq!(shop.read(&hash).unwrap(), block(1), "and can be read by who put it");
        shop.commit(entry(1, Some(&[1])), &[hash]).await.unwrap();
        assert_eq!(shop.have(&[hash, BlockHash::of(b"?")]).unwrap(), [true, false]);
        assert_eq!(bank.have(&[hash]).unwrap(), [false], "no domain learns of another");
        assert!(matches!(bank.read(&hash), Err(ReadError::Unknown { .. })));
        assert!(
            matches!(bank.commit(entry(2, Some(&[1])), &[hash]).await, Err(CommitError::Missing(m)) if m == [hash])
        );
        let before = store.stats().unwrap();
        put(&store, &shop, 1).await;
        let lie = shop.put(BlockHash::of(b"lie"), block(2), store.room(1).await).await;
        assert!(matches!(lie, Err(PutError::Hash { .. })));
        assert!(matches!(shop.put(hash, Bytes::new(), store.room(1).await).await, Err(PutError::Length(0))));
        shop.commit(entry(3, None), &[]).await.unwrap();
        let after = store.stats().unwrap();
        assert_eq!(before.domains, after.domains, "a block is stored once");
        assert_eq!(after.domains[0].sums.blocks, 1);
        let pieces = [(0, 10), (5, 20), (1000, 1 << 30)].map(|(from, to)| Piece { hash, range: from..to });
        let read = shop.read_pieces(&pieces).unwrap();
        assert_eq!(read, [&block(1)[..10], &block(1)[5..20], &block(1)[1000..]]);
    });
}

#[test]
fn no_plain_hash_stands_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), options());
    let domain = store.domain("shop").unwrap();
    let hashes: Vec<BlockHash> = runtime().block_on(async {
        keep(&store, &domain, 1, &[1, 2, 8, 9]).await;
        [1, 2, 8, 9].map(|number| BlockHash::of(&block(number))).into()
    });
    drop((domain, store));
    let mut files = vec![dir.path().to_owned()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        for hash in &hashes {
            let found = bytes.windows(32).any(|window| window == hash.as_bytes());
            assert!(!found, "{hash} stands in {}", path.display());
        }
    }
}

#[test]
fn a_collection_frees_what_nothing_names_and_keeps_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), options());
    let domain = store.domain("shop").unwrap();
    let runtime = runtime();
    runtime.block_on(async {
        for key in 0..100 {
            keep(&store, &domain, key, &[key * 2, key * 2 + 1]).await;
        }
        for key in (0..100).filter(|key| key % 10 != 0) {
            domain.commit(entry(key, None), &[]).await.unwrap();
        }
    });
    let before = store.stats().unwrap();
    let collected = store.gc(50).unwrap();
    let after = store.stats().unwrap();
    assert!(collected.retired > 2 && collected.live_blocks >= 20, "{collected:?}");
    assert!(after.log_len < before.log_len / 2, "{} of {} bytes are left", after.log_len, before.log_len);
    check(&store, &domain, "after the collection");
    let gone = (0..200).filter(|number| number / 2 % 10 != 0).map(|number| BlockHash::of(&block(number)));
    let gone = gone.filter(|hash| matches!(domain.read(hash), Err(ReadError::Unknown { .. }))).count();
    assert!(gone > 120, "{gone} of 180 dead blocks are gone");
    drop((domain, store));
    let store = open(dir.path(), options());
    assert_eq!(store.damage(), []);
    check(&store, &store.domain("shop").unwrap(), "opened again");
}

#[test]
fn a_leased_block_outlives_a_collection_and_is_wanted_again_after_its_lease() {
    for (lease, kept) in [(Duration::from_secs(600), true), (Duration::ZERO, false)] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), Options { lease, ..options() });
        let domain = store.domain("shop").unwrap();
        let runtime = runtime();
        let hash = runtime.block_on(async {
            let hash = put(&store, &domain, 5).await;
            domain.commit(entry(0, None), &[]).await.unwrap();
            hash
        });
        store.backup(&dir.path().join("elsewhere")).unwrap(); // seals the segment
        store.gc(50).unwrap();
        let committed = runtime.block_on(domain.commit(entry(1, Some(&[5])), &[hash]));
        assert_eq!(committed.is_ok(), kept, "{committed:?}");
        assert_eq!(domain.have(&[hash]).unwrap(), [kept]);
    }
}

#[test]
fn commits_and_collections_at_once_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), options());
    let domain = store.domain("shop").unwrap();
    let done = AtomicBool::new(false);
    let (missing, collections) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3u64)
            .map(|writer| {
                let (store, domain, missing) = (&store, &domain, &missing);
                scope.spawn(move || {
                    runtime().block_on(async {
                        for round in 0..150 {
                            // Few blocks, shared by all writers, named and let go all the time.
                            let numbers = [round % 7, 7 + (round + writer) % 5, 20 + round % 3];
                            let mut hashes = Vec::new();
                            for number in numbers {
                                hashes.push(put(store, domain, number).await);
                            }
                            match domain.commit(entry(writer, Some(&numbers)), &hashes).await {
                                Ok(_) => {
                                    for hash in &hashes {
                                        domain.read(hash).expect("what a record names is there");
                                    }
                                }
                                Err(CommitError::Missing(_)) => drop(missing.fetch_add(1, Ordering::Relaxed)),
                                Err(error) => panic!("{error}"),
                            }
                            domain.commit(entry(writer, None), &[]).await.unwrap();
                        }
                        keep(store, domain, writer, &[writer, 8, 21]).await;
                    });
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                store.gc(100).unwrap();
                collections.fetch_add(1, Ordering::Relaxed);
            }
        });
        let ended: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|writer| writer.unwrap());
    });
    assert!(collections.load(Ordering::Relaxed) > 2);
    assert_eq!(Ledger::all(&store).len(), 3);
    check(&store, &domain, "after all of it");
}

#[test]
fn a_backup_is_a_store_and_the_next_one_copies_what_is_new() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(dir.path(), options());
    let domain = store.domain("shop").unwrap();
    let runtime = runtime();
    runtime.block_on(async {
        for key in 0..60 {
            keep(&store, &domain, key, &[key * 2, key * 2 + 1]).await;
        }
    });
    let first = store.backup(to.path()).unwrap();
    assert_eq!(first.tick, 60);
    let restored = |keys: u64| {
        let copy = open(to.path(), options());
        assert_eq!((copy.damage().len(), Ledger::all(&copy).len() as u64), (0, keys));
        check(&copy, &copy.domain("shop").unwrap(), "the backup");
    };
    restored(60);
    runtime.block_on(async {
        for key in 0..50 {
            domain.commit(entry(key, None), &[]).await.unwrap();
        }
        keep(&store, &domain, 100, &[1000]).await;
    });
    let second = store.backup(to.path()).unwrap();
    assert!(second.copied >= 1 && second.copied < first.copied, "{second:?} after {first:?}");
    restored(11);
    assert!(store.gc(50).unwrap().retired > 0);
    let third = store.backup(to.path()).unwrap();
    assert!(third.deleted > 0, "{third:?}");
    restored(11);
    let other = tempfile::tempdir().unwrap();
    let stranger = open(other.path(), options());
    runtime.block_on(keep(&stranger, &stranger.domain("shop").unwrap(), 1, &[1]));
    assert!(stranger.backup(to.path()).is_err(), "another store's backup is not overwritten");
    restored(11);
}

#[test]
fn a_full_volume_refuses_content_lets_small_entries_by_and_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(1000));
    let asked = Arc::clone(&free);
    let probe: Probe = Arc::new(move || Ok(Volume { free: asked.load(Ordering::Relaxed), total: 10_000 }));
    let store = open(dir.path(), Options { floor: Some(1000), probe: Some(probe), ..options() });
    let domain = store.domain("shop").unwrap();
    let set = |len| {
        free.store(len, Ordering::Relaxed);
        let begun = Instant::now(); // an answer of the volume counts for a moment
        while store.volume().unwrap().0.free != len {
            assert!(begun.elapsed() < Duration::from_secs(10), "the volume is not asked again");
            std::thread::yield_now();
        }
    };
    runtime().block_on(async {
        keep(&store, &domain, 1, &[1]).await;
        set(999);
        let refused = domain.put(BlockHash::of(&block(2)), block(2), store.room(1).await).await;
        assert!(matches!(refused, Err(PutError::Full(_))), "{refused:?}");
        assert!(store.ready().unwrap_err().to_string().contains("999 bytes free"));
        let large = domain.commit(Bytes::from(vec![0; 100_000]), &[]).await;
        assert!(matches!(large, Err(CommitError::Full(_))), "{large:?}");
        domain.commit(entry(9, None), &[]).await.expect("a delete goes on");
        assert_eq!(domain.read(&BlockHash::of(&block(1))).unwrap(), block(1));
        set(499);
        assert!(matches!(domain.commit(entry(9, None), &[]).await, Err(CommitError::Full(_))));
        set(1000);
        store.ready().unwrap();
        keep(&store, &domain, 2, &[2]).await;
    });
}

#[test]
fn after_a_failed_write_nothing_is_taken_until_the_store_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), options());
    let domain = store.domain("shop").unwrap();
    let (log, away) = (dir.path().join("log"), dir.path().join("away"));
    runtime().block_on(async {
        keep(&store, &domain, 1, &[1]).await;
        fs::rename(&log, &away).unwrap(); // the next segment cannot be made
        let mut acknowledged = 1;
        let failed = loop {
            assert!(acknowledged < 1000, "the segment never ended");
            let number = acknowledged + 1;
            let content = block(number);
            let put = domain.put(BlockHash::of(&content), content.clone(), store.room(1).await).await;
            let committed = match put {
                Ok(()) => domain.commit(entry(number, Some(&[number])), &[BlockHash::of(&content)]).await,
                Err(PutError::Closed(closed)) => Err(closed.into()),
                Err(error) => panic!("{error}"),
            };
            match committed {
                Ok(_) => acknowledged = number,
                Err(error) => break error,
            }
        };
        assert!(matches!(failed, CommitError::Closed(_)), "{failed:?}");
        fs::rename(&away, &log).unwrap();
        let refused = domain.commit(entry(7, None), &[]).await;
        assert!(matches!(refused, Err(CommitError::Closed(_))), "the disk is well, the log is not: {refused:?}");
        assert!(store.ready().is_err());
        drop((domain, store));
        let store = open(dir.path(), options());
        assert!(Ledger::all(&store).len() as u64 >= acknowledged);
        let domain = store.domain("shop").unwrap();
        keep(&store, &domain, 7, &[7]).await;
    });
    let store = open(dir.path(), options());
    check(&store, &store.domain("shop").unwrap(), "opened again");
}

#[test]
fn a_catalog_that_panics_closes_the_log_and_nobody_waits_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), options());
    let domain = store.domain("shop").unwrap();
    runtime().block_on(async {
        let poisoned = domain.commit(entry(POISON, None), &[]).await;
        assert!(matches!(poisoned, Err(CommitError::Closed(_))), "{poisoned:?}");
        let later = domain.commit(entry(1, None), &[]).await;
        assert!(matches!(later, Err(CommitError::Closed(_))), "{later:?}");
        assert!(matches!(
            domain.put(BlockHash::of(&block(1)), block(1), store.room(1).await).await,
            Err(PutError::Closed(_))
        ));
    });
    assert!(store.gc(50).is_err() && store.ready().is_err());
}

#[test]
fn a_file_that_is_not_this_stores_is_left_as_it_is() {
    let other = tempfile::tempdir().unwrap();
    {
        let store = open(other.path(), options());
        runtime().block_on(keep(&store, &store.domain("shop").unwrap(), 9, &[9, 10]));
    }
    let foreign = fs::read(other.path().join("log/0000000001.seg")).unwrap();
    let mut later = foreign.clone();
    later[8] = 2;
    let rows = [("noise", block(3).to_vec(), true), ("another store's", foreign, true), ("version 2", later, false)];
    for (kind, bytes, opens) in rows {
        let dir = tempfile::tempdir().unwrap();
        {
            let store = open(dir.path(), options());
            runtime().block_on(keep(&store, &store.domain("shop").unwrap(), 1, &[1, 2]));
        }
        let stray = dir.path().join("log/0000000002.seg");
        fs::write(&stray, &bytes).unwrap();
        for _ in 0..2 {
            match Store::open(dir.path(), options(), Arc::new(Ledger)) {
                Ok(store) => {
                    assert!(opens && !store.damage().is_empty(), "{kind}");
                    assert_eq!(Ledger::all(&store).len(), 1, "{kind}");
                    assert!(!store.scrub(&mut |_| {}).unwrap().is_clean(), "{kind}");
                }
                Err(error) => {
                    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    assert!(!opens && source.contains("version 2"), "{kind}: {error}: {source}");
                }
            }
            assert_eq!(fs::read(&stray).unwrap(), bytes, "{kind}");
        }
    }
}

/// `tests/format/v1` was written by the first release that had version 1. It is never written again.
#[test]
fn the_first_version_of_the_format_opens_for_ever() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/format/v1");
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("log")).unwrap();
    for file in ["keys", "log/0000000001.seg", "log/0000000003.seg"] {
        fs::copy(golden.join(file), dir.path().join(file)).unwrap();
    }
    let store = open(dir.path(), options());
    assert_eq!(store.damage(), [], "segment 2 is retired, not lost");
    let shop = store.existing_domain("shop").expect("it is in the log");
    let keys: Vec<_> = Ledger::all(&store).into_iter().collect();
    assert_eq!(keys, [(1, vec![1, 8, 9]), (4, vec![4])]);
    assert_eq!(*store.durable().borrow(), 5);
    check(&store, &shop, "version 1");
}

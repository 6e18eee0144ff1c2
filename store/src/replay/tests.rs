//! The index that the log gives again is the one that lived.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use hawser_api::BlockHash;

use crate::index::{Index, Pair};
use crate::store::{Options, Store};

#[path = "../../tests/ledger/mod.rs"]
mod ledger;

use ledger::{Ledger, block, entry, runtime};

fn options() -> Options {
    Options { segment_len: 64 * 1024, floor: Some(0), lease: std::time::Duration::ZERO, ..Options::default() }
}

fn dump(dir: &Path) -> Vec<(&'static str, Vec<Pair>)> {
    Index::open(&dir.join("index"), crate::Replay::families(&Ledger)).unwrap().dump()
}

/// Commits keys `from` to `to`, two blocks each, in two domains, and lets most of them go again.
fn live(store: &Store, from: u64, to: u64) {
    let runtime = runtime();
    for key in from..to {
        let domain = store.domain(if key % 3 == 0 { "shop" } else { "bank" }).unwrap();
        runtime.block_on(async {
            let numbers = [key * 2, key * 2 + 1];
            for number in numbers {
                let content = block(number);
                let room = store.room(content.len()).await;
                domain.put(BlockHash::of(&content), content, room).await.unwrap();
            }
            let hashes = numbers.map(|number| BlockHash::of(&block(number)));
            domain.commit(entry(key, Some(&numbers)), &hashes).await.unwrap();
            if key % 5 != 0 {
                domain.commit(entry(key, None), &[]).await.unwrap();
            }
        });
    }
}

#[test]
fn an_index_rebuilt_from_the_log_equals_the_one_that_lived() {
    let dir = tempfile::tempdir().unwrap();
    for (round, (from, to)) in [(0, 40), (40, 90), (90, 95)].into_iter().enumerate() {
        let store = Store::open(dir.path(), options(), std::sync::Arc::new(Ledger)).unwrap();
        assert_eq!(store.damage(), []);
        live(&store, from, to);
        if round == 1 {
            let collected = store.gc(90).unwrap();
            assert!(collected.retired > 3 && collected.damaged == 0, "{collected:?}");
            live(&store, 200, 210);
        }
        drop(store);
        let lived = dump(dir.path());
        fs::remove_dir_all(dir.path().join("index")).unwrap();
        drop(Store::open(dir.path(), options(), std::sync::Arc::new(Ledger)).unwrap());
        let rebuilt = dump(dir.path());
        for ((family, lived), (_, rebuilt)) in lived.iter().zip(&rebuilt) {
            assert_eq!(lived, rebuilt, "round {round}, family {family}");
        }
        assert_eq!(lived.len(), rebuilt.len());
    }
}

/// An index as old as the store's first day reads the whole log after it, moved entries and all.
#[test]
fn an_index_left_behind_catches_up_to_the_same_state() {
    let dir = tempfile::tempdir().unwrap();
    let old = tempfile::tempdir().unwrap();
    let copy = |from: &Path, to: &Path| {
        fs::create_dir_all(to).unwrap();
        for file in fs::read_dir(from).unwrap().map(Result::unwrap) {
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    };
    for collects in [false, true] {
        let store = Store::open(dir.path(), options(), std::sync::Arc::new(Ledger)).unwrap();
        let base = if collects { 1000 } else { 0 };
        live(&store, base, base + 20);
        drop(store);
        let left = old.path().join(format!("index-{collects}"));
        copy(&dir.path().join("index"), &left);
        let store = Store::open(dir.path(), options(), std::sync::Arc::new(Ledger)).unwrap();
        live(&store, base + 20, base + 60);
        if collects {
            assert!(store.gc(90).unwrap().retired > 0);
        }
        drop(store);
        let lived = dump(dir.path());
        fs::remove_dir_all(dir.path().join("index")).unwrap();
        copy(&left, &dir.path().join("index"));
        let store = Store::open(dir.path(), options(), std::sync::Arc::new(Ledger)).unwrap();
        assert_eq!(store.damage(), []);
        drop(store);
        for ((family, lived), (_, again)) in lived.iter().zip(&dump(dir.path())) {
            assert_eq!(lived, again, "collects: {collects}, family {family}");
        }
    }
}

#[test]
fn an_index_of_another_schema_or_store_is_rebuilt() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [&one, &two] {
        live(&Store::open(dir.path(), options(), std::sync::Arc::new(Ledger)).unwrap(), 0, 10);
    }
    let lived = dump(one.path());
    fs::remove_dir_all(one.path().join("index")).unwrap();
    fs::rename(two.path().join("index"), one.path().join("index")).unwrap();
    drop(Store::open(one.path(), options(), std::sync::Arc::new(Ledger)).unwrap());
    assert_eq!(dump(one.path()), lived, "of another store");
    fs::write(one.path().join("index/CURRENT"), "no index\n").unwrap();
    drop(Store::open(one.path(), options(), std::sync::Arc::new(Ledger)).unwrap());
    assert_eq!(dump(one.path()), lived, "broken");
}

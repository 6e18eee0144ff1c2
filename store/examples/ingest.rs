//! How fast the store takes blocks, without the network before it.
//!
//! `cargo run --release -p hawser-store --example ingest -- DIR [MiB] [block KiB]` writes new
//! incompressible blocks, with a commit for each 64 MiB, then offers them all again, then reads them,
//! then commits small entries one after the other and many at once. DIR should be empty and on the disk
//! that is measured.
#![allow(clippy::unwrap_used, reason = "a measurement: what fails ends it")]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use hawser_api::BlockHash;
use hawser_store::{Batch, Entry, Family, IndexError, Live, Options, ReadError, Replay, Store, View};

/// Entries mean nothing here.
struct Nothing;

impl Replay for Nothing {
    fn schema(&self) -> u32 {
        1
    }

    fn families(&self) -> &'static [Family] {
        &[]
    }

    fn apply(&self, _: Entry<'_>, _: &mut Batch<'_>) -> Result<Vec<u8>, IndexError> {
        Ok(Vec::new())
    }

    fn live(&self, _: &View<'_>, _: &mut dyn FnMut(Live<'_>) -> Result<(), ReadError>) -> Result<(), ReadError> {
        Ok(())
    }
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args.next().expect("usage: ingest DIR [MiB] [block KiB]");
    let mut number = |default| args.next().map_or(default, |arg| arg.parse::<usize>().expect("a number"));
    let (total, block_len) = (number(2048) << 20, number(128) << 10);
    let store = Store::open(Path::new(&dir), Options::default(), Arc::new(Nothing)).unwrap();
    let domain = store.domain("bench").unwrap();

    // One buffer of noise; each block is a window of it with its number at the front.
    let mut noise = vec![0; block_len];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let blocks = total / block_len;
    let content = |number: usize| {
        let mut block = noise.clone();
        block[..8].copy_from_slice(&(number as u64 ^ rand::random::<u64>() << 32).to_le_bytes());
        Bytes::from(block)
    };
    let made = Instant::now();
    let group = ((64 << 20) / block_len).max(1);
    let mut hashes = Vec::with_capacity(blocks);
    let mut making = made.elapsed();
    let begun = Instant::now();
    for first in (0..blocks).step_by(group) {
        let mut puts = tokio::task::JoinSet::new();
        let begin = hashes.len();
        for number in first..blocks.min(first + group) {
            let started = Instant::now();
            let content = content(number);
            let hash = BlockHash::of(&content); // the client's own cost
            making += started.elapsed();
            hashes.push(hash);
            let room = store.room(content.len()).await;
            let domain = domain.clone();
            puts.spawn(async move { domain.put(hash, content, room).await.unwrap() });
        }
        while puts.join_next().await.is_some() {}
        domain.commit(Bytes::from_static(b"one object"), &hashes[begin..]).await.unwrap();
    }
    report("new blocks, each 64 MiB committed", total, begun.elapsed().as_secs_f64(), Some(making.as_secs_f64()));

    let begun = Instant::now();
    for offer in hashes.chunks(256) {
        assert!(domain.have(offer).unwrap().iter().all(|have| *have));
    }
    report("offered again", total, begun.elapsed().as_secs_f64(), None);

    let begun = Instant::now();
    for hash in &hashes {
        assert_eq!(domain.read(hash).unwrap().len(), block_len);
    }
    report("read and verified, one thread", total, begun.elapsed().as_secs_f64(), None);

    let begun = Instant::now();
    for _ in 0..200 {
        domain.commit(Bytes::from_static(b"small"), &[]).await.unwrap();
    }
    println!("commits one after the other: {:.2} ms each", begun.elapsed().as_secs_f64() * 1e3 / 200.0);

    let begun = Instant::now();
    let mut commits = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let domain = domain.clone();
        commits.spawn(async move {
            for _ in 0..200 {
                domain.commit(Bytes::from_static(b"small"), &[]).await.unwrap();
            }
        });
    }
    while commits.join_next().await.is_some() {}
    println!("commits, 64 at once: {:.0} a second", 64.0 * 200.0 / begun.elapsed().as_secs_f64());
}

fn report(what: &str, len: usize, seconds: f64, of_which_client: Option<f64>) {
    let rate = len as f64 / seconds / f64::from(1 << 30);
    let client =
        of_which_client.map_or(String::new(), |client| format!(" (client's own work: {client:.2} s of {seconds:.2})"));
    println!("{what}: {rate:.2} GiB/s{client}");
}

//! Sends a file to a running store as a sidecar sends a body, without a cloud before it: what the way of blocks costs.
//!
//! `cargo run --release -p hawser-store --example load -- URL FILE [block KiB]` cuts FILE, offers its hashes, puts
//! what is wanted and records the whole. It ends when the records are durable, and prints one line of JSON: seconds,
//! its own CPU-seconds, blocks offered and wanted. The same FILE again is all duplicates. The store needs no tokens:
//! the domain is `load`.
#![allow(clippy::unwrap_used, reason = "a measurement: what fails ends it")]

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::Read;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use hawser_api::block::{OFFER_BLOCKS_MAX, PAGE_HASHES, PUT_FRAME_MAX};
use hawser_api::connect::{Caller, Store};
use hawser_api::v1::blocks_down::Message as BlocksDown;
use hawser_api::v1::blocks_up::Message as BlocksUp;
use hawser_api::v1::capture_client::CaptureClient;
use hawser_api::v1::control_down::Message as ControlDown;
use hawser_api::v1::control_up::Message as ControlUp;
use hawser_api::v1::receipt::Verdict;
use hawser_api::{BlockHash, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

/// Bytes in one offer.
const OFFER_LEN: usize = 4 * 1024 * 1024;

/// Bytes that were read and are not settled: a pod's default budget.
const WINDOW_LEN: usize = 32 * 1024 * 1024;

const PROVIDER: &str = "s3+https://load.test";

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let usage = "usage: load URL FILE [block KiB]";
    let (url, file) = (args.next().expect(usage), args.next().expect(usage));
    let block_len = args.next().map_or(128, |arg| arg.parse::<usize>().expect(usage)) << 10;
    let store = Store { url, domain: "load".into(), token_file: None, ca_file: None };
    let (channel, caller) = store.channel().unwrap();
    let client = CaptureClient::with_interceptor(channel, caller);
    let mut session = Session::open(client.clone(), block_len).await;

    let begun = Instant::now();
    let blocks = read(File::open(&file).unwrap(), block_len);
    let (hashes, length, wanted) = send(client, blocks, block_len).await;
    session.record(&hashes, length, block_len).await;
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds());
    println!(
        "{{\"bytes\": {length}, \"seconds\": {seconds:.3}, \"cpu_seconds\": {cpu:.2}, \"offered\": {}, \"wanted\": {wanted}}}",
        hashes.len()
    );
}

/// The blocks of a file and their hashes, read and hashed by a thread of its own.
fn read(mut file: File, block_len: usize) -> mpsc::Receiver<(BlockHash, Bytes)> {
    let (to, blocks) = mpsc::channel(OFFER_LEN.div_ceil(block_len));
    std::thread::spawn(move || {
        loop {
            let mut block = Vec::with_capacity(block_len);
            (&mut file).take(block_len as u64).read_to_end(&mut block).unwrap();
            if block.is_empty() || to.blocking_send((BlockHash::of(&block), block.into())).is_err() {
                return;
            }
        }
    });
    blocks
}

/// Offers all blocks and puts those that are wanted; gives all hashes, the bytes, and how many were wanted.
async fn send(
    mut client: CaptureClient<InterceptedService<Channel, Caller>>,
    mut blocks: mpsc::Receiver<(BlockHash, Bytes)>,
    block_len: usize,
) -> (Vec<BlockHash>, u64, usize) {
    let (up, messages) = mpsc::channel(4);
    let mut down = client.blocks(ReceiverStream::new(messages)).await.unwrap().into_inner();
    let in_offer = (OFFER_LEN / block_len).clamp(1, OFFER_BLOCKS_MAX);
    let (mut hashes, mut length, mut wanted, mut held) = (Vec::new(), 0, 0, 0);
    let mut gathered: Vec<(BlockHash, Bytes)> = Vec::new();
    let mut open: HashMap<u64, HashMap<u32, (BlockHash, Bytes)>> = HashMap::new();
    let (mut outbox, mut last_offer, mut ended) = (VecDeque::new(), 0, false);
    while !ended || !gathered.is_empty() || !open.is_empty() {
        if gathered.len() >= in_offer || ended && !gathered.is_empty() {
            last_offer += 1;
            let mut names = BytesMut::new();
            gathered.iter().for_each(|(hash, _)| names.extend_from_slice(hash.as_bytes()));
            let len = gathered.iter().map(|(_, block)| block.len() as u64).sum();
            outbox.push_front(BlocksUp::Offer(v1::Offer { offer: last_offer, hashes: names.freeze(), length: len }));
            open.insert(last_offer, (0..).zip(gathered.drain(..)).collect());
        }
        tokio::select! {
            place = up.reserve(), if !outbox.is_empty() => {
                place.unwrap().send(v1::BlocksUp { message: outbox.pop_front() });
            }
            message = down.message() => match message.unwrap().expect("the stream goes on").message.unwrap() {
                BlocksDown::Answer(answer) => {
                    let offered = open.get_mut(&answer.offer).unwrap();
                    for (index, state) in (0..).zip(answer.states.iter()) {
                        match *state {
                            0 => held -= offered.remove(&index).unwrap().1.len(),
                            1 => {
                                wanted += 1;
                                outbox.extend(frames(answer.offer, index, &offered[&index].1));
                            }
                            _ => gathered.push(offered.remove(&index).unwrap()), // no room now
                        }
                    }
                    open.retain(|_, offered| !offered.is_empty());
                }
                BlocksDown::Receipt(receipt) => {
                    assert_eq!(receipt.refused, "");
                    let offered = open.get_mut(&receipt.offer).unwrap();
                    held -= offered.remove(&receipt.index).unwrap().1.len();
                    open.retain(|_, offered| !offered.is_empty());
                }
            },
            block = blocks.recv(), if !ended && held < WINDOW_LEN && gathered.len() < in_offer => match block {
                None => ended = true,
                Some((hash, block)) => {
                    hashes.push(hash);
                    length += block.len() as u64;
                    held += block.len();
                    gathered.push((hash, block));
                }
            },
        }
    }
    (hashes, length, wanted)
}

fn frames(offer: u64, index: u32, block: &Bytes) -> impl Iterator<Item = BlocksUp> {
    let starts = (0..block.len()).step_by(PUT_FRAME_MAX);
    starts.map(move |at| {
        let end = block.len().min(at + PUT_FRAME_MAX);
        BlocksUp::Put(v1::Put { offer, index, data: block.slice(at..end), last: end == block.len() })
    })
}

/// A sidecar's session.
struct Session {
    up: mpsc::Sender<v1::ControlUp>,
    down: Streaming<v1::ControlDown>,
    stamp: v1::Stamp,
}

impl Session {
    async fn open(mut client: CaptureClient<InterceptedService<Channel, Caller>>, block_len: usize) -> Session {
        let hello = v1::Hello {
            session: rand::random::<[u8; 16]>().to_vec().into(),
            binding: "load".into(),
            namespace: "load".into(),
            providers: vec![v1::Provider { name: "a".into(), identity: PROVIDER.into() }],
            spec_provider: "a".into(),
            buckets: vec![v1::Bucket { name: "load".into(), ..v1::Bucket::default() }],
            block_size: block_len as u32,
            role: v1::Role::Sidecar.into(),
            ..v1::Hello::default()
        };
        let (up, messages) = mpsc::channel(64);
        up.send(v1::ControlUp { sequence: 0, message: Some(ControlUp::Hello(hello)) }).await.unwrap();
        let mut down = client.control(ReceiverStream::new(messages)).await.unwrap().into_inner();
        let ControlDown::Welcome(welcome) = down.message().await.unwrap().unwrap().message.unwrap() else {
            panic!("not a welcome")
        };
        let stamp = v1::Stamp { incarnation: welcome.incarnation, tick: welcome.tick, counter: 0 };
        Session { up, down, stamp }
    }

    /// Records the blocks as objects, each of a page of hashes at most; returns when all of them are durable.
    async fn record(&mut self, hashes: &[BlockHash], mut length: u64, block_len: usize) {
        let pages = hashes.chunks(PAGE_HASHES);
        let last = pages.len() as u64;
        for (number, page) in (1..).zip(pages) {
            let run_length = length.min((page.len() * block_len) as u64);
            length -= run_length;
            let names: Vec<u8> = page.iter().flat_map(|hash| *hash.as_bytes()).collect();
            let run = v1::Run { length: run_length, block_size: block_len as u32, hashes: names.into(), paged: false };
            let key = format!("{}/{number}", rand::random::<u64>());
            let put = v1::PutObject {
                object: Some(v1::ObjectRef { provider: PROVIDER.into(), bucket: "load".into(), key: key.into() }),
                body: Some(v1::Body { content: Some(v1::body::Content::Run(run)) }),
                metadata: Some(v1::Metadata { headers_known: true, ..v1::Metadata::default() }),
                etag: "\"e\"".into(),
                version_id: String::new(),
            };
            let writes = vec![v1::Write { change: Some(v1::write::Change::Put(put)) }];
            let head = self.stamp();
            let recorded = v1::Recorded { operation: 0, writes, head, answer: self.stamp() };
            let message = Some(ControlUp::Recorded(recorded));
            self.up.send(v1::ControlUp { sequence: number, message }).await.unwrap();
        }
        let mut receipts = 0;
        while receipts < last {
            if let Some(ControlDown::Receipt(receipt)) = self.down.message().await.unwrap().unwrap().message {
                assert!(matches!(receipt.verdict, Some(Verdict::Accepted(_))), "{receipt:?}");
                receipts += 1;
            }
        }
    }

    fn stamp(&mut self) -> Option<v1::Stamp> {
        self.stamp.counter += 1;
        Some(self.stamp)
    }
}

/// CPU-seconds of this process: user and system, in hundredths, after the name in parentheses.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

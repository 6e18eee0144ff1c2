//! Offering blocks to the store and sending those that it lacks, for many bodies over one stream.
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hawser_api::BlockHash;
use hawser_api::block::{OFFER_BLOCKS_MAX, PUT_FRAME_MAX};
use hawser_api::v1;
use hawser_api::v1::blocks_down::Message as Down;
use hawser_api::v1::blocks_up::Message as Up;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Store, refusal};
use crate::failure::Failure;

/// Messages that wait for the line; each is at most a frame of a put.
const UNSENT_MAX: usize = 8;
/// How often blocks are offered again while the store has no room, and how long between.
const OFFERS_MAX: u32 = 60;
const OFFER_AGAIN: Duration = Duration::from_millis(250);

const HAVE: u8 = 0;
const WANT: u8 = 1;

/// The stream of offers and puts.
pub struct Blocks {
    up: mpsc::Sender<v1::BlocksUp>,
    next: AtomicU64,
    answers: Arc<Answers>,
    _listening: JoinSet<()>, // ends with this
}

/// Who waits for the answers to which offer; `None` when the stream ended.
#[derive(Default)]
struct Answers(Mutex<Option<HashMap<u64, mpsc::Sender<Down>>>>);

impl Blocks {
    /// Opens the stream.
    pub async fn open(store: &Store) -> Result<Blocks, Failure> {
        let (up, queue) = mpsc::channel(UNSENT_MAX);
        let answers = Arc::new(Answers(Mutex::new(Some(HashMap::new()))));
        let store = store.clone();
        let heard = answers.clone();
        let mut listening = JoinSet::new();
        listening.spawn(async move {
            // The answer's head may come only with its first message, so nothing waits for it.
            if let Ok(down) = store.capture.clone().blocks(ReceiverStream::new(queue)).await {
                listen(down.into_inner(), &heard).await;
            }
            *heard.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
        });
        Ok(Blocks { up, next: AtomicU64::new(1), answers, _listening: listening })
    }

    /// Brings blocks to the store; when this returns it had them all or was sent them. Only the receipt of
    /// the record that names them makes them durable.
    pub async fn bring(&self, blocks: &[(BlockHash, Bytes)]) -> Result<(), Failure> {
        for blocks in blocks.chunks(OFFER_BLOCKS_MAX) {
            let mut left: Vec<&(BlockHash, Bytes)> = blocks.iter().collect();
            for turn in 0..OFFERS_MAX {
                if turn > 0 {
                    tokio::time::sleep(OFFER_AGAIN).await;
                }
                left = self.offer(&left).await?;
                if left.is_empty() {
                    break;
                }
            }
            if !left.is_empty() {
                return Err(Failure::failed("the store has no room for more blocks"));
            }
        }
        Ok(())
    }

    /// Offers blocks once; answers those that the store had no room for.
    async fn offer<'a>(&self, blocks: &[&'a (BlockHash, Bytes)]) -> Result<Vec<&'a (BlockHash, Bytes)>, Failure> {
        let offer = self.next.fetch_add(1, Ordering::Relaxed);
        // One answer and one receipt a block fit, so that the listener never waits for a body.
        let (heard, mut answers) = mpsc::channel(blocks.len() + 1);
        match &mut *self.answers.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(waiting) => waiting.insert(offer, heard),
            None => return Err(broken()),
        };
        let result = self.exchange(offer, blocks, &mut answers).await;
        if let Some(waiting) = &mut *self.answers.0.lock().unwrap_or_else(PoisonError::into_inner) {
            waiting.remove(&offer);
        }
        result
    }

    async fn exchange<'a>(
        &self,
        offer: u64,
        blocks: &[&'a (BlockHash, Bytes)],
        answers: &mut mpsc::Receiver<Down>,
    ) -> Result<Vec<&'a (BlockHash, Bytes)>, Failure> {
        let hashes: Vec<u8> = blocks.iter().flat_map(|(hash, _)| *hash.as_bytes()).collect();
        let length = blocks.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        self.send(Up::Offer(v1::Offer { offer, hashes: hashes.into(), length })).await?;
        let states = loop {
            match answers.recv().await.ok_or_else(broken)? {
                Down::Answer(answer) => break answer.states,
                Down::Receipt(_) => {}
            }
        };
        if states.len() != blocks.len() {
            return Err(Failure::failed("the store answered to another number of blocks than it was offered"));
        }
        let mut later = Vec::new();
        let mut underway = 0_usize;
        for (index, (state, block)) in states.iter().zip(blocks).enumerate() {
            match *state {
                HAVE => {}
                WANT => {
                    self.put(offer, index as u32, &block.1).await?;
                    underway += 1;
                }
                _ => later.push(*block),
            }
        }
        while underway > 0 {
            if let Down::Receipt(receipt) = answers.recv().await.ok_or_else(broken)? {
                underway -= 1;
                if !receipt.refused.is_empty() {
                    later.extend(blocks.get(receipt.index as usize));
                }
            }
        }
        Ok(later)
    }

    async fn put(&self, offer: u64, index: u32, block: &Bytes) -> Result<(), Failure> {
        let mut left = block.clone();
        loop {
            let data = left.split_to(left.len().min(PUT_FRAME_MAX));
            let last = left.is_empty();
            self.send(Up::Put(v1::Put { offer, index, data, last })).await?;
            if last {
                return Ok(());
            }
        }
    }

    async fn send(&self, message: Up) -> Result<(), Failure> {
        self.up.send(v1::BlocksUp { message: Some(message) }).await.map_err(|_| broken())
    }
}

async fn listen(mut down: Streaming<v1::BlocksDown>, answers: &Answers) {
    while let Ok(Some(message)) = down.message().await {
        let Some(message) = message.message else { continue };
        let offer = match &message {
            Down::Answer(answer) => answer.offer,
            Down::Receipt(receipt) => receipt.offer,
        };
        if let Some(waiting) = &*answers.0.lock().unwrap_or_else(PoisonError::into_inner)
            && let Some(sender) = waiting.get(&offer)
        {
            let _ = sender.try_send(message); // whoever asked may be gone
        }
    }
}

fn broken() -> Failure {
    refusal("send blocks")(tonic::Status::unavailable("the stream broke"))
}

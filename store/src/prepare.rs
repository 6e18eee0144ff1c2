//! From content to what is appended: hashed, named, packed and summed, on a few threads of its own.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;

use crate::segment::{Packing, PayloadSum};

/// Level 1 takes most of what zstd can take of text and logs, at the speed of a disk.
const ZSTD_LEVEL: i32 = 1;

/// Below this, compressing cannot save what a reader would notice.
const COMPRESS_LEN_MIN: usize = 256;

/// Bytes looked at to tell whether compressing is worth a try.
const SAMPLE_LEN: usize = 4096;

/// Content in the form in which it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    pub(crate) packing: Packing,
    pub(crate) payload: Bytes,
    pub(crate) sum: PayloadSum,
    pub(crate) raw_len: u32,
}

impl Packed {
    /// Packs a block's content.
    pub(crate) fn block(content: Bytes) -> Packed {
        let raw_len = content.len() as u32; // a block has at most 8 MiB
        if !content.is_empty() && is_zeros(&content) {
            return Packed { packing: Packing::Zeros, payload: Bytes::new(), sum: PayloadSum::of(&[]), raw_len };
        }
        Packed::entry(content)
    }

    /// Leaves content as it is.
    pub(crate) fn plain(content: Bytes) -> Packed {
        let raw_len = content.len() as u32; // a name, or a payload that was packed before
        Packed { packing: Packing::Plain, sum: PayloadSum::of(&content), payload: content, raw_len }
    }

    /// Packs an entry.
    pub(crate) fn entry(content: Bytes) -> Packed {
        let raw_len = content.len() as u32; // an entry has at most 16 MiB
        let (packing, payload) = match compressed(&content) {
            Some(smaller) => (Packing::Zstd, smaller),
            None => (Packing::Plain, content),
        };
        Packed { packing, sum: PayloadSum::of(&payload), payload, raw_len }
    }
}

/// The content behind a payload; `None` when the payload is not of `raw_len` bytes of content.
pub(crate) fn unpack(packing: Packing, raw_len: u32, payload: Bytes) -> Option<Bytes> {
    let raw_len = raw_len as usize;
    let content = match packing {
        Packing::Plain => payload,
        Packing::Zeros => Bytes::from(vec![0; raw_len]),
        Packing::Zstd => Bytes::from(zstd::bulk::decompress(&payload, raw_len).ok()?),
    };
    (content.len() == raw_len).then_some(content)
}

fn compressed(content: &[u8]) -> Option<Bytes> {
    if content.len() < COMPRESS_LEN_MIN || !looks_compressible(content) {
        return None;
    }
    let smaller = zstd::bulk::compress(content, ZSTD_LEVEL).ok()?;
    (smaller.len() <= content.len() - content.len() / 16).then(|| Bytes::from(smaller))
}

/// Whether a sample of the content uses its bytes unevenly. Encrypted and compressed content does not,
/// and costs this look alone; content that is random and repeats itself is missed.
fn looks_compressible(content: &[u8]) -> bool {
    const PIECE: usize = 64;
    let pieces = SAMPLE_LEN / PIECE;
    let stride = (content.len() / pieces).max(PIECE);
    let mut counts = [0u32; 256];
    let mut sampled = 0u32;
    for piece in content.chunks(stride).map(|piece| &piece[..piece.len().min(PIECE)]) {
        for byte in piece {
            counts[usize::from(*byte)] += 1;
        }
        sampled += piece.len() as u32;
    }
    // The chance that two bytes of the sample are equal: 1/256 where all are equally frequent. A quarter
    // above that is far outside of what luck does in 4 096 bytes; base64 is four times above it.
    let pairs: u64 = counts.iter().map(|count| u64::from(*count) * u64::from(count.saturating_sub(1))).sum();
    let all = u64::from(sampled) * u64::from(sampled.saturating_sub(1));
    pairs * 200 > all
}

fn is_zeros(content: &[u8]) -> bool {
    // 64 bytes decide for almost every block; the rest is compared a word at a time.
    let (head, rest) = content.split_at(content.len().min(64));
    if head.iter().any(|byte| *byte != 0) {
        return false;
    }
    let (words, tail) = rest.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && tail.iter().all(|byte| *byte == 0)
}

/// A few threads for the work that a block costs before it is written.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Shared {
    queue: Mutex<(VecDeque<Job>, bool)>, // and whether the pool is closing
    ready: Condvar,
}

impl Pool {
    /// A pool of `threads`.
    pub(crate) fn new(threads: usize) -> std::io::Result<Pool> {
        let shared = Arc::new(Shared::default());
        let spawn = |number| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("hash-{number}")).spawn(move || shared.work())
        };
        let threads = (0..threads.max(1)).map(spawn).collect::<Result<_, _>>()?;
        Ok(Pool { shared, threads })
    }

    /// Does `job` when a thread is free. What waits is bounded by the room that its blocks hold.
    pub(crate) fn submit(&self, job: impl FnOnce() + Send + 'static) {
        self.shared.lock().0.push_back(Box::new(job));
        self.shared.ready.notify_one();
    }
}

impl Drop for Pool {
    /// Ends the jobs that were submitted, then the threads.
    fn drop(&mut self) {
        self.shared.lock().1 = true;
        self.shared.ready.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a hashing thread panicked");
            }
        }
    }
}

impl Shared {
    fn work(&self) {
        loop {
            let mut queue = self.lock();
            let job = loop {
                match (queue.0.pop_front(), queue.1) {
                    (Some(job), _) => break job,
                    (None, true) => return,
                    (None, false) => queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(queue);
            job();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (VecDeque<Job>, bool)> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn content_is_packed_as_its_kind_deserves() {
        let text: Vec<u8> = b"the quick brown fox jumps over the lazy dog\n".repeat(3000);
        let mut nearly = vec![0; 128 * 1024];
        nearly[128 * 1024 - 1] = 1;
        let rows = [
            ("zeros", vec![0; 128 * 1024], Packing::Zeros),
            ("one bit short of zeros", nearly, Packing::Zstd),
            ("one zero", vec![0], Packing::Zeros),
            ("text", text, Packing::Zstd),
            ("noise", noise(128 * 1024), Packing::Plain),
            ("little noise", noise(300), Packing::Plain),
            ("short text", b"short".repeat(5), Packing::Plain),
            ("nothing", Vec::new(), Packing::Plain),
        ];
        for (kind, content, packing) in rows {
            let packed = Packed::block(Bytes::from(content.clone()));
            assert_eq!(packed.packing, packing, "{kind}");
            assert_eq!(unpack(packed.packing, packed.raw_len, packed.payload).unwrap(), content, "{kind}");
        }
    }

    proptest! {
        #[test]
        fn any_payload_is_refused_or_of_the_length_that_was_said(
            payload in proptest::collection::vec(any::<u8>(), 0..300), raw_len in 0u32..1000,
        ) {
            if let Some(content) = unpack(Packing::Zstd, raw_len, Bytes::from(payload)) {
                prop_assert_eq!(content.len(), raw_len as usize);
            }
        }
    }

    #[test]
    fn a_pool_ends_what_was_submitted_before_it_goes() {
        let done = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let pool = Pool::new(2).unwrap();
        for _ in 0..100 {
            let done = Arc::clone(&done);
            pool.submit(move || {
                done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            });
        }
        drop(pool);
        assert_eq!(done.load(std::sync::atomic::Ordering::Relaxed), 100);
    }
}

//! Which blocks the sweep must leave alone although no record names them: those that were just offered
//! or put (leases), and those that anybody touched since a mark began.
//!
//! Leases run on monotonic time and only save work. What protects is the order in which this is used:
//! a caller touches names here *before* it asks the index for them; the sweep takes a name out of the
//! index while it holds the lock under which names are touched. So either the sweep sees the touch, or
//! the caller sees that the block is gone. `tests` below go through every interleaving.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::names::{BlockKey, BlockName};

/// Leases held at once: at 128 KiB a block they cover 64 GiB that was put and not yet recorded. Past it
/// the oldest is dropped: its block may be swept early, and its record then answers `missing`.
const LEASES_MAX: usize = 512 * 1024;

/// The blocks that the sweep leaves alone for a while.
pub(crate) struct Leases {
    inner: Mutex<Inner>,
    duration: Duration,
    began: Instant,
}

struct Inner {
    /// The first half of a name → second, since the beginning, at which its lease ends. A name that
    /// shares its half with a leased one is kept too: towards leaks.
    until: HashMap<u128, u32>,
    /// Names in the order of their leases, to let them go.
    order: VecDeque<(u32, u128)>,
    marking: Option<Bloom>,
}

impl Leases {
    /// No leases yet; each will last for `duration`.
    pub(crate) fn new(duration: Duration) -> Leases {
        let inner = Inner { until: HashMap::new(), order: VecDeque::new(), marking: None };
        Leases { inner: Mutex::new(inner), duration, began: Instant::now() }
    }

    /// Leases blocks, and keeps them through a collection that is under way.
    pub(crate) fn lease(&self, names: impl IntoIterator<Item = BlockName>) {
        let now = self.began.elapsed();
        let until = u32::try_from((now + self.duration).as_secs()).unwrap_or(u32::MAX);
        let mut inner = self.lock();
        for name in names {
            let half = half(&name);
            inner.until.insert(half, until);
            inner.order.push_back((until, half));
            if let Some(marked) = &mut inner.marking {
                marked.insert(&name);
            }
        }
        inner.let_go(now);
    }

    /// Keeps blocks through a collection that is under way; without one, nothing is remembered.
    pub(crate) fn keep(&self, names: impl IntoIterator<Item = BlockName>) {
        if let Some(marked) = &mut self.lock().marking {
            names.into_iter().for_each(|name| marked.insert(&name));
        }
    }

    /// From here on every name that is touched is kept, until [`Leases::end_mark`]. `blocks` is about
    /// how many blocks will be marked.
    pub(crate) fn begin_mark(&self, blocks: u64) {
        self.lock().marking = Some(Bloom::new(blocks));
    }

    /// Forgets the marks.
    pub(crate) fn end_mark(&self) {
        self.lock().marking = None;
    }

    /// Whether a block is marked or leased: for counting only, the answer may be old when it arrives.
    pub(crate) fn is_kept(&self, name: &BlockName) -> bool {
        let now = self.began.elapsed();
        self.lock().is_kept(name, now)
    }

    /// Of `blocks`, gives those that nothing keeps to `sweep`, in order, under the lock: a touch comes
    /// before the whole call or after it.
    pub(crate) fn sweep<T>(&self, blocks: Vec<BlockKey>, sweep: impl FnOnce(Vec<BlockKey>) -> T) -> T {
        let now = self.began.elapsed();
        let inner = self.lock();
        let dead = blocks.into_iter().filter(|block| !inner.is_kept(&block.name, now)).collect();
        sweep(dead)
    }

    /// How many leases there are.
    pub(crate) fn count(&self) -> usize {
        let mut inner = self.lock();
        inner.let_go(self.began.elapsed());
        inner.until.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while it was held leaves at most a lease that is only in one of the two lists.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn is_kept(&self, name: &BlockName, now: Duration) -> bool {
        self.marking.as_ref().is_some_and(|marked| marked.contains(name))
            || self.until.get(&half(name)).is_some_and(|until| u64::from(*until) > now.as_secs())
    }

    fn let_go(&mut self, now: Duration) {
        while let Some((until, half)) = self.order.front().copied()
            && (u64::from(until) <= now.as_secs() || self.until.len() > LEASES_MAX || self.order.len() > 2 * LEASES_MAX)
        {
            self.order.pop_front();
            if self.until.get(&half) == Some(&until) {
                self.until.remove(&half); // else it was leased anew
            }
        }
    }
}

fn half(name: &BlockName) -> u128 {
    let [half, _] = halves(name);
    half
}

fn halves(name: &BlockName) -> [u128; 2] {
    let (halves, _) = name.as_bytes().as_chunks::<16>();
    [u128::from_le_bytes(halves[0]), u128::from_le_bytes(halves[1])]
}

/// A set of names that may claim a name too many and never one too few: 16 bits and 4 probes a name
/// keep one dead block in 400. Names are keyed hashes, so their own bits serve as probes; the salt
/// makes it another block that is kept the next time.
pub(crate) struct Bloom {
    bits: Vec<u64>,
    salt: u64,
}

impl Bloom {
    fn new(names: u64) -> Bloom {
        let words = (names.max(4096) * 16).div_ceil(64);
        Bloom { bits: vec![0; words as usize], salt: rand::random() }
    }

    fn insert(&mut self, name: &BlockName) {
        for bit in self.probes(name) {
            self.bits[(bit / 64) as usize] |= 1 << (bit % 64);
        }
    }

    fn contains(&self, name: &BlockName) -> bool {
        self.probes(name).iter().all(|bit| self.bits[(bit / 64) as usize] & 1 << (bit % 64) != 0)
    }

    fn probes(&self, name: &BlockName) -> [u64; 4] {
        let (words, _) = name.as_bytes().as_chunks::<8>();
        let bits = self.bits.len() as u128 * 64;
        // The upper half of the product with the length is a place below it, evenly spread.
        std::array::from_fn(|i| {
            let word = (u64::from_le_bytes(words[i]) ^ self.salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            ((u128::from(word) * bits) >> 64) as u64
        })
    }
}

#[cfg(test)]
mod tests;

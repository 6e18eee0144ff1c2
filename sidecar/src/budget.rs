//! How many captured bytes may be in flight in the whole pod. Taking never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What one captured chunk costs beside its bytes: its place in queues and its allocation.
const CHUNK_OVERHEAD_BYTES: usize = 128;

/// The pod's allowance of captured bytes; shared by all connections.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    /// A budget of `limit` bytes; 0 means that nothing is ever captured.
    pub fn new(limit: usize) -> Arc<Budget> {
        Arc::new(Budget { limit, used: AtomicUsize::new(0) })
    }

    /// Room for `len` bytes, or `None` when the pod has no more.
    pub fn try_take(self: &Arc<Self>, len: usize) -> Option<Share> {
        let cost = len.saturating_add(CHUNK_OVERHEAD_BYTES);
        self.take(cost).then(|| Share { budget: Arc::clone(self), cost })
    }

    fn take(&self, cost: usize) -> bool {
        let enough = |used: usize| used.checked_add(cost).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enough).is_ok()
    }

    /// Whether more than half is taken: what can be had again later is then not worth its room.
    pub fn is_scarce(&self) -> bool {
        self.used() > self.limit / 2
    }

    /// Whether more than three quarters are taken: what waits for the store has to go, so that there is room for what
    /// must be understood. A dropped head costs a gap of the whole binding, a dropped body one of its key.
    pub fn is_tight(&self) -> bool {
        self.used() > self.limit / 4 * 3
    }

    /// Bytes taken at this moment.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// A part of the [`Budget`], given back when it is dropped. Keep it as long as the bytes it stands for.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    cost: usize,
}

impl Share {
    /// Stands for `len` more bytes as well, if there is room for them.
    pub fn grow(&mut self, len: usize) -> bool {
        let grown = self.budget.take(len);
        self.cost += if grown { len } else { 0 };
        grown
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.cost, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, CHUNK_OVERHEAD_BYTES};

    #[test]
    fn what_was_taken_comes_back_and_never_exceeds_the_limit() {
        let budget = Budget::new(1000 + 2 * CHUNK_OVERHEAD_BYTES);
        let first = budget.try_take(600).expect("room for the first");
        assert!(budget.try_take(401).is_none(), "one byte too many");
        let second = budget.try_take(400).expect("exactly the rest");
        assert!(budget.try_take(0).is_none(), "an empty chunk costs something too");
        drop(first);
        let mut grown = budget.try_take(100).expect("room again");
        assert!(grown.grow(500) && !grown.grow(1), "what was taken may grow by exactly the rest");
        drop((grown, second));
        assert_eq!(budget.used(), 0);
    }
}

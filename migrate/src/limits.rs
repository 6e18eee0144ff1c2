//! How much may be under way at once: objects, bytes per second, or nothing while paused. The bounds may
//! change while everything works.
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hawser_api::quantity::Rate;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Bytes that may pass at once after a pause.
const BURST: Duration = Duration::from_millis(100);

/// Objects or parts under way at most, whatever the binding says.
pub const PARALLELISM_MAX: usize = 256;

/// What the binding and the command line allow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Objects or parts under way at the same time.
    pub parallelism: usize,
    /// Bytes per second; without it everything passes at once.
    pub bandwidth: Option<Rate>,
    /// Nothing new begins.
    pub paused: bool,
}

/// Hands out places and the line, as the bounds are at that moment.
pub struct Limits {
    bounds: watch::Sender<Bounds>,
    free_at: Mutex<Instant>,
    under_way: Mutex<usize>,
    freed: Notify,
}

/// A place among those that are under way; dropped, it is free.
pub struct Slot<'a>(&'a Limits);

impl Limits {
    /// Within `bounds`.
    pub fn new(bounds: Bounds) -> Limits {
        Limits {
            bounds: watch::Sender::new(bounds),
            free_at: Mutex::new(Instant::now()),
            under_way: Mutex::new(0),
            freed: Notify::new(),
        }
    }

    /// Takes other bounds; gives whether they differ.
    pub fn change(&self, bounds: Bounds) -> bool {
        let changed = self.bounds.send_if_modified(|before| std::mem::replace(before, bounds) != bounds);
        self.freed.notify_waiters();
        changed
    }

    /// Objects or parts that may be under way at the same time.
    pub fn parallelism(&self) -> usize {
        self.bounds.borrow().parallelism.clamp(1, PARALLELISM_MAX)
    }

    /// Waits until it is not paused.
    pub async fn going(&self) {
        let mut bounds = self.bounds.subscribe();
        let _ = bounds.wait_for(|bounds| !bounds.paused).await; // its sender lives as long as this
    }

    /// Waits for a place.
    pub async fn slot(&self) -> Slot<'_> {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable(); // what is freed from here on is heard
            if !self.bounds.borrow().paused {
                let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
                if *under_way < self.parallelism() {
                    *under_way += 1;
                    return Slot(self);
                }
            }
            freed.await;
        }
    }

    /// Waits until `len` more bytes may pass.
    pub async fn take(&self, len: u64) {
        let Some(rate) = self.bounds.borrow().bandwidth else { return };
        let turn = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = (*free_at).max(Instant::now() - BURST);
            *free_at = turn + Duration::from_secs_f64(len as f64 / rate.bytes_per_second().get() as f64);
            turn
        };
        tokio::time::sleep_until(turn).await;
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt;

    use super::*;

    fn bounds(parallelism: usize, bandwidth: Option<&str>, paused: bool) -> Bounds {
        Bounds { parallelism, bandwidth: bandwidth.map(|rate| rate.parse().unwrap()), paused }
    }

    #[tokio::test]
    async fn bytes_pass_no_faster_than_the_rate() {
        let line = Limits::new(bounds(1, Some("100Ki"), false));
        let begin = Instant::now();
        for _ in 0..5 {
            line.take(10 * 1024).await;
        }
        // Four waits of 100 ms, less one burst; the fifth take only books its time.
        assert!(begin.elapsed() >= Duration::from_millis(290), "{:?}", begin.elapsed());
        Limits::new(bounds(1, None, false)).take(u64::MAX).await;
    }

    #[tokio::test]
    async fn as_many_are_under_way_as_is_said_at_that_moment() {
        let limits = Limits::new(bounds(2, None, false));
        let (first, _second) = (limits.slot().await, limits.slot().await);
        let mut third = std::pin::pin!(limits.slot());
        assert!(third.as_mut().now_or_never().is_none(), "two are under way");
        drop(first);
        let _third = third.await;
        let mut fourth = std::pin::pin!(limits.slot());
        assert!(fourth.as_mut().now_or_never().is_none(), "two are under way again");
        assert!(limits.change(bounds(3, None, false)));
        let _fourth = fourth.await;
    }

    #[tokio::test]
    async fn nothing_begins_while_it_is_paused() {
        let limits = Limits::new(bounds(2, None, true));
        let (mut slot, mut going) = (std::pin::pin!(limits.slot()), std::pin::pin!(limits.going()));
        assert!(slot.as_mut().now_or_never().is_none() && going.as_mut().now_or_never().is_none());
        assert!(limits.change(bounds(2, None, false)));
        assert!(!limits.change(bounds(2, None, false)), "the same again is no change");
        going.await;
        drop(slot.await);
    }
}

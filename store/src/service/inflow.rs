//! Room for what sessions say at once. Most messages are small and come as fast as they may; a record of a long list of
//! hashes is 12 MiB, and 64 of them from each of 500 sidecars would be more than any machine has.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of large messages of all sessions that are under way at once.
const LARGE_LEN_MAX: usize = 64 * 1024 * 1024;

/// Messages below it are not counted: 64 of them from one session are 2 MiB.
const SMALL_LEN_MAX: usize = 32 * 1024;

/// Bytes of one permit: so few permits that their number fits where tokio counts them.
const UNIT: usize = 1024;

/// Room for the large messages of all sessions.
#[derive(Clone)]
pub(super) struct Inflow(Arc<Semaphore>);

/// A message's share of the room; its drop gives it back. Small messages need none.
pub(super) type Share = Option<OwnedSemaphorePermit>;

impl Default for Inflow {
    fn default() -> Inflow {
        Inflow(Arc::new(Semaphore::new(LARGE_LEN_MAX / UNIT)))
    }
}

impl Inflow {
    /// Waits until there is room for a message of `len` bytes. Whoever waits reads no further message meanwhile.
    pub(super) async fn share(&self, len: usize) -> Share {
        if len <= SMALL_LEN_MAX {
            return None;
        }
        let units = len.min(LARGE_LEN_MAX).div_ceil(UNIT);
        // It is never closed; else a message more is under way.
        Arc::clone(&self.0).acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX)).await.ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt;

    use super::*;

    #[test]
    fn large_messages_of_all_sessions_share_one_room_and_small_ones_never_wait() {
        let inflow = Inflow::default();
        let large = 12 * 1024 * 1024;
        let held: Vec<Share> =
            (0..LARGE_LEN_MAX / large).map(|_| inflow.share(large).now_or_never().unwrap()).collect();
        assert!(held.iter().all(Option::is_some));
        let mut next = Box::pin(inflow.share(large));
        assert!(next.as_mut().now_or_never().is_none(), "there is no room for one more");
        assert!(inflow.share(SMALL_LEN_MAX).now_or_never().unwrap().is_none(), "a small one passes");
        drop(held);
        assert!(next.now_or_never().unwrap().is_some());
        assert!(inflow.share(10 * LARGE_LEN_MAX).now_or_never().unwrap().is_some(), "nothing waits for ever");
    }
}

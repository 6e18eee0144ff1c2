//! The bound on bytes per second, shared by everything that is under way.
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hawser_api::quantity::Rate;
use tokio::time::Instant;

/// Bytes that may pass at once after a pause.
const BURST: Duration = Duration::from_millis(100);

/// Hands out the line; without a rate it hands out everything at once.
pub struct Bandwidth {
    bytes_per_second: Option<f64>,
    free_at: Mutex<Instant>,
}

impl Bandwidth {
    /// At most `rate`.
    pub fn new(rate: Option<Rate>) -> Bandwidth {
        let bytes_per_second = rate.map(|rate| rate.bytes_per_second().get() as f64);
        Bandwidth { bytes_per_second, free_at: Mutex::new(Instant::now()) }
    }

    /// Waits until `len` more bytes may pass.
    pub async fn take(&self, len: u64) {
        let Some(rate) = self.bytes_per_second else { return };
        let turn = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = (*free_at).max(Instant::now() - BURST);
            *free_at = turn + Duration::from_secs_f64(len as f64 / rate);
            turn
        };
        tokio::time::sleep_until(turn).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn bytes_pass_no_faster_than_the_rate() {
        let line = Bandwidth::new(Some("100Ki".parse().unwrap()));
        let begin = Instant::now();
        for _ in 0..5 {
            line.take(10 * 1024).await;
        }
        // Four waits of 100 ms, less one burst; the fifth take only books its time.
        assert!(begin.elapsed() >= Duration::from_millis(290), "{:?}", begin.elapsed());
        Bandwidth::new(None).take(u64::MAX).await;
    }
}

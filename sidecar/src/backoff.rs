//! Pauses between tries to reach the store: short at first, as a restart is over soon; bounded, as it may come
//! back at any time; uneven, as many sidecars lose the same store at the same moment.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);

/// A store that is back is noticed within this.
const LONGEST: Duration = Duration::from_secs(2);

/// The pause before the next try; none before the first.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Pauses, and makes the next pause twice as long.
    pub(crate) async fn wait(&mut self) {
        let pause = self.next;
        self.next = (pause * 2).clamp(FIRST, LONGEST);
        if !pause.is_zero() {
            let uneven = rand::random_range(0.5..=1.0);
            tokio::time::sleep(pause.mul_f64(uneven)).await;
        }
    }

    /// It worked: should it break, the first pause is short again.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }
}

//! What the store last said about its commits, and this process's own order. No clock enters here.

use std::sync::{Mutex, PoisonError};

use hawser_api::Stamp;

/// The source of every [`Stamp`] of this process: one for all connections, so that stamps taken
/// later compare as later, whatever connection they belong to.
#[derive(Debug, Default)]
pub struct Ticks {
    last: Mutex<Stamp>,
}

impl Ticks {
    /// The next stamp: the tick last heard, and a counter one higher than that of the stamp before.
    pub fn stamp(&self) -> Stamp {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.counter += 1;
        *last
    }

    /// Takes note of the highest durable commit of the store's life `incarnation`.
    ///
    /// Within one life ticks only grow: an older one, which overtook on another stream, is ignored.
    pub fn heard(&self, incarnation: u64, tick: u64) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.incarnation == incarnation {
            last.tick = last.tick.max(tick);
        } else {
            last.incarnation = incarnation;
            last.tick = tick;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Ticks;

    #[test]
    fn stamps_count_up_and_carry_the_highest_tick_of_the_last_life() {
        let ticks = Ticks::default();
        assert_eq!((ticks.stamp().tick, ticks.stamp().counter), (0, 2), "nothing heard yet");
        ticks.heard(7, 10);
        ticks.heard(7, 9);
        let stamp = ticks.stamp();
        assert_eq!((stamp.incarnation, stamp.tick, stamp.counter), (7, 10, 3));
        ticks.heard(8, 1);
        let stamp = ticks.stamp();
        assert_eq!((stamp.incarnation, stamp.tick, stamp.counter), (8, 1, 4), "a new life starts low");
    }
}

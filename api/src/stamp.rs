//! When something was seen, in the store's ticks and the observer's own count; never in wall time.

/// A place in the order of events, put on every chunk that the relay passes on.
///
/// `tick` is the highest commit of the store that was closed, durable and heard of at that moment;
/// it belongs to one `incarnation` (one life of the store's process). Both are 0 while nothing was
/// heard: such a stamp is ordered after nothing. `counter` orders the stamps of one session among
/// themselves; it grows by one a stamp and starts at 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// The life of the store that `tick` belongs to; 0 when none was heard.
    pub incarnation: u64,
    /// The highest durable commit heard of; 0 when none was.
    pub tick: u64,
    /// This session's own order.
    pub counter: u64,
}

impl Stamp {
    /// The tick as the store of life `incarnation` may believe it: 0 when it was heard from another life.
    pub fn tick_in(&self, incarnation: u64) -> u64 {
        if self.incarnation == incarnation { self.tick } else { 0 }
    }
}

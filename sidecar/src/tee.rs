//! The relay's only way to the copy. Telling it never waits and never fails: what finds no room is
//! dropped, and the copy learns how much that was.
//!
//! May not enter here: anything that lets the relay wait for, or learn the fate of, its copy.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hawser_api::Stamp;
use tokio::sync::mpsc;

use crate::budget::{Budget, Share};

/// Chunks that may wait for the copy of one connection. A TLS record of 16 KiB makes one chunk at least, so this is
/// 32 MiB, the whole default [`Budget`]: on a busy machine the copy's thread may not run for 100 ms, in which
/// 8 MiB would be lost for want of places, not of room.
const QUEUE_CHUNKS_MAX: usize = 2048;

/// Bytes of one turn of the relay that become one chunk: eight records of 16 KiB. What a chunk costs beside its bytes,
/// here and at every step of the copy, is then paid an eighth as often; and a default block lies in one or two.
const CHUNK_LEN: usize = 128 * 1024;

/// A first record shorter than this is not expected to be followed by more.
const RECORD_LEN: usize = 8 * 1024;

/// Things that found no room in the queue and are told as soon as there is some. Neighbours of one
/// side merge, so this many means that both sides spoke in turns while the copy stood still.
const OWED_MAX: usize = 64;

/// Who sent the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The application, towards the cloud.
    Client,
    /// The cloud, towards the application.
    Cloud,
}

/// Bytes that have passed by.
pub struct Chunk {
    /// Who sent them.
    pub side: Side,
    /// Client bytes: taken before they were written to the cloud. Cloud bytes: after they were read.
    pub stamp: Stamp,
    /// How many there were, captured or not.
    pub len: usize,
    /// The bytes and the budget they hold. `None`: dropped; `len` still counts, so that a body of
    /// known length can be skipped.
    pub bytes: Option<(Bytes, Share)>,
}

/// Without the bytes: credentials and content are among them.
impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Chunk { side, stamp, len, bytes } = self;
        write!(f, "{len} bytes of {side:?} at {stamp:?}{}", if bytes.is_some() { "" } else { ", dropped" })
    }
}

/// What the copy is told, in the order in which the relay saw it.
#[derive(Debug)]
pub enum Seen {
    /// Bytes passed.
    Chunk(Chunk),
    /// A side will send no more.
    End {
        /// Which one.
        side: Side,
        /// When the end was seen.
        stamp: Stamp,
        /// FIN or close_notify; `false` for a reset, a TLS error or a FIN without close_notify.
        clean: bool,
    },
}

/// A bounded way from one relay to its copy.
pub fn bounded(budget: Arc<Budget>) -> (Tee, Copy) {
    let (to, from) = mpsc::channel(QUEUE_CHUNKS_MAX);
    let (alive, relay) = mpsc::channel(1);
    let rest = Arc::new(AtomicU64::new(0));
    let tee = Tee {
        to: Some(to),
        _alive: alive,
        budget,
        gathered: None,
        owed: VecDeque::new(),
        passed: 0,
        rest: Arc::clone(&rest),
    };
    (tee, Copy { from, relay, taken: 0, rest })
}

/// The relay's end.
#[derive(Debug)]
pub struct Tee {
    /// `None` when the copy could not even be told what it missed: it sees the queue end early.
    to: Option<mpsc::Sender<Seen>>,
    /// Tells the copy, by its drop, that the relay is gone.
    _alive: mpsc::Sender<Infallible>,
    budget: Arc<Budget>,
    /// Bytes of the turn under way, not told yet.
    gathered: Option<Gathered>,
    owed: VecDeque<Seen>,
    passed: u64,
    rest: Arc<AtomicU64>,
}

struct Gathered {
    side: Side,
    stamp: Stamp,
    bytes: Vec<u8>,
    share: Share,
}

impl fmt::Debug for Gathered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of {:?} at {:?}", self.bytes.len(), self.side, self.stamp)
    }
}

impl Tee {
    /// `bytes` of `side` pass by. They are copied if there is room, else counted.
    pub fn saw(&mut self, side: Side, stamp: Stamp, bytes: &[u8]) {
        self.gather(side, stamp, bytes);
        self.tell_gathered();
    }

    /// The same for a piece of what passes in one turn of the relay: the copy is told with the rest of them, by
    /// [`Tee::tell_gathered`] at the latest.
    pub fn gather(&mut self, side: Side, stamp: Stamp, bytes: &[u8]) {
        self.passed += bytes.len() as u64;
        if bytes.is_empty() || self.to.is_none() {
            return;
        }
        if let Some(gathered) = &mut self.gathered {
            let fits = gathered.bytes.len() + bytes.len() <= gathered.bytes.capacity();
            if fits && (gathered.side, gathered.stamp) == (side, stamp) && gathered.share.grow(bytes.len()) {
                return gathered.bytes.extend_from_slice(bytes);
            }
        }
        self.tell_gathered();
        self.pay_owed();
        if self.owed.is_empty()
            && self.to.as_ref().is_some_and(|to| to.capacity() > 0)
            && let Some(share) = self.budget.try_take(bytes.len())
        {
            let capacity = if bytes.len() < RECORD_LEN { bytes.len() } else { bytes.len().max(CHUNK_LEN) };
            let mut copied = Vec::with_capacity(capacity);
            copied.extend_from_slice(bytes);
            self.gathered = Some(Gathered { side, stamp, bytes: copied, share });
        } else {
            self.tell(Chunk { side, stamp, len: bytes.len(), bytes: None });
        }
    }

    /// The end of a turn.
    pub fn tell_gathered(&mut self) {
        if let Some(Gathered { side, stamp, mut bytes, share }) = self.gathered.take() {
            bytes.shrink_to_fit();
            self.tell(Chunk { side, stamp, len: bytes.len(), bytes: Some((bytes.into(), share)) });
        }
    }

    /// `side` will send no more.
    pub fn ended(&mut self, side: Side, stamp: Stamp, clean: bool) {
        self.tell_gathered();
        if self.to.is_none() {
            return;
        }
        self.owe(Seen::End { side, stamp, clean });
        self.pay_owed();
    }

    /// Whether the copy has understood everything that passed and is between two exchanges.
    pub fn is_at_rest(&self) -> bool {
        self.rest.load(Ordering::Acquire) == self.passed
    }

    fn tell(&mut self, chunk: Chunk) {
        let Some(to) = &self.to else { return };
        if !self.owed.is_empty() {
            return self.owe(Seen::Chunk(chunk));
        }
        match to.try_send(Seen::Chunk(chunk)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(seen)) => self.owe(seen),
            Err(mpsc::error::TrySendError::Closed(_)) => self.to = None,
        }
    }

    fn pay_owed(&mut self) {
        while let Some(seen) = self.owed.pop_front() {
            let Some(to) = &self.to else { return };
            match to.try_send(seen) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(seen)) => return self.owed.push_front(seen),
                Err(mpsc::error::TrySendError::Closed(_)) => {
                    self.owed.clear();
                    self.to = None;
                }
            }
        }
    }

    /// Remembers what could not be told. A client's merged chunk keeps its first stamp and a cloud's its
    /// last, so that a request never looks later, nor an answer earlier, than it was. Their bytes are let go.
    fn owe(&mut self, mut seen: Seen) {
        if let Seen::Chunk(chunk) = &mut seen {
            chunk.bytes = None;
        }
        if let (Some(Seen::Chunk(last)), Seen::Chunk(next)) = (self.owed.back_mut(), &seen)
            && last.side == next.side
        {
            last.len += next.len;
            if next.side == Side::Cloud {
                last.stamp = next.stamp;
            }
            return;
        }
        if self.owed.len() < OWED_MAX {
            self.owed.push_back(seen);
        } else {
            self.owed.clear();
            self.to = None;
        }
    }
}

/// The observer's end.
#[derive(Debug)]
pub struct Copy {
    from: mpsc::Receiver<Seen>,
    relay: mpsc::Receiver<Infallible>,
    taken: u64,
    rest: Arc<AtomicU64>,
}

impl Copy {
    /// The next thing seen; `None` when the relay is gone.
    ///
    /// `None` before the end of both sides was told means that the copy is lost from here on: the relay was
    /// cut short, or so much was dropped that not even that could be told. Dropping a future of this loses nothing.
    pub async fn next(&mut self) -> Option<Seen> {
        let seen = self.from.recv().await;
        if let Some(Seen::Chunk(chunk)) = &seen {
            self.taken += chunk.len as u64;
        }
        seen
    }

    /// Waits for the end of the relay, which may be long after the copy of it was lost.
    pub async fn relay_ended(&mut self) {
        // Nothing is ever sent: this answers when the other end is dropped.
        let _ = self.relay.recv().await;
    }

    /// Says that everything taken so far is understood and no exchange is open, so that a drain may
    /// close this connection. Whatever passes afterwards takes it back by itself.
    pub fn rest(&self) {
        self.rest.store(self.taken, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use hawser_api::Stamp;

    use super::{OWED_MAX, QUEUE_CHUNKS_MAX, Seen, Side, bounded};
    use crate::budget::Budget;

    fn at(counter: u64) -> Stamp {
        Stamp { counter, ..Stamp::default() }
    }

    #[tokio::test]
    async fn everything_told_arrives_in_order() {
        let (mut tee, mut copy) = bounded(Budget::new(1 << 20));
        tee.saw(Side::Client, at(1), b"GET");
        tee.saw(Side::Cloud, at(2), b"200");
        tee.ended(Side::Cloud, at(3), true);
        drop(tee);
        let Some(Seen::Chunk(first)) = copy.next().await else { panic!("a chunk") };
        assert!(!format!("{first:?}").contains("GET"), "what passed is not printed");
        assert_eq!(first.bytes.expect("captured").0.as_ref(), b"GET");
        let Some(Seen::Chunk(second)) = copy.next().await else { panic!("a chunk") };
        assert_eq!((second.side, second.stamp), (Side::Cloud, at(2)));
        assert!(matches!(copy.next().await, Some(Seen::End { side: Side::Cloud, clean: true, .. })));
        assert!(copy.next().await.is_none());
    }

    #[tokio::test]
    async fn what_passes_in_one_turn_is_told_together_and_nothing_else_is() {
        let budget = Budget::new(1 << 20);
        let (mut tee, mut copy) = bounded(budget.clone());
        let record = [7; 16 * 1024];
        for _ in 0..10 {
            tee.gather(Side::Client, at(1), &record);
        }
        tee.gather(Side::Client, at(2), b"later");
        tee.gather(Side::Cloud, at(2), b"200");
        tee.tell_gathered();
        let told = [(Side::Client, 1, 8 * record.len()), (Side::Client, 1, 2 * record.len())];
        for told in told.into_iter().chain([(Side::Client, 2, 5), (Side::Cloud, 2, 3)]) {
            let Some(Seen::Chunk(chunk)) = copy.next().await else { panic!("a chunk") };
            let len = chunk.bytes.as_ref().map(|(bytes, _)| bytes.len());
            assert_eq!((chunk.side, chunk.stamp.counter, len), (told.0, told.1, Some(chunk.len)));
            assert_eq!(chunk.len, told.2);
        }
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_turn_that_the_budget_ends_within_is_told_as_far_as_there_was_room() {
        let (mut tee, mut copy) = bounded(Budget::new(40 * 1024));
        for _ in 0..4 {
            tee.gather(Side::Client, at(1), &[7; 16 * 1024]);
        }
        tee.tell_gathered();
        let Some(Seen::Chunk(first)) = copy.next().await else { panic!("a chunk") };
        assert_eq!((first.len, first.bytes.is_some()), (32 * 1024, true));
        for _ in 0..2 {
            let Some(Seen::Chunk(dropped)) = copy.next().await else { panic!("a chunk") };
            assert_eq!((dropped.len, dropped.bytes.is_none()), (16 * 1024, true));
        }
    }

    #[tokio::test]
    async fn a_copy_that_is_lost_ends_at_once_and_hears_later_that_the_relay_ended() {
        let (mut tee, mut copy) = bounded(Budget::new(1 << 20));
        for n in 0..(QUEUE_CHUNKS_MAX + OWED_MAX + 1) as u64 {
            tee.saw(if n % 2 == 0 { Side::Client } else { Side::Cloud }, at(n), b"x");
        }
        for _ in 0..QUEUE_CHUNKS_MAX {
            assert!(copy.next().await.is_some());
        }
        assert!(copy.next().await.is_none(), "what was lost is known before the connection closes");
        let ended = tokio::spawn(async move { copy.relay_ended().await });
        tokio::task::yield_now().await;
        assert!(!ended.is_finished(), "the relay goes on");
        drop(tee);
        ended.await.expect("no panic");
    }

    #[tokio::test]
    async fn bytes_beyond_the_budget_are_counted_not_kept() {
        let budget = Budget::new(1000);
        let (mut tee, mut copy) = bounded(budget.clone());
        tee.saw(Side::Client, at(1), &[0; 800]);
        tee.saw(Side::Client, at(2), &[0; 800]);
        let Some(Seen::Chunk(first)) = copy.next().await else { panic!("a chunk") };
        let Some(Seen::Chunk(second)) = copy.next().await else { panic!("a chunk") };
        assert!(first.bytes.is_some());
        assert_eq!((second.len, second.bytes.is_none()), (800, true));
        drop(first);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_full_queue_becomes_one_dropped_chunk_with_its_length() {
        let (mut tee, mut copy) = bounded(Budget::new(1 << 20));
        for n in 0..QUEUE_CHUNKS_MAX as u64 + 3 {
            tee.saw(Side::Client, at(n), b"x");
        }
        for _ in 0..QUEUE_CHUNKS_MAX {
            copy.next().await.expect("queued");
        }
        tee.ended(Side::Client, at(999), true);
        let Some(Seen::Chunk(merged)) = copy.next().await else { panic!("the dropped ones") };
        assert_eq!((merged.len, merged.bytes.is_none(), merged.stamp), (3, true, at(QUEUE_CHUNKS_MAX as u64)));
        assert!(matches!(copy.next().await, Some(Seen::End { .. })));
    }

    #[tokio::test]
    async fn a_copy_that_cannot_be_told_ends_without_ends() {
        let (mut tee, mut copy) = bounded(Budget::new(1 << 20));
        for n in 0..(QUEUE_CHUNKS_MAX + 2 * OWED_MAX) as u64 {
            tee.saw(if n % 2 == 0 { Side::Client } else { Side::Cloud }, at(n), b"x");
        }
        tee.ended(Side::Client, at(9999), true);
        drop(tee);
        while let Some(seen) = copy.next().await {
            assert!(matches!(seen, Seen::Chunk(_)), "no end is told after a loss");
        }
    }

    #[tokio::test]
    async fn rest_is_taken_back_by_the_next_byte() {
        let (mut tee, mut copy) = bounded(Budget::new(1 << 20));
        assert!(tee.is_at_rest(), "nothing has passed yet");
        tee.saw(Side::Client, at(1), b"GET");
        assert!(!tee.is_at_rest());
        copy.next().await;
        copy.rest();
        assert!(tee.is_at_rest());
        tee.saw(Side::Cloud, at(2), b"2");
        assert!(!tee.is_at_rest());
    }
}

//! Blocks on their way to the store: only hashes are offered, only what the store wants travels.
//!
//! A block holds its part of the pod's budget until the store has it ("have", or the receipt of its put) or
//! until it is given up. Neither promises anything: only a record's receipt is durable. May not enter here:
//! anything that waits for room. What finds none is lost, and its body's [`Delivery`] says why.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hawser_api::GapReason;
use hawser_api::connect::Store;
use tokio::sync::{Notify, mpsc, watch};

use crate::budget::Budget;
use crate::cut::Block;
use crate::tally::Tally;

mod ledger;
mod stream;

/// Blocks that may wait to be looked at by the task that offers them; it is never busy for longer than a few
/// milliseconds, in which 10 Gbit/s make 80 default blocks.
const ASKED_MAX: usize = 1024;

/// Whether the blocks of one body have reached the store.
#[derive(Debug)]
pub struct Delivery {
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    waiting: usize,
    lost: Option<GapReason>,
}

impl Delivery {
    /// Of a body without blocks so far.
    pub fn new() -> Arc<Delivery> {
        Arc::new(Delivery { state: watch::Sender::default() })
    }

    /// The body cannot be delivered whole any more; the first reason stays.
    pub fn lose(&self, reason: GapReason) {
        self.state.send_if_modified(|state| {
            let first = state.lost.is_none();
            state.lost.get_or_insert(reason);
            first
        });
    }

    /// Why the body is lost, if it is.
    pub fn lost(&self) -> Option<GapReason> {
        self.state.borrow().lost
    }

    /// Waits until every block that was offered so far is at the store.
    ///
    /// # Errors
    /// The reason why one of them will not get there.
    pub async fn settled(&self) -> Result<(), GapReason> {
        let mut state = self.state.subscribe();
        let settled = state.wait_for(|state| state.waiting == 0 || state.lost.is_some()).await;
        match settled.map(|state| state.lost) {
            Ok(None) => Ok(()),
            Ok(Some(reason)) => Err(reason),
            Err(_) => Err(GapReason::StoreAway), // the sender is ours: cannot be
        }
    }
}

/// One block's place in its body's [`Delivery`]. Dropped without a word, it is lost.
#[derive(Debug)]
struct Ticket {
    delivery: Option<Arc<Delivery>>,
}

impl Ticket {
    fn new(delivery: &Arc<Delivery>) -> Ticket {
        delivery.state.send_modify(|state| state.waiting += 1);
        Ticket { delivery: Some(Arc::clone(delivery)) }
    }

    fn arrived(mut self) {
        if let Some(delivery) = self.delivery.take() {
            delivery.state.send_modify(|state| state.waiting -= 1);
        }
    }

    /// Whether its body is lost for another reason.
    fn is_moot(&self) -> bool {
        self.delivery.as_ref().is_none_or(|delivery| delivery.lost().is_some())
    }

    fn lost(mut self, reason: GapReason) {
        if let Some(delivery) = self.delivery.take() {
            delivery.lose(reason);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(delivery) = self.delivery.take() {
            delivery.lose(GapReason::StoreAway);
        }
    }
}

/// A block, and whom its fate concerns.
#[derive(Debug)]
struct Asked {
    block: Block,
    ticket: Ticket,
}

/// The way to the store for the blocks of one binding.
#[derive(Debug)]
pub struct Offers {
    to: mpsc::Sender<Asked>,
    shared: Arc<Shared>,
}

/// What the task that offers and those who give it blocks both know.
#[derive(Debug)]
struct Shared {
    /// There is a stream to the store.
    connected: AtomicBool,
    /// The store has been away for longer than blocks are held for it.
    away: AtomicBool,
    /// A body has ended: do not wait for more blocks to offer together.
    hurry: Notify,
    /// A body is lost: blocks of it need not go.
    shed: Notify,
    budget: Arc<Budget>,
    tally: Arc<Tally>,
}

impl Offers {
    /// Begins to offer to `store`; the second value is the work, which never ends by itself. Dropped, it loses
    /// the blocks on their way.
    pub fn begin(store: Store, budget: Arc<Budget>, tally: Arc<Tally>) -> (Offers, impl Future<Output = ()> + Send) {
        let (to, asked) = mpsc::channel(ASKED_MAX);
        let (connected, away) = (AtomicBool::new(false), AtomicBool::new(false));
        let shared = Arc::new(Shared { connected, away, hurry: Notify::new(), shed: Notify::new(), budget, tally });
        (Offers { to, shared: Arc::clone(&shared) }, stream::keep(store, asked, shared))
    }

    /// Sends `block` on its way as a part of `delivery`. Never waits.
    pub fn add(&self, block: Block, delivery: &Arc<Delivery>) {
        if self.is_away() {
            return delivery.lose(GapReason::StoreAway);
        }
        let ticket = Ticket::new(delivery);
        if let Err(error) = self.to.try_send(Asked { block, ticket }) {
            let (asked, reason) = match error {
                mpsc::error::TrySendError::Full(asked) => (asked, GapReason::Overflow),
                mpsc::error::TrySendError::Closed(asked) => (asked, GapReason::StoreAway),
            };
            asked.ticket.lost(reason);
        }
    }

    /// A body has ended: what was added is offered at once.
    pub fn hurry(&self) {
        self.shared.hurry.notify_one();
    }

    /// A body is lost: its blocks that are not on their way yet make room for those of others.
    pub fn shed(&self) {
        self.shared.shed.notify_one();
    }

    /// Why content finds no room: the store is slower than the pod, or not there.
    pub fn why_tight(&self) -> GapReason {
        match self.shared.connected.load(Ordering::Relaxed) {
            true => GapReason::Overflow,
            false => GapReason::StoreAway,
        }
    }

    /// Whether blocks are given up at once because the store has been away for some time.
    pub fn is_away(&self) -> bool {
        self.shared.away.load(Ordering::Relaxed)
    }
}

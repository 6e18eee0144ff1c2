//! Which blocks were offered, which are wanted, which must be offered again: the rules, without any I/O.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hawser_api::block::OFFER_BLOCKS_MAX;
use hawser_api::{BlockHash, GapReason, v1};

use super::{Asked, Ticket};
use crate::cut::Block;

/// Bytes of content that are enough for an offer: the answer to 32 default blocks is worth a message.
const OFFER_LEN: usize = 4 * 1024 * 1024;

/// How long a block waits for others to be offered with.
const OFFER_DELAY: Duration = Duration::from_millis(5);

/// Offers whose blocks are not all settled, and the bytes of those blocks. Enough to fill 5 Gbit/s over 10 ms; further
/// blocks wait here, where they can still be given up.
const OFFERS_OPEN_MAX: usize = 8;
const OFFERED_LEN_MAX: usize = 2 * OFFER_LEN;

/// The same while the store has what it is offered: its answers cost it no room and us no traffic, and the time that
/// one takes on a busy machine is all that keeps blocks here. Two thirds of the default budget, so that what it takes
/// in the meantime finds room.
const KNOWN_LEN_MAX: usize = 5 * OFFER_LEN;

/// How often a block that the store has no room for is offered again, with pauses that double from
/// [`LATER_DELAY`] to [`LATER_DELAY_MAX`]: 16 s in all, long enough for a sweep of the store to free room.
const LATER_MAX: u32 = 8;
const LATER_DELAY: Duration = Duration::from_millis(100);
const LATER_DELAY_MAX: Duration = Duration::from_secs(5);

/// Bodies that wait for the same block at the same time; more can only be a flood of one content.
const TICKETS_MAX: usize = 4096;

/// The store's answer to an offered block (`Answer.states`).
const HAVE: u8 = 0;
const WANT: u8 = 1;
const LATER: u8 = 2;

/// An answer that fits no offer: the stream is of no more use.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Confused;

/// All blocks on their way. Bounded by the budget, which every block holds a part of.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    open: HashMap<BlockHash, Open>,
    /// To be offered, oldest first.
    fresh: VecDeque<BlockHash>,
    fresh_len: usize,
    fresh_since: Option<Instant>,
    offers: BTreeMap<u64, Offered>,
    /// Bytes of the blocks that were offered and are not settled.
    offered_len: usize,
    /// To be put: the offer, the block's place in it.
    wanted: VecDeque<(u64, u32)>,
    later: BinaryHeap<Reverse<(Instant, BlockHash)>>,
    last_offer: u64,
    /// The last answer was nothing but "have".
    known: bool,
}

/// A block, once, however many bodies have it.
#[derive(Debug)]
struct Open {
    block: Block,
    tickets: Vec<Ticket>,
    tries: u32,
}

#[derive(Debug)]
struct Offered {
    hashes: Vec<BlockHash>,
    unsettled: usize,
}

/// What one answer said, for the count.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) have: usize,
    pub(super) want: usize,
    pub(super) later: usize,
}

impl Ledger {
    /// Takes a block in. One that is on its way already is not offered twice, and its bytes are let go.
    pub(super) fn add(&mut self, Asked { block, ticket }: Asked, now: Instant) {
        let hash = block.hash();
        if let Some(open) = self.open.get_mut(&hash) {
            return match open.tickets.len() < TICKETS_MAX {
                true => open.tickets.push(ticket),
                false => ticket.lost(GapReason::Overflow),
            };
        }
        self.open.insert(hash, Open { block, tickets: vec![ticket], tries: 0 });
        self.refresh(hash, now);
    }

    /// The next offer, if there is reason to make one now: many blocks, an old one, or `hurry`.
    pub(super) fn next_offer(&mut self, now: Instant, hurry: bool) -> Option<v1::Offer> {
        while self.later.peek().is_some_and(|Reverse((due, _))| *due <= now) {
            if let Some(Reverse((_, hash))) = self.later.pop() {
                self.refresh(hash, now);
            }
        }
        let since = self.fresh_since?;
        let many = self.fresh.len() >= OFFER_BLOCKS_MAX || self.fresh_len >= OFFER_LEN;
        if !self.may_offer() || !(many || hurry || since + OFFER_DELAY <= now) {
            return None;
        }
        let hashes: Vec<_> = self.fresh.drain(..self.fresh.len().min(OFFER_BLOCKS_MAX)).collect();
        let length: usize = hashes.iter().filter_map(|hash| self.open.get(hash)).map(|open| open.block.len()).sum();
        self.fresh_len -= length;
        self.offered_len += length;
        if self.fresh.is_empty() {
            self.fresh_since = None;
        }
        let mut names = BytesMut::with_capacity(hashes.len() * BlockHash::LEN);
        hashes.iter().for_each(|hash| names.extend_from_slice(hash.as_bytes()));
        self.last_offer += 1;
        self.offers.insert(self.last_offer, Offered { unsettled: hashes.len(), hashes });
        Some(v1::Offer { offer: self.last_offer, hashes: names.freeze(), length: length as u64 })
    }

    /// The store's answer to an offer. What it wants is to be put; what it has no room for is offered again
    /// later, unless `scarce` says that the pod needs the room for other things.
    pub(super) fn answer(&mut self, answer: &v1::Answer, now: Instant, scarce: bool) -> Result<Answered, Confused> {
        let offered = self.offers.get(&answer.offer).ok_or(Confused)?;
        if offered.hashes.len() != answer.states.len() {
            return Err(Confused);
        }
        let hashes = offered.hashes.clone();
        let mut answered = Answered::default();
        for (index, (hash, state)) in (0..).zip(hashes.into_iter().zip(answer.states.iter())) {
            match *state {
                HAVE => {
                    answered.have += 1;
                    self.settle(answer.offer, hash);
                }
                WANT => {
                    answered.want += 1;
                    self.wanted.push_back((answer.offer, index));
                }
                LATER => {
                    answered.later += 1;
                    self.put_off(answer.offer, hash, GapReason::StoreFull, now, scarce);
                }
                _ => return Err(Confused),
            }
        }
        self.known = answered.have == answer.states.len();
        Ok(answered)
    }

    /// The frames of the next block that the store wants.
    pub(super) fn next_put(&mut self) -> Vec<v1::Put> {
        while let Some((offer, index)) = self.wanted.pop_front() {
            let hash = self.offers.get(&offer).and_then(|offered| offered.hashes.get(index as usize));
            let Some(open) = hash.and_then(|hash| self.open.get(hash)) else { continue };
            let frames: Vec<Bytes> = open.block.frames();
            let last = frames.len().saturating_sub(1);
            let put = |(n, data)| v1::Put { offer, index, data, last: n == last };
            return frames.into_iter().enumerate().map(put).collect();
        }
        Vec::new()
    }

    /// The store took a block, or says why not: then it is offered again, as the bytes may have suffered on the
    /// way or room may come back.
    pub(super) fn receipt(&mut self, receipt: &v1::PutReceipt, now: Instant, scarce: bool) -> Result<(), Confused> {
        let offered = self.offers.get(&receipt.offer).ok_or(Confused)?;
        let hash = *offered.hashes.get(receipt.index as usize).ok_or(Confused)?;
        match receipt.refused.is_empty() {
            true => self.settle(receipt.offer, hash),
            false => self.put_off(receipt.offer, hash, GapReason::MissingBlocks, now, scarce),
        }
        Ok(())
    }

    /// When there will be something to offer although nothing happens.
    pub(super) fn due(&self) -> Option<Instant> {
        let fresh = self.fresh_since.filter(|_| self.may_offer()).map(|since| since + OFFER_DELAY);
        let later = self.later.peek().map(|Reverse((due, _))| *due);
        [fresh, later].into_iter().flatten().min()
    }

    /// Lets go of blocks that were not offered yet and that nobody waits for any more: their bodies are lost.
    pub(super) fn shed(&mut self) {
        let (open, fresh_len) = (&mut self.open, &mut self.fresh_len);
        self.fresh.retain(|hash| {
            let moot = open.get(hash).is_some_and(|open| open.tickets.iter().all(Ticket::is_moot));
            if moot && let Some(gone) = open.remove(hash) {
                *fresh_len -= gone.block.len();
            }
            !moot
        });
        if self.fresh.is_empty() {
            self.fresh_since = None;
        }
    }

    /// The stream is gone: everything is to be offered again on the next.
    pub(super) fn start_over(&mut self, now: Instant) {
        self.offers.clear();
        self.known = false;
        self.offered_len = 0;
        self.wanted.clear();
        self.later.clear();
        self.fresh.clear();
        self.fresh_len = 0;
        self.fresh_since = None;
        let hashes: Vec<_> = self.open.keys().copied().collect();
        for hash in hashes {
            self.refresh(hash, now);
        }
    }

    /// No block gets there.
    pub(super) fn give_up(&mut self, reason: GapReason) {
        for ticket in std::mem::take(self).open.into_values().flat_map(|open| open.tickets) {
            ticket.lost(reason);
        }
    }

    fn may_offer(&self) -> bool {
        let len_max = if self.known { KNOWN_LEN_MAX } else { OFFERED_LEN_MAX };
        self.offers.len() < OFFERS_OPEN_MAX && self.offered_len < len_max
    }

    fn refresh(&mut self, hash: BlockHash, now: Instant) {
        let Some(open) = self.open.get(&hash) else { return };
        self.fresh.push_back(hash);
        self.fresh_len += open.block.len();
        self.fresh_since.get_or_insert(now);
    }

    fn settle(&mut self, offer: u64, hash: BlockHash) {
        self.leave(offer, &hash);
        if let Some(open) = self.open.remove(&hash) {
            open.tickets.into_iter().for_each(Ticket::arrived);
        }
    }

    fn put_off(&mut self, offer: u64, hash: BlockHash, reason: GapReason, now: Instant, scarce: bool) {
        self.leave(offer, &hash);
        let Some(open) = self.open.get_mut(&hash) else { return };
        if scarce || open.tries >= LATER_MAX {
            let lost = self.open.remove(&hash);
            return lost.into_iter().flat_map(|open| open.tickets).for_each(|ticket| ticket.lost(reason));
        }
        let pause = LATER_DELAY.saturating_mul(1 << open.tries).min(LATER_DELAY_MAX);
        open.tries += 1;
        self.later.push(Reverse((now + pause, hash)));
    }

    /// One block of an offer is settled.
    fn leave(&mut self, offer: u64, hash: &BlockHash) {
        self.offered_len -= self.open.get(hash).map_or(0, |open| open.block.len());
        if let Some(offered) = self.offers.get_mut(&offer) {
            offered.unsettled = offered.unsettled.saturating_sub(1);
            if offered.unsettled == 0 {
                self.offers.remove(&offer);
            }
        }
    }
}

#[cfg(test)]
mod tests;

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use hawser_api::BlockSize;

use super::super::Delivery;
use super::*;
use crate::budget::Budget;
use crate::cut::Cutter;

const BLOCK: usize = 16 * 1024;

struct Desk {
    ledger: Ledger,
    delivery: Arc<Delivery>,
    budget: Arc<Budget>,
    now: Instant,
}

impl Desk {
    fn new() -> Desk {
        let budget = Budget::new(1 << 30);
        Desk { ledger: Ledger::default(), delivery: Delivery::new(), budget, now: Instant::now() }
    }

    /// Cuts and adds blocks whose content is these bytes, each a block's length of one.
    fn add(&mut self, contents: impl IntoIterator<Item = u16>) {
        let mut cutter = Cutter::new(BlockSize::MIN, Arc::clone(&self.budget));
        let mut blocks = Vec::new();
        for content in contents {
            let bytes = content.to_le_bytes().repeat(BLOCK / 2);
            cutter.push(Bytes::from(bytes), &mut blocks).unwrap();
        }
        for block in blocks {
            self.ledger.add(Asked { block, ticket: Ticket::new(&self.delivery) }, self.now);
        }
    }

    fn offer(&mut self) -> Option<v1::Offer> {
        self.ledger.next_offer(self.now, true)
    }

    fn answer(&mut self, offer: u64, states: &[u8]) -> Result<Answered, Confused> {
        self.ledger.answer(&v1::Answer { offer, states: states.to_vec().into() }, self.now, false)
    }

    fn receipt(&mut self, offer: u64, index: u32, refused: &str) {
        let receipt = v1::PutReceipt { offer, index, refused: refused.into() };
        self.ledger.receipt(&receipt, self.now, false).unwrap();
    }

    fn state(&self) -> (usize, Option<GapReason>) {
        let state = self.delivery.state.borrow();
        (state.waiting, state.lost)
    }
}

#[test]
fn only_wanted_blocks_travel_and_each_is_let_go_when_it_is_there() {
    let mut desk = Desk::new();
    desk.add([1, 2, 3]);
    let offer = desk.offer().unwrap();
    assert_eq!((offer.offer, offer.hashes.len(), offer.length), (1, 96, 3 * BLOCK as u64));
    desk.answer(1, &[HAVE, WANT, HAVE]).unwrap();
    assert_eq!(desk.state(), (1, None));
    let frames = desk.ledger.next_put();
    assert_eq!(frames.len(), 1);
    assert_eq!((frames[0].offer, frames[0].index, frames[0].last), (1, 1, true));
    assert_eq!(frames[0].data.as_ref(), 2u16.to_le_bytes().repeat(BLOCK / 2));
    assert!(desk.ledger.next_put().is_empty());
    desk.receipt(1, 1, "");
    assert_eq!(desk.state(), (0, None));
    assert!(desk.ledger.open.is_empty() && desk.ledger.offers.is_empty());
}

#[test]
fn a_block_that_is_on_its_way_is_not_offered_again() {
    let mut desk = Desk::new();
    desk.add([0; 100]);
    let offer = desk.offer().unwrap();
    assert_eq!(offer.hashes.len(), 32);
    desk.answer(1, &[WANT]).unwrap();
    desk.add([0; 10]);
    assert!(desk.offer().is_none());
    assert_eq!(desk.state(), (110, None));
    desk.receipt(1, 0, "");
    assert_eq!(desk.state(), (0, None));
}

#[test]
fn an_offer_is_made_for_many_blocks_at_once_or_after_a_moment() {
    let mut desk = Desk::new();
    desk.add([1]);
    assert!(desk.ledger.next_offer(desk.now, false).is_none(), "more may come");
    assert_eq!(desk.ledger.due(), Some(desk.now + OFFER_DELAY));
    assert!(desk.ledger.next_offer(desk.now + OFFER_DELAY, false).is_some());
    desk.add(2..300);
    let offer = desk.ledger.next_offer(desk.now, false).unwrap();
    assert_eq!(offer.hashes.len(), OFFER_BLOCKS_MAX * 32);
}

#[test]
fn few_offers_are_open_at_a_time() {
    let mut desk = Desk::new();
    for n in 0..OFFERS_OPEN_MAX as u16 + 1 {
        desk.add([n]);
        assert_eq!(desk.offer().is_some(), usize::from(n) < OFFERS_OPEN_MAX, "{n}");
    }
    assert_eq!(desk.ledger.due(), None, "nothing to do until an answer comes");
    desk.answer(1, &[HAVE]).unwrap();
    assert!(desk.offer().is_some());
}

#[test]
fn more_is_on_offer_at_once_while_the_store_has_all_of_it() {
    let per_offer = (OFFER_LEN / BLOCK) as u16;
    let mut desk = Desk::new();
    let mut next = 0;
    let mut offered = |desk: &mut Desk| {
        desk.add(next..next + per_offer);
        next += per_offer;
        desk.ledger.next_offer(desk.now, false).is_some()
    };
    assert_eq!(
        [offered(&mut desk), offered(&mut desk), offered(&mut desk)],
        [true, true, false],
        "nothing is known yet"
    );
    desk.answer(1, &vec![HAVE; per_offer.into()]).unwrap();
    assert!(desk.offer().is_some());
    assert_eq!([offered(&mut desk), offered(&mut desk), offered(&mut desk)], [true, true, true]);
    assert!(!offered(&mut desk), "five offers");
    let mut states = vec![HAVE; per_offer.into()];
    states[0] = WANT;
    desk.answer(2, &states).unwrap();
    assert!(desk.offer().is_none(), "what is wanted travels first");
}

#[test]
fn a_store_without_room_is_asked_again_with_growing_pauses_and_then_it_is_a_gap() {
    let mut desk = Desk::new();
    desk.add([1]);
    let mut pauses = Vec::new();
    while let Some(offer) = desk.offer() {
        desk.answer(offer.offer, &[LATER]).unwrap();
        assert!(desk.offer().is_none(), "not at once");
        let Some(due) = desk.ledger.due() else { break };
        pauses.push(due - desk.now);
        desk.now = due;
    }
    assert_eq!(pauses.len(), LATER_MAX as usize);
    assert!(pauses.is_sorted() && pauses[0] == LATER_DELAY && pauses[7] == LATER_DELAY_MAX);
    assert_eq!(desk.state().1, Some(GapReason::StoreFull));
    assert!(desk.ledger.open.is_empty());
}

#[test]
fn without_budget_to_wait_with_a_full_store_is_a_gap_at_once() {
    let mut desk = Desk::new();
    desk.add([1]);
    desk.offer().unwrap();
    desk.ledger.answer(&v1::Answer { offer: 1, states: vec![LATER].into() }, desk.now, true).unwrap();
    assert_eq!(desk.state().1, Some(GapReason::StoreFull));
}

#[test]
fn a_refused_put_is_offered_again() {
    let mut desk = Desk::new();
    desk.add([1]);
    desk.offer().unwrap();
    desk.answer(1, &[WANT]).unwrap();
    desk.ledger.next_put();
    desk.receipt(1, 0, "wrong hash");
    desk.now += LATER_DELAY;
    let offer = desk.offer().unwrap();
    desk.answer(offer.offer, &[HAVE]).unwrap();
    assert_eq!(desk.state(), (0, None));
}

#[test]
fn blocks_wait_until_those_on_their_way_are_settled() {
    let mut desk = Desk::new();
    let many = OFFERED_LEN_MAX / BLOCK;
    desk.add(0..many as u16 + 10);
    let mut offers = Vec::new();
    while let Some(offer) = desk.offer() {
        offers.push((offer.offer, offer.hashes.len() / 32));
    }
    assert_eq!(offers.iter().map(|(_, count)| count).sum::<usize>(), many);
    for (offer, count) in offers {
        desk.answer(offer, &vec![HAVE; count]).unwrap();
    }
    assert_eq!(desk.ledger.offered_len, 0);
    assert_eq!(desk.offer().unwrap().hashes.len(), 10 * 32);
}

#[test]
fn a_lost_body_makes_room_for_others() {
    let mut desk = Desk::new();
    desk.add([1, 2]);
    desk.offer().unwrap();
    let lost = std::mem::replace(&mut desk.delivery, Delivery::new());
    let delivery = std::mem::replace(&mut desk.delivery, Arc::clone(&lost));
    desk.add([3, 4]);
    desk.delivery = delivery;
    desk.add([4, 5]);
    lost.lose(GapReason::Overflow);
    desk.ledger.shed();
    assert_eq!(desk.offer().unwrap().hashes.len(), 2 * 32, "4 is wanted by another body too");
    desk.answer(1, &[HAVE, HAVE]).unwrap();
    desk.answer(2, &[HAVE, HAVE]).unwrap();
    assert_eq!(desk.state(), (0, None));
    assert!(desk.ledger.open.is_empty());
}

#[test]
fn after_a_break_everything_is_offered_anew() {
    let mut desk = Desk::new();
    desk.add([1, 2, 3]);
    desk.offer().unwrap();
    desk.answer(1, &[WANT, LATER, HAVE]).unwrap();
    desk.ledger.start_over(desk.now);
    assert!(desk.ledger.next_put().is_empty());
    let offer = desk.offer().unwrap();
    assert_eq!((offer.offer, offer.hashes.len()), (2, 64), "the one that is there is not offered");
    desk.answer(2, &[HAVE, HAVE]).unwrap();
    assert_eq!(desk.state(), (0, None));
}

#[test]
fn an_answer_that_fits_no_offer_confuses() {
    let mut desk = Desk::new();
    desk.add([1]);
    desk.offer().unwrap();
    assert_eq!(desk.answer(9, &[HAVE]), Err(Confused));
    assert_eq!(desk.answer(1, &[HAVE, HAVE]), Err(Confused));
    assert_eq!(desk.answer(1, &[7]), Err(Confused));
}

#[test]
fn given_up_blocks_are_lost_with_the_reason() {
    let mut desk = Desk::new();
    desk.add([1, 2]);
    desk.ledger.give_up(GapReason::StoreAway);
    assert_eq!(desk.state().1, Some(GapReason::StoreAway));
    assert_eq!(desk.budget.used(), 0);
}

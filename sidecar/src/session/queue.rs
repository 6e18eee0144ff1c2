//! What one session has to tell and has not been told to be durable: numbered, in order, bounded.
//!
//! A message is a *letter* until the store has receipted it. While the store is away, or so slow that it has not
//! even receipted an operation's intent, every letter that matters is kept in the journal as well, in a short form;
//! a letter that finds no room here is kept there alone.
//! No I/O but the journal's, no clock, no lock: [`super::Session`] holds one behind a mutex.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use hawser_api::v1;
use hawser_api::v1::control_up::Message;

use crate::gap;
use crate::journal::{self, Entry, Journal, Kept, Key};

/// Bytes of letters held in full. Beyond, an outcome is kept in the journal alone and what is only told at
/// best effort is not told: a put whose inline content is dropped here becomes a gap `StoreAway`.
const LETTERS_LEN_MAX: usize = 4 * 1024 * 1024;

/// Letters held at once, in full or as a reference to the journal: bounds what empty letters cost.
const LETTERS_MAX: usize = 16 * 1024;

/// What a letter costs in memory beyond the length of its message on the wire.
const LETTER_OVERHEAD: usize = 1024;

/// Entries of earlier lives that are told again at the same time: so many are copied out of the journal.
const REPLAYS_MAX: usize = 64;

/// The letters of one session.
#[derive(Debug)]
pub(super) struct Queue {
    session: [u8; 16],
    /// As `NAMESPACE/NAME`.
    binding: String,
    journal: Arc<Journal>,
    letters: BTreeMap<u64, Letter>,
    len: usize,
    next: u64,
    /// The first sequence that was not sent on the present connection.
    cursor: u64,
    speaking: bool,
    /// Operations announced so far.
    operations: u64,
    /// Announced operations whose outcome is not durable, each with the sequence of its intent.
    open: BTreeMap<u64, u64>,
    replaying: BTreeSet<Key>,
}

#[derive(Debug)]
struct Letter {
    /// `None`: in the journal alone.
    message: Option<Message>,
    len: usize,
    operation: u64,
    /// On any connection.
    sent: bool,
    /// The entry of an earlier life that it tells again.
    replays: Option<Key>,
}

/// The store's word on a letter.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    /// It is durable, as a record or as a gap.
    Taken,
    /// The store will not have it.
    Refused(String),
}

impl Queue {
    pub(super) fn new(session: [u8; 16], binding: String, journal: Arc<Journal>) -> Queue {
        Queue {
            session,
            binding,
            journal,
            letters: BTreeMap::new(),
            len: 0,
            next: 1,
            cursor: 1,
            speaking: false,
            operations: 0,
            open: BTreeMap::new(),
            replaying: BTreeSet::new(),
        }
    }

    /// Announces an operation and numbers it. Without room the intent is not told; its outcome still is.
    pub(super) fn announce(&mut self, intent: v1::Intent) -> u64 {
        self.operations += 1;
        let operation = self.operations;
        let message = Message::Intent(v1::Intent { operation, ..intent });
        if self.has_room(&message, LETTERS_LEN_MAX) {
            self.open.insert(operation, self.next);
            self.put(message, operation, None);
        }
        operation
    }

    /// Tells something at best effort: nobody misses it much. Returns whether it will be told.
    pub(super) fn mention(&mut self, message: Message) -> bool {
        let mentioned = self.speaking && self.has_room(&message, LETTERS_LEN_MAX / 2);
        if mentioned {
            self.put(message, 0, None);
        }
        mentioned
    }

    /// Tells the keys of an announced operation on many, once they are known: should it be lost, they alone are in
    /// doubt. At best effort, as the announcement stands.
    pub(super) fn specify(&mut self, intent: v1::Intent) {
        let Some(announced) = self.open.get(&intent.operation) else { return };
        if let Some(letter) = self.letters.get_mut(announced).filter(|letter| !letter.sent) {
            let message = Message::Intent(intent);
            let len = len_of(&message);
            if self.len - letter.len + len <= LETTERS_LEN_MAX {
                self.len = self.len - letter.len + len;
                (letter.message, letter.len) = (Some(message), len);
            }
            return;
        }
        let (operation, message) = (intent.operation, Message::Intent(intent));
        if self.has_room(&message, LETTERS_LEN_MAX / 2) {
            self.put(message, operation, None);
        }
    }

    /// Tells an outcome: it stays here or in the journal until the store has it.
    pub(super) fn tell(&mut self, mut message: Message) {
        let Some((operation, intent_is_there)) = self.end_intent(&mut message) else { return };
        let sequence = self.next;
        let kept = gap::kept_form(&message);
        if self.has_room(&message, LETTERS_LEN_MAX) {
            self.put(message, operation, None);
            // An intent that the store has becomes a gap by itself should this process die. One that is still on its
            // way, behind a store that is stuck, dies with it.
            if !self.speaking || !intent_is_there {
                self.keep(sequence, kept);
            }
        } else if kept.is_some() {
            self.insert(Letter { message: None, len: LETTER_OVERHEAD, operation, sent: false, replays: None });
            self.keep(sequence, kept);
        } else {
            // A part without room: its Complete will find it missing. What matters is that the intent ends.
            let short = Message::Abandoned(v1::Abandoned { operation });
            if self.letters.len() < LETTERS_MAX {
                self.put(short, operation, None);
            } else {
                self.open.remove(&operation);
            }
        }
    }

    /// The next letter for the present connection.
    pub(super) fn next_letter(&mut self) -> Option<v1::ControlUp> {
        while self.speaking {
            let (&sequence, letter) = self.letters.range_mut(self.cursor..).next()?;
            self.cursor = sequence + 1;
            letter.sent = true;
            let message = letter.message.clone().or_else(|| {
                let outcome = self.journal.get(&Key { session: self.session, sequence })?;
                Some(gap::told_again(outcome))
            });
            if !message.as_ref().is_some_and(awaits_receipt) && !matches!(message, Some(Message::Intent(_))) {
                self.remove(sequence); // told once, at best effort; or gone from the journal by a fold
            }
            if message.is_some() {
                return Some(v1::ControlUp { sequence, message });
            }
        }
        None
    }

    /// The store's word on the letter `sequence`. A refused outcome is given back: its operation stays open and its
    /// entry kept until something else has been told of it and [`Queue::forget`] is called.
    pub(super) fn receipt(&mut self, sequence: u64, verdict: &Verdict) -> Option<Message> {
        let letter = self.remove(sequence);
        // The store reads in order: it has every intent before this one.
        let passed: Vec<u64> =
            self.letters.range(..sequence).filter(|(_, letter)| is_sent_intent(letter)).map(|(s, _)| *s).collect();
        for intent in passed {
            self.remove(intent);
        }
        let Some(letter) = letter.filter(|letter| letter.message.as_ref().is_none_or(awaits_receipt)) else {
            self.forget(sequence);
            return None;
        };
        if let Some(key) = letter.replays {
            self.journal.done(&key);
            self.replaying.remove(&key);
            self.replay();
        }
        let refused = letter.message.filter(|_| matches!(verdict, Verdict::Refused(_)));
        if refused.is_none() {
            self.open.remove(&letter.operation);
            self.forget(sequence);
        }
        refused
    }

    /// Nothing is owed any more for the letter `sequence`.
    pub(super) fn forget(&mut self, sequence: u64) {
        self.journal.done(&Key { session: self.session, sequence });
    }

    /// The store listens: everything that is not receipted is told (again). It has what came up to
    /// `last_sequence`; outcomes among that are told all the same, as only a receipt says how they ended.
    pub(super) fn welcomed(&mut self, last_sequence: u64) {
        let known = (Bound::Unbounded, Bound::Included(last_sequence));
        let known: Vec<u64> =
            self.letters.range(known).filter(|(_, letter)| is_sent_intent(letter)).map(|(s, _)| *s).collect();
        for intent in known {
            self.remove(intent);
        }
        self.speaking = true;
        self.cursor = 1;
        self.replay();
    }

    /// The store went away: from here on the journal has what is told.
    pub(super) fn fell_silent(&mut self) {
        if std::mem::take(&mut self.speaking) {
            self.keep_untold();
        }
    }

    /// Keeps what is not receipted: nobody may be there to tell it later.
    pub(super) fn keep_untold(&mut self) {
        let untold: Vec<_> = self
            .letters
            .iter()
            .filter(|(_, letter)| letter.replays.is_none())
            .filter_map(|(sequence, letter)| Some((*sequence, gap::kept_form(letter.message.as_ref()?)?)))
            .collect();
        for (sequence, kept) in untold {
            self.keep(sequence, Some(kept));
        }
    }

    /// Operations whose intents the store must go on believing in.
    pub(super) fn open_operations(&self) -> Vec<u64> {
        self.open.keys().copied().collect()
    }

    /// Letters whose receipt is awaited.
    pub(super) fn awaited(&self) -> usize {
        self.letters.values().filter(|letter| letter.message.as_ref().is_none_or(awaits_receipt)).count()
    }

    /// Whether nothing is left that only this process knows.
    pub(super) fn is_settled(&self) -> bool {
        self.awaited() == 0 || (!self.speaking && self.journal.is_on_disk())
    }

    /// Takes an ended operation's number out of `message` where its intent never left, and the intent with it.
    /// Gives the number that is left, and whether the store is known to have the intent; `None` when nothing is
    /// left to tell.
    fn end_intent(&mut self, message: &mut Message) -> Option<(u64, bool)> {
        let number = match message {
            Message::Recorded(recorded) => &mut recorded.operation,
            Message::Gap(gap) => &mut gap.operation,
            Message::Abandoned(abandoned) => &mut abandoned.operation,
            _ => return Some((0, false)),
        };
        let operation = *number;
        let letter = self.open.get(&operation).map(|intent| self.letters.get(intent));
        let (never_left, is_there) = match letter {
            Some(Some(letter)) => (!letter.sent, false),
            Some(None) => (false, true), // receipted
            None => (operation != 0, false),
        };
        if !never_left {
            return Some((operation, is_there));
        }
        *number = 0;
        if let Some(intent) = self.open.remove(&operation) {
            self.remove(intent);
        }
        (!matches!(message, Message::Abandoned(_))).then_some((0, false))
    }

    fn replay(&mut self) {
        if !self.speaking || self.replaying.len() >= REPLAYS_MAX {
            return;
        }
        let count = REPLAYS_MAX - self.replaying.len();
        let replaying = &self.replaying;
        let left = self.journal.left_by_others(&self.binding, &self.session, count, |key| replaying.contains(key));
        for (key, outcome) in left {
            self.replaying.insert(key);
            self.put(Message::Journalled(journal::message(&key, outcome)), 0, Some(key));
        }
    }

    fn has_room(&self, message: &Message, len_max: usize) -> bool {
        self.len + len_of(message) <= len_max && self.letters.len() < LETTERS_MAX
    }

    fn put(&mut self, message: Message, operation: u64, replays: Option<Key>) {
        let len = len_of(&message);
        self.insert(Letter { message: Some(message), len, operation, sent: false, replays });
    }

    fn insert(&mut self, letter: Letter) {
        self.len += letter.len;
        self.letters.insert(self.next, letter);
        self.next += 1;
    }

    fn remove(&mut self, sequence: u64) -> Option<Letter> {
        let letter = self.letters.remove(&sequence)?;
        self.len -= letter.len;
        Some(letter)
    }

    fn keep(&mut self, sequence: u64, kept: Option<v1::journalled::Outcome>) {
        let Some(outcome) = kept else { return };
        let entry = Entry { binding: self.binding.clone(), outcome };
        if let Kept::Folded(gone) = self.journal.keep(Key { session: self.session, sequence }, entry) {
            // Letters that only the journal held are now told by the fold.
            for key in gone {
                if self.letters.get(&key.sequence).is_some_and(|letter| letter.message.is_none()) {
                    let operation = self.remove(key.sequence).map_or(0, |letter| letter.operation);
                    self.open.remove(&operation);
                }
            }
        }
    }
}

fn is_sent_intent(letter: &Letter) -> bool {
    letter.sent && matches!(letter.message, Some(Message::Intent(_)))
}

/// Whether the store answers such a message with a receipt that matters.
fn awaits_receipt(message: &Message) -> bool {
    matches!(
        message,
        Message::Recorded(_)
            | Message::Abandoned(_)
            | Message::Gap(_)
            | Message::GapOpen(_)
            | Message::GapClose(_)
            | Message::Journalled(_)
    )
}

fn len_of(message: &Message) -> usize {
    message.encoded_len() + LETTER_OVERHEAD
}

#[cfg(test)]
mod tests;

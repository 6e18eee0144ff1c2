//! What the store has to be told and could not be: outcomes and gaps, kept through the store's absence and
//! through the death of this process, in a small file in the pod's memory volume.
//!
//! It holds no content and names none: blocks that never reached the store cannot be named. Every entry is a
//! message as it will be replayed, under the session and the sequence that it had. May not enter here: content;
//! anything that waits for the store; a file that grows past [`JOURNAL_LEN_MAX`].

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hawser_api::v1;
use hawser_api::v1::journalled::Outcome;

use crate::gap;

mod file;

use file::{File, Line};

/// Bytes that the journal may take in its folder at any moment, the moment of rewriting included.
pub const JOURNAL_LEN_MAX: usize = 4 * 1024 * 1024;

/// Bytes of entries that are kept; some 6 000 outcomes. Beyond, a bucket's entries are folded into one gap of it.
const LIVE_LEN_MAX: usize = JOURNAL_LEN_MAX / 8 * 3;

/// Bytes of the file before it is rewritten without what is done: with the rewritten one beside it, it stays
/// within [`JOURNAL_LEN_MAX`].
const FILE_LEN_MAX: usize = JOURNAL_LEN_MAX - LIVE_LEN_MAX;

/// Bytes that the file of an empty journal may keep: writing beside a slow store, entries come and go one by one.
const IDLE_LEN_MAX: usize = 64 * 1024;

/// Names one message that was to be told: the session that saw it, and its sequence there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// One life of a process.
    pub session: [u8; 16],
    /// The message's number in it.
    pub sequence: u64,
}

/// One kept message.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The binding that it belongs to, as `NAMESPACE/NAME`.
    pub binding: String,
    /// What will be told.
    pub outcome: Outcome,
}

/// What became of an entry that was to be kept.
#[derive(Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is there as it is.
    Whole,
    /// The journal was full: under the new entry's key stands one gap, of the bucket or of the whole binding,
    /// for it and for these, which are no more.
    Folded(Vec<Key>),
}

/// The entries, and their file if there is one.
#[derive(Debug)]
pub struct Journal {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    live: BTreeMap<Key, Entry>,
    live_len: usize,
    /// `None`: kept in memory alone, with the same bound.
    file: Option<File>,
}

impl Journal {
    /// A journal that ends with this process.
    pub fn in_memory() -> Journal {
        Journal { state: Mutex::new(State { live: BTreeMap::new(), live_len: 0, file: None }) }
    }

    /// The journal in the folder `dir`, with what an earlier life of the process left there. A torn end, which
    /// a kill leaves, and whatever follows it, is cut off.
    ///
    /// # Errors
    /// The folder or the file in it cannot be used.
    pub fn open(dir: &Path) -> io::Result<Journal> {
        let (file, lines) = File::open(dir)?;
        let mut state = State { live: BTreeMap::new(), live_len: 0, file: Some(file) };
        for line in lines {
            match line {
                Line::Keep(key, entry) => state.put(key, *entry),
                Line::Done(key) => state.take(&key),
            }
        }
        Ok(Journal { state: Mutex::new(state) })
    }

    /// Keeps `entry` until [`Journal::done`]. Returns at once; what a full journal does, [`Kept`] says.
    pub fn keep(&self, key: Key, entry: Entry) -> Kept {
        let mut state = self.state();
        if state.live_len + file::len_of(&entry) <= LIVE_LEN_MAX {
            state.write(&Line::Keep(key, Box::new(entry.clone())));
            state.put(key, entry);
            return Kept::Whole;
        }
        let gone = state.fold(key, entry);
        state.rewrite();
        Kept::Folded(gone)
    }

    /// The store has it: it need not be kept any longer.
    pub fn done(&self, key: &Key) {
        let mut state = self.state();
        if !state.live.contains_key(key) {
            return;
        }
        state.take(key);
        // An empty journal is made small again, but not for every entry that comes and goes.
        if state.live.is_empty() && state.file.as_ref().is_some_and(|file| file.len() > IDLE_LEN_MAX) {
            state.rewrite();
        } else {
            state.write(&Line::Done(*key));
        }
    }

    /// The entry under `key`.
    pub fn get(&self, key: &Key) -> Option<Outcome> {
        self.state().live.get(key).map(|entry| entry.outcome.clone())
    }

    /// Up to `count` entries of `binding` that other sessions than `session` left, oldest first within a session,
    /// without those that `is_known`.
    pub fn left_by_others(
        &self,
        binding: &str,
        session: &[u8; 16],
        count: usize,
        is_known: impl Fn(&Key) -> bool,
    ) -> Vec<(Key, Outcome)> {
        let state = self.state();
        let theirs = state
            .live
            .iter()
            .filter(|(key, entry)| entry.binding == binding && key.session != *session && !is_known(key));
        theirs.take(count).map(|(key, entry)| (*key, entry.outcome.clone())).collect()
    }

    /// Whether entries outlive this process.
    pub fn is_on_disk(&self) -> bool {
        self.state().file.is_some()
    }

    /// Entries that are kept.
    pub fn count(&self) -> usize {
        self.state().live.len()
    }

    /// Bytes of the entries that are kept.
    pub fn len(&self) -> usize {
        self.state().live_len
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put(&mut self, key: Key, entry: Entry) {
        self.take(&key);
        self.live_len += file::len_of(&entry);
        self.live.insert(key, entry);
    }

    fn take(&mut self, key: &Key) {
        if let Some(entry) = self.live.remove(key) {
            self.live_len -= file::len_of(&entry);
        }
    }

    /// Makes one gap of the entries of the new one's bucket; where that frees too little, of its whole session;
    /// where even that does, of each other session too, which has then one gap of its binding left.
    fn fold(&mut self, key: Key, entry: Entry) -> Vec<Key> {
        let bucket = bucket_of(&entry.outcome);
        let mut gone = self.fold_into(key, entry.clone(), |other| bucket_of(&other.outcome) == bucket);
        if self.live_len > LIVE_LEN_MAX {
            gone.extend(self.fold_into(key, entry, |_| true));
        }
        while self.live_len > LIVE_LEN_MAX {
            let Some((first, entry)) = self.first_of_a_crowd(&key.session) else { break };
            self.fold_into(first, entry, |_| true);
        }
        gone
    }

    /// The first entry of another session than `session` that is not the only one of its binding there.
    fn first_of_a_crowd(&self, session: &[u8; 16]) -> Option<(Key, Entry)> {
        let (key, entry) = self.live.iter().find(|(key, entry)| {
            let later = self.live.range(**key..=Key { session: key.session, sequence: u64::MAX }).skip(1);
            key.session != *session && later.into_iter().any(|(_, next)| next.binding == entry.binding)
        })?;
        Some((*key, entry.clone()))
    }

    fn fold_into(&mut self, key: Key, entry: Entry, belongs: impl Fn(&Entry) -> bool) -> Vec<Key> {
        let session = Key { session: key.session, sequence: 0 }..=Key { session: key.session, sequence: u64::MAX };
        let of_binding = self.live.range(session).filter(|(_, other)| other.binding == entry.binding);
        let gone: Vec<Key> = of_binding.filter(|(_, other)| belongs(other)).map(|(key, _)| *key).collect();
        let outcomes = gone.iter().filter_map(|key| self.live.get(key)).map(|entry| &entry.outcome);
        let folded = gap::of_full_journal(outcomes.chain([&entry.outcome]));
        for key in &gone {
            self.take(key);
        }
        self.put(key, Entry { binding: entry.binding, outcome: Outcome::Gap(folded) });
        gone.into_iter().filter(|other| *other != key).collect()
    }

    fn write(&mut self, line: &Line) {
        let Some(file) = &mut self.file else { return };
        if file.len() + file::line_len(line) > FILE_LEN_MAX {
            self.rewrite();
        }
        self.on_file(|file, _| file.append(line));
    }

    fn rewrite(&mut self) {
        self.on_file(|file, live| file.rewrite(live));
    }

    /// A journal that cannot be written goes on in memory: worse than a file, better than nothing.
    fn on_file(&mut self, act: impl FnOnce(&mut File, &BTreeMap<Key, Entry>) -> io::Result<()>) {
        let Some(file) = &mut self.file else { return };
        if let Err(error) = act(file, &self.live) {
            tracing::warn!(%error, "the journal cannot be written: what the store is not told by now will not survive this process");
            self.file = None;
        }
    }
}

/// Provider and bucket that an outcome speaks of.
fn bucket_of(outcome: &Outcome) -> Option<(String, String)> {
    gap::place_of(outcome).map(|object| (object.provider, object.bucket))
}

/// The message that replays an entry.
pub fn message(key: &Key, outcome: Outcome) -> v1::Journalled {
    v1::Journalled { session: key.session.to_vec().into(), old_sequence: key.sequence, outcome: Some(outcome) }
}

#[cfg(test)]
mod tests;

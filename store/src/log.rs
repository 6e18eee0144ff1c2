//! The one way into the log: one thread appends, one syncs and applies, group after group.
//!
//! The writer takes what is queued, gives each record its seat and appends it. What was written since
//! the last sync is a [`Group`]. As soon as a group wants to be durable and the syncer is free, it is
//! handed over: the syncer's `fdatasync` is the only commit point; then the group is applied to the
//! index in the order of the log, and answered. Meanwhile the writer fills the next. May not enter here:
//! - an acknowledgement before the sync;
//! - work after a failed write or sync: the log is closed for good, until the store is opened again.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::num::NonZeroU64;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::{OwnedRwLockReadGuard, oneshot, watch};

use crate::crash;
use crate::index::{Index, IndexError, Location};
use crate::names::{BlockKey, DomainId, Place};
use crate::prepare::Packed;
use crate::replay::{self, Entry, Replay};
use crate::segment::{Packing, RECORD_HEADER_LEN, Record, SEGMENT_HEADER_LEN, Subject};
use crate::segments::{Known, Segments};

/// Bytes of records given to the kernel in one call: receipts are not late, and calls are few.
const WRITE_LEN: usize = 4 * 1024 * 1024;

/// Bytes written and not synced at which the writer waits for the disk: two segments keep it busy.
const UNSYNCED_MAX: u64 = 512 * 1024 * 1024;

/// Bytes after which the kernel is asked to begin writing out: so much is left for a sync to wait for.
const WRITE_OUT_LEN: u64 = 8 * 1024 * 1024;

/// Bytes of log after which the index is flushed: so much is read again after a crash, in a second or two.
const INDEX_FLUSH_LEN: u64 = 1024 * 1024 * 1024;

/// The log, open for appending.
pub(crate) struct Log {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What the log works with.
pub(crate) struct Parts {
    pub(crate) segments: Arc<Segments>,
    pub(crate) index: Arc<Index>,
    pub(crate) catalog: Arc<dyn Replay>,
    pub(crate) segment_len: u64,
    /// The number of the first segment to be begun.
    pub(crate) next_segment: u64,
    /// The next entry's.
    pub(crate) next_tick: u64,
}

/// The log refuses work.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the log was closed by a failed {what} ({error}): open the store again once the disk is well")]
pub struct Closed {
    what: &'static str,
    error: Arc<str>,
}

/// What committing an entry gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The entry's number.
    pub tick: u64,
    /// What the catalog answered when it applied the entry.
    pub answer: Vec<u8>,
}

/// Called when a block has been written, which promises nothing; dropped when it never will be.
pub(crate) type Receipt = Box<dyn FnOnce() + Send>;

/// Something to be appended.
pub(crate) enum Item {
    Block {
        key: BlockKey,
        packed: Packed,
        moved: bool,
        written: Receipt,
    },
    Entry(NewEntry),
    MovedEntry {
        tick: u64,
        domain: DomainId,
        packed: Packed,
    },
    Domain {
        id: DomainId,
        name: String,
    },
    Retire {
        segment: u64,
        done: oneshot::Sender<()>,
    },
    /// Nothing is appended; answered when all before it is durable and applied.
    Barrier {
        done: oneshot::Sender<()>,
    },
    /// Ends the segment; answered like a barrier.
    Seal {
        done: oneshot::Sender<()>,
    },
}

/// An entry on its way.
pub(crate) struct NewEntry {
    pub(crate) domain: DomainId,
    pub(crate) content: Bytes,
    pub(crate) packed: Packed,
    /// Keeps the sweep out until the entry is applied, also when the caller no longer waits.
    pub(crate) gate: OwnedRwLockReadGuard<()>,
    pub(crate) done: oneshot::Sender<Committed>,
}

struct Shared {
    parts: Parts,
    state: Mutex<State>,
    /// The writer has something to do.
    write: Condvar,
    /// The syncer has something to do.
    sync: Condvar,
    /// Blocks that are in the log and not yet in the index.
    pending: Mutex<HashMap<BlockKey, Location>>,
    durable: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Item>,
    handed: Option<Group>,
    syncing: bool,
    /// Up to where the log is durable, as of this life.
    durable: Option<Place>,
    closing: bool,
    ended: bool, // the writer has gone: nothing will be handed over any more
    closed: Option<Closed>,
}

/// What was written since the last sync.
#[derive(Default)]
struct Group {
    written: Vec<Written>,
    files: Vec<Arc<File>>,
    end: Option<Place>,
    len: u64,
    wants_sync: bool,
}

/// A record in the log, and who waits for it.
enum Written {
    Block { key: BlockKey, location: Location },
    Entry { tick: u64, place: Place, stored_len: u32, entry: NewEntry },
    Other { place: Place, record: Record, payload: Bytes },
    Waiting { done: oneshot::Sender<()> },
}

impl Log {
    /// Opens the log for appending; nothing is written before the first item.
    pub(crate) fn open(parts: Parts) -> io::Result<Log> {
        let (durable, _) = watch::channel(parts.next_tick - 1);
        let shared = Arc::new(Shared {
            parts,
            state: Mutex::default(),
            write: Condvar::new(),
            sync: Condvar::new(),
            pending: Mutex::default(),
            durable,
        });
        let (for_writer, for_syncer) = (Arc::clone(&shared), Arc::clone(&shared));
        let writer = std::thread::Builder::new().name("log-write".into());
        let writer = writer.spawn(move || {
            let _watch = Watch(Arc::clone(&for_writer));
            Writer::new(for_writer).run();
        })?;
        let syncer = std::thread::Builder::new().name("log-sync".into());
        let syncer = syncer.spawn(move || {
            let _watch = Watch(Arc::clone(&for_syncer));
            for_syncer.sync_groups();
        })?;
        Ok(Log { shared, threads: vec![writer, syncer] })
    }

    /// Appends an item behind those that were pushed before.
    ///
    /// # Errors
    /// [`Closed`] when the log takes nothing more. An item that was taken and whose log is closed
    /// later drops its sender: [`Log::closed`] then says why.
    pub(crate) fn push(&self, item: Item) -> Result<(), Closed> {
        let mut state = self.shared.lock();
        if let Some(closed) = &state.closed {
            return Err(closed.clone());
        }
        state.queue.push_back(item);
        drop(state);
        self.shared.write.notify_one();
        Ok(())
    }

    /// Waits, on this thread, until everything pushed so far is durable and in the index.
    pub(crate) fn barrier(&self) -> Result<(), Closed> {
        let (done, wait) = oneshot::channel();
        self.push(Item::Barrier { done })?;
        wait.blocking_recv().map_err(|_| self.closed())
    }

    /// Why the log takes nothing more.
    pub(crate) fn closed(&self) -> Closed {
        let closing = || Closed { what: "shutdown", error: "the store is being closed".into() };
        self.shared.lock().closed.clone().unwrap_or_else(closing)
    }

    /// Whether the log takes no more, and why.
    pub(crate) fn health(&self) -> Result<(), Closed> {
        self.shared.lock().closed.clone().map_or(Ok(()), Err)
    }

    /// Where a block is that is in the log and not yet in the index.
    pub(crate) fn pending(&self, key: &BlockKey) -> Option<Location> {
        self.shared.lock_pending().get(key).copied()
    }

    /// The highest tick that is durable and applied.
    pub(crate) fn durable(&self) -> watch::Receiver<u64> {
        self.shared.durable.subscribe()
    }
}

impl Drop for Log {
    /// Appends what was pushed, makes it durable, seals the segment.
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.write.notify_one();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
    }
}

/// Closes the log when the thread that holds this panics, so that nobody waits for it for ever. Only a
/// broken invariant of ours, or of the catalog's, comes to this.
struct Watch(Arc<Shared>);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close("thread of the log", &io::Error::other("it panicked"));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_pending(&self) -> MutexGuard<'_, HashMap<BlockKey, Location>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes no more work; whoever waits hears of it by their sender's end.
    fn close(&self, what: &'static str, error: &dyn std::error::Error) {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        tracing::error!(
            error = text,
            "the log is closed by a failed {what}: open the store again once the disk is well"
        );
        let mut state = self.lock();
        state.closed.get_or_insert(Closed { what, error: text.into() });
        state.queue.clear();
        state.handed = None;
        drop(state);
        self.write.notify_one();
        self.sync.notify_one();
    }

    /// The syncer's life.
    fn sync_groups(&self) {
        let mut unflushed = 0;
        loop {
            let mut state = self.lock();
            let group = loop {
                match state.handed.take() {
                    Some(group) => break group,
                    None if state.closed.is_some() => return,
                    None if state.ended => {
                        drop(state);
                        if let Err(error) = self.parts.index.flush() {
                            tracing::warn!(%error, "the index was not flushed: the next open reads more of the log");
                        }
                        return;
                    }
                    None => state = self.sync.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            state.syncing = true;
            drop(state);
            crash::point("before-sync");
            if let Err(error) = group.files.iter().try_for_each(|file| file.sync_data()) {
                return self.close("sync", &error);
            }
            crash::point("after-sync");
            let (end, len) = (group.end, group.len);
            if let Err(error) = self.apply(group) {
                return self.close("write to the index", &error);
            }
            unflushed += len;
            if unflushed >= INDEX_FLUSH_LEN {
                unflushed = 0;
                if let Err(error) = self.parts.index.flush() {
                    return self.close("flush of the index", &error);
                }
            }
            let mut state = self.lock();
            state.syncing = false;
            state.durable = end.or(state.durable);
            drop(state);
            self.write.notify_one();
        }
    }

    /// Tells the index, then the world, of a group that is durable.
    fn apply(&self, group: Group) -> Result<(), IndexError> {
        let index = &self.parts.index;
        let mut batch = index.batch();
        let mut blocks = Vec::new();
        let mut committed = Vec::new();
        let mut waiting = Vec::new();
        for written in group.written {
            match written {
                Written::Block { key, location } => {
                    batch.put_block(&key, &location)?;
                    blocks.push(key);
                }
                Written::Entry { tick, place, stored_len, entry } => {
                    let NewEntry { domain, content, gate, done, .. } = entry;
                    let answer = self.parts.catalog.apply(Entry { tick, domain, bytes: &content }, &mut batch)?;
                    batch.put_entry(tick, place, stored_len);
                    batch.set_applied(tick);
                    let end = place.offset + (RECORD_HEADER_LEN as u64) + u64::from(stored_len);
                    batch.set_watermark(Place { offset: end, ..place });
                    index.write(std::mem::replace(&mut batch, index.batch()))?;
                    crash::point("entry-applied");
                    committed.push((Committed { tick, answer }, done, gate));
                }
                Written::Other { place, record, payload } => replay::put(&mut batch, place, &record, &payload)?,
                Written::Waiting { done } => waiting.push(done),
            }
        }
        if let Some(end) = group.end {
            batch.set_watermark(end);
        }
        index.write(batch)?;
        crash::point("group-applied");
        let mut pending = self.lock_pending();
        for key in &blocks {
            pending.remove(key);
        }
        drop(pending);
        if let Some((last, ..)) = committed.last() {
            self.durable.send_replace(last.tick);
        }
        for (committed, done, gate) in committed {
            drop(gate);
            let _ = done.send(committed); // the caller may have gone; the entry stands all the same
        }
        for done in waiting {
            let _ = done.send(()); // as above
        }
        Ok(())
    }
}

/// The writer's own.
struct Writer {
    shared: Arc<Shared>,
    current: Option<Current>,
    group: Group,
    next_segment: u64,
    next_tick: u64,
}

/// The segment being written.
struct Current {
    number: u64,
    file: Arc<File>,
    /// Bytes written, and gathered to be written.
    len: u64,
    records: u64,
    /// Up to here the kernel has been asked to write out.
    asked: u64,
}

/// Records gathered for one write, and whom to tell after it.
#[derive(Default)]
struct Gathered {
    records: Vec<([u8; RECORD_HEADER_LEN], Bytes)>,
    fresh: HashMap<BlockKey, Location>,
    receipts: Vec<Receipt>,
}

impl Writer {
    fn new(shared: Arc<Shared>) -> Writer {
        let (next_segment, next_tick) = (shared.parts.next_segment, shared.parts.next_tick);
        Writer { shared, current: None, group: Group::default(), next_segment, next_tick }
    }

    /// The writer's life.
    fn run(mut self) {
        while let Some(items) = self.next_items() {
            if let Err(error) = self.append(items) {
                self.shared.close("write", &error);
                break;
            }
        }
        self.shared.lock().ended = true;
        self.shared.sync.notify_one();
    }

    /// What to append next; hands the group to the syncer as soon as it may. `None` at the end.
    fn next_items(&mut self) -> Option<Vec<Item>> {
        let mut sealed = false;
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        loop {
            if state.closed.is_some() {
                return None;
            }
            let free = !state.syncing && state.handed.is_none();
            if self.group.wants_sync && free {
                state.handed = Some(std::mem::take(&mut self.group));
                shared.sync.notify_one();
                continue;
            }
            if !state.queue.is_empty() && self.group.len < UNSYNCED_MAX {
                let mut len = 0;
                let mut items = Vec::new();
                while len < WRITE_LEN
                    && let Some(item) = state.queue.pop_front()
                {
                    len += RECORD_HEADER_LEN + item.payload_len();
                    items.push(item);
                }
                return Some(items);
            }
            if state.closing && state.queue.is_empty() {
                if self.current.is_some() && !sealed {
                    sealed = true;
                    drop(state);
                    let end = self.seal_current(&mut Gathered::default());
                    if let Err(error) = end {
                        shared.close("write", &error);
                        return None;
                    }
                    state = shared.lock();
                    continue;
                }
                if free && !self.group.wants_sync {
                    return None;
                }
            }
            state = shared.write.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Gives each item its seat and appends them all.
    fn append(&mut self, items: Vec<Item>) -> io::Result<()> {
        let mut gathered = Gathered::default();
        for item in items {
            match item {
                Item::Block { key, packed, moved, written } => {
                    let known =
                        !moved && (gathered.fresh.contains_key(&key) || self.shared.lock_pending().contains_key(&key));
                    if !known {
                        let record = Record {
                            domain: Some(key.domain),
                            subject: Subject::Block { name: key.name },
                            packing: packed.packing,
                            moved,
                            raw_len: packed.raw_len,
                            stored_len: packed.payload.len() as u32,
                        };
                        let place = self.seat(record, &packed, &mut gathered)?;
                        let Record { raw_len, stored_len, packing, .. } = record;
                        let location = Location { place, stored_len, raw_len, packing };
                        gathered.fresh.insert(key, location);
                        self.group.written.push(Written::Block { key, location });
                    }
                    gathered.receipts.push(written);
                }
                Item::Entry(entry) => {
                    let tick = self.next_tick;
                    self.next_tick += 1;
                    let packed = entry.packed.clone();
                    let place = self.seat(entry_record(tick, entry.domain, &packed, false), &packed, &mut gathered);
                    let (place, stored_len) = (place?, packed.payload.len() as u32);
                    self.group.written.push(Written::Entry { tick, place, stored_len, entry });
                    self.group.wants_sync = true;
                }
                Item::MovedEntry { tick, domain, packed } => {
                    self.other(entry_record(tick, domain, &packed, true), packed, &mut gathered)?;
                }
                Item::Domain { id, name } => {
                    let packed = Packed::plain(Bytes::from(name.into_bytes()));
                    let record = own_record(Some(id), Subject::Domain, packed.raw_len);
                    self.other(record, packed, &mut gathered)?;
                }
                Item::Retire { segment, done } => {
                    let record = own_record(None, Subject::Retire { segment }, 0);
                    self.other(record, Packed::plain(Bytes::new()), &mut gathered)?;
                    self.wait_for_sync(done);
                }
                Item::Barrier { done } => self.wait_for_sync(done),
                Item::Seal { done } => {
                    if self.current.is_some() {
                        self.seal_current(&mut gathered)?;
                    }
                    self.wait_for_sync(done);
                }
            }
        }
        self.write(&mut gathered)
    }

    fn other(&mut self, record: Record, packed: Packed, gathered: &mut Gathered) -> io::Result<()> {
        let place = self.seat(record, &packed, gathered)?;
        self.group.written.push(Written::Other { place, record, payload: packed.payload });
        Ok(())
    }

    fn wait_for_sync(&mut self, done: oneshot::Sender<()>) {
        self.group.written.push(Written::Waiting { done });
        self.group.wants_sync = true;
    }

    /// The place of a record; begins a new segment when this one is full.
    fn seat(&mut self, mut record: Record, packed: &Packed, gathered: &mut Gathered) -> io::Result<Place> {
        let len = record.len();
        let full = |current: &Current| current.len + len + RECORD_HEADER_LEN as u64 > self.shared.parts.segment_len;
        if self.current.as_ref().is_some_and(|current| current.records > 0 && full(current)) {
            self.seal_current(gathered)?;
        }
        let current = match &mut self.current {
            Some(current) => current,
            None => {
                let file = self.shared.parts.segments.create(self.next_segment, self.next_tick)?;
                self.group.files.push(Arc::clone(&file));
                let len = SEGMENT_HEADER_LEN as u64;
                self.current.insert(Current { number: self.next_segment, file, len, records: 0, asked: 0 })
            }
        };
        self.next_segment = current.number + 1;
        if self.group.files.last().is_none_or(|file| !Arc::ptr_eq(file, &current.file)) {
            self.group.files.push(Arc::clone(&current.file));
        }
        let place = Place { segment: current.number, offset: current.len };
        if let Subject::Entry { durable, .. } = &mut record.subject
            && !record.moved
        {
            *durable = self.shared.lock().durable.filter(|at| at.segment == place.segment).map_or(0, |at| at.offset);
        }
        let header = record.encode(packed.sum, &self.shared.parts.segments.seat(place));
        gathered.records.push((header, packed.payload.clone()));
        current.len += len;
        current.records += 1;
        self.group.len += len;
        self.group.end = Some(Place { offset: current.len, ..place });
        self.group.wants_sync |= self.group.len >= UNSYNCED_MAX;
        Ok(place)
    }

    /// Ends the segment being written: seal, and a sync with the next group.
    fn seal_current(&mut self, gathered: &mut Gathered) -> io::Result<()> {
        self.write(gathered)?;
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let seal = Subject::Seal { records: current.records, next_tick: self.next_tick, len: current.len };
        let record = own_record(None, seal, 0);
        let place = Place { segment: current.number, offset: current.len };
        let header = record.encode(Packed::plain(Bytes::new()).sum, &self.shared.parts.segments.seat(place));
        (&*current.file).write_all(&header)?;
        crash::point("seal-written");
        current.len += record.len();
        self.shared.parts.segments.set(current.number, Known { len: current.len, sealed: true });
        if self.group.files.last().is_none_or(|file| !Arc::ptr_eq(file, &current.file)) {
            self.group.files.push(Arc::clone(&current.file));
        }
        self.group.end = Some(Place { offset: current.len, ..place });
        self.group.wants_sync = true;
        Ok(())
    }

    /// Gives the kernel what was gathered, then the receipts.
    fn write(&mut self, gathered: &mut Gathered) -> io::Result<()> {
        let Gathered { records, fresh, receipts } = std::mem::take(gathered);
        if let Some(current) = &mut self.current
            && !records.is_empty()
        {
            let slices = records.iter().flat_map(|(header, payload)| [IoSlice::new(header), IoSlice::new(payload)]);
            let mut slices: Vec<IoSlice<'_>> = slices.filter(|slice| !slice.is_empty()).collect();
            let mut rest = &mut slices[..];
            while !rest.is_empty() {
                match (&*current.file).write_vectored(rest) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(len) => IoSlice::advance_slices(&mut rest, len),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
                crash::point("records-written");
            }
            self.shared.parts.segments.set(current.number, Known { len: current.len, sealed: false });
            current.write_out();
        }
        self.shared.lock_pending().extend(fresh);
        receipts.into_iter().for_each(|written| written());
        Ok(())
    }
}

impl Current {
    /// Has the kernel begin to write out what it was given since the last time: a later sync then finds
    /// little to do. What is dirty is written and stays in memory for readers, as this asks once for each
    /// byte. It is advice: what comes of it does not matter, and a write that fails is told by the next sync.
    fn write_out(&mut self) {
        if self.len - self.asked >= WRITE_OUT_LEN {
            let len = NonZeroU64::new(self.len - self.asked);
            let _ = rustix::fs::fadvise(&*self.file, self.asked, len, rustix::fs::Advice::DontNeed);
            self.asked = self.len;
        }
    }
}

impl Item {
    fn payload_len(&self) -> usize {
        match self {
            Item::Block { packed, .. } | Item::MovedEntry { packed, .. } => packed.payload.len(),
            Item::Entry(entry) => entry.packed.payload.len(),
            Item::Domain { name, .. } => name.len(),
            Item::Retire { .. } | Item::Barrier { .. } | Item::Seal { .. } => 0,
        }
    }
}

fn entry_record(tick: u64, domain: DomainId, packed: &Packed, moved: bool) -> Record {
    Record {
        domain: Some(domain),
        subject: Subject::Entry { tick, durable: 0 },
        packing: packed.packing,
        moved,
        raw_len: packed.raw_len,
        stored_len: packed.payload.len() as u32,
    }
}

/// A record of the log's own: as it is.
pub(crate) fn own_record(domain: Option<DomainId>, subject: Subject, len: u32) -> Record {
    Record { domain, subject, packing: Packing::Plain, moved: false, raw_len: len, stored_len: len }
}

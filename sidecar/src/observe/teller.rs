//! From what a connection told to what the store is told: which binding it is for, its content cut and offered,
//! its outcome recorded once every block is there.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use hawser_api::{BlockSize, GapReason, ObjectKey, Stamp, change, v1};

use super::{Ctx, Working};
use crate::bindings::Bound;
use crate::budget::Budget;
use crate::cut::{Block, Content, Cutter, Window};
use crate::gap::{self, Found};
use crate::http::ExchangeId;
use crate::lapse::{InLapse, Lapse};
use crate::offer::Delivery;
use crate::operation::{
    Event, Extent, Finished, Operation, Outcome, Place, ReadBegan, Sighted, SightedBy, Sighting, WriteBegan, WriteKind,
};
use crate::record;
use crate::session::{self, Session};

/// Sightings in one message: as many as a page of a listing has keys.
const SIGHTINGS_MAX: usize = 1000;

/// Tells the store about one connection.
pub(super) struct Teller {
    ctx: Arc<Ctx>,
    bound: Arc<Bound>,
    homes: Vec<Home>,
    exchanges: HashMap<ExchangeId, Exchange>,
    sightings: Option<(ExchangeId, Arc<Session>, v1::Sightings)>,
    /// The rest of the connection is not understood.
    lapse: Option<InLapse>,
}

/// One binding and provider that the connection's host belongs to.
#[derive(Clone)]
struct Home {
    session: Arc<Session>,
    /// The provider's identity.
    provider: String,
    size: BlockSize,
}

enum Exchange {
    Write(Box<Write>),
    Read(Box<Read>),
}

struct Write {
    home: Home,
    operation: session::Operation,
    kind: WriteKind,
    place: Place,
    begin: Stamp,
    body: Body,
}

struct Read {
    home: Home,
    began: ReadBegan,
    window: Window,
    body: Body,
}

/// The content of one exchange on its way to the store.
enum Body {
    Passing { cutter: Box<Cutter>, delivery: Arc<Delivery> },
    Lost(GapReason),
}

impl Teller {
    pub(super) fn new(bound: &Arc<Bound>, ctx: &Arc<Ctx>) -> Teller {
        let home = |entry: &crate::bindings::Entry| Home {
            session: ctx.sessions.of(&entry.binding),
            provider: entry.provider.id().to_string(),
            size: entry.binding.spec.block_size,
        };
        Teller {
            ctx: Arc::clone(ctx),
            bound: Arc::clone(bound),
            homes: bound.entries.iter().map(home).collect(),
            exchanges: HashMap::new(),
            sightings: None,
            lapse: None,
        }
    }

    /// Takes the next events. Never waits.
    pub(super) fn tell(&mut self, events: impl Iterator<Item = Event>) {
        for event in events {
            match event {
                Event::WriteBegan(began) => self.write_began(began),
                Event::ReadBegan(began) => self.read_began(began),
                Event::Body { exchange, bytes } => self.body(exchange, bytes),
                Event::BodyLost { exchange, reason } => self.body_lost(exchange, reason),
                Event::Keys { exchange, keys } => self.keys_known(exchange, &keys),
                Event::Finished(finished) => self.finished(finished),
                Event::Sighting(sighting) => self.sighted(sighting),
                Event::Unparsed { reason } => self.unparsed(reason),
            }
        }
        self.tell_sightings();
    }

    /// Whether no exchange is open.
    pub(super) fn is_at_rest(&self) -> bool {
        self.exchanges.is_empty()
    }

    fn write_began(&mut self, began: WriteBegan) {
        let Some(home) = self.home(began.place.bucket()) else { return };
        let (upload_id, part_number) = match began.upload {
            Some((upload, number)) => (upload.0, number.map_or(0, |number| number.get().into())),
            None => Default::default(),
        };
        let intent = v1::Intent {
            object: gap::place_ref(&home.provider, &began.place),
            kind: word(began.kind).to_owned(),
            head: Some(began.begin.into()),
            upload_id,
            part_number,
            ..v1::Intent::default()
        };
        let dropped = Found {
            provider: &home.provider,
            place: &began.place,
            reason: GapReason::OutcomeUnknown,
            etag: None,
            version: None,
            detail: word(began.kind),
            begin: began.begin,
            end: began.begin,
        };
        let operation = home.session.announce(intent, dropped.message(0));
        let body = Body::new(Cutter::new(home.size, Arc::clone(&self.ctx.budget)));
        let write = Write { home, operation, kind: began.kind, place: began.place, begin: began.begin, body };
        self.exchanges.insert(began.exchange, Exchange::Write(Box::new(write)));
    }

    /// The body of a write on many objects has named them: should its outcome be lost, they alone are in doubt.
    fn keys_known(&mut self, exchange: ExchangeId, keys: &[ObjectKey]) {
        let Some(Exchange::Write(write)) = self.exchanges.get(&exchange) else { return };
        write.operation.specify(v1::Intent {
            object: gap::place_ref(&write.home.provider, &write.place),
            kind: word(write.kind).to_owned(),
            head: Some(write.begin.into()),
            keys: keys.iter().map(|key| key.as_bytes().to_vec().into()).collect(),
            ..v1::Intent::default()
        });
    }

    /// Content that is read is copied while there is plenty of room: what it teaches can be read again.
    fn read_began(&mut self, began: ReadBegan) {
        let Some(home) = self.home(Some(&began.object.bucket)) else { return };
        let window = match began.extent {
            Extent::Whole { .. } => Some(Window::whole()),
            Extent::Range { first, last, total } => Window::of_range(home.size, first, last, total),
        };
        let Some(window) = window else { return };
        // A version that was asked for need not be the current one, which the store would take it for.
        if began.version_was_asked || self.ctx.budget.is_scarce() || home.session.offers().is_away() {
            return;
        }
        let budget = Arc::clone(&self.ctx.budget);
        let body = Body::new(match began.extent {
            Extent::Whole { .. } => Cutter::new(home.size, budget),
            Extent::Range { .. } => Cutter::of_range(home.size, budget),
        });
        self.exchanges.insert(began.exchange, Exchange::Read(Box::new(Read { home, began, window, body })));
    }

    fn body(&mut self, exchange: ExchangeId, bytes: Bytes) {
        self.ctx.tally.captured(bytes.len() as u64);
        match self.exchanges.get_mut(&exchange) {
            Some(Exchange::Write(write)) => write.body.push(bytes, &write.home.session, &self.ctx.budget),
            Some(Exchange::Read(read)) => {
                let bytes = read.window.clip(bytes);
                if self.ctx.budget.is_scarce() {
                    read.body = Body::Lost(GapReason::Overflow);
                } else {
                    read.body.push(bytes, &read.home.session, &self.ctx.budget);
                }
            }
            None => {}
        }
    }

    fn body_lost(&mut self, exchange: ExchangeId, reason: GapReason) {
        match self.exchanges.get_mut(&exchange) {
            Some(Exchange::Write(write)) => write.body = Body::Lost(reason),
            Some(Exchange::Read(read)) => read.body = Body::Lost(reason),
            None => {}
        }
    }

    fn finished(&mut self, finished: Finished) {
        match (self.exchanges.remove(&finished.exchange), &finished.outcome) {
            (Some(Exchange::Write(write)), _) => self.write_finished(*write, finished),
            (Some(Exchange::Read(read)), Outcome::Read { whole: true }) => self.read_finished(*read),
            (Some(Exchange::Read(_)), _) => {}
            (None, Outcome::Lost { reason, place: place @ Place::Unknown, .. }) => {
                self.lost_somewhere(*reason, place, &finished);
            }
            (None, _) => {} // a bucket that is not bound
        }
    }

    fn write_finished(&self, write: Write, finished: Finished) {
        let Write { home, operation, kind, place, body, .. } = write;
        let ended = Ended { kind, place, operation, finished: (finished.begin, finished.end), home };
        let done = match finished.outcome {
            Outcome::Done(done) => *done,
            Outcome::Refused => return ended.operation.abandon(),
            Outcome::Lost { reason, place, etag, version } => {
                let found = Found { etag: etag.as_ref(), version: version.as_ref(), ..ended.found(reason, &place) };
                let gap = found.message(0);
                return ended.lose(reason, gap, &self.ctx);
            }
            // A write that ends as a read is a bug of the adapter; the change may have happened.
            Outcome::Read { .. } => return drop(ended),
        };
        if let Operation::DeleteMany { unknown, .. } = &done {
            for place in unknown {
                ended.home.session.gap(ended.found(GapReason::OutcomeUnknown, place).message(0));
            }
        }
        let (Operation::Put { length, .. } | Operation::PutPart { length, .. }) = &done else {
            return ended.record(done, None, &self.ctx);
        };
        match body.finish(&ended.home.session, *length) {
            Err(reason) => ended.lose_known(reason, &done, &self.ctx),
            Ok((content @ Content::Inline(_), _)) => ended.record(done, Some(content), &self.ctx),
            Ok((content, delivery)) => {
                let (ctx, working) = (Arc::clone(&self.ctx), self.ctx.work());
                tokio::spawn(ended.record_when_delivered(done, content, delivery, ctx, working));
            }
        }
    }

    fn read_finished(&self, read: Read) {
        let Read { home, began, window, body } = read;
        let Some((content, delivery)) = body.finish_any(&home.session) else { return };
        let total_length = match began.extent {
            Extent::Whole { .. } => content.len(),
            Extent::Range { total, .. } => total,
        };
        let message = v1::ObservedRead {
            head: Some(began.begin.into()),
            answer: Some(began.end.into()),
            object: Some(record::object_ref(&home.provider, &began.object)),
            etag: began.etag.0,
            version_id: began.version.map(|version| version.0).unwrap_or_default(),
            last_modified: began
                .last_modified
                .map(|text| String::from_utf8_lossy(&text).into_owned())
                .unwrap_or_default(),
            total_length,
            offset: window.offset,
            body: Some(content.into()),
            metadata: Some(began.attributes.map(record::metadata).unwrap_or_default()),
            version_was_asked: began.version_was_asked,
            ..v1::ObservedRead::default()
        };
        let working = self.ctx.work();
        tokio::spawn(async move {
            if delivery.settled().await.is_ok() {
                home.session.read(message);
            }
            drop(working);
        });
    }

    /// A change that may concern any bucket is a gap of every binding that has this host.
    fn lost_somewhere(&self, reason: GapReason, place: &Place, finished: &Finished) {
        for home in &self.homes {
            let found = Found {
                provider: &home.provider,
                place,
                reason,
                etag: None,
                version: None,
                detail: "a write to a bucket that is not understood",
                begin: finished.begin,
                end: finished.end,
            };
            home.session.gap(found.message(0));
        }
    }

    /// One answer makes one message, a long listing several.
    fn sighted(&mut self, sighting: Sighting) {
        if !sighting.current {
            return;
        }
        let (absent, etag, size) = match sighting.seen {
            Sighted::Present { etag, size: Some(size) } => (false, etag.0, size),
            Sighted::Absent => (true, String::new(), 0),
            Sighted::Present { size: None, .. } => return,
        };
        let Some(home) = self.home(Some(&sighting.object.bucket)) else { return };
        let tag_count = sighting.shown.as_ref().map_or(0, |shown| shown.tag_count);
        let object = v1::Sighting {
            metadata: sighting.shown.map(|shown| record::metadata(shown.attributes)),
            tag_count,
            object: Some(record::object_ref(&home.provider, &sighting.object)),
            absent,
            etag,
            size,
            version_id: sighting.version.map(|version| version.0).unwrap_or_default(),
            ..v1::Sighting::default()
        };
        match &mut self.sightings {
            Some((exchange, _, page)) if *exchange == sighting.exchange && page.objects.len() < SIGHTINGS_MAX => {
                page.objects.push(object);
            }
            _ => {
                self.tell_sightings();
                let page = v1::Sightings {
                    head: Some(sighting.begin.into()),
                    answer: Some(sighting.end.into()),
                    listing: sighting.by == SightedBy::Listing,
                    objects: vec![object],
                };
                self.sightings = Some((sighting.exchange, home.session, page));
            }
        }
    }

    fn tell_sightings(&mut self) {
        if let Some((_, session, page)) = self.sightings.take() {
            session.sighted(page);
        }
    }

    fn unparsed(&mut self, reason: GapReason) {
        let lapse = if reason == GapReason::Http2 { Lapse::Http2 } else { Lapse::Unparsed };
        self.lapse = self.ctx.lapse(&self.bound, lapse);
    }

    /// Whose the bucket is, if anybody's: the first binding that has it.
    fn home(&self, bucket: Option<&str>) -> Option<Home> {
        let bucket = bucket?;
        let mut entries = self.bound.entries.iter().zip(&self.homes);
        let (_, home) =
            entries.find(|(entry, _)| entry.binding.store_bucket(&entry.provider.name, bucket).is_some())?;
        Some(home.clone())
    }
}

impl Body {
    fn new(cutter: Cutter) -> Body {
        Body::Passing { cutter: Box::new(cutter), delivery: Delivery::new() }
    }

    /// Takes the next bytes. Content that waits for the store while room gets tight is lost before a head is.
    fn push(&mut self, bytes: Bytes, session: &Session, budget: &Budget) {
        let Body::Passing { cutter, delivery } = self else { return };
        let mut blocks = Vec::new();
        let room = cutter.push(bytes, &mut blocks);
        offer(blocks, session, delivery);
        let tight = room.is_err() || (cutter.is_run() && budget.is_tight());
        let lost = if tight { Some(session.offers().why_tight()) } else { delivery.lost() };
        if let Some(reason) = lost {
            delivery.lose(reason);
            session.offers().shed();
            *self = Body::Lost(reason); // what was cut so far gives its room back
        }
    }

    /// Ends content that must have `length` bytes.
    fn finish(self, session: &Session, length: u64) -> Result<(Content, Arc<Delivery>), GapReason> {
        let (mut blocks, (cutter, delivery)) = match self {
            Body::Passing { cutter, delivery } => (Vec::new(), (cutter, delivery)),
            Body::Lost(reason) => return Err(reason),
        };
        let content = cutter.finish(&mut blocks).map_err(|_| GapReason::Overflow)?;
        offer(blocks, session, &delivery);
        session.offers().hurry();
        if content.len() != length {
            return Err(GapReason::ChecksumMismatch);
        }
        Ok((content, delivery))
    }

    /// Ends content whatever its length.
    fn finish_any(self, session: &Session) -> Option<(Content, Arc<Delivery>)> {
        let Body::Passing { cutter, .. } = &self else { return None };
        let length = cutter.length();
        self.finish(session, length).ok()
    }
}

fn offer(blocks: Vec<Block>, session: &Session, delivery: &Arc<Delivery>) {
    for block in blocks {
        session.offers().add(block, delivery);
    }
}

/// A write after its final answer.
struct Ended {
    home: Home,
    operation: session::Operation,
    kind: WriteKind,
    place: Place,
    /// The stamps of its head and of its answer.
    finished: (Stamp, Stamp),
}

impl Ended {
    fn record(self, done: Operation, content: Option<Content>, ctx: &Ctx) {
        match record::writes(&self.home.provider, done, content) {
            Some(writes) if writes.is_empty() => self.operation.abandon(),
            Some(writes) => self.operation.record(writes, self.finished.0, self.finished.1),
            None => {
                let gap = self.found(GapReason::Unsupported, &self.place).message(0);
                self.lose(GapReason::Unsupported, gap, ctx);
            }
        }
    }

    /// Only a record whose blocks are all at the store is told as one.
    async fn record_when_delivered(
        self,
        done: Operation,
        content: Content,
        delivery: Arc<Delivery>,
        ctx: Arc<Ctx>,
        working: Working,
    ) {
        match delivery.settled().await {
            Ok(()) => self.record(done, Some(content), &ctx),
            Err(reason) => self.lose_known(reason, &done, &ctx),
        }
        drop(working);
    }

    /// The cloud did it, and its content did not get to the store.
    fn lose_known(self, reason: GapReason, done: &Operation, ctx: &Ctx) {
        let (etag, version) = match done {
            Operation::Put { etag, version, .. } => (Some(etag), version.as_ref()),
            Operation::PutPart { etag, .. } => (Some(etag), None),
            _ => (None, None),
        };
        let gap = Found { etag, version, ..self.found(reason, &self.place) }.message(0);
        self.lose(reason, gap, ctx);
    }

    /// A lost part is no gap: the Complete that names it finds it missing, and no other object needs it.
    fn lose(self, reason: GapReason, gap: v1::GapFound, ctx: &Ctx) {
        if self.kind.changes_no_object() {
            ctx.tally.gap(reason);
            self.operation.abandon();
        } else {
            self.operation.lose(gap);
        }
    }

    fn found<'a>(&'a self, reason: GapReason, place: &'a Place) -> Found<'a> {
        Found {
            provider: &self.home.provider,
            place,
            reason,
            etag: None,
            version: None,
            detail: word(self.kind),
            begin: self.finished.0,
            end: self.finished.1,
        }
    }
}

/// What kind of write it is, for people.
fn word(kind: WriteKind) -> &'static str {
    match kind {
        WriteKind::Put => "put",
        WriteKind::CreateMultipart => change::CREATE_UPLOAD,
        WriteKind::PutPart => "part",
        WriteKind::CopyPart => "part copy",
        WriteKind::CompleteMultipart => "complete",
        WriteKind::AbortMultipart => change::ABORT,
        WriteKind::Copy => change::COPY,
        WriteKind::Delete => "delete",
        WriteKind::DeleteMany => "delete many",
        WriteKind::SetTags => change::TAGS,
        WriteKind::SetAcl => change::ACL,
        WriteKind::SetLock => change::LOCK,
        WriteKind::CreateBucket => "create bucket",
        WriteKind::DeleteBucket => "delete bucket",
        WriteKind::Unsupported => change::NOT_CAPTURED,
    }
}

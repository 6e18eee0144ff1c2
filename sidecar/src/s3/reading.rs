//! What a read tells: content for the blocks that it covers, and what is under a key. A read never makes a gap.

use bytes::Bytes;
use hawser_api::{GapReason, Stamp};

use super::request::Asked;
use super::xml::{Document, Element};
use super::{attributes, listing};
use crate::http::body::Framing;
use crate::http::head::{AnswerHead, Fields};
use crate::http::{ExchangeId, Piece};
use crate::operation::{
    Event, Extent, Finished, Object, Outcome, ReadBegan, Shown, Sighted, SightedBy, Sighting, VersionId,
};

/// A read that is not over yet.
#[derive(Debug)]
pub struct Reading {
    exchange: ExchangeId,
    begin: Stamp,
    what: What,
    state: State,
    /// The request gave a key that only the client has: content is not captured.
    sse_c: bool,
}

/// What is read.
#[derive(Debug)]
pub enum What {
    /// GetObject.
    Object(Object, Asked),
    /// HeadObject.
    Head(Object, Asked),
    /// A listing of that bucket.
    List(String),
}

#[derive(Debug)]
enum State {
    /// No final answer yet.
    Asked,
    /// Content passes.
    Content { left: Option<u64>, lost: bool },
    /// A document passes: an error to a GET, or a listing.
    Document(Document),
    /// Nothing of it matters any more.
    Idle,
}

impl Reading {
    /// Begins with the head of a request.
    pub fn begin(exchange: ExchangeId, begin: Stamp, what: What, request: &Fields) -> Reading {
        Reading { exchange, begin, what, state: State::Asked, sse_c: attributes::is_sse_c(request) }
    }

    /// The exchange.
    pub fn exchange(&self) -> ExchangeId {
        self.exchange
    }

    /// The head of the final answer.
    pub fn answer(&mut self, head: &AnswerHead, framing: Framing, stamp: Stamp, out: &mut Vec<Event>) {
        self.state = match (&self.what, head.status) {
            (What::Object(object, asked), 200 | 206) => self.object(object, asked, head, framing, stamp, out),
            (What::Object(object, asked), 404) => {
                if is_marker(&head.fields) {
                    out.push(self.absent(object, asked, attributes::version(&head.fields), SightedBy::Get, stamp));
                    State::Idle
                } else {
                    State::Document(Document::default())
                }
            }
            (What::Head(object, asked), 200 | 206) => {
                if let Some(etag) = attributes::etag(&head.fields) {
                    let size = match head.status {
                        200 => head.fields.text("content-length").and_then(|text| text.trim().parse().ok()),
                        _ => content_range(&head.fields).map(|(_, _, total)| total),
                    };
                    out.push(self.present(object, asked, (etag, size), &head.fields, SightedBy::Head, stamp));
                }
                State::Idle
            }
            (What::Head(object, asked), 404) => {
                out.push(self.absent(object, asked, attributes::version(&head.fields), SightedBy::Head, stamp));
                State::Idle
            }
            (What::List(_), 200) => State::Document(Document::default()),
            _ => State::Idle,
        };
    }

    /// The answer carries content, or a part of it.
    fn object(
        &self,
        object: &Object,
        asked: &Asked,
        head: &AnswerHead,
        framing: Framing,
        stamp: Stamp,
        out: &mut Vec<Event>,
    ) -> State {
        let fields = &head.fields;
        let Some(etag) = attributes::etag(fields) else { return State::Idle };
        let length = match framing {
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        };
        let extent = match (head.status, content_range(fields)) {
            (200, _) => Extent::Whole { length },
            (_, Some((first, last, total))) => Extent::Range { first, last, total },
            (_, None) => return State::Idle, // several ranges in one answer, or a total that is not told
        };
        let (size, expected) = match extent {
            Extent::Whole { length } => (length, length),
            Extent::Range { first, last, total } => (Some(total), Some(last - first + 1)),
        };
        out.push(self.present(object, asked, (etag.clone(), size), fields, SightedBy::Get, stamp));
        if self.sse_c || attributes::is_sse_c(fields) {
            return State::Idle;
        }
        let mut shown = attributes::shown(fields);
        if matches!(extent, Extent::Range { .. }) {
            // The checksum of a part is not that of the object.
            shown.headers.retain(|header| !header.name.starts_with("x-amz-checksum-"));
        }
        let parts = fields.text("x-amz-mp-parts-count").and_then(|text| text.trim().parse().ok());
        out.push(Event::ReadBegan(ReadBegan {
            exchange: self.exchange,
            object: object.clone(),
            version: attributes::version(fields).or_else(|| asked.version.clone()),
            version_was_asked: asked.version.is_some(),
            etag,
            last_modified: fields.get("last-modified").cloned(),
            extent,
            part: asked.part.map(|number| (number, parts)),
            attributes: (!asked.overrides).then_some(shown),
            begin: self.begin,
            end: stamp,
        }));
        State::Content { left: expected, lost: false }
    }

    /// Bytes of the answer's body.
    pub fn answer_body(&mut self, piece: Piece, out: &mut Vec<Event>) {
        let exchange = self.exchange;
        match &mut self.state {
            State::Content { left, lost } => {
                *left = left.map(|left| left.saturating_sub(piece.len()));
                match piece {
                    _ if *lost => {}
                    Piece::Bytes(bytes) => out.push(Event::Body { exchange, bytes }),
                    Piece::Dropped(_) => {
                        *lost = true;
                        out.push(Event::BodyLost { exchange, reason: GapReason::Overflow });
                    }
                }
            }
            State::Document(document) => document.push(piece),
            State::Asked | State::Idle => {}
        }
    }

    /// The answer ended.
    pub fn end(&mut self, whole: bool, stamp: Stamp, out: &mut Vec<Event>) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Content { left, lost } => {
                let whole = whole && !lost && left.unwrap_or(0) == 0;
                let outcome = Outcome::Read { whole };
                out.push(Event::Finished(Finished { exchange: self.exchange, outcome, begin: self.begin, end: stamp }));
            }
            State::Document(document) if whole => {
                if let Ok(document) = document.whole() {
                    self.document(&document, stamp, out);
                }
            }
            State::Document(_) | State::Asked | State::Idle => {}
        }
    }

    fn document(&self, document: &Bytes, stamp: Stamp, out: &mut Vec<Event>) {
        let Ok(root) = Element::parse(document) else { return };
        match &self.what {
            What::Object(object, asked) => {
                if root.name == "Error" && matches!(root.text_of("Code"), Some("NoSuchKey" | "NoSuchVersion")) {
                    out.push(self.absent(object, asked, None, SightedBy::Get, stamp));
                }
            }
            What::List(bucket) => {
                let sightings = listing::sightings(&root, bucket).into_iter();
                out.extend(sightings.map(|(object, version, current, seen)| {
                    let (exchange, by, begin) = (self.exchange, SightedBy::Listing, self.begin);
                    let (shown, end) = (None, stamp);
                    Event::Sighting(Sighting { exchange, object, version, current, seen, by, shown, begin, end })
                }));
            }
            What::Head(..) => {}
        }
    }

    fn present(
        &self,
        object: &Object,
        asked: &Asked,
        (etag, size): (crate::operation::ETag, Option<u64>),
        fields: &Fields,
        by: SightedBy,
        stamp: Stamp,
    ) -> Event {
        let version = attributes::version(fields).or_else(|| asked.version.clone());
        let count = fields.text("x-amz-tagging-count").map(|text| text.trim().parse().unwrap_or(u64::MAX));
        let shown = Shown { attributes: attributes::shown(fields), tag_count: count.unwrap_or(0) };
        let shown = (!asked.overrides).then_some(shown);
        self.sighting((object, asked), version, Sighted::Present { etag, size }, by, shown, stamp)
    }

    fn absent(&self, object: &Object, asked: &Asked, version: Option<VersionId>, by: SightedBy, stamp: Stamp) -> Event {
        let version = version.or_else(|| asked.version.clone());
        self.sighting((object, asked), version, Sighted::Absent, by, None, stamp)
    }

    fn sighting(
        &self,
        (object, asked): (&Object, &Asked),
        version: Option<VersionId>,
        seen: Sighted,
        by: SightedBy,
        shown: Option<Shown>,
        end: Stamp,
    ) -> Event {
        let (exchange, object, current) = (self.exchange, object.clone(), asked.version.is_none());
        Event::Sighting(Sighting { exchange, object, version, current, seen, by, shown, begin: self.begin, end })
    }
}

/// Whether a 404 is that of a delete marker.
fn is_marker(fields: &Fields) -> bool {
    fields.text("x-amz-delete-marker").is_some_and(|text| text.eq_ignore_ascii_case("true"))
}

/// First byte, last byte and total of a Content-Range (RFC 9110 §14.4), if it is one that makes sense.
fn content_range(fields: &Fields) -> Option<(u64, u64, u64)> {
    let (range, total) = fields.text("content-range")?.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, total) = (first.trim().parse().ok()?, last.trim().parse().ok()?, total.trim().parse().ok()?);
    (first <= last && last < total).then_some((first, last, total))
}

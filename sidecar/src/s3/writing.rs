//! One write while it passes by: its content is given on as it comes, its outcome when it is settled.

use bytes::Bytes;
use hawser_api::{GapReason, Stamp};

use super::attributes;
use super::content::Content;
use super::delete;
use super::form::Form;
use super::proven::{self, Proven};
use super::request::Ask;
use super::write::{Step, Verdict, Write};
use super::xml::{Document, Element, Incomplete};
use crate::http::body::Framing;
use crate::http::head::{AnswerHead, Fields, RequestHead};
use crate::http::{ExchangeId, Piece};
use crate::operation::{Event, Finished, Object, Outcome, Place, WriteBegan};

/// A write that is not settled yet.
#[derive(Debug)]
pub struct Writing {
    exchange: ExchangeId,
    begin: Stamp,
    place: Place,
    ask: Ask,
    request: Fields,
    framing: Framing,
    content: Content,
    /// What the content goes into.
    sink: Sink,
    state: Write,
    /// Checksums that came in a trailer.
    trailer: Vec<(String, Bytes)>,
    answer: Option<AnswerHead>,
    result: Document,
}

/// What becomes of a request's content.
#[derive(Debug)]
enum Sink {
    /// It is the object's or the part's.
    Object,
    /// A part of it is the object's.
    Form(Form),
    /// It is a document that says what to do.
    Document(Document),
    /// Nothing: the operation has none, or it is of no use.
    None,
}

impl Writing {
    /// Begins with the head of a request, and says so.
    pub fn begin(
        (exchange, begin): (ExchangeId, Stamp),
        (place, ask): (Place, Ask),
        head: &RequestHead,
        framing: Framing,
        out: &mut Vec<Event>,
    ) -> Writing {
        let content = Content::of(&head.fields, framing);
        let sink = match &ask {
            Ask::Put | Ask::PutPart(..) => Sink::Object,
            Ask::Form => head.fields.text("content-type").and_then(Form::of).map_or(Sink::None, Sink::Form),
            Ask::CompleteMultipart(_)
            | Ask::DeleteMany
            | Ask::PutTags(_)
            | Ask::PutAcl(_)
            | Ask::PutRetention(_)
            | Ask::PutLegalHold(_) => Sink::Document(Document::default()),
            Ask::CreateMultipart
            | Ask::CopyPart(..)
            | Ask::AbortMultipart(_)
            | Ask::Copy(..)
            | Ask::Delete(_)
            | Ask::DeleteTags(_)
            | Ask::CreateBucket
            | Ask::DeleteBucket
            | Ask::Unsupported => Sink::None,
        };
        out.push(Event::WriteBegan(WriteBegan {
            exchange,
            kind: ask.kind(),
            place: place.clone(),
            upload: ask.upload(),
            length: content.length().filter(|_| matches!(sink, Sink::Object)),
            begin,
        }));
        let (request, state, answer) = (head.fields.clone(), Write::Sending, None);
        let (trailer, result) = (Vec::new(), Document::default());
        let mut writing =
            Writing { exchange, begin, place, ask, request, framing, content, sink, state, trailer, answer, result };
        if let Some(reason) = writing.flaw_of_the_head() {
            writing.flaw(reason, out);
        }
        writing
    }

    /// The exchange.
    pub fn exchange(&self) -> ExchangeId {
        self.exchange
    }

    /// Why the head alone already tells that the operation cannot be recorded.
    fn flaw_of_the_head(&self) -> Option<GapReason> {
        match (&self.ask, &self.sink) {
            (Ask::Unsupported, _) => Some(GapReason::Unsupported),
            (Ask::Copy(None, ..) | Ask::CopyPart(_, _, None), _) => Some(GapReason::UnknownSource),
            (Ask::Form, Sink::None) => Some(GapReason::Malformed),
            (Ask::Put | Ask::PutPart(..) | Ask::CreateMultipart | Ask::Copy(..) | Ask::CopyPart(..), _) => {
                attributes::is_sse_c(&self.request).then_some(GapReason::SseC)
            }
            _ => None,
        }
    }

    /// Bytes of the request's body.
    pub fn body(&mut self, piece: Piece, out: &mut Vec<Event>) {
        let exchange = self.exchange;
        let mut told = Vec::new();
        let mut give = |bytes: Bytes| told.push(Event::Body { exchange, bytes });
        let taken = match (&mut self.sink, self.state) {
            (_, Write::Flawed(_)) => Ok(()),
            (Sink::Object, _) => self.content.take(piece, give),
            (Sink::Form(form), _) => {
                let mut taken = Ok(());
                let content = self.content.take(piece, |bytes| {
                    if taken.is_ok() {
                        taken = form.take(Piece::Bytes(bytes), &mut give);
                    }
                });
                content.and(taken)
            }
            (Sink::Document(document), _) => self.content.take(piece, |bytes| document.push(Piece::Bytes(bytes))),
            (Sink::None, _) => Ok(()),
        };
        match taken {
            Ok(()) => out.append(&mut told),
            Err(reason) => self.flaw(reason, out),
        }
    }

    /// The request is whole.
    pub fn request_end(&mut self, trailer: &Fields, out: &mut Vec<Event>) {
        let taken = match &self.sink {
            Sink::None => Ok(()),
            Sink::Object => self.content.end(trailer),
            Sink::Form(form) if form.is_whole() => self.content.end(trailer),
            Sink::Form(_) => Err(GapReason::Malformed),
            Sink::Document(document) => {
                let whole = document.whole().map(|_| ()).map_err(reason);
                whole.and_then(|()| self.content.end(trailer))
            }
        };
        match (taken, &self.sink, &self.ask) {
            (Err(reason), ..) => self.flaw(reason, out),
            (Ok(()), Sink::Document(document), Ask::DeleteMany) => {
                let keys = document.whole().map(|document| delete::keys(&document)).unwrap_or_default();
                if !keys.is_empty() {
                    out.push(Event::Keys { exchange: self.exchange, keys });
                }
            }
            (Ok(()), ..) => {}
        }
        let announced = self.request.list("x-amz-trailer").filter_map(|name| std::str::from_utf8(name).ok());
        let checksums = announced.map(str::to_ascii_lowercase).filter(|name| name.starts_with("x-amz-checksum-"));
        self.trailer = checksums
            .filter_map(|name| self.content.trailer(&name, trailer).map(|value| (name, Bytes::from(value))))
            .collect();
        self.state = self.state.on(Step::RequestEnd);
    }

    /// The request broke off.
    pub fn request_broken(&mut self) {
        let could_be_whole = self.content.could_be_whole(self.framing);
        self.state = self.state.on(Step::RequestBroken { could_be_whole });
    }

    /// The head of the final answer.
    pub fn answer(&mut self, head: AnswerHead, out: &mut Vec<Event>) {
        // A server that has the last frame of `aws-chunked` need not wait for the end of the chunked coding around
        // it, which clients send in a packet of its own: the answer can overtake it, and is one to a whole request.
        let overtakes = self.state == Write::Sending && self.content.is_complete(&self.request);
        if overtakes && matches!(self.sink, Sink::Object | Sink::Document(_)) {
            self.request_end(&Fields::default(), out);
        }
        // S3 answers a form that was taken with the redirect that it asked for. Of a form that was not seen whole
        // nobody knows whether it asked.
        let flawed = matches!(self.state, Write::Flawed(_) | Write::Sent(Some(_)));
        let asked = matches!(&self.sink, Sink::Form(form) if form.redirects());
        let redirected = self.ask == Ask::Form && head.status == 303 && (asked || flawed);
        let status = if redirected { 200 } else { head.status };
        self.state = self.state.on(Step::Answer { status, body_decides: self.ask.body_decides() });
        self.answer = Some(head);
    }

    /// Bytes of the answer's body.
    pub fn answer_body(&mut self, piece: Piece) {
        if self.state == Write::Answered {
            self.result.push(piece);
        }
    }

    /// The answer ended.
    pub fn answer_end(&mut self, whole: bool, stamp: Stamp) -> Option<Event> {
        let mut result = None;
        if self.state == Write::Answered {
            let step = if !whole {
                Step::Unanswered
            } else {
                match self.result.whole() {
                    Ok(document) => {
                        let (verdict, root) = proven::verdict(&document);
                        result = root;
                        Step::Verdict(verdict)
                    }
                    Err(why) => Step::Verdict(Verdict::Unclear(reason(why))),
                }
            };
            self.state = self.state.on(step);
        }
        self.settle(result, stamp)
    }

    /// The connection ended without an answer.
    pub fn unanswered(&mut self, stamp: Stamp) -> Option<Event> {
        self.state = self.state.on(Step::Unanswered);
        self.settle(None, stamp)
    }

    /// The connection is not understood any more.
    pub fn unobserved(&mut self, stamp: Stamp) -> Option<Event> {
        self.state = self.state.on(Step::Unobserved);
        self.settle(None, stamp)
    }

    /// The end of the exchange, once it is settled.
    pub fn settle(&mut self, result: Option<Element>, stamp: Stamp) -> Option<Event> {
        let outcome = match self.state {
            Write::Proven => self.proven(result),
            Write::Refused => Outcome::Refused,
            Write::Lost(reason) => self.lost(reason),
            Write::Sending | Write::Flawed(_) | Write::Sent(_) | Write::Broken { .. } | Write::Answered => return None,
        };
        Some(Event::Finished(Finished { exchange: self.exchange, outcome, begin: self.begin, end: stamp }))
    }

    fn proven(&mut self, result: Option<Element>) -> Outcome {
        let Some(answer) = &self.answer else { return self.lost(GapReason::Malformed) };
        let (document, form) = match &self.sink {
            Sink::Document(document) => (document.whole().unwrap_or_default(), None),
            Sink::Form(form) => (Bytes::new(), Some(form)),
            Sink::Object | Sink::None => (Bytes::new(), None),
        };
        // A cloud can choose such a key by the bucket's rule, and a form has its fields in the body.
        if attributes::is_sse_c(&answer.fields) || form.is_some_and(Form::is_sse_c) {
            return self.lost(GapReason::SseC);
        }
        let proven = Proven {
            request: &self.request,
            answer: &answer.fields,
            trailer: std::mem::take(&mut self.trailer),
            length: self.content.seen(),
            document,
            result,
            form,
        };
        match proven::operation(&proven, &self.place, self.ask.clone()) {
            Ok(operation) => Outcome::Done(Box::new(operation)),
            Err(reason) => self.lost(reason),
        }
    }

    /// A gap of what the head named; of the form's key, where that was seen.
    fn lost(&self, reason: GapReason) -> Outcome {
        let of_form = match &self.sink {
            Sink::Form(form) => form.key().zip(self.place.bucket()),
            Sink::Object | Sink::Document(_) | Sink::None => None,
        };
        let place = match of_form {
            Some((key, bucket)) => Place::Object(Object { bucket: bucket.to_owned(), key }),
            None => self.place.clone(),
        };
        let accepted = self.answer.as_ref().filter(|answer| (200..300).contains(&answer.status));
        let etag = accepted.and_then(|answer| attributes::etag(&answer.fields));
        let version = accepted.and_then(|answer| attributes::version(&answer.fields));
        Outcome::Lost { reason, place, etag, version }
    }

    fn flaw(&mut self, reason: GapReason, out: &mut Vec<Event>) {
        let before = self.state;
        self.state = self.state.on(Step::Flaw(reason));
        if before != self.state && matches!(self.sink, Sink::Object | Sink::Form(_)) {
            out.push(Event::BodyLost { exchange: self.exchange, reason });
        }
        if let Sink::Document(document) = &mut self.sink {
            *document = Document::default(); // gives its budget back
        }
    }
}

fn reason(why: Incomplete) -> GapReason {
    match why {
        Incomplete::TooLarge => GapReason::TooLarge,
        Incomplete::Dropped => GapReason::Overflow,
    }
}

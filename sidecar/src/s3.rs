//! The adapter for S3: from the exchanges of one connection to what they did to its objects.
//!
//! Read [`request`] for what is understood, [`write`] for when it is believed, then the families: [`put`],
//! [`multipart`], [`copy`], [`delete`], [`metadata`], and [`reading`] for what reads tell. May not enter here:
//! - an operation without a yes of the cloud to a whole request: [`write::Write::on`] alone says so;
//! - a credential, a signature, a key of the client's: [`attributes`] lists what is taken, and nothing else is;
//! - I/O, clocks, locks.

use hawser_api::{GapReason, Stamp};

use crate::http::{self, Broken, ExchangeId, Exchanges};
use crate::operation::Event;
use crate::tee::Seen;

pub mod address;
pub mod attributes;
pub mod aws_chunked;
pub mod checksum;
pub mod content;
pub mod copy;
pub mod delete;
pub mod form;
pub mod listing;
pub mod metadata;
pub mod multipart;
pub mod proven;
pub mod put;
pub mod reading;
pub mod request;
pub mod write;
pub mod writing;
pub mod xml;

use address::Addressing;
use reading::{Reading, What};
use request::Request;
use writing::Writing;

/// Understands one connection to an S3 service.
#[derive(Debug)]
pub struct Observer {
    exchanges: Exchanges,
    adapter: Adapter,
    /// Kept for its allocation.
    steps: Vec<http::Event>,
}

impl Observer {
    /// For a connection to a host of those providers.
    pub fn new(addressing: Addressing) -> Observer {
        let adapter = Adapter { addressing, live: Vec::new() };
        Observer { exchanges: Exchanges::default(), adapter, steps: Vec::new() }
    }

    /// Takes what the tee saw and appends what it tells to `out`.
    pub fn on(&mut self, seen: Seen, out: &mut Vec<Event>) {
        self.exchanges.on(seen, &mut self.steps);
        for step in self.steps.drain(..) {
            self.adapter.on(step, out);
        }
    }

    /// The relay is gone. After this every exchange that began has finished.
    pub fn close(&mut self, out: &mut Vec<Event>) {
        self.exchanges.close(&mut self.steps);
        for step in self.steps.drain(..) {
            self.adapter.on(step, out);
        }
    }

    /// Whether everything seen so far is understood and no exchange is open.
    pub fn is_at_rest(&self) -> bool {
        self.exchanges.is_at_rest() && self.adapter.live.is_empty()
    }
}

/// The exchanges that matter, in the order of their requests.
#[derive(Debug)]
struct Adapter {
    addressing: Addressing,
    /// At most [`http::PIPELINE_MAX`] and the ones that were answered early: a handful.
    live: Vec<Live>,
}

#[derive(Debug)]
enum Live {
    Write(Box<Writing>),
    Read(Reading),
}

impl Live {
    fn exchange(&self) -> ExchangeId {
        match self {
            Live::Write(writing) => writing.exchange(),
            Live::Read(reading) => reading.exchange(),
        }
    }
}

impl Adapter {
    fn on(&mut self, step: http::Event, out: &mut Vec<Event>) {
        match step {
            http::Event::Request { exchange, head, framing, begin } => {
                let target = self.addressing.target(&head);
                let read = |what| Live::Read(Reading::begin(exchange, begin, what, &head.fields));
                let live = match request::request(&head, &target) {
                    Request::Other => return,
                    Request::Get(object, asked) => read(What::Object(object, asked)),
                    Request::Head(object, asked) => read(What::Head(object, asked)),
                    Request::List(bucket) => read(What::List(bucket)),
                    Request::Write(place, ask) => {
                        Live::Write(Box::new(Writing::begin((exchange, begin), (place, ask), &head, framing, out)))
                    }
                };
                self.live.push(live);
            }
            http::Event::RequestBody { exchange, piece } => {
                if let Some(Live::Write(writing)) = self.find(exchange) {
                    writing.body(piece, out);
                }
            }
            http::Event::RequestEnd { exchange, trailer } => {
                if let Some(Live::Write(writing)) = self.find(exchange) {
                    writing.request_end(&trailer, out);
                }
            }
            http::Event::RequestBroken { exchange } => {
                if let Some(Live::Write(writing)) = self.find(exchange) {
                    writing.request_broken();
                }
            }
            http::Event::Answer { exchange, head, framing, stamp } => match self.find(exchange) {
                Some(Live::Write(writing)) => {
                    writing.answer(head, out);
                    let end = writing.settle(None, stamp);
                    self.finish(exchange, end, out);
                }
                Some(Live::Read(reading)) => reading.answer(&head, framing, stamp, out),
                None => {}
            },
            http::Event::AnswerBody { exchange, piece } => match self.find(exchange) {
                Some(Live::Write(writing)) => writing.answer_body(piece),
                Some(Live::Read(reading)) => reading.answer_body(piece, out),
                None => {}
            },
            http::Event::AnswerEnd { exchange, whole, stamp } => match self.find(exchange) {
                Some(Live::Write(writing)) => {
                    let end = writing.answer_end(whole, stamp);
                    self.finish(exchange, end, out);
                }
                Some(Live::Read(reading)) => {
                    reading.end(whole, stamp, out);
                    self.forget(exchange);
                }
                None => {}
            },
            http::Event::Unanswered { exchange, stamp } => match self.find(exchange) {
                Some(Live::Write(writing)) => {
                    let end = writing.unanswered(stamp);
                    self.finish(exchange, end, out);
                }
                Some(Live::Read(_)) => self.forget(exchange),
                None => {}
            },
            http::Event::Upgraded { http2, stamp, .. } => {
                self.give_up(stamp, out);
                if http2 {
                    out.push(Event::Unparsed { reason: GapReason::Http2 });
                }
            }
            http::Event::Broken { broken, stamp } => {
                self.give_up(stamp, out);
                let reason = match broken {
                    Broken::Malformed(_) | Broken::TooLarge(_) => GapReason::Unparsed,
                    Broken::Dropped => GapReason::Overflow,
                };
                out.push(Event::Unparsed { reason });
            }
        }
    }

    /// Nothing more will be understood: what is in flight ends without being known.
    fn give_up(&mut self, stamp: Stamp, out: &mut Vec<Event>) {
        for live in self.live.drain(..) {
            match live {
                Live::Write(mut writing) => out.extend(writing.unobserved(stamp)),
                Live::Read(mut reading) => reading.end(false, stamp, out),
            }
        }
    }

    fn finish(&mut self, exchange: ExchangeId, end: Option<Event>, out: &mut Vec<Event>) {
        if let Some(end) = end {
            out.push(end);
            self.forget(exchange);
        }
    }

    fn find(&mut self, exchange: ExchangeId) -> Option<&mut Live> {
        self.live.iter_mut().find(|live| live.exchange() == exchange)
    }

    fn forget(&mut self, exchange: ExchangeId) {
        self.live.retain(|live| live.exchange() != exchange);
    }
}

//! The passive HTTP/1.1 parser: from the copied bytes of one connection to its exchanges. It knows HTTP and
//! no cloud, sends nothing, waits for nothing, and reads no clock.
//!
//! Input is what the tee saw, in its order; output is [`Event`]s. Requests and answers are matched by their
//! order (RFC 9112 §9.3.2), interim answers are skipped. What cannot be read ends the observation with
//! [`Event::Broken`]; it never ends the connection, which is not ours to end.

use std::collections::VecDeque;
use std::fmt;

use bytes::{Bytes, BytesMut};
use hawser_api::Stamp;

use crate::budget::Share;
use crate::tee::{Chunk, Seen, Side};

pub mod body;
pub mod chunked;
pub mod head;

use body::{Body, Framing, Part};
use head::{AnswerHead, Fields, Gather, RequestHead};

/// Most requests that are sent ahead of their answers. No known S3 client pipelines at all.
pub const PIPELINE_MAX: usize = 64;

/// Names one exchange, a request and its final answer, within its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExchangeId(pub u64);

/// One step of an exchange.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A request's head.
    Request {
        /// Of which exchange; the first that is heard of it.
        exchange: ExchangeId,
        /// The head.
        head: RequestHead,
        /// How the body's end is known.
        framing: Framing,
        /// The stamp of the head's first byte.
        begin: Stamp,
    },
    /// Bytes of a request's body, transfer coding off.
    RequestBody {
        /// Of which exchange.
        exchange: ExchangeId,
        /// Never empty.
        piece: Piece,
    },
    /// The end of a whole request.
    RequestEnd {
        /// Of which exchange.
        exchange: ExchangeId,
        /// The trailer of a chunked body.
        trailer: Fields,
    },
    /// The client went away, or on to its next request, within the body.
    RequestBroken {
        /// Of which exchange.
        exchange: ExchangeId,
    },
    /// The head of a final answer.
    Answer {
        /// Of which exchange.
        exchange: ExchangeId,
        /// The head.
        head: AnswerHead,
        /// How the body's end is known.
        framing: Framing,
        /// The stamp of the head's last byte.
        stamp: Stamp,
    },
    /// Bytes of an answer's body, transfer coding off.
    AnswerBody {
        /// Of which exchange.
        exchange: ExchangeId,
        /// Never empty.
        piece: Piece,
    },
    /// The end of an answer; the last of its exchange, unless the request still goes on.
    AnswerEnd {
        /// Of which exchange.
        exchange: ExchangeId,
        /// Whether the body has its announced end.
        whole: bool,
        /// The stamp of the last byte, or of the connection's end.
        stamp: Stamp,
    },
    /// The connection ended before a final answer.
    Unanswered {
        /// Of which exchange.
        exchange: ExchangeId,
        /// The stamp of the connection's end.
        stamp: Stamp,
    },
    /// The cloud agreed to speak something else from here on; the last event of the connection.
    Upgraded {
        /// By which exchange.
        exchange: ExchangeId,
        /// Whether what follows is HTTP again, in a version that is not read.
        http2: bool,
        /// The stamp of the answer.
        stamp: Stamp,
    },
    /// The bytes are not understood from here on; the last event of the connection.
    Broken {
        /// Why.
        broken: Broken,
        /// When it was found.
        stamp: Stamp,
    },
}

/// Why bytes cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// They break RFC 9112, or two readers could disagree on them.
    #[error("{0} is not understood")]
    Malformed(&'static str),
    /// A bound was passed.
    #[error("{0} is larger than is read")]
    TooLarge(&'static str),
    /// Bytes were dropped for want of budget where they cannot be skipped by count.
    #[error("bytes outside a counted body were dropped")]
    Dropped,
}

/// Bytes, or word of bytes that were dropped for want of budget.
#[derive(Clone, PartialEq, Eq)]
pub enum Piece {
    /// They own their part of the pod's budget.
    Bytes(Bytes),
    /// So many went by unseen.
    Dropped(u64),
}

/// Lengths only: bodies are the pod's.
impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Piece::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Piece::Dropped(len) => write!(f, "{len} dropped bytes"),
        }
    }
}

impl Piece {
    /// The piece of a chunk that the tee copied, or could not copy.
    fn of(len: usize, bytes: Option<(Bytes, Share)>) -> Piece {
        match bytes {
            Some((bytes, share)) => Piece::Bytes(Bytes::from_owner(Captured { bytes, _share: share })),
            None => Piece::Dropped(len as u64),
        }
    }

    /// How many bytes it stands for.
    pub fn len(&self) -> u64 {
        match self {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::Dropped(len) => *len,
        }
    }

    /// Whether it stands for none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes `len` bytes, or all there are, off the front.
    pub(crate) fn split_to(&mut self, len: u64) -> Piece {
        let len = len.min(self.len());
        match self {
            Piece::Bytes(bytes) => Piece::Bytes(bytes.split_to(usize::try_from(len).unwrap_or(bytes.len()))),
            Piece::Dropped(left) => {
                *left -= len;
                Piece::Dropped(len)
            }
        }
    }

    /// The bytes, where they are needed.
    pub(crate) fn bytes(&mut self) -> Result<&mut Bytes, Broken> {
        match self {
            Piece::Bytes(bytes) => Ok(bytes),
            Piece::Dropped(_) => Err(Broken::Dropped),
        }
    }
}

/// Bytes that give their budget back when the last slice of them goes.
struct Captured {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Captured {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The exchanges of one connection.
#[derive(Debug)]
pub struct Exchanges {
    client: Client,
    cloud: Cloud,
    /// Exchanges without a whole final answer, in the order of their requests.
    waiting: VecDeque<Waiting>,
    count: u64,
    /// The last stamp that was seen.
    last: Stamp,
    client_ended: bool,
    cloud_ended: bool,
    /// Nothing more is understood.
    over: bool,
}

/// Where the client's next byte stands.
#[derive(Debug)]
enum Client {
    Head {
        gather: Gather,
        begin: Stamp,
    },
    Body {
        exchange: ExchangeId,
        framing: Framing,
        body: Body,
        begun: bool,
    },
    /// The cloud gave a final answer while the client waited for `100 Continue`: what comes next is the body
    /// all the same, or the next request. `held` is too short to tell yet.
    Declined {
        exchange: ExchangeId,
        framing: Framing,
        held: BytesMut,
    },
    Ended,
}

/// Where the cloud's next byte stands.
#[derive(Debug)]
enum Cloud {
    Head(Gather),
    Body {
        body: Body,
        closes: bool,
    },
    /// It said that it answers no more, or it answered what was not asked: what comes is not read.
    Ended,
}

#[derive(Debug)]
struct Waiting {
    exchange: ExchangeId,
    method: String,
    /// The client asked for `100 Continue` and has had none.
    expects: bool,
    /// The request ended, whole or broken.
    sent: bool,
}

impl Default for Exchanges {
    fn default() -> Exchanges {
        Exchanges {
            client: Client::next(),
            cloud: Cloud::Head(Gather::head()),
            waiting: VecDeque::new(),
            count: 0,
            last: Stamp::default(),
            client_ended: false,
            cloud_ended: false,
            over: false,
        }
    }
}

impl Exchanges {
    /// Takes what the tee saw and appends what follows from it to `out`.
    pub fn on(&mut self, seen: Seen, out: &mut Vec<Event>) {
        if self.over {
            return;
        }
        match seen {
            Seen::Chunk(Chunk { side, stamp, len, bytes }) => {
                self.last = stamp;
                let mut piece = Piece::of(len, bytes);
                let read = match side {
                    Side::Client => self.client_bytes(&mut piece, stamp, out),
                    Side::Cloud => self.cloud_bytes(&mut piece, stamp, out),
                };
                if let Err(broken) = read {
                    self.over = true;
                    out.push(Event::Broken { broken, stamp });
                }
            }
            Seen::End { side, stamp, clean } => {
                self.last = stamp;
                match side {
                    Side::Client => self.client_end(out),
                    Side::Cloud => self.cloud_end(clean, stamp, out),
                }
            }
        }
        self.give_up(out);
    }

    /// The relay is gone: nothing more will be seen. If it did not tell the end of both sides, the copy was lost on
    /// the way, and what happened since is not known.
    pub fn close(&mut self, out: &mut Vec<Event>) {
        let told = self.over || (self.client_ended && self.cloud_ended);
        if !told {
            out.push(Event::Broken { broken: Broken::Dropped, stamp: self.last });
        }
        self.over = true;
    }

    /// Whether everything seen so far is understood and no exchange is open. Of a connection that is not
    /// understood any more nobody knows what it carries: it is never at rest.
    pub fn is_at_rest(&self) -> bool {
        let client = match &self.client {
            Client::Head { gather, .. } => gather.is_empty(),
            Client::Declined { held, .. } => held.is_empty(),
            Client::Ended => true,
            Client::Body { .. } => false,
        };
        !self.over && client && self.waiting.is_empty()
    }

    fn client_bytes(&mut self, piece: &mut Piece, stamp: Stamp, out: &mut Vec<Event>) -> Result<(), Broken> {
        loop {
            match &mut self.client {
                Client::Head { gather, begin } => {
                    if piece.is_empty() {
                        return Ok(());
                    }
                    if gather.is_empty() {
                        *begin = stamp;
                    }
                    let begin = *begin;
                    let Some(bytes) = gather.take(piece.bytes()?)? else { return Ok(()) };
                    self.request(RequestHead::parse(&bytes)?, begin, out)?;
                }
                Client::Body { exchange, body, begun, .. } => {
                    let exchange = *exchange;
                    *begun |= !piece.is_empty();
                    match body.take(piece)? {
                        None => return Ok(()),
                        Some(Part::Piece(piece)) => out.push(Event::RequestBody { exchange, piece }),
                        Some(Part::End(trailer)) => {
                            self.sent(exchange);
                            self.client = Client::next();
                            out.push(Event::RequestEnd { exchange, trailer });
                        }
                    }
                }
                Client::Declined { exchange, framing, held } => {
                    let (exchange, framing) = (*exchange, *framing);
                    let bytes = piece.bytes()?;
                    if !held.is_empty() {
                        held.extend_from_slice(bytes);
                        *bytes = held.split().freeze();
                    }
                    let Some(another) = begins_a_request(bytes) else {
                        held.extend_from_slice(bytes);
                        return Ok(());
                    };
                    if another {
                        out.push(Event::RequestBroken { exchange });
                        self.sent(exchange);
                        self.client = Client::next();
                    } else {
                        self.client = Client::body(exchange, framing);
                    }
                }
                Client::Ended => return Ok(()),
            }
        }
    }

    fn request(&mut self, head: RequestHead, begin: Stamp, out: &mut Vec<Event>) -> Result<(), Broken> {
        if self.waiting.len() >= PIPELINE_MAX {
            return Err(Broken::TooLarge("number of requests ahead of their answers"));
        }
        let framing = Framing::of_request(&head)?;
        let exchange = ExchangeId(self.count);
        self.count += 1;
        self.waiting.push_back(Waiting {
            exchange,
            method: head.method.clone(),
            expects: head.minor == 1 && head.fields.has("expect", "100-continue"),
            sent: false,
        });
        self.client = Client::body(exchange, framing);
        out.push(Event::Request { exchange, head, framing, begin });
        Ok(())
    }

    fn cloud_bytes(&mut self, piece: &mut Piece, stamp: Stamp, out: &mut Vec<Event>) -> Result<(), Broken> {
        loop {
            match &mut self.cloud {
                Cloud::Head(gather) => {
                    if piece.is_empty() {
                        return Ok(());
                    }
                    if self.waiting.is_empty() {
                        // Unasked, as a server's 408 before it closes an idle connection. It answers nothing, and
                        // whatever is asked from now on stays without an answer that could be trusted.
                        self.cloud = Cloud::Ended;
                        return Ok(());
                    }
                    let Some(bytes) = gather.take(piece.bytes()?)? else { return Ok(()) };
                    self.answer(AnswerHead::parse(&bytes)?, stamp, out)?;
                    if self.over {
                        return Ok(());
                    }
                }
                Cloud::Body { body, closes } => {
                    let Some(exchange) = self.waiting.front().map(|waiting| waiting.exchange) else { return Ok(()) };
                    match body.take(piece)? {
                        None => return Ok(()),
                        Some(Part::Piece(piece)) => out.push(Event::AnswerBody { exchange, piece }),
                        Some(Part::End(_)) => {
                            self.cloud = if *closes { Cloud::Ended } else { Cloud::Head(Gather::head()) };
                            self.waiting.pop_front();
                            out.push(Event::AnswerEnd { exchange, whole: true, stamp });
                        }
                    }
                }
                Cloud::Ended => return Ok(()),
            }
        }
    }

    fn answer(&mut self, head: AnswerHead, stamp: Stamp, out: &mut Vec<Event>) -> Result<(), Broken> {
        let Some(waiting) = self.waiting.front_mut() else { return Ok(()) };
        let exchange = waiting.exchange;
        let tunnel = waiting.method == "CONNECT" && (200..300).contains(&head.status);
        if head.status == 101 || tunnel {
            self.over = true;
            let http2 = head.fields.list("upgrade").any(|protocol| protocol.eq_ignore_ascii_case(b"h2c"));
            out.push(Event::Upgraded { exchange, http2, stamp });
            return Ok(());
        }
        if head.status < 200 {
            waiting.expects &= head.status != 100;
            return Ok(());
        }
        let framing = Framing::of_answer(&head, &waiting.method)?;
        let keeps = if head.minor == 1 {
            !head.fields.has("connection", "close")
        } else {
            head.fields.has("connection", "keep-alive")
        };
        let closes = !keeps || framing == Framing::UntilClose;
        let declined = waiting.expects && !closes;
        self.cloud = Cloud::Body { body: Body::new(framing), closes };
        if declined {
            self.declined(exchange);
        }
        out.push(Event::Answer { exchange, head, framing, stamp });
        Ok(())
    }

    /// A final answer came where `100 Continue` was asked for. If no byte of the body went out, none may follow.
    fn declined(&mut self, exchange: ExchangeId) {
        if let Client::Body { exchange: sending, framing, begun: false, .. } = self.client
            && sending == exchange
        {
            self.client = Client::Declined { exchange, framing, held: BytesMut::new() };
        }
    }

    fn client_end(&mut self, out: &mut Vec<Event>) {
        match std::mem::replace(&mut self.client, Client::Ended) {
            Client::Body { exchange, .. } | Client::Declined { exchange, .. } => {
                self.sent(exchange);
                out.push(Event::RequestBroken { exchange });
            }
            Client::Head { .. } | Client::Ended => {}
        }
        self.client_ended = true;
    }

    fn cloud_end(&mut self, clean: bool, stamp: Stamp, out: &mut Vec<Event>) {
        if let Cloud::Body { body, .. } = std::mem::replace(&mut self.cloud, Cloud::Ended)
            && let Some(waiting) = self.waiting.pop_front()
        {
            let whole = clean && matches!(body, Body::UntilClose);
            out.push(Event::AnswerEnd { exchange: waiting.exchange, whole, stamp });
        }
        self.cloud_ended = true;
    }

    /// After the cloud's end nothing is answered any more; what still goes out may be acted on all the same, so
    /// a request is waited for until it is whole or its client is gone.
    fn give_up(&mut self, out: &mut Vec<Event>) {
        if !self.cloud_ended || self.over {
            return;
        }
        let (stamp, client_ended) = (self.last, self.client_ended);
        self.waiting.retain(|waiting| {
            let given_up = waiting.sent || client_ended;
            if given_up {
                out.push(Event::Unanswered { exchange: waiting.exchange, stamp });
            }
            !given_up
        });
    }

    fn sent(&mut self, exchange: ExchangeId) {
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.exchange == exchange) {
            waiting.sent = true;
        }
    }
}

impl Client {
    /// Before a request.
    fn next() -> Client {
        Client::Head { gather: Gather::head(), begin: Stamp::default() }
    }

    /// Before a request's body.
    fn body(exchange: ExchangeId, framing: Framing) -> Client {
        Client::Body { exchange, framing, body: Body::new(framing), begun: false }
    }
}

/// Whether bytes begin with the line of a request for a path, in HTTP/1; `None` while they are too few.
fn begins_a_request(bytes: &[u8]) -> Option<bool> {
    const METHODS: [&[u8]; 7] = [b"GET /", b"PUT /", b"HEAD /", b"POST /", b"PATCH /", b"DELETE /", b"OPTIONS /"];
    /// Longer lines are taken for content.
    const LINE_MAX: usize = 16 * 1024;
    let possible = |method: &[u8]| bytes.iter().zip(method.iter()).all(|(own, its)| own == its);
    if !METHODS.iter().any(|method| possible(method)) {
        return Some(false);
    }
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            let line = bytes[..end].trim_ascii_end();
            Some(line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0"))
        }
        None if bytes.len() > LINE_MAX => Some(false),
        None => None,
    }
}

#[cfg(test)]
mod tests;

//! Where a body ends: the rules of RFC 9112 §6.3, and the body read by them.

use super::chunked::{Chunked, Unchunked};
use super::head::{AnswerHead, Fields, RequestHead};
use super::{Broken, Piece};

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes; 0 is no body.
    Length(u64),
    /// By the chunked coding.
    Chunked,
    /// With the connection.
    UntilClose,
}

impl Framing {
    /// Of a request. Where two servers could read it differently, it is broken: a guess could take the bytes
    /// of one object for a request about another.
    pub(crate) fn of_request(head: &RequestHead) -> Result<Framing, Broken> {
        let length = content_length(&head.fields)?;
        match transfer_coding(&head.fields) {
            Coding::None => Ok(Framing::Length(length.unwrap_or(0))),
            Coding::Chunked if length.is_none() && head.minor == 1 => Ok(Framing::Chunked),
            Coding::Chunked | Coding::Other => Err(Broken::Malformed("framing of a request")),
        }
    }

    /// Of a final answer to a request of that method.
    pub(crate) fn of_answer(head: &AnswerHead, method: &str) -> Result<Framing, Broken> {
        if method == "HEAD" || matches!(head.status, 204 | 304) {
            return Ok(Framing::Length(0));
        }
        match transfer_coding(&head.fields) {
            Coding::Chunked => Ok(Framing::Chunked),
            Coding::Other => Err(Broken::Malformed("framing of an answer")),
            Coding::None => Ok(content_length(&head.fields)?.map_or(Framing::UntilClose, Framing::Length)),
        }
    }
}

/// What Transfer-Encoding says.
enum Coding {
    None,
    /// `chunked` alone.
    Chunked,
    /// Anything else: a compression that we would have to take off, or a mistake.
    Other,
}

fn transfer_coding(fields: &Fields) -> Coding {
    let mut codings = fields.list("transfer-encoding").filter(|coding| !coding.eq_ignore_ascii_case(b"identity"));
    match (codings.next(), codings.next()) {
        (None, _) => Coding::None,
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Coding::Chunked,
        _ => Coding::Other,
    }
}

/// Content-Length; several equal ones are one (RFC 9110 §8.6).
fn content_length(fields: &Fields) -> Result<Option<u64>, Broken> {
    let mut length = None;
    for member in fields.list("content-length") {
        let digits = (1..=18).contains(&member.len()) && member.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(member).ok().filter(|_| digits).and_then(|text| text.parse::<u64>().ok());
        let number = number.ok_or(Broken::Malformed("content length"))?;
        if length.is_some_and(|other| other != number) {
            return Err(Broken::Malformed("content length"));
        }
        length = Some(number);
    }
    Ok(length)
}

/// A body on its way.
#[derive(Debug)]
pub(crate) enum Body {
    /// So many bytes before its end.
    Length(u64),
    Chunked(Chunked),
    UntilClose,
}

/// What came of a body.
#[derive(Debug, PartialEq)]
pub(crate) enum Part {
    /// Data without its framing, or word of data that was dropped.
    Piece(Piece),
    /// The end, with the trailer of a chunked body.
    End(Fields),
}

impl Body {
    pub(crate) fn new(framing: Framing) -> Body {
        match framing {
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked(Chunked::new()),
            Framing::UntilClose => Body::UntilClose,
        }
    }

    /// Takes the next part off the front of `input`. `Ok(None)`: more input is needed. A body of no bytes left
    /// ends without any.
    pub(crate) fn take(&mut self, input: &mut Piece) -> Result<Option<Part>, Broken> {
        match self {
            Body::Length(0) => Ok(Some(Part::End(Fields::default()))),
            _ if input.is_empty() => Ok(None),
            Body::Length(left) => {
                let piece = input.split_to(*left);
                *left -= piece.len();
                Ok(Some(Part::Piece(piece)))
            }
            Body::Chunked(chunked) => Ok(chunked.take(input)?.map(|part| match part {
                Unchunked::Piece(piece) => Part::Piece(piece),
                Unchunked::End(fields) => Part::End(fields),
            })),
            Body::UntilClose => Ok(Some(Part::Piece(input.split_to(u64::MAX)))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;

    use super::*;

    fn request(fields: &str, version: &str) -> RequestHead {
        RequestHead::parse(&Bytes::from(format!("PUT / HTTP/{version}\r\n{fields}\r\n"))).unwrap()
    }

    fn answer(status: u16, fields: &str) -> AnswerHead {
        AnswerHead::parse(&Bytes::from(format!("HTTP/1.1 {status} X\r\n{fields}\r\n"))).unwrap()
    }

    #[test]
    fn the_end_of_a_request_is_known_or_the_request_is_broken() {
        let rows = [
            ("none", "", "1.1", Some(Framing::Length(0))),
            ("length", "Content-Length: 5\r\n", "1.1", Some(Framing::Length(5))),
            ("length twice, equal", "Content-Length: 5\r\nContent-Length: 5\r\n", "1.1", Some(Framing::Length(5))),
            ("length twice in one line", "Content-Length: 5, 5\r\n", "1.1", Some(Framing::Length(5))),
            ("lengths differ", "Content-Length: 5\r\nContent-Length: 6\r\n", "1.1", None),
            ("signed length", "Content-Length: +5\r\n", "1.1", None),
            ("huge length", "Content-Length: 99999999999999999999\r\n", "1.1", None),
            ("chunked", "Transfer-Encoding: Chunked\r\n", "1.1", Some(Framing::Chunked)),
            ("identity", "Transfer-Encoding: identity\r\nContent-Length: 2\r\n", "1.1", Some(Framing::Length(2))),
            ("chunked and length", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "1.1", None),
            ("chunked in 1.0", "Transfer-Encoding: chunked\r\n", "1.0", None),
            ("compressed", "Transfer-Encoding: gzip, chunked\r\n", "1.1", None),
        ];
        for (trap, fields, version, wanted) in rows {
            assert_eq!(Framing::of_request(&request(fields, version)).ok(), wanted, "{trap}");
        }
    }

    #[test]
    fn the_end_of_an_answer_depends_on_the_question() {
        let rows = [
            ("length", "GET", 200, "Content-Length: 5\r\n", Some(Framing::Length(5))),
            ("HEAD has none", "HEAD", 200, "Content-Length: 5\r\n", Some(Framing::Length(0))),
            ("HEAD, chunked", "HEAD", 200, "Transfer-Encoding: chunked\r\n", Some(Framing::Length(0))),
            ("204", "DELETE", 204, "Content-Length: 5\r\n", Some(Framing::Length(0))),
            ("304", "GET", 304, "Content-Length: 5\r\n", Some(Framing::Length(0))),
            ("neither", "GET", 200, "", Some(Framing::UntilClose)),
            ("chunked wins", "GET", 200, "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Some(Framing::Chunked)),
            ("compressed", "GET", 200, "Transfer-Encoding: gzip, chunked\r\n", None),
        ];
        for (trap, method, status, fields, wanted) in rows {
            assert_eq!(Framing::of_answer(&answer(status, fields), method).ok(), wanted, "{trap}");
        }
    }
}

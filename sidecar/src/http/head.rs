//! Heads of requests and answers: the start line and the fields (RFC 9112 §2 to §5).

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::Broken;

/// Largest head that is read, in bytes. Servers cap theirs at 8 to 64 KiB; a larger one ends the observation.
pub const HEAD_MAX: usize = 64 * 1024;

/// Most fields in one head. S3 allows 2 KiB of metadata, so some 50 of them are the most that is seen.
pub const FIELDS_MAX: usize = 256;

/// The head of a request.
#[derive(Clone, PartialEq)]
pub struct RequestHead {
    /// As it is on the wire: methods are case-sensitive.
    pub method: String,
    /// The request target as it is on the wire.
    pub target: Bytes,
    /// The minor version of HTTP/1: 0 or 1.
    pub minor: u8,
    /// The fields.
    pub fields: Fields,
}

/// Without the target's query and without values: both can hold secrets.
impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split(|byte| *byte == b'?').next().unwrap_or_default();
        write!(f, "{} {} {:?}", self.method, String::from_utf8_lossy(path), self.fields)
    }
}

/// The head of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerHead {
    /// The status code.
    pub status: u16,
    /// The minor version of HTTP/1: 0 or 1.
    pub minor: u8,
    /// The fields.
    pub fields: Fields,
}

/// The fields of a head or a trailer, in the order of the wire.
#[derive(Clone, Default, PartialEq)]
pub struct Fields(Vec<(Bytes, Bytes)>);

/// Names only: values can hold secrets.
impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| String::from_utf8_lossy(name))).finish()
    }
}

impl Fields {
    /// The value of the first field of that name; names have no case.
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.all(name).next()
    }

    /// The value as text, when it is some.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The values of every field of that name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &Bytes> {
        self.0.iter().filter(move |(own, _)| own.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// Every member of a comma-separated field, over all its lines, without white space and empty ones.
    pub fn list(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.all(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|token| !token.is_empty())
    }

    /// Whether a comma-separated field has that member; members are compared without case.
    pub fn has(&self, name: &str, token: &str) -> bool {
        self.list(name).any(|own| own.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Names and values, in the order of the wire.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// Reads the lines of a trailer: fields up to and with the empty line.
    pub(crate) fn trailer(lines: &Bytes) -> Result<Fields, Broken> {
        let mut slots = [httparse::EMPTY_HEADER; FIELDS_MAX];
        match httparse::parse_headers(lines, &mut slots) {
            Ok(httparse::Status::Complete((_, parsed))) => Ok(Fields::of(lines, parsed)),
            Ok(httparse::Status::Partial) | Err(_) => Err(Broken::Malformed("trailer")),
        }
    }

    /// Fields that borrow their bytes from `source`, which `parsed` was read from.
    fn of(source: &Bytes, parsed: &[httparse::Header<'_>]) -> Fields {
        let slice = |part: &[u8]| if part.is_empty() { Bytes::new() } else { source.slice_ref(part) };
        Fields(parsed.iter().map(|header| (slice(header.name.as_bytes()), slice(header.value.trim_ascii()))).collect())
    }
}

impl RequestHead {
    /// Reads a whole head, empty line included.
    pub(crate) fn parse(head: &Bytes) -> Result<RequestHead, Broken> {
        let mut slots = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut slots);
        match request.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) | Err(_) => return Err(Broken::Malformed("request head")),
        }
        let (Some(method), Some(path), Some(minor)) = (request.method, request.path, request.version) else {
            return Err(Broken::Malformed("request head"));
        };
        Ok(RequestHead {
            method: method.to_owned(),
            target: head.slice_ref(path.as_bytes()),
            minor,
            fields: Fields::of(head, request.headers),
        })
    }
}

impl AnswerHead {
    /// Reads a whole head, empty line included.
    pub(crate) fn parse(head: &Bytes) -> Result<AnswerHead, Broken> {
        let mut slots = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut answer = httparse::Response::new(&mut slots);
        match answer.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) | Err(_) => return Err(Broken::Malformed("answer head")),
        }
        let (Some(status), Some(minor)) = (answer.code, answer.version) else {
            return Err(Broken::Malformed("answer head"));
        };
        Ok(AnswerHead { status, minor, fields: Fields::of(head, answer.headers) })
    }
}

/// Gathers the bytes of one head, or of one trailer, up to and with its empty line.
///
/// Holds at most [`HEAD_MAX`] bytes, copied out of the chunk that they came in: a head is kept as long as its
/// exchange, and must not keep a whole chunk's budget for it.
#[derive(Default)]
pub(crate) struct Gather {
    held: BytesMut,
    /// Bytes of `held` in which no empty line begins.
    searched: usize,
    /// A trailer can be an empty line alone; before a head, empty lines are skipped (RFC 9112 §2.2).
    trailer: bool,
}

/// Its length only: a head can hold secrets.
impl fmt::Debug for Gather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather").field("len", &self.held.len()).field("trailer", &self.trailer).finish()
    }
}

impl Gather {
    /// For a head: empty lines before it are no part of it.
    pub(crate) fn head() -> Gather {
        Gather::default()
    }

    /// For a trailer: an empty line alone is one.
    pub(crate) fn trailer() -> Gather {
        Gather { trailer: true, ..Gather::default() }
    }

    /// Whether nothing of it has come.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Takes what belongs to the head off the front of `bytes`. `Ok(None)`: more bytes are needed.
    ///
    /// # Errors
    /// [`Broken::TooLarge`] past [`HEAD_MAX`].
    pub(crate) fn take(&mut self, bytes: &mut Bytes) -> Result<Option<Bytes>, Broken> {
        if !self.trailer && self.held.is_empty() {
            let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            let _ = bytes.split_to(blank);
        }
        let before = self.held.len();
        // One more byte than allowed tells a head that is too large from one that just fits.
        let room = (HEAD_MAX + 1).saturating_sub(before).min(bytes.len());
        self.held.extend_from_slice(&bytes[..room]);
        if let Some(end) = self.end() {
            let _ = bytes.split_to(end - before);
            self.held.truncate(end);
            self.searched = 0;
            return if end > HEAD_MAX { Err(Broken::TooLarge("head")) } else { Ok(Some(self.held.split().freeze())) };
        }
        if self.held.len() > HEAD_MAX {
            return Err(Broken::TooLarge("head"));
        }
        bytes.clear();
        Ok(None)
    }

    /// Where the head ends: behind its first empty line.
    fn end(&mut self) -> Option<usize> {
        let held = &self.held[..];
        if self.trailer && self.searched == 0 {
            match held {
                [b'\n', ..] => return Some(1),
                [b'\r', b'\n', ..] => return Some(2),
                [b'\r'] => return None,
                _ => {}
            }
        }
        let mut from = self.searched;
        while let Some(found) = held[from..].iter().position(|byte| *byte == b'\n') {
            let next = from + found + 1;
            match &held[next..] {
                [b'\n', ..] => return Some(next + 1),
                [b'\r', b'\n', ..] => return Some(next + 2),
                [] | [b'\r'] => {
                    self.searched = next - 1;
                    return None;
                }
                _ => from = next,
            }
        }
        self.searched = held.len();
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn gather(wire: &[u8], step: usize) -> Option<(Bytes, usize)> {
        let mut gather = Gather::head();
        let mut rest = 0;
        for piece in wire.chunks(step) {
            let mut piece = Bytes::copy_from_slice(piece);
            match gather.take(&mut piece).unwrap() {
                Some(head) => return Some((head, wire.len() - rest - step.min(wire.len() - rest) + piece.len())),
                None => rest += step,
            }
        }
        None
    }

    #[test]
    fn a_head_ends_at_its_first_empty_line_however_it_is_split() {
        type Row = (&'static str, &'static [u8], Option<&'static [u8]>);
        let rows: &[Row] = &[
            ("crlf", b"GET / HTTP/1.1\r\nA: b\r\n\r\nrest", Some(b"GET / HTTP/1.1\r\nA: b\r\n\r\n")),
            ("bare lf", b"GET / HTTP/1.1\nA: b\n\nrest", Some(b"GET / HTTP/1.1\nA: b\n\n")),
            ("blank lines before", b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", Some(b"GET / HTTP/1.1\r\n\r\n")),
            ("not yet", b"GET / HTTP/1.1\r\nA: b\r\n", None),
            ("not yet, half a line end", b"GET / HTTP/1.1\r\nA: b\r\n\r", None),
        ];
        for (trap, wire, wanted) in rows {
            for step in 1..=wire.len() {
                let head = gather(wire, step).map(|(head, _)| head);
                assert_eq!(head.as_deref(), *wanted, "{trap}, {step} bytes at a time");
            }
        }
    }

    #[test]
    fn a_trailer_can_be_an_empty_line_alone() {
        for (wire, rest) in [(&b"\r\nrest"[..], &b"rest"[..]), (b"x-a: 1\r\n\r\nrest", b"rest"), (b"\nrest", b"rest")] {
            for step in 1..=wire.len() {
                let (mut gather, mut left, mut ended) = (Gather::trailer(), Vec::new(), false);
                for piece in wire.chunks(step) {
                    let mut bytes = Bytes::copy_from_slice(piece);
                    ended = ended || gather.take(&mut bytes).unwrap().is_some();
                    left.extend_from_slice(&bytes);
                }
                assert_eq!(left, rest, "{step} at a time");
            }
        }
    }

    #[test]
    fn a_head_past_its_bound_is_too_large_and_one_that_just_fits_is_not() {
        let head = |len: usize| {
            let mut head = b"GET / HTTP/1.1\r\nA: ".to_vec();
            head.resize(len - 4, b'x');
            head.extend_from_slice(b"\r\n\r\n");
            Bytes::from(head)
        };
        assert!(Gather::head().take(&mut head(HEAD_MAX)).unwrap().is_some());
        assert!(Gather::head().take(&mut head(HEAD_MAX + 1)).is_err());
        let mut endless = Gather::head();
        let wire = Bytes::from(vec![b'a'; 1024]);
        let refused = (0..=HEAD_MAX / 1024).find(|_| endless.take(&mut wire.clone()).is_err());
        assert_eq!(refused, Some(HEAD_MAX / 1024));
    }

    #[test]
    fn fields_are_found_by_name_without_case_and_lists_by_member() {
        let head =
            Bytes::from_static(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip , Chunked\r\nX-A:  1 \r\nx-a: 2\r\n\r\n");
        let answer = AnswerHead::parse(&head).unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.fields.has("transfer-encoding", "chunked"));
        assert_eq!(answer.fields.all("x-a").map(|value| &value[..]).collect::<Vec<_>>(), [b"1", b"2"]);
    }

    #[test]
    fn what_can_be_secret_is_not_printed() {
        let head = Bytes::from_static(b"GET /b/k?X-Amz-Signature=SECRET HTTP/1.1\r\nAuthorization: SECRET\r\n\r\n");
        let mut gather = Gather::head();
        gather.take(&mut head.slice(..head.len() - 2)).unwrap();
        for printed in [format!("{:?}", RequestHead::parse(&head).unwrap()), format!("{gather:?}")] {
            assert!(!printed.contains("SECRET"), "{printed}");
        }
    }
}

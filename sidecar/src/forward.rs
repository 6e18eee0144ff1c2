//! Requests that name a whole URL (RFC 9112 §3.2.2), as a client sends them to a proxy for plain http. Their request
//! line becomes origin-form and their `Proxy-*` headers go; every other byte stays as it is, answers entirely.
//!
//! A client may go on to another host on the same connection. Only for that, and to know when it is idle, the
//! messages' ends are followed. What cannot be followed is passed on as it is, to the host it began with.

use std::collections::VecDeque;

/// Longest head that is followed.
pub const HEAD_LEN_MAX: usize = 64 * 1024;

/// Host and port as a client named them; the host in lower case, without a trailing dot or brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Authority {
    /// Reads `host`, `host:port` or `[v6]:port`.
    pub fn parse(text: &str, default_port: Option<u16>) -> Option<Authority> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']')?;
                (host, after.strip_prefix(':').or_else(|| after.is_empty().then_some(""))?)
            }
            None => text.split_once(':').unwrap_or((text, "")),
        };
        let port = if port.is_empty() { default_port? } else { port.parse().ok()? };
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':' | b'%');
        (!host.is_empty() && host.bytes().all(is_host)).then_some(Authority { host, port })
    }
}

impl std::fmt::Display for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The first line of a request that came to the proxy.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// `CONNECT host:port`: a tunnel. The head has `len` bytes.
    Tunnel {
        /// Where to.
        to: Authority,
        /// Bytes of the head.
        len: usize,
    },
    /// `GET http://host/…`.
    Forward(Authority),
}

/// Reads the first head of a proxy's connection. `Ok(None)`: not complete yet.
///
/// # Errors
/// The reason why it is nothing that a proxy can do, for the client to read.
pub fn asked(bytes: &[u8]) -> Result<Option<Asked>, &'static str> {
    const NOT_FOR_A_PROXY: &str = "this is a proxy: it takes CONNECT host:port, or a request for http://host/…; set it as HTTPS_PROXY and HTTP_PROXY";
    let Some(len) = head_len(bytes) else {
        let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        let method_len = bytes.iter().take_while(|byte| is_token(byte)).count();
        let hopeless = bytes.get(method_len).is_some_and(|byte| *byte != b' ' || method_len == 0);
        return if hopeless || bytes.len() > HEAD_LEN_MAX { Err(NOT_FOR_A_PROXY) } else { Ok(None) };
    };
    let line = RequestLine::of(&bytes[..len]).ok_or(NOT_FOR_A_PROXY)?;
    if line.method == "CONNECT" {
        let to = Authority::parse(line.target, None).ok_or("CONNECT wants host:port")?;
        return Ok(Some(Asked::Tunnel { to, len }));
    }
    let (authority, _) = split_url(line.target).ok_or(NOT_FOR_A_PROXY)?;
    Ok(Some(Asked::Forward(authority)))
}

/// Follows one client's requests, and their answers, to one host.
#[derive(Debug)]
pub struct Forward {
    here: Authority,
    requests: Requests,
    answers: Answers,
    /// Requests without a final answer so far; true for HEAD, whose answer has no body.
    open: VecDeque<bool>,
}

#[derive(Debug)]
enum Requests {
    Head(Vec<u8>),
    Body(Body),
    /// Not followed any more.
    Opaque,
    /// A request for another host, and what came behind it.
    Held(Vec<u8>),
}

#[derive(Debug)]
enum Answers {
    Head(Vec<u8>),
    Body(Body),
    /// Not followed any more: it ends with the connection.
    Opaque,
}

impl Forward {
    /// Begins with requests to `here`.
    pub fn new(here: Authority) -> Forward {
        Forward {
            here,
            requests: Requests::Head(Vec::new()),
            answers: Answers::Head(Vec::new()),
            open: VecDeque::new(),
        }
    }

    /// Takes bytes of the client and gives to `pass` what goes to the host.
    pub fn requests(&mut self, mut bytes: &[u8], pass: &mut dyn FnMut(&[u8])) {
        while !bytes.is_empty() {
            match &mut self.requests {
                Requests::Opaque => return pass(bytes),
                Requests::Held(held) => return held.extend_from_slice(bytes),
                Requests::Body(body) => {
                    let len = body.take(bytes);
                    pass(&bytes[..len]);
                    bytes = &bytes[len..];
                    match body {
                        Body::Broken => self.requests = Requests::Opaque,
                        body if body.is_done() => self.requests = Requests::Head(Vec::new()),
                        _ => {}
                    }
                }
                Requests::Head(head) => {
                    head.extend_from_slice(bytes);
                    bytes = &[];
                    if let Some(len) = head_len(head) {
                        let whole = std::mem::take(head);
                        self.request(&whole[..len], &whole[len..], pass);
                    } else if head.len() > HEAD_LEN_MAX {
                        pass(&std::mem::take(head));
                        self.requests = Requests::Opaque;
                    }
                }
            }
        }
    }

    fn request(&mut self, head: &[u8], behind: &[u8], pass: &mut dyn FnMut(&[u8])) {
        let line = RequestLine::of(head);
        let Some((line, (authority, path))) = line.and_then(|line| Some((line, split_url(line.target)?))) else {
            self.requests = Requests::Opaque;
            pass(head);
            return pass(behind);
        };
        if authority != self.here {
            self.requests = Requests::Held([head, behind].concat());
            return;
        }
        self.requests = match Body::of_headers(head, Body::Length(0)) {
            Some(body) if body.is_done() => Requests::Head(Vec::new()),
            Some(body) => Requests::Body(body),
            None => Requests::Opaque,
        };
        self.open.push_back(line.method == "HEAD");
        pass(&origin_form(head, line.method, path));
        self.requests(behind, pass);
    }

    /// Follows bytes of the host; they are passed on as they are.
    pub fn answers(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match &mut self.answers {
                Answers::Opaque => return,
                Answers::Body(body) => {
                    let len = body.take(bytes);
                    bytes = &bytes[len..];
                    match body {
                        Body::Broken => self.answers = Answers::Opaque,
                        body if body.is_done() => self.answered(),
                        _ => {}
                    }
                }
                Answers::Head(head) => {
                    head.extend_from_slice(bytes);
                    bytes = &[];
                    if let Some(len) = head_len(head) {
                        let whole = std::mem::take(head);
                        self.answer(&whole[..len]);
                        self.answers(&whole[len..]);
                    } else if head.len() > HEAD_LEN_MAX {
                        self.answers = Answers::Opaque;
                    }
                }
            }
        }
    }

    fn answer(&mut self, head: &[u8]) {
        let status = status_of(head);
        match (status, self.open.front()) {
            (Some(101), _) => {
                self.answers = Answers::Opaque;
                self.requests = match std::mem::replace(&mut self.requests, Requests::Opaque) {
                    held @ Requests::Held(_) => held,
                    _ => Requests::Opaque,
                };
            }
            (Some(100..=199), Some(_)) => {}
            (Some(204 | 304), Some(_)) | (Some(_), Some(true)) => self.answered(),
            (Some(_), Some(false)) => match Body::of_headers(head, Body::Close) {
                Some(body) if body.is_done() => self.answered(),
                Some(body) => self.answers = Answers::Body(body),
                None => self.answers = Answers::Opaque,
            },
            (None, _) | (_, None) => self.answers = Answers::Opaque,
        }
    }

    fn answered(&mut self) {
        self.open.pop_front();
        self.answers = Answers::Head(Vec::new());
    }

    /// Whether a request for another host waits, so that nothing more may be read from the client.
    pub fn is_holding(&self) -> bool {
        matches!(self.requests, Requests::Held(_))
    }

    /// Whether the client can be taken to the other host: everything that it asked here is answered, or the host `ended`.
    pub fn goes_elsewhere(&self, ended: bool) -> bool {
        self.is_holding() && (ended || self.open.is_empty())
    }

    /// The held request.
    pub fn into_held(self) -> Vec<u8> {
        if let Requests::Held(held) = self.requests { held } else { Vec::new() }
    }

    /// Whether no exchange is open.
    pub fn is_at_rest(&self) -> bool {
        self.open.is_empty() && matches!(&self.requests, Requests::Head(head) if head.is_empty())
    }
}

/// The length of a head with its empty line, once it is complete. Blank lines before it are part of it.
pub fn head_len(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut begun) = (0, false);
    while let Some(line) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        let is_empty = matches!(&bytes[at..at + line], b"" | b"\r");
        at += line + 1;
        if is_empty && begun {
            return Some(at);
        }
        begun |= !is_empty;
    }
    None
}

/// The first line of a request, as tolerantly read as servers do.
#[derive(Clone, Copy)]
struct RequestLine<'a> {
    method: &'a str,
    target: &'a str,
}

impl<'a> RequestLine<'a> {
    fn of(head: &'a [u8]) -> Option<RequestLine<'a>> {
        let line = first_line(head)?;
        let (method, rest) = line.split_once(' ')?;
        let (target, version) = rest.rsplit_once(' ')?;
        let is_request = version.starts_with("HTTP/1.") && !method.is_empty() && !target.contains(' ');
        is_request.then_some(RequestLine { method, target })
    }
}

/// Whether `bytes` may be the beginning of a request: its first line is not complete, or one of HTTP/1.
pub fn may_begin_request(bytes: &[u8]) -> bool {
    let blank_len = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    !bytes[blank_len..].contains(&b'\n') || RequestLine::of(bytes).is_some()
}

/// The status of an answer, when it is one of HTTP/1.
fn status_of(head: &[u8]) -> Option<u16> {
    let status = first_line(head)?.strip_prefix("HTTP/1.")?.get(2..5)?;
    status.parse().ok()
}

fn first_line(head: &[u8]) -> Option<&str> {
    let line = head.split(|byte| *byte == b'\n').find(|line| !line.trim_ascii().is_empty())?;
    std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).ok()
}

/// Splits `http://authority/path` into the authority and the rest, which may be empty.
fn split_url(url: &str) -> Option<(Authority, &str)> {
    let scheme_len = "http://".len();
    let rest =
        url.get(..scheme_len).filter(|scheme| scheme.eq_ignore_ascii_case("http://")).map(|_| &url[scheme_len..])?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    Some((Authority::parse(host, Some(80))?, path))
}

/// The head as an origin server expects it. `path` is what followed the authority.
fn origin_form(head: &[u8], method: &str, path: &str) -> Vec<u8> {
    let mut plain = Vec::with_capacity(head.len());
    let blank_len = head.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let line_len = head[blank_len..].iter().position(|byte| *byte == b'\n').map_or(head.len(), |at| blank_len + at + 1);
    // The URL stands between the first and the last space.
    let line = &head[..line_len];
    let url_at = line.iter().position(|byte| *byte == b' ').map_or(0, |at| at + 1);
    let url_end = line.iter().rposition(|byte| *byte == b' ').unwrap_or(line.len());
    plain.extend_from_slice(&line[..url_at]);
    match (path, method) {
        ("", "OPTIONS") => plain.push(b'*'),
        (path, _) => {
            if !path.starts_with('/') {
                plain.push(b'/');
            }
            plain.extend_from_slice(path.as_bytes());
        }
    }
    plain.extend_from_slice(&line[url_end.max(url_at)..]);
    let mut dropping = false;
    for line in head[line_len..].split_inclusive(|byte| *byte == b'\n') {
        let folded = line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t'));
        if !folded {
            dropping = line.get(..6).is_some_and(|name| name.eq_ignore_ascii_case(b"proxy-"));
        }
        if !dropping {
            plain.extend_from_slice(line);
        }
    }
    plain
}

/// How far a body goes.
#[derive(Debug)]
enum Body {
    Length(u64),
    Chunked(Chunks),
    /// To the end of the connection.
    Close,
    /// Not as it should be: not followed any more.
    Broken,
}

impl Body {
    /// What the headers of `head` say; `otherwise` when they say nothing, `None` when they contradict themselves.
    fn of_headers(head: &[u8], otherwise: Body) -> Option<Body> {
        let mut length = None;
        let mut coding: Option<&str> = None;
        for line in head.split(|byte| *byte == b'\n').skip_while(|line| line.trim_ascii().is_empty()).skip(1) {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                let value =
                    std::str::from_utf8(value).ok().filter(|_| value.iter().all(u8::is_ascii_digit))?.parse().ok()?;
                if length.is_some_and(|length| length != value) {
                    return None;
                }
                length = Some(value);
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                coding = Some(std::str::from_utf8(value).ok()?);
            }
        }
        match (coding, length) {
            (Some(coding), _) => {
                let last = coding.rsplit(',').next().unwrap_or_default().trim();
                last.eq_ignore_ascii_case("chunked").then_some(Body::Chunked(Chunks::Size(0)))
            }
            (None, Some(length)) => Some(Body::Length(length)),
            (None, None) => Some(otherwise),
        }
    }

    fn is_done(&self) -> bool {
        matches!(self, Body::Length(0) | Body::Chunked(Chunks::Done))
    }

    /// How many of `bytes` belong to the body.
    fn take(&mut self, bytes: &[u8]) -> usize {
        match self {
            Body::Close => bytes.len(),
            Body::Broken => 0,
            Body::Length(left) => {
                let len = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= len as u64;
                len
            }
            Body::Chunked(chunks) => match chunks.take(bytes) {
                Some(len) => len,
                None => {
                    *self = Body::Broken;
                    0
                }
            },
        }
    }
}

/// Where in a chunked body (RFC 9112 §7.1) one is.
#[derive(Debug)]
enum Chunks {
    /// In the digits of a size; what they say so far.
    Size(u64),
    /// Behind the digits, up to the end of the line.
    Extension(u64),
    /// In a chunk's bytes and the line end behind them.
    Content(u64),
    /// In the line end behind the bytes.
    ContentEnd,
    /// In a line of the trailer; true while it is empty.
    Trailer(bool),
    Done,
}

impl Chunks {
    /// How many of `bytes` belong to the body; `None` when it is not chunked as it should be.
    fn take(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            at += 1;
            *self = match (&*self, byte) {
                (Chunks::Size(size), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                    let digit = (byte as char).to_digit(16)?;
                    Chunks::Size(size.checked_mul(16)?.checked_add(u64::from(digit))?)
                }
                (Chunks::Size(size) | Chunks::Extension(size), b'\n') => match size {
                    0 => Chunks::Trailer(true),
                    size => Chunks::Content(*size),
                },
                (Chunks::Size(size), b';' | b' ' | b'\t' | b'\r') | (Chunks::Extension(size), _) => {
                    Chunks::Extension(*size)
                }
                (Chunks::Size(_), _) => return None,
                (Chunks::Content(left), _) => {
                    let len = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at + 1);
                    at += len - 1;
                    match left - len as u64 {
                        0 => Chunks::ContentEnd,
                        left => Chunks::Content(left),
                    }
                }
                (Chunks::ContentEnd, b'\r') => Chunks::ContentEnd,
                (Chunks::ContentEnd, b'\n') => Chunks::Size(0),
                (Chunks::ContentEnd, _) => return None,
                (Chunks::Trailer(true), b'\n') => {
                    *self = Chunks::Done;
                    return Some(at);
                }
                (Chunks::Trailer(empty), b'\r') => Chunks::Trailer(*empty),
                (Chunks::Trailer(_), b'\n') => Chunks::Trailer(true),
                (Chunks::Trailer(_), _) => Chunks::Trailer(false),
                (Chunks::Done, _) => return Some(at - 1),
            };
        }
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Asked, Authority, Forward, asked};

    fn here() -> Authority {
        Authority { host: "a.test".into(), port: 80 }
    }

    /// Passes `wire` in pieces of `step` bytes.
    fn through(forward: &mut Forward, wire: &[u8], step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in wire.chunks(step) {
            forward.requests(piece, &mut |bytes| out.extend_from_slice(bytes));
        }
        out
    }

    #[test]
    fn only_the_request_line_and_proxy_headers_change() {
        let rows = [
            (
                "plain",
                "GET http://a.test/x?y=%2F#z HTTP/1.1\r\nhOST:  a.test\r\n\r\n",
                "GET /x?y=%2F#z HTTP/1.1\r\nhOST:  a.test\r\n\r\n",
            ),
            ("blank lines before", "\r\n\nGET http://a.test/ HTTP/1.1\r\n\r\n", "\r\n\nGET / HTTP/1.1\r\n\r\n"),
            ("no path", "GET http://a.test HTTP/1.0\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"),
            ("query only", "GET http://A.test:80?q HTTP/1.1\r\n\r\n", "GET /?q HTTP/1.1\r\n\r\n"),
            ("options of the server", "OPTIONS http://a.test HTTP/1.1\r\n\r\n", "OPTIONS * HTTP/1.1\r\n\r\n"),
            (
                "proxy headers, one of them folded",
                "GET http://a.test/ HTTP/1.1\r\nProxy-Authorization: a\r\n b\r\nX: 1\r\nproxy-connection: close\r\n\r\n",
                "GET / HTTP/1.1\r\nX: 1\r\n\r\n",
            ),
            (
                "length, then the next",
                "PUT http://a.test/1 HTTP/1.1\r\nContent-Length: 4\r\n\r\nGET GET http://a.test/2 HTTP/1.1\r\n\r\n",
                "PUT /1 HTTP/1.1\r\nContent-Length: 4\r\n\r\nGET GET /2 HTTP/1.1\r\n\r\n",
            ),
            (
                "chunks with extension and trailer, then the next",
                "PUT http://a.test/1 HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3;x=\"\r\nabc\r\n0\r\nT: 1\r\n\r\nGET http://a.test/2 HTTP/1.1\r\n\r\n",
                "PUT /1 HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3;x=\"\r\nabc\r\n0\r\nT: 1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n",
            ),
            (
                "garbage behind",
                "GET http://a.test/ HTTP/1.1\r\n\r\n\x01\x02\r\n\r\nmore",
                "GET / HTTP/1.1\r\n\r\n\x01\x02\r\n\r\nmore",
            ),
            (
                "two lengths that differ end the following",
                "PUT http://a.test/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nGET http://a.test/ HTTP/1.1\r\n\r\n",
                "PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nGET http://a.test/ HTTP/1.1\r\n\r\n",
            ),
        ];
        for (trap, wire, wanted) in rows {
            for step in [1, 7, wire.len()] {
                let got = through(&mut Forward::new(here()), wire.as_bytes(), step);
                assert_eq!(String::from_utf8(got).unwrap(), wanted, "{trap}, {step} bytes at once");
            }
        }
    }

    #[test]
    fn another_host_waits_until_everything_here_is_answered() {
        let answers = [
            ("length", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true),
            ("chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true),
            ("304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", true),
            ("short", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", false),
            ("to the end", "HTTP/1.1 200 OK\r\n\r\nok", false),
            ("1xx only", "HTTP/1.1 103 Early Hints\r\n\r\n", false),
        ];
        for (trap, answer, done) in answers {
            for step in [1, answer.len()] {
                let mut forward = Forward::new(here());
                let wire = b"GET http://a.test/ HTTP/1.1\r\n\r\nGET http://b.test/ HTTP/1.1\r\n\r\n";
                assert_eq!(through(&mut forward, wire, 5), b"GET / HTTP/1.1\r\n\r\n");
                assert!(forward.is_holding() && !forward.goes_elsewhere(false));
                for piece in answer.as_bytes().chunks(step) {
                    forward.answers(piece);
                }
                assert_eq!(forward.goes_elsewhere(false), done, "{trap}");
                assert!(forward.goes_elsewhere(true), "{trap}: the host ended");
                assert_eq!(forward.into_held(), b"GET http://b.test/ HTTP/1.1\r\n\r\n", "{trap}");
            }
        }
    }

    #[test]
    fn an_upgrade_makes_both_directions_opaque() {
        let mut forward = Forward::new(here());
        through(&mut forward, b"GET http://a.test/ HTTP/1.1\r\nUpgrade: x\r\n\r\n", 100);
        forward.answers(b"HTTP/1.1 101 Switching\r\n\r\nGET");
        assert_eq!(
            through(&mut forward, b"GET http://b.test/ HTTP/1.1\r\n\r\n", 3),
            b"GET http://b.test/ HTTP/1.1\r\n\r\n"
        );
        assert!(!forward.is_at_rest());
    }

    #[test]
    fn a_proxy_is_asked_for_a_tunnel_or_a_url() {
        let to = |host: &str, port| Authority { host: host.into(), port };
        let rows = [
            (
                "CONNECT A.test:443 HTTP/1.1\r\nHost: x\r\n\r\nmore",
                Ok(Some(Asked::Tunnel { to: to("a.test", 443), len: 40 })),
            ),
            ("CONNECT [::1]:443 HTTP/1.0\r\n\r\n", Ok(Some(Asked::Tunnel { to: to("::1", 443), len: 30 }))),
            ("GET http://u:p@a.test./ HTTP/1.1\r\n\r\n", Ok(Some(Asked::Forward(to("a.test", 80))))),
            ("CONNECT a.te", Ok(None)),
            ("", Ok(None)),
            ("CONNECT a.test HTTP/1.1\r\n\r\n", Err(())),
            ("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", Err(())),
            ("GET https://a.test/ HTTP/1.1\r\n\r\n", Err(())),
            ("\x16\x03\x01", Err(())),
        ];
        for (wire, wanted) in rows {
            assert_eq!(asked(wire.as_bytes()).map_err(|_| ()), wanted, "{wire:?}");
        }
    }
}

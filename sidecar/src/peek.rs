//! The first bytes of a client, looked at without taking them: who does it want to speak to?

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::forward;

/// Longest ClientHello that is waited for; post-quantum key shares make two kilobytes.
pub const HELLO_LEN_MAX: usize = 64 * 1024;

/// What a ClientHello says that matters here (RFC 8446 §4.1.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The name asked for, in lower case.
    pub sni: Option<String>,
    /// The protocols offered, in the client's order; empty when there is no such extension.
    pub alpn: Vec<Vec<u8>>,
    /// What kind of client this is: equal for every connection that one TLS library makes in one configuration.
    pub fingerprint: Fingerprint,
    /// Whether we could serve it: it speaks TLS 1.2 or later, and takes an ECDSA certificate.
    pub servable: bool,
}

/// Version, ciphers, extension types, groups, signature algorithms and ALPN, without what changes by
/// chance or by history: GREASE, order of extensions, key shares, tickets, padding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fingerprint(u64);

/// What the first bytes are.
#[derive(Debug, PartialEq, Eq)]
pub enum First {
    /// More bytes are needed to say.
    Unknown,
    /// The beginning of TLS.
    Tls(Box<ClientHello>),
    /// Something else.
    NotTls,
}

/// Says what `bytes`, the first ones of a client, are.
pub fn first(bytes: &[u8]) -> First {
    match handshake_message(bytes) {
        Ok(Some(message)) => parse(&message).map_or(First::NotTls, |hello| First::Tls(Box::new(hello))),
        Ok(None) if bytes.len() < HELLO_LEN_MAX => First::Unknown,
        Ok(None) | Err(NotTls) => First::NotTls,
    }
}

/// How a client begins that speaks HTTP/2 without asking (RFC 9113 §3.4).
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n";

/// The host that an HTTP/1 request names.
#[derive(Debug, PartialEq, Eq)]
pub enum Host {
    /// More bytes are needed to say.
    Unknown,
    /// This one, as the client wrote it.
    Named(String),
    /// None, or none that is understood: of a request all the same, or of what begins like one.
    Unnamed,
    /// It is no request.
    NotHttp,
}

/// Says which host `bytes`, the first ones of a client without TLS, want to speak to.
pub fn http_host(bytes: &[u8]) -> Host {
    if bytes.starts_with(HTTP2) {
        return Host::Unnamed;
    }
    let Some(len) = forward::head_len(bytes) else {
        let is_text = bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n' | b'\t' | b' '..=b'~' | 0x80..));
        return match is_text && forward::may_begin_request(bytes) {
            true if bytes.len() <= forward::HEAD_LEN_MAX => Host::Unknown,
            true => Host::Unnamed,
            false => Host::NotHttp,
        };
    };
    if !forward::may_begin_request(bytes) {
        return Host::NotHttp;
    }
    let mut headers = [httparse::EMPTY_HEADER; 256];
    let mut head = httparse::Request::new(&mut headers);
    if head.parse(&bytes[..len]).is_err() {
        return Host::Unnamed;
    }
    let host = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("host"));
    match host.and_then(|host| std::str::from_utf8(host.value).ok()) {
        Some(host) => Host::Named(host.trim().to_owned()),
        None => Host::Unnamed,
    }
}

struct NotTls;

/// The first handshake message, put together from its records. `Ok(None)`: not complete yet.
fn handshake_message(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, NotTls> {
    let mut message = Vec::new();
    loop {
        match bytes {
            [] => return Ok(None),
            [22] | [22, 3] | [22, 3, _] | [22, 3, _, _] => return Ok(None),
            [22, 3, _, high, low, rest @ ..] => {
                let len = usize::from(u16::from_be_bytes([*high, *low]));
                if len == 0 || len > 16 * 1024 + 256 {
                    return Err(NotTls);
                }
                message.extend_from_slice(&rest[..len.min(rest.len())]);
                bytes = rest.get(len..).unwrap_or_default();
            }
            _ => return Err(NotTls),
        }
        match message.as_slice() {
            [1, a, b, c, body @ ..] => {
                let len = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
                if len > HELLO_LEN_MAX {
                    return Err(NotTls);
                }
                if body.len() >= len {
                    return Ok(Some(body[..len].to_vec()));
                }
            }
            [1, ..] | [] => {}
            _ => return Err(NotTls),
        }
    }
}

fn parse(body: &[u8]) -> Option<ClientHello> {
    let mut body = Reader(body);
    let version = body.number(2)?;
    body.bytes(32)?; // random
    body.vector(1)?; // session id
    let ciphers = numbers(body.vector(2)?);
    body.vector(1)?; // compression
    let mut hello = ClientHello::default();
    let mut versions = vec![version];
    let (mut kinds, mut groups, mut signatures) = (Vec::new(), Vec::new(), Vec::new());
    let mut extensions = Reader(if body.0.is_empty() { &[] } else { body.vector(2)? });
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let mut content = Reader(extensions.vector(2)?);
        match kind {
            SERVER_NAME => {
                let mut names = Reader(content.vector(2)?);
                while !names.0.is_empty() {
                    let is_host = names.number(1)? == 0;
                    let name = names.vector(2)?;
                    if is_host {
                        hello.sni = Some(std::str::from_utf8(name).ok()?.trim_end_matches('.').to_ascii_lowercase());
                    }
                }
            }
            ALPN => {
                let mut protocols = Reader(content.vector(2)?);
                while !protocols.0.is_empty() {
                    hello.alpn.push(protocols.vector(1)?.to_vec());
                }
            }
            SUPPORTED_VERSIONS => versions = numbers(content.vector(1)?),
            SUPPORTED_GROUPS => groups = numbers(content.vector(2)?),
            SIGNATURE_ALGORITHMS => signatures = numbers(content.vector(2)?),
            _ => {}
        }
        if !matches!(kind, PADDING | SESSION_TICKET | PRE_SHARED_KEY | EARLY_DATA | COOKIE) && !is_grease(kind) {
            kinds.push(kind);
        }
    }
    kinds.sort_unstable();
    // TLS 1.3 suites, or ECDSA ones of TLS 1.2 with a cipher that is still thought safe.
    let tls13 = versions.contains(&0x0304) && ciphers.iter().any(|cipher| (0x1301..=0x1303).contains(cipher));
    let tls12 = versions.contains(&0x0303) && ciphers.iter().any(|cipher| [0xc02b, 0xc02c, 0xcca9].contains(cipher));
    let takes_p256 = signatures.is_empty() || signatures.contains(&0x0403);
    hello.servable = (tls13 || tls12) && takes_p256;
    let mut hasher = DefaultHasher::new();
    let quiet = |numbers: Vec<u16>| numbers.into_iter().filter(|number| !is_grease(*number)).collect::<Vec<u16>>();
    let alpn: Vec<&Vec<u8>> =
        hello.alpn.iter().filter(|name| !matches!(name[..], [a, b] if a == b && a & 15 == 10)).collect();
    (version, quiet(versions), quiet(ciphers), kinds, quiet(groups), quiet(signatures), alpn).hash(&mut hasher);
    hello.fingerprint = Fingerprint(hasher.finish());
    Some(hello)
}

const SERVER_NAME: u16 = 0;
const SUPPORTED_GROUPS: u16 = 10;
const SIGNATURE_ALGORITHMS: u16 = 13;
const ALPN: u16 = 16;
const PADDING: u16 = 21;
const SESSION_TICKET: u16 = 35;
const PRE_SHARED_KEY: u16 = 41;
const EARLY_DATA: u16 = 42;
const SUPPORTED_VERSIONS: u16 = 43;
const COOKIE: u16 = 44;

/// Values that clients strew in at random (RFC 8701).
fn is_grease(number: u16) -> bool {
    number & 0x0f0f == 0x0a0a && number >> 8 == number & 0xff
}

fn numbers(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, len: usize) -> Option<u16> {
        Some(self.bytes(len)?.iter().fold(0, |number, byte| number << 8 | u16::from(*byte)))
    }

    /// Bytes behind their length, which has `len` bytes itself.
    fn vector(&mut self, len: usize) -> Option<&'a [u8]> {
        let len = self.number(len)?;
        self.bytes(usize::from(len))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use rustls::client::UnbufferedClientConnection;
    use rustls::unbuffered::{ConnectionState, EncodeError};
    use rustls::{ClientConfig, RootCertStore};

    use super::{First, Host, first, http_host, is_grease};

    /// A ClientHello as rustls writes it.
    fn hello(name: &str, alpn: &[&str]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = name.to_owned().try_into().unwrap();
        let mut session = UnbufferedClientConnection::new(Arc::new(config), name).unwrap();
        let status = session.process_tls_records(&mut []);
        let ConnectionState::EncodeTlsData(mut message) = status.state.unwrap() else { panic!("a hello comes first") };
        let Err(EncodeError::InsufficientSize(size)) = message.encode(&mut []) else { panic!("it needs room") };
        let mut wire = vec![0; size.required_size];
        message.encode(&mut wire).unwrap();
        wire
    }

    #[test]
    fn a_hello_is_read_whatever_the_pieces_it_comes_in() {
        let wire = hello("Cloud.Test", &["h2", "http/1.1"]);
        for len in 0..wire.len() {
            assert_eq!(first(&wire[..len]), First::Unknown, "{len} bytes");
        }
        let First::Tls(whole) = first(&wire) else { panic!("a hello") };
        assert_eq!(whole.sni.as_deref(), Some("cloud.test"));
        assert_eq!(whole.alpn, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert!(whole.servable);
        let message = &wire[5..];
        let mut split = Vec::new();
        for piece in message.chunks(50) {
            split.extend_from_slice(&[22, 3, 1, 0, piece.len() as u8]);
            split.extend_from_slice(piece);
        }
        assert_eq!(first(&split), First::Tls(whole), "in records of 50 bytes");
    }

    #[test]
    fn a_fingerprint_is_of_the_client_and_not_of_the_connection() {
        let print = |wire: &[u8]| match first(wire) {
            First::Tls(hello) => hello.fingerprint,
            other => panic!("{other:?}"),
        };
        let one = print(&hello("a.test", &["h2"]));
        assert_eq!(one, print(&hello("b.test", &["h2"])), "another name, another random");
        assert_ne!(one, print(&hello("a.test", &["http/1.1"])), "another client");
        assert!(is_grease(0x0a0a) && is_grease(0xfafa) && !is_grease(0x0a1a) && !is_grease(0x1301));
    }

    #[test]
    fn what_is_not_tls_is_known_at_its_first_odd_byte() {
        for wire in
            [&b"GET"[..], b"\x16\x02", b"\x80", b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", b"\x16\x03\x01\x00\x00"]
        {
            assert_eq!(first(wire), First::NotTls, "{wire:?}");
        }
        assert_eq!(first(b""), First::Unknown);
    }

    #[test]
    fn a_host_is_what_the_host_header_says() {
        let rows = [
            ("GET / HTTP/1.1\r\nX: 1\r\nhost: a.test:80 \r\n\r\n", Host::Named("a.test:80".into())),
            ("GET / HTTP/1.1\r\nhost: a", Host::Unknown),
            ("GET / HT", Host::Unknown),
            ("GET /\r\n", Host::NotHttp),
            ("HELO\n", Host::NotHttp),
            ("GET / HTTP/1.0\r\n\r\n", Host::Unnamed),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Host::Unnamed),
            ("\x01\x02", Host::NotHttp),
        ];
        for (wire, wanted) in rows {
            assert_eq!(http_host(wire.as_bytes()), wanted, "{wire:?}");
        }
    }
}

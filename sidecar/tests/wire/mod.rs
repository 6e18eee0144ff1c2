//! Two ends of a connection that do what a script says, and write down what they see: every byte, and the end.
#![allow(clippy::unwrap_used, dead_code, missing_docs, unreachable_pub)]

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};
use socket2::SockRef;

/// How long anything may take before the test fails.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// What one end does, in order.
#[derive(Clone, Debug)]
pub enum Step {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Sends this many bytes of a pattern, in large writes.
    SendMany(usize),
    /// Sends bytes one by one, each in a packet of its own.
    Trickle(Vec<u8>),
    /// Reads until this many bytes have come in all.
    Read(usize),
    /// Ends TLS, where there is TLS, and sends FIN.
    Fin,
    /// Sends FIN without ending TLS before it.
    Cut,
    /// Ends TLS and leaves the connection open; nothing without TLS.
    Notify,
    /// Reads to the end.
    End,
    /// Closes with RST; nothing can be done afterwards.
    Reset,
}

/// How an end of a connection saw the other one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It did not look so far, or did not live to see it.
    Open,
    /// FIN; under TLS after a close_notify.
    Clean,
    /// FIN under TLS without a close_notify.
    Cut,
    /// RST.
    Reset,
    /// TLS that cannot be read, or an alert.
    Broken,
}

/// All that one end saw.
#[derive(Clone, PartialEq, Eq)]
pub struct Transcript {
    /// Every byte of content.
    pub received: Vec<u8>,
    /// The end.
    pub end: End,
    /// The protocol agreed on.
    pub alpn: Option<Vec<u8>>,
    /// The name asked for; only a server sees it.
    pub sni: Option<String>,
}

impl std::fmt::Debug for Transcript {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head = String::from_utf8_lossy(&self.received[..self.received.len().min(600)]);
        let alpn = self.alpn.as_deref().map(String::from_utf8_lossy);
        write!(f, "{} bytes, end {:?}, alpn {alpn:?}, sni {:?}: {head:?}", self.received.len(), self.end, self.sni)
    }
}

/// One end.
pub struct Line {
    socket: TcpStream,
    tls: Option<Connection>,
    seen: Transcript,
    notified: bool,
}

impl Line {
    pub fn plain(socket: TcpStream) -> Line {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        socket.set_nodelay(true).unwrap();
        let seen = Transcript { received: Vec::new(), end: End::Open, alpn: None, sni: None };
        Line { socket, tls: None, seen, notified: false }
    }

    /// The server's side of TLS.
    pub fn accept(socket: TcpStream, config: &Arc<ServerConfig>) -> Result<Line, rustls::Error> {
        let mut line = Line::plain(socket);
        line.tls = Some(ServerConnection::new(Arc::clone(config))?.into());
        line.handshake()?;
        if let Some(Connection::Server(tls)) = &line.tls {
            line.seen.sni = tls.server_name().map(str::to_owned);
        }
        Ok(line)
    }

    /// The client's side of TLS.
    pub fn connect(socket: TcpStream, config: &Arc<ClientConfig>, name: &str) -> Result<Line, rustls::Error> {
        let mut line = Line::plain(socket);
        let name = ServerName::try_from(name.to_owned()).unwrap();
        line.tls = Some(ClientConnection::new(Arc::clone(config), name)?.into());
        line.handshake()?;
        Ok(line)
    }

    fn handshake(&mut self) -> Result<(), rustls::Error> {
        let tls = self.tls.as_mut().unwrap();
        tls.set_buffer_limit(None); // a script's send is one write
        while tls.is_handshaking() || tls.wants_write() {
            if let Err(error) = tls.complete_io(&mut self.socket) {
                let error = error.into_inner().and_then(|inner| inner.downcast::<rustls::Error>().ok());
                return Err(error.map_or(rustls::Error::HandshakeNotComplete, |error| *error));
            }
        }
        self.seen.alpn = tls.alpn_protocol().map(<[u8]>::to_vec);
        // Content that came in the same packet as the last handshake message.
        self.notified = tls.process_new_packets()?.peer_has_closed();
        let _ = tls.reader().read_to_end(&mut self.seen.received);
        Ok(())
    }

    /// Whether the handshake was a full one.
    pub fn handshake_kind(&self) -> rustls::HandshakeKind {
        self.tls.as_ref().and_then(|tls| tls.handshake_kind()).unwrap()
    }

    /// Plays the script and gives what was seen.
    pub fn play(mut self, script: &[Step]) -> Transcript {
        for step in script {
            match step {
                Step::Send(bytes) => self.send(bytes),
                Step::SendMany(len) => {
                    let mut left = *len;
                    while left > 0 {
                        let piece = left.min(1 << 18);
                        self.send(&pattern(piece));
                        left -= piece;
                    }
                }
                Step::Trickle(bytes) => bytes.chunks(1).for_each(|byte| self.send(byte)),
                Step::Read(len) => while self.seen.received.len() < *len && self.read() {},
                Step::End => while self.read() {},
                Step::Notify => self.notify(),
                Step::Fin => {
                    self.notify();
                    let _ = self.socket.shutdown(Shutdown::Write);
                }
                Step::Cut => drop(self.socket.shutdown(Shutdown::Write)),
                Step::Reset => {
                    SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)).unwrap();
                    return self.seen;
                }
            }
        }
        self.seen
    }

    fn send(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            None => drop(self.socket.write_all(bytes)),
            Some(tls) => {
                let _ = tls.writer().write_all(bytes);
                self.flush();
            }
        }
    }

    fn notify(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            self.flush();
        }
    }

    fn flush(&mut self) {
        let Some(tls) = &mut self.tls else { return };
        while tls.wants_write() && tls.write_tls(&mut self.socket).is_ok() {}
    }

    /// Reads once; false at the end.
    fn read(&mut self) -> bool {
        if self.seen.end != End::Open {
            return false;
        }
        let mut piece = vec![0; 1 << 16];
        let read = match &mut self.tls {
            Some(tls) if !self.notified => tls.read_tls(&mut self.socket),
            _ => self.socket.read(&mut piece),
        };
        match read {
            Ok(0) => self.seen.end = if self.tls.is_some() && !self.notified { End::Cut } else { End::Clean },
            Ok(len) => match &mut self.tls {
                None => self.seen.received.extend_from_slice(&piece[..len]),
                Some(tls) if !self.notified => match tls.process_new_packets() {
                    Ok(state) => {
                        self.notified = state.peer_has_closed();
                        let _ = tls.reader().read_to_end(&mut self.seen.received);
                        self.flush();
                    }
                    Err(_) => self.seen.end = End::Broken,
                },
                Some(_) => {}
            },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let timed_out = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                assert!(!timed_out, "nothing came for {DEADLINE:?}; so far {:?}", self.seen);
                self.seen.end = End::Reset;
            }
        }
        self.seen.end == End::Open
    }
}

/// Bytes that compress and repeat badly, so that a mixed-up piece shows.
pub fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let step = |state: &mut u32| {
        *state ^= *state << 13;
        *state ^= *state >> 17;
        *state ^= *state << 5;
        *state as u8
    };
    (0..len).map(|_| step(&mut state)).collect()
}

/// A certificate authority of the tests.
pub struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    pub certificate: CertificateDer<'static>,
    pub pem: String,
}

impl TestCa {
    pub fn new() -> TestCa {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("test CA {:x}", rand::random::<u32>()));
        let certificate = params.self_signed(&key).unwrap();
        TestCa { pem: certificate.pem(), certificate: certificate.der().clone(), issuer: Issuer::new(params, key) }
    }

    /// A server of `names` that speaks these protocols; `change` may spoil its certificate.
    pub fn server(
        &self,
        names: &[&str],
        alpn: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// A client that trusts `roots`.
pub fn client(
    roots: &[CertificateDer<'static>],
    alpn: &[&str],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots.iter().cloned());
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A listener on a port that the system chose.
pub fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Asks the proxy for a tunnel to `host:port`.
pub fn tunnel(proxy: SocketAddr, host: &str, port: u16) -> TcpStream {
    let mut socket = TcpStream::connect(proxy).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.write_all(format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n").as_bytes()).unwrap();
    let answer = head(&mut socket);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    socket
}

/// Reads an answer's head, and nothing of what follows.
pub fn head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// A binding whose providers are these endpoints.
pub fn manifest(endpoints: &[String]) -> String {
    let mut text = String::from(
        "apiVersion: hawser.dev/v1alpha1\nkind: CloudBinding\nmetadata: {name: photos, namespace: shop}\nspec:\n  provider: p0\n  providers:\n",
    );
    for (at, endpoint) in endpoints.iter().enumerate() {
        text.push_str(&format!("  - name: p{at}\n    s3: {{endpoint: \"{endpoint}\"}}\n"));
    }
    text + "  buckets:\n  - name: photos\n"
}

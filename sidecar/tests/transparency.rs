//! The promise: an application and its cloud cannot tell whether the sidecar stands between them. Raw exchanges
//! are played twice, directly and through it, and what both ends saw is compared byte for byte, the ends included.
#![allow(clippy::unwrap_used)]

mod wire;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hawser_sidecar::accept::Way;
use hawser_sidecar::config::Copying;
use hawser_sidecar::run::{self, InPod, Plan, Sidecar};
use hawser_sidecar::trust;
use rcgen::{CertificateParams, IsCa, date_time_ymd};
use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig};
use wire::Step::{Cut, End, Fin, Notify, Read as Take, Reset, Send, SendMany, Trickle};
use wire::{Line, Step, TestCa, Transcript, pattern};

/// A sidecar with a proxy on loopback, and the cloud's two listeners, one of them for TLS.
struct Stage {
    proxy: SocketAddr,
    plain: (TcpListener, SocketAddr),
    secure: (TcpListener, SocketAddr),
    cloud_ca: TestCa,
    /// What a client trusts: the cloud's authority for direct connections, the pod's for the others.
    roots: Vec<CertificateDer<'static>>,
    runtime: tokio::runtime::Runtime,
    _sidecar: Sidecar,
    _folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> Stage {
        let (plain, secure, cloud_ca) = (wire::listener(), wire::listener(), TestCa::new());
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (plain_port, secure_port) = (plain.1.port(), secure.1.port());
        let endpoints = [
            format!("http://localhost:{plain_port}"),
            format!("https://localhost:{secure_port}"),
            format!("https://127.0.0.1:{secure_port}"),
            format!("http://127.0.0.1:{plain_port}"),
        ];
        std::fs::write(at("binding.yaml"), wire::manifest(&endpoints)).unwrap();
        std::fs::write(at("cloud-ca.pem"), &cloud_ca.pem).unwrap();
        let copying = Copying {
            binding: at("binding.yaml"),
            store: "http://127.0.0.1:1".into(), // nobody is there: live bytes do not care
            token_file: None,
            store_ca: None,
            upstream_ca: Some(at("cloud-ca.pem")),
            budget: 1 << 20,
            no_capture: false,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let sidecar = runtime.block_on(async {
            let plan = Plan {
                copying: &copying,
                trust_dir: &at("trust"),
                state_dir: None,
                ways: vec![(Way::Proxy, "127.0.0.1:0".parse().unwrap())],
                admin: None,
                grace: Duration::ZERO,
                in_pod: InPod::default(),
            };
            run::start(plan).await.unwrap()
        });
        let mut roots = trust::read(&at("trust").join(trust::CA_FILE)).unwrap();
        roots.push(cloud_ca.certificate.clone());
        let proxy = sidecar.listening[0];
        Stage { proxy, plain, secure, cloud_ca, roots, runtime, _sidecar: sidecar, _folder: folder }
    }

    fn server(&self) -> Arc<ServerConfig> {
        self.cloud_ca.server(&["localhost", "127.0.0.1"], &["http/1.1"], |_| {})
    }

    fn client(&self) -> Arc<ClientConfig> {
        wire::client(&self.roots, &["http/1.1"], &[&TLS13, &TLS12])
    }

    /// Connects as a client, directly or through the sidecar.
    fn connect(&self, host: &str, address: SocketAddr, through: bool) -> TcpStream {
        if through { wire::tunnel(self.proxy, host, address.port()) } else { TcpStream::connect(address).unwrap() }
    }

    fn play_plain(&self, row: &Row, through: bool) -> [Transcript; 2] {
        thread::scope(|scope| {
            let cloud = scope.spawn(|| Line::plain(self.plain.0.accept().unwrap().0).play(&row.cloud));
            let client = Line::plain(self.connect("localhost", self.plain.1, through)).play(&row.client);
            [client, cloud.join().unwrap()]
        })
    }

    fn play_tls(
        &self,
        row: &Row,
        through: bool,
        client: &Arc<ClientConfig>,
        server: &Arc<ServerConfig>,
    ) -> [Transcript; 2] {
        thread::scope(|scope| {
            let cloud =
                scope.spawn(|| Line::accept(self.secure.0.accept().unwrap().0, server).unwrap().play(&row.cloud));
            let socket = self.connect("localhost", self.secure.1, through);
            let client = Line::connect(socket, client, "localhost").unwrap().play(&row.client);
            [client, cloud.join().unwrap()]
        })
    }
}

/// One exchange: what each end does.
struct Row {
    trap: &'static str,
    client: Vec<Step>,
    cloud: Vec<Step>,
}

/// A request, its answer, and a close by the client.
fn talk(trap: &'static str, request: impl Into<Vec<u8>>, answer: impl Into<Vec<u8>>) -> Row {
    let (request, answer) = (request.into(), answer.into());
    let (asked, answered) = (request.len(), answer.len());
    Row {
        trap,
        client: vec![Send(request), Take(answered), Fin, End],
        cloud: vec![Take(asked), Send(answer), End, Fin],
    }
}

fn row(trap: &'static str, client: Vec<Step>, cloud: Vec<Step>) -> Row {
    Row { trap, client, cloud }
}

fn bytes(text: &str) -> Step {
    Send(text.as_bytes().to_vec())
}

const GET: &str = "GET /photos/a HTTP/1.1\r\nHost: cloud\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Heads and framings, as a request would not be sent by a careful client nor answered by a careful cloud.
fn framings() -> Vec<Row> {
    let put = |headers: &str, body: &str| format!("PUT /photos/a HTTP/1.1\r\nHost: cloud\r\n{headers}\r\n{body}");
    let answer = |headers: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{headers}\r\n{body}");
    let long = "x".repeat(60_000);
    let many: String = (0..500).map(|n| format!("X-Header-{n}: {n}\r\n")).collect();
    vec![
        talk("plain", GET, OK),
        talk("HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nto the end"),
        talk("HTTP/0.9", "GET /\r\n", "just bytes"),
        talk("HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", "HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n"),
        talk("lower-case method", "get / HTTP/1.1\r\nhost: a\r\n\r\n", OK),
        talk(
            "unknown method",
            "BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n",
            "HTTP/1.1 418 I'm a teapot\r\nContent-Length: 0\r\n\r\n",
        ),
        talk("odd header case", "GET / HTTP/1.1\r\nhOsT: a\r\nX-AMZ-date: 1\r\nx-Amz-Date: 2\r\n\r\n", OK),
        talk("spaces around values", "GET / HTTP/1.1\r\nHost:a\r\nA:   1  \r\nB:\t2\t\r\n\r\n", OK),
        talk(
            "space before the colon",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "HTTP/1.1 400 Bad\r\nContent-Length : 0\r\n\r\n",
        ),
        talk(
            "folded header",
            "GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\n  2\r\n\r\n",
            answer("B: 1\r\n\t2\r\nContent-Length: 0\r\n", ""),
        ),
        talk(
            "empty header value",
            "GET / HTTP/1.1\r\nHost: a\r\nA:\r\n\r\n",
            answer("B:\r\nContent-Length: 0\r\n", ""),
        ),
        talk("header without a colon", "GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", OK),
        talk("line ends without CR", "GET / HTTP/1.1\nHost: a\n\n", "HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
        talk("blank lines before the request", format!("\r\n\r\n{GET}"), OK),
        talk("blank lines before the answer", GET, format!("\r\n{OK}")),
        talk(
            "bytes beyond ASCII",
            "GET /\u{e4}\u{f6} HTTP/1.1\r\nHost: a\r\nA: \u{fc}\r\n\r\n",
            answer("B: \u{df}\r\nContent-Length: 0\r\n", ""),
        ),
        talk("bytes that are no text", b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\nA: \x80\x81\r\n\r\n".to_vec(), OK),
        talk("NUL in a header", b"GET / HTTP/1.1\r\nHost: a\r\nA: \0\r\n\r\n".to_vec(), OK),
        talk(
            "many headers",
            format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"),
            answer(&format!("{many}Content-Length: 0\r\n"), ""),
        ),
        talk(
            "long header",
            format!("GET / HTTP/1.1\r\nHost: a\r\nA: {long}\r\n\r\n"),
            answer(&format!("B: {long}\r\nContent-Length: 0\r\n"), ""),
        ),
        talk("long target", format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), OK),
        talk("percent signs of every kind", "GET /a%2fb/%2e%2E//%zz+%20?x=%41&y HTTP/1.1\r\nHost: a\r\n\r\n", OK),
        talk("absolute-form inside a tunnel", "GET http://cloud/a HTTP/1.1\r\nHost: a\r\n\r\n", OK),
        talk("asterisk-form", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", OK),
        talk("CONNECT inside a tunnel", "CONNECT a:1 HTTP/1.1\r\n\r\n", "HTTP/1.1 200 \r\n\r\n"),
        talk("two Host headers", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", OK),
        talk("no Host header", "GET / HTTP/1.1\r\n\r\n", OK),
        talk("Proxy headers inside a tunnel", "GET / HTTP/1.1\r\nHost: a\r\nProxy-Connection: keep-alive\r\n\r\n", OK),
        talk(
            "hop-by-hop headers",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X\r\nX: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\n\r\n",
            answer("Connection: close\r\n", "bye"),
        ),
        talk("status without a reason", GET, "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"),
        talk("status of four digits", GET, "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"),
        talk("status 999", GET, "HTTP/1.1 999 \r\nContent-Length: 0\r\n\r\n"),
        talk("answer that is no HTTP", GET, "SSH-2.0-OpenSSH\r\n"),
        talk("body by length", put("Content-Length: 5\r\n", "hello"), OK),
        talk("length with a plus", put("Content-Length: +5\r\n", "hello"), OK),
        talk("length with leading zeros", put("Content-Length: 005\r\n", "hello"), OK),
        talk("length twice", put("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), OK),
        talk(
            "two lengths",
            put("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"),
            "HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n",
        ),
        talk("negative length", put("Content-Length: -1\r\n", ""), "HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n"),
        talk(
            "length and chunked",
            put("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "1\r\na\r\n0\r\n\r\n"),
            OK,
        ),
        talk("length too short for the body", put("Content-Length: 2\r\n", "hello"), OK),
        talk(
            "chunked",
            put("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
            answer("Transfer-Encoding: chunked\r\n", "2\r\nok\r\n0\r\n\r\n"),
        ),
        talk(
            "chunk extensions",
            put("Transfer-Encoding: chunked\r\n", "5;a=b;c=\"d;e\"\r\nhello\r\n0;z\r\n\r\n"),
            answer("Transfer-Encoding: chunked\r\n", "2 ; x\r\nok\r\n0\r\n\r\n"),
        ),
        talk(
            "chunk sizes with zeros and capitals",
            put("Transfer-Encoding: chunked\r\n", "0005\r\nhello\r\n0000000A\r\n0123456789\r\n000\r\n\r\n"),
            OK,
        ),
        talk(
            "trailers",
            put("Transfer-Encoding: chunked\r\nTrailer: A\r\n", "1\r\nx\r\n0\r\nA: 1\r\nB: 2\r\n\r\n"),
            answer("Transfer-Encoding: chunked\r\n", "0\r\nC: 3\r\n\r\n"),
        ),
        talk(
            "chunk of a wrong size",
            put("Transfer-Encoding: chunked\r\n", "3\r\nhello\r\n0\r\n\r\n"),
            "HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n",
        ),
        talk(
            "chunk size that is none",
            put("Transfer-Encoding: chunked\r\n", "xyz\r\n"),
            "HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n",
        ),
        talk(
            "chunk size beyond 64 bits",
            put("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n"),
            "HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n",
        ),
        talk("unknown transfer coding", put("Transfer-Encoding: gzip, chunked\r\n", "1\r\n\u{1}\r\n0\r\n\r\n"), OK),
        talk("identity transfer coding", put("Transfer-Encoding: identity\r\nContent-Length: 1\r\n", "x"), OK),
        talk(
            "aws-chunked",
            put(
                "Content-Length: 95\r\nContent-Encoding: aws-chunked\r\nx-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD\r\nx-amz-decoded-content-length: 5\r\n",
                &format!("5;chunk-signature={}\r\nhello\r\n", "0".repeat(64)),
            ),
            OK,
        ),
        talk(
            "aws-chunked inside chunked, with a trailer",
            put(
                "Transfer-Encoding: chunked\r\nx-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\nx-amz-trailer: x-amz-checksum-crc32\r\n",
                "2a\r\n5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n\r\n0\r\n\r\n",
            ),
            OK,
        ),
        talk("answer to the end of the connection", GET, answer("", "to the end")),
        talk("HEAD with a length", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", answer("Content-Length: 1000\r\n", "")),
        talk("204 with a length", GET, "HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n"),
        talk("304 with chunked", GET, "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"),
        talk(
            "100 and the final answer at once",
            put("Content-Length: 0\r\nExpect: 100-continue\r\n", ""),
            format!("HTTP/1.1 100 Continue\r\n\r\n{OK}"),
        ),
        talk(
            "several 1xx",
            GET,
            format!(
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nA: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n{OK}"
            ),
        ),
        talk(
            "200 with an error inside",
            "POST /photos/a?uploadId=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            answer(
                "Transfer-Encoding: chunked\r\n",
                "1\r\n \r\n1\r\n \r\n22\r\n<Error><Code>Internal</Code></Err>\r\n0\r\n\r\n",
            ),
        ),
        talk(
            "206",
            "GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=1-2\r\n\r\n",
            "HTTP/1.1 206 Partial\r\nContent-Range: bytes 1-2/9\r\nContent-Length: 2\r\n\r\nbc",
        ),
        talk("garbage both ways", pattern(3000), pattern(5000)),
        talk("zeros", vec![0; 1000], vec![0; 1000]),
        talk("what looks like TLS in the middle", [GET.as_bytes(), b"\x16\x03\x01\x00\x05hello"].concat(), OK),
        talk("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\0\0\0\u{4}\0\0\0\0\0"),
    ]
}

/// Who speaks when, who ends when, and how.
fn timings() -> Vec<Row> {
    let pipelined = format!("{GET}{GET}{GET}");
    let answers = format!("{OK}{OK}{OK}");
    let (asked, answered) = (GET.len(), OK.len());
    let expect = "PUT /photos/a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let put_big = "PUT /photos/a HTTP/1.1\r\nHost: a\r\nContent-Length: 8388608\r\n\r\n";
    let get_big = "HTTP/1.1 200 OK\r\nContent-Length: 8388608\r\n\r\n";
    const BIG: usize = 8 << 20;
    let cont = "HTTP/1.1 100 Continue\r\n\r\n";
    let refused = "HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n";
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n";
    let switched = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n";
    vec![
        row(
            "pipelined",
            vec![bytes(&pipelined), Take(3 * answered), Fin, End],
            vec![Take(3 * asked), bytes(&answers), End, Fin],
        ),
        row(
            "kept alive",
            vec![bytes(GET), Take(answered), bytes(GET), Take(2 * answered), bytes(GET), Take(3 * answered), Fin, End],
            vec![Take(asked), bytes(OK), Take(2 * asked), bytes(OK), Take(3 * asked), bytes(OK), End, Fin],
        ),
        row(
            "byte by byte",
            vec![Trickle(GET.into()), Take(answered), Fin, End],
            vec![Take(asked), Trickle(OK.into()), End, Fin],
        ),
        row("the cloud speaks first", vec![Take(5), bytes("HELO"), Fin, End], vec![bytes("220 \n"), Take(4), End, Fin]),
        row("nobody says anything, the client closes", vec![Fin, End], vec![End, Fin]),
        row("nobody says anything, the cloud closes", vec![End, Fin], vec![Fin, End]),
        row("both close at once", vec![Fin, End], vec![Fin, End]),
        row(
            "100 when asked for, then the body",
            vec![bytes(expect), Take(cont.len()), bytes("hello"), Take(cont.len() + answered), Fin, End],
            vec![Take(expect.len()), bytes(cont), Take(expect.len() + 5), bytes(OK), End, Fin],
        ),
        row(
            "417 instead of 100",
            vec![bytes(expect), Take(refused.len()), Fin, End],
            vec![Take(expect.len()), bytes(refused), End, Fin],
        ),
        row(
            "body without waiting for 100",
            vec![bytes(expect), bytes("hello"), Take(answered), Fin, End],
            vec![Take(expect.len() + 5), bytes(OK), End, Fin],
        ),
        row(
            "answer before the body, which then comes",
            vec![bytes(put_big), Take(answered), SendMany(BIG), Fin, End],
            vec![Take(put_big.len()), bytes(OK), Take(put_big.len() + BIG), End, Fin],
        ),
        row(
            "answer before the body, which never comes",
            vec![bytes(put_big), Take(answered), Fin, End],
            vec![Take(put_big.len()), bytes(OK), Fin, End],
        ),
        row(
            "early answer and close",
            vec![bytes(put_big), Take(answered), End, Fin],
            vec![Take(put_big.len()), bytes(OK), Fin, End],
        ),
        row(
            "upgrade, then both talk",
            vec![bytes(upgrade), Take(switched.len()), bytes("ping"), Take(switched.len() + 4), Fin, End],
            vec![Take(upgrade.len()), bytes(switched), Take(upgrade.len() + 4), bytes("pong"), End, Fin],
        ),
        row(
            "the client half-closes before the answer",
            vec![bytes(GET), Fin, Take(answered), End],
            vec![End, bytes(OK), Fin],
        ),
        row(
            "the client half-closes, then much comes",
            vec![bytes(GET), Fin, End],
            vec![End, bytes(get_big), SendMany(BIG), Fin],
        ),
        row(
            "the cloud half-closes, then much goes",
            vec![Take(answered), bytes(put_big), SendMany(BIG), Fin, End],
            vec![bytes(OK), Fin, End],
        ),
        row(
            "the cloud half-closes and still reads",
            vec![bytes(GET), End, bytes("more"), Fin],
            vec![Take(asked), bytes(OK), Fin, End],
        ),
        row(
            "big body outward",
            vec![bytes(put_big), SendMany(BIG), Take(answered), Fin, End],
            vec![Take(put_big.len() + BIG), bytes(OK), End, Fin],
        ),
        row(
            "big body inward",
            vec![bytes(GET), Take(get_big.len() + BIG), Fin, End],
            vec![Take(asked), bytes(get_big), SendMany(BIG), End, Fin],
        ),
        row("a body shorter than its length", vec![bytes(put_big), SendMany(1000), Fin, End], vec![End, Fin]),
        row(
            "an answer shorter than its length",
            vec![bytes(GET), End, Fin],
            vec![Take(asked), bytes(get_big), SendMany(1000), Fin, End],
        ),
        row(
            "the client resets after its request",
            vec![bytes(GET), Take(1), Reset],
            vec![Take(asked), bytes("H"), End],
        ),
        row(
            "the client resets in its body",
            vec![bytes(put_big), SendMany(100_000), Take(1), Reset],
            vec![Take(put_big.len() + 100_000), bytes("H"), End],
        ),
        row(
            "the client resets in the answer",
            vec![bytes(GET), Take(1000), Reset],
            vec![Take(asked), bytes(get_big), Send(pattern(1000)), End],
        ),
        row("the cloud resets instead of answering", vec![bytes(GET), End], vec![Take(asked), Reset]),
        // Within one window: beyond it, a reset takes bytes back that a slow reader has not made room for, with or without us.
        row(
            "the cloud resets in its answer",
            vec![bytes(GET), End],
            vec![Take(asked), bytes(get_big), Send(pattern(30_000)), Reset],
        ),
        row(
            "the cloud resets in the body",
            vec![bytes(put_big), SendMany(1000), End],
            vec![Take(put_big.len() + 1000), Reset],
        ),
        row(
            "the cloud answers early and resets",
            vec![bytes(put_big), SendMany(1000), End],
            vec![Take(put_big.len() + 1000), bytes(OK), Reset],
        ),
        row(
            "the client half-closes, then the cloud resets",
            vec![bytes(GET), Fin, End],
            vec![End, bytes("HTTP"), Reset],
        ),
        row(
            "the cloud half-closes, then the client resets",
            vec![bytes(GET), End, bytes("x"), Reset],
            vec![Take(asked), bytes(OK), Fin, Take(asked + 1), End],
        ),
    ]
}

/// Ends that only TLS has.
fn tls_ends() -> Vec<Row> {
    let (asked, answered) = (GET.len(), OK.len());
    vec![
        row(
            "FIN of the client without close_notify",
            vec![bytes(GET), Take(answered), Cut, End],
            vec![Take(asked), bytes(OK), End, Fin],
        ),
        row(
            "FIN of the cloud without close_notify",
            vec![bytes(GET), End, Fin],
            vec![Take(asked), bytes("HTTP/1.1 200 OK\r\n\r\ntruncated?"), Cut, End],
        ),
        row(
            "close_notify of the client, answer, then FIN",
            vec![bytes(GET), Notify, Take(answered), Cut, End],
            vec![Take(asked), bytes(OK), End, Fin],
        ),
        row(
            "close_notify of the cloud, then more from the client",
            vec![bytes(GET), Take(answered), bytes("more"), Fin, End],
            vec![Take(asked), bytes(OK), Notify, Take(asked + 4), Cut, End],
        ),
        row(
            "close_notify both ways, no FIN for a while",
            vec![bytes(GET), Take(answered), Notify, Cut, End],
            vec![Take(asked), bytes(OK), Notify, End, Cut],
        ),
        row(
            "many small records",
            vec![Trickle(pattern(2000)), Take(2000), Fin, End],
            vec![Take(2000), Trickle(pattern(2000)), End, Fin],
        ),
    ]
}

fn compare(trap: &str, how: &str, direct: &[Transcript; 2], through: &[Transcript; 2], failures: &mut Vec<String>) {
    for (end, (direct, through)) in ["client", "cloud"].iter().zip(direct.iter().zip(through)) {
        if direct != through {
            failures
                .push(format!("{trap} ({how}), as the {end} saw it:\n  directly {direct:?}\n  through  {through:?}"));
        }
    }
}

#[test]
fn neither_end_can_tell_that_the_sidecar_is_there() {
    let stage = Stage::new();
    let (client, server) = (stage.client(), stage.server());
    let old_client = wire::client(&stage.roots, &["http/1.1"], &[&TLS12]);
    let mut failures = Vec::new();
    let mut count = 0;
    for row in framings().into_iter().chain(timings()) {
        compare(row.trap, "plain", &stage.play_plain(&row, false), &stage.play_plain(&row, true), &mut failures);
        count += 1;
        let direct = stage.play_tls(&row, false, &client, &server);
        compare(row.trap, "TLS 1.3", &direct, &stage.play_tls(&row, true, &client, &server), &mut failures);
    }
    for row in timings().into_iter().chain(tls_ends()) {
        let direct = stage.play_tls(&row, false, &old_client, &server);
        compare(row.trap, "TLS 1.2", &direct, &stage.play_tls(&row, true, &old_client, &server), &mut failures);
    }
    for row in tls_ends() {
        count += 1;
        let direct = stage.play_tls(&row, false, &client, &server);
        compare(row.trap, "TLS 1.3", &direct, &stage.play_tls(&row, true, &client, &server), &mut failures);
    }
    assert!(count >= 100, "{count} exchanges");
    assert!(failures.is_empty(), "{} differences in {count} exchanges:\n{}", failures.len(), failures.join("\n"));
    drop(stage.runtime);
}

#[test]
fn the_protocol_is_the_one_that_the_cloud_chooses_and_the_name_the_one_that_the_client_asks_for() {
    let stage = Stage::new();
    let lists: [&[&str]; 5] = [&[], &["http/1.1"], &["h2"], &["h2", "http/1.1"], &["x", "http/1.1"]];
    for offered in lists {
        for spoken in lists {
            for host in ["localhost", "127.0.0.1"] {
                let client = wire::client(&stage.roots, offered, &[&TLS13, &TLS12]);
                let server = stage.cloud_ca.server(&["localhost", "127.0.0.1"], spoken, |_| {});
                let play = |through| {
                    thread::scope(|scope| {
                        let cloud = scope.spawn(|| {
                            let socket = stage.secure.0.accept().unwrap().0;
                            Line::accept(socket, &server).map(|line| line.play(&[Take(4), bytes("pong"), End, Fin]))
                        });
                        let socket = stage.connect(host, stage.secure.1, through);
                        let client = Line::connect(socket, &client, host);
                        let client = client.map(|line| line.play(&[bytes("ping"), Take(4), Fin, End]));
                        (
                            client.map_err(|error| error.to_string()),
                            cloud.join().unwrap().map_err(|error| error.to_string()),
                        )
                    })
                };
                let (direct, through) = (play(false), play(true));
                assert_eq!(direct, through, "offered {offered:?}, spoken {spoken:?}, host {host}");
                if let Ok(client) = &direct.0 {
                    assert_eq!(client.alpn.is_some(), !offered.is_empty() && !spoken.is_empty(), "none stays none");
                }
            }
        }
    }
}

#[test]
fn a_cloud_with_a_bad_certificate_gets_and_sends_not_one_byte() {
    let stage = Stage::new();
    let stranger = TestCa::new();
    let names = ["localhost"];
    let spoiled: [(&str, Arc<ServerConfig>); 6] = [
        ("expired", stage.cloud_ca.server(&names, &[], |params| params.not_after = date_time_ymd(2020, 1, 1))),
        ("not valid yet", stage.cloud_ca.server(&names, &[], |params| params.not_before = date_time_ymd(3000, 1, 1))),
        ("for another name", stage.cloud_ca.server(&["other.test"], &[], |_| {})),
        ("without any name", stage.cloud_ca.server(&[], &[], |_| {})),
        ("of an unknown authority", stranger.server(&names, &[], |_| {})),
        (
            "of an authority itself",
            stage.cloud_ca.server(&names, &[], |params: &mut CertificateParams| {
                params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            }),
        ),
    ];
    for (trap, server) in spoiled {
        thread::scope(|scope| {
            let cloud = scope.spawn(|| {
                let accepted = Line::accept(stage.secure.0.accept().unwrap().0, &server);
                accepted.map(|line| line.play(&[bytes("HTTP/1.1 200 OK\r\n\r\n"), End])).ok()
            });
            let socket = stage.connect("localhost", stage.secure.1, true);
            let client = Line::connect(socket, &stage.client(), "localhost");
            let error = client.err().unwrap_or_else(|| panic!("{trap}: the client's handshake succeeded"));
            assert!(
                !matches!(error, rustls::Error::InvalidCertificate(_)),
                "{trap}: it must not see a certificate: {error}"
            );
            let seen = cloud.join().unwrap();
            assert!(seen.is_none_or(|seen| seen.received.is_empty()), "{trap}: the cloud got bytes");
        });
    }
}

#[test]
fn a_host_that_is_not_bound_shows_its_own_certificate() {
    let stage = Stage::new();
    let (other, address) = wire::listener();
    let server = stage.cloud_ca.server(&["other.test"], &[], |_| {});
    let only_the_cloud = wire::client(std::slice::from_ref(&stage.cloud_ca.certificate), &[], &[&TLS13]);
    for listener in [&other, &stage.secure.0] {
        let port = if std::ptr::eq(listener, &other) { address.port() } else { stage.secure.1.port() };
        let [client, cloud] = thread::scope(|scope| {
            let cloud = scope.spawn(|| {
                Line::accept(listener.accept().unwrap().0, &server).unwrap().play(&[Take(4), bytes("pong"), End, Fin])
            });
            let socket = wire::tunnel(stage.proxy, "127.0.0.1", port);
            let client = Line::connect(socket, &only_the_cloud, "other.test").unwrap();
            [client.play(&[bytes("ping"), Take(4), Fin, End]), cloud.join().unwrap()]
        });
        assert_eq!(
            (client.received, cloud.received),
            (b"pong".to_vec(), b"ping".to_vec()),
            "also on a port that others are bound on"
        );
    }
}

#[test]
fn a_client_without_the_ca_fails_once_and_is_passed_through_then() {
    let stage = Stage::new();
    let server = stage.server();
    let distrusts = wire::client(std::slice::from_ref(&stage.cloud_ca.certificate), &["http/1.1"], &[&TLS13]);
    let trusts = wire::client(&stage.roots, &["http/1.1"], &[&TLS13, &TLS12]); // another kind of client
    let talk = talk("after", GET, OK);
    let failed = thread::scope(|scope| {
        let cloud =
            scope.spawn(|| Line::accept(stage.secure.0.accept().unwrap().0, &server).map(|line| line.play(&[End])));
        let socket = stage.connect("localhost", stage.secure.1, true);
        let failed = Line::connect(socket, &distrusts, "localhost").err();
        let cloud = cloud.join().unwrap();
        assert!(cloud.is_ok_and(|seen| seen.received.is_empty()), "no byte of content reached the cloud");
        failed
    });
    assert!(matches!(failed, Some(rustls::Error::InvalidCertificate(_))), "{failed:?}");
    for config in [&distrusts, &trusts, &distrusts] {
        let direct = stage.play_tls(&talk, false, config, &server);
        assert_eq!(stage.play_tls(&talk, true, config, &server), direct);
    }
}

#[test]
fn a_proxy_says_why_it_cannot() {
    let stage = Stage::new();
    let closed = wire::listener().1.port();
    let own = stage.proxy.port();
    let rows = [
        ("a closed port", format!("CONNECT 127.0.0.1:{closed} HTTP/1.1\r\n\r\n"), "HTTP/1.1 502 "),
        ("a closed port, for a URL", format!("GET http://127.0.0.1:{closed}/ HTTP/1.1\r\n\r\n"), "HTTP/1.1 502 "),
        ("a name without address", "CONNECT no.such.name.invalid:443 HTTP/1.1\r\n\r\n".into(), "HTTP/1.1 502 "),
        ("its own address", format!("CONNECT 127.0.0.1:{own} HTTP/1.1\r\n\r\n"), "HTTP/1.1 508 "),
        ("its own address, for a URL", format!("GET http://localhost:{own}/ HTTP/1.1\r\n\r\n"), "HTTP/1.1 508 "),
        ("credentials", "CONNECT 169.254.169.254:80 HTTP/1.1\r\n\r\n".into(), "HTTP/1.1 403 "),
        ("the link", "CONNECT [fe80::1]:80 HTTP/1.1\r\n\r\n".into(), "HTTP/1.1 403 "),
        ("no port", "CONNECT cloud HTTP/1.1\r\n\r\n".into(), "HTTP/1.1 400 "),
        ("a request for itself", "GET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), "HTTP/1.1 400 "),
        ("no HTTP", "\x16\x03\x01\0\x05".into(), "HTTP/1.1 400 "),
    ];
    for (trap, request, wanted) in rows {
        let mut socket = TcpStream::connect(stage.proxy).unwrap();
        socket.set_read_timeout(Some(wire::DEADLINE)).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(wanted) && answer.contains("\r\n\r\nhawser-sidecar: "), "{trap}: {answer}");
    }
}

#[test]
fn a_request_for_a_url_reaches_its_host_in_origin_form_and_nothing_else_changes() {
    let stage = Stage::new();
    let (other, elsewhere) = wire::listener();
    let (here, there) = (stage.plain.1.port(), elsewhere.port());
    let first = format!(
        "PUT http://localhost:{here}/photos/a%2Fb HTTP/1.1\r\nhOST: x\r\nProxy-Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nT: 1\r\n\r\n"
    );
    let second = format!("GET http://localhost:{here}/2?q HTTP/1.1\r\nHost: x\r\n\r\n");
    let third = format!("GET http://127.0.0.1:{there} HTTP/1.1\r\nHost: y\r\n\r\n");
    let got_first =
        "PUT /photos/a%2Fb HTTP/1.1\r\nhOST: x\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nT: 1\r\n\r\n";
    let got_second = "GET /2?q HTTP/1.1\r\nHost: x\r\n\r\n";
    let got_third = "GET / HTTP/1.1\r\nHost: y\r\n\r\n";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    thread::scope(|scope| {
        let cloud = scope.spawn(|| {
            let script =
                [Take(got_first.len()), bytes(chunked), Take(got_first.len() + got_second.len()), bytes(OK), End, Fin];
            Line::plain(stage.plain.0.accept().unwrap().0).play(&script)
        });
        let other = scope.spawn(|| {
            Line::plain(other.accept().unwrap().0).play(&[
                Take(got_third.len()),
                bytes("HTTP/1.1 200 OK\r\n\r\nbye"),
                Fin,
                End,
            ])
        });
        let (one, two) = (chunked.len(), OK.len());
        let script = [bytes(&first), Take(one), bytes(&second), Take(one + two), bytes(&third), End, Fin];
        let client = Line::plain(TcpStream::connect(stage.proxy).unwrap()).play(&script);
        assert_eq!(String::from_utf8(client.received).unwrap(), format!("{chunked}{OK}HTTP/1.1 200 OK\r\n\r\nbye"));
        assert_eq!(String::from_utf8(cloud.join().unwrap().received).unwrap(), format!("{got_first}{got_second}"));
        assert_eq!(String::from_utf8(other.join().unwrap().received).unwrap(), got_third);
    });
}

#[test]
fn sessions_are_resumed_on_both_sides() {
    let stage = Stage::new();
    let (client, server) = (stage.client(), stage.server());
    let talk = talk("again", GET, OK);
    let kinds = |through| {
        thread::scope(|scope| {
            let cloud = scope.spawn(|| {
                let line = Line::accept(stage.secure.0.accept().unwrap().0, &server).unwrap();
                let kind = line.handshake_kind();
                line.play(&talk.cloud);
                kind
            });
            let socket = stage.connect("localhost", stage.secure.1, through);
            let line = Line::connect(socket, &client, "localhost").unwrap();
            let kind = line.handshake_kind();
            line.play(&talk.client);
            [kind, cloud.join().unwrap()]
        })
    };
    kinds(true);
    assert_eq!(kinds(true), [rustls::HandshakeKind::Resumed; 2], "the client with us, and we with the cloud");
}

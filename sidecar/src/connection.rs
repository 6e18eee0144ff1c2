//! The story of one connection, from its first byte to its last. The decisions stand here, and nowhere else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::AlertDescription;
use tokio::net::TcpStream;

use crate::accept;
use crate::bindings::{Bindings, Bound};
use crate::budget::Budget;
use crate::distrust::{Answer, Distrust, Kind};
use crate::drain::Drain;
use crate::forward::{self, Asked, Authority, Forward};
use crate::lapse::{Lapse, Lapses};
use crate::leg::{Broken, Leg};
use crate::metrics::Metrics;
use crate::observe;
use crate::peek::{self, ClientHello, First, Host};
use crate::relay::{Outcome, Relay};
use crate::tee::{self, Copy, Side, Tee};
use crate::ticks::Ticks;
use crate::tls::{PairError, Tls};
use crate::upstream::{self, Own, UpstreamError};

/// How long a refused client may take to read why, while it may still be sending.
const REFUSAL_LINGER: Duration = Duration::from_secs(2);

/// How long an unfinished head is held back for its Host: it may be no HTTP at all, and the cloud waits. Whose it is,
/// its observer then finds out.
const HOST_WAIT: Duration = Duration::from_millis(300);

/// What all connections share.
pub struct Ctx {
    /// Which hosts are bound.
    pub bindings: Bindings,
    /// Handshakes.
    pub tls: Tls,
    /// Who does not trust us.
    pub distrust: Distrust,
    /// Bindings that are not observed.
    pub lapses: Arc<Lapses>,
    /// Stamps.
    pub ticks: Arc<Ticks>,
    /// Room for captured bytes; `None`: bound hosts are relayed and nothing is copied.
    pub capture: Option<(Arc<Budget>, Arc<observe::Ctx>)>,
    /// Where we listen ourselves.
    pub own: Own,
    /// The end of the process.
    pub drain: Drain,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// A client of the proxy: it says where it wants to go, for http with every request.
pub async fn proxied(client: TcpStream, ctx: &Ctx) {
    let Ok(peer) = client.peer_addr() else { return };
    let mut client = Leg::plain(client, Vec::new());
    loop {
        let asked = tokio::select! {
            asked = wait_for_request(&mut client) => asked,
            () = ctx.drain.asked() => return,
        };
        match asked {
            Err(answer) => return refuse(client, 400, answer, ctx).await,
            Ok(None) => return,
            Ok(Some(Asked::Tunnel { to, len })) => {
                client.consume(len);
                return tunnel(client, to, ctx).await;
            }
            Ok(Some(Asked::Forward(to))) => match forwarded(client, to, peer, ctx).await {
                Some((same, held)) => client = same.with_unread(held),
                None => return,
            },
        }
    }
}

/// A client whose packets were led here, and who knows nothing of it.
pub async fn redirected(client: TcpStream, ctx: &Ctx) {
    let to = match accept::original_destination(&client) {
        Ok(to) => to,
        Err(error) => {
            tracing::warn!(%error, "a connection came to the redirect port that no rule led there");
            ctx.metrics.carried("refused");
            return Leg::plain(client, Vec::new()).reset().await;
        }
    };
    let authority = Authority { host: to.ip().to_string(), port: to.port() };
    match upstream::connect(&authority, &[to], &ctx.own).await {
        Ok(cloud) => serve(Leg::plain(client, Vec::new()), Leg::plain(cloud, Vec::new()), authority, ctx).await,
        Err(error) => {
            unreachable(&error, ctx);
            Leg::plain(client, Vec::new()).reset().await; // as its own connection would have been
        }
    }
}

/// `CONNECT`: the client speaks to the host itself as soon as it hears 200.
async fn tunnel(mut client: Leg, to: Authority, ctx: &Ctx) {
    let cloud = match reach(&to, false, ctx).await {
        Ok(cloud) => cloud,
        Err(error) => return refuse(client, status_of(&error), &unreachable(&error, ctx), ctx).await,
    };
    if client.write_raw(b"HTTP/1.1 200 Connection established\r\n\r\n").await.is_ok() {
        serve(client, cloud, to, ctx).await;
    }
}

/// Requests for `http://…`. Gives the client back when it goes on to another host.
async fn forwarded(client: Leg, to: Authority, peer: SocketAddr, ctx: &Ctx) -> Option<(Leg, Vec<u8>)> {
    // A local client could reach its metadata service without us, so it may do so through us, unobserved.
    let cloud = match reach(&to, peer.ip().is_loopback(), ctx).await {
        Ok(cloud) => cloud,
        Err(error) => {
            refuse(client, status_of(&error), &unreachable(&error, ctx), ctx).await;
            return None;
        }
    };
    let bound = ctx.bindings.table().bound(&to.host, to.port);
    ctx.metrics.carried(if bound.is_some() { "bound" } else { "spliced" });
    let tee = bound.and_then(|bound| observed(bound, ctx));
    relay(client, cloud, tee, Some(Forward::new(to)), ctx).await
}

/// Two ends that are connected, and a client that has not said anything yet.
async fn serve(mut client: Leg, mut cloud: Leg, to: Authority, ctx: &Ctx) {
    let table = ctx.bindings.table();
    if !table.has_port(to.port) {
        return splice(client, cloud, "spliced", ctx).await; // not ours: not even looked at
    }
    let look = tokio::select! {
        look = look(&mut client, &cloud, table.bound(&to.host, to.port).is_some()) => look,
        () = ctx.drain.asked() => return,
    };
    let name = match &look {
        Look::Tls(hello) => hello.sni.clone(),
        Look::Http(host) => Authority::parse(host, Some(to.port)).map(|host| host.host),
        Look::Undecided | Look::Other => None,
    };
    let name = name.unwrap_or_else(|| to.host.clone());
    let Some(bound) = table.bound(&name, to.port) else {
        let perhaps = table.in_the_clear(&to.host, to.port).filter(|_| matches!(look, Look::Undecided));
        let Some(perhaps) = perhaps else {
            return splice(client, cloud, "spliced", ctx).await; // not ours: never decrypted
        };
        ctx.metrics.carried("undecided");
        let tee = copied(perhaps, observe::observe_undecided, ctx);
        relay(client, cloud, tee, None, ctx).await;
        return;
    };
    let Look::Tls(hello) = look else {
        ctx.metrics.carried("bound");
        let tee = observed(bound, ctx);
        relay(client, cloud, tee, None, ctx).await;
        return;
    };
    let kind = Kind { client: hello.fingerprint, host: name.clone(), port: to.port };
    if ctx.distrust.passes(&kind, Instant::now()) {
        let _lapse = ctx.lapses.open(&bound, Lapse::Distrust);
        return splice(client, cloud, "passthrough", ctx).await;
    }
    if !hello.servable {
        let _lapse = ctx.lapses.open(&bound, Lapse::Unparsed);
        return splice(client, cloud, "passthrough", ctx).await;
    }
    if let Err(error) = ctx.tls.pair(&mut client, &mut cloud, &hello, &name, &bound).await {
        return unpaired(error, client, cloud, kind, &bound, ctx).await;
    }
    ctx.distrust.note(kind, Answer::Trusts, Instant::now(), || ctx.lapses.open(&bound, Lapse::Distrust));
    if client.alpn() == Some(b"h2") {
        let _lapse = ctx.lapses.open(&bound, Lapse::Http2);
        return splice(client, cloud, "http2", ctx).await;
    }
    ctx.metrics.carried("bound");
    let tee = observed(bound, ctx);
    relay(client, cloud, tee, None, ctx).await;
}

/// A connection whose bytes nobody looks at.
async fn splice(client: Leg, cloud: Leg, how: &'static str, ctx: &Ctx) {
    ctx.metrics.carried(how);
    relay(client, cloud, None, None, ctx).await;
}

async fn relay(
    client: Leg,
    cloud: Leg,
    tee: Option<Tee>,
    forward: Option<Forward>,
    ctx: &Ctx,
) -> Option<(Leg, Vec<u8>)> {
    let relay =
        Relay { client, cloud, tee, forward, ticks: Arc::clone(&ctx.ticks), passed: ctx.metrics.passed.clone() };
    match relay.run(&ctx.drain).await {
        Outcome::Elsewhere(client, held) => return Some((client, held)),
        Outcome::Broke(side, broken) => {
            ctx.metrics.fault(word(side), cause(&broken));
            tracing::debug!(
                side = word(side),
                error = &broken as &dyn std::error::Error,
                "a connection broke, and was broken on the other side"
            );
        }
        Outcome::Closed | Outcome::Drained => {}
    }
    None
}

/// Starts the observer of a bound connection, where bytes are captured at all.
fn observed(bound: Bound, ctx: &Ctx) -> Option<Tee> {
    copied(bound, observe::observe, ctx)
}

fn copied<F>(bound: Bound, observe: fn(Copy, Arc<Bound>, Arc<observe::Ctx>) -> F, ctx: &Ctx) -> Option<Tee>
where
    F: Future<Output = ()> + Send + 'static,
{
    let (budget, observers) = ctx.capture.as_ref()?;
    let (live, copy) = tee::bounded(Arc::clone(budget));
    tokio::spawn(observe(copy, Arc::new(bound), Arc::clone(observers)));
    Some(live)
}

/// What the client's first bytes are. They stay where they are.
enum Look {
    Tls(Box<ClientHello>),
    /// A request for this host.
    Http(String),
    /// A request, or the beginning of one, that does not say for which host, or not yet.
    Undecided,
    /// Neither, or the cloud spoke first, or somebody closed.
    Other,
}

/// Waits for the client's first bytes until they say what they are, or until the cloud speaks or closes. In the
/// clear the Host matters only where the address is not `known` as bound already.
async fn look(client: &mut Leg, cloud: &Leg, known: bool) -> Look {
    loop {
        let (patience, so_far) = match peek::first(client.unread()) {
            First::Tls(hello) => return Look::Tls(hello),
            First::NotTls if known => return Look::Other,
            First::NotTls => match peek::http_host(client.unread()) {
                Host::Named(host) => return Look::Http(host),
                Host::NotHttp => return Look::Other,
                Host::Unnamed => return Look::Undecided,
                Host::Unknown => (HOST_WAIT, Look::Undecided),
            },
            First::Unknown => (Duration::MAX, Look::Other),
        };
        let mut first = [0];
        tokio::select! {
            read = client.read_some(peek::HELLO_LEN_MAX) => if !matches!(read, Ok(1..)) { return so_far },
            _ = cloud.socket().peek(&mut first) => return so_far,
            () = tokio::time::sleep(patience) => return so_far,
        }
    }
}

/// Waits for a request's head. `Ok(None)`: the client closed instead.
async fn wait_for_request(client: &mut Leg) -> Result<Option<Asked>, &'static str> {
    loop {
        if let Some(asked) = forward::asked(client.unread())? {
            return Ok(Some(asked));
        }
        if !matches!(client.read_some(forward::HEAD_LEN_MAX).await, Ok(1..)) {
            return Ok(None);
        }
    }
}

async fn reach(to: &Authority, link_local: bool, ctx: &Ctx) -> Result<Leg, UpstreamError> {
    let addresses = upstream::resolve(to).await?;
    if !link_local && addresses.iter().any(|address| upstream::is_link_local(address.ip())) {
        return Err(UpstreamError::LinkLocal(to.clone()));
    }
    Ok(Leg::plain(upstream::connect(to, &addresses, &ctx.own).await?, Vec::new()))
}

/// The end of a connection whose handshakes did not both succeed: each side sees what it would have seen without us.
async fn unpaired(error: PairError, client: Leg, cloud: Leg, kind: Kind, bound: &Bound, ctx: &Ctx) {
    match error {
        PairError::Cloud(broken) => {
            ctx.metrics.fault("cloud", cause(&broken));
            tracing::warn!(
                host = kind.host,
                port = kind.port,
                error = &broken as &dyn std::error::Error,
                "cloud: its TLS failed, so the application's connection was closed"
            );
            if matches!(broken, Broken::Socket(_)) {
                client.reset().await;
            }
        }
        PairError::Client(broken) => {
            ctx.metrics.fault("pod", cause(&broken));
            let answer = match &broken {
                Broken::Alert(alert) if is_about_the_certificate(*alert) => Some(Answer::Refuses),
                Broken::Socket(_) | Broken::Closed => Some(Answer::Closes),
                Broken::Alert(_) | Broken::Tls(_) => None, // it failed for another reason than our certificate
            };
            let host = kind.host.clone();
            let open = || ctx.lapses.open(bound, Lapse::Distrust);
            if answer.is_some_and(|answer| ctx.distrust.note(kind, answer, Instant::now(), open)) {
                tracing::warn!(
                    host,
                    error = &broken as &dyn std::error::Error,
                    "pod: a client does not trust the CA: its kind is passed through for 10 minutes, unobserved"
                );
            }
            if matches!(broken, Broken::Socket(_)) {
                cloud.reset().await;
            }
        }
        error @ (PairError::Name { .. } | PairError::Leaf(_)) => {
            ctx.metrics.fault("pod", "name");
            tracing::warn!(
                host = kind.host,
                error = &error as &dyn std::error::Error,
                "pod: no certificate can be made"
            );
        }
    }
}

/// What clients say of a certificate whose authority they do not know: each library has its own word for it.
fn is_about_the_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate
    )
}

/// Answers as a proxy, and closes.
async fn refuse(mut client: Leg, status: u16, text: &str, ctx: &Ctx) {
    ctx.metrics.carried("refused");
    let reason = match status {
        400 => "Bad Request",
        403 => "Forbidden",
        504 => "Gateway Timeout",
        508 => "Loop Detected",
        _ => "Bad Gateway",
    };
    let body = format!("hawser-sidecar: {text}\n");
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if client.write_raw((head + &body).as_bytes()).await.is_ok() {
        client.linger(REFUSAL_LINGER).await;
    }
}

fn status_of(error: &UpstreamError) -> u16 {
    match error {
        UpstreamError::Unresolved(..) | UpstreamError::Unreachable(..) => 502,
        UpstreamError::Silent(_) => 504,
        UpstreamError::Loop(_) => 508,
        UpstreamError::LinkLocal(_) => 403,
    }
}

/// Counts and logs a cloud that cannot be had; gives the text for the client.
fn unreachable(error: &UpstreamError, ctx: &Ctx) -> String {
    ctx.metrics.fault("cloud", "unreachable");
    tracing::debug!(error = error as &dyn std::error::Error, "cloud: no connection");
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn word(side: Side) -> &'static str {
    match side {
        Side::Client => "pod",
        Side::Cloud => "cloud",
    }
}

fn cause(broken: &Broken) -> &'static str {
    match broken {
        Broken::Socket(_) => "reset",
        Broken::Alert(_) => "alert",
        Broken::Tls(_) => "tls",
        Broken::Closed => "closed",
    }
}

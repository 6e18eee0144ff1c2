//! One end of a live connection: a socket, with a TLS session on it or none.
//!
//! The session works on our own memory: a read takes up to [`READ_LEN`] bytes of records into a buffer that all
//! connections of a thread share, each record is decrypted there and handed on, and what it becomes on the other
//! side is written from a second such buffer. A leg owns memory only for what it cannot pass on yet: a record whose
//! end is still to come, and bytes that a slow reader does not take. An idle one owns none.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, ServerConfig};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes taken from a socket at once.
pub const READ_LEN: usize = 256 * 1024;
/// The same while [`HELD_MAX`] is exceeded: one TLS record and its frame.
const READ_LEN_TIGHT: usize = 17 * 1024;
/// What one read can become when it is encrypted again: one-byte records, the smallest frame read and the largest written.
pub const WRITE_LEN: usize = READ_LEN + READ_LEN / 2;
/// Bytes held for slow readers in the whole process beyond which reads become small.
const HELD_MAX: usize = 8 * 1024 * 1024;
/// Largest incomplete input of a session: a handshake message may have 64 KiB.
const UNREAD_MAX: usize = 128 * 1024;

/// How long bytes before a reset may take to leave: a reader that takes none would hold the reset up for ever.
const RESET_WAIT: Duration = Duration::from_secs(5);

/// Bytes held for slow readers by all legs of the process.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Why a leg can no longer be used.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The network's answer: mostly a reset.
    #[error("the connection broke")]
    Socket(#[source] io::Error),
    /// The other side broke TLS off with an alert.
    #[error("TLS was broken off")]
    Alert(rustls::AlertDescription),
    /// What came is not TLS as it was agreed on.
    #[error("TLS failed")]
    Tls(#[source] rustls::Error),
    /// The other side closed during the handshake.
    #[error("the connection was closed during the handshake")]
    Closed,
}

impl From<rustls::Error> for Broken {
    fn from(error: rustls::Error) -> Broken {
        match error {
            rustls::Error::AlertReceived(alert) => Broken::Alert(alert),
            error => Broken::Tls(error),
        }
    }
}

/// What one read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// Bytes, or progress of the session alone.
    More,
    /// The last byte of this direction under TLS; a FIN may follow.
    CloseNotify,
    /// No more bytes will come.
    Fin,
}

/// One end of a connection.
pub struct Leg {
    socket: TcpStream,
    session: Session,
    /// Read and not yet passed on.
    unread: Vec<u8>,
    /// `unread` may hold something that can be passed on without reading more.
    fresh: bool,
    /// To be written before anything else; `sent` bytes of it are gone.
    unsent: Vec<u8>,
    sent: usize,
    /// The close_notify has been handed on.
    notified: bool,
    early: Early,
}

/// What came to light while something was to be written: a session goes through its input first. Handed on by the next read.
#[derive(Default)]
struct Early {
    content: Vec<u8>,
    closed: bool,
}

enum Session {
    Plain,
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

impl Leg {
    /// A leg without TLS. `first` are bytes that were already read from `socket`.
    pub fn plain(socket: TcpStream, first: Vec<u8>) -> Leg {
        let fresh = !first.is_empty();
        Leg {
            socket,
            session: Session::Plain,
            unread: first,
            fresh,
            unsent: Vec::new(),
            sent: 0,
            notified: false,
            early: Early::default(),
        }
    }

    /// The socket itself, for addresses and options.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Bytes that were read and not passed on; only what a plain leg was looked at with.
    pub fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// Gives back what was taken from a plain leg and not passed on.
    pub fn with_unread(mut self, mut bytes: Vec<u8>) -> Leg {
        bytes.append(&mut self.unread);
        self.unread = bytes;
        self.fresh = !self.unread.is_empty();
        self
    }

    /// Takes the first `len` of [`Leg::unread`] away.
    pub fn consume(&mut self, len: usize) {
        self.unread.drain(..len);
        self.fresh = !self.unread.is_empty();
    }

    /// Reads more of a plain leg into [`Leg::unread`], at most `max` bytes. `Ok(0)`: FIN.
    ///
    /// Dropping the future loses nothing.
    pub async fn read_some(&mut self, max: usize) -> io::Result<usize> {
        loop {
            self.socket.readable().await?;
            let mut piece = [0; 16 * 1024];
            let len = max.min(piece.len());
            match self.socket.try_read(&mut piece[..len]) {
                Ok(len) => {
                    self.unread.extend_from_slice(&piece[..len]);
                    self.fresh = !self.unread.is_empty();
                    return Ok(len);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes all of `bytes` as they are, past any session: answers of the proxy, alerts before a handshake.
    ///
    /// # Errors
    /// [`Broken::Socket`].
    pub async fn write_raw(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.hold(bytes);
        self.flush().await
    }

    /// Speaks TLS as the server from here on. What was read before belongs to the handshake.
    ///
    /// # Errors
    /// How the handshake failed; an alert of ours is already on its way.
    pub async fn accept_tls(&mut self, config: Arc<ServerConfig>) -> Result<(), Broken> {
        self.session = Session::Server(Box::new(UnbufferedServerConnection::new(config)?));
        self.handshake().await
    }

    /// Speaks TLS as the client from here on.
    ///
    /// # Errors
    /// How the handshake failed; an alert of ours is already on its way.
    pub async fn connect_tls(&mut self, config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<(), Broken> {
        self.session = Session::Client(Box::new(UnbufferedClientConnection::new(config, name)?));
        self.fresh = true; // the client speaks first
        self.handshake().await
    }

    /// The protocol that ALPN agreed on.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.state().and_then(CommonState::alpn_protocol)
    }

    /// Whether bytes are encrypted on this leg.
    pub fn is_tls(&self) -> bool {
        !matches!(self.session, Session::Plain)
    }

    /// Whether nothing waits to be written.
    pub fn is_flushed(&self) -> bool {
        self.unsent.is_empty()
    }

    fn state(&self) -> Option<&CommonState> {
        match &self.session {
            Session::Plain => None,
            Session::Server(session) => Some(session),
            Session::Client(session) => Some(session),
        }
    }

    async fn handshake(&mut self) -> Result<(), Broken> {
        loop {
            let mut unread = std::mem::take(&mut self.unread);
            // What follows the last handshake message in the same packet is content already.
            let mut early = std::mem::take(&mut self.early);
            let driven = self.drive(&mut unread, &mut |content| early.content.extend_from_slice(content));
            let Driven { consumed, closed } = match driven {
                Ok(driven) => driven,
                Err(error) => {
                    let _ = self.flush().await; // the alert that says why
                    return Err(error.into());
                }
            };
            unread.drain(..consumed);
            self.unread = unread;
            early.closed |= closed;
            self.early = early;
            self.flush().await?;
            if self.state().is_none_or(|state| !state.is_handshaking()) {
                self.fresh = !self.unread.is_empty();
                return Ok(());
            }
            if self.early.closed || self.unread.len() > UNREAD_MAX {
                return Err(Broken::Closed);
            }
            match self.read_some(UNREAD_MAX).await {
                Ok(0) => return Err(Broken::Closed),
                Ok(_) => {}
                Err(error) => return Err(Broken::Socket(error)),
            }
        }
    }

    /// Reads once and hands every piece of content to `take`, in `inbound`, which has [`READ_LEN`] bytes.
    pub fn poll_pull(
        &mut self,
        cx: &mut Context<'_>,
        inbound: &mut [u8],
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<Result<Pulled, Broken>> {
        if !self.early.content.is_empty() {
            take(&std::mem::take(&mut self.early.content));
            return Poll::Ready(Ok(Pulled::More));
        }
        if std::mem::take(&mut self.early.closed) {
            self.notified = true;
            return Poll::Ready(Ok(Pulled::CloseNotify));
        }
        let fresh = std::mem::take(&mut self.fresh);
        if fresh && !self.is_tls() {
            take(&std::mem::take(&mut self.unread));
            return Poll::Ready(Ok(Pulled::More));
        }
        let mut filled = self.unread.len();
        if !fresh {
            let len = if HELD.load(Ordering::Relaxed) > HELD_MAX { READ_LEN_TIGHT } else { READ_LEN };
            let end = inbound.len().min(filled + len);
            if filled >= end {
                return Poll::Ready(Err(Broken::Closed)); // a message that no session needs
            }
            let mut piece = ReadBuf::new(&mut inbound[filled..end]);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut piece)).map_err(Broken::Socket)?;
            let len = piece.filled().len();
            if len == 0 {
                return Poll::Ready(Ok(Pulled::Fin));
            }
            if !self.is_tls() {
                take(&inbound[..len]);
                return Poll::Ready(Ok(Pulled::More));
            }
            filled += len;
        }
        if self.notified {
            self.unread = Vec::new(); // RFC 8446 §6.1: what follows a close_notify is ignored
            return Poll::Ready(Ok(Pulled::More));
        }
        inbound[..self.unread.len()].copy_from_slice(&self.unread);
        self.unread = Vec::new();
        match self.drive(&mut inbound[..filled], take) {
            Ok(Driven { consumed, closed }) => {
                if closed {
                    self.notified = true;
                    return Poll::Ready(Ok(Pulled::CloseNotify));
                }
                self.unread.extend_from_slice(&inbound[consumed..filled]);
                Poll::Ready(Ok(Pulled::More))
            }
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    /// Writes `content`: encrypted into `outbound`, which [`Leg::poll_send`] takes when the batch is done, or at once.
    ///
    /// # Errors
    /// [`Broken`] when nothing can be written any more.
    pub fn push(&mut self, cx: &mut Context<'_>, content: &[u8], outbound: &mut Outbound) -> Result<(), Broken> {
        match &mut self.session {
            Session::Plain => self.write_through(cx, content),
            Session::Server(session) => {
                encrypt(session.as_mut(), &mut self.unread, &mut self.early, Some(content), outbound)
            }
            Session::Client(session) => {
                encrypt(session.as_mut(), &mut self.unread, &mut self.early, Some(content), outbound)
            }
        }
    }

    /// Ends this direction of a TLS session; nothing on a plain leg.
    ///
    /// # Errors
    /// [`Broken`] when nothing can be written any more.
    pub fn push_close_notify(&mut self, outbound: &mut Outbound) -> Result<(), Broken> {
        match &mut self.session {
            Session::Plain => Ok(()),
            Session::Server(session) => encrypt(session.as_mut(), &mut self.unread, &mut self.early, None, outbound),
            Session::Client(session) => encrypt(session.as_mut(), &mut self.unread, &mut self.early, None, outbound),
        }
    }

    /// Writes what was pushed; what the socket does not take is kept for [`Leg::poll_flush`].
    ///
    /// # Errors
    /// [`Broken::Socket`].
    pub fn send(&mut self, cx: &mut Context<'_>, outbound: &mut Outbound) -> Result<(), Broken> {
        let written = self.write_through(cx, outbound.filled());
        outbound.clear();
        written
    }

    /// Writes what was kept; pending while the other side does not take it.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        while self.sent < self.unsent.len() {
            let len =
                ready!(Pin::new(&mut self.socket).poll_write(cx, &self.unsent[self.sent..])).map_err(Broken::Socket)?;
            self.sent += len;
        }
        self.release();
        Poll::Ready(Ok(()))
    }

    /// [`Leg::poll_flush`] to its end.
    ///
    /// # Errors
    /// [`Broken::Socket`].
    pub async fn flush(&mut self) -> Result<(), Broken> {
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Sends FIN. Flush first.
    pub fn fin(&mut self, cx: &mut Context<'_>) {
        // Never pending for a TCP socket; an error means that the connection is gone already.
        let _ = Pin::new(&mut self.socket).poll_shutdown(cx);
    }

    /// Sends FIN and throws away what still comes, for at most `time`: a close with bytes unread would be a reset,
    /// and take back what was just written.
    pub async fn linger(mut self, time: Duration) {
        std::future::poll_fn(|cx| {
            self.fin(cx);
            Poll::Ready(())
        })
        .await;
        let _ = tokio::time::timeout(time, async {
            while let Ok(1..) = self.read_some(READ_LEN).await {
                self.unread.clear();
            }
        })
        .await;
    }

    /// Closes with RST instead of FIN, as soon as what was written before is on its way: the sender's own reset
    /// came behind its bytes, too.
    pub async fn reset(self) {
        let _ = tokio::time::timeout(RESET_WAIT, self.sent_to_the_network()).await;
        let _ = self.socket.set_zero_linger();
    }

    /// Waits until the system holds no byte that it has not sent. There is no call that says so; but a socket whose
    /// mark for unsent bytes is at its lowest is writable exactly then, and one that is registered anew is told.
    async fn sent_to_the_network(&self) -> io::Result<()> {
        let socket = SockRef::from(&self.socket);
        socket.set_tcp_notsent_lowat(1)?;
        let again = TcpStream::from_std(socket.try_clone()?.into())?;
        again.writable().await
    }

    fn write_through(&mut self, cx: &mut Context<'_>, mut bytes: &[u8]) -> Result<(), Broken> {
        while !bytes.is_empty() && self.unsent.is_empty() {
            match Pin::new(&mut self.socket).poll_write(cx, bytes) {
                Poll::Ready(Ok(len)) => bytes = &bytes[len..],
                Poll::Ready(Err(error)) => return Err(Broken::Socket(error)),
                Poll::Pending => break,
            }
        }
        self.hold(bytes);
        Ok(())
    }

    fn hold(&mut self, bytes: &[u8]) {
        HELD.fetch_add(bytes.len(), Ordering::Relaxed);
        self.unsent.extend_from_slice(bytes);
    }

    fn release(&mut self) {
        HELD.fetch_sub(self.unsent.len(), Ordering::Relaxed);
        self.unsent = Vec::new();
        self.sent = 0;
    }

    fn drive(&mut self, incoming: &mut [u8], take: &mut dyn FnMut(&[u8])) -> Result<Driven, rustls::Error> {
        let before = self.unsent.len();
        let driven = match &mut self.session {
            Session::Plain => Ok(Driven { consumed: 0, closed: false }),
            Session::Server(session) => drive(session.as_mut(), incoming, &mut self.unsent, take),
            Session::Client(session) => drive(session.as_mut(), incoming, &mut self.unsent, take),
        };
        HELD.fetch_add(self.unsent.len() - before, Ordering::Relaxed);
        driven
    }
}

impl Drop for Leg {
    fn drop(&mut self) {
        self.release();
    }
}

/// What a session made of its input.
struct Driven {
    /// Bytes of the input that are done with.
    consumed: usize,
    /// A close_notify came.
    closed: bool,
}

/// The two kinds of session, which rustls gives the same method without a common trait.
trait Records {
    type Data;
    fn records<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Records for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn records<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, ServerConnectionData> {
        self.process_tls_records(incoming)
    }
}

impl Records for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn records<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, ClientConnectionData> {
        self.process_tls_records(incoming)
    }
}

/// Runs `session` over `incoming` until it wants more bytes. Content goes to `take`, its own messages to `unsent`:
/// when it fails, the alert that says so.
fn drive<S: Records>(
    session: &mut S,
    incoming: &mut [u8],
    unsent: &mut Vec<u8>,
    take: &mut dyn FnMut(&[u8]),
) -> Result<Driven, rustls::Error> {
    let mut driven = Driven { consumed: 0, closed: false };
    let mut failed = None;
    loop {
        let UnbufferedStatus { discard, state } = session.records(&mut incoming[driven.consumed..]);
        driven.consumed += discard;
        match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    driven.consumed += record.discard;
                    take(record.payload);
                }
            }
            Ok(ConnectionState::EncodeTlsData(mut message)) => {
                let end = unsent.len();
                if let Err(EncodeError::InsufficientSize(size)) = message.encode(&mut []) {
                    unsent.resize(end + size.required_size, 0);
                    let written = message.encode(&mut unsent[end..]).unwrap_or(0);
                    unsent.truncate(end + written);
                }
            }
            Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
            Ok(ConnectionState::PeerClosed) => driven.closed = true,
            // It waits for bytes, or for us to write.
            Ok(_) => return failed.map_or(Ok(driven), Err),
            Err(again) => match failed {
                None => failed = Some(again), // once more, for the alert
                Some(first) => return Err(first),
            },
        }
    }
}

/// Encrypts `content`, or a close_notify, into `outbound`. The session goes through its own incomplete input
/// `unread` first; what that brings to light goes to `early`.
fn encrypt<S: Records>(
    session: &mut S,
    unread: &mut Vec<u8>,
    early: &mut Early,
    content: Option<&[u8]>,
    outbound: &mut Outbound,
) -> Result<(), Broken> {
    loop {
        let UnbufferedStatus { mut discard, state } = session.records(unread);
        let mut done = false;
        match state? {
            ConnectionState::WriteTraffic(mut traffic) => {
                while !done {
                    let room = outbound.room();
                    let written = match content {
                        Some(content) => traffic.encrypt(content, room),
                        None => traffic.queue_close_notify(room),
                    };
                    match written {
                        Ok(len) => {
                            outbound.filled += len;
                            done = true;
                        }
                        Err(EncryptError::InsufficientSize(size)) => outbound.grow(size.required_size),
                        Err(EncryptError::EncryptExhausted) => return Err(Broken::Tls(rustls::Error::EncryptError)),
                    }
                }
            }
            ConnectionState::EncodeTlsData(mut message) => {
                if let Err(EncodeError::InsufficientSize(size)) = message.encode(&mut []) {
                    outbound.grow(size.required_size);
                    outbound.filled += message.encode(outbound.room()).unwrap_or(0);
                }
            }
            ConnectionState::TransmitTlsData(transmit) => transmit.done(),
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    early.content.extend_from_slice(record.payload);
                }
            }
            ConnectionState::PeerClosed => early.closed = true,
            // Closed on both sides: the relay has nothing more to say here.
            _ => done = true,
        }
        unread.drain(..discard);
        if done {
            return Ok(());
        }
    }
}

/// A buffer for what is to be written, shared by the connections of a thread and empty between their turns.
#[derive(Debug)]
pub struct Outbound {
    bytes: Vec<u8>,
    filled: usize,
}

impl Outbound {
    /// Room for what one read becomes.
    pub fn new() -> Outbound {
        Outbound { bytes: vec![0; WRITE_LEN], filled: 0 }
    }

    fn filled(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    fn grow(&mut self, room: usize) {
        let len = self.bytes.len().max(self.filled + room);
        self.bytes.resize(len, 0);
    }

    fn clear(&mut self) {
        self.filled = 0;
        if self.bytes.len() > WRITE_LEN {
            self.bytes.truncate(WRITE_LEN);
            self.bytes.shrink_to_fit();
        }
    }
}

impl Default for Outbound {
    fn default() -> Outbound {
        Outbound::new()
    }
}

//! The first process of a pod's sidecar: it holds the listener and touches no byte. A child relays; when that ends by
//! itself, the next one takes over the same listener within 100 ms, and connections that came in between have waited
//! there. A child that ends again and again is replaced by one that passes everything through and says so.
//!
//! The child has the listener as its standard input, and a line to its supervisor as its standard output: the line
//! carries a word when the child is to end, and its end is that of the supervisor. May not enter here: anything that
//! can fail because of what connections carry, or of what the bindings say.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Child as Mode, Run};
use crate::run::StartError;

/// So many ends within [`CRASH_WINDOW`] are no accident.
const CRASHES_MAX: usize = 3;
const CRASH_WINDOW: Duration = Duration::from_secs(60);
/// How long everything is passed through before relaying is tried again.
const PASS_THROUGH: Duration = Duration::from_secs(300);
/// How long connections that were passed through may go on after that; idle ones close at once.
const RETIRE_MAX: Duration = Duration::from_secs(600);
/// A child that ends sooner than this is not started again at once for ever.
const QUICK: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The words on the line.
const DRAIN: &str = "drain";
const RETIRE: &str = "retire";

/// `run --supervise`: until SIGTERM or SIGINT.
///
/// # Errors
/// [`StartError::Listen`] and [`StartError::Signals`]; no child ever ends it.
pub fn run(config: &Run) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(StartError::Signals)?.block_on(supervise(config))
}

enum Next {
    /// The child ended by itself.
    Ended(io::Result<ExitStatus>),
    /// Passing through has been long enough.
    Again,
    /// We were told to end.
    End,
}

async fn supervise(config: &Run) -> Result<(), StartError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
    let address = config.redirect.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let listener = hold(address).map_err(|source| StartError::Listen { address, source })?;
    let (mut mode, mut crashes) = (Mode::Relay, Crashes::default());
    loop {
        let begun = Instant::now();
        let mut child = match Child::start(&listener, mode, crashes.count) {
            Ok(child) => child,
            Err(error) => {
                tracing::error!(%error, "the relay cannot be started: tried again");
                tokio::time::sleep(PAUSE_MAX).await;
                continue;
            }
        };
        let next = tokio::select! {
            ended = child.process.wait() => Next::Ended(ended),
            () = tokio::time::sleep(PASS_THROUGH), if mode == Mode::Splice => Next::Again,
            _ = terminate.recv() => Next::End,
            _ = interrupt.recv() => Next::End,
        };
        match next {
            Next::End => {
                child.tell(DRAIN);
                tokio::select! {
                    _ = child.process.wait() => {}
                    _ = terminate.recv() => {} // told again: what is open is cut
                    _ = interrupt.recv() => {}
                }
                return Ok(());
            }
            Next::Again => {
                tracing::info!("relaying is tried again");
                child.tell(RETIRE);
                tokio::spawn(async move { tokio::time::timeout(RETIRE_MAX, child.process.wait()).await });
                mode = Mode::Relay;
                crashes.forgive();
            }
            Next::Ended(ended) => {
                let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                let many = crashes.note(Instant::now());
                tracing::error!(
                    how,
                    crashes = crashes.count,
                    "the relay ended by itself: its connections are cut, the next one starts"
                );
                if many && mode == Mode::Relay {
                    tracing::error!(
                        "the relay ended {CRASHES_MAX} times within a minute: everything is passed through, unobserved, for {PASS_THROUGH:?}"
                    );
                    mode = Mode::Splice;
                } else if mode == Mode::Splice && begun.elapsed() < QUICK {
                    tokio::time::sleep(crashes.pause()).await;
                }
            }
        }
    }
}

/// Listens; on a node without IPv6, where every address was meant, on those of IPv4.
fn hold(address: SocketAddr) -> io::Result<TcpListener> {
    let listener =
        TcpListener::bind(address).or_else(|error| match address.is_ipv6() && address.ip().is_unspecified() {
            true => TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).map_err(|_| error),
            false => Err(error),
        })?;
    listener.set_nonblocking(true)?; // as the children need it; we never take from it
    Ok(listener)
}

/// The ends of children, by time.
#[derive(Default)]
struct Crashes {
    recent: VecDeque<Instant>,
    count: u32,
}

impl Crashes {
    /// Notes one; true when they are too many.
    fn note(&mut self, now: Instant) -> bool {
        self.count = self.count.saturating_add(1);
        self.recent.push_back(now);
        while self.recent.front().is_some_and(|old| now.duration_since(*old) > CRASH_WINDOW) || self.recent.len() > 64 {
            self.recent.pop_front();
        }
        self.recent.len() >= CRASHES_MAX
    }

    fn forgive(&mut self) {
        self.recent.clear();
    }

    /// The more of them lately, the longer, so that a child that cannot even start costs no processor.
    fn pause(&self) -> Duration {
        let doublings = u32::try_from(self.recent.len().min(7)).unwrap_or(7);
        (Duration::from_millis(10) * (1 << doublings)).min(PAUSE_MAX)
    }
}

/// A child and our end of the line. When we drop that, it ends.
struct Child {
    process: tokio::process::Child,
    line: UnixStream,
}

impl Child {
    fn start(listener: &TcpListener, mode: Mode, crashes: u32) -> io::Result<Child> {
        let (line, theirs) = UnixStream::pair()?;
        line.set_nonblocking(true)?; // a word is a few bytes: it fits, or nobody reads any more
        let own = std::env::args_os().skip(1).filter(|word| word != "--supervise");
        let mode = match mode {
            Mode::Relay => "relay",
            Mode::Splice => "splice",
        };
        let process = Command::new(std::env::current_exe()?)
            .args(own)
            .args(["--child", mode, "--crashes", &crashes.to_string()])
            .stdin(Stdio::from(OwnedFd::from(listener.try_clone()?)))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        Ok(Child { process, line })
    }

    fn tell(&mut self, word: &str) {
        let _ = self.line.write_all(format!("{word}\n").as_bytes()); // else it has ended
    }
}

/// What a supervisor says to its child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// No new connections; exchanges run until the grace ends.
    Drain,
    /// The same, and whoever comes next is there already.
    Retire,
    /// The supervisor is gone: nobody holds the listener.
    Gone,
}

/// The child's end of the line.
pub struct Line(Lines<BufReader<tokio::net::UnixStream>>);

impl Line {
    /// Waits for a word.
    pub async fn word(&mut self) -> Word {
        match self.0.next_line().await {
            Ok(Some(word)) if word == RETIRE => Word::Retire,
            Ok(Some(_)) => Word::Drain,
            Ok(None) | Err(_) => Word::Gone,
        }
    }
}

/// What a child was given: the listener and the line.
///
/// # Errors
/// The system's, when they are not there: it was not started by a supervisor.
pub fn inherited() -> io::Result<(TcpListener, Line)> {
    let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let line = UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
    line.set_nonblocking(true)?;
    let line = tokio::net::UnixStream::from_std(line)?;
    Ok((listener, Line(BufReader::new(line).lines())))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{CRASH_WINDOW, Crashes, PAUSE_MAX};

    #[test]
    fn three_ends_within_a_minute_are_too_many_and_old_ones_are_forgotten() {
        let begun = Instant::now();
        let rows: [(&str, &[u64], bool); 5] = [
            ("one", &[0], false),
            ("two", &[0, 1], false),
            ("three", &[0, 1, 59], true),
            ("three in a longer time", &[0, 30, 61], false),
            ("the first forgotten", &[0, 50, 70, 100], true),
        ];
        for (trap, ends, wanted) in rows {
            let mut crashes = Crashes::default();
            let many = ends.iter().map(|at| crashes.note(begun + Duration::from_secs(*at))).last();
            assert_eq!(many, Some(wanted), "{trap}");
            crashes.forgive();
            assert!(!crashes.note(begun + CRASH_WINDOW * 9), "{trap}: forgiven");
        }
        let mut crashes = Crashes::default();
        for at in 0..1000 {
            crashes.note(begun + Duration::from_millis(at));
        }
        assert!(crashes.pause() == PAUSE_MAX && crashes.recent.len() <= 64, "bounded");
    }
}

//! `ready`: asks a running sidecar whether applications may start. A probe that waits by itself succeeds at the moment
//! when the sidecar is ready, not at the next turn of who probes.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::config::Ready;

/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(10);
/// How long one answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// The sidecar is not ready.
#[derive(Debug, thiserror::Error)]
#[error("{admin}: not ready ({answer})")]
pub struct NotReady {
    admin: std::net::SocketAddr,
    answer: String,
}

/// Waits until the sidecar is ready, for as long as it may.
///
/// # Errors
/// [`NotReady`] with its last answer.
pub fn wait(config: &Ready) -> Result<(), NotReady> {
    let begun = Instant::now();
    loop {
        let answer = match ask(config) {
            Ok(status) if status.contains(" 200 ") => return Ok(()),
            Ok(status) => status,
            Err(error) => error.to_string(),
        };
        if begun.elapsed() >= config.wait {
            return Err(NotReady { admin: config.admin, answer });
        }
        std::thread::sleep(PAUSE);
    }
}

fn ask(config: &Ready) -> io::Result<String> {
    let mut socket = TcpStream::connect_timeout(&config.admin, ANSWER_MAX)?;
    socket.set_read_timeout(Some(ANSWER_MAX))?;
    socket.write_all(b"GET /readyz HTTP/1.1\r\nHost: sidecar\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.take(4096).read_to_string(&mut answer)?;
    Ok(answer.lines().next().unwrap_or("no answer").to_owned())
}

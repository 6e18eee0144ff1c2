//! `exec`: one command behind a sidecar of its own, on an address that nobody else knows.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::accept::Way;
use crate::config::Exec;
use crate::env::{self, Change};
use crate::heap;
use crate::run::{self, InPod, Plan, StartError};
use crate::trust::TrustError;

/// How long connections that the command left open may go on: it is gone, so nobody reads them.
const GRACE: Duration = Duration::from_secs(1);

/// Why the command did not run.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The sidecar.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The bundles.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A folder for the bundles.
    #[error("a temporary folder cannot be made: set TMPDIR to one that can be written")]
    Folder(#[source] io::Error),
    /// The command itself.
    #[error("{command}: cannot be run")]
    Command {
        /// Its name.
        command: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl ExecError {
    /// The exit code that shells give in the same case.
    pub fn code(&self) -> u8 {
        match self {
            ExecError::Command { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            ExecError::Command { .. } => 126,
            _ => 125,
        }
    }
}

/// Runs the command to its end and gives its exit code, 128 + N for the signal N.
///
/// # Errors
/// [`ExecError`]; the command has not run then.
pub async fn exec(config: Exec) -> Result<u8, ExecError> {
    let folder = Folder::new().map_err(ExecError::Folder)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let sidecar = run::start(Plan {
        copying: &config.copying,
        trust_dir: &folder.0,
        state_dir: None,
        ways: vec![(Way::Proxy, address)],
        admin: None,
        grace: GRACE,
        in_pod: InPod::default(),
    })
    .await?;
    let proxy = sidecar.listening.first().copied().unwrap_or(address);
    let mut command = Command::new(&config.command[0]);
    command.args(&config.command[1..]);
    heap::leave_out(command.as_std_mut());
    for change in env::changes(&folder.0, proxy, |name| std::env::var_os(name))? {
        match change {
            Change::Set(name, value) => command.env(name, value),
            Change::Unset(name) => command.env_remove(name),
        };
    }
    let mut signals = Signals::new().map_err(|error| ExecError::Start(StartError::Signals(error)))?;
    let name = || config.command[0].to_string_lossy().into_owned();
    let mut child = command.spawn().map_err(|source| ExecError::Command { command: name(), source })?;
    let status = signals
        .forward_until_exit(&mut child)
        .await
        .map_err(|source| ExecError::Command { command: name(), source })?;
    sidecar.stop(false).await;
    Ok(code(status))
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code & 0xff).unwrap_or(1)
}

/// The signals that are meant for the command.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn forward_until_exit(&mut self, child: &mut Child) -> io::Result<ExitStatus> {
        loop {
            let name = tokio::select! {
                status = child.wait() => return status,
                _ = self.interrupt.recv() => "INT",
                _ = self.terminate.recv() => "TERM",
            };
            if let Some(id) = child.id() {
                // The shell's own `kill`: there is no other way to send a signal without unsafe code.
                let _ = Command::new("kill").arg("-s").arg(name).arg(id.to_string()).status().await;
            }
        }
    }
}

/// A folder that only this user can enter, removed in the end.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> io::Result<Folder> {
        use std::os::unix::fs::DirBuilderExt;
        let path =
            std::env::temp_dir().join(format!("hawser-exec-{}-{:08x}", std::process::id(), rand::random::<u32>()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

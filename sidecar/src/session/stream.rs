//! The control stream of one session: kept up for the life of the process, said hello on whenever it begins.

use std::sync::Arc;
use std::time::Duration;

use hawser_api::connect::{ConnectError, Store};
use hawser_api::v1;
use hawser_api::v1::capture_client::CaptureClient;
use hawser_api::v1::control_down::Message as Down;
use hawser_api::v1::control_up::Message as Up;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{Session, heartbeat};
use crate::backoff::Backoff;

/// Letters between the queue and the connection: what is there may be sent twice after it broke.
const OUTBOX_MAX: usize = 16;

/// A store that takes a stream and does not welcome it within this is as good as away.
const WELCOME_WITHIN: Duration = Duration::from_secs(10);

/// Why a control stream ended or did not begin.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the store ended the stream: {}", .0.message())]
    Status(#[from] Status),
    #[error("the store closed the stream")]
    Closed,
    #[error("the store did not answer a hello with a welcome")]
    NoWelcome,
    /// Not a failure: the manifest changed, and the store must hear of it.
    #[error("the binding changed")]
    Edited,
}

impl Ended {
    /// What a person is told. One absence has one reason, however the connection to nobody fails.
    fn reason(&self) -> String {
        match self {
            Ended::Closed | Ended::NoWelcome => "it cannot be reached".to_owned(),
            Ended::Status(status) if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled) => {
                "it cannot be reached".to_owned()
            }
            other => other.to_string(),
        }
    }
}

/// Speaks with the store for as long as the process lives.
pub(super) async fn keep(store: Store, session: Arc<Session>) {
    let mut pause = Backoff::default();
    let mut last_reason = None;
    loop {
        pause.wait().await;
        let Err(ended) = speak(&store, &session, &mut pause, &mut last_reason).await;
        session.fell_silent();
        if matches!(ended, Ended::Edited) {
            continue; // at once: the first pause is short
        }
        let reason = ended.reason();
        if last_reason.as_ref() != Some(&reason) {
            tracing::warn!(
                binding = session.name,
                reason,
                "store: away; outcomes go into the journal until it is back"
            );
            last_reason = Some(reason);
        }
    }
}

/// One stream from hello to its end.
async fn speak(
    store: &Store,
    session: &Session,
    pause: &mut Backoff,
    last_reason: &mut Option<String>,
) -> Result<std::convert::Infallible, Ended> {
    let (channel, caller) = store.channel()?;
    let (up, outbox) = mpsc::channel(OUTBOX_MAX);
    let mut edits = session.hello.subscribe();
    let hello = v1::Hello { open_operations: session.queue().open_operations(), ..edits.borrow_and_update().clone() };
    up.try_send(v1::ControlUp { sequence: 0, message: Some(Up::Hello(hello)) }).map_err(|_| Ended::Closed)?;
    let mut client = CaptureClient::with_interceptor(channel, caller);
    let mut down = client.control(ReceiverStream::new(outbox)).await?.into_inner();
    let welcome = tokio::time::timeout(WELCOME_WITHIN, welcome(&mut down)).await.map_err(|_| Ended::NoWelcome)??;

    pause.reset();
    session.welcomed(&welcome);
    tracing::info!(binding = session.name, provider_in_force = welcome.provider_in_force, "store: connected");
    *last_reason = None;
    tokio::select! {
        ended = listen(session, down) => Err(ended),
        ended = talk(session, up, Duration::from_secs(welcome.lease_seconds.into())) => Err(ended),
        _ = edits.changed() => Err(Ended::Edited),
    }
}

async fn welcome(down: &mut Streaming<v1::ControlDown>) -> Result<v1::Welcome, Ended> {
    match down.message().await?.ok_or(Ended::Closed)?.message {
        Some(Down::Welcome(welcome)) => Ok(welcome),
        _ => Err(Ended::NoWelcome),
    }
}

/// The reader: ticks and receipts, until the stream ends.
async fn listen(session: &Session, mut down: Streaming<v1::ControlDown>) -> Ended {
    loop {
        match down.message().await {
            Ok(Some(message)) => match message.message {
                Some(Down::Tick(tick)) => session.ticks.heard(tick.incarnation, tick.tick),
                Some(Down::Receipt(receipt)) => session.receipted(receipt),
                Some(Down::Welcome(welcome)) => session.ticks.heard(welcome.incarnation, welcome.tick),
                None => {} // a word of a newer release
            },
            Ok(None) => return Ended::Closed,
            Err(status) => return Ended::Status(status),
        }
    }
}

/// The writer: letters as they come, heartbeats between them.
async fn talk(session: &Session, up: mpsc::Sender<v1::ControlUp>, lease: Duration) -> Ended {
    let mut heartbeats = tokio::time::interval(heartbeat(lease));
    heartbeats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let Ok(place) = up.reserve().await else { return Ended::Closed };
        match session.next_letter() {
            Some(letter) => place.send(letter),
            None => tokio::select! {
                () = session.to_tell.notified() => drop(place),
                _ = heartbeats.tick() => {
                    place.send(v1::ControlUp { sequence: 0, message: Some(Up::Heartbeat(v1::Heartbeat {})) });
                }
            },
        }
    }
}

impl Session {
    fn welcomed(&self, welcome: &v1::Welcome) {
        self.ticks.heard(welcome.incarnation, welcome.tick);
        self.queue().welcomed(welcome.last_sequence);
        self.lapses_told_again();
        self.tally.connected(&self.name, true);
    }

    fn fell_silent(&self) {
        self.queue().fell_silent();
        self.tally.connected(&self.name, false);
        self.tally.journal(self.journal.len());
        self.told.notify_waiters();
    }

    fn next_letter(&self) -> Option<v1::ControlUp> {
        self.queue().next_letter()
    }
}

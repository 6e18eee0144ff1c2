//! The control stream of one backfill: it hears the store's ticks, so that what is read from a cloud can be
//! ordered, and carries what was read.
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hawser_api::Stamp;
use hawser_api::v1;
use hawser_api::v1::control_down::Message as Down;
use hawser_api::v1::control_up::Message as Up;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Store, refusal};
use crate::failure::Failure;

const HEARTBEAT: Duration = Duration::from_secs(5);
const UNSENT_MAX: usize = 64;
/// A tick comes each second, so silence for so long is a broken line.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// An open control stream.
pub struct Session {
    up: mpsc::Sender<v1::ControlUp>,
    /// Guards the order in which sequences enter the stream.
    sequence: tokio::sync::Mutex<u64>,
    heard: Arc<Heard>,
    counter: AtomicU64,
    _tasks: JoinSet<()>, // end with this
}

/// What the receiving half heard.
#[derive(Default)]
struct Heard {
    ticks: Mutex<(u64, u64)>,                                                    // incarnation, tick
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<v1::receipt::Verdict>>>>, // None: the stream ended
}

impl Session {
    /// Opens the stream and waits for the store's welcome.
    pub async fn open(store: &Store, hello: v1::Hello) -> Result<(Session, v1::Welcome), Failure> {
        let doing = "open the control stream";
        let (up, queue) = mpsc::channel(UNSENT_MAX);
        let first = v1::ControlUp { sequence: 0, message: Some(Up::Hello(hello)) };
        up.send(first).await.map_err(|_| Failure::failed(doing))?;
        let mut down =
            store.capture.clone().control(ReceiverStream::new(queue)).await.map_err(refusal(doing))?.into_inner();
        let welcome = match down.message().await.map_err(refusal(doing))? {
            Some(v1::ControlDown { message: Some(Down::Welcome(welcome)) }) => welcome,
            _ => return Err(Failure::failed(format!("{doing}: the store did not begin with a welcome"))),
        };
        let heard = Arc::new(Heard {
            ticks: Mutex::new((welcome.incarnation, welcome.tick)),
            waiting: Mutex::new(Some(HashMap::new())),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(down, heard.clone()));
        tasks.spawn(beat(up.clone()));
        let session = Session {
            up,
            sequence: tokio::sync::Mutex::new(welcome.last_sequence),
            heard,
            counter: AtomicU64::new(0),
            _tasks: tasks,
        };
        Ok((session, welcome))
    }

    /// Now, in the store's order.
    pub fn stamp(&self) -> Stamp {
        let (incarnation, tick) = *self.heard.ticks.lock().unwrap_or_else(PoisonError::into_inner);
        Stamp { incarnation, tick, counter: self.counter.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    /// Tells what was read and waits until the store has made it durable, or has said why not.
    pub async fn tell(&self, message: Up) -> Result<v1::receipt::Verdict, Failure> {
        let broken = || Failure::Away("the control stream to the store broke".to_owned());
        let (answer, verdict) = oneshot::channel();
        {
            let mut sequence = self.sequence.lock().await;
            *sequence += 1;
            match &mut *self.heard.waiting.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(waiting) => waiting.insert(*sequence, answer),
                None => return Err(broken()),
            };
            let message = v1::ControlUp { sequence: *sequence, message: Some(message) };
            self.up.send(message).await.map_err(|_| broken())?;
        }
        verdict.await.map_err(|_| broken())
    }
}

async fn listen(mut down: Streaming<v1::ControlDown>, heard: Arc<Heard>) {
    while let Ok(Ok(Some(message))) = tokio::time::timeout(SILENCE_MAX, down.message()).await {
        match message.message {
            Some(Down::Tick(tick)) => {
                *heard.ticks.lock().unwrap_or_else(PoisonError::into_inner) = (tick.incarnation, tick.tick);
            }
            Some(Down::Receipt(receipt)) => {
                let mut waiting = heard.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let sender = waiting.as_mut().and_then(|waiting| waiting.remove(&receipt.sequence));
                if let (Some(sender), Some(verdict)) = (sender, receipt.verdict) {
                    let _ = sender.send(verdict); // whoever asked may be gone
                }
            }
            Some(Down::Welcome(_)) | None => {}
        }
    }
    *heard.waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

async fn beat(up: mpsc::Sender<v1::ControlUp>) {
    let beat = || v1::ControlUp { sequence: 0, message: Some(Up::Heartbeat(v1::Heartbeat {})) };
    while up.send(beat()).await.is_ok() {
        tokio::time::sleep(HEARTBEAT).await;
    }
}

//! The ordered stream of one session: prepared as it comes, committed in its order, answered when durable.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};
use hawser_api::v1::control_down::Message as Down;
use hawser_api::v1::control_up::Message as Up;
use hawser_api::v1::receipt::Verdict;
use hawser_api::{GapReason, GapScope, v1};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::inflow::Share;
use super::prepare::{Prepared, Speaker};
use super::{Capture, Service, commit_status};
use crate::catalog::entry::Fact;
use crate::catalog::{Answer, IN_FLIGHT_MAX, Said};
use crate::domain::CommitError;

/// Answers that wait for a slow reader; past it, the session's messages wait.
const ANSWERS_MAX: usize = 256;

/// A tick is told each second even when nothing was committed: it also says that the store lives.
const TICK_EVERY: Duration = Duration::from_secs(1);

type Answers = mpsc::Sender<Result<v1::ControlDown, Status>>;
type Preparing = Pin<Box<dyn Future<Output = Result<(u64, Prepared, Share), Status>> + Send>>;
type Waiting = Pin<Box<dyn Future<Output = (v1::ControlUp, Share)> + Send>>;
type Committing = Pin<Box<dyn Future<Output = Result<(u64, Verdict), Status>> + Send>>;

#[tonic::async_trait]
impl v1::capture_server::Capture for Capture {
    type ControlStream = ReceiverStream<Result<v1::ControlDown, Status>>;
    type BlocksStream = ReceiverStream<Result<v1::BlocksDown, Status>>;

    async fn control(
        &self,
        request: Request<Streaming<v1::ControlUp>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let service = Arc::clone(&self.0);
        let domain = service.domain(request.metadata()).await?;
        let mut up = request.into_inner();
        let (answers, down) = mpsc::channel(ANSWERS_MAX);
        // The first message is awaited there too: a client may send it only once it has our headers.
        tokio::spawn(async move {
            let first = tokio::time::timeout(service.sessions.times().lease, up.message()).await;
            let mut hello = match first {
                Ok(Ok(Some(v1::ControlUp { message: Some(Up::Hello(hello)), .. }))) => hello,
                Ok(Ok(None)) | Ok(Err(_)) => return,
                _ => return refuse(&answers, Status::failed_precondition("the first message is Hello")).await,
            };
            if let Err(status) = super::session_id(&hello.session) {
                return refuse(&answers, status).await;
            }
            let welcome = match service.welcome(&domain, &mut hello).await {
                Ok(welcome) => welcome,
                Err(status) => return refuse(&answers, status).await,
            };
            if answers.send(Ok(down_of(Down::Welcome(welcome)))).await.is_err() {
                return;
            }
            let ticks = tokio::spawn(tell_ticks(Arc::clone(&service), answers.clone()));
            let speaker = Arc::new(Speaker { service, domain, hello });
            if let Err(status) = listen(&speaker, up, &answers).await {
                refuse(&answers, status).await;
            }
            ticks.abort();
        });
        Ok(Response::new(ReceiverStream::new(down)))
    }

    async fn blocks(&self, request: Request<Streaming<v1::BlocksUp>>) -> Result<Response<Self::BlocksStream>, Status> {
        let domain = self.0.domain(request.metadata()).await?;
        Ok(Response::new(super::blocks::serve(&self.0, domain, request.into_inner())))
    }
}

/// Reads a session until it ends. Preparing (blocks of small bodies, looking things up) goes on for several
/// messages at once; commits begin in the order of the messages and share their syncs.
async fn listen(speaker: &Arc<Speaker>, mut up: Streaming<v1::ControlUp>, answers: &Answers) -> Result<(), Status> {
    let mut preparing: FuturesOrdered<Preparing> = FuturesOrdered::new();
    let mut committing: FuturesOrdered<Committing> = FuturesOrdered::new();
    let mut held: Option<(v1::ControlUp, Share)> = None; // waits for all before it to be applied
    let (mut waiting, mut admitted): (Option<Waiting>, Option<(v1::ControlUp, Share)>) = (None, None); // for room
    let mut open = true;
    let mut closed = std::pin::pin!(speaker.service.closed());
    loop {
        match admitted.take() {
            Some((message, share)) if super::prepare::reads_the_state(&message) => held = Some((message, share)),
            Some((message, share)) => preparing.push_back(prepare(speaker, message, share)),
            None => {}
        }
        if let Some((message, share)) = held.take_if(|_| preparing.is_empty() && committing.is_empty()) {
            preparing.push_back(prepare(speaker, message, share));
        }
        if !open && held.is_none() && waiting.is_none() && preparing.is_empty() && committing.is_empty() {
            return Ok(());
        }
        let room = open && held.is_none() && waiting.is_none() && preparing.len() + committing.len() < IN_FLIGHT_MAX;
        tokio::select! {
            Some(done) = committing.next(), if !committing.is_empty() => {
                let (sequence, verdict) = done?;
                let receipt = v1::Receipt { sequence, verdict: Some(verdict) };
                let told = answers.send(Ok(down_of(Down::Receipt(receipt))));
                match tokio::time::timeout(speaker.service.sessions.times().lease, told).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => open = false, // nobody hears; what is under way is finished all the same
                    // Whoever does not read holds room that all sessions share.
                    Err(_) => return Err(Status::deadline_exceeded("receipts are not read")),
                }
            }
            Some(done) = preparing.next(), if !preparing.is_empty() => {
                let (sequence, prepared, share) = done?;
                let committed = commit(Arc::clone(speaker), sequence, prepared);
                let mut commit: Committing = Box::pin(async move {
                    let done = committed.await;
                    drop(share);
                    done
                });
                // Polled once now, in the order of the messages: it is in the log's queue then.
                match futures::poll!(commit.as_mut()) {
                    Poll::Ready(done) => committing.push_back(std::future::ready(done).boxed()),
                    Poll::Pending => committing.push_back(commit),
                }
            }
            (message, share) = async { waiting.as_mut().expect("asked only where there is one").await }, if waiting.is_some() => {
                (waiting, admitted) = (None, Some((message, share)));
            }
            () = &mut closed, if open => open = false,
            message = up.message(), if room => match message {
                Ok(Some(message)) => {
                    let hello = &speaker.hello;
                    speaker.service.sessions.heard(speaker.domain.id(), &hello.session, &hello.binding);
                    match &message.message {
                        None | Some(Up::Heartbeat(_) | Up::Hello(_)) => {}
                        Some(Up::Pod(pod)) => {
                            let pod = Some(pod.clone());
                            speaker.service.sessions.of_pod(speaker.domain.id(), &hello.session, pod);
                        }
                        _ => {
                            let mut wait = wait_for_room(speaker, message);
                            admitted = wait.as_mut().now_or_never();
                            waiting = admitted.is_none().then_some(wait);
                        }
                    }
                }
                // A broken stream is no end of the session: its lease decides.
                Ok(None) | Err(_) => open = false,
            },
        }
    }
}

fn wait_for_room(speaker: &Arc<Speaker>, message: v1::ControlUp) -> Waiting {
    let inflow = speaker.service.inflow.clone();
    Box::pin(async move {
        let share = inflow.share(message.encoded_len()).await;
        (message, share)
    })
}

fn prepare(speaker: &Arc<Speaker>, message: v1::ControlUp, share: Share) -> Preparing {
    let speaker = Arc::clone(speaker);
    Box::pin(async move {
        let sequence = message.sequence;
        Ok((sequence, speaker.prepare(message).await?, share))
    })
}

async fn commit(speaker: Arc<Speaker>, sequence: u64, prepared: Prepared) -> Result<(u64, Verdict), Status> {
    let service = &speaker.service;
    let verdict = match prepared {
        Prepared::Answer(verdict) => verdict,
        Prepared::Nothing => Verdict::Accepted(v1::Accepted { tick: service.durable_tick() }),
        Prepared::Commit { fact, blocks } => {
            let said = speaker.said(sequence, fact.clone());
            match service.catalog.commit(&speaker.domain, said, &blocks).await {
                Ok((tick, answer)) => verdict_of(tick, answer),
                Err(CommitError::Missing(hashes)) => {
                    let missing: Vec<u8> = hashes.iter().flat_map(|hash| *hash.as_bytes()).collect();
                    lose(&speaker, sequence, fact, GapReason::MissingBlocks).await?;
                    Verdict::Missing(v1::Missing { hashes: missing.into() })
                }
                Err(CommitError::Full(_)) => {
                    lose(&speaker, sequence, fact, GapReason::StoreFull).await?;
                    Verdict::Missing(v1::Missing::default())
                }
                Err(error) => return Err(commit_status(&error)),
            }
        }
        Prepared::Lost { fact, reason } => {
            lose(&speaker, sequence, fact, reason).await?;
            Verdict::Missing(v1::Missing::default())
        }
    };
    Ok((sequence, verdict))
}

fn verdict_of(tick: u64, answer: Answer) -> Verdict {
    if answer.refused.is_empty() || answer.repeated {
        Verdict::Accepted(v1::Accepted { tick })
    } else {
        Verdict::Refused(v1::Refused { why: answer.refused })
    }
}

/// Opens the gaps of a record that cannot be kept.
async fn lose(speaker: &Speaker, sequence: u64, fact: Fact, reason: GapReason) -> Result<(), Status> {
    let (head, answer, mut operation, writes) = match fact {
        Fact::Recorded(recorded) => (recorded.head, recorded.answer, recorded.operation, recorded.writes),
        _ => return Ok(()), // a read that cannot be kept changes nothing
    };
    let mut sequence = sequence;
    for write in writes {
        let Some((object, etag, version_id)) = super::prepare::named(&write) else { continue };
        let gap = v1::GapFound {
            operation: std::mem::take(&mut operation), // it ends once: told again, it would close the gap before
            scope: GapScope::Key.as_str().into(),
            object: Some(object),
            version_id,
            etag,
            reason: reason.as_str().into(),
            detail: String::new(),
            head,
            end: answer,
        };
        let said = speaker.said(std::mem::take(&mut sequence), Fact::Gap(gap));
        let done = speaker.service.catalog.commit(&speaker.domain, said, &[]).await;
        done.map_err(|error| commit_status(&error))?;
    }
    if sequence != 0 {
        // A part alone: no object changed. Its intent ends, and a Complete that lists it makes the gap.
        let said = speaker.said(sequence, Fact::Abandoned(v1::Abandoned { operation }));
        let done = speaker.service.catalog.commit(&speaker.domain, said, &[]).await;
        done.map_err(|error| commit_status(&error))?;
    }
    Ok(())
}

impl Speaker {
    pub(super) fn said(&self, sequence: u64, fact: Fact) -> Said {
        Said { binding: self.hello.binding.clone(), session: self.session(), sequence, fact }
    }

    pub(super) fn session(&self) -> Bytes {
        self.hello.session.clone()
    }
}

/// Tells every new tick at once, as bursts are told by their last one, and one each second.
async fn tell_ticks(service: Arc<Service>, answers: Answers) {
    let incarnation = service.catalog.store().incarnation();
    let mut durable = service.catalog.store().durable();
    loop {
        let tick = *durable.borrow_and_update();
        if answers.send(Ok(down_of(Down::Tick(v1::Tick { incarnation, tick })))).await.is_err() {
            return;
        }
        match tokio::time::timeout(TICK_EVERY, durable.changed()).await {
            Ok(Err(_)) => return, // the log is closed
            // Bursts of commits become one message, well within the 50 ms that a sidecar may count on.
            Ok(Ok(())) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(_) => {}
        }
    }
}

async fn refuse(answers: &Answers, status: Status) {
    let _ = answers.send(Err(status)).await; // the client may have gone: then nobody needs the reason
}

fn down_of(message: Down) -> v1::ControlDown {
    v1::ControlDown { message: Some(message) }
}

//! The stream of blocks: connected as long as the store answers, and what is done with blocks while it does not.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hawser_api::connect::Store;
use hawser_api::v1::blocks_down::Message as Down;
use hawser_api::v1::blocks_up::Message as Up;
use hawser_api::v1::capture_client::CaptureClient;
use hawser_api::{BlockHash, GapReason, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::ledger::Ledger;
use super::{Asked, Shared};
use crate::backoff::Backoff;

/// How long blocks are held for a store that does not answer: a restart of it costs no gap, and a longer
/// absence does not keep the budget from the reads and writes that follow.
const PATIENCE: Duration = Duration::from_secs(3);

/// Frames between us and the connection: 4 MiB at most.
const FRAMES_MAX: usize = 4;

/// Offers and puts for as long as the process lives.
pub(super) async fn keep(store: Store, mut asked: mpsc::Receiver<Asked>, shared: Arc<Shared>) {
    let mut ledger = Ledger::default();
    let mut pause = Backoff::default();
    loop {
        let connected = tokio::select! {
            connected = connect(&store, &mut pause) => connected,
            () = hold(&mut asked, &mut ledger, &shared) => return,
        };
        shared.away.store(false, Ordering::Relaxed);
        shared.connected.store(true, Ordering::Relaxed);
        let Ended::Stream = serve(connected, &mut asked, &mut ledger, &shared).await else { return };
        shared.connected.store(false, Ordering::Relaxed);
        ledger.start_over(Instant::now());
    }
}

/// A stream that the store has accepted.
struct Connected {
    up: mpsc::Sender<v1::BlocksUp>,
    down: Streaming<v1::BlocksDown>,
}

/// Why no more is served.
enum Ended {
    /// The stream broke.
    Stream,
    /// Nobody will add a block any more.
    Process,
}

/// Tries until the store answers. Why it does not is told by the session, which fails alike.
async fn connect(store: &Store, pause: &mut Backoff) -> Connected {
    loop {
        pause.wait().await;
        let Ok((channel, caller)) = store.channel() else { continue };
        let (up, frames) = mpsc::channel(FRAMES_MAX);
        let mut client = CaptureClient::with_interceptor(channel, caller);
        if let Ok(answer) = client.blocks(ReceiverStream::new(frames)).await {
            pause.reset();
            return Connected { up, down: answer.into_inner() };
        }
    }
}

/// Takes blocks while there is no stream; loses them once that has lasted too long. Ends with the process.
async fn hold(asked: &mut mpsc::Receiver<Asked>, ledger: &mut Ledger, shared: &Shared) {
    let given_up = tokio::time::sleep(PATIENCE);
    tokio::pin!(given_up);
    while !shared.away.load(Ordering::Relaxed) {
        tokio::select! {
            () = &mut given_up => {
                shared.away.store(true, Ordering::Relaxed);
                ledger.give_up(GapReason::StoreAway);
            }
            next = asked.recv() => match next {
                Some(next) => ledger.add(next, Instant::now()),
                None => return,
            },
            () = shared.shed.notified() => ledger.shed(),
        }
    }
    while let Some(next) = asked.recv().await {
        next.ticket.lost(GapReason::StoreAway);
    }
}

/// Offers, puts and listens until the stream breaks. Nothing here waits for one thing alone: answers are read
/// while a put waits for room, and blocks are taken in while an answer is awaited.
async fn serve(stream: Connected, asked: &mut mpsc::Receiver<Asked>, ledger: &mut Ledger, shared: &Shared) -> Ended {
    let Connected { up, mut down } = stream;
    let mut outbox: VecDeque<Up> = VecDeque::new();
    let mut hurry = false;
    loop {
        if outbox.is_empty() {
            fill(&mut outbox, ledger, shared, &mut hurry);
        }
        // While something waits for room it is not asked what is due: the answer could be "now", for ever.
        let due = if outbox.is_empty() { ledger.due() } else { None };
        tokio::select! {
            place = up.reserve(), if !outbox.is_empty() => match place {
                Ok(place) => place.send(v1::BlocksUp { message: outbox.pop_front() }),
                Err(_) => return Ended::Stream,
            },
            message = down.message() => match message {
                Ok(Some(message)) => if !heard(message, ledger, shared) { return Ended::Stream },
                Ok(None) | Err(_) => return Ended::Stream,
            },
            next = asked.recv() => match next {
                Some(next) => take(next, asked, ledger),
                None => return Ended::Process,
            },
            () = shared.hurry.notified() => hurry = true,
            () = shared.shed.notified() => ledger.shed(),
            () = until(due) => {}
        }
    }
}

/// Offers go before puts: they are short, "have" gives room in the budget back at once, and the answers come while
/// the puts are on their way.
fn fill(outbox: &mut VecDeque<Up>, ledger: &mut Ledger, shared: &Shared, hurry: &mut bool) {
    match ledger.next_offer(Instant::now(), *hurry) {
        Some(offer) => {
            shared.tally.offered((offer.hashes.len() / BlockHash::LEN) as u64);
            outbox.push_back(Up::Offer(offer));
        }
        None => {
            *hurry = false;
            outbox.extend(ledger.next_put().into_iter().map(Up::Put));
        }
    }
}

/// Takes in what has come meanwhile as well, so that one offer speaks for all of it.
fn take(first: Asked, asked: &mut mpsc::Receiver<Asked>, ledger: &mut Ledger) {
    let now = Instant::now();
    ledger.add(first, now);
    while let Ok(next) = asked.try_recv() {
        ledger.add(next, now);
    }
}

/// Whether the message makes sense.
fn heard(message: v1::BlocksDown, ledger: &mut Ledger, shared: &Shared) -> bool {
    let (now, scarce) = (Instant::now(), shared.budget.is_scarce());
    match message.message {
        Some(Down::Answer(answer)) => {
            let answered = ledger.answer(&answer, now, scarce);
            answered.map(|answered| shared.tally.wanted(answered.want as u64)).is_ok()
        }
        Some(Down::Receipt(receipt)) => ledger.receipt(&receipt, now, scarce).is_ok(),
        None => true, // a word of a newer release
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

//! Offers of blocks and the puts of those that the store wants. A receipt here promises nothing: what is
//! durable is said by a record's receipt.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hawser_api::v1::blocks_down::Message as Down;
use hawser_api::v1::blocks_up::Message as Up;
use hawser_api::{BlockHash, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Service;
use crate::domain::Domain;
use crate::segment::BLOCK_LEN_MAX;
use crate::store::Room;

/// States of an offered hash in an answer.
const HAVE: u8 = 0;
const WANT: u8 = 1;
const NO_ROOM: u8 = 2;

/// Answers that wait for a slow reader.
const ANSWERS_MAX: usize = 64;

/// Offers of one stream whose wanted blocks have not all come.
const OFFERS_MAX: usize = 64;

/// An offer whose blocks do not come gives its room back after this.
const OFFER_IDLE: Duration = Duration::from_secs(30);

/// Blocks of one stream on their way to the log at once.
const PUTS_MAX: usize = 64;

/// Room that offers leave to bodies inside records: whoever offers and does not put holds up nobody's records.
const RESERVED: usize = 8 * 1024 * 1024;

type Answers = mpsc::Sender<Result<v1::BlocksDown, Status>>;

/// Serves one stream of blocks.
pub(super) fn serve(
    service: &Arc<Service>,
    domain: Domain,
    up: Streaming<v1::BlocksUp>,
) -> ReceiverStream<Result<v1::BlocksDown, Status>> {
    let (answers, down) = mpsc::channel(ANSWERS_MAX);
    let service = Arc::clone(service);
    tokio::spawn(async move {
        if let Err(status) = listen(&service, &domain, up, &answers).await {
            let _ = answers.send(Err(status)).await; // the client may have gone
        }
    });
    ReceiverStream::new(down)
}

/// Blocks of an offer that are still to come.
struct Open {
    wanted: HashMap<u32, (BlockHash, BytesMut)>,
    room: Room,
    touched: Instant,
}

async fn listen(
    service: &Arc<Service>,
    domain: &Domain,
    mut up: Streaming<v1::BlocksUp>,
    answers: &Answers,
) -> Result<(), Status> {
    let mut offers: HashMap<u64, Open> = HashMap::new();
    let mut puts = FuturesUnordered::new();
    let mut idle = tokio::time::interval(OFFER_IDLE / 4);
    let mut closed = std::pin::pin!(service.closed());
    loop {
        let message = tokio::select! {
            Some(receipt) = puts.next(), if !puts.is_empty() => {
                if answers.send(Ok(down_of(Down::Receipt(receipt)))).await.is_err() {
                    return Ok(());
                }
                continue;
            }
            _ = idle.tick() => {
                offers.retain(|_, open| open.touched.elapsed() < OFFER_IDLE);
                continue;
            }
            () = &mut closed => break,
            message = up.message(), if puts.len() < PUTS_MAX => message,
        };
        let Ok(Some(message)) = message else { break };
        match message.message {
            None => {}
            Some(Up::Offer(offer)) => {
                let number = offer.offer;
                let (states, open) = answer(service, domain, &offer, offers.len()).await?;
                offers.extend(open.map(|open| (number, open)));
                let answer = v1::Answer { offer: number, states: states.into() };
                if answers.send(Ok(down_of(Down::Answer(answer)))).await.is_err() {
                    return Ok(());
                }
            }
            Some(Up::Put(put)) => {
                let (offer, index) = (put.offer, put.index);
                match take(&mut offers, put) {
                    Taken::More => {}
                    Taken::Refused(why) => {
                        let receipt = v1::PutReceipt { offer, index, refused: why.into() };
                        if answers.send(Ok(down_of(Down::Receipt(receipt)))).await.is_err() {
                            return Ok(());
                        }
                    }
                    Taken::Whole(hash, content, room) => {
                        let domain = domain.clone();
                        puts.push(async move {
                            let taken = domain.put(hash, content, room).await;
                            let refused = taken.err().map(|error| error.to_string()).unwrap_or_default();
                            v1::PutReceipt { offer, index, refused }
                        });
                    }
                }
            }
        }
    }
    // The client is done sending: what it put is still taken and told.
    while let Some(receipt) = puts.next().await {
        if answers.send(Ok(down_of(Down::Receipt(receipt)))).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Says of each offered block whether it is had or wanted, and takes room for those that are wanted.
async fn answer(
    service: &Arc<Service>,
    domain: &Domain,
    offer: &v1::Offer,
    open: usize,
) -> Result<(Vec<u8>, Option<Open>), Status> {
    let hashes = BlockHash::list(&offer.hashes).ok_or_else(|| Status::invalid_argument("a hash has 32 bytes"))?;
    if hashes.len() > hawser_api::block::OFFER_BLOCKS_MAX {
        return Err(Status::invalid_argument("an offer has at most 256 hashes"));
    }
    let asked = (domain.clone(), hashes.clone());
    let have = tokio::task::spawn_blocking(move || asked.0.have(&asked.1)).await;
    let have = match have {
        Ok(Ok(have)) => have,
        Ok(Err(error)) => return Err(Status::internal(error.to_string())),
        Err(_) => return Err(Status::internal("looking blocks up panicked")),
    };
    let lacking = have.iter().filter(|have| !**have).count();
    if lacking == 0 {
        return Ok((vec![HAVE; hashes.len()], None));
    }
    // The offer says its length in all: an even share of it is what the lacking blocks may need.
    let len = (offer.length as usize).div_ceil(hashes.len()).saturating_mul(lacking).min(lacking * BLOCK_LEN_MAX);
    let store = service.catalog.store();
    let full = store.ready().is_err() || open >= OFFERS_MAX;
    let room = if full { None } else { store.try_room(len.saturating_add(RESERVED)) };
    let room = room.map(|mut room| room.split(len.min(room.len().saturating_sub(RESERVED))));
    let state = |have: &bool| {
        if *have {
            HAVE
        } else if room.is_some() {
            WANT
        } else {
            NO_ROOM
        }
    };
    let states: Vec<u8> = have.iter().map(state).collect();
    let open = room.map(|room| {
        let wanted = hashes.iter().zip(&have).enumerate().filter(|(_, (_, have))| !**have);
        let wanted = wanted.map(|(at, (hash, _))| (at as u32, (*hash, BytesMut::new()))).collect();
        Open { wanted, room, touched: Instant::now() }
    });
    Ok((states, open))
}

enum Taken {
    More,
    Whole(BlockHash, Bytes, Room),
    Refused(&'static str),
}

/// Takes a piece of a wanted block.
fn take(offers: &mut HashMap<u64, Open>, put: v1::Put) -> Taken {
    let Some(open) = offers.get_mut(&put.offer) else { return Taken::Refused("nobody wants it any more: offer again") };
    open.touched = Instant::now();
    let Some((_, content)) = open.wanted.get_mut(&put.index) else { return Taken::Refused("it was not wanted") };
    if content.len() + put.data.len() > BLOCK_LEN_MAX {
        open.wanted.remove(&put.index);
        return Taken::Refused("longer than any block");
    }
    let whole = if put.last && content.is_empty() {
        Some(put.data)
    } else {
        content.extend_from_slice(&put.data);
        put.last.then(|| std::mem::take(content).freeze())
    };
    let Some(content) = whole else { return Taken::More };
    let Some((hash, _)) = open.wanted.remove(&put.index) else { return Taken::More };
    let room = open.room.split(content.len());
    if open.wanted.is_empty() {
        offers.remove(&put.offer);
    }
    Taken::Whole(hash, content, room)
}

fn down_of(message: Down) -> v1::BlocksDown {
    v1::BlocksDown { message: Some(message) }
}

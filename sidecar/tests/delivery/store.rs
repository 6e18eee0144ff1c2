//! A store that does what a test tells it. It stands in for hawser-store's `Capture` service where a test needs
//! what a real one does not do on demand: silence, lost receipts, no room, a break at a chosen moment.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hawser_api::v1::blocks_down::Message as BlocksDown;
use hawser_api::v1::blocks_up::Message as BlocksUp;
use hawser_api::v1::capture_server::{Capture, CaptureServer};
use hawser_api::v1::control_down::Message as Down;
use hawser_api::v1::control_up::Message as Up;
use hawser_api::v1::receipt::Verdict;
use hawser_api::{BlockHash, v1};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

pub(crate) const HAVE: u8 = 0;
pub(crate) const WANT: u8 = 1;
pub(crate) const LATER: u8 = 2;

/// Something that the store heard, in its order.
#[derive(Clone, PartialEq)]
pub(crate) enum Heard {
    /// The `n`th control stream began.
    Hello(usize, v1::Hello),
    /// On the `n`th control stream.
    Told(usize, v1::ControlUp),
    Offer(v1::Offer),
    /// A whole block came.
    Block(Vec<u8>),
}

impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Heard::Hello(stream, _) => write!(f, "hello on {stream}"),
            Heard::Told(stream, up) => write!(f, "on {stream}: {up:?}"),
            Heard::Offer(offer) => write!(f, "offer {} of {} bytes", offer.offer, offer.length),
            Heard::Block(block) => write!(f, "a block of {} bytes", block.len()),
        }
    }
}

/// How the store behaves; may be changed at any time.
pub(crate) struct Manners {
    /// Receipts for messages of the control stream.
    pub(crate) receipts: bool,
    pub(crate) verdict: fn(&v1::ControlUp) -> Verdict,
    /// The answer for an offered hash; the number says how many offers came before.
    pub(crate) answer: fn(BlockHash, usize) -> u8,
    pub(crate) last_sequence: u64,
}

impl Default for Manners {
    fn default() -> Manners {
        Manners {
            receipts: true,
            verdict: |_| Verdict::Accepted(v1::Accepted { tick: 1 }),
            answer: |_, _| WANT,
            last_sequence: 0,
        }
    }
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) manners: Manners,
    pub(crate) heard: Vec<Heard>,
    streams: usize,
    offers: usize,
}

/// The service, and a server for it that can be ended and begun again at its address.
#[derive(Clone, Default)]
pub(crate) struct Scripted(pub(crate) Arc<Mutex<State>>);

/// A server of its own runtime, so that its end breaks every connection.
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Serving {
    /// Ends it as a killed process does.
    pub(crate) fn kill(self) -> SocketAddr {
        self.address
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// An address that nobody listens on yet.
pub(crate) fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Scripted {
    pub(crate) async fn serve(&self, address: SocketAddr) -> Serving {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let service = CaptureServer::new(self.clone());
        // The one before it may take a moment to let the address go.
        let listening = runtime.spawn(async move {
            for _ in 0..500 {
                if let Ok(listener) = TcpListener::bind(address).await {
                    return listener;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("{address} is not let go");
        });
        let listener = listening.await.unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Serving { address, runtime: Some(runtime) }
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.0.lock().unwrap().manners);
    }

    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.0.lock().unwrap().heard.clone()
    }

    /// The messages of the control streams, each with its stream's number.
    pub(crate) fn told(&self) -> Vec<(usize, v1::ControlUp)> {
        let told = |heard| match heard {
            Heard::Told(stream, message) => Some((stream, message)),
            _ => None,
        };
        self.heard().into_iter().filter_map(told).collect()
    }

    /// Waits until what was heard satisfies `enough`.
    pub(crate) async fn until<T>(&self, what: &str, enough: impl Fn(&[Heard]) -> Option<T>) -> T {
        for _ in 0..2000 {
            if let Some(found) = enough(&self.heard()) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{what} did not come; heard: {:#?}", self.heard());
    }

    /// Waits for a message of the control stream.
    pub(crate) async fn until_told<T>(&self, what: &str, is: impl Fn(&Up) -> Option<T>) -> T {
        let of = |heard: &Heard| match heard {
            Heard::Told(_, message) => message.message.as_ref().and_then(&is),
            _ => None,
        };
        self.until(what, |heard| heard.iter().find_map(of)).await
    }

    fn note(&self, heard: Heard) {
        self.0.lock().unwrap().heard.push(heard);
    }
}

#[tonic::async_trait]
impl Capture for Scripted {
    type ControlStream = ReceiverStream<Result<v1::ControlDown, Status>>;
    type BlocksStream = ReceiverStream<Result<v1::BlocksDown, Status>>;

    async fn control(
        &self,
        request: Request<Streaming<v1::ControlUp>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let (to, down) = mpsc::channel(64);
        let (store, mut up) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            let say = |message| {
                let to = to.clone();
                async move { to.send(Ok(v1::ControlDown { message: Some(message) })).await }
            };
            let mut stream = 0;
            while let Ok(Some(message)) = up.message().await {
                if let Some(Up::Hello(hello)) = message.message {
                    let last_sequence = {
                        let mut state = store.0.lock().unwrap();
                        state.streams += 1;
                        stream = state.streams;
                        state.heard.push(Heard::Hello(stream, hello));
                        state.manners.last_sequence
                    };
                    let welcome = v1::Welcome {
                        incarnation: 5,
                        tick: 40,
                        lease_seconds: 30,
                        last_sequence,
                        ..v1::Welcome::default()
                    };
                    let _ = say(Down::Welcome(welcome)).await;
                    continue;
                }
                if matches!(message.message, Some(Up::Heartbeat(_))) {
                    continue;
                }
                store.note(Heard::Told(stream, message.clone()));
                let verdict = {
                    let state = store.0.lock().unwrap();
                    state.manners.receipts.then(|| (state.manners.verdict)(&message))
                };
                if verdict.is_some() {
                    let _ = say(Down::Receipt(v1::Receipt { sequence: message.sequence, verdict })).await;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(down)))
    }

    async fn blocks(&self, request: Request<Streaming<v1::BlocksUp>>) -> Result<Response<Self::BlocksStream>, Status> {
        let (to, down) = mpsc::channel(64);
        let (store, mut up) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            let mut block = Vec::new();
            while let Ok(Some(message)) = up.message().await {
                let answer = match message.message {
                    Some(BlocksUp::Offer(offer)) => {
                        let mut state = store.0.lock().unwrap();
                        state.heard.push(Heard::Offer(offer.clone()));
                        let before = state.offers;
                        state.offers += 1;
                        let hashes = BlockHash::list(&offer.hashes).unwrap();
                        let states: Vec<u8> =
                            hashes.into_iter().map(|hash| (state.manners.answer)(hash, before)).collect();
                        BlocksDown::Answer(v1::Answer { offer: offer.offer, states: states.into() })
                    }
                    Some(BlocksUp::Put(put)) => {
                        block.extend_from_slice(&put.data);
                        if !put.last {
                            continue;
                        }
                        store.note(Heard::Block(std::mem::take(&mut block)));
                        BlocksDown::Receipt(v1::PutReceipt {
                            offer: put.offer,
                            index: put.index,
                            refused: String::new(),
                        })
                    }
                    None => continue,
                };
                if to.send(Ok(v1::BlocksDown { message: Some(answer) })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(down)))
    }
}

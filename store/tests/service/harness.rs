//! A real server on ports of its own, and a client that speaks as a sidecar or a migration does.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use hawser_api::v1::capture_client::CaptureClient;
use hawser_api::v1::catalog_client::CatalogClient;
use hawser_api::v1::control_down::Message as Down;
use hawser_api::v1::control_up::Message as Up;
use hawser_api::v1::migration_client::MigrationClient;
use hawser_api::v1::operator_client::OperatorClient;
use hawser_api::v1::receipt::Verdict;
use hawser_api::{BlockHash, v1};
use hawser_store::config::{Cli, Command};
use hawser_store::serve::Serving;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

/// Block size of every test.
pub const BLOCK: usize = 16 * 1024;

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The clouds of every test.
pub const A: &str = "s3+https://a.test";
pub const B: &str = "s3+https://b.test";

pub struct Server {
    pub addr: std::net::SocketAddr,
    pub admin: std::net::SocketAddr,
    end: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn start(dir: &Path, more: &[&str]) -> Server {
        let dir = dir.to_str().unwrap();
        let base = ["hawser-store", "serve", "--data", dir, "--listen", "127.0.0.1:0", "--s3", "127.0.0.1:0"];
        let floor = ["--admin", "127.0.0.1:0", "--free-floor", "0"];
        let args: Vec<&str> = base.iter().chain(&floor).chain(more).copied().collect();
        let Command::Serve(config) = Cli::parse_from(args).command else { unreachable!() };
        let serving = Serving::prepare(&config).await.unwrap();
        let (addr, admin) = (serving.grpc_addr().unwrap(), serving.admin_addr().unwrap());
        let (end, ended) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            serving
                .run(async {
                    let _ = ended.await;
                })
                .await
                .unwrap();
        });
        Server { addr, admin, end: Some(end), task }
    }

    /// Ends as at SIGTERM.
    pub async fn stop(mut self) {
        let _ = self.end.take().unwrap().send(());
        (&mut self.task).await.unwrap();
    }

    pub async fn client(&self, domain: &'static str) -> Client {
        self.client_that_says(&[("hawser-domain", domain)]).await
    }

    /// A client that says this in every call.
    pub async fn client_that_says(&self, metadata: &[(&'static str, &str)]) -> Client {
        let channel = Channel::from_shared(format!("http://{}", self.addr)).unwrap().connect().await.unwrap();
        let named = metadata.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Client { channel, named: Named(named) }
    }
}

/// What is said in every call: the domain, or a token.
#[derive(Clone)]
pub struct Named(Vec<(&'static str, String)>);

impl tonic::service::Interceptor for Named {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (name, value) in &self.0 {
            request.metadata_mut().insert(*name, value.parse().unwrap());
        }
        Ok(request)
    }
}

pub type Called = InterceptedService<Channel, Named>;

pub struct Client {
    channel: Channel,
    named: Named,
}

impl Client {
    pub fn catalog(&self) -> CatalogClient<Called> {
        CatalogClient::with_interceptor(self.channel.clone(), self.named.clone())
    }
    pub fn capture(&self) -> CaptureClient<Called> {
        CaptureClient::with_interceptor(self.channel.clone(), self.named.clone())
    }
    pub fn migration(&self) -> MigrationClient<Called> {
        MigrationClient::with_interceptor(self.channel.clone(), self.named.clone())
    }

    pub fn operator(&self) -> OperatorClient<Called> {
        OperatorClient::with_interceptor(self.channel.clone(), self.named.clone())
    }

    /// Opens a session, or opens it again.
    pub async fn session(&self, hello: v1::Hello) -> Result<Session, Status> {
        let (up, messages) = mpsc::channel(64);
        up.send(v1::ControlUp { sequence: 0, message: Some(Up::Hello(hello.clone())) }).await.unwrap();
        let mut down = self.capture().control(ReceiverStream::new(messages)).await?.into_inner();
        let welcome = match down.message().await?.unwrap().message.unwrap() {
            Down::Welcome(welcome) => welcome,
            other => panic!("not a welcome: {other:?}"),
        };
        let (tick, incarnation) = (welcome.tick, welcome.incarnation);
        Ok(Session {
            up,
            down,
            sequence: welcome.last_sequence,
            counter: 0,
            tick,
            incarnation,
            welcome,
            receipts: HashMap::new(),
        })
    }

    /// Puts blocks as a sidecar does; gives the states of the answer.
    pub async fn offer(&self, blocks: &[&[u8]]) -> Vec<u8> {
        let (up, messages) = mpsc::channel(64);
        let mut down = self.capture().blocks(ReceiverStream::new(messages)).await.unwrap().into_inner();
        let hashes: Vec<u8> = blocks.iter().flat_map(|block| *BlockHash::of(block).as_bytes()).collect();
        let length = blocks.iter().map(|block| block.len() as u64).sum();
        let offer = v1::Offer { offer: 1, hashes: hashes.into(), length };
        up.send(v1::BlocksUp { message: Some(v1::blocks_up::Message::Offer(offer)) }).await.unwrap();
        let states = match down.message().await.unwrap().unwrap().message.unwrap() {
            v1::blocks_down::Message::Answer(answer) => answer.states.to_vec(),
            other => panic!("not an answer: {other:?}"),
        };
        for (index, block) in blocks.iter().enumerate().filter(|(index, _)| states[*index] == 1) {
            let half = block.len() / 2;
            for (data, last) in [(&block[..half], false), (&block[half..], true)] {
                let data = Bytes::copy_from_slice(data);
                let put = v1::Put { offer: 1, index: index as u32, data, last };
                up.send(v1::BlocksUp { message: Some(v1::blocks_up::Message::Put(put)) }).await.unwrap();
            }
            match down.message().await.unwrap().unwrap().message.unwrap() {
                v1::blocks_down::Message::Receipt(receipt) => assert_eq!(receipt.refused, ""),
                other => panic!("not a receipt: {other:?}"),
            }
        }
        states
    }

    pub async fn list(&self, bucket: &str) -> Result<Vec<v1::ObjectEntry>, Status> {
        let request = v1::ListObjectsRequest { bucket: bucket.into(), ..v1::ListObjectsRequest::default() };
        all(self.catalog().list_objects(request).await?.into_inner()).await
    }

    pub async fn versions(&self, bucket: &str) -> Vec<v1::ObjectEntry> {
        let request = v1::ListObjectsRequest { bucket: bucket.into(), ..v1::ListObjectsRequest::default() };
        all(self.catalog().list_versions(request).await.unwrap().into_inner()).await.unwrap()
    }

    pub async fn get(&self, bucket: &str, key: &str) -> Result<v1::ObjectEntry, Status> {
        let object = Some(v1::ObjectRef { key: Bytes::copy_from_slice(key.as_bytes()), ..v1::ObjectRef::default() });
        let request = v1::GetObjectRequest { object, store_bucket: bucket.into(), ..v1::GetObjectRequest::default() };
        Ok(self.catalog().get_object(request).await?.into_inner())
    }

    pub async fn read(&self, entry: &v1::ObjectEntry, offset: u64, length: u64) -> Result<Vec<u8>, Status> {
        let request = v1::ReadBodyRequest { object: entry.object.clone(), tick: entry.tick, offset, length };
        let frames = all(self.catalog().read_body(request).await?.into_inner()).await?;
        Ok(frames.into_iter().flat_map(|frame| frame.data).collect())
    }

    pub async fn gaps(&self) -> Vec<v1::GapEntry> {
        all(self.catalog().list_gaps(v1::ListGapsRequest::default()).await.unwrap().into_inner()).await.unwrap()
    }

    /// Waits until the open gaps have these reasons.
    pub async fn await_gaps(&self, reasons: &[&str]) -> Vec<v1::GapEntry> {
        let since = Instant::now();
        loop {
            let gaps = self.gaps().await;
            let found: Vec<&str> = gaps.iter().map(|gap| &*gap.reason).collect();
            if found == reasons {
                return gaps;
            }
            assert!(since.elapsed() < PATIENCE, "waited for {reasons:?}, there are {found:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn lease(&self, binding: &str) -> Result<v1::Lease, Status> {
        let request = v1::AcquireLeaseRequest {
            binding: binding.into(),
            holder: "test".into(),
            ..v1::AcquireLeaseRequest::default()
        };
        Ok(self.migration().acquire_lease(request).await?.into_inner())
    }
}

pub async fn all<T>(mut stream: Streaming<T>) -> Result<Vec<T>, Status> {
    let mut items = Vec::new();
    while let Some(item) = stream.message().await? {
        items.push(item);
    }
    Ok(items)
}

pub struct Session {
    up: mpsc::Sender<v1::ControlUp>,
    down: Streaming<v1::ControlDown>,
    pub sequence: u64,
    counter: u64,
    pub tick: u64,
    pub incarnation: u64,
    pub welcome: v1::Welcome,
    receipts: HashMap<u64, Verdict>,
}

impl Session {
    /// A moment of this sidecar: what it has heard, and its next count.
    pub fn stamp(&mut self) -> Option<v1::Stamp> {
        self.counter += 1;
        Some(v1::Stamp { incarnation: self.incarnation, tick: self.tick, counter: self.counter })
    }

    pub async fn send(&mut self, message: Up) -> u64 {
        self.sequence += 1;
        self.resend(self.sequence, message).await;
        self.sequence
    }

    /// Sends what has no receipt.
    pub async fn send_unanswered(&self, message: Up) {
        self.up.send(v1::ControlUp { sequence: 0, message: Some(message) }).await.unwrap();
    }

    pub async fn resend(&mut self, sequence: u64, message: Up) {
        self.up.send(v1::ControlUp { sequence, message: Some(message) }).await.unwrap();
    }

    pub async fn say(&mut self, message: Up) -> Verdict {
        let sequence = self.send(message).await;
        self.receipt(sequence).await
    }

    pub async fn receipt(&mut self, sequence: u64) -> Verdict {
        let wait = async {
            loop {
                if let Some(verdict) = self.receipts.remove(&sequence) {
                    return verdict;
                }
                self.hear().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("a receipt")
    }

    async fn hear(&mut self) {
        match self.down.message().await.unwrap().expect("the stream goes on").message.unwrap() {
            Down::Tick(tick) => (self.tick, self.incarnation) = (tick.tick, tick.incarnation),
            Down::Receipt(receipt) => drop(self.receipts.insert(receipt.sequence, receipt.verdict.unwrap())),
            Down::Welcome(_) => panic!("a second welcome"),
        }
    }

    /// Hears ticks until it has heard this one.
    pub async fn hear_tick(&mut self, tick: u64) {
        let wait = async {
            while self.tick < tick {
                self.hear().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("a tick");
    }

    pub async fn put(&mut self, object: v1::ObjectRef, content: &[u8], etag: &str) -> Verdict {
        let head = self.stamp();
        self.put_since(object, content, etag, head).await
    }

    pub async fn put_since(
        &mut self,
        object: v1::ObjectRef,
        content: &[u8],
        etag: &str,
        head: Option<v1::Stamp>,
    ) -> Verdict {
        let answer = self.stamp();
        self.say(recorded(0, put_of(object, body(content), etag), head, answer)).await
    }

    pub async fn head(&mut self, object: v1::ObjectRef, etag: &str) -> Verdict {
        let head = self.stamp();
        let answer = self.stamp();
        let sighting = v1::Sighting {
            object: Some(object),
            absent: etag.is_empty(),
            etag: etag.into(),
            metadata: (!etag.is_empty()).then(|| metadata("text/plain")), // as `put_of` wrote it
            ..v1::Sighting::default()
        };
        self.say(Up::Sightings(v1::Sightings { head, answer, listing: false, objects: vec![sighting] })).await
    }
}

pub fn accepted(verdict: Verdict) -> u64 {
    match verdict {
        Verdict::Accepted(accepted) => accepted.tick,
        other => panic!("not accepted: {other:?}"),
    }
}

pub fn recorded(operation: u64, change: v1::write::Change, head: Option<v1::Stamp>, answer: Option<v1::Stamp>) -> Up {
    Up::Recorded(v1::Recorded { operation, writes: vec![v1::Write { change: Some(change) }], head, answer })
}

pub fn put_of(object: v1::ObjectRef, body: v1::Body, etag: &str) -> v1::write::Change {
    v1::write::Change::Put(v1::PutObject {
        object: Some(object),
        body: Some(body),
        metadata: Some(metadata("text/plain")),
        etag: etag.into(),
        version_id: String::new(),
    })
}

pub fn metadata(content_type: &'static str) -> v1::Metadata {
    let header = v1::Header { name: "content-type".into(), value: Bytes::from_static(content_type.as_bytes()) };
    v1::Metadata { headers: vec![header], headers_known: true, ..v1::Metadata::default() }
}

/// Content as a sidecar tells it: inside the record when it is short, else by its blocks.
pub fn body(content: &[u8]) -> v1::Body {
    let content = if content.len() < BLOCK / 4 {
        v1::body::Content::Inline(Bytes::copy_from_slice(content))
    } else {
        let hashes: Vec<u8> = content.chunks(BLOCK).flat_map(|block| *BlockHash::of(block).as_bytes()).collect();
        let (length, block_size) = (content.len() as u64, BLOCK as u32);
        v1::body::Content::Run(v1::Run { length, block_size, hashes: hashes.into(), paged: false })
    };
    v1::Body { content: Some(content) }
}

pub fn object(provider: &str, bucket: &str, key: &str) -> v1::ObjectRef {
    let key = Bytes::copy_from_slice(key.as_bytes());
    v1::ObjectRef { provider: provider.into(), bucket: bucket.into(), key }
}

/// A binding `name` with one bucket of that name at two clouds, told by `session`.
pub fn hello(name: &str, session: u8) -> v1::Hello {
    let provider = |name: &str, identity: &str| v1::Provider { name: name.into(), identity: identity.into() };
    v1::Hello {
        session: vec![session; 16].into(),
        binding: name.into(),
        namespace: "shop".into(),
        providers: vec![provider("a", A), provider("b", B)],
        spec_provider: "a".into(),
        buckets: vec![v1::Bucket { name: name.into(), ..v1::Bucket::default() }],
        block_size: BLOCK as u32,
        role: v1::Role::Sidecar.into(),
        ..v1::Hello::default()
    }
}

/// Bytes that are different for each seed and hard to compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect()
}

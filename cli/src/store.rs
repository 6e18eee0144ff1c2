//! The store as a command asks it: one connection, the domain and the token on every call.

use hawser_api::binding;
use hawser_api::connect::{self, Caller};
use hawser_api::v1::catalog_client::CatalogClient;
use hawser_api::v1::{
    GapEntry, GetObjectRequest, GetS3KeyRequest, ListBucketsReply, ListBucketsRequest, ListGapsRequest,
    ListObjectsRequest, ObjectEntry, ReadBodyRequest, S3Key, StatusReply, StatusRequest,
};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::args::StoreArgs;
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::tunnel::Tunnel;

/// One store, asked by one command.
pub(crate) struct Store {
    catalog: CatalogClient<InterceptedService<Channel, Caller>>,
    url: String,
    /// The binding that `--binding` names; empty for every one of the domain.
    binding: String,
    /// The way through the API server, in a cluster.
    _tunnel: Option<Tunnel>,
}

/// Where the store of one machine answers.
const ON_THIS_MACHINE: &str = "http://127.0.0.1:7070";

impl Store {
    /// The store that `args` name; it is reached with the first question.
    pub(crate) async fn at(args: &StoreArgs) -> Result<Store, Failure> {
        if args.in_cluster() {
            let cluster = Cluster::connect(&args.kube).await?;
            return Store::of_cluster(&cluster).await;
        }
        let (domain, binding) = match &args.binding {
            Some(file) => {
                let binding = binding::load(file).map_err(|error| Failure::Binding(Box::new(error)))?;
                (Some(binding.domain().to_owned()), binding.name().to_owned())
            }
            None => (args.domain.clone(), String::new()),
        };
        if domain.is_none() && args.token_file.is_none() {
            let message = "say whose copy: give --domain NAME, --binding FILE or --token-file FILE";
            return Err(Failure::Usage(message.into()));
        }
        let store = connect::Store {
            url: args.store.clone().unwrap_or_else(|| ON_THIS_MACHINE.into()),
            domain: domain.unwrap_or_default(),
            token_file: args.token_file.clone(),
            ca_file: args.store_ca.clone(),
        };
        let (channel, caller) = store.channel().map_err(|error| Failure::Connect(Box::new(error)))?;
        let catalog = CatalogClient::with_interceptor(channel, caller);
        Ok(Store { catalog, url: store.url, binding, _tunnel: None })
    }

    /// The store of a cluster, asked as an account of its bindings' namespace.
    pub(crate) async fn of_cluster(cluster: &Cluster) -> Result<Store, Failure> {
        let authority = cluster.store_ca(None).await?;
        let token = cluster.token().await?;
        let tunnel = Tunnel::open(cluster).await?;
        let url = format!("https://localhost:{}", tunnel.port());
        let store = connect::Store { url: url.clone(), domain: String::new(), token_file: None, ca_file: None };
        let usable = |error| Failure::Connect(Box::new(error));
        let (channel, _) = store.channel_trusting(authority.as_bytes()).map_err(usable)?;
        let caller = Caller::showing(&token).map_err(usable)?;
        let catalog = CatalogClient::with_interceptor(channel, caller);
        Ok(Store { catalog, url, binding: String::new(), _tunnel: Some(tunnel) })
    }

    /// The key of the S3 face.
    pub(crate) async fn s3_key(&mut self) -> Result<S3Key, Failure> {
        let answer = self.catalog.get_s3_key(GetS3KeyRequest {}).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.refused(status))
    }

    /// The state of the domain's bindings, or of the one that `--binding` names.
    pub(crate) async fn status(&mut self) -> Result<StatusReply, Failure> {
        let answer = self.catalog.status(StatusRequest { binding: self.binding.clone() }).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.refused(status))
    }

    /// The buckets of the domain.
    pub(crate) async fn buckets(&mut self) -> Result<ListBucketsReply, Failure> {
        let answer = self.catalog.list_buckets(ListBucketsRequest { binding: self.binding.clone() }).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.refused(status))
    }

    /// Current objects, or those of a tick, in the order of their keys.
    pub(crate) async fn objects(&mut self, mut request: ListObjectsRequest) -> Result<Streaming<ObjectEntry>, Failure> {
        request.binding.clone_from(&self.binding);
        let (bucket, provider) = (request.bucket.clone(), request.provider.clone());
        let answer = self.catalog.list_objects(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.no_bucket(&bucket, &provider, status))
    }

    /// Kept versions, keys in their order, the newest version first.
    pub(crate) async fn versions(
        &mut self,
        mut request: ListObjectsRequest,
    ) -> Result<Streaming<ObjectEntry>, Failure> {
        request.binding.clone_from(&self.binding);
        let (bucket, provider) = (request.bucket.clone(), request.provider.clone());
        let answer = self.catalog.list_versions(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.no_bucket(&bucket, &provider, status))
    }

    /// One object; `None` when no such version is known.
    pub(crate) async fn object(&mut self, mut request: GetObjectRequest) -> Result<Option<ObjectEntry>, Failure> {
        request.binding.clone_from(&self.binding);
        match self.catalog.get_object(request).await {
            Ok(answer) => Ok(Some(answer.into_inner())),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(self.refused(status)),
        }
    }

    /// The bytes of one version, checked by the store on their way.
    pub(crate) async fn body(&mut self, entry: &ObjectEntry) -> Result<Body, Failure> {
        let request = ReadBodyRequest { object: entry.object.clone(), tick: entry.tick, offset: 0, length: 0 };
        let answer = self.catalog.read_body(request).await;
        let frames = answer.map(tonic::Response::into_inner).map_err(|status| self.refused(status))?;
        Ok(Body { frames, url: self.url.clone() })
    }

    /// Gaps, the open ones or all.
    pub(crate) async fn gaps(&mut self, closed: bool) -> Result<Streaming<GapEntry>, Failure> {
        let answer = self.catalog.list_gaps(ListGapsRequest { binding: self.binding.clone(), closed }).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.refused(status))
    }

    /// What a listing's answer means: there is nothing else that it could lack.
    fn no_bucket(&self, bucket: &str, provider: &str, status: Status) -> Failure {
        match (status.code(), provider) {
            (Code::NotFound, "") => {
                Failure::NotFound(format!("bucket {bucket} is not in the copy: hawser ls shows which are"))
            }
            (Code::NotFound, _) => Failure::NotFound(format!(
                "no bucket {bucket} of provider {provider} is in the copy: hawser status shows the providers"
            )),
            _ => self.refused(status),
        }
    }

    /// What a call's answer means.
    pub(crate) fn refused(&self, status: Status) -> Failure {
        refused(&self.url, &status)
    }
}

/// The bytes of one version as they come.
pub(crate) struct Body {
    frames: Streaming<hawser_api::v1::BodyFrame>,
    url: String,
}

impl Body {
    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<bytes::Bytes>, Failure> {
        match self.frames.message().await {
            Ok(frame) => Ok(frame.map(|frame| frame.data)),
            Err(status) => Err(refused(&self.url, &status)),
        }
    }
}

fn refused(url: &str, status: &Status) -> Failure {
    match status.code() {
        Code::NotFound => Failure::NotFound(status.message().to_owned()),
        Code::Unavailable => {
            // The cause says what happened on the line; the status itself only that something did.
            let cause =
                std::error::Error::source(status).map_or_else(|| status.message().to_owned(), crate::failure::chain);
            Failure::Away { url: url.to_owned(), cause }
        }
        code if status.message().is_empty() => Failure::Refused(code.description().to_owned()),
        _ => Failure::Refused(status.message().to_owned()),
    }
}

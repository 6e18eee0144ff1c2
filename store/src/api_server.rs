//! The cluster's API server, as the store asks it: is this token good, and which namespace is this. Two calls
//! over a connection of their own each; they are rare, as verdicts are kept ([`crate::review`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// Where a pod finds its own account.
pub const ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// One call, from connecting to the last byte of the answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of an answer at most: a namespace with every annotation that the API server takes.
const ANSWER_LEN_MAX: usize = 1024 * 1024;

/// The API server and the account that asks it. Files of the account are read for each call, as the kubelet
/// renews them.
#[derive(Debug)]
pub struct ApiServer {
    host: String,
    port: u16,
    account: PathBuf,
}

/// What the API server says of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Review {
    /// It is good for the audience, and names this user.
    User(String),
    /// It is not, and why.
    Refused(String),
}

/// Why the API server gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Neither a flag nor the environment says where it is.
    #[error("no API server is known: run in a pod, or give --api-server https://HOST:PORT")]
    Nowhere,
    /// The address cannot be used.
    #[error("--api-server {0}: write https://HOST:PORT")]
    Address(String),
    /// A file of the account.
    #[error("read {path}")]
    Account {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The account's `ca.crt` is no root.
    #[error("{0} holds no certificate")]
    Roots(PathBuf),
    /// It does not answer.
    #[error("the API server does not answer")]
    Away(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It does not let the store ask.
    #[error("the API server refuses the store's own account ({status}): its ClusterRole needs {needs}")]
    Forbidden {
        /// 401 or 403.
        status: StatusCode,
        /// The missing right.
        needs: &'static str,
    },
    /// It has no such thing.
    #[error("the API server knows no {0}")]
    NotFound(String),
    /// It answered something else.
    #[error("the API server answered {0}")]
    Answer(String),
}

impl ApiServer {
    /// The API server at `url`, else the one that the environment of a pod names; `account` is the folder with
    /// `token` and `ca.crt`.
    ///
    /// # Errors
    /// [`ApiError::Nowhere`] or [`ApiError::Address`].
    pub fn find(url: Option<&str>, account: &Path) -> Result<ApiServer, ApiError> {
        let (host, port) = match url {
            Some(url) => {
                let bad = || ApiError::Address(url.to_owned());
                let uri: Uri = url.parse().map_err(|_| bad())?;
                let https = uri.scheme_str() == Some("https");
                let host = uri.host().filter(|_| https).ok_or_else(bad)?;
                (host.to_owned(), uri.port_u16().unwrap_or(443))
            }
            None => {
                let host = std::env::var("KUBERNETES_SERVICE_HOST").map_err(|_| ApiError::Nowhere)?;
                let port = std::env::var("KUBERNETES_SERVICE_PORT").ok().and_then(|port| port.parse().ok());
                (host, port.unwrap_or(443))
            }
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(ApiServer { host, port, account: account.to_owned() })
    }

    /// Asks whether `token` is good for `audience`.
    ///
    /// # Errors
    /// [`ApiError`]: nothing is known of the token.
    pub async fn review(&self, token: &str, audience: &str) -> Result<Review, ApiError> {
        let asked = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": { "token": token, "audiences": [audience] },
        });
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let answer =
            self.call(Method::POST, path, Some(&asked), "create on tokenreviews.authentication.k8s.io").await?;
        let status = &answer["status"];
        // A server that knows no audiences answers without them: then the token may be anybody's.
        let ours = status["audiences"].as_array().is_some_and(|all| all.iter().any(|one| one == audience));
        match (status["authenticated"].as_bool(), status["user"]["username"].as_str()) {
            (Some(true), Some(user)) if ours => Ok(Review::User(user.to_owned())),
            (Some(true), _) => Ok(Review::Refused(format!("it is not for the audience {audience}"))),
            _ => Ok(Review::Refused(status["error"].as_str().unwrap_or("it is not valid").to_owned())),
        }
    }

    /// The UID of a namespace.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] when there is none of this name.
    pub async fn namespace_uid(&self, namespace: &str) -> Result<String, ApiError> {
        let path = format!("/api/v1/namespaces/{namespace}");
        let answer = self.call(Method::GET, &path, None, "get on namespaces").await?;
        let uid = answer["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty());
        uid.map(str::to_owned).ok_or_else(|| ApiError::Answer(format!("namespace {namespace} without a UID")))
    }

    /// The store's own token: asking about it shows whether the store may ask.
    ///
    /// # Errors
    /// [`ApiError::Account`].
    pub fn own_token(&self) -> Result<String, ApiError> {
        Ok(String::from_utf8_lossy(&self.read("token")?).trim().to_owned())
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, ApiError> {
        let path = self.account.join(name);
        std::fs::read(&path).map_err(|source| ApiError::Account { path, source })
    }

    fn tls(&self) -> Result<tokio_rustls::TlsConnector, ApiError> {
        let bad = || ApiError::Roots(self.account.join("ca.crt"));
        let mut roots = rustls::RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&self.read("ca.crt")?) {
            roots.add(root.map_err(|_| bad())?).map_err(|_| bad())?;
        }
        if roots.is_empty() {
            return Err(bad());
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(tokio_rustls::TlsConnector::from(Arc::new(config)))
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        needs: &'static str,
    ) -> Result<Value, ApiError> {
        let (tls, token) = (self.tls()?, self.own_token()?);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.authority())
            .header("accept", "application/json")
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {token}"))
            .body(Full::new(Bytes::from(body.map(Value::to_string).unwrap_or_default())))
            .map_err(|error| ApiError::Away(error.into()))?;
        let exchanged = tokio::time::timeout(CALL_TIMEOUT, self.exchange(tls, request)).await;
        let (status, content) = exchanged.map_err(|error| ApiError::Away(error.into()))?.map_err(ApiError::Away)?;
        match status {
            StatusCode::OK | StatusCode::CREATED => {
                serde_json::from_slice(&content).map_err(|error| ApiError::Answer(format!("no JSON: {error}")))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(ApiError::Forbidden { status, needs }),
            StatusCode::NOT_FOUND => Err(ApiError::NotFound(path.rsplit('/').next().unwrap_or(path).to_owned())),
            status => Err(ApiError::Answer(status.to_string())),
        }
    }

    async fn exchange(
        &self,
        tls: tokio_rustls::TlsConnector,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let name = ServerName::try_from(self.host.clone())?;
        let stream = tls.connect(name, stream).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let talk = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let content = Limited::new(answer.into_body(), ANSWER_LEN_MAX).collect().await?.to_bytes();
            Ok((status, content))
        };
        tokio::pin!(connection, talk);
        tokio::select! {
            done = &mut talk => done,
            // The connection may be over once the whole answer is there.
            ended = &mut connection => { ended?; talk.await }
        }
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

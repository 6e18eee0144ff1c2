//! A scripted TokenReview and Namespace endpoint over TLS. It stands for the API server: what it says of tokens and
//! namespaces is what the test wrote down, and it can go away.
#![allow(clippy::unwrap_used, unreachable_pub)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The token of the store's own account.
const OWN: &str = "token-of-the-store";

/// What it says.
#[derive(Default)]
pub struct Script {
    /// Token → username.
    pub users: HashMap<String, String>,
    /// Namespace → UID.
    pub namespaces: HashMap<String, String>,
    /// It breaks connections off.
    pub away: bool,
    /// The store's account lacks its rights.
    pub forbidden: bool,
    /// TokenReviews that were answered, by token.
    pub reviews: HashMap<String, usize>,
}

pub struct ApiServer {
    pub script: Arc<Mutex<Script>>,
    pub url: String,
    /// The folder of the store's account.
    pub account: PathBuf,
}

/// Makes a certificate for 127.0.0.1 that is its own root.
pub fn certificate(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    let (cert, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", &format!("/CN={name}"), "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (cert, key)
}

impl ApiServer {
    pub async fn start(dir: &Path) -> ApiServer {
        let (cert, key) = certificate(dir, "api-server");
        std::fs::copy(&cert, dir.join("ca.crt")).unwrap();
        std::fs::write(dir.join("token"), OWN).unwrap();
        let chain = CertificateDer::pem_file_iter(&cert).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(&key).unwrap())
            .unwrap();
        let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let script = Arc::new(Mutex::new(Script::default()));
        let told = Arc::clone(&script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, told) = (tls.clone(), Arc::clone(&told));
                tokio::spawn(async move {
                    if told.lock().unwrap().away {
                        return;
                    }
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let answer = hyper::service::service_fn(move |request| answer(Arc::clone(&told), request));
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        ApiServer { script, url, account: dir.to_owned() }
    }

    /// A namespace and the token of its account `default`.
    pub fn namespace(&self, name: &str, uid: &str, token: &str) {
        let mut script = self.script.lock().unwrap();
        script.namespaces.insert(name.into(), uid.into());
        script.users.insert(token.into(), format!("system:serviceaccount:{name}:default"));
    }

    pub fn set(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    pub fn reviews(&self, token: &str) -> usize {
        self.script.lock().unwrap().reviews.get(token).copied().unwrap_or_default()
    }
}

async fn answer(script: Arc<Mutex<Script>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let bearer = request.headers().get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let path = request.uri().path().to_owned();
    let asked: Value = serde_json::from_slice(&request.into_body().collect().await?.to_bytes()).unwrap_or_default();
    let mut script = script.lock().unwrap();
    let (status, said) = if bearer.as_deref() != Some(&format!("Bearer {OWN}")) || script.forbidden {
        (StatusCode::FORBIDDEN, json!({ "kind": "Status", "code": 403 }))
    } else if path == "/apis/authentication.k8s.io/v1/tokenreviews" {
        let token = asked["spec"]["token"].as_str().unwrap_or_default().to_owned();
        *script.reviews.entry(token.clone()).or_default() += 1;
        let known = script.users.get(&token).filter(|_| asked["spec"]["audiences"] == json!(["hawser-store"]));
        let status = match known {
            Some(user) => {
                json!({ "authenticated": true, "user": { "username": user }, "audiences": ["hawser-store"] })
            }
            None => json!({ "authenticated": false, "error": "unknown" }),
        };
        (StatusCode::CREATED, json!({ "kind": "TokenReview", "status": status }))
    } else {
        let name = path.strip_prefix("/api/v1/namespaces/").unwrap_or_default();
        match script.namespaces.get(name) {
            Some(uid) => (StatusCode::OK, json!({ "kind": "Namespace", "metadata": { "name": name, "uid": uid } })),
            None => (StatusCode::NOT_FOUND, json!({ "kind": "Status", "code": 404 })),
        }
    };
    let mut response = Response::new(Full::from(said.to_string()));
    *response.status_mut() = status;
    Ok(response)
}

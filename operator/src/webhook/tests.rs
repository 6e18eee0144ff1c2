//! The webhook as the API server sees it: over TLS, with questions as it asks them. The API server that the webhook
//! itself asks is a small one of the test's own.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::Parser;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prometheus_client::registry::Registry;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::configuration::{self, PROTECT_PATH, WARN_PATH, Wanted};
use super::{Settings, Webhook};
use crate::authority::Authority;
use crate::pod::BINDING;

const DEADLINE: Duration = Duration::from_secs(20);

/// Objects by their path. What is sent is kept and sent back.
type Objects = Arc<Mutex<HashMap<String, Value>>>;

async fn api_server(objects: Objects) -> kube::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let objects = Arc::clone(&objects);
            let service = service_fn(move |request| api_answer(request, Arc::clone(&objects)));
            tokio::spawn(async move {
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    kube::Client::try_from(kube::Config::new(format!("http://{address}").parse().unwrap())).unwrap()
}

async fn api_answer(request: Request<Incoming>, objects: Objects) -> Result<Response<Full<Bytes>>, Infallible> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut objects = objects.lock().unwrap();
    let found = match method {
        Method::GET => objects.get(&path).cloned(),
        _ => {
            let object: Value = serde_json::from_slice(&body).unwrap();
            objects.insert(path, object.clone());
            Some(object)
        }
    };
    let (status, object) = match found {
        Some(object) => (StatusCode::OK, object),
        None => {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "message": "not found", "code": 404});
            (StatusCode::NOT_FOUND, status)
        }
    };
    Ok(Response::builder().status(status).body(Full::new(Bytes::from(object.to_string()))).unwrap())
}

fn binding(name: &str) -> (String, Value) {
    let object = json!({
        "apiVersion": "hawser.dev/v1alpha1",
        "kind": "CloudBinding",
        "metadata": {"name": name, "namespace": "shop", "uid": "b-1"},
        "spec": {
            "provider": "a",
            "providers": [{"name": "a", "s3": {"endpoint": "https://s3.cloud.test"}}],
            "buckets": [{"name": "photos"}],
        },
    });
    (format!("/apis/hawser.dev/v1alpha1/namespaces/shop/cloudbindings/{name}"), object)
}

const CLUSTER_ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/hawser-operator";
const CONFIGURATION: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/hawser";

/// A running webhook and what it was told.
struct Running {
    address: SocketAddr,
    objects: Objects,
    roots: RootCertStore,
    registry: Registry,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<Result<(), super::Error>>,
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    settings: Settings,
}

impl Running {
    async fn start() -> Running {
        let objects = Objects::default();
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "hawser-operator", "uid": "role-1"}});
        objects.lock().unwrap().extend([
            binding("photos"),
            ("/api/v1/namespaces/shop".to_owned(), namespace),
            (CLUSTER_ROLE.to_owned(), role),
        ]);
        let client = api_server(Arc::clone(&objects)).await;
        let authority = Authority::open(&client, "hawser").await.unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.ca_pem().as_bytes()).unwrap()).unwrap();
        let settings = Line::parse_from(["x", "--sidecar-image", "hawser/sidecar:1"]).settings;
        let mut registry = Registry::default();
        let (bindings, _) = kube::runtime::reflector::store();
        let store = "https://hawser-store.hawser.svc:7070";
        let hook = Webhook::new(settings, "hawser", store, client, authority, bindings, &mut registry);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopping) = watch::channel(false);
        let serving = tokio::spawn(hook.serve_on(listener, stopping));
        Running { address, objects, roots, registry, stop, serving }
    }

    /// Asks as the API server does, by the Service's name.
    async fn ask(&self, path: &str, body: Vec<u8>) -> (StatusCode, Value) {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(self.roots.clone()).with_no_client_auth();
        let socket = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("hawser-webhook.hawser.svc").unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post(path).header("host", "x").body(Full::new(Bytes::from(body))).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn review(&self, path: &str, operation: &str, pod: &Value) -> Value {
        let review = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "0c9a8d74",
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "namespace": "shop",
                "operation": operation,
                "userInfo": {"username": "someone"},
                "object": pod,
                "oldObject": null,
                "dryRun": false,
            },
        });
        let (status, answer) = self.ask(path, review.to_string().into_bytes()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer["response"]["uid"], "0c9a8d74");
        answer["response"].clone()
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

/// A pod as its ReplicaSet makes it: without a name, and without its namespace.
fn pod(annotation: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "app-", "annotations": {BINDING: annotation}},
        "spec": {"containers": [{"name": "app", "image": "app", "ofANewerCluster": true}]},
    })
}

fn patched(pod: &Value, response: &Value) -> Value {
    let patch = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &serde_json::from_slice::<json_patch::Patch>(&patch).unwrap()).unwrap();
    pod
}

#[tokio::test]
async fn an_annotated_pod_is_patched_and_asking_again_changes_nothing() {
    let hook = Running::start().await;
    let before = pod("photos");
    let response = hook.review(PROTECT_PATH, "CREATE", &before).await;
    assert_eq!((&response["allowed"], &response["patchType"]), (&json!(true), &json!("JSONPatch")), "{response}");
    let after = patched(&before, &response);
    let inits: Vec<_> = after["spec"]["initContainers"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(inits, ["hawser-redirect", "hawser-sidecar", "hawser-trust"]);
    assert_eq!(after["spec"]["containers"][0]["ofANewerCluster"], true);
    let stamped = after["metadata"]["annotations"]["hawser.dev/configuration"].as_str().unwrap();
    assert!(stamped.contains("https://s3.cloud.test") && stamped.contains("uid: b-1"), "{stamped}");
    let again = hook.review(PROTECT_PATH, "CREATE", &after).await;
    assert_eq!(patched(&after, &again), after, "reinvoked");
    assert!(hook.metrics().contains("webhook_pods_total{outcome=\"protected\",reason=\"\"} 2"), "{}", hook.metrics());
}

#[tokio::test]
async fn a_pod_before_its_binding_is_refused_with_its_name_and_admitted_afterwards() {
    let hook = Running::start().await;
    let early = pod("later");
    let response = hook.review(PROTECT_PATH, "CREATE", &early).await;
    assert_eq!(response["allowed"], false);
    let text = response["status"]["message"].as_str().unwrap();
    assert!(text.starts_with("BindingNotFound: namespace shop has no CloudBinding later"), "{text}");
    assert!(response["patch"].is_null());
    let metric = "webhook_pods_total{outcome=\"denied\",reason=\"BindingNotFound\"} 1";
    assert!(hook.metrics().contains(metric), "{}", hook.metrics());
    hook.objects.lock().unwrap().extend([binding("later")]);
    assert_eq!(hook.review(PROTECT_PATH, "CREATE", &early).await["allowed"], true);

    let (path, mut leaving) = binding("later");
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    hook.objects.lock().unwrap().insert(path, leaving);
    let response = hook.review(PROTECT_PATH, "CREATE", &early).await;
    assert!(response["status"]["message"].as_str().unwrap().starts_with("BindingDeleted: "), "{response}");
}

#[tokio::test]
async fn a_pod_that_is_annotated_while_it_runs_is_left_alone_with_a_warning() {
    let hook = Running::start().await;
    let response = hook.review(WARN_PATH, "UPDATE", &pod("photos")).await;
    assert_eq!(response["allowed"], true);
    assert!(response["patch"].is_null());
    assert!(response["warnings"][0].as_str().unwrap().contains("make it anew"), "{response}");
}

#[tokio::test]
async fn what_is_no_review_is_answered_so() {
    let hook = Running::start().await;
    for body in ["", "{}", "{\"apiVersion\": \"admission.k8s.io/v1beta1\", \"kind\": \"AdmissionReview\"}"] {
        assert_eq!(hook.ask(PROTECT_PATH, body.into()).await.0, StatusCode::BAD_REQUEST, "{body:?}");
    }
    assert_eq!(hook.ask("/", Vec::new()).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_api_server_is_told_of_the_webhook_by_an_object_that_goes_with_the_release() {
    let hook = Running::start().await;
    let begun = Instant::now();
    let told = loop {
        if let Some(told) = hook.objects.lock().unwrap().get(CONFIGURATION) {
            break told.clone();
        }
        assert!(begun.elapsed() < DEADLINE, "nothing was told");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let ca = STANDARD.decode(told["webhooks"][0]["clientConfig"]["caBundle"].as_str().unwrap()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
    let wanted = Wanted {
        namespace: "hawser".into(),
        service: "hawser-webhook".into(),
        ca_pem: String::from_utf8(ca).unwrap(),
        cluster_role: "hawser-operator".into(),
    };
    assert_eq!(told, configuration::object(&wanted, "role-1"));
    serde_json::from_value::<k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration>(told).unwrap();
}

#[tokio::test]
async fn it_answers_a_little_longer_than_it_is_told_to() {
    let hook = Running::start().await;
    hook.stop.send(true).unwrap();
    assert_eq!(hook.review(PROTECT_PATH, "CREATE", &pod("photos")).await["allowed"], true, "others learn of it later");
    tokio::time::timeout(DEADLINE, hook.serving).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(hook.address).await.is_err(), "and then it is gone");
}

#[test]
fn the_configuration_is_the_reviewed_one() {
    let wanted = Wanted {
        namespace: "hawser-system".into(),
        service: "hawser-webhook".into(),
        ca_pem: "CA".into(),
        cluster_role: "hawser-operator".into(),
    };
    let text = serde_saphyr::to_string(&configuration::object(&wanted, "role-1")).unwrap();
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/webhook/tests/configuration.yaml");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&golden, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(golden).unwrap(), "run with UPDATE=1 and review the diff");
}

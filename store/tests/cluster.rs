//! A real server as it stands in a cluster: whose a token is says a scripted endpoint (`cluster/api_server.rs`, which
//! stands for the API server), which bindings there are says an operator.
#![allow(clippy::unwrap_used)]

#[path = "cluster/api_server.rs"]
mod api_server;
#[path = "service/harness.rs"]
mod harness;

use std::time::{Duration, Instant};

use hawser_api::v1;
use hawser_api::v1::control_up::Message as Up;
use hawser_api::v1::watch_event::Event;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Code, Streaming};

use api_server::{ApiServer, certificate};
use harness::{A, B, BLOCK, Client, PATIENCE, Server, accepted, hello, noise, object};

const SHOP: &str = "11111111-0000-0000-0000-000000000001";
const BANK: &str = "22222222-0000-0000-0000-000000000002";

struct Cluster {
    _dir: tempfile::TempDir,
    api: ApiServer,
    store: Server,
}

impl Cluster {
    async fn start() -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let account = dir.path().join("account");
        std::fs::create_dir(&account).unwrap();
        let api = ApiServer::start(&account).await;
        api.namespace("shop", SHOP, "token-of-shop");
        api.namespace("bank", BANK, "token-of-bank");
        api.namespace("hawser", "99999999-0000-0000-0000-000000000009", "token-of-somebody-in-hawser");
        api.set(|script| {
            let user = "system:serviceaccount:hawser:hawser-operator".to_owned();
            script.users.insert("token-of-the-operator".into(), user);
            script.users.insert("token-of-a-person".into(), "jane@example.com".into());
        });
        let store = Cluster::serve(dir.path(), &api).await;
        Cluster { _dir: dir, api, store }
    }

    async fn serve(dir: &std::path::Path, api: &ApiServer) -> Server {
        let account = api.account.to_str().unwrap();
        let reviewed = ["--token-review", "hawser-store", "--operator-account", "hawser/hawser-operator"];
        let at = ["--api-server", &api.url, "--api-account", account];
        Server::start(&dir.join("data"), &[reviewed, at].concat()).await
    }

    async fn caller(&self, token: &str) -> Client {
        self.store.client_that_says(&[("authorization", &format!("Bearer {token}"))]).await
    }

    async fn operator(&self) -> Client {
        self.caller("token-of-the-operator").await
    }

    async fn register(&self, namespace: &str, domain: &str) -> v1::BindingReport {
        let request = v1::RegisterBindingRequest { name: name(namespace, domain), binding: Some(hello("photos", 0)) };
        self.operator().await.operator().register_binding(request).await.unwrap().into_inner()
    }

    async fn ready(&self) -> (u16, String) {
        get(self.store.admin, "/readyz").await
    }
}

fn name(namespace: &str, domain: &str) -> Option<v1::BindingName> {
    Some(v1::BindingName {
        domain: domain.into(),
        namespace: namespace.into(),
        binding: "photos".into(),
        binding_uid: format!("uid-of-photos-in-{namespace}"),
    })
}

async fn get(addr: std::net::SocketAddr, path: &str) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_neither_reads_nor_asks_about_what_another_stored() {
    let cluster = Cluster::start().await;
    cluster.register("shop", SHOP).await;
    cluster.register("bank", BANK).await;
    let (shop, bank) = (cluster.caller("token-of-shop").await, cluster.caller("token-of-bank").await);
    let content = noise(7, BLOCK);
    let mut session = shop.session(hello("photos", 1)).await.unwrap();
    assert_eq!(shop.offer(&[&content]).await, [1]);
    accepted(session.put(object(A, "photos", "secret"), &content, "e1").await);
    assert_eq!(shop.list("photos").await.unwrap().len(), 1);

    assert_eq!(bank.list("photos").await.map(|all| all.len()).unwrap_or(0), 0);
    let entry = shop.list("photos").await.unwrap().remove(0);
    assert!(bank.read(&entry, 0, 0).await.is_err(), "it may not read what it can name");
    bank.session(hello("photos", 2)).await.unwrap();
    assert_eq!(bank.offer(&[&content]).await, [1], "nor find out whether a block is there");
    for named in ["shop", SHOP] {
        let metadata = [("authorization", "Bearer token-of-bank"), ("hawser-domain", named)];
        let bank = cluster.store.client_that_says(&metadata).await;
        let status = bank.catalog().status(v1::StatusRequest::default()).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "by naming {named}");
    }
    let metadata = [("authorization", "Bearer token-of-shop"), ("hawser-domain", "shop")];
    let shop = cluster.store.client_that_says(&metadata).await;
    assert_eq!(shop.list("photos").await.unwrap().len(), 1, "its own name is as good as none");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_good_token_is_told_so() {
    let cluster = Cluster::start().await;
    for (token, code) in [
        ("token-of-nobody", Code::Unauthenticated),
        ("token-of-a-person", Code::Unauthenticated),
        ("token-of-shop", Code::Ok),
    ] {
        let asked = cluster.caller(token).await.catalog().status(v1::StatusRequest::default()).await;
        let status = asked.map_or_else(|status| status, |_| tonic::Status::ok(""));
        assert_eq!(status.code(), code, "{token}: {status}");
        assert!(!status.message().contains(token), "{status}");
    }
    let nobody = cluster.store.client("shop").await;
    let status = nobody.catalog().status(v1::StatusRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_operators_account_reaches_across_domains() {
    let cluster = Cluster::start().await;
    cluster.register("shop", SHOP).await;
    for token in ["token-of-shop", "token-of-somebody-in-hawser"] {
        let mut client = cluster.caller(token).await.operator();
        let request = v1::RegisterBindingRequest { name: name("shop", SHOP), binding: Some(hello("photos", 0)) };
        assert_eq!(client.register_binding(request).await.unwrap_err().code(), Code::PermissionDenied, "{token}");
        assert_eq!(client.watch(v1::WatchRequest {}).await.unwrap_err().code(), Code::PermissionDenied, "{token}");
        let request = v1::StartMigrationRequest { name: name("shop", SHOP), ..Default::default() };
        assert_eq!(client.start_migration(request).await.unwrap_err().code(), Code::PermissionDenied, "{token}");
        let request = v1::ForgetBindingRequest { name: name("shop", SHOP) };
        assert_eq!(client.forget_binding(request).await.unwrap_err().code(), Code::PermissionDenied, "{token}");
    }
    let metadata = [("authorization", "Bearer token-of-the-operator"), ("hawser-domain", SHOP)];
    let operator = cluster.store.client_that_says(&metadata).await;
    let status = operator.catalog().status(v1::StatusRequest::default()).await.unwrap().into_inner();
    assert_eq!(status.bindings[0].binding, "photos");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_is_what_its_operator_says_and_waited_for_until_it_does() {
    let cluster = Cluster::start().await;
    let shop = cluster.caller("token-of-shop").await;
    let early = shop.session(hello("photos", 1)).await.err().unwrap();
    assert_eq!(early.code(), Code::FailedPrecondition);
    assert!(early.message().contains("not registered by the operator yet"), "{early}");

    cluster.register("shop", SHOP).await;
    let mut claims = hello("photos", 1);
    claims.buckets.push(v1::Bucket { name: "everything".into(), ..v1::Bucket::default() });
    let mut session = shop.session(claims).await.unwrap();
    accepted(session.put(object(A, "photos", "a"), b"1", "e1").await);
    let stranger = session.put(object(A, "everything", "b"), b"2", "e2").await;
    assert!(matches!(stranger, v1::receipt::Verdict::Refused(_)), "a pod adds no bucket: {stranger:?}");
    let status = shop.catalog().status(v1::StatusRequest::default()).await.unwrap().into_inner();
    assert_eq!(status.bindings[0].buckets, hello("photos", 1).buckets);

    let request = v1::ForgetBindingRequest { name: name("shop", SHOP) };
    cluster.operator().await.operator().forget_binding(request).await.unwrap();
    assert_eq!(shop.session(hello("photos", 2)).await.err().unwrap().code(), Code::FailedPrecondition);
    assert_eq!(shop.list("photos").await.unwrap().len(), 1, "what was stored stays");
    let report = cluster.register("shop", SHOP).await;
    assert_eq!(report.status.unwrap().objects, 1, "and is there when the binding comes again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_was_made_anew_does_not_inherit() {
    let cluster = Cluster::start().await;
    cluster.register("shop", SHOP).await;
    let mut session = cluster.caller("token-of-shop").await.session(hello("photos", 1)).await.unwrap();
    accepted(session.put(object(A, "photos", "a"), b"1", "e1").await);
    let anew = "33333333-0000-0000-0000-000000000003";
    cluster.api.namespace("shop", anew, "token-of-the-new-shop");
    cluster.register("shop", anew).await;
    let new = cluster.caller("token-of-the-new-shop").await;
    assert_eq!(new.list("photos").await.map(|all| all.len()).unwrap_or(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_is_asked_for_once_and_outlives_the_api_server() {
    let cluster = Cluster::start().await;
    cluster.register("shop", SHOP).await;
    let shop = cluster.caller("token-of-shop").await;
    for _ in 0..20 {
        shop.catalog().status(v1::StatusRequest::default()).await.unwrap();
    }
    assert_eq!(cluster.api.reviews("token-of-shop"), 1);
    cluster.api.set(|script| script.away = true);
    shop.session(hello("photos", 1)).await.unwrap();
    let bank = cluster.caller("token-of-bank").await;
    let status = bank.catalog().status(v1::StatusRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "a caller that was never seen comes again later");
    assert_eq!(cluster.ready().await, (200, "ok\n".into()), "who was reviewed is served");
    cluster.api.set(|script| script.away = false);
    bank.catalog().status(v1::StatusRequest::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_may_not_ask_is_not_ready_and_says_which_right_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let api = ApiServer::start(dir.path()).await;
    api.set(|script| script.forbidden = true);
    let store = Cluster::serve(dir.path(), &api).await;
    await_ready(&store, 503, "create on tokenreviews.authentication.k8s.io").await;
    api.set(|script| script.forbidden = false);
    await_ready(&store, 200, "ok").await;
}

async fn await_ready(store: &Server, code: u16, text: &str) {
    let since = Instant::now();
    loop {
        let (found, body) = get(store.admin, "/readyz").await;
        if found == code && body.contains(text) {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "waited for {code} {text}, there is {found} {body}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raised_epoch_fences_off_the_job_before_it() {
    let cluster = Cluster::start().await;
    cluster.register("shop", SHOP).await;
    let operator = cluster.operator().await;
    let start = |expected, source: &str, target: &str, dry_run| {
        let mut client = operator.operator();
        let (source, target) = (source.to_owned(), target.to_owned());
        let request = v1::StartMigrationRequest { name: name("shop", SHOP), expected, source, target, dry_run };
        async move { client.start_migration(request).await.map(|reply| reply.into_inner().epoch) }
    };
    assert_eq!(start(0, A, B, false).await.unwrap(), 1);
    assert_eq!(start(0, A, B, false).await.unwrap(), 1, "an edit of something else keeps it");
    assert_eq!(start(7, A, B, true).await.unwrap_err().code(), Code::Aborted, "somebody else raised it");
    assert_eq!(start(1, B, A, false).await.unwrap_err().code(), Code::FailedPrecondition, "it is not in force");

    let job = cluster.caller("token-of-shop").await;
    let acquire = |migration_epoch, uid: &str| {
        let mut client = job.migration();
        let request = v1::AcquireLeaseRequest {
            binding: "photos".into(),
            holder: "job".into(),
            binding_uid: uid.into(),
            migration_epoch,
        };
        async move { client.acquire_lease(request).await.map(tonic::Response::into_inner) }
    };
    let uid = "uid-of-photos-in-shop";
    assert_eq!(acquire(1, "uid-of-another").await.unwrap_err().code(), Code::Aborted);
    let lease = acquire(1, uid).await.unwrap();
    let progress = v1::Progress { lease: Some(lease.clone()), phase: "Replicating".into(), ..Default::default() };
    job.migration().report_progress(progress.clone()).await.unwrap();

    assert_eq!(start(1, A, A, false).await.unwrap(), 2, "it is given up");
    assert_eq!(job.migration().renew_lease(lease.clone()).await.unwrap_err().code(), Code::FailedPrecondition);
    let told = job.migration().report_progress(progress).await;
    assert_eq!(told.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(acquire(1, uid).await.unwrap_err().code(), Code::Aborted, "and it does not come back");

    let lease = acquire(2, uid).await.unwrap();
    let force = v1::SetForceRequest {
        lease: Some(lease),
        binding: "photos".into(),
        expected: A.into(),
        provider: B.into(),
        accept_gaps: true,
        through_tick: 0,
    };
    let moved = job.migration().set_force(force).await.unwrap().into_inner();
    assert!(!moved.moved, "no other provider comes into force than the epoch's: {moved:?}");
    assert_eq!(start(2, A, B, false).await.unwrap(), 3);
    let lease = acquire(3, uid).await.unwrap();
    let force = v1::SetForceRequest {
        lease: Some(lease),
        binding: "photos".into(),
        expected: A.into(),
        provider: B.into(),
        accept_gaps: true,
        through_tick: 0,
    };
    assert!(job.migration().set_force(force).await.unwrap().into_inner().moved);
}

/// Reads reports until one is as wanted.
async fn report(
    watch: &mut Streaming<v1::WatchEvent>,
    what: &str,
    wanted: impl Fn(&v1::BindingReport) -> bool,
) -> v1::BindingReport {
    let hear = async {
        loop {
            if let Some(Event::Binding(report)) = watch.message().await.unwrap().unwrap().event
                && wanted(&report)
            {
                return report;
            }
        }
    };
    tokio::time::timeout(PATIENCE, hear).await.unwrap_or_else(|_| panic!("was not told: {what}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_hears_what_becomes_of_its_bindings() {
    let cluster = Cluster::start().await;
    cluster.register("shop", SHOP).await;
    let mut watch = cluster.operator().await.operator().watch(v1::WatchRequest {}).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap().event.unwrap();
    let Event::Binding(first) = first else { panic!("not a binding: {first:?}") };
    assert_eq!(first.name, name("shop", SHOP));
    assert_eq!(first.status.unwrap().provider_in_force, "a");
    assert_eq!(watch.message().await.unwrap().unwrap().event, Some(Event::Synced(v1::Synced {})));

    let shop = cluster.caller("token-of-shop").await;
    let pod = v1::Pod { name: "web-1".into(), uid: "pod-1".into(), unprotected: Vec::new() };
    let hello = v1::Hello { pod: Some(pod.clone()), ..hello("photos", 1) };
    let mut session = shop.session(hello).await.unwrap();
    report(&mut watch, "a pod", |report| report.pods == 1 && report.unprotected_pods == 0).await;
    let reason = v1::Unprotected { reason: "RulesRefused".into(), container: String::new(), detail: "no nft".into() };
    let unprotected = v1::Pod { unprotected: vec![reason], ..pod };
    session.send_unanswered(Up::Pod(unprotected.clone())).await;
    let heard = report(&mut watch, "an unprotected pod", |report| report.unprotected_pods == 1).await;
    assert_eq!(heard.unprotected, [unprotected]);

    accepted(session.put(object(A, "photos", "a"), b"hello", "e1").await);
    report(&mut watch, "an object", |report| report.status.as_ref().is_some_and(|status| status.objects == 1)).await;

    let request = v1::StartMigrationRequest {
        name: name("shop", SHOP),
        expected: 0,
        source: A.into(),
        target: B.into(),
        dry_run: false,
    };
    cluster.operator().await.operator().start_migration(request).await.unwrap();
    let request = v1::AcquireLeaseRequest {
        binding: "photos".into(),
        holder: "job".into(),
        binding_uid: "uid-of-photos-in-shop".into(),
        migration_epoch: 1,
    };
    let lease = shop.migration().acquire_lease(request).await.unwrap().into_inner();
    let progress =
        v1::Progress { lease: Some(lease), phase: "Replicating".into(), objects_done: 3, ..Default::default() };
    shop.migration().report_progress(progress).await.unwrap();
    let heard =
        report(&mut watch, "progress", |report| report.status.as_ref().is_some_and(|status| status.progress.is_some()))
            .await;
    let progress = heard.status.unwrap().progress.unwrap();
    assert_eq!((progress.objects_done, progress.migration_epoch, progress.lease), (3, 1, None));
    assert_eq!(heard.migration.unwrap().epoch, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(dir.path(), "first");
    let (tls_cert, tls_key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
    std::fs::copy(&cert, &tls_cert).unwrap();
    std::fs::copy(&key, &tls_key).unwrap();
    let args = ["--tls-cert", tls_cert.to_str().unwrap(), "--tls-key", tls_key.to_str().unwrap()];
    let store = Server::start(&dir.path().join("data"), &args).await;
    let reach = |root: &std::path::Path| {
        let pem = std::fs::read(root).unwrap();
        let tls = tonic::transport::ClientTlsConfig::new()
            .ca_certificate(tonic::transport::Certificate::from_pem(pem))
            .domain_name("localhost");
        let endpoint = tonic::transport::Endpoint::from_shared(format!("https://{}", store.addr)).unwrap();
        endpoint.tls_config(tls).unwrap()
    };
    let old = reach(&cert).connect().await.unwrap();

    let (renewed, renewed_key) = certificate(dir.path(), "second");
    std::fs::copy(&renewed_key, &tls_key).unwrap(); // for a moment the two files do not belong together
    std::fs::copy(&renewed, &tls_cert).unwrap();
    let since = Instant::now();
    while reach(&renewed).connect().await.is_err() {
        assert!(since.elapsed() < PATIENCE, "the renewed certificate is not shown");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(reach(&cert).connect().await.is_err(), "the old one is no longer shown");
    let mut client = v1::catalog_client::CatalogClient::new(old);
    let mut request = tonic::Request::new(v1::StatusRequest::default());
    request.metadata_mut().insert("hawser-domain", "shop".parse().unwrap());
    client.status(request).await.unwrap(); // a connection that stands is not broken by it
}

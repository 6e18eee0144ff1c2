//! The commands as a person runs them: the real program, against a store whose content the test wrote by hand.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::pin::Pin;
use std::process::{Command, Output};

use hawser_api::v1::catalog_server::{Catalog, CatalogServer};
use hawser_api::v1::{
    BindingStatus, BodyFrame, BucketEntry, GapEntry, GetObjectRequest, GetS3KeyRequest, Header, ListBucketsReply,
    ListBucketsRequest, ListGapsRequest, ListObjectsRequest, Metadata, ObjectEntry, ObjectRef, ReadBodyRequest, S3Key,
    StatusReply, StatusRequest,
};
use serde_json::Value;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

const A: &str = "s3+https://a.test";
const B: &str = "s3+https://b.test";
const NOON: i64 = 1_795_521_600; // 2026-11-24T12:00:00Z

/// A version as a test writes it down.
struct Version {
    provider: &'static str,
    key: &'static str,
    content: Option<&'static str>,
    tick: u64,
    current: bool,
    kind: &'static str,
}

const fn version(
    provider: &'static str,
    key: &'static str,
    content: Option<&'static str>,
    tick: u64,
    current: bool,
) -> Version {
    Version { provider, key, content, tick, current, kind: "text/plain" }
}

/// In the order in which the store lists versions: by key, the newest first.
const VERSIONS: &[Version] = &[
    version(A, "../../etc/passwd", Some("evil"), 1, true),
    version(A, "a", Some("file"), 2, true),
    version(A, "a/b", Some("below it"), 3, true),
    version(A, "a//b", Some("empty part"), 4, true),
    version(A, "dir/", Some(""), 5, true),
    version(A, "gone", None, 7, true),
    version(A, "gone", Some("was here"), 6, false),
    version(A, "x", Some("new"), 9, true),
    version(A, "x", Some("old!"), 8, false),
    version(B, "a", Some("file"), 20, true),
    Version { kind: "text/html", ..version(B, "a/b", Some("below it"), 21, true) },
    version(B, "only-b", Some("1"), 22, true),
    version(B, "x", Some("NEW"), 23, true),
];

impl Version {
    fn entry(&self) -> ObjectEntry {
        let content = self.content.unwrap_or_default();
        let header = |name: &str, value: &str| Header { name: name.into(), value: value.to_owned().into() };
        ObjectEntry {
            object: Some(ObjectRef {
                provider: self.provider.into(),
                bucket: "b-at-cloud".into(),
                key: self.key.into(),
            }),
            bucket: "b".into(),
            size: content.len() as u64,
            etag: format!("e{}", self.tick),
            version_id: format!("v{}", self.tick),
            tick: self.tick,
            recorded_unix: NOON + self.tick.cast_signed() * 60,
            metadata: Some(Metadata {
                headers: vec![header("content-type", self.kind)],
                headers_known: true,
                ..Metadata::default()
            }),
            tombstone: self.content.is_none(),
            current: self.current,
            gap: if self.key == "a" { "Concurrent".into() } else { String::new() },
            content: content.to_owned().into(),
            content_known: true,
            ..ObjectEntry::default()
        }
    }
}

struct Script;

type Answer<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn answer<T: Send + 'static>(items: Vec<T>) -> Result<Response<Answer<T>>, Status> {
    Ok(Response::new(Box::pin(tokio_stream::iter(items.into_iter().map(Ok)))))
}

/// Checks who asks, as a store with tokens does.
fn asked<T>(request: Request<T>) -> Result<T, Status> {
    match request.metadata().get("authorization").map(|token| token.to_str().unwrap().to_owned()) {
        Some(token) if token == "Bearer the-token-of-shop" => Ok(request.into_inner()),
        _ => Err(Status::unauthenticated("this store asks for a token: give --token-file")),
    }
}

fn listed(request: &ListObjectsRequest) -> Result<Vec<&'static Version>, Status> {
    if request.bucket != "b" {
        return Err(Status::not_found("not found"));
    }
    let provider = match request.provider.as_str() {
        "" | "a" => A,
        _ => B,
    };
    let wanted =
        |version: &&Version| version.provider == provider && version.key.as_bytes().starts_with(&request.prefix);
    Ok(VERSIONS.iter().filter(wanted).collect())
}

#[tonic::async_trait]
impl Catalog for Script {
    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        asked(request)?;
        let binding = BindingStatus {
            binding: "photos".into(),
            provider_in_force: "a".into(),
            provider_identity: A.into(),
            open_gaps: [("Concurrent".to_owned(), 1)].into(),
            ..BindingStatus::default()
        };
        Ok(Response::new(StatusReply { tick: 23, bindings: vec![binding], ..StatusReply::default() }))
    }

    type ListObjectsStream = Answer<ObjectEntry>;
    async fn list_objects(
        &self,
        request: Request<ListObjectsRequest>,
    ) -> Result<Response<Answer<ObjectEntry>>, Status> {
        let request = asked(request)?;
        let mut found = listed(&request)?;
        if request.at_tick == 0 {
            found.retain(|version| version.current);
        } else {
            found.retain(|version| version.tick <= request.at_tick);
            found.dedup_by_key(|version| version.key);
        }
        answer(found.into_iter().filter(|version| version.content.is_some()).map(Version::entry).collect())
    }

    type ListVersionsStream = Answer<ObjectEntry>;
    async fn list_versions(
        &self,
        request: Request<ListObjectsRequest>,
    ) -> Result<Response<Answer<ObjectEntry>>, Status> {
        answer(listed(&asked(request)?)?.into_iter().map(Version::entry).collect())
    }

    async fn get_object(&self, request: Request<GetObjectRequest>) -> Result<Response<ObjectEntry>, Status> {
        let request = asked(request)?;
        let key = request.object.unwrap().key;
        let of = ListObjectsRequest { bucket: request.store_bucket, ..ListObjectsRequest::default() };
        let meant = |version: &&Version| match request.version_id.as_str() {
            "" => version.current,
            id => version.entry().version_id == id,
        };
        let found = listed(&of)?.into_iter().filter(|version| version.key.as_bytes() == key).find(meant);
        found.map(|version| Response::new(version.entry())).ok_or_else(|| Status::not_found("not found"))
    }

    type ReadBodyStream = Answer<BodyFrame>;
    async fn read_body(&self, request: Request<ReadBodyRequest>) -> Result<Response<Answer<BodyFrame>>, Status> {
        let request = asked(request)?;
        let object = request.object.unwrap();
        assert_eq!(object.bucket, "b-at-cloud", "the provider's name of the bucket comes back as it was told");
        let version =
            VERSIONS.iter().find(|version| version.tick == request.tick && version.provider == object.provider);
        let content = version.unwrap().content.unwrap();
        let (one, two) = content.split_at(content.len() / 2);
        answer([one, two].map(|data| BodyFrame { data: data.to_owned().into() }).to_vec())
    }

    type ListGapsStream = Answer<GapEntry>;
    async fn list_gaps(&self, request: Request<ListGapsRequest>) -> Result<Response<Answer<GapEntry>>, Status> {
        asked(request)?;
        let object = ObjectRef { provider: A.into(), bucket: "b".into(), key: "a".into() };
        answer(vec![GapEntry {
            id: 1,
            binding: "photos".into(),
            scope: "Key".into(),
            object: Some(object),
            reason: "Concurrent".into(),
            detail: "2 writes".into(),
            opened_unix: NOON,
            ..GapEntry::default()
        }])
    }

    async fn list_buckets(&self, request: Request<ListBucketsRequest>) -> Result<Response<ListBucketsReply>, Status> {
        asked(request)?;
        let bucket =
            BucketEntry { name: "b".into(), binding: "photos".into(), objects: 6, bytes: 29, created_unix: NOON };
        Ok(Response::new(ListBucketsReply { buckets: vec![bucket] }))
    }

    async fn get_s3_key(&self, request: Request<GetS3KeyRequest>) -> Result<Response<S3Key>, Status> {
        asked(request)?;
        Ok(Response::new(S3Key { access_key: "shop".into(), secret: "the-secret-of-shop".into() }))
    }
}

/// A store that answers until the test ends, and a folder of the test's own.
struct Scene {
    url: String,
    folder: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Scene {
    fn new() -> Scene {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder().add_service(CatalogServer::new(Script));
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("token"), "the-token-of-shop\n").unwrap();
        Scene { url, folder, _runtime: runtime }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Runs `hawser`; gives exit code, standard output and standard error.
    fn hawser(&self, args: &[&str]) -> (i32, String, String) {
        let ran = self.command(args);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (ran.status.code().unwrap(), text(ran.stdout), text(ran.stderr))
    }

    fn command(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_hawser"))
            .args(args)
            .env_clear()
            .env("HAWSER_STORE", &self.url)
            .env("HAWSER_TOKEN_FILE", self.path("token"))
            .output()
            .unwrap()
    }

    /// The same, for answers in JSON.
    fn json(&self, args: &[&str]) -> Vec<Value> {
        let (code, out, error) = self.hawser(&[args, &["--json"]].concat());
        assert_eq!(code, 0, "{args:?}: {error}");
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn keys(listing: &[Value]) -> Vec<&str> {
    listing.iter().map(|object| object["key"].as_str().unwrap()).collect()
}

#[test]
fn a_listing_shows_what_is_there_and_what_was_there() {
    let scene = Scene::new();
    let now = scene.json(&["ls", "b"]);
    assert_eq!(keys(&now), ["../../etc/passwd", "a", "a/b", "a//b", "dir/", "x"]);
    assert_eq!((now[5]["size"].as_u64(), now[5]["tick"].as_u64()), (Some(3), Some(9)));
    assert_eq!(now[1]["gap"], "Concurrent");
    assert_eq!(keys(&scene.json(&["ls", "b/a/"])), ["a/b", "a//b"]);
    assert_eq!(keys(&scene.json(&["ls", "b", "--limit", "2"])).len(), 2);
    // "gone" was written in minute 6 and deleted in minute 7, "x" was replaced in minute 9.
    for at in ["8", "2026-11-24T12:08:30Z"] {
        let then = scene.json(&["ls", "b", "--at", at]);
        assert_eq!(keys(&then).last(), Some(&"x"), "{at}");
        assert_eq!(then.last().unwrap()["size"], 4, "{at}");
        assert!(!keys(&then).contains(&"gone"), "{at}");
    }
    for at in ["6", "2026-11-24T12:06:30Z"] {
        assert_eq!(keys(&scene.json(&["ls", "b", "--at", at])).last(), Some(&"gone"), "{at}");
    }
    assert_eq!(scene.json(&["ls", "b", "--versions"]).len(), 9);
    assert_eq!(keys(&scene.json(&["ls", "b", "--provider", "b"])), ["a", "a/b", "only-b", "x"]);
    let (code, out, _) = scene.hawser(&["ls", "b/a", "--long"]);
    assert_eq!(code, 0);
    assert!(out.starts_with("SIZE  RECORDED             TICK  ETAG  VERSION  TYPE        KEY\n"), "{out}");
    assert!(
        out.contains(" 4 B  2026-11-24 12:02:00     2  e2    v2       text/plain  a     (gap Concurrent)\n"),
        "{out}"
    );
    let (code, out, _) = scene.hawser(&["ls"]);
    assert_eq!((code, out.as_str()), (0, "OBJECTS  SIZE  BINDING  BUCKET\n      6  29 B  photos   b\n"));
}

#[test]
fn an_object_is_read_whole_and_from_any_time() {
    let scene = Scene::new();
    let file = scene.path("x");
    let rows: [(&[&str], &str); 4] = [
        (&["get", "b/x"], "new"),
        (&["get", "b/x", "--version", "v8"], "old!"),
        (&["get", "b/x", "--at", "8"], "old!"),
        (&["get", "b/gone", "--at", "2026-11-24T12:06:30Z"], "was here"),
    ];
    for (args, content) in rows {
        let (code, out, error) = scene.hawser(args);
        assert_eq!((code, out.as_str()), (0, content), "{args:?}: {error}");
        let (code, out, error) = scene.hawser(&[args, &["-o", &file]].concat());
        assert_eq!((code, out.as_str()), (0, ""), "{args:?}: {error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), content, "{args:?}");
    }
    let (_, _, error) = scene.hawser(&["get", "b/a"]);
    assert!(error.contains("gap Concurrent is open"), "{error}");
    let rows: [(&[&str], &str); 4] = [
        (&["get", "b/gone"], "b/gone is deleted"),
        (&["get", "b/never"], "b/never is not in the copy"),
        (&["get", "b/x", "--version", "v99"], "b/x has no such version"),
        (&["get", "b/x", "--at", "1"], "b/x has no such version"),
    ];
    for (args, said) in rows {
        let (code, out, error) = scene.hawser(args);
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(error.contains(said), "{error}");
    }
    let versions = scene.json(&["versions", "b/gone"]);
    assert_eq!((versions[0]["deleted"].as_bool(), versions[1]["deleted"].as_bool()), (Some(true), Some(false)));
    assert_eq!(scene.hawser(&["versions", "b/a"]).1.lines().count(), 2, "a/b is another object");
}

#[test]
fn an_export_stays_in_its_folder_and_compares_as_the_same() {
    let scene = Scene::new();
    let to = scene.path("out");
    let (code, out, error) = scene.hawser(&["export", "b", "--to", &to]);
    assert_eq!(code, 0, "{error}");
    assert_eq!(out, format!("6 objects, 29 B, written to {to}\n"));
    let read = |name: &str| fs::read_to_string(Path::new(&to).join(name)).unwrap();
    assert_eq!(read("%2E%2E/%2E%2E/etc/passwd"), "evil");
    assert_eq!(
        (read("a").as_str(), read("a%/b").as_str(), read("a%/%/b").as_str()),
        ("file", "below it", "empty part")
    );
    assert_eq!((read("dir/%").as_str(), read("x").as_str()), ("", "new"));
    let (code, out, _) = scene.hawser(&["diff", "b", "--folder", &to]);
    assert_eq!((code, out.as_str()), (0, "6 objects are the same, 0 differences\n"));
    fs::write(Path::new(&to).join("x"), "NEW").unwrap();
    fs::write(Path::new(&to).join("more"), "").unwrap();
    fs::remove_file(Path::new(&to).join("a")).unwrap();
    let (code, out, _) = scene.hawser(&["diff", "b", "--folder", &to]);
    assert_eq!(code, 3);
    for line in ["- a  (4 B)", "! x  (both 3 B)", "+ more  (file)"] {
        assert!(out.contains(line), "{line:?} in {out}");
    }
    let (code, _, error) = scene.hawser(&["export", "b", "--to", &to]);
    assert_eq!(code, 2);
    assert!(error.contains("is not empty: name a new folder"), "{error}");
    let below = scene.path("below");
    assert_eq!(scene.hawser(&["export", "b/a/", "--to", &below]).0, 0);
    assert_eq!(fs::read_to_string(Path::new(&below).join("b")).unwrap(), "below it");
}

#[test]
fn two_providers_differ_by_what_they_hold_and_by_what_it_is_called() {
    let scene = Scene::new();
    let (code, out, error) = scene.hawser(&["diff", "b", "--with", "b"]);
    assert_eq!(code, 3, "{error}");
    let wanted = "\
- ../../etc/passwd  (4 B)
~ a/b  (content-type)
- a//b  (10 B)
- dir/  (0 B)
+ only-b  (1 B)
! x  (both 3 B)
1 object is the same, 6 differences
";
    assert_eq!(out, wanted);
    assert_eq!(scene.hawser(&["diff", "b", "--with", "a"]).0, 0);
}

#[test]
fn status_and_gaps_say_what_is_in_doubt_and_what_repairs_it() {
    let scene = Scene::new();
    let (code, out, _) = scene.hawser(&["status"]);
    assert_eq!(code, 0);
    assert!(out.contains("1 open: Concurrent 1; see hawser gaps"), "{out}");
    assert_eq!(scene.json(&["status"])[0]["openGaps"]["Concurrent"], 1);
    let (code, out, _) = scene.hawser(&["gaps"]);
    assert_eq!(code, 0);
    assert!(out.contains("2026-11-24 12:00:00  Concurrent  Key    b/a  2 writes\n"), "{out}");
    assert!(out.contains("hawser-migrate backfill reads it now"), "{out}");
    assert_eq!(scene.hawser(&["gaps", "--reason", "Overflow"]).1, "no gap is open\n");
}

#[test]
fn every_failure_has_its_exit_code_and_says_what_to_do() {
    let scene = Scene::new();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("http://{nobody}");
    let rows: [(&[&str], i32, &str); 6] = [
        (&["status", "--store", &nobody], 1, "no store answers at"),
        (&["status", "--token-file", "/dev/null"], 1, "this store asks for a token"),
        (&["status", "--token-file", "/nowhere"], 2, "/nowhere"),
        (&["status", "--binding", "/nowhere.yaml"], 2, "/nowhere.yaml"),
        (&["ls", "other"], 1, "bucket other is not in the copy"),
        (&["get", "b"], 2, "write the bucket, a slash and the key"),
    ];
    for (args, code, said) in rows {
        let (exit, out, error) = scene.hawser(args);
        assert_eq!((exit, out.as_str()), (code, ""), "{args:?}: {error}");
        assert!(error.contains(said), "{args:?}: {error}");
        assert!(!error.contains("the-token"), "{args:?}: {error}");
    }
}

#[test]
fn the_key_of_the_s3_face_is_printed_as_tools_take_it() {
    let scene = Scene::new();
    let (code, out, _) = scene.hawser(&["s3-keys"]);
    assert_eq!(code, 0);
    assert_eq!(out, "export AWS_ACCESS_KEY_ID=shop\nexport AWS_SECRET_ACCESS_KEY=the-secret-of-shop\n");
}

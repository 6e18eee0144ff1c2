//! The commands in a cluster, against a scripted API server that stands for a real one: it answers what the test wrote
//! down, refuses the rest as one does without rights, and remembers what it was asked.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

const BINDINGS: &str = "/apis/hawser.dev/v1alpha1/namespaces/shop/cloudbindings";

struct Scene {
    folder: tempfile::TempDir,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Scene {
    /// A cluster whose API server answers GETs of these paths, and nothing else.
    fn new(answers: &[(&str, Value)]) -> Scene {
        let answers: Vec<(String, Value)> =
            answers.iter().map(|(path, value)| ((*path).to_owned(), value.clone())).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&asked);
        // It ends with the process: every test has its own.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answers, told) = (answers.clone(), Arc::clone(&told));
                std::thread::spawn(move || drop(serve(stream, &answers, &told)));
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{ "name": "it", "cluster": { "server": url } }],
            "users": [{ "name": "it", "user": { "token": "x" } }],
            "contexts": [{ "name": "it", "context": { "cluster": "it", "user": "it", "namespace": "shop" } }],
        });
        std::fs::write(folder.path().join("config"), kubeconfig.to_string()).unwrap();
        Scene { folder, asked }
    }

    fn hawser(&self, args: &[&str]) -> (i32, String, String) {
        let ran = Command::new(env!("CARGO_BIN_EXE_hawser"))
            .args(args)
            .args(["-n", "shop", "--kubeconfig"])
            .arg(self.folder.path().join("config"))
            .env_clear()
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (ran.status.code().unwrap(), text(ran.stdout), text(ran.stderr))
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(stream: std::net::TcpStream, answers: &[(String, Value)], asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split(' ');
        let (method, target) =
            (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
        let path = target.split('?').next().unwrap_or_default().to_owned();
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            if header.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        reader.read_exact(&mut vec![0; length])?;
        asked.lock().unwrap().push(format!("{method} {path}"));
        let known = answers.iter().find(|(known, _)| method == "GET" && *known == path);
        let (status, body) = match known {
            Some((_, body)) => ("200 OK", body.clone()),
            None => (
                "403 Forbidden",
                json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403,
                    "message": "forbidden", "metadata": {} }),
            ),
        };
        let body = body.to_string();
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
    }
}

fn binding(status: Value) -> Value {
    json!({
        "apiVersion": "hawser.dev/v1alpha1", "kind": "CloudBinding",
        "metadata": { "name": "photos", "namespace": "shop", "generation": 3 },
        "spec": {
            "provider": "b",
            "providers": [
                { "name": "a", "s3": { "endpoint": "https://a.test" } },
                { "name": "b", "s3": { "endpoint": "https://b.test" } },
            ],
            "buckets": [{ "name": "photos" }],
        },
        "status": status,
    })
}

fn list(bindings: &[Value]) -> Value {
    json!({ "apiVersion": "hawser.dev/v1alpha1", "kind": "CloudBindingList", "metadata": {}, "items": bindings })
}

#[test]
fn status_needs_no_more_than_the_bindings() {
    let status = json!({
        "observedGeneration": 3, "phase": "Replicating", "provider": "a",
        "migration": { "epoch": 1, "source": "a", "target": "b",
            "objects": { "total": 10, "done": 4, "verified": 0, "failed": 0, "conflicts": 0 },
            "bytes": { "total": 2048, "done": 1024 } },
    });
    let scene = Scene::new(&[(BINDINGS, list(&[binding(status)]))]);
    let (code, out, error) = scene.hawser(&["status"]);
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("in force    a; b is wanted"), "{out}");
    assert!(out.contains("a → b: 4 of 10 objects, 1.00 KiB of 2.00 KiB"), "{out}");
    assert_eq!(scene.asked(), [format!("GET {BINDINGS}")]);
}

#[test]
fn a_migration_that_waits_for_a_person_says_what_to_do() {
    let stalled = json!({ "type": "Stalled", "status": "True", "reason": "BucketMissing",
        "message": "create bucket photos at b, or set create: true", "lastTransitionTime": "2026-11-24T11:00:00Z" });
    let status = json!({ "observedGeneration": 3, "phase": "Stalled", "provider": "a", "conditions": [stalled] });
    let one = format!("{BINDINGS}/photos");
    let scene = Scene::new(&[(&one, binding(status.clone())), (BINDINGS, list(&[binding(status)]))]);
    let (code, out, _) = scene.hawser(&["migrate", "--watch"]);
    assert_eq!(code, 3, "a script can tell");
    assert!(out.ends_with("BucketMissing: create bucket photos at b, or set create: true\n"), "{out}");

    let scene = Scene::new(&[(&one, binding(json!({ "observedGeneration": 3, "phase": "InForce", "provider": "b" })))]);
    let (code, out, _) = scene.hawser(&["migrate", "photos", "--watch"]);
    assert_eq!((code, out.as_str()), (0, "photos: b is in force, and nothing is under way\n"));
}

#[test]
fn a_right_that_is_missing_is_named() {
    let scene = Scene::new(&[]);
    let (code, _, error) = scene.hawser(&["status"]);
    assert_eq!(code, 1);
    assert!(error.contains("you may not list cloudbindings.hawser.dev in namespace shop"), "{error}");

    let config = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "hawser-photos" },
        "data": { "store-ca.pem": "x" } });
    let path = "/api/v1/namespaces/shop/configmaps/hawser-photos";
    let scene = Scene::new(&[(BINDINGS, list(&[binding(json!({}))])), (path, config)]);
    let (code, _, error) = scene.hawser(&["ls"]);
    assert_eq!(code, 1);
    assert!(error.contains("you may not create serviceaccounts/token in namespace shop"), "{error}");
}

#[test]
fn what_check_may_not_see_is_unknown_and_not_wrong() {
    let version = json!({ "major": "1", "minor": "33", "gitVersion": "v1.33.0", "gitCommit": "", "gitTreeState": "",
        "buildDate": "", "goVersion": "", "compiler": "", "platform": "" });
    let scene = Scene::new(&[("/version", version), (BINDINGS, list(&[]))]);
    let (code, out, error) = scene.hawser(&["check"]);
    assert_eq!(code, 0, "{out}{error}");
    assert!(out.contains("  ✓ Kubernetes v1.33.0\n"), "{out}");
    assert!(
        out.contains("  ? operator: not known\n      → you may not get deployments.apps in namespace hawser-system\n"),
        "{out}"
    );
    assert!(!out.contains('✗'), "{out}");
    let (code, out, _) = scene.hawser(&["check", "--json"]);
    assert_eq!(code, 0);
    assert!(out.lines().all(|line| serde_json::from_str::<Value>(line).unwrap()["sign"].is_string()), "{out}");
}

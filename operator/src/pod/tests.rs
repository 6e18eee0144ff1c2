//! Pods in and out, as YAML in `tests/shapes`: `NAME.yaml` goes in, `NAME.protected.yaml` comes out.
//! `UPDATE=1 cargo test` writes what comes out anew; the diff is for review.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hawser_api::CloudBinding;
use serde_json::{Value, json};

use super::resources::Resources;
use super::{BINDING, Denial, Protected, Settings, Wish, config_hash, names, protect};

fn settings() -> Settings {
    Settings {
        image: "docker.io/hawser/sidecar:1".into(),
        pull_policy: None,
        pull_secrets: Vec::new(),
        store: "https://hawser-store.hawser.svc:7070".into(),
        store_ca: "-----BEGIN CERTIFICATE-----\nSTORE\n-----END CERTIFICATE-----\n".into(),
        resources: Resources {
            requests: "cpu=50m,memory=96Mi".parse().unwrap(),
            limits: "cpu=1,memory=256Mi".parse().unwrap(),
        },
    }
}

fn binding(name: &str, endpoints: &[&str]) -> (CloudBinding, String) {
    let providers: Vec<String> = endpoints
        .iter()
        .enumerate()
        .map(|(at, endpoint)| format!("  - {{name: p{at}, s3: {{endpoint: \"{endpoint}\"}}}}\n"))
        .collect();
    let manifest = format!(
        "apiVersion: hawser.dev/v1alpha1\nkind: CloudBinding\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         provider: p0\n  providers:\n{}  buckets: [{{name: photos}}]\n",
        providers.concat()
    );
    (serde_saphyr::from_str(&manifest).unwrap(), manifest)
}

fn wish(pod: &Value) -> Wish {
    let named = names(pod["metadata"]["annotations"][BINDING].as_str().unwrap()).unwrap();
    let bindings =
        named.iter().map(|name| binding(name, &["https://s3.cloud.test", "http://minio.test:9000"])).collect();
    Wish { namespace: "shop".into(), namespace_labels: BTreeMap::new(), bindings }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/pod/tests/shapes")
}

fn yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap()
}

fn read(path: &Path) -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The shapes, by name.
fn shapes() -> BTreeMap<String, Value> {
    let files = std::fs::read_dir(folder()).unwrap().map(|file| file.unwrap().path());
    let shapes: BTreeMap<String, Value> = files
        .filter(|file| !file.to_str().unwrap().ends_with(".protected.yaml"))
        .map(|file| (file.file_stem().unwrap().to_str().unwrap().to_owned(), read(&file)))
        .collect();
    assert!(shapes.len() >= 10, "{} shapes", shapes.len());
    shapes
}

#[test]
fn every_shape_becomes_the_pod_that_was_reviewed() {
    for (name, pod) in shapes() {
        let out = protect(&pod, &wish(&pod), &settings()).unwrap_or_else(|denial| panic!("{name}: {}", denial.text()));
        let mut text = yaml(&out.pod);
        for warning in &out.warnings {
            text.push_str(&format!("# {warning}\n"));
        }
        let golden = folder().join(format!("{name}.protected.yaml"));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&golden, text).unwrap();
            continue;
        }
        let wanted = std::fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(text, wanted, "{name}: run with UPDATE=1 and review the diff");
    }
}

#[test]
fn rendering_again_changes_nothing_and_leaves_no_trace_of_another_rendering() {
    let mut other = settings();
    other.image = "docker.io/hawser/sidecar:0".into();
    other.resources.limits = "cpu=3,memory=512Mi".parse().unwrap();
    for (name, pod) in shapes() {
        let once = protect(&pod, &wish(&pod), &settings()).unwrap();
        assert_eq!(protect(&once.pod, &wish(&pod), &settings()).unwrap(), once, "{name}");
        let by_another = protect(&pod, &wish(&pod), &other).unwrap();
        assert_ne!(by_another, once, "{name}");
        let anew = protect(&by_another.pod, &wish(&pod), &settings()).unwrap();
        assert_eq!(anew, once, "{name}: a pod that another release rendered");
    }
}

#[test]
fn the_patch_makes_of_the_pod_what_was_rendered_and_keeps_fields_of_a_newer_cluster() {
    for (name, mut pod) in shapes() {
        pod["spec"]["fromTheFuture"] = json!({"a": [1]});
        pod["spec"]["containers"][0]["alsoNew"] = json!("kept");
        let out = protect(&pod, &wish(&pod), &settings()).unwrap().pod;
        let patch = json_patch::diff(&pod, &out);
        let mut patched = pod.clone();
        json_patch::patch(&mut patched, &patch).unwrap();
        assert_eq!(patched, out, "{name}");
        assert_eq!(out["spec"]["containers"][0]["alsoNew"], "kept");
        assert_eq!(out["spec"]["fromTheFuture"], json!({"a": [1]}));
    }
}

#[test]
fn what_was_injected_by_a_webhook_in_between_stays() {
    let pod = shapes()["plain"].clone();
    let mut once = protect(&pod, &wish(&pod), &settings()).unwrap().pod;
    let containers = once["spec"]["initContainers"].as_array_mut().unwrap();
    containers.insert(0, json!({"name": "theirs", "image": "vault", "env": [{"name": "A", "value": "b"}]}));
    let Protected { pod: again, .. } = protect(&once, &wish(&pod), &settings()).unwrap();
    let names: Vec<_> =
        again["spec"]["initContainers"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["hawser-redirect", "hawser-sidecar", "hawser-trust", "theirs"]);
    let theirs = &again["spec"]["initContainers"][3];
    assert_eq!(theirs["env"][0], json!({"name": "A", "value": "b"}));
    assert!(theirs["env"].as_array().unwrap().iter().any(|it| it["name"] == "SSL_CERT_FILE"), "and is protected too");
}

#[test]
fn the_capability_and_the_state_are_in_one_container_each() {
    for (name, pod) in shapes() {
        let out = protect(&pod, &wish(&pod), &settings()).unwrap().pod;
        let all = ["initContainers", "containers"].iter().flat_map(|list| out["spec"][list].as_array().unwrap());
        let (mut admins, mut keepers) = (Vec::new(), Vec::new());
        for container in all {
            let who = container["name"].as_str().unwrap();
            let theirs = |field: &str| container[field].to_string();
            if theirs("securityContext").contains("NET_ADMIN") {
                admins.push(who);
            }
            if theirs("volumeMounts").contains("hawser-state") || theirs("volumeMounts").contains("hawser-token") {
                keepers.push(who);
            }
            let bounded = ["/requests/cpu", "/requests/memory", "/limits/cpu", "/limits/memory"]
                .iter()
                .all(|path| container["resources"].pointer(path).is_some());
            assert!(bounded || !who.starts_with("hawser-"), "{name}: {who} has no bound");
        }
        assert_eq!((admins, keepers), (vec!["hawser-redirect"], vec!["hawser-sidecar"]), "{name}");
    }
}

/// A pod with one container, changed by a merge patch.
fn shaped(change: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "a", "namespace": "shop", "annotations": {BINDING: "photos"}},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    });
    json_patch::merge(&mut pod, &change);
    pod
}

fn container(change: Value) -> Value {
    let mut container = json!({"name": "app", "image": "app"});
    json_patch::merge(&mut container, &change);
    shaped(json!({"spec": {"containers": [container]}}))
}

fn variables(list: &[(&str, &str)]) -> Value {
    let list: Vec<Value> = list.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    container(json!({"env": list}))
}

#[test]
fn what_cannot_be_protected_is_refused_with_one_reason_that_says_what_to_do() {
    let label = |name: &str, value: &str| shaped(json!({"metadata": {"labels": {name: value}}}));
    let annotated = |name: &str, value: &str| shaped(json!({"metadata": {"annotations": {name: value}}}));
    let port = |port: u16| container(json!({"ports": [{"containerPort": port}]}));
    let rows = [
        ("node's network", shaped(json!({"spec": {"hostNetwork": true}})), Some("HostNetwork")),
        ("Windows by its field", shaped(json!({"spec": {"os": {"name": "windows"}}})), Some("Windows")),
        (
            "Windows by its node",
            shaped(json!({"spec": {"nodeSelector": {"kubernetes.io/os": "windows"}}})),
            Some("Windows"),
        ),
        ("Linux by its field", shaped(json!({"spec": {"os": {"name": "linux"}}})), None),
        ("mirror of a file", annotated("kubernetes.io/config.mirror", "x"), Some("StaticPod")),
        (
            "pod as the sidecar's user",
            shaped(json!({"spec": {"securityContext": {"runAsUser": 61337}}})),
            Some("RunsAsSidecarUser"),
        ),
        (
            "container as the sidecar's user",
            container(json!({"securityContext": {"runAsUser": 61337}})),
            Some("RunsAsSidecarUser"),
        ),
        ("another user", container(json!({"securityContext": {"runAsUser": 1337}})), None),
        (
            "Istio's container",
            shaped(json!({"spec": {"initContainers": [{"name": "istio-proxy"}]}})),
            Some("MeshPresent"),
        ),
        ("Istio's label", label("sidecar.istio.io/inject", "true"), Some("MeshPresent")),
        ("out of Istio", label("sidecar.istio.io/inject", "false"), None),
        ("Linkerd's annotation", annotated("linkerd.io/inject", "enabled"), Some("MeshPresent")),
        ("out of Linkerd", annotated("linkerd.io/inject", "disabled"), None),
        ("redirect port", port(15001), Some("PortClash")),
        ("admin port", port(15090), Some("PortClash")),
        ("another port", port(8080), None),
        ("the redirect port in UDP", container(json!({"ports": [{"containerPort": 15001, "protocol": "UDP"}]})), None),
        ("proxy", variables(&[("HTTPS_PROXY", "http://proxy:3128")]), Some("BehindProxy")),
        ("proxy in small letters, for http", variables(&[("http_proxy", "http://proxy:3128")]), Some("BehindProxy")),
        ("proxy, one host excepted", variables(&[("HTTPS_PROXY", "p"), ("NO_PROXY", "a.test, .cloud.test")]), None),
        ("proxy, excepted by name", variables(&[("https_proxy", "p"), ("no_proxy", "s3.cloud.test")]), None),
        ("proxy, another excepted", variables(&[("HTTPS_PROXY", "p"), ("NO_PROXY", "oud.test")]), Some("BehindProxy")),
        ("proxy for nobody", variables(&[("HTTPS_PROXY", "p"), ("HTTP_PROXY", "p"), ("NO_PROXY", "*")]), None),
        ("empty proxy", variables(&[("HTTPS_PROXY", "")]), None),
        ("other interception", annotated("hawser.dev/interception", "Hosts"), Some("Interception")),
        ("the same interception", annotated("hawser.dev/interception", "Redirect"), None),
        ("resources that are none", annotated("hawser.dev/resources", "lots"), Some("BadAnnotation")),
        ("resources upside down", annotated("hawser.dev/resources", "{requests: {cpu: '3'}}"), Some("BadAnnotation")),
        (
            "too little memory",
            annotated("hawser.dev/resources", "{requests: {memory: 1Mi}, limits: {memory: 8Mi}}"),
            Some("BadAnnotation"),
        ),
        ("shared processes", shaped(json!({"spec": {"shareProcessNamespace": true}})), None),
        ("no list of containers", shaped(json!({"spec": {"containers": 7}})), Some("Unreadable")),
    ];
    for (trap, pod, reason) in rows {
        let denied = protect(&pod, &wish(&pod), &settings()).err();
        assert_eq!(denied.as_ref().map(Denial::reason), reason, "{trap}");
        if let Some(denial) = denied {
            assert!(denial.text().len() > 40, "{trap}: {}", denial.text());
        }
    }
}

#[test]
fn a_namespace_speaks_for_its_pods() {
    let rows = [
        ("pod-security.kubernetes.io/enforce", "restricted", json!({}), Some("NamespaceForbidsNetAdmin")),
        ("pod-security.kubernetes.io/enforce", "baseline", json!({}), Some("NamespaceForbidsNetAdmin")),
        ("pod-security.kubernetes.io/enforce", "privileged", json!({}), None),
        ("pod-security.kubernetes.io/warn", "restricted", json!({}), None),
        ("istio-injection", "enabled", json!({}), Some("MeshPresent")),
        ("istio.io/rev", "canary", json!({}), Some("MeshPresent")),
        ("istio-injection", "enabled", json!({"labels": {"sidecar.istio.io/inject": "false"}}), None),
        ("istio-injection", "disabled", json!({}), None),
        ("linkerd.io/inject", "enabled", json!({}), Some("MeshPresent")),
        ("linkerd.io/inject", "enabled", json!({"annotations": {"linkerd.io/inject": "disabled"}}), None),
    ];
    for (label, value, metadata, reason) in rows {
        let pod = shaped(json!({"metadata": metadata}));
        let mut wish = wish(&pod);
        wish.namespace_labels.insert(label.into(), value.into());
        let denied = protect(&pod, &wish, &settings()).err();
        assert_eq!(denied.map(|denial| denial.reason()), reason, "{label}={value} {}", pod["metadata"]);
    }
}

#[test]
fn an_annotation_names_bindings() {
    for (text, wanted) in [
        ("photos", Some(vec!["photos"])),
        (" photos , logs,photos", Some(vec!["photos", "logs"])),
        ("", None),
        ("photos,", None),
        ("Photos", None),
        ("a,b,c,d,e,f,g,h,i", None),
    ] {
        let wanted: Option<Vec<String>> = wanted.map(|names| names.into_iter().map(str::to_owned).collect());
        assert_eq!(names(text).ok(), wanted, "{text:?}");
    }
}

#[test]
fn the_hash_changes_with_what_a_running_pod_cannot_follow_and_with_nothing_else() {
    let hash = |binding: &CloudBinding, settings: &Settings| config_hash(std::slice::from_ref(binding), settings);
    let (before, _) = binding("photos", &["https://a.test", "https://b.test"]);
    let first = hash(&before, &settings());
    let mut moved = before.clone();
    moved.spec.provider = "p1".into();
    moved.spec.migration.parallelism = 3;
    assert_eq!(hash(&moved, &settings()), first, "a migration restarts no pod");
    let (ports, _) = binding("photos", &["https://a.test", "https://b.test:8443"]);
    assert_ne!(hash(&ports, &settings()), first);
    let mut image = settings();
    image.image = "other".into();
    assert_ne!(hash(&before, &image), first);
}

#![allow(clippy::unwrap_used)]
use std::fs;

use kube::CustomResourceExt;

use super::load::parse;
use super::*;

const GOOD: &str = r#"
apiVersion: hawser.dev/v1alpha1
kind: CloudBinding
metadata: {name: photos, namespace: shop}
spec:
  provider: aws
  providers:
  - name: aws
    s3:
      endpoint: https://s3.eu-central-1.amazonaws.com
      region: eu-central-1
      addressing: Auto
      credentials: {secretName: photos-aws}
      ca: {configMapName: own-roots, key: ca.pem}
  - name: hetzner
    s3: {endpoint: https://fsn1.your-objectstorage.com, region: fsn1, credentials: {secretName: photos-hetzner}}
  buckets:
  - name: photos
    create: false
    names: {hetzner: photos-eu}
  - name: thumbs
  blockSize: 128Ki
  interception: Redirect
  retention: {versions: 10, days: 90}
  migration: {parallelism: 16, bandwidth: 200Mi, dryRun: false, accept: [], conflicts: Stop}
  reconcile: {schedule: "@daily"}
"#;

const LEAST: &str = r#"
apiVersion: hawser.dev/v1alpha1
kind: CloudBinding
metadata: {name: all}
spec:
  provider: a
  providers: [{name: a, s3: {endpoint: "http://127.0.0.1:9000"}}]
  buckets: [{name: "*"}]
"#;

#[test]
fn a_manifest_reads_as_it_is_written() {
    let binding = parse(GOOD).unwrap();
    assert_eq!((binding.name(), binding.domain()), ("photos", "shop"));
    let aws = binding.wanted().unwrap();
    assert_eq!(aws.id().to_string(), "s3+https://s3.eu-central-1.amazonaws.com");
    assert_eq!((aws.s3.signing_region(), aws.s3.path_style()), ("eu-central-1", false));
    assert_eq!(aws.variable("AWS_ACCESS_KEY_ID"), "HAWSER_AWS_AWS_ACCESS_KEY_ID");
    assert_eq!(binding.spec.block_size.bytes(), 128 * 1024);
    assert_eq!(binding.spec.migration.bandwidth.unwrap().bytes_per_second().get(), 200 << 20);
    assert_eq!(binding.store_bucket("aws", "photos"), Some("photos"));
    assert_eq!(binding.store_bucket("hetzner", "photos-eu"), Some("photos"));
    assert_eq!(binding.store_bucket("hetzner", "photos"), None);
    assert_eq!(binding.store_bucket("aws", "other"), None);
}

#[test]
fn what_is_left_out_has_its_default() {
    let binding = parse(LEAST).unwrap();
    assert_eq!(binding.domain(), "default");
    assert_eq!(binding.spec.block_size, BlockSize::DEFAULT);
    assert_eq!(binding.spec.interception, Interception::Redirect);
    assert_eq!(binding.spec.retention, None);
    assert_eq!(binding.spec.migration, Migration::default());
    assert_eq!(binding.spec.reconcile.schedule, "@hourly");
    assert_eq!(binding.store_bucket("a", "whatever"), Some("whatever"));
    let a = binding.wanted().unwrap();
    assert_eq!((a.s3.signing_region(), a.s3.path_style()), ("us-east-1", true));
}

#[test]
fn a_written_binding_reads_back_as_the_same_one() {
    for text in [GOOD, LEAST] {
        let binding = parse(text).unwrap();
        let yaml = serde_saphyr::to_string(&binding).unwrap();
        assert_eq!(parse(&yaml).unwrap(), binding, "{yaml}");
        let json = serde_json::to_string(&binding).unwrap();
        assert_eq!(parse(&json).unwrap(), binding, "{json}");
    }
}

/// What is replaced in [`GOOD`], by what, and everything that is said of it.
const BAD: &[(&str, &str, &str)] = &[
    ("kind: CloudBinding", "kind: CloudBindng", "kind: invalid value \"CloudBindng\": must be CloudBinding"),
    (
        "hawser.dev/v1alpha1",
        "hawser.dev/v1",
        "apiVersion: invalid value \"hawser.dev/v1\": must be hawser.dev/v1alpha1",
    ),
    (
        "metadata: {name: photos, namespace: shop}",
        "metadata: {namespace: shop}",
        "metadata.name: must be there: the store knows the binding by it",
    ),
    (
        "name: photos, namespace",
        "name: Photos, namespace",
        "metadata.name: invalid value \"Photos\": must be 1 to 253 lower-case letters, digits, inner dashes and dots",
    ),
    (
        "name: photos, namespace",
        "name: a-name-that-is-longer-than-forty-characters, namespace",
        "metadata.name: invalid value \"a-name-that-is-longer-than-forty-characters\": the binding's name must have 40 characters at most: the names of Jobs are made from it",
    ),
    (
        "namespace: shop",
        "namespace: Shop",
        "metadata.namespace: invalid value \"Shop\": must be 1 to 63 lower-case letters, digits and inner dashes",
    ),
    (
        "metadata: {",
        "sepc: {}\nmetadata: {",
        "sepc: unknown field: must be one of apiVersion, kind, metadata, spec, status (line 4)",
    ),
    (
        "provider: aws",
        "provider: gcs",
        "spec.provider: invalid value \"gcs\": must be the name of one of spec.providers (aws, hetzner)",
    ),
    (
        "provider: aws",
        "providr: aws",
        "spec.providr: unknown field: must be one of provider, providers, buckets, blockSize, interception, retention, reconcile, migration (line 6)",
    ),
    ("  provider: aws\n", "", "spec.provider: must be there"),
    (
        "- name: hetzner",
        "- name: aws",
        "spec.providers[1].name: invalid value \"aws\": must be there only once; spec.buckets[0].names: invalid value \"hetzner\": the keys of names must be names of spec.providers (aws, aws)",
    ),
    (
        "- name: hetzner",
        "- name: Hetzner_1",
        "spec.providers[1].name: invalid value \"Hetzner_1\": must be 1 to 63 lower-case letters, digits and inner dashes; spec.buckets[0].names: invalid value \"hetzner\": the keys of names must be names of spec.providers (aws, Hetzner_1)",
    ),
    (
        "https://fsn1.your-objectstorage.com",
        "https://s3.eu-central-1.amazonaws.com",
        "spec.providers[1].s3.endpoint: invalid value \"https://s3.eu-central-1.amazonaws.com\": two providers must not have one endpoint: they would be the same provider",
    ),
    (
        "https://fsn1.your-objectstorage.com",
        "https://fsn1.your-objectstorage.com:443",
        "spec.providers[1].s3.endpoint: invalid value \"https://fsn1.your-objectstorage.com:443\": the default port must be left out, so that one endpoint has one text (line 16)",
    ),
    (
        "https://fsn1.your-objectstorage.com",
        "https://FSN1.your-objectstorage.com/",
        "spec.providers[1].s3.endpoint: invalid value \"https://FSN1.your-objectstorage.com/\": must be http:// or https:// and a host in lower case, with :PORT where it is not the default one and nothing after it (line 16)",
    ),
    (
        "region: fsn1",
        "regoin: fsn1",
        "spec.providers[1].s3.regoin: unknown field: must be one of endpoint, region, addressing, credentials, ca (line 16)",
    ),
    (
        "region: fsn1",
        "region: \"fsn1 \"",
        "spec.providers[1].s3.region: invalid value \"fsn1 \": must be 1 to 63 letters, digits, dots, dashes and underscores, a letter or digit first",
    ),
    ("{endpoint: https://fsn1.your-objectstorage.com, ", "{", "spec.providers[1].s3.endpoint: must be there"),
    (
        "addressing: Auto",
        "addressing: path",
        "spec.providers[0].s3.addressing: invalid value \"path\": must be one of Auto, Path, VirtualHosted (line 12)",
    ),
    (
        "secretName: photos-aws",
        "serviceAccountName: photos",
        "spec.providers[0].s3.credentials.serviceAccountName: unknown field: must be one of secretName (line 13)",
    ),
    (
        "secretName: photos-aws",
        "secretName: Photos",
        "spec.providers[0].s3.credentials.secretName: invalid value \"Photos\": must be 1 to 253 lower-case letters, digits, inner dashes and dots",
    ),
    ("- name: thumbs", "- name: photos", "spec.buckets[1].name: invalid value \"photos\": must be there only once"),
    (
        "- name: thumbs",
        "- name: \"*\"",
        "spec.buckets[1].name: invalid value \"*\": \"*\" must be the only bucket: it stands for all of them",
    ),
    (
        "- name: thumbs",
        "- name: photos-eu",
        "spec.buckets: invalid value \"photos-eu\": two buckets must not be the same one at a provider (hetzner)",
    ),
    (
        "- name: thumbs",
        "- name: ../photos",
        "spec.buckets[1].name: invalid value \"../photos\": must be 1 to 63 letters, digits, dots, dashes and underscores, a letter or digit first",
    ),
    (
        "names: {hetzner:",
        "names: {hezner:",
        "spec.buckets[0].names: invalid value \"hezner\": the keys of names must be names of spec.providers (aws, hetzner)",
    ),
    (
        "names: {hetzner: photos-eu}",
        "names: {hetzner: \"photos eu\"}",
        "spec.buckets[0].names.hetzner: invalid value \"photos eu\": must be 1 to 63 letters, digits, dots, dashes and underscores, a letter or digit first",
    ),
    ("create: false", "create: never", "spec.buckets[0].create: must be true or false (line 19)"),
    (
        "blockSize: 128Ki",
        "blockSize: 100Ki",
        "spec.blockSize: invalid value \"100Ki\": must be one of 16Ki, 32Ki, 64Ki, 128Ki, 256Ki, 512Ki, 1Mi, 2Mi, 4Mi, 8Mi (line 22)",
    ),
    (
        "interception: Redirect",
        "interception: Magic",
        "spec.interception: invalid value \"Magic\": must be one of Redirect, Proxy (line 23)",
    ),
    ("days: 90", "days: 0", "spec.retention.days: invalid value \"0\": must be 1 to 36500"),
    (
        "\"@daily\"",
        "\"@yearly\"",
        "spec.reconcile.schedule: invalid value \"@yearly\": must be @hourly, @daily, @weekly, @monthly or the five fields of cron",
    ),
    (
        "\"@daily\"",
        "\"17 * * *\"",
        "spec.reconcile.schedule: invalid value \"17 * * *\": must be @hourly, @daily, @weekly, @monthly or the five fields of cron",
    ),
    ("days: 90", "days: 90d", "spec.retention.days: must be a whole number (line 24)"),
    (
        "bandwidth: 200Mi",
        "bandwidth: 200MB",
        "spec.migration.bandwidth: invalid value \"200MB\": must be a whole number of bytes from 1, with k, M, G, T, Ki, Mi, Gi or Ti after it if need be, like 200Mi (line 25)",
    ),
    ("parallelism: 16", "parallelism: 1000", "spec.migration.parallelism: invalid value \"1000\": must be 1 to 256"),
    (
        "accept: []",
        "accept: [Everything]",
        "spec.migration.accept[0]: invalid value \"Everything\": must be one of MissingObjects (line 25)",
    ),
    (
        "conflicts: Stop",
        "conflicts: Ignore",
        "spec.migration.conflicts: invalid value \"Ignore\": must be one of Stop, KeepTarget, Overwrite (line 25)",
    ),
    (
        "  interception: Redirect",
        "  interception: Redirect\n  interception: Proxy",
        "spec.interception: must be there only once (line 24)",
    ),
    ("spec:\n", "spec:\n\tx: y\n", "manifest: tabs disallowed within this context (block indentation) (line 6)"),
    ("  migration: {", "---\n  migration: {", "manifest: must be one document, not several (line 26)"),
];

#[test]
fn a_bad_manifest_says_where_it_is_wrong_and_what_is_allowed() {
    for (good, bad, said) in BAD {
        assert_eq!(GOOD.matches(good).count(), 1, "{good:?} is once in the good manifest");
        let violations = parse(&GOOD.replace(good, bad)).expect_err(bad);
        let all: Vec<String> = violations.iter().map(ToString::to_string).collect();
        assert_eq!(all.join("; "), *said, "{bad:?}");
    }
}

#[test]
fn bounds_hold_at_their_edge_and_break_past_it() {
    let with = |providers: usize, buckets: usize| {
        let mut binding = parse(LEAST).unwrap();
        let provider = binding.spec.providers[0].clone();
        binding.spec.providers = (0..providers)
            .map(|n| {
                let mut provider = provider.clone();
                provider.name = if n == 0 { "a".into() } else { format!("p{n}") };
                provider.s3.endpoint = format!("https://cloud-{n}.test").parse().unwrap();
                provider
            })
            .collect();
        let bucket = |n: usize| Bucket { name: format!("b{n}"), create: false, names: BTreeMap::new() };
        binding.spec.buckets = (0..buckets).map(bucket).collect();
        rules::check(&binding).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(with(1, 1), "");
    assert_eq!(with(8, 100), "");
    assert_eq!(with(9, 1), "spec.providers: must be 1 to 8 providers, not 9");
    assert_eq!(with(1, 101), "spec.buckets: must be 1 to 100 buckets, not 101; \"*\" stands for all");
    assert_eq!(with(1, 0), "spec.buckets: must be 1 to 100 buckets, not 0; \"*\" stands for all");
}

#[test]
fn a_change_may_touch_neither_the_block_size_nor_the_identity_of_the_provider_in_force() {
    let mut old = parse(GOOD).unwrap();
    old.status = Some(CloudBindingStatus { provider: Some("aws".into()), ..Default::default() });
    let change = |edit: fn(&mut CloudBinding)| {
        let mut new = old.clone();
        edit(&mut new);
        rules::check_change(&old, &new).len()
    };
    assert_eq!(change(|new| new.spec.provider = "hetzner".into()), 0);
    assert_eq!(change(|new| new.spec.providers[0].s3.region = Some("x".into())), 0);
    assert_eq!(change(|new| new.spec.providers[1].s3.endpoint = "https://b.test".parse().unwrap()), 0);
    assert_eq!(change(|new| new.spec.block_size = BlockSize::MIN), 1);
    assert_eq!(change(|new| new.spec.providers[0].s3.endpoint = "https://b.test".parse().unwrap()), 1);
    assert_eq!(change(|new| drop(new.spec.providers.remove(0))), 1);
}

#[test]
fn a_folder_holds_each_binding_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    assert!(matches!(load_all(path), Err(LoadError::Count { count: 0, .. })));
    fs::write(path.join("b.yaml"), GOOD).unwrap();
    fs::write(path.join("a.yml"), LEAST).unwrap();
    fs::write(path.join(".hidden.yaml"), "nothing").unwrap();
    fs::write(path.join("ca.pem"), "nothing").unwrap();
    let names: Vec<String> = load_all(path).unwrap().iter().map(|binding| binding.name().to_owned()).collect();
    assert_eq!(names, ["all", "photos"]);
    assert_eq!(load_all(&path.join("b.yaml")).unwrap().len(), 1);
    fs::write(path.join("c.yaml"), GOOD).unwrap();
    let error = load_all(path).unwrap_err().to_string();
    assert!(error.ends_with("c.yaml are both CloudBinding shop/photos: remove one"), "{error}");
    fs::write(path.join("c.yaml"), GOOD.replace("provider: aws", "provider: gcs")).unwrap();
    let error = load_all(path).unwrap_err().to_string();
    assert!(error.contains("c.yaml: spec.provider: invalid value \"gcs\""), "{error}");
    assert!(matches!(load(&path.join("none.yaml")), Err(LoadError::Read { .. })));
}

/// What must be in the schema for the API server to refuse what [`rules::check`] refuses.
#[test]
fn the_schema_holds_bounds_patterns_and_rules() {
    let crd = serde_json::to_value(CloudBinding::crd()).unwrap();
    assert_eq!(crd["spec"]["names"]["shortNames"][0], "cb");
    assert_eq!(crd["spec"]["names"]["categories"][0], "hawser");
    assert!(crd["spec"]["versions"][0]["subresources"]["status"].is_object());
    let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let spec = &root["properties"]["spec"];
    let rows = [
        ("", "/x-kubernetes-validations/0/rule", "\"size(self.metadata.name) <= 40\""),
        ("/properties/spec", "/x-kubernetes-validations/0/fieldPath", "\".provider\""),
        ("/properties/spec/properties/providers", "/maxItems", "8"),
        ("/properties/spec/properties/providers", "/x-kubernetes-list-type", "\"map\""),
        ("/properties/spec/properties/providers", "/x-kubernetes-list-map-keys/0", "\"name\""),
        ("/properties/spec/properties/providers/items/properties/s3/properties/endpoint", "/maxLength", "253"),
        ("/properties/spec/properties/buckets", "/maxItems", "100"),
        ("/properties/spec/properties/buckets", "/x-kubernetes-list-type", "\"map\""),
        ("/properties/spec/properties/buckets/items/properties/name", "/maxLength", "63"),
        ("/properties/spec/properties/blockSize", "/default", "\"128Ki\""),
        ("/properties/spec/properties/blockSize", "/enum/9", "\"8Mi\""),
        ("/properties/spec/properties/blockSize", "/x-kubernetes-validations/0/rule", "\"self == oldSelf\""),
        ("/properties/spec/properties/migration/properties/parallelism", "/default", "16"),
        ("/properties/spec/properties/migration/properties/parallelism", "/maximum", "256.0"),
    ];
    for (place, field, value) in rows {
        let found = root.pointer(&format!("{place}{field}")).map(ToString::to_string);
        assert_eq!(found.as_deref(), Some(value), "{place}{field}");
    }
    let described = |schema: &serde_json::Value| schema["description"].as_str().is_some_and(|text| !text.is_empty());
    let mut undescribed = Vec::new();
    for (name, half) in [("spec", spec), ("status", &root["properties"]["status"])] {
        walk(half, name, &mut |path, schema| {
            if !described(schema) && !path.ends_with("[]") && !path.ends_with("{}") {
                undescribed.push(path.to_owned());
            }
        });
    }
    assert!(undescribed.is_empty(), "{undescribed:?}");
}

fn walk(schema: &serde_json::Value, path: &str, visit: &mut dyn FnMut(&str, &serde_json::Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), visit);
    }
    if schema["items"].is_object() {
        walk(&schema["items"], &format!("{path}[]"), visit);
    }
    if schema["additionalProperties"].is_object() {
        walk(&schema["additionalProperties"], &format!("{path}{{}}"), visit);
    }
}

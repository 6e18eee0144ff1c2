//! Each rule is written twice; here both are asked about the same bindings.
#![allow(clippy::unwrap_used)]

use cel::{Context, Program, Value};

use super::super::load::parse;
use super::super::{Bucket, CloudBindingStatus};
use super::*;
use crate::BlockSize;
use crate::provider::Endpoint;

const BINDING: &str = r#"
apiVersion: hawser.dev/v1alpha1
kind: CloudBinding
metadata: {name: photos, namespace: shop}
spec:
  provider: a
  providers: [{name: a, s3: {endpoint: "https://a.test"}}, {name: b, s3: {endpoint: "https://b.test"}}]
  buckets: [{name: x, names: {b: x-at-b}}, {name: y}]
"#;

/// What the API server would say.
fn by_cel(rule: Rule, new: &serde_json::Value, old: Option<&serde_json::Value>) -> bool {
    let mut context = Context::default();
    context.add_variable("self", new).unwrap();
    if let Some(old) = old {
        context.add_variable("oldSelf", old).unwrap();
    }
    let said = Program::compile(rule.cel).unwrap().execute(&context);
    match said {
        Ok(Value::Bool(holds)) => holds,
        other => panic!("{}: {other:?}", rule.cel),
    }
}

fn by_rust(rule: Rule, violations: &[Violation]) -> bool {
    !violations.iter().any(|violation| violation.message.starts_with(rule.message))
}

fn json(binding: &CloudBinding) -> serde_json::Value {
    serde_json::to_value(binding).unwrap()
}

#[test]
fn a_rule_says_the_same_in_cel_and_in_rust() {
    let rules = [
        (NAME_SHORT, ""),
        (PROVIDER_NAMED, "/spec"),
        (NAMES_OF_PROVIDERS, "/spec"),
        (BUCKETS_APART, "/spec"),
        (IDENTITIES_APART, "/spec/providers"),
        (STAR_ALONE, "/spec/buckets"),
        (STAR_HAS_NO_NAMES, "/spec/buckets"),
    ];
    type Edit = fn(&mut CloudBinding);
    let edits: [(&str, Edit); 13] = [
        ("nothing", |_| ()),
        ("name of 40", |b| b.metadata.name = Some("n".repeat(40))),
        ("name of 41", |b| b.metadata.name = Some("n".repeat(41))),
        ("other provider", |b| b.spec.provider = "b".into()),
        ("no such provider", |b| b.spec.provider = "c".into()),
        ("one endpoint twice", |b| b.spec.providers[1].s3.endpoint = "https://a.test".parse().unwrap()),
        ("one host, two ports", |b| b.spec.providers[1].s3.endpoint = "https://a.test:8443".parse().unwrap()),
        ("names of nobody", |b| drop(b.spec.buckets[1].names.insert("c".into(), "z".into()))),
        ("one bucket twice at b", |b| drop(b.spec.buckets[1].names.insert("b".into(), "x-at-b".into()))),
        ("crossed names", |b| drop(b.spec.buckets[1].names.insert("b".into(), "x".into()))),
        ("star beside others", |b| b.spec.buckets[1].name = "*".into()),
        ("star alone", |b| {
            b.spec.buckets = vec![Bucket { name: "*".into(), create: false, names: Default::default() }];
        }),
        ("star with names", |b| {
            b.spec.buckets.truncate(1);
            b.spec.buckets[0].name = "*".into();
        }),
    ];
    let mut broken = BTreeSet::new();
    for (what, edit) in edits {
        let mut binding = parse(BINDING).unwrap();
        edit(&mut binding);
        let (violations, whole) = (check(&binding), json(&binding));
        for (rule, scope) in rules {
            let holds = by_cel(rule, whole.pointer(scope).unwrap(), None);
            assert_eq!(holds, by_rust(rule, &violations), "{what}: {}", rule.message);
            if !holds {
                broken.insert(rule.message);
            }
        }
    }
    assert_eq!(broken.len(), rules.len(), "every rule was broken by some edit");
}

#[test]
fn a_change_is_judged_the_same_in_cel_and_in_rust() {
    let mut old = parse(BINDING).unwrap();
    type Edit = fn(&mut CloudBinding);
    let edits: [(&str, Edit); 6] = [
        ("nothing", |_| ()),
        ("other block size", |b| b.spec.block_size = BlockSize::MIN),
        ("wanted is the other", |b| b.spec.provider = "b".into()),
        ("in force elsewhere", |b| b.spec.providers[0].s3.endpoint = "https://c.test".parse().unwrap()),
        ("in force renamed", |b| b.spec.providers[0].name = "c".into()),
        ("other one removed", |b| b.spec.providers.truncate(1)),
    ];
    for in_force in [None, Some("a"), Some("gone")] {
        old.status = in_force.map(|name| CloudBindingStatus { provider: Some(name.into()), ..Default::default() });
        for (what, edit) in edits {
            let mut new = old.clone();
            edit(&mut new);
            let violations = check_change(&old, &new);
            let (before, after) = (json(&old), json(&new));
            for (rule, scope) in [(IN_FORCE_KEPT, ""), (BLOCK_SIZE_KEPT, "/spec/blockSize")] {
                let holds = by_cel(rule, after.pointer(scope).unwrap(), before.pointer(scope));
                assert_eq!(holds, by_rust(rule, &violations), "{what}, in force {in_force:?}: {}", rule.message);
            }
        }
    }
}

#[test]
fn a_default_port_is_refused_the_same_in_cel_and_in_rust() {
    for endpoint in [
        "https://a.test",
        "https://a.test:443",
        "https://a.test:80",
        "http://a.test:80",
        "http://a.test:443",
        "http://a80",
    ] {
        let holds = by_cel(DEFAULT_PORT_LEFT_OUT, &endpoint.into(), None);
        assert_eq!(holds, endpoint.parse::<Endpoint>().is_ok(), "{endpoint}");
    }
}

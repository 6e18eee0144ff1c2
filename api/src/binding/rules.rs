//! What a CloudBinding must keep to beyond its types. Each rule stands here twice, once as CEL for the API server
//! and once as Rust for everyone without one, under one text, so that both say the same.
use std::collections::BTreeSet;
use std::fmt;

use schemars::{Schema, SchemaGenerator, json_schema};

use super::{Bucket, CloudBinding, Provider, domain_of};

/// The name that stands for every bucket.
pub const EVERY_BUCKET: &str = "*";

pub(super) const PROVIDER_NAME_PATTERN: &str = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$";
pub(super) const REGION_PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9._-]*$";
pub(super) const BUCKET_PATTERN: &str = r"^(\*|[A-Za-z0-9][A-Za-z0-9._-]*)$";
pub(super) const SCHEDULE_PATTERN: &str = r"^(@(hourly|daily|weekly|monthly)|[0-9*/,-]+( [0-9A-Za-z*/,-]+){4})$";
const BUCKET_AT_PROVIDER_PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9._-]*$";

const NAME_LEN_MAX: usize = 63;
/// Names like `hawser-NAME-migrate-EPOCH` must fit the 63 characters of a label.
const BINDING_NAME_LEN_MAX: usize = 40;
const REFERENCE_LEN_MAX: usize = 253;
const PROVIDERS_MAX: usize = 8;
const BUCKETS_MAX: usize = 100;
const PARALLELISM_MAX: u32 = 256;
const VERSIONS_MAX: u32 = 1_000_000;
const DAYS_MAX: u32 = 36_500;
const SCHEDULE_LEN_MAX: usize = 100;

/// One rule with its one text.
#[derive(Clone, Copy)]
pub(crate) struct Rule {
    /// For the API server.
    cel: &'static str,
    /// Where the API server shows it, below the place of the rule.
    field: Option<&'static str>,
    /// For everyone: what must hold.
    pub(crate) message: &'static str,
}

impl Rule {
    /// As it stands in a schema.
    pub(crate) fn to_json(self) -> serde_json::Value {
        match self.field {
            Some(field) => serde_json::json!({"rule": self.cel, "message": self.message, "fieldPath": field}),
            None => serde_json::json!({"rule": self.cel, "message": self.message}),
        }
    }
}

impl From<Rule> for kube::core::Rule {
    fn from(rule: Rule) -> kube::core::Rule {
        let given = kube::core::Rule::new(rule.cel).message(rule.message);
        match rule.field {
            Some(field) => given.field_path(field),
            None => given,
        }
    }
}

pub(super) const NAME_SHORT: Rule = Rule {
    cel: "size(self.metadata.name) <= 40",
    field: None,
    message: "the binding's name must have 40 characters at most: the names of Jobs are made from it",
};

pub(super) const IN_FORCE_KEPT: Rule = Rule {
    cel: "!has(oldSelf.status) || !has(oldSelf.status.provider) || oldSelf.spec.providers.all(o, \
          o.name != oldSelf.status.provider || \
          self.spec.providers.exists(n, n.name == o.name && n.s3.endpoint == o.s3.endpoint))",
    field: None,
    message: "the provider in force must keep its name and endpoint: add the new one beside it, then edit spec.provider",
};

pub(super) const PROVIDER_NAMED: Rule = Rule {
    cel: "self.providers.exists(p, p.name == self.provider)",
    field: Some(".provider"),
    message: "must be the name of one of spec.providers",
};

pub(super) const IDENTITIES_APART: Rule = Rule {
    cel: "self.all(p, self.exists_one(q, q.s3.endpoint == p.s3.endpoint))",
    field: None,
    message: "two providers must not have one endpoint: they would be the same provider",
};

pub(super) const STAR_ALONE: Rule = Rule {
    cel: "size(self) == 1 || self.all(b, b.name != '*')",
    field: None,
    message: "\"*\" must be the only bucket: it stands for all of them",
};

pub(super) const STAR_HAS_NO_NAMES: Rule = Rule {
    cel: "self.all(b, b.name != '*' || !has(b.names) || size(b.names) == 0)",
    field: None,
    message: "\"*\" must not have names: its buckets are called the same at every provider",
};

pub(super) const NAMES_OF_PROVIDERS: Rule = Rule {
    cel: "self.buckets.all(b, !has(b.names) || b.names.all(n, self.providers.exists(p, p.name == n)))",
    field: Some(".buckets"),
    message: "the keys of names must be names of spec.providers",
};

pub(super) const BUCKETS_APART: Rule = Rule {
    cel: "self.providers.all(p, self.buckets.all(b, self.buckets.exists_one(c, \
          (has(c.names) && p.name in c.names ? c.names[p.name] : c.name) == \
          (has(b.names) && p.name in b.names ? b.names[p.name] : b.name))))",
    field: Some(".buckets"),
    message: "two buckets must not be the same one at a provider",
};

pub(super) const BLOCK_SIZE_KEPT: Rule = Rule {
    cel: "self == oldSelf",
    field: None,
    message: "must not change: blocks of two sizes have nothing in common",
};

pub(crate) const DEFAULT_PORT_LEFT_OUT: Rule = Rule {
    cel: "!(self.startsWith('https://') && self.endsWith(':443')) && !(self.startsWith('http://') && self.endsWith(':80'))",
    field: None,
    message: "the default port must be left out, so that one endpoint has one text",
};

/// What an endpoint looks like; the schema says it by a pattern.
pub(crate) const ENDPOINT_FORM: &str = "must be http:// or https:// and a host in lower case, with :PORT where it is not the default one and nothing after it";

const LABEL: &str = "must be 1 to 63 lower-case letters, digits and inner dashes";
const KUBERNETES_NAME: &str = "must be 1 to 253 lower-case letters, digits, inner dashes and dots";
const BUCKET: &str = "must be 1 to 63 letters, digits, dots, dashes and underscores, a letter or digit first";
const REGION: &str = BUCKET;
const SCHEDULE: &str = "must be @hourly, @daily, @weekly, @monthly or the five fields of cron";
const UNIQUE: &str = "must be there only once";

/// The schema of `buckets[].names`.
pub(super) fn bucket_names_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": PROVIDERS_MAX,
        "additionalProperties": {"type": "string", "minLength": 1, "maxLength": NAME_LEN_MAX, "pattern": BUCKET_AT_PROVIDER_PATTERN},
    })
}

/// A place in a manifest, what stands there, and what must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field, like `spec.providers[1].s3.endpoint`.
    pub path: String,
    /// What stands there, where one value is to blame.
    pub value: Option<String>,
    /// What must.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}: invalid value {value:?}: {}", self.path, self.message),
            None => write!(f, "{}: {}", self.path, self.message),
        }
    }
}

/// Every rule that `binding` breaks; none when it may be used.
pub fn check(binding: &CloudBinding) -> Vec<Violation> {
    let mut found = Vec::new();
    metadata(binding, &mut found);
    providers(binding, &mut found);
    buckets(binding, &mut found);
    numbers(binding, &mut found);
    let schedule = &binding.spec.reconcile.schedule;
    if !is_schedule(schedule) {
        found.push(broken("spec.reconcile.schedule", Some(schedule), SCHEDULE));
    }
    found
}

/// Every rule that replacing `old` by `new` breaks: what is immutable, and the provider in force.
pub fn check_change(old: &CloudBinding, new: &CloudBinding) -> Vec<Violation> {
    let mut found = Vec::new();
    if old.spec.block_size != new.spec.block_size {
        found.push(broken("spec.blockSize", None, BLOCK_SIZE_KEPT.message));
    }
    let in_force =
        old.status.as_ref().and_then(|status| status.provider.as_deref()).and_then(|name| old.provider(name));
    let lost = in_force.filter(|o| new.provider(&o.name).is_none_or(|n| n.id() != o.id()));
    if let Some(provider) = lost {
        found.push(broken("spec.providers", Some(&provider.name), IN_FORCE_KEPT.message));
    }
    found
}

fn broken(path: impl Into<String>, value: Option<&str>, message: impl Into<String>) -> Violation {
    Violation { path: path.into(), value: value.map(str::to_owned), message: message.into() }
}

fn metadata(binding: &CloudBinding, found: &mut Vec<Violation>) {
    match binding.metadata.name.as_deref() {
        None => found.push(broken("metadata.name", None, "must be there: the store knows the binding by it")),
        Some(name) if !is_kubernetes_name(name) => found.push(broken("metadata.name", Some(name), KUBERNETES_NAME)),
        Some(name) if name.len() > BINDING_NAME_LEN_MAX => {
            found.push(broken("metadata.name", Some(name), NAME_SHORT.message))
        }
        Some(_) => {}
    }
    let domain = domain_of(&binding.metadata);
    if !is_label(domain) {
        found.push(broken("metadata.namespace", Some(domain), LABEL));
    }
}

fn providers(binding: &CloudBinding, found: &mut Vec<Violation>) {
    let providers = &binding.spec.providers;
    if providers.is_empty() || providers.len() > PROVIDERS_MAX {
        let count = providers.len();
        found.push(broken("spec.providers", None, format!("must be 1 to {PROVIDERS_MAX} providers, not {count}")));
    }
    for (at, provider) in providers.iter().enumerate() {
        let path = format!("spec.providers[{at}]");
        let Provider { name, s3 } = provider;
        if !is_label(name) {
            found.push(broken(format!("{path}.name"), Some(name), LABEL));
        }
        if providers[..at].iter().any(|earlier| earlier.name == *name) {
            found.push(broken(format!("{path}.name"), Some(name), UNIQUE));
        }
        if providers[..at].iter().any(|earlier| earlier.id() == provider.id()) {
            found.push(broken(format!("{path}.s3.endpoint"), Some(&s3.endpoint.to_string()), IDENTITIES_APART.message));
        }
        if let Some(region) = s3.region.as_deref().filter(|region| !is_bucket_name(region)) {
            found.push(broken(format!("{path}.s3.region"), Some(region), REGION));
        }
        if let Some(secret) =
            s3.credentials.as_ref().map(|from| &from.secret_name).filter(|name| !is_kubernetes_name(name))
        {
            found.push(broken(format!("{path}.s3.credentials.secretName"), Some(secret), KUBERNETES_NAME));
        }
        if let Some(map) = s3.ca.as_ref().map(|from| &from.config_map_name).filter(|name| !is_kubernetes_name(name)) {
            found.push(broken(format!("{path}.s3.ca.configMapName"), Some(map), KUBERNETES_NAME));
        }
    }
    if binding.wanted().is_none() {
        let message = format!("{} ({})", PROVIDER_NAMED.message, names_of(providers));
        found.push(broken("spec.provider", Some(&binding.spec.provider), message));
    }
}

fn buckets(binding: &CloudBinding, found: &mut Vec<Violation>) {
    let buckets = &binding.spec.buckets;
    if buckets.is_empty() || buckets.len() > BUCKETS_MAX {
        let count = buckets.len();
        found.push(broken(
            "spec.buckets",
            None,
            format!("must be 1 to {BUCKETS_MAX} buckets, not {count}; \"*\" stands for all"),
        ));
    }
    for (at, bucket) in buckets.iter().enumerate() {
        let path = format!("spec.buckets[{at}]");
        if bucket.is_every() {
            if buckets.len() > 1 {
                found.push(broken(format!("{path}.name"), Some(&bucket.name), STAR_ALONE.message));
            }
            if !bucket.names.is_empty() {
                found.push(broken(format!("{path}.names"), None, STAR_HAS_NO_NAMES.message));
            }
        } else if !is_bucket_name(&bucket.name) {
            found.push(broken(format!("{path}.name"), Some(&bucket.name), BUCKET));
        }
        if buckets[..at].iter().any(|earlier| earlier.name == bucket.name) {
            found.push(broken(format!("{path}.name"), Some(&bucket.name), UNIQUE));
        }
        for (provider, name) in &bucket.names {
            if binding.provider(provider).is_none() {
                let message = format!("{} ({})", NAMES_OF_PROVIDERS.message, names_of(&binding.spec.providers));
                found.push(broken(format!("{path}.names"), Some(provider), message));
            }
            if !is_bucket_name(name) {
                found.push(broken(format!("{path}.names.{provider}"), Some(name), BUCKET));
            }
        }
    }
    let mut names: BTreeSet<&str> = BTreeSet::new();
    let once: Vec<&Bucket> = buckets.iter().filter(|bucket| names.insert(&bucket.name)).collect();
    for provider in &binding.spec.providers {
        let mut taken: BTreeSet<&str> = BTreeSet::new();
        for bucket in once.iter().filter(|bucket| !taken.insert(bucket.name_at(&provider.name))) {
            let message = format!("{} ({})", BUCKETS_APART.message, provider.name);
            found.push(broken("spec.buckets", Some(bucket.name_at(&provider.name)), message));
        }
    }
}

fn numbers(binding: &CloudBinding, found: &mut Vec<Violation>) {
    let retention = binding.spec.retention.as_ref();
    let fields = [
        ("spec.migration.parallelism", Some(binding.spec.migration.parallelism), PARALLELISM_MAX),
        ("spec.retention.versions", retention.and_then(|keep| keep.versions), VERSIONS_MAX),
        ("spec.retention.days", retention.and_then(|keep| keep.days), DAYS_MAX),
    ];
    for (path, number, max) in fields {
        if let Some(number) = number.filter(|number| !(1..=max).contains(number)) {
            found.push(broken(path, Some(&number.to_string()), format!("must be 1 to {max}")));
        }
    }
}

fn names_of(providers: &[Provider]) -> String {
    providers.iter().map(|provider| provider.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// As RFC 1123 has it, and as `PROVIDER_NAME_PATTERN` says it.
fn is_label(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=NAME_LEN_MAX).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn is_kubernetes_name(name: &str) -> bool {
    name.len() <= REFERENCE_LEN_MAX && name.split('.').all(is_label)
}

/// As `BUCKET_AT_PROVIDER_PATTERN` says it: wider than AWS's rule, since other services are.
fn is_bucket_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    (1..=NAME_LEN_MAX).contains(&name.len())
        && name.bytes().all(allowed)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// As `SCHEDULE_PATTERN` says it. Whether cron's numbers make sense is for the API server to say.
fn is_schedule(text: &str) -> bool {
    let mut fields = text.split(' ');
    let sign = |b: u8| matches!(b, b'0'..=b'9' | b'*' | b'/' | b',' | b'-');
    let of = |field: &str, also: fn(&u8) -> bool| !field.is_empty() && field.bytes().all(|b| sign(b) || also(&b));
    let cron = fields.next().is_some_and(|minute| of(minute, |_| false))
        && fields.clone().count() == 4
        && fields.all(|field| of(field, u8::is_ascii_alphabetic));
    text.len() <= SCHEDULE_LEN_MAX && (cron || matches!(text, "@hourly" | "@daily" | "@weekly" | "@monthly"))
}

#[cfg(test)]
mod tests;

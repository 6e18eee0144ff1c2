//! Where a request points: bucket, key and query, from its Host and its target.

use std::sync::Arc;

use bytes::Bytes;
use hawser_api::ObjectKey;
use hawser_api::binding::Provider;
use hawser_api::hosts;
use percent_encoding::percent_decode;

use crate::http::head::RequestHead;

/// Which hosts of a connection name a bucket.
#[derive(Clone, Debug)]
pub struct Addressing {
    providers: Vec<Arc<Provider>>,
    port: u16,
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Bucket and key.
    pub name: Name,
    /// The query.
    pub query: Query,
}

/// The level of the name that a request has.
#[derive(Clone, Debug, PartialEq)]
pub enum Name {
    /// Neither bucket nor key.
    Service,
    /// A bucket.
    Bucket(String),
    /// An object.
    Object(String, ObjectKey),
    /// The host is none of the provider's, or the bucket is no text.
    Unknown,
}

impl Addressing {
    /// For a connection to that port of these providers.
    pub fn new(providers: Vec<Arc<Provider>>, port: u16) -> Addressing {
        Addressing { providers, port }
    }

    /// Reads where a request points. The key is percent-decoded and nothing else: no slash or dot is touched, and
    /// `+` is a plus.
    pub fn target(&self, head: &RequestHead) -> Target {
        let (authority, target) = split_absolute(&head.target);
        let host = authority.or_else(|| head.fields.text("host")).unwrap_or_default();
        let mut halves = target.splitn(2, |byte| *byte == b'?');
        let path = halves.next().unwrap_or_default();
        let query = Query::parse(halves.next().unwrap_or_default());
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let name = match self.bucket_in(without_port(host)) {
            None => Name::Unknown,
            Some(Some(bucket)) if path.is_empty() => Name::Bucket(bucket),
            Some(Some(bucket)) => Name::Object(bucket, ObjectKey::from_path(path)),
            Some(None) => by_path(path),
        };
        Target { name, query }
    }

    /// The bucket that a host names; `None` when the host is not a provider's.
    fn bucket_in(&self, host: &str) -> Option<Option<String>> {
        self.providers.iter().find_map(|provider| hosts::classify(provider, host, self.port)).map(|host| host.bucket)
    }
}

/// The first segment of the path is the bucket, all the rest the key.
fn by_path(path: &[u8]) -> Name {
    let mut halves = path.splitn(2, |byte| *byte == b'/');
    let bucket: Vec<u8> = percent_decode(halves.next().unwrap_or_default()).collect();
    let key = halves.next().unwrap_or_default();
    match String::from_utf8(bucket) {
        Ok(bucket) if bucket.is_empty() && key.is_empty() => Name::Service,
        Ok(bucket) if bucket.is_empty() => Name::Unknown,
        Ok(bucket) if key.is_empty() => Name::Bucket(bucket),
        Ok(bucket) => Name::Object(bucket, ObjectKey::from_path(key)),
        Err(_) => Name::Unknown,
    }
}

/// The authority and the rest of a target in absolute form (RFC 9112 §3.2.2); it goes before the Host.
fn split_absolute(target: &Bytes) -> (Option<&str>, &[u8]) {
    let rest = [&b"http://"[..], b"https://"].iter().find_map(|scheme| {
        let start = target.get(..scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then(|| &target[scheme.len()..])
    });
    let Some(rest) = rest else { return (None, target) };
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    (std::str::from_utf8(&rest[..end]).ok(), &rest[end..])
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

/// The parameters of a query, percent-decoded, in their order.
#[derive(Clone, Default, PartialEq)]
pub struct Query(Vec<(String, String)>);

/// Names only: signatures and tokens are values.
impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Query {
    /// Reads what stands behind the question mark.
    pub fn parse(query: &[u8]) -> Query {
        let decode = |part: &[u8]| percent_decode(part).decode_utf8_lossy().into_owned();
        let pairs = query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            (decode(halves.next().unwrap_or_default()), decode(halves.next().unwrap_or_default()))
        });
        Query(pairs.collect())
    }

    /// The first value of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// Whether there is a parameter of that name, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hawser_api::binding::{self, S3};

    use super::*;

    fn at(endpoint: &str, port: u16) -> Addressing {
        let s3 = S3 {
            endpoint: endpoint.parse().unwrap(),
            region: None,
            addressing: binding::Addressing::Auto,
            credentials: None,
            ca: None,
        };
        Addressing::new(vec![Arc::new(Provider { name: "p".into(), s3 })], port)
    }

    fn name(host: &str, target: &str) -> Name {
        let head = RequestHead::parse(&Bytes::from(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))).unwrap();
        at("https://s3.eu-central-1.amazonaws.com", 443).target(&head).name
    }

    #[test]
    fn bucket_and_key_are_found_in_either_style_and_nothing_is_normalised() {
        let object = |bucket: &str, key: &str| Name::Object(bucket.into(), ObjectKey::from_bytes(key));
        let path = "s3.eu-central-1.amazonaws.com";
        let rows = [
            (path, "/", Name::Service),
            (path, "/photos", Name::Bucket("photos".into())),
            (path, "/photos/", Name::Bucket("photos".into())),
            (path, "/photos?list-type=2", Name::Bucket("photos".into())),
            (path, "/photos/a//b", object("photos", "a//b")),
            (path, "/photos//lead", object("photos", "/lead")),
            (path, "/photos/dir/", object("photos", "dir/")),
            (path, "/photos/.", object("photos", ".")),
            (path, "/photos/..", object("photos", "..")),
            (path, "/photos/a%2Fb+c%20d%252F?x-id=GetObject", object("photos", "a/b+c d%2F")),
            (path, "/photos/ü", object("photos", "ü")), // not encoded at all, as some clients send it
            (path, "//key", Name::Unknown),
            (path, "http://photos.s3.amazonaws.com/key", object("photos", "key")),
            (path, "https://s3.amazonaws.com", Name::Service),
            ("photos.s3.eu-central-1.amazonaws.com", "/", Name::Bucket("photos".into())),
            ("photos.s3.eu-central-1.amazonaws.com:443", "/a/b", object("photos", "a/b")),
            ("my.photos.s3.eu-central-1.amazonaws.com", "//a", object("my.photos", "/a")),
            ("point-123456789012.s3-accesspoint.eu-central-1.amazonaws.com", "/a", Name::Unknown),
            ("cdn.example.com", "/a", Name::Unknown),
        ];
        for (host, target, wanted) in rows {
            assert_eq!(name(host, target), wanted, "{host} {target}");
        }
    }

    #[test]
    fn a_query_is_decoded_and_its_values_are_not_printed() {
        let query = Query::parse(b"uploads&prefix=a%20b&x=&&X-Amz-Signature=SECRET");
        assert_eq!((query.get("uploads"), query.get("prefix"), query.get("none")), (Some(""), Some("a b"), None));
        assert!(!format!("{query:?}").contains("SECRET"));
    }
}

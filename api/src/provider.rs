//! Where a cloud answers, and what makes two providers the same one.
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::binding::rules;

/// Longest endpoint: a host name has 253 characters at most (RFC 1035 §2.3.4 as text).
const ENDPOINT_LEN_MAX: usize = 253;
const ENDPOINT_PATTERN: &str = "^https?://[a-z0-9.-]+(:[0-9]+)?$";

/// How a cloud is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// In the clear; port 80 unless said otherwise.
    Http,
    /// Over TLS; port 443 unless said otherwise.
    Https,
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// The address of a cloud in its one normal form, so that endpoints compare as text:
/// `https://HOST` or `http://HOST`, the host in lower case, `:PORT` only where it is not the default one, no path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    scheme: Scheme,
    host: String,
    port: u16,
}

/// A text that is no endpoint in normal form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid value {text:?}: {must}")]
pub struct BadEndpoint {
    text: String,
    must: &'static str,
}

impl Endpoint {
    /// Whether TLS is spoken there.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host's name or IPv4 address, in lower case.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, the scheme's default one where none is written.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Endpoint, BadEndpoint> {
        let bad = |must| BadEndpoint { text: text.to_owned(), must };
        let form = || bad(rules::ENDPOINT_FORM);
        let (scheme, rest) = text.split_once("://").ok_or_else(form)?;
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(form()),
        };
        let (host, port) = match rest.split_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !port.starts_with('0') => {
                (host, port.parse().map_err(|_| form())?)
            }
            Some(_) => return Err(form()),
            None => (rest, scheme.default_port()),
        };
        if text.len() > ENDPOINT_LEN_MAX || !is_host(host) {
            return Err(form());
        }
        if rest.contains(':') && port == scheme.default_port() {
            return Err(bad(rules::DEFAULT_PORT_LEFT_OUT.message));
        }
        Ok(Endpoint { scheme, host: host.to_owned(), port })
    }
}

/// Labels of letters, digits and inner dashes, none of them empty: a trailing dot would be a second name for one host.
fn is_host(host: &str) -> bool {
    host.split('.').all(|label| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    })
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.host)?;
        if self.port == self.scheme.default_port() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Endpoint, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Endpoint {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Endpoint".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": ENDPOINT_LEN_MAX,
            "pattern": ENDPOINT_PATTERN,
            "x-kubernetes-validations": [rules::DEFAULT_PORT_LEFT_OUT.to_json()],
        })
    }
}

/// The kind of a cloud's interface. Only what Hawser can read and write is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProviderKind {
    /// Amazon S3 and every service that speaks as it does.
    S3,
}

/// What a provider *is*, whatever a binding calls it: kind and endpoint. (Kinds that have accounts within an
/// endpoint will add theirs; S3 has none: its keys decide who is asking, not what is there.)
///
/// Records are kept under it. Written `s3+https://s3.eu-central-1.amazonaws.com`; equal texts, equal providers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProviderId {
    kind: ProviderKind,
    endpoint: Endpoint,
}

/// A text that is no provider id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid provider id {0:?}: must be s3+ENDPOINT, like s3+https://s3.eu-central-1.amazonaws.com")]
pub struct BadProviderId(String);

impl ProviderId {
    /// The S3 service at an endpoint.
    pub fn s3(endpoint: Endpoint) -> ProviderId {
        ProviderId { kind: ProviderKind::S3, endpoint }
    }

    /// Its kind.
    pub fn kind(&self) -> ProviderKind {
        self.kind
    }

    /// Where it answers.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl fmt::Display for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ProviderKind::S3 => write!(f, "s3+{}", self.endpoint),
        }
    }
}

impl FromStr for ProviderId {
    type Err = BadProviderId;

    fn from_str(text: &str) -> Result<ProviderId, BadProviderId> {
        text.strip_prefix("s3+")
            .and_then(|endpoint| endpoint.parse().ok())
            .map(ProviderId::s3)
            .ok_or_else(|| BadProviderId(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        for text in [
            "s3+https://s3.eu-central-1.amazonaws.com",
            "s3+https://cloud-a.test:8443",
            "s3+http://127.0.0.1:9000",
            "s3+http://minio",
            "s3+http://minio:443",
        ] {
            let id: ProviderId = text.parse().unwrap();
            assert_eq!(id.to_string(), text);
            assert_eq!(id.to_string().parse::<ProviderId>().unwrap(), id);
        }
    }

    #[test]
    fn an_endpoint_has_one_form_only() {
        let endpoint: Endpoint = "https://a.test".parse().unwrap();
        assert_eq!((endpoint.scheme(), endpoint.host(), endpoint.port()), (Scheme::Https, "a.test", 443));
        for text in [
            "",
            "a.test",
            "https://",
            "https://A.test",
            "https://a.test/",
            "https://a.test:443",
            "http://a.test:80",
            "https://a.test:0443",
            "https://a.test:65536",
            "https://a.test:",
            "https://a.test.",
            "https://a..test",
            "ftp://a.test",
            "https://-a.test",
            "https://u@a.test",
            "https://a.test?x",
            "https://[::1]",
            "https://a_b.test",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
            assert!(format!("s3+{text}").parse::<ProviderId>().is_err(), "{text:?}");
        }
        assert!("gcs+https://a.test".parse::<ProviderId>().is_err());
        assert!(format!("https://{}", "a".repeat(246)).parse::<Endpoint>().is_err());
    }
}

//! Which headers of an object are kept with it, and which of those can be sent to another cloud.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use hawser_api::v1;

/// Headers that an object has and that any S3 service takes, besides `x-amz-meta-*`.
const CARRIED: [&str; 7] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
    "x-amz-website-redirect-location",
];

/// What services answer for an object that was written without a content type.
const DEFAULT_TYPES: [&[u8]; 2] = [b"application/octet-stream", b"binary/octet-stream"];

/// Whether a header belongs to the object, rather than to the answer that shows it.
pub fn is_kept(name: &str) -> bool {
    is_carried(name)
        || (name.starts_with("x-amz-checksum-") && name != "x-amz-checksum-mode")
        || name == "x-amz-storage-class"
        || name == "x-amz-server-side-encryption"
        || name == "x-amz-server-side-encryption-aws-kms-key-id"
        || name == "x-amz-object-lock-mode"
        || name == "x-amz-object-lock-retain-until-date"
        || name == "x-amz-object-lock-legal-hold"
}

/// Whether a header is sent along to another cloud. Storage class, encryption, lock and checksums are the
/// target's own affair.
pub fn is_carried(name: &str) -> bool {
    CARRIED.contains(&name) || name.starts_with("x-amz-meta-")
}

/// The carried headers of an object, in order of name. `aws-chunked` is how a body travelled, not what it is.
pub fn carried(metadata: &v1::Metadata) -> BTreeMap<String, Vec<u8>> {
    metadata
        .headers
        .iter()
        .filter(|header| is_carried(&header.name))
        .filter_map(|header| {
            let value = match header.name.as_str() {
                "content-encoding" => without_aws_chunked(&header.value)?,
                _ => header.value.to_vec(),
            };
            Some((header.name.clone(), value))
        })
        .collect()
}

/// The same for what a cloud shows.
pub fn carried_of(headers: &[v1::Header]) -> BTreeMap<String, Vec<u8>> {
    carried(&v1::Metadata { headers: headers.to_vec(), ..v1::Metadata::default() })
}

fn without_aws_chunked(value: &[u8]) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(value);
    let rest: Vec<&str> = text
        .split(',')
        .map(str::trim)
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("aws-chunked"))
        .collect();
    (!rest.is_empty()).then(|| rest.join(", ").into_bytes())
}

/// Whether an object has nothing besides its bytes: no header but a content type that services invent.
pub fn is_bare(carried: &BTreeMap<String, Vec<u8>>) -> bool {
    difference(carried, &BTreeMap::new()).is_none()
}

/// The first header that differs between what was meant and what is there; a missing content type equals
/// the one that services invent.
pub fn difference(meant: &BTreeMap<String, Vec<u8>>, there: &BTreeMap<String, Vec<u8>>) -> Option<String> {
    let plain = |headers: &BTreeMap<String, Vec<u8>>| {
        let mut headers = headers.clone();
        headers.retain(|name, value| name != "content-type" || !DEFAULT_TYPES.contains(&value.as_slice()));
        headers
    };
    let (meant, there) = (plain(meant), plain(there));
    meant.keys().chain(there.keys()).find(|name| meant.get(*name) != there.get(*name)).cloned()
}

/// Keeps the headers of an answer as they came, before the SDK makes fields of them.
#[derive(Clone, Debug, Default)]
pub struct Raw(Arc<Mutex<Vec<v1::Header>>>);

impl Raw {
    /// The headers of the last answer that belong to the object.
    pub fn take(&self) -> Vec<v1::Header> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for Raw {
    fn name(&self) -> &'static str {
        "RawHeaders"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let mut headers: Vec<v1::Header> = context
            .response()
            .headers()
            .iter_bytes()
            .filter(|(name, _)| is_kept(name))
            .map(|(name, value)| v1::Header { name: name.to_owned(), value: value.to_vec().into() })
            .collect();
        headers.sort_by(|a, b| a.name.cmp(&b.name));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = headers;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(rows: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        rows.iter().map(|(name, value)| ((*name).into(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn headers_are_compared_by_what_an_application_set() {
        let rows = [
            (set(&[]), set(&[("content-type", "binary/octet-stream")]), None),
            (set(&[("content-type", "application/octet-stream")]), set(&[]), None),
            (set(&[("content-type", "text/plain")]), set(&[]), Some("content-type")),
            (set(&[("x-amz-meta-a", "1")]), set(&[("x-amz-meta-a", "2")]), Some("x-amz-meta-a")),
            (set(&[]), set(&[("x-amz-meta-b", "1")]), Some("x-amz-meta-b")),
        ];
        for (meant, there, wanted) in rows {
            assert_eq!(difference(&meant, &there).as_deref(), wanted, "{meant:?} {there:?}");
        }
    }

    #[test]
    fn aws_chunked_is_no_content_encoding() {
        for (value, kept) in [("aws-chunked", None), ("gzip,aws-chunked", Some("gzip")), ("gzip, br", Some("gzip, br"))]
        {
            assert_eq!(without_aws_chunked(value.as_bytes()), kept.map(|text| text.as_bytes().to_vec()), "{value}");
        }
    }

    #[test]
    fn an_sse_c_key_or_a_tag_count_is_no_part_of_an_object() {
        for name in ["x-amz-server-side-encryption-customer-key-md5", "x-amz-tagging-count", "etag", "date"] {
            assert!(!is_kept(name), "{name}");
        }
    }
}

//! Writing objects, each write with a checksum that the service verifies and with the guard that it needs.
use std::collections::BTreeMap;

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_sdk_s3::types::{
    BucketLocationConstraint, CompletedMultipartUpload, CompletedPart, CreateBucketConfiguration, Tag, Tagging,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::read::{bare, quoted, version};
use super::{Cloud, Fault, Place};

/// Bodies up to this have the time-out of every request.
const ORDINARY_LEN: u64 = 512 * 1024;
const CONTENT_ENCODING: &str = "content-encoding";

/// What must be true of the object when the write takes effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Nothing: the last writer wins.
    None,
    /// There is no object.
    Absent,
    /// The object has this ETag.
    Is(String),
}

/// What an object carries besides its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Headers to send as they are.
    pub headers: BTreeMap<String, Vec<u8>>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// What a cloud answered to a write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The new ETag without quotes.
    pub etag: String,
    /// The new version, where the bucket has versions.
    pub version_id: String,
}

/// A part that arrived at the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number.
    pub number: u32,
    /// Its length, as the target lists it.
    pub size: u64,
    /// Its ETag without quotes.
    pub etag: String,
}

impl Cloud {
    /// Writes a whole object of `len` bytes.
    pub async fn put(
        &self,
        place: &Place,
        body: SdkBody,
        len: u64,
        carried: &Carried,
        guard: &Guard,
    ) -> Result<Written, Fault> {
        let signed_by_tls = self.tls && !body.is_streaming();
        let mut request = self
            .client
            .put_object()
            .bucket(&place.bucket)
            .key(place.text()?)
            .content_length(len as i64)
            .set_content_encoding(encoding(&carried.headers))
            .set_tagging(tagging(&carried.tags))
            .body(ByteStream::new(body));
        request = match guard {
            Guard::None => request,
            Guard::Absent => request.if_none_match("*"),
            Guard::Is(etag) => request.if_match(quoted(etag)),
        };
        let headers = carried.headers.clone();
        let mut request = request.customize().mutate_request(move |request| set(request, &headers));
        if len > ORDINARY_LEN {
            request = request.config_override(self.patience(len));
        }
        if signed_by_tls {
            request = request.disable_payload_signing();
        }
        let answer = request.send().await.map_err(Fault::of)?;
        Ok(Written { etag: bare(answer.e_tag()), version_id: version(answer.version_id()) })
    }

    /// Begins an upload in parts.
    pub async fn create_upload(&self, place: &Place, carried: &Carried) -> Result<String, Fault> {
        let headers = carried.headers.clone();
        let answer = self
            .client
            .create_multipart_upload()
            .bucket(&place.bucket)
            .key(place.text()?)
            .set_content_encoding(encoding(&carried.headers))
            .set_tagging(tagging(&carried.tags))
            .customize()
            .mutate_request(move |request| set(request, &headers))
            .send()
            .await
            .map_err(Fault::of)?;
        Ok(answer.upload_id().unwrap_or_default().to_owned())
    }

    /// Sends one part of `len` bytes.
    pub async fn upload_part(
        &self,
        place: &Place,
        upload: &str,
        number: u32,
        body: SdkBody,
        len: u64,
    ) -> Result<Part, Fault> {
        let signed_by_tls = self.tls && !body.is_streaming();
        let mut request = self
            .client
            .upload_part()
            .bucket(&place.bucket)
            .key(place.text()?)
            .upload_id(upload)
            .part_number(number as i32)
            .content_length(len as i64)
            .body(ByteStream::new(body))
            .customize()
            .config_override(self.patience(len));
        if signed_by_tls {
            request = request.disable_payload_signing();
        }
        let answer = request.send().await.map_err(Fault::of)?;
        Ok(Part { number, size: len, etag: bare(answer.e_tag()) })
    }

    /// The parts of an upload that arrived, in order of number.
    pub async fn parts(&self, place: &Place, upload: &str) -> Result<Vec<Part>, Fault> {
        let mut parts = Vec::new();
        let mut after: Option<String> = None;
        for _ in 0..=10 {
            let answer = self
                .client
                .list_parts()
                .bucket(&place.bucket)
                .key(place.text()?)
                .upload_id(upload)
                .set_part_number_marker(after.take())
                .send()
                .await
                .map_err(Fault::of)?;
            parts.extend(answer.parts().iter().filter_map(|part| {
                Some(Part {
                    number: u32::try_from(part.part_number()?).ok()?,
                    size: u64::try_from(part.size()?).ok()?,
                    etag: bare(part.e_tag()),
                })
            }));
            if !answer.is_truncated().unwrap_or_default() {
                break;
            }
            after = answer.next_part_number_marker().map(str::to_owned);
        }
        parts.sort_by_key(|part| part.number);
        Ok(parts)
    }

    /// Makes an object of an upload's parts. `len` is the whole object's, for patience: some services copy
    /// every byte before they answer.
    pub async fn complete(
        &self,
        place: &Place,
        upload: &str,
        parts: &[Part],
        len: u64,
        guard: &Guard,
    ) -> Result<Written, Fault> {
        let list = parts
            .iter()
            .map(|part| CompletedPart::builder().part_number(part.number as i32).e_tag(quoted(&part.etag)).build());
        let list = CompletedMultipartUpload::builder().set_parts(Some(list.collect())).build();
        let mut request = self
            .client
            .complete_multipart_upload()
            .bucket(&place.bucket)
            .key(place.text()?)
            .upload_id(upload)
            .multipart_upload(list);
        request = match guard {
            Guard::None => request,
            Guard::Absent => request.if_none_match("*"),
            Guard::Is(etag) => request.if_match(quoted(etag)),
        };
        let answer = request.customize().config_override(self.patience(len)).send().await.map_err(Fault::of)?;
        Ok(Written { etag: bare(answer.e_tag()), version_id: version(answer.version_id()) })
    }

    /// Gives an upload up; one that is gone already is given up.
    pub async fn abort(&self, place: &Place, upload: &str) -> Result<(), Fault> {
        let request = self.client.abort_multipart_upload().bucket(&place.bucket).key(place.text()?);
        match request.upload_id(upload).send().await.map_err(Fault::of) {
            Ok(_) | Err(Fault::NotFound) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// Deletes an object, where `guard` says so only as long as it is what was seen.
    pub async fn delete(&self, place: &Place, guard: &Guard) -> Result<Written, Fault> {
        let mut request = self.client.delete_object().bucket(&place.bucket).key(place.text()?);
        if let Guard::Is(etag) = guard {
            request = request.if_match(quoted(etag));
        }
        let answer = request.send().await.map_err(Fault::of)?;
        Ok(Written { etag: String::new(), version_id: version(answer.version_id()) })
    }

    /// Deletes one version for good.
    pub async fn delete_version(&self, place: &Place, version_id: &str) -> Result<(), Fault> {
        let request = self.client.delete_object().bucket(&place.bucket).key(place.text()?).version_id(version_id);
        request.send().await.map_err(Fault::of).map(|_| ())
    }

    /// Sets the tags of an object, for services that take none with the upload.
    pub async fn set_tags(&self, place: &Place, tags: &BTreeMap<String, String>) -> Result<(), Fault> {
        let tags = tags
            .iter()
            .map(|(key, value)| Tag::builder().key(key).value(value).build())
            .collect::<Result<Vec<Tag>, _>>()
            .and_then(|tags| Tagging::builder().set_tag_set(Some(tags)).build())
            .map_err(|error| Fault::Source(error.to_string()))?;
        let request = self.client.put_object_tagging().bucket(&place.bucket).key(place.text()?).tagging(tags);
        request.send().await.map_err(Fault::of).map(|_| ())
    }

    /// Creates a bucket.
    pub async fn create_bucket(&self, bucket: &str) -> Result<(), Fault> {
        let mut request = self.client.create_bucket().bucket(bucket);
        // us-east-1 is the one region that S3 does not allow to be named.
        if self.region != "us-east-1" {
            let place = BucketLocationConstraint::from(self.region.as_str());
            request = request
                .create_bucket_configuration(CreateBucketConfiguration::builder().location_constraint(place).build());
        }
        request.send().await.map_err(Fault::of).map(|_| ())
    }

    /// Whether the bucket keeps versions: `Enabled`, `Suspended`, `Off`, or `unknown` where the service does not say.
    pub async fn versioning(&self, bucket: &str) -> String {
        match self.client.get_bucket_versioning().bucket(bucket).send().await {
            Ok(answer) => answer.status().map_or("Off".to_owned(), |status| status.as_str().to_owned()),
            Err(_) => "unknown".to_owned(),
        }
    }
}

/// Headers go out as they came in: dates unparsed, metadata in its own bytes.
fn set(request: &mut HttpRequest, headers: &BTreeMap<String, Vec<u8>>) {
    for (name, value) in headers.iter().filter(|(name, _)| *name != CONTENT_ENCODING) {
        // What is not UTF-8 cannot be signed; it would show as a difference when the target is verified.
        if let Ok(value) = String::from_utf8(value.clone()) {
            let _ = request.headers_mut().try_insert(name.clone(), value);
        }
    }
}

/// The SDK adds `aws-chunked` to this one, so it has to know it.
fn encoding(headers: &BTreeMap<String, Vec<u8>>) -> Option<String> {
    headers.get(CONTENT_ENCODING).map(|value| String::from_utf8_lossy(value).into_owned())
}

/// Tags in the form of `x-amz-tagging`.
fn tagging(tags: &BTreeMap<String, String>) -> Option<String> {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pairs: Vec<String> = tags.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
    (!pairs.is_empty()).then(|| pairs.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_survive_their_header() {
        let tags = BTreeMap::from([("a b".into(), "1&2=3".into()), ("é".into(), String::new())]);
        assert_eq!(tagging(&tags).as_deref(), Some("a%20b=1%262%3D3&%C3%A9="));
        assert_eq!(tagging(&BTreeMap::new()), None);
    }
}

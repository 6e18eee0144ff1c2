//! Reading objects: HEAD, GET, tags, and how a multipart object was cut.
use std::collections::BTreeMap;

use aws_sdk_s3::primitives::{ByteStream, DateTime, DateTimeFormat};
use aws_sdk_s3::types::ChecksumMode;
use hawser_api::v1;

use super::headers::Raw;
use super::{Cloud, Fault, Place};

/// What a cloud says of an object besides its bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Head {
    /// Its length in bytes; of the part, where a part was asked for.
    pub size: u64,
    /// The ETag without quotes, an opaque token.
    pub etag: String,
    /// The version, where the bucket has versions.
    pub version_id: String,
    /// As the service writes it; identifies, never orders.
    pub last_modified: String,
    /// The headers that belong to the object.
    pub headers: Vec<v1::Header>,
    /// How many parts it was uploaded in, where the service says so.
    pub parts_count: Option<u32>,
    /// How many tags it has, where the service says so.
    pub tag_count: Option<u32>,
}

impl Cloud {
    /// HEAD of an object; `part` asks for one part of it.
    ///
    /// # Errors
    /// [`Fault::NotFound`] when there is none.
    pub async fn head(&self, place: &Place, part: Option<u32>) -> Result<Head, Fault> {
        let raw = Raw::default();
        let mut request = self.client.head_object().bucket(&place.bucket).key(place.text()?);
        if let Some(number) = part {
            request = request.part_number(number as i32);
        } else {
            request = request.checksum_mode(ChecksumMode::Enabled);
        }
        let answer = request.customize().interceptor(raw.clone()).send().await.map_err(Fault::of)?;
        Ok(Head {
            size: length(answer.content_length()),
            etag: bare(answer.e_tag()),
            version_id: version(answer.version_id()),
            last_modified: http_date(answer.last_modified()),
            headers: raw.take(),
            parts_count: count(answer.parts_count()),
            tag_count: count(answer.tag_count()),
        })
    }

    /// GET of a whole object, if its ETag is still `etag` (empty: whatever it is).
    ///
    /// # Errors
    /// [`Fault::Precondition`] when it changed, [`Fault::NotFound`] when it is gone.
    pub async fn get(&self, place: &Place, etag: &str) -> Result<(Head, ByteStream), Fault> {
        let raw = Raw::default();
        let mut request =
            self.client.get_object().bucket(&place.bucket).key(place.text()?).checksum_mode(ChecksumMode::Enabled);
        if !etag.is_empty() {
            request = request.if_match(quoted(etag));
        }
        // The attempt's time-out ends with the answer's head; the stall protection watches the body.
        let answer = request.customize().interceptor(raw.clone()).send().await.map_err(Fault::of)?;
        let head = Head {
            size: length(answer.content_length()),
            etag: bare(answer.e_tag()),
            version_id: version(answer.version_id()),
            last_modified: http_date(answer.last_modified()),
            headers: raw.take(),
            parts_count: count(answer.parts_count()),
            tag_count: count(answer.tag_count()),
        };
        Ok((head, answer.body))
    }

    /// The tags of an object; `None` where the service has no tags.
    pub async fn tags(&self, place: &Place) -> Result<Option<BTreeMap<String, String>>, Fault> {
        let request = self.client.get_object_tagging().bucket(&place.bucket).key(place.text()?);
        match request.send().await.map_err(|error| (no_tags(&error), Fault::of(error))) {
            Ok(answer) => {
                Ok(Some(answer.tag_set().iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect()))
            }
            Err((true, _)) => Ok(Some(BTreeMap::new())),
            Err((false, Fault::Unsupported { .. })) => Ok(None),
            Err((false, fault)) => Err(fault),
        }
    }
}

/// Some services answer "no tags" as an error.
fn no_tags<E: aws_sdk_s3::error::ProvideErrorMetadata>(
    error: &aws_sdk_s3::error::SdkError<E, aws_smithy_runtime_api::client::orchestrator::HttpResponse>,
) -> bool {
    aws_sdk_s3::error::ProvideErrorMetadata::code(error) == Some("NoSuchTagSet")
}

/// An ETag without its quotes.
pub(super) fn bare(etag: Option<&str>) -> String {
    let etag = etag.unwrap_or_default();
    etag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(etag).to_owned()
}

/// An ETag as a header writes it.
pub(super) fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}

/// A version id; `null` is what a bucket without versions says.
pub(super) fn version(id: Option<&str>) -> String {
    id.filter(|id| *id != "null").unwrap_or_default().to_owned()
}

fn length(content_length: Option<i64>) -> u64 {
    u64::try_from(content_length.unwrap_or_default()).unwrap_or_default()
}

fn count(number: Option<i32>) -> Option<u32> {
    number.and_then(|number| u32::try_from(number).ok())
}

fn http_date(time: Option<&DateTime>) -> String {
    time.and_then(|time| time.fmt(DateTimeFormat::HttpDate).ok()).unwrap_or_default()
}

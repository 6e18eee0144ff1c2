//! The read-only S3 face: how people, tools and, while the cloud is down, applications look at the
//! copy. Buckets stand under the store's names and show the records of the provider in force, with
//! the objects' own metadata. The access key is the domain's name. Every write is refused with a
//! sentence that says where to write instead.
//!
//! Version ids are the cloud's; a version of an unversioned bucket is named `tick-N` after its
//! record. While a gap of a key is open, the last version that is certain is served with
//! `x-hawser-gap: REASON`.

pub mod keys;
pub mod listing;
pub mod object;
mod reads;

use std::sync::Arc;

use hawser_api::v1::ObjectEntry;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use s3s::access::{S3Access, S3AccessContext};
use s3s::dto::{
    CommonPrefix, DeleteMarkerEntry, EncodingType, GetBucketLocationInput, GetBucketLocationOutput,
    GetBucketVersioningInput, GetBucketVersioningOutput, GetObjectInput, GetObjectOutput, GetObjectTaggingInput,
    GetObjectTaggingOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListBucketsInput,
    ListBucketsOutput, ListObjectVersionsInput, ListObjectVersionsOutput, ListObjectsInput, ListObjectsOutput,
    ListObjectsV2Input, ListObjectsV2Output, Object, ObjectVersion, Range, Tag,
};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::validation::NameValidation;
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use self::listing::{Ask, PAGE_ROWS_MAX, Page, Row};
use self::object::Conditions;
use crate::catalog::Catalog;

/// The operations that read. Everything else is refused before it is even parsed.
const READING: [&str; 10] = [
    "GetBucketLocation",
    "GetBucketVersioning",
    "GetObject",
    "GetObjectTagging",
    "HeadBucket",
    "HeadObject",
    "ListBuckets",
    "ListObjectVersions",
    "ListObjects",
    "ListObjectsV2",
];

/// Escaped in keys where a client asks for `encoding-type=url`: what S3 escapes.
const KEY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b'*');

/// Builds the service; `keys` knows each domain's secret.
pub fn service(catalog: Arc<Catalog>, keys: Arc<keys::Keys>) -> S3Service {
    let mut builder = S3ServiceBuilder::new(Face { catalog });
    builder.set_auth(keys::Shared(keys));
    builder.set_access(ReadOnly);
    builder.set_validation(AnyBucket);
    builder.build()
}

/// Buckets are called what their clouds call them; that they exist is checked by looking.
struct AnyBucket;

impl NameValidation for AnyBucket {
    fn validate_bucket_name(&self, name: &str) -> bool {
        !name.is_empty() && name.len() <= 255
    }
}

struct ReadOnly;

#[async_trait::async_trait]
impl S3Access for ReadOnly {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        if context.credentials().is_none() {
            return Err(s3_error!(AccessDenied, "sign the request: the access key is the domain's name"));
        }
        if READING.contains(&context.s3_op().name()) {
            return Ok(());
        }
        let mut error = S3Error::with_message(
            S3ErrorCode::MethodNotAllowed,
            "this is the read-only copy: write to the cloud itself, the copy follows",
        );
        error.set_status_code(http::StatusCode::METHOD_NOT_ALLOWED);
        Err(error)
    }
}

struct Face {
    catalog: Arc<Catalog>,
}

#[async_trait::async_trait]
impl S3 for Face {
    async fn list_buckets(&self, request: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let domain = domain(&request)?;
        let buckets = self.buckets(&domain)?;
        Ok(S3Response::new(ListBucketsOutput { buckets: Some(buckets), ..ListBucketsOutput::default() }))
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.require_bucket(&domain(&request)?, &request.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.require_bucket(&domain(&request)?, &request.input.bucket)?;
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    async fn get_bucket_versioning(
        &self,
        request: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        self.require_bucket(&domain(&request)?, &request.input.bucket)?;
        Ok(S3Response::new(GetBucketVersioningOutput {
            status: Some(s3s::dto::BucketVersioningStatus::from_static(s3s::dto::BucketVersioningStatus::ENABLED)),
            ..GetBucketVersioningOutput::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let domain = domain(&request)?;
        let input = request.input;
        let token = input.continuation_token.as_deref().map(unseal).transpose()?;
        let after = token.or_else(|| input.start_after.clone().map(String::into_bytes)).unwrap_or_default();
        let ask = ask(input.prefix.as_deref(), input.delimiter.as_deref(), after, input.max_keys)?;
        let page = self.page(&domain, &input.bucket, &ask)?;
        let encoding = encoding(input.encoding_type.as_ref());
        let (contents, common_prefixes) = shown(&page, encoding);
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: input.prefix.map(|prefix| encoding.text(prefix.as_bytes())),
            delimiter: input.delimiter.map(|delimiter| encoding.text(delimiter.as_bytes())),
            start_after: input.start_after.map(|after| encoding.text(after.as_bytes())),
            max_keys: i32::try_from(ask.rows_max).ok(),
            key_count: i32::try_from(page.rows.len()).ok(),
            continuation_token: input.continuation_token,
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next.as_deref().map(seal),
            contents: Some(contents),
            common_prefixes: Some(common_prefixes),
            encoding_type: input.encoding_type,
            ..ListObjectsV2Output::default()
        }))
    }

    async fn list_objects(&self, request: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        let domain = domain(&request)?;
        let input = request.input;
        let after = input.marker.clone().unwrap_or_default().into_bytes();
        let ask = ask(input.prefix.as_deref(), input.delimiter.as_deref(), after, input.max_keys)?;
        let page = self.page(&domain, &input.bucket, &ask)?;
        let encoding = encoding(input.encoding_type.as_ref());
        let (contents, common_prefixes) = shown(&page, encoding);
        Ok(S3Response::new(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: input.prefix.map(|prefix| encoding.text(prefix.as_bytes())),
            delimiter: input.delimiter.map(|delimiter| encoding.text(delimiter.as_bytes())),
            marker: Some(encoding.text(input.marker.unwrap_or_default().as_bytes())),
            max_keys: i32::try_from(ask.rows_max).ok(),
            is_truncated: Some(page.next.is_some()),
            next_marker: page.next.map(|next| encoding.text(&next)),
            contents: Some(contents),
            common_prefixes: Some(common_prefixes),
            encoding_type: input.encoding_type,
            ..ListObjectsOutput::default()
        }))
    }

    async fn list_object_versions(
        &self,
        request: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        let domain = domain(&request)?;
        let input = request.input;
        let after = input.key_marker.clone().unwrap_or_default().into_bytes();
        let ask = ask(input.prefix.as_deref(), input.delimiter.as_deref(), after, input.max_keys)?;
        let page = self.versions_page(&domain, &input.bucket, &ask, input.version_id_marker.as_deref())?;
        let encoding = encoding(input.encoding_type.as_ref());
        let mut output = ListObjectVersionsOutput {
            name: Some(input.bucket),
            prefix: input.prefix.map(|prefix| encoding.text(prefix.as_bytes())),
            delimiter: input.delimiter.map(|delimiter| encoding.text(delimiter.as_bytes())),
            key_marker: Some(encoding.text(input.key_marker.unwrap_or_default().as_bytes())),
            version_id_marker: input.version_id_marker,
            max_keys: i32::try_from(ask.rows_max).ok(),
            is_truncated: Some(page.next.is_some()),
            encoding_type: input.encoding_type,
            ..ListObjectVersionsOutput::default()
        };
        if page.next.is_some() {
            match page.rows.last() {
                Some(Row::Object(entry)) => {
                    output.next_key_marker = Some(encoding.text(key(entry)));
                    output.next_version_id_marker = Some(object::version_id(entry));
                }
                Some(Row::Prefix(prefix)) => output.next_key_marker = Some(encoding.text(prefix)),
                None => {}
            }
        }
        let (mut versions, mut markers, mut prefixes) = (Vec::new(), Vec::new(), Vec::new());
        for row in &page.rows {
            match row {
                Row::Prefix(prefix) => prefixes.push(CommonPrefix { prefix: Some(encoding.text(prefix)) }),
                Row::Object(entry) if entry.tombstone || entry.delete_marker => markers.push(DeleteMarkerEntry {
                    is_latest: Some(entry.current),
                    key: Some(encoding.text(key(entry))),
                    last_modified: Some(object::last_modified(entry)),
                    version_id: Some(object::version_id(entry)),
                    ..DeleteMarkerEntry::default()
                }),
                Row::Object(entry) => versions.push(ObjectVersion {
                    e_tag: object::etag(entry),
                    is_latest: Some(entry.current),
                    key: Some(encoding.text(key(entry))),
                    last_modified: Some(object::last_modified(entry)),
                    size: i64::try_from(entry.size).ok(),
                    version_id: Some(object::version_id(entry)),
                    ..ObjectVersion::default()
                }),
            }
        }
        output.versions = Some(versions);
        output.delete_markers = Some(markers);
        output.common_prefixes = Some(prefixes);
        Ok(S3Response::new(output))
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let domain = domain(&request)?;
        let input = request.input;
        let entry = self.object(&domain, &input.bucket, &input.key, input.version_id.as_deref())?;
        let conditions = Conditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        conditions.check(&entry)?;
        let (range, partial, parts_count) = wanted(&entry, input.range, input.part_number)?;
        let checksums = input.checksum_mode.is_some() && !partial;
        let output = HeadObjectOutput {
            accept_ranges: Some("bytes".into()),
            content_length: i64::try_from(range.end - range.start).ok(),
            content_range: partial.then(|| content_range(&range, entry.size)),
            e_tag: object::etag(&entry),
            last_modified: Some(object::last_modified(&entry)),
            parts_count,
            version_id: Some(object::version_id(&entry)),
            ..HeadObjectOutput::default()
        };
        let mut response = S3Response::with_headers(output, object::headers(&entry, checksums));
        response.status = partial.then_some(http::StatusCode::PARTIAL_CONTENT);
        Ok(response)
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let domain = domain(&request)?;
        let input = request.input;
        let entry = self.object(&domain, &input.bucket, &input.key, input.version_id.as_deref())?;
        let conditions = Conditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        conditions.check(&entry)?;
        let (range, partial, parts_count) = wanted(&entry, input.range, input.part_number)?;
        let checksums = input.checksum_mode.is_some() && !partial;
        let length = range.end - range.start;
        let mut headers = object::headers(&entry, checksums);
        for (name, overridden) in [
            ("cache-control", input.response_cache_control.is_some()),
            ("content-disposition", input.response_content_disposition.is_some()),
            ("content-encoding", input.response_content_encoding.is_some()),
            ("content-language", input.response_content_language.is_some()),
            ("content-type", input.response_content_type.is_some()),
            ("expires", input.response_expires.is_some()),
        ] {
            if overridden {
                headers.remove(name);
            }
        }
        let output = GetObjectOutput {
            accept_ranges: Some("bytes".into()),
            body: Some(self.body(&domain, &entry, &range)?),
            content_length: i64::try_from(length).ok(),
            content_range: partial.then(|| content_range(&range, entry.size)),
            e_tag: object::etag(&entry),
            last_modified: Some(object::last_modified(&entry)),
            parts_count,
            version_id: Some(object::version_id(&entry)),
            ..GetObjectOutput::default()
        };
        let mut response = S3Response::with_headers(output, headers);
        response.status = partial.then_some(http::StatusCode::PARTIAL_CONTENT);
        Ok(response)
    }

    async fn get_object_tagging(
        &self,
        request: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let domain = domain(&request)?;
        let input = request.input;
        let entry = self.object(&domain, &input.bucket, &input.key, input.version_id.as_deref())?;
        let tags = entry.metadata.clone().unwrap_or_default().tags;
        let mut tag_set: Vec<Tag> =
            tags.into_iter().map(|(key, value)| Tag { key: Some(key), value: Some(value) }).collect();
        tag_set.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(S3Response::new(GetObjectTaggingOutput { tag_set, version_id: Some(object::version_id(&entry)) }))
    }
}

/// The domain of a signed request: its access key.
fn domain<T>(request: &S3Request<T>) -> S3Result<String> {
    match &request.credentials {
        Some(credentials) => Ok(credentials.access_key.clone()),
        None => Err(s3_error!(AccessDenied)),
    }
}

fn ask(prefix: Option<&str>, delimiter: Option<&str>, after: Vec<u8>, rows: Option<i32>) -> S3Result<Ask> {
    let rows =
        usize::try_from(rows.unwrap_or(1000)).map_err(|_| s3_error!(InvalidArgument, "max-keys must be 0 or more"))?;
    Ok(Ask {
        prefix: prefix.unwrap_or_default().as_bytes().to_vec(),
        delimiter: delimiter.unwrap_or_default().as_bytes().to_vec(),
        after,
        rows_max: rows.min(PAGE_ROWS_MAX),
    })
}

/// The bytes that a read asks for, whether they are a part of the object, and how many parts it has.
fn wanted(
    entry: &ObjectEntry,
    range: Option<Range>,
    part: Option<i32>,
) -> S3Result<(std::ops::Range<u64>, bool, Option<i32>)> {
    match (range, part) {
        (Some(_), Some(_)) => Err(s3_error!(InvalidRequest, "ask for a range or for a part, not for both")),
        (None, None) => Ok((0..entry.size, false, None)),
        (None, Some(number)) => {
            let (range, parts) = object::part_range(entry, number)?;
            Ok((range, entry.size > 0, parts))
        }
        (Some(range), None) => {
            let range = range.check(entry.size).map_err(|_| S3Error::new(S3ErrorCode::InvalidRange))?;
            Ok((range, true, None))
        }
    }
}

fn content_range(range: &std::ops::Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1))
}

fn key(entry: &ObjectEntry) -> &[u8] {
    entry.object.as_ref().map(|object| object.key.as_ref()).unwrap_or_default()
}

/// How keys are written into a listing's XML.
#[derive(Clone, Copy)]
enum Encoding {
    Plain,
    Url,
}

fn encoding(asked: Option<&EncodingType>) -> Encoding {
    if asked.is_some_and(|asked| asked.as_str() == EncodingType::URL) { Encoding::Url } else { Encoding::Plain }
}

impl Encoding {
    fn text(self, bytes: &[u8]) -> String {
        match self {
            Encoding::Plain => String::from_utf8_lossy(bytes).into_owned(),
            Encoding::Url => percent_encode(bytes, KEY).to_string(),
        }
    }
}

/// A page's objects and folded prefixes as S3 shows them.
fn shown(page: &Page, encoding: Encoding) -> (Vec<Object>, Vec<CommonPrefix>) {
    let (mut objects, mut prefixes) = (Vec::new(), Vec::new());
    for row in &page.rows {
        match row {
            Row::Prefix(prefix) => prefixes.push(CommonPrefix { prefix: Some(encoding.text(prefix)) }),
            Row::Object(entry) => objects.push(Object {
                e_tag: object::etag(entry),
                key: Some(encoding.text(key(entry))),
                last_modified: Some(object::last_modified(entry)),
                size: i64::try_from(entry.size).ok(),
                storage_class: storage_class(entry),
                ..Object::default()
            }),
        }
    }
    (objects, prefixes)
}

fn storage_class(entry: &ObjectEntry) -> Option<s3s::dto::ObjectStorageClass> {
    let headers = &entry.metadata.as_ref()?.headers;
    let value = headers.iter().find(|header| header.name == "x-amz-storage-class").map(|header| &header.value);
    let name = value.and_then(|value| std::str::from_utf8(value).ok()).unwrap_or("STANDARD");
    Some(s3s::dto::ObjectStorageClass::from(name.to_owned()))
}

/// A continuation token: opaque to clients, the row's name to us.
fn seal(after: &[u8]) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, after)
}

fn unseal(token: &str) -> S3Result<Vec<u8>> {
    base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, token)
        .map_err(|_| s3_error!(InvalidArgument, "the continuation token is not one of this service's"))
}

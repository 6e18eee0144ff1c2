//! What the face asks the catalog, and what a catalog's "no" is in S3's words.

use hawser_api::v1::{GetObjectRequest, ListObjectsRequest, ObjectEntry, ObjectRef};
use s3s::dto::{Bucket, StreamingBlob};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};
use tokio_stream::StreamExt;

use super::listing::{self, Ask, Page};
use super::object::{self, Version};
use super::{Face, key};
use crate::catalog::{ListError, PAGE_MAX};

impl Face {
    pub(super) fn buckets(&self, domain: &str) -> S3Result<Vec<Bucket>> {
        let buckets = self.catalog.list_buckets(domain, "").map_err(refusal)?;
        let shown = buckets.into_iter().map(|bucket| Bucket {
            name: Some(bucket.name),
            creation_date: Some(object::unix(bucket.created_unix)),
            ..Bucket::default()
        });
        Ok(shown.collect())
    }

    pub(super) fn require_bucket(&self, domain: &str, bucket: &str) -> S3Result<()> {
        let request = ListObjectsRequest { bucket: bucket.into(), limit: 1, ..ListObjectsRequest::default() };
        self.catalog.list_objects(domain, &request).map_err(bucket_refusal).map(|_| ())
    }

    pub(super) fn page(&self, domain: &str, bucket: &str, ask: &Ask) -> S3Result<Page> {
        listing::page(ask, |start, limit| {
            let entries = self.catalog.list_objects(domain, &request(bucket, ask, start, limit));
            entries.map_err(bucket_refusal)
        })
    }

    /// A page of versions. `version_marker` names the last one that was told of the key `ask.after`;
    /// the page goes on behind it.
    pub(super) fn versions_page(
        &self,
        domain: &str,
        bucket: &str,
        ask: &Ask,
        version_marker: Option<&str>,
    ) -> S3Result<Page> {
        let mut untold = match version_marker {
            Some(marker) if !marker.is_empty() => self.versions_behind(domain, bucket, &ask.after, marker)?,
            _ => Vec::new(),
        };
        listing::page(ask, |start, limit| {
            let mut entries = std::mem::take(&mut untold);
            if entries.len() < limit {
                let request = request(bucket, ask, start, limit - entries.len());
                entries.extend(self.catalog.list_versions(domain, &request).map_err(bucket_refusal)?);
            }
            Ok(entries)
        })
    }

    /// Versions of one key that are older than `marker`.
    fn versions_behind(&self, domain: &str, bucket: &str, of: &[u8], marker: &str) -> S3Result<Vec<ObjectEntry>> {
        let request = ListObjectsRequest {
            bucket: bucket.into(),
            prefix: of.to_vec().into(),
            limit: 1,
            ..ListObjectsRequest::default()
        };
        let versions = self.catalog.list_versions(domain, &request).map_err(bucket_refusal)?;
        let mut behind = versions.into_iter().filter(|entry| key(entry) == of);
        // Everything up to and with the marker was told already.
        behind.by_ref().find(|entry| object::version_id(entry) == marker);
        Ok(behind.collect())
    }

    /// One object that has content, in the version asked for.
    pub(super) fn object(&self, domain: &str, bucket: &str, key: &str, version: Option<&str>) -> S3Result<ObjectEntry> {
        let mut request = GetObjectRequest {
            store_bucket: bucket.into(),
            object: Some(ObjectRef { key: key.as_bytes().to_vec().into(), ..ObjectRef::default() }),
            ..GetObjectRequest::default()
        };
        let version = Version::parse(version);
        match &version {
            Version::Current => {}
            Version::Cloud(id) => request.version_id.clone_from(id),
            Version::Tick(tick) => request.tick = *tick,
        }
        let entry = match self.catalog.get_object(domain, &request) {
            Ok(entry) => entry,
            Err(ListError::NotFound) => {
                self.require_bucket(domain, bucket)?;
                let code =
                    if version == Version::Current { S3ErrorCode::NoSuchKey } else { S3ErrorCode::NoSuchVersion };
                return Err(self.absent(domain, &request, code));
            }
            Err(error) => return Err(refusal(error)),
        };
        if entry.tombstone || entry.delete_marker {
            if version == Version::Current {
                return Err(self.absent(domain, &request, S3ErrorCode::NoSuchKey));
            }
            return Err(s3_error!(MethodNotAllowed, "this version is a deletion"));
        }
        Ok(entry)
    }

    /// A 404 that says when it is not certain.
    fn absent(&self, domain: &str, request: &GetObjectRequest, code: S3ErrorCode) -> S3Error {
        let mut error = S3Error::with_message(code, "the copy knows no such object");
        if let Ok(Some(reason)) = self.catalog.gap(domain, request)
            && let Ok(value) = http::HeaderValue::try_from(reason)
        {
            let mut headers = http::HeaderMap::new();
            headers.insert("x-hawser-gap", value);
            error.set_headers(headers);
        }
        error
    }

    pub(super) fn body(
        &self,
        domain: &str,
        entry: &ObjectEntry,
        range: &std::ops::Range<u64>,
    ) -> S3Result<StreamingBlob> {
        if range.is_empty() {
            return Ok(StreamingBlob::wrap(tokio_stream::empty::<Result<bytes::Bytes, std::io::Error>>()));
        }
        let object = entry.object.clone().unwrap_or_default();
        let frames = self.catalog.read_body(domain, &object, entry.tick, range.start, range.end - range.start);
        let frames = frames.map_err(refusal)?.map(|frame| {
            // The headers are gone: all that can be done is to break the connection off.
            frame.inspect_err(|error| tracing::error!(%error, "a body could not be read to its end"))
        });
        Ok(StreamingBlob::wrap(frames))
    }
}

fn request(bucket: &str, ask: &Ask, start: &[u8], limit: usize) -> ListObjectsRequest {
    ListObjectsRequest {
        bucket: bucket.into(),
        prefix: ask.prefix.clone().into(),
        start_after: start.to_vec().into(),
        limit: limit.min(PAGE_MAX) as u64,
        ..ListObjectsRequest::default()
    }
}

fn bucket_refusal(error: ListError) -> S3Error {
    match error {
        ListError::NotFound => s3_error!(NoSuchBucket, "no binding of this domain has such a bucket"),
        error => refusal(error),
    }
}

fn refusal(error: ListError) -> S3Error {
    match error {
        ListError::NotFound => s3_error!(NoSuchKey, "the copy knows no such object"),
        ListError::Ambiguous(_) => S3Error::with_message(S3ErrorCode::OperationAborted, error.to_string()),
        ListError::ContentUnknown => {
            let mut refused = S3Error::with_message(
                S3ErrorCode::ServiceUnavailable,
                "the copy knows this object and lacks its content: run a backfill, or read it at the cloud",
            );
            refused.set_status_code(http::StatusCode::SERVICE_UNAVAILABLE);
            refused
        }
        ListError::Range { .. } => s3_error!(InvalidRange),
        ListError::Index(source) => {
            tracing::error!(error = %source, "the index could not be read");
            S3Error::with_message(S3ErrorCode::InternalError, "the index could not be read: see the store's log")
        }
    }
}

//! What a request asks for: the table from method, place, query and headers to an operation of S3.

use percent_encoding::percent_decode_str;

use super::address::{Name, Query, Target};
use crate::http::head::RequestHead;
use crate::operation::{Directive, Object, PartNumber, Place, Source, UploadId, VersionId, WriteKind};

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Nothing that changes or shows an object.
    Other,
    /// GetObject, of a whole object, a range or a part.
    Get(Object, Asked),
    /// HeadObject.
    Head(Object, Asked),
    /// A page of a listing of that bucket.
    List(String),
    /// A change.
    Write(Place, Ask),
}

/// The version and part that a read names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    /// The version.
    pub version: Option<VersionId>,
    /// The part.
    pub part: Option<PartNumber>,
    /// Whether the query overrides headers of the answer.
    pub overrides: bool,
}

/// A change, with everything that the head tells of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// PutObject.
    Put,
    /// PostObject, the browser's form.
    Form,
    /// CreateMultipartUpload.
    CreateMultipart,
    /// UploadPart.
    PutPart(UploadId, PartNumber),
    /// UploadPartCopy; without a source when that is not understood.
    CopyPart(UploadId, PartNumber, Option<CopySource>),
    /// CompleteMultipartUpload.
    CompleteMultipart(UploadId),
    /// AbortMultipartUpload.
    AbortMultipart(UploadId),
    /// CopyObject; without a source when that is not understood.
    Copy(Option<CopySource>, Directive, Directive),
    /// DeleteObject.
    Delete(Option<VersionId>),
    /// DeleteObjects.
    DeleteMany,
    /// PutObjectTagging.
    PutTags(Option<VersionId>),
    /// DeleteObjectTagging.
    DeleteTags(Option<VersionId>),
    /// PutObjectAcl.
    PutAcl(Option<VersionId>),
    /// PutObjectRetention.
    PutRetention(Option<VersionId>),
    /// PutObjectLegalHold.
    PutLegalHold(Option<VersionId>),
    /// CreateBucket.
    CreateBucket,
    /// DeleteBucket.
    DeleteBucket,
    /// Something that may change the place and is not captured.
    Unsupported,
}

/// What a copy names as its source.
#[derive(Clone, Debug, PartialEq)]
pub struct CopySource {
    /// The object, and the version when one is named.
    pub source: Source,
    /// Offsets of the first and last byte; `None` is all of it.
    pub range: Option<(u64, u64)>,
}

impl Ask {
    /// The shared word for it.
    pub fn kind(&self) -> WriteKind {
        match self {
            Ask::Put | Ask::Form => WriteKind::Put,
            Ask::CreateMultipart => WriteKind::CreateMultipart,
            Ask::PutPart(..) => WriteKind::PutPart,
            Ask::CopyPart(..) => WriteKind::CopyPart,
            Ask::CompleteMultipart(_) => WriteKind::CompleteMultipart,
            Ask::AbortMultipart(_) => WriteKind::AbortMultipart,
            Ask::Copy(..) => WriteKind::Copy,
            Ask::Delete(_) => WriteKind::Delete,
            Ask::DeleteMany => WriteKind::DeleteMany,
            Ask::PutTags(_) | Ask::DeleteTags(_) => WriteKind::SetTags,
            Ask::PutAcl(_) => WriteKind::SetAcl,
            Ask::PutRetention(_) | Ask::PutLegalHold(_) => WriteKind::SetLock,
            Ask::CreateBucket => WriteKind::CreateBucket,
            Ask::DeleteBucket => WriteKind::DeleteBucket,
            Ask::Unsupported => WriteKind::Unsupported,
        }
    }

    /// Whether a 2xx is believed only after the answer's body: it can hold an error, or the upload's id.
    pub fn body_decides(&self) -> bool {
        matches!(
            self,
            Ask::CreateMultipart | Ask::CopyPart(..) | Ask::CompleteMultipart(_) | Ask::Copy(..) | Ask::DeleteMany
        )
    }

    /// The upload and part that it belongs to.
    pub fn upload(&self) -> Option<(UploadId, Option<PartNumber>)> {
        match self {
            Ask::PutPart(upload, number) | Ask::CopyPart(upload, number, _) => Some((upload.clone(), Some(*number))),
            Ask::CompleteMultipart(upload) | Ask::AbortMultipart(upload) => Some((upload.clone(), None)),
            _ => None,
        }
    }
}

/// Subresources of a bucket whose change changes no object.
const BUCKET_SETTINGS: [&str; 27] = [
    "abac",
    "accelerate",
    "acl",
    "analytics",
    "cors",
    "encryption",
    "id",
    "intelligent-tiering",
    "inventory",
    "lifecycle",
    "logging",
    "metadataConfiguration",
    "metadataInventoryTable",
    "metadataJournalTable",
    "metadataTable",
    "metrics",
    "notification",
    "object-lock",
    "ownershipControls",
    "policy",
    "policyStatus",
    "publicAccessBlock",
    "replication",
    "requestPayment",
    "tagging",
    "versioning",
    "website",
];

/// Parameters of a listing.
const LISTING: [&str; 13] = [
    "list-type",
    "prefix",
    "delimiter",
    "marker",
    "max-keys",
    "encoding-type",
    "continuation-token",
    "start-after",
    "fetch-owner",
    "versions",
    "key-marker",
    "version-id-marker",
    "optional-object-attributes",
];

/// Parameters that name no subresource, for any method.
const HARMLESS: [&str; 12] = [
    "x-id",
    "versionId",
    "awsaccesskeyid",
    "signature",
    "expires",
    "response-content-type",
    "response-content-language",
    "response-expires",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "null-version-id",
];

/// `x-amz-…` parameters that authenticate or guard a request and give nothing to its object.
const HARMLESS_AMZ: [&str; 12] = [
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-signedheaders",
    "x-amz-signature",
    "x-amz-security-token",
    "x-amz-content-sha256",
    "x-amz-user-agent",
    "x-amz-sdk-checksum-algorithm",
    "x-amz-request-payer",
    "x-amz-expected-bucket-owner",
];

/// Reads what a request asks for.
pub fn request(head: &RequestHead, target: &Target) -> Request {
    match &target.name {
        Name::Unknown if matches!(head.method.as_str(), "PUT" | "POST" | "DELETE" | "PATCH") => {
            Request::Write(Place::Unknown, Ask::Unsupported)
        }
        Name::Service | Name::Unknown => Request::Other,
        Name::Bucket(bucket) => of_bucket(head, bucket, &target.query),
        Name::Object(bucket, key) => {
            of_object(head, Object { bucket: bucket.clone(), key: key.clone() }, &target.query)
        }
    }
}

fn of_bucket(head: &RequestHead, bucket: &str, query: &Query) -> Request {
    let rest: Vec<&str> = subresources(query).collect();
    let write = |ask| Request::Write(Place::Bucket(bucket.to_owned()), ask);
    let settings = !rest.is_empty() && rest.iter().all(|name| BUCKET_SETTINGS.contains(name));
    match head.method.as_str() {
        "GET" if rest.iter().all(|name| LISTING.contains(name)) => Request::List(bucket.to_owned()),
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "CONNECT" => Request::Other,
        "PUT" if rest.is_empty() => write(Ask::CreateBucket),
        "DELETE" if rest.is_empty() => write(Ask::DeleteBucket),
        "POST" if rest == ["delete"] => write(Ask::DeleteMany),
        "POST" if rest.is_empty() && is_form(head) => write(Ask::Form),
        "PUT" | "DELETE" | "POST" if settings => Request::Other,
        _ => write(Ask::Unsupported),
    }
}

fn of_object(head: &RequestHead, object: Object, query: &Query) -> Request {
    let rest: Vec<&str> = subresources(query).collect();
    let version = query.get("versionId").filter(|id| !id.is_empty()).map(|id| VersionId(id.to_owned()));
    let asked = |part: Option<PartNumber>| Asked {
        version: version.clone(),
        part,
        overrides: query.names().any(|name| name.starts_with("response-")),
    };
    let part = query.get("partNumber").and_then(PartNumber::parse);
    let upload = query.get("uploadId").map(|id| UploadId(id.to_owned()));
    let fields = &head.fields;

    match (head.method.as_str(), &rest[..]) {
        ("GET", []) => return Request::Get(object, asked(None)),
        ("HEAD", []) => return Request::Head(object, asked(None)),
        ("GET", ["partNumber"]) if part.is_some() => return Request::Get(object, asked(part)),
        ("HEAD", ["partNumber"]) if part.is_some() => return Request::Head(object, asked(part)),
        ("GET" | "HEAD" | "OPTIONS" | "TRACE" | "CONNECT", _) => return Request::Other,
        // A copy of an archived object, or a question to a table: nothing that the object is changes.
        ("POST", ["restore"] | ["select"] | ["select", "select-type"] | ["select-type", "select"]) => {
            return Request::Other;
        }
        _ => {}
    }

    let many = fields.text("x-amz-meta-snowball-auto-extract").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || fields.get("x-minio-force-delete").is_some()
        || rest.contains(&"renameObject");
    let ask = match (head.method.as_str(), &rest[..], upload, part) {
        // One request, many keys: an archive that is unpacked, a prefix that is removed, an object that moves.
        _ if many => return Request::Write(Place::Bucket(object.bucket), Ask::Unsupported),
        // Signed into the query instead of the head: servers differ in whether they heed it there.
        _ if gives_by_query(query) => Ask::Unsupported,

        ("PUT", ["partNumber", "uploadId"] | ["uploadId", "partNumber"], Some(upload), Some(number)) => {
            match fields.text("x-amz-copy-source") {
                Some(source) => {
                    Ask::CopyPart(upload, number, copy_source(source, fields.text("x-amz-copy-source-range")))
                }
                None => Ask::PutPart(upload, number),
            }
        }
        ("POST", ["uploads"], ..) => Ask::CreateMultipart,
        ("POST", ["uploadId"], Some(upload), _) => Ask::CompleteMultipart(upload),
        ("DELETE", ["uploadId"], Some(upload), _) => Ask::AbortMultipart(upload),
        // An append, as S3 Express and some servers know it.
        ("PUT", [], ..) if fields.get("x-amz-write-offset-bytes").is_some() => Ask::Unsupported,
        ("PUT", [], ..) => match fields.text("x-amz-copy-source") {
            Some(source) => Ask::Copy(
                copy_source(source, None),
                directive(fields.text("x-amz-metadata-directive")),
                directive(fields.text("x-amz-tagging-directive")),
            ),
            None => Ask::Put,
        },
        ("DELETE", [], ..) => Ask::Delete(version.clone()),
        ("PUT", ["tagging"], ..) => Ask::PutTags(version.clone()),
        ("DELETE", ["tagging"], ..) => Ask::DeleteTags(version.clone()),
        ("PUT", ["acl"], ..) => Ask::PutAcl(version.clone()),
        ("PUT", ["retention"], ..) => Ask::PutRetention(version.clone()),
        ("PUT", ["legal-hold"], ..) => Ask::PutLegalHold(version.clone()),
        _ => Ask::Unsupported,
    };
    let place = match version {
        Some(version) => Place::Version(object, version),
        None => Place::Object(object),
    };
    Request::Write(place, ask)
}

/// The names in a query that are neither harmless nor part of a signature.
fn subresources(query: &Query) -> impl Iterator<Item = &str> {
    query.names().filter(|name| {
        let lower = name.to_ascii_lowercase();
        !HARMLESS.contains(name) && !HARMLESS.contains(&lower.as_str()) && !lower.starts_with("x-amz-")
    })
}

/// Whether the query holds `x-amz-…` parameters that would give the object something as headers.
fn gives_by_query(query: &Query) -> bool {
    query.names().map(str::to_ascii_lowercase).any(|name| {
        name.starts_with("x-amz-") && !HARMLESS_AMZ.contains(&name.as_str()) && !name.starts_with("x-amz-checksum-")
    })
}

fn is_form(head: &RequestHead) -> bool {
    const FORM: &[u8] = b"multipart/form-data";
    head.fields
        .get("content-type")
        .and_then(|kind| kind.get(..FORM.len()))
        .is_some_and(|kind| kind.eq_ignore_ascii_case(FORM))
}

fn directive(text: Option<&str>) -> Directive {
    if text.is_some_and(|text| text.trim().eq_ignore_ascii_case("REPLACE")) {
        Directive::FromRequest
    } else {
        Directive::FromSource
    }
}

/// Reads `[/]BUCKET/KEY[?versionId=ID]`, percent-encoded. `None` for an access point's ARN, whose bucket is not
/// known, and for a `+`, which some servers take for a space.
fn copy_source(text: &str, range: Option<&str>) -> Option<CopySource> {
    let (path, version) = match text.split_once("?versionId=") {
        Some((path, version)) => (path, Some(VersionId(percent_decode_str(version).decode_utf8().ok()?.into_owned()))),
        None => (text, None),
    };
    // Some clients encode the slash between bucket and key as well; a bucket never holds one.
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    let decoded = decoded.strip_prefix(b"/").unwrap_or(&decoded);
    let slash = decoded.iter().position(|byte| *byte == b'/')?;
    let (bucket, key) = (std::str::from_utf8(&decoded[..slash]).ok()?, &decoded[slash + 1..]);
    if bucket.is_empty() || key.is_empty() || bucket.starts_with("arn:") || path.contains('+') {
        return None;
    }
    let range = match range {
        Some(text) => {
            let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
            Some((first.parse().ok()?, last.parse().ok()?))
        }
        None => None,
    };
    let object = Object { bucket: bucket.to_owned(), key: hawser_api::ObjectKey::from_bytes(key) };
    Some(CopySource { source: Source { object, version }, range })
}

#[cfg(test)]
mod tests;

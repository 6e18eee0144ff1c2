//! What the cloud did, in the words of the store: one [`Operation`] becomes the writes of one record.

use hawser_api::v1;
use hawser_api::v1::write::Change;

use crate::cut::Content;
use crate::operation::{Acl, Attributes, Deleted, Directive, ETag, Header, Object, Operation, Source, VersionId};

/// The writes of `operation` at `provider` (its identity). `content` is what the exchange's body carried; it
/// belongs to puts and parts and to nothing else.
///
/// `None` when the store has no word for the operation: a change of an object's lock. It is a gap then.
pub fn writes(provider: &str, operation: Operation, content: Option<Content>) -> Option<Vec<v1::Write>> {
    let at = |object: &Object| Some(object_ref(provider, object));
    let body = content.map(v1::Body::from);
    let change = match operation {
        Operation::Put { object, etag, version, attributes, .. } => Change::Put(v1::PutObject {
            object: at(&object),
            body,
            metadata: Some(metadata(attributes)),
            etag: etag.0,
            version_id: id(version),
        }),
        Operation::CreateMultipart { object, upload, attributes } => Change::CreateUpload(v1::CreateUpload {
            object: at(&object),
            upload_id: upload.0,
            metadata: Some(metadata(attributes)),
        }),
        Operation::PutPart { object, upload, number, etag, .. } => Change::Part(v1::UploadPart {
            object: at(&object),
            upload_id: upload.0,
            part_number: number.get().into(),
            body,
            etag: etag.0,
        }),
        Operation::CopyPart { object, upload, number, etag, source, range } => {
            let (first, last) = range.unwrap_or_default();
            Change::PartCopy(v1::UploadPartCopy {
                object: at(&object),
                upload_id: upload.0,
                part_number: number.get().into(),
                source: Some(copy_source(provider, source)),
                ranged: range.is_some(),
                first,
                last,
                etag: etag.0,
            })
        }
        Operation::CompleteMultipart { object, upload, parts, etag, version, attributes } => {
            let part = |(number, ETag(etag)): (crate::operation::PartNumber, ETag)| v1::CompletedPart {
                part_number: number.get().into(),
                etag,
            };
            Change::Complete(v1::CompleteUpload {
                object: at(&object),
                upload_id: upload.0,
                parts: parts.into_iter().map(part).collect(),
                etag: etag.0,
                version_id: id(version),
                metadata: Some(metadata(attributes)),
            })
        }
        Operation::AbortMultipart { object, upload } => {
            Change::Abort(v1::AbortUpload { object: at(&object), upload_id: upload.0 })
        }
        Operation::Copy { object, source, etag, version, metadata: whose, tagging, attributes } => {
            Change::Copy(v1::CopyObject {
                object: at(&object),
                source: Some(copy_source(provider, source)),
                replace_metadata: whose == Directive::FromRequest,
                replace_tags: tagging == Directive::FromRequest,
                metadata: Some(metadata(attributes)),
                etag: etag.0,
                version_id: id(version),
            })
        }
        Operation::Delete(deleted) => delete(provider, deleted),
        Operation::DeleteMany { deleted, .. } => {
            return Some(deleted.into_iter().map(|one| write(delete(provider, one))).collect());
        }
        Operation::SetTags { object, version, tags } => Change::SetTags(v1::SetTags {
            object: at(&object),
            version_id: id(version),
            tags: tags.into_iter().map(|tag| (tag.key, tag.value)).collect(),
        }),
        Operation::SetAcl { object, version, acl } => {
            Change::SetAcl(v1::SetAcl { object: at(&object), version_id: id(version), acl: acl_text(acl) })
        }
        Operation::SetLock { .. } => return None,
        Operation::CreateBucket { bucket } => {
            Change::Bucket(v1::BucketChange { provider: provider.to_owned(), bucket, deleted: false })
        }
        Operation::DeleteBucket { bucket } => {
            Change::Bucket(v1::BucketChange { provider: provider.to_owned(), bucket, deleted: true })
        }
    };
    Some(vec![write(change)])
}

/// An object as the wire names it.
pub fn object_ref(provider: &str, object: &Object) -> v1::ObjectRef {
    v1::ObjectRef {
        provider: provider.to_owned(),
        bucket: object.bucket.clone(),
        key: object.key.as_bytes().to_vec().into(),
    }
}

/// What an object carries besides its bytes. Its access list has a field of its own, as no HEAD shows it.
pub fn metadata(attributes: Attributes) -> v1::Metadata {
    let (access, shown): (Vec<Header>, Vec<Header>) = attributes.headers.into_iter().partition(is_access);
    let tags_known = attributes.tags.is_some();
    v1::Metadata {
        headers: shown.into_iter().map(|header| v1::Header { name: header.name, value: header.value }).collect(),
        tags: attributes.tags.into_iter().flatten().map(|tag| (tag.key, tag.value)).collect(),
        tags_known,
        acl: acl_text(Acl::Headers(access)),
        headers_known: true,
    }
}

fn is_access(header: &Header) -> bool {
    header.name == "x-amz-acl" || header.name.starts_with("x-amz-grant-")
}

/// The canned ACL's name, the XML, or the grants as lines of headers.
fn acl_text(acl: Acl) -> String {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    match acl {
        Acl::Policy(xml) => text(&xml),
        Acl::Headers(headers) => match &headers[..] {
            [canned] if canned.name == "x-amz-acl" => text(&canned.value),
            grants => {
                let lines: Vec<_> =
                    grants.iter().map(|grant| format!("{}: {}", grant.name, text(&grant.value))).collect();
                lines.join("\n")
            }
        },
    }
}

fn delete(provider: &str, deleted: Deleted) -> Change {
    Change::Delete(v1::DeleteObject {
        object: Some(object_ref(provider, &deleted.object)),
        version_id: id(deleted.version),
        delete_marker: deleted.marker.is_some(),
        marker_version_id: id(deleted.marker),
    })
}

fn copy_source(provider: &str, source: Source) -> v1::CopySource {
    v1::CopySource { object: Some(object_ref(provider, &source.object)), version_id: id(source.version) }
}

fn write(change: Change) -> v1::Write {
    v1::Write { change: Some(change) }
}

fn id(version: Option<VersionId>) -> String {
    version.map(|version| version.0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hawser_api::ObjectKey;

    use super::*;
    use crate::operation::Tag;

    fn header(name: &str, value: &'static str) -> Header {
        Header { name: name.into(), value: Bytes::from_static(value.as_bytes()) }
    }

    #[test]
    fn an_access_list_stands_beside_the_headers_that_a_head_shows() {
        let rows = [
            ("canned", vec![header("x-amz-acl", "private")], "private"),
            ("none", vec![], ""),
            (
                "grants",
                vec![header("x-amz-grant-read", "id=1"), header("x-amz-grant-write", "id=2")],
                "x-amz-grant-read: id=1\nx-amz-grant-write: id=2",
            ),
        ];
        for (what, mut headers, acl) in rows {
            headers.push(header("content-type", "text/plain"));
            let metadata = metadata(Attributes { headers, tags: None });
            assert_eq!(metadata.acl, acl, "{what}");
            assert_eq!(metadata.headers.len(), 1, "{what}");
            assert!(!metadata.tags_known, "{what}");
        }
        let tags = Some(vec![Tag { key: "a".into(), value: "b".into() }]);
        assert!(metadata(Attributes { headers: vec![], tags }).tags_known);
    }

    #[test]
    fn a_key_is_told_as_its_bytes() {
        let object = Object { bucket: "b".into(), key: ObjectKey::from_path(b"a//b%2F%ff") };
        assert_eq!(object_ref("p", &object).key.as_ref(), b"a//b/\xff");
    }
}

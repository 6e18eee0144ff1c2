//! Writes that change an object without its content: tags, access list, retention, legal hold.

use bytes::Bytes;
use hawser_api::GapReason;

use super::attributes;
use super::proven::Proven;
use super::xml::Element;
use crate::operation::{Acl, Header, Object, Operation, Tag, VersionId};

/// PutObjectTagging.
pub fn put_tags(proven: &Proven<'_>, object: Object, version: Option<VersionId>) -> Result<Operation, GapReason> {
    Ok(Operation::SetTags { object, version: touched(proven, version), tags: tags(&proven.document)? })
}

/// DeleteObjectTagging.
pub fn delete_tags(proven: &Proven<'_>, object: Object, version: Option<VersionId>) -> Operation {
    Operation::SetTags { object, version: touched(proven, version), tags: Vec::new() }
}

/// PutObjectAcl: by headers, or by a document.
pub fn put_acl(proven: &Proven<'_>, object: Object, version: Option<VersionId>) -> Result<Operation, GapReason> {
    let mut headers = attributes::given(proven.request).headers;
    headers.retain(|header| header.name == "x-amz-acl" || header.name.starts_with("x-amz-grant-"));
    let acl = match (headers.is_empty(), proven.document.is_empty()) {
        (false, _) => Acl::Headers(headers),
        (true, false) => Acl::Policy(proven.document.clone()),
        (true, true) => return Err(GapReason::Malformed),
    };
    Ok(Operation::SetAcl { object, version: touched(proven, version), acl })
}

/// PutObjectRetention. An empty document takes the retention away.
pub fn put_retention(proven: &Proven<'_>, object: Object, version: Option<VersionId>) -> Result<Operation, GapReason> {
    let root = document(&proven.document, "Retention")?;
    let header = |name: &str, element: &str| Header {
        name: name.to_owned(),
        value: Bytes::copy_from_slice(root.text_of(element).unwrap_or_default().trim().as_bytes()),
    };
    let lock = vec![
        header("x-amz-object-lock-mode", "Mode"),
        header("x-amz-object-lock-retain-until-date", "RetainUntilDate"),
    ];
    Ok(Operation::SetLock { object, version: touched(proven, version), lock })
}

/// PutObjectLegalHold.
pub fn put_legal_hold(proven: &Proven<'_>, object: Object, version: Option<VersionId>) -> Result<Operation, GapReason> {
    let status =
        document(&proven.document, "LegalHold")?.text_of("Status").ok_or(GapReason::Malformed)?.trim().to_owned();
    let lock = vec![Header { name: "x-amz-object-lock-legal-hold".into(), value: status.into() }];
    Ok(Operation::SetLock { object, version: touched(proven, version), lock })
}

/// The tags of a `Tagging` document.
pub fn tags(bytes: &[u8]) -> Result<Vec<Tag>, GapReason> {
    let root = document(bytes, "Tagging")?;
    let set = root.child("TagSet").ok_or(GapReason::Malformed)?;
    let tag = |tag: &Element| {
        let key = tag.text_of("Key").ok_or(GapReason::Malformed)?.to_owned();
        Ok(Tag { key, value: tag.text_of("Value").unwrap_or_default().to_owned() })
    };
    set.all("Tag").map(tag).collect()
}

fn document(bytes: &[u8], name: &str) -> Result<Element, GapReason> {
    Element::parse(bytes).ok().filter(|root| root.name == name).ok_or(GapReason::Malformed)
}

/// The version that was changed: the answered one, else the one that was asked for.
fn touched(proven: &Proven<'_>, asked: Option<VersionId>) -> Option<VersionId> {
    attributes::version(proven.answer).or(asked)
}

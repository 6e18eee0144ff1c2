//! Objects made of parts: CreateMultipartUpload, UploadPart, CompleteMultipartUpload, AbortMultipartUpload.

use hawser_api::GapReason;

use super::attributes;
use super::proven::Proven;
use super::xml::Element;
use crate::operation::{Attributes, ETag, Object, Operation, PartNumber, UploadId};

/// CreateMultipartUpload: the answer gives the upload its id.
pub fn create(proven: &Proven<'_>, object: Object) -> Result<Operation, GapReason> {
    let upload = proven.result("InitiateMultipartUploadResult")?.text_of("UploadId").ok_or(GapReason::Malformed)?;
    let mut attributes = attributes::given(proven.request);
    attributes::answered(&mut attributes, proven.answer);
    Ok(Operation::CreateMultipart { object, upload: UploadId(upload.to_owned()), attributes })
}

/// UploadPart.
pub fn part(proven: &Proven<'_>, object: Object, upload: UploadId, number: PartNumber) -> Result<Operation, GapReason> {
    let etag = attributes::etag(proven.answer).ok_or(GapReason::Malformed)?;
    Ok(Operation::PutPart { object, upload, number, length: proven.length, etag })
}

/// CompleteMultipartUpload: the parts that the request lists, by number and name. The rest of the upload drops.
pub fn complete(proven: &Proven<'_>, object: Object, upload: UploadId) -> Result<Operation, GapReason> {
    let result = proven.result("CompleteMultipartUploadResult")?;
    let etag = result.text_of("ETag").and_then(attributes::etag_of).ok_or(GapReason::Malformed)?;
    let mut attributes = Attributes::default();
    attributes::answered(&mut attributes, proven.answer);
    for child in &result.children {
        // `ChecksumCRC32` in the document is `x-amz-checksum-crc32` as a header.
        if let Some(name) = child.name.strip_prefix("Checksum")
            && !child.text.is_empty()
        {
            attributes::set(
                &mut attributes,
                format!("x-amz-checksum-{}", name.to_ascii_lowercase()),
                child.text.clone().into(),
            );
        }
    }
    Ok(Operation::CompleteMultipart {
        object,
        upload,
        parts: parts(&proven.document)?,
        etag,
        version: attributes::version(proven.answer),
        attributes,
    })
}

/// The parts that a Complete lists. S3 refuses a list that does not ascend; a server that takes one could put
/// the parts in either order, so such a list is not understood.
fn parts(document: &[u8]) -> Result<Vec<(PartNumber, ETag)>, GapReason> {
    let root = Element::parse(document).map_err(|_| GapReason::Malformed)?;
    if root.name != "CompleteMultipartUpload" {
        return Err(GapReason::Malformed);
    }
    let part = |part: &Element| {
        let number = part.text_of("PartNumber").and_then(PartNumber::parse)?;
        Some((number, part.text_of("ETag").and_then(attributes::etag_of)?))
    };
    let parts: Option<Vec<_>> = root.all("Part").map(part).collect();
    let ascending = |parts: &Vec<(PartNumber, ETag)>| parts.is_sorted_by(|(a, _), (b, _)| a < b) && !parts.is_empty();
    parts.filter(ascending).ok_or(GapReason::Malformed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_complete_lists_its_parts_ascending_with_holes() {
        let part = |number: &str, etag: &str| {
            format!(
                "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag><ChecksumCRC32>AA==</ChecksumCRC32></Part>"
            )
        };
        let list = |parts: &[(&str, &str)]| {
            let parts: String = parts.iter().map(|(number, etag)| part(number, etag)).collect();
            format!(
                "<?xml version=\"1.0\"?><CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{parts}</CompleteMultipartUpload>"
            )
        };
        let rows = [
            ("two with a hole", list(&[("1", "&quot;a&quot;"), ("7", "b")]), Some(vec![(1, "a"), (7, "b")])),
            ("descending", list(&[("2", "a"), ("1", "b")]), None),
            ("twice", list(&[("1", "a"), ("1", "b")]), None),
            ("none", list(&[]), None),
            ("number past the largest", list(&[("10001", "a")]), None),
            ("no name", list(&[("1", "")]), None),
            ("another document", "<Delete/>".into(), None),
            ("no document", String::new(), None),
        ];
        for (trap, document, wanted) in rows {
            let wanted = wanted
                .map(|parts| parts.into_iter().map(|(number, etag)| (number, ETag(etag.into()))).collect::<Vec<_>>());
            let seen = parts(document.as_bytes()).ok();
            assert_eq!(
                seen.map(|parts| parts.into_iter().map(|(number, etag)| (number.get(), etag)).collect::<Vec<_>>()),
                wanted,
                "{trap}"
            );
        }
    }
}

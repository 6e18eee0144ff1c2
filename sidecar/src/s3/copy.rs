//! Copies that the cloud makes itself: CopyObject and UploadPartCopy. No content passes by.

use hawser_api::GapReason;

use super::attributes;
use super::proven::Proven;
use super::request::CopySource;
use crate::operation::{Directive, Object, Operation, PartNumber, Source, UploadId, VersionId};

/// CopyObject.
pub fn copy(
    proven: &Proven<'_>,
    object: Object,
    from: CopySource,
    metadata: Directive,
    tagging: Directive,
) -> Result<Operation, GapReason> {
    let result = proven.result("CopyObjectResult")?;
    let etag = result.text_of("ETag").and_then(attributes::etag_of).ok_or(GapReason::Malformed)?;
    let mut own = attributes::given(proven.request);
    if metadata == Directive::FromSource {
        attributes::leave_out_copied(&mut own);
    }
    if tagging == Directive::FromSource {
        own.tags = None;
    }
    attributes::answered(&mut own, proven.answer);
    Ok(Operation::Copy {
        object,
        source: answered(proven, from.source),
        etag,
        version: attributes::version(proven.answer),
        metadata,
        tagging,
        attributes: own,
    })
}

/// UploadPartCopy.
pub fn part(
    proven: &Proven<'_>,
    object: Object,
    upload: UploadId,
    number: PartNumber,
    from: CopySource,
) -> Result<Operation, GapReason> {
    let result = proven.result("CopyPartResult")?;
    let etag = result.text_of("ETag").and_then(attributes::etag_of).ok_or(GapReason::Malformed)?;
    let range = from.range;
    Ok(Operation::CopyPart { object, upload, number, etag, source: answered(proven, from.source), range })
}

/// The source in the version that the cloud says it copied.
fn answered(proven: &Proven<'_>, mut source: Source) -> Source {
    let version = proven.answer.text("x-amz-copy-source-version-id").filter(|id| !id.is_empty());
    source.version = version.map(|id| VersionId(id.to_owned())).or(source.version);
    source
}

//! Objects whose content is the body: PutObject and the browser's PostObject.

use hawser_api::GapReason;

use super::attributes;
use super::form::Form;
use super::proven::Proven;
use crate::operation::{Object, Operation};

/// PutObject.
pub fn put(proven: &Proven<'_>, object: Object) -> Result<Operation, GapReason> {
    // What an append answers; and a cloud that kept another length than we saw keeps another object.
    let kept = proven.answer.text("x-amz-object-size").and_then(|text| text.trim().parse::<u64>().ok());
    if kept.is_some_and(|kept| kept != proven.length) {
        return Err(GapReason::ChecksumMismatch);
    }
    let mut attributes = attributes::given(proven.request);
    for (name, value) in proven.trailer_checksums() {
        attributes::set(&mut attributes, name, value);
    }
    attributes::answered(&mut attributes, proven.answer);
    let etag = attributes::etag(proven.answer).ok_or(GapReason::Malformed)?;
    Ok(Operation::Put { object, length: proven.length, etag, version: attributes::version(proven.answer), attributes })
}

/// PostObject.
pub fn post(proven: &Proven<'_>, bucket: String, form: &Form) -> Result<Operation, GapReason> {
    let key = form.key().ok_or(GapReason::Malformed)?;
    let mut attributes = form.attributes()?;
    attributes::answered(&mut attributes, proven.answer);
    let etag = attributes::etag(proven.answer).ok_or(GapReason::Malformed)?;
    let version = attributes::version(proven.answer);
    Ok(Operation::Put { object: Object { bucket, key }, length: form.length(), etag, version, attributes })
}

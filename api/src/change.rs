//! The kinds of writes, by the words in which an intent and the gap that it may leave name them: for people,
//! and for the few rules that ask what a write can have changed.

/// Begins a multipart upload.
pub const CREATE_UPLOAD: &str = "create upload";
/// Gives a multipart upload up.
pub const ABORT: &str = "abort";
/// Copies an object, perhaps onto itself with other metadata.
pub const COPY: &str = "copy";
/// Sets the tags of an object.
pub const TAGS: &str = "tags";
/// Sets the access rules of an object.
pub const ACL: &str = "acl";
/// Sets a lock on an object.
pub const LOCK: &str = "lock";
/// Changes an object in a way that is not captured.
pub const NOT_CAPTURED: &str = "a change that is not captured";

/// Whether a write of this kind changes no object: the upload that it begins or ends is none yet.
pub fn changes_no_object(kind: &str) -> bool {
    matches!(kind, CREATE_UPLOAD | ABORT)
}

/// Whether a write of this kind leaves every object with the content that it had.
pub fn keeps_content(kind: &str) -> bool {
    changes_no_object(kind) || matches!(kind, TAGS | ACL | LOCK)
}

/// Whether a write of this kind may change metadata under an ETag that stays the same.
pub fn may_keep_the_etag(kind: &str) -> bool {
    matches!(kind, COPY | TAGS | ACL | NOT_CAPTURED)
}

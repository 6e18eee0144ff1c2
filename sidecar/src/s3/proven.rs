//! From a proven exchange to its operation; the families make it in their own files.

use bytes::Bytes;
use hawser_api::GapReason;

use super::form::Form;
use super::request::Ask;
use super::write::Verdict;
use super::xml::Element;
use super::{copy, delete, metadata, multipart, put};
use crate::http::head::Fields;
use crate::operation::{Object, Operation, Place};

/// Everything that is known of a write that the cloud said yes to.
pub struct Proven<'a> {
    /// The request's fields.
    pub request: &'a Fields,
    /// The answer's fields.
    pub answer: &'a Fields,
    /// Checksums that came in a trailer, by name.
    pub trailer: Vec<(String, Bytes)>,
    /// Length of the content.
    pub length: u64,
    /// The request's document; empty when it has none.
    pub document: Bytes,
    /// The answer's document, where it decides.
    pub result: Option<Element>,
    /// The browser's form, if it is one.
    pub form: Option<&'a Form>,
}

impl Proven<'_> {
    /// The answer's document, if it has that name.
    pub fn result(&self, name: &str) -> Result<&Element, GapReason> {
        self.result.as_ref().filter(|root| root.name == name).ok_or(GapReason::Malformed)
    }

    /// Checksums that came in a trailer.
    pub fn trailer_checksums(&self) -> impl Iterator<Item = (String, Bytes)> {
        self.trailer.iter().cloned()
    }
}

/// What the cloud did.
///
/// # Errors
/// Why that cannot be told, although the cloud said yes.
pub fn operation(proven: &Proven<'_>, place: &Place, ask: Ask) -> Result<Operation, GapReason> {
    match ask {
        Ask::Put => put::put(proven, object(place)?),
        Ask::Form => put::post(proven, bucket(place)?, proven.form.ok_or(GapReason::Malformed)?),
        Ask::CreateMultipart => multipart::create(proven, object(place)?),
        Ask::PutPart(upload, number) => multipart::part(proven, object(place)?, upload, number),
        Ask::CopyPart(upload, number, from) => {
            copy::part(proven, object(place)?, upload, number, from.ok_or(GapReason::UnknownSource)?)
        }
        Ask::CompleteMultipart(upload) => multipart::complete(proven, object(place)?, upload),
        Ask::AbortMultipart(upload) => Ok(Operation::AbortMultipart { object: object(place)?, upload }),
        Ask::Copy(from, metadata, tagging) => {
            copy::copy(proven, object(place)?, from.ok_or(GapReason::UnknownSource)?, metadata, tagging)
        }
        Ask::Delete(version) => Ok(delete::one(proven, object(place)?, version)),
        Ask::DeleteMany => delete::many(proven, bucket(place)?),
        Ask::PutTags(version) => metadata::put_tags(proven, object(place)?, version),
        Ask::DeleteTags(version) => Ok(metadata::delete_tags(proven, object(place)?, version)),
        Ask::PutAcl(version) => metadata::put_acl(proven, object(place)?, version),
        Ask::PutRetention(version) => metadata::put_retention(proven, object(place)?, version),
        Ask::PutLegalHold(version) => metadata::put_legal_hold(proven, object(place)?, version),
        Ask::CreateBucket => Ok(Operation::CreateBucket { bucket: bucket(place)? }),
        Ask::DeleteBucket => Ok(Operation::DeleteBucket { bucket: bucket(place)? }),
        Ask::Unsupported => Err(GapReason::Unsupported),
    }
}

/// What an answer's document says of a write: S3 may send a 200, white space while it works, and then an error.
pub fn verdict(document: &[u8]) -> (Verdict, Option<Element>) {
    match Element::parse(document) {
        Ok(root) if root.name == "Error" && is_servers_failure(&root) => {
            (Verdict::Unclear(GapReason::OutcomeUnknown), None)
        }
        Ok(root) if root.name == "Error" => (Verdict::No, None),
        Ok(root) => (Verdict::Yes, Some(root)),
        Err(_) => (Verdict::Unclear(GapReason::Malformed), None),
    }
}

/// Whether an `Error` is a failure of the server, which leaves open what it did, not a refusal.
pub fn is_servers_failure(error: &Element) -> bool {
    matches!(
        error.text_of("Code"),
        None | Some("InternalError" | "ServiceUnavailable" | "SlowDown" | "RequestTimeout" | "503")
    )
}

fn object(place: &Place) -> Result<Object, GapReason> {
    place.object().cloned().ok_or(GapReason::Malformed)
}

fn bucket(place: &Place) -> Result<String, GapReason> {
    place.bucket().map(str::to_owned).ok_or(GapReason::Malformed)
}
